"""`dragoman explain`: blocks and regions for each engine, as text and as a page."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dbt.backends.llvm.region_code import compile_region, optimise
from dbt.backends.llvm.regions import region_text
from dbt.frontends.guest import load_guest
from elftools.elf.elffile import ELFFile

from dbt.engine.cache import open_store
from dbt.engine.cpu import ENGINES, Cpu
from dbt.engine.former import form_region
from dbt.engine.layout import Step
from dbt.engine.places import Places
from dbt.errors import InternalError
from dbt.linux.process import Process
from dbt.tools.explain import explain_block, explain_region
from dbt.tools.explain.lines import Part, code_lines, locate, optimised_lines
from dbt.tools.explain.region import _aside

from .guests import BASE, LOOP, write_guest
from .pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbt.tools.explain.model import Row, Table

Command = Any  # of tests/conftest.py
ROOT = Path(__file__).parents[2]
HASH = ROOT / "bench" / "guests" / "bin" / "hash"
HOT = 0x400230  # a loop of hash; its region has calls, loops inside loops and exits
SHOWN = {
    "baseline": "baseline: x86-64",
    "reference": "reference: Python",
    "interpreter": "interpreter: steps, handlers in x86-64",
    "optimizer": "LLVM IR after its passes",
}


def loaded(path: Path, engine: str) -> Process:
    process = Process(Cpu(engine=engine, store=open_store()))
    process.load(str(path), [os.fsencode(path)], [])
    return process


@pytest.fixture(scope="module")
def hash_region() -> Iterator[Table]:
    process = loaded(HASH, "optimizer")
    yield explain_region(process, HOT)
    process.cpu.close()


def rows_of(table: Table) -> dict[int, Row]:
    return {row.line.address: row for row in table.rows if row.line is not None}


def test_explain_as_text(dragoman: Command, looping: Path) -> None:
    text = dragoman("explain", "--at", "loop+4", "--width", "140", looping).stdout.decode()
    head, *lines = text.splitlines()
    assert head.startswith(f"loop+0x4 in {looping}: block, 2 instructions, 8 bytes, ")
    assert max(map(len, lines)) <= 140
    assert re.search(r"0x401014  f1000400  subs x0, x0, #1 +\d+ bytes; fused with the next one", text)
    assert "fused with the one above" in text
    assert re.search(r"flags \[sub\] %0, %1, %2", text)
    assert "; x0" in text
    assert re.search(r"decode: \d+\.\d\d µs", text)


def test_explain_the_entry_of_a_stripped_program(dragoman: Command, tmp_path: Path) -> None:
    path = write_guest(tmp_path / "stripped", symbols=False)
    text = dragoman("explain", "--engine", "baseline,reference,interpreter", path).stdout.decode()
    assert text.startswith("[stripped]+0x1000 in ")
    assert text.count(" instructions, ") == 1  # they share a table
    for part in ("G64[", SHOWN["baseline"], SHOWN["interpreter"]):
        assert part in text


@pytest.mark.parametrize("engine", ENGINES)
def test_explain_as_a_page(dragoman: Command, looping: Path, tmp_path: Path, engine: str) -> None:
    out = tmp_path / "out.html"
    done = dragoman("explain", "--at", "loop", "--engine", engine, "--html", out, looping)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    text = Page(out).text
    for part in ("loop", "str x0, [sp, #-0x10]!", SHOWN[engine], "put [x0]", "guest code"):
        assert part in text


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("engine", [*ENGINES, ",".join(ENGINES)])
def test_a_browser_shows_the_page(
    dragoman: Command, looping: Path, tmp_path: Path, browser: Callable[[Path], tuple[int, int, int]], engine: str
) -> None:
    out = tmp_path / "out.html"
    dragoman("explain", "--at", "loop", "--engine", engine, "--html", out, looping)
    width, height, colours = browser(out)
    assert (width, height) == (1200, 900)
    assert colours > 20  # text is smoothed: many shades


@pytest.mark.parametrize(
    "words",
    [
        ("--at", "nobody"), ("--at", "0x10"), ("--at", "loop+x"), ("--engine", "fast"),
        ("--at", "0x10", "--engine", "optimizer"), ("--at", "0x401002", "--engine", "optimizer"),
        ("--html", "/nowhere/x"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(dragoman: Command, looping: Path, words: tuple[str, ...]) -> None:
    done = dragoman("explain", *words, looping)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"dragoman: ")
    assert b"bug" not in done.stderr


def test_steps_of_the_interpreter(looping: Path) -> None:
    process = loaded(looping, "interpreter")
    found = explain_block(process, BASE + LOOP, ["interpreter"])
    process.cpu.close()
    column = found.columns[0]
    store, subtraction, branch = column.cells
    assert sum(cell.size for cell in column.cells) == column.size
    assert column.size % Step.size == 0
    assert re.match(
        r"\(step \+0: handler \+0x[0-9a-f]+, r0 sp, r1 x0, imm -0x10, pc 0x401010\)"
        r"|\(step \+0: handler \+0x[0-9a-f]+, r0 x0, r1 sp, imm -0x10, pc 0x401010\)",
        store.lines[0],
    )
    assert any(re.fullmatch(r"movzx \w+, word ptr \[rcx \+ 0x1\w\]  ; r\[\d\]", line) for line in store.lines)
    assert any("; imm" in line for line in store.lines)
    assert re.match(r"\(step \+64: .*imm 0x1, target 0x401014, pc 0x401018\)", subtraction.lines[0])
    assert branch.size == 0  # fused
    joined = found.columns[1]
    assert joined.cells[0].lines == ["(alone)"] or "steps as one" in joined.cells[0].lines[0]


def test_superinstructions_of_the_interpreter() -> None:
    process = loaded(HASH, "interpreter")
    found = explain_block(process, HOT, ["interpreter"])
    process.cpu.close()
    steps, joined = found.columns
    first = joined.cells[0]
    assert first.lines[0] == "(7 steps as one)"
    assert [cell.lines for cell in joined.cells[1:]] == [["(the next part)"]] * 6
    assert first.size == joined.size > 0
    assert sum(line.endswith("; x2") for line in first.lines) == 2  # read and written once each
    assert steps.size == 7 * Step.size


def test_what_is_inside_a_region(looping: Path) -> None:
    process = loaded(looping, "optimizer")
    table = explain_region(process, BASE + LOOP)
    process.cpu.close()
    assert (table.name, table.kind, table.instructions) == ("loop", "region", 6)
    headings = {row.heading: row.remarks for row in table.rows if row.line is None}
    assert headings["block 0x401010: 1 instruction"] == ["entry of the region"]
    assert headings["block 0x401014: 2 instructions, from 0x401010, 0x401014"] == ["loop head"]
    rows = rows_of(table)
    assert rows[BASE + LOOP + 8].remarks == ["to 0x401014", "goes on at 0x40101c", "polls before 0x401014"]
    assert rows[BASE + LOOP + 20].remarks == ["leaves the region"]
    ir, chosen, before, after, host = rows[BASE + LOOP].cells
    assert any(line.startswith("store %") for line in ir.lines)
    assert chosen.lines == ["(the same)"]
    assert any("movq $1, $0" in line for line in before.lines)
    assert any("movq $1, $0" in line for line in after.lines)
    assert any(re.search(r"mov qword ptr \[rsi", line) for line in host.lines)
    comparison = rows[BASE + LOOP + 12].cells  # nobody reads its flags
    assert any("flags" in line for line in comparison[0].lines)
    assert not any("flags" in line for line in comparison[1].lines)
    assert comparison[4].size == 0
    assert "left for a poll before 0x401014" in headings
    entry = next(row for row in table.rows if row.heading.startswith("entry"))
    assert any(re.fullmatch(r"%\w+ = getelementptr i8, ptr %env, i64 256  ; sp", line) for line in entry.cells[2].lines)


def test_every_byte_of_a_region_is_somewhere(hash_region: Table) -> None:
    cells = [row.cells for row in hash_region.rows if row.cells]
    sizes = dict(hash_region.sizes)
    assert sum(columns[-1].size for columns in cells) == sizes["optimizer: x86-64"]
    offsets = [int(line[:4], 16) for columns in cells for line in columns[-1].lines if line[0] != "("]
    assert len(offsets) == len(set(offsets))
    assert sizes["guest code"] == 4 * hash_region.instructions
    assert not any("different code" in note for note in hash_region.notes)


def test_code_stands_with_its_instruction(hash_region: Table) -> None:
    for row in rows_of(hash_region).values():
        assert row.line is not None
        name, *_ = row.line.text.split()
        before, after, host = row.cells[2:]
        if name in ("ldr", "ldrb", "ldp", "str"):
            assert any("callbr" in line for line in before.lines), row.line
            assert any("callbr" in line for line in after.lines), row.line
            assert any("[" in line for line in host.lines), row.line
        if name == "ror":
            assert any(re.search(r"\b(rorx?|rol|shrd|shld)\b", line) for line in host.lines), row.line


def test_the_region_is_the_engines_own(hash_region: Table) -> None:
    process = loaded(HASH, "optimizer")
    memory = process.cpu.memory
    guest = load_guest("aarch64")
    places = Places(guest)

    def fetch(pc: int) -> int | None:
        return int.from_bytes(memory.read(pc, 4), "little") if memory.executable(pc) else None

    region = form_region(guest.tables, places, fetch, HOT, index_bits=memory.index_bits)
    process.cpu.close()
    assert region is not None
    assert len(compile_region(region, places).code) == dict(hash_region.sizes)["optimizer: x86-64"]

    # The line table, as pyelftools reads it.
    located = locate(region_text(region, places))
    machine, module = optimise(located.text, cyclic=region.cyclic)
    data = bytes(machine.emit_object(module))
    elf = ELFFile(io.BytesIO(data))
    dwarf = elf.get_dwarf_info()
    program = dwarf.line_program_for_CU(next(dwarf.iter_CUs()))
    table = elf.get_section_by_name(".debug_line")
    assert program is not None
    assert table is not None
    expected = [
        (entry.state.address, entry.state.line)
        for entry in program.get_entries()
        if entry.state is not None and not entry.state.end_sequence
    ]
    found = code_lines(table.data())
    assert len(found) > 100
    assert found == expected
    parts = optimised_lines(str(module), located.parts)
    assert set(parts) <= set(located.parts)


def test_lines_without_a_place_of_their_own() -> None:
    text = """\
define preserve_nonecc void @region(i64 %a) !dbg !5 {
  %x = add i64 %a, 1, !dbg !9
  switch i64 %x, label %out [
    i64 1, label %b10
    i64 2, label %other
  ], !dbg !9

b10:                                              ; preds = %0
  %p = phi i64 [ %x, %0 ]
  ret void, !dbg !10

other:                                            ; preds = %0
  %q = phi i64 [ %x, %0 ]
  ret void, !dbg !11

out:                                              ; preds = %0
  ret void
}

!9 = !DILocation(line: 1, scope: !5)
!10 = !DILocation(line: 2, scope: !5)
!11 = !DILocation(line: 0, scope: !5)
"""
    entry, at = Part("entry"), Part("at", 16)
    found = optimised_lines(text, [entry, at])
    assert found[entry] == ["%x = add i64 %a, 1", "switch i64 %x, label %out [ i64 1, label %b10 i64 2, label %other ]"]
    assert found[at] == [
        "b10: ; preds = %0", "%p = phi i64 [ %x, %0 ]", "ret void",
        "other: ; preds = %0", "%q = phi i64 [ %x, %0 ]", "ret void", "out: ; preds = %0", "ret void",
    ]  # fmt: skip


def test_a_dying_compiler_is_told() -> None:
    with pytest.raises(InternalError, match="ended its process"):
        _aside(lambda: os._exit(1))
    with pytest.raises(InternalError, match="ValueError: odd"):
        _aside(lambda: raise_("odd"))


def raise_(text: str) -> Any:
    raise ValueError(text)
