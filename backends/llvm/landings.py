"""Accesses to guest memory in regions: inline assembly that names where its fault goes on (callbr, C's `asm goto`).

LLVM knows a second way out of each access, its *landing*: code that writes what is only in host registers to Env and
leaves. The assembly notes {access, landing, guest address} in a section of the function's own; the fault handler writes
the address of the instruction to Env and goes on at the landing (dbt/engine/faults.py), which several may share. Were
it the landing that writes the address, LLVM would make one of those that differ in nothing else, and have the address
in a register before each access. So the state is exact at every fault, and nothing is stored for faults that do not
happen. LLVM's own way to the same end, stackmaps with deoptimisation state, has the runtime read values out of frames
and registers by itself; here LLVM writes that code.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from .compile import host_cpu
from .text import LIKELY

if TYPE_CHECKING:
    from .region_source import RegionBody
    from .text import Body

SECTION: Final = ".dragoman_landings."  # and the name of the function
NOTE: Final = struct.Struct("<IIQ")  # offsets of access and landing from the start of the function, guest address


class Extension(NamedTuple):
    """What becomes of a loaded number: zext or sext to 32 or 64 bits."""

    name: str
    bits: int


class _Move(NamedTuple):
    """An instruction between memory and a register of LLVM type `held`, which holds the value."""

    mnemonic: str
    operand: str  # the register in the assembly, # for its number
    constraint: str
    held: str


_STORES: Final = {
    "i8": _Move("movb", "$#", "iq", "i8"),
    "i16": _Move("movw", "$#", "ir", "i16"),
    "i32": _Move("movl", "$#", "ir", "i32"),
    "i64": _Move("movq", "$#", "er", "i64"),
}
_LOADS: Final = {
    "i8": _Move("movzbl", "${#:k}", "r", "i32"),
    "i16": _Move("movzwl", "${#:k}", "r", "i32"),
    "i32": _Move("movl", "$#", "r", "i32"),
    "i64": _Move("movq", "$#", "r", "i64"),
}
_EXTENDING: Final = {
    ("zext", 8): "movzbl", ("zext", 16): "movzwl", ("zext", 32): "movl",
    ("sext", 8, 32): "movsbl", ("sext", 16, 32): "movswl",
    ("sext", 8, 64): "movsbq", ("sext", 16, 64): "movswq", ("sext", 32, 64): "movslq",
}  # fmt: skip


def _vex(mnemonic: str) -> str:
    """The form with three operands where the host has it: mixing both kinds costs on some hosts."""
    return "v" + mnemonic if "+avx," in host_cpu()[1] + "," else mnemonic


def _vector(bits: int) -> _Move:
    mnemonic, held = {32: ("movss", "float"), 64: ("movsd", "double"), 128: ("movups", "<2 x i64>")}[bits]
    return _Move(_vex(mnemonic), "$#", "x", held)


def width(type_: str) -> int:
    """Bits of an LLVM type as text.llvm_type spells them."""
    if type_.startswith("<"):
        lanes, _, lane = type_[1:-1].partition(" x ")
        return int(lanes) * width(lane)
    return {"half": 16, "float": 32, "double": 64}.get(type_) or int(type_[1:])


def _cast(body: Body, value: str, type_: str, to: str) -> str:
    return value if type_ == to else body.emit(f"bitcast {type_} {value} to {to}")


class Landing(NamedTuple):
    """Where the fault of the instruction at the guest address `pc` goes on."""

    label: str
    pc: int


def _assembly(move: str, operand: int, landing: Landing, function: str) -> str:
    note = f".long 1b-{function}, ${{{operand}:l}}-{function}; .quad {landing.pc}"
    return f'"1: {move}\\0A.pushsection {SECTION}{function}\\0A{note}\\0A.popsection"'


def read(body: RegionBody, pointer: str, type_: str, landing: Landing, extension: Extension | None = None) -> str:
    """Load a value of an LLVM type, extended if that is wanted; a fault goes on at `landing`."""
    bits = width(type_)
    if type_ == "half":
        return body.emit(f"bitcast i16 {read(body, pointer, 'i16', landing)} to half")
    move = _LOADS.get(type_) or _vector(bits)
    if extension is not None:
        kind = (extension.name, bits) if extension.name == "zext" else (extension.name, bits, extension.bits)
        wide = extension.name == "sext" and extension.bits == 64
        move = _Move(_EXTENDING[kind], "$#" if wide else "${#:k}", "r", f"i{extension.bits}")
    text = _assembly(f"{move.mnemonic} $1, {move.operand.replace('#', '0')}", 2, landing, body.name)
    on = body.label("on")
    value = body.emit(
        f'callbr {move.held} asm sideeffect {text}, "={move.constraint},*m,!i"'
        f"(ptr elementtype(i{bits}) {pointer}) nounwind memory(argmem: read)"
        f" to label %{on} [label %{landing.label}], {LIKELY}"
    )
    body.place(on)
    if extension is not None:
        return value
    if type_ in ("i8", "i16"):
        return body.emit(f"trunc i32 {value} to {type_}")
    return _cast(body, value, move.held, type_)


def write(body: RegionBody, pointer: str, type_: str, value: str, landing: Landing) -> None:
    """Store a value of an LLVM type; a fault goes on at `landing`."""
    bits = width(type_)
    if type_ == "half":
        value, type_ = body.emit(f"bitcast half {value} to i16"), "i16"
    move = _STORES.get(type_) or _vector(bits)
    value = _cast(body, value, type_, move.held)
    text = _assembly(f"{move.mnemonic} {move.operand.replace('#', '1')}, $0", 2, landing, body.name)
    on = body.label("on")
    body.line(
        f'callbr void asm sideeffect {text}, "=*m,{move.constraint},!i"'
        f"(ptr elementtype(i{bits}) {pointer}, {move.held} {value}) nounwind memory(argmem: write)"
        f" to label %{on} [label %{landing.label}], {LIKELY}"
    )
    body.place(on)


def notes(section: bytes) -> list[tuple[int, int, int]]:
    """(access, landing, guest address) of a region's section, by access; offsets count from the start of its code."""
    return sorted(NOTE.iter_unpack(section))
