"""What every integer op does to one lane, as Python expressions: the definition that folding and the reference use.

In an expression a, b, c are the arguments of one lane as unsigned ints, w the width of the first argument in bits,
m its mask of ones, h its sign bit; W, M, H the same of the result. `(x ^ h) - h` is x as a signed number, and comparing
`x ^ h` compares signed numbers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .types import Type

EXPRESSIONS: Final[dict[str, str]] = {
    "add": "(a + b) & m",
    "sub": "(a - b) & m",
    "mul": "(a * b) & m",
    "and": "a & b",
    "or": "a | b",
    "xor": "a ^ b",
    "shl": "(a << (b & (w - 1))) & m",
    "lshr": "a >> (b & (w - 1))",
    "ashr": "(((a ^ h) - h) >> (b & (w - 1))) & m",
    "rotr": "((a << w | a) >> (b & (w - 1))) & m",
    "fshr": "((a << w | b) >> (c & (w - 1))) & m",
    "udiv": "a // b if b else 0",
    "sdiv": "divide((a ^ h) - h, (b ^ h) - h) & m if b else 0",
    "umulh": "(a * b) >> w",
    "smulh": "((((a ^ h) - h) * ((b ^ h) - h)) >> w) & m",
    "umin": "a if a < b else b",
    "umax": "a if a > b else b",
    "smin": "a if (a ^ h) < (b ^ h) else b",
    "smax": "a if (a ^ h) > (b ^ h) else b",
    "uaddsat": "min(a + b, m)",
    "saddsat": "max(-h, min(h - 1, ((a ^ h) - h) + ((b ^ h) - h))) & m",
    "usubsat": "max(a - b, 0)",
    "ssubsat": "max(-h, min(h - 1, ((a ^ h) - h) - ((b ^ h) - h))) & m",
    "eq": "a == b",
    "ne": "a != b",
    "ult": "a < b",
    "ule": "a <= b",
    "slt": "(a ^ h) < (b ^ h)",
    "sle": "(a ^ h) <= (b ^ h)",
    "clz": "w - a.bit_length()",
    "ctz": "(a & -a).bit_length() - 1 if a else w",
    "popcount": "a.bit_count()",
    "bitreverse": "reverse(a, w)",
    "bswap": "int.from_bytes(a.to_bytes(w // 8, 'little'), 'big')",
    "abs": "-a & m if a & h else a",
    "zext": "+a",
    "sext": "((a ^ h) - h) & M",
    "trunc": "a & M",
    "select": "b if a else c",
    "clmul": "carryless(a, b)",
    "pmul": "carryless(a, b) & m",
    "fneg": "a ^ h",
    "fabs": "a & (h - 1)",
}

# Saturating narrowing by (from_signed, to_signed).
NARROWINGS: Final[dict[tuple[bool, bool], str]] = {
    (False, False): "min(a, M)",
    (False, True): "min(a, H - 1)",
    (True, False): "max(0, min(M, (a ^ h) - h))",
    (True, True): "max(-H, min(H - 1, (a ^ h) - h)) & M",
}


def divide(a: int, b: int) -> int:
    """Quotient towards zero; b is not 0."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def reverse(a: int, width: int) -> int:
    """The bits of a in reverse order."""
    return int(f"{a:0{width}b}"[::-1], 2)


def carryless(a: int, b: int) -> int:
    """The product of polynomials over GF(2)."""
    product = 0
    while b:
        low = b & -b
        product ^= a * low
        b ^= low
    return product


NAMES: Final = {"divide": divide, "reverse": reverse, "carryless": carryless}
_WORD: Final = re.compile(r"\b[abcwmhWMH]\b")


def expression(template: str, operand: Type, result: Type, *args: str) -> str:
    """The expression with the arguments and the widths filled in; arguments must be names or literals."""
    w, big_w = operand.bits, result.bits
    words = {
        "w": str(w), "m": hex((1 << w) - 1), "h": hex(1 << (w - 1)),
        "W": str(big_w), "M": hex((1 << big_w) - 1), "H": hex(1 << (big_w - 1)),
        **dict(zip("abc", args, strict=False)),
    }  # fmt: skip
    return _WORD.sub(lambda match: words[match[0]], template)


@cache
def function(name: str, operand: Type, result: Type) -> Callable[..., int]:
    """A Python function of one lane."""
    source = expression(EXPRESSIONS[name], operand, result, "a", "b", "c")
    made: Callable[..., int] = eval(f"lambda a, b=0, c=0: {source}", dict(NAMES))  # noqa: S307  (our own table)
    return made
