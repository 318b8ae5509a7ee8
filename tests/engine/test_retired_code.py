"""Code that goes: callers are unlinked, nothing stale runs, and each change costs the same, the first and the last.

What a change costs is counted in instructions translated, blocks dropped and regions made, not in seconds.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

import dbt
from dbt.run import ENGINES

from .test_self_modifying import CODE, MOVZ, NOP, PATCHED, RET, SVC, turns, write

if TYPE_CHECKING:
    from collections.abc import Iterator

FAR = 0x900000
LDR = 0xF9400020  # ldr x0, [x1]
# x9 rounds: a system call, in which the function changes; then it is called directly, through x10, and by a tail call.
CALLS = (
    SVC,
    0x94000000 | (PATCHED - CODE - 4) // 4,  # bl
    0x8B000273,  # add x19, x19, x0
    0xD63F0140,  # blr x10
    0x8B000273,  # add x19, x19, x0
    0x94000005,  # bl the tail call
    0x8B000273,  # add x19, x19, x0
    0xF1000529,  # subs x9, x9, #1
    0x54FFFF01,  # b.ne the start
    0xD4200000,  # brk
    0x14000000 | (PATCHED - CODE - 40) // 4,  # b
)


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x4000, "rwx")
        cpu.memory.map(PATCHED, 0x1000, "rwx")
        native: Any = cpu._cpu.baseline
        if request.param == "optimizer":
            native.ctx.threshold = 20
        yield cpu


def figures(cpu: dbt.CPU) -> dict[str, int]:
    native: Any = cpu._cpu.baseline
    return dict(native.statistics()) if native is not None else {}


def test_every_turn_costs_the_same(cpu: dbt.CPU) -> None:
    """A page that is written and run in turns: as much is translated for the last turns as for the first."""
    if cpu.engine == "reference":
        return
    turns(cpu, 500)
    spent = []
    for rounds in (1000, 20_000):
        before = figures(cpu)
        turns(cpu, rounds)
        after = figures(cpu)
        spent.append({name: (after[name] - before[name]) / rounds for name in after})
    for each in spent:
        # The interpreter forgets all its steps: the loop and the function are few.
        assert each["guest instructions translated"] < (40 if cpu.engine == "interpreter" else 8)
        assert each["blocks dropped"] < 3
        assert each["flushes"] <= (1.01 if cpu.engine == "interpreter" else 0.05)
        assert each["entries"] < 20
    assert spent[1]["guest instructions translated"] < 1.2 * spent[0]["guest instructions translated"] + 0.1
    assert spent[1]["entries"] < 1.2 * spent[0]["entries"] + 0.1
    if cpu.engine == "optimizer":
        assert spent[1]["regions compiled"] * 20_000 < 24


@pytest.mark.parametrize("how", ["write", "protect", "map", "move"])
def test_callers_are_unlinked(cpu: dbt.CPU, how: str) -> None:
    """The function changes in a system call, in one of the ways there are; who calls it, and how, does not matter."""
    write(cpu, CODE, *CALLS)
    write(cpu, PATCHED, MOVZ, RET)
    rounds = 60 if cpu.engine == "reference" else 600
    number = 0
    space = cpu._cpu.memory

    def change(_call: dbt.SystemCall) -> int:
        nonlocal number
        number += 1
        words = MOVZ | number << 5, RET
        if how == "write":
            write(cpu, PATCHED, *words)
        elif how == "protect":
            cpu.memory.protect(PATCHED, 0x1000, "rw")
            space.write(PATCHED, struct.pack("<II", *words))
            cpu.memory.protect(PATCHED, 0x1000, "rx")
        elif how == "map":
            cpu.memory.unmap(PATCHED, 0x1000)
            cpu.memory.map(PATCHED, 0x1000, "rwx")
            space.write(PATCHED, struct.pack("<II", *words))
        else:
            cpu.memory.map(FAR, 0x1000, "rwx")
            space.write(FAR, struct.pack("<II", *words))
            space.move(FAR, 0x1000, PATCHED, 0x1000)
        return 0

    cpu.on_system_call(change)
    cpu.registers.update({"x9": rounds, "x10": PATCHED, "x19": 0})
    assert isinstance(cpu.run(CODE), dbt.Breakpoint)
    assert number == rounds
    assert cpu.registers["x19"] == 3 * rounds * (rounds + 1) // 2


def test_code_that_moves_is_not_where_it_was(cpu: dbt.CPU) -> None:
    write(cpu, CODE, 0xD63F0140, SVC)  # blr x10; svc
    write(cpu, PATCHED, MOVZ | 7 << 5, RET)
    places = [PATCHED, FAR]
    cpu._cpu.memory.unmap(FAR, 0x1000)
    for _ in range(40):
        cpu.registers["x10"] = places[0]
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["x0"] == 7
        cpu._cpu.memory.move(places[0], 0x1000, places[1], 0x1000)
        assert cpu.run(CODE) == dbt.MemoryFault(places[0], places[0], "fetch")
        places.reverse()


def test_an_instruction_that_faults_is_replaced(cpu: dbt.CPU) -> None:
    """A hook on faults changes the very code that faulted, and what is behind it; then that runs."""
    seen = 0

    def mend(fault: dbt.MemoryFault | object) -> bool:
        nonlocal seen
        seen += 1
        assert isinstance(fault, dbt.MemoryFault)
        assert (fault.pc, fault.address) == (CODE + 8, 0x50000)
        write(cpu, CODE + 4, NOP, MOVZ | seen << 5, 0x8B000273)  # nop; movz x0, #seen; add x19, x19, x0
        return True

    cpu.on_fault(mend)
    cpu.registers.update({"x1": 0x50000, "x19": 0})
    for number in range(1, 200):
        write(cpu, CODE, NOP, NOP, LDR, NOP, SVC)
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert (seen, cpu.registers["x0"]) == (number, number)
    assert cpu.registers["x19"] == sum(range(1, 200))


def test_lines_without_code_cost_nothing(cpu: dbt.CPU) -> None:
    """A guest that cleans all its lines, as loaders do, keeps its translations."""
    # ic ivau, x1; add x1, x1, #64; subs x0, x0, #1; b.ne; svc
    write(cpu, CODE, 0xD50B7521, 0x91010021, 0xF1000400, 0x54FFFFA1, SVC)
    cpu.memory.map(FAR, 0x100000, "rwx")
    cpu.registers.update({"x0": 10, "x1": FAR})
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    before = figures(cpu)
    cpu.registers.update({"x0": 1000, "x1": FAR})
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    after = figures(cpu)
    for name in ("flushes", "blocks dropped"):
        assert after.get(name) == before.get(name)
    assert after.get("guest instructions translated", 0) - before.get("guest instructions translated", 0) < 20


def test_code_of_many_pages_that_comes_and_goes(cpu: dbt.CPU) -> None:
    """As a JIT's: pages of functions are made, run a few times, and unmapped; nothing of them stays."""
    native: Any = cpu._cpu.baseline
    write(cpu, CODE, 0xD63F0140, SVC)
    held = []
    for number in range(40 if cpu.engine == "reference" else 400):
        at = FAR + (number % 7) * 0x10000
        cpu.memory.map(at, 0x1000, "rwx")
        for function in range(16):
            write(cpu, at + 64 * function, MOVZ | number << 5, 0x91000000 | function << 10, RET)  # …; add x0, x0, #f
        for function in range(16):
            cpu.registers["x10"] = at + 64 * function
            for _ in range(3):
                assert isinstance(cpu.run(CODE), dbt.SystemCall)
                assert cpu.registers["x0"] == number + function
        cpu.memory.unmap(at, 0x1000)
        if native is not None:
            held.append(int(native.ctx.n_blocks))
    assert not held or max(held[200:]) <= 2 * max(held[:200])
    for number in range(7):
        cpu.registers["x10"] = FAR + number * 0x10000
        assert isinstance(cpu.run(CODE), dbt.MemoryFault)
