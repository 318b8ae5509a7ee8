"""Guest state that ops name without a place: where the engines find it in Env.guest."""

from __future__ import annotations

from typing import NamedTuple


class StateOffsets(NamedTuple):
    """Byte offsets in env. The defaults are those of A64."""

    fpcr: int = 280
    fpsr: int = 288
    exclusive_address: int = 296  # of the monitor; all ones: none
    exclusive_size: int = 304  # in bytes
    exclusive_value: int = 312  # what was loaded, 16 bytes
