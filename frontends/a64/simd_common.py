"""What the Advanced SIMD rows share: arrangements as IR types, halves of registers, saturation.

Arm ARM C4.1.96, 'Data processing - scalar floating-point and Advanced SIMD'. Most classes have a vector and a scalar
encoding that differ in bits 30 and 28 only. A row names both `Q` and `s`; a scalar one has s = 1 and Q = 1, and its
semantics are the vector's with a scalar type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import Type, float_type, int_type, vector

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter
    from .operands import V

# Conditions on the static fields of a row, by which arrangements exist.
VECTOR: Final = "size < 3 or Q"  # 8B 16B 4H 8H 2S 4S 2D
VECTOR_BHS: Final = "size < 3"  # 8B 16B 4H 8H 2S 4S
OR_D: Final = "size == 3 and Q if s else size < 3 or Q"  # and the scalar D
OR_BHSD: Final = "Q or size < 3 and not s"  # and the scalars B H S D
OR_BHS: Final = "size < 3 and (Q or not s)"  # narrowing: no 2D; and the scalars B H S
HS_OR_HS: Final = "size in (1, 2) and (Q or not s)"  # 4H 8H 2S 4S and the scalars H S
FLOAT: Final = "Q or not sz"  # 2S 4S 2D
FLOAT_OR_SD: Final = "Q or not sz and not s"  # and the scalars S D


def lanes(Q: int, size: int) -> Type:
    """The integer arrangement: lanes of 8 << size bits in a register of 64 << Q bits."""
    return vector(int_type(8 << size), (8 << Q) >> size)


def shape(Q: int, s: int, size: int) -> Type:
    """The arrangement, or the scalar if s."""
    return int_type(8 << size) if s else lanes(Q, size)


def float_shape(Q: int, s: int, sz: int) -> Type:
    """The floating-point arrangement of S (sz = 0) or D lanes, or the scalar if s."""
    lane = float_type(32 << sz)
    return lane if s else vector(lane, (2 << Q) >> sz)


def as_int(t: Type) -> Type:
    """The integer type with the same lanes."""
    return int_type(t.bits).with_lanes(t.lanes)


def as_float(t: Type) -> Type:
    """The floating-point type with the same lanes."""
    return float_type(t.bits).with_lanes(t.lanes)


def resized(t: Type, bits: int) -> Type:
    """The type with as many lanes of another width."""
    return (float_type(bits) if t.is_float else int_type(bits)).with_lanes(t.lanes)


def extend(value: Value, bits: int, U: int) -> Value:
    """Zero-extended if U, else sign-extended, lanewise."""
    return value.zext(bits) if U else value.sext(bits)


def low_or_high(R: V, t: Type, Q: int) -> Value:
    """The lower half of a register, or the upper one if Q (the '2' instructions); t is 64 bits wide, or a scalar."""
    return R.read(t, 8 if Q and t.is_vector else 0)


def write_low_or_high(R: V, value: Value, Q: int) -> None:
    """Writes the lower half and zeroes the upper, or writes only the upper half if Q."""
    if Q and value.type.is_vector:
        R.write_part(value, 8)
    else:
        R.write(value)


def mask_lanes(mask: Value, t: Type) -> Value:
    """All ones in the lanes (or the scalar) where a comparison held."""
    return mask.sext(t.bits)


def saturated(cpu: Lifter, *masks: Value) -> None:
    """Sets FPSR.QC if any lane of any mask is set."""
    total = masks[0]
    for mask in masks[1:]:
        total = total | mask
    cpu.set_qc(total)


def write_saturated(cpu: Lifter, Rd: V, wide: Value, Q: int, *, from_signed: bool, to_signed: bool) -> None:
    """Writes lanes of half the width, the nearest values, to the lower or (Q) the upper half; sets FPSR.QC."""
    bits = wide.type.bits
    narrow = wide.sat_narrow(bits // 2, from_signed=from_signed, to_signed=to_signed)
    write_low_or_high(Rd, narrow, Q)
    saturated(cpu, (narrow.sext(bits) if to_signed else narrow.zext(bits)).ne(wide))


def broadcast(value: Value, t: Type) -> Value:
    """The scalar in every lane of t; cut or bitcast to the lane first."""
    if value.type.is_int and not t.is_float:
        value = value.trunc(t.bits)
    return value.splat(t.lanes) if t.lanes else value


def concat(low: Value, high: Value) -> Value:
    """One vector of the lanes of two."""
    return low.shuffle(high, tuple(range(2 * low.type.lanes)))


def pairs(a: Value, b: Value) -> tuple[Value, Value]:
    """The even and the odd lanes of b:a, from which the pairwise instructions work."""
    n = a.type.lanes
    return a.shuffle(b, tuple(range(0, 2 * n, 2))), a.shuffle(b, tuple(range(1, 2 * n, 2)))


def halves(value: Value) -> tuple[Value, Value]:
    """The lower and the upper half of a vector of at least two lanes."""
    n = value.type.lanes // 2
    return value.shuffle(value, tuple(range(n))), value.shuffle(value, tuple(range(n, 2 * n)))
