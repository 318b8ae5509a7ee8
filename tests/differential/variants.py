"""The variants in which stencils exist (dbt/engine/layout.py): which of them a form has, which an instruction takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.frontends.operands import IMMEDIATE, REGISTER

from dbt.engine.formats import ENDS_DIRECT, USES_IMM, USES_NPC, USES_PC, USES_TARGET
from dbt.engine.layout import CONDITIONS, FUSED_STENCIL, FUSED_VARIANTS, NO_FLAGS, POLL, POLL_FUSED, VARIANTS, WIDE

if TYPE_CHECKING:
    from dbt.frontends.forms import Form
    from dbt.frontends.operands import Extraction
    from dbt.frontends.tables import Decoded, Tables

_NAMES: Final = {WIDE: "wide", NO_FLAGS: "no flags", POLL: "poll"}
_NARROW: Final = 0x7FFF_0000  # as dbt/engine/variants.py has it: 32 bits with room for an addend


def name_of(variant: int) -> str:
    """`wide poll`, say; `plain` for none."""
    return " ".join(name for bit, name in _NAMES.items() if variant & bit) or "plain"


def possible(tables: Tables, form: Form) -> list[int]:
    """The variants that some encoding takes at some address: few immediates can be too wide, or are always."""
    return [variant for variant in variants_of(tables, form) if _may(tables, form, variant)]


def _may(tables: Tables, form: Form, variant: int) -> bool:
    uses = tables.metadata(form).uses | (USES_TARGET if variant & POLL else 0)
    values = [e for e in form.extractions if e.kind != REGISTER and uses & (USES_IMM, USES_TARGET)[e.kind - IMMEDIATE]]
    if variant & WIDE:
        return bool(uses & (USES_PC | USES_NPC)) or any(_extremes(e)[1] for e in values)
    return all(_extremes(e)[0] for e in values)


def _extremes(extraction: Extraction) -> tuple[bool, bool]:
    """Whether a value can be (narrow, wide)."""
    if extraction.pc_base:
        return True, True
    values = extraction.table
    if values is None:
        width = extraction.sign or sum(width for _, width in extraction.parts)
        low = -(1 << width - 1) if extraction.sign else 0
        high = low + (1 << width) - 1
        values = tuple(value << extraction.shift for value in (low, -1 if low else 0, 0, high))
    narrow = [is_narrow(value) for value in values]
    return any(narrow), not all(narrow)


def is_narrow(value: int) -> bool:
    """Whether a value fits into 32 bits, with some room."""
    return -_NARROW <= signed(value) < _NARROW


def variants_of(tables: Tables, form: Form) -> list[int]:
    """All variants that a form may have, by what its template uses."""
    facts = tables.metadata(form)
    found = [0]
    polls = facts.ends & ENDS_DIRECT
    for bit, there in ((WIDE, facts.uses or polls), (NO_FLAGS, facts.flags_written), (POLL, polls)):
        if there:
            found += [variant | bit for variant in found]
    return found


def variant_of(tables: Tables, decoded: Decoded, *, dead: bool) -> int:
    """The variant that an instruction takes; `dead`: nobody wants its flags."""
    facts = tables.metadata(decoded.form)
    variant = NO_FLAGS if dead and facts.flags_written else 0
    uses = facts.uses
    if facts.ends & ENDS_DIRECT and decoded.target & (1 << 64) - 1 <= decoded.pc:
        variant |= POLL
        uses |= USES_TARGET
    values = ((USES_IMM, decoded.imm), (USES_TARGET, decoded.target), (USES_PC | USES_NPC, decoded.pc))
    if any(uses & bits and not is_narrow(value) for bits, value in values):
        variant |= WIDE
    return variant


def signed(value: int) -> int:
    """64 bits as a signed number."""
    return (value & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)


def conditions(tables: Tables) -> dict[int, Form]:
    """The conditional branches on flags by condition."""
    found: dict[int, Form] = {}
    for form in tables.forms[1:]:
        condition = tables.metadata(form).fuse_second
        if condition is not None:
            found.setdefault(condition, form)
    return found


def fused_number(first: int, condition: int, *, wide: bool, poll: bool) -> int:
    """The number of a fused pair; `first` counts the fusable forms."""
    variant = (WIDE if wide else 0) | (POLL_FUSED if poll else 0)
    return FUSED_STENCIL | (first * CONDITIONS + condition) * FUSED_VARIANTS + variant


def every_number(tables: Tables) -> list[int]:
    """The numbers (as in EXIT_STENCIL) of all stencils that there can be."""
    found = [form.id * VARIANTS + variant for form in tables.forms[1:] for variant in variants_of(tables, form)]
    for first in range(len(tables.fusable())):
        for condition in conditions(tables):
            start = fused_number(first, condition, wide=False, poll=False)
            found += range(start, start + FUSED_VARIANTS)
    return found
