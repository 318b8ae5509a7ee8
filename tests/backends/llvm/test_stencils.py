"""Single stencils against the reference engine: forms of A64, random operands, every variant, every exit."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

import pytest
from dbt.backends.llvm.check import CheckError, check
from dbt.backends.llvm.stencils import (
    Request,
    compile_requests,
    compile_templates,
    fallback,
    request_of,
    template_of,
)
from dbt.backends.reference.generate import compile_template
from dbt.backends.reference.state import State
from dbt.frontends.guest import load_guest

from dbt.engine import layout
from dbt.ir.builder import Builder
from dbt.ir.ops import FP, OPS
from dbt.ir.types import I64
from dbt.ir.values import Place

from .stencil_machine import JUMPED, MEMORY, NEXT, TAKEN, Machine, Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.backends.llvm.extract import Stencil
    from dbt.frontends.forms import Form

SEED: Final = int(os.environ.get("SEED", "20")) if os.environ.get("SEED", "20").isdigit() else 20
MASK64: Final = (1 << 64) - 1
GUEST: Final = load_guest("a64")
FORMS: Final = GUEST.tables.forms
BY_NAME: Final = {form.name: form for form in FORMS}
ACCESSES: Final = {"load", "store", "rmw", "cas"}
ELSEWHERE: Final = {"load_exclusive", "store_exclusive", "helper"}  # other tests have these
NZCV_KEPT: Final = layout.NO_FLAGS


class WrappingMemory:
    """The machine's memory as the reference engine wants it."""

    def __init__(self, view: memoryview) -> None:
        self.view: Final = view

    def read(self, address: int, size: int) -> bytes:
        """Read bytes."""
        start = address % MEMORY
        return bytes(self.view[start : start + size])

    def write(self, address: int, data: bytes) -> None:
        """Write bytes."""
        start = address % MEMORY
        self.view[start : start + len(data)] = data


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="module")
def other() -> Machine:
    return Machine()


def is_float(form: Form) -> bool:
    """Whether the form has operations of the FPU, whose tests are in test_fp.py."""
    return any(OPS[op.name].effects & FP or op.name in ("fpcr", "set_fpcr") for op in form.template.ops)


def number(rng: random.Random) -> int:
    """64 bits, often at a border."""
    borders = (0, 1, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 63) - 1, MASK64)
    return rng.choice(borders) if rng.random() < 0.4 else rng.getrandbits(rng.choice((8, 32, 64)))


class Case:
    """An encoding of a form and a state to run it in."""

    def __init__(self, form: Form, rng: random.Random) -> None:
        self.form = form
        accesses = any(op.name in ACCESSES for op in form.template.ops)
        literal = accesses and not any(op.name == "get" for op in form.template.ops)
        self.pc = 0x20000 if accesses else rng.choice((0x4000, 0x40_0000, 0x7FFF_0000, 0x5555_5555_0000))
        word = form.value | rng.getrandbits(32) & ~form.mask & 0xFFFFFFFF
        self.word = word & ~0xFF8000 if literal or "lit" in form.name else word
        decoded = GUEST.tables.decode(self.word, self.pc)
        self.usable = decoded.form is form
        self.numbers = Numbers(decoded.r, decoded.imm, decoded.target, self.pc, self.pc + 4)
        self.registers = bytearray(layout.GUEST_BYTES)
        for i in range(33):
            self.registers[8 * i : 8 * i + 8] = number(rng).to_bytes(8, "little")
        self.registers[512:1024] = rng.randbytes(512)
        self.registers[248:256] = bytes(8)
        if accesses:
            base = rng.randrange(0x2000, 0x20000, 16) | rng.getrandbits(40) << 18
            for token in (8 * (self.word >> 5 & 31), 256):
                if token != 248:
                    self.registers[token : token + 8] = base.to_bytes(8, "little")
            offset = 8 * (self.word >> 16 & 31)
            if offset not in (248, 8 * (self.word >> 5 & 31)) and rng.random() < 0.8:
                self.registers[offset : offset + 8] = rng.getrandbits(10).to_bytes(8, "little")
        self.flags = (number(rng), rng.choice((0, 0, 5, 1 << 40)), rng.getrandbits(1), number(rng))
        self.memory = rng.randbytes(256) * (MEMORY // 256)

    @property
    def narrow(self) -> bool:
        """Whether every number fits 32 bits, sign-extended."""
        return all(-(1 << 31) <= n < 1 << 31 for n in self.numbers[1:5])

    def prepare(self, machine: Machine) -> None:
        """Put the state into a machine."""
        machine.guest[:] = self.registers
        machine.memory[:] = self.memory
        for i, word in enumerate(self.flags):
            machine.set("flags", word, i)
        for field in ("exit", "pc", "value", "poll"):
            machine.set(field, 0)


def differences(case: Case, stencil: Stencil, machine: Machine, other: Machine, variant: int) -> Iterator[str]:
    """Run the stencil on one machine, the template on the other; what is not the same."""
    case.prepare(machine)
    case.prepare(other)
    state = State(other.env_address, WrappingMemory(other.memory))
    n = case.numbers
    step = compile_template(case.form.template, state.namespace)
    following = step(n.r, n.imm & MASK64, n.target & MASK64, n.pc, n.npc)
    found = machine.run(stencil, n)
    if following < 0:
        for field in ("exit", "pc", "value"):
            if machine.get(field) != other.get(field):
                yield f"{field}: {machine.get(field):#x}, not {other.get(field):#x}"
    elif found == layout.EXIT_INDIRECT:
        if machine.get("pc") != following:
            yield f"indirect to {machine.get('pc'):#x}, not {following:#x}"
    elif (found, following) not in {(NEXT, n.npc), (TAKEN, n.target & MASK64)}:
        yield f"left by {found}, not to {following:#x}"
    skip = {264}  # the junk slot
    for offset in range(0, layout.GUEST_BYTES, 8):
        if machine.guest[offset : offset + 8] != other.guest[offset : offset + 8] and offset not in skip:
            got, want = (bytes(m.guest[offset : offset + 8])[::-1].hex() for m in (machine, other))
            yield f"env+{offset}: {got}, not {want}"
    if bytes(machine.memory) != bytes(other.memory):
        yield "memory"
    if not variant & NZCV_KEPT and machine.flags != other.flags:
        yield f"flags {machine.flags}, not {other.flags}"


def sample(step: int) -> list[Form]:
    """Every step-th form that belongs here, with a start that depends on the seed."""
    forms = [f for f in FORMS if not is_float(f) and not any(op.name in ELSEWHERE for op in f.template.ops)]
    return forms[SEED % step :: step]


def test_forms_agree_with_the_reference(machine: Machine, other: Machine) -> None:
    rng = random.Random(SEED)
    forms = sample(12)
    stencils = compile_requests(GUEST, [Request(form.id, variant) for form in forms for variant in (0, 1, 2, 4)])
    run = 0
    for request, stencil in stencils.items():
        for _ in range(4):
            case = Case(FORMS[request.form], rng)
            if case.usable and (request.wide or case.narrow):
                run += 1
                wrong = list(differences(case, stencil, machine, other, request.variant))
                assert not wrong, f"SEED={SEED} {case.form.name} v{request.variant} {case.word:08x}: {wrong}"
    assert run > len(stencils)


def pair_number(first: str, condition: int, variant: int) -> int:
    """The number of a fused pair."""
    index = [form.name for form in GUEST.tables.fusable()].index(first)
    pair = index * layout.CONDITIONS + condition
    return layout.FUSED_STENCIL | pair * layout.FUSED_VARIANTS + variant


@pytest.mark.parametrize("first", ["ADD_imm_sf1_op1_S1", "ADD_reg_sf0_op0_S1", "AND_imm_sf0_opc3_N0"])
def test_fused_pairs_agree_with_the_reference(first: str, machine: Machine, other: Machine) -> None:
    rng = random.Random(SEED)
    requests = [request_of(GUEST, pair_number(first, condition, 0)) for condition in range(14)]
    for request, stencil in compile_requests(GUEST, requests).items():
        for _ in range(8):
            case = Case(FORMS[request.form], rng)
            case.numbers = case.numbers._replace(pc=0x1000, npc=0x1008, target=0x2000)
            if not case.narrow:
                continue
            before = case.flags
            found = machine_result(case, stencil, machine)
            case.prepare(other)
            state = State(other.env_address, WrappingMemory(other.memory))
            following = 0
            for template in (FORMS[request.form].template, FORMS[request.second].template):
                step = compile_template(template, state.namespace)
                following = step(case.numbers.r, case.numbers.imm & MASK64, 0x2000, 0x1000, 0x1008)
            assert found == {0x1008: NEXT, 0x2000: TAKEN}[following], (first, request.second, SEED)
            assert machine.guest[:248] == other.guest[:248]
            assert tuple(machine.get("flags", i) for i in range(4)) == before


def machine_result(case: Case, stencil: Stencil, machine: Machine) -> int:
    """Run a stencil from the case's state."""
    case.prepare(machine)
    return machine.run(stencil, case.numbers)


def test_poll_leaves_on_the_taken_edge_only(machine: Machine) -> None:
    rng = random.Random(SEED)
    for name, narrow in (("B_op0", True), ("B_cond_cond1", True), ("CBZ_sf1_op1", False)):
        variant = layout.POLL | (0 if narrow else layout.WIDE)
        stencil = next(iter(compile_requests(GUEST, [Request(BY_NAME[name].id, variant)]).values()))
        case = Case(BY_NAME[name], rng)
        target = 0x8000 if narrow else 0x1234_5678_9000
        case.numbers = case.numbers._replace(r=(0,) * 6, target=target)
        case.registers[0:8] = bytes(8)
        case.flags = (0, 0, 0, 0)
        for taken in (True, False):
            if not taken and name == "B_op0":
                continue
            if taken:
                case.registers[0:8] = (1).to_bytes(8, "little")
                case.flags = (0, 1, 0, 0)
            else:
                case.registers[0:8] = bytes(8)
                case.flags = (0, 0, 0, 0)
            case.prepare(machine)
            assert machine.run(stencil, case.numbers) == (TAKEN if taken else NEXT)
            case.prepare(machine)
            machine.set("poll", 1)
            assert machine.run(stencil, case.numbers) == (layout.EXIT_POLL if taken else NEXT)
            assert not taken or machine.get("pc") == target
    machine.set("poll", 0)


def test_indirect_branches_probe_the_jump_cache(machine: Machine) -> None:
    request = Request(BY_NAME["BR_opc1"].id, layout.WIDE)  # blr
    stencil = compile_requests(GUEST, [request])[request]
    case = Case(BY_NAME["BR_opc1"], random.Random(SEED))
    case.registers[0:8] = (0x7000_1234).to_bytes(8, "little")
    numbers = Numbers((0,) * 6, 0, 0, 0x1_0000_0000, 0x1_0000_0004)
    case.prepare(machine)
    assert machine.run(stencil, numbers) == layout.EXIT_INDIRECT
    assert machine.get("pc") == 0x7000_1234
    assert bytes(machine.guest[240:248]) == (0x1_0000_0004).to_bytes(8, "little")
    machine.know(0x7000_1234)
    case.prepare(machine)
    assert machine.run(stencil, numbers) == JUMPED


def test_fallback_says_which_form(machine: Machine) -> None:
    case = Case(BY_NAME["B_op0"], random.Random(SEED))
    case.prepare(machine)
    numbers = Numbers((), 0, 0, 0x1234_5678_9ABC, 0)
    assert machine.run(fallback(Request(77, 0)), numbers) == layout.EXIT_UNIMPLEMENTED
    assert (machine.get("pc"), machine.get("value")) == (0x1234_5678_9ABC, 77)


def test_an_access_behind_a_change_is_refused() -> None:
    late = Builder()
    late.put(Place(0, 0), late.const(I64, 1))
    late.put(Place(1, 0), late.load(I64, late.get(I64, Place(2, 0))))
    flags = Builder()
    value = flags.get(I64, Place(0, 0))
    flags.flags("logic", value, value, value)
    flags.put(Place(1, 0), flags.load(I64, value))
    good = Builder()
    good.put(Place(1, 0), good.load(I64, good.get(I64, Place(2, 0))))
    found = compile_templates([(n, b.template(n), False, False) for n, b in (("late", late), ("good", good))])
    check(found["good"], "good")
    with pytest.raises(CheckError, match="env is changed before"):
        check(found["late"], "late")


MOST_BYTES: Final = {  # the code of common instructions must not grow unnoticed
    "ADD_imm_sf1_op0_S0": 21, "ADD_reg_sf1_op0_S0": 21, "ADD_imm_sf1_op1_S1": 42, "AND_reg_sf1_opc0_N0": 21,
    "LDR.1_size3_opc1": 25, "LDR.1_size3_opc0": 25, "B_op0": 5, "B_op1": 16, "B_cond_cond0": 9, "CBZ_sf1_op0": 14,
    "BR_opc2": 65, "MOVZ_sf1_opc2_hw0": 11, "LDR_post_size3_opc1": 39,
}  # fmt: skip


def test_sizes_of_common_instructions() -> None:
    requests = {Request(BY_NAME[name].id, 0): size for name, size in MOST_BYTES.items()}
    grown = {
        FORMS[request.form].name: (len(stencil.code), stencil.disassembly())
        for request, stencil in compile_requests(GUEST, requests).items()
        if len(stencil.code) > requests[request]
    }
    assert not grown


def test_sizes_on_average(capsys: pytest.CaptureFixture[str]) -> None:
    forms = [form for form in sample(7) if form.name.split("_")[0].rstrip(".123456789") in COMMON]
    sizes = sorted(
        (
            (len(s.code), FORMS[r.form].name)
            for r, s in compile_requests(GUEST, [Request(f.id, 0) for f in forms]).items()
        ),
        reverse=True,
    )
    with capsys.disabled():
        print(f"\n{len(sizes)} forms; the largest: {', '.join(f'{name} {size}' for size, name in sizes[:6])}")
    assert sum(size for size, _ in sizes) <= 40 * len(sizes)


COMMON: Final = frozenset(
    ["ADD", "AND", "MOV", "MOVZ", "MOVK", "LDR", "LDP", "UBFM", "LSR", "UXTB", "B", "CBZ", "TBZ", "CSEL", "CSET"]
)


def test_templates_of_fused_pairs_write_no_flags() -> None:
    template = template_of(GUEST, request_of(GUEST, pair_number("ADD_imm_sf1_op1_S1", 11, 0)))
    assert not [op for op in template.ops if op.name in ("flags", "cond")]
