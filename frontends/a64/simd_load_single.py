"""Advanced SIMD load/store single structure, and replicate. Arm ARM C4.1.94.3 and C4.1.94.4.

Elements of a structure lie side by side in memory; each goes to the same lane of consecutive registers. The index is
Q:S:size, less of it for wider lanes, and becomes part of the register tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dbt.ir.types import I64, int_type

from .operands import XSP, V, X
from .simd_common import lanes
from .simd_load_multiple import addresses, increment, list_text, write_back
from .simd_operands import VLane, simd
from .simd_text import VList, arrangement

if TYPE_CHECKING:
    from dbt.ir.types import Type

    from .lifter import Lifter

Semantics = TypeVar("Semantics", bound=Callable[..., None])
# Opcode, S and size (whose bits may be part of the index) of each lane width, and the fields of index and register.
_LANES: Final = (
    ("00 o S low:2", "Q S low Rt"),
    ("01 o S low 0", "Q S low Rt"),
    ("10 o S 00", "Q S Rt"),
    ("10 o 0 01", "Q Rt"),
)


def _lane_text(name: str) -> Callable[..., str]:
    def asm(R: int, o: int, size: int, post: int) -> str:
        count = 2 * o + R + 1
        return list_text(name, count, ":" + "bhsd"[size], post, count << size)

    return asm


def _list_of(names: str) -> Callable[..., VList]:
    def registers(R: int, o: int) -> VList:
        return VList(names, 2 * o + R + 1)

    return registers


def _replicate_text(Q: int, R: int, o: int, size: int, post: int) -> str:
    count = 2 * o + R + 1
    return list_text("ld", count, f":{arrangement(Q, size)}", post, count << size).replace(" ", "r ", 1)


def _with_post_index(
    pattern: str,
    static: str,
    **given: Any,  # noqa: ANN401 -- keywords of a row
) -> Callable[[Semantics], Semantics]:
    """Rows without write-back, with an increment by the bytes moved, and by a register."""

    def annotate(function: Semantics) -> Semantics:
        for post, (bit, field) in enumerate((("0", "00000"), ("1", "11111"), ("1", "Rm:5"))):
            text = pattern.replace("{post}", bit).replace("{Rm}", field)
            Rm = X("Rm") if post == 2 else None
            function = simd(text, static=static, post=post, Rm=Rm, **given)(function)
        return function

    return annotate


def _lane_rows(pattern: str, static: str, name: str) -> Callable[[Semantics], Semantics]:
    """Rows for each lane width."""

    def annotate(function: Semantics) -> Semantics:
        for size, (opcode, names) in enumerate(_LANES):
            text = pattern.replace("{opcode}", opcode)
            function = _with_post_index(
                text, static, size=size, Et=VLane(names, bits=8 << size), asm=_lane_text(name), list=_list_of(names)
            )(function)
        return function

    return annotate


@_lane_rows("0 Q 001101 {post} 0 R {Rm} {opcode} Rn:5 Rt:5", static="R o", name="st")
def ST1_s(cpu: Lifter, R: int, o: int, size: int, post: int, Rm: X | None, Rn: XSP, Et: VLane) -> None:
    """ST1 to ST4, one lane."""
    count, bytes_ = 2 * o + R + 1, 1 << size
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * bytes_)
    values = [Et.next(i).read(int_type(8 * bytes_)) for i in range(count)]
    for address, value in zip(addresses(base, count, bytes_), values, strict=True):
        cpu.store(address, value)
    write_back(Rn, base, step)


@_lane_rows("0 Q 001101 {post} 1 R {Rm} {opcode} Rn:5 Rt:5", static="R o", name="ld")
def LD1_s(cpu: Lifter, R: int, o: int, size: int, post: int, Rm: X | None, Rn: XSP, Et: VLane) -> None:
    """LD1 to LD4, one lane."""
    count, bytes_ = 2 * o + R + 1, 1 << size
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * bytes_)
    values = [cpu.load(int_type(8 * bytes_), address) for address in addresses(base, count, bytes_)]
    for i, value in enumerate(values):
        Et.next(i).write(value)
    write_back(Rn, base, step)


@_with_post_index(
    "0 Q 001101 {post} 1 R {Rm} 11 o 0 size:2 Rn:5 Rt:5", static="Q R o size", asm=_replicate_text, list=_list_of("Rt")
)
def LD1R_s(cpu: Lifter, Q: int, R: int, o: int, size: int, post: int, Rm: X | None, Rn: XSP, Rt: V) -> None:
    """LD1R to LD4R: every lane gets the element."""
    t: Type = lanes(Q, size) if Q or size < 3 else I64
    count, bytes_ = 2 * o + R + 1, 1 << size
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * bytes_)
    values = [cpu.load(t.lane, address) for address in addresses(base, count, bytes_)]
    for i, value in enumerate(values):
        Rt.next(i).write(value.splat(t.lanes) if t.lanes else value)
    write_back(Rn, base, step)
