"""ACPI's tables of the board `virt`: hardware-reduced. There are no timers yet, so there is no GTDT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.acpi import aml, tables
from dbt.machine.boards.acpi.devices import cpus, described, routing
from dbt.machine.boards.arm import GICC, GICD, GICR, GITS, REDISTRIBUTOR, V2M, V2M_COUNT, V2M_FIRST
from dbt.machine.boards.pcie import HIGH, IRQ, LOW, PORTS, PORTS_SIZE, SHARED, Layout

if TYPE_CHECKING:
    from dbt.machine.boards.board import BoardMachine


def layout(machine: BoardMachine) -> Layout:
    """Where PCI Express is."""
    return HIGH if machine.options.highmem else LOW


def dsdt(machine: BoardMachine) -> bytes:
    """Differentiated system description table: what is on the buses."""
    bus, where = machine.pci, layout(machine)
    assert bus is not None
    pci = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", 0),
        aml.name("_SEG", 0),
        aml.name("_BBN", 0),
        aml.name("_CCA", 1),
        aml.name("_CBA", where.ecam[0]),
        aml.name(
            "_CRS",
            aml.resources(
                aml.bus_numbers(0, where.last_bus),
                *(aml.memory_window(at, at + size - 1) for at, size in where.windows),
                aml.port_window(0, PORTS_SIZE - 1, PORTS),
            ),
        ),
        routing(lambda slot, pin: (0, SHARED + IRQ + bus.route(slot, pin))),
    )
    devices = described(machine, lambda number: aml.interrupts(SHARED + number), lambda _placed: True)
    return tables.table("DSDT", 2, aml.scope("\\_SB", *devices, pci, *cpus(machine.options.cpus)))


def madt(machine: BoardMachine) -> bytes:
    """The GIC and who takes messages."""
    version = machine.options.gic
    interface = GICC if version == 2 else 0
    entries = [tables.gic_distributor(GICD, version)]
    entries += [tables.gic_cpu(number, cpu.affinity, interface) for number, cpu in enumerate(machine.cpus)]
    if version == 2:
        entries.append(tables.gic_message_frame(V2M, SHARED + V2M_FIRST, V2M_COUNT))
    else:
        entries += [tables.gic_redistributors(GICR, len(machine.cpus) * REDISTRIBUTOR), tables.gic_its(GITS)]
    return tables.madt(0, 0, entries)


def build(machine: BoardMachine) -> dict[str, bytes]:
    """All tables."""
    where = layout(machine)
    made = {
        "DSDT": dsdt(machine),
        "FACP": tables.reduced_fadt(),
        "APIC": madt(machine),
        "MCFG": tables.mcfg(where.ecam[0], 0, where.last_bus),
    }
    return made if machine.options.gic == 2 else {**made, "IORT": tables.iort()}
