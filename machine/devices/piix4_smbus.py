"""The SMBus host of the Intel 82371AB (PIIX4; 290562, section 7.3): host registers, and what answers on the bus.

Transactions are done at once. A device answers `transfer`; where none is, the host says DEV_ERR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Unpack

from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes, Region
from dbt.machine.pci import PciFunction
from dbt.machine.pci.config import IO, Header
from dbt.machine.registers import RO, RW, Fifo, Register, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.pci.function import Where

BUSY, INTER, DEV_ERR, FAILED = 1, 2, 4, 16  # of SMBHSTSTS
INTEREN, KILL, START = 1, 2, 0x40  # of SMBHSTCNT
QUICK, BYTE, BYTE_DATA, WORD_DATA, BLOCK = 0, 1, 2, 3, 5
MOST = 32  # bytes of a block


class SmbusDevice(Protocol):
    """What is at an address of the bus."""

    def transfer(self, command: int | None, data: bytes, count: int) -> bytes | None:
        """Write `data`, or read `count` bytes (of a block: up to 32) if it is empty; None: not acknowledged.

        `command` is the byte before them; None where the protocol has none.
        """


class Piix4SmbusConfig:
    """The SMBus part of configuration space."""

    SMBBA = Register(0x90, RW, "base of the SMBus window", reset=1, mask=0xFFF0)
    SMBHSTCFG = Register(0xD2, RW, "host configuration", size=1, mask=0x0F, fields={"EN": 0, "INTRSEL": (3, 1)})
    SMBSLVC = Register(0xD3, RW, "slave command", size=1)
    SMBSHDW1 = Register(0xD4, RW, "slave shadow address 1", size=1)
    SMBSHDW2 = Register(0xD5, RW, "slave shadow address 2", size=1)
    SMBREV = Register(0xD6, RO, "revision", size=1)


class PiixSmbus(PciFunction):
    """The SMBus part of the function; `smbus`: devices by their address of 7 bits."""

    SMBUS = Window(16, AccessSizes((1, 1), (1, 1)))
    SMBHSTSTS = Register(0, RW, "host status; write one to clear", size=1, mask=0, clear=0x1E, window=SMBUS,
                         fields={"BUSY": 0, "INTER": 1, "DEV_ERR": 2, "BUS_ERR": 3, "FAILED": 4})  # fmt: skip
    SMBSLVSTS = Register(1, RW, "slave status; write one to clear", size=1, mask=0, clear=0x3C, window=SMBUS)
    SMBHSTCNT = Register(2, RW, "host control", size=1, mask=0x5F, window=SMBUS,
                         fields={"INTEREN": 0, "KILL": 1, "PROT": (4, 2), "START": 6})  # fmt: skip
    SMBHSTCMD = Register(3, RW, "command", size=1, window=SMBUS)
    SMBHSTADD = Register(4, RW, "address and direction", size=1, window=SMBUS)
    SMBHSTDAT0 = Register(5, RW, "data, or the count of a block", size=1, window=SMBUS)
    SMBHSTDAT1 = Register(6, RW, "second byte of data", size=1, window=SMBUS)
    SMBBLKDAT = View(7, RW, "data of a block, byte after byte", size=1, window=SMBUS)
    SMBSLVCNT = Register(8, RW, "slave control", size=1, mask=0, unimplemented=0x0F, window=SMBUS)

    block = Fifo(MOST)
    at = State(bits=5)  # which byte of the block SMBBLKDAT is

    def __init__(self, name: str, machine: Machine, **where: Unpack[Where]) -> None:
        super().__init__(name, machine, **where)
        self.smbus: dict[int, SmbusDevice] = {}
        self.smbus_irq = Line(f"{name}.smbus")
        self.regions["SMBUS"].enabled = False
        self.bus.io.place(self.regions["SMBUS"], 0)

    def show(self, region: Region, at: int, *, on: bool) -> None:
        """A window of ports is at `at`, or is not there."""
        io = self.bus.io
        with io.changes():
            region.enabled = on
            if on:
                io.move(region, at)

    def on_reset(self) -> None:
        """Nothing is on the way."""
        self.on_config_write(0x90, 4)
        self._drive()

    def on_restore(self) -> None:
        """The window and the line follow from the state."""
        self.on_config_write(0x90, 4)
        self._drive()

    def on_config_write(self, offset: int, size: int) -> None:
        """The window is where the registers say."""
        del offset, size
        data = self.config.data
        at = int.from_bytes(data[0x90:0x92], "little") & 0xFFF0
        self.show(self.regions["SMBUS"], at, on=bool(data[0xD2] & 1 and self.config.get(Header.COMMAND) & IO))

    def _drive(self) -> None:
        """The interrupt, if INTRSEL says IRQ9 (an SMI is the other choice)."""
        asks = self.SMBHSTCNT & INTEREN and self.SMBHSTSTS & 0x1E and self.config.data[0xD2] >> 1 & 7 == 4
        self.smbus_irq.set(bool(asks))

    @SMBHSTSTS.after_write
    def _cleared(self) -> None:
        self._drive()

    @SMBHSTCNT.on_read
    def _host_control(self) -> int:
        self.at = 0
        return self.SMBHSTCNT & ~START

    @SMBHSTCNT.on_write
    def _set_host_control(self, value: int) -> None:
        self.SMBHSTCNT = value & 0x5F & ~START
        if value & KILL:
            self.SMBHSTSTS |= FAILED
        elif value & START:
            self._transact(value >> 2 & 7)
        self._drive()

    def _transact(self, protocol: int) -> None:
        device, reads = self.smbus.get(self.SMBHSTADD >> 1), bool(self.SMBHSTADD & 1)
        counts = {QUICK: 0, BYTE: 1, BYTE_DATA: 1, WORD_DATA: 2, BLOCK: min(self.SMBHSTDAT0, MOST)}
        if protocol not in counts:
            self.guest_error(f"the SMBus host has no protocol {protocol}")
            self.SMBHSTSTS |= DEV_ERR
            return
        count = counts[protocol]
        command = None if protocol in {QUICK, BYTE} else self.SMBHSTCMD
        if protocol == BYTE and not reads:  # the byte that is sent is the command
            data = bytes([self.SMBHSTCMD])
        elif protocol == BLOCK:
            data = bytes(self.block[:count].ljust(count, b"\0"))
        else:
            data = bytes((self.SMBHSTDAT0, self.SMBHSTDAT1))[:count]
        answer = device.transfer(command, b"" if reads else data, count) if device else None
        if answer is None:
            self.SMBHSTSTS |= DEV_ERR
            return
        self.SMBHSTSTS |= INTER
        if reads and protocol == BLOCK:
            self.block[:] = answer[:MOST]
            self.SMBHSTDAT0, self.at = len(self.block), 0
        elif reads and count:
            self.SMBHSTDAT0 = answer[0]
            self.SMBHSTDAT1 = answer[1] if count == 2 else self.SMBHSTDAT1

    @SMBBLKDAT.on_read
    def _read_block(self) -> int:
        at, self.at = self.at, self.at + 1 & 31
        return self.block[at] if at < len(self.block) else 0

    @SMBBLKDAT.on_write
    def _write_block(self, value: int) -> None:
        at, self.at = self.at, self.at + 1 & 31
        if at >= len(self.block):
            self.block.extend(bytes(at + 1 - len(self.block)))
        self.block[at] = value
