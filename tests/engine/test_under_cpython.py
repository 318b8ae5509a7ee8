"""The runtime's native functions run under CPython too, with the same results: on the structs of a real CPU."""

from __future__ import annotations

import ctypes
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.guest import load_guest

from dbt.engine import decode, emit, table, translate
from dbt.engine.cpu import Cpu
from dbt.engine.layout import Block, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.engine.baseline import Baseline

CODE = 0x10000
LOOP = (0xD2800640, 0xF1000400, 0x54FFFFE1, 0xD4000001)  # mov x0, #50; subs x0, x0, #1; b.ne; svc


@pytest.fixture
def baseline() -> Iterator[Baseline]:
    cpu = Cpu(address_bits=38)
    assert cpu.baseline is not None
    cpu.memory.map(CODE, 4096, 3)
    cpu.memory.write(CODE, b"".join(word.to_bytes(4, "little") for word in LOOP))
    cpu.memory.protect(CODE, 4096, 5)
    cpu.env.pc = CODE
    cpu.run()
    yield cpu.baseline
    cpu.close()


def test_decode(baseline: Baseline) -> None:
    tables = load_guest("aarch64").tables
    random = Random(1)
    for _ in range(400):
        record = Record.view()
        form = random.choice(tables.forms[1:])
        word = random.getrandbits(32) & ~form.mask | form.value
        pc = random.getrandbits(40) & -4
        found = tables.decode(word, pc)
        assert decode.decode(baseline.ctx, word, pc, record) == found.form.id
        assert tuple(record.r) == found.r
        assert (record.imm - found.imm) % (1 << 64) == 0
        assert (record.target - found.target) % (1 << 64) == 0


def test_look_up_and_insert(baseline: Baseline) -> None:
    ctx = baseline.ctx
    blocks = [Block.at(int(ctx.blocks) + i * Block.size) for i in range(ctx.n_blocks)]
    assert len(blocks) >= 2
    for block in blocks:
        assert table.look_up(ctx, block.pc) == block.code
        assert table.find_instruction(ctx, block.code) == block.pc
        assert table.hash_block(ctx, block) == block.hash
    assert table.look_up(ctx, 0x1234560) == 0
    table.insert(ctx, 0x1234560, 77)
    assert table.look_up(ctx, 0x1234560) == 77
    assert table.still_valid(ctx) == 1
    assert table.touches_code(ctx, CODE + 4, CODE + 8) == 1
    assert table.touches_code(ctx, CODE + 0x800, CODE + 0x900) == 0


def test_translation_gives_the_same_code(baseline: Baseline) -> None:
    """What CPython translates is, byte for byte, what the compiled translator makes of the same block."""
    ctx, env, memory = baseline.ctx, baseline.cpu.env, baseline.cpu.memory
    baseline.flush()
    native = baseline.runtime.translate_at(baseline.cpu.env_address, CODE)
    block = Block.at(int(ctx.blocks))
    first = memory_bytes(native, block.size)
    baseline.flush()
    assert translate.translate(env, ctx, CODE) == native
    assert memory_bytes(native, block.size) == first
    assert emit.branch_target(ctx, CODE, 0) == native
    assert memory.executable(CODE)


def memory_bytes(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)
