"""Our engines behind one face: `run(case)` gives what the oracle's `run` gives."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from threading import Timer
from typing import TYPE_CHECKING, Final, Protocol

from dbt.backends.reference.engine import ReferenceEngine
from dbt.frontends.a64 import state

from dbt.engine import layout
from dbt.engine.cache import open_store
from dbt.engine.cpu import Cpu
from dbt.engine.guests import guest_info
from dbt.engine.layout import Env
from dbt.errors import GuestFault

from .case import (
    ALIGNMENT,
    AROUND,
    BREAKPOINT,
    CODE,
    DATA,
    DATA_SIZE,
    FAULT,
    FILLER,
    HIGH,
    OK,
    REGISTERS,
    SYSCALL,
    UNDEFINED,
    UNIMPLEMENTED,
    Case,
    Outcome,
)
from .variants import every_number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from dbt.frontends.guest import Guest
    from dbt.frontends.tables import Tables

STOPS: Final = {
    layout.EXIT_NONE: OK,
    layout.EXIT_BUDGET: OK,
    layout.EXIT_UNTIL: OK,
    layout.EXIT_FETCH: OK,  # where the last instruction went: no concern of it
    layout.EXIT_SYSCALL: SYSCALL,
    layout.EXIT_UNDEFINED: UNDEFINED,
    layout.EXIT_BREAKPOINT: BREAKPOINT,
    layout.EXIT_FAULT: FAULT,
    layout.EXIT_ALIGNMENT: ALIGNMENT,
    layout.EXIT_UNIMPLEMENTED: UNIMPLEMENTED,
}
_READ, _WRITE, _EXECUTE = 1, 2, 4  # mmap's PROT_ bits
_PRIVATE: Final = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
_PAGE: Final = 0x1000
PLACES: Final = (CODE, HIGH)
_MXCSR: Final = 0x1F80  # all exceptions masked
_MXCSR_ROUNDING: Final = (0, 0x4000, 0x2000, 0x6000)  # by FPCR.RMode


class Engine(Protocol):
    """What the tests need."""

    @property
    def name(self) -> str:
        """For messages."""

    def run(self, case: Case, likely: Collection[int] = ()) -> Outcome:
        """Run as many instructions as the case says. `likely`: where it gets then, for engines that do not count."""

    def close(self) -> None:
        """Give back what it has."""


class Registers:
    """The guest registers of a64 in an Env, by name."""

    def __init__(self, env_address: int) -> None:
        self._address: Final = env_address
        raw = memoryview((ctypes.c_uint8 * Env.size).from_address(env_address)).cast("B")
        self._bytes: Final = raw[: layout.GUEST_BYTES]
        self._mxcsr: Final = raw[Env.offset("mxcsr") : Env.offset("mxcsr") + 4].cast("I")
        self._flags: Final = raw[Env.offset("flags") : Env.offset("flags") + 32].cast("Q")

    def set_all(self, given: Mapping[str, int]) -> None:
        """All registers; those that are not named become 0."""
        for name, (offset, size) in state.REGISTERS.items():
            self._bytes[offset : offset + size] = given.get(name, 0).to_bytes(size, "little")
        none = state.NO_EXCLUSIVE.to_bytes(8, "little")
        self._bytes[state.EXCLUSIVE_ADDRESS : state.EXCLUSIVE_ADDRESS + 8] = none
        self._mxcsr[0] = _MXCSR | _MXCSR_ROUNDING[given.get("fpcr", 0) >> 22 & 3]
        nzcv = given.get("nzcv", 0) >> 28
        self._flags[0] = (nzcv >> 3) << 63
        self._flags[1] = nzcv >> 2 & 1 ^ 1
        self._flags[2] = nzcv >> 1 & 1
        self._flags[3] = (nzcv & 1) << 63

    def get_all(self) -> dict[str, int]:
        """All registers that outcomes compare."""
        values = {"nzcv": self._nzcv()}
        for name in REGISTERS:
            if name != "nzcv":
                offset, size = state.REGISTERS[name]
                values[name] = int.from_bytes(self._bytes[offset : offset + size], "little")
        host = self._mxcsr[0]
        values["fpsr"] |= host & 1 | host >> 1 & 0x1E  # MXCSR has its denormal flag in between
        return values

    def _nzcv(self) -> int:
        n, z, c, v = self._flags
        return (n >> 63) << 31 | (z == 0) << 30 | (c & 1) << 29 | (v >> 63) << 28


class FlatMemory:
    """The code pages, read-only, and the scratch pages."""

    def __init__(self) -> None:
        self.data = bytearray(DATA_SIZE)
        self.code = {place - AROUND: bytearray(FILLER) for place in PLACES}
        self._regions = [(DATA, self.data), *self.code.items()]

    def read(self, address: int, size: int) -> bytes:
        """The top byte of an address is ignored, as Linux has it."""
        address &= (1 << 56) - 1
        for start, held in self._regions:
            if start <= address <= start + len(held) - size:
                return bytes(held[address - start : address - start + size])
        raise GuestFault(address, "read")

    def write(self, address: int, data: bytes) -> None:
        """Only scratch memory may be written."""
        address &= (1 << 56) - 1
        if not DATA <= address <= DATA + DATA_SIZE - len(data):
            raise GuestFault(address, "write")
        self.data[address - DATA : address - DATA + len(data)] = data

    def put_code(self, case: Case, code: bytes) -> None:
        """Put a case's code in its place, or what was there before."""
        start = case.address - AROUND
        at = case.code_address - start
        self.code[start][at : at + len(code)] = code


class Reference:
    """The reference engine over flat memory."""

    name = "reference"

    def __init__(self, guest: Guest) -> None:
        self._storage = (ctypes.c_uint8 * (Env.size + 64))()
        address = ctypes.addressof(self._storage) + 63 & -64
        self._memory = FlatMemory()
        self._engine = ReferenceEngine(guest.tables, self._memory, address)
        self._registers = Registers(address)
        self._env = self._engine.state.env64

    def run(self, case: Case, likely: Collection[int] = ()) -> Outcome:
        """Run on a fresh copy of the case."""
        del likely
        self._memory.put_code(case, case.code)
        self._memory.data[:] = case.data
        self._engine.invalidate(case.address - AROUND, case.address + AROUND)
        self._registers.set_all(case.registers)
        self._env[Env.offset("pc") >> 3] = case.address
        reason = self._engine.run(case.count)
        pc = self._env[Env.offset("pc") >> 3]
        self._memory.put_code(case, FILLER[: len(case.code)])
        stop = STOPS.get(reason, layout.EXIT_NAMES[reason])
        return Outcome(stop, pc, self._registers.get_all(), bytes(self._memory.data))

    def close(self) -> None:
        """Nothing is the host's."""


class Baseline:
    """The baseline engine with all of its stencils, which are compiled in one go.

    A case runs in one block of as many instructions as it has, counted, so that a branch to itself ends as well. With
    `stops`, which are addresses, blocks are as usual and nothing is counted.
    """

    name = "baseline"
    job = "stencils"  # of the worker

    def __init__(self, guest: Guest) -> None:
        store = open_store(quiet=True)
        store.compile(guest_info(guest.name).name, self.numbers(guest.tables), self.job)
        self._cpu = cpu = Cpu(guest.name, self.name, store)
        assert cpu.baseline is not None
        self.native: Final = cpu.baseline
        for place in PLACES:
            cpu.memory.map(place - AROUND, 2 * AROUND, _READ | _WRITE, _PRIVATE)
            cpu.memory.write(place - AROUND, FILLER)
        cpu.memory.map(DATA, DATA_SIZE, _READ | _WRITE, _PRIVATE)
        self._registers = Registers(cpu.env_address)
        self._stops: frozenset[int] = frozenset()
        self.native.count_instructions(on=True)

    @staticmethod
    def numbers(tables: Tables) -> Iterable[int]:
        """What to compile."""
        return every_number(tables)

    def run(self, case: Case, likely: Collection[int] = (), stops: frozenset[int] = frozenset()) -> Outcome:
        """Run on a fresh copy of the case."""
        cpu = self._cpu
        first = case.code_address & -_PAGE
        cpu.memory.protect(first, 2 * _PAGE, _READ | _WRITE)
        lead = case.code_address - first
        cpu.memory.write(first, FILLER[:lead] + case.code + FILLER[: 2 * _PAGE - lead - len(case.code)])
        cpu.memory.protect(case.address - AROUND, 2 * AROUND, _READ | _EXECUTE)
        cpu.memory.write(DATA, case.data)
        self._registers.set_all(case.registers)
        cpu.env.pc = case.address
        reason = self._go(case, likely, stops)
        assert not self.native._failed, f"stencils that cannot be compiled: {self.native._failed}"
        stop = STOPS.get(reason, layout.EXIT_NAMES[reason])
        data = cpu.memory.read(DATA, DATA_SIZE)
        return Outcome(stop, int(cpu.env.pc), self._registers.get_all(), data)

    def _go(self, case: Case, likely: Collection[int], stops: frozenset[int]) -> int:
        del likely
        native = self.native
        native.ctx.max_block = layout.MAX_BLOCK if stops else case.count
        if stops != self._stops:
            self._stops = stops
            self._cpu.set_stops(stops)
            native.count_instructions(on=not stops)
        native.flush()
        self._cpu.env.budget = case.count
        return native.run()

    def close(self) -> None:
        """Give back the address space."""
        self._cpu.close()

    def runs_until_stopped(self, case: Case, seconds: float) -> bool:
        """Whether a case that loops is stopped by the poll word, within some seconds."""
        timer = Timer(seconds, self._cpu.stop)
        timer.start()
        endless = replace(case, steps=1 << 40)
        found = self.run(endless)
        timer.join()
        self._cpu.env.poll = 0
        return found.stop == layout.EXIT_NAMES[layout.EXIT_POLL]


class Optimizer(Baseline):
    """The optimizer: every block becomes a region before it runs. It stops at addresses."""

    name = "optimizer"

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.native.count_instructions(on=False)
        self.native.ctx.threshold = 0

    def _go(self, case: Case, likely: Collection[int], stops: frozenset[int]) -> int:
        addresses = {*likely, *stops, case.address + 4 * len(case.words)}
        if case.address in addresses:  # it branches to itself
            return self._cpu.run(case.count)
        self._cpu.set_stops(addresses)
        return self._cpu.run()


class Interpreter(Baseline):
    """The interpreter, which counts exactly."""

    name = "interpreter"
    job = "handlers"

    @staticmethod
    def numbers(tables: Tables) -> Iterable[int]:
        """One handler for each form."""
        return range(layout.VARIANTS, len(tables.forms) * layout.VARIANTS, layout.VARIANTS)

    def _go(self, case: Case, likely: Collection[int], stops: frozenset[int]) -> int:
        del likely
        self._cpu.set_stops(stops)
        return self._cpu.run(None if stops else case.count)


ENGINES: Final[dict[str, Callable[[Guest], Engine]]] = {
    "reference": Reference,
    "baseline": Baseline,
    "optimizer": Optimizer,
    "interpreter": Interpreter,
}
