"""The AArch64 guest: its rows' modules, features and registers."""

from __future__ import annotations

from typing import Final

from dbt.frontends.guest import Feature, Guest

from . import simd, state
from .lifter import Lifter

EM_AARCH64: Final = 183

# Names and bits as in Linux's arch/arm64/include/uapi/asm/hwcap.h.
FEATURES: Final = (
    Feature("fp", 1, 0, "floating point"),
    Feature("asimd", 1, 1, "Advanced SIMD"),
    Feature("aes", 1, 3, "AESE, AESD, AESMC, AESIMC"),
    Feature("pmull", 1, 4, "PMULL of 64-bit lanes"),
    Feature("sha1", 1, 5, "SHA-1"),
    Feature("sha2", 1, 6, "SHA-256"),
    Feature("crc32", 1, 7, "CRC32 and CRC32C"),
    Feature("atomics", 1, 8, "large system extensions (LSE)"),
    Feature("fphp", 1, 9, "half-precision floating point"),
    Feature("asimdhp", 1, 10, "half-precision Advanced SIMD"),
    Feature("cpuid", 1, 11, "identification registers by emulation"),
    Feature("asimdrdm", 1, 12, "SQRDMLAH and SQRDMLSH"),
    Feature("jscvt", 1, 13, "FJCVTZS"),
    Feature("fcma", 1, 14, "complex numbers"),
    Feature("lrcpc", 1, 15, "LDAPR"),
    Feature("sha3", 1, 17, "SHA-3"),
    Feature("asimddp", 1, 20, "dot products"),
    Feature("sha512", 1, 21, "SHA-512"),
    Feature("asimdfhm", 1, 23, "FMLAL and FMLSL"),
    Feature("ilrcpc", 1, 26, "LDAPUR and STLUR"),
    Feature("flagm", 1, 27, "flag manipulation"),
    Feature("sb", 1, 29, "speculation barrier"),
    Feature("flagm2", 2, 7, "AXFLAG and XAFLAG"),
    Feature("frint", 2, 8, "FRINT32 and FRINT64"),
    Feature("i8mm", 2, 13, "8-bit integer matrices"),
)

GUEST: Final = Guest(
    name="aarch64",
    aliases=("a64", "arm64"),
    package="dbt.frontends.a64",
    modules=(
        "data_immediate",
        "data_register",
        "data_source",
        "branches",
        "system",
        "loads",
        "loads_vector",
        "load_pairs",
        "exclusive",
        "atomics",
        "fp_move",
        "fp_arithmetic",
        "fp_compare",
        "fp_convert",
        "fp_fixed",
        *simd.MODULES,
    ),
    width=32,
    machine=EM_AARCH64,
    lifter=Lifter,
    registers=state.REGISTERS,
    all_features=FEATURES,
)
