"""Host system calls and signals without the native runtime, for the reference engine: no LLVM is needed.

Signals are noted by Python's own handlers, so they are seen between two instructions of the reference engine. What
a handler cannot know (the sender) is reported as zero.
"""

from __future__ import annotations

import ctypes
import signal

from .layout import SIGINFO_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

NOT_STARTED = -512
FAULTS = (signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
EINTR = 4


class PlainKernel:
    """Raw system calls of the host through the C library: results are -errno, nothing is restarted."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def call(self, number: int, *args: int) -> int:
        """Make a system call in any case."""
        # Arguments are passed as 64-bit words whatever their sign.
        words = [ctypes.c_ulong(arg & 0xFFFFFFFFFFFFFFFF) for arg in args]
        result = int(self._syscall(ctypes.c_long(number), *words))
        return -ctypes.get_errno() if result == -1 else result

    def wait(self, number: int, *args: int) -> int:
        """The same for a call that may wait; a signal that comes between the look and the call waits as long."""
        if self._env.poll:
            return NOT_STARTED
        return self.call(number, *args)


class PlainSignals:
    """The interface of signals.Signals over Python's signal module."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._noted: list[tuple[int, bytes]] = []
        self._lent: dict[int, Any] = {}
        self._before: dict[int, Any] = {}  # handlers of Python's before the guest's took their places

    def stop(self) -> None:
        """The CPU goes: what the guest changed comes back."""
        for signo, handler in self._before.items():
            signal.signal(signo, handler)
        self._before.clear()

    def guest(self, *, on: bool) -> None:
        """Nothing: there are no handlers of ours for faults."""

    def take_faults(self) -> None:
        """Nothing, for the same reason."""

    def install(self, signo: int, flags: int = 0) -> None:
        """Note a signal for the guest from now on."""
        del flags  # SA_NOCLDSTOP and SA_NOCLDWAIT cannot be said through Python
        if signo not in FAULTS and signo in signal.valid_signals():
            self._before.setdefault(signo, signal.signal(signo, self._note))
            signal.siginterrupt(signo, True)

    def restore(self, signo: int, how: int, flags: int = 0) -> None:
        """Give a signal its default action (0) or have it ignored (1)."""
        del flags
        if signo not in FAULTS and signo in signal.valid_signals():  # not 32 and 33, which are the C library's
            self._before.setdefault(signo, signal.signal(signo, signal.SIG_IGN if how else signal.SIG_DFL))

    def borrow(self, signo: int) -> None:
        """As install, remembering the handler that is there, for `give_back`."""
        self._lent[signo] = signal.signal(signo, self._note)

    def give_back(self, signo: int) -> None:
        """Put back the handler that `borrow` found."""
        signal.signal(signo, self._lent.pop(signo))

    def unblock(self) -> None:
        """Nothing: Python's handlers leave no mask behind."""

    def die(self, signo: int) -> None:
        """The default action, so that one can die of the signal."""
        signal.signal(signo, signal.SIG_DFL)

    def ignore(self, signo: int) -> None:
        """Have a fault's signal ignored, for a program that replaces us."""
        signal.signal(signo, signal.SIG_IGN)

    def take_back(self) -> None:
        """Undo `ignore`: it was not replaced."""
        for signo in FAULTS:
            if signal.getsignal(signo) == signal.SIG_IGN:
                signal.signal(signo, signal.SIG_DFL)

    def take(self) -> list[tuple[int, bytes]]:
        """What has arrived: (signal number, siginfo)."""
        self._env.poll = 0
        noted, self._noted = self._noted, []
        return noted

    def _note(self, signo: int, _frame: FrameType | None) -> None:
        self._noted.append((signo, signo.to_bytes(4, "little").ljust(SIGINFO_BYTES, b"\0")))
        self._env.poll = 1
