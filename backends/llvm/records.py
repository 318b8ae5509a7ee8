"""Operands of an interpreter's handler: fields of its step (layout.Step), which travels in the `tmp` argument.

A handler is a stencil without holes for operands: what differs from one instruction to the next is read from the step,
and the next handler's address as well. So handlers are not copied but run where they are mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine.formats import SPECIAL_COUNT, SPECIAL_ENTRY, SPECIAL_HOT, SPECIAL_LEAVE, SPECIAL_LINK
from dbt.engine.layout import EXIT_LINK, TOKENS, Env, Record, Step

from .edges import TailCalls
from .holes import INSERTED, LEAVE
from .source import IMM, NPC, PC, SITE, TARGET, Flags, Immediate
from .special import COMMON, PINNED, count_down, number, save_stack_pointer, spill_and_return, write_count
from .text import INVARIANT

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.values import Place

    from .text import Body

_TOKEN_BYTES: Final = 2
_BITS: Final = 64
_WORD: Final = 8
INSERTED_BYTES: Final = 2 * Step.size  # of a step that is inserted, with its numbers
_RECORD: Final = Step.offset("record")
_TOKENS_AT: Final = _RECORD + Record.offset("r")
_FIELDS: Final = {
    IMM: _RECORD + Record.offset("imm"), TARGET: _RECORD + Record.offset("target"), PC: _RECORD + Record.offset("pc"),
}  # fmt: skip
NUMBERS: Final = INSERTED[1:]  # of an insertion
_LENGTH: Final = _RECORD + Record.offset("length")


class RecordSource(TailCalls):
    """Operands out of the step, edges through the addresses of handlers in steps."""

    loads = "load"

    def __init__(self, body: Body, *, wide: bool = False, poll: bool = False) -> None:
        del wide  # every number has 64 bits
        super().__init__(body, poll=poll)
        self.step = body.emit("inttoptr i64 %tmp to ptr")

    def field(self, type_: str, offset: int) -> str:
        """A field of the step."""
        place = self.body.emit(f"getelementptr i8, ptr {self.step}, i64 {offset}")
        return self.body.emit(f"{self.loads} {type_}, ptr {place}, {INVARIANT}")

    def pointer(self, place: Place) -> str:
        if place.token is None:
            return self.env(place.offset)
        assert place.token < TOKENS
        token = self.field("i16", _TOKENS_AT + _TOKEN_BYTES * place.token)
        pointer = self.body.emit(f"getelementptr i8, ptr %env, i64 {self.body.emit(f'zext i16 {token} to i64')}")
        return self.body.emit(f"getelementptr i8, ptr {pointer}, i64 {place.offset}") if place.offset else pointer

    def value(self, immediate: Immediate) -> str:
        which, bits, addend = immediate
        if which == NPC:
            length = self.body.emit(f"zext i8 {self.field('i8', _LENGTH)} to i64")
            found = self.body.emit(f"add i64 {self.field('i64', _FIELDS[PC])}, {length}")
            if bits < _BITS:
                found = self.body.emit(f"trunc i64 {found} to i{bits}")
        else:  # the low bytes come first
            found = self.field(f"i{bits}", _FIELDS[which])
        return self.body.emit(f"add i{bits} {found}, {addend}") if addend else found

    # edges
    def run(self, step: str, flags: Flags) -> None:
        """End the current block: go on with a step."""
        handler = self.body.emit(f"load ptr, ptr {step}, {INVARIANT}")
        self.jump(handler, flags, self.body.emit(f"ptrtoint ptr {step} to i64"))

    def next(self, flags: Flags) -> None:
        self.run(self.body.emit(f"getelementptr i8, ptr {self.step}, i64 {Step.size}"), flags)

    def follow(self, flags: Flags) -> None:
        self.run(self.field("ptr", Step.offset("link")), flags)

    def enter(self, code: str, flags: Flags) -> None:
        self.run(code, flags)

    def leave(self, flags: Flags) -> None:
        self.jump("@" + LEAVE, flags, "%tmp")


class ThriftySource(RecordSource):
    """For forms with many operands: one is read where it is wanted, so that pinned registers stay free."""

    loads = "load volatile"


class SavingSource(RecordSource):
    """For forms that need the register of the step: it is in Env.step during the instruction."""

    def __init__(self, body: Body, *, wide: bool = False, poll: bool = False) -> None:
        super().__init__(body, wide=wide, poll=poll)
        self._save("%tmp")

    def _save(self, step: str) -> None:
        self.body.line(f"store volatile i64 {step}, ptr {self.env(Env.offset('step'))}")

    def jump(self, to: str, flags: Flags, tmp: str = "undef") -> None:
        self._save("0")
        super().jump(to, flags, tmp)


class InsertedSource(RecordSource):
    """What tools insert: its numbers lie where the next step would, and `link` of its step is the leave handler.

    So it has no holes, and may be mapped at any distance from the other handlers.
    """

    def value(self, immediate: Immediate) -> str:
        which, bits, addend = immediate
        if which == SITE:
            return self.body.emit(f"add i64 %tmp, {INSERTED_BYTES}")
        if which not in NUMBERS:
            return super().value(immediate)
        found = self.field(f"i{bits}", Step.size + _WORD * NUMBERS.index(which))
        return self.body.emit(f"add i{bits} {found}, {addend}") if addend else found

    def next(self, flags: Flags) -> None:
        self.run(self.body.emit(f"getelementptr i8, ptr {self.step}, i64 {INSERTED_BYTES}"), flags)

    def leave(self, flags: Flags) -> None:
        self.jump(self.field("ptr", Step.offset("link")), flags, "%tmp")


def _entry(s: TailCalls) -> None:
    """The runtime passes the first step."""
    assert isinstance(s, RecordSource)
    save_stack_pointer(s)
    s.run(s.step, PINNED)


def _leave(s: TailCalls) -> None:
    """Also where a fault goes on: the step is in its register then as well."""
    s.put("fault_pc", "%tmp")
    spill_and_return(s)


def _link(s: TailCalls) -> None:
    """The step of this handler is `unlinked` of the one that wants a link."""
    back = Step.offset("unlinked")
    owner = s.body.emit(f"sub i64 %tmp, {back}")
    place = s.body.emit(f"inttoptr i64 {owner} to ptr")
    target = s.body.emit(f"getelementptr i8, ptr {place}, i64 {_FIELDS[TARGET]}")
    s.put("pc", s.body.emit(f"load i64, ptr {target}"))
    s.put("site", s.body.emit(f"add i64 {owner}, {Step.offset('link')}"))
    s.put("exit", str(EXIT_LINK))
    s.jump("@" + LEAVE, PINNED, owner)


def _count(s: TailCalls) -> None:
    write_count(s, number(s, IMM))


def _hot(s: TailCalls) -> None:
    """The counter is the step's immediate."""
    assert isinstance(s, RecordSource)
    counter = s.body.emit(f"getelementptr i8, ptr {s.step}, i64 {_FIELDS[IMM]}")
    count_down(s, counter, "i64")


HANDLERS: Final[dict[int, Callable[[TailCalls], None]]] = {
    SPECIAL_ENTRY: _entry, SPECIAL_LEAVE: _leave, SPECIAL_LINK: _link, SPECIAL_COUNT: _count, SPECIAL_HOT: _hot,
    **COMMON,
}  # fmt: skip
