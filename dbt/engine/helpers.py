"""Native helpers that templates call by name: what an instruction needs and the IR does not say.

A helper is a @native function (env: Env, a: u64, ...) -> u64 named helper_<name>. Translated code calls it through
Env.helpers, by its position in HELPERS; the reference engine calls the same function under CPython. Effects are
declared ("pure", "reads", "writes" guest state), so that passes know what they may move.
"""

from __future__ import annotations

from dbt.native import Struct, cast, native, new, struct, syscall, u64

from .host_x86_64 import SYS_CLOCK_GETTIME
from .layout import Env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dbt.native import Native

CLOCK_MONOTONIC = 1
NANOSECONDS = 1_000_000_000


@struct
class Timespec(Struct):
    """struct timespec."""

    seconds: u64
    nanoseconds: u64


@native(export=True)
def helper_cntvct(env: Env) -> u64:
    """CNTVCT_EL0: nanoseconds of the monotonic clock, so CNTFRQ_EL0 is 1 GHz (DDI 0487 D13.1)."""
    now = new(Timespec)
    syscall(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, cast(u64, now))
    return now.seconds * NANOSECONDS + now.nanoseconds


class Helper:
    """One helper: its name in templates, its function, its effects."""

    __slots__ = ("effects", "function", "index", "name")

    def __init__(self, name: str, function: Native, effects: str, index: int) -> None:
        self.name = name
        self.function = function
        self.effects = effects
        self.index = index


def _collect() -> dict[str, Helper]:
    """All helpers of all modules; the position in the dict is the position in Env.helpers."""
    from dbt.frontends.a64.helpers import HELPERS as A64_HELPERS

    found: dict[str, Helper] = {}
    for name, (function, effects) in {"cntvct": (helper_cntvct, "reads"), **A64_HELPERS}.items():
        found[name] = Helper(name, function, effects, len(found))
    return found


HELPERS: dict[str, Helper] = _collect()
