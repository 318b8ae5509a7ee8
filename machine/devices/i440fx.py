"""The Intel 82441FX (440FX) host bridge as QEMU has it: shadow RAM below 1 MiB, the hole of SMRAM, the PCI bus.

Where RAM is not, the bus is. The data sheet's registers of the DRAM controller, buffers and errors keep what firmware
writes, and do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import BusError
from dbt.machine.memory import MMIO, RAM, AddressSpace, Alias, Attributes, Container, Unassigned
from dbt.machine.pci import Identity, PciBus, PciFunction, window
from dbt.machine.registers import RO, RW, Register, Registers

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

RE, WE = 1, 2  # of a PAM attribute: reads, writes go to RAM
OPEN, LOCK, ENABLE = 0x40, 0x10, 0x08  # of SMRAM
SMRAM_AT, SMRAM_SIZE = 0xA0000, 0x20000
# (first address, size, register, shift) of the attributes (3.2.15)
SEGMENTS = (
    (0xF0000, 0x10000, 0, 4),
    *((0xC0000 + n * 0x4000, 0x4000, 1 + n // 2, 4 * (n % 2)) for n in range(12)),
)


class I440fxConfig:
    """The device's own part of configuration space (Intel 290549, 3.2)."""

    PMCCFG = Register(0x50, RW, "PMC configuration", size=2, mask=0xFFFF)
    DETURBO = Register(0x52, RW, "deturbo counter", size=1)
    DBC = Register(0x53, RW, "DBX buffer control", size=1)
    AXC = Register(0x54, RW, "auxiliary control", size=1)
    DRT = Register(0x55, RW, "DRAM row types", size=2)
    DRAMC = Register(0x57, RW, "DRAM control; QEMU's firmware finds the memory's size here, in 8 MiB", size=1)
    DRAMT = Register(0x58, RW, "DRAM timing", size=1)
    PAM = Registers(0x59, RW, "who has the segments below 1 MiB", count=7, size=1)
    DRB = Registers(0x60, RW, "DRAM row boundaries", count=8, size=1)
    FDHC = Register(0x68, RW, "fixed DRAM hole", size=1)
    MTT = Register(0x70, RW, "multi-transaction timer", size=1)
    CLT = Register(0x71, RW, "CPU latency timer", size=1)
    SMRAM = Register(
        0x72, RW, "system management RAM", size=1, reset=0x02, mask=0x78,
        fields={"D_OPEN": 6, "D_CLS": 5, "D_LCK": 4, "G_SMRAME": 3, "C_BASE_SEG": (2, 0)},
    )  # fmt: skip
    ERRCMD = Register(0x90, RW, "error command", size=1)
    ERRSTS = Register(0x91, RO, "error status", size=1)
    TRC = Register(0x93, RW, "turbo reset control", size=1)


class I440fx(PciFunction):
    """Intel 82441FX host bridge (290549)."""

    PCI = Identity(vendor=0x8086, device=0x1237, class_code=0x060000, revision=2)
    CONFIG = (I440fxConfig,)

    def __init__(self, name: str, machine: Machine, *, bus: PciBus, ram: RAM, slot: int = 0, function: int = 0) -> None:
        super().__init__(name, machine, bus=bus, slot=slot, function=function)
        self.config.preset(I440fxConfig.DRAMC, min(ram.size >> 23, 0xFF))
        self._over = Container(f"{name}.shadow", 1 << 20)
        machine.system.place(self._over, 0, 1)
        self._space: AddressSpace | None = None
        self._segments = [Segment(f"{name}.{at:05x}", self, ram, at, size) for at, size, _, _ in SEGMENTS]
        self._smram = window(f"{name}.vga", bus.memory, SMRAM_AT, SMRAM_SIZE)
        with machine.system.changes():
            for segment in self._segments:
                segment.place(self._over)
            self._over.place(self._smram, SMRAM_AT)

    def bus_space(self) -> AddressSpace:
        """What the bus has, also behind RAM. It is there from the first time that somebody asks for it."""
        if self._space is None:
            self._space = AddressSpace(
                f"{self.name}.pci", self.bus.memory, unassigned=Unassigned.ONES, lock=self.machine.lock,
                log=self.machine.log,
            )  # fmt: skip
        return self._space

    def on_reset(self) -> None:
        """PCI has all segments."""
        self._show()

    def on_config_write(self, offset: int, size: int) -> None:
        """Segments change hands; SMRAM that is locked stays closed."""
        config = self.config
        if config.get(I440fxConfig.SMRAM) & LOCK:
            config.set(I440fxConfig.SMRAM, config.get(I440fxConfig.SMRAM) & ~OPEN)
        if offset < 0x74 and offset + size > 0x59:
            self._show()

    def _show(self) -> None:
        smram = self.config.get(I440fxConfig.SMRAM)
        locked = bool(smram & LOCK)
        self.config.mask[I440fxConfig.SMRAM.offset] = I440fxConfig.SMRAM.mask & ~(OPEN | LOCK if locked else 0)
        with self._over.changes():
            for segment, (_, _, register, shift) in zip(self._segments, SEGMENTS, strict=True):
                segment.set(self.config.data[I440fxConfig.PAM.offset + register] >> shift & 3)
            self._smram.enabled = smram & (OPEN | ENABLE) != OPEN | ENABLE


class Segment:
    """One segment below 1 MiB, by its attribute; where RAM has both reads and writes nothing is over it."""

    def __init__(self, name: str, host: I440fx, ram: RAM, at: int, size: int) -> None:
        self.at = at
        self._ram = ram
        self._host = host
        self._regions = {
            0: window(f"{name}.pci", host.bus.memory, at, size),
            RE: Alias(f"{name}.rom", ram, at, size, readonly=True),
            WE: MMIO(f"{name}.copy", size, self),
        }

    def place(self, container: Container) -> None:
        """Put what may be there into the map."""
        for region in self._regions.values():
            container.place(region, self.at)

    def set(self, attribute: int) -> None:
        """Show who has it now."""
        for which, region in self._regions.items():
            region.enabled = which == attribute

    # Reads from the bus, writes to RAM: how firmware copies itself

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """What the bus has, which is what firmware is copied from."""
        try:
            return self._host.bus_space().read(self.at + offset, size, attributes)
        except BusError:
            return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """Into the RAM behind it."""
        del attributes
        start, memory = self.at + offset, self._ram.memory
        memory.view[start : start + size] = value.to_bytes(size, "little")
        memory.written(start, size)
