"""A channel of parallel ATA as a PC sees it (ATA8-APT; ATA-4, 7): two drives behind a command and a control block.

Both drives hear every write of the registers; the selected one answers reads, executes commands and drives INTRQ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata.codes import BSY, DEV, DRQ, FIXED, HOB, NIEN, SRST, Op
from dbt.machine.ata.link import Link
from dbt.machine.ata.scatter import TableShort
from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Fields, Register, State, View, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.ata.drive import Drive
    from dbt.machine.ata.scatter import Source
    from dbt.machine.ata.transfer import Failure
    from dbt.machine.machine import Machine

FLOATING = 0x7F  # of a cable without drives: only DD7 is pulled down
STATUS_FIELDS: Fields = {"ERR": 0, "DRQ": 3, "DSC": 4, "DF": 5, "DRDY": 6, "BSY": 7}


class Engine:
    """What moves data of DMA commands for a channel: a bus master."""

    source: Source

    def ended(self) -> None:
        """The drive's command has ended."""

    def failed(self, *, short: bool) -> None:
        """Memory could not be reached, or was too little."""


class IdeChannel(Device, Link):
    """ATA channel: command block and control block (ATA8-APT; ATA-4, 7). Without an engine there is no DMA (ISA)."""

    BLOCK = Window(8, AccessSizes((1, 4), (1, 4)))
    CONTROL_BLOCK = Window(1, AccessSizes((1, 1), (1, 1)))
    DATA = View(0, RW, "data", size=2, exact=True)
    DATA32 = View(0, RW, "two words of data at a time", exact=True)
    ERROR = View(1, RO, "error", size=1, fields={"ABRT": 2, "IDNF": 4, "UNC": 6, "ICRC": 7})
    FEATURES = View(1, WO, "features", size=1)
    SECTOR_COUNT = View(2, RW, "sectors; ATAPI: interrupt reason", size=1)
    LBA_LOW = View(3, RW, "LBA 7:0, or sector", size=1)
    LBA_MID = View(4, RW, "LBA 15:8, or cylinder; ATAPI: byte count", size=1)
    LBA_HIGH = View(5, RW, "LBA 23:16, or cylinder; ATAPI: byte count", size=1)
    DEVICE = View(6, RW, "device, and LBA 27:24 or head", size=1, fields={"HEAD": (3, 0), "DEV": 4, "LBA": 6})
    STATUS = View(7, RO, "status; reading it ends an interrupt", size=1, fields=STATUS_FIELDS)
    COMMAND = View(7, WO, "command", size=1)
    ALTERNATE_STATUS = View(0, RO, "status", size=1, window=CONTROL_BLOCK, fields=STATUS_FIELDS)
    DEVICE_CONTROL = Register(
        0, WO, "device control", size=1, mask=0xFF, window=CONTROL_BLOCK, fields={"NIEN": 1, "SRST": 2, "HOB": 7}
    )  # fmt: skip

    unit = State(bits=1)  # which drive is selected

    def __init__(
        self,
        name: str,
        machine: Machine,
        irq: Line | None = None,
        *,
        drives: Sequence[Drive | None] = (),
        engine: Engine | None = None,
    ) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.engine = engine
        self.drives: list[Drive | None] = [*drives, None, None][:2]
        for drive in self.drives:
            if drive is not None:
                drive.link = self

    def attach(self, unit: int, drive: Drive) -> None:
        """Plug a drive in, of a machine that is off."""
        self.drives[unit] = drive
        drive.link = self
        drive.reset()

    def on_reset(self) -> None:
        """Drives reset themselves."""
        self._follow()

    @property
    def selected(self) -> Drive | None:
        """The drive that is meant."""
        return self.drives[self.unit]

    @property
    def answering(self) -> Drive | None:
        """The drive that answers reads: the other one for one that is not there, with a status of 0 (ATA-4, 9.16)."""
        return self.drives[self.unit] or self.drives[1 - self.unit]

    # What drives see

    @property
    def dma(self) -> bool:  # type: ignore[override]
        """Whether there is a bus master."""
        return self.engine is not None

    def memory(self, drive: Drive) -> Source:
        """What the bus master points to."""
        del drive
        assert self.engine is not None
        return self.engine.source

    def ended(self, drive: Drive, *, data_in: bool) -> None:
        """Tell the bus master."""
        del drive, data_in
        if self.engine is not None:
            self.engine.ended()

    def failed(self, drive: Drive, failure: Failure) -> bool:
        """Tell the bus master. A table that is too short leaves software to wait (Bus Master IDE 1.0, 3.1)."""
        del drive
        short = isinstance(failure, TableShort)
        if self.engine is not None:
            self.engine.failed(short=short)
        return short

    def interrupt(self, drive: Drive) -> None:
        """A drive's INTRQ has changed."""
        del drive
        self._follow()

    def second(self, drive: Drive) -> bool:
        """Device 1."""
        return drive is self.drives[1]

    def other(self, drive: Drive) -> Drive | None:
        """The drive that shares the channel."""
        return self.drives[0] if drive is self.drives[1] else self.drives[1]

    def _follow(self) -> None:
        drive = self.selected
        self.irq.set(drive is not None and bool(drive.intrq) and not self.DEVICE_CONTROL & NIEN)

    # Command block

    @DATA.on_read
    def _read_word(self) -> int:
        drive = self.drives[self.unit]
        return drive.read_word() if drive is not None else 0

    @DATA32.on_read
    def _read_long(self) -> int:
        drive = self.selected
        return drive.read_data(4) if drive is not None else 0

    @DATA.on_write
    def _write_word(self, value: int) -> None:
        drive = self.selected
        if drive is not None:
            drive.write_data(2, value)

    @DATA32.on_write
    def _write_long(self, value: int) -> None:
        drive = self.selected
        if drive is not None:
            drive.write_data(4, value)

    def _shown(self, register: str) -> int:
        """A register of two contents, as HOB chooses."""
        drive = self.answering
        if drive is None:
            return FLOATING
        value: int = getattr(drive, register)
        return value >> 8 if self.DEVICE_CONTROL & HOB else value & 255

    def _put(self, register: str, value: int) -> None:
        """Both drives hear it, unless the selected one is busy."""
        self.DEVICE_CONTROL &= ~HOB
        drive = self.selected
        if drive is not None and drive.status & (BSY | DRQ):
            self.guest_error("a register is written while a command runs")
            return
        for drive in self.drives:
            if drive is not None:
                setattr(drive, register, (getattr(drive, register) << 8 | value) & 0xFFFF)

    @ERROR.on_read
    def _error(self) -> int:
        drive = self.answering
        return FLOATING if drive is None else drive.error if drive is self.selected else 0

    @FEATURES.on_write
    def _features(self, value: int) -> None:
        self._put("feature", value)

    @SECTOR_COUNT.on_read
    def _count(self) -> int:
        return self._shown("count")

    @SECTOR_COUNT.on_write
    def _set_count(self, value: int) -> None:
        self._put("count", value)

    @LBA_LOW.on_read
    def _low(self) -> int:
        return self._shown("low")

    @LBA_LOW.on_write
    def _set_low(self, value: int) -> None:
        self._put("low", value)

    @LBA_MID.on_read
    def _mid(self) -> int:
        return self._shown("mid")

    @LBA_MID.on_write
    def _set_mid(self, value: int) -> None:
        self._put("mid", value)

    @LBA_HIGH.on_read
    def _high(self) -> int:
        return self._shown("high")

    @LBA_HIGH.on_write
    def _set_high(self, value: int) -> None:
        self._put("high", value)

    @DEVICE.on_read
    def _device(self) -> int:
        drive = self.answering
        return FLOATING if drive is None else drive.select

    @DEVICE.on_write
    def _select(self, value: int) -> None:
        self.DEVICE_CONTROL &= ~HOB
        drive = self.selected
        if drive is not None and drive.status & (BSY | DRQ):
            self.guest_error("the device is chosen while a command runs")
            return
        for drive in self.drives:
            if drive is not None:
                drive.select = value | FIXED
        self.unit = int(bool(value & DEV))
        self._follow()

    @STATUS.on_read
    def _status(self) -> int:
        drive = self.selected
        if drive is None:
            return 0 if self.answering else FLOATING
        if drive.intrq:
            drive.set_intrq(0)
        return drive.status

    @COMMAND.on_write
    def _command(self, value: int) -> None:
        self.DEVICE_CONTROL &= ~HOB
        drive = self.drives[0] if value == Op.EXECUTE_DEVICE_DIAGNOSTIC else self.selected
        if drive is not None:
            if value == Op.EXECUTE_DEVICE_DIAGNOSTIC:
                self.unit = 0
            drive.write_command(value)

    # Control block

    @ALTERNATE_STATUS.on_read
    def _alternate_status(self) -> int:
        drive = self.selected
        if drive is None:
            return 0 if self.answering else FLOATING
        return drive.status

    @DEVICE_CONTROL.on_write
    def _control(self, value: int) -> None:
        changed = self.DEVICE_CONTROL ^ value
        self.DEVICE_CONTROL = value & (NIEN | SRST | HOB)
        if changed & SRST:
            self.unit = 0
            for drive in self.drives:
                if drive is None:
                    continue
                if value & SRST:
                    drive.begin_reset()
                else:
                    drive.end_reset()
        self._follow()
