"""The special stencils: entry, exit and what stands between guest instructions (formats.SPECIAL_...)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine.formats import (
    SPECIAL_COUNT,
    SPECIAL_ENTRY,
    SPECIAL_HOT,
    SPECIAL_JUMP,
    SPECIAL_LEAVE,
    SPECIAL_LINK,
    SPECIAL_POLL,
    SPECIAL_STOP,
)
from dbt.engine.layout import EXIT_BUDGET, EXIT_HOT, EXIT_LINK, Env

from .holes import HoleSource
from .source import IMM, PC, TARGET, Flags, Immediate
from .text import CONVENTION, SIGNATURE, UNLIKELY, Body, Declarations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .edges import TailCalls

PINNED: Final = Flags("%n", "%z", "%c", "%v")
_WORD: Final = 8


class HoleSpecial(HoleSource):
    """Writes one special stencil: numbers are 64 bits wide."""

    def __init__(self, body: Body) -> None:
        super().__init__(body, wide=True)


def number(s: TailCalls, which: str) -> str:
    """A number of the record, or SITE."""
    return s.value(Immediate(which))


def save_stack_pointer(s: TailCalls) -> None:
    """The stack pointer at entry is the one with which the leave stencil returns, also after a fault."""
    pointer = s.env(Env.offset("host_sp"))
    s.body.line(f'call void asm sideeffect "movq %rsp, $0", "=*m"(ptr elementtype(i64) {pointer})')


def _entry(s: TailCalls) -> None:
    save_stack_pointer(s)
    s.jump(s.body.emit(f"load ptr, ptr {s.env(Env.offset('entry_code'))}"), PINNED)


def spill_and_return(s: TailCalls) -> None:
    """End of translated code: the flag words go to env."""
    for i, word in enumerate(PINNED):
        s.put("flags", word, _WORD * i)
    s.body.line("ret void")


def _link(s: TailCalls) -> None:
    s.put("site", number(s, "SITE"))
    s.leave_with(EXIT_LINK, number(s, TARGET), PINNED)


def _count(s: TailCalls) -> None:
    write_count(s, "ptrtoint (ptr @H_COUNT to i64)")


def write_count(s: TailCalls, count: str) -> None:
    """Env.budget -= count, and note which block that is; below 0: undo and leave."""
    body, budget = s.body, s.env(Env.offset("budget"))
    before = body.emit(f"load i64, ptr {budget}")
    after = body.emit(f"sub i64 {before}, {count}")
    body.line(f"store i64 {after}, ptr {budget}")
    spent = body.emit(f"icmp slt i64 {after}, 0")
    out, on = body.label("spent"), body.label("on")
    body.line(f"br i1 {spent}, label %{out}, label %{on}, {UNLIKELY}")
    body.place(out)
    again = body.emit(f"load volatile i64, ptr {budget}")
    body.line(f"store i64 {body.emit(f'add i64 {again}, {count}')}, ptr {budget}")
    s.leave_with(EXIT_BUDGET, number(s, PC), PINNED)
    body.place(on)
    s.put("block", number(s, PC))
    s.next(PINNED)


def _stop(s: TailCalls) -> None:
    s.put("pc", number(s, PC))
    s.put("exit", number(s, IMM))
    s.put("value", number(s, TARGET))
    s.leave(PINNED)


def _poll(s: TailCalls) -> None:
    s.check_poll(Immediate(PC), PINNED)
    s.next(PINNED)


def _jump(s: TailCalls) -> None:
    s.taken(PINNED)


def _hot(s: TailCalls) -> None:
    count_down(s, s.body.emit(f"inttoptr i64 {number(s, 'SITE')} to ptr"), "i32")


def count_down(s: TailCalls, counter: str, type_: str) -> None:
    """Take one off a counter; below 0: leave, the block is hot."""
    body = s.body
    before = body.emit(f"load {type_}, ptr {counter}")
    after = body.emit(f"sub {type_} {before}, 1")
    body.line(f"store {type_} {after}, ptr {counter}")
    often = body.emit(f"icmp slt {type_} {after}, 0")
    out, on = body.label("hot"), body.label("on")
    body.line(f"br i1 {often}, label %{out}, label %{on}, {UNLIKELY}")
    body.place(out)
    s.leave_with(EXIT_HOT, number(s, PC), PINNED)
    body.place(on)
    s.next(PINNED)


COMMON: Final[dict[int, Callable[[TailCalls], None]]] = {
    SPECIAL_STOP: _stop, SPECIAL_POLL: _poll, SPECIAL_JUMP: _jump,
}  # fmt: skip
OF_STENCILS: Final[dict[int, Callable[[TailCalls], None]]] = {
    SPECIAL_ENTRY: _entry, SPECIAL_LEAVE: spill_and_return, SPECIAL_LINK: _link, SPECIAL_COUNT: _count,
    SPECIAL_HOT: _hot, **COMMON,
}  # fmt: skip


def special_functions(
    declarations: Declarations,
    source: Callable[[Body], TailCalls] = HoleSpecial,
    writers: Mapping[int, Callable[[TailCalls], None]] = OF_STENCILS,
) -> dict[int, str]:
    """The LLVM function of every special stencil, named special_<number>."""
    found: dict[int, str] = {}
    for which, write in writers.items():
        body = Body(declarations)
        write(source(body))
        found[which] = function(f"special_{which}", body)
    return found


def function(name: str, body: Body) -> str:
    """A function of translated code."""
    return "\n".join([f"define {CONVENTION} void @{name}({SIGNATURE}) #0 {{", *body.lines, "}"])


def caller(name: str) -> str:
    """A C function void (code, n, z, c, v, env, base, mask) that calls translated code: for tests."""
    return f"""define void @{name}(ptr %code, i64 %n, i64 %z, i64 %c, i64 %v, ptr %env, ptr %base, i64 %mask) #0 {{
  call {CONVENTION} void %code(i64 %n, i64 %z, i64 %c, i64 %v, ptr %env, ptr %base, i64 %mask, i64 undef)
  ret void
}}"""
