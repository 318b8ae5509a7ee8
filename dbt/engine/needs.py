"""Which stencils a piece of guest code may need: the cold path of a missing stencil."""

from __future__ import annotations

from typing import Any

from .formats import FormInfo
from .layout import FUSED_STENCIL, FUSED_VARIANTS, NO_FLAGS, POLL, POLL_FUSED, VARIANTS, WIDE

_SEEN = ((1, 0), (2, WIDE), (4, POLL), (8, WIDE | POLL))  # bits of scan_forms: variant bits


def stencils_for(seen: bytes, pairs: bytes, ctx: Any, n_forms: int) -> set[int]:
    """Indices (as in EXIT_STENCIL) for what scan_forms has noted of forms and of fused pairs."""
    wanted: set[int] = set()
    for form in range(1, n_forms):
        if not seen[form]:
            continue
        info = FormInfo.at(int(ctx.forms) + form * FormInfo.size)
        for bit, variant in _SEEN:
            if seen[form] & bit:
                wanted.add(form * VARIANTS + variant)
                if info.flags_written:
                    wanted.add(form * VARIANTS + (variant | NO_FLAGS))
    for place, bits in enumerate(pairs):
        for bit, variant in _SEEN:
            if bits & bit:
                fused = (WIDE if variant & WIDE else 0) | (POLL_FUSED if variant & POLL else 0)
                wanted.add(FUSED_STENCIL | (place * FUSED_VARIANTS + fused))
    return wanted
