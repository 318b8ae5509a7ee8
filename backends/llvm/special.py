"""The special stencils: entry, exit and what stands between guest instructions (layout.SPECIAL_...)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.engine.layout import (
    EXIT_BUDGET,
    EXIT_HOT,
    EXIT_LINK,
    SPECIAL_COUNT,
    SPECIAL_ENTRY,
    SPECIAL_HOT,
    SPECIAL_JUMP,
    SPECIAL_LEAVE,
    SPECIAL_LINK,
    SPECIAL_POLL,
    SPECIAL_STOP,
    Env,
)

from .holes import HoleSource
from .source import IMM, PC, TARGET, Flags, Immediate
from .text import CONVENTION, SIGNATURE, UNLIKELY, Body, Declarations

if TYPE_CHECKING:
    from collections.abc import Callable

PINNED: Final = Flags("%n", "%z", "%c", "%v")
_WORD: Final = 8


class _Special(HoleSource):
    """Writes one special stencil: numbers are 64 bits wide."""

    def __init__(self, body: Body) -> None:
        super().__init__(body, wide=True)

    def put(self, field: str, value: str, offset: int = 0) -> None:
        """Store 64 bits to a field of Env."""
        self.body.line(f"store i64 {value}, ptr {self.env(Env.offset(field) + offset)}")

    def number(self, which: str) -> str:
        """A number of the record, or SITE."""
        return self.value(Immediate(which))


def _entry(s: _Special) -> None:
    """The stack pointer at entry is the one with which the leave stencil returns, also after a fault."""
    pointer = s.env(Env.offset("host_sp"))
    s.body.line(f'call void asm sideeffect "movq %rsp, $0", "=*m"(ptr elementtype(i64) {pointer})')
    code = s.body.emit(f"load ptr, ptr {s.env(Env.offset('entry_code'))}")
    given = "i64 %n, i64 %z, i64 %c, i64 %v, ptr %env, ptr %base, i64 %mask, i64 undef"
    s.body.line(f"musttail call {CONVENTION} void {code}({given})")
    s.body.line("ret void")


def _leave(s: _Special) -> None:
    for i, word in enumerate(PINNED):
        s.put("flags", word, _WORD * i)
    s.body.line("ret void")


def _link(s: _Special) -> None:
    s.put("pc", s.number(TARGET))
    s.put("site", s.number("SITE"))
    s.put("exit", str(EXIT_LINK))
    s.leave(PINNED)


def _count(s: _Special) -> None:
    body, budget = s.body, s.env(Env.offset("budget"))
    count = "ptrtoint (ptr @H_COUNT to i64)"
    before = body.emit(f"load i64, ptr {budget}")
    after = body.emit(f"sub i64 {before}, {count}")
    body.line(f"store i64 {after}, ptr {budget}")
    spent = body.emit(f"icmp slt i64 {after}, 0")
    out, on = body.label("spent"), body.label("on")
    body.line(f"br i1 {spent}, label %{out}, label %{on}, {UNLIKELY}")
    body.place(out)
    again = body.emit(f"load volatile i64, ptr {budget}")
    body.line(f"store i64 {body.emit(f'add i64 {again}, {count}')}, ptr {budget}")
    s.put("pc", s.number(PC))
    s.put("exit", str(EXIT_BUDGET))
    s.leave(PINNED)
    body.place(on)
    s.next(PINNED)


def _stop(s: _Special) -> None:
    s.put("pc", s.number(PC))
    s.put("exit", s.number(IMM))
    s.put("value", s.number(TARGET))
    s.leave(PINNED)


def _poll(s: _Special) -> None:
    s.check_poll(Immediate(PC), PINNED)
    s.next(PINNED)


def _jump(s: _Special) -> None:
    s.taken(PINNED)


def _hot(s: _Special) -> None:
    body = s.body
    counter = body.emit(f"inttoptr i64 {s.number('SITE')} to ptr")
    before = body.emit(f"load i32, ptr {counter}")
    after = body.emit(f"sub i32 {before}, 1")
    body.line(f"store i32 {after}, ptr {counter}")
    often = body.emit(f"icmp slt i32 {after}, 0")
    out, on = body.label("hot"), body.label("on")
    body.line(f"br i1 {often}, label %{out}, label %{on}, {UNLIKELY}")
    body.place(out)
    s.put("pc", s.number(PC))
    s.put("exit", str(EXIT_HOT))
    s.leave(PINNED)
    body.place(on)
    s.next(PINNED)


_WRITERS: Final[dict[int, Callable[[_Special], None]]] = {
    SPECIAL_ENTRY: _entry, SPECIAL_LEAVE: _leave, SPECIAL_LINK: _link, SPECIAL_COUNT: _count,
    SPECIAL_STOP: _stop, SPECIAL_POLL: _poll, SPECIAL_JUMP: _jump, SPECIAL_HOT: _hot,
}  # fmt: skip


def special_functions(declarations: Declarations) -> dict[int, str]:
    """The LLVM function of every special stencil, named special_<number>."""
    found: dict[int, str] = {}
    for number, write in _WRITERS.items():
        body = Body(declarations)
        write(_Special(body))
        found[number] = function(f"special_{number}", body)
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
