"""Host signals on behalf of the guest: install our native handlers, take what they have noted.

Python's own signal handling is left out: its handlers run between bytecodes, ours note a signal at once and make
translated code leave at its next poll.
"""

from __future__ import annotations

import ctypes
from _thread import allocate_lock

from dbt.errors import UserError

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
from .layout import MAX_CPUS, SIGINFO_BYTES, SIGNAL_RING, SignalRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .runtime import Runtime

SIG_DFL, SIG_IGN = 0, 1
SIG_SETMASK = 2
SS_DISABLE = 2
FAULTS = (4, 5, 7, 8, 11)  # SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV: our handler stays in place for these
STACK_BYTES = 1 << 16
ALL_SIGNALS = (1 << 64) - 1
MASK_BYTES = 8


def _mask(signals: tuple[int, ...]) -> int:
    return sum(1 << (signo - 1) for signo in signals)


_EVERYTHING = ALL_SIGNALS & ~_mask((*FAULTS, 9, 19))  # that can be blocked, but for faults


class _Shared:
    """What all CPUs of the process have in common: the handlers of faults. They stay while there is a CPU."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.saved: dict[int, list[bytes]] = {}  # actions that ours have replaced, the last one last
        self.cpus = 0
        self.stack = 0


_shared = _Shared()


class Signals:
    """The host's dispositions while a guest runs, for one CPU."""

    def __init__(self, runtime: Runtime, env: Any) -> None:
        self._runtime = runtime
        self._env = env
        self._area = runtime.area
        self._action = hostmem.map_anonymous(4096)
        self._env_address = 0
        self._slot = -1
        self._guest = False
        self._lent: dict[int, tuple[bytes, int]] = {}
        self._before: dict[int, bytes] = {}  # actions of the host before the guest's took their places
        self._ignored: dict[int, bytes] = {}

    def start(self, env_address: int) -> None:
        """Take the faults of this CPU's translated code."""
        area = self._area
        self._env_address = env_address
        with _shared.lock:
            self._slot = next((slot for slot in range(MAX_CPUS) if not area.cpus[slot]), -1)
            if self._slot < 0:
                raise UserError(f"there are {MAX_CPUS} CPUs in this process already", "Close one of them.")
            area.cpus[self._slot] = env_address
            area.env = env_address
            _shared.cpus += 1
            self._give_stack()
            self._take_faults()

    def stop(self) -> None:
        """The CPU goes: what the guest changed comes back, with the last CPU what was there before the first, too."""
        self.guest(on=False)
        for signo, action in self._before.items():
            self._put_back(signo, action)
        self._before.clear()
        with _shared.lock:
            if self._slot >= 0:
                self._area.cpus[self._slot] = 0
                self._slot = -1
                _shared.cpus -= 1
            if self._area.env == self._env_address:
                self._area.env = 0
            if not _shared.cpus:
                self._leave_faults()
        if self._action:
            hostmem.unmap_memory(self._action, 4096)
            self._action = 0

    def take_faults(self) -> None:
        """Before a run: where somebody has set an action for faults since, put ours in front of it.

        Such are faulthandler.enable() and signal.signal() while there is a CPU. Without this they would get the
        guest's faults; with it they get those that are not the guest's, as handlers from before the CPU do.
        """
        area = self._area
        area.crashed = 0
        if self._runtime.foreign_actions(self._runtime.area_address):
            with _shared.lock:
                self._take_faults()

    def _take_faults(self) -> None:
        area = self._area
        foreign = int(self._runtime.foreign_actions(self._runtime.area_address))
        for signo in FAULTS:
            if foreign >> signo & 1:
                # Its own signal is blocked anyway while a handler runs: that bit only tells this action from the last.
                mask = area.masks[signo] = (
                    int(area.masks[signo]) ^ _mask((signo,)) if area.masks[signo] else _EVERYTHING
                )
                old = self._set(signo, self._runtime.signal_handler, SA_SIGINFO | SA_ONSTACK, mask)
                self._note_replaced(signo, old)

    def _note_replaced(self, signo: int, action: bytes) -> None:
        """An action that is not the last one of ours is gone."""
        saved = _shared.saved.setdefault(signo, [])
        if _handler_of(action) != self._runtime.signal_handler:
            saved.append(action)
        elif len(saved) > 1:
            saved.pop()  # who came last has put back what there was before: an action of ours
        if saved:
            self._area.previous[signo] = _handler_of(saved[-1])

    def _leave_faults(self) -> None:
        """Put back what our actions have replaced, but where somebody has replaced ours."""
        foreign = int(self._runtime.foreign_actions(self._runtime.area_address))
        for signo, saved in _shared.saved.items():
            if foreign >> signo & 1:
                self._note_replaced(signo, self._get(signo))
            if saved:
                self._put_back(signo, saved[-1])
                # Whoever came after us may put back an action of ours later: it stands for what was there before him.
                self._area.previous[signo] = _handler_of(saved[-2:][0])
        _shared.saved.clear()

    def guest(self, *, on: bool) -> None:
        """Whether a program runs on this CPU, to which signals of the kinds that faults have may be sent."""
        with _shared.lock:
            self._area.guests += (on and not self._guest) - (self._guest and not on)
            self._guest = on

    def _give_stack(self) -> None:
        """An alternate stack for the first thread, if it has none; it stays. Translated code needs none."""
        if _shared.stack:
            return
        self._call(SYS_SIGALTSTACK, 0, self._action)
        if not int.from_bytes(ctypes.string_at(self._action + 8, 4), "little") & SS_DISABLE:
            return
        _shared.stack = hostmem.map_anonymous(STACK_BYTES)
        words = (_shared.stack, 0, STACK_BYTES)
        ctypes.memmove(self._action, b"".join(word.to_bytes(8, "little") for word in words), 24)
        self._call(SYS_SIGALTSTACK, self._action, 0)

    def _put_back(self, signo: int, old: bytes) -> None:
        ctypes.memmove(self._action, old, KernelSigaction.size)
        self._call(SYS_SIGACTION, signo, self._action, 0, MASK_BYTES)

    def install(self, signo: int, flags: int = 0) -> None:
        """Note a signal for the guest from now on. `flags`: SA_NOCLDSTOP, SA_NOCLDWAIT."""
        if signo not in FAULTS:
            self._before.setdefault(signo, self._note_from_now_on(signo, flags))

    def restore(self, signo: int, how: int, flags: int = 0) -> None:
        """Give a signal its default action (0) or have it ignored (1)."""
        if signo not in FAULTS:
            self._before.setdefault(signo, self._set(signo, how, flags, 0))

    def die(self, signo: int) -> None:
        """The default action, for the faults as well: so that one can die of the signal."""
        self._set(signo, SIG_DFL, 0, 0)

    def ignore(self, signo: int) -> None:
        """Have a fault's signal ignored, for a program that replaces us."""
        self._ignored[signo] = self._set(signo, SIG_IGN, 0, 0)

    def take_back(self) -> None:
        """Undo `ignore`: it was not replaced."""
        for signo, action in self._ignored.items():
            self._put_back(signo, action)
        self._ignored.clear()

    def borrow(self, signo: int) -> None:
        """As install, remembering the handler that is there, for `give_back`."""
        before = int(self._area.env)
        self._area.env = self._env_address
        self._lent[signo] = (self._note_from_now_on(signo, 0), before)

    def give_back(self, signo: int) -> None:
        """Put back the handler that `borrow` found."""
        action, before = self._lent.pop(signo)
        self._put_back(signo, action)
        self._area.env = before

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
        return self._set(signo, self._runtime.signal_handler, SA_SIGINFO | SA_ONSTACK | flags, _EVERYTHING)

    def _get(self, signo: int) -> bytes:
        """The action of a signal as the kernel's struct."""
        self._call(SYS_SIGACTION, signo, 0, self._action, MASK_BYTES)
        return ctypes.string_at(self._action, KernelSigaction.size)

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


def _handler_of(action: bytes) -> int:
    return int.from_bytes(action[:8], "little")
