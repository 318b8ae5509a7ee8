"""What the load and store rows share: sizes, mnemonics, moving between memory and registers.

A general transfer is (size, opc): 1 << size bytes; opc 0 stores, 1 loads, 2 loads sign-extended to 64 bits, 3 to 32.
A SIMD&FP transfer is (size, opc): bit 1 of opc makes size 0 mean 16 bytes; bit 0 loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.types import F64, I64, Type, int_type, vector

if TYPE_CHECKING:
    from dbt.ir.builder import Value

    from .lifter import Lifter
    from .operands import V, X

GENERAL: Final = "opc < 2 or size < 2 or (opc, size) == (2, 2)"  # `where`: allocated, and not a prefetch
VECTOR: Final = "opc < 2 or size == 0"
SUFFIXES: Final = ("b", "h", "", "")
VECTOR_LETTERS: Final = "bhsdq"


def letter(size: int, opc: int) -> str:
    """How the general register of a transfer is called: w or x."""
    return "x" if size == 3 or opc == 2 else "w"


def mnemonic(size: int, opc: int, kind: str = "r") -> str:
    """`ldrsb`, `sturh`; kind: r, ur (unscaled) or tr (unprivileged)."""
    if opc < 2:
        return ("st", "ld")[opc] + kind + SUFFIXES[size]
    return f"ld{kind}s{'bhw'[size]}"


def vector_size(size: int, opc: int) -> int:
    """log2 of the bytes of a SIMD&FP transfer."""
    return size + 2 * (opc & 2)


def vector_type(log2: int) -> Type:
    """The type to load 1 << log2 bytes of a SIMD&FP register as: what costs least to extend with zeros on the host."""
    return (int_type(8), int_type(16), int_type(32), F64, vector(I64, 2))[log2]


def transfer(cpu: Lifter, size: int, opc: int, address: Value, Rt: X) -> None:
    """A general load or store. After a load only registers may be written."""
    if opc == 0:
        cpu.store(address, Rt.read(8 << size))
        return
    value = cpu.load(int_type(8 << size), address)
    if opc == 2:
        Rt.write(64, value.sext(64))
    elif opc == 3:
        Rt.write(32, value.sext(32))
    else:
        Rt.write(64, value)


def transfer_vector(cpu: Lifter, log2: int, load: int, address: Value, Vt: V) -> None:
    """A SIMD&FP load or store."""
    if load:
        Vt.write(cpu.load(vector_type(log2), address))
    else:
        cpu.store(address, Vt.read(int_type(8 << log2) if log2 < 4 else vector_type(log2)))
