"""The pieces of exact IEEE 754 arithmetic with Arm's rules: formats, unpacking, rounding, NaNs.

DDI 0487, shared/functions/float: FPUnpack, FPRound, FPProcessNaN(s), FPDefaultNaN. Numbers are bit patterns in Python
ints; an unpacked finite number is (-1)**sign * mantissa * 2**exponent, exact, with an unbounded mantissa. Every
function that can raise an exception returns its cumulative flags in the place they have in FPSR.
"""

from __future__ import annotations

from typing import Final, NamedTuple

IOC: Final = 1  # invalid operation
DZC: Final = 2  # division by zero
OFC: Final = 4  # overflow
UFC: Final = 8  # underflow
IXC: Final = 16  # inexact
IDC: Final = 128  # input denormal; only under flush-to-zero

DN: Final = 1 << 25  # FPCR: every NaN result is the default NaN
UNSUPPORTED: Final = 1 << 26 | 1 << 24 | 1 << 19  # AHP, FZ, FZ16: a write of them to FPCR is refused
RMODES: Final = ("even", "up", "down", "zero")  # by FPCR.RMode, bits 23:22

Result = tuple[int, int]  # a bit pattern and FPSR flags


class Format:
    """A binary interchange format by its parameters."""

    __slots__ = ("bias", "bits", "default_nan", "emin", "fraction", "infinity", "max_finite", "quiet", "sign_bit")

    def __init__(self, bits: int, fraction: int) -> None:
        self.bits: Final = bits
        self.fraction: Final = fraction  # fraction bits, without the hidden one
        self.bias: Final = (1 << (bits - fraction - 2)) - 1
        self.emin: Final = 1 - self.bias  # exponent of the smallest normal number
        self.infinity: Final = (2 * self.bias + 1) << fraction
        self.max_finite: Final = self.infinity - 1
        self.quiet: Final = 1 << (fraction - 1)
        self.default_nan: Final = self.infinity | self.quiet
        self.sign_bit: Final = 1 << (bits - 1)


FORMATS: Final = {16: Format(16, 10), 32: Format(32, 23), 64: Format(64, 52)}

ZERO, FINITE, INFINITY, QNAN, SNAN = range(5)


class Number(NamedTuple):
    """An unpacked operand; mantissa and exponent matter for FINITE only (the mantissa of ZERO is 0)."""

    kind: int
    sign: int
    mantissa: int
    exponent: int

    @property
    def is_nan(self) -> bool:
        """Quiet or signaling."""
        return self.kind >= QNAN


def unpack(fmt: Format, bits: int) -> Number:
    """FPUnpack without flushing."""
    sign = bits >> (fmt.bits - 1)
    magnitude = bits & (fmt.sign_bit - 1)
    fraction = magnitude & ((1 << fmt.fraction) - 1)
    biased = magnitude >> fmt.fraction
    if magnitude > fmt.infinity:
        return Number(QNAN if magnitude & fmt.quiet else SNAN, sign, 0, 0)
    if magnitude == fmt.infinity:
        return Number(INFINITY, sign, 0, 0)
    if magnitude == 0:
        return Number(ZERO, sign, 0, fmt.emin - fmt.fraction)
    if biased == 0:
        return Number(FINITE, sign, fraction, fmt.emin - fmt.fraction)
    return Number(FINITE, sign, fraction | 1 << fmt.fraction, biased - fmt.bias - fmt.fraction)


def rounding(fpcr: int, rm: str = "dynamic") -> str:
    """The mode `rm`, FPCR's if 'dynamic'; raises NotImplementedError for control bits that cannot be set."""
    if fpcr & UNSUPPORTED:
        raise NotImplementedError(f"FPCR {fpcr:#x}: flush-to-zero and alternative half precision")
    return RMODES[fpcr >> 22 & 3] if rm == "dynamic" else rm


def round_shift(sign: int, mantissa: int, shift: int, rm: str) -> tuple[int, bool]:
    """Round mantissa / 2**shift to an integer: (magnitude, inexact). 'away' is ties away, 'odd' von Neumann's."""
    if shift <= 0:
        return mantissa << -shift, False
    low, rest = mantissa >> shift, mantissa & ((1 << shift) - 1)
    if not rest:
        return low, False
    half = 1 << (shift - 1)
    match rm:
        case "even":
            up = rest > half or (rest == half and low & 1 == 1)
        case "away":
            up = rest >= half
        case "up":
            up = not sign
        case "down":
            up = bool(sign)
        case "odd":
            up = not low & 1
        case _:
            up = False
    return low + up, True


def round_pack(fmt: Format, sign: int, mantissa: int, exponent: int, rm: str) -> Result:
    """FPRound: the nearest number of the format by mode, tininess detected before rounding."""
    top = sign << (fmt.bits - 1)
    if mantissa == 0:
        return top, 0
    scale = mantissa.bit_length() - 1 + exponent
    unit = max(scale, fmt.emin) - fmt.fraction  # exponent of the result's last place
    digits, inexact = round_shift(sign, mantissa, unit - exponent, rm)
    flags = IXC if inexact else 0
    if inexact and scale < fmt.emin:
        flags |= UFC
    # A carry out of the digits, from denormal to normal as well, is a carry into the exponent field.
    magnitude = digits + ((unit - (fmt.emin - fmt.fraction)) << fmt.fraction)
    if magnitude >= fmt.infinity:
        to_infinity = rm in {"even", "away"} or rm == ("down" if sign else "up")
        return top | (fmt.infinity if to_infinity else fmt.max_finite), OFC | IXC
    return top | magnitude, flags


def zero_sign(rm: str) -> int:
    """The sign of an exact zero sum of operands that are not zeros of one sign."""
    return 1 if rm == "down" else 0


def process_nans(fmt: Format, fpcr: int, *operands: int) -> Result | None:
    """FPProcessNaNs: the first signaling NaN made quiet, else the first quiet one; None if there is no NaN."""
    kinds = [unpack(fmt, bits).kind for bits in operands]
    for wanted, flags in ((SNAN, IOC), (QNAN, 0)):
        if wanted in kinds:
            chosen = operands[kinds.index(wanted)] | fmt.quiet
            return (fmt.default_nan if fpcr & DN else chosen), flags
    return None


def invalid(fmt: Format) -> Result:
    """The result of an invalid operation."""
    return fmt.default_nan, IOC
