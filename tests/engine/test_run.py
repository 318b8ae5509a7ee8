"""Engines at work on small programs: results, exits, budgets, stops and faults, all engines alike."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

import pytest

import dbt
from dbt.engine import layout
from dbt.errors import UserError
from tests.threads import ctrl_c

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = ("baseline", "optimizer", "interpreter", "reference")
CODE, DATA = 0x10000, 0x40000

NOP = 0xD503201F
SVC = 0xD4000001
RET = 0xD65F03C0
SELF = 0x14000000  # b .
COUNT_DOWN = (0xF1000400, 0x54FFFFE1)  # subs x0, x0, #1; b.ne to it


def words(*code: int) -> bytes:
    return struct.pack(f"<{len(code)}I", *code)


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x2000, "rwx")
        cpu.memory.map(DATA, 0x1000)
        yield cpu


def load(cpu: dbt.CPU, *code: int) -> None:
    cpu.memory.write(CODE, words(*code))


def test_a_loop_and_a_system_call(cpu: dbt.CPU) -> None:
    load(cpu, 0xD2800640, *COUNT_DOWN, SVC)  # mov x0, #50
    cpu.registers["x8"] = 64
    cpu.registers["x1"] = 7
    found = cpu.run(CODE)
    assert found == dbt.SystemCall(CODE + 16, 64, (0, 7, 0, 0, 0, 0))
    assert cpu.registers["nzcv"] == 0x60000000


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 63, 64, 65, 100, 101])
def test_budgets_are_exact(cpu: dbt.CPU, budget: int) -> None:
    load(cpu, 0xD2800C80, *COUNT_DOWN, SVC)  # mov x0, #100: then 200 instructions
    before = cpu.executed
    assert isinstance(cpu.run(CODE, budget=budget), dbt.BudgetSpent)
    assert cpu.executed - before == budget
    assert cpu.registers["x0"] == 100 - budget // 2
    assert cpu.registers["pc"] == CODE + 4 + 4 * ((budget - 1) % 2)


def test_a_budget_goes_on(cpu: dbt.CPU) -> None:
    load(cpu, 0xD2800C80, *COUNT_DOWN, SVC)
    cpu.registers["pc"] = CODE
    spent = 0
    while isinstance(cpu.run(budget=7), dbt.BudgetSpent):
        spent += 7
    assert spent == 196
    assert cpu.registers["x0"] == 0


def test_stop_addresses(cpu: dbt.CPU) -> None:
    load(cpu, 0xD2800060, *COUNT_DOWN, SVC)  # mov x0, #3
    cpu.registers["pc"] = CODE
    for left in (3, 2, 1):
        assert cpu.run(until=CODE + 4) == dbt.Reached(CODE + 4)
        assert cpu.registers["x0"] == left
    assert isinstance(cpu.run(until=CODE + 4), dbt.SystemCall)
    assert cpu.run(CODE, until=(CODE + 8, CODE + 12)) == dbt.Reached(CODE + 8)


def test_step(cpu: dbt.CPU) -> None:
    load(cpu, 0xD2800060, *COUNT_DOWN)
    cpu.registers["pc"] = CODE
    path = []
    for _ in range(5):
        assert isinstance(cpu.step(), dbt.BudgetSpent)
        path.append(cpu.registers["pc"] - CODE)
    assert path == [4, 8, 4, 8, 4]


# Each kind of access, faulting: code, and whether it writes. x1 is the address, x2 the second register.
ACCESSES = {
    "ldr x0, [x1]": (0xF9400020, False),
    "ldrb w0, [x1]": (0x39400020, False),
    "ldrsw x0, [x1]": (0xB9800020, False),
    "str x0, [x1]": (0xF9000020, True),
    "strh w0, [x1]": (0x79000020, True),
    "ldp x0, x2, [x1]": (0xA9400820, False),
    "stp x0, x2, [x1]": (0xA9000820, True),
    "ldr x0, [x1, #8]!": (0xF8408C20, False),
    "str x0, [x1], #8": (0xF8008420, True),
    "ldr q0, [x1]": (0x3DC00020, False),
    "str q0, [x1]": (0x3D800020, True),
    "ldxr x0, [x1]": (0xC85F7C20, False),
    "ldar x0, [x1]": (0xC8DFFC20, False),
    "stlr x0, [x1]": (0xC89FFC20, True),
}


@pytest.mark.parametrize("name", ACCESSES)
@pytest.mark.parametrize("address", [0, 0x50000, (1 << 46) - 32, 1 << 47, 0x0080_0000_0000_0000, 0xFFFF_FFFF_0000_0000])
def test_faults_leave_everything_as_it_was(cpu: dbt.CPU, name: str, address: int) -> None:
    code, writes = ACCESSES[name]
    load(cpu, NOP, 0xEB04007F, code, SVC)  # cmp x3, x4 before, so that flags are live at the fault
    cpu.registers.update({"x0": 111, "x1": address, "x2": 222, "x3": 1, "x4": 1, "v0": 333})
    before = {name: value for name, value in cpu.registers.items() if name not in ("pc", "nzcv")}
    found = cpu.run(CODE)
    assert isinstance(found, dbt.MemoryFault)
    assert found.pc == CODE + 8
    assert found.access == ("write" if writes else "read")
    span = 16 if "p " in name or "q0" in name else 8
    effective = address + (8 if "]!" in name else 0)
    assert (found.address ^ effective) & 0x00FF_FFFF_FFFF_FFFF < span
    assert {name: value for name, value in cpu.registers.items() if name not in ("pc", "nzcv")} == before
    assert cpu.registers["nzcv"] == 0x60000000


def test_writing_read_only_memory(cpu: dbt.CPU) -> None:
    cpu.memory.protect(DATA, 0x1000, "r")
    load(cpu, 0xF9000020)
    cpu.registers["x1"] = DATA + 16
    assert cpu.run(CODE) == dbt.MemoryFault(CODE, DATA + 16, "write")


def test_a_fault_can_be_repaired(cpu: dbt.CPU) -> None:
    load(cpu, 0xF9000020, 0xF9400022, SVC)
    cpu.registers.update({"x0": 5, "x1": 0x60000})
    assert isinstance(cpu.run(CODE), dbt.MemoryFault)
    cpu.memory.map(0x60000, 8)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x2"] == 5


@pytest.mark.parametrize("pc", [0, CODE + 2, DATA, 0x12000, 0x1234_5678_9ABC, 0xFF80 << 48 | 4])
def test_fetching_what_may_not_be_executed(cpu: dbt.CPU, pc: int) -> None:
    found = cpu.run(pc)
    assert isinstance(found, dbt.MemoryFault)
    assert (found.pc, found.access) == (pc, "fetch")


@pytest.mark.parametrize("code", [0xD61F0020, 0xD63F0020, 0xD65F0020])  # br, blr, ret
@pytest.mark.parametrize("address", [0, 4, 1 << 20, 0xFFFF_FFFF_FFFF_FFFC])
def test_branching_to_nowhere(cpu: dbt.CPU, code: int, address: int) -> None:
    load(cpu, code)
    cpu.registers["x1"] = address
    for _ in range(2):
        found = cpu.run(CODE)
        assert isinstance(found, dbt.MemoryFault)
        assert (found.pc, found.access) == (address, "fetch")


def test_running_off_the_end_of_a_page(cpu: dbt.CPU) -> None:
    cpu.memory.write(CODE + 0x1FFC, words(0xD2800020))  # mov x0, #1
    assert cpu.run(CODE + 0x1FFC) == dbt.MemoryFault(CODE + 0x2000, CODE + 0x2000, "fetch")
    assert cpu.registers["x0"] == 1


def test_undefined_and_breakpoint(cpu: dbt.CPU) -> None:
    load(cpu, NOP, 0x00000000)
    assert cpu.run(CODE) == dbt.Undefined(CODE + 4, bytes(4))
    load(cpu, NOP, 0xD4200000 | 77 << 5)
    assert cpu.run(CODE) == dbt.Breakpoint(CODE + 4, 77)


def test_code_written_through_the_api_is_seen(cpu: dbt.CPU) -> None:
    for value in (1, 2, 3):
        load(cpu, 0xD2800000 | value << 5, SVC)
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["x0"] == value


def test_code_written_by_the_guest_is_seen_after_ic_ivau(cpu: dbt.CPU) -> None:
    # x1: address of the patched word, w2: its new value
    load(cpu, 0xB9000022, 0xD50B7521, 0xD5033FDF, NOP, SVC)  # str w2, [x1]; ic ivau, x1; isb; patched; svc
    for value in (5, 6):
        cpu.registers.update({"x1": CODE + 12, "x2": 0xD2800000 | value << 5})
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["x0"] == value


def test_code_that_only_liveness_has_seen_may_change(cpu: dbt.CPU) -> None:
    # cmp x0, x1; b.ne far; cmp x2, x3; svc: whether the branch leaves flags behind is for the code at `far` to say.
    if cpu._cpu.baseline is not None:
        # As programs run: the library keeps all flags.
        cpu._cpu.baseline.ctx.mode &= ~(layout.MODE_NO_LIVENESS | layout.MODE_EXACT_FLAGS)
    load(cpu, 0xEB01001F, 0x54000801, 0xEB03005F, SVC)
    cpu.memory.write(CODE + 0x104, words(0xEB03005F, SVC))  # cmp x2, x3
    cpu.registers.update({"x0": 1, "x1": 1, "x2": 1, "x3": 2})
    assert cpu.run(CODE).pc == CODE + 16
    cpu.memory.write(CODE + 0x104, words(0x9A9F27E5))  # cset x5, lo
    for x1, expected in ((2, 1), (0, 0)):
        cpu.registers["x1"] = x1
        assert cpu.run(CODE).pc == CODE + 0x10C
        assert cpu.registers["x5"] == expected


@pytest.mark.parametrize("code", [(SELF,), (0x14000001, 0x17FFFFFF), (0x10000001, 0xD61F0020)])  # also by adr, br
def test_an_endless_loop_can_be_stopped_from_another_thread(cpu: dbt.CPU, code: tuple[int, ...]) -> None:
    load(cpu, *code)
    timer = threading.Timer(0.05, cpu.stop)
    timer.start()
    assert isinstance(cpu.run(CODE), dbt.Interrupted)
    timer.join()


@pytest.mark.parametrize("code", [(SELF,), (0x10000001, 0xD61F0020)])
def test_ctrl_c_interrupts(cpu: dbt.CPU, code: tuple[int, ...]) -> None:
    load(cpu, *code)
    thread = ctrl_c(cpu)
    with pytest.raises(KeyboardInterrupt):
        cpu.run(CODE)
    thread.join()
    load(cpu, SVC)
    assert isinstance(cpu.run(CODE), dbt.SystemCall)


def test_many_blocks_fill_the_arena_without_harm(cpu: dbt.CPU) -> None:
    load(cpu, *[NOP, 0x14000001] * 500, SVC)
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    assert cpu.registers["pc"] == CODE + 4001 + 3


def test_wrong_arguments_say_what_to_do(cpu: dbt.CPU) -> None:
    with pytest.raises(UserError, match="no register 'y3'"):
        cpu.registers["y3"]
    with pytest.raises(UserError, match="budget"):
        cpu.run(CODE, budget=-1)
    with pytest.raises(UserError, match="not a range"):
        cpu.memory.map(1 << 60, 4096)
    with pytest.raises(UserError, match="protection"):
        cpu.memory.map(0x70000, 4096, "q")
    with pytest.raises(UserError, match="no engine"):
        dbt.open_cpu(engine="magic")
    with pytest.raises(UserError, match="no guest"):
        dbt.open_cpu("vax")
    cpu.close()
    cpu.close()
    with pytest.raises(UserError, match="closed"):
        cpu.run(CODE)


def test_registers_by_name(cpu: dbt.CPU) -> None:
    for name in cpu.registers:
        if name in ("fpcr", "fpsr", "nzcv"):
            continue
        cpu.registers[name] = 0x1234
        assert cpu.registers[name] == 0x1234
    for nzcv in range(16):
        cpu.registers["nzcv"] = nzcv << 28
        assert cpu.registers["nzcv"] == nzcv << 28
    cpu.registers["x5"] = (1 << 64) - 1
    assert cpu.registers["w5"] == 0xFFFFFFFF
    cpu.registers["w5"] = 1
    assert cpu.registers["x5"] == 1
    cpu.registers["v3"] = 1 << 127
    assert cpu.registers["v3"] == 1 << 127


def test_what_llvm_cannot_compile_is_interpreted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dbt.engine import cache
    from dbt.engine.baseline import Baseline
    from dbt.engine.cache import Store

    monkeypatch.setattr(cache, "_said", set())
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        load(cpu, 0xD2800C80, *COUNT_DOWN, 0x9BC27C23, SVC)  # umulh x3, x1, x2: nothing else here uses it
        monkeypatch.setattr(Store, "compile", lambda _, __, numbers, ___: dict.fromkeys(numbers, "LLVM ended"))
        monkeypatch.setattr(Baseline, "_load_pack", lambda _: None)
        baseline = cpu._cpu.baseline
        assert baseline is not None
        baseline.ctx.stencils = baseline.context.anonymous(1 << 20)
        cpu.registers.update({"x1": 1 << 63, "x2": 6})
        assert isinstance(cpu.run(CODE, budget=7), dbt.BudgetSpent)
        assert cpu.registers["x0"] == 97
        assert isinstance(cpu.run(), dbt.SystemCall)
        assert cpu.registers["x3"] == 3
    said = capsys.readouterr().err.splitlines()
    assert 0 < len(said) == len(set(said))  # a line for each form
    assert all(line.endswith("is interpreted: LLVM ended") for line in said)


def test_more_executable_mappings_than_anybody_counts() -> None:
    """As many as a process of Linux may have, nearly: compilers at run time protect page after page."""
    count = 5000
    with dbt.open_cpu() as cpu:
        for number in range(count):
            cpu.memory.map(CODE + 0x2000 * number, 0x1000, "rx")
        last = CODE + 0x2000 * (count - 1)
        cpu.memory.protect(last, 0x1000, "rwx")
        cpu.memory.write(last, words(NOP, SVC))
        assert cpu.run(last) == dbt.SystemCall(last + 8, 0, (0,) * 6)
