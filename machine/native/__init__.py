"""Native parts of machines, in the subset of dbt/native: what is called too often for Python, or needs a fence.

The functions are compiled into `machine.image` in the cache; `load` gives it, built by the worker if it is not there.
Each has a counterpart in plain Python, which says what it has to do.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from dbt.errors import CacheUnusable, InternalError

if TYPE_CHECKING:
    from dbt.engine.image import Image

IMAGE, JOB = "machine.image", "machine"


@cache
def load() -> Image | None:
    """The image of this process; None, after a word about why, if it cannot be had: Python does the work then."""
    from dbt.engine.cache import Store, say_once
    from dbt.engine.image import ImageError

    try:
        store = Store(quiet=True)
        if not store.has(IMAGE):
            store.build([(JOB,)])
        return store.image(IMAGE, JOB)
    except (CacheUnusable, ImageError, InternalError, OSError) as error:
        say_once("machine", f"native code of machines is not used: {error}")
        return None
