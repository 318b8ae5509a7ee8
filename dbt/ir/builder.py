"""The builder: semantics functions call its methods, each of which appends one op; `template()` closes the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ops import END, OPS
from .rules import check_op
from .types import I1, I64, Type
from .values import AttrValue, IRError, Op, Place, Template, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Builder", "Place", "Template", "Value"]


class Builder:
    """Appends ops to a list. Every op is checked against the table as it is made."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._values = 0

    def template(self, name: str = "") -> Template:
        """The ops so far, as a finished template."""
        return Template(tuple(self.ops), name)

    # making ops
    def emit(self, name: str, /, *args: Value, type: Type | None = None, **attrs: AttrValue) -> Op:  # noqa: A002
        """Append any op of the table; `type` is the result's where the op does not determine it."""
        info = OPS.get(name)
        if info is None:
            raise IRError(f"no op {name!r}")
        if self.ops and OPS[self.ops[-1].name].effects & END:
            raise IRError(f"{name} behind {self.ops[-1].name}, which ends the template")
        full = {a.name: attrs.pop(a.name, a.default) for a in info.attrs if not a.required or a.name in attrs}
        full.update(attrs)
        result_type = check_op(info, args, full, type)
        result = None
        if result_type is not None:
            result = Value(self, result_type, self._values)
            self._values += 1
        op = Op(name, args, full, result)
        if result is not None:
            result.op = op
        self.ops.append(op)
        return op

    def value(self, name: str, /, *args: Value, type: Type | None = None, **attrs: AttrValue) -> Value:  # noqa: A002
        """Append an op that has a result."""
        result = self.emit(name, *args, type=type, **attrs).result
        if result is None:
            raise IRError(f"{name} has no result")
        return result

    def as_value(self, value: Value | int, type_: Type) -> Value:
        """`value` itself, or the constant of `type_`."""
        return value if isinstance(value, Value) else self.const(type_, value)

    # operands of the record
    def const(self, type_: Type, value: int | Sequence[int]) -> Value:
        """A constant: wrapped to the type; a float's bits; one int for all lanes, or one for each."""
        mask = (1 << type_.bits) - 1
        if not type_.lanes:
            if not isinstance(value, int):
                raise IRError(f"{value!r} for one {type_}")
            return self.value("const", type=type_, value=value & mask)
        lanes = [value] * type_.lanes if isinstance(value, int) else value
        return self.value("const", type=type_, value=tuple(v & mask for v in lanes))

    def imm(self) -> Value:
        """Record.imm: i64."""
        return self.value("imm")

    def imm2(self) -> Value:
        """Record.target as a second immediate: i64."""
        return self.value("imm2")

    def pc(self) -> Value:
        """Address of this instruction: i64."""
        return self.value("pc")

    def npc(self) -> Value:
        """Address of the next instruction in memory: i64."""
        return self.value("npc")

    def number(self, index: int) -> Value:
        """A number of an insertion: i64."""
        return self.value("number", index=index)

    # guest state
    def get(self, type_: Type, place: Place) -> Value:
        """Read guest state."""
        return self.value("get", type=type_, place=place)

    def put(self, place: Place, value: Value) -> None:
        """Write guest state: exactly the value's bytes."""
        self.emit("put", value, place=place)

    # memory
    def load(
        self, type_: Type, addr: Value, order: str = "relaxed", *, space: str = "memory", endian: str = "little"
    ) -> Value:
        """Read memory; order: relaxed or acquire."""
        return self.value("load", addr, type=type_, order=order, space=space, endian=endian)

    def store(
        self, addr: Value, value: Value, order: str = "relaxed", *, space: str = "memory", endian: str = "little"
    ) -> None:
        """Write memory; order: relaxed or release."""
        self.emit("store", addr, value, order=order, space=space, endian=endian)

    def load_exclusive(self, type_: Type, addr: Value, order: str = "relaxed") -> Value:
        """Load and arm the exclusive monitor with address, size and value."""
        return self.value("load_exclusive", addr, type=type_, order=order)

    def store_exclusive(self, addr: Value, value: Value, order: str = "relaxed") -> Value:
        """Store if the monitor and memory still match: i32, 0 done, 1 failed; disarms the monitor."""
        return self.value("store_exclusive", addr, value, order=order)

    def clear_exclusive(self) -> None:
        """Disarm the exclusive monitor."""
        self.emit("clear_exclusive")

    def rmw(self, op: str, addr: Value, value: Value, order: str = "relaxed") -> Value:
        """Atomic read-modify-write; the old value."""
        return self.value("rmw", addr, value, op=op, order=order)

    def cas(self, addr: Value, expected: Value, new: Value, order: str = "relaxed") -> Value:
        """Atomic compare and swap; the old value."""
        return self.value("cas", addr, expected, new, order=order)

    def fence(self, kind: str = "full") -> None:
        """Memory barrier: full, load or store."""
        self.emit("fence", kind=kind)

    def align_check(self, addr: Value, size: int) -> None:
        """EXIT_ALIGNMENT unless addr is a multiple of size (a power of two)."""
        self.emit("align_check", addr, size=size)

    # flags
    def flags(self, kind: str, a: Value, b: Value, result: Value, carry: Value | None = None) -> None:
        """NZCV of `result` = a kind b (add, adc, sub, sbc, logic); adc and sbc need the carry-in (i1)."""
        if kind == "logic":
            a = b = result
        self.emit("flags", a, b, result, *(() if carry is None else (carry,)), kind=kind)

    def flags_if(self, cond_value: Value, kind: str, a: Value, b: Value, result: Value, nzcv: Value) -> None:
        """`flags` if the condition holds, else NZCV from the low 4 bits of `nzcv` (i64)."""
        self.emit("flags_if", cond_value, a, b, result, nzcv, kind=kind)

    def cond(self, cc: str) -> Value:
        """A condition on the flags: i1."""
        return self.value("cond", cc=cc)

    def carry(self) -> Value:
        """The C flag: i1."""
        return self.value("carry")

    def nzcv(self) -> Value:
        """The flags in bits 31 to 28: i64."""
        return self.value("nzcv")

    def set_nzcv(self, value: Value) -> None:
        """Set the flags from bits 31 to 28 of an i64."""
        self.emit("set_nzcv", value)

    # floating point
    def fadd(self, a: Value, b: Value, rm: str = "dynamic") -> Value:
        """Sum."""
        return self.value("fadd", a, b, rm=rm)

    def fsub(self, a: Value, b: Value, rm: str = "dynamic") -> Value:
        """Difference."""
        return self.value("fsub", a, b, rm=rm)

    def fmul(self, a: Value, b: Value, rm: str = "dynamic") -> Value:
        """Product."""
        return self.value("fmul", a, b, rm=rm)

    def fmulx(self, a: Value, b: Value, rm: str = "dynamic") -> Value:
        """Product; 0 times infinity is 2."""
        return self.value("fmulx", a, b, rm=rm)

    def fdiv(self, a: Value, b: Value, rm: str = "dynamic") -> Value:
        """Quotient."""
        return self.value("fdiv", a, b, rm=rm)

    def fsqrt(self, a: Value, rm: str = "dynamic") -> Value:
        """Square root."""
        return self.value("fsqrt", a, rm=rm)

    def fma(self, a: Value, n: Value, m: Value, rm: str = "dynamic") -> Value:
        """a + n * m, rounded once."""
        return self.value("fma", a, n, m, rm=rm)

    def fneg(self, a: Value) -> Value:
        """Sign inverted; bits only."""
        return self.value("fneg", a)

    def fabs(self, a: Value) -> Value:
        """Sign cleared; bits only."""
        return self.value("fabs", a)

    def fmin(self, a: Value, b: Value) -> Value:
        """Minimum; NaN if either is."""
        return self.value("fmin", a, b)

    def fmax(self, a: Value, b: Value) -> Value:
        """Maximum; NaN if either is."""
        return self.value("fmax", a, b)

    def fminnm(self, a: Value, b: Value) -> Value:
        """Minimum; a number wins over a quiet NaN."""
        return self.value("fminnm", a, b)

    def fmaxnm(self, a: Value, b: Value) -> Value:
        """Maximum; a number wins over a quiet NaN."""
        return self.value("fmaxnm", a, b)

    def fcmp(self, pred: str, a: Value, b: Value, signaling: bool) -> Value:
        """eq, ge or gt: i1 or mask; unordered is false."""
        return self.value("fcmp", a, b, pred=pred, signaling=signaling)

    def fcmp_flags(self, a: Value, b: Value, signaling: bool) -> None:
        """NZCV as FCMP sets it."""
        self.emit("fcmp_flags", a, b, signaling=signaling)

    def fconvert(self, a: Value, type_: Type, rm: str = "dynamic") -> Value:
        """To another precision."""
        return self.value("fconvert", a, type=type_, rm=rm)

    def ftoi(self, a: Value, int_type: Type, signed: bool, rm: str, fbits: int = 0) -> Value:
        """To an integer (or fixed point with fbits fraction bits), saturating."""
        return self.value("ftoi", a, type=int_type, signed=signed, rm=rm, fbits=fbits)

    def itof(self, a: Value, float_type: Type, signed: bool, fbits: int = 0, rm: str = "dynamic") -> Value:
        """From an integer (or fixed point)."""
        return self.value("itof", a, type=float_type, signed=signed, fbits=fbits, rm=rm)

    def frint(self, a: Value, rm: str, exact: bool) -> Value:
        """To an integral value; exact: raise inexact if that changes it."""
        return self.value("frint", a, rm=rm, exact=exact)

    def fpcr(self) -> Value:
        """The control register: i64."""
        return self.value("fpcr")

    def set_fpcr(self, value: Value) -> None:
        """Write the control register."""
        self.emit("set_fpcr", value)

    def fpsr(self) -> Value:
        """The status register: i64."""
        return self.value("fpsr")

    def set_fpsr(self, value: Value) -> None:
        """Write the status register."""
        self.emit("set_fpsr", value)

    def set_qc(self, saturated: Value) -> None:
        """Sticky: FPSR.QC |= saturated (i1, or a mask of lanes)."""
        self.emit("set_qc", saturated.reduce("or") if saturated.type.is_vector else saturated)

    # control
    def goto(self) -> None:
        """To Record.target."""
        self.emit("goto")

    def goto_if(self, cond_value: Value) -> None:
        """To Record.target if the condition holds, else on."""
        self.emit("goto_if", cond_value)

    def goto_indirect(self, addr: Value, hint: str = "jump") -> None:
        """To an address; hint: jump, call or return."""
        self.emit("goto_indirect", addr, hint=hint)

    def repeat_if(self, cond_value: Value) -> None:
        """This instruction once more (after a poll) if the condition holds, else on: loops inside an instruction."""
        self.emit("repeat_if", cond_value)

    def exit(self, reason: int, value: Value | int | None = None, pc: str = "this") -> None:
        """Leave to the runtime with EXIT_... and a value; pc: this or next instruction."""
        self.emit("exit", *self._optional(value), reason=reason, pc=pc)

    def exit_if(self, cond_value: Value, reason: int, value: Value | int | None = None, pc: str = "this") -> None:
        """Leave to the runtime if the condition holds."""
        self.emit("exit_if", self.as_value(cond_value, I1), *self._optional(value), reason=reason, pc=pc)

    def event(self, cond_value: Value | int, value: Value | int) -> None:
        """Leave to Python for an instrumentation event if the condition holds; it goes on behind this template."""
        self.emit("event", self.as_value(cond_value, I1), self.as_value(value, I64))

    def _optional(self, value: Value | int | None) -> tuple[Value, ...]:
        return () if value is None else (self.as_value(value, I64),)

    def helper(self, name: str, *args: Value, result: Type | None = None, effects: str = "writes") -> Value | None:
        """Call a native helper; effects (pure, reads, writes) as its declaration says."""
        return self.emit("helper", *args, type=result, name=name, effects=effects).result
