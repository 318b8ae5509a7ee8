"""`virt`: QEMU's board for Arm guests (its docs/system/arm/virt): its addresses and interrupts for what exists here.

Not there yet: GICv3, the GICv2's MSI frame, virtio-mmio, PCI and so on; nothing is at their addresses. The device tree
says what is there, so it names no CPUs, no timer and no PSCI yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.board import MIB, Board, Inputs, Options, Placed, Tree
from dbt.machine.boards.devicetree import Node, cells, strings, wide
from dbt.machine.devices.gicv2 import GICv2
from dbt.machine.devices.pl011 import UARTCLK
from dbt.machine.memory import RAM

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

FLASH = {"size": 64 * MIB}
FLASH_TREE = Tree("flash", ("cfi-flash",), more={"bank-width": cells(4)})
CLOCK, GIC = 0x8000, 0x8001  # phandles
RAM_BASE = 0x4000_0000


class Virt(Board):
    """QEMU's virtual Arm board."""

    NAME = "virt"
    ABOUT = "Arm, with QEMU's addresses: GICv2, PL011, PL031, PL061, fw_cfg, two banks of flash"
    CPUS = 8
    DEVICES = (
        Placed("flash0", "cfi_flash", {"": 0x0000_0000}, tree=FLASH_TREE, arguments=FLASH),
        Placed("flash1", "cfi_flash", {"": 0x0400_0000}, tree=FLASH_TREE, arguments=FLASH),
        Placed(
            "uart", "pl011", {"": 0x0900_0000}, irq=1, console=True,
            tree=Tree("pl011", ("arm,pl011", "arm,primecell"), ("uartclk", "apb_pclk")),
        ),
        Placed(
            "rtc", "pl031", {"": 0x0901_0000}, irq=2,
            tree=Tree("pl031", ("arm,pl031", "arm,primecell"), ("apb_pclk",)),
        ),
        Placed(
            "fw_cfg", "fw_cfg", {"REGISTERS_WINDOW": 0x0902_0000},
            tree=Tree("fw-cfg", ("qemu,fw-cfg-mmio",), more={"dma-coherent": b""}),
        ),
        Placed(
            "gpio", "pl061", {"": 0x0903_0000}, irq=7,
            tree=Tree(
                "pl061", ("arm,pl061", "arm,primecell"), ("apb_pclk",),
                more={"gpio-controller": b"", "#gpio-cells": cells(2)},
            ),
        ),
    )  # fmt: skip

    def controller(self, machine: Machine, options: Options) -> Inputs:
        """Shared interrupts of a GICv2."""
        gic = GICv2("gic", machine, cpus=options.cpus, interrupts=288)
        machine.place(gic, 0x0800_0000, window="GICD")
        machine.place(gic, 0x0801_0000, window="GICC")
        return gic.spi

    def memory(self, machine: Machine, options: Options) -> None:
        """RAM from 1 GiB on."""
        machine.place(RAM("ram", options.ram), RAM_BASE)

    def device_tree(self, machine: Machine) -> Node:
        """Bindings as Linux documents them."""
        root = Node("", {
            "compatible": strings("linux,dummy-virt"),
            "model": strings("linux,dummy-virt"),
            "#address-cells": cells(2),
            "#size-cells": cells(2),
            "interrupt-parent": cells(GIC),
        })  # fmt: skip
        root.add("chosen", {"stdout-path": strings("/pl011@9000000")})
        ram = next(region for region in machine.system.below() if region.name == "ram")
        root.add(f"memory@{RAM_BASE:x}", {"device_type": strings("memory"), "reg": wide(RAM_BASE, ram.size)})
        root.add("apb-pclk", {
            "compatible": strings("fixed-clock"),
            "#clock-cells": cells(0),
            "clock-frequency": cells(UARTCLK),
            "clock-output-names": strings("clk24mhz"),
            "phandle": cells(CLOCK),
        })  # fmt: skip
        root.add("intc@8000000", {
            "compatible": strings("arm,cortex-a15-gic"),
            "#interrupt-cells": cells(3),
            "interrupt-controller": b"",
            "reg": wide(0x0800_0000, 0x1000, 0x0801_0000, 0x2000),
            "phandle": cells(GIC),
        })  # fmt: skip
        self.add_nodes(machine, root, CLOCK)
        return root


BOARD = Virt
