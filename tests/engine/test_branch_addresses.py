"""Branches to tagged addresses: PC has no tag, on every engine (Arm ARM, AArch64.BranchAddr() with TBI0 and not TBID0).

So it is on Linux; qemu-aarch64-static does the same, as does Unicorn in test_forms.py with TBI0.
"""

from __future__ import annotations

import struct

import pytest

import dbt
from dbt.run import ENGINES

CODE, TARGET = 0x10000, 0x10010
# br x1, or blr x1, or ret x1; behind it nothing. TARGET: adr x2, .; bl to the next; add x0, x0, #1; svc
BR, BLR, RET = 0xD61F0020, 0xD63F0020, 0xD65F0020
WORDS = (0, 0, 0, 0x10000002, 0x94000001, 0x91000400, 0xD4000001)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("branch", [BR, BLR, RET])
def test_the_top_byte_is_dropped(engine: str, branch: int) -> None:
    with dbt.open_cpu(engine=engine) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.write(CODE, struct.pack("<8I", branch, *WORDS))
        for budget in (None, 100, 3):
            for tag in (0, 1, 0x7F, 0x80, 0xFF):
                cpu.registers.update(x0=0, x1=tag << 56 | TARGET, x2=0, x30=0)
                cpu.run(CODE, budget=budget)
                assert cpu.registers["x2"] == TARGET
                assert cpu.registers["x30"] == TARGET + 8
                assert cpu.registers["pc"] == (TARGET + 16 if budget != 3 else TARGET + 8)
        cpu.registers["x1"] = 0x80 << 56 | TARGET
        assert cpu.run(CODE, until=0xFF << 56 | TARGET) == dbt.Reached(TARGET)
        cpu.registers["pc"] = 0x80 << 56 | TARGET
        cpu.break_at(1 << 56 | TARGET + 4)
        assert cpu.run() == dbt.Reached(TARGET + 4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("address", "fault"), [(0x81 << 56 | 0x4000, 0x4000), (0x1280 << 48, 0x1280 << 48), (0x12 << 56 | 1 << 54, 1 << 54)]
)
def test_a_fetch_that_faults(engine: str, address: int, fault: int) -> None:
    with dbt.open_cpu(engine=engine) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.write(CODE, struct.pack("<I", BR))
        cpu.registers["x1"] = address
        assert cpu.run(CODE) == dbt.MemoryFault(fault, fault, "fetch")
