"""A picture of a machine as SVG that needs nothing else: its spaces and its PCI bus side by side, what is on each."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from dbt.machine.boards.show import functions, rows, size_text
from dbt.machine.pci import PciFunction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.boards.board import BoardMachine
    from dbt.machine.memory import AddressSpace

WIDTH, HEIGHT, GAP, INDENT, MARGIN, TOP = 350, 36, 8, 26, 24, 118
COLUMN = WIDTH + 2 * INDENT + MARGIN
FILLS = {
    "bus": ("#1f3a5f", "#ffffff"), "memory": ("#dcefd8", "#1d3b16"), "interrupts": ("#fde3c0", "#5a3500"),
    "pci": ("#d9e7fb", "#10305c"), "device": ("#f1f1f1", "#222222"),
}  # fmt: skip
LEGEND = (("memory", "memory"), ("device", "devices"), ("interrupts", "interrupt controllers"), ("pci", "PCI"))
STYLE = (
    "<style>text{font:12px sans-serif}.a{font:11px ui-monospace,monospace}.t{font:600 20px sans-serif}"
    ".w{fill:none;stroke:#8899aa;stroke-width:1.5}</style>"
)
CONTROLLERS = ("gic", "pic", "ioapic", "apic")


@dataclass(slots=True)
class Box:
    """A name, a second line, and what hangs below."""

    name: str
    about: str
    fill: str
    children: list[Box] = field(default_factory=list)

    def count(self) -> int:
        """Boxes in this and below."""
        return 1 + sum(child.count() for child in self.children)

    def depth(self) -> int:
        """How many columns to the right the deepest box is."""
        return max((1 + child.depth() for child in self.children), default=0)


def _fill(row: dict[str, Any]) -> str:
    if row["kind"] in {"ram", "rom", "rom device"}:
        return "memory"
    return "interrupts" if row["name"].startswith(CONTROLLERS) else "device"


def _space(machine: BoardMachine, space: AddressSpace) -> Box:
    plugged = {name for name, device in machine.devices.items() if isinstance(device, PciFunction)}

    def group(row: dict[str, Any]) -> tuple[str, str, int]:
        """Neighbours with the same are one box: all that PCI functions show, and devices of a kind."""
        stem = row["name"].rpartition(".")[0] or row["name"]
        if row["name"].endswith(".abort") or stem in plugged:
            return "PCI", "", 0
        return row["name"].split(".")[0].rstrip("0123456789"), row["device"] or row["kind"], row["end"] - row["start"]

    box = Box(space.name, f"elsewhere: {space.unassigned.value}", "bus")
    for (stem, kind, size), neighbours in groupby(rows(machine, space), group):
        found = list(neighbours)
        first, last = found[0], found[-1]
        span = f"{first['start']:x}-{last['end'] - 1:x}"
        if not kind:
            box.children.append(Box(stem, span, "pci"))
            continue
        irqs = [row["interrupt"] for row in found if row["interrupt"] is not None]
        several = f"-{max(irqs)}" if irqs and min(irqs) != max(irqs) else ""
        irq = f" · irq {min(irqs)}{several}" if irqs else ""
        name = first["name"] if len(found) == 1 else f"{first['name']} … {last['name']}"
        about = f"{span} · {f'{len(found)} × ' if len(found) > 1 else ''}{size_text(size)}{irq}"
        box.children.append(Box(name if name == kind else f"{name} · {kind}", about, _fill(first)))
    return box


def _bus(machine: BoardMachine) -> Box | None:
    if machine.pci is None:
        return None
    root = Box("pci", "bus 00", "bus")
    parents = {"": root}
    for row in functions(machine.pci):
        about = f"{row['place']} · {row['id']} · class {row['class']}"
        about += "" if row["interrupt"] is None else f" · irq {row['interrupt']}"
        box = parents[row["name"]] = Box(f"{row['name']} · {row['device']}", about, "pci")
        parents[row["behind"]].children.append(box)
        for bar in row["bars"]:
            at = "not decoded" if bar["at"] is None else f"{bar['at']:x}-{bar['at'] + bar['size'] - 1:x}"
            kind = "device" if bar["kind"] == "ports" else "memory"
            box.children.append(Box(f"BAR {bar['number']} · {bar['kind']}", f"{at} · {size_text(bar['size'])}", kind))
    return root


def _short(text: str, most: int) -> str:
    """What fits a box; the whole is its title."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw(box: Box, x: int, y: int) -> Iterator[str]:
    fill, ink = FILLS[box.fill]
    yield (
        f"<g><title>{escape(f'{box.name}: {box.about}')}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{fill}" stroke="#8899aa"/>'
        f'<text x="{x + 9}" y="{y + 15}" fill="{ink}" font-weight="600">{escape(_short(box.name, 46))}</text>'
        f'<text x="{x + 9}" y="{y + 29}" fill="{ink}" class="a">{escape(_short(box.about, 50))}</text></g>'
    )
    below = y + HEIGHT + GAP
    stem = x + INDENT // 2
    end = y + HEIGHT
    for child in box.children:
        end = below + HEIGHT // 2
        yield f'<path d="M{stem} {end}H{x + INDENT}" class="w"/>'
        yield from _draw(child, x + INDENT, below)
        below += child.count() * (HEIGHT + GAP)
    if box.children:
        yield f'<path d="M{stem} {y + HEIGHT}V{end}" class="w"/>'


def picture(machine: BoardMachine) -> str:
    """The SVG."""
    columns = [_space(machine, space) for space in (machine.memory, machine.ports)]
    bus = _bus(machine)
    columns = [column for column in (*columns, bus) if column is not None and column.children]
    width = MARGIN + COLUMN * len(columns) + INDENT * max(columns[-1].depth() - 1, 0)
    height = TOP + max(column.count() for column in columns) * (HEIGHT + GAP) + MARGIN
    options = machine.options
    about = f"{size_text(options.ram)} of memory, {options.cpus} CPU{'s' if options.cpus > 1 else ''}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(machine.name)}</title>",
        STYLE,
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="34" class="t" fill="#1f3a5f">{escape(machine.name)}</text>',
        f'<text x="{MARGIN}" y="54" fill="#445">{about}</text>',
    ]
    at = MARGIN
    for fill, text in LEGEND:
        parts.append(f'<rect x="{at}" y="66" width="12" height="12" rx="2" fill="{FILLS[fill][0]}" stroke="#8899aa"/>')
        parts.append(f'<text x="{at + 17}" y="76" fill="#445">{text}</text>')
        at += 36 + 7 * len(text)
    middle = [MARGIN + COLUMN * number + INDENT // 2 for number in range(len(columns))]
    parts.append(f'<path d="M{middle[0]} {TOP - 16}H{middle[-1]}" class="w"/>')
    for number, column in enumerate(columns):
        parts.append(f'<path d="M{middle[number]} {TOP - 16}V{TOP}" class="w"/>')
        parts.extend(_draw(column, MARGIN + COLUMN * number, TOP))
    return "\n".join((*parts, "</svg>")) + "\n"
