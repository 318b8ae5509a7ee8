"""The x86-64 host's floating-point unit as lowering functions use it: inline assembly, rounding control, cold paths.

Plain `fadd` is folded, deleted and speculated by LLVM, which does not know of MXCSR; `asm sideeffect` is not, and keeps
its order. A value that goes through a cold path is a phi of two blocks. Packed operations on two floats work on the
four lanes 0 1 0 1, so that the lanes in the upper half raise nothing of their own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.layout import Env
from dbt.errors import Unimplemented
from dbt.ir.types import Type, int_type

from .compile import host_cpu
from .text import UNLIKELY, llvm_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lower import Lowering

DN: Final = 1 << 25  # FPCR: every NaN result is the default NaN
IOC: Final = 1  # FPSR: invalid operation
ROUNDING_BITS: Final = 3 << 13  # of MXCSR
ROUNDING: Final = {"even": 0, "down": 1, "up": 2, "zero": 3}  # MXCSR.RC, and roundsd's immediate
SMALLEST_VECTOR: Final = 128
REQUIRED: Final = ("avx", "fma", "f16c")


class Shape(NamedTuple):
    """How values of an IR float type are computed: its LLVM type, the instruction suffix, and its format."""

    type: Type
    suffix: str  # ss, sd, ps, pd

    @property
    def text(self) -> str:
        """LLVM's name of the type."""
        return llvm_type(self.type)

    @property
    def ints(self) -> Type:
        """The integer type with the same lanes."""
        return int_type(self.type.bits).with_lanes(self.type.lanes)

    @property
    def mask(self) -> str:
        """LLVM's type of a comparison's result."""
        return llvm_type(int_type(1).with_lanes(self.type.lanes))

    @property
    def fraction(self) -> int:
        """Fraction bits."""
        return {16: 10, 32: 23, 64: 52}[self.type.bits]

    @property
    def bias(self) -> int:
        """Of the exponent."""
        return (1 << (self.type.bits - self.fraction - 2)) - 1

    @property
    def infinity(self) -> int:
        """Its bits."""
        return (2 * self.bias + 1) << self.fraction

    @property
    def quiet(self) -> int:
        """The bit that makes a NaN quiet."""
        return 1 << (self.fraction - 1)

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.type.bits - 1)

    def power(self, exponent: int) -> int:
        """The bits of 2.0 ** exponent."""
        return (self.bias + exponent) << self.fraction


def shape(type_: Type) -> Shape:
    """The shape in which a type is computed: two floats as four."""
    if type_.is_vector and type_.width < SMALLEST_VECTOR:
        type_ = type_.with_lanes(SMALLEST_VECTOR // type_.bits)
    return Shape(type_, ("p" if type_.is_vector else "s") + {16: "h", 32: "s", 64: "d"}[type_.bits])


def widen(low: Lowering, value: str, type_: Type) -> str:
    """A value of `type_` in its shape."""
    if not type_.is_vector or type_.width >= SMALLEST_VECTOR:
        return value
    text, copies = llvm_type(type_), SMALLEST_VECTOR // type_.width
    picks = ", ".join(f"i32 {i}" for _ in range(copies) for i in range(type_.lanes))
    return low.emit(f"shufflevector {text} {value}, {text} poison, <{type_.lanes * copies} x i32> <{picks}>")


def narrow(low: Lowering, value: str, type_: Type) -> str:
    """The inverse of `widen`, for a type that is to have type_'s lanes (any lane type of any kind)."""
    if not type_.is_vector or type_.width >= SMALLEST_VECTOR:
        return value
    wide = llvm_type(type_.with_lanes(SMALLEST_VECTOR // type_.bits))
    picks = ", ".join(f"i32 {i}" for i in range(type_.lanes))
    return low.emit(f"shufflevector {wide} {value}, {wide} poison, <{type_.lanes} x i32> <{picks}>")


def constant(value: int, type_: Type) -> str:
    """A scalar, or a vector of equal lanes, by the bits of a lane."""
    lane = llvm_type(type_.lane)
    bits = value & ((1 << type_.bits) - 1)
    text = f"bitcast (i{type_.bits} {bits} to {lane})" if type_.is_float else str(bits)
    return "<" + ", ".join([f"{lane} {text}"] * type_.lanes) + ">" if type_.lanes else text


def as_ints(low: Lowering, sh: Shape, value: str) -> str:
    """The bits of a float."""
    return low.emit(f"bitcast {sh.text} {value} to {llvm_type(sh.ints)}")


def as_floats(low: Lowering, sh: Shape, value: str) -> str:
    """A float of these bits."""
    return low.emit(f"bitcast {llvm_type(sh.ints)} {value} to {sh.text}")


def magnitude(low: Lowering, sh: Shape, bits: str) -> str:
    """The bits (integers) without the sign."""
    return low.emit(f"and {llvm_type(sh.ints)} {bits}, {constant(sh.sign - 1, sh.ints)}")


def test(low: Lowering, sh: Shape, predicate: str, bits: str, value: int) -> str:
    """A lanewise comparison of integer bits with a constant."""
    return low.emit(f"icmp {predicate} {llvm_type(sh.ints)} {bits}, {constant(value, sh.ints)}")


def choose(low: Lowering, sh: Shape, mask: str, a: str, b: str) -> str:
    """Lanewise: integer bits a where the mask is set, else b."""
    ints = llvm_type(sh.ints)
    return low.emit(f"select {sh.mask} {mask}, {ints} {a}, {ints} {b}")


def any_lane(low: Lowering, sh: Shape, mask: str) -> str:
    """i1: some lane of a mask is set."""
    if not sh.type.lanes:
        return mask
    bits = low.emit(f"bitcast {sh.mask} {mask} to i{sh.type.lanes}")
    return low.emit(f"icmp ne i{sh.type.lanes} {bits}, 0")


def is_nan(low: Lowering, sh: Shape, value: str) -> str:
    """A lanewise mask for a *result*: it is not a signaling NaN, so that the test raises nothing."""
    return low.emit(f"fcmp uno {sh.text} {value}, {value}")


@cache
def require_host() -> None:
    """Say clearly what is missing, instead of an assembler error, which ends the process."""
    present = {feature for feature in host_cpu()[1].split(",") if feature.startswith("+")}
    lacking = [name for name in REQUIRED if f"+{name}" not in present]
    if lacking:
        raise Unimplemented(f"floating point on a host without {', '.join(lacking)} (use the reference engine)")


def asm(low: Lowering, result: str, code: str, constraints: str, *arguments: tuple[str, str]) -> str:
    """An instruction with side effects (on MXCSR); AT&T order."""
    require_host()
    given = ", ".join(f"{type_} {value}" for type_, value in arguments)
    return low.emit(f'call {result} asm sideeffect "{code}", "{constraints}"({given})')


def instruction(low: Lowering, sh: Shape, name: str, *operands: str) -> str:
    """`name` of one or two operands of the shape, first operand first: r = a op b."""
    places = ", ".join(f"${i}" for i in range(len(operands), -1, -1))
    if len(operands) == 1 and not sh.type.lanes:
        places = "$1, $1, $0"  # the scalar forms merge the rest of a register: the source's own
    constraints = ",".join(["=x", *["x"] * len(operands)])
    return asm(low, sh.text, f"v{name}{sh.suffix} {places}", constraints, *((sh.text, v) for v in operands))


def branch(low: Lowering, condition: str, name: str) -> tuple[str, str]:
    """End the block; the labels of the (unlikely) block for a true condition and of the other."""
    cold, hot = low.body.label(name), low.body.label("fp")
    low.line(f"br i1 {condition}, label %{cold}, label %{hot}, {UNLIKELY}")
    return cold, hot


def begin(low: Lowering, name: str = "fp") -> str:
    """Start a block of its own at this place, for a phi to refer to; its label."""
    label = low.body.label(name)
    low.line(f"br label %{label}")
    low.body.place(label)
    return label


def unlikely(
    low: Lowering, condition: str, type_: str, cold: Callable[[], str], hot: Callable[[], str] | str, name: str
) -> str:
    """cold() if the condition (i1) holds, else hot."""
    slow, fast = branch(low, condition, name)
    done = low.body.label("fp")
    low.body.place(slow)
    with low.side_block():
        slow_value = cold()
        slow_end = begin(low, name)
    low.line(f"br label %{done}")
    low.body.place(fast)
    fast_value, fast_end = hot, fast
    if not isinstance(hot, str):
        with low.side_block():
            fast_value = hot()
            fast_end = begin(low)
    low.line(f"br label %{done}")
    low.body.place(done)
    return low.emit(f"phi {type_} [ {slow_value}, %{slow_end} ], [ {fast_value}, %{fast_end} ]")


def read_mxcsr(low: Lowering) -> str:
    """MXCSR as i32, by way of Env.mxcsr (which is only meaningful outside of translated code)."""
    slot = low.env(Env.offset("mxcsr"))
    low.line(f'call void asm sideeffect "stmxcsr $0", "=*m,~{{memory}}"(ptr elementtype(i32) {slot})')
    return low.emit(f"load volatile i32, ptr {slot}")


def write_mxcsr(low: Lowering, value: str) -> None:
    """Set MXCSR from an i32."""
    slot = low.env(Env.offset("mxcsr"))
    low.line(f"store volatile i32 {value}, ptr {slot}")
    low.line(f'call void asm sideeffect "ldmxcsr $0", "*m,~{{memory}}"(ptr elementtype(i32) {slot})')


def with_rounding(low: Lowering, rm: str, compute: Callable[[], str]) -> str:
    """Compute under another rounding mode than the guest's; flags stay. 'dynamic' is the guest's."""
    if rm == "dynamic":
        return compute()
    before = read_mxcsr(low)
    cleared = low.emit(f"and i32 {before}, {~ROUNDING_BITS}")
    write_mxcsr(low, low.emit(f"or i32 {cleared}, {ROUNDING[rm] << 13}"))
    result = compute()
    after = low.emit(f"and i32 {read_mxcsr(low)}, {~ROUNDING_BITS}")
    mode = low.emit(f"and i32 {before}, {ROUNDING_BITS}")
    write_mxcsr(low, low.emit(f"or i32 {after}, {mode}"))
    return result


def default_nan(low: Lowering) -> str:
    """i1: FPCR.DN."""
    control = low.emit(f"load volatile i64, ptr {low.env(low.offsets.fpcr)}")
    return low.emit(f"trunc i64 {low.emit(f'lshr i64 {control}, {DN.bit_length() - 1}')} to i1")


def raise_flags(low: Lowering, bits: str) -> None:
    """FPSR |= bits (i64): for what the host does not report."""
    slot = low.env(low.offsets.fpsr)
    before = low.emit(f"load i64, ptr {slot}")
    low.line(f"store i64 {low.emit(f'or i64 {before}, {bits}')}, ptr {slot}")
