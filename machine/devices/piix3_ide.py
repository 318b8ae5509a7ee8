"""The IDE function of Intel's PIIX3 (290550, 3.3 and 5): two channels at their legacy ports, and bus master DMA.

Physical region descriptors and the bus master's registers: Programming Interface for Bus Master IDE Controller 1.0.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, Unpack

from dbt.machine.ata.scatter import Piece, Scatter, Source
from dbt.machine.devices.ide import Engine, IdeChannel
from dbt.machine.errors import DmaError
from dbt.machine.memory import AccessSizes
from dbt.machine.pci import Bar, Header, Identity, PciFunction
from dbt.machine.pci.config import IO, MASTER
from dbt.machine.registers import RW, Register, Registers, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.ata import Drive
    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine
    from dbt.machine.pci.function import Where

PORTS = ((0x1F0, 0x3F6), (0x170, 0x376))  # command and control block of each channel
SSBM, TO_MEMORY = 0x01, 0x08  # BMICX: start; the direction
BMIDEA, DMA_ERROR, IDEINTS = 0x01, 0x02, 0x04  # BMISX
DECODE = 0x8000  # of IDETIM
DESCRIPTOR = struct.Struct("<II")
BATCH, PAGE = 32, 4096
TABLE = 1 << 16  # a table does not cross such a boundary


class Timing:
    """Configuration registers of the function (290550, 3.3.12)."""

    IDETIM = Registers(0x40, RW, "timing of a channel, and whether its ports are decoded", count=2, size=2, mask=0xF3FF)
    SIDETIM = Register(0x44, RW, "timing of the second drives", size=1)


class BusMaster(Engine, Source):
    """The DMA engine of one channel: it walks the table from when it is started."""

    def __init__(self, function: Piix3Ide, number: int) -> None:
        self.source = self
        self._function = function
        self._number = number
        self._scatter: Scatter | None = None
        self._taken: Scatter | None = None  # where the last piece is from
        self._moved = False  # whether the current command used it

    @property
    def _started(self) -> bool:
        return bool(self._function.BMICX[self._number] & SSBM)

    def take(self, want: int, unit: int, *, to_memory: bool) -> Piece | None:
        """Memory, once software has started the engine."""
        if not self._started:
            return None
        self._moved = True
        if self._scatter is None:
            self._scatter = Scatter(self._function.dma, self._table())
        if to_memory != bool(self._function.BMICX[self._number] & TO_MEMORY):
            self._function.guest_error("the bus master's direction is not the command's")
        self._taken = self._scatter
        return self._scatter.take(want, unit, to_memory=to_memory)

    def back(self, count: int) -> None:
        """See Source. Software may have stopped the engine since: then it begins with another table."""
        if self._taken is not None and self._taken is self._scatter:
            self._taken.back(count)

    def _table(self) -> Fetch:
        return Fetch(self._function, self._function.BMIDTPX[self._number] & ~3)

    def start(self) -> None:
        """Software sets SSBM."""
        self._scatter = None
        self._function.BMISX[self._number] |= BMIDEA
        for drive in self._function.channels[self._number].drives:
            if drive is not None and drive.moving is not None and drive.moving.waiting:
                drive.go_dma()

    def stop(self) -> None:
        """Software clears SSBM: what is on its way arrives."""
        self._scatter = None
        self._function.BMISX[self._number] &= ~BMIDEA

    def ended(self) -> None:
        """The drive is done: the engine is active for as long as the table has more."""
        if not self._moved:
            return
        self._moved = False
        try:
            if self._scatter is not None and self._scatter.exhausted:
                self._function.BMISX[self._number] &= ~BMIDEA
        except DmaError:
            self.failed(short=False)

    def failed(self, *, short: bool) -> None:
        """A table that is too short, or a master or target abort: the engine stops."""
        self._moved = False
        error = 0 if short else DMA_ERROR
        self._function.BMISX[self._number] = self._function.BMISX[self._number] & ~BMIDEA | error


class Fetch:
    """Reads descriptors: a page's at a time, each once."""

    def __init__(self, function: PciFunction, table: int) -> None:
        self._function = function
        self._table = table
        self._last = False

    def __call__(self, index: int) -> list[tuple[int, int]]:
        """Some descriptors from `index` on."""
        at = self._table + DESCRIPTOR.size * index
        if self._last or at > self._table | TABLE - DESCRIPTOR.size:
            return []
        count = min(BATCH, max((PAGE - at % PAGE) // DESCRIPTOR.size, 1))
        found: list[tuple[int, int]] = []
        for base, length in DESCRIPTOR.iter_unpack(self._function.dma.dma_read(at, DESCRIPTOR.size * count)):
            found.append((base & ~1, length & 0xFFFE or 0x10000))
            if length >> 31:
                self._last = True
                break
        return found


class Piix3Ide(PciFunction):
    """PIIX3 IDE controller (Intel 290550), compatibility mode: `irqs` are IRQ 14 and 15."""

    PCI = Identity(vendor=0x8086, device=0x7010, class_code=0x010180)
    TIMING: ClassVar[type] = Timing
    BMIDE = Window(16, AccessSizes((1, 4), (1, 4)), partial=True)
    BARS = (Bar(4, "BMIDE", io=True),)
    BMICX = Registers(
        0, RW, "bus master command", count=2, stride=8, size=1, mask=SSBM | TO_MEMORY, fields={"SSBM": 0, "RWCON": 3}
    )
    BMISX = Registers(
        2, RW, "bus master status", count=2, stride=8, size=1, mask=0x66,
        fields={"BMIDEA": 0, "ERROR": 1, "IDEINTS": 2, "DMA0CAP": 5, "DMA1CAP": 6},
    )  # fmt: skip
    BMIDTPX = Registers(4, RW, "address of the descriptor table", count=2, stride=8, mask=0xFFFF_FFFC)

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        irqs: Sequence[Line | None] = (None, None),
        drives: Sequence[Drive | None] = (),
        **where: Unpack[Where],
    ) -> None:
        """`drives`: master and slave of the first channel, then of the second."""
        four = (*drives, None, None, None, None)[:4]
        self.engines = (BusMaster(self, 0), BusMaster(self, 1))
        self.channels = tuple(
            IdeChannel(f"{name}.{number}", machine, irqs[number], drives=four[2 * number : 2 * number + 2],
                       engine=self.engines[number])
            for number in range(2)
        )  # fmt: skip
        super().__init__(name, machine, **where)
        self.config.install(self.TIMING)
        self.config.preset(Header.COMMAND, 0, mask=IO | MASTER)
        self.config.preset(Header.STATUS, 0x0280)
        for number, (channel, places) in enumerate(zip(self.channels, PORTS, strict=True)):
            for region, place in zip(channel.regions.values(), places, strict=True):
                region.enabled = False
                self.bus.io.place(region, place)
            channel.irq.connect((self._interrupt_0, self._interrupt_1)[number])

    def on_config_write(self, offset: int, size: int) -> None:
        """Ports may be decoded or not any more."""
        del offset, size
        self._decode()

    def on_reset(self) -> None:
        """No ports until software has enabled them."""
        self._decode()

    def _decode(self) -> None:
        command = self.config.get(Header.COMMAND)
        for number, channel in enumerate(self.channels):
            timing = self.config.read(Timing.IDETIM.offset + 2 * number, 2)
            for region in channel.regions.values():
                region.enabled = bool(command & IO and timing & DECODE)

    def _interrupt_0(self, level: bool) -> None:
        if level:
            self.BMISX[0] |= IDEINTS

    def _interrupt_1(self, level: bool) -> None:
        if level:
            self.BMISX[1] |= IDEINTS

    @BMICX.on_write
    def _command(self, number: int, value: int) -> None:
        changed = (self.BMICX[number] ^ value) & SSBM
        self.BMICX[number] = value & (SSBM | TO_MEMORY)
        if changed and value & SSBM:
            self.engines[number].start()
        elif changed:
            self.engines[number].stop()

    @BMISX.on_write
    def _status(self, number: int, value: int) -> None:
        status = self.BMISX[number] & ~(value & (DMA_ERROR | IDEINTS))
        self.BMISX[number] = status & ~0x60 | value & 0x60
