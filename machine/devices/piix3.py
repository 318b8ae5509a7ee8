"""The Intel 82371SB (PIIX3) PCI-to-ISA bridge: which ISA interrupts PCI's wires are on, and the reset control.

The data sheet's registers of bus timing, DMA and power management keep what firmware writes, and do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.memory import AccessSizes
from dbt.machine.pci import Identity, PciBus, PciFunction
from dbt.machine.pci.config import Header
from dbt.machine.registers import RO, RW, Register, Registers, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine

ROUTABLE = {3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15}
RESET_CPU, HARD = 4, 2  # of RC


class Piix3Config:
    """The device's own part of configuration space (Intel 290550, 2.2)."""

    IORT = Register(0x4C, RW, "recovery times of ISA I/O", size=1, reset=0x4D)
    XBCS = Register(0x4E, RW, "chip selects of the X-bus", size=2, reset=0x0003)
    PIRQRC = Registers(
        0x60, RW, "interrupt of PIRQA# to PIRQD#", count=4, size=1, reset=0x80, mask=0x8F,
        fields={"DISABLE": 7, "IRQ": (3, 0)},
    )  # fmt: skip
    TOM = Register(0x69, RW, "top of memory", size=1, reset=0x02)
    MSTAT = Register(0x6A, RW, "miscellaneous status", size=2)
    MBIRQ = Register(0x70, RW, "interrupt of the motherboard", size=1, reset=0x80)
    MBDMA = Registers(0x76, RW, "DMA of the motherboard", count=2, size=1, reset=0x0C)
    PCSC = Register(0x78, RW, "programmable chip select", size=2, reset=0x0002)
    APICBASE = Register(0x80, RW, "address of the I/O APIC", size=1)
    DLC = Register(0x82, RW, "deterministic latency", size=1)
    SMICNTL = Register(0xA0, RW, "SMI control", size=1, reset=0x08)
    SMIEN = Register(0xA2, RW, "SMI enable", size=2)
    SEE = Register(0xA4, RW, "system event enable")
    FTMR = Register(0xA8, RW, "fast off timer", size=1, reset=0x0F)
    SMIREQ = Register(0xAA, RO, "SMI request", size=2)
    CTLTMR = Register(0xAC, RW, "clock throttle, low", size=1)
    CTHTMR = Register(0xAE, RW, "clock throttle, high", size=1)


class Piix3(PciFunction):
    """Intel 82371SB PCI-to-ISA bridge (290550). `irqs`: its outputs to the sixteen ISA interrupts.

    The window RESET is that of the configuration address port (0xCF8): RC is the byte at 0xCF9.
    """

    PCI = Identity(vendor=0x8086, device=0x7000, class_code=0x060100, multifunction=True)
    CONFIG = (Piix3Config,)
    RESET = Window(4, AccessSizes((1, 4), (1, 4)), hole=0xFF, placed=False)
    RC = Register(1, RW, "reset control", size=1, mask=HARD, fields={"SRST": 1, "RCPU": 2}, window=RESET)

    def __init__(
        self, name: str, machine: Machine, *, bus: PciBus, irqs: Sequence[Line], slot: int = 1, function: int = 0
    ) -> None:
        super().__init__(name, machine, bus=bus, slot=slot, function=function)
        self.config.preset(Header.STATUS, 0x0200)  # medium DEVSEL timing
        self._irqs = irqs
        for wire in bus.intx:
            wire.connect(self._changed)

    def _changed(self, level: bool) -> None:
        del level
        self._route()

    def _route(self) -> None:
        up = set()
        for pirq, wire in enumerate(self.bus.intx):
            routing = self.config.data[Piix3Config.PIRQRC.offset + pirq]
            if wire.level and routing < 0x10:
                up.add(routing)
        for number, irq in enumerate(self._irqs):
            irq.set(number in up and number in ROUTABLE)

    def on_config_write(self, offset: int, size: int) -> None:
        """Interrupts move at once."""
        if offset < 0x64 and offset + size > 0x60:
            self._route()

    def on_reset(self) -> None:
        """No interrupt is routed."""
        self._route()

    @RC.on_write
    def _reset(self, value: int) -> None:
        """The change of RCPU from 0 to 1 resets."""
        self.RC = value & HARD
        if value & RESET_CPU:
            self.machine.power.reset(self.name)
