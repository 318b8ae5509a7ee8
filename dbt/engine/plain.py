"""Host system calls and signals without the native runtime, for the reference engine: no LLVM is needed.

Signals are noted by Python's own handlers, so they are seen between two instructions of the reference engine. These
know no siginfo: a few bytes of machine code in front of Python's handler keep it. Where the host lets nobody make code,
the sender is reported as zero; of realtime signals that come faster than Python looks, the last one's is known.
"""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress

from . import hostmem
from .host_x86_64 import SA_SIGINFO, SYS_SIGACTION, KernelSigaction, keeping_handler
from .layout import SIGINFO_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

NOT_STARTED = -512
FAULTS = (signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
EINTR = 4
SIGNALS = 64


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


class _Infos:
    """The siginfo of each signal that came last, for the process: Python may look after a CPU is gone."""

    def __init__(self) -> None:
        self._area = 0
        self._code: dict[int, int] = {}  # handlers that keep it, by what they go on to

    def before(self, handler: int) -> int:
        """The address of code that keeps the siginfo and goes on to `handler`. Raises OSError."""
        if not self._area:
            self._area = hostmem.map_anonymous((SIGNALS + 1) * SIGINFO_BYTES)
        if handler in self._code.values():
            return handler
        if handler not in self._code:
            self._code[handler] = hostmem.place_code(keeping_handler(self._area, handler))
        return self._code[handler]

    def kept(self, signo: int) -> bytes:
        """What is known of a signal."""
        return (
            ctypes.string_at(self._area + signo * SIGINFO_BYTES, SIGINFO_BYTES) if self._area else bytes(SIGINFO_BYTES)
        )


_infos = _Infos()


class PlainSignals:
    """The interface of signals.Signals over Python's signal module."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._noted: list[tuple[int, bytes]] = []
        self._lent: dict[int, Any] = {}
        self._before: dict[int, Any] = {}  # handlers of Python's before the guest's took their places
        self._kernel = PlainKernel(env)

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
            self._keep_info(signo)

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
        self._noted.append((signo, signo.to_bytes(4, "little") + _infos.kept(signo)[4:]))
        self._env.poll = 1

    def _keep_info(self, signo: int) -> None:
        """Have the siginfo copied before Python's handler runs."""
        raw = ctypes.create_string_buffer(KernelSigaction.size)
        action = KernelSigaction.at(ctypes.addressof(raw))
        if self._kernel.call(SYS_SIGACTION, signo, 0, ctypes.addressof(raw), 8):
            return
        with suppress(OSError):  # the host does not let us make code
            action.handler = _infos.before(int(action.handler))
            action.flags = int(action.flags) | SA_SIGINFO
            self._kernel.call(SYS_SIGACTION, signo, ctypes.addressof(raw), 0, 8)
