"""Words that must be UNDEFINED for a user program: unallocated, or of features that no row claims."""

from __future__ import annotations

from random import Random

import pytest
from dbt.frontends.guest import load_guest

from .disassembly import Disassembler

TABLES = load_guest("a64").tables

UNDEFINED = {
    "udf #0": 0x00000000,
    "udf #0xffff": 0x0000FFFF,
    "all ones": 0xFFFFFFFF,
    "and, N=1 in 32 bits": 0x12400000,
    "and, element of all ones": 0x9200FC00,
    "and, element of 64 ones": 0x9240FC00,
    "and, element of 2 ones": 0x9200F400,
    "and, imms 111110": 0x9200F800,
    "movz w, hw=2": 0x52C00000,
    "movk w, hw=3": 0x72E00000,
    "mov, opc 1": 0x32800000,
    "ubfm w, N=1": 0x53400000,
    "ubfm x, N=0": 0xD3000000,
    "ubfm w, immr 32": 0x53200000,
    "ubfm w, imms 32": 0x53008000,
    "bitfield, opc 3": 0x73000000,
    "extr w, imms 32": 0x13808000,
    "extr, o0": 0x93E00000,
    "and w, lsl 32": 0x0A008000,
    "add w, lsl 32": 0x0B008000,
    "add, ror": 0x8BC00000,
    "add, extended by 5": 0x8B201400,
    "add, extended by 7": 0x8B201C00,
    "csel, S": 0xBA800000,
    "ccmp, o3": 0xFA400010,
    "adc, opcode2": 0x9A000400,
    "rev, 64-bit in 32": 0x5AC00C00,
    "crc32x w": 0x1AC04C00,
    "crc32b x": 0x9AC04000,
    "madd, op54": 0x3B000000,
    "smaddl w": 0x1B200000,
    "hvc": 0xD4000002,
    "smc": 0xD4000003,
    "hlt": 0xD4400000,
    "dcps1": 0xD4A00001,
    "b.cond, o0": 0x54000010,
    "br, op4": 0xD61F0001,
    "eret": 0xD69F03E0,
    "drps": 0xD6BF03E0,
    "braaz (FEAT_PAuth)": 0xD61F081F,
    "msr daifset": 0xD50340DF,
    "msr spsel": 0xD50040BF,
    "mrs daif": 0xD53B4220,
    "mrs sctlr_el1": 0xD5381000,
    "mrs cntpct_el0": 0xD53BE020,
    "msr tpidrro_el0": 0xD51BD060,
    "msr ctr_el0": 0xD51B0020,
    "dc ivac": 0xD5087620,
    "ic iallu": 0xD508751F,
    "ldr, size 3 opc 3": 0xF9C00000,
    "ldrsw, opc 3": 0xB9C00000,
    "ldtr, size 3 opc 2": 0xF8800800,
    "ldr, option 0": 0xF8600800,
    "ldr, option 5": 0xF860A800,
    "ldr q, size 1": 0x7DC00000,
    "ldr (literal), V=1 opc 3": 0xDC000000,
    "ldp, opc 3": 0xE8400000,
    "stgp (FEAT_MTE)": 0x69000000,
    "ldnp, opc 1": 0x68400000,
    "ldp q, opc 3": 0xED400000,
    "ldaddb, o3 and opc 1": 0x38201000 | 0x8000,
    "casp, odd register": 0x0821_7C00,
    "st64b (FEAT_LS64)": 0xF83F9000,
    "ldapr, R": 0xF8FFC000,
    "ldg (FEAT_MTE)": 0xD9600000,
    "pacga (FEAT_PAuth)": 0x9AC03000,
    "ldraa (FEAT_PAuth)": 0xF8200400,
    "addg (FEAT_MTE)": 0x91800000,
    "sve": 0x04000000,
    "sme": 0xC0000000,
}


@pytest.mark.parametrize("word", UNDEFINED.values(), ids=UNDEFINED.keys())
def test_undefined(word: int) -> None:
    assert TABLES.decode(word).form.id == 0


def test_what_capstone_refuses_is_undefined() -> None:
    """Random words of the base classes; words that are only CONSTRAINED UNPREDICTABLE are left out by the mask."""
    random = Random(2)
    capstone = Disassembler()
    wrong = []
    for _ in range(60_000):
        word = random.getrandbits(32)
        if word >> 25 & 15 in (8, 9, 5, 13) or word >> 26 & 7 == 5:  # data processing, branches
            form = TABLES.decode(word).form
            if form.id and not capstone.text(word):
                wrong.append(f"{word:08x} {form.name}")
    assert not wrong, "\n".join(wrong[:20])
