"""Lowering of control: the edges of a template, exits to the runtime, calls of native helpers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine.layout import EXIT_EVENT, Env

from .lower_flags import words
from .source import NPC, PC, SITE, Immediate
from .text import UNLIKELY, llvm_type

if TYPE_CHECKING:
    from dbt.ir.values import Op

    from .lower import Lower, Lowering, Operand

_HELPER_BYTES: Final = 8


def leave(low: Lowering, reason: int, value: str | None, pc: str) -> None:
    """End the block: to the runtime with a reason; pc 'this' or 'next'."""
    address = Immediate(PC if pc == "this" else NPC)
    at = low.source.folded(address) or low.hold(address)
    low.line(f"store i64 {at}, ptr {low.env(Env.offset('pc'))}")
    low.line(f"store i64 {reason}, ptr {low.env(Env.offset('exit'))}")
    if value is not None:
        low.line(f"store i64 {value}, ptr {low.env(Env.offset('value'))}")
    low.source.leave(words(low))


def leave_if(low: Lowering, condition: str, reason: int, value: str | None, pc: str) -> None:
    """To the runtime, out of line, if an i1 holds."""
    words(low)  # in the main line: the flags are the same on both ways
    out, on = low.body.label("leave"), low.body.label("on")
    low.line(f"br i1 {condition}, label %{out}, label %{on}, {UNLIKELY}")
    low.body.place(out)
    with low.side_block():
        leave(low, reason, value, pc)
    low.body.place(on)


def _goto(low: Lowering, _op: Op) -> Operand:
    low.source.taken(words(low))
    return None


def _branch(low: Lowering, op: Op) -> Operand:
    """goto_if and repeat_if: one edge if the condition holds, the next instruction otherwise."""
    condition, flags = low.use(op.args[0]), words(low)
    yes, no = low.body.label("yes"), low.body.label("no")
    low.line(f"br i1 {condition}, label %{yes}, label %{no}")
    low.body.place(yes)
    (low.source.taken if op.name == "goto_if" else low.source.again)(flags)
    low.body.place(no)
    low.source.next(flags)
    return None


def _goto_indirect(low: Lowering, op: Op) -> Operand:
    low.source.indirect(low.use(op.args[0]), words(low), str(op.attrs["hint"]))
    return None


def _exit(low: Lowering, op: Op) -> Operand:
    reason = op.attrs["reason"]
    assert isinstance(reason, int)
    leave(low, reason, low.use(op.args[0]) if op.args else None, str(op.attrs["pc"]))
    return None


def _exit_if(low: Lowering, op: Op) -> Operand:
    condition, reason = low.use(op.args[0]), op.attrs["reason"]
    assert isinstance(reason, int)
    leave_if(low, condition, reason, low.use(op.args[1]) if op.args[1:] else None, str(op.attrs["pc"]))
    return None


def _event(low: Lowering, op: Op) -> Operand:
    """As exit_if, and note where it goes on."""
    condition, value = low.use(op.args[0]), low.use(op.args[1])
    words(low)
    out, on = low.body.label("event"), low.body.label("on")
    low.line(f"br i1 {condition}, label %{out}, label %{on}, {UNLIKELY}")
    low.body.place(out)
    with low.side_block():
        low.line(f"store i64 {low.source.value(Immediate(SITE))}, ptr {low.env(Env.offset('site'))}")
        leave(low, EXIT_EVENT, value, "this")
    low.body.place(on)
    return None


def _helper(low: Lowering, op: Op) -> Operand:
    """An ordinary C call. The flag words are in registers that it preserves; base and mask are fetched again."""
    slot = Env.offset("helpers") + _HELPER_BYTES * low.helpers.index(str(op.attrs["name"]))
    arguments = ", ".join(["ptr %env", *(f"i64 {low.use(arg)}" for arg in op.args)])
    function = low.emit(f"load ptr, ptr {low.env(slot)}")
    result = low.emit(f"call i64 {function}({arguments})")
    low.source.reload()
    if op.type is None:
        return None
    return result if op.type.bits == 64 else low.emit(f"trunc i64 {result} to {llvm_type(op.type)}")


LOWER: Final[dict[str, Lower]] = {
    "goto": _goto, "goto_if": _branch, "repeat_if": _branch, "goto_indirect": _goto_indirect,
    "exit": _exit, "exit_if": _exit_if, "event": _event, "helper": _helper,
}  # fmt: skip
