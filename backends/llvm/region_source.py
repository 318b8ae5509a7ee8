"""What a region's instructions read, write and lead to: registers in stack slots, branches inside one function.

LLVM turns the slots into SSA values. They are read out of Env on entry, and written back where that can be seen.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dbt.engine.former import FLAGS, WORD, members
from dbt.engine.layout import EXIT_POLL, Env
from dbt.engine.places import offset_of

from .edges import TailCalls
from .source import IMM, NPC, PC, TARGET, Flags, Immediate
from .text import UNLIKELY, Body, Declarations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.engine.former import Region, Step
    from dbt.engine.places import Places
    from dbt.ir.types import Type
    from dbt.ir.values import Place

    from .loops import Way

LINK: Final = "L_"  # the symbol of a guest address outside: L_<hexadecimal>
LEAVE: Final = "LEAVE"
DEAD: Final = Flags("undef", "undef", "undef", "undef")
WORDS: Final = ("%f0", "%f1", "%f2", "%f3")  # slots of the flag words
WORD_BYTES: Final = WORD // 8
SLOT_TYPES: Final = {8: "i64", 16: "<2 x i64>"}
_SMALL: Final = 1 << 15  # guard zones absorb displacements up to here
_MASK64: Final = (1 << 64) - 1


class RegionBody(Body):
    """The body of the function `name`, with a part that hardly ever runs, to be put behind the rest."""

    def __init__(self, declarations: Declarations, name: str) -> None:
        super().__init__(declarations)
        self.name: Final = name
        self.cold: list[str] = []  # its lines

    @contextmanager
    def out_of_line(self) -> Iterator[None]:
        """What is written inside, whole blocks, belongs to the cold part."""
        start = len(self.lines)
        yield
        self.cold += self.lines[start:]
        del self.lines[start:]


class RegionSource(TailCalls):
    """Operands as numbers, edges as branches inside the function."""

    def __init__(self, body: RegionBody, region: Region, places: Places) -> None:
        super().__init__(body, poll=True)
        self.region: Final = region
        self.places: Final = places
        self.step: Step
        self.way: Way
        self.pointed = 0  # registers whose host pointers are in slots as well: see Pointers
        self.dirty = 0
        self.ways: list[int] = []  # of the block's indirect jump
        self.polls: Final[dict[int, int]] = {}  # by address: what is dirty when a poll leaves for it
        self.exits: Final[dict[int, int]] = {}

    # operands
    def number(self, which: str) -> int:
        """A number of the record."""
        decoded = self.step.decoded
        return {IMM: decoded.imm, TARGET: decoded.target, PC: decoded.pc, NPC: decoded.pc + decoded.length}[which]

    def value(self, immediate: Immediate) -> str:
        value = self.number(immediate.which) + immediate.addend & ((1 << immediate.bits) - 1)
        if immediate.bits == 1:
            return str(bool(value)).lower()
        return str(value)

    def folded(self, immediate: Immediate) -> str | None:
        value = self.number(immediate.which) + immediate.addend
        if immediate.bits < 64:
            return self.value(immediate)
        return str(value) if abs(value) < _SMALL else None

    def offset(self, place: Place) -> int:
        """Where it is in Env."""
        return offset_of(place, self.step.decoded)

    def pointer(self, place: Place) -> str:
        offset = self.offset(place)
        unit = self.places.unit(offset)
        if unit is None:
            if self.places.zero <= offset < self.places.zero + 8:
                return "%zero"
            return "%junk" if self.places.junk <= offset < self.places.junk + 8 else self.env(offset)
        inside = offset - unit.offset
        slot = f"%r{unit.number}"
        return self.body.emit(f"getelementptr i8, ptr {slot}, i64 {inside}") if inside else slot

    def part(self, place: Place, type_: Type) -> str | None:
        # Were some accesses to a slot narrow, LLVM would keep its halves apart and put them together again everywhere.
        offset = self.offset(place)
        unit = self.places.unit(offset)
        if unit is None or unit.size != WORD_BYTES or unit.offset != offset or not type_.is_int or type_.bits >= WORD:
            return None
        value = self.body.emit(f"load i64, ptr %r{unit.number}")
        return self.body.emit(f"trunc i64 {value} to i{type_.bits}")

    def reload(self) -> None:
        """A helper was called: registers may have changed. Base and mask are values of this function."""
        self.read_back()

    def read_back(self) -> None:
        """All registers of the region out of Env."""
        for number in members(self.region.used):
            unit = self.places.units[number]
            value = self.body.emit(f"load {SLOT_TYPES[unit.size]}, ptr {self.env(unit.offset)}, align 8")
            self.body.line(f"store {SLOT_TYPES[unit.size]} {value}, ptr %r{number}")
            if self.pointed >> number & 1:
                self.point(number, self.masked(value))

    def point(self, number: int, pointer: str) -> None:
        """Remember the host pointer of a register's value."""
        self.body.line(f"store ptr {pointer}, ptr %h{number}")

    def write_back(self, registers: int) -> None:
        """Registers of a set to Env."""
        for number in members(registers & ~FLAGS):
            unit = self.places.units[number]
            value = self.body.emit(f"load {SLOT_TYPES[unit.size]}, ptr %r{number}")
            self.body.line(f"store {SLOT_TYPES[unit.size]} {value}, ptr {self.env(unit.offset)}, align 8")

    # edges
    def edge(self, target: int, flags: Flags) -> None:
        """End the block: to a guest address, with a poll if that may close a cycle."""
        label, dirty = self._way(target, flags)
        if target > self.step.pc or not self.way.polls(target):
            self.body.line(f"br label %{label}")
            return
        self.polls[target] = self.polls.get(target, 0) | dirty
        self.body.line(f"br i1 {self._polled()}, label %p{target:x}, label %{label}, {UNLIKELY}")

    def _way(self, target: int, flags: Flags) -> tuple[str, int]:
        """Make all ready to go to a guest address; the label there, and what is dirty on the way."""
        inside = target in self.region.blocks
        if inside:
            self.write_back(self.dirty & ~self.region.dirty[target])
        dirty = self.dirty & self.region.dirty[target]
        if self.region.live[target]:
            for slot, word in zip(WORDS, flags, strict=True):
                self.body.line(f"store i64 {word}, ptr {slot}")
        if not inside:
            self.exits[target] = self.exits.get(target, 0) | dirty
        return self.way.to(target).label if inside else f"x{target:x}", dirty

    def _polled(self) -> str:
        """Whether a poll is wanted."""
        word = self.body.emit(f"load volatile i32, ptr {self.env(Env.offset('poll'))}")
        return self.body.emit(f"icmp ne i32 {word}, 0")

    def next(self, flags: Flags) -> None:
        self.edge(self.step.npc, flags)

    def follow(self, flags: Flags) -> None:
        self.edge(self.step.decoded.target & _MASK64, flags)

    def taken(self, flags: Flags) -> None:
        self.follow(flags)

    def again(self, flags: Flags) -> None:
        self.edge(self.step.pc, flags)

    def indirect(self, address: str, flags: Flags, hint: str) -> None:
        body, number = self.body, address
        ways = self.region.return_sites if hint == "return" else self.ways
        if ways:
            out = body.label("out")
            if min(ways) <= self.step.pc:  # out there the jump cache is empty, if a poll is wanted
                on = body.label("on")
                body.line(f"br i1 {self._polled()}, label %{out}, label %{on}, {UNLIKELY}")
                body.place(on)
            labels = {way: body.label("way") for way in ways}
            cases = {way: way for way in ways}
            if hint == "jump":
                # The number of the instruction, so that LLVM makes a table where there are many. Rotated, so that what
                # lies between two instructions has none of the numbers.
                first = min(ways)
                distance = body.emit(f"sub i64 {address}, {first}")
                number = body.call("i64", "llvm.fshr.i64", ("i64", distance), ("i64", distance), ("i64", "2"))
                cases = {way: (way - first) // 4 for way in ways}
            listed = " ".join(f"i64 {cases[way]}, label %{label}" for way, label in labels.items())
            body.line(f"switch i64 {number}, label %{out} [ {listed} ]")
            for way, label in labels.items():
                body.place(label)
                inside, _ = self._way(way, flags)
                body.line(f"br label %{inside}")
            body.place(out)
        self.write_back(self.dirty)
        super().indirect(address, flags, hint)

    def enter(self, code: str, flags: Flags) -> None:
        self.jump(code, flags)

    def leave_with(self, reason: int, pc: str, flags: Flags) -> None:
        self.put("pc", pc)
        self.put("exit", str(reason))
        self.jump("@" + LEAVE, flags)

    def leave(self, flags: Flags) -> None:
        self.write_back(self.dirty)
        self.jump("@" + LEAVE, flags)

    def ends(self) -> None:
        """What edges led to: exits and polls, written once for each address."""
        for target, dirty in self.polls.items():
            self.body.place(f"p{target:x}")
            self.write_back(dirty)
            self.leave_with(EXIT_POLL, str(target), self.flags_for(target))
        for target, dirty in self.exits.items():
            self.body.place(f"x{target:x}")
            self.write_back(dirty)
            self.jump(f"@{LINK}{target:x}", self.flags_for(target))

    def flags_for(self, target: int) -> Flags:
        """The flag words out of their slots, where they are live."""
        if not self.region.live[target]:
            return DEAD
        return self.flag_words()

    def flag_words(self) -> Flags:
        """The flag words out of their slots."""
        return Flags(*(self.body.emit(f"load i64, ptr {slot}") for slot in WORDS))
