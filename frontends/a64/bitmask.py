"""Masks that immediates encode (DDI 0487, DecodeBitMasks)."""

from __future__ import annotations


def bitmask(n: int, immr: int, imms: int) -> int:
    """The 64-bit mask of a logical immediate: a run of ones, rotated, repeated; 0 for a reserved encoding."""
    length = (n << 6 | ~imms & 63).bit_length() - 1
    if length < 1:
        return 0
    size = 1 << length
    ones, rotation = (imms & (size - 1)) + 1, immr & (size - 1)
    if ones == size:
        return 0
    element = (1 << ones) - 1
    element = (element >> rotation | element << (size - rotation)) & ((1 << size) - 1)
    for width in (2, 4, 8, 16, 32):
        if width >= size:
            element |= element << width
    return element


def field_mask(bits: int, immr: int, imms: int) -> int:
    """Which bits of the destination BFM writes: `wmask AND tmask` of the manual."""
    if imms >= immr:
        return (1 << (imms - immr + 1)) - 1
    return ((1 << (imms + 1)) - 1) << (bits - immr)


def sign_extended(value: int, bits: int) -> int:
    """The low `bits` of value as a signed 64-bit integer."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
