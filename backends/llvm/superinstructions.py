"""Superinstructions: several steps of the interpreter as one handler (dbt/engine/superinstructions.py).

Registers and immediates of the parts are numbers in it, and registers that one part hands to another are values. What
depends on where the code lies (target, pc, the link) is read from the step of the last part, which alone may use it.

A fault has to find the guest's state as it was before its instruction, and the step in its register. So in front of the
first access of each part but the first stands a *mark*: asm that adds to the step, has memory as its operand, so that
registers written before it are written, and the flag words in their registers, where they have changed. Its encoding
is one that LLVM does not choose by itself; check.py finds it, and begins anew behind it. Behind each access stands an
asm without code that has the flag words as operands: LLVM would use their registers if they were set again later.
"""

from __future__ import annotations

from importlib import import_module
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.helpers import HELPERS
from dbt.engine.layout import PART_KEY, TOKENS, Env, Step
from dbt.ir.ops import LOAD, OPS, STORE
from dbt.ir.passes import Joining, Slots, join
from dbt.ir.state import StateOffsets
from dbt.ir.values import IRError

from .check import CheckError, Mark, check
from .lower import Lowering
from .lower_flags import words
from .peephole import shorten
from .records import RecordSource
from .source import Flags
from .special import PINNED, function
from .stencils import compile_functions, request_of, template_of
from .text import Body, Declarations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.frontends.guest import Guest

    from dbt.ir.values import Op

    from .extract import Stencil

_PART: Final = Struct(f"<I{TOKENS}H2q")
assert _PART.size == PART_KEY
_FLAG_REGISTERS: Final = ("r12", "r13", "r14", "r15")
_MOST: Final = 0xFFFF  # bytes: StencilHead.code_size
_LEA: Final = "0x48,0x8d,0x89"  # lea rcx, [rcx + a displacement of 32 bits], which LLVM never takes where 8 will do


class Part(NamedTuple):
    """What a part is known by: layout.Part."""

    number: int
    tokens: tuple[int, ...]
    imm: int
    target: int


def parts_of(key: bytes) -> list[Part]:
    """The parts that a key lists."""
    return [Part(number, tuple(r[:TOKENS]), *r[TOKENS:]) for number, *r in _PART.iter_unpack(key)]


def key_of(parts: Iterable[Part]) -> bytes:
    """The key of parts."""
    return b"".join(_PART.pack(part.number, *part.tokens, part.imm, part.target) for part in parts)


class PartsSource(RecordSource):
    """Fields of the last part's step; `%tmp` is the first one's."""

    def __init__(self, body: Body, last: int, *, poll: bool) -> None:
        super().__init__(body, poll=poll)
        self.at = 0  # the part whose step is in the register
        self.last: Final = last
        self.marks: Final[list[Mark]] = []
        self._tmp = "%tmp"

    def field(self, type_: str, offset: int) -> str:
        return super().field(type_, offset + Step.size * (self.last - self.at))

    def next(self, flags: Flags) -> None:
        self.run(
            self.body.emit(f"getelementptr i8, ptr {self.step}, i64 {Step.size * (self.last + 1 - self.at)}"), flags
        )

    def leave(self, flags: Flags) -> None:
        handler = self.body.emit(f"load ptr, ptr {self.env(Env.offset('leave_code'))}")
        self.jump(handler, flags, self.body.emit(f"add i64 {self._tmp}, {Step.size * (self.last - self.at)}"))

    def mark(self, part: int, flags: Flags) -> Flags:
        """The access that follows is the part's. Returns where the flag words are then."""
        distance = Step.size * (part - self.at)
        tied = flags != PINNED
        self.at = part
        self.marks.append(Mark(distance, tied))
        code = f'asm sideeffect ".byte {_LEA}\\0A.long {distance}"'
        if not tied:
            self._tmp = self.body.emit(f'call i64 {code}, "={{rcx}},0,~{{memory}}"(i64 {self._tmp})')
        else:
            outputs = ",".join(f"={{{register}}}" for register in ("rcx", *_FLAG_REGISTERS))
            given = ", ".join(f"i64 {word}" for word in (self._tmp, *flags))
            five = "{ i64, i64, i64, i64, i64 }"
            found = self.body.emit(f'call {five} {code}, "{outputs},0,1,2,3,4,~{{memory}}"({given})')
            self._tmp, *kept = (self.body.emit(f"extractvalue {five} {found}, {i}") for i in range(5))
            flags = Flags(*kept)
        self.step = self.body.emit(f"inttoptr i64 {self._tmp} to ptr")
        return flags

    def keep(self, flags: Flags) -> None:
        """The flag words are in their registers still, though nobody may want them any more."""
        registers = ",".join(f"{{{register}}}" for register in _FLAG_REGISTERS)
        self.body.line(f'call void asm sideeffect "", "{registers}"({", ".join(f"i64 {word}" for word in flags)})')


class PartsLowering(Lowering):
    """Marks the first access of each part."""

    source: PartsSource  # type: ignore[misc]

    def __init__(self, source: PartsSource, accesses: Iterable[int]) -> None:
        super().__init__(source, StateOffsets(), tuple(HELPERS))
        self._accesses: Final[Iterator[int]] = iter(accesses)

    def before(self, op: Op) -> None:
        if OPS[op.name].effects & (LOAD | STORE):
            part = next(self._accesses)
            if part != self.source.at:
                self.flags = self.source.mark(part, words(self))

    def after(self, op: Op) -> None:
        if OPS[op.name].effects & (LOAD | STORE):
            self.source.keep(words(self))

    def finish(self) -> None:
        """Raise IRError if an access has got lost on the way."""
        if next(self._accesses, None) is not None:
            raise IRError("a superinstruction has fewer accesses than its parts")


def _body(guest: Guest, key: bytes, declared: Declarations) -> tuple[Body, list[Mark]]:
    state = import_module(f"{guest.package}.state")
    parts = parts_of(key)
    requests = [request_of(guest, part.number) for part in parts]
    joined = join(
        [Joining(template_of(guest, r), p.tokens, p.imm, p.target) for r, p in zip(requests, parts, strict=True)],
        Slots(state.ZERO, state.JUNK),
    )
    body = Body(declared)
    source = PartsSource(body, len(parts) - 1, poll=requests[-1].poll)
    low = PartsLowering(source, joined.accesses)
    low.run(joined.template)
    low.finish()
    return body, source.marks


def compile_superinstructions(guest: Guest, keys: Iterable[bytes]) -> dict[bytes, Stencil | None]:
    """Handlers by key; None for one that has not the guest's state at a fault, or is too long. LLVM may abort."""
    declared = Declarations()
    names = {f"s{i}": key for i, key in enumerate(sorted(set(keys)))}
    bodies = {name: _body(guest, key, declared) for name, key in names.items()}
    compiled = compile_functions([function(name, body) for name, (body, _) in bodies.items()], declared)
    found: dict[bytes, Stencil | None] = {}
    for name, key in names.items():
        try:
            check(compiled[name], name, step=True, marks=bodies[name][1])
        except CheckError:
            found[key] = None
        else:
            found[key] = shorten(compiled[name]) if len(compiled[name].code) <= _MOST else None
    return found
