"""A local APIC's sets in a struct that native code shares (machine/native/apic.py), behind the same names.

`ApicCore` has views of them in place of its lists. Native code that takes or ends an interrupt calls `acknowledged` and
`ended` of the APIC with what it got, where flags say that more has to be done.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from dbt.machine.native.apic import NOTHING, Apic, apic_accept, apic_acknowledge, apic_end, apic_settle
from dbt.machine.native.builtin import builtins

from dbt.native import address

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.native.builtin import Builtins

SETS = ("requested", "in_service", "by_level")
OFFERED, TASK, SETTINGS, SPURIOUS, WATCHED = (
    Apic.offset(name) // 8 for name in ("offered", "task", "settings", "spurious", "watched")
)


class Shared:
    """The struct of one APIC."""

    def __init__(self, builtins: Builtins) -> None:
        struct = Apic.view(offered=NOTHING)
        self.address = address(struct)
        everything = memoryview(struct).cast("B")  # type: ignore[arg-type]
        self.words = everything[: Apic.offset(SETS[0])].cast("Q")
        self._sets = {name: everything[Apic.offset(name) : Apic.offset(name) + 32].cast("I") for name in SETS}
        self.settle, self.accept, self.acknowledge, self.end = (
            builtins.bind(function, self.address) for function in (apic_settle, apic_accept, apic_acknowledge, apic_end)
        )

    def adopt(self, states: dict[str, Any]) -> None:
        """Take over an APIC's states in place of its lists."""
        for name, view in self._sets.items():
            if isinstance(states[name], list):
                view[:] = array("I", states[name])
                states[name] = view


def shared(machine: Machine) -> Shared | None:
    """What an APIC shares with native code, if there is any."""
    made = builtins() if machine.native else None
    return Shared(made) if made else None
