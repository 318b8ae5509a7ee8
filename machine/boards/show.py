"""A machine's map for people, and for programs: what is at which address, and how the regions are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.memory import Alias, Container, Region

if TYPE_CHECKING:
    from dbt.machine.boards.board import Board
    from dbt.machine.machine import Machine
    from dbt.machine.memory import AddressSpace


def size_text(size: int) -> str:
    """A size in the unit that fits."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift and not size & (1 << shift) - 1:
            return f"{size >> shift:,} {unit}"
    return f"{size:,} B"


def rows(machine: Machine, board: Board, space: AddressSpace) -> list[dict[str, Any]]:
    """The sections of a space, with the device and the interrupt of each."""
    placed = {entry.name: entry for entry in board.DEVICES}
    owner = {id(region): device for device in machine.devices.values() for region in device.regions.values()}
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


def map_text(machine: Machine, board: Board) -> str:
    """Both spaces as a table."""
    lines = []
    for space, digits in ((machine.memory, 9), (machine.ports, 4)):
        found = rows(machine, board, space)
        if not found:
            continue
        lines.append(f"{space.name}, unassigned: {space.unassigned.value}")
        names = [row["name"] + (f" + {row['offset']:#x}" if row["offset"] else "") for row in found]
        width = max(map(len, names))
        for row, name in zip(found, names, strict=True):
            irq = "" if row["interrupt"] is None else f"interrupt {row['interrupt']}"
            span = f"{row['start']:0{digits}x}-{row['end'] - 1:0{digits}x}"
            size = size_text(row["end"] - row["start"])
            lines.append(
                f"  {span}  {size:>9}  {row['kind']:10}  {name:{width}}  {row['device'] or '':9} {irq}".rstrip()
            )
    return "\n".join(lines) + "\n"


def tree_text(machine: Machine) -> str:
    """The regions as a tree, with their places and priorities."""
    lines: list[str] = []

    def add(region: Region, at: int, priority: int, depth: int) -> None:
        about = f" of {region.target.name} + {region.offset:#x}" if isinstance(region, Alias) else ""
        about += f", priority {priority}" if priority else ""
        about += "" if region.enabled else ", disabled"
        lines.append(f"{'  ' * depth}{at:x}-{at + region.size - 1:x} {region.kind} {region.name}{about}")
        if isinstance(region, Container):
            for inner, offset, child in sorted(region.placements, key=lambda place: place[1]):
                add(child, at + offset, inner, depth + 1)

    for space in (machine.memory, machine.ports):
        add(space.root, 0, 0, 0)
    return "\n".join(lines) + "\n"
