"""The power management function of the Intel 82371AB (PIIX4; 290562, chapter 7), as QEMU's `pc` has it.

Fixed events and their timer, soft off, the APM ports, and the SMBus host. QEMU's block of general-purpose events is a
window of its own (its docs/specs: GPE0 at 0xAFE0). Firmware that answers 0xF1 and 0xF0 in the APM control port by
enabling ACPI or not is missing, so the function does that itself. The data sheet's device monitors are not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.devices.piix4_smbus import Piix4SmbusConfig, PiixSmbus
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.pci import Identity, PciBus
from dbt.machine.pci.config import Header
from dbt.machine.registers import RO, RW, Register, Registers, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

FREQUENCY = 3_579_545
ANY = AccessSizes((1, 4), (1, 4))
TMROF, GBL, PWRBTN, RTC = 1 << 0, 1 << 5, 1 << 8, 1 << 10  # of PMSTS and PMEN
STATUS_BITS, EVENTS = 0x8D31, TMROF | GBL | PWRBTN | RTC
SCI_EN, SUS_EN = 1 << 0, 1 << 13
SOFT_OFF, TO_DISK = 0, 2  # SUS_TYP
ACPI_ENABLE, ACPI_DISABLE = 0xF1, 0xF0
APMC_EN = 1 << 25  # of DEVACTB


class Piix4PmConfig:
    """The device's own part of configuration space."""

    PMBASE = Register(0x40, RW, "base of the PM window", reset=1, mask=0xFFC0)
    CNTA = Register(0x44, RW, "counters of idle times, A")
    CNTB = Register(0x48, RW, "counters of idle times, B")
    GPICTL = Register(0x4C, RW, "general-purpose inputs")
    DEVRESD = Register(0x50, RW, "resources of device 4")
    DEVACT = Registers(0x54, RW, "activity of devices; APMC_EN is bit 25 of the second", count=2)
    DEVRES = Registers(0x5C, RW, "resources of other devices", count=9)
    PMREGMISC = Register(0x80, RW, "whether the PM window is there", size=1, mask=1, fields={"PMIOSE": 0})


class Piix4Pm(PiixSmbus):
    """Intel 82371AB power management (290562, chapter 7). `sci`: its interrupt, 9 on a PC."""

    PCI = Identity(vendor=0x8086, device=0x7113, class_code=0x068000, revision=3, pin=1)
    CONFIG = (Piix4PmConfig, Piix4SmbusConfig)
    PM = Window(0x40, ANY, partial=True, hole=0xFF)
    PMSTS = Register(0x00, RW, "events; write one to clear", size=2, mask=0, clear=STATUS_BITS, window=PM,
                     fields={"TMROF": 0, "BM": 4, "GBL": 5, "PWRBTN": 8, "RTC": 10, "PWRBTNOR": 11, "RSM": 15},
                     )  # fmt: skip
    PMEN = Register(0x02, RW, "which events ask", size=2, mask=EVENTS, window=PM,
                    fields={"TMROF": 0, "GBL": 5, "PWRBTN": 8, "RTC": 10})  # fmt: skip
    PMCNTRL = Register(0x04, RW, "control; SUS_EN sleeps", size=2, mask=0x3C03, unimplemented=4, window=PM,
                       fields={"SCI_EN": 0, "BRLD_EN": 1, "SUS_TYP": (12, 10), "SUS_EN": 13})  # fmt: skip
    PMTMR = View(0x08, RO, "24 bits of time at 3.579545 MHz", window=PM)
    GPE0 = Window(4, ANY, partial=True)
    GPESTS = Register(0, RW, "general-purpose events; write one to clear", size=2, mask=0, clear=0xFFFF, window=GPE0)
    GPEEN = Register(2, RW, "which of them ask", size=2, window=GPE0)
    APM = Window(2, AccessSizes((1, 1), (1, 1)))
    APMC = Register(0, RW, "APM control; writing is an SMI", size=1, window=APM)
    APMS = Register(1, RW, "APM status", size=1, window=APM)

    looked = State(bits=64)  # when TMROF was looked for

    def __init__(
        self, name: str, machine: Machine, *, bus: PciBus, slot: int = 1, function: int = 3, sci: Line | None = None,
        smi: Line | None = None,
    ) -> None:  # fmt: skip
        self.sci, self.smi = sci or Line(f"{name}.sci"), smi or Line(f"{name}.smi")
        super().__init__(name, machine, bus=bus, slot=slot, function=function)
        self.config.preset(Header.STATUS, 0x0280)  # medium DEVSEL timing, fast back to back
        self.regions["PM"].enabled = False
        bus.io.place(self.regions["PM"], 0)
        self.overflow = self.clock.timer(self._update)
        machine.power.button.connect(self._button)

    def on_reset(self) -> None:
        """The windows are not there."""
        super().on_reset()
        self.looked = self.clock.now
        self._show()
        self._update()

    def on_restore(self) -> None:
        """Windows, lines and the timer follow from the state."""
        super().on_restore()
        self._show()
        self._update()

    def on_config_write(self, offset: int, size: int) -> None:
        """The windows are where the registers say."""
        super().on_config_write(offset, size)
        self._show()

    def _show(self) -> None:
        data = self.config.data
        at = int.from_bytes(data[0x40:0x42], "little") & 0xFFC0
        self.show(self.regions["PM"], at, on=bool(data[0x80] & 1))

    # Events

    def _ticks(self, now: int) -> int:
        return now * FREQUENCY // SECOND

    @PMTMR.on_read
    def _timer(self) -> int:
        return self._ticks(self.clock.now) & 0xFF_FFFF

    def _look(self) -> None:
        """TMROF is set when the timer's highest bit changes."""
        if self._ticks(self.clock.now) >> 23 != self._ticks(self.looked) >> 23:
            self.PMSTS |= TMROF
            self.looked = self.clock.now

    def _update(self) -> None:
        """The interrupt, and when it may change."""
        self._look()
        asks = bool(self.PMSTS & self.PMEN & EVENTS or self.GPESTS & self.GPEEN)
        self.sci.set(asks and bool(self.PMCNTRL & SCI_EN))
        self.smi.set(asks and not self.PMCNTRL & SCI_EN)
        if self.PMEN & ~self.PMSTS & TMROF:
            ticks = ((self._ticks(self.clock.now) >> 23) + 1) << 23
            self.overflow.at(-(-ticks * SECOND // FREQUENCY))
        else:
            self.overflow.cancel()

    @PMSTS.on_read
    def _status(self) -> int:
        self._look()
        return self.PMSTS

    @PMSTS.on_write
    def _clear(self, value: int) -> None:
        self._look()
        self.PMSTS &= ~(value & STATUS_BITS)
        self._update()

    @PMEN.after_write
    @GPESTS.after_write
    @GPEEN.after_write
    def _changed(self) -> None:
        self._update()

    def _button(self, level: bool) -> None:
        if level:
            self.PMSTS |= PWRBTN
            self._update()

    def gpe(self, number: int) -> None:
        """A general-purpose event."""
        self.GPESTS |= 1 << number
        self._update()

    @PMCNTRL.on_write
    def _control(self, value: int) -> None:
        self.PMCNTRL = value & 0x1C03
        if value & SUS_EN:
            kind = value >> 10 & 7
            if kind in {SOFT_OFF, TO_DISK}:
                self.machine.power.off(self.name)
            else:
                self.unimplemented(f"sleep of type {kind}")
        self._update()

    @APMC.on_write
    def _apm(self, value: int) -> None:
        self.APMC = value
        if value in {ACPI_ENABLE, ACPI_DISABLE}:
            self.PMCNTRL = self.PMCNTRL & ~SCI_EN | (SCI_EN if value == ACPI_ENABLE else 0)
            self._update()
        if int.from_bytes(self.config.data[0x58:0x5C], "little") & APMC_EN:
            self.smi.set(not self.smi.level)
            self.smi.set(not self.smi.level)
