"""Passes: functions from Template to Template (or to facts about one), a page each."""

from .dead_code import dead_code
from .drop_flags import drop_flags
from .flag_effects import FlagEffects, flag_effects
from .fold import fold
from .forward import forward
from .fuse import fuse
from .uses import Uses, uses

__all__ = ["FlagEffects", "Uses", "dead_code", "drop_flags", "flag_effects", "fold", "forward", "fuse", "uses"]
