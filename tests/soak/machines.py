"""Our engines, fast: many programs are put in memory at once, then run one after the other on the same CPU.

What an engine leaves is a `Result`; its `state` is the guest's register file as it lies in Env, with FPSR complete and
the condition flags in the place of the slot that nobody reads, so that two of them are compared as bytes.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.frontends.a64 import state

from dbt.engine import layout
from dbt.engine.cache import open_store
from dbt.engine.cpu import Cpu
from dbt.engine.hostmem import PROT_EXEC, PROT_READ, PROT_WRITE
from dbt.engine.layout import Env
from dbt.engine.promoter import Promoter
from tests.differential.case import CODE, DATA, DATA_SIZE
from tests.differential.engines import Registers

from .programs import MASK64, SLOT, SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tests.differential.case import Case

NATIVE: Final = ("interpreter", "baseline", "optimizer")
LIMIT: Final = 3000  # instructions that a program may run; one that wants more is left out
BITS: Final = 42  # of addresses: only one address space of full size fits into the host's
CODE_SIZE: Final = 2 * SLOT * SLOTS  # the second half holds nothing but nops
NOP: Final = b"\x1f\x20\x03\xd5"
ALIAS: Final = "alias"  # a fault only because a bit of the address is set that translated code masks
FAULTS: Final = ("fault", "bus")
WITH_VALUE: Final = (*FAULTS, "alignment", "breakpoint")
_PRIVATE: Final = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
_WORD = slice(state.JUNK, state.JUNK + 8)
_FPSR = slice(state.FPSR, state.FPSR + 8)
_DEFAULT_MXCSR: Final = 0x1F80


class Mode(NamedTuple):
    """How a batch of programs runs."""

    counted: bool = False  # each program has a budget
    all_flags: bool = False  # Cpu.keep_flags
    threshold: int = 0  # of the optimizer: entries of a block before it becomes a region
    stops: tuple[int, ...] = ()  # addresses, see Cpu.set_stops
    writable: bool = False  # code may change itself, without saying so: then engines do not agree


class Result(NamedTuple):
    """All that can be seen of a guest that has stopped."""

    stop: str
    pc: int
    value: int  # the address of a fault, the immediate of a breakpoint
    write: bool
    executed: int  # instructions, where they are counted
    state: bytes
    data: bytes

    @property
    def registers(self) -> dict[str, int]:
        """By name."""
        return unpack(self.state)


def pack(values: Mapping[str, int]) -> bytes:
    """The register file, as in Result."""
    raw = bytearray(layout.GUEST_BYTES)
    for name, value in values.items():
        offset, size = (state.JUNK, 8) if name == "nzcv" else state.REGISTERS[name]
        raw[offset : offset + size] = value.to_bytes(size, "little")
    raw[state.EXCLUSIVE_ADDRESS : state.EXCLUSIVE_ADDRESS + 8] = state.NO_EXCLUSIVE.to_bytes(8, "little")
    return bytes(raw)


def unpack(raw: bytes) -> dict[str, int]:
    """Registers by name."""
    values = {
        name: int.from_bytes(raw[offset : offset + size], "little") for name, (offset, size) in state.REGISTERS.items()
    }
    values["nzcv"] = int.from_bytes(raw[_WORD], "little")
    return values


TROUBLE: Final[list[str]] = []  # what the optimizer says about regions that it did not get


def _note(_promoter: Promoter, _kind: str, text: str) -> None:
    TROUBLE.append(text)


class Machine:
    """One of our engines over a code area, in which batches of programs are put, and scratch memory."""

    def __init__(self, engine: str, address_bits: int | None = BITS) -> None:
        self.name: Final = engine
        self.cpu: Final = Cpu("aarch64", engine, open_store(quiet=True), address_bits=address_bits)
        self.native: Final[Any] = self.cpu.baseline
        self.cpu.memory.map(CODE, CODE_SIZE, PROT_READ | PROT_EXEC, _PRIVATE)
        self.cpu.memory.map(DATA, DATA_SIZE, PROT_READ | PROT_WRITE, _PRIVATE)
        self._data: Final = self.cpu.memory.base + DATA
        self._env: Final = self.cpu.env_address
        raw = memoryview((ctypes.c_uint8 * Env.size).from_address(self._env)).cast("B")
        self._guest: Final = raw[: layout.GUEST_BYTES]
        self._flags: Final = raw[Env.offset("flags") : Env.offset("flags") + 32].cast("Q")
        self._mxcsr: Final = raw[Env.offset("mxcsr") : Env.offset("mxcsr") + 4].cast("I")
        self._registers: Final = Registers(self._env)
        self.mode = Mode()
        if engine == "optimizer":
            setattr(Promoter, "_say", _note)  # noqa: B010 - mypy

    def close(self) -> None:
        """Give back the address space."""
        for view in (self._guest, self._flags, self._mxcsr):
            view.release()
        self.cpu.close()

    def load(self, cases: Sequence[Case], mode: Mode) -> None:
        """Put programs in memory, each at its address."""
        cpu, native = self.cpu, self.native
        if mode.stops != self.mode.stops:
            cpu.set_stops(mode.stops)
        code = bytearray(NOP * (CODE_SIZE // 4))
        for case in cases:
            at = case.code_address - CODE
            code[at : at + len(case.code)] = case.code
        self.mode = mode
        if native is not None:
            native.flush()
            cpu.keep_flags(on=mode.all_flags)
        if self.name == "optimizer":
            # What it knows of earlier programs at these addresses makes it slow to compile others.
            native._known.clear()
            native._broken.clear()
            native.ctx.threshold = mode.threshold
        cpu.memory.protect(CODE, CODE_SIZE, PROT_READ | PROT_WRITE)
        cpu.memory.write(CODE, bytes(code))
        cpu.memory.protect(CODE, CODE_SIZE, PROT_READ | PROT_EXEC | (PROT_WRITE if mode.writable else 0))

    def run(self, case: Case, file: bytes, budget: int | None = None) -> Result:
        """Run a program that was loaded from its start. `file`: its registers, packed."""
        cpu, env = self.cpu, self.cpu.env
        ctypes.memmove(self._env, file, layout.GUEST_BYTES)
        self._guest[_WORD] = bytes(8)
        nzcv, fpcr = file[state.JUNK + 3] >> 4, file[state.FPCR + 2] >> 6
        flags = self._flags
        flags[0], flags[1], flags[2], flags[3] = (nzcv >> 3) << 63, nzcv >> 2 & 1 ^ 1, nzcv >> 1 & 1, (nzcv & 1) << 63
        self._mxcsr[0] = cpu.info.host_fp_control(fpcr << 22)
        ctypes.memmove(self._data, case.data, DATA_SIZE)
        env.pc = case.address
        return self.go_on(budget)

    def go_on(self, budget: int | None = None) -> Result:
        """Run on from where it stopped."""
        cpu = self.cpu
        cpu.env.poll = 0
        before = cpu.executed
        reason = cpu.run(budget)
        stop = layout.EXIT_NAMES[reason]
        return self._result(stop, cpu.executed - before)

    def _result(self, stop: str, executed: int) -> Result:
        cpu, env = self.cpu, self.cpu.env
        value, write = int(env.value) if stop in WITH_VALUE else 0, False
        if stop in FAULTS:
            write = cpu.faults.is_write()
            if 1 << BITS <= value & (1 << 56) - 1 < 1 << 47:
                stop = ALIAS
        n, z, c, v = self._flags
        nzcv = (n >> 63) << 31 | (z == 0) << 30 | (c & 1) << 29 | (v >> 63) << 28
        raw = bytearray(self._guest)
        raw[_WORD] = nzcv.to_bytes(8, "little")
        host = self._mxcsr[0]
        fpsr = int.from_bytes(raw[_FPSR], "little") | host & 1 | host >> 1 & 0x1E  # MXCSR has DE in between
        raw[_FPSR] = fpsr.to_bytes(8, "little")
        data = ctypes.string_at(self._data, DATA_SIZE)
        return Result(stop, int(env.pc) & MASK64, value, write, executed, bytes(raw), data)
