"""The serial side of a port of AHCI: its interface, resets and the signature, and FISes that arrive in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata import fis
from dbt.machine.ata.codes import BSY
from dbt.machine.ata.hba import EXCHANGED, FRE, HBFS, NO_DEVICE, PCS, PHY_CHANGED, PHY_OFF, PHY_UP, PRCS, UNKNOWN
from dbt.machine.ata.link import Link
from dbt.machine.errors import DmaError

if TYPE_CHECKING:
    from dbt.machine.ata.drive import Drive
    from dbt.machine.ata.hba import Hba


class Phy(Link):
    """What `Port` is on top of."""

    def __init__(self, hba: Hba, number: int, drive: Drive | None) -> None:
        self.hba = hba
        self.number = number
        self.drive = drive
        if drive is not None:
            drive.link = self

    def drop(self) -> None:
        """Forget the commands that were sent to the drive."""
        raise NotImplementedError

    def interrupt_causes(self, causes: int) -> None:
        """Set bits of PxIS."""
        self.hba.PxIS[self.number] |= causes
        self.hba.update()

    def post(self, frame: bytes, cause: int = 0) -> None:
        """A FIS arrives: it is stored if reception is enabled, and may interrupt."""
        hba, n = self.hba, self.number
        if not hba.PxCMD[n] & FRE:
            return
        try:
            hba.dma.dma_write((hba.PxFBU[n] << 32 | hba.PxFB[n]) + fis.AT[frame[0]], frame)
        except DmaError:
            cause |= HBFS
            hba.stopped[n] = 1
        if cause:
            self.interrupt_causes(cause)

    def show_task_file(self) -> None:
        assert self.drive is not None
        self.hba.PxTFD[self.number] = self.drive.error << 8 | self.drive.status

    def write_control(self, value: int) -> None:
        """PxSCTL: COMRESET, and switching the interface off."""
        hba, n = self.hba, self.number
        old, hba.PxSCTL[n] = hba.PxSCTL[n], value
        now, before = value & 15, old & 15
        if now == 1 and before != 1:
            self.begin_reset()
        elif now == 0 and before == 1:
            self.end_reset()
        elif now == 4 and before != 4:
            self.begin_reset()
            hba.PxSSTS[n] = PHY_OFF
        elif now == 0 and before == 4:
            self.end_reset()

    def begin_reset(self) -> None:
        """COMRESET: the interface goes down."""
        hba, n = self.hba, self.number
        self.drop()
        hba.PxSSTS[n] = 0
        hba.PxTFD[n] = NO_DEVICE
        hba.PxSIG[n] = UNKNOWN
        hba.PxCI[n] = hba.PxSACT[n] = hba.softreset[n] = hba.stopped[n] = 0
        if self.drive is not None:
            self.drive.begin_reset()

    def end_reset(self) -> None:
        """The interface comes up; the signature follows when the drive is ready."""
        hba, n = self.hba, self.number
        if self.drive is None:
            return
        hba.PxSSTS[n] = PHY_UP
        hba.PxTFD[n] = NO_DEVICE | BSY
        hba.PxSERR[n] |= EXCHANGED | PHY_CHANGED
        self.interrupt_causes(PCS | PRCS)
        self.drive.end_reset()

    def ready(self, drive: Drive) -> None:
        """The signature: a register FIS, of which PxSIG is made."""
        hba, n = self.hba, self.number
        if not hba.PxSSTS[n]:
            return  # the machine's reset: end_reset is to come
        hba.PxSIG[n] = drive.high << 24 | drive.mid << 16 | drive.low << 8 | drive.count & 255
        self.show_task_file()
        self.post(fis.register_d2h(drive, interrupt=False))
        self.settled(drive)
