"""Watchpoints and breakpoints: every engine stops at the same place with the same state, and none without a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dbt
from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

Load = "Callable[..., None]"
CODE, DATA = 0x10000, 0x40000
SVC = 0xD4000001
STR = 0xF9000001  # str x1, [x0]
LDR = 0xF9400002  # ldr x2, [x0]
STRB8 = 0x39002001  # strb w1, [x0, #8]
STP = 0xA9000801  # stp x1, x2, [x0]
STR_POST = 0xF8008401  # str x1, [x0], #8
LDADD = 0xF8210002  # ldadd x1, x2, [x0]
STR_Q = 0x3D800001  # str q1, [x0]
COUNT = (0xF1000463, 0x54FFFFC1)  # subs x3, x3, #1; b.ne two back


def test_a_write_is_seen(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR, LDR, SVC)
    cpu.registers.update({"x0": DATA, "x1": 77})
    watch = cpu.watch(DATA, 8)
    assert cpu.run() == dbt.Watched(CODE + 4, DATA, 8, "write", CODE)
    assert cpu.memory.read(DATA, 1) == b"M"
    assert isinstance(cpu.run(), dbt.SystemCall)  # the load is nobody's business
    assert cpu.registers["x2"] == 77
    watch.remove()
    watch.remove()
    assert isinstance(cpu.run(CODE), dbt.SystemCall)


@pytest.mark.parametrize(("access", "seen"), [("read", [CODE + 4]), ("write", [CODE]), ("access", [CODE, CODE + 4])])
def test_kinds(cpu: dbt.CPU, load: Callable[..., None], access: str, seen: list[int]) -> None:
    load(STR, LDR, SVC)
    cpu.registers["x0"] = DATA
    cpu.watch(DATA, 8, access)
    found = []
    while isinstance(stop := cpu.run(), dbt.Watched):
        found.append(stop.instruction)
    assert found == seen
    assert isinstance(stop, dbt.SystemCall)


def test_before(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STP, LDR, SVC)
    cpu.registers.update({"x0": DATA, "x1": 1, "x2": 2})
    cpu.watch(DATA + 8, 4, before=True)
    found = cpu.run()
    assert isinstance(found, dbt.Watched)
    assert (found.pc, found.instruction) == (CODE, CODE)
    assert cpu.memory.read(DATA, 16) == bytes(16)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x2"] == 1
    assert cpu.memory.read(DATA + 8, 1) == b"\2"


def test_beside_the_range_nothing_is_seen(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR, STRB8, SVC)
    cpu.registers["x0"] = DATA
    cpu.watch(DATA + 9, 7, "access")
    assert isinstance(cpu.run(), dbt.SystemCall)
    cpu.watch(DATA + 8, 1)
    assert cpu.run(CODE) == dbt.Watched(CODE + 8, DATA + 8, 1, "write", CODE + 4)


@pytest.mark.parametrize("word", [STR, STP, STR_POST, LDADD, STR_Q])
def test_all_kinds_of_stores_across_pages(cpu: dbt.CPU, load: Callable[..., None], word: int) -> None:
    load(word, SVC)
    start = DATA + 0x1000 - 4
    aligned = word == LDADD
    cpu.registers.update({"x0": DATA + 0x1000 if aligned else start, "x1": 0x1122334455667788, "x2": 5})
    cpu.watch(DATA + 0x1000, 1)
    found = cpu.run()
    assert isinstance(found, dbt.Watched)
    assert found.access == "write"
    assert found.address <= DATA + 0x1000 < found.address + found.size
    assert cpu.registers["pc"] == CODE + 4
    assert cpu.registers["x0"] == (start + 8 if word == STR_POST else DATA + 0x1000 if aligned else start)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_flags_and_budget_are_exact(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(0xEB03007F, STR, 0xEB0100BF, SVC)  # cmp x3, x3; str; cmp x5, x1
    cpu.registers.update({"x0": DATA, "x1": 1})
    watch = cpu.watch(DATA, 8)
    before = cpu.executed
    assert isinstance(cpu.run(budget=100), dbt.Watched)
    assert cpu.executed - before == 2
    assert cpu.registers["nzcv"] == 0x60000000
    assert cpu.run(budget=1) == dbt.BudgetSpent(CODE + 12)
    assert cpu.registers["nzcv"] == 0x80000000
    watch.remove()
    cpu.watch(DATA + 64, 8)
    cpu.registers["x3"] = 10
    load(STR, *COUNT, SVC)
    for budget in (1, 2, 3, 7, 12):
        cpu.registers.update({"pc": CODE, "x3": 10})
        before = cpu.executed
        assert isinstance(cpu.run(budget=budget), dbt.BudgetSpent)
        assert cpu.executed - before == budget
        assert cpu.registers["pc"] == CODE + 4 * (budget % 3)


def test_true_faults_stay_faults(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STP, SVC)
    cpu.watch(DATA + 0x3FF8, 8)
    cpu.registers.update({"x0": DATA + 0x3FF8, "x1": 7})  # the second half is behind the mapping
    found = cpu.run()
    assert isinstance(found, dbt.MemoryFault)
    assert found.address == DATA + 0x4000
    assert cpu.memory.read(DATA + 0x3FF8, 8) == bytes(8)
    cpu.registers["x0"] = 0x99990000
    assert isinstance(cpu.run(CODE), dbt.MemoryFault)


def test_mappings_may_change_under_a_watchpoint(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR, SVC)
    cpu.watch(DATA, 8)
    cpu.memory.unmap(DATA, 0x4000)
    cpu.registers["x0"] = DATA
    assert isinstance(cpu.run(), dbt.MemoryFault)
    cpu.memory.map(DATA, 0x4000)
    assert isinstance(cpu.run(), dbt.Watched)
    cpu.memory.protect(DATA, 0x1000, "r")
    assert cpu.memory.read(DATA, 8) == bytes(8)
    assert isinstance(cpu.run(CODE), dbt.MemoryFault)


def test_code_on_a_watched_page_runs(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR, LDR, SVC)
    cpu.registers["x0"] = CODE + 0x800
    cpu.watch(CODE + 0x800, 8, "read")
    found = cpu.run()
    assert found == dbt.Watched(CODE + 8, CODE + 0x800, 8, "read", CODE + 4)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_reads_and_writes_of_the_caller_are_not_watched(cpu: dbt.CPU) -> None:
    cpu.watch(DATA, 0x4000, "access")
    cpu.memory.write(DATA, b"mine")
    assert cpu.memory.read(DATA, 4) == b"mine"


def test_breakpoints(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(0xEB03007F, STR, *COUNT, SVC)
    cpu.registers.update({"x0": DATA, "x3": 3})
    stop = cpu.break_at(CODE + 8)
    for left in (3, 2, 1):
        assert cpu.run() == dbt.Reached(CODE + 8)
        assert cpu.registers["x3"] == left
        assert cpu.registers["nzcv"] == (0x60000000 if left == 3 else 0x20000000)
    stop.remove()
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert isinstance(cpu.run(CODE, until=CODE + 4), dbt.Reached)


def test_wrong_arguments(cpu: dbt.CPU) -> None:
    with pytest.raises(UserError, match="nothing that can be watched"):
        cpu.watch(DATA, 8, "execute")
    for address, size in ((-1, 8), (DATA, 0), (1 << 60, 8)):
        with pytest.raises(UserError, match="no range"):
            cpu.watch(address, size)


HOT = (
    0xF8408401,  # ldr x1, [x0], #8
    0x8B010042,  # add x2, x2, x1
    0xF8008482,  # str x2, [x4], #8
    0xEB05001F,  # cmp x0, x5
    0x54FFFF81,  # b.ne the ldr
    0xD4000001,  # svc
)


def test_hot_code_is_exact_as_well(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(*HOT)
    size = 0x10000
    rounds = 3 if cpu.engine == "reference" else 40  # the optimizer compiles what has been entered often
    cpu.memory.map(DATA, 2 * size)
    cpu.memory.write(DATA, b"".join(i.to_bytes(8, "little") for i in range(size // 8)))
    start = {"pc": CODE, "x0": DATA, "x2": 0, "x4": DATA + size, "x5": DATA + size}
    for _ in range(rounds):
        cpu.registers.update(start)
        assert isinstance(cpu.run(), dbt.SystemCall)
    at = 5000
    watch = cpu.watch(DATA + size + 8 * at, 8)
    for _ in range(3):
        cpu.registers.update(start)
        assert cpu.run() == dbt.Watched(CODE + 12, DATA + size + 8 * at, 8, "write", CODE + 8)
        assert cpu.registers["x1"] == at
        assert cpu.registers["x2"] == at * (at + 1) // 2
        assert cpu.registers["x0"] == DATA + 8 * (at + 1)
        assert cpu.registers["x4"] == DATA + size + 8 * (at + 1)
        assert cpu.registers["nzcv"] == 0x80000000  # of the comparison before
        assert isinstance(cpu.run(), dbt.SystemCall)
        assert cpu.registers["nzcv"] == 0x60000000
    watch.remove()
    cpu.registers.update(start)
    stop = cpu.break_at(CODE + 16)
    assert cpu.run() == dbt.Reached(CODE + 16)
    assert cpu.registers["nzcv"] == 0x80000000
    stop.remove()
    before = cpu.executed
    assert isinstance(cpu.run(budget=10001), dbt.BudgetSpent)
    assert cpu.executed - before == 10001
    assert cpu.registers["pc"] == CODE
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x2"] == sum(range(size // 8))
