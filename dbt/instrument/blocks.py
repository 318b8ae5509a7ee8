"""What plugins see: a block's instructions while it is translated, and the guest where inserted code calls Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from dbt.engine.formats import ENDS_ALWAYS, ENDS_CONDITIONAL, ENDS_DIRECT

from .accesses import Access, accesses_of
from .snippets import Snippet

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.cpu import Cpu
    from dbt.frontends.forms import Form
    from dbt.ir.values import Value
    from dbt.library.memory import Memory
    from dbt.library.registers import Registers

    from .counters import Counter, Ring

    Writer = Callable[[Snippet], object]
    Field: TypeAlias = "int | str | Access"


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
        from dbt.library.registers import Registers

        return Registers(self._cpu)

    @property
    def memory(self) -> Memory:
        from dbt.library.memory import Memory

        return Memory(self._cpu)


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
