"""A page about a device, from its declarations: what its registers are, in Markdown."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.registers import Register


def _bits(register: Register) -> str:
    words = []
    for name, bits in register.fields.items():
        words.append(f"{name} [{bits}]" if isinstance(bits, int) else f"{name} [{bits[0]}:{bits[1]}]")
    if register.unimplemented:
        words.append(f"not implemented: {register.unimplemented:#x}")
    return ", ".join(words)


def document(kind: type[Device]) -> str:
    """The page."""
    lines = [f"# {kind.__name__}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
    for name, layout in kind.LAYOUTS.items():
        window = layout.window
        sizes, where = window.sizes, "" if window.placed else ", reached through other registers"
        lines.append(f"## {name}: {window.size:#x} bytes{where}")
        lines += ["", f"Accesses of {sizes.valid[0]} to {sizes.valid[1]} bytes, {sizes.order}-endian.", ""]
        lines += ["| offset | register | bytes | access | reset | what | bits |", "|---|---|---|---|---|---|---|"]
        for register in sorted(layout.registers, key=lambda register: register.offset):
            many = register.count > 1
            label = f"{register.name}[{register.count}]" if many else register.name
            offset = f"{register.offset:#05x}" + (f" + {register.stride:#x} n" if many else "")
            cells = (offset, label, str(register.size), register.access, f"{register.reset:#x}", register.doc)
            lines.append(f"| {' | '.join((*cells, _bits(register)))} |")
        lines.append("")
    return "\n".join(lines)
