"""The reference engine on the A64 tables and a real address space: a loop, faults, tags, changed protection."""

import ctypes
import struct
from collections.abc import Iterator

import pytest
from dbt.backends.reference import ReferenceEngine
from dbt.frontends.guest import load_guest

from dbt.engine.layout import EXIT_BUDGET, EXIT_FAULT, EXIT_FETCH, EXIT_SYSCALL, EXIT_UNDEFINED, Env
from dbt.engine.memory import AddressSpace

CODE, DATA = 0x10000, 0x20000
READ, WRITE, EXECUTE = 1, 2, 4
SUM = (
    0xD2820001,  # mov x1, #4096
    0xD2A00040,  # mov x0, #0x20000
    0xF1000421,  # 1: subs x1, x1, #1
    0xF9000001,  # str x1, [x0]
    0xF9400002,  # ldr x2, [x0]
    0x8B020063,  # add x3, x3, x2
    0x54FFFF81,  # b.ne 1b
    0xD4000001,  # svc #0
)


class Rig:
    """An engine over an address space with a page of code and one of data."""

    def __init__(self, *words: int) -> None:
        self.memory = AddressSpace()
        self.memory.map(CODE, 4096, READ | WRITE | EXECUTE)
        self.memory.map(DATA, 4096, READ | WRITE)
        self.memory.write(CODE, struct.pack(f"<{len(words)}I", *words))
        self.storage = (ctypes.c_uint64 * (Env.size // 8 + 1))()
        address = ctypes.addressof(self.storage)
        self.env = Env.at(address)
        self.env.pc = CODE
        self.engine = ReferenceEngine(load_guest("a64").tables, self.memory, address, executable=self.executable)
        self.x = self.engine.state.words

    def executable(self, address: int) -> bool:
        area = self.memory.area_at(address)
        return area is not None and bool(area.prot & EXECUTE)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(*SUM)
    yield made
    made.memory.close()


def test_a_loop(rig: Rig) -> None:
    assert rig.engine.run() == EXIT_SYSCALL
    assert (rig.x[3], rig.engine.executed, rig.env.pc) == (4096 * 4095 // 2, 2 + 5 * 4096 + 1, CODE + 4 * len(SUM))


def test_a_budget_may_end_anywhere(rig: Rig) -> None:
    pcs = []
    for budget in (1, 2, 3, 4):
        assert rig.engine.run(budget) == EXIT_BUDGET
        pcs.append(rig.env.pc - CODE)
    assert pcs == [4, 12, 24, 20]


def test_the_top_byte_of_an_address_is_ignored(rig: Rig) -> None:
    rig.engine.run(2)
    rig.x[0] |= 0xAB << 56
    assert rig.engine.run() == EXIT_SYSCALL


def test_a_store_to_a_read_only_page(rig: Rig) -> None:
    rig.memory.protect(DATA, 4096, READ)
    assert rig.engine.run() == EXIT_FAULT
    assert (rig.env.pc, rig.env.value, rig.env.fault_error) == (CODE + 12, DATA, 2)
    assert rig.env.fault_address == DATA + rig.env.base
    rig.memory.protect(DATA, 4096, READ | WRITE)
    assert rig.engine.run() == EXIT_SYSCALL


def test_code_that_may_not_run(rig: Rig) -> None:
    rig.env.pc = DATA
    assert rig.engine.run() == EXIT_FETCH
    assert (rig.env.pc, rig.env.value) == (DATA, DATA)


def test_an_undefined_word(rig: Rig) -> None:
    rig.memory.write(CODE + 4, bytes(4))
    assert rig.engine.run() == EXIT_UNDEFINED
    assert rig.env.pc == CODE + 4
