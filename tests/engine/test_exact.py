"""Budgets, breakpoints, watchpoints and stops are exact on every engine, also in code that is translated and hot.

Each program runs with every budget from 1 on; where it stops, and with what state, has to be what the reference engine
says, which looks between any two instructions.
"""

from __future__ import annotations

import signal
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import dbt
from dbt.run import ENGINES
from tests.threads import when_stored

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, DATA, SIZE = 0x10000, 0x40000, 0x1000
SVC = 0xD4000001
NATIVE = tuple(engine for engine in ENGINES if engine != "reference")
JOINED = "superinstructions"
HOT = 10  # entries of a block before it becomes a region, here


class Program(NamedTuple):
    """Code, where x0 (rounds) and x1 (an address) start from, and what else is in registers."""

    words: tuple[int, ...]
    x0: int = 12
    x1: int = DATA
    others: tuple[tuple[str, int], ...] = ()


PROGRAMS = {
    "calls": Program((
        0x94000005, 0xAB030084, 0xF1000400, 0x54FFFFA1, SVC,  # bl f; adds x4, x4, x3; subs x0, x0, #1; b.ne; svc
        0x91000C63, 0xF101907F, 0x9A848065, 0xD65F03C0,  # f: add x3, x3, #3; cmp x3, #100; csel x5, x3, x4, hi; ret
    )),
    "fault": Program(  # ldr x2, [x1], #8; add x3, x3, x2; subs x0, x0, #1; b.ne; svc
        (0xF8408422, 0x8B020063, 0xF1000400, 0x54FFFFA1, SVC), x1=DATA + SIZE - 64
    ),
    "alignment": Program((  # add x3, x3, #1; add x1, x1, #4; ldar x2, [x1]; eor x3, x3, x2; subs x0, x0, #1; b.ne; svc
        0x91000463, 0x91001021, 0xC8DFFC22, 0xCA020063, 0xF1000400, 0x54FFFF61, SVC,
    ), x1=DATA + 4),
    "unimplemented": Program(  # add x3, x3, #1; msr fpcr, x1; add x1, x1, x5; subs x0, x0, #1; b.ne; svc
        (0x91000463, 0xD51B4401, 0x8B050021, 0xF1000400, 0x54FFFF81, SVC), x1=0, others=(("x5", 1 << 22),)
    ),
    "undefined": Program((0x91000463, 0xF1000400, 0x54FFFFC1, 0x91000463, 0x00000000, SVC)),  # …; udf
    "breakpoint": Program((0x91000463, 0xF1000863, 0xD42000E0, SVC)),  # add x3, x3, #1; subs x3, x3, #2; brk #7
    "system calls": Program((0x91000463, SVC, 0xF1000400, 0x54FFFFA1, 0xD4200020)),  # add; svc; subs; b.ne; brk #1
    "self-modifying": Program((  # str w2, [x1]; ic ivau, x1; isb; add x3, x3, #1; eor w2, w2, w4; subs; b.ne; svc
        0xB9000022, 0xD50B7521, 0xD5033FDF, 0x91000463, 0x4A040042, 0xF1000400, 0x54FFFF41, SVC,
    ), x1=CODE + 12, others=(("x2", 0x91000463), ("x4", 0x91000463 ^ 0x91001063))),
    "nowhere": Program((0x91000463, 0xD61F0060)),  # add x3, x3, #1; br x3
}  # fmt: skip
LOOP = Program((0x91000463, 0xF9400022, 0x8B020084, 0xF9000424, 0xF1000400, 0x54FFFF61, SVC))
STORE = CODE + 12  # add x3, x3, #1; ldr x2, [x1]; add x4, x4, x2; str x4, [x1, #8]; subs x0, x0, #1; b.ne; svc


def opened(engine: str) -> dbt.CPU:
    """A CPU whose engine makes regions early, or superinstructions at once (`engine` is JOINED)."""
    cpu = dbt.open_cpu(engine="interpreter" if engine == JOINED else engine)
    cpu.memory.map(CODE, 0x1000, "rwx")
    cpu.memory.map(DATA, SIZE)
    baseline: Any = cpu._cpu.baseline
    if engine == "optimizer":
        baseline.ctx.threshold = HOT
    if engine == JOINED:
        baseline.ctx.threshold = 0
        baseline.short_budget = baseline.exact_tail  # what is longer runs in whole blocks, up to this
    return cpu


def settle(cpu: dbt.CPU) -> None:
    """Wait for superinstructions, where there are any to come."""
    joiner = getattr(cpu._cpu.baseline, "joiner", None)
    if joiner is not None:
        joiner.finish()


def start(cpu: dbt.CPU, program: Program) -> None:
    """Everything as at the beginning."""
    code = struct.pack(f"<{len(program.words)}I", *program.words)
    if cpu.memory.read(CODE, len(code)) != code:
        cpu.memory.write(CODE, code)
    cpu.memory.write(DATA, struct.pack("<512Q", *range(3, 515)))
    cpu.registers.update(dict.fromkeys(cpu.registers, 0))
    cpu.registers.update({"pc": CODE, "x0": program.x0, "x1": program.x1, **dict(program.others)})


def state(cpu: dbt.CPU) -> tuple[object, ...]:
    return dict(cpu.registers), cpu.memory.read(CODE, 64), cpu.memory.read(DATA, SIZE)


def run(cpu: dbt.CPU, program: Program, budget: int) -> tuple[object, ...]:
    """What happens in `budget` instructions, and what there is then."""
    start(cpu, program)
    before, stops = cpu.executed, []
    while (left := budget - (cpu.executed - before)) > 0:
        stops.append(cpu.run(budget=left))
        if not isinstance(stops[-1], dbt.SystemCall) or cpu.executed == before:
            break
    return (*stops, cpu.executed - before, *state(cpu))


@pytest.fixture(params=(*NATIVE, JOINED))
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with opened(request.param) as cpu:
        yield cpu


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_budget(cpu: dbt.CPU, name: str) -> None:
    program = PROGRAMS[name]
    with opened("reference") as reference:
        start(cpu, program)
        while isinstance(cpu.run(), dbt.SystemCall) and cpu.registers["x0"]:
            pass  # translated once, and hot where there is anything hot
        settle(cpu)
        budgets = [*range(1, 70), *range(95, 100)]
        if name == "calls":
            program = program._replace(x0=1 << 20)
            budgets += range(600, 610)
        for budget in budgets:
            assert run(cpu, program, budget) == run(reference, program, budget), budget


def test_budgets_one_after_another(cpu: dbt.CPU) -> None:
    program = PROGRAMS["calls"]._replace(x0=1 << 30)
    with opened("reference") as reference:
        start(cpu, program)
        start(reference, program)
        for budget in (1, 7, 300, 2, 1000, 64, 65, 63, 257, 1):
            before = cpu.executed
            assert cpu.run(budget=budget) == reference.run(budget=budget)
            assert cpu.executed - before == budget
            assert state(cpu) == state(reference)


def hot(cpu: dbt.CPU) -> None:
    """Run the loop until it is as fast as it gets."""
    start(cpu, LOOP._replace(x0=1000))
    assert isinstance(cpu.run(), dbt.SystemCall)
    settle(cpu)
    if cpu.engine == "optimizer":
        baseline: Any = cpu._cpu.baseline
        assert baseline.compiled


@pytest.mark.parametrize("place", range(6))
def test_breakpoints_in_hot_code(cpu: dbt.CPU, place: int) -> None:
    hot(cpu)
    start(cpu, LOOP)
    address = CODE + 4 * place
    with opened("reference") as reference:
        start(reference, LOOP)
        for _ in range(5):
            found = cpu.run(until=address)
            assert found == reference.run(until=address) == dbt.Reached(address)
            assert state(cpu) == state(reference)


def test_watchpoints_in_hot_code(cpu: dbt.CPU) -> None:
    hot(cpu)
    start(cpu, LOOP)
    watch = cpu.watch(DATA + 8, 8)
    for rounds in range(1, 5):
        assert cpu.run() == dbt.Watched(STORE + 4, DATA + 8, 8, "write", STORE)
        assert (cpu.registers["x3"], cpu.registers["x0"]) == (rounds, LOOP.x0 - rounds + 1)
    watch.remove()
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x3"] == LOOP.x0


def consistent(cpu: dbt.CPU, rounds: int) -> None:
    """The state is one that the loop has between two instructions: the reference engine goes on from there alone."""
    done = cpu.registers["x3"]
    assert 0 < done < rounds
    with opened("reference") as reference:
        start(reference, LOOP._replace(x0=rounds))
        reference.registers.update({"x0": rounds - done + 1, "x3": done - 1, "x4": 3 * (done - 1)})
        reference.memory.write(DATA + 8, struct.pack("<Q", 3 * (done - 1) or 4))
        for _ in range(8):
            if reference.registers["pc"] == cpu.registers["pc"] and reference.registers["x3"] == done:
                break
            reference.step()
        names = ("pc", "x0", "x2", "x3", "x4")
        assert [cpu.registers[name] for name in names] == [reference.registers[name] for name in names]
        assert cpu.memory.read(DATA, SIZE) == reference.memory.read(DATA, SIZE)
    cpu.registers["x0"] -= rounds - done - 3 if cpu.registers["x0"] > 3 else 0  # not all of them


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_stops_from_outside(cpu: dbt.CPU, how: str) -> None:
    hot(cpu)
    rounds = 1 << 40
    start(cpu, LOOP._replace(x0=rounds))
    if how == "stop":
        thread = when_stored(cpu, DATA + 8, cpu.stop)
        assert isinstance(cpu.run(), dbt.Interrupted)
    else:
        main = threading.main_thread().ident
        assert main is not None
        thread = when_stored(cpu, DATA + 8, lambda: signal.pthread_kill(main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            cpu.run()
    thread.join()
    consistent(cpu, rounds)
    assert isinstance(cpu.run(), dbt.SystemCall)
