"""Regions through LLVM: position-independent code, what it refers to outside, and where its accesses land."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import llvmlite.binding as llvm

from dbt.engine.promoter import RegionCode

from . import elf, landings
from .compile import CompileError, target_machine
from .regions import ENTRY, LEAVE, LINK, region_text

if TYPE_CHECKING:
    from dbt.engine.former import Region
    from dbt.engine.places import Places

ALIGNMENT: Final = 16  # of the code, at least
_RELATIVE: Final = (elf.R_X86_64_PC32, elf.R_X86_64_PLT32)


@cache
def _set_up() -> None:
    # Without these passes code generation takes half the time, and what it makes is as good.
    for option in ("-disable-lsr", "-disable-constant-hoisting", "-disable-partial-libcall-inlining"):
        llvm.set_option("dragoman", option)


def compile_region(region: Region, places: Places) -> RegionCode:
    """Compile in this process. Raises IRError, CompileError or ElfError; LLVM may also abort the process."""
    return extract(compile_text(region_text(region, places)))


def compile_text(text: str) -> bytes:
    """The object file of a region."""
    machine, module = optimise(text)
    return bytes(machine.emit_object(module))


def optimise(text: str) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
    """LLVM's machine and the module of a region after LLVM's passes.

    These are those of -O1. Three of them with NewGVN behind take half the time and made as good code of the kernels in
    bench/, but NewGVN, which no pipeline of LLVM's own has, fails assertions on larger regions (busybox sort); without
    it `string` takes 1.5 times as long.
    """
    _set_up()
    machine = target_machine("pic", 1, "small")
    try:
        module = llvm.parse_assembly(text)
    except RuntimeError as error:
        raise CompileError(str(error).strip()) from error
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.slp_vectorization = options.loop_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine, module


def extract(data: bytes) -> RegionCode:
    """The code and constants of an object as one piece."""
    obj = elf.read_object(data)
    text = obj.section(".text")
    placed = {text.index: 0}
    code = bytearray(text.data)
    for section in obj.sections:
        if section.name.startswith(".rodata") and section.size:
            if section.relocations:
                raise elf.ElfError(f"{section.name}: constants with relocations")
            code += bytes(-len(code) % max(section.align, 1))
            placed[section.index] = len(code)
            code += section.data
    links: list[tuple[int, int]] = []
    leaves: list[int] = []
    for r in text.relocations:
        if r.type not in _RELATIVE:
            raise elf.ElfError(f"relocation {r.type} against {r.symbol.name!r} in a region")
        if r.symbol.section in placed:
            value = placed[r.symbol.section] + r.symbol.value + r.addend - r.offset
            code[r.offset : r.offset + 4] = value.to_bytes(4, "little", signed=True)
        elif r.addend != -4:
            raise elf.ElfError(f"an odd reference to {r.symbol.name!r} in a region")
        elif r.symbol.name == LEAVE:
            leaves.append(r.offset)
        elif r.symbol.name.startswith(LINK):
            links.append((r.offset, int(r.symbol.name.removeprefix(LINK), 16)))
        else:
            raise elf.ElfError(f"a region refers to {r.symbol.name!r}")
    if obj.symbol(ENTRY).value:
        raise elf.ElfError("a region does not start at the start of its code")
    return RegionCode(bytes(code), links, leaves, _landings(obj))


def _landings(obj: elf.ObjectFile) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for section in obj.sections:
        if section.name == landings.SECTION:
            if section.relocations:
                raise elf.ElfError(f"{section.name}: offsets with relocations")
            found += landings.notes(section.data)
    return found
