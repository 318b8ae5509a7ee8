"""One program on the engines: what differs. Alone, for shrinking and replaying, or after a batch was loaded."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64.guest import GUEST

from tests.differential.text import show

from .compare import NOT_JUDGED, between_ours, outcome, with_outside
from .machines import ALIAS, BITS, LIMIT, NATIVE, TROUBLE, Machine, Mode, Result, pack
from .outside import Outside
from .programs import foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from tests.differential.case import Case

    from .programs import Program

PATIENCE: Final = 30.0  # seconds that a program may take on one engine before it is asked to stop
OUTSIDE: Final = "unicorn"
ROUNDS: Final = 4  # stops of a program
GOES_ON: Final = ("syscall", "until", "budget")
STOPS: Final = (
    "syscall", "undefined", "breakpoint", "fault", "fetch", "alignment", "poll", "budget", "unimplemented", ALIAS
)  # fmt: skip
MODES: Final = [
    Mode(counted, all_flags, threshold)
    for counted in (False, True)
    for all_flags in (False, True)
    for threshold in ((0,) if counted else (0, 1, 2, 3))
]


class Watch:
    """Asks an engine to stop that runs for too long; a program that does not end is a difference like others."""

    def __init__(self) -> None:
        self._stop: Callable[[], object] | None = None
        self._since = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def start(self, stop: Callable[[], object]) -> None:
        """An engine begins."""
        self._since = time.monotonic()
        self._stop = stop

    def end(self) -> None:
        """It has ended."""
        self._stop = None

    def _look(self) -> None:
        while True:
            time.sleep(1)
            stop = self._stop
            if stop is not None and time.monotonic() - self._since > PATIENCE:
                stop()


class Trial:
    """All engines, each made when it is first needed.

    `at` is told which of them is about to run. `large`: which one has an address space of full size, where the host
    tells most faults; in a smaller one the reference engine has to look.
    """

    def __init__(self, at: Callable[[str], None] = lambda _name: None, large: str = "baseline") -> None:
        self._machines: Final[dict[str, Machine]] = {}
        self._outside: Outside | None = None
        self._at: Final = at
        self._large: Final = large
        self._watch: Final = Watch()
        self.count: Final = Counter[str]()

    def machine(self, name: str) -> Machine:
        """One of our engines."""
        if name not in self._machines:
            self._machines[name] = Machine(name, None if name == self._large else BITS)
        return self._machines[name]

    @property
    def outside(self) -> Outside:
        """Unicorn."""
        if self._outside is None:
            self._outside = Outside()
        return self._outside

    def load(self, cases: Sequence[Case], mode: Mode, engines: Sequence[str]) -> None:
        """Put a batch in the memory of the reference engine and of others."""
        for name in ("reference", *engines):
            if name == OUTSIDE:
                self.outside.load(cases)
            else:
                self.machine(name).load(cases, mode)

    def _run(self, name: str, start: Callable[[Any], Result], again: bool) -> Result:
        """Have an engine run. `again`: it may be run once more if it was slow."""
        self._at(name)
        machine: Any = self.outside if name == OUTSIDE else self.machine(name)
        stop = machine.stop if name == OUTSIDE else machine.cpu.stop
        while True:
            self._watch.start(stop)
            result = start(machine)
            self._watch.end()
            if result.stop != "poll" or not again:
                return result
            again = False

    def differences(
        self, case: Case, mode: Mode, engines: Sequence[str], budget: int | None = None, rounds: int = ROUNDS
    ) -> Iterator[tuple[str, list[str]]]:
        """(engine, what differs) for a case that was loaded. `budget`: of instructions, if `mode.counted`.

        What stops for a system call, a stop address or its budget goes on, until it has stopped `rounds` times or is
        outside of its own code.
        """
        if mode.writable:  # what the last one has changed is put right
            self.load([case], mode, engines)
            rounds = 1
        file, limit = pack(case.registers), budget if mode.counted else None
        left = list(engines)
        for number in range(rounds):
            first = number == 0

            def start(machine: Any, most: int | None = limit, first: bool = first) -> Result:
                if isinstance(machine, Outside):
                    return machine.run(case, file) if first else machine.go_on()
                return machine.run(case, file, most) if first else machine.go_on(most)  # type: ignore[no-any-return]

            expected = self._run("reference", lambda m: start(m, limit or LIMIT), first)
            if expected.stop == ALIAS or (expected.stop == "budget" and not mode.counted):
                self.count["left out"] += first
                return
            self.count[f"stop {expected.stop}"] += 1
            for name in list(left):
                if name == OUTSIDE and (mode.counted or mode.stops or expected.stop in NOT_JUDGED):
                    left.remove(name)
                    continue
                wrong = self._wrong(name, self._run(name, start, first), expected, mode)
                self.count[name] += first
                if wrong:
                    left.remove(name)
                    yield name, wrong
            if expected.stop not in GOES_ON or not left or not 0 <= expected.pc - case.code_address < len(case.code):
                return

    def _wrong(self, name: str, found: Result, expected: Result, mode: Mode) -> list[str]:
        if name == OUTSIDE:
            return with_outside(found, expected)
        if mode.writable:
            return [] if found.stop in STOPS else [f"the stop {found.stop} is nothing for callers"]
        return [*between_ours(expected, found, mode), *(self._trouble() if name == "optimizer" else [])]

    def _trouble(self) -> list[str]:
        said = [f"the optimizer said: {text}" for text in TROUBLE]
        if said:
            TROUBLE.clear()
            self.machine("optimizer").native._promoter._deaths = 0
        return said

    def alone(self, case: Case, mode: Mode, engine: str, budget: int | None = None, rounds: int = ROUNDS) -> list[str]:
        """What differs on one engine; nothing where it may not be asked."""
        if engine == OUTSIDE and any(foreign(GUEST.tables.decode(word).form, word) for word in case.words):
            return []
        self.load([case], mode, [engine])
        return next((wrong for _, wrong in self.differences(case, mode, [engine], budget, rounds)), [])

    def line(self, case: Case, budget: int | None = None) -> str:
        """The case in the text format, with what the reference engine does."""
        reference = self.machine("reference")
        reference.load([case], Mode())
        result = reference.run(case, pack(case.registers), budget or LIMIT)
        return show(steps(case, budget or result.executed + 1), outcome(result))


def steps(case: Case, count: int) -> Case:
    """The case with a number of instructions to run."""
    return replace(case, steps=count)


def program_engines(program: Program, mode: Mode, *, optimizer: bool) -> list[str]:
    """The engines for a program beside the reference."""
    names: list[Any] = [name for name in NATIVE if name != "optimizer" or (optimizer and not mode.counted)]
    return [*names, OUTSIDE] if program.outside and not mode.counted else names
