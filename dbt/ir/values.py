"""Values, ops and templates: what a builder makes and every other part of the IR reads.

A value knows its builder, so that semantics read like the manual: `Rn.read(n) + Rm.read(n)`. Python integers beside a
value become constants of its type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.errors import InternalError

from .types import Type, int_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .builder import Builder


class IRError(InternalError):
    """A rule of the IR is broken: our own bug, or bad text given to the parser."""


class Place(NamedTuple):
    """Where guest state lives: env offset = Record.r[token] + offset, or just `offset` if token is None."""

    token: int | None
    offset: int

    def __str__(self) -> str:
        if self.token is None:
            return f"@{self.offset}"
        return f"r{self.token}" + (f"+{self.offset}" if self.offset else "")


AttrValue = int | str | bool | Place | tuple[int, ...]


class Op:
    """One operation: `args` are values, `attrs` its attributes by name, `result` its value if it has one."""

    __slots__ = ("args", "attrs", "name", "result")

    def __init__(
        self, name: str, args: tuple[Value, ...], attrs: Mapping[str, AttrValue], result: Value | None
    ) -> None:
        self.name: Final = name
        self.args: Final = args
        self.attrs: Final = attrs
        self.result: Final = result

    @property
    def type(self) -> Type | None:
        """The result's type."""
        return self.result.type if self.result is not None else None

    def __repr__(self) -> str:
        from .text import format_op

        return format_op(self)


class Template(NamedTuple):
    """The finished list of ops of one form: values are defined before they are used, an END op stands last."""

    ops: tuple[Op, ...]
    name: str = ""

    def text(self) -> str:
        """The text format (dbt/ir/text.py)."""
        from .text import format_template

        return format_template(self)


class Value:
    """The result of an op. `index` numbers the values of a template from 0 in order."""

    __slots__ = ("builder", "index", "op", "type")

    def __init__(self, builder: Builder, type_: Type, index: int) -> None:
        self.builder: Final = builder
        self.type: Final = type_
        self.index: Final = index
        self.op: Op  # set by the builder as soon as the op exists

    def __repr__(self) -> str:
        return f"%{self.index}"

    def __bool__(self) -> bool:
        raise IRError("a guest value has no truth in Python: use select(), or make the field static")

    def emit(self, name: str, /, *args: Value | int, **attrs: AttrValue) -> Value:
        """The result of an op of the table with self as its first argument; ints become constants of self's type."""
        values = (self, *(self.builder.as_value(a, self.type) for a in args))
        return self.builder.value(name, *values, type=None, **attrs)

    def _reversed(self, name: str, left: int) -> Value:
        return self.builder.as_value(left, self.type).emit(name, self)

    # arithmetic and logic
    def __add__(self, b: Value | int) -> Value:
        return self.emit("add", b)

    def __radd__(self, a: int) -> Value:
        return self._reversed("add", a)

    def __sub__(self, b: Value | int) -> Value:
        return self.emit("sub", b)

    def __rsub__(self, a: int) -> Value:
        return self._reversed("sub", a)

    def __mul__(self, b: Value | int) -> Value:
        return self.emit("mul", b)

    def __rmul__(self, a: int) -> Value:
        return self._reversed("mul", a)

    def __and__(self, b: Value | int) -> Value:
        return self.emit("and", b)

    def __rand__(self, a: int) -> Value:
        return self._reversed("and", a)

    def __or__(self, b: Value | int) -> Value:
        return self.emit("or", b)

    def __ror__(self, a: int) -> Value:
        return self._reversed("or", a)

    def __xor__(self, b: Value | int) -> Value:
        return self.emit("xor", b)

    def __rxor__(self, a: int) -> Value:
        return self._reversed("xor", a)

    def __invert__(self) -> Value:
        return self.emit("xor", -1)

    def __neg__(self) -> Value:
        return self._reversed("sub", 0)

    def __lshift__(self, n: Value | int) -> Value:
        return self.emit("shl", n)

    def lshr(self, n: Value | int) -> Value:
        """Logical shift right."""
        return self.emit("lshr", n)

    def ashr(self, n: Value | int) -> Value:
        """Arithmetic shift right."""
        return self.emit("ashr", n)

    def rotr(self, n: Value | int) -> Value:
        """Rotate right."""
        return self.emit("rotr", n)

    def fshr(self, low: Value | int, n: Value | int) -> Value:
        """Low half of (self : low) shifted right by n."""
        return self.emit("fshr", low, n)

    def udiv(self, b: Value | int) -> Value:
        """Unsigned quotient; by 0: 0."""
        return self.emit("udiv", b)

    def sdiv(self, b: Value | int) -> Value:
        """Signed quotient towards 0; by 0: 0; MIN / -1: MIN."""
        return self.emit("sdiv", b)

    def umulh(self, b: Value | int) -> Value:
        """High half of the unsigned product."""
        return self.emit("umulh", b)

    def smulh(self, b: Value | int) -> Value:
        """High half of the signed product."""
        return self.emit("smulh", b)

    # comparisons: i1, or a mask of i1 lanes
    def eq(self, b: Value | int) -> Value:
        """Equal."""
        return self.emit("eq", b)

    def ne(self, b: Value | int) -> Value:
        """Not equal."""
        return self.emit("ne", b)

    def ult(self, b: Value | int) -> Value:
        """Unsigned less."""
        return self.emit("ult", b)

    def ule(self, b: Value | int) -> Value:
        """Unsigned less or equal."""
        return self.emit("ule", b)

    def ugt(self, b: Value | int) -> Value:
        """Unsigned greater."""
        return self.builder.as_value(b, self.type).emit("ult", self)

    def uge(self, b: Value | int) -> Value:
        """Unsigned greater or equal."""
        return self.builder.as_value(b, self.type).emit("ule", self)

    def slt(self, b: Value | int) -> Value:
        """Signed less."""
        return self.emit("slt", b)

    def sle(self, b: Value | int) -> Value:
        """Signed less or equal."""
        return self.emit("sle", b)

    def sgt(self, b: Value | int) -> Value:
        """Signed greater."""
        return self.builder.as_value(b, self.type).emit("slt", self)

    def sge(self, b: Value | int) -> Value:
        """Signed greater or equal."""
        return self.builder.as_value(b, self.type).emit("sle", self)

    # minimum, maximum, saturation
    def umin(self, b: Value | int) -> Value:
        """Unsigned minimum."""
        return self.emit("umin", b)

    def umax(self, b: Value | int) -> Value:
        """Unsigned maximum."""
        return self.emit("umax", b)

    def smin(self, b: Value | int) -> Value:
        """Signed minimum."""
        return self.emit("smin", b)

    def smax(self, b: Value | int) -> Value:
        """Signed maximum."""
        return self.emit("smax", b)

    def uaddsat(self, b: Value | int) -> Value:
        """Unsigned sum, saturating."""
        return self.emit("uaddsat", b)

    def saddsat(self, b: Value | int) -> Value:
        """Signed sum, saturating."""
        return self.emit("saddsat", b)

    def usubsat(self, b: Value | int) -> Value:
        """Unsigned difference, saturating at 0."""
        return self.emit("usubsat", b)

    def ssubsat(self, b: Value | int) -> Value:
        """Signed difference, saturating."""
        return self.emit("ssubsat", b)

    def sat_narrow(self, bits: int, from_signed: bool, to_signed: bool) -> Value:
        """The nearest value that fits in `bits` bits a lane."""
        return self._resized("sat_narrow", bits, from_signed=from_signed, to_signed=to_signed)

    # bits
    def clz(self) -> Value:
        """Number of leading zero bits."""
        return self.emit("clz")

    def ctz(self) -> Value:
        """Number of trailing zero bits."""
        return self.emit("ctz")

    def popcount(self) -> Value:
        """Number of bits set."""
        return self.emit("popcount")

    def bitreverse(self) -> Value:
        """Bits in reverse order."""
        return self.emit("bitreverse")

    def bswap(self) -> Value:
        """Bytes in reverse order."""
        return self.emit("bswap")

    def abs(self) -> Value:
        """Absolute value; MIN stays."""
        return self.emit("abs")

    # widths and types
    def _resized(self, name: str, bits: int, **attrs: AttrValue) -> Value:
        return self.builder.value(name, self, type=int_type(bits).with_lanes(self.type.lanes), **attrs)

    def zext(self, bits: int) -> Value:
        """Zero-extended to `bits` a lane."""
        return self if bits == self.type.bits else self._resized("zext", bits)

    def sext(self, bits: int) -> Value:
        """Sign-extended to `bits` a lane."""
        return self if bits == self.type.bits else self._resized("sext", bits)

    def trunc(self, bits: int) -> Value:
        """The low `bits` of each lane."""
        return self if bits == self.type.bits else self._resized("trunc", bits)

    def bitcast(self, type_: Type) -> Value:
        """The same bits as another type of the same width; lane 0 is lowest."""
        return self if type_ is self.type else self.builder.value("bitcast", self, type=type_)

    def select(self, a: Value | int, b: Value | int) -> Value:
        """Where self is set a, else b; one of the two is a Value."""
        like = a if isinstance(a, Value) else b
        if not isinstance(like, Value):
            raise IRError("select needs a value for one of its choices")
        build = self.builder
        return build.value("select", self, build.as_value(a, like.type), build.as_value(b, like.type))

    # vectors
    def lane(self, index: int) -> Value:
        """One lane."""
        return self.emit("lane", index=index)

    def with_lane(self, index: int, value: Value | int) -> Value:
        """Self with one lane replaced."""
        return self.builder.value("with_lane", self, self.builder.as_value(value, self.type.lane), index=index)

    def splat(self, lanes: int) -> Value:
        """A vector of `lanes` equal lanes."""
        return self.builder.value("splat", self, type=self.type.with_lanes(lanes))

    def shuffle(self, other: Value, mask: Sequence[int]) -> Value:
        """Lanes of self (from 0) and other (from lanes on), picked by number; the mask may be shorter or longer."""
        return self.emit("shuffle", other, mask=tuple(mask))

    def reduce(self, op: str) -> Value:
        """All lanes combined by add, and, or, xor, umin, umax, smin or smax."""
        return self.emit("reduce", op=op)

    def tbl(self, *tables: Value) -> Value:
        """Each byte of self picks a byte of the concatenated tables (v16i8, one to four); out of range: 0."""
        return self.builder.value("tbl", self, *tables)

    def clmul(self, b: Value) -> Value:
        """Carry-less product: i64 to i128; on byte vectors lanewise, low half."""
        return self.emit("pmul" if self.type.is_vector else "clmul", b)

    pmul = clmul
