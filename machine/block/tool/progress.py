"""Progress on standard error, on a terminal only, by tqdm, which is loaded when there is something to show."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

DELAY = 0.5  # seconds before a bar appears: what is done sooner needs none


class Progress:
    """A bar over `total` bytes; `show`: whether the user wants one."""

    def __init__(self, total: int, what: str, *, show: bool = True) -> None:
        self._bar: Any = None
        if show and total and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024, delay=DELAY, file=sys.stderr
            )

    def reach(self, position: int) -> None:
        """What lies before `position` is done. From one thread at a time."""
        if self._bar is not None and position > self._bar.n:
            self._bar.update(position - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
