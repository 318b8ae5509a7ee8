"""An oracle for floating point: Unicorn runs one A64 instruction over many operands."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CODE, DATA, RESULT, SPACE = 0x10000, 0x100000, 0x400000, 0x200000
OUT_FRAME = 48  # bytes: v3, x4, NZCV, FPSR, padding

# A loop. x0: operands, x1: results, x2: count, x6: FPCR; the instruction under test stands between the two parts, reads
# v0, v1, v2 or x7 and writes v3, x4 or NZCV.
BEFORE = (0xD51B4406, 0x3CC10400, 0x3CC10401, 0x3CC10402, 0xF8410407, 0xD51B443F)
AFTER = (0xD53B4423, 0xD53B4205, 0x3C810423, 0xF8008424, 0xD35CFCA5, 0xF8008425, 0xF8010423, 0xF1000442, 0x54FFFE41)


class ArmResult(NamedTuple):
    """What the instruction left: v3, x4, NZCV (four bits) and FPSR."""

    v: int
    x: int
    nzcv: int
    fpsr: int


def run_arm(word: int, operands: Sequence[tuple[int, int, int, int]], fpcr: int = 0) -> list[ArmResult]:
    """Execute `word` once for each (v0, v1, v2, x7)."""
    unicorn = pytest.importorskip("unicorn")
    arm64 = pytest.importorskip("unicorn.arm64_const")
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    for start in (CODE, DATA, RESULT):
        machine.mem_map(start, SPACE if start != CODE else 0x1000)
    machine.reg_write(arm64.UC_ARM64_REG_CPACR_EL1, 3 << 20)
    code = struct.pack(f"<{len(BEFORE) + 1 + len(AFTER)}I", *BEFORE, word, *AFTER)
    machine.mem_write(CODE, code)
    frames = bytearray()
    for v0, v1, v2, x7 in operands:
        frames += b"".join(value.to_bytes(16, "little") for value in (v0, v1, v2, x7))
    machine.mem_write(DATA, bytes(frames))
    for register, value in ((0, DATA), (1, RESULT), (2, len(operands)), (6, fpcr)):
        machine.reg_write(arm64.UC_ARM64_REG_X0 + register, value)
    machine.emu_start(CODE, CODE + len(code))
    out = bytes(machine.mem_read(RESULT, OUT_FRAME * len(operands)))
    return [
        ArmResult(low | high << 64, x, nzcv, fpsr & 0x9F)
        for low, high, x, nzcv, fpsr, _ in struct.iter_unpack("<6Q", out)
    ]


@pytest.fixture
def arm() -> Callable[..., list[ArmResult]]:
    """`run_arm`, as a fixture."""
    return run_arm
