"""Why a CPU or a program stopped: values that say what happened, for `match` statements and for people."""

from __future__ import annotations

from dataclasses import dataclass

from dbt.wording import counted


@dataclass(frozen=True, slots=True)
class Exit:
    """The common part of everything that `run` returns on the CPU's account. `pc` is where it would go on."""

    pc: int

    def __str__(self) -> str:
        words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(self).__name__)
        return f"{words.strip()} at pc {self.pc:#x}"


@dataclass(frozen=True, slots=True)
class Reached(Exit):
    """The program counter came to an address in `until`; that instruction has not run."""


@dataclass(frozen=True, slots=True)
class BudgetSpent(Exit):
    """Exactly as many instructions as were allowed have run."""


@dataclass(frozen=True, slots=True)
class SystemCall(Exit):
    """The guest asks its kernel: `number` and six arguments by its convention; pc is behind the instruction."""

    number: int
    arguments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemoryFault(Exit):
    """The instruction at pc may not make an access: to `address`, "read", "write" or "fetch"; nothing has changed."""

    address: int
    access: str

    def __str__(self) -> str:
        return f"{self.access} of {self.address:#x} faults at pc {self.pc:#x}"


@dataclass(frozen=True, slots=True)
class AccessRefused(MemoryFault):
    """A device (Memory.map_io) has no answer to an access of `size` bytes; nothing has changed."""

    size: int

    def __str__(self) -> str:
        return f"{self.access} of {counted(self.size, 'byte')} at {self.address:#x} is refused at pc {self.pc:#x}"


@dataclass(frozen=True, slots=True)
class Watched(Exit):
    """A watched range was touched: by the access to [address, address + size), "read" or "write".

    `instruction` is where that was done; `pc` is behind it, or the same if the watchpoint stops before.
    """

    address: int
    size: int
    access: str
    instruction: int

    def __str__(self) -> str:
        what = f"{self.access} of {counted(self.size, 'byte')} at {self.address:#x}"
        return f"{what} by the instruction at {self.instruction:#x}"


@dataclass(frozen=True, slots=True)
class Misaligned(Exit):
    """The instruction at pc needs an aligned `address`."""

    address: int


@dataclass(frozen=True, slots=True)
class Undefined(Exit):
    """The bytes at pc are no instruction of this guest (or one of a feature that it has not)."""

    code: bytes


@dataclass(frozen=True, slots=True)
class Unsupported(Exit):
    """The instruction at pc asks for something that Dragoman does not do yet."""

    code: bytes


@dataclass(frozen=True, slots=True)
class Breakpoint(Exit):
    """A breakpoint instruction at pc, with its immediate."""

    immediate: int


@dataclass(frozen=True, slots=True)
class Interrupted(Exit):
    """`stop` was called."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The program ended with this status."""

    status: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The program was killed by this signal."""

    signal: int
