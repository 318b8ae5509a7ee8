"""The operands of a stencil: relocations against symbols that are never defined, filled in when it is copied.

A register token is a 32-bit displacement from env (H_R0 to H_R5). A number is
- in a WIDE variant 64 bits, moved through an empty asm so that LLVM knows nothing of it (W_...),
- else the sign-extended 32-bit field of one instruction (H_...), its low half where 32 bits are enough (U_...), or one
  byte, a shift amount (B_...). `!absolute_symbol` tells LLVM the range; a full range is never given: it truncated a
  store in an experiment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine import formats
from dbt.engine.layout import TOKENS

from .edges import TailCalls
from .source import IMM, NPC, PC, TARGET, Flags, Immediate
from .text import CONVENTION, FIRST_FREE_METADATA, SIGNATURE_TYPES

if TYPE_CHECKING:
    from dbt.ir.values import Place

    from .text import Body

NEXT: Final = "NEXT"
TAKEN: Final = "TAKEN"
LEAVE: Final = "LEAVE"
EDGES: Final = (NEXT, TAKEN, LEAVE)
NUMBERS: Final = (IMM, TARGET, PC, NPC)
INSERTED: Final = ("SITE", *(f"N{i}" for i in range(formats.NUMBERS)))  # of special stencils and insertions, 64 bits
_RANGES: Final = {"R": (0, 1 << 16), "H": (-(1 << 31), 1 << 31), "U": (0, 1 << 32), "B": (0, 1 << 8)}
_SHIFT_NAMES: Final = {"shl": "shl", "lshr": "shr", "ashr": "sar", "rotr": "ror"}


def declarations() -> str:
    """Module-level text: every hole symbol and the exits."""
    number = {kind: FIRST_FREE_METADATA + i for i, kind in enumerate(_RANGES)}
    symbols = [(f"H_R{i}", "R") for i in range(TOKENS)]
    symbols += [(f"{kind}_{which}", kind) for kind in "HUB" for which in NUMBERS]
    symbols += [("H_COUNT", "R")]
    lines = [f"@{name} = external dso_local global i8, !absolute_symbol !{number[kind]}" for name, kind in symbols]
    lines += [f'@W_{which} = external dso_local global i8, code_model "large"' for which in (*NUMBERS, *INSERTED)]
    lines += [f"declare dso_local {CONVENTION} void @{name}({SIGNATURE_TYPES})" for name in EDGES]
    lines += [f"!{number[kind]} = !{{i64 {low}, i64 {high}}}" for kind, (low, high) in _RANGES.items()]
    return "\n".join(lines)


def _symbol(name: str, addend: int) -> str:
    return f"getelementptr (i8, ptr @{name}, i64 {addend})" if addend else f"@{name}"


class HoleSource(TailCalls):
    """Operands as holes, edges as tail calls."""

    def __init__(self, body: Body, *, wide: bool = False, poll: bool = False) -> None:
        super().__init__(body, poll=poll)
        self._wide: Final = wide

    def pointer(self, place: Place) -> str:
        if place.token is None:
            return self.env(place.offset)
        hole = f"ptrtoint (ptr {_symbol(f'H_R{place.token}', place.offset)} to i64)"
        return self.body.emit(f"getelementptr i8, ptr %env, i64 {hole}")

    def value(self, immediate: Immediate) -> str:
        which, bits, addend = immediate
        if self._wide:
            held = self.body.emit(f'call i64 asm "", "=r,0"(i64 ptrtoint (ptr {_symbol(f"W_{which}", addend)} to i64))')
            return held if bits == 64 else self.body.emit(f"trunc i64 {held} to i{bits}")
        if bits == 64:  # sign-extended: 7 bytes; left alone, LLVM takes 10
            return self.body.emit(f'call i64 asm "movq $1, $0", "=r,i"(ptr {_symbol(f"H_{which}", addend)})')
        held = self.body.emit(f'call i32 asm "movl $1, $0", "=r,i"(ptr {_symbol(f"U_{which}", addend)})')
        return held if bits == 32 else self.body.emit(f"trunc i32 {held} to i{bits}")

    def folded(self, immediate: Immediate) -> str | None:
        which, bits, addend = immediate
        if self._wide or bits < 32:
            return None
        if bits == 64:
            return f"ptrtoint (ptr {_symbol(f'H_{which}', addend)} to i64)"
        return f"trunc (i64 ptrtoint (ptr {_symbol(f'U_{which}', addend)} to i64) to i32)"

    def summed(self, op: str, bits: int, value: str, immediate: Immediate) -> str | None:
        if self._wide:
            return None
        suffix, kind = ("q", "H") if bits == 64 else ("l", "U")
        symbol = _symbol(f"{kind}_{immediate.which}", immediate.addend)
        code = f'asm "{op}{suffix} $2, $0", "=r,0,i,~{{flags}}"'
        return self.body.emit(f"call i{bits} {code}(i{bits} {value}, ptr {symbol})")

    def shifted(self, op: str, bits: int, value: str, amount: Immediate) -> str | None:
        if amount.which not in (IMM, TARGET) or amount.addend:
            return None
        code = f"{_SHIFT_NAMES[op]}{'q' if bits == 64 else 'l'} $2, $0"
        return self.body.emit(f'call i{bits} asm "{code}", "=r,0,i,~{{flags}}"(i{bits} {value}, ptr @B_{amount.which})')

    def funneled(self, bits: int, high: str, low: str, amount: Immediate) -> str | None:
        if amount.which not in (IMM, TARGET) or amount.addend:
            return None
        code = f'asm "shrd{"q" if bits == 64 else "l"} $3, $2, $0", "=r,0,r,i,~{{flags}}"'
        return self.body.emit(f"call i{bits} {code}(i{bits} {low}, i{bits} {high}, ptr @B_{amount.which})")

    # edges
    def next(self, flags: Flags) -> None:
        self.jump("@" + NEXT, flags)

    def follow(self, flags: Flags) -> None:
        self.jump("@" + TAKEN, flags)

    def enter(self, code: str, flags: Flags) -> None:
        self.jump(code, flags)

    def leave(self, flags: Flags) -> None:
        self.jump("@" + LEAVE, flags)
