"""Plugins: what they see, what they insert, and that the guest does not notice."""

from __future__ import annotations

import gc
import struct
from typing import TYPE_CHECKING

import pytest
from dbt.guests import GUESTS

import dbt
from dbt.engine.cpu import ENGINES
from dbt.errors import UserError
from dbt.ir.types import I64

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, DATA = 0x10000, 0x40000
SVC = 0xD4000001
LOOP = (  # x0 rounds: x3 = bytes at x1 added up, x2 rounds counted
    0x38401423,  # 0: ldrb w3, [x1], #1
    0x8B030084,  # 4: add x4, x4, x3
    0xF82578C4,  # 8: str x4, [x6, x5, lsl #3]
    0xF1000400,  # c: subs x0, x0, #1
    0x54FFFF81,  # 10: b.ne to it
    SVC,  # 14
)


@pytest.fixture(params=ENGINES)
def cpu(request: pytest.FixtureRequest) -> Iterator[dbt.CPU]:
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x2000, "rwx")
        cpu.memory.map(DATA, 0x2000)
        cpu.memory.write(CODE, struct.pack(f"<{len(LOOP)}I", *LOOP))
        cpu.memory.write(DATA, bytes(range(256)))
        start(cpu)
        yield cpu


def start(cpu: dbt.CPU, rounds: int = 10) -> None:
    cpu.registers.update({"pc": CODE, "x0": rounds, "x1": DATA, "x4": 0, "x5": 2, "x6": DATA + 0x1000})


def state(cpu: dbt.CPU) -> tuple[dict[str, int], bytes]:
    return dict(cpu.registers), cpu.memory.read(DATA, 0x2000)


class Blocks(dbt.Plugin):
    def block(self, block: dbt.Block) -> None:
        block.count(self.counters[block.pc])


def test_blocks_are_counted(cpu: dbt.CPU) -> None:
    plugin = Blocks()
    cpu.instrument(plugin)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert plugin.counters.values() == {CODE: 10, CODE + 0x14: 1}


def test_the_guest_does_not_notice(cpu: dbt.CPU) -> None:
    drained: list[tuple[int, ...]] = []

    class All(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            ring = self.ring
            for i in block.instructions:
                i.count(self.counters[i.pc])
                i.record(ring, 1, "x0")
                for access in i.accesses:
                    i.record(ring, 2, access)
                i.call(lambda _event: None)

        ring = dbt.Ring(2, drained.extend, records=7)

    cpu.run()
    before = state(cpu)
    start(cpu)
    plugin = All()
    cpu.instrument(plugin)
    cpu.run()
    assert state(cpu) == before
    cpu.remove(plugin)
    start(cpu)
    cpu.run()
    assert state(cpu) == before
    plugin.ring.flush()
    assert len(drained) == 10 * (5 + 2) + 1


def test_what_a_plugin_sees(cpu: dbt.CPU) -> None:
    seen: list[dbt.Instruction] = []

    class See(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            if block.pc == CODE:
                seen.extend(block.instructions)
                assert block.size == 20

    cpu.instrument(See())
    cpu.run()
    assert [i.text for i in seen] == [
        "ldrb w3, [x1], #1", "add x4, x4, x3", "str x4, [x6, x5, lsl #3]", "subs x0, x0, #1", "b.ne #0x10000",
    ]  # fmt: skip
    assert [(i.reads, i.writes, i.branches) for i in seen] == [
        (True, False, False), (False, False, False), (False, True, False), (False, False, False), (False, False, True),
    ]  # fmt: skip
    assert seen[4].conditional
    assert seen[4].direct
    assert seen[0].code == struct.pack("<I", LOOP[0])
    assert seen[3].name.startswith("ADD_imm")
    assert [(a.kind, a.size) for a in seen[2].accesses] == [("write", 8)]


def test_a_ring_of_addresses(cpu: dbt.CPU) -> None:
    records: list[tuple[int, ...]] = []
    batches: list[int] = []

    def drain(batch: list[tuple[int, ...]]) -> None:
        records.extend(batch)
        batches.append(len(batch))

    ring = dbt.Ring(3, drain, records=4)

    class Addresses(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            for i in block.instructions:
                for access in i.accesses:
                    i.record(ring, i.pc, access, "x0")

    cpu.instrument(Addresses())
    cpu.run()
    ring.flush()
    assert batches == [4] * 5
    expected = [((CODE, DATA + n, 10 - n), (CODE + 8, DATA + 0x1010, 10 - n)) for n in range(10)]
    assert records == [record for pair in expected for record in pair]


def test_conditions(cpu: dbt.CPU) -> None:
    calls: list[int] = []

    class Some(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            def odd(s: dbt.Snippet) -> None:
                s.add(self.counters["odd"], s.register("x3") & 1)

            def big(s: dbt.Snippet) -> None:
                s.call(lambda e: calls.append(e.registers["x0"]), s.register("x0").ugt(s.const(I64, 7)))

            def carry(s: dbt.Snippet) -> None:
                s.add(self.counters["ne"], s.cond("ne").zext(64))

            for i in block.instructions:
                if i.pc == CODE + 4:
                    i.add(odd)
                    i.add(big)
                if i.pc == CODE + 16:
                    i.add(carry)

    plugin = Some()
    cpu.instrument(plugin)
    cpu.run()
    assert plugin.counters.values() == {"odd": 5, "ne": 9}
    assert calls == [10, 9, 8]


def test_callbacks_see_and_change_the_exact_state(cpu: dbt.CPU) -> None:
    flags: list[int] = []

    class Calls(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            for i in block.instructions:
                if i.pc == CODE + 12:
                    i.call(self.see)

        def see(self, event: dbt.Event) -> None:
            assert event.pc == event.registers["pc"] == CODE + 12
            flags.append(event.registers["nzcv"])
            if event.registers["x0"] == 5:
                event.registers["x0"] = 1

    cpu.registers["nzcv"] = 0xF0000000
    cpu.instrument(Calls())
    cpu.run()
    assert cpu.registers["x4"] == sum(range(6))
    assert flags == [0xF0000000] + [0x20000000] * 5


def test_exceptions_propagate_and_the_run_goes_on(cpu: dbt.CPU) -> None:
    class Stop(Exception):
        pass

    class Calls(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            block.count(self.counters[block.pc])
            for i in block.instructions:
                if i.pc == CODE + 8:
                    i.call(self.stop)

        def stop(self, event: dbt.Event) -> None:
            raise Stop(event.registers["x0"])

    plugin = Calls()
    cpu.instrument(plugin)
    for n in range(10):
        with pytest.raises(Stop, match=str(10 - n)):
            cpu.run()
        assert cpu.registers["pc"] == CODE + 8
        assert cpu.registers["x4"] == sum(range(n + 1))
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x4"] == sum(range(10))


@pytest.mark.parametrize("limit", [3, 17, 48])
def test_budgets_stay_exact(cpu: dbt.CPU, limit: int) -> None:
    class Calls(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            for i in block.instructions:
                i.count(self.counters["all"])
                if i.pc == CODE + 4:
                    i.call(self.change)

        def change(self, _event: dbt.Event) -> None:
            cpu.remove(extra)
            cpu.instrument(extra)

    extra = Blocks()
    plugin = Calls()
    cpu.instrument(plugin)
    cpu.instrument(extra)
    before = cpu.executed
    assert isinstance(cpu.run(budget=limit), dbt.BudgetSpent)
    assert cpu.executed - before == limit
    assert plugin.counters["all"].value == limit
    assert cpu.registers["pc"] == CODE + 4 * (limit % 5)


def test_plugins_come_and_go_in_callbacks(cpu: dbt.CPU) -> None:
    extra = Blocks()

    class Switch(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            if block.pc == CODE:
                block.call(self.switch)

        def switch(self, event: dbt.Event) -> None:
            if event.registers["x0"] == 8:
                cpu.instrument(extra)
            if event.registers["x0"] == 4:
                cpu.remove(extra)

    cpu.instrument(Switch())
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x4"] == sum(range(10))
    assert extra.counters[CODE].value == 4  # of rounds 7 to 4: counters come before calls


def test_self_modifying_code_is_seen_again(cpu: dbt.CPU) -> None:
    seen: list[str] = []

    class See(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            seen.append(block.instructions[0].text)

    cpu.instrument(See())
    cpu.run(until=CODE + 4)
    cpu.memory.write(CODE, struct.pack("<I", 0xD503201F))
    start(cpu, 1)
    cpu.run()
    assert "nop" in seen


@pytest.mark.parametrize("what", ["store", "put", "exit", "flags"])
def test_changing_the_guest_is_refused(cpu: dbt.CPU, what: str) -> None:
    def write(s: dbt.Snippet) -> None:
        x = s.register("x0")
        if what == "store":
            s.store(x, x)
        elif what == "put":
            s.emit("put", x, place=s.ops[-1].attrs["place"])
        elif what == "exit":
            s.exit(1)
        else:
            s.flags("add", x, x, x)

    class Bad(dbt.Plugin):
        exact = True

        def block(self, block: dbt.Block) -> None:
            block.add(write)

    cpu.instrument(Bad())
    with pytest.raises(UserError, match="inserted code uses"):
        cpu.run()


def test_calls_need_exact_flags(cpu: dbt.CPU) -> None:
    class Bad(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            block.call(print)

    cpu.instrument(Bad())
    with pytest.raises(UserError, match="exact = True"):
        cpu.run()


def test_a_fault_behind_insertions_is_exact(cpu: dbt.CPU) -> None:
    class All(dbt.Plugin):
        def block(self, block: dbt.Block) -> None:
            for i in block.instructions:
                i.count(self.counters[i.pc])

    plugin = All()
    cpu.instrument(plugin)
    cpu.registers["x6"] = 0x7000_0000
    assert cpu.run() == dbt.MemoryFault(CODE + 8, 0x7000_0010, "write")
    assert [plugin.counters[CODE + 4 * i].value for i in range(5)] == [1, 1, 1, 0, 0]


def test_a_program_with_its_forks(busybox: object) -> None:
    ended: list[str] = []

    class Count(Blocks):
        def finish(self) -> None:
            ended.append("parent")

    plugin = Count()
    with dbt.open_program(str(busybox), ["busybox", "sh", "-c", "(exit 3); exit $?"]) as program:
        program.instrument(plugin)
        assert program.run() == dbt.Exited(3)
    assert sum(int(n) for n in plugin.counters.values().values()) > 100
    assert ended == ["parent"]


def test_guests_compute_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    guest = next(g for g in GUESTS if g.name == "sort")
    plugin = Blocks()
    with dbt.open_program(guest.path, [guest.name, str(guest.short)]) as program:
        program.instrument(plugin)
        assert program.run() == dbt.Exited(0)
    assert capfd.readouterr().out.strip() == guest.short_line


def test_memory_is_given_back() -> None:
    def mappings() -> int:
        with open("/proc/self/maps", encoding="ascii") as file:
            return len(file.readlines())

    def use() -> None:
        plugin = Blocks()
        ring = dbt.Ring(1, len)
        with dbt.open_cpu() as cpu:
            cpu.memory.map(CODE, 0x1000, "rwx")
            cpu.memory.write(CODE, struct.pack("<I", SVC))
            cpu.instrument(plugin)
            assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert plugin.counters[CODE].value == 1
        assert ring.address

    use()
    gc.collect()
    before = mappings()
    for _ in range(20):
        use()
    gc.collect()
    assert mappings() <= before + 2
