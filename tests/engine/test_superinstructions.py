"""Superinstructions of the interpreter: made of what is hot, kept, seen through by faults, stops and budgets."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.super_pack import SuperPack
from dbt.backends.llvm.superinstructions import Part, key_of
from dbt.frontends.guest import load_guest

import dbt
from dbt.engine import build, formats, joiner, layout
from dbt.engine.cache import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUEST = load_guest("aarch64")
CODE, DATA, SIZE = 0x10000, 0x40000, 0x1000
SVC = 0xD4000001
# subs x5, x5, #1; ldr x2, [x1], #8; add x3, x3, x2; str x3, [x4]; eor x6, x2, x3; subs x0, x0, #1; b.ne CODE; svc
LOOP = (0xF10004A5, 0xF8408422, 0x8B020063, 0xF9000083, 0xCA030046, 0xF1000400, 0x54FFFF41, SVC)
ROUNDS = 40


def opened(engine: str) -> dbt.CPU:
    cpu = dbt.open_cpu(engine=engine)
    cpu.memory.map(CODE, 0x1000, "rwx")
    cpu.memory.map(DATA, SIZE)
    return cpu


@pytest.fixture
def cpu() -> Iterator[dbt.CPU]:
    """One in which every block is hot."""
    with opened("interpreter") as cpu:
        native(cpu).ctx.threshold = 0
        yield cpu


@pytest.fixture
def reference() -> Iterator[dbt.CPU]:
    with opened("reference") as cpu:
        yield cpu


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be said on standard error."""
    found: list[str] = []
    monkeypatch.setattr(joiner, "say_once", lambda _kind, text, **_: found.append(text))
    return found


def native(cpu: dbt.CPU) -> Any:
    """The engine below."""
    return cpu._cpu.baseline


def start(cpu: dbt.CPU, words: tuple[int, ...] = LOOP, **others: int) -> None:
    """Everything as at the beginning."""
    code = struct.pack(f"<{len(words)}I", *words)
    if cpu.memory.read(CODE, len(code)) != code:
        cpu.memory.write(CODE, code)
    cpu.memory.write(DATA, struct.pack("<512Q", *range(7, 519)))
    cpu.registers.update(dict.fromkeys(cpu.registers, 0))
    cpu.registers.update({"pc": CODE, "x0": ROUNDS, "x1": DATA, "x4": DATA + 8 * 500, "x5": 3, **others})


def make(cpu: dbt.CPU, words: tuple[int, ...] = LOOP) -> None:
    """Run once, and wait for what was hot in it."""
    start(cpu, words)
    assert isinstance(cpu.run(), dbt.SystemCall)
    native(cpu).joiner.finish()


def first_handler(cpu: dbt.CPU, pc: int = CODE) -> str:
    """What the first step of a block is: "super", "hot" (it counts entries), "plain"; not what counts instructions."""
    engine = native(cpu)
    ctx = engine.ctx
    at = engine.runtime.translate_at(cpu._cpu.env_address, pc)
    handler = layout.Step.at(at + (layout.Step.size if ctx.mode & layout.MODE_COUNT else 0)).handler
    if ctx.supers and ctx.supers <= handler < ctx.supers + formats.SuperHead.at(ctx.supers).size:
        return "super"
    special = ctypes.c_uint32.from_address(int(ctx.special) + 4 * formats.SPECIAL_HOT).value
    hot = int(ctx.pack) + special
    return "hot" if handler == hot + formats.StencilHead.at(hot).code else "plain"


def state(cpu: dbt.CPU) -> tuple[object, ...]:
    return dict(cpu.registers), cpu.memory.read(DATA, SIZE)


def test_a_hot_block_becomes_one_step(cpu: dbt.CPU, reference: dbt.CPU) -> None:
    make(cpu)
    for one in (cpu, reference):
        start(one)
        assert isinstance(one.run(), dbt.SystemCall)
    assert state(cpu) == state(reference)
    assert first_handler(cpu) == "super"
    assert native(cpu).statistics()["superinstructions"] >= 1


def test_another_process_finds_them_in_the_cache(cpu: dbt.CPU) -> None:
    make(cpu)
    with opened("interpreter") as other:
        native(other).ctx.threshold = 0
        start(other)
        assert isinstance(other.run(), dbt.SystemCall)
        assert native(other).joiner._worker is None  # nothing was missing
        assert first_handler(other) == "super"


def test_nothing_is_looked_for_before_a_block_is_hot() -> None:
    with opened("interpreter") as cpu:
        start(cpu)
        assert isinstance(cpu.run(), dbt.SystemCall)
        assert native(cpu).joiner is None
        assert first_handler(cpu) == "hot"


@pytest.mark.parametrize("broken", ["load", "store"])
def test_a_fault_in_the_middle_is_exact(cpu: dbt.CPU, reference: dbt.CPU, broken: str) -> None:
    make(cpu)
    address = DATA + SIZE
    others = {"load": {"x1": address - 24}, "store": {"x4": address}}[broken]
    pc = CODE + (4 if broken == "load" else 12)
    for one in (cpu, reference):
        start(one, LOOP, **others)
        assert one.run() == dbt.MemoryFault(pc, address, "read" if broken == "load" else "write")
    assert first_handler(cpu) == "super"
    flags = {"nzcv"}  # of the first subs, which nobody reads: exact for guests that handle faults, see below
    for name in set(cpu.registers) - flags:
        assert cpu.registers[name] == reference.registers[name], name
    for one in (cpu, reference):
        one.memory.map(address, 0x1000)
        assert isinstance(one.run(), dbt.SystemCall)
    assert state(cpu) == state(reference)


def test_flags_are_exact_in_the_middle_where_somebody_may_look(cpu: dbt.CPU, reference: dbt.CPU) -> None:
    cpu._cpu.keep_flags(on=True)
    make(cpu)
    for one in (cpu, reference):
        start(one, x1=DATA + SIZE - 16)
        assert one.run() == dbt.MemoryFault(CODE + 4, DATA + SIZE, "read")
    assert first_handler(cpu) == "super"
    assert cpu.registers["nzcv"] == 0x60000000  # subs x5, x5, #1 in the third round
    assert state(cpu) == state(reference)


@pytest.mark.parametrize("place", range(8))
def test_stops_inside(cpu: dbt.CPU, reference: dbt.CPU, place: int) -> None:
    make(cpu)
    start(cpu)
    start(reference)
    for _ in range(3 if place < 7 else 1):
        assert cpu.run(until=CODE + 4 * place) == reference.run(until=CODE + 4 * place) == dbt.Reached(CODE + 4 * place)
        assert state(cpu) == state(reference)
    native(cpu).joiner.finish()  # of the parts of the block
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_budgets(cpu: dbt.CPU, reference: dbt.CPU) -> None:
    make(cpu)
    native(cpu).short_budget = 64  # what is longer runs in whole blocks, up to its last 64
    for budget in (*range(1, 20), *range(64, 100), 150, 200, 280, 281, 282, 1000):
        for one in (cpu, reference):
            start(one)
        before, others = cpu.executed, reference.executed
        assert cpu.run(budget=budget) == reference.run(budget=budget), budget
        assert cpu.executed - before == reference.executed - others
        assert state(cpu) == state(reference), budget
    assert first_handler(cpu) == "super"


def test_steps_run_one_instruction_each(cpu: dbt.CPU, reference: dbt.CPU) -> None:
    make(cpu)
    for one in (cpu, reference):
        start(one)
    for _ in range(20):
        for one in (cpu, reference):
            one.step()
        assert state(cpu) == state(reference)


def test_new_code_is_not_run_by_an_old_superinstruction(cpu: dbt.CPU, reference: dbt.CPU) -> None:
    make(cpu)
    words = (*LOOP[:4], 0x8B030046, *LOOP[5:])  # add instead of eor
    for one in (cpu, reference):
        start(one, words)
        assert isinstance(one.run(), dbt.SystemCall)
    assert state(cpu) == state(reference)
    native(cpu).joiner.finish()
    start(cpu, words)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert state(cpu) == state(reference)
    assert first_handler(cpu) == "super"


def test_a_plugin_sees_every_instruction(cpu: dbt.CPU) -> None:
    make(cpu)
    seen: list[int] = []
    hook = cpu.on_instruction(lambda entry: seen.append(entry.pc))
    start(cpu)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert len(seen) == 7 * ROUNDS + 1
    hook.remove()
    start(cpu)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert len(seen) == 7 * ROUNDS + 1
    assert first_handler(cpu) == "super"


def test_a_damaged_file_is_begun_anew(cpu: dbt.CPU, said: list[str]) -> None:
    make(cpu)
    store = native(cpu).store
    path = store.path("aarch64.superinstructions")
    with open(path, "r+b") as file:
        file.seek(-80, os.SEEK_END)
        file.write(b"\xff" * 8)
    with opened("interpreter") as other:
        native(other).ctx.threshold = 0
        make(other)
        start(other)
        assert isinstance(other.run(), dbt.SystemCall)
        assert first_handler(other) == "super"
    assert any("damaged" in line for line in said)
    with open(path, "rb") as file:
        assert SuperPack.parse(file.read(), path, store.stamp).keys()


def test_a_child_process_asks_for_itself(cpu: dbt.CPU) -> None:
    words = (*LOOP[:4], 0xCA030047, *LOOP[5:])  # other registers: nobody has asked for it
    engine = native(cpu)
    start(cpu, words)
    assert isinstance(cpu.run(), dbt.SystemCall)
    child = os.fork()
    if not child:
        try:
            make(cpu, words)
            start(cpu, words)
            cpu.run()
            os._exit(0 if first_handler(cpu) == "super" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.joiner.finish()


def test_without_a_compiler_it_goes_on(cpu: dbt.CPU, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def none(_store: Store) -> build.Worker:
        raise build.WorkerEnded("no process")

    monkeypatch.setattr(build, "take_worker", none)
    words = (*LOOP[:4], 0xCA030048, *LOOP[5:])
    for _ in range(joiner.DEATHS + 1):
        start(cpu, words)
        assert isinstance(cpu.run(), dbt.SystemCall)
        native(cpu).flush()
    assert first_handler(cpu) == "plain"  # and nothing is counted any more
    assert [line for line in said if "without more superinstructions" in line and "no process" in line]


def test_a_worker_that_ends_is_asked_again(cpu: dbt.CPU) -> None:
    words = (*LOOP[:4], 0xCA030049, *LOOP[5:])
    start(cpu, words)
    assert isinstance(cpu.run(), dbt.SystemCall)
    worker = native(cpu).joiner._worker
    assert worker is not None
    worker._channel._socket.shutdown(socket.SHUT_RDWR)
    native(cpu).joiner.finish()
    start(cpu, words)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert first_handler(cpu) == "super"


def test_what_the_worker_says_is_told(cpu: dbt.CPU, said: list[str]) -> None:
    make(cpu)
    found = native(cpu).joiner
    found._guest = "nobody"
    found._wanted[b"x"] = None
    found.finish()
    assert found._given_up
    assert [line for line in said if "KeyError: 'nobody'" in line]


def test_without_a_cache_they_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbt.engine.cache.open_store", lambda: Store(quiet=True, files=False))
    with opened("interpreter") as cpu:
        native(cpu).ctx.threshold = 0
        make(cpu)
        start(cpu)
        assert isinstance(cpu.run(), dbt.SystemCall)
        assert first_handler(cpu) == "super"
        assert "aarch64.superinstructions" in native(cpu).store.kept


def key(*words: int) -> bytes:
    """What a superinstruction of these instructions is known by; none of them branches."""
    decoded = [GUEST.tables.decode(word, CODE) for word in words]
    parts = [
        (d.form.id * layout.VARIANTS, (*d.r, *[0] * layout.TOKENS)[: layout.TOKENS], d.imm, d.target) for d in decoded
    ]
    return key_of(Part(*part) for part in parts)


def test_what_was_asked_for_is_made_for_the_next_process(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = Store(str(tmp_path), quiet=True)
    wanted = [key(0x91000463 + i, 0x8B030063) for i in range(5)]  # add x3 + i, x3, #1; add x3, x3, x3
    worker = build.take_worker(store)
    for one in wanted:
        worker.send(("superinstructions", "aarch64", (one,), {}))
    build.give_back(worker, broken=True)  # nobody waits for answers
    path = store.path("aarch64.superinstructions")
    until = time.monotonic() + 60
    found: set[bytes] = set()
    while time.monotonic() < until and found != set(wanted):
        time.sleep(0.05)
        if os.path.exists(path):
            with open(path, "rb") as file:
                found = SuperPack.parse(file.read(), path, store.stamp).keys()
    assert found == set(wanted)


def test_other_requests_come_in_between(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = Store(str(tmp_path), quiet=True)
    worker = build.take_worker(store)
    first, second = key(0x91000463, 0x8B030063), key(0x91000464, 0x8B030063)
    worker.send(("superinstructions", "aarch64", (first,), {}))
    worker.send(("jobs", [("tables", "aarch64")], {}))
    worker.send(("superinstructions", "aarch64", (second,), {}))
    kinds: list[str] = []
    while kinds.count("done") < 3:
        kinds.append(worker.receive()[0])
    assert set(kinds) <= {"done", "progress"}
    build.give_back(worker)
    with open(store.path("aarch64.superinstructions"), "rb") as file:
        assert SuperPack.parse(file.read(), "it", store.stamp).keys() == {first, second}
