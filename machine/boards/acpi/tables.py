"""ACPI's tables of fixed form (ACPI 6.4, chapter 5): headers with their sums, and one function for each table.

Pointers between tables are zero here: whoever puts them into memory fills them in (`POINTERS` says where they are).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OEM_ID, OEM_TABLE, CREATOR = b"DRGMAN", b"DRAGOMAN", b"DRGM"
HEADER = struct.Struct("<4sIBB6s8sI4sI")
CHECKSUM = 9  # its offset in the header
MEMORY, IO = 0, 1  # address spaces
# signature: (offset, size, signature of what it points to)
POINTERS: dict[str, tuple[tuple[int, int, str], ...]] = {
    "FACP": ((36, 4, "FACS"), (40, 4, "DSDT"), (140, 8, "DSDT")),
}
RESET_VALUE = 0x06


def checksum(data: bytes) -> int:
    """What makes the sum of the bytes zero."""
    return -sum(data) & 0xFF


def table(signature: str, revision: int, body: bytes) -> bytes:
    """A table with its header."""
    header = HEADER.pack(
        signature.encode("ascii"), HEADER.size + len(body), revision, 0, OEM_ID, OEM_TABLE, 1, CREATOR, 1
    )
    return summed(header + body)


def summed(data: bytes) -> bytes:
    """The same with the right sum in its header."""
    data = data[:CHECKSUM] + b"\0" + data[CHECKSUM + 1 :]
    return data[:CHECKSUM] + bytes((checksum(data),)) + data[CHECKSUM + 1 :]


def address(space: int, at: int, bits: int, access: int = 0) -> bytes:
    """A generic address structure (5.2.3.2)."""
    return struct.pack("<BBBBQ", space, bits if at else 0, 0, access if at else 0, at)


def rsdp(rsdt: int, xsdt: int = 0) -> bytes:
    """Root system description pointer (5.2.5.3): the only one with two sums."""
    data = struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM_ID, 2, rsdt)
    data = data[:8] + bytes((checksum(data),)) + data[9:]
    data += struct.pack("<IQB3x", 36, xsdt, 0)
    return data[:32] + bytes((checksum(data),)) + data[33:]


def facs() -> bytes:
    """Firmware ACPI control structure (5.2.10), which has no sum."""
    return struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")


@dataclass(frozen=True, slots=True)
class PowerBlocks:
    """Where the power management registers of a PC are: ports; the SCI's number."""

    event: int
    control: int
    timer: int
    gpe: int
    gpe_length: int
    sci: int
    command: int
    enable: int
    disable: int
    reset: int


def fadt(power: PowerBlocks) -> bytes:
    """Fixed ACPI description table (5.2.9), revision 3."""
    flags = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 8 | 1 << 10  # WBINVD, C1, no fixed sleep button, 32-bit timer, reset
    body = struct.pack("<IIBBHIBBBB", 0, 0, 0, 0, power.sci, power.command, power.enable, power.disable, 0, 0)
    body += struct.pack("<8I", power.event, 0, power.control, 0, 0, power.timer, power.gpe, 0)
    body += struct.pack("<8B", 4, 2, 0, 4, power.gpe_length, 0, 0, 0)
    body += struct.pack("<HHHHBBBBBHBI", 0xFFF, 0xFFF, 0, 0, 0, 0, 0, 0, 0x32, 0x3, 0, flags)
    body += address(IO, power.reset, 8, 1) + bytes((RESET_VALUE, 0, 0, 0)) + bytes(16)
    body += address(IO, power.event, 32) + address(IO, 0, 0) + address(IO, power.control, 16) + address(IO, 0, 0)
    body += address(IO, 0, 0) + address(IO, power.timer, 32)
    body += address(IO, power.gpe, 8 * power.gpe_length) + address(IO, 0, 0)
    return table("FACP", 3, body)


def reduced_fadt() -> bytes:
    """The same for hardware without ACPI's registers (4.1), with PSCI by HVC (5.2.9.4), revision 6."""
    body = bytearray(276 - HEADER.size)
    struct.pack_into("<I", body, 112 - HEADER.size, 1 << 20)  # HW_REDUCED_ACPI
    struct.pack_into("<H", body, 129 - HEADER.size, 0x3)  # PSCI, by HVC
    body[131 - HEADER.size] = 3  # minor version
    return table("FACP", 6, bytes(body))


def madt(local: int, flags: int, entries: Iterable[bytes]) -> bytes:
    """Multiple APIC description table (5.2.12)."""
    return table("APIC", 4, struct.pack("<II", local, flags) + b"".join(entries))


def local_apic(number: int) -> bytes:
    """A CPU that is enabled (5.2.12.2)."""
    return struct.pack("<BBBBI", 0, 8, number, number, 1)


def io_apic(identity: int, at: int, first: int = 0) -> bytes:
    """An I/O APIC whose inputs start at a global number (5.2.12.3)."""
    return struct.pack("<BBBBII", 1, 12, identity, 0, at, first)


def override(source: int, number: int, *, level: bool = False) -> bytes:
    """An ISA interrupt at another input, or as an active-high level (5.2.12.5)."""
    return struct.pack("<BBBBIH", 2, 10, 0, source, number, 0xD if level else 0)


def local_nmi(pin: int = 1) -> bytes:
    """NMI is at a pin of all local APICs (5.2.12.7)."""
    return struct.pack("<BBBHB", 4, 6, 0xFF, 0, pin)


def gic_cpu(number: int, affinity: int, interface: int = 0, redistributor: int = 0) -> bytes:
    """A CPU with its GIC interface (5.2.12.14)."""
    head = struct.pack("<BBHIIIII", 11, 80, 0, number, number, 1, 0, 0)
    return head + struct.pack("<QQQQIQQI", 0, interface, 0, 0, 0, redistributor, affinity, 0)


def gic_distributor(at: int, version: int) -> bytes:
    """A GIC's distributor (5.2.12.15)."""
    return struct.pack("<BBHIQIB3x", 12, 24, 0, 0, at, 0, version)


def gic_message_frame(at: int, first: int, count: int) -> bytes:
    """A GICv2m frame (5.2.12.16)."""
    return struct.pack("<BBHIQIHH", 13, 24, 0, 0, at, 1, count, first)


def gic_redistributors(at: int, size: int) -> bytes:
    """Where a GICv3's redistributors are (5.2.12.17)."""
    return struct.pack("<BBHQI", 14, 16, 0, at, size)


def gic_its(at: int) -> bytes:
    """A GICv3's translation service (5.2.12.18)."""
    return struct.pack("<BBHIQI", 15, 20, 0, 0, at, 0)


def iort() -> bytes:
    """I/O remapping table (Arm DEN 0049): PCI's requester IDs are the device IDs of the one translation service."""
    group = struct.pack("<BHBIII", 0, 24, 0, 0, 0, 0) + struct.pack("<II", 1, 0)
    complex_ = struct.pack("<BHBIII", 2, 52, 0, 0, 1, 32) + struct.pack("<IBHBII", 1, 0, 0, 3, 0, 0)
    mapping = struct.pack("<IIIII", 0, 0xFFFF, 0, 48, 0)
    return table("IORT", 0, struct.pack("<III", 2, 48, 0) + group + complex_ + mapping)


def hpet(at: int, identity: int) -> bytes:
    """High precision event timers (IA-PC HPET 1.0a, 3.2.4); `identity`: the low half of its capabilities."""
    return table("HPET", 1, struct.pack("<I", identity) + address(MEMORY, at, 64) + struct.pack("<BHB", 0, 0x80, 0))


def mcfg(at: int, first: int, last: int) -> bytes:
    """ECAM (PCI Firmware 3.2, 4.1.2): one segment's buses."""
    return table("MCFG", 1, bytes(8) + struct.pack("<QHBBI", at, 0, first, last, 0))
