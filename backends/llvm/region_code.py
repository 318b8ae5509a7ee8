"""Regions through LLVM: position-independent code, what it refers to outside, and where its accesses land."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import llvmlite.binding as llvm

from dbt.engine.promoter import RegionCode

from . import elf, landings
from .compile import CompileError, target_machine
from .region_source import LEAVE, LINK
from .regions import ENTRY, module_text, region_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.engine.former import Region
    from dbt.engine.places import Places

ALIGNMENT: Final = 16  # of the code, at least
TOGETHER: Final = 16  # regions of a module at most
SHORT: Final = ("sroa", "simplify_cfg", "instruction_combine", "simplify_cfg")
_RELATIVE: Final = (elf.R_X86_64_PC32, elf.R_X86_64_PLT32)


@cache
def _set_up() -> None:
    # Without these passes code generation takes half the time, and what it makes is as good.
    for option in ("-disable-lsr", "-disable-constant-hoisting", "-disable-partial-libcall-inlining"):
        llvm.set_option("dragoman", option)
    # Code of a case of a switch has some ten instructions, and each has its place in the table.
    llvm.set_option("dragoman", "-jump-table-density=2")


def compile_region(region: Region, places: Places) -> RegionCode:
    """Compile in this process. Raises IRError, CompileError or ElfError; LLVM may also abort the process."""
    return extract(compile_text(region_text(region, places), cyclic=region.cyclic))


def compile_regions(regions: Sequence[Region], places: Places) -> list[RegionCode]:
    """The same for several, which costs less than one by one: some of it is a module's and not a region's."""
    found: dict[int, RegionCode] = {}
    for cyclic in (False, True):
        numbers = [number for number, region in enumerate(regions) if region.cyclic == cyclic]
        for first in range(0, len(numbers), TOGETHER):
            named = {f"{ENTRY}{number}": regions[number] for number in numbers[first : first + TOGETHER]}
            obj = elf.read_object(compile_text(module_text(named, places), cyclic=cyclic))
            for number, name in zip(numbers[first:], named, strict=False):
                found[number] = _take_out(obj, name)
    return [found[number] for number in range(len(regions))]


def compile_text(text: str, *, cyclic: bool) -> bytes:
    """The object file of a region."""
    machine, module = optimise(text, cyclic=cyclic)
    return bytes(machine.emit_object(module))


def optimise(text: str, *, cyclic: bool) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
    """LLVM's machine and the module of a region after LLVM's passes.

    With a cycle these are those of -O1. NewGVN, which no pipeline of LLVM's own has, took half of their time, but fails
    assertions on larger regions (busybox sort). Without a cycle most of them have nothing to do: SHORT takes a third of
    the time and makes code of the same size. It is not enough where there is one: `fib` took 1.3, `machine` 1.7 times
    as long.
    """
    _set_up()
    machine = target_machine("pic", 1, "small")
    try:
        module = llvm.parse_assembly(text)
    except RuntimeError as error:
        raise CompileError(str(error).strip()) from error
    module.triple, module.data_layout = machine.triple, _data_layout()
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.slp_vectorization = options.loop_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    if cyclic:
        passes = builder.getModulePassManager()
    else:
        passes = llvm.create_new_module_pass_manager()
        for name in SHORT:
            getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)
    return machine, module


@cache
def _data_layout() -> str:
    return str(target_machine("pic", 1, "small").target_data)


def extract(data: bytes) -> RegionCode:
    """The code and constants of an object with one region as one piece."""
    return _take_out(elf.read_object(data), ENTRY)


def _take_out(obj: elf.ObjectFile, name: str) -> RegionCode:
    text, function = obj.section(".text"), obj.symbol(name)
    start, end = function.value, function.value + function.size
    code = bytearray(text.data[start:end])
    relocations = [r for r in text.relocations if start <= r.offset < end]
    placed: dict[int, int] = {}
    for r in relocations:
        if r.symbol.section in placed or not r.symbol.defined:
            continue
        section = obj.sections[r.symbol.section]
        if not section.name.startswith(".rodata"):
            raise elf.ElfError(f"a region refers to section {section.name}")
        code += bytes(-len(code) % max(section.align, 1))
        placed[section.index] = len(code)
        code += section.data
        _fill_tables(code, placed[section.index], section, text.index, start)
    links: list[tuple[int, int]] = []
    leaves: list[int] = []
    for r in relocations:
        at = r.offset - start
        if r.type not in _RELATIVE:
            raise elf.ElfError(f"relocation {r.type} against {r.symbol.name!r} in a region")
        if r.symbol.section in placed:
            value = placed[r.symbol.section] + r.symbol.value + r.addend - at
            code[at : at + 4] = value.to_bytes(4, "little", signed=True)
        elif r.addend != -4:
            raise elf.ElfError(f"an odd reference to {r.symbol.name!r} in a region")
        elif r.symbol.name == LEAVE:
            leaves.append(at)
        elif r.symbol.name.startswith(LINK):
            links.append((at, int(r.symbol.name.removeprefix(LINK), 16)))
        else:
            raise elf.ElfError(f"a region refers to {r.symbol.name!r}")
    return RegionCode(bytes(code), links, leaves, _landings(obj, name))


def _fill_tables(code: bytearray, at: int, section: elf.Section, text: int, start: int) -> None:
    """Jump tables of a section of constants at `at` of the code: distances from a table to places in the function.

    Those of other functions of the module, which are in the section as well, nobody reads.
    """
    for r in section.relocations:
        if r.type not in _RELATIVE or r.symbol.section != text:
            raise elf.ElfError(f"relocation {r.type} against {r.symbol.name!r} in constants of a region")
        place = at + r.offset
        value = r.symbol.value + r.addend - start - place
        code[place : place + 4] = value.to_bytes(4, "little", signed=True)


def _landings(obj: elf.ObjectFile, name: str) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for section in obj.sections:
        if section.name == landings.SECTION + name:
            if section.relocations:
                raise elf.ElfError(f"{section.name}: offsets with relocations")
            found += landings.notes(section.data)
    return found
