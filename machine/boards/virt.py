"""`virt`: QEMU's board for Arm guests (its docs/system/arm/virt): its addresses and interrupts for what exists here.

Not there yet: the ITS and GICv3, virtio-mmio, PCI, and so on; nothing else is at their addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.board import MIB, Board, Inputs, Options, Placed
from dbt.machine.devices.gicv2 import GICv2
from dbt.machine.memory import RAM

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

FLASH = {"size": 64 * MIB}


class Virt(Board):
    """QEMU's virtual Arm board."""

    NAME = "virt"
    ABOUT = "Arm, with QEMU's addresses: GICv2, PL011, PL031, PL061, fw_cfg, two banks of flash"
    CPUS = 8
    DEVICES = (
        Placed("flash0", "cfi_flash", {"": 0x0000_0000}, arguments=FLASH),
        Placed("flash1", "cfi_flash", {"": 0x0400_0000}, arguments=FLASH),
        Placed("uart", "pl011", {"": 0x0900_0000}, irq=1, console=True),
        Placed("rtc", "pl031", {"": 0x0901_0000}, irq=2),
        Placed("fw_cfg", "fw_cfg", {"REGISTERS_WINDOW": 0x0902_0000}),
        Placed("gpio", "pl061", {"": 0x0903_0000}, irq=7),
    )

    def controller(self, machine: Machine, options: Options) -> Inputs:
        """Shared interrupts of a GICv2."""
        gic = GICv2("gic", machine, cpus=options.cpus, interrupts=288)
        machine.place(gic, 0x0800_0000, window="GICD")
        machine.place(gic, 0x0801_0000, window="GICC")
        return gic.spi

    def memory(self, machine: Machine, options: Options) -> None:
        """RAM from 1 GiB on."""
        machine.place(RAM("ram", options.ram), 0x4000_0000)


BOARD = Virt
