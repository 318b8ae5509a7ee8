"""Watchpoints and I/O: accesses that translated code may not make by itself.

The host's pages get less protection than the guest's, so an access leaves translated code as a fault. That one
instruction is then run on the reference engine, whose loads and stores come through here one by one, with their real
addresses and sizes: to a device's functions, or to memory with a note for whoever watches. An engine needs to know
nothing of it, and while nothing is watched there is nothing to pay.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dbt.control import arguments
from dbt.engine import hostmem
from dbt.engine.layout import EXIT_BUDGET, EXIT_BUS, EXIT_FAULT, EXIT_FETCH, PAGE_SIZE, Env
from dbt.engine.memory import host_prot, round_up
from dbt.errors import GuestFault, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dbt.engine.cpu import Cpu

EXIT_WATCH: Final = 64  # of Cpu.run, beside those of dbt/engine/layout.py: `Traps.hit` says what was touched
READ, WRITE = 1, 2
_SIZES: Final = (1, 2, 4, 8, 16)
KINDS: Final = {"read": READ, "write": WRITE, "access": READ | WRITE}
_HEAD: Final = Env.offset("poll")  # bytes of Env that an instruction may change; then the control word
_MXCSR: Final = Env.offset("mxcsr")


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store: to [address, address + size), READ or WRITE."""

    kind: int
    address: int
    size: int

    def overlaps(self, start: int, end: int) -> bool:
        return self.address < end and start < self.address + self.size


class Trap:
    """A range whose accesses are looked at; `remove` ends that, at any time and as often as one likes."""

    def __init__(self, traps: Traps, address: int, size: int, kinds: int) -> None:
        self._traps = traps
        self.address = address
        self.end = address + size
        self.kinds = kinds
        # Pages cannot be made unreadable and stay writable: a watched read traps writes as well.
        self.pages = (address & -PAGE_SIZE, round_up(self.end))

    def remove(self) -> None:
        """Let accesses go on unseen."""
        self._traps.remove(self)


class Watch(Trap):
    """A watchpoint. `before`: stop in front of the instruction, not behind it."""

    def __init__(self, traps: Traps, address: int, size: int, kinds: int, *, before: bool) -> None:
        super().__init__(traps, address, size, kinds)
        self.before = before


class Io(Trap):
    """A device's range: functions get the offset in it; a size that is not declared is refused."""

    def __init__(
        self,
        traps: Traps,
        address: int,
        size: int,
        read: Callable[[int, int], int] | None,
        write: Callable[[int, int, int], None] | None,
        sizes: Collection[int],
    ) -> None:
        super().__init__(traps, address, size, READ | WRITE)
        self.read = read
        self.write = write
        self.sizes = frozenset(sizes)


@dataclass(frozen=True, slots=True)
class Hit:
    """A watchpoint was met by the instruction at `instruction`."""

    watch: Watch
    access: Access
    instruction: int


class Traps:
    """All trapped ranges of one CPU."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.memory = cpu.memory
        self.hit: Hit | None = None
        self.refused: Access | None = None  # by a device, in the last fault
        self._traps: tuple[Trap, ...] = ()  # another one for each change: other threads may look
        self._lifted = 0
        self._held: contextlib.AbstractContextManager[None] | None = None  # lifted while an instruction is served
        self._log: list[Access] = []
        self._undo: list[tuple[int, bytes]] = []
        self.changed: Callable[[], None] = lambda: None  # called when there are the first or no more of them
        self._passed = -1  # pc of the instruction in front of which a watchpoint stopped

    # ---- what is trapped

    def watch(self, address: int, size: int, access: str, *, before: bool = False) -> Watch:
        """Stop (EXIT_WATCH) where the guest's instructions touch a range."""
        if arguments.text(access, "a kind of access") not in KINDS:
            raise UserError(f"{access!r} is nothing that can be watched", f"Watch one of {', '.join(KINDS)}.")
        self._check(address, size)
        watch = Watch(self, address, size, KINDS[access], before=before)
        self.cpu.boundary.change(lambda: self._add(watch))
        return watch

    def map_io(
        self,
        address: int,
        size: int,
        read: Callable[[int, int], int] | None,
        write: Callable[[int, int, int], None] | None,
        sizes: Collection[int],
    ) -> Io:
        """Let functions answer for a range; it hides memory that is mapped there."""
        self._check(address, size)
        for function in (read, write):
            arguments.function(function, "a device's function", optional=True)
        if not arguments.several(sizes, "sizes of accesses") or not all(size in _SIZES for size in sizes):
            raise UserError(f"{sizes!r} are no sizes of accesses", "Choose from 1, 2, 4, 8 and 16 bytes.")
        for other in self._traps:
            if isinstance(other, Io) and address < other.end and other.address < address + size:
                raise UserError(f"{address:#x} overlaps the device at {other.address:#x}", "Remove that one first.")
        device = Io(self, address, size, read, write, sizes)
        self.cpu.boundary.change(lambda: self._add(device))
        return device

    def remove(self, trap: Trap) -> None:
        """Forget a range; one that is not there any more does no harm."""
        self.cpu.boundary.change(lambda: self._remove(trap))

    def _remove(self, trap: Trap) -> None:
        if trap not in self._traps:
            return
        self._traps = tuple(other for other in self._traps if other is not trap)
        self._restore(*trap.pages)
        self.protect(*trap.pages)
        if not self._traps:
            self._attach(on=False)

    def _add(self, trap: Trap) -> None:
        self._traps = (*self._traps, trap)
        if len(self._traps) == 1:
            self._attach(on=True)
        self.protect(*trap.pages)

    def _attach(self, *, on: bool) -> None:
        """Step into the CPU's way, or out of it."""
        cpu = self.cpu
        cpu.traps = cpu.memory.traps = self if on else None
        cpu.bus.read = self._guarded_read if on else cpu.memory.read
        cpu.bus.write = self._guarded_write if on else cpu.memory.write
        self.changed()

    def _check(self, address: int, size: int) -> None:
        arguments.number(address, "an address")
        arguments.number(size, "a size")
        if address < 0 or size <= 0 or address + size > self.memory.limit:
            raise UserError(
                f"{size} bytes at {address:#x} are no range of guest addresses",
                f"They go from 0 to {self.memory.limit:#x}.",
            )

    # ---- for the address space

    def covers(self, address: int, size: int) -> bool:
        """Whether the host would fault where the guest may access: then `lifted` helps."""
        return not self._lifted and self._kinds(address, size) != 0

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Give pages their protection back, for accesses that are not the guest's instructions'."""
        self._lifted += 1
        if self._lifted == 1:
            for trap in self._traps:
                self._restore(*trap.pages)
        try:
            yield
        finally:
            self._lifted -= 1
            for trap in self._traps:
                self.protect(*trap.pages)

    def protect(self, start: int, end: int) -> None:
        """Take protection away from trapped pages in a range, as far as they are mapped."""
        if self._lifted:
            return
        for kind in (WRITE, READ):  # unreadable pages last: they are the stronger ones
            for trap in self._traps:
                if trap.kinds & kind:
                    first, last = max(start, trap.pages[0]), min(end, trap.pages[1])
                    for area in self.memory.overlapping(first, last) if first < last else ():
                        prot = 0 if kind == READ else host_prot(area.prot) & ~hostmem.PROT_WRITE
                        self._set(max(area.start, first), min(area.end, last), prot)

    def _hold(self, address: int, size: int) -> None:
        """Lift for the rest of the instruction, if an access needs that."""
        if not self._held and self.covers(address, size):
            self._held = self.lifted()
            self._held.__enter__()

    def _let_fall(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            held.__exit__(None, None, None)

    def _restore(self, start: int, end: int) -> None:
        for area in self.memory.overlapping(start, end):
            self._set(max(area.start, start), min(area.end, end), host_prot(area.prot))

    def _set(self, start: int, end: int, prot: int) -> None:
        hostmem.protect_memory(self.memory.base + start, end - start, prot)

    def _kinds(self, address: int, size: int) -> int:
        """What kinds of access trap on the pages of a range."""
        kinds = 0
        for trap in self._traps:
            if trap.pages[0] < address + size and address < trap.pages[1]:
                kinds |= trap.kinds
        return kinds

    # ---- running

    def run(self, budget: int | None) -> int:
        """Run the CPU as Cpu.run does; EXIT_WATCH if a watchpoint was met."""
        return self._drive(budget, self.cpu.run_engine)

    def step(self) -> int:
        """The same for Cpu.step."""
        return self._drive(1, lambda _left: self.cpu.step_engine())

    def _drive(self, budget: int | None, run: Callable[[int | None], int]) -> int:
        cpu = self.cpu
        env = cpu.env
        self.hit = self.refused = None
        passed, self._passed = self._passed, -1
        before = cpu.executed
        if budget != 0 and passed == env.pc:
            reason = self._step(look=False)
            if reason != EXIT_BUDGET:
                return reason
        while True:
            left = None if budget is None else budget - (cpu.executed - before)
            if left == 0:
                env.exit = EXIT_BUDGET
                return EXIT_BUDGET
            reason = run(left)
            if not self._ours(reason):
                return reason
            reason = self._step()
            if reason != EXIT_BUDGET:
                return reason

    def _ours(self, reason: int) -> bool:
        """Whether a fault is one that the traps have made."""
        if reason in {EXIT_FAULT, EXIT_BUS}:
            address = self.memory.untagged(int(self.cpu.env.value))
            return self._kinds(address, 1) != 0
        # The host cannot fetch from unreadable pages either.
        pc = int(self.cpu.env.pc)
        return reason == EXIT_FETCH and self._kinds(pc, 1) & READ != 0 and self.memory.executable(pc)

    def _step(self, *, look: bool = True) -> int:
        """Run one instruction on the reference engine, its accesses served and noted."""
        cpu = self.cpu
        saved = self._save()
        pc = int(cpu.env.pc)
        self._log.clear()
        self._undo.clear()
        cpu.bus.read, cpu.bus.write = self._served_read, self._served_write
        try:
            reason = cpu.step_reference()
        except BaseException:
            self._take_back(saved)
            raise
        finally:
            self._let_fall()
            if cpu.traps is self:
                cpu.bus.read, cpu.bus.write = self._guarded_read, self._guarded_write
            else:  # a device's function has removed the last trap
                cpu.bus.read, cpu.bus.write = cpu.memory.read, cpu.memory.write
        if reason == EXIT_FAULT:
            for address, old in reversed(self._undo):
                self.memory.write(address, old)
            if self.refused is not None:
                cpu.env.exit = reason = EXIT_BUS
            return reason
        hit = self._find_hit(pc) if look else None
        if hit is None:
            return reason
        self.hit = hit
        if hit.watch.before:
            self._take_back(saved)
            cpu.executed -= 1
            self._passed = pc
        cpu.env.exit = EXIT_WATCH
        return EXIT_WATCH

    def _find_hit(self, pc: int) -> Hit | None:
        for access in self._log:
            for trap in self._traps:
                if isinstance(trap, Watch) and trap.kinds & access.kind and access.overlaps(trap.address, trap.end):
                    return Hit(trap, access, pc)
        return None

    def _save(self) -> tuple[bytes, int]:
        return ctypes.string_at(self.cpu.env_address, _HEAD), int(self.cpu.env.mxcsr)

    def _take_back(self, saved: tuple[bytes, int]) -> None:
        """Make registers and memory what they were before the instruction. What a device was told stays told."""
        for address, old in reversed(self._undo):
            self.memory.write(address, old)
        ctypes.memmove(self.cpu.env_address, saved[0], _HEAD)
        self.cpu.env.mxcsr = saved[1]

    # ---- loads and stores of the reference engine

    def _guarded_read(self, address: int, size: int) -> bytes:
        self._guard(address, size, READ, "read")
        return self.memory.read(address, size)

    def _guarded_write(self, address: int, data: bytes) -> None:
        self._guard(address, len(data), WRITE, "write")
        self.memory.write(address, data)

    def _guard(self, address: int, size: int, kind: int, name: str) -> None:
        """Fault where the host's pages would."""
        plain = self.memory.untagged(address)
        # A page that cannot be read cannot be written either.
        if self._kinds(plain, size) & (kind | READ):
            for trap in self._traps:
                if trap.kinds & (kind | READ) and trap.pages[0] < plain + size and plain < trap.pages[1]:
                    raise GuestFault(max(plain, trap.pages[0]), name)

    def _served_read(self, address: int, size: int) -> bytes:
        plain = self.memory.untagged(address)
        io = self._device(plain, size, READ)
        if io is None:
            self._hold(plain, size)
            data = self.memory.read(address, size)
        else:
            data = self._from_device(io, plain, size)
        self._log.append(Access(READ, plain, size))
        return data

    def _served_write(self, address: int, data: bytes) -> None:
        plain = self.memory.untagged(address)
        io = self._device(plain, len(data), WRITE)
        self._log.append(Access(WRITE, plain, len(data)))
        if io is not None:
            assert io.write is not None
            io.write(plain - io.address, len(data), int.from_bytes(data, "little"))
            return
        self._hold(plain, len(data))
        try:
            old = self.memory.read(address, len(data))
        except GuestFault:
            old = b""  # not readable: write-only memory is nothing that Linux has, the write says what it thinks
        self.memory.write(address, data)
        self._undo.append((address, old))

    def _from_device(self, io: Io, plain: int, size: int) -> bytes:
        assert io.read is not None
        value = io.read(plain - io.address, size)
        return (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def _device(self, address: int, size: int, kind: int) -> Io | None:
        """Who answers for an access; raises GuestFault if nobody may."""
        for trap in self._traps:
            if isinstance(trap, Io) and address < trap.end and trap.address < address + size:
                inside = trap.address <= address and address + size <= trap.end
                function = trap.read if kind == READ else trap.write
                if inside and size in trap.sizes and function is not None:
                    return trap
                self.refused = Access(kind, address, size)
                raise GuestFault(address, "read" if kind == READ else "write")
        return None
