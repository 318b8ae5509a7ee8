"""Edges of code whose pieces follow each other by tail calls: stencils (holes.py) and the interpreter (records.py).

Both reach the state through env, poll in the same places, and find the target of an indirect branch in the jump cache.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from dbt.engine.layout import EXIT_INDIRECT, EXIT_POLL, JUMP_CACHE_ENTRIES, Env, JumpEntry

from .source import PC, TARGET, Flags, Immediate, Source
from .text import CONVENTION, UNLIKELY

if TYPE_CHECKING:
    from .text import Body


class TailCalls(Source):
    """A source whose edges are tail calls."""

    def __init__(self, body: Body, *, poll: bool) -> None:
        self.body = body
        self._poll: Final = poll  # the taken edge of a direct branch polls

    def env(self, offset: int) -> str:
        """Pointer to a field of Env."""
        return self.body.emit(f"getelementptr i8, ptr %env, i64 {offset}")

    def reload(self) -> None:
        self.base = self.body.emit(f"load ptr, ptr {self.env(Env.offset('base'))}")
        self.mask = self.body.emit(f"load i64, ptr {self.env(Env.offset('mask'))}")

    def put(self, field: str, value: str, offset: int = 0) -> None:
        """Store 64 bits to a field of Env."""
        self.body.line(f"store i64 {value}, ptr {self.env(Env.offset(field) + offset)}")

    def jump(self, to: str, flags: Flags, tmp: str = "undef") -> None:
        """End the current block: a tail call."""
        words = ", ".join(f"i64 {word}" for word in flags)
        arguments = f"{words}, ptr %env, ptr {self.base}, i64 {self.mask}, i64 {tmp}"
        self.body.line(f"musttail call {CONVENTION} void {to}({arguments})")
        self.body.line("ret void")

    def leave_with(self, reason: int, pc: str, flags: Flags) -> None:
        """End the current block: to the runtime."""
        self.put("pc", pc)
        self.put("exit", str(reason))
        self.leave(flags)

    @abstractmethod
    def follow(self, flags: Flags) -> None:
        """End the current block: to the direct branch target."""

    @abstractmethod
    def enter(self, code: str, flags: Flags) -> None:
        """End the current block: to code that the jump cache has (a pointer)."""

    def check_poll(self, pc: Immediate | str, flags: Flags) -> None:
        """Leave with EXIT_POLL if Env.poll is set; `pc` is where the guest goes on then."""
        body = self.body
        word = body.emit(f"load volatile i32, ptr {self.env(Env.offset('poll'))}")
        asked = body.emit(f"icmp ne i32 {word}, 0")
        out, on = body.label("poll"), body.label("on")
        body.line(f"br i1 {asked}, label %{out}, label %{on}, {UNLIKELY}")
        body.place(out)
        self.leave_with(EXIT_POLL, pc if isinstance(pc, str) else self.folded(pc) or self.value(pc), flags)
        body.place(on)

    def taken(self, flags: Flags) -> None:
        if self._poll:
            self.check_poll(Immediate(TARGET), flags)
        self.follow(flags)

    def again(self, flags: Flags) -> None:
        # The runtime finds the instruction's code again: a loop inside an instruction may be left at any round.
        self.check_poll(Immediate(PC), flags)
        pc = self.value(Immediate(PC))
        self.indirect(pc, flags, "jump")

    def indirect(self, address: str, flags: Flags, hint: str) -> None:  # noqa: ARG002 - regions use the hint
        # No poll here: who sets the poll word empties the jump cache, so that every look-up misses.
        body = self.body
        cache = body.emit(f"load ptr, ptr {self.env(Env.offset('jump_cache'))}")
        # (address >> 2) modulo the entries, times the size of an entry
        scaled = body.emit(f"shl i64 {address}, {JumpEntry.size.bit_length() - 3}")
        index = body.emit(f"and i64 {scaled}, {(JUMP_CACHE_ENTRIES - 1) * JumpEntry.size}")
        entry = body.emit(f"getelementptr i8, ptr {cache}, i64 {index}")
        found = body.emit(f"load i64, ptr {entry}")
        same = body.emit(f"icmp ne i64 {found}, {address}")
        miss, hit = body.label("miss"), body.label("hit")
        body.line(f"br i1 {same}, label %{miss}, label %{hit}, {UNLIKELY}")
        body.place(hit)
        slot = body.emit(f"getelementptr i8, ptr {entry}, i64 {JumpEntry.offset('code')}")
        self.enter(body.emit(f"load ptr, ptr {slot}"), flags)
        body.place(miss)
        self.leave_with(EXIT_INDIRECT, address, flags)
