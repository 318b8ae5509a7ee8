"""The IDE function of Intel's PIIX4 (290562, 5): PIIX3's with registers for Ultra DMA, which change nothing here."""

from __future__ import annotations

from typing import ClassVar

from dbt.machine.devices.piix3_ide import Piix3Ide, Timing
from dbt.machine.pci import Identity
from dbt.machine.registers import RW, Register


class UltraTiming(Timing):
    """Configuration registers (290562, 5.1)."""

    UDMACTL = Register(
        0x48,
        RW,
        "which drives use Ultra DMA",
        size=1,
        mask=0x0F,
        fields={"PSDE0": 0, "PSDE1": 1, "SSDE0": 2, "SSDE1": 3},
    )
    UDMATIM = Register(0x4A, RW, "their cycle times", size=2, mask=0x3333)


class Piix4Ide(Piix3Ide):
    """PIIX4 IDE controller (Intel 290562)."""

    PCI = Identity(vendor=0x8086, device=0x7111, class_code=0x010180)
    TIMING: ClassVar[type] = UltraTiming
