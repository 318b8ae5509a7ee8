"""Native functions of the LLVM emitter, called with ints."""

from __future__ import annotations

import ctypes
import random
from typing import TYPE_CHECKING, Any

from dbt.native import Native
from dbt.native.types import BOOL, VOID, Int

if TYPE_CHECKING:
    from dbt.engine.image import Image


def c_type(kind: Any) -> Any:
    if kind is VOID:
        return None
    if kind is BOOL:
        return ctypes.c_bool
    if isinstance(kind, Int):
        return getattr(ctypes, f"c_{'' if kind.signed else 'u'}int{kind.bits}")
    return ctypes.c_uint64


def machine_code(image: Image, function: Any) -> Any:
    """The compiled function, callable with ints."""
    assert isinstance(function, Native)
    kind = function.signature
    return image.function(function.name, c_type(kind.result), tuple(c_type(p) for p in kind.parameters))


def edges(kind: Int, rng: random.Random) -> int:
    """An operand that is likely to be a corner."""
    bits = rng.choice([0, 1, 2, -1, 1 << (kind.bits - 1), (1 << (kind.bits - 1)) - 1, rng.getrandbits(kind.bits)])
    return kind(bits)
