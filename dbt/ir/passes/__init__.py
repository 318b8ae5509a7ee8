"""Passes: functions from Template to Template (or to facts about one), a page each."""

from .dead_code import dead_code
from .dead_puts import dead_puts
from .drop_flags import drop_flags
from .flag_effects import FlagEffects, flag_effects
from .fold import fold
from .forward import forward
from .fuse import fuse
from .join import Joined, Joining, Slots, join
from .uses import Uses, uses

__all__ = [
    "FlagEffects", "Joined", "Joining", "Slots", "Uses", "dead_code", "dead_puts", "drop_flags", "flag_effects", "fold",
    "forward", "fuse", "join", "uses",
]  # fmt: skip
