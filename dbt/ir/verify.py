"""The rules for a whole template: values are defined before use, and effects come in an order that faults can undo.

Loads, computation and stores come before anything that changes the registers: a fault then leaves the guest as it was
before the instruction. State is read before it is written, so that two tokens for one register do no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .ops import END, FLAGS_IN, FLAGS_OUT, FP, GET, LEAVE, LOAD, OPS, PUT, STORE
from .rules import check_op
from .values import IRError

if TYPE_CHECKING:
    from .values import Op, Template, Value

_CHANGES: Final = PUT | FLAGS_OUT | FP  # what a fault afterwards could not undo
_FAULTS: Final = LOAD | STORE | LEAVE


def verify(template: Template, *, fused: bool = False) -> Template:
    """Check a whole template and return it. `fused`: two instructions in a row, so state is read after writes."""
    defined: set[Value] = set()
    changed = ""
    written = 0
    last = len(template.ops) - 1
    for position, op in enumerate(template.ops):
        try:
            effects = _check_use(op, defined)
            _check_order(op, effects, changed, 0 if fused else written, is_last=position == last)
        except IRError as error:
            shown = repr(op) if op.name in OPS else op.name
            raise IRError(f"{template.name or 'template'}: op {position} ({shown}): {error}") from None
        written |= _writes(op, effects)
        if _writes(op, effects) & _CHANGES:
            changed = changed or op.name
        if op.result is not None:
            defined.add(op.result)
    return template


def _check_order(op: Op, effects: int, changed: str, written: int, *, is_last: bool) -> None:
    """Reads before writes, what may leave before what changes state; `changed` names the first op that changed any."""
    if effects & END and not is_last:
        raise IRError("ends the template, but is not last")
    if effects & _FAULTS and changed and not _keeps_pc(op):
        raise IRError(f"may leave the instruction after {changed} has changed state")
    if (effects & GET and written & PUT and op.name != "helper") or (effects & FLAGS_IN and written & FLAGS_OUT):
        raise IRError("reads state that this instruction has already written")


def _check_use(op: Op, defined: set[Value]) -> int:
    """Check one op in its place; its effects."""
    info = OPS.get(op.name)
    if info is None:
        raise IRError(f"no op {op.name!r}")
    for arg in op.args:
        if arg not in defined:
            raise IRError(f"{arg!r} is used before it is defined")
    if check_op(info, op.args, op.attrs, op.type) is not op.type:
        raise IRError(f"has the type {op.type}")
    return info.effects


def _writes(op: Op, effects: int) -> int:
    if op.name == "helper" and op.attrs["effects"] != "writes":
        return 0
    if op.name == "fpsr":
        return 0
    return effects


def _keeps_pc(op: Op) -> bool:
    """An exit that goes on at the next instruction may follow the writes of this one."""
    return op.name == "exit_if" and op.attrs["pc"] == "next"
