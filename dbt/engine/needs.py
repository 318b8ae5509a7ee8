"""Which stencils a piece of guest code may need: the cold path of a missing stencil."""

from __future__ import annotations

from typing import Any

from .layout import (
    CONDITIONS,
    ENDS_DIRECT,
    FUSED_STENCIL,
    FUSED_VARIANTS,
    NO_FLAGS,
    POLL,
    POLL_FUSED,
    VARIANTS,
    WIDE,
    FormInfo,
)

NARROW, WIDE_SEEN = 1, 2  # what scan_forms notes of a form


def stencils_for(seen: bytes, ctx: Any, tables: Any) -> set[int]:
    """Indices (as in EXIT_STENCIL) for forms by what was seen of them: NARROW and WIDE_SEEN bits, by form id."""
    wanted: set[int] = set()
    firsts: list[tuple[int, int]] = []
    conditions: list[tuple[int, int]] = []
    for form in range(1, tables.n_forms):
        widths = [width for width, bit in ((0, NARROW), (WIDE, WIDE_SEEN)) if seen[form] & bit]
        if not widths:
            continue
        info = FormInfo.at(int(ctx.forms) + form * FormInfo.size)
        for width in widths:
            for flags in (0, NO_FLAGS) if info.flags_written else (0,):
                for poll in (0, POLL) if info.ends & ENDS_DIRECT else (0,):
                    wanted.add(form * VARIANTS + (width | flags | poll))
            if info.fuse_first:
                firsts.append((info.fuse_first - 1, width))
            if info.fuse_second:
                conditions.append((info.fuse_second - 1, width))
    for first, width_first in firsts:
        for condition, width_second in conditions:
            for poll in (0, POLL_FUSED):
                index = (first * CONDITIONS + condition) * FUSED_VARIANTS + (width_first | width_second | poll)
                wanted.add(FUSED_STENCIL | index)
    return wanted
