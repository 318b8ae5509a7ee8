"""What the scalar floating-point rows share. `ftype` is 0 for single, 1 for double, 3 for half precision.

Half precision has conversions only: arithmetic on it is the feature fphp, which is not implemented.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from dbt.ir.types import F16, F32, F64

from .operands import a64

if TYPE_CHECKING:
    from dbt.ir.types import Type

scalar: Final = partial(a64, feature="fp")  # a row
SINGLE_DOUBLE: Final = "ftype < 2"
ROUNDING: Final = ("even", "up", "down", "zero")  # by rmode, as in FPCR.RMode


def float_of(ftype: int) -> Type:
    """The type of a scalar."""
    return {0: F32, 1: F64, 3: F16}[ftype]


def letter(ftype: int) -> str:
    """How its register is called."""
    return {0: "s", 1: "d", 3: "h"}[ftype]
