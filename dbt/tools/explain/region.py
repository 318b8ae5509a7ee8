"""The region at an address: instructions with control flow, IR, LLVM text before and after LLVM's passes, host code.

It is what the optimizer engine would compile there (engine/former.py, backends/llvm/regions.py), formed as for a guest
without handlers of its own. LLVM runs in a child process, since it ends the process on its own errors.
"""

from __future__ import annotations

import re
import time
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.former import form_region, successors
from dbt.engine.places import Places
from dbt.errors import GuestFault, InternalError
from dbt.frontends.guest import load_guest
from dbt.tools.assembly import disassemble

from .block import Naming, name_of, no_code, operations
from .engines import annotated
from .lines import HEAD, Part, code_lines, locate, optimised_lines
from .model import SAME, Cell, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from dbt.engine.former import Block, Region, Step
    from dbt.engine.promoter import RegionCode
    from dbt.frontends.guest import Guest
    from dbt.ir.values import Template
    from dbt.linux.process import Process

    Stages = list[tuple[str, float]]

TITLES: Final = ("IR", "IR in the region", "LLVM IR", "LLVM IR after its passes", "optimizer: x86-64")
NOTE: Final = (
    "code that LLVM made of several instructions stands with one of them; what belongs to no instruction stands with "
    "what is in front of it. Numbers before host code are offsets in the region's code"
)
_ENV: Final = "rdi"
_PLACE: Final = re.compile(r"ptr %env, i64 (\d+)$")
_JUMP: Final = re.compile(r"j\w+ 0x([0-9a-f]+)")
_MASK64: Final = (1 << 64) - 1


class Compiled(NamedTuple):
    """What a child process made of a region."""

    parts: list[Part]
    before: dict[Part, list[str]]
    after: dict[Part, list[str]]
    code: RegionCode
    text_size: int  # bytes of instructions, in front of constants
    lines: list[tuple[int, int]]  # see lines.code_lines
    same: bool  # the code is that which the engine has, where nothing is located
    stages: Stages


def explain_region(process: Process, pc: int) -> Table:
    """Explain the region at `pc` of a process that has been loaded. Raises UsageError where there is no code."""
    stages: Stages = []
    lap = _laps(stages)
    guest = load_guest(process.cpu.info.name)
    places = Places(guest)
    lap("the guest's tables, once for all")
    region = _form(process, guest, places, pc)
    if region is None:
        raise no_code(pc, "no instruction")
    lap("semantics to IR, control flow, liveness")
    compiled = _aside(lambda: _compile(region, places))
    naming = Naming(process)
    host = _host_code(compiled, naming)

    def llvm(lines: list[str]) -> Cell:
        places = [(line, _PLACE.search(line)) for line in lines]
        return Cell([line if at is None else f"{line}  ; {naming.place(int(at[1]))}" for line, at in places])

    cells = {
        part: (llvm(compiled.before.get(part, [])), llvm(compiled.after.get(part, [])), host.get(part, Cell([])))
        for part in {*compiled.parts, *host}
    }
    rows = [_other_row("entry: registers come out of Env", Part(HEAD), cells)]
    assembly = _guest_lines(process, region)
    sources = _sources(region)
    for block in region.blocks.values():
        rows.append(Row(None, _block_heading(block, sources.get(block.pc, [])), _block_remarks(block, region), []))
        rows += _block_rows(block, region, naming, assembly, cells)
    for part in compiled.parts:
        if part.kind == "poll":
            rows.append(_other_row(f"left for a poll before {part.pc:#x}", part, cells))
        elif part.kind == "exit":
            rows.append(_other_row(f"exit to {part.pc:#x}", part, cells))
    if Part("constants") in cells:
        rows.append(_other_row("constants", Part("constants"), cells))
    sizes = [("guest code", sum(len(data) for _, data in region.ranges)), (TITLES[-1], len(compiled.code.code))]
    notes = [NOTE]
    if not compiled.same:
        notes.append("without the locations by which it is aligned here, LLVM makes slightly different code")
    name = name_of(process, pc)
    return Table(
        name, process.exe, "region", pc, region.size, sizes, stages + compiled.stages, list(TITLES), rows, notes
    )  # fmt: skip


def _laps(stages: Stages) -> Callable[[str], None]:
    """A function that notes the time since it was called last, under a name."""
    started = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal started
        stages.append((stage, 1e6 * (time.perf_counter() - started)))
        started = time.perf_counter()

    return lap


def _form(process: Process, guest: Guest, places: Places, pc: int) -> Region | None:
    memory = process.cpu.memory

    def fetch(address: int) -> int | None:
        try:
            word = memory.read(address, 4) if memory.executable(address) and not address & 3 else b""
        except GuestFault:
            return None
        return int.from_bytes(word, "little") if word else None

    return form_region(guest.tables, places, fetch, pc, index_bits=memory.index_bits)


# ---- in a child process


def _aside(work: Callable[[], Compiled]) -> Compiled:
    """Do `work` in a child process. Raises InternalError where that ends or fails."""

    def child(connection: Connection) -> None:
        try:
            connection.send((work(), ""))
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
            connection.send((None, f"{type(error).__name__}: {error}"))

    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender,))
    process.start()
    sender.close()
    try:
        compiled, trouble = receiver.recv()
    except EOFError:
        raise InternalError("explain: LLVM ended its process on this region") from None
    finally:
        process.join()
        receiver.close()
    if trouble:
        raise InternalError(f"explain: the region cannot be compiled: {trouble}")
    found: Compiled = compiled
    return found


def _compile(region: Region, places: Places) -> Compiled:
    """What the engine's region worker does, with times; then again with locations."""
    from dbt.backends.llvm.elf import read_object
    from dbt.backends.llvm.region_code import extract, optimise
    from dbt.backends.llvm.regions import region_text

    stages: Stages = []
    lap = _laps(stages)
    text = region_text(region, places)
    lap("IR to LLVM text")
    machine, module = optimise(text, cyclic=region.cyclic)
    lap("LLVM: parsing and passes")
    data = bytes(machine.emit_object(module))
    lap("LLVM: code generation")
    plain = extract(data)
    lap("code out of the object file")
    located = locate(text)
    machine, module = optimise(located.text, cyclic=region.cyclic)
    after = optimised_lines(str(module), located.parts)
    data = bytes(machine.emit_object(module))
    code, obj = extract(data), read_object(data)
    lines = code_lines(obj.section(".debug_line").data)
    size = obj.section(".text").size
    return Compiled(located.parts, located.lines, after, code, size, lines, plain.code == code.code, stages)


# ---- rows


def _sources(region: Region) -> dict[int, list[int]]:
    """The blocks of the region from which a block is reached."""
    found: dict[int, list[int]] = {}
    for block in region.blocks.values():
        for target in successors(block, region.return_sites):
            found.setdefault(target, []).append(block.pc)
    return found


def _block_heading(block: Block, sources: list[int]) -> str:
    reached = f", from {', '.join(f'{source:#x}' for source in sources)}" if sources else ""
    count = len(block.steps)
    return f"block {block.pc:#x}: {count} instruction{'s' if count > 1 else ''}{reached}"


def _block_remarks(block: Block, region: Region) -> list[str]:
    order = {pc: number for number, pc in enumerate(region.blocks)}
    back = any(
        block.pc in successors(source, region.return_sites) and order[block.pc] <= order[source.pc]
        for source in region.blocks.values()
    )
    remarks = ["entry of the region"] if block.pc == region.entry else []
    remarks += ["loop head"] if back else []
    return [*remarks, "return site"] if block.pc in region.return_sites else remarks


def _block_rows(
    block: Block, region: Region, naming: Naming, assembly: dict[int, bytes], cells: dict[Part, tuple[Cell, Cell, Cell]]
) -> list[Row]:
    from dbt.backends.llvm.regions import block_templates

    rows = []
    for step, template, _live in block_templates(block, region):
        before, after, host = cells.get(Part("at", step.pc), (Cell([]), Cell([]), Cell([])))
        ir = _operations(step, step.decoded.form.template, naming)
        chosen = _operations(step, template, naming)
        line = disassemble("aarch64", assembly[step.pc], step.pc)[0]
        last = step is block.steps[-1]
        remarks = _remarks(step, before.lines, region, ends=last)
        rows.append(Row(line, "", remarks, [Cell(ir), Cell([SAME] if ir == chosen else chosen), before, after, host]))
    return rows


def _operations(step: Step, template: Template, naming: Naming) -> list[str]:
    decoded = step.decoded
    numbers = {"imm": decoded.imm, "imm2": decoded.target, "pc": step.pc, "npc": step.npc}
    return operations(template.ops, decoded.r, numbers, decoded.target & _MASK64, naming.place)


def _remarks(step: Step, lines: list[str], region: Region, *, ends: bool) -> list[str]:
    """Where control goes behind an instruction, as its LLVM text has it."""
    if not ends:
        return []
    asked = dict.fromkeys(int(found, 16) for found in re.findall(r"label %p([0-9a-f]+)\b", "\n".join(lines)))
    remarks = []
    for target in step.targets():
        where = "goes on at" if target == step.npc else "to"
        remarks.append(f"{where} {target:#x}" if target in region.blocks else f"exit to {target:#x}")
    if not step.targets():
        remarks.append("leaves the region" if not _returns(step, region) else "returns inside, or leaves the region")
    return [*remarks, *(f"polls before {target:#x}" for target in asked)]


def _returns(step: Step, region: Region) -> bool:
    last = step.decoded.form.template.ops[-1:]
    return bool(region.return_sites) and any(op.attrs.get("hint") == "return" for op in last)


def _other_row(heading: str, part: Part, cells: dict[Part, tuple[Cell, Cell, Cell]]) -> Row:
    return Row(None, heading, [], [Cell([]), Cell([]), *cells.get(part, (Cell([]), Cell([]), Cell([])))])


def _guest_lines(process: Process, region: Region) -> dict[int, bytes]:
    """The bytes of each instruction."""
    return {
        step.pc: process.cpu.memory.read(step.pc, step.npc - step.pc)
        for block in region.blocks.values()
        for step in block.steps
    }


def _host_code(compiled: Compiled, naming: Naming) -> dict[Part, Cell]:
    """The host code of each part, in order of its offsets."""
    code, size = compiled.code, compiled.text_size
    host = disassemble("x86_64", code.code[:size], 0)
    goals = {offset: f"{target:#x}" for offset, target in code.links}
    goals |= dict.fromkeys(code.leaves, "leave")
    texts = annotated(host, {_ENV: naming.place})
    # Where the register has been written it may hold something else wherever a jump leads to.
    if any(line.text.partition(" ")[2].split(",")[0] in ("rdi", "edi") for line in host):
        first = min((int(found[1], 16) for line in host if (found := _JUMP.fullmatch(line.text))), default=0)
        texts = [text if line.address < first else line.text for line, text in zip(host, texts, strict=True)]
    starts = dict(compiled.lines)  # of several at one offset the last one counts
    lines: dict[Part, list[str]] = {}
    sizes: dict[Part, int] = {}
    ends: dict[Part, int] = {}
    part = compiled.parts[0]
    for line, text in zip(host, texts, strict=True):
        number = starts.get(line.address, 0)
        part = compiled.parts[number - 1] if number else part
        goal = next((goals[at] for at in range(line.address, line.address + len(line.code)) if at in goals), "")
        shown = f"{text}  ; to {goal}" if goal else text
        if ends.get(part, line.address) != line.address:
            lines[part].append("(…)")
        lines.setdefault(part, []).append(f"{line.address:04x} {shown}")
        sizes[part] = sizes.get(part, 0) + len(line.code)
        ends[part] = line.address + len(line.code)
    cells = {part: Cell(text, sizes[part]) for part, text in lines.items()}
    if len(code.code) > size:
        cells[Part("constants")] = Cell(_constants(code.code[size:], size), len(code.code) - size)
    return cells


def _constants(data: bytes, start: int) -> list[str]:
    return [f"{start + at:04x} {data[at : at + 16].hex(' ', 4)}" for at in range(0, len(data), 16)]
