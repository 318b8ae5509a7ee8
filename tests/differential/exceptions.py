"""Where the oracle is not to be believed, or is another machine than ours; each with its reason.

Unicorn 2.1 is QEMU 5.0.1 with fixes. It runs at EL1 without an operating system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .case import ALIGNMENT, FAULT, OK, UNIMPLEMENTED, Case, Outcome

if TYPE_CHECKING:
    from dbt.frontends.forms import Form

# Groups that cannot be compared at all.
NOT_COMPARED: Final = {
    "MRS_CONSTANT": "identification registers describe our machine, not QEMU's",
    "MRS_CNTVCT": "time goes on",
    "IC_IVAU": "ends with an exit to the runtime, which has nothing to do in Unicorn",
    "DC_ZVA": "QEMU's block size is another one",
}
# Bits of registers that are not compared.
IGNORED: Final = {
    "MSR_FPCR": ({"fpcr": 0x003F_FFFF}, "QEMU keeps LEN and STRIDE of AArch32, and has half precision"),
    "MSR_FPSR": ({"fpsr": 0xF000_0000}, "QEMU keeps the NZCV bits of AArch32"),
}
WFI: Final = 0xD503207F
FLAG_FORMATS: Final = {"CFINV", "XAFLAG", "AXFLAG"}


def skip(form: Form, case: Case) -> str:
    """Why this case is not run; empty: it is."""
    word = case.words[0]
    if form.group in NOT_COMPARED:
        return NOT_COMPARED[form.group]
    if form.group in FLAG_FORMATS and word >> 8 & 15:
        return "CRm should be zero: QEMU takes other values for undefined"
    if word == WFI:
        return "Unicorn waits for an interrupt, and ends; Linux has it do nothing"
    if form.group == "LDADD" and form.statics.get("size", 3) < 3 and form.statics.get("opc") in (4, 5):
        return "QEMU 5.0 compares narrow LDSMAX and LDSMIN operands without extending their sign"
    return unpredictable(form, word)


def unpredictable(form: Form, word: int) -> str:
    """Registers used twice in a way that the manual calls CONSTRAINED UNPREDICTABLE."""
    ops = form.template.ops
    names = {op.name for op in ops}
    if not names & {"load", "store", "load_exclusive", "store_exclusive"}:
        return ""
    fields = form.row.pattern.fields
    number = {name: word >> low & ((1 << width) - 1) for name, (low, width) in fields.items()}
    read = {op.attrs["place"] for op in ops if op.name == "get" and op.type is not None and op.type.width == 64}
    writes_back = any(op.name == "put" and op.attrs["place"] in read for op in ops)
    vector = any(op.type is not None and op.type.is_vector for op in ops) or "_v" in form.group
    rt, rt2, rn, rs = (number.get(name, -1) for name in ("Rt", "Rt2", "Rn", "Rs"))
    if writes_back and not vector and rn != 31 and rn in (rt, rt2):
        return "the base is written back and transferred"
    if names & {"load", "load_exclusive"} and rt2 >= 0 and rt == rt2:
        return "both registers of a pair are one"
    if "store_exclusive" in names and rs != 31 and rs in (rt, rt2, rn):
        return "the status register is used otherwise, too"
    return ""


def agreed(form: Form, expected: Outcome, found: Outcome) -> bool:
    """Whether different stops are as they should be."""
    checks = any(op.name == "align_check" for op in form.template.ops)
    if found.stop == ALIGNMENT and expected.stop in (OK, FAULT):
        return checks  # QEMU 5.0 does not check the alignment of all atomic accesses
    # Flush to zero and default NaN are left to the runtime.
    return found.stop == UNIMPLEMENTED and form.group == "MSR_FPCR"
