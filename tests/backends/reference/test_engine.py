"""The reference engine: budgets, stops, exits, faults, invalidation, memory and atomics, on a guest of a few words."""

import ctypes
from typing import NamedTuple

import pytest
from dbt.backends.reference.engine import ReferenceEngine

from dbt.engine.layout import (
    EXIT_ALIGNMENT,
    EXIT_BREAKPOINT,
    EXIT_BUDGET,
    EXIT_FAULT,
    EXIT_FETCH,
    EXIT_POLL,
    EXIT_SYSCALL,
    EXIT_UNTIL,
    Env,
)
from dbt.errors import GuestFault
from dbt.ir.text import parse_template
from dbt.ir.values import Template
from dbt.ir.verify import verify

CODE, DATA, NONE = 0x1000, 0x2000, 0xFFFF_FFFF_FFFF_FFFF
NOP, INC, JUMP, SYSCALL, BREAK, ADDRESS = range(6)
TEXTS = {
    NOP: "",
    INC: "%0: i64 = get [@0]\n%1: i64 = imm\n%2: i64 = add %0, %1\nput [@0] %2",
    JUMP: "goto",
    SYSCALL: "exit [1] {pc=next}",
    BREAK: "%0: i64 = imm\nexit [3] %0",
    ADDRESS: "%0: i64 = get [@0]\ngoto_indirect %0",
}


class Form:
    """A template, as a form has it."""

    def __init__(self, template: Template) -> None:
        self.template = template


class Decoded(NamedTuple):
    """A decoded instruction."""

    form: Form
    length: int
    r: tuple[int, ...]
    imm: int
    target: int


class Ram:
    """One page of code and one of data; code may not be written."""

    def __init__(self) -> None:
        self.pages = {CODE: bytearray(4096), DATA: bytearray(4096)}

    def read(self, address: int, size: int, /) -> bytes:
        page = self.pages.get(address & ~4095)
        if page is None or (address & 4095) + size > 4096:
            raise GuestFault(address, "read")
        return bytes(page[address & 4095 :][:size])

    def write(self, address: int, data: bytes, /) -> None:
        if address & ~4095 != DATA or (address & 4095) + len(data) > 4096:
            raise GuestFault(address, "write")
        start = address & 4095
        self.pages[DATA][start : start + len(data)] = data


class Tables:
    """A guest whose words are: low byte the form, the rest the immediate (and, for JUMP, the distance in words)."""

    def __init__(self, texts: dict[int, str]) -> None:
        self.decoded = 0
        self.forms = {
            number: Form(verify(parse_template(f"template t {{\n{text}\n}}"))) for number, text in texts.items()
        }

    def decode(self, word: int, pc: int = 0, /) -> Decoded:
        self.decoded += 1
        imm = ctypes.c_int32(word).value >> 8
        return Decoded(self.forms[word & 255], 4, (0, 8, 16, 24, 32, 40), imm, pc + 4 * imm)


class Rig:
    """An engine with its memory, and the env as a view."""

    def __init__(self, *words: int, texts: dict[int, str] | None = None) -> None:
        self.buffer = (ctypes.c_uint64 * (Env.size // 8 + 1))()
        self.memory = Ram()
        self.tables = Tables({**TEXTS, **(texts or {})})
        self.env = Env.at(ctypes.addressof(self.buffer))
        self.engine = ReferenceEngine(self.tables, self.memory, ctypes.addressof(self.buffer))
        self.x = self.engine.state.words
        self.x[296 >> 3] = NONE
        self.load(*words)
        self.env.pc = CODE

    def load(self, *words: int) -> None:
        for i, word in enumerate(words):
            self.memory.pages[CODE][4 * i : 4 * i + 4] = (word & 0xFFFFFFFF).to_bytes(4, "little")


def op(form: int, imm: int = 0) -> int:
    return imm << 8 | form


def test_a_budget_is_exact() -> None:
    rig = Rig(op(INC, 3), op(JUMP, -1))
    assert rig.engine.run(7) == EXIT_BUDGET
    assert (rig.x[0], rig.env.pc, rig.engine.executed, rig.env.exit) == (12, CODE + 4, 7, EXIT_BUDGET)
    assert rig.engine.run(0) == EXIT_BUDGET
    assert rig.engine.executed == 7
    assert rig.tables.decoded == 2


def test_single_step() -> None:
    rig = Rig(op(INC, 3), op(JUMP, -1))
    pcs = []
    for _ in range(4):
        assert rig.engine.step() == EXIT_BUDGET
        pcs.append(rig.env.pc)
    assert pcs == [CODE + 4, CODE, CODE + 4, CODE]


def test_exits_say_where_to_go_on() -> None:
    rig = Rig(op(NOP), op(SYSCALL), op(BREAK, 77))
    assert rig.engine.run() == EXIT_SYSCALL
    assert (rig.env.pc, rig.engine.executed) == (CODE + 8, 2)
    assert rig.engine.run() == EXIT_BREAKPOINT
    assert (rig.env.pc, rig.env.value, rig.engine.executed) == (CODE + 8, 77, 2)


def test_stop_addresses() -> None:
    rig = Rig(op(INC, 1), op(INC, 1), op(JUMP, -2))
    rig.engine.stops = {CODE + 4}
    assert rig.engine.run() == EXIT_UNTIL
    assert (rig.env.pc, rig.x[0]) == (CODE + 4, 1)
    assert rig.engine.run() == EXIT_UNTIL
    assert (rig.env.pc, rig.x[0]) == (CODE + 4, 3)


def test_the_poll_word_is_seen_at_branches() -> None:
    rig = Rig(op(INC, 1), op(INC, 1), op(JUMP, -2))
    rig.env.poll = 1
    assert rig.engine.run() == EXIT_POLL
    assert (rig.env.pc, rig.x[0], rig.engine.executed) == (CODE, 2, 3)


def test_fetch_faults() -> None:
    rig = Rig(op(INC, 0), op(ADDRESS))
    rig.x[0] = 0x5000
    assert rig.engine.run() == EXIT_FETCH
    assert (rig.env.pc, rig.env.value) == (0x5000, 0x5000)
    no_code = ReferenceEngine(rig.tables, rig.memory, ctypes.addressof(rig.buffer), executable=lambda pc: pc < DATA)
    rig.env.pc = DATA
    assert no_code.run() == EXIT_FETCH


def test_a_fault_leaves_the_guest_as_it_was() -> None:
    text = "%0: i64 = get [@0]\n%1: i64 = load %0\n%2: i64 = imm\n%3: i64 = add %0, %2\nput [@0] %3\nput [@8] %1"
    rig = Rig(op(NOP), op(9, 8), texts={9: text})
    rig.env.base = 1 << 40
    rig.x[0], rig.x[1] = DATA + 4095, 5
    assert rig.engine.run(5) == EXIT_FAULT
    assert (rig.x[0], rig.x[1], rig.env.pc, rig.engine.executed) == (DATA + 4095, 5, CODE + 4, 1)
    assert (rig.env.value, rig.env.fault_address, rig.env.fault_error) == (DATA + 4095, (1 << 40) + DATA + 4095, 0)


def test_a_write_fault_says_so() -> None:
    rig = Rig(op(9), texts={9: "%0: i64 = get [@0]\nstore %0, %0"})
    rig.x[0] = CODE
    assert rig.engine.run() == EXIT_FAULT
    assert rig.env.fault_error & 2


def test_changed_code_runs_after_invalidation() -> None:
    rig = Rig(op(INC, 1), op(JUMP, -1))
    rig.engine.run(2)
    rig.load(op(INC, 100))
    rig.engine.run(2)
    assert rig.x[0] == 2
    rig.engine.invalidate(CODE + 3, CODE + 4)
    rig.engine.run(2)
    assert rig.x[0] == 102
    assert rig.tables.decoded == 3


def run(rig: Rig, text: str, imm: int = 0) -> int:
    """One instruction with these semantics."""
    rig.tables.forms[9] = Form(verify(parse_template(text)))
    rig.load(op(9, imm))
    rig.engine.invalidate(CODE, CODE + 4)
    rig.env.pc = CODE
    return rig.engine.step()


def test_alignment() -> None:
    rig = Rig()
    rig.x[0] = DATA + 4
    assert run(rig, "%0: i64 = get [@0]\nalign_check [4] %0") == EXIT_BUDGET
    assert run(rig, "%0: i64 = get [@0]\nalign_check [8] %0") == EXIT_ALIGNMENT
    assert (rig.env.pc, rig.env.value) == (CODE, DATA + 4)


def test_a_loop_inside_an_instruction_counts_each_round() -> None:
    text = (
        "%0: i64 = get [@0]\n%1: i64 = const [1]\n%2: i64 = sub %0, %1\n%3: i1 = ne %2, %1\nput [@0] %2\nrepeat_if %3"
    )
    rig = Rig(op(9), op(SYSCALL), texts={9: text})
    rig.x[0] = 4
    assert rig.engine.run() == EXIT_SYSCALL
    assert (rig.x[0], rig.engine.executed) == (1, 4)


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_exclusives(size: int) -> None:
    rig = Rig()
    rig.x[0] = DATA
    load = f"%0: i64 = get [@0]\n%1: i{size} = load_exclusive %0\nput [@16] %1"
    store = f"%0: i64 = get [@0]\n%1: i{size} = get [@32]\n%2: i32 = store_exclusive %0, %1\nput [@8] %2"
    rig.memory.pages[DATA][:16] = bytes(range(1, 17))
    rig.x[4], rig.x[5] = 0x1111, 0x2222
    run(rig, load)
    assert bytes(rig.engine.state.bytes[16 : 16 + size // 8]) == bytes(range(1, 1 + size // 8))
    run(rig, store)
    assert rig.x[1] & 0xFFFFFFFF == 0
    assert rig.memory.pages[DATA][: size // 8] == bytes(rig.engine.state.bytes[32 : 32 + size // 8])
    run(rig, store)
    assert rig.x[1] & 0xFFFFFFFF == 1, "the monitor is disarmed by the first store"
    for disturb in ("clear", "value", "address"):
        run(rig, load)
        if disturb == "clear":
            run(rig, "clear_exclusive")
        elif disturb == "value":
            rig.memory.pages[DATA][0] ^= 1
        else:
            rig.x[0] += 16
        run(rig, store)
        assert rig.x[1] & 0xFFFFFFFF == 1, disturb
        rig.x[0] = DATA


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add", 0x0E), ("and", 0x80), ("or", 0x8E), ("xor", 0x0E), ("xchg", 0x8E), ("smax", 0x8E), ("smin", 0x80),
        ("umax", 0x8E), ("umin", 0x80),
    ],
)  # fmt: skip
def test_atomic_updates(name: str, expected: int) -> None:
    rig = Rig()
    rig.x[0], rig.x[1] = DATA, 0x8E
    rig.memory.pages[DATA][0] = 0x80
    run(rig, f"%0: i64 = get [@0]\n%1: i8 = get [@8]\n%2: i8 = rmw [{name}] %0, %1\nput [@16] %2")
    assert (rig.memory.pages[DATA][0], rig.x[2] & 255) == (expected, 0x80)


def test_compare_and_swap() -> None:
    rig = Rig()
    text = "%0: i64 = get [@0]\n%1: i32 = get [@8]\n%2: i32 = get [@16]\n%3: i32 = cas %0, %1, %2\nput [@24] %3"
    rig.x[0], rig.x[1], rig.x[2] = DATA, 7, 9
    run(rig, text)
    assert (rig.memory.pages[DATA][0], rig.x[3]) == (0, 0)
    rig.x[1] = 0
    run(rig, text)
    assert rig.memory.pages[DATA][0] == 9


def test_byte_order_and_vectors() -> None:
    rig = Rig()
    rig.x[0] = DATA
    rig.memory.pages[DATA][:16] = bytes(range(16))
    run(rig, "%0: i64 = get [@0]\n%1: i32 = load %0 {endian=big}\nstore %0, %1\nput [@8] %1")
    assert rig.x[1] == 0x00010203
    assert rig.memory.pages[DATA][:4] == bytes([3, 2, 1, 0])
    run(rig, "%0: i64 = get [@0]\n%1: v8i16 = load %0\n%2: v8i16 = add %1, %1\nstore %0, %2\nput [@512] %1")
    assert bytes(rig.engine.state.bytes[512:528]) == bytes([3, 2, 1, 0, *range(4, 16)])
    assert rig.memory.pages[DATA][4:8] == bytes([8, 10, 12, 14])


def test_an_empty_io_bus_reads_as_ones() -> None:
    rig = Rig()
    run(rig, "%0: i64 = imm\n%1: i16 = load %0 {space=io}\nstore %0, %1 {space=io}\nput [@8] %1")
    assert rig.x[1] & 0xFFFF == 0xFFFF


def test_state_that_native_code_left_in_mxcsr_is_part_of_fpsr() -> None:
    rig = Rig()
    rig.env.mxcsr = 0x1F80 | 1 << 5 | 1 << 0
    rig.x[288 >> 3] = 1 << 27
    run(rig, "%0: i64 = fpsr\nput [@8] %0")
    assert rig.x[1] == 1 << 27 | 1 << 4 | 1
    run(rig, "%0: i64 = imm\nset_fpsr %0", 2)
    run(rig, "%0: i64 = fpsr\nput [@8] %0")
    assert rig.x[1] == 2
    run(rig, "%0: i64 = const [0x00400000]\nset_fpcr %0")
    assert (rig.x[280 >> 3], rig.env.mxcsr >> 13 & 3) == (1 << 22, 2)


def test_rounding_and_sticky_flags() -> None:
    rig = Rig()
    rig.x[0], rig.x[1] = 0x3FF0000000000000, 1  # 1.0 and the smallest number
    run(rig, "%0: f64 = get [@0]\n%1: f64 = get [@8]\n%2: f64 = fadd %0, %1 {rm=up}\nput [@16] %2")
    assert (rig.x[2], rig.x[288 >> 3]) == (0x3FF0000000000001, 1 << 4)
    run(rig, "%0: i1 = const [1]\nset_qc %0")
    assert rig.x[288 >> 3] == 1 << 27 | 1 << 4


def test_helpers_are_called_under_cpython() -> None:
    rig = Rig()
    run(rig, "%0: i64 = helper [cntvct] {effects=reads}\nput [@8] %0")
    first = rig.x[1]
    run(rig, "%0: i64 = helper [cntvct] {effects=reads}\nput [@8] %0")
    assert 0 < first < rig.x[1]
