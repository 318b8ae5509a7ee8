"""What runs in a child: numbers in a row, in batches. It says what it finds in lines of JSON on its standard output.

`python -m tests.soak.child OPTIONS`, which are JSON as well (see Options). The number and the engine that are tried at
the moment are in a shared file, so that a crash or a hang has somebody to blame. With `isolate` there is only one
number; each attempt at it is a process of its own, so that what kills the process can be made small as well.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from . import pages, programs
from .machines import Mode
from .shrink import Subject, shrink
from .trial import ROUNDS, Trial, program_engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.differential.case import Case

    from .machines import Result
    from .programs import Program

MOST: Final = 5  # differences that are made small; whatever is behind them is probably the same
BUDGETS: Final = {"programs": 60, "pages": 1500}  # instructions at most, of runs with a budget
STOPPED: Final = 0.15  # how many of the batches have stop addresses
WRITABLE: Final = 0.25  # how many of the batches of pages may change themselves
COUNTED: Final = {"programs": 0.06, "pages": 0.5}  # how many of the batches have one
SLOTS: Final = {"programs": programs.SLOTS, "pages": pages.SLOTS}
ENGINES: Final = ("reference", "interpreter", "baseline", "optimizer", "unicorn")
PLACE: Final = struct.Struct("<qq")  # number, index of the engine
HANG: Final = 120.0  # seconds of one attempt in isolation
DIFFERS: Final = 7  # exit status of an attempt


@dataclass(frozen=True, slots=True)
class Options:
    """`every`: how many batches go to the optimizer, one of so many; 0: none."""

    kind: str  # programs, pages
    start: int
    count: int
    every: int
    place: str  # the shared file
    large: str = "baseline"  # as Trial has it
    isolate: bool = False

    def text(self) -> str:
        """As an argument."""
        return json.dumps(asdict(self))


class Place:
    """The shared file with what is being tried."""

    def __init__(self, path: str | Path) -> None:
        with open(path, "r+b") as file:
            self._map: Final = mmap.mmap(file.fileno(), PLACE.size)
        self.seed = -1

    def at(self, engine: str) -> None:
        """An engine is about to run."""
        PLACE.pack_into(self._map, 0, self.seed, ENGINES.index(engine))

    def read(self) -> tuple[int, str]:
        """(number, engine)."""
        seed, engine = PLACE.unpack_from(self._map)
        return seed, ENGINES[engine]


def mode_of(kind: str, batch: int) -> Mode:
    """How a batch runs."""
    random = Random(f"mode of {kind} {batch}")
    counted = random.random() < COUNTED[kind]
    mode = Mode(counted, random.random() < 0.5, random.choice((0, 0, 0, 1, 2, 3)))
    return mode._replace(writable=kind == "pages" and random.random() < WRITABLE)


def made(kind: str, seed: int) -> list[Program]:
    """The cases of a number."""
    return [programs.program(seed)] if kind == "programs" else pages.page(seed)


class Child:
    """Tries numbers and reports."""

    def __init__(self, options: Options) -> None:
        self.options: Final = options
        self.place: Final = Place(options.place)
        self.trial: Final = Trial(self.place.at, options.large)
        self.found = 0

    def report(self, **what: Any) -> None:
        """A line for the parent."""
        os.write(1, json.dumps(what).encode() + b"\n")

    def batches(self) -> Iterator[tuple[int, range]]:
        """(number of the batch, its numbers)."""
        options, slots = self.options, SLOTS[self.options.kind]
        at, end = options.start, options.start + options.count
        while at < end:
            behind = min((at // slots + 1) * slots, end)
            yield at // slots, range(at, behind)
            at = behind

    def run(self) -> None:
        """Try all of them."""
        for batch, seeds in self.batches():
            self._batch(self.mode(batch), seeds)
            self.report(done=len(seeds), counts=self.trial.count)
            self.trial.count.clear()
            if self.found >= MOST:
                return

    def mode(self, batch: int) -> Mode:
        """How a batch runs, whatever part of it."""
        kind, slots = self.options.kind, SLOTS[self.options.kind]
        mode = mode_of(kind, batch)
        random = Random(f"stops of {kind} {batch}")
        if mode.writable or random.random() > STOPPED:
            return mode
        cases = [program.case for seed in range(batch * slots, batch * slots + slots) for program in made(kind, seed)]
        places = [case.code_address + 4 * random.randrange(len(case.words)) for case in cases for _ in range(2)]
        return mode._replace(stops=tuple(sorted(set(places))))

    def plan(self, seeds: range, mode: Mode) -> Iterator[tuple[int, Program, list[str], int | None]]:
        """(number, program, engines, budget)."""
        kind, every = self.options.kind, self.options.every
        optimizer = bool(every) and seeds.start // SLOTS[kind] % every == 0
        for seed in seeds:
            random = Random(f"budget {seed}")
            for program in made(kind, seed):
                budget = random.randint(1, BUDGETS[kind]) if mode.counted else None
                yield seed, program, program_engines(program, mode, optimizer=optimizer), budget

    def _batch(self, mode: Mode, seeds: range) -> None:
        plan = list(self.plan(seeds, mode))
        cases: list[Case] = [program.case for _, program, _, _ in plan]
        wanted = sorted({name for _, _, engines, _ in plan for name in engines})
        self.trial.load(cases, mode, wanted)
        expected: list[list[Result]] = []
        for seed, program, _, budget in plan:
            self.place.seed = seed
            expected.append(self.trial.expected(program.case, mode, budget))
        if "optimizer" in wanted:
            self.place.at("optimizer")
            self.trial.foresee(list(zip(cases, expected, strict=True)), mode)
        for (seed, program, engines, budget), stops in zip(plan, expected, strict=True):
            self.place.seed = seed
            differences = list(self.trial.differences(program.case, mode, engines, stops, budget))
            for name, wrong in differences:
                self._shrink(seed, Subject(program.case, mode.stops, budget), mode, name, wrong)
            if differences:
                self.trial.load(cases, mode, wanted)

    def _shrink(self, seed: int, subject: Subject, mode: Mode, engine: str, wrong: list[str]) -> None:
        self.found += 1
        if self.found > MOST:
            return
        note, small = "only with the others of its batch in memory", None
        for rounds, what in ((1, ""), (ROUNDS, "after going on")):

            def differs(smaller: Subject, rounds: int = rounds) -> bool:
                return bool(self.alone(smaller, mode, engine, rounds))

            if differs(subject):
                small = shrink(subject, differs)
                wrong, note = self.alone(small, mode, engine, rounds), what
                break
        self._say(seed, engine, mode, wrong, small, note)

    def alone(self, subject: Subject, mode: Mode, engine: str, rounds: int = ROUNDS) -> list[str]:
        """What differs on one engine."""
        return self.trial.alone(subject.case, mode._replace(stops=subject.stops), engine, subject.budget, rounds)

    def _say(self, seed: int, engine: str, mode: Mode, wrong: list[str], subject: Subject | None, note: str) -> None:
        line, stops = "", list[int]()
        if subject is not None:
            line, stops = self.trial.line(subject.case, subject.budget), list(subject.stops)
        how = mode._replace(stops=())._asdict()
        batch = seed - seed % SLOTS[self.options.kind]
        self.report(seed=seed, engine=engine, mode=how, wrong=wrong, line=line, stops=stops, note=note, batch=batch)

    # ---- in isolation

    def isolate(self) -> None:
        """Find what kills the process, and make that small."""
        options = self.options
        mode = self.mode(options.start // SLOTS[options.kind])
        for seed, program, engines, budget in self.plan(range(options.start, options.start + 1), mode):
            subject = Subject(program.case, mode.stops, budget)
            for engine in engines:
                how = self.fate(subject, mode, engine)
                if how:
                    small = shrink(subject, lambda s: self.fate(s, mode, engine) == how)  # noqa: B023
                    self._say(seed, engine, mode, [how], small, "")
                    return
        self._say(options.start, "", mode, ["not again when alone"], None, "")

    def fate(self, subject: Subject, mode: Mode, engine: str) -> str:
        """What becomes of a process that tries a case on an engine; empty: nothing bad."""
        return fate_of(lambda: bool(self.alone(subject, mode, engine)))


def fate_of(attempt: Callable[[], bool], patience: float = HANG) -> str:
    """What becomes of a process that makes an attempt; empty if it ends, whatever it finds."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = DIFFERS if attempt() else 0
        finally:
            os._exit(status)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return "" if code in (0, DIFFERS) else f"the process ended with {code}"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "the process did not end"


def main() -> None:
    """Run as the argument says."""
    options = Options(**json.loads(sys.argv[1]))
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)  # nearly nothing is in cycles: looking for them took a tenth of the time
    child = Child(options)
    if options.isolate:
        child.isolate()
    else:
        child.run()


if __name__ == "__main__":
    main()
