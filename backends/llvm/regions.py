"""Regions to LLVM text: one function with the calling convention of all translated code.

Registers are stack slots, which LLVM turns into SSA values; they are read out of Env on entry. They are written back
where that can be seen: on exits, at the landings of loads and stores (landings.py), which only run when those fault,
and before accesses of other kinds.

Flags stay operands of what set them (lower_flags.Pending) within a block and into blocks with one predecessor;
otherwise their words are slots as well. Where an access faults they are written only if they are live.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.former import FLAGS, after, members, successors
from dbt.engine.helpers import HELPERS
from dbt.engine.layout import Env
from dbt.ir.ops import END, LOAD, OPS, STORE
from dbt.ir.passes import dead_code, drop_flags, fold, forward
from dbt.ir.state import StateOffsets
from dbt.ir.types import I8, I16, I32, I64
from dbt.ir.values import IRError

from . import landings
from .bounds import Bounds
from .compile import host_cpu
from .loops import Node, unrolled
from .lower import BITWISE, Lowering, lowering_table
from .lower_flags import words
from .pointers import Pointers
from .region_source import DEAD, LEAVE, LINK, SLOT_TYPES, WORDS, RegionBody, RegionSource
from .source import Immediate
from .text import CONVENTION, METADATA, SIGNATURE, SIGNATURE_TYPES, Declarations, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dbt.frontends.forms import Form

    from dbt.engine.former import Block, Region, Step
    from dbt.engine.places import Places
    from dbt.ir.values import Op, Place, Template, Value

    from .loops import Way

ENTRY: Final = "region"


class Tail(NamedTuple):
    """Code at the end of landings: at `label` it writes `registers` to Env and leaves."""

    label: str
    registers: int


class Ahead(NamedTuple):
    """What landings of a block know of those behind them, as far as they share code."""

    writes: int  # registers that are written before the last of them
    last: bool  # it is this one
    live: bool  # flags are, at one of them


def look_ahead(steps: Sequence[Step]) -> dict[int, Ahead]:
    """By the address of each instruction of a block that may land."""
    found: dict[int, Ahead] = {}
    group: list[int] = []
    writes, live = 0, False

    def end() -> None:
        found.update({pc: found[pc]._replace(live=live) for pc in group})
        group.clear()

    for step in reversed(steps):
        if step.synchronises:
            end()
            writes, live = 0, False
            continue
        writes = writes | step.writes if group else 0
        if step.metadata.accesses:
            found[step.pc] = Ahead(writes, not group, live=False)
            group.append(step.pc)
            live = live or bool(step.live)
    end()
    return found


class RegionLowering(Lowering):
    """Lowers instruction after instruction into one function."""

    source: RegionSource  # type: ignore[misc]
    body: RegionBody  # type: ignore[misc]
    _landing = ""  # the label of this instruction's landing, once it has one
    _tail: Tail | None = None  # that the landings before this one share
    _ahead: dict[int, Ahead]
    _extension: landings.Extension | None = None  # of what the load in hand loads

    def __init__(self, source: RegionSource) -> None:
        super().__init__(source, StateOffsets(), tuple(HELPERS))
        self._bounds: Final = Bounds(self._constant, source.offset)
        self._pointers: Final = Pointers(source.region, source.places, partial(prepared, flags=True))
        self._near = 0  # see there
        self._written: Final[set[int]] = set()  # by this instruction
        source.pointed = self._pointers.used

    def begin(self, block: Block, way: Way, flags: object) -> None:
        """Start a block. `flags`: those of its only predecessor, if it has one."""
        pc = block.pc
        self.body.place(way.node.label)
        self.source.way = way
        self._tail, self._ahead = None, look_ahead(block.steps)
        self._bounds.forget()
        self._near = self._pointers.near(pc)
        self.source.ways = block.ways
        self.source.dirty = self.source.region.dirty[pc]
        self.flags = flags or self.source.flags_for(pc)  # type: ignore[assignment]

    def instruction(self, step: Step, template: Template, live: int) -> None:
        """Lower one. `live`: flags live behind it; its words are only made if there are any."""
        source = self.source
        source.step = step
        self.line(f"; {step.pc:x}")  # for tools that show the text: see dbt/tools/explain/lines.py
        self._landing = ""
        self._written.clear()
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
        self._bounds.note(template)
        self._near = self._pointers.after(step, self._near)

    def is_index(self, value: Value) -> bool:
        return self._bounds.magnitude(value) <= self.source.region.index_bits

    def known_pointer(self, address: Value) -> str:
        root = self._pointers.root(address, self.source.step)
        if root is None or root.distance or root.unit in self._written:
            return ""
        return self.emit(f"load ptr, ptr %h{root.unit}")

    def written(self, place: Place) -> None:
        source, step = self.source, self.source.step
        number = self._pointers.number(place, step)
        if number is None:
            return
        root = self._pointers.followed(step, number, self._near)
        if root is None or root.unit in self._written:
            pointer = source.masked(self.emit(f"load i64, ptr %r{number}"))
        else:
            pointer = self.emit(f"load ptr, ptr %h{root.unit}")
            if root.distance:
                pointer = self.emit(f"getelementptr i8, ptr {pointer}, i64 {root.distance}")
        source.point(number, pointer)
        self._written.add(number)

    def _constant(self, value: Value) -> int | None:
        """The number that is known for a value, if there is one."""
        if value.op.name == "const":
            return int(str(value.op.attrs["value"]))
        found = self._values.get(value.index)
        return self.source.number(found.which) + found.addend if isinstance(found, Immediate) else None

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
        value = landings.read(self.body, pointer, type_, self._land(), self._extension)
        if ordered:
            self.line("fence acquire")
        return value

    def write(self, pointer: str, type_: str, value: str) -> None:
        if self.source.step.synchronises:
            super().write(pointer, type_, value)
        else:
            landings.write(self.body, pointer, type_, value, self._land())

    def _land(self) -> landings.Landing:
        """The code that leaves as this instruction finds the state."""
        if not self._landing:
            source, flags = self.source, self.flags
            self._landing = self.body.label("landing")
            with self.body.out_of_line(), self.side_block():
                self.body.place(self._landing)
                self.line(f"; {source.step.pc:x}")  # as above
                self._leave_landing(self._ahead[source.step.pc])
            self.flags = flags  # as they were: what has been computed here is known here only
        return landings.Landing(self._landing, self.source.step.pc)

    def _leave_landing(self, ahead: Ahead) -> None:
        """Write what is dirty and leave.

        Registers that no instruction writes before the last landing of the block are written by code that is shared:
        each landing writes what has become dirty since the one before it, and goes on there.
        """
        source, tail, live = self.source, self._tail, bool(self.source.step.live)
        dirty = source.dirty & ~FLAGS
        if tail is None and ahead.last:
            source.write_back(dirty)
            source.jump("@" + LEAVE, words(self) if live else DEAD)
            return
        if ahead.live:
            for slot, word in zip(WORDS, words(self) if live else DEAD, strict=True):
                self.line(f"store i64 {word}, ptr {slot}")
        own = dirty & ahead.writes
        source.write_back(own)
        shared = dirty & ~own
        if tail is not None and tail.registers == shared:
            self.line(f"br label %{tail.label}")
            return
        label = self.body.label("tail")
        self.line(f"br label %{label}")
        self.body.place(label)
        self._tail = Tail(label, shared)
        if tail is None:
            source.write_back(shared)
            source.jump("@" + LEAVE, source.flag_words() if ahead.live else DEAD)
        else:
            source.write_back(shared & ~tail.registers)
            self.line(f"br label %{tail.label}")

    def _synchronise(self, step: Step) -> None:
        source = self.source
        self._tail = None
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
    return module_text({ENTRY: region}, places)


def module_text(regions: dict[str, Region], places: Places) -> str:
    """A module of regions, by the names of their functions."""
    declared = Declarations()
    declared.add(f"declare dso_local {CONVENTION} void @{LEAVE}({SIGNATURE_TYPES})")
    functions = [line for name, region in regions.items() for line in _function(name, region, places, declared)]
    return "\n".join([
        declared.text(), *functions,
        attributes(host_cpu()[1]), METADATA, "",
    ])  # fmt: skip


def _function(name: str, region: Region, places: Places, declared: Declarations) -> Iterable[str]:
    body = RegionBody(declared, name)
    source = RegionSource(body, region, places)
    low = RegionLowering(source)
    _entry(source)
    ways = unrolled(region)
    predecessors = Counter([Node(region.entry)])
    for way in ways:
        block = region.blocks[way.node.pc]
        predecessors.update(way.to(target) for target in successors(block, region.return_sites))
    carried: dict[Node, object] = {}
    for way in ways:
        block = region.blocks[way.node.pc]
        low.begin(block, way, carried.get(way.node))
        before = _lower_block(low, block, region)
        carried.update((way.to(target), before) for target in block.targets if predecessors[way.to(target)] == 1)
    source.ends()
    for target in source.exits:
        declared.add(f"declare dso_local {CONVENTION} void @{LINK}{target:x}({SIGNATURE_TYPES})")
    return f"define {CONVENTION} void @{name}({SIGNATURE}) #0 {{", *body.lines, *body.cold, "}"


def _entry(source: RegionSource) -> None:
    body, region = source.body, source.region
    for number in members(region.used):
        body.line(f"%r{number} = alloca {SLOT_TYPES[source.places.units[number].size]}")
    for slot, word in zip(WORDS, ("%n", "%z", "%c", "%v"), strict=True):
        body.line(f"{slot} = alloca i64")
        body.line(f"store i64 {word}, ptr {slot}")
    for number in members(source.pointed):
        body.line(f"%h{number} = alloca ptr")
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
