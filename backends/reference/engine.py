"""ReferenceEngine: fetches, decodes and runs guest code one instruction at a time, with state in the Env struct.

Decoded instructions are kept by address until `invalidate`; the function of a form is generated when it is first met.
Budgets are exact, stop addresses and the poll word are looked at between instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from dbt.engine.layout import EXIT_BUDGET, EXIT_FAULT, EXIT_FETCH, EXIT_NONE, EXIT_POLL, EXIT_UNTIL, Env
from dbt.engine.memory import branch_address
from dbt.errors import GuestFault

from .generate import compile_template
from .state import MASK64, Memory, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from dbt.ir.state import StateOffsets
    from dbt.ir.values import Template

WRITE_FAULT: Final = 2  # of Env.fault_error, as x86 has it


class Form(Protocol):
    """What the engine asks of a form."""

    @property
    def template(self) -> Template:
        """Its semantics."""


class Decoded(Protocol):
    """What the engine asks of a decoded instruction."""

    @property
    def form(self) -> Form:
        """Its form."""

    @property
    def length(self) -> int:
        """In bytes."""

    @property
    def r(self) -> Sequence[int]:
        """Register tokens."""

    @property
    def imm(self) -> int:
        """Immediate."""

    @property
    def target(self) -> int:
        """Branch target or second immediate."""


class Tables(Protocol):
    """A guest's decoder: dbt.frontends.tables.Tables."""

    def decode(self, word: int, pc: int = 0, /) -> Decoded:
        """Decode the instruction word at `pc`."""


_Step = tuple["Callable[..., int]", "Sequence[int]", int, int, int]


class ReferenceEngine:
    """Runs guest code. `executed` counts the instructions that were completed."""

    def __init__(
        self,
        tables: Tables,
        memory: Memory,
        env_address: int,
        *,
        executable: Callable[[int], bool] = lambda _address: True,
        width: int = 4,
        data: Memory | None = None,
        io: Memory | None = None,
        offsets: StateOffsets | None = None,
    ) -> None:
        self.tables: Final = tables
        self.memory: Final = memory
        self.state: Final = State(env_address, data or memory, io, offsets)  # `data`: loads and stores, if they differ
        self.stops: Collection[int] = frozenset()
        self.executed = 0
        self.before: Callable[[int], int] | None = None  # called before each instruction; where to go on
        self._executable: Final = executable
        self._width: Final = width  # of an instruction word in bytes
        self._steps: dict[int, _Step] = {}
        self._functions: dict[Form, Callable[..., int]] = {}

    def step(self) -> int:
        """Run one instruction; EXIT_BUDGET if nothing special happened."""
        return self.run(1)

    def run(self, budget: int | None = None) -> int:
        """Run up to `budget` instructions (None: no limit) from Env.pc; the exit reason, which is also in Env.

        A stop address ends the run before its instruction, except at the first instruction of the run.
        """
        env = self.state.env64
        steps, before = self._steps, self.before
        poll_word, polls = Env.offset("poll") >> 2, self.state.env32
        env[Env.offset("exit") >> 3] = EXIT_NONE
        pc = branch_address(env[Env.offset("pc") >> 3])
        left = -1 if budget is None else budget
        start = left
        try:
            while left:
                if before is not None:
                    pc = before(pc)
                step = steps.get(pc) or self._decode(pc)
                function, r, imm, target, npc = step
                following = function(r, imm, target, pc, npc)
                if following < 0:
                    left -= env[Env.offset("pc") >> 3] == npc
                    return env[Env.offset("exit") >> 3]
                left -= 1
                if following != npc:
                    following = branch_address(following)
                    if polls[poll_word]:
                        return self._left(EXIT_POLL, following)
                pc = following
                if pc in self.stops:  # a callback may have changed them
                    return self._left(EXIT_UNTIL, pc)
            return self._left(EXIT_BUDGET, pc)
        except GuestFault as fault:
            return self._fault(fault, pc)
        finally:
            self.executed += start - left

    def invalidate(self, start: int, end: int) -> None:
        """Forget decoded instructions that overlap [start, end)."""
        stale = [pc for pc, step in self._steps.items() if pc < end and start < step[4]]
        for pc in stale:
            del self._steps[pc]

    def _decode(self, pc: int) -> _Step:
        if pc % self._width or not self._executable(pc):
            raise _Fetch(pc)
        try:
            word = int.from_bytes(self.memory.read(pc, self._width), "little")
        except GuestFault as fault:
            raise _Fetch(fault.address) from None
        found = self.tables.decode(word, pc)
        function = self._functions.get(found.form)
        if function is None:
            function = compile_template(found.form.template, self.state.namespace)
            self._functions[found.form] = function
        npc = (pc + found.length) & MASK64
        step = self._steps[pc] = (function, found.r, found.imm & MASK64, found.target & MASK64, npc)
        return step

    def _left(self, reason: int, pc: int) -> int:
        self.state.leave(reason, pc)
        return reason

    def _fault(self, fault: GuestFault, pc: int) -> int:
        """A fault leaves the guest as it was before the instruction; Env as a native fault would fill it."""
        env = self.state.env64
        if isinstance(fault, _Fetch):
            self.state.leave(EXIT_FETCH, pc, fault.address)
            return EXIT_FETCH
        env[Env.offset("fault_address") >> 3] = (env[Env.offset("base") >> 3] + fault.address) & MASK64
        env[Env.offset("fault_error") >> 3] = WRITE_FAULT if fault.access == "write" else 0
        self.state.leave(EXIT_FAULT, pc, fault.address)
        return EXIT_FAULT


class _Fetch(GuestFault):
    """The instruction itself cannot be read."""

    def __init__(self, address: int) -> None:
        super().__init__(address, "fetch")
