"""The accesses to memory of an instruction, from its form's template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.ir.ops import LOAD, OPS, STORE

if TYPE_CHECKING:
    from dbt.frontends.forms import Form
    from dbt.ir.values import Op, Value


class Access(NamedTuple):
    """One access to memory of an instruction."""

    kind: str  # read, write or update
    size: int  # in bytes
    base: Value  # of the form's template
    offset: int


_ACCESSES: Final[dict[Form, list[Access]]] = {}


def accesses_of(form: Form) -> list[Access]:
    """The accesses of a form's template; those at neighbouring addresses of one kind are one."""
    found = _ACCESSES.get(form)
    if found is None:
        parts = [_access(op) for op in form.template.ops if OPS[op.name].effects & (LOAD | STORE)]
        found = []
        for part in sorted(parts, key=lambda a: (a.base.index, a.offset)):
            last = found[-1] if found else None
            joins = last is not None and (last.kind, last.base) == (part.kind, part.base)
            if last is not None and joins and part.offset <= last.offset + last.size:
                found[-1] = last._replace(size=max(last.size, part.offset + part.size - last.offset))
            else:
                found.append(part)
        _ACCESSES[form] = found
    return found


def _access(op: Op) -> Access:
    effects = OPS[op.name].effects
    kind = "update" if op.name in ("rmw", "cas") else "write" if effects & STORE else "read"
    type_ = op.args[1].type if len(op.args) > 1 else op.type
    assert type_ is not None
    base, offset = op.args[0], 0
    while base.op.name == "add" and base.op.args[1].op.name == "const":
        value = base.op.args[1].op.attrs["value"]
        assert isinstance(value, int)
        offset += (value ^ 1 << 63) - (1 << 63)
        base = base.op.args[0]
    return Access(kind, type_.width // 8, base, offset)
