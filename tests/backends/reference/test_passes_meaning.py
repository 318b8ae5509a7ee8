"""Passes keep the meaning: random templates, run as they are and after each pass, leave the same state."""

import ctypes
import random
from collections.abc import Callable

import pytest
from dbt.backends.reference.generate import compile_template
from dbt.backends.reference.state import EmptyBus, State
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.engine.layout import Env
from dbt.ir.builder import Builder, Place
from dbt.ir.ops import CONDITIONS, OPS
from dbt.ir.passes import dead_code, drop_flags, flag_effects, fold, forward
from dbt.ir.types import I1, I8, I32, I64, int_type, vector
from dbt.ir.values import Template, Value
from dbt.ir.verify import verify

BUFFER = (ctypes.c_uint64 * (Env.size // 8 + 1))()
STATE = State(ctypes.addressof(BUFFER), EmptyBus())
TYPES = (I8, I32, I64, vector(I8, 8), vector(I32, 2))
BINARY = [n for n, i in OPS.items() if i.args == ("ints", "=0") and i.result == "=0"]
COMPARE = [n for n, i in OPS.items() if i.args == ("ints", "=0") and i.result == "?0"]
UNARY = [n for n, i in OPS.items() if i.args == ("ints",) and i.result == "=0"]
PASSES: dict[str, Callable[[Template], Template]] = {"dead_code": dead_code, "fold": fold, "forward": forward}


class Maker:
    """Builds a random template: reads and writes of few places that overlap, operations on few types."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.build = Builder()
        self.values: dict[str, list[Value]] = {t.name: [] for t in TYPES}
        self.conditions: list[Value] = [self.build.const(I1, rng.randrange(2))]

    def value(self, name: str) -> Value:
        """A value of the type: made before, a constant that is often special, or read."""
        type_ = next(t for t in TYPES if t.name == name)
        known = self.values[name]
        if known and self.rng.random() < 0.6:
            return self.rng.choice(known)
        if self.rng.random() < 0.5:
            return self.build.const(type_, self.rng.choice([0, 1, -1, 7, self.rng.getrandbits(64)]))
        return self.build.get(type_, self.place())

    def place(self) -> Place:
        return Place(self.rng.choice([None, 0, 1, 2]), self.rng.choice([0, 8]))

    def step(self) -> None:
        """Add something."""
        rng, build = self.rng, self.build
        name = rng.choice(TYPES).name
        a = self.value(name)
        match rng.randrange(8):
            case 0 | 1 | 2:
                made = build.value(rng.choice(BINARY), a, self.value(name))
            case 3:
                op = rng.choice(UNARY)
                made = build.value(op, a)
            case 4:
                condition = build.value(rng.choice(COMPARE), a, self.value(name))
                made = condition.select(a, self.value(name))
            case 5:
                made = rng.choice(self.conditions).select(a, self.value(name))
            case 6:
                made = self.resized(a)
            case _:
                build.put(self.place(), a)
                self.conditions.append(build.cond(rng.choice(CONDITIONS)))
                return
        self.values[made.type.name].append(made)

    def resized(self, a: Value) -> Value:
        """Another width and back, if only scalars."""
        if a.type.lanes:
            return a
        bits = self.rng.choice([t.bits for t in TYPES if not t.lanes])
        if bits <= a.type.bits:
            return a.trunc(bits)
        return a.zext(bits) if self.rng.random() < 0.5 else a.sext(bits)

    def template(self) -> Template:
        for _ in range(self.rng.randrange(3, 25)):
            self.step()
        a, b = self.value("i64"), self.value("i64")
        self.build.put(Place(3, 0), a)
        self.build.flags("sub", a, b, a - b)
        self.build.goto_if(self.rng.choice(self.conditions))
        return verify(self.build.template("random"), fused=True)


def outcome(template: Template, seed: int, tokens: list[int]) -> tuple[int, bytes, list[int]]:
    STATE.bytes[:64] = random.Random(seed).randbytes(64)
    for i in range(4):
        STATE.flags[i] = i & 1
    target = compile_template(template, STATE.namespace)(tokens, 5, 0x1000, 0, 4)
    return target, bytes(STATE.bytes[:64]), list(STATE.flags)


@pytest.mark.parametrize("name", PASSES)
@given(seed=st.integers(0, 2**32), tokens=st.lists(st.sampled_from([0, 8, 16, 24]), min_size=4, max_size=4))
@settings(max_examples=150, deadline=None)
def test_meaning(name: str, seed: int, tokens: list[int]) -> None:
    template = Maker(random.Random(seed)).template()
    changed = verify(PASSES[name](template), fused=True)
    assert len(changed.ops) <= len(template.ops) + 1
    assert outcome(changed, seed, tokens) == outcome(template, seed, tokens)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_without_flags(seed: int) -> None:
    template = Maker(random.Random(seed)).template()
    changed = drop_flags(template)
    assert flag_effects(changed).written == 0
    target, registers, flags = outcome(changed, seed, [0, 8, 16, 24])
    assert (target, registers) == outcome(template, seed, [0, 8, 16, 24])[:2]
    assert flags == [0, 1, 0, 1]


def test_folding_a_constant_of_any_width_gives_what_evaluation_gives() -> None:
    for bits in (1, 8, 64, 128):
        build = Builder()
        made = build.const(int_type(bits), -1) + build.const(int_type(bits), 1)
        build.put(Place(None, 0), made.zext(8) if bits == 1 else made)
        assert [op.name for op in fold(build.template()).ops] == ["const", "put"]
