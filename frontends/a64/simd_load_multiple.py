"""Advanced SIMD load/store multiple structures. Arm ARM C4.1.94.1 and C4.1.94.2.

LD1/ST1 move 1 to 4 registers as they are; LD2 to LD4 take structures apart: register r gets element r of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dbt.ir.types import I64

from .operands import XSP, V, X
from .simd_common import VECTOR, lanes
from .simd_operands import simd
from .simd_text import VList, VSized, arrangement

if TYPE_CHECKING:
    from dbt.ir.values import Value

    from .lifter import Lifter

STRUCTURES: Final = {0: 4, 4: 3, 8: 2}  # opcode: elements of a structure
REGISTERS: Final = {2: 4, 6: 3, 7: 1, 10: 2}  # opcode of LD1/ST1: registers
STRUCTURED: Final = f"opcode in (0, 4, 8) and ({VECTOR})"
PLAIN: Final = "opcode in (2, 6, 7, 10)"


def list_text(name: str, count: int, style: str, post: int, total: int) -> str:
    """`ld2 {v0.4s, v1.4s}, [x0], #32`."""
    return f"{name}{count} {{list{style}}}, [{{Rn}}]" + ("", f", #{total}", ", {Rm:x}")[post]


def plain_text(name: str) -> Callable[..., str]:
    """The text of LD1 or ST1; the arrangement's width is no static field."""

    def asm(Q: int, opcode: int, post: int) -> str:
        return list_text(name, 1, "", post, REGISTERS[opcode] * (8 << Q))

    return asm


def plain_list(opcode: int) -> VSized:
    """The registers, for text."""
    return VSized("size Rt", REGISTERS[opcode])


def structured_text(name: str) -> Callable[..., str]:
    """The text of LD2 to LD4 or ST2 to ST4."""

    def asm(Q: int, opcode: int, size: int, post: int) -> str:
        count = STRUCTURES[opcode]
        return list_text(name, count, f":{arrangement(Q, size)}", post, count * (8 << Q))

    return asm


def structured_list(opcode: int) -> VList:
    """The registers, for text."""
    return VList("Rt", STRUCTURES[opcode])


def addresses(base: Value, count: int, step: int) -> list[Value]:
    """`count` addresses, `step` bytes apart."""
    return [base + i * step if i else base for i in range(count)]


def increment(cpu: Lifter, post: int, Rm: X | None, size: int) -> Value | None:
    """What is added to the base afterwards; `post` 0: nothing, 1: the bytes moved, 2: a register."""
    if post == 0:
        return None
    return cpu.const(I64, size) if Rm is None else Rm.read(64)


def write_back(Rn: XSP, base: Value, step: Value | None) -> None:
    """The new base."""
    if step is not None:
        Rn.write(64, base + step)


@simd(
    "0 Q 0011000 0 000000       opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode",
    where=PLAIN,
    asm=plain_text("st"),
    list=plain_list,
    post=0,
    Rm=None,
)
@simd(
    "0 Q 0011001 0 0 11111      opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode",
    where=PLAIN,
    asm=plain_text("st"),
    list=plain_list,
    post=1,
    Rm=None,
)
@simd(
    "0 Q 0011001 0 0 Rm:5       opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode",
    where=PLAIN,
    asm=plain_text("st"),
    list=plain_list,
    post=2,
    Rm=X("Rm"),
)
def ST1_m(cpu: Lifter, Q: int, opcode: int, post: int, Rm: X | None, Rn: XSP, Rt: V) -> None:
    t = lanes(Q, 3) if Q else I64
    count = REGISTERS[opcode]
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * t.width // 8)
    values = [Rt.next(i).read(t) for i in range(count)]
    for address, value in zip(addresses(base, count, t.width // 8), values, strict=True):
        cpu.store(address, value)
    write_back(Rn, base, step)


@simd(
    "0 Q 0011000 1 000000       opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode",
    where=PLAIN,
    asm=plain_text("ld"),
    list=plain_list,
    post=0,
    Rm=None,
)
@simd(
    "0 Q 0011001 1 0 11111      opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode",
    where=PLAIN,
    asm=plain_text("ld"),
    list=plain_list,
    post=1,
    Rm=None,
)
@simd(
    "0 Q 0011001 1 0 Rm:5       opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode",
    where=PLAIN,
    asm=plain_text("ld"),
    list=plain_list,
    post=2,
    Rm=X("Rm"),
)
def LD1_m(cpu: Lifter, Q: int, opcode: int, post: int, Rm: X | None, Rn: XSP, Rt: V) -> None:
    t = lanes(Q, 3) if Q else I64
    count = REGISTERS[opcode]
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * t.width // 8)
    values = [cpu.load(t, address) for address in addresses(base, count, t.width // 8)]
    for i, value in enumerate(values):
        Rt.next(i).write(value)
    write_back(Rn, base, step)


@simd(
    "0 Q 0011000 0 000000  opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode size",
    where=STRUCTURED,
    asm=structured_text("st"),
    list=structured_list,
    post=0,
    Rm=None,
)
@simd(
    "0 Q 0011001 0 0 11111 opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode size",
    where=STRUCTURED,
    asm=structured_text("st"),
    list=structured_list,
    post=1,
    Rm=None,
)
@simd(
    "0 Q 0011001 0 0 Rm:5  opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode size",
    where=STRUCTURED,
    asm=structured_text("st"),
    list=structured_list,
    post=2,
    Rm=X("Rm"),
)
def ST2_m(cpu: Lifter, Q: int, opcode: int, size: int, post: int, Rm: X | None, Rn: XSP, Rt: V) -> None:
    """ST2, ST3, ST4."""
    t = lanes(Q, size)
    count = STRUCTURES[opcode]
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * t.width // 8)
    registers = [Rt.next(i).read(t) for i in range(count)]
    for address, value in zip(addresses(base, count, t.width // 8), interleaved(registers), strict=True):
        cpu.store(address, value)
    write_back(Rn, base, step)


@simd(
    "0 Q 0011000 1 000000  opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode size",
    where=STRUCTURED,
    asm=structured_text("ld"),
    list=structured_list,
    post=0,
    Rm=None,
)
@simd(
    "0 Q 0011001 1 0 11111 opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode size",
    where=STRUCTURED,
    asm=structured_text("ld"),
    list=structured_list,
    post=1,
    Rm=None,
)
@simd(
    "0 Q 0011001 1 0 Rm:5  opcode:4 size:2 Rn:5 Rt:5",
    static="Q opcode size",
    where=STRUCTURED,
    asm=structured_text("ld"),
    list=structured_list,
    post=2,
    Rm=X("Rm"),
)
def LD2_m(cpu: Lifter, Q: int, opcode: int, size: int, post: int, Rm: X | None, Rn: XSP, Rt: V) -> None:
    """LD2, LD3, LD4."""
    t = lanes(Q, size)
    count = STRUCTURES[opcode]
    base = Rn.read(64)
    step = increment(cpu, post, Rm, count * t.width // 8)
    chunks = [cpu.load(t, address) for address in addresses(base, count, t.width // 8)]
    for i, value in enumerate(separated(chunks)):
        Rt.next(i).write(value)
    write_back(Rn, base, step)


def gathered(parts: list[Value], places: list[int]) -> Value:
    """The lanes at `places` of the concatenated parts, which have as many lanes each."""
    n = parts[0].type.lanes
    result = None
    for number, part in enumerate(parts):
        mine = [place // n == number for place in places]
        if not any(mine):
            continue
        if result is None:
            result = part.shuffle(part, tuple(place % n if own else 0 for place, own in zip(places, mine, strict=True)))
        else:
            mask = tuple(n + place % n if own else i for i, (place, own) in enumerate(zip(places, mine, strict=True)))
            result = result.shuffle(part, mask)
    assert result is not None
    return result


def interleaved(registers: list[Value]) -> list[Value]:
    """Structures in the order of memory, cut into values of a register's width."""
    n, count = registers[0].type.lanes, len(registers)
    order = [element * n + lane for lane in range(n) for element in range(count)]
    return [gathered(registers, order[i * n : (i + 1) * n]) for i in range(count)]


def separated(chunks: list[Value]) -> list[Value]:
    """The inverse of `interleaved`."""
    n, count = chunks[0].type.lanes, len(chunks)
    return [gathered(chunks, [lane * count + element for lane in range(n)]) for element in range(count)]
