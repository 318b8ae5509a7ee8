"""The harness itself: it finds what is wrong, makes it small, and survives what kills or holds up its children."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST

from tests.differential.case import CODE, DATA, Case
from tests.differential.generate import MEMORY_OPS
from tests.differential.text import parse

from . import child, parent, trial
from .child import Child, Options, fate_of
from .compare import between_ours
from .machines import LIMIT, Machine, Mode, Result, pack
from .pages import page
from .parent import Parent
from .programs import SLOT, program
from .shrink import Subject, without
from .trial import Trial
from .words import displacement, names_of, retarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BRK, SVC, NOP = 0xD4200000, 0xD4000001, 0xD503201F
UDIV, UDIV_MASK = 0x9AC00800, 0xFFE0FC00


@pytest.fixture(scope="module")
def reference() -> Iterator[Machine]:
    machine = Machine("reference")
    yield machine
    machine.close()


def executed(machine: Machine, seeds: range) -> Iterator[Result]:
    for seed in seeds:
        case = program(seed).case
        machine.load([case], Mode())
        yield machine.run(case, pack(case.registers), LIMIT)


def test_programs_are_what_they_should_be(reference: Machine) -> None:
    """They fit into their slots, most of them end by themselves, and they have all that is asked for."""
    cases = [program(seed).case for seed in range(3000)]
    assert max(len(case.code) for case in cases) <= SLOT
    forms = [GUEST.tables.decode(word).form for case in cases for word in case.words]
    operations = Counter(name for form in forms for name in names_of(form))
    for name in ("load", "store", "load_exclusive", "store_exclusive", "rmw", "cas", "flags", "fadd", "goto_indirect"):
        assert operations[name] > 10, name
    stops = Counter(result.stop for result in executed(reference, range(300)))
    assert stops["syscall"] > 180
    assert 10 < stops["fault"] < 90
    assert stops["budget"] < 10


def test_most_programs_are_short_but_enough_have_structure() -> None:
    cases = [program(seed).case for seed in range(3000)]
    forms = [{GUEST.tables.decode(word).form for word in case.words} for case in cases]
    having = {
        "loops": sum(
            any((displacement(word) or 0) < 0 and word >> 24 not in (0x10, 0x97) for word in case.words)  # adr, bl
            for case in cases
        ),
        "calls": sum(any("npc" in names_of(form) for form in found) for found in forms),
        "accesses": sum(any(names_of(form) & MEMORY_OPS for form in found) for found in forms),
        "flags": sum(any("flags" in names_of(form) for form in found) for found in forms),
        "over 20 words": sum(len(case.words) > 20 for case in cases),
    }
    for what, least in {"loops": 0.1, "calls": 0.1, "accesses": 0.4, "flags": 0.2, "over 20 words": 0.05}.items():
        assert having[what] > least * len(cases), (what, having)
    assert having["over 20 words"] < 0.2 * len(cases)


def test_the_same_number_is_the_same_program() -> None:
    assert program(17) == program(17)
    assert page(17) == page(17)
    assert program(17) != program(17 + 64)


def test_words_are_taken_out_and_branches_still_lead_where_they_led() -> None:
    """b +3; nop; nop; cbz x0, -2; b.ne +4, which leads out of the program; adr x0, -1"""
    words = [retarget(0x14000000, 3), NOP, NOP, retarget(0xB4000000, -2), retarget(0x54000001, 4), 0x10FFFFE0]
    case = Case(tuple(words), {}, b"", address=CODE + 8, before=2)
    subject = without(Subject(case, (CODE + 4, CODE + 12, CODE + 0x1000)), 1, 2)
    assert subject.stops == (CODE + 4, CODE + 8, CODE + 0x1000)
    shorter = subject.case
    assert [displacement(word) for word in shorter.words] == [2, None, -1, 4, -1]
    assert (shorter.before, shorter.address, shorter.code_address) == (1, CODE + 4, CODE)
    # What led to a word that is gone leads to the one behind it.
    assert [displacement(word) for word in without(Subject(case), 1, 4).case.words] == [1, 4, -1]


class Wrong(Machine):
    """An engine with an error: where a program has a UDIV, x0 is another at the end."""

    def run(self, case: Case, file: bytes, budget: int | None = None) -> Result:
        result = super().run(case, file, budget)
        if any(word & UDIV_MASK == UDIV for word in case.words):
            result = result._replace(state=bytes([result.state[0] ^ 1]) + result.state[1:])
        return result


def _options(tmp_path: Path, seed: int, **more: object) -> Options:
    path = tmp_path / "place"
    path.write_bytes(bytes(child.PLACE.size))
    return replace(Options("programs", seed, 1, 0, str(path)), **more)  # type: ignore[arg-type]


def _with_division() -> int:
    """A number whose program has a UDIV, runs without a budget, and ends."""
    return next(
        seed
        for seed in range(100_000)
        if any(word & UDIV_MASK == UDIV for word in program(seed).case.words)
        and not child.mode_of("programs", seed // 64).counted
    )


def test_a_difference_is_found_and_made_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    machines = {"baseline": Wrong}
    monkeypatch.setattr(trial, "Machine", lambda name, bits: machines.get(name, Machine)(name, bits))
    Child(_options(tmp_path, _with_division())).run()
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    found = [record for record in records if "line" in record]
    assert [record["engine"] for record in found] == ["baseline"]
    small = parse(found[0]["line"]).case
    assert len(small.words) <= 2  # and what ends it, if that is no stop address
    assert any(word & UDIV_MASK == UDIV for word in small.words)
    assert not any(small.registers.values())
    assert found[0]["wrong"][0].startswith("x0: expected")


def test_what_kills_a_process_is_made_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def alone(self: Trial, case: Case, mode: Mode, engine: str, *more: object) -> list[str]:
        del self, mode, more
        if engine == "baseline" and any(word & UDIV_MASK == UDIV for word in case.words):
            os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr(Trial, "alone", alone)
    Child(_options(tmp_path, _with_division(), isolate=True)).isolate()
    record = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (record["engine"], record["wrong"]) == ("baseline", [f"the process ended with {-signal.SIGKILL}"])
    assert len(parse(record["line"]).case.words) == 1


def _fatal() -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return False


def _endless() -> bool:
    while True:
        time.sleep(1)


def test_fates() -> None:
    assert not fate_of(lambda: True)
    assert not fate_of(lambda: False)
    assert fate_of(_fatal) == "the process ended with -9"
    assert fate_of(_endless, 0.2) == "the process did not end"


# What children do in the next test: number 3 is fatal in one way, number 5 in another.
_CHILD = """
import json, os, struct, sys, time
options = json.loads(sys.argv[1])
if options["isolate"]:
    seed = options["start"]
    record = dict(seed=seed, engine="baseline", mode={}, wrong=["isolated"], line="", stops=[], note="", batch=0)
    print(json.dumps(record))
    sys.exit()
for seed in range(options["start"], options["start"] + options["count"]):
    with open(options["place"], "r+b") as file:
        file.write(struct.pack("<qq", seed, 1))
    if seed == 3:
        sys.stderr.write("last words")
        sys.stderr.flush()
        os.abort()
    if seed == 5:
        time.sleep(1000)
    print(json.dumps(dict(done=1, counts={"interpreter": 1})), flush=True)
"""


def test_a_child_that_is_lost_is_blamed_on_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    command: Callable[[Options], list[str]] = lambda options: [sys.executable, str(script), options.text()]  # noqa: E731
    monkeypatch.setattr(parent, "command", command)
    monkeypatch.setattr(parent, "SILENCE", 6.0)  # it may take seconds to start where others have the CPUs
    report = Parent(Options("programs", 0, 8, 0, ""), 1).run()
    assert (report.done, report.counts["interpreter"]) == (8, 6)
    assert [record["seed"] for record in report.wrong] == [3, 5]
    assert "ended with -6" in report.wrong[0]["wrong"][1]
    assert "last words" in report.wrong[0]["wrong"][1]
    assert "did not go on" in report.wrong[1]["wrong"][1]
    assert "number 5 on baseline" in report.details()


def test_lines_keep_where_a_program_begins_and_how_long_it_runs() -> None:
    """Two rounds of a loop whose start is in the middle: sub x0, x0, #1; cbz x0, +2; b -2; svc"""
    words = (0xD1000400, retarget(0xB4000000, 2), retarget(0x14000000, -2), SVC)
    made = Trial()
    case = Case(words, {"x0": 2}, address=CODE + 0x204, before=1)
    line = made.line(case)
    assert parse(line).case == replace(case, steps=9)
    assert "stop=syscall" in line
    assert parse(line).expected.registers["x0"] == 0
    for engine in ("interpreter", "baseline", "unicorn"):
        assert made.alone(parse(line).case, Mode(), engine) == []


def test_a_program_that_does_not_end_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """`b .` where the reference engine is told to have stopped: the engine is asked to stop as well, and told on."""
    monkeypatch.setattr(trial, "PATIENCE", 0.1)
    made = Trial()
    case = Case((0x14000000,), {}, bytes(1 << 16))
    made.load([case], Mode(), ["baseline"])
    stopped = made.machine("reference").run(case, pack({}), 1)._replace(stop="syscall")
    ((engine, wrong),) = made.differences(case, Mode(), ["baseline"], [stopped])
    assert (engine, wrong[0]) == ("baseline", "stop: expected syscall, found poll")


def test_a_fault_differs_by_its_address_too(reference: Machine) -> None:
    """ldr x1, [x0]: the same stop at another address is no other result only if nobody looks."""
    case = Case((0xF9400001,), {"x0": DATA - 8})
    reference.load([case], Mode())
    found = [reference.run(case, pack({"x0": address}), LIMIT) for address in (DATA - 8, DATA - 16)]
    assert [result.value for result in found] == [DATA - 8, DATA - 16]
    assert between_ours(found[0], found[1], Mode())[0] == f"value: expected {DATA - 8:#x}, found {DATA - 16:#x}"
