"""`virt`: QEMU's board for Arm guests (its docs/system/arm/virt): its addresses and interrupts for what exists here.

The device tree says what is there, so it names no CPUs and no timer yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.acpi import virt as acpi
from dbt.machine.boards.acpi.loader import files
from dbt.machine.boards.acpi.virt import layout
from dbt.machine.boards.arm import MOST_CPUS, add_controller, add_power_key, add_psci, check, interrupts
from dbt.machine.boards.board import (
    MIB,
    Board,
    BoardMachine,
    Inputs,
    Options,
    Placed,
    Plugged,
    Tree,
    load_firmware,
    mac,
    made,
)
from dbt.machine.boards.devicetree import Node, cells, strings, wide
from dbt.machine.boards.pcie import IRQ, PORTS, SHARED
from dbt.machine.devices import load
from dbt.machine.devices.fw_cfg import FwCfg
from dbt.machine.devices.gpex import GpexHost
from dbt.machine.devices.pl011 import UARTCLK
from dbt.machine.devices.pl061 import PL061
from dbt.machine.devices.virtio_blk import VirtioBlk
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.memory import RAM, ROMDevice
from dbt.machine.pci.bus import PINS
from dbt.machine.virtio import VirtioDevice
from dbt.machine.virtio.mmio import VirtioMmio

from dbt.errors import UsageError

if TYPE_CHECKING:
    from dbt.machine.pci.assign import Ranges

FLASH = {"size": 64 * MIB}
FLASH_TREE = Tree("flash", ("cfi-flash",), more={"bank-width": cells(4)})
CLOCK, GIC, MSI, GPIO = range(0x8000, 0x8004)  # phandles
POWER_PIN = 3  # of the GPIO controller: the power button
RAM_BASE = 0x4000_0000
TRANSPORTS, TRANSPORT_AT, TRANSPORT_SIZE, TRANSPORT_IRQ = 32, 0x0A00_0000, 0x200, 16  # of virtio
MMIO_BUS = "mmio"


def transport(number: int) -> Placed:
    """A place for a virtio device. Its interrupt is an edge to guests, as QEMU's tree has it."""
    return Placed(
        f"virtio{number}", "virtio_mmio", {"": TRANSPORT_AT + number * TRANSPORT_SIZE}, irq=TRANSPORT_IRQ + number,
        tree=Tree("virtio_mmio", ("virtio,mmio",), more={"dma-coherent": b""}, edge=True), acpi=("LNRO0005", number),
    )  # fmt: skip


class Virt(Board):
    """QEMU's virtual Arm board."""

    NAME = "virt"
    ABOUT = "Arm, with QEMU's addresses: GIC, PL011, PL031, PL061, fw_cfg, two banks of flash, virtio, PCI Express"
    CPUS = max(MOST_CPUS.values())
    DEVICES = (
        Placed("flash0", "cfi_flash", {"": 0x0000_0000}, tree=FLASH_TREE, arguments=FLASH),
        Placed("flash1", "cfi_flash", {"": 0x0400_0000}, tree=FLASH_TREE, arguments=FLASH),
        Placed(
            "uart", "pl011", {"": 0x0900_0000}, irq=1, console=True, acpi=("ARMH0011", 0),
            tree=Tree("pl011", ("arm,pl011", "arm,primecell"), ("uartclk", "apb_pclk")),
        ),
        Placed(
            "rtc", "pl031", {"": 0x0901_0000}, irq=2,
            tree=Tree("pl031", ("arm,pl031", "arm,primecell"), ("apb_pclk",)),
        ),
        Placed(
            "fw_cfg", "fw_cfg", {"REGISTERS_WINDOW": 0x0902_0000}, acpi=("QEMU0002", 0),
            tree=Tree("fw-cfg", ("qemu,fw-cfg-mmio",), more={"dma-coherent": b""}),
        ),
        Placed(
            "gpio", "pl061", {"": 0x0903_0000}, irq=7, acpi=("ARMH0061", 0),
            tree=Tree(
                "pl061", ("arm,pl061", "arm,primecell"), ("apb_pclk",),
                more={"gpio-controller": b"", "#gpio-cells": cells(2), "phandle": cells(GPIO)},
            ),
        ),
        *(transport(number) for number in range(TRANSPORTS)),
    )  # fmt: skip

    def memory(self, machine: BoardMachine) -> None:
        """RAM from 1 GiB on."""
        machine.place(RAM("ram", machine.options.ram), RAM_BASE)

    def check(self, options: Options) -> None:
        """How many CPUs there can be depends on the interrupt controller, and how much memory on where it may be."""
        super().check(options)
        check(options.gic, options.cpus)
        if not options.highmem and RAM_BASE + options.ram > 1 << 32:
            raise UsageError(f"{self.NAME} has up to 3 GiB of memory below 4 GiB, not {options.ram:,} bytes")

    def controller(self, machine: BoardMachine) -> Inputs:
        """Shared interrupts of a GIC."""
        return interrupts(machine, machine.options.gic, machine.options.cpus)

    def buses(self, machine: BoardMachine) -> None:
        """PCI Express, as QEMU's generic host has it."""
        where = layout(machine)
        host = GpexHost(
            "pcie", machine, ecam_at=where.ecam[0], buses=where.last_bus + 1, memory=where.windows, ports_at=PORTS
        )
        machine.pci = host.bus
        for number, wire in enumerate(host.bus.intx):
            wire.connect(machine.inputs(IRQ + number).set)

    def plug(self, machine: BoardMachine, plugged: Plugged) -> None:
        """Virtio devices may also be on MMIO, from the last transport on, as QEMU has it."""
        if plugged.bus != MMIO_BUS:
            super().plug(machine, plugged)
            return
        kind = load(plugged.kind)
        if not issubclass(kind, VirtioDevice):
            raise UsageError(f"{plugged.kind} is no virtio device")
        if plugged.slot is not None:
            raise UsageError(f"{MMIO_BUS} has no slots: the next free transport is taken")
        name = plugged.name or self.free_name(machine, plugged.kind)
        self._transport(machine, made(machine, kind, name, plugged))

    @staticmethod
    def _transport(machine: BoardMachine, device: VirtioDevice) -> None:
        for number in reversed(range(TRANSPORTS)):
            place = machine.devices[f"virtio{number}"]
            assert isinstance(place, VirtioMmio)
            if place.device is None:
                place.plug(device)
                return
        raise UsageError(f"{machine.name} has no more than {TRANSPORTS} places for virtio devices on MMIO")

    def connect(self, machine: BoardMachine) -> None:
        """Disks and network cards are virtio's."""
        options = machine.options
        if options.cds:
            raise UsageError(f"{machine.name} has no CD-ROM drives")
        for number, disk in enumerate(options.disks):
            self._transport(machine, VirtioBlk(f"disk{number}", machine, disk))
        for number, net in enumerate(options.nets):
            self._transport(machine, VirtioNet(f"net{number}", machine, net, mac=mac(number)))

    def finish(self, machine: BoardMachine) -> None:
        """The power button is a pin; firmware is in flash and finds ACPI's tables in fw_cfg."""
        flash = machine.devices["flash0"].region
        assert isinstance(flash, ROMDevice)
        load_firmware(flash, machine.options.firmware, top=False)
        gpio, fw_cfg = machine.devices["gpio"], machine.devices["fw_cfg"]
        assert isinstance(gpio, PL061)
        machine.power.button.connect(gpio.input(POWER_PIN).set)
        assert isinstance(fw_cfg, FwCfg)
        for name, data in files(self.acpi(machine)).items():
            fw_cfg.add_file(name, data)

    def ranges(self, machine: BoardMachine) -> Ranges:
        """The host's windows."""
        return layout(machine).ranges()

    def interrupt_line(self, slot: int, pin: int) -> int:
        """The shared interrupt's number."""
        return SHARED + IRQ + (slot + pin) % PINS

    def device_tree(self, machine: BoardMachine) -> Node:
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
        add_controller(machine, root, GIC, MSI)
        add_psci(root)
        add_power_key(root, GPIO, POWER_PIN)
        self.add_nodes(machine, root, CLOCK)
        if machine.pci is not None:
            layout(machine).add_node(root, machine.pci, GIC, MSI)
        return root

    def acpi(self, machine: BoardMachine) -> dict[str, bytes]:
        """See acpi/virt.py."""
        return acpi.build(machine)


BOARD = Virt
