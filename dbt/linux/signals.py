"""Signals: dispositions, the mask, what arrives from the host, and delivery to the guest.

Sources: linux/kernel/signal.c, signal(7). The guest's mask is the host's, but for the signals that translated code
itself may raise (their handler must always run). A disposition of the guest is set at the host too, so that the host's
kernel decides about default actions, stopping and ignoring; a guest's handler becomes the native one, which notes the
signal, blocks all others and sets the poll word. So the kernel keeps what is pending, in its own order.
"""

from __future__ import annotations

import os
from struct import pack

from .abi import ERESTARTSYS, U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from .process import Process

SIG_DFL, SIG_IGN = 0, 1
SIGINT, SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGPIPE = 2, 4, 5, 7, 8, 9, 11, 13
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXFSZ, SIGWINCH = 17, 18, 19, 20, 21, 22, 23, 25, 28
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_ONSTACK = 1, 2, 4, 0x08000000
SA_RESTORER, SA_RESTART, SA_NODEFER, SA_RESETHAND = 0x04000000, 0x10000000, 0x40000000, 0x80000000
_KNOWN_FLAGS = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | 0x800 | SA_RESTORER | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND
)  # 0x800: SA_EXPOSE_TAGBITS
SIGNALS = 64
SI_KERNEL = 128


def bit(signal: int) -> int:
    """A signal's bit in a mask."""
    return 1 << (signal - 1)


# Signals that our own native handler must always get: the host's mask never has them.
OWN = bit(SIGSEGV) | bit(SIGBUS) | bit(SIGFPE) | bit(SIGILL) | bit(SIGTRAP)
UNBLOCKABLE = bit(SIGKILL) | bit(SIGSTOP)
_IGNORED_BY_DEFAULT = bit(SIGCHLD) | bit(SIGCONT) | bit(SIGURG) | bit(SIGWINCH)
_STOPPING = bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU)
_CHANGED_BY_PYTHON = (SIGINT, SIGPIPE, SIGXFSZ)
_DEFAULT = (SIG_DFL, 0, 0, 0)

SYS_SIGPROCMASK, SYS_SIGACTION, SYS_KILL, SYS_GETPID, SYS_SIGQUEUEINFO, SYS_GETSOCKOPT = 14, 13, 62, 39, 129, 55
SYS_TIMER_DELETE = 226
_SETMASK = 2

# Calls that the kernel starts again after a handler with SA_RESTART (signal(7)), by AArch64 number: flock, read, write
# and their kin, openat, waiting for children, futex, sockets, ioctl, fcntl, splicing, getrandom.
_RESTARTABLE = frozenset(
    (32, 63, 64, 65, 66, 67, 68, 69, 70, 286, 287, 56, 95, 260, 98, 29, 25, 202, 203, 206, 207, 211, 212, 242, 71, 76,
     77, 278, 285)
)  # fmt: skip
# But not where the call has a time limit: an argument of futex, an option of the socket (its name: SO_RCVTIMEO for
# those that receive, SO_SNDTIMEO for those that send).
_FUTEX, _FUTEX_LIMIT = 98, 3
_SOL_SOCKET, _RECEIVING, _SENDING = 1, 20, 21
_SOCKET_LIMITS = {
    63: _RECEIVING, 65: _RECEIVING, 202: _RECEIVING, 207: _RECEIVING, 212: _RECEIVING, 242: _RECEIVING,
    64: _SENDING, 66: _SENDING, 203: _SENDING, 206: _SENDING, 211: _SENDING,
}  # fmt: skip
# What ends early if a signal comes that nobody handles (one of OWN that the guest blocks): to start again from the
# whole of a relative time would be worse. nanosleep, clock_nanosleep.
_SLEEPS = frozenset((101, 115))


class Signals:
    """The signal state of a process. `actions` holds (handler, flags, restorer, mask) for signals that were set."""

    __slots__ = (
        "actions", "altstack", "caught", "deferred", "ignored", "mask", "observer", "process", "restart", "saved_mask",
        "syndrome", "timers",
    )  # fmt: skip

    def __init__(self, process: Process, ignored: int) -> None:
        self.process = process
        self.actions: dict[int, tuple[int, int, int, int]] = {}
        self.mask = 0
        self.saved_mask: int | None = None  # while a call such as sigsuspend has put its own mask in place
        self.altstack = (0, 2, 0)  # sp, flags (SS_DISABLE), size
        self.deferred: list[tuple[int, bytes]] = []  # of OWN, sent while the guest blocks them
        self.restart: tuple[int, int, int] | None = None
        self.syndrome = 0
        self.ignored = ignored
        self.caught: frozenset[int] = frozenset()  # see catch
        self.timers: set[int] = set()  # what timer_create has made: they end with the program
        # A debugger sees (signal, siginfo) before the guest does, and says what is to be delivered, 0: nothing.
        self.observer: Callable[[int, bytes], int] | None = None

    def start(self, pending: int) -> None:
        """Give the host's process the dispositions that we were started with; the mask is still that of our start.

        What was pending of the signals that Python ignores is gone. Both are a thread's own doing (write(2)), so each
        is sent again by ourselves, as the kernel had done.
        """
        for signal in _CHANGED_BY_PYTHON:
            self.process.cpu.signals.restore(signal, SIG_IGN if self.ignored & bit(signal) else SIG_DFL)
            if signal != SIGINT and pending & ~self.ignored & bit(signal):
                self.process.call(SYS_KILL, self.process.call(SYS_GETPID), signal)
        address = self.process.scratch.space(8)
        self.process.call(SYS_SIGPROCMASK, 0, 0, address, 8)
        self.mask = int.from_bytes(self.process.scratch.get(address, 8), "little")
        self.apply_mask()

    # ---- dispositions and mask

    def action(self, signal: int) -> tuple[int, int, int, int]:
        """A signal's disposition: (handler, flags, restorer, mask)."""
        found = self.actions.get(signal)
        if found is not None:
            return found
        return (SIG_IGN, 0, 0, 0) if self._ignored_at_start(signal) else _DEFAULT

    def set_action(self, signal: int, action: tuple[int, int, int, int]) -> None:
        """Set a disposition here and at the host. What is pending of a signal that is ignored now is gone."""
        action = (action[0], action[1] & _KNOWN_FLAGS, *action[2:])
        self.actions[signal] = action
        if action[0] == SIG_IGN:
            self.deferred = [one for one in self.deferred if one[0] != signal]
        handler, flags = action[0], action[1] & (SA_NOCLDSTOP | SA_NOCLDWAIT)
        if handler in {SIG_DFL, SIG_IGN} and not (handler == SIG_DFL and signal in self.caught):
            self.process.cpu.signals.restore(signal, handler, flags)
        else:
            self.process.cpu.signals.install(signal, flags)

    def catch(self, signals: tuple[int, ...]) -> None:
        """Have these signals come to us also where their action is the default: a tool reports before the end."""
        self.caught = frozenset(signals)
        for signal in signals:
            self.set_action(signal, self.action(signal))

    def reset(self) -> None:
        """What exec does: handlers become the default, ignored signals stay ignored, stack and timers are gone."""
        for signal, action in list(self.actions.items()):
            self.set_action(signal, (SIG_IGN if action[0] == SIG_IGN else SIG_DFL, 0, 0, 0))
        for timer in self.timers:
            self.process.call(SYS_TIMER_DELETE, timer)
        self.timers.clear()
        self.altstack = (0, 2, 0)
        self.saved_mask = self.restart = None

    def set_mask(self, mask: int) -> None:
        """Set the guest's mask, here and at the host."""
        self.mask = mask & ~UNBLOCKABLE
        self.apply_mask()
        if any(not self.mask & bit(signal) for signal, _ in self.deferred):
            self.process.cpu.env.poll = 1

    def apply_mask(self) -> None:
        """Set the host's mask from the guest's."""
        scratch = self.process.scratch
        address = scratch.put(pack("<Q", self.mask & ~OWN))
        self.process.call(SYS_SIGPROCMASK, _SETMASK, address, 0, 8)

    def forked(self) -> None:
        """In a child: what is pending, and timers, are its parent's."""
        self.deferred.clear()
        self.timers.clear()

    def hand_over(self) -> None:
        """Give the host everything that we keep in its place: a program of its own is about to replace us."""
        process = self.process
        for signal in range(1, 32):
            if bit(signal) & OWN and self.action(signal)[0] == SIG_IGN:
                process.cpu.signals.ignore(signal)
        process.call(SYS_SIGPROCMASK, _SETMASK, process.scratch.put(pack("<Q", self.mask)), 0, 8)
        kept, self.deferred = self.deferred, []
        for signal, info in kept:
            self._requeue(signal, info)

    def take_back(self) -> None:
        """It could not be executed: undo hand_over. Signals that it made pending come again."""
        self.process.cpu.signals.take_back()
        self.apply_mask()

    def _requeue(self, signal: int, info: bytes) -> bool:
        """Make a signal pending at the host again; False if it cannot queue any more."""
        process = self.process
        me = process.call(SYS_GETPID)
        return int(process.call(SYS_SIGQUEUEINFO, me, signal, process.scratch.put(info))) == 0

    def _ignored_at_start(self, signal: int) -> bool:
        """Whether a signal that the guest has not set yet was ignored when we were started."""
        if signal in _CHANGED_BY_PYTHON or bit(signal) & OWN:
            return bool(self.ignored & bit(signal))
        address = self.process.scratch.space(32)
        if self.process.call(SYS_SIGACTION, signal, 0, address, 8) < 0:
            return False
        return int.from_bytes(self.process.scratch.get(address, 8), "little") == SIG_IGN

    # ---- calls that a signal cut short

    def interrupted(self, number: int, first: int, result: int) -> None:
        """Note that a call ended with EINTR, or (ERESTARTSYS) was not started, for `deliver` to look at."""
        self.restart = (number, first, result)

    def wait_with_mask(self, mask: int, result: int) -> int:
        """After a call that waited under a mask of its own: keep that for delivery if a signal ended the call."""
        if result == -4 and self.process.cpu.env.poll:
            self.saved_mask = self.mask
            self.mask = mask & ~UNBLOCKABLE
        return result

    # ---- delivery

    def deliver(self) -> None:
        """Deliver what has arrived, and settle what becomes of a call that was cut short."""
        self.process.scratch.used = 0
        arrived: list[tuple[int, bytes]] = list(self.process.cpu.signals.take())
        if self.deferred:
            arrived = self.deferred + arrived
            self.deferred = []
        handled = False
        for signal, info in arrived:
            if self.mask & bit(signal):
                self._keep(signal, info)
            else:
                if self.observer is not None:
                    signal = self.observer(signal, info)  # noqa: PLW2901 - that is the signal then
                if signal and self._act(signal, info):
                    handled = True
            if self.process.status is not None:
                return
        if self.restart is not None:
            self._restart()
        if self.saved_mask is not None and not handled:
            self.mask = self.saved_mask
        self.saved_mask = None
        self.apply_mask()

    def send(self, signal: int, info: bytes) -> None:
        """Make a signal of OWN pending, as somebody does who sends it."""
        self._defer(signal, info)
        self.process.cpu.env.poll = 1

    def _defer(self, signal: int, info: bytes) -> None:
        if self.action(signal)[0] != SIG_IGN and all(one[0] != signal for one in self.deferred):
            self.deferred.append((signal, info))

    def _keep(self, signal: int, info: bytes) -> None:
        """A signal arrived that the guest has blocked: it is pending. OWN is never blocked at the host."""
        if bit(signal) & OWN:
            self._defer(signal, info)
        elif not self._requeue(signal, info):  # the host still blocks all that it noted: see engine/faults.py
            self.deferred.append((signal, info))

    def force(self, signal: int, code: int, address: int, syndrome: int = 0) -> None:
        """Deliver a signal that the guest's own instruction caused; blocked or ignored, it kills (force_sig_fault)."""
        self.process.scratch.used = 0
        info = pack("<iiiiQ", signal, 0, code, 0, address) + bytes(104)
        if self.observer is not None:
            wanted = self.observer(signal, info)
            if wanted != signal:
                if wanted and self.process.status is None:
                    self._act(wanted, pack("<i", wanted) + bytes(124))
                    self.apply_mask()
                return
        if self.mask & bit(signal) or self.action(signal)[0] in {SIG_DFL, SIG_IGN}:
            self.process.status = -signal
            return
        self.syndrome = syndrome
        self._act(signal, info, fault=address)
        self.apply_mask()

    def _act(self, signal: int, info: bytes, fault: int = 0) -> bool:
        """Do what the disposition says; returns whether a handler is to run."""
        handler, flags, _, sa_mask = action = self.action(signal)
        if handler == SIG_IGN:
            return False
        if handler == SIG_DFL:
            if bit(signal) & _STOPPING:
                self.process.call(SYS_KILL, self.process.call(SYS_GETPID), SIGSTOP)
            elif not bit(signal) & _IGNORED_BY_DEFAULT:
                self.process.status = -signal
            return False
        if self.restart is not None:
            self._restart(flags)
        from .sigframe import push

        old = self.mask if self.saved_mask is None else self.saved_mask
        self.saved_mask = None
        if not push(self.process, signal, info, action, old, fault, self.syndrome):
            self.mask = old
            if signal == SIGSEGV:
                self.process.status = -SIGSEGV
            else:  # SIGSEGV's handler may have another stack (force_sigsegv)
                self.force(SIGSEGV, SI_KERNEL, 0)
            return self.process.status is None
        self.syndrome = 0
        if flags & SA_RESETHAND:
            self.set_action(signal, (SIG_DFL, *action[1:]))
        self.mask |= sa_mask | (0 if flags & SA_NODEFER else bit(signal))
        self.mask &= ~UNBLOCKABLE
        return True

    def _restart(self, flags: int | None = None) -> None:
        """Let the cut call be made again: always if it was not started, else as the handler's `flags` say.

        None: no handler runs, so the guest must not notice.
        """
        assert self.restart is not None
        number, first, result = self.restart
        self.restart = None
        if flags is None:
            again = number not in _SLEEPS
        else:
            again = bool(flags & SA_RESTART) and number in _RESTARTABLE and not self._limited(number, first)
        if result == -ERESTARTSYS or again:
            cpu = self.process.cpu
            cpu.x[0] = first & U64
            cpu.set_reg("pc", cpu.reg("pc") - 4)
        # else x0 holds EINTR already

    def _limited(self, number: int, first: int) -> bool:
        """Whether a call has a limit of time: then it is not made again (signal(7))."""
        if number == _FUTEX:
            return bool(self.process.cpu.x[_FUTEX_LIMIT])
        option = _SOCKET_LIMITS.get(number)
        if option is None:
            return False
        process = self.process
        time, size = process.scratch.put(bytes(16)), process.scratch.put(pack("<Q", 16))
        result = process.call(SYS_GETSOCKOPT, first & 0xFFFFFFFF, _SOL_SOCKET, option, time, size)
        return result == 0 and any(process.scratch.get(time, 16))

    # ---- the end

    def die(self, signal: int) -> NoReturn:
        """End the host process by a signal, as the guest ended. No core: it would be ours, not the guest's."""
        process = self.process
        process.scratch.used = 0
        process.call(160, 4, process.scratch.put(bytes(16)))  # setrlimit(RLIMIT_CORE, 0)
        if signal not in {SIGKILL, SIGSTOP}:
            process.cpu.signals.die(signal)
        process.call(SYS_SIGPROCMASK, _SETMASK, process.scratch.put(bytes(8)), 0, 8)
        process.call(SYS_KILL, process.call(SYS_GETPID), signal)
        os._exit(128 + signal)
