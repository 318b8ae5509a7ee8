"""Configuration space (PCI Local Bus 3.0, chapter 6): its bytes, what of them software may write, and their names.

A header or capability is a class of Registers, `install`ed at an offset. Unlike a device's window this space has no
wrong accesses: what is not there reads as zero, what cannot be written stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.registers import RO, RW, AnyRegister, Register, Registers

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVENTIONAL, EXPRESS = 256, 4096  # bytes
IO, MEMORY, MASTER, INTX_DISABLE = 0x1, 0x2, 0x4, 0x400  # of COMMAND
INTERRUPT_STATUS, CAPABILITIES_LIST = 0x8, 0x10  # of STATUS
MULTIFUNCTION = 0x80  # of HEADER_TYPE
STATUS_ERRORS = 0xF900  # what writing one clears
STATUS_FIELDS: dict[str, int | tuple[int, int]] = {
    "INTERRUPT": 3, "CAP_LIST": 4, "66MHZ": 5, "FAST_BACK": 7, "MASTER_PARITY": 8, "DEVSEL": (10, 9),
    "SIG_TARGET_ABORT": 11, "REC_TARGET_ABORT": 12, "REC_MASTER_ABORT": 13, "SIG_SYSTEM_ERROR": 14, "PARITY": 15,
}  # fmt: skip


class Header:
    """What both types of header have (6.2)."""

    VENDOR_ID = Register(0x00, RO, "who made it", size=2)
    DEVICE_ID = Register(0x02, RO, "what it is", size=2)
    COMMAND = Register(
        0x04, RW, "what it may do", size=2, mask=0x0507,
        fields={"IO": 0, "MEMORY": 1, "MASTER": 2, "PARITY": 6, "SERR": 8, "INTX_DISABLE": 10},
    )  # fmt: skip
    STATUS = Register(0x06, RW, "status; write one to clear", size=2, mask=0, clear=STATUS_ERRORS, fields=STATUS_FIELDS)
    REVISION_ID = Register(0x08, RO, "revision", size=1)
    CLASS_CODE = Register(0x09, RO, "class, subclass, programming interface", size=3)
    CACHE_LINE_SIZE = Register(0x0C, RW, "words; nothing follows from it", size=1)
    LATENCY_TIMER = Register(0x0D, RO, "clocks", size=1)
    HEADER_TYPE = Register(0x0E, RO, "type, and whether the slot has several functions", size=1)
    BIST = Register(0x0F, RO, "built-in self test", size=1)
    CAPABILITIES_POINTER = Register(0x34, RO, "the first capability", size=1)
    INTERRUPT_LINE = Register(0x3C, RW, "kept for the driver", size=1)
    INTERRUPT_PIN = Register(0x3D, RO, "1: INTA# … 4: INTD#", size=1)


class Type0(Header):
    """The header of functions that are no bridges (6.1)."""

    BAR = Registers(0x10, RO, "base addresses", count=6)
    CARDBUS_CIS = Register(0x28, RO, "CardBus information")
    SUBSYSTEM_VENDOR_ID = Register(0x2C, RO, "who made the card", size=2)
    SUBSYSTEM_ID = Register(0x2E, RO, "what the card is", size=2)
    EXPANSION_ROM = Register(0x30, RO, "base address of the expansion ROM")
    MIN_GNT = Register(0x3E, RO, "length of bursts", size=1)
    MAX_LAT = Register(0x3F, RO, "how often it wants the bus", size=1)


class Type1(Header):
    """The header of PCI-to-PCI bridges (PCI-to-PCI Bridge 1.2, 3.2)."""

    BAR = Registers(0x10, RO, "base addresses", count=2)
    PRIMARY_BUS = Register(0x18, RW, "number of the bus above", size=1)
    SECONDARY_BUS = Register(0x19, RW, "number of the bus below", size=1)
    SUBORDINATE_BUS = Register(0x1A, RW, "highest number below", size=1)
    SECONDARY_LATENCY = Register(0x1B, RW, "clocks", size=1)
    IO_BASE = Register(0x1C, RW, "ports that are below, from", size=1, mask=0xF0)
    IO_LIMIT = Register(0x1D, RW, "to", size=1, mask=0xF0)
    SECONDARY_STATUS = Register(
        0x1E, RW, "status of the bus below", size=2, mask=0, clear=STATUS_ERRORS, fields=STATUS_FIELDS
    )
    MEMORY_BASE = Register(0x20, RW, "memory that is below, from", size=2, mask=0xFFF0)
    MEMORY_LIMIT = Register(0x22, RW, "to", size=2, mask=0xFFF0)
    PREFETCHABLE_BASE = Register(0x24, RW, "prefetchable memory that is below, from", size=2, reset=1, mask=0xFFF0)
    PREFETCHABLE_LIMIT = Register(0x26, RW, "to", size=2, reset=1, mask=0xFFF0)
    PREFETCHABLE_BASE_UPPER = Register(0x28, RW, "high half")
    PREFETCHABLE_LIMIT_UPPER = Register(0x2C, RW, "high half")
    IO_BASE_UPPER = Register(0x30, RO, "high half", size=2)
    IO_LIMIT_UPPER = Register(0x32, RO, "high half", size=2)
    EXPANSION_ROM = Register(0x38, RO, "base address of the expansion ROM")
    BRIDGE_CONTROL = Register(
        0x3E, RW, "bridge control", size=2, mask=0x0BFF, clear=0x0400,
        fields={"PARITY": 0, "SERR": 1, "ISA": 2, "VGA": 3, "VGA16": 4, "MASTER_ABORT": 5, "RESET": 6, "FAST_BACK": 7,
                "PRI_DISCARD": 8, "SEC_DISCARD": 9, "DISCARD_STATUS": 10, "DISCARD_SERR": 11},
    )  # fmt: skip


class Capability:
    """What all capabilities start with (6.7)."""

    CAPABILITY_ID = Register(0, RO, "which capability", size=1)
    NEXT = Register(1, RO, "the next one", size=1)


def registers_of(layout: type) -> Iterator[AnyRegister]:
    """All registers of a header or capability, those of its bases too."""
    for kind in reversed(layout.__mro__):
        for value in vars(kind).values():
            if isinstance(value, AnyRegister):
                yield value


class ConfigSpace:
    """The bytes of one function. `initial`: after reset; `mask`, `clear`: writable, write-one-to-clear."""

    def __init__(self, size: int = CONVENTIONAL) -> None:
        self.size = size
        self.data = bytearray(size)
        self.initial = bytearray(size)
        self.mask = bytearray(size)
        self.clear = bytearray(size)
        self.fixed = bytearray(size)  # bits that are the same in each function of the kind
        self.names: list[tuple[int, str, AnyRegister]] = []  # (offset, name, register)
        self.traced: set[str] = set()

    def install(self, layout: type, at: int = 0, prefix: str = "") -> None:
        """Put the registers of a layout at `at`."""
        for register in registers_of(layout):
            for index in range(register.count):
                start = at + register.offset + index * register.stride
                end = start + register.size
                if end > self.size:
                    raise MapError(f"{register.name} at {start:#x} is beyond configuration space")
                self.names.append((start, prefix + register.label(index), register))
                self._store(self.initial, start, register.size, register.reset)
                self._store(self.data, start, register.size, register.reset)
                self._store(self.mask, start, register.size, register.mask)
                self._store(self.clear, start, register.size, register.clear)

    @staticmethod
    def _store(where: bytearray, at: int, size: int, value: int) -> None:
        where[at : at + size] = value.to_bytes(size, "little")

    def preset(self, register: AnyRegister, value: int, at: int = 0, *, mask: int | None = None) -> None:
        """What a register is after reset, from now on; and which bits may be written, if `mask` is given."""
        start, size = at + register.offset, register.size
        self._store(self.initial, start, size, value)
        self._store(self.data, start, size, value)
        if mask is not None:
            self._store(self.mask, start, size, mask)

    def fix(self, start: int, size: int) -> None:
        """These bytes say which function this is: a saved state with others is another function's."""
        self.fixed[start : start + size] = b"\xff" * size

    def get(self, register: AnyRegister, at: int = 0) -> int:
        """The value of a register."""
        start = at + register.offset
        return int.from_bytes(self.data[start : start + register.size], "little")

    def set(self, register: AnyRegister, value: int, at: int = 0) -> None:
        """Store a value as the device itself does: masks are for software."""
        self._store(self.data, at + register.offset, register.size, value)

    def read(self, offset: int, size: int) -> int:
        """What software reads."""
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """What software writes, where it may."""
        end = offset + size
        old = int.from_bytes(self.data[offset:end], "little")
        mask = int.from_bytes(self.mask[offset:end], "little")
        clear = int.from_bytes(self.clear[offset:end], "little")
        new = (old & ~mask | value & mask) & ~(value & clear)
        self.data[offset:end] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")

    def reset(self) -> None:
        """All as after power-on."""
        self.data[:] = self.initial

    def touched(self, offset: int, size: int, value: int) -> Iterator[tuple[str, str]]:
        """(name, text) of the traced registers of an access: the access's bits if it has all, else the stored ones."""
        for start, name, register in self.names:
            if start < offset + size and offset < start + register.size and name in self.traced:
                if offset <= start and start + register.size <= offset + size:
                    part = value >> 8 * (start - offset) & register.all
                else:
                    part = int.from_bytes(self.data[start : start + register.size], "little")
                yield name, register.text(part)

    def check(self, saved: object, who: str) -> bytes:
        """The bytes of a saved space; SnapshotError if they are none or another function's."""
        try:
            data = bytes.fromhex(saved) if isinstance(saved, str) else b""
        except ValueError:
            data = b""
        if len(data) != self.size:
            raise SnapshotError(f"{who}: its configuration space is not {self.size} bytes in hexadecimal")
        fixed = int.from_bytes(self.fixed, "little")
        if (int.from_bytes(data, "little") ^ int.from_bytes(self.initial, "little")) & fixed:
            raise SnapshotError(f"{who}: the saved configuration space is that of another function")
        return data
