"""LLVM text to an object file for this host, through llvmlite.

The wheel's LLVM aborts the process on its own errors (DESIGN, section 4): in the product only the worker process
calls this; unit tests may.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import llvmlite.binding as llvm

from dbt.errors import InternalError

_RELOCATIONS: Final = ("pic", "static")


class CompileError(InternalError):
    """LLVM refuses the text: a bug of the emitter that wrote it."""


@cache
def host_cpu() -> tuple[str, str]:
    """Name and features. The features are needed: a virtual machine's CPU may have fewer than its name says."""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def llvm_version() -> str:
    """Part of what identifies compiled code."""
    return ".".join(str(part) for part in llvm.llvm_version_info)


@cache
def target_machine(reloc: str, opt: int, code_model: str, *, portable: bool = False) -> llvm.TargetMachine:
    """LLVM's machine for these options; one is kept for each. `portable`: code for every processor of this kind."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    cpu, features = ("x86-64", "") if portable else host_cpu()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc=reloc, codemodel=code_model
    )


def compile_text(
    ir: str, *, reloc: str = "pic", opt: int = 2, passes: bool = True, code_model: str = "small", portable: bool = False
) -> bytes:
    """An object file. opt: 0 to 3, for code generation and (with `passes`) for the optimiser before it."""
    if reloc not in _RELOCATIONS:
        raise ValueError(f"reloc {reloc!r}: it is one of {', '.join(_RELOCATIONS)}")
    machine = target_machine(reloc, opt, code_model, portable=portable)
    return bytes(machine.emit_object(_optimised(ir, machine, opt, passes=passes)))


def assembly_text(ir: str, *, reloc: str = "pic", opt: int = 2, passes: bool = True) -> str:
    """The assembly that compile_text would encode, for people."""
    machine = target_machine(reloc, opt, "small")
    return str(machine.emit_assembly(_optimised(ir, machine, opt, passes=passes)))


def _optimised(ir: str, machine: llvm.TargetMachine, opt: int, *, passes: bool) -> llvm.ModuleRef:
    try:
        module = llvm.parse_assembly(ir)
        module.verify()
    except RuntimeError as error:
        raise CompileError(str(error).strip()) from error
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    if passes:
        options = llvm.create_pipeline_tuning_options(speed_level=opt)
        options.slp_vectorization = False
        options.loop_vectorization = False
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    return module
