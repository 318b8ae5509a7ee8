"""What generated code works on: the Env struct through memoryviews, guest memory, and the ops with state.

Values are unsigned Python ints (i1: 0, 1 or a bool; floats: their bits) and tuples of lanes, lane 0 first. `namespace`
is the globals of generated functions: views of the register file by width, and the functions below.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Protocol

from dbt.engine.guests import HOST_STICKY, arm_control, arm_status
from dbt.engine.layout import GUEST_BYTES, Env
from dbt.errors import GuestFault
from dbt.ir import lanes
from dbt.ir.state import StateOffsets

from . import softfloat

if TYPE_CHECKING:
    from collections.abc import Callable

MASK64: Final = (1 << 64) - 1
_MODES: Final = {"even": 0, "up": 1, "down": 2, "zero": 3}  # FPCR.RMode
_RMODE_SHIFT: Final = 22
_QC: Final = 1 << 27

_SCALAR: Final[dict[str, Callable[[int, int, int], int]]] = {
    "add": lambda a, b, m: (a + b) & m,
    "and": lambda a, b, _m: a & b,
    "or": lambda a, b, _m: a | b,
    "xor": lambda a, b, _m: a ^ b,
    "xchg": lambda _a, b, _m: b,
    "umin": lambda a, b, _m: min(a, b),
    "umax": lambda a, b, _m: max(a, b),
    "smin": lambda a, b, m: min(a, b, key=lambda x: x ^ (m + 1) >> 1),
    "smax": lambda a, b, m: max(a, b, key=lambda x: x ^ (m + 1) >> 1),
}


class Memory(Protocol):
    """Guest memory: both raise dbt.errors.GuestFault."""

    def read(self, address: int, size: int, /) -> bytes:
        """Read bytes."""

    def write(self, address: int, data: bytes, /) -> None:
        """Write bytes."""


class EmptyBus:
    """An I/O space where nothing answers: reads give ones, writes are lost."""

    def read(self, _address: int, size: int, /) -> bytes:
        """All ones."""
        return b"\xff" * size

    def write(self, _address: int, _data: bytes, /) -> None:
        """Nothing."""


class State:
    """One virtual CPU as the evaluator sees it. The struct at `env_address` must outlive this object."""

    def __init__(
        self, env_address: int, memory: Memory, io: Memory | None = None, offsets: StateOffsets | None = None
    ) -> None:
        self.env_address: Final = env_address
        self.memory: Final = memory
        self.io: Final[Memory] = io or EmptyBus()
        self.offsets: Final = offsets or StateOffsets()
        raw = memoryview((ctypes.c_uint8 * Env.size).from_address(env_address)).cast("B")
        self.bytes: Final = raw[:GUEST_BYTES]
        self.words: Final = raw[:GUEST_BYTES].cast("Q")
        self.env32: Final = raw.cast("I")
        self.env64: Final = raw.cast("Q")
        flags = Env.offset("flags")
        self.flags: Final = raw[flags : flags + 32].cast("Q")
        self.namespace: Final[dict[str, object]] = {
            **lanes.NAMES,
            "G8": self.bytes,
            "G16": raw[:GUEST_BYTES].cast("H"),
            "G32": raw[:GUEST_BYTES].cast("I"),
            "G64": self.words,
            "F": self.flags,
            **{name: getattr(self, name) for name in _FUNCTIONS},
            **{name: globals()[name] for name in ("join", "split", "combine", "look_up")},
        }

    # memory
    def load(self, address: int, size: int) -> int:
        """Little-endian, from memory."""
        return int.from_bytes(self.memory.read(address, size), "little")

    def store(self, address: int, size: int, value: int) -> None:
        """Little-endian, to memory."""
        self.memory.write(address, int(value).to_bytes(size, "little"))

    def load_as(self, address: int, size: int, space: str, endian: str) -> int:
        """From a space, in a byte order."""
        if space == "host":
            return int.from_bytes(ctypes.string_at(address, size), "little")
        bus = self.memory if space == "memory" else self.io
        return int.from_bytes(bus.read(address, size), "big" if endian == "big" else "little")

    def store_as(self, address: int, size: int, value: int, space: str, endian: str) -> None:
        """To a space, in a byte order."""
        if space == "host":
            ctypes.memmove(address, int(value).to_bytes(size, "little"), size)
            return
        bus = self.memory if space == "memory" else self.io
        bus.write(address, int(value).to_bytes(size, "big" if endian == "big" else "little"))

    def load_exclusive(self, address: int, size: int) -> int:
        """Load, and arm the monitor."""
        value = self.load(address, size)
        self.words[self.offsets.exclusive_address >> 3] = address
        self.words[self.offsets.exclusive_size >> 3] = size
        low = self.offsets.exclusive_value >> 3
        self.words[low], self.words[low + 1] = value & MASK64, value >> 64
        return value

    def store_exclusive(self, address: int, size: int, value: int) -> int:
        """Store if monitor and memory match: 0, else 1. A fault leaves the monitor as it was."""
        low = self.offsets.exclusive_value >> 3
        failed = 1
        if (
            self.words[self.offsets.exclusive_address >> 3] == address
            and self.words[self.offsets.exclusive_size >> 3] == size
        ):
            expected = self.words[low] | self.words[low + 1] << 64
            try:
                found = self.load(address, size)
            except GuestFault as fault:
                raise GuestFault(fault.address, "write") from None
            self.store(address, size, value if found == expected else found)
            failed = int(found != expected)
        self.clear_exclusive()
        return failed

    def clear_exclusive(self) -> None:
        """Disarm the monitor."""
        self.words[self.offsets.exclusive_address >> 3] = MASK64

    def rmw(self, op: str, address: int, size: int, value: int, endian: str) -> int:
        """Read, combine, write; the old value."""
        old = self.load_as(address, size, "memory", endian)
        self.store_as(address, size, _SCALAR[op](old, value, (1 << 8 * size) - 1), "memory", endian)
        return old

    def cas(self, address: int, size: int, expected: int, new: int, endian: str) -> int:
        """Compare and swap; memory is written in either case, as a host's locked instruction does."""
        old = self.load_as(address, size, "memory", endian)
        self.store_as(address, size, new if old == expected else old, "memory", endian)
        return old

    # floating point
    def fp(self, name: str, rm: str, bits: int, *args: int) -> int:
        """A softfloat function with the guest's FPCR, in the rounding mode `rm`; collects sticky flags."""
        function: Callable[..., tuple[int, int]] = getattr(softfloat, name)
        control = self.words[self.offsets.fpcr >> 3]
        if rm != "dynamic":
            control = control & ~(3 << _RMODE_SHIFT) | _MODES[rm] << _RMODE_SHIFT
        value, raised = function(bits, *args, control)
        if raised:
            self.words[self.offsets.fpsr >> 3] |= raised
        return value

    def fp_call(self, name: str, *args: int, **options: object) -> int:
        """A softfloat function with options of its own."""
        function: Callable[..., tuple[int, int]] = getattr(softfloat, name)
        value, raised = function(*args, self.words[self.offsets.fpcr >> 3], **options)
        if raised:
            self.words[self.offsets.fpsr >> 3] |= raised
        return value

    def fp_compare(self, pred: str, bits: int, a: int, b: int, *, signaling: bool) -> int:
        """A comparison as 0 or 1."""
        value, raised = softfloat.compare(bits, pred, a, b, signaling=signaling)
        if raised:
            self.words[self.offsets.fpsr >> 3] |= raised
        return int(value)

    def fp_compare_flags(self, bits: int, a: int, b: int, *, signaling: bool) -> None:
        """A comparison to NZCV."""
        value, raised = softfloat.compare_flags(bits, a, b, signaling=signaling)
        if raised:
            self.words[self.offsets.fpsr >> 3] |= raised
        self.set_nzcv(value << 28)

    def get_fpcr(self) -> int:
        """FPCR."""
        return self.words[self.offsets.fpcr >> 3]

    def get_fpsr(self) -> int:
        """FPSR, with the sticky flags that native code has left in MXCSR."""
        return self.words[self.offsets.fpsr >> 3] | arm_status(self.env32[Env.offset("mxcsr") >> 2])

    def set_fpsr(self, value: int) -> None:
        """FPSR; MXCSR collects from zero again."""
        self.words[self.offsets.fpsr >> 3] = value
        self.env32[Env.offset("mxcsr") >> 2] &= ~HOST_STICKY

    def set_fpcr(self, value: int) -> None:
        """FPCR; MXCSR rounds the same way."""
        self.words[self.offsets.fpcr >> 3] = value
        index = Env.offset("mxcsr") >> 2
        self.env32[index] = arm_control(value) | self.env32[index] & HOST_STICKY

    def set_qc(self, saturated: int) -> None:
        """FPSR.QC is sticky."""
        if saturated:
            self.words[self.offsets.fpsr >> 3] |= _QC

    # flags and control
    def set_nzcv(self, value: int) -> None:
        """The flag words from bits 31 to 28."""
        self.flags[0] = (value >> 31 & 1) << 63
        self.flags[1] = (value >> 30 & 1) ^ 1
        self.flags[2] = value >> 29 & 1
        self.flags[3] = (value >> 28 & 1) << 63

    def leave(self, reason: int, pc: int, value: int | None = None) -> int:
        """Note an exit in Env; -1 stands for it as the next PC."""
        self.env64[Env.offset("exit") >> 3] = reason
        self.env64[Env.offset("pc") >> 3] = pc
        if value is not None:
            self.env64[Env.offset("value") >> 3] = value
        return -1

    def call_helper(self, name: str, *args: int) -> int:
        """A native helper, run by CPython."""
        from dbt.engine.helpers import HELPERS

        return int(HELPERS[name].function(Env.at(self.env_address), *args))


_FUNCTIONS: Final = (
    "load", "store", "load_as", "store_as", "load_exclusive", "store_exclusive", "clear_exclusive", "rmw", "cas",
    "fp", "fp_call", "fp_compare", "fp_compare_flags", "get_fpcr", "get_fpsr", "set_fpsr", "set_fpcr", "set_qc",
    "set_nzcv", "leave", "call_helper",
)  # fmt: skip


def join(values: tuple[int, ...], bits: int) -> int:
    """Lanes as one number, lane 0 lowest."""
    whole = 0
    for value in reversed(values):
        whole = whole << bits | value
    return whole


def split(whole: int, bits: int, count: int) -> tuple[int, ...]:
    """A number as lanes."""
    mask = (1 << bits) - 1
    return tuple([whole >> bits * i & mask for i in range(count)])


def combine(op: str, values: tuple[int, ...], mask: int) -> int:
    """All lanes by one operation."""
    result = values[0]
    for value in values[1:]:
        result = _SCALAR[op](result, value, mask)
    return int(result)


def look_up(indices: tuple[int, ...], table: tuple[int, ...]) -> tuple[int, ...]:
    """Table bytes by index; 0 beyond the table."""
    return tuple([table[i] if i < len(table) else 0 for i in indices])
