"""What a driver of AHCI does, on any bus of qtest.py."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.machine.ata_driver import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.machine.qtest import Bus

CLB, FB, IS, IE, CMD, TFD, SIG, SSTS, SCTL, SERR, SACT, CI = (
    0x00, 0x08, 0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38,
)  # fmt: skip
REGISTERS = {
    "CLB": 0x00, "CLBU": 0x04, "FB": 0x08, "FBU": 0x0C, "IS": 0x10, "IE": 0x14, "CMD": 0x18, "TFD": 0x20, "SIG": 0x24,
    "SSTS": 0x28, "SCTL": 0x2C, "SERR": 0x30, "SACT": 0x34, "CI": 0x38,
}  # fmt: skip
GHC, HBA_IS = 0x04, 0x08
ST, FRE, CR = 1, 0x10, 0x8000
TFES = 1 << 30
COMMAND_SLOT = 0x1F00  # QEMU leaves it alone for queued commands


class Ahci:
    """One port; `memory`: 64 KiB for its command list, FISes and tables."""

    def __init__(self, bus: Bus, abar: int, port: int = 0, memory: int = 0x10_0000) -> None:
        self.bus = bus
        self.abar = abar
        self.base = abar + 0x100 + 0x80 * port
        self.list = memory
        self.fis = memory + 0x400
        self.tables = memory + 0x1000

    def read(self, register: int, mask: int = -1) -> int:
        """A register; `mask` leaves out bits that are not to be compared."""
        value = self.bus.read(self.base + register) & mask
        self.bus.log[-1] = (*self.bus.log[-1][:3], value)
        return value

    def write(self, register: int, value: int) -> None:
        self.bus.write(self.base + register, value)

    def registers(self, **masks: int) -> list[int]:
        """All registers of the port."""
        return [self.read(at, masks.get(name, -1)) for name, at in REGISTERS.items()]

    def start(self) -> None:
        self.bus.store(self.list, bytes(0x1000))
        for register, address in ((CLB, self.list), (FB, self.fis)):
            self.write(register, address)
            self.write(register + 4, 0)
        self.write(CMD, self.read(CMD, ~COMMAND_SLOT) | FRE)
        self.write(SERR, 0xFFFFFFFF)
        self.write(IS, 0xFFFFFFFF)
        self.write(CMD, self.read(CMD, ~COMMAND_SLOT) | ST)
        self.write(IE, 0xFDC000FF)

    def stop(self) -> None:
        self.write(CMD, self.read(CMD, ~COMMAND_SLOT) & ~ST)
        settle(self.bus, lambda: bool(self.read(CMD, ~COMMAND_SLOT) & CR))

    def recover(self) -> None:
        """After an error (AHCI 1.3.1, 6.2.2.1)."""
        self.stop()
        self.write(SERR, 0xFFFFFFFF)
        self.write(IS, 0xFFFFFFFF)
        self.write(CMD, self.read(CMD, ~COMMAND_SLOT) | ST)

    def reset(self) -> None:
        """COMRESET."""
        self.stop()
        self.write(SCTL, 0x301)
        self.write(SCTL, 0x300)
        settle(self.bus, lambda: bool(self.read(TFD) & 0x80))
        self.write(SERR, 0xFFFFFFFF)
        self.write(IS, 0xFFFFFFFF)
        self.write(CMD, self.read(CMD, ~COMMAND_SLOT) | ST)

    def put(
        self, slot: int, opcode: int, pieces: Sequence[tuple[int, int]] = (), *, write: bool = False,
        packet: bytes = b"", lba: int = 0, count: int = 0, feature: int = 0, device: int = 0x40, control: int = 0,
        command: bool = True, flags: int = 0,
    ) -> None:  # fmt: skip
        """Command header and table of a slot."""
        table = self.tables + 0x800 * slot
        frame = struct.pack(
            "<BBBBHBBHBBHBB4x", 0x27, 0x80 if command else 0, opcode, feature & 255, lba & 0xFFFF, lba >> 16 & 255,
            device, lba >> 24 & 0xFFFF, lba >> 40, feature >> 8, count, 0, control,
        )  # fmt: skip
        rows = b"".join(struct.pack("<QII", address, 0, length - 1) for address, length in pieces)
        self.bus.store(table, frame.ljust(0x40, b"\0") + packet.ljust(0x40, b"\0") + rows)
        flags |= 5 | (0x20 if packet else 0) | (0x40 if write else 0)
        self.bus.store(self.list + 32 * slot, struct.pack("<HHIQ16x", flags, len(pieces), 0, table))

    def go(self, slots: int = 1, *, queued: bool = False) -> None:
        """Issue slots, and wait until they are done, or have failed."""
        if queued:
            self.write(SACT, slots)
        self.write(CI, slots)
        waiting = SACT if queued else CI
        settle(self.bus, lambda: bool(self.read(waiting) & slots) and not self.read(IS) & TFES)

    def run(self, opcode: int, pieces: Sequence[tuple[int, int]] = (), *, slot: int = 0, **more: object) -> int:
        """One command; PxTFD at its end, causes cleared."""
        self.put(slot, opcode, pieces, **more)  # type: ignore[arg-type]
        self.go(1 << slot)
        status = self.read(TFD)
        self.write(IS, 0xFFFFFFFF)
        self.bus.write(self.abar + HBA_IS, 0xFFFFFFFF)
        return status

    def soft_reset(self) -> None:
        """SRST set and cleared by two FISes without the command bit."""
        self.put(0, 0, control=4, command=False, flags=0x500)
        self.go()
        self.put(1, 0, control=0, command=False)
        self.go(2)
        settle(self.bus, lambda: bool(self.read(TFD) & 0x80))
