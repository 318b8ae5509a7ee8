"""Regions of the optimizer engine: they are made, left, invalidated, and agree with the other engines."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dbt.guests import GUESTS

import dbt
from dbt.engine.cache import open_store
from dbt.engine.cpu import Cpu
from dbt.engine.layout import EXIT_UNTIL

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, DATA = 0x10000, 0x40000
SVC = 0xD4000001
# x0 rounds: ldr x2, [x1]; add x3, x3, x2; str x3, [x1, #8]; subs x0, x0, #1; b.ne to the start; svc
LOOP = (0xF9400022, 0x8B020063, 0xF9000423, 0xF1000400, 0x54FFFF81, SVC)
# The same with x1 moving on by 8 in each round, so that it faults at the end of its page: ldr x2, [x1], #8
WALK = (0xF8408422, 0x8B020063, 0xF1000400, 0x54FFFFA1, SVC)


@pytest.fixture
def cpu() -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine="optimizer") as cpu:
        cpu.memory.map(CODE, 0x2000, "rwx")
        cpu.memory.map(DATA, 0x4000)
        engine(cpu).ctx.threshold = 300
        yield cpu


def engine(cpu: dbt.CPU) -> Any:
    """The engine below."""
    return cpu._cpu.baseline


def load(cpu: dbt.CPU, *code: int) -> None:
    cpu.memory.write(CODE, struct.pack(f"<{len(code)}I", *code))


def start(cpu: dbt.CPU, rounds: int) -> object:
    cpu.registers.update({"x0": rounds, "x1": DATA, "x3": 0})
    return cpu.run(CODE)


def test_a_hot_loop_becomes_a_region(cpu: dbt.CPU) -> None:
    load(cpu, *LOOP)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    assert isinstance(start(cpu, 5000), dbt.SystemCall)
    assert cpu.registers["x3"] == 15000
    assert cpu.memory.read(DATA + 8, 8) == struct.pack("<Q", 15000)
    assert engine(cpu).compiled == 1


def test_registers_and_pc_at_a_fault_in_a_loop(cpu: dbt.CPU) -> None:
    load(cpu, *WALK)
    found = start(cpu, 1 << 20)
    assert found == dbt.MemoryFault(CODE, DATA + 0x4000, "read")
    assert engine(cpu).compiled == 1
    rounds = 0x4000 // 8
    assert cpu.registers["x0"] == (1 << 20) - rounds
    assert cpu.registers["x1"] == DATA + 0x4000
    assert cpu.registers["nzcv"] == 0x20000000
    cpu.memory.map(DATA + 0x4000, 0x1000)
    assert cpu.run() == dbt.MemoryFault(CODE, DATA + 0x5000, "read")


# str x2, [x1]; add x3, x3, x2; ldr x4, [x5]; add x3, x3, x4; add x6, x6, #1; str x3, [x7]; subs x8, x8, x3;
# str x6, [x9]; csel x10, x8, x3, ne; str x10, [x11]; svc
ACCESSES = (
    0xF9000022, 0x8B020063, 0xF94000A4, 0x8B040063, 0x910004C6, 0xF90000E3, 0xEB030108, 0xF9000126, 0x9A83110A,
    0xF900016A, SVC,
)  # fmt: skip


@pytest.mark.parametrize("wrong", ["x1", "x5", "x7", "x9", "x11", ""])
def test_each_access_of_a_block_lands_with_its_own_state(cpu: dbt.CPU, wrong: str) -> None:
    """The landings of a block share code; which registers that writes is another matter at each of them."""
    engine(cpu).ctx.threshold = 0
    found = []
    with dbt.open_cpu(engine="reference", address_bits=40) as plain:
        plain.memory.map(CODE, 0x2000, "rwx")
        plain.memory.map(DATA, 0x4000)
        for one in (cpu, plain):
            load(one, *ACCESSES)
            one.registers.update({f"x{number}": 1000 * number for number in range(31)})
            one.registers.update({f"x{number}": DATA + 8 * number for number in (1, 5, 7, 9, 11)})
            if wrong:
                one.registers[wrong] = 0x90000
            found.append((one.run(CODE), dict(one.registers), one.memory.read(DATA, 0x4000)))
    assert found[0] == found[1]
    assert isinstance(found[0][0], dbt.MemoryFault if wrong else dbt.SystemCall)
    assert engine(cpu).compiled == 1


def test_regions_of_several_blocks_at_once(cpu: dbt.CPU) -> None:
    load(cpu, *LOOP, *ACCESSES)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    engine(cpu).foresee({CODE: (), CODE + 4 * len(LOOP): (), CODE + 0x8000: ()})
    assert engine(cpu).compiled == 2
    assert isinstance(start(cpu, 5000), dbt.SystemCall)
    assert cpu.registers["x3"] == 15000
    assert engine(cpu).compiled == 2
    engine(cpu).foresee({CODE: ()})
    assert engine(cpu).compiled == 2


# adr x5, there; again: and x2, x0, #8; add x6, x5, x2; br x6; there: b one; nop; add x3, x3, #2; b on;
# one: add x3, x3, #1; on: subs x0, x0, #1; b.ne again; svc. Both ways come out of an indirect jump.
SWITCH = (
    0x10000085, 0x927D0002, 0x8B0200A6, 0xD61F00C0, 0x14000004, 0xD503201F, 0x91000863, 0x14000002,
    0x91000463, 0xF1000400, 0x54FFFEE1, SVC,
)  # fmt: skip


def test_an_indirect_jump_stays_in_its_region(cpu: dbt.CPU) -> None:
    load(cpu, *SWITCH)
    start(cpu, 5000)
    assert cpu.registers["x3"] == sum(2 if n & 8 else 1 for n in range(1, 5001))
    assert {CODE + 16, CODE + 24} <= set(engine(cpu)._profile().reached)
    inside = [{at for first, last in placed.ranges for at in range(first, last, 4)} for placed in engine(cpu)._placed]
    assert any({CODE + 8, CODE + 16, CODE + 24} <= addresses for addresses in inside)


@pytest.mark.parametrize("threshold", [0, 3, 300])
def test_a_poll_is_seen_in_a_loop_of_indirect_jumps(cpu: dbt.CPU, threshold: int) -> None:
    """adr x5, #0; br x5, to the adr itself, and a stop from another thread."""
    engine(cpu).ctx.threshold = threshold
    load(cpu, 0x10000005, 0xD61F00A0)
    timer = threading.Timer(0.5, cpu.stop)
    timer.start()
    assert isinstance(cpu.run(CODE), dbt.Interrupted)
    timer.join()


def test_new_code_takes_the_place_of_a_region(cpu: dbt.CPU) -> None:
    load(cpu, *LOOP)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    start(cpu, 5000)
    cpu.memory.write(CODE + 4, struct.pack("<I", 0xCB020063))  # sub x3, x3, x2
    start(cpu, 5000)
    assert cpu.registers["x3"] == (-15000) % (1 << 64)
    assert engine(cpu).compiled == 2


def test_a_region_comes_back_after_a_flush(cpu: dbt.CPU) -> None:
    load(cpu, *LOOP)
    start(cpu, 5000)
    engine(cpu).flush()
    start(cpu, 5000)
    assert engine(cpu).compiled == 1


def test_all_flags_are_there_at_a_stop_address() -> None:
    """A region must not think that what stands at a stop, which nobody has run, has the last word on flags."""
    code = struct.pack("<4I", 0xEB02003F, 0xD503201F, 0xEB04007F, SVC)  # cmp x1, x2; nop; cmp x3, x4; svc
    cpu = Cpu(engine="optimizer", store=open_store(quiet=True))
    try:
        cpu.memory.map(CODE, 0x1000, 7)
        cpu.memory.write(CODE, code)
        assert cpu.baseline is not None
        cpu.baseline.ctx.threshold = 0
        cpu.set_stops({CODE + 8})
        cpu.set_reg("x2", 1)
        cpu.set_reg("pc", CODE)
        assert (cpu.run(), cpu.reg("pc")) == (EXIT_UNTIL, CODE + 8)
        assert cpu.baseline.statistics()["regions compiled"] == 1
        assert cpu.reg("nzcv") == 0x8000_0000
    finally:
        cpu.close()


# ldclr xzr, x2, [x1]; ldset wzr, w2, [x1]; ldadd xzr; ldeor xzr; ldclrh wzr; stumaxb wzr: with 0, which changes nothing
@pytest.mark.parametrize("word", [0xF83F1022, 0xB83F3022, 0xF83F0022, 0xF83F2022, 0x783F103F, 0x383F603F])
def test_an_atomic_that_changes_nothing_faults_on_read_only_memory(cpu: dbt.CPU, word: int) -> None:
    engine(cpu).ctx.threshold = 0
    load(cpu, word, SVC)
    cpu.memory.protect(DATA, 0x1000, "r")
    assert start(cpu, 0) == dbt.MemoryFault(CODE, DATA, "write")
    assert engine(cpu).compiled == 1


def run_until_compiled(cpu: dbt.CPU, regions: int) -> None:
    """Run the loop, which has to go right each time, until so many regions have come in the background."""
    late = time.monotonic() + 60
    while engine(cpu).compiled < regions:
        start(cpu, 100_000)
        assert cpu.registers["x3"] == 300_000
        assert time.monotonic() < late


def test_the_guest_goes_on_while_a_region_is_made(cpu: dbt.CPU, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(cpu).background = True
    monkeypatch.setattr(engine(cpu), "_wait", pytest.fail)
    load(cpu, *LOOP)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    start(cpu, 5000)
    assert engine(cpu)._pending is not None
    assert CODE in engine(cpu)._profile().warm  # though it is counted again
    assert cpu.registers["x3"] == 15000
    run_until_compiled(cpu, 1)
    assert engine(cpu)._pending is None
    assert len(engine(cpu)._placed) == 1


def test_a_region_that_comes_too_late_is_not_placed(cpu: dbt.CPU) -> None:
    engine(cpu).background = True
    load(cpu, *LOOP)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    start(cpu, 5000)
    promotion = engine(cpu)._pending[3]
    late = time.monotonic() + 60
    while not promotion.ready():
        assert time.monotonic() < late
        time.sleep(0.01)
    cpu.memory.write(CODE + 4, struct.pack("<I", 0xCB020063))  # sub x3, x3, x2
    start(cpu, 5000)
    assert cpu.registers["x3"] == (-15000) % (1 << 64)
    late = time.monotonic() + 60
    while engine(cpu).compiled < 2:
        start(cpu, 100_000)
        assert cpu.registers["x3"] == (-300_000) % (1 << 64)
        assert time.monotonic() < late


def test_a_worker_that_ends_in_the_background(cpu: dbt.CPU, capfd: pytest.CaptureFixture[str]) -> None:
    engine(cpu).background = True
    load(cpu, *LOOP)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    start(cpu, 5000)
    engine(cpu)._pending[3]._worker._channel._socket.shutdown(2)
    run_until_compiled(cpu, 1)
    assert capfd.readouterr().err == ""  # the second one did it


def test_a_fork_leaves_the_region_to_its_parent(cpu: dbt.CPU) -> None:
    engine(cpu).background = True
    load(cpu, *LOOP)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    start(cpu, 5000)
    child = os.fork()
    if not child:
        try:
            run_until_compiled(cpu, 1)
        except BaseException:  # noqa: BLE001 - a child of a test may not go on with the tests
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    run_until_compiled(cpu, 1)


def test_what_has_hardly_run_stays_outside(cpu: dbt.CPU) -> None:
    """A loop with a branch that is never taken, to a tail of its own: the region ends there."""
    # ldr x2, [x1]; cbz x2, tail; add x3, x3, x2; subs x0, x0, #1; b.ne to the start; svc; tail: nop x 8; svc
    load(cpu, 0xF9400022, 0xB40000A2, 0x8B020063, 0xF1000400, 0x54FFFF81, SVC, *[0xD503201F] * 8, SVC)
    cpu.memory.write(DATA, struct.pack("<Q", 3))
    start(cpu, 5000)
    assert cpu.registers["x3"] == 15000
    ((_, ranges, _),) = engine(cpu)._known.values()
    assert [(at, len(data)) for at, data in ranges] == [(CODE, 20)]


@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest.ordinary], ids=lambda guest: guest.name)
def test_guests(guest: Any) -> None:
    launcher = Path(sys.executable).with_name("dragoman")
    command = [launcher, "run", "--engine", "optimizer", guest.path, str(guest.ordinary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (guest.ordinary_line, "")
