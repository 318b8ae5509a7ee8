"""ACPI's tables of the board `pc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.acpi import aml, tables
from dbt.machine.boards.acpi.devices import cpus, described, routing
from dbt.machine.devices.hpet import Hpet
from dbt.machine.machine import PORTS

if TYPE_CHECKING:
    from dbt.machine.boards.board import BoardMachine, Placed

LOCAL_APIC, IOAPIC, HPET = 0xFEE0_0000, 0xFEC0_0000, 0xFED0_0000
PCAT_COMPATIBLE = 1  # there is a pair of 8259 as well
MOUSE_IRQ = 12
TIMER_INPUT = 2  # of the I/O APIC, for interrupt 0
LINK_IRQS = (5, 10, 11)  # what the wires of PCI can be routed to
LEVELS = (5, 9, 10, 11)  # interrupts that are levels
PM_BASE, GPE0, APM, SCI = 0x600, 0xAFE0, 0xB2, 9  # of the power management function
POWER = tables.PowerBlocks(
    event=PM_BASE, control=PM_BASE + 4, timer=PM_BASE + 8, gpe=GPE0, gpe_length=4, sci=SCI,
    command=APM, enable=0xF1, disable=0xF0,
    reset=0xCF9,
)  # fmt: skip
ISA_BRIDGE, PIRQRC = 1 << 16, 0x60


def _link(number: int) -> bytes:
    """A wire of PCI, which the ISA bridge routes to an interrupt (6.2.13)."""
    register = aml.path(f"\\_SB.PCI0.ISA.PRQ{number}")
    return aml.device(
        f"LNK{'ABCD'[number]}",
        aml.name("_HID", aml.eisa_id("PNP0C0F")),
        aml.name("_UID", number + 1),
        aml.name("_PRS", aml.resources(aml.interrupts(*LINK_IRQS, shared=True))),
        aml.method("_STA", 0, aml.when(aml.both(register, 0x80), aml.give(0x09)), aml.give(0x0B)),
        aml.method("_DIS", 0, aml.either(register, 0x80, register)),
        aml.name("NOW", aml.resources(aml.interrupts(0, shared=True))),
        aml.method(
            "_CRS",
            0,
            aml.dword_field(aml.path("NOW"), 5, "IRQN"),
            aml.when(aml.is_less(register, 0x80), aml.store(register, aml.path("IRQN"))),
            aml.give(aml.path("NOW")),
            serialized=True,
        ),
        aml.method(
            "_SRS", 1, aml.dword_field(aml.ARG0, 5, "IRQN"), aml.store(aml.path("IRQN"), register), serialized=True
        ),
    )


def _interrupt(number: int) -> bytes:
    return aml.irq(number)


def _on_isa(placed: Placed) -> bool:
    return placed.space == PORTS and placed.name != "fw_cfg"


def _mouse() -> bytes:
    """What shares the keyboard's ports."""
    return aml.device(
        "MOUS",
        aml.name("_HID", aml.eisa_id("PNP0F13")),
        aml.name("_CRS", aml.resources(aml.irq(MOUSE_IRQ))),
    )


def dsdt(machine: BoardMachine) -> bytes:
    """Differentiated system description table: what is on the buses."""
    ranges = machine.board.ranges(machine)
    windows = [
        aml.bus_numbers(0, 0xFF),
        aml.ports(0xCF8, 8),
        aml.port_window(0, 0xCF7),
        aml.port_window(0xD00, 0xFFFF),
        aml.memory_window(0xA0000, 0xBFFFF),
        aml.memory_window(ranges.memory[0], sum(ranges.memory) - 1),
    ]
    if ranges.high is not None:
        windows.append(aml.memory_window(ranges.high[0], sum(ranges.high) - 1))
    bus = machine.pci
    assert bus is not None
    isa = aml.device(
        "ISA",
        aml.name("_ADR", ISA_BRIDGE),
        aml.region("PRR", aml.PCI_CONFIG, PIRQRC, 4),
        aml.fields("PRR", *((f"PRQ{number}", 8) for number in range(4))),
        *described(machine, _interrupt, _on_isa),
        _mouse(),
    )
    pci = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", 0),
        aml.name("_CRS", aml.resources(*windows)),
        routing(lambda slot, pin: (aml.path(f"\\_SB.LNK{'ABCD'[bus.route(slot, pin)]}"), 0)),
        isa,
    )
    others = described(machine, _interrupt, lambda placed: not _on_isa(placed))
    links = (_link(number) for number in range(4))
    body = aml.scope("\\_SB", pci, *links, *others, *cpus(machine.options.cpus))
    return tables.table("DSDT", 2, body + aml.name("\\_S5", aml.package(0, 0, 0, 0)))


def madt(machine: BoardMachine) -> bytes:
    """Local APICs, the I/O APIC, and where ISA's interrupts are."""
    entries = [tables.local_apic(number) for number in range(machine.options.cpus)]
    entries.append(tables.io_apic(0, IOAPIC))
    entries.append(tables.override(0, TIMER_INPUT))
    entries += [tables.override(number, number, level=True) for number in LEVELS]
    entries.append(tables.local_nmi())
    return tables.madt(LOCAL_APIC, PCAT_COMPATIBLE, entries)


def build(machine: BoardMachine) -> dict[str, bytes]:
    """All tables."""
    hpet = machine.devices["hpet"]
    assert isinstance(hpet, Hpet)
    return {
        "FACS": tables.facs(),
        "DSDT": dsdt(machine),
        "FACP": tables.fadt(POWER),
        "APIC": madt(machine),
        "HPET": tables.hpet(HPET, hpet.GCAP_ID & 0xFFFFFFFF),
    }
