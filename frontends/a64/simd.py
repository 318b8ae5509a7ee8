"""Advanced SIMD: the modules with its rows, one for each class of Arm ARM C4.1.96."""

from __future__ import annotations

from typing import Final

MODULES: Final = (
    "simd_across",
    "simd_arithmetic",
    "simd_copy",
    "simd_dot",
    "simd_element",
    "simd_fp",
    "simd_fp_across",
    "simd_fp_element",
    "simd_fp_fixed",
    "simd_fp_misc",
    "simd_immediate",
    "simd_load_multiple",
    "simd_load_single",
    "simd_logic",
    "simd_misc",
    "simd_permute",
    "simd_saturate",
    "simd_shift_immediate",
    "simd_shift_narrow",
    "simd_shift_register",
    "simd_wide",
)
