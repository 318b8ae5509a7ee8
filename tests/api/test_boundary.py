"""Tools that come and go while the guest runs: from callbacks and from other threads, into code that is hot already."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dbt.guests
import pytest

import dbt
from dbt.errors import UserError
from dbt.run import ENGINES
from tests.threads import when_stored

from .conftest import CODE, DATA, SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

SVC = 0xD4000001
# x0 rounds: add x3, x3, #1; ldr x2, [x1]; add x4, x4, x2; str x4, [x1, #8]; subs x0, x0, #1; b.ne; svc
LOOP = (0x91000463, 0xF9400022, 0x8B020084, 0xF9000424, 0xF1000400, 0x54FFFF61, SVC)
LOAD, STORE, END = CODE + 4, CODE + 12, CODE + 24
FOREVER = 1 << 62
HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, SIZE)
        cpu.memory.write(CODE, struct.pack(f"<{len(LOOP)}I", *LOOP))
        native: Any = cpu._cpu.baseline
        if request.param == "optimizer":
            native.ctx.threshold = 10
        begin(cpu, 500)
        assert isinstance(cpu.run(), dbt.SystemCall)
        yield cpu


def begin(cpu: dbt.CPU, rounds: int = FOREVER) -> None:
    cpu.memory.write(DATA, struct.pack("<QQ", 3, 0))
    cpu.registers.update({**dict.fromkeys(cpu.registers, 0), "pc": CODE, "x0": rounds, "x1": DATA})


def consistent(cpu: dbt.CPU, place: int) -> int:
    """The state is that of the loop before the instruction at `place`; how many rounds have begun."""
    pc, x0, x2, x3, x4 = (cpu.registers[name] for name in ("pc", "x0", "x2", "x3", "x4"))
    index = (place - CODE) // 4
    rounds = x3 - (index > 0) + 1  # this one included
    assert pc == place
    assert x0 == FOREVER - rounds + 1 - (index > 4)
    assert x2 == (3 if rounds > 1 or index > 1 else 0)
    assert x4 == 3 * (rounds - (index <= 2))
    assert struct.unpack("<Q", cpu.memory.read(DATA + 8, 8))[0] == 3 * (rounds - (index <= 3))
    return rounds


@pytest.mark.parametrize("place", [CODE, LOAD, STORE, CODE + 20])
def test_a_breakpoint_from_another_thread(cpu: dbt.CPU, place: int) -> None:
    for _ in range(3):
        begin(cpu)
        stops: list[Any] = []
        thread = when_stored(cpu, DATA + 8, lambda: stops.append(cpu.break_at(place)))  # noqa: B023 - joined in this round
        assert cpu.run() == dbt.Reached(place)
        thread.join()
        rounds = consistent(cpu, place)
        assert cpu.run() == dbt.Reached(place)
        assert consistent(cpu, place) == rounds + 1
        stops[0].remove()
    begin(cpu, 50)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_a_watchpoint_from_another_thread(cpu: dbt.CPU) -> None:
    for before in (False, True):
        begin(cpu)
        watches: list[Any] = []
        thread = when_stored(cpu, DATA + 8, lambda: watches.append(cpu.watch(DATA + 8, 8, before=before)))  # noqa: B023
        pc = STORE if before else STORE + 4
        assert cpu.run() == dbt.Watched(pc, DATA + 8, 8, "write", STORE)
        thread.join()
        consistent(cpu, pc)
        watches[0].remove()


def test_a_hook_from_another_thread_and_its_end(cpu: dbt.CPU) -> None:
    begin(cpu)
    seen: list[object] = []
    hooks: list[Any] = []
    thread = when_stored(cpu, DATA + 8, lambda: hooks.append(cpu.on_instruction(seen.append, STORE, STORE + 4)))

    def end() -> None:
        while len(seen) < 100:
            time.sleep(0.001)
        hooks[0].remove()
        before = cpu.memory.read(DATA + 8, 8)
        while cpu.memory.read(DATA + 8, 8) == before:
            time.sleep(0.001)
        cpu.stop()

    other = threading.Thread(target=end)
    other.start()
    assert isinstance(cpu.run(), dbt.Interrupted)
    thread.join()
    other.join()
    known = len(seen)
    assert set(seen) == {dbt.InstructionEntry(STORE, struct.pack("<I", LOOP[3]))}
    begin(cpu, 50)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert len(seen) == known


def test_everything_in_callbacks(cpu: dbt.CPU) -> None:
    """A breakpoint, and a watchpoint, that a callback sets take effect behind its instruction."""
    for place in (LOAD, STORE, CODE + 16):
        begin(cpu)
        calls = 0

        def callback(_entry: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 20:
                made.append(cpu.break_at(place))  # noqa: B023 - called in this round
                made.append(cpu.watch(DATA, 8, "read"))  # noqa: B023

        made: list[Any] = [cpu.on_instruction(callback, CODE, CODE + 4)]
        if place != LOAD:
            assert cpu.run() == dbt.Watched(LOAD + 4, DATA, 8, "read", LOAD)
            assert consistent(cpu, LOAD + 4) == 20
        assert cpu.run() == dbt.Reached(place)
        assert consistent(cpu, place) == 20
        for each in made:
            each.remove()
    begin(cpu, 50)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_in_a_device(cpu: dbt.CPU) -> None:
    """A device's function stops the guest behind its access."""
    stops: list[Any] = []

    def read(_offset: int, _size: int) -> int:
        if not stops:
            stops.append(cpu.break_at(STORE))
        return 3

    begin(cpu)
    cpu.registers["x1"] = 0x900000 - 8
    cpu.memory.map(0x8FF000, 0x2000)
    with_device = cpu.memory.map_io(0x8FF000, 0x1000, read=read)
    assert cpu.run() == dbt.Reached(STORE)
    assert (cpu.registers["x2"], cpu.registers["x4"]) == (3, 3)
    stops[0].remove()
    with_device.remove()


def test_nobody_notices_what_does_not_concern_it(cpu: dbt.CPU) -> None:
    """Breakpoints, watchpoints and hooks elsewhere come and go all the time: the run is what it is without."""
    begin(cpu)
    done = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not done.is_set():
            made: list[Any] = [cpu.break_at(END + 4), cpu.watch(DATA + 0x2000, 8), cpu.on_block(print, END + 8)]
            for each in made:
                each.remove()
            changes += 1
            time.sleep(0.002)

    thread = when_stored(cpu, DATA + 8, change)
    budget = 1 << (18 if cpu.engine == "reference" else 24)
    try:
        before, left = cpu.executed, budget
        while changes < 5:
            assert cpu.run(budget=budget) == dbt.BudgetSpent(cpu.registers["pc"])
            left += budget
        left -= budget
    finally:
        done.set()
        thread.join()
    assert cpu.executed - before == left
    assert consistent(cpu, CODE + 4 * (left % 6)) == left // 6 + 1


def test_a_cpu_is_one_threads(cpu: dbt.CPU) -> None:
    begin(cpu)
    said: list[str] = []

    def meddle() -> None:
        for call in (
            cpu.run,
            cpu.step,
            cpu.snapshot,
            lambda: cpu.memory.map(0x800000, 0x1000),
            lambda: cpu.memory.protect(DATA, 0x1000, "r"),
            lambda: cpu.memory.unmap(CODE, 0x1000),
        ):
            try:
                call()
            except UserError as error:
                said.append(str(error))
        cpu.stop()

    thread = when_stored(cpu, DATA + 8, meddle)
    assert isinstance(cpu.run(), dbt.Interrupted)
    thread.join()
    assert len(said) == 6
    assert all("another thread" in text for text in said)
    consistent(cpu, cpu.registers["pc"])


def test_code_written_by_another_thread(cpu: dbt.CPU) -> None:
    begin(cpu)
    thread = when_stored(
        cpu, DATA + 8, lambda: cpu.memory.write(CODE + 16, struct.pack("<I", SVC))
    )  # in place of the subs
    assert isinstance(cpu.run(), dbt.SystemCall)
    thread.join()
    assert cpu.registers["pc"] == CODE + 20


def test_two_breakpoints_at_one_place(cpu: dbt.CPU) -> None:
    begin(cpu)
    first, second = cpu.break_at(STORE), cpu.break_at(STORE)
    first.remove()
    first.remove()
    assert cpu.run() == dbt.Reached(STORE)
    second.remove()
    begin(cpu, 5)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_a_breakpoint_beside_a_watchpoint(cpu: dbt.CPU) -> None:
    """The guest goes on from a place that is both."""
    begin(cpu)
    stop, watch = cpu.break_at(STORE), cpu.watch(DATA + 8, 8)
    for rounds in range(1, 4):
        assert cpu.run() == dbt.Reached(STORE)
        assert consistent(cpu, STORE) == rounds
        assert cpu.run() == dbt.Watched(STORE + 4, DATA + 8, 8, "write", STORE)
        assert consistent(cpu, STORE + 4) == rounds
    stop.remove()
    watch.remove()


def test_stops_cost_nothing_where_they_are_not(cpu: dbt.CPU) -> None:
    """Code that no breakpoint is in is neither forgotten nor translated again, however often the guest stops."""
    native: Any = cpu._cpu.baseline
    if native is None:
        return
    begin(cpu)
    stop = cpu.break_at(END)
    for _ in range(30):
        cpu.run(until=STORE)  # everything that there is to do, including regions round it
        cpu.step()
    before = native.statistics()
    for _ in range(100):
        assert cpu.run(until=STORE) == dbt.Reached(STORE)
        cpu.step()
    after = native.statistics()
    assert after["flushes"] == before["flushes"]
    assert after["guest instructions translated"] == before["guest instructions translated"]
    stop.remove()


@pytest.mark.parametrize("engine", ENGINES)
def test_programs(engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A hook on a system call sets a breakpoint behind it, and a watchpoint."""
    with dbt.open_program(HELLO, engine=engine) as program:

        def hook(call: dbt.SystemCall) -> None:
            if call.number == 64:
                stops.append(program.break_at(call.pc))

        stops: list[Any] = []
        program.on_system_call(hook)
        found = program.run()
        assert found == dbt.Reached(stops[0].address)
        assert capfd.readouterr().out == "hello from AArch64\n"
        assert program.run() == dbt.Exited(0)
