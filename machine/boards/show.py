"""A machine's map for people, and for programs: what is at which address, and how the regions are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.memory import Alias, Container, Region, Windows
from dbt.machine.pci import Header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.boards.board import BoardMachine
    from dbt.machine.machine import Machine
    from dbt.machine.memory import AddressSpace
    from dbt.machine.pci import PciBus


ABORT = ".abort"  # how a window's region that answers with ones is called


def size_text(size: int) -> str:
    """A size in the unit that fits."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift and not size & (1 << shift) - 1:
            return f"{size >> shift:,} {unit}"
    return f"{size:,} B"


def rows(machine: BoardMachine, space: AddressSpace) -> list[dict[str, Any]]:
    """The sections of a space, with the device and the interrupt of each."""
    placed = {entry.name: entry for entry in machine.placed}
    owner = {
        id(part): device
        for device in machine.devices.values()
        for region in device.all_regions()
        for part in (region, *region.below())
    }
    found = []
    for section in space.view.sections:
        device = owner.get(id(section.region))
        entry = placed.get(device.name) if device else None
        found.append({
            "start": section.start,
            "end": section.end,
            "kind": section.region.kind,
            "name": section.region.name,
            "offset": section.offset,
            "device": type(device).__name__ if device else None,
            "interrupt": entry.irq if entry else None,
        })  # fmt: skip
    return found


def functions(bus: PciBus, above: str = "") -> Iterator[dict[str, Any]]:
    """The PCI functions on a bus and below it, with what their registers say of where they are."""
    for function in bus.functions.values():
        slot, number = function.devfn >> 3, function.devfn & 7
        bridge = function.as_bridge()
        yield {
            "place": f"{bus.number:02x}:{slot:02x}.{number}",
            "name": function.name,
            "device": type(function).__name__,
            "id": f"{function.identity.vendor:04x}:{function.identity.device:04x}",
            "class": f"{function.identity.class_code >> 8:04x}",
            "behind": above,
            "interrupt": function.config.get(Header.INTERRUPT_LINE) if function.identity.pin else None,
            "bars": [
                {
                    "number": base.bar.index,
                    "kind": "ports" if base.bar.io else "prefetchable" if base.bar.prefetchable else "memory",
                    "at": base.at,
                    "size": base.size,
                }
                for _, base in sorted(function.bars.items())
            ],
            "windows": [
                {"kind": kind, "first": first, "last": last}
                for kind, windows in zip(("memory", "ports"), bridge.windows(), strict=True)
                for first, last in windows
            ]
            if bridge
            else [],
        }
        if bridge:
            yield from functions(bridge.secondary, function.name)


def _shown(row: dict[str, Any]) -> str:
    """What is in a row, and from where on."""
    name: str = row["name"]
    if name.endswith(ABORT):  # a window where no function answers
        return f"{name.removesuffix(ABORT)}, nobody"
    return f"{name} + {row['offset']:#x}" if row["offset"] else name


def map_text(machine: BoardMachine) -> str:
    """Both spaces as a table, and what is on PCI."""
    lines = []
    for space, least in ((machine.memory, 9), (machine.ports, 4)):
        found = rows(machine, space)
        if not found:
            continue
        lines.append(f"{space.name}, unassigned: {space.unassigned.value}")
        names = [_shown(row) for row in found]
        width = max(map(len, names))
        kinds = max(len(row["device"] or "") for row in found)
        sizes = max(len(size_text(row["end"] - row["start"])) for row in found)
        digits = max(least, *(len(f"{row['end'] - 1:x}") for row in found))
        for row, name in zip(found, names, strict=True):
            irq = "" if row["interrupt"] is None else f"interrupt {row['interrupt']}"
            span = f"{row['start']:0{digits}x}-{row['end'] - 1:0{digits}x}"
            size = size_text(row["end"] - row["start"])
            who = f"{name:{width}}  {row['device'] or '':{kinds}}"
            lines.append(f"  {span}  {size:>{sizes}}  {row['kind']:10}  {who}  {irq}".rstrip())
    if machine.pci is not None:
        lines.append("pci, as firmware would assign it")
        lines += pci_lines(machine.pci)
    return "\n".join(lines) + "\n"


def pci_lines(bus: PciBus) -> list[str]:
    """A line for each function, and one for each of its BARs and windows."""
    lines = []
    for row in functions(bus):
        irq = "" if row["interrupt"] is None else f"interrupt {row['interrupt']}"
        about = f"{row['id']} class {row['class']}  {row['name']:12} {row['device']:12} {irq}"
        lines.append(f"  {row['place']}  {about}".rstrip())
        for bar in row["bars"]:
            at = "not decoded" if bar["at"] is None else f"{bar['at']:x}-{bar['at'] + bar['size'] - 1:x}"
            lines.append(f"           BAR {bar['number']} {bar['kind']:12} {size_text(bar['size']):>9}  {at}")
        lines += [f"           window {win['kind']:9} {win['first']:x}-{win['last']:x}" for win in row["windows"]]
    return lines


def tree_text(machine: Machine) -> str:
    """The regions as a tree, with their places and priorities."""
    lines: list[str] = []

    def add(region: Region, at: int, priority: int, depth: int) -> None:
        about = f" of {region.target.name} + {region.offset:#x}" if isinstance(region, Alias) else ""
        if isinstance(region, Windows):
            about = f" of {region.target.name}: {' '.join(f'{start:x}-{end - 1:x}' for start, end in region.ranges)}"
        about += f", priority {priority}" if priority else ""
        about += "" if region.enabled else ", disabled"
        lines.append(f"{'  ' * depth}{at:x}-{at + region.size - 1:x} {region.kind} {region.name}{about}")
        if isinstance(region, Windows):
            add(region.target, at, 0, depth + 1)
        if isinstance(region, Container):
            for inner, offset, child in sorted(region.placements, key=lambda place: place[1]):
                add(child, at + offset, inner, depth + 1)

    for space in (machine.memory, machine.ports):
        add(space.root, 0, 0, 0)
    return "\n".join(lines) + "\n"
