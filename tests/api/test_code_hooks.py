"""Hooks on blocks, instructions and accesses: all of them seen, nothing changed, at any time, on every engine."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import dbt.guests
import pytest

import dbt
from dbt.engine.cpu import ENGINES
from dbt.errors import UserError

from .conftest import CODE, DATA, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbt.control.code_hooks import CodeHook

HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"
ROUNDS = 1000  # the optimizer has a region by then
# x0 rounds: ldr x2, [x1]; add x2, x2, #1; stp x2, x3, [x1, #16]; ldadd x2, x4, [x1]; subs x0, x0, #1; b.ne; svc
LOOP = (0xF9400022, 0x91000442, 0xA9010C22, 0xF8220024, 0xF1000400, 0x54FFFF61, 0xD4000001)


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, SIZE)
        cpu.memory.write(CODE, struct.pack(f"<{len(LOOP)}I", *LOOP))
        yield cpu


def run(cpu: dbt.CPU, rounds: int) -> tuple[object, dict[str, int], bytes]:
    """A fresh run of the loop: how it ended, registers, memory."""
    cpu.memory.write(DATA, bytes(64))
    cpu.registers.update({**dict.fromkeys(cpu.registers, 0), "x0": rounds, "x1": DATA, "x3": 7})
    found = cpu.run(CODE)
    return found, dict(cpu.registers), cpu.memory.read(DATA, 64)


def test_all_of_them_are_called_and_nothing_changes(cpu: dbt.CPU) -> None:
    plain = run(cpu, ROUNDS)
    blocks: list[int] = []
    instructions: list[int] = []
    accesses: list[tuple[int, int, int, str]] = []
    hooks = (
        cpu.on_block(lambda entry: blocks.append(entry.pc)),
        cpu.on_instruction(lambda entry: instructions.append(entry.pc)),
        cpu.on_memory(lambda a: accesses.append((a.pc, a.address, a.size, a.access))),
    )
    assert run(cpu, ROUNDS) == plain
    assert instructions == [CODE + 4 * i for i in range(6)] * ROUNDS + [CODE + 24]
    assert accesses == [
        (CODE, DATA, 8, "read"), (CODE + 8, DATA + 16, 16, "write"), (CODE + 12, DATA, 8, "update"),
    ] * ROUNDS  # fmt: skip
    assert blocks == [CODE] * ROUNDS + [CODE + 24]
    for hook in hooks:
        hook.remove()
        hook.remove()
    seen = len(blocks), len(instructions), len(accesses)
    assert run(cpu, ROUNDS) == plain
    assert (len(blocks), len(instructions), len(accesses)) == seen


def test_ranges_and_kinds(cpu: dbt.CPU) -> None:
    seen: list[str] = []
    cpu.on_instruction(lambda _: seen.append("add"), CODE + 4, CODE + 8)
    cpu.on_block(lambda _: seen.append("end"), CODE + 24)
    cpu.on_memory(lambda a: seen.append(a.access), DATA + 24, DATA + 25)
    cpu.on_memory(lambda _: seen.append("read"), DATA, DATA + 8, "read")
    cpu.on_memory(lambda _: seen.append("below"), DATA - 8, DATA)
    run(cpu, 2)
    assert seen == ["read", "add", "write", "read"] * 2 + ["end"]


def test_tagged_addresses_are_seen_without_the_tag(cpu: dbt.CPU) -> None:
    seen: list[int] = []
    cpu.on_memory(lambda a: seen.append(a.address), DATA, DATA + 8, "read")
    cpu.registers.update({"x0": 1, "x1": DATA | 0xA5 << 56})
    cpu.run(CODE)
    assert seen == [DATA, DATA]


def test_they_come_and_go_in_callbacks(cpu: dbt.CPU) -> None:
    plain = run(cpu, ROUNDS)
    seen: list[str] = []

    def once(_: object) -> None:
        seen.append("once")
        first.remove()
        added.append(cpu.on_block(late))

    def late(_: object) -> None:
        seen.append("late")
        if seen.count("late") == 3:
            added[0].remove()

    added: list[CodeHook] = []
    first = cpu.on_instruction(once, CODE + 16, CODE + 20)
    other = cpu.on_instruction(lambda _: seen.append("other"), CODE + 16, CODE + 20)
    assert run(cpu, ROUNDS) == plain
    other.remove()
    assert seen.count("once") == 1
    assert seen.count("late") == 3
    assert seen.count("other") == ROUNDS


def test_one_that_comes_while_hot_code_runs(cpu: dbt.CPU) -> None:
    """A hook of another kind adds it, when the loop is translated already."""
    plain = run(cpu, ROUNDS)
    seen: list[int] = []
    cpu.memory.write(CODE + 24, struct.pack("<II", 0xD4200000, 0xD4000001))  # brk; svc

    def start(_: object) -> bool:
        if not seen:
            seen.append(0)
            cpu.on_instruction(lambda entry: seen.append(entry.pc), CODE, CODE + 4)
            cpu.registers.update({"x0": 5, "pc": CODE})
        return True

    cpu.on_undefined(start)
    found, *_ = run(cpu, ROUNDS)
    assert isinstance(found, dbt.SystemCall)
    assert isinstance(plain[0], dbt.SystemCall)
    assert seen == [0, *[CODE] * 5]


def test_what_they_raise_comes_out_of_run(cpu: dbt.CPU) -> None:
    def fail(access: dbt.MemoryAccess) -> None:
        raise ZeroDivisionError(access.pc)

    hook = cpu.on_memory(fail, access="write")
    cpu.registers.update({"x0": 3, "x1": DATA, "x3": 7})
    with pytest.raises(ZeroDivisionError):
        cpu.run(CODE)
    assert cpu.registers["pc"] == CODE + 8
    assert cpu.registers["x2"] == 1
    assert cpu.memory.read(DATA + 16, 8) == bytes(8)
    hook.remove()
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x0"] == 0


def test_callbacks_may_change_registers_and_go_elsewhere(cpu: dbt.CPU) -> None:
    cpu.on_instruction(lambda _: cpu.registers.update({"x0": 1}), CODE + 16, CODE + 20)
    run(cpu, 1 << 40)
    assert cpu.registers["x0"] == 0
    cpu.on_block(lambda _: cpu.registers.update({"pc": CODE + 24}), CODE, CODE + 4)
    cpu.registers["x0"] = 77
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    assert cpu.registers["x0"] == 77


def test_budgets_are_exact_with_them(cpu: dbt.CPU) -> None:
    seen: list[int] = []
    cpu.on_instruction(lambda entry: seen.append(entry.pc))
    cpu.registers.update({"x0": ROUNDS, "x1": DATA})
    assert cpu.run(CODE, budget=100) == dbt.BudgetSpent(CODE + 16)
    assert len(seen) == 100


def test_wrong_arguments(cpu: dbt.CPU) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: cpu.on_block(None),  # type: ignore[arg-type]
        lambda: cpu.on_instruction(print, -1),
        lambda: cpu.on_instruction(print, 8, 8),
        lambda: cpu.on_memory(print, 0, 1 << 60),
        lambda: cpu.on_memory(print, access="exec"),
    ]
    for call in wrong:
        with pytest.raises(UserError):
            call()
    assert isinstance(run(cpu, 1)[0], dbt.SystemCall)


@pytest.mark.parametrize("engine", ENGINES)
def test_programs(engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    counts = {"block": 0, "instruction": 0}

    def count(kind: str) -> Callable[[object], None]:
        def add(_: object) -> None:
            counts[kind] += 1

        return add

    with dbt.open_program(HELLO, engine=engine) as program:
        program.on_block(count("block"))
        program.on_instruction(count("instruction"))
        assert program.run() == dbt.Exited(0)
    assert capfd.readouterr().out == "hello from AArch64\n"
    assert counts["instruction"] > counts["block"] > 0
