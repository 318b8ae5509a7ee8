"""The table of blocks against a dictionary, as Python runs the native functions, and compiled."""

from __future__ import annotations

import ctypes
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from dbt.engine import invalidate, table
from dbt.engine.cpu import Cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = (1 << 64) - 1


@pytest.fixture
def cpu() -> Iterator[Cpu]:
    made = Cpu()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(3))
def test_insert_and_look_up(cpu: Cpu, seed: int) -> None:
    assert cpu.baseline is not None
    ctx: Any = cpu.baseline.ctx
    random = Random(seed)
    size = ctx.table_mask + 1
    # Few places, so that addresses collide, also around the end of the table.
    places = [4 * ((random.randrange(-8, 8) + size * random.randrange(4)) % (1 << 40)) for _ in range(60)]
    model: dict[int, int] = {}
    for pc in places:
        assert table.look_up(ctx, pc) == model.get(pc, 0)
        if pc not in model:
            model[pc] = 0x1000 + pc
            table.insert(ctx, pc, model[pc])
    assert ctx.table_used == len(model)
    for pc in {*places, *(pc + 4 for pc in places)}:
        assert table.look_up(ctx, pc) == model.get(pc, 0)


@pytest.mark.parametrize("seed", range(3))
def test_entries_are_removed(cpu: Cpu, seed: int) -> None:
    """Also in runs of colliding entries that go round the end of the table."""
    assert cpu.baseline is not None
    ctx: Any = cpu.baseline.ctx
    random = Random(seed)
    size = ctx.table_mask + 1
    model: dict[int, int] = {}
    for _ in range(200):
        pc = 4 * ((random.randrange(-24, 24) + 4 * size * random.randrange(4)) % (1 << 40))
        if pc not in model:
            model[pc] = 0x1000 + pc
            table.insert(ctx, pc, model[pc])
        elif random.random() < 0.3:
            invalidate.remove(ctx, pc, 1)  # other code: it stays
        else:
            invalidate.remove(ctx, pc, model.pop(pc))
        assert ctx.table_used == len(model)
        assert all(table.look_up(ctx, known) == code for known, code in model.items())
        assert table.look_up(ctx, pc) == model.get(pc, 0)
    for pc, code in model.items():
        invalidate.remove(ctx, pc, code)
    assert ctx.table_used == 0
    assert not any(table.look_up(ctx, pc) for pc in model)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_found_and_forgotten(cpu: Cpu, seed: int) -> None:
    assert cpu.baseline is not None
    ctx, runtime = cpu.baseline.ctx, cpu.baseline.runtime
    random = Random(seed)
    offsets = (ctypes.c_uint16 * 1000).from_address(int(ctx.offsets))
    code = int(ctx.hot_start)
    owners: dict[int, int] = {}  # host address: guest address of the instruction
    spans: list[tuple[int, int]] = []
    ctx.n_looks = 0
    for number in range(40):
        n = random.randrange(1, 8)
        pc = 0x4000 * number + 4 * random.randrange(8)
        sizes = [random.randrange(1, 24) for _ in range(n)]
        at = 0
        for i, size in enumerate(sizes):
            offsets[int(ctx.n_offsets) + i] = at
            owners.update(dict.fromkeys(range(code + at, code + at + size), pc + 4 * i))
            at += size
        table.note_block(ctx, pc, code, at, n, 4 * n)
        spans.append((pc, pc + 4 * n))
        code += at + random.choice((0, 0, 5))
    for host in range(int(ctx.hot_start) - 3, code + 3):
        assert runtime.instruction_at(cpu.baseline.ctx_address, host) == owners.get(host, NONE)
    for _ in range(300):
        start = random.randrange(0x4000 * 41)
        end = start + random.randrange(1, 0x3000)
        touched = any(low < end and start < high for low, high in spans)
        assert bool(runtime.touches_code(cpu.baseline.ctx_address, start, end)) == touched
    cpu.baseline.flush()
    assert all(table.look_up(ctx, pc) == 0 for pc, _ in spans)
    assert (ctx.n_blocks, ctx.table_used, ctx.n_offsets) == (0, 0, 0)
    assert runtime.instruction_at(cpu.baseline.ctx_address, int(ctx.hot_start)) == NONE
