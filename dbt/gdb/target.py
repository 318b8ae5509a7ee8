"""The guest that is debugged: run control, memory, breakpoints and watchpoints, with or without a process around it.

The guest stops where gdb wants it: at stop addresses, at watchpoints (before the access, as gdb expects of this
architecture), after a step, on Ctrl-C. Signals are shown to gdb before the guest gets them; that happens in the middle
of their delivery, so the commands that follow run in there as well (`Target.stopped`).
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.control import arguments
from dbt.control.hooks import Hooks, ProcessTools
from dbt.control.traps import EXIT_WATCH, READ, WRITE, Traps, Watch
from dbt.engine import hostmem, layout
from dbt.engine.layout import PAGE_SIZE
from dbt.engine.memory import host_prot
from dbt.errors import GuestFault, UserError
from dbt.exits import Exit

from .kicks import KICK, LEFT_ALONE, KickedSignals, Watcher, send_kicks, send_no_kicks

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

    from .packets import Connection

SIGINT, SIGILL, SIGTRAP, SIGBUS, SIGKILL, SIGSEGV, SIGSTOP, SIGSYS = 2, 4, 5, 7, 9, 11, 19, 31
_BARE_SIGNALS: Final = {
    layout.EXIT_SYSCALL: SIGSYS,
    layout.EXIT_UNDEFINED: SIGILL,
    layout.EXIT_UNIMPLEMENTED: SIGILL,
    layout.EXIT_BREAKPOINT: SIGTRAP,
    layout.EXIT_FAULT: SIGSEGV,
    layout.EXIT_FETCH: SIGSEGV,
    layout.EXIT_ALIGNMENT: SIGBUS,
    layout.EXIT_BUS: SIGBUS,
}


class Stop(NamedTuple):
    """Why the guest stands still: `kind` is signal, exited or killed; `number` a Linux signal or an exit status."""

    kind: str
    number: int
    details: bytes = b""  # of a stop reply: name:value; pairs


class Target:
    """One guest under one debugger. `stopped` is called for a stop in the middle of something; it returns to go on."""

    def __init__(self, cpu: Cpu, process: Process | None, traps: Traps | None = None) -> None:
        self.cpu = cpu
        self.process = process
        self.traps = traps or Traps(cpu)
        self.connection: Connection | None = None
        self.stopped: Callable[[Stop], int] = lambda _stop: 0
        self.stepping = False
        self.passed: frozenset[int] = frozenset()  # signals that gdb does not want to see
        self.siginfo = b""
        self._given = False  # gdb knows of the signal that comes next: it has sent it
        self.breakpoints: dict[tuple[int, int], None] = {}  # (kind, address)
        self.watches: dict[tuple[int, int, int], Watch] = {}
        self._stops: frozenset[int] = frozenset()
        self._own_flags = traps is None
        self._watcher: Watcher | None = None  # where the connection cannot send KICK

    # ---- coming and going

    def attach(self, connection: Connection) -> None:
        """Let a debugger watch."""
        cpu, process = self.cpu, self.process
        self.connection = connection
        cpu.keep_flags(on=True)
        signals = cpu.signals
        cpu.signals = kicked = KickedSignals(signals)
        if cpu.baseline is None and threading.current_thread() is not threading.main_thread():
            self._watcher = Watcher(cpu, connection)  # Python's signal handlers serve the main thread only
        else:
            signals.install(KICK)
            send_kicks(connection)
        if process is None:
            return
        if process.tools is None:
            process.tools = ProcessTools(process, Hooks(cpu), _no_exit)
            self.traps.changed = process.tools.changed
        process.signals.observer = self._observe
        for signo in range(1, 32):
            if signo not in LEFT_ALONE and process.signals.action(signo)[0] == 0:
                kicked.restore(signo, 0)

    def detach(self) -> None:
        """Leave the guest alone."""
        cpu, process = self.cpu, self.process
        for watch in self.watches.values():
            watch.remove()
        self.watches.clear()
        self.breakpoints.clear()
        self._sync()
        if isinstance(cpu.signals, KickedSignals):
            kicked = cpu.signals
            kicked.debugged = False
            cpu.signals = kicked._inner  # noqa: SLF001 - one module
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
            elif self.connection is not None:
                send_no_kicks(self.connection)
                cpu.signals.restore(KICK, 1)  # forget one that is pending
                cpu.signals.restore(KICK, 0)
            noted = kicked.take()  # of ours there may be one that was not asked for yet
            if process is not None:
                process.signals.deferred += noted
                cpu.env.poll = 1  # the mask that it has left behind goes as well
            else:
                cpu.signals.unblock()
            if process is not None and process.signals.observer is not None:
                process.signals.observer = None
                for signo in range(1, 32):
                    if signo not in LEFT_ALONE and process.signals.action(signo)[0] == 0:
                        cpu.signals.restore(signo, 0)
        if self.connection is not None:
            self.connection.close()
            self.connection = None
            if self._own_flags:
                cpu.keep_flags(on=False)

    # ---- running

    def go(self) -> Stop:
        """Run until there is something to tell."""
        cpu, process = self.cpu, self.process
        self._sync()
        self._forget_kicks()
        if process is not None:
            process.scratch.used = 0
            process.signals.apply_mask()
        else:
            cpu.signals.unblock()
        if self._watcher is not None:
            self._watcher.arm()
        if self._interrupted():
            return Stop("signal", SIGINT)
        while True:
            if process is not None and process.status is not None:
                return _ended(process.status)
            reason = cpu.step() if self.stepping else cpu.run()
            stop = self._trap_stop(reason) or (self._bare(reason) if process is None else self._serve(process, reason))
            if stop is not None:
                return stop

    def _trap_stop(self, reason: int) -> Stop | None:
        """The stop for a breakpoint, a watchpoint or a step."""
        if reason == layout.EXIT_UNTIL:
            pc = self.cpu.reg("pc")
            hard = (1, pc) in self.breakpoints
            soft = (0, pc) in self.breakpoints
            return Stop("signal", SIGTRAP, b"swbreak:;" if soft else b"hwbreak:;" if hard else b"")
        if reason == EXIT_WATCH:
            hit = self.traps.hit
            assert hit is not None
            name = {READ: b"rwatch", WRITE: b"watch"}.get(hit.watch.kinds, b"awatch")
            place = max(hit.access.address, hit.watch.address)
            return Stop("signal", SIGTRAP, b"%s:%x;" % (name, place))
        if reason == layout.EXIT_BUDGET:
            return Stop("signal", SIGTRAP)
        return None

    def _bare(self, reason: int) -> Stop | None:
        """An exit of a CPU without a process: whatever it cannot do is told."""
        if reason == layout.EXIT_POLL:
            noted = self.cpu.signals.take()
            self.cpu.signals.unblock()
            if self._watcher is not None:
                self._watcher.arm()
            if self._interrupted() or any(signo == SIGINT for signo, _ in noted):
                return Stop("signal", SIGINT)
            return None
        if reason in _BARE_SIGNALS:
            return Stop("signal", _BARE_SIGNALS[reason])
        return Stop("signal", SIGTRAP) if self.stepping else None

    def _serve(self, process: Process, reason: int) -> Stop | None:
        """An exit that the process deals with, and what becomes of it."""
        image, was_child, pc = process.auxv, process.child, self.cpu.reg("pc")
        process.handle(reason)
        if process.child and not was_child:
            self._let_go(process)
        if process.status is not None:
            return _ended(process.status)
        if process.auxv is not image:
            return Stop("signal", SIGTRAP, b"exec:%s;" % os.fsencode(process.exe).hex().encode())
        if self._interrupted():
            return Stop("signal", SIGINT)
        restarted = reason == layout.EXIT_SYSCALL and self.cpu.reg("pc") == pc - 4
        if self.stepping and not restarted and (reason == layout.EXIT_SYSCALL or self.cpu.reg("pc") != pc):
            return Stop("signal", SIGTRAP)
        return None

    def _let_go(self, process: Process) -> None:
        """A forked child is nobody's: gdb stays with its parent."""
        self.detach()
        process.tools = None
        process.native(on=True)
        process.run()

    def _observe(self, signal: int, info: bytes) -> int:
        """A signal is about to be delivered: which one gdb wants to be."""
        self.siginfo = info
        if self._given:
            self._given = False
            return signal
        if signal in self.passed:
            return signal
        wanted = self.stopped(Stop("signal", signal))
        self._sync()
        self._forget_kicks()
        return wanted

    def _forget_kicks(self) -> None:
        if isinstance(self.cpu.signals, KickedSignals):
            self.cpu.signals.forget_kicks(self.cpu.env)

    def deliver(self, signal: int) -> None:
        """Give the guest a signal that gdb makes up."""
        if self.process is not None:
            self._given = True
            self.process.signals.force(signal, 0, 0)

    def _interrupted(self) -> bool:
        return self.connection is not None and self.connection.wants_stop()

    # ---- breakpoints and watchpoints

    def insert(self, kind: int, address: int, size: int) -> None:
        """Z packets: 0 and 1 are breakpoints, 2 write, 3 read, 4 access watchpoints. Raises UserError."""
        if kind <= 1:
            arguments.address(address, "the address of a breakpoint")
            if len(self.breakpoints) >= layout.MAX_STOPS:
                raise UserError(f"there are {len(self.breakpoints)} breakpoints", "Remove some of them.")
            self.breakpoints[kind, address] = None
        elif (kind, address, size) not in self.watches:
            access = ("write", "read", "access")[kind - 2]
            self.watches[kind, address, size] = self.traps.watch(address, size, access, before=True)

    def remove(self, kind: int, address: int, size: int) -> None:
        """The z packets."""
        if kind <= 1:
            self.breakpoints.pop((kind, address), None)
        elif (kind, address, size) in self.watches:
            self.watches.pop((kind, address, size)).remove()

    def _sync(self) -> None:
        """Tell the CPU where to stop, if that has changed: gdb takes all breakpoints out at each stop."""
        wanted = frozenset(address for _kind, address in self.breakpoints)
        if wanted != self._stops:
            self._stops = wanted
            self.cpu.set_stops(wanted)

    # ---- memory

    def read_memory(self, address: int, size: int) -> bytes:
        """As many bytes as can be read, whatever the guest may do there; none at all raises GuestFault."""
        memory = self.cpu.memory
        plain = memory.untagged(address)
        found = b""
        while size > 0:
            part = min(size, PAGE_SIZE - plain % PAGE_SIZE)
            try:
                found += self._with_access(plain, part, hostmem.PROT_READ, partial(memory.read, plain, part))
            except GuestFault:
                if not found:
                    raise
                break
            plain += part
            size -= part
        return found

    def write_memory(self, address: int, data: bytes) -> None:
        """Write, also to what the guest may only read: that is where its code is."""
        memory = self.cpu.memory
        plain = memory.untagged(address)
        for at in range(plain & -PAGE_SIZE, plain + len(data), PAGE_SIZE):
            first, last = max(at, plain), min(at + PAGE_SIZE, plain + len(data))
            part = data[first - plain : last - plain]
            self._with_access(first, len(part), hostmem.PROT_WRITE, partial(self._put, first, part))
        memory.on_code_change(plain, plain + len(data))

    def _put(self, address: int, data: bytes) -> bytes:
        done = hostmem.write_own(self.cpu.memory.base + address, data)
        if done != len(data):
            raise GuestFault(address + done, "write")
        return b""

    def _with_access(self, address: int, size: int, wanted: int, action: Callable[[], bytes]) -> bytes:
        """Do something inside one page with its host protection lifted, if need be."""
        memory = self.cpu.memory
        area = memory.area_at(address) if address < memory.limit else None
        if area is None:
            raise GuestFault(address)
        trapped = memory.traps is not None and memory.traps.covers(address, size)
        if host_prot(area.prot) & wanted and not trapped:
            return action()
        page = memory.base + (address & -PAGE_SIZE)
        try:
            hostmem.protect_memory(page, PAGE_SIZE, host_prot(area.prot) | wanted | hostmem.PROT_READ)
        except OSError:
            raise GuestFault(address) from None
        try:
            if wanted == hostmem.PROT_WRITE:
                return action()
            found = hostmem.read_own(memory.base + address, size)
            if len(found) != size:
                raise GuestFault(address)
            return found
        finally:
            hostmem.protect_memory(page, PAGE_SIZE, host_prot(area.prot))
            if memory.traps is not None:
                memory.traps.protect(address & -PAGE_SIZE, (address & -PAGE_SIZE) + PAGE_SIZE)


def _ended(status: int) -> Stop:
    return Stop("killed", -status) if status < 0 else Stop("exited", status)


def _no_exit(cpu: Cpu, _reason: int) -> Exit:
    """Nobody has hooks that would look at it."""
    return Exit(cpu.reg("pc"))


def check_kind(kind: int) -> None:
    """Raise UserError for a kind of Z packet that there is not."""
    if kind not in range(5):
        raise UserError(f"Z{kind} is not known", "Z0 to Z4 are.")
