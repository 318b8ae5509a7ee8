"""One program on the engines: what differs. Alone, for shrinking and replaying, or after a batch was loaded."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64.guest import GUEST

from tests.differential.text import show

from .compare import NOT_JUDGED, between_ours, outcome, with_outside
from .machines import ALIAS, BITS, LIMIT, NATIVE, TROUBLE, Machine, Mode, Result, pack
from .outside import Outside
from .words import foreign, jumped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from tests.differential.case import Case

    from .programs import Program

PATIENCE: Final = 30.0  # seconds that a program may take on one engine before it is asked to stop
OUTSIDE: Final = "unicorn"
ROUNDS: Final = 4  # stops of a program
TOGETHER: Final = 16  # regions that are compiled at once
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

    def expected(self, case: Case, mode: Mode, budget: int | None = None, rounds: int = ROUNDS) -> list[Result]:
        """The stops of a case that was loaded, on the reference engine. `budget`: of instructions, if `mode.counted`.

        What stops for a system call, a stop address or its budget goes on, until it has stopped `rounds` times or is
        outside of its own code. What nobody can judge ends it as well, and is none: ALIAS, or the end of our patience.
        """
        if mode.writable:  # what the last one has changed is put right
            self.load([case], mode, [])
            rounds = 1
        file, limit = pack(case.registers), (budget if mode.counted else None) or LIMIT
        found: list[Result] = []
        while len(found) < rounds:
            first = not found
            result = self._run("reference", partial(_next, case, file, limit, first), first)
            if result.stop == ALIAS or (result.stop == "budget" and not mode.counted):
                self.count["left out"] += first
                break
            self.count[f"stop {result.stop}"] += 1
            found.append(result)
            if result.stop not in GOES_ON or not 0 <= result.pc - case.code_address < len(case.code):
                break
        return found

    def foresee(self, cases: Sequence[tuple[Case, Sequence[Result]]], mode: Mode) -> None:
        """Have the optimizer's regions for loaded cases made many at once, where all of them are wanted at once.

        They begin where a case does and where it goes on after a stop.
        """
        if mode.counted or mode.writable or mode.threshold:
            return
        places: dict[int, list[int]] = {}
        for case, expected in cases:
            ways = jumped(case)
            places.update(dict.fromkeys((case.address, *(stop.pc for stop in expected[:-1])), ways))
        optimizer, wanted = self.machine("optimizer").native, list(places.items())
        for first in range(0, len(wanted), TOGETHER):
            optimizer.foresee(dict(wanted[first : first + TOGETHER]))

    def differences(
        self, case: Case, mode: Mode, engines: Sequence[str], expected: Sequence[Result], budget: int | None = None
    ) -> Iterator[tuple[str, list[str]]]:
        """(engine, what differs) for a case that was loaded. `expected`: its stops."""
        file, limit = pack(case.registers), budget if mode.counted else None
        for name in engines if expected else ():
            if mode.writable:
                self.load([case], mode, [name])
            for number, want in enumerate(expected):
                if name == OUTSIDE and (mode.counted or mode.stops or want.stop in NOT_JUDGED):
                    break
                first = not number
                found = self._run(name, partial(_next, case, file, limit, first), first)
                self.count[name] += first
                wrong = self._wrong(name, found, want, mode)
                if wrong:
                    yield name, wrong
                    break

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
        expected = self.expected(case, mode, budget, rounds)
        if engine == "optimizer":
            self.foresee([(case, expected)], mode)
        return next((wrong for _, wrong in self.differences(case, mode, [engine], expected, budget)), [])

    def line(self, case: Case, budget: int | None = None) -> str:
        """The case in the text format, with what the reference engine does."""
        reference = self.machine("reference")
        reference.load([case], Mode())
        result = reference.run(case, pack(case.registers), budget or LIMIT)
        return show(steps(case, budget or result.executed + 1), outcome(result))


def _next(case: Case, file: bytes, limit: int | None, first: bool, machine: Machine | Outside) -> Result:
    """The next stop of a case on an engine."""
    if isinstance(machine, Outside):
        return machine.run(case, file) if first else machine.go_on()
    return machine.run(case, file, limit) if first else machine.go_on(limit)


def steps(case: Case, count: int) -> Case:
    """The case with a number of instructions to run."""
    return replace(case, steps=count)


def program_engines(program: Program, mode: Mode, *, optimizer: bool) -> list[str]:
    """The engines for a program beside the reference."""
    names: list[Any] = [name for name in NATIVE if name != "optimizer" or (optimizer and not mode.counted)]
    return [*names, OUTSIDE] if program.outside and not mode.counted else names
