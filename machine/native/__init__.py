"""Native parts of machines, in the subset of dbt/native: what is called too often for Python, or needs a fence.

The functions are compiled into `machine.image` in the cache by `prepare`, which takes some seconds once. The commands
`cache build` and `demo` do it ahead; `load` gives the image, and prepares it where nobody did.
Each has a counterpart in plain Python, which says what it has to do.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from dbt.errors import CacheUnusable, InternalError

if TYPE_CHECKING:
    from dbt.engine.cache import Store
    from dbt.engine.image import Image

IMAGE, JOB = "machine.image", "machine"


def prepare(store: Store) -> None:
    """Have the worker build the image if it is not there, with progress unless the store is quiet. InternalError."""
    if not store.has(IMAGE):
        store.build([(JOB,)])


@cache
def load(*, quiet: bool = True) -> Image | None:
    """The image of this process; None, after a word about why, if it cannot be had: Python does the work then.

    `quiet`: no progress is shown while it is built.
    """
    from dbt.engine.cache import Store, say_once
    from dbt.engine.image import ImageError

    try:
        store = Store(quiet=quiet)
        prepare(store)
        return store.image(IMAGE, JOB)
    except (CacheUnusable, ImageError, InternalError, OSError) as error:
        say_once("machine", f"native code of machines is not used: {error}")
        return None
