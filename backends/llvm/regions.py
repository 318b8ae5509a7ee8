"""Regions to LLVM text: one function with the calling convention of all translated code.

Registers are stack slots, which LLVM turns into SSA values; they are read out of Env on entry. They are written back
where that can be seen: on exits, at the landings of loads and stores (landings.py), which only run when those fault,
and before accesses of other kinds.

Flags stay operands of what set them (lower_flags.Pending) within a block and into blocks with one predecessor;
otherwise their words are slots as well. Where an access faults they are written only if they are live.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

from dbt.engine.former import FLAGS, WORD, after, members, successors
from dbt.engine.helpers import HELPERS
from dbt.engine.layout import EXIT_POLL, Env
from dbt.ir.ops import END, LOAD, OPS, STORE
from dbt.ir.passes import dead_code, drop_flags, fold, forward
from dbt.ir.state import StateOffsets
from dbt.ir.types import I8, I16, I32, I64
from dbt.ir.values import IRError

from . import landings
from .compile import host_cpu
from .edges import TailCalls
from .lower import BITWISE, Lowering, lowering_table
from .lower_flags import words
from .source import IMM, NPC, PC, TARGET, Flags, Immediate
from .text import CONVENTION, METADATA, SIGNATURE, SIGNATURE_TYPES, UNLIKELY, Body, Declarations, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbt.frontends.forms import Form

    from dbt.engine.former import Block, Region, Step
    from dbt.engine.places import Places
    from dbt.ir.types import Type
    from dbt.ir.values import Op, Place, Template

ENTRY: Final = "region"
LINK: Final = "L_"  # the symbol of a guest address outside: L_<hexadecimal>
LEAVE: Final = "LEAVE"
DEAD: Final = Flags("undef", "undef", "undef", "undef")
_WORDS: Final = ("%f0", "%f1", "%f2", "%f3")
_SMALL: Final = 1 << 15  # guard zones absorb displacements up to here
_MASK64: Final = (1 << 64) - 1
WORD_BYTES: Final = WORD // 8
_TYPES: Final = {8: "i64", 16: "<2 x i64>"}


class RegionBody(Body):
    """A body with a part that hardly ever runs, to be put behind the rest."""

    def __init__(self, declarations: Declarations) -> None:
        super().__init__(declarations)
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
        self.dirty = 0
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

    def _offset(self, place: Place) -> int:
        return place.offset if place.token is None else place.offset + self.step.decoded.r[place.token]

    def pointer(self, place: Place) -> str:
        offset = self._offset(place)
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
        offset = self._offset(place)
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
            value = self.body.emit(f"load {_TYPES[unit.size]}, ptr {self.env(unit.offset)}, align 8")
            self.body.line(f"store {_TYPES[unit.size]} {value}, ptr %r{number}")

    def write_back(self, registers: int) -> None:
        """Registers of a set to Env."""
        for number in members(registers & ~FLAGS):
            unit = self.places.units[number]
            value = self.body.emit(f"load {_TYPES[unit.size]}, ptr %r{number}")
            self.body.line(f"store {_TYPES[unit.size]} {value}, ptr {self.env(unit.offset)}, align 8")

    # edges
    def edge(self, target: int, flags: Flags) -> None:
        """End the block: to a guest address, with a poll if that may close a cycle."""
        inside = target in self.region.blocks
        if inside:
            self.write_back(self.dirty & ~self.region.dirty[target])
        dirty = self.dirty & self.region.dirty[target]
        if self.region.live[target]:
            for slot, word in zip(_WORDS, flags, strict=True):
                self.body.line(f"store i64 {word}, ptr {slot}")
        if not inside:
            self.exits[target] = self.exits.get(target, 0) | dirty
        label = f"b{target:x}" if inside else f"x{target:x}"
        if target > self.step.pc:
            self.body.line(f"br label %{label}")
            return
        self.polls[target] = self.polls.get(target, 0) | dirty
        pointer = self.env(Env.offset("poll"))
        word = self.body.emit(f"load volatile i32, ptr {pointer}")
        asked = self.body.emit(f"icmp ne i32 {word}, 0")
        self.body.line(f"br i1 {asked}, label %p{target:x}, label %{label}, {UNLIKELY}")

    def next(self, flags: Flags) -> None:
        self.edge(self.step.npc, flags)

    def follow(self, flags: Flags) -> None:
        self.edge(self.step.decoded.target & _MASK64, flags)

    def taken(self, flags: Flags) -> None:
        self.follow(flags)

    def again(self, flags: Flags) -> None:
        self.edge(self.step.pc, flags)

    def indirect(self, address: str, flags: Flags, hint: str) -> None:
        body = self.body
        if hint == "return" and self.region.return_sites:
            out = body.label("out")
            ways = {site: body.label("site") for site in self.region.return_sites}
            cases = " ".join(f"i64 {site}, label %{label}" for site, label in ways.items())
            body.line(f"switch i64 {address}, label %{out} [ {cases} ]")
            for site, label in ways.items():
                body.place(label)
                self.edge(site, flags)
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
        return Flags(*(self.body.emit(f"load i64, ptr {slot}") for slot in _WORDS))


class RegionLowering(Lowering):
    """Lowers instruction after instruction into one function."""

    source: RegionSource  # type: ignore[misc]
    body: RegionBody  # type: ignore[misc]
    _landing = ""  # the label of this instruction's landing, once it has one
    _extension: landings.Extension | None = None  # of what the load in hand loads

    def begin(self, pc: int, flags: object) -> None:
        """Start a block. `flags`: those of its only predecessor, if it has one."""
        self.body.place(f"b{pc:x}")
        self.source.dirty = self.source.region.dirty[pc]
        self.flags = flags or self.source.flags_for(pc)  # type: ignore[assignment]

    def instruction(self, step: Step, template: Template, live: int) -> None:
        """Lower one. `live`: flags live behind it; its words are only made if there are any."""
        source = self.source
        source.step = step
        self.line(f"; {step.pc:x}")  # for tools that show the text: see dbt/tools/explain/lines.py
        self._landing = ""
        self._held.clear()
        self.uses.clear()
        self._numeric.clear()
        table = lowering_table()
        for op in template.ops:
            self.uses.update(arg.index for arg in op.args)
            if op.name not in BITWISE:
                self._numeric.update(arg.index for arg in op.args)
                if op.result is not None:
                    self._numeric.add(op.result.index)
        synchronised = False
        extensions = {} if step.synchronises else self._extensions(template)
        done: set[int] = set()
        for op in template.ops:
            effects = OPS[op.name].effects
            if step.synchronises and not synchronised and (effects & (LOAD | STORE) or op.name == "helper"):
                synchronised = True
                self._synchronise(step)
            if op.result is not None and op.result.index in done:
                continue
            if effects & END:
                source.dirty = after(step, source.dirty)
                if not live:
                    self.flags = DEAD
            extends = extensions.get(op.result.index) if op.result is not None else None
            if extends is not None:
                assert extends.type is not None
                self._extension = landings.Extension(extends.name, extends.type.bits)
            result = table[op.name](self, op)
            if op.result is not None:
                assert result is not None
                if extends is not None:
                    assert extends.result is not None
                    self._extension = None
                    done.add(extends.result.index)
                    self._values[extends.result.index] = result
                self._values[op.result.index] = result
        if not template.ops or not OPS[template.ops[-1].name].effects & END:
            source.dirty = after(step, source.dirty)

    def _extensions(self, template: Template) -> dict[int, Op]:
        """By what a load gives: the op that extends it, if that is all that is done with it."""
        found = {}
        for op in template.ops:
            if op.name in {"zext", "sext"} and op.type in (I32, I64):
                load = op.args[0].op
                plain = load.name == "load" and load.attrs["endian"] == "little" and load.type in (I8, I16, I32)
                if plain and self.uses[op.args[0].index] == 1:
                    found[op.args[0].index] = op
        return found

    def read(self, pointer: str, type_: str, *, ordered: bool = False) -> str:
        if self.source.step.synchronises:
            return super().read(pointer, type_, ordered=ordered)
        value = landings.read(self.body, pointer, type_, self.source.step.pc, self._land(), self._extension)
        if ordered:
            self.line("fence acquire")
        return value

    def write(self, pointer: str, type_: str, value: str) -> None:
        if self.source.step.synchronises:
            super().write(pointer, type_, value)
        else:
            landings.write(self.body, pointer, type_, value, self.source.step.pc, self._land())

    def _land(self) -> str:
        """The label of the code that leaves as this instruction finds the state."""
        if not self._landing:
            source, flags = self.source, self.flags
            self._landing = self.body.label("landing")
            with self.body.out_of_line(), self.side_block():
                self.body.place(self._landing)
                self.line(f"; {source.step.pc:x}")  # as above
                source.put("pc", str(source.step.pc))
                source.write_back(source.dirty)
                source.jump("@" + LEAVE, words(self) if source.step.live else DEAD)
            self.flags = flags  # as they were: what has been computed here is known here only
        return self._landing

    def _synchronise(self, step: Step) -> None:
        source = self.source
        source.put("pc", str(step.pc))
        source.write_back(source.dirty)
        if step.live and source.dirty & FLAGS:
            start = Env.offset("flags")
            for i, word in enumerate(words(self)):
                self.line(f"store i64 {word}, ptr {self.env(start + 8 * i)}")
        source.dirty = 0 if step.live else source.dirty & FLAGS


@cache
def prepared(form: Form, *, flags: bool) -> Template:
    """A form's template as regions use it, with or without the flags that it writes."""
    return forward(dead_code(fold(form.template if flags else drop_flags(form.template))))


def block_templates(block: Block, region: Region) -> Iterator[tuple[Step, Template, int]]:
    """The instructions of a block with the templates that the region has of them, and the flags live behind them."""
    lives: Sequence[int] = [step.live for step in block.steps[1:]]
    out = 0
    for target in successors(block, region.return_sites):
        out |= region.live[target]
    last = block.steps[-1].decoded.form.template
    if last.ops and last.ops[-1].name in ("exit", "goto_indirect"):
        out = 15
    for step, live in zip(block.steps, [*lives, out], strict=True):
        writes = step.metadata.flags_written
        yield step, prepared(step.decoded.form, flags=not writes or bool(writes & live)), live


def region_text(region: Region, places: Places) -> str:
    """The module of a region."""
    declared = Declarations()
    body = RegionBody(declared)
    source = RegionSource(body, region, places)
    low = RegionLowering(source, StateOffsets(), tuple(HELPERS))
    _entry(source)
    predecessors: dict[int, int] = {region.entry: 1}
    for block in region.blocks.values():
        for target in successors(block, region.return_sites):
            predecessors[target] = predecessors.get(target, 0) + 1
    carried: dict[int, object] = {}
    for pc, block in region.blocks.items():
        low.begin(pc, carried.get(pc))
        before = _lower_block(low, block, region)
        for target in block.targets:
            if predecessors[target] == 1:
                carried[target] = before
    source.ends()
    links = [f"declare dso_local {CONVENTION} void @{LINK}{target:x}({SIGNATURE_TYPES})" for target in source.exits]
    return "\n".join([
        *links, f"declare dso_local {CONVENTION} void @{LEAVE}({SIGNATURE_TYPES})",
        declared.text(), f"define {CONVENTION} void @{ENTRY}({SIGNATURE}) #0 {{", *body.lines, *body.cold, "}",
        attributes(host_cpu()[1]).replace("nounwind", 'nounwind "no-jump-tables"="true"'), METADATA, "",
    ])  # fmt: skip


def _entry(source: RegionSource) -> None:
    body, region = source.body, source.region
    for number in members(region.used):
        body.line(f"%r{number} = alloca {_TYPES[source.places.units[number].size]}")
    for slot, word in zip(_WORDS, ("%n", "%z", "%c", "%v"), strict=True):
        body.line(f"{slot} = alloca i64")
        body.line(f"store i64 {word}, ptr {slot}")
    body.line("%zero = alloca i64")
    body.line("store i64 0, ptr %zero")
    body.line("%junk = alloca i64")
    source.read_back()
    body.line(f"br label %b{region.entry:x}")


def _lower_block(low: RegionLowering, block: Block, region: Region) -> object:
    """Lower a block; returns the flags at its end."""
    flags: object = low.flags
    last, out = block.steps[-1], 0
    for step, template, live in block_templates(block, region):
        flags, out = low.flags, live
        low.instruction(step, template, live)
        if not template.ops or not OPS[template.ops[-1].name].effects & END:
            flags = low.flags
    if not last.metadata.ends & 3:
        if not region.live[last.npc]:
            low.flags = DEAD
        low.source.next(words(low))
    if not isinstance(flags, tuple):
        raise IRError("flags of a block are lost")
    return flags if out else DEAD
