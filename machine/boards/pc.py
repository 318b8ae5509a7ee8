"""`pc`: QEMU's board of that name, an i440FX and a PIIX3: its addresses and interrupts for what exists here.

Below 4 GiB is RAM up to where PCI starts, the rest of it is above. Interrupts of ISA go to the 8259 pair and to the I/O
APIC, the timer's to its input 2. Not there yet: display, DMA controller, floppy disks.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from dbt.machine.boards.acpi.loader import files
from dbt.machine.boards.acpi.pc import APM, GPE0, HPET, IOAPIC, MOUSE_IRQ, PM_BASE, SCI, TIMER_INPUT, build
from dbt.machine.boards.board import MIB, Board, BoardMachine, Inputs, Placed, load_firmware, mac
from dbt.machine.boards.isapc import HIGH, ide_drives, keep_memory_size, pic_pair
from dbt.machine.devices.apic import LocalApic
from dbt.machine.devices.apic_bus import MSI_BASE, MSI_SIZE, ApicBus
from dbt.machine.devices.e1000 import E1000
from dbt.machine.devices.fw_cfg import FwCfg
from dbt.machine.devices.hpet import Hpet
from dbt.machine.devices.i440fx import I440fx
from dbt.machine.devices.ioapic import PINS, IoApic
from dbt.machine.devices.mc146818 import MC146818
from dbt.machine.devices.piix3 import ROUTABLE, Piix3
from dbt.machine.devices.piix3_ide import Piix3Ide
from dbt.machine.lines import Line, OrGate
from dbt.machine.machine import PORTS
from dbt.machine.memory import RAM, ROM, Alias, Unassigned
from dbt.machine.pci import ConfigPorts, PciBus
from dbt.machine.pci.assign import Ranges
from dbt.machine.pci.bar import RANKS

GIB = 1 << 30
BIOS, BIOS_LOW, OPTION_ROMS = 256 << 10, 128 << 10, 128 << 10
PCI_MOST, PCI_FROM = 0xE000_0000, 0xC000_0000  # RAM that reaches the first ends at the second
PIRQ_IRQS = (10, 10, 11, 11)  # what firmware routes PIRQA# to PIRQD# to, as SeaBIOS does
PIRQRC, ELCR = 0x60, 0x4D0
PMBASE, PMREGMISC = 0x40, 0x80
IDE_IRQS, IDETIM, DECODE = (14, 15), 0x40, 0x8000


def route(slot: int, pin: int) -> int:
    """The wire of a slot's pin: slot 1's INTA# is PIRQA#."""
    return (slot + pin - 1) % 4


def ram_of(machine: BoardMachine) -> RAM:
    """All of the memory, from its low part."""
    low = next(region for region in machine.system.below() if region.name == "ram-low")
    ram = next(iter(low.below()))
    assert isinstance(ram, RAM)
    return ram


def below_4g(ram: int) -> int:
    """How much of the memory is below PCI."""
    return ram if ram < PCI_MOST else PCI_FROM


class Pc(Board):
    """QEMU's PC with an i440FX."""

    NAME = "pc"
    ABOUT = "a PC, with QEMU's addresses: i440FX, PIIX3, PCI, 8259 pair, APICs, 8254, MC146818, HPET, 16550, fw_cfg"
    CPUS = 8
    UNASSIGNED = Unassigned.ONES
    DEVICES = (
        Placed("pit", "i8254", {"WINDOW": 0x40, "PORTB": 0x61}, irq=0, space=PORTS, acpi=("PNP0100", 0)),
        Placed("rtc", "mc146818", {"": 0x70}, irq=8, space=PORTS, acpi=("PNP0B00", 0)),
        Placed(
            "keyboard",
            "i8042",
            {"DATA_PORT": 0x60, "COMMAND_PORT": 0x64},
            irq=1,
            irqs={"mouse_irq": MOUSE_IRQ},
            space=PORTS,
            acpi=("PNP0303", 0),
        ),
        Placed("pm", "piix4_pm", {"GPE0": GPE0, "APM": APM}, irqs={"sci": SCI}, slot=(1, 3), space=PORTS),
        Placed("port92", "port92", {"": 0x92}, space=PORTS),
        Placed("com1", "ns16550", {"": 0x3F8}, irq=4, space=PORTS, console=True, acpi=("PNP0501", 1)),
        Placed("com2", "ns16550", {"": 0x2F8}, irq=3, space=PORTS, console=True, acpi=("PNP0501", 2)),
        Placed("fw_cfg", "fw_cfg", {"IO": 0x510, "IO_DMA": 0x514}, space=PORTS, acpi=("QEMU0002", 0)),
    )

    def devices(self, machine: BoardMachine) -> tuple[Placed, ...]:
        """Either of two lets address line 20 through; the keyboard is somebody's."""
        gate = OrGate(machine.a20)
        more: dict[str, dict[str, Any]] = {
            "keyboard": {"a20": gate.input("keyboard"), "user": machine.options.user},
            "port92": {"a20": gate.input("port92")},
        }
        return tuple(
            replace(placed, arguments={**placed.arguments, **more.get(placed.name, {})}) for placed in self.DEVICES
        )

    def memory(self, machine: BoardMachine) -> None:
        """RAM below PCI and above 4 GiB; what is below 1 MiB besides it is the host bridge's."""
        size = machine.options.ram
        ram, low = RAM("ram", size), below_4g(size)
        machine.place(Alias("ram-low", ram, 0, low), 0)
        if size > low:
            machine.place(Alias("ram-high", ram, low), 4 * GIB)

    def controller(self, machine: BoardMachine) -> Inputs:
        """The 8259 pair, the I/O APIC, and a local APIC in each CPU's own space.

        Then the event timers, which stand before the interrupts of the 8254 and the clock.
        """
        bus = ApicBus()
        pair = pic_pair(machine)
        for number in range(machine.options.cpus):
            acknowledge = None if number else pair.acknowledge
            apic = LocalApic(f"apic{number}", machine, number=number, bus=bus, acknowledge_pic=acknowledge)
            machine.spaces.append(apic.own_space())
            if not number:
                pair.intr.connect(apic.lint0.set)
        machine.msi.add(MSI_BASE, MSI_SIZE, bus.msi)
        ioapic = IoApic("ioapic", machine, bus=bus)
        machine.place(ioapic, IOAPIC)
        pins = [OrGate(ioapic.input(number)) for number in range(PINS)]
        irqs = [OrGate(Line(f"irq{number}", pair.inputs[number].set)) for number in range(len(pair.inputs))]
        for number, gate in enumerate(irqs):
            gate.output.connect(pins[number or TIMER_INPUT].input(f"irq{number}").set)
        hpet = Hpet(
            "hpet", machine, irq0=irqs[0].input("hpet"), irq8=irqs[8].input("hpet"),
            route=lambda number: pins[number].input("hpet"),
        )  # fmt: skip
        machine.place(hpet, HPET)
        machine.placed.append(Placed("hpet", "hpet", {"": HPET}, acpi=("PNP0103", 0)))
        first = {0: hpet.pit, 8: hpet.rtc}
        return lambda number: first.get(number) or irqs[number].input(f"irq{number}")

    def buses(self, machine: BoardMachine) -> None:
        """The host bridge, the ISA bridge, and the ports of configuration space."""
        bus = machine.pci = PciBus("pci", machine, io=machine.io, route=route)
        machine.system.place(bus.memory, 0, -1)
        bios = ROM("bios", BIOS)
        load_firmware(bios, machine.options.firmware, top=True)
        bus.memory.place(bios, 4 * GIB - BIOS)
        bus.memory.place(Alias("bios-low", bios, BIOS - BIOS_LOW), HIGH - BIOS_LOW, 1)
        bus.memory.place(ROM("option-roms", OPTION_ROMS), 0xC0000, 1)
        I440fx("i440fx", machine, bus=bus, ram=ram_of(machine))
        wires = [machine.inputs(number) if number in ROUTABLE else Line() for number in range(16)]
        piix3 = Piix3("piix3", machine, bus=bus, irqs=wires)
        Piix3Ide(
            "ide", machine, bus=bus, slot=1, function=1, drives=ide_drives(machine),
            irqs=[machine.inputs(number) for number in IDE_IRQS],
        )  # fmt: skip
        ports = ConfigPorts("pci-config", machine, bus, piix3.banks["RESET"])
        for window, at in (("ADDRESS", 0xCF8), ("DATA", 0xCFC)):  # the host bridge's, before any BAR
            machine.io.place(ports.regions[window], at, RANKS + 1)

    def connect(self, machine: BoardMachine) -> None:
        """Network cards."""
        assert machine.pci is not None
        for number, net in enumerate(machine.options.nets):
            slot = machine.pci.free_slot()
            E1000(f"net{number}", machine, net=net, mac=mac(number), bus=machine.pci, slot=slot)

    def finish(self, machine: BoardMachine) -> None:
        """What a BIOS looks for: the clock's memory, fw_cfg's items, ACPI's tables."""
        options = machine.options
        low = below_4g(options.ram)
        clock, fw_cfg = machine.devices["rtc"], machine.devices["fw_cfg"]
        assert isinstance(clock, MC146818)
        assert isinstance(fw_cfg, FwCfg)
        keep_memory_size(clock, low)
        chunks, high = min(max(low - 16 * MIB, 0) >> 16, 0xFFFF), options.ram - low >> 16
        for offset, value in (
            (0x14, 0x06), (0x34, chunks & 0xFF), (0x35, chunks >> 8), (0x5B, high & 0xFF), (0x5C, high >> 8 & 0xFF),
            (0x5D, high >> 16 & 0xFF), (0x5F, options.cpus - 1),
        ):  # fmt: skip
            clock.store(offset, value)
        fw_cfg.add(0x03, struct.pack("<Q", options.ram))
        fw_cfg.add(0x05, struct.pack("<H", options.cpus))
        fw_cfg.add(0x0F, struct.pack("<H", options.cpus))
        ranges = [(0, low), *([(4 * GIB, options.ram - low)] if options.ram > low else [])]
        fw_cfg.add_file("etc/e820", b"".join(struct.pack("<QQI", at, size, 1) for at, size in ranges))
        for name, data in files(self.acpi(machine)).items():
            fw_cfg.add_file(name, data)

    def ranges(self, machine: BoardMachine) -> Ranges:
        """From the end of low RAM to the I/O APIC; ports that ISA and the chip set leave; above high RAM."""
        options = machine.options
        start = max(-(-below_4g(options.ram) // (256 * MIB)) * 256 * MIB, PCI_FROM)
        high = -(-max(options.ram - below_4g(options.ram) + 4 * GIB, 4 * GIB) // GIB) * GIB
        return Ranges(memory=(start, IOAPIC - start), io=(0xC000, 0x3000), high=(high, 64 * GIB))

    def interrupt_line(self, slot: int, pin: int) -> int:
        """What the wire is routed to."""
        return PIRQ_IRQS[route(slot, pin)]

    def assign(self, machine: BoardMachine) -> None:
        """Firmware also routes the interrupts, makes them levels, and shows the ports of the chip set."""
        super().assign(machine)
        if machine.pci is None:
            return
        for number, irq in enumerate(PIRQ_IRQS):
            machine.pci.config_write(0, 1 << 3, PIRQRC + number, 1, irq)
        for channel in range(2):
            machine.pci.config_write(0, 1 << 3 | 1, IDETIM + 2 * channel, 2, DECODE)
        machine.pci.config_write(0, 1 << 3 | 3, 0x3C, 1, SCI)
        machine.pci.config_write(0, 1 << 3 | 3, PMBASE, 4, PM_BASE | 1)
        machine.pci.config_write(0, 1 << 3 | 3, PMREGMISC, 1, 1)
        machine.ports.write(ELCR + 1, 1, sum(1 << irq - 8 for irq in set(PIRQ_IRQS)))

    def acpi(self, machine: BoardMachine) -> dict[str, bytes]:
        """See acpi/pc.py."""
        return build(machine)


BOARD = Pc
