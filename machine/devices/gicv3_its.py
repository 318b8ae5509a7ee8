"""The GICv3's interrupt translation service (IHI 0069, sections 5.3 and 12.19): events of devices become LPIs.

Software puts commands into a queue in memory, whose tables are in memory as well. A few commands are taken at once, the
rest by a timer. A command that is about what is not there is logged and left out; where a table is not in memory, the
queue stalls (GITS_CREADR.Stalled) until software writes GITS_CWRITER.Retry.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.devices.gicv3_its_commands import COLLECTION_BITS, DEVICE_BITS, Commands
from dbt.machine.devices.gicv3_its_tables import ENTRY, CommandError
from dbt.machine.devices.gicv3_lpi import ID_BITS
from dbt.machine.devices.gicv3_redistributor import IIDR, PIDR
from dbt.machine.errors import DmaError
from dbt.machine.memory import AccessSizes, DmaPort
from dbt.machine.registers import RO, RW, WO, Fields, Register, Registers, View, Window
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.devices.gicv3 import GICv3
    from dbt.machine.machine import Machine

COMMAND = struct.Struct("<4Q")
AT_ONCE = 16  # commands
ENABLED, QUIESCENT = 1, 1 << 31
VALID = 1 << 63
STALLED = RETRY = 1
OFFSET = 0xF_FFE0
TABLE = 0xF8E0_FFFF_FFFF_FFFF  # of GITS_BASER: not its type and the size of entries
QUEUE = 0xB8EF_FFFF_FFFF_FCFF  # of GITS_CBASER
TRANSLATER = 0x1_0040
BASER_FIELDS: Fields = {
    "Size": (7, 0), "Page_Size": (9, 8), "Shareability": (11, 10), "Entry_Size": (52, 48), "OuterCache": (55, 53),
    "Type": (58, 56), "InnerCache": (61, 59), "Indirect": 62, "Valid": 63,
}  # fmt: skip


def table(kind: int) -> int:
    """GITS_BASER of a table of that type, with entries of 8 bytes, in pages of 64 KiB."""
    return kind << 56 | ENTRY - 1 << 48 | 2 << 8


class GICv3Its(Device):
    """Interrupt translation service of a GICv3 (IHI 0069), physical LPIs."""

    GITS = Window(0x2_0000, AccessSizes((1, 8), (1, 8)))
    GITS_CTLR = Register(0x0000, RW, "control", mask=ENABLED, fields={"Enabled": 0, "Quiescent": 31})
    GITS_IIDR = Register(0x0004, RO, "implementer", reset=IIDR)
    GITS_TYPER = Register(
        0x0008, RO, "type", size=8, partial=True,
        reset=1 | ENTRY - 1 << 4 | ID_BITS - 1 << 8 | DEVICE_BITS - 1 << 13 | COLLECTION_BITS - 1 << 32 | 1 << 36,
        fields={
            "Physical": 0, "ITT_entry_size": (7, 4), "IDbits": (12, 8), "Devbits": (17, 13), "SEIS": 18, "PTA": 19,
            "HCC": (31, 24), "CIDbits": (35, 32), "CIL": 36,
        },
    )  # fmt: skip
    GITS_CBASER = Register(
        0x0080, RW, "command queue", size=8, mask=QUEUE, partial=True,
        fields={"Size": (7, 0), "Shareability": (11, 10), "OuterCache": (55, 53), "InnerCache": (61, 59), "Valid": 63},
    )  # fmt: skip
    GITS_CWRITER = Register(
        0x0088, RW, "where software writes next", size=8, mask=OFFSET | RETRY, partial=True, fields={"Retry": 0}
    )
    GITS_CREADR = Register(
        0x0090, RO, "where the ITS reads next", size=8, partial=True, fields={"Stalled": 0, "Offset": (19, 5)}
    )
    GITS_BASER0 = Register(
        0x0100, RW, "device table", size=8, reset=table(1), mask=TABLE, partial=True, fields=BASER_FIELDS
    )
    GITS_BASER1 = Register(
        0x0108, RW, "collection table", size=8, reset=table(4), mask=TABLE, partial=True, fields=BASER_FIELDS
    )
    GITS_BASER = Registers(0x0110, RW, "tables that are not needed", count=6, size=8, mask=0, partial=True)
    GITS_PIDR = View(0xFFD0, RO, "identity", count=12)
    GITS_TRANSLATER = View(TRANSLATER, WO, "messages: event IDs, here of device 0", partial=True)

    def __init__(self, name: str, machine: Machine, gic: GICv3) -> None:
        super().__init__(name, machine)
        self.dma = DmaPort(name, machine.memory)
        self.commands = Commands(gic, self.dma)
        self.work = Work(self.clock, self._part, AT_ONCE)

    def on_reset(self) -> None:
        """Nothing is left to do."""
        self.work.cancel()
        self._place_tables()

    def on_restore(self) -> None:
        """What is in the queue is taken up again."""
        self.GITS_CREADR &= OFFSET | STALLED
        self.GITS_CWRITER &= OFFSET
        self._place_tables()
        self.work.cancel()
        if self._left():
            self.work.later()

    def message(self, offset: int, data: int, requester: int) -> None:
        """A message to GITS_TRANSLATER: an event of the device that sends it."""
        del offset
        if not self.GITS_CTLR & ENABLED:
            self.guest_error("a message comes while the ITS is not enabled")
            return
        try:
            self.commands.deliver(requester, data)
        except CommandError as error:
            self.guest_error("a message is left out", f": {error}")
        except DmaError:
            return  # it is logged already

    @GITS_TRANSLATER.on_write
    def _translate(self, value: int) -> None:
        self.message(0, value, 0)

    # The queue

    def _left(self) -> bool:
        """Whether there are commands to be taken."""
        ready = self.GITS_CTLR & ENABLED and self.GITS_CBASER & VALID and not self.GITS_CREADR & STALLED
        return bool(ready and self.GITS_CREADR != self.GITS_CWRITER)

    def _part(self) -> None:
        """Take some commands."""
        size = (self.GITS_CBASER & 0xFF) + 1 << 12
        base = self.GITS_CBASER & 0xF_FFFF_FFFF_F000
        writer = self.GITS_CWRITER
        if writer >= size:
            self.guest_error("GITS_CWRITER is beyond the end of the queue")
            return
        while self._left():
            if self.work.over:
                self.work.later()
                return
            self.work.spend()
            try:
                words = COMMAND.unpack(self.dma.dma_read(base + self.GITS_CREADR, COMMAND.size))
                if self.commands.waits(words):
                    self.work.later()
                    return
                self.commands.run(words)
            except CommandError as error:
                self.guest_error("a command is left out", f": {error}")
            except DmaError:  # it is logged already
                self.GITS_CREADR |= STALLED
                return
            self.GITS_CREADR = (self.GITS_CREADR + COMMAND.size) % size

    @GITS_CTLR.on_read
    def _control(self) -> int:
        return self.GITS_CTLR | (0 if self._left() else QUIESCENT)

    @GITS_CTLR.after_write
    def _enable(self) -> None:
        self.work.run()

    @GITS_CBASER.on_write
    def _place_queue(self, value: int) -> None:
        if self._may_move("GITS_CBASER"):
            self.GITS_CBASER = value & QUEUE
            self.GITS_CREADR = 0

    @GITS_CWRITER.on_write
    def _written(self, value: int) -> None:
        self.GITS_CWRITER = value & OFFSET
        if value & RETRY:
            self.GITS_CREADR &= ~STALLED
        self.work.run()

    # The tables

    def _may_move(self, register: str) -> bool:
        if self.GITS_CTLR & ENABLED:
            self.guest_error(f"{register} is written while the ITS is enabled")
            return False
        return True

    def _place_tables(self) -> None:
        self.commands.tables.devices = self.GITS_BASER0
        self.commands.tables.collections = self.GITS_BASER1
        self.commands.forget()

    @GITS_BASER0.on_write
    def _place_devices(self, value: int) -> None:
        if self._may_move("GITS_BASER0"):
            self.GITS_BASER0 = value & TABLE | table(1) & ~TABLE
            self._place_tables()

    @GITS_BASER1.on_write
    def _place_collections(self, value: int) -> None:
        if self._may_move("GITS_BASER1"):
            self.GITS_BASER1 = value & TABLE | table(4) & ~TABLE
            self._place_tables()

    @GITS_PIDR.on_read
    def _identity(self, index: int) -> int:
        return PIDR[index] | (4 if index == 4 else 0)  # PIDR0: the part is an ITS
