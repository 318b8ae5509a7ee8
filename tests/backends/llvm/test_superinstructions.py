"""Superinstructions: the code that is made of parts, what the checker makes of it, and the file that holds them."""

from __future__ import annotations

from struct import unpack_from

import pytest
from dbt.backends.llvm.check import CheckError, Mark, check
from dbt.backends.llvm.extract import Stencil, StencilHole
from dbt.backends.llvm.pack import PackError
from dbt.backends.llvm.super_pack import SuperPack, key_hash
from dbt.backends.llvm.superinstructions import Part, compile_superinstructions, key_of, parts_of
from dbt.frontends.guest import load_guest

from dbt.engine import formats, layout, superinstructions
from dbt.ir.values import IRError

GUEST = load_guest("aarch64")
TABLES = GUEST.tables
B_NE = 0x54FFFF01


def key(*words: int) -> bytes:
    """The key of instructions behind each other, with all flags."""
    parts = []
    for i, word in enumerate(words):
        decoded = TABLES.decode(word, 0x10000 + 4 * i)
        direct = TABLES.metadata(decoded.form).ends & formats.ENDS_DIRECT
        tokens = (*decoded.r, *[0] * layout.TOKENS)[: layout.TOKENS]
        parts.append(Part(decoded.form.id * layout.VARIANTS, tokens, decoded.imm, 0 if direct else decoded.target))
    return key_of(parts)


def code_of(*words: int) -> Stencil:
    (found,) = compile_superinstructions(GUEST, [key(*words)]).values()
    assert found is not None
    return found


def test_keys_say_what_the_parts_are() -> None:
    parts = parts_of(key(0x91000463, 0xF9400022))  # add x3, x3, #1; ldr x2, [x1]
    assert [part.tokens[:2] for part in parts] == [(24, 24), (8, 16)]
    assert [part.imm for part in parts] == [1, 0]
    assert key_of(parts) == key(0x91000463, 0xF9400022)


def test_registers_are_handed_on_and_written_once() -> None:
    text = code_of(0x91000463, 0x8B030063, 0x91000863).disassembly()  # add x3, x3, #1; add x3, x3, x3; add x3, x3, #2
    assert sum("[rdi + 0x18]" in line for line in text) == 2  # read, written
    assert "jmp qword ptr [rcx]" in text


def test_immediates_are_numbers() -> None:
    text = code_of(0xD37DF063, 0x8B020063).disassembly()  # lsl x3, x3, #3; add x3, x3, x2
    assert not [line for line in text if "[rcx" in line and not line.startswith("jmp")]


def test_each_access_has_its_own_step() -> None:
    text = code_of(0x91000463, 0xF9400022, 0xF9000083).disassembly()  # add x3, x3, #1; ldr x2, [x1]; str x3, [x4]
    marks = [i for i, line in enumerate(text) if line == f"lea rcx, [rcx + {layout.Step.size:#x}]"]
    accesses = [i for i, line in enumerate(text) if "[rsi" in line]
    assert len(marks) == len(accesses) == 2
    assert marks[0] < accesses[0] < marks[1] < accesses[1]
    added = next(i for i, line in enumerate(text) if "[rdi + 0x18]" in line)
    assert added < accesses[0]  # x3, which the first one writes
    loaded = next(i for i, line in enumerate(text) if line.startswith("mov qword ptr [rdi + 0x10]"))
    assert accesses[0] < loaded < accesses[1]  # x2


def test_flags_are_in_their_registers_at_an_access() -> None:
    # subs x5, x5, #1; ldr x2, [x1]; subs x0, x0, #1; b.ne: the first flags at the load, the last ones behind it
    assert code_of(0xF10004A5, 0xF9400022, 0xF1000400, B_NE)


MARKED = "488d8940000000 488b0406 48894710"  # lea rcx, [rcx+64]; mov rax, [rsi+rax]; mov [rdi+16], rax


@pytest.mark.parametrize(
    ("code", "marks", "why"),
    [
        (MARKED, [(64, False)], None),
        (f"48894718 {MARKED}", [(64, False)], None),  # what is stored before the mark is the first part's
        (f"48894718 488b0406 {MARKED}", [(64, False)], "env is changed before"),
        (f"{MARKED} 488b0406", [(64, False)], "env is changed before"),  # behind its own register
        (MARKED, [(128, False)], "marks are not where"),
        (MARKED, [(64, False), (64, False)], "marks are not where"),
        (f"{MARKED} 488d8980000000", [(64, False)], "marks are not where"),  # one too many
        (f"4531e4 {MARKED}", [(64, False)], "r12 changed before"),  # xor r12d, r12d
        (f"4531e4 {MARKED}", [(64, True)], None),
        ("488d8940000000 4531ed 488b0406", [(64, True)], "r13 changed before"),
        ("488d8940000000 31c9 488b0406", [(64, False)], "rcx changed before"),
    ],
)
def test_what_the_checker_says(code: str, marks: list[tuple[int, bool]], why: str | None) -> None:
    stencil = Stencil(bytes.fromhex(code), ())
    made = [Mark(*mark) for mark in marks]
    if why is None:
        check(stencil, "it", step=True, marks=made)
    else:
        with pytest.raises(CheckError, match=why):
            check(stencil, "it", step=True, marks=made)


def test_what_ends_in_the_middle_is_refused() -> None:
    with pytest.raises(IRError):
        compile_superinstructions(GUEST, [key(0x14000001, 0x91000463)])


# the file
CONSTANT = bytes(range(16))


def stencil(number: int, *, constant: bytes = b"") -> Stencil:
    holes = (StencilHole(4, formats.HOLE_RODATA, 0, -4, constant),) if constant else ()
    return Stencil(bytes((number,)) * 8, holes)


def keys(count: int) -> list[bytes]:
    return [
        key_of([Part(8 * i, (i,) * layout.TOKENS, -i, i << 40), Part(8, (0,) * layout.TOKENS, 0, 0)])
        for i in range(count)
    ]


def find(data: bytes, wanted: bytes) -> int | None:
    """As superinstructions.compiled: offset of the StencilHead, 0: cannot be compiled, None: is not there."""
    head = {name: int.from_bytes(data[at : at + 4], "little") for name, at in formats.SuperHead.field_offsets.items()}
    slot = key_hash(wanted) & (head["n_slots"] - 1)
    while True:
        (entry,) = unpack_from("<I", data, head["slots"] + 4 * slot)
        if not entry:
            return None
        n, found = unpack_from("<2I", data, entry)
        if data[entry + superinstructions.ENTRY_BYTES :][: n * layout.PART_KEY] == wanted:
            return int(found)
        slot = slot + 1 & (head["n_slots"] - 1)


def test_a_file_grows() -> None:
    made, all_keys = SuperPack("stamp"), keys(40)
    made.add({k: stencil(i, constant=CONSTANT if i % 3 else b"") for i, k in enumerate(all_keys[:20])})
    grown = SuperPack.parse(made.to_bytes(), "it", "stamp")
    assert grown.to_bytes() == made.to_bytes()
    grown.add({k: stencil(i) if i % 2 else None for i, k in enumerate(all_keys[20:30], 20)})
    assert grown.keys() == set(all_keys[:30])
    data = grown.to_bytes()
    assert data.count(CONSTANT) == 1
    for i, k in enumerate(all_keys):
        at = find(data, k)
        if i >= 30:
            assert at is None
        elif i >= 20 and not i % 2:
            assert at == 0
        else:
            assert at
            code = at + int(unpack_from("<HHI", data, at)[2])
            assert code % 16 == 0
            assert data[code] == i
            if i < 20 and i % 3:
                place = code + 8 + int(unpack_from("<i", data, code + 4)[0])
                assert data[place : place + 16] == CONSTANT


def test_a_file_that_would_be_too_long_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made, all_keys = SuperPack("stamp"), keys(40)
    made.add({k: stencil(1) for k in all_keys[:10]})
    monkeypatch.setattr("dbt.backends.llvm.super_pack.LIMIT", len(made.to_bytes()) + 200)
    made.add({k: stencil(2) for k in all_keys[10:14]})
    assert made.keys() == set(all_keys[10:14])


@pytest.mark.parametrize("at", [0, 8, 20, 60, -1])
def test_damage_is_noticed(at: int) -> None:
    made = SuperPack("stamp")
    made.add({k: stencil(1) for k in keys(3)})
    data = bytearray(made.to_bytes())
    data[at] ^= 1
    with pytest.raises(PackError, match="damaged"):
        SuperPack.parse(bytes(data), "it", "stamp")


def test_other_builds_and_scraps_are_refused() -> None:
    data = SuperPack("stamp").to_bytes()
    assert not SuperPack.parse(data, "it", "stamp").keys()
    with pytest.raises(PackError, match="another build"):
        SuperPack.parse(data, "it", "other")
    with pytest.raises(PackError, match="5 bytes"):
        SuperPack.parse(b"scrap", "it", "stamp")
