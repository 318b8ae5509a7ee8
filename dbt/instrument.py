"""Instrumentation: plugins see each block when it is translated and insert code of their own, which runs with it.

    class Hot(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            block.count(self.counters[block.pc])

What is inserted runs before an instruction. It may read the guest's registers and flags and compute with all operations
of the IR, and it changes nothing but memory of the host: counters, and rings that Python drains in batches. It may also
call Python, with the guest stopped exactly there. docs/instrumentation.md tells it with examples.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from dbt.engine import hostmem
from dbt.engine.layout import ENDS_ALWAYS, ENDS_CONDITIONAL, ENDS_DIRECT, NUMBERS, TOKENS
from dbt.errors import UserError
from dbt.ir.builder import Builder
from dbt.ir.ops import END, FLAGS_IN, FLAGS_OUT, FP, LEAVE, LOAD, OPS, PUT, STORE
from dbt.ir.types import I64, Type, int_type
from dbt.ir.values import Place, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from dbt.api import Memory, Registers
    from dbt.engine.cpu import Cpu
    from dbt.frontends.forms import Form
    from dbt.ir.values import Op

    Writer = Callable[["Snippet"], object]
    Field: TypeAlias = "int | str | Access"

_WORD: Final = 8
_CELLS: Final = 1 << 16  # of one piece of memory
_FORBIDDEN: Final = PUT | FLAGS_OUT | FP | END


class Counter:
    """A 64-bit number that inserted code adds to and Python reads; it wraps."""

    __slots__ = ("_cell", "_owner", "address")

    def __init__(self, address: int, owner: Counters) -> None:
        self.address: Final = address  # of the host
        self._owner = owner  # of the memory
        self._cell = ctypes.c_uint64.from_address(address)

    @property
    def value(self) -> int:
        return int(self._cell.value)

    @value.setter
    def value(self, value: int) -> None:
        self._cell.value = value

    def __repr__(self) -> str:
        return f"<counter {self.value}>"


class Counters:
    """Counters by key, made when they are first asked for. Keys are what a plugin likes: addresses, names."""

    def __init__(self) -> None:
        self._cells: dict[Hashable, Counter] = {}
        self._pieces: list[tuple[int, int]] = []
        self._next = self._end = 0
        weakref.finalize(self, _unmap, self._pieces)

    def __getitem__(self, key: Hashable) -> Counter:
        found = self._cells.get(key)
        if found is None:
            if self._next == self._end:
                self._next = hostmem.map_anonymous(_CELLS * _WORD)
                self._end = self._next + _CELLS * _WORD
                self._pieces.append((self._next, _CELLS * _WORD))
            found = self._cells[key] = Counter(self._next, self)
            self._next += _WORD
        return found

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def values(self) -> dict[Hashable, int]:
        """All of them as they are now."""
        return {key: counter.value for key, counter in self._cells.items()}

    def clear(self) -> None:
        """Set all to 0."""
        for counter in self._cells.values():
            counter.value = 0


def _unmap(pieces: list[tuple[int, int]]) -> None:
    for address, size in pieces:
        hostmem.unmap_memory(address, size)


class Ring:
    """Records of `fields` numbers each, written by inserted code; `drain` gets them in batches.

    It is drained when it is full, and whenever `flush` is called. No record is lost.
    """

    def __init__(
        self, fields: int, drain: Callable[[list[tuple[int, ...]]], object], *, records: int = 1 << 14
    ) -> None:
        if fields < 1 or records < 1:
            raise UserError(f"a ring of {records} records of {fields} fields is not possible", "Give numbers from 1.")
        self.fields: Final = fields
        self._drain: Final = drain
        self._size = _WORD * (fields * records + 2)
        self.address = hostmem.map_anonymous(self._size)  # words: where the next record goes, where the ring ends
        weakref.finalize(self, _unmap, [(self.address, self._size)])
        self._first = self.address + 2 * _WORD
        self._head = (ctypes.c_uint64 * 2).from_address(self.address)
        self._head[:] = [self._first, self._first + _WORD * fields * records]

    def flush(self) -> None:
        """Hand over what was recorded since the last time."""
        used = int(self._head[0]) - self._first
        if used:
            words = memoryview(ctypes.string_at(self._first, used)).cast("Q")
            self._head[0] = self._first
            step = self.fields
            self._drain(list(zip(*(words[i::step] for i in range(step)), strict=True)))

    def clear(self) -> None:
        """Forget what was recorded since the last time."""
        self._head[0] = self._first


class Plugin:
    """What a tool derives from. `block` is called for each block that is translated, also again after changes.

    `exact`: whether inserted code calls Python or looks at flags. All flags are kept then, also those nobody reads.
    """

    exact = False

    def __init__(self) -> None:
        self.counters = Counters()

    def block(self, block: Block) -> None:
        """See a block, and insert code."""

    def forked(self) -> None:
        """In a forked child: the counters are copies of the parent's, its own rings are empty. Called in the child."""

    def replaced(self) -> None:
        """The guest executes another program: its memory is about to be replaced."""

    def finish(self) -> None:
        """The guest, this plugin's or a forked child's, has ended; called for programs only."""


class Access(NamedTuple):
    """One access to memory of an instruction."""

    kind: str  # read, write or update
    size: int  # in bytes
    base: Value  # of the form's template
    offset: int


class Event:
    """What a callback gets: the guest stopped before `instruction`. Registers and memory may be changed."""

    def __init__(self, instruction: Instruction, cpu: Cpu) -> None:
        self.instruction: Final = instruction
        self._cpu: Final = cpu

    @property
    def pc(self) -> int:
        return self.instruction.pc

    @property
    def registers(self) -> Registers:
        from dbt.api import Registers

        return Registers(self._cpu)

    @property
    def memory(self) -> Memory:
        from dbt.api import Memory

        return Memory(self._cpu)


class Snippet(Builder):
    """IR that runs before an instruction: a Builder with what concerns the instruction and the host's memory."""

    def __init__(self, instruction: Instruction) -> None:
        super().__init__()
        self.instruction: Final = instruction
        self.numbers: Final[list[int]] = []
        self.tokens: Final[list[int]] = []  # numbers of the instruction's register tokens
        self.calls = False
        self.again: Callable[[Form], list[str]] | None = None  # the same for other forms, as text of templates
        self._copies: dict[Value, Value] = {}

    # operands
    def constant(self, value: int) -> Value:
        """A number of 64 bits, of which the compiled code knows nothing, so that it serves others as well.

        There are four for a snippet; further ones become part of the code.
        """
        if len(self.numbers) == NUMBERS:
            return self.const(I64, value)
        self.numbers.append(value)
        return self.number(len(self.numbers) - 1)

    def register(self, name: str) -> Value:
        """A register of the guest before the instruction: i64; of v0..v31 the low half."""
        if name == "pc":
            return self.pc()
        places = self.instruction.block.cpu.info.registers
        if name not in places:
            raise UserError(f"no register {name!r}", "Registers: x0..x30, w0..w30, sp, pc, v0..v31, tpidr_el0.")
        offset, size = places[name]
        value = self.get(int_type(min(size, _WORD) * 8), Place(None, offset))
        return value.zext(64)

    def address(self, access: Access) -> Value:
        """The address of an access of the instruction: i64, with the top byte that the guest gave it."""
        return self._copy(access.base) + access.offset if access.offset else self._copy(access.base)

    def _copy(self, value: Value) -> Value:
        """A value of the form's template, computed here."""
        found = self._copies.get(value)
        if found is None:
            op = value.op
            attrs = dict(op.attrs)
            place = attrs.get("place")
            if isinstance(place, Place) and place.token is not None:
                if place.token not in self.tokens:
                    self.tokens.append(place.token)
                attrs["place"] = Place(self.tokens.index(place.token), place.offset)
            args = [self._copy(arg) for arg in op.args]
            found = self._copies[value] = self.value(op.name, *args, type=value.type, **attrs)
        return found

    # the host's memory
    def host_load(self, type_: Type, address: Value) -> Value:
        """Read memory of the host."""
        return self.load(type_, address, space="host")

    def host_store(self, address: Value, value: Value) -> None:
        """Write memory of the host."""
        self.store(address, value, space="host")

    def add(self, counter: Counter, value: Value | int = 1) -> None:
        """Add to a counter. With a condition's `zext(64)` as value, it counts where the condition holds."""
        cell = self.constant(counter.address)
        self.host_store(cell, self.host_load(I64, cell) + value)

    def write(self, ring: Ring, *fields: Value, when: Value | None = None) -> None:
        """Write a record of i64 values; `when`, an i1: only if it holds."""
        if len(fields) != ring.fields:
            raise UserError(f"{len(fields)} fields for a ring of {ring.fields}", "Give one value for each field.")
        head = self.constant(ring.address)
        at = self.host_load(I64, head)
        for i, field in enumerate(fields):
            self.host_store(at + _WORD * i if i else at, field)
        size = _WORD * ring.fields
        after = at + (size if when is None else when.select(self.const(I64, size), self.const(I64, 0)))
        self.host_store(head, after)
        full = after.eq(self.host_load(I64, head + _WORD))
        self.event(full, self.constant(self.instruction.block.number_of(ring.flush, self.instruction)))

    def call(self, function: Callable[[Event], object], when: Value | None = None) -> None:
        """Call Python; `when`, an i1: only if it holds."""
        self._need_exact("calls Python")
        self.calls = True
        number = self.constant(self.instruction.block.number_of(function, self.instruction))
        self.event(1 if when is None else when, number)

    # what holds for all of it
    def _need_exact(self, what: str) -> None:
        if not self.instruction.block.exact:
            raise UserError(f"inserted code {what}, but flags are not kept exact", "Set `exact = True` in the plugin.")

    def check(self) -> None:
        """Raise UserError for anything that could change what the guest does."""
        for op in self.ops:
            effects = OPS[op.name].effects
            if effects & FLAGS_IN:
                self._need_exact("looks at flags")
            if effects & (LOAD | STORE) and op.attrs.get("space") != "host":
                raise UserError(f"inserted code uses {op.name} on the guest's memory", "Read it in a callback.")
            if effects & _FORBIDDEN or (effects & LEAVE and op.name != "event") or op.name == "helper":
                raise UserError(f"inserted code uses {op.name}, which would change the guest", "Compute, count, write.")


class Instruction:
    """One instruction of a block while it is translated."""

    def __init__(self, block: Block, index: int, pc: int, length: int, form: Form, ends: int) -> None:
        self.block: Final = block
        self.index: Final = index
        self.pc: Final = pc
        self.length: Final = length
        self.form: Final = form
        self._ends: Final = ends

    @property
    def code(self) -> bytes:
        return self.block.cpu.memory.read(self.pc, self.length)

    @property
    def text(self) -> str:
        """Assembly."""
        from dbt.tools.assembly import disassemble

        return disassemble(self.block.cpu.info.name, self.code, self.pc)[0].text

    @property
    def name(self) -> str:
        """Of its form, which begins with that of its instruction in the manual: ADD_imm_sf1."""
        return self.form.name

    @property
    def branches(self) -> bool:
        return bool(self._ends & (ENDS_ALWAYS | ENDS_CONDITIONAL))

    @property
    def conditional(self) -> bool:
        """Whether it is a branch that may fall through."""
        return bool(self._ends & ENDS_CONDITIONAL)

    @property
    def direct(self) -> bool:
        """Whether it is a branch whose target is in the instruction."""
        return bool(self._ends & ENDS_DIRECT)

    @property
    def accesses(self) -> list[Access]:
        """Its accesses to memory, neighbouring ones joined."""
        return accesses_of(self.form)

    @property
    def reads(self) -> bool:
        return any(access.kind != "write" for access in self.accesses)

    @property
    def writes(self) -> bool:
        return any(access.kind != "read" for access in self.accesses)

    def add(self, write: Writer) -> None:
        """Insert what `write` builds in a Snippet, behind what was inserted here before."""
        snippet = Snippet(self)
        write(snippet)
        snippet.check()
        self.block.inserted.append(snippet)

    def count(self, counter: Counter, by: int = 1) -> None:
        """Add to a counter whenever this instruction is about to run."""
        self.add(lambda s: s.add(counter, by if by == 1 else s.constant(by)))

    def record(self, ring: Ring, *fields: Field) -> None:
        """Write a record whenever this instruction is about to run: numbers, register names, or Accesses' addresses."""

        def again(form: Form) -> list[str]:
            found = []
            for access in accesses_of(form):
                s = Snippet(Instruction(self.block, self.index, self.pc, self.length, form, self._ends))
                s.write(ring, *(_field(s, access if isinstance(f, Access) else f) for f in fields))
                found.append(s.template().text())
            return found

        def write(s: Snippet) -> None:
            s.write(ring, *(_field(s, field) for field in fields))
            if any(isinstance(field, Access) for field in fields):
                s.again = again

        self.add(write)

    def call(self, function: Callable[[Event], object]) -> None:
        """Call Python whenever this instruction is about to run, behind what else is inserted here."""
        self.add(lambda s: s.call(function))


def _field(s: Snippet, field: Field) -> Value:
    if isinstance(field, Access):
        return s.address(field)
    return s.register(field) if isinstance(field, str) else s.constant(field)


class Block:
    """A block while it is translated: instructions that run one after the other, the last one usually a branch."""

    def __init__(self, cpu: Cpu, pc: int, number_of: Callable[[Callable[..., object], Instruction], int]) -> None:
        self.cpu: Final = cpu
        self.pc: Final = pc
        self.instructions: Final[list[Instruction]] = []
        self.inserted: Final[list[Snippet]] = []
        self.exact = False  # of the plugin that is looking
        self.number_of: Final = number_of

    @property
    def size(self) -> int:
        """In bytes."""
        last = self.instructions[-1]
        return last.pc + last.length - self.pc

    def ordered(self) -> list[Snippet]:
        """What is inserted, by instruction; calls of Python come last, since they may take plugins away."""
        return sorted(self.inserted, key=lambda s: (s.instruction.index, s.calls))

    @property
    def where(self) -> tuple[str, int, int]:
        """(name of the mapping, usually a file's path; offset of the block from its lowest address; that address)."""
        area = self.cpu.memory.area_at(self.pc)
        if area is None:
            return "", self.pc, 0
        first = area.start
        if area.name:
            first = min(other.start for other in self.cpu.memory.areas if other.name == area.name)
        return area.name, self.pc - first, first

    def add(self, write: Writer) -> None:
        """Insert at the head."""
        self.instructions[0].add(write)

    def count(self, counter: Counter, by: int = 1) -> None:
        """Count each time the block is entered."""
        self.instructions[0].count(counter, by)

    def record(self, ring: Ring, *fields: Field) -> None:
        """Write a record each time the block is entered."""
        self.instructions[0].record(ring, *fields)

    def call(self, function: Callable[[Event], object]) -> None:
        """Call Python each time the block is entered."""
        self.instructions[0].call(function)


_ACCESSES: Final[dict[Form, list[Access]]] = {}


def accesses_of(form: Form) -> list[Access]:
    """The accesses of a form's template; those at neighbouring addresses of one kind are one."""
    found = _ACCESSES.get(form)
    if found is None:
        parts = [_access(op) for op in form.template.ops if OPS[op.name].effects & (LOAD | STORE)]
        found = []
        for part in sorted(parts, key=lambda a: (a.base.index, a.offset)):
            last = found[-1] if found else None
            joins = last is not None and (last.kind, last.base) == (part.kind, part.base)
            if last is not None and joins and part.offset <= last.offset + last.size:
                found[-1] = last._replace(size=max(last.size, part.offset + part.size - last.offset))
            else:
                found.append(part)
        _ACCESSES[form] = found
    return found


def _access(op: Op) -> Access:
    effects = OPS[op.name].effects
    kind = "update" if op.name in ("rmw", "cas") else "write" if effects & STORE else "read"
    type_ = op.args[1].type if len(op.args) > 1 else op.type
    assert type_ is not None
    base, offset = op.args[0], 0
    while base.op.name == "add" and base.op.args[1].op.name == "const":
        value = base.op.args[1].op.attrs["value"]
        assert isinstance(value, int)
        offset += (value ^ 1 << 63) - (1 << 63)
        base = base.op.args[0]
    return Access(kind, type_.width // 8, base, offset)


__all__: Final = [
    "TOKENS", "Access", "Block", "Counter", "Counters", "Event", "Instruction", "Plugin", "Ring", "Snippet",
]  # fmt: skip
