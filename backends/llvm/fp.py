"""Lowering of the IR's floating-point ops to the FPU of an x86-64 host with AVX, FMA and F16C.

While translated code runs, MXCSR has the guest's rounding mode and collects its sticky flags (Env.mxcsr outside); the
status word in env holds what was written to it and the few flags that the host does not raise as Arm does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import fp_arithmetic, fp_compare, fp_convert, fp_integer

if TYPE_CHECKING:
    from .lower import Lower

LOWER: Final[dict[str, Lower]] = {
    **fp_arithmetic.LOWER, **fp_compare.LOWER, **fp_convert.LOWER, **fp_integer.LOWER,
}  # fmt: skip
