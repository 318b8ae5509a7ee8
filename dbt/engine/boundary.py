"""Changes that tools make to a CPU take effect between two instructions, whoever makes them and whenever.

Breakpoints, watchpoints and hooks change what is translated and what pages may do: never while translated code runs.
The thread that runs the CPU, in a callback or between two runs, changes things at once. Any other one leaves the change
here and has the CPU come out at its next boundary (the poll word), where the change is made before it goes on.
"""

from __future__ import annotations

from _thread import RLock, get_ident

from dbt.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Boundary:
    """One CPU's. It is held, as a context, by whoever runs the CPU; by one thread, as often as it likes."""

    __slots__ = ("_changes", "_closed", "_depth", "_hurry", "_runner", "lock")

    def __init__(self, hurry: Callable[[], object]) -> None:
        self._hurry = hurry  # makes a CPU that runs come out soon
        self.lock = RLock()
        self._runner = 0
        self._depth = 0
        self._closed = False
        self._changes: list[Callable[[], object]] = []

    def __enter__(self) -> None:
        me = get_ident()
        with self.lock:
            self._check_open()
            if self.elsewhere:
                raise UserError("this CPU runs in another thread", "Wait for it, or open another CPU.")
            self._runner = me
            self._depth += 1
            if self._changes:
                self._make()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._depth -= 1
            if not self._depth:
                self._runner = 0
            if self._changes:
                self._make()

    def outermost(self) -> Boundary:
        """To be held by what may not be done in a callback: the CPU is in the middle of something. Raises UserError."""
        with self.lock:
            self._check_open()
            if self._runner == get_ident():
                raise UserError("this CPU runs already", "Have the callback return first, or open another CPU.")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether another thread runs the CPU. That does not change while `lock` is held."""
        return self._runner not in {0, get_ident()}

    def close(self) -> bool:
        """Nothing runs on the CPU any more; False if that was so. Raises UserError while something does."""
        with self.lock:
            if self._closed:
                return False
            if self._runner:
                raise UserError("this CPU runs: it cannot be closed", "Stop it, and close it when `run` has returned.")
            self._closed = True
            self._changes.clear()
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("this CPU is closed", "Open another one.")

    def change(self, change: Callable[[], object]) -> None:
        """Have a change made at the next boundary: at once, unless another thread runs the CPU. It must not raise.

        On a CPU that is closed there is nothing to change.
        """
        with self.lock:
            if self._closed:
                return
            if not self.elsewhere:
                self._make()
                change()
            else:
                self._changes.append(change)
                self._hurry()

    def _make(self) -> None:
        while self._changes:
            self._changes.pop(0)()
