"""A page about a device, from its declarations: what its registers are, in Markdown."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from dbt.machine.pci.config import registers_of
from dbt.machine.pci.function import PciFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.device import Device
    from dbt.machine.registers import AnyRegister

HEXADECIMAL = "{:#05x}".format


def _bits(register: AnyRegister) -> str:
    words = []
    for name, bits in register.fields.items():
        words.append(f"{name} [{bits}]" if isinstance(bits, int) else f"{name} [{bits[0]}:{bits[1]}]")
    if register.unimplemented:
        words.append(f"not implemented: {register.unimplemented:#x}")
    return ", ".join(words)


def _table(registers: list[AnyRegister], where: Callable[[int], str]) -> list[str]:
    lines = ["| offset | register | bytes | access | reset | what | bits |", "|---|---|---|---|---|---|---|"]
    for register in sorted(registers, key=lambda register: register.offset):
        many = register.count > 1
        label = f"{register.name}[{register.count}]" if many else register.name
        offset = where(register.offset) + (f" + {register.stride:#x} n" if many else "")
        reset = f"{register.reset:#x}" if register.stored else ""  # a view shows what is elsewhere
        cells = (offset, label, str(register.size), register.access, reset, register.doc)
        lines.append(f"| {' | '.join((*cells, _bits(register)))} |")
    return lines


def _pci(kind: type[PciFunction]) -> list[str]:
    """What a driver finds in configuration space."""
    lines = ["## Configuration space", ""]
    identity = getattr(kind, "PCI", None)
    if identity:
        lines += [f"PCI {identity.vendor:04x}:{identity.device:04x}, class {identity.class_code:06x}.", ""]
    for bar in kind.BARS:
        shows = bar.shows if isinstance(bar.shows, str) else bar.shows.name
        what = "ports" if bar.io else f"memory, {bar.bits} bits{', prefetchable' if bar.prefetchable else ''}"
        lines.append(f"- BAR {bar.index}: {shows}, {what}")
    registers = [register for layout in (kind.HEADER, *kind.CONFIG) for register in registers_of(layout)]
    return [*lines, "", *_table(registers, HEXADECIMAL), ""]


def document(kind: type[Device]) -> str:
    """The page."""
    lines = [f"# {kind.__name__}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
    for name, layout in kind.LAYOUTS.items():
        window = layout.window
        sizes, where = window.sizes, "" if window.placed else ", not in the map"
        lines.append(f"## {name}: {window.size:#x} bytes{where}")
        least, most = sizes.valid
        span = f"{least} to {most}" if least != most else f"{most}"
        lines += ["", f"Accesses of {span} byte{'s' if most > 1 else ''}, {sizes.order}-endian.", ""]
        lines += _table(layout.registers, window.where)
        lines.append("")
    if issubclass(kind, PciFunction):
        lines += _pci(kind)
    return "\n".join(lines)
