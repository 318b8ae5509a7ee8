"""Host signals on behalf of the guest: install our native handlers, take what they have noted.

Python's own signal handling is left out: its handlers run between bytecodes, ours note a signal at once and make
translated code leave at its next poll.
"""

from __future__ import annotations

import ctypes

from . import hostmem
from .host_x86_64 import (
    SA_ONSTACK,
    SA_RESTORER,
    SA_SIGINFO,
    SYS_SIGACTION,
    SYS_SIGALTSTACK,
    SYS_SIGPROCMASK,
    KernelSigaction,
)
from .layout import SIGINFO_BYTES, SIGNAL_RING, SignalRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .runtime import Runtime

SIG_DFL, SIG_IGN = 0, 1
SIG_SETMASK = 2
FAULTS = (4, 5, 7, 8, 11)  # SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV: our handler stays in place for these
STACK_BYTES = 1 << 16
ALL_SIGNALS = (1 << 64) - 1
MASK_BYTES = 8


class Signals:
    """The host's dispositions while a guest runs. One for a process."""

    def __init__(self, runtime: Runtime, env: Any) -> None:
        self._runtime = runtime
        self._env = env
        self._area = runtime.area
        self._action = hostmem.map_anonymous(4096)
        self._stack = 0
        self._saved: dict[int, bytes] = {}
        self._lent: dict[int, bytes] = {}

    def start(self, env_address: int) -> None:
        """Take the faults of translated code: alternate stack and handlers of this thread."""
        self._area.env = env_address
        if not self._stack:
            self._stack = hostmem.map_anonymous(STACK_BYTES)
            ctypes.memmove(
                self._action,
                self._stack.to_bytes(8, "little") + (0).to_bytes(8, "little") + STACK_BYTES.to_bytes(8, "little"),
                24,
            )
            self._call(SYS_SIGALTSTACK, self._action, self._action + 64)
            self._saved[0] = ctypes.string_at(self._action + 64, 24)
        for signo in FAULTS:
            old = self._note_from_now_on(signo, 0)
            if signo not in self._saved:
                self._saved[signo] = old
                self._area.previous[signo] = int.from_bytes(old[:8], "little")

    def stop(self) -> None:
        """Put back what was there before `start`."""
        self._area.env = 0
        for signo, old in self._saved.items():
            if signo:
                ctypes.memmove(self._action, old, KernelSigaction.size)
                self._call(SYS_SIGACTION, signo, self._action, 0, MASK_BYTES)
        if 0 in self._saved:
            ctypes.memmove(self._action, self._saved[0], 24)
            self._call(SYS_SIGALTSTACK, self._action, 0)
            hostmem.unmap_memory(self._stack, STACK_BYTES)
            self._stack = 0
        self._saved.clear()

    def install(self, signo: int, flags: int = 0) -> None:
        """Note a signal for the guest from now on. `flags`: SA_NOCLDSTOP, SA_NOCLDWAIT."""
        if signo not in FAULTS:
            self._set(
                signo, self._runtime.signal_handler, SA_SIGINFO | SA_ONSTACK | flags, ALL_SIGNALS & ~_mask(FAULTS)
            )

    def restore(self, signo: int, how: int, flags: int = 0) -> None:
        """Give a signal its default action (0) or have it ignored (1)."""
        if signo not in FAULTS:
            self._set(signo, how, flags, 0)

    def die(self, signo: int) -> None:
        """The default action, for the faults as well: so that one can die of the signal."""
        self._set(signo, SIG_DFL, 0, 0)

    def borrow(self, signo: int) -> None:
        """As install, remembering the handler that is there, for `give_back`."""
        self._lent[signo] = self._note_from_now_on(signo, 0)

    def give_back(self, signo: int) -> None:
        """Put back the handler that `borrow` found."""
        ctypes.memmove(self._action, self._lent.pop(signo), KernelSigaction.size)
        self._call(SYS_SIGACTION, signo, self._action, 0, MASK_BYTES)

    def unblock(self) -> None:
        """Lift the mask that the handler leaves behind when it has noted a signal."""
        ctypes.memmove(self._action, (0).to_bytes(8, "little"), 8)
        self._call(SYS_SIGPROCMASK, SIG_SETMASK, self._action, 0, MASK_BYTES)

    def take(self) -> list[tuple[int, bytes]]:
        """What has arrived: (signal number, siginfo of 128 bytes). The poll word is cleared first."""
        self._env.poll = 0
        area = self._area
        found = []
        while area.tail != area.head:
            slot = self._runtime.ring + (area.tail % SIGNAL_RING) * SignalRecord.size
            raw = ctypes.string_at(slot, SignalRecord.size)
            found.append((int.from_bytes(raw[:8], "little"), raw[8 : 8 + SIGINFO_BYTES]))
            area.tail += 1
        return found

    def _note_from_now_on(self, signo: int, flags: int) -> bytes:
        everything = ALL_SIGNALS & ~_mask(FAULTS)
        return self._set(signo, self._runtime.signal_handler, SA_SIGINFO | SA_ONSTACK | flags, everything)

    def _set(self, signo: int, handler: int, flags: int, mask: int) -> bytes:
        """rt_sigaction; returns the old action as the kernel's struct."""
        new = (handler, flags | SA_RESTORER, self._runtime.signal_return, mask)
        ctypes.memmove(self._action, b"".join(word.to_bytes(8, "little") for word in new), KernelSigaction.size)
        self._call(SYS_SIGACTION, signo, self._action, self._action + 64, MASK_BYTES)
        return ctypes.string_at(self._action + 64, KernelSigaction.size)

    def _call(self, number: int, *args: int) -> None:
        result = self._runtime.raw(number, *args, *(0,) * (6 - len(args)))
        if result < 0:
            raise OSError(-result, f"host system call {number}")


def _mask(signals: tuple[int, ...]) -> int:
    return sum(1 << (signo - 1) for signo in signals)
