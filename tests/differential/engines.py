"""Our engines behind one face: `run(case)` gives what the oracle's `run` gives."""

from __future__ import annotations

import ctypes
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
    BREAKPOINT,
    CODE,
    CODE_END,
    CODE_START,
    DATA,
    DATA_SIZE,
    FAULT,
    FILLER,
    OK,
    REGISTERS,
    SYSCALL,
    UNDEFINED,
    Case,
    Outcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dbt.frontends.guest import Guest

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
}
_READ, _WRITE, _EXECUTE = 1, 2, 4  # mmap's PROT_ bits
_PRIVATE: Final = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
_PAGE: Final = 0x1000
_MXCSR: Final = 0x1F80  # all exceptions masked
_MXCSR_ROUNDING: Final = (0, 0x4000, 0x2000, 0x6000)  # by FPCR.RMode


class Engine(Protocol):
    """What the tests need."""

    @property
    def name(self) -> str:
        """For messages."""

    def run(self, case: Case, stops: Collection[int] = ()) -> Outcome:
        """Run as many instructions as the case has words; `stops`: where the program counter should get then."""


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
        self.code = bytearray(FILLER)
        self.data = bytearray(DATA_SIZE)

    def read(self, address: int, size: int) -> bytes:
        """The top byte of an address is ignored, as Linux has it."""
        address &= (1 << 56) - 1
        if address >= DATA and address + size <= DATA + DATA_SIZE:
            return bytes(self.data[address - DATA : address - DATA + size])
        if address >= CODE_START and address + size <= CODE_END:
            return bytes(self.code[address - CODE_START : address - CODE_START + size])
        raise GuestFault(address, "read")

    def write(self, address: int, data: bytes) -> None:
        """Only scratch memory may be written."""
        address &= (1 << 56) - 1
        if not DATA <= address <= DATA + DATA_SIZE - len(data):
            raise GuestFault(address, "write")
        self.data[address - DATA : address - DATA + len(data)] = data


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

    def run(self, case: Case, stops: Collection[int] = ()) -> Outcome:
        """Run on a fresh copy of the case; instructions are counted, so stops are not needed."""
        del stops
        start = CODE - CODE_START
        self._memory.code[start : start + len(case.code)] = case.code
        self._memory.data[:] = case.data
        self._engine.invalidate(CODE_START, CODE_END)
        self._registers.set_all(case.registers)
        self._env[Env.offset("pc") >> 3] = CODE
        reason = self._engine.run(len(case.words))
        pc = self._env[Env.offset("pc") >> 3]
        self._memory.code[:] = FILLER
        stop = STOPS.get(reason, layout.EXIT_NAMES[reason])
        return Outcome(stop, pc, self._registers.get_all(), bytes(self._memory.data))


class Baseline:
    """The baseline engine: all stencils, compiled at once. It stops at addresses, not after a number of steps."""

    name = "baseline"
    job = "stencils"

    def __init__(self, guest: Guest) -> None:
        store = open_store(quiet=True)
        name = guest_info(guest.name).name
        store.compile(name, range(layout.VARIANTS, len(guest.forms) * layout.VARIANTS, layout.VARIANTS), self.job)
        self._cpu = cpu = Cpu(name, self.name, store)
        cpu.memory.map(CODE_START, CODE_END - CODE_START, _READ | _WRITE, _PRIVATE)
        cpu.memory.write(CODE_START, FILLER)
        cpu.memory.map(DATA, DATA_SIZE, _READ | _WRITE, _PRIVATE)
        self._registers = Registers(cpu.env_address)

    def run(self, case: Case, stops: Collection[int] = ()) -> Outcome:
        """Run on a fresh copy of the case."""
        cpu = self._cpu
        first = CODE & -_PAGE
        cpu.memory.protect(first, _PAGE, _READ | _WRITE)
        cpu.memory.write(CODE, case.code + FILLER[: _PAGE - len(case.code)])
        cpu.memory.protect(CODE_START, CODE_END - CODE_START, _READ | _EXECUTE)
        cpu.memory.write(DATA, case.data)
        self._registers.set_all(case.registers)
        cpu.env.pc = CODE
        reason = self._go(cpu, len(case.words), stops)
        stop = STOPS.get(reason, layout.EXIT_NAMES[reason])
        data = cpu.memory.read(DATA, DATA_SIZE)
        return Outcome(stop, int(cpu.env.pc), self._registers.get_all(), data)

    def _go(self, cpu: Cpu, steps: int, stops: Collection[int]) -> int:
        cpu.set_stops({*stops, CODE + 4 * steps})
        return cpu.run()


class Optimizer(Baseline):
    """The optimizer: every block becomes a region before it runs."""

    name = "optimizer"

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        baseline = self._cpu.baseline
        assert baseline is not None
        baseline.ctx.threshold = 0


class Interpreter(Baseline):
    """The interpreter. It runs exact numbers of instructions and up to addresses, in turns."""

    name = "interpreter"
    job = "handlers"
    _counted = False

    def _go(self, cpu: Cpu, steps: int, stops: Collection[int]) -> int:
        self._counted = not self._counted
        if not self._counted:
            return super()._go(cpu, steps, stops)
        cpu.set_stops(())
        return cpu.run(steps)


ENGINES: Final[dict[str, Callable[[Guest], Engine]]] = {
    "reference": Reference, "baseline": Baseline, "optimizer": Optimizer, "interpreter": Interpreter,
}  # fmt: skip
