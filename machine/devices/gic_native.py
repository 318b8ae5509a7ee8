"""A GIC's states in a struct that native code shares, behind the banks' own names (machine/native/gic.py).

The lists of the banks' states become views of it, so that Python's functions stay as they are. Native code says what
each CPU is offered and what its lines are: one call after each change.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Any

from dbt.machine.native.builtin import builtins
from dbt.machine.native.gic import GROUP_AT, IDLE, NOTHING, NUMBER, PRIORITY, PRIORITY_AT, Cpu, Gic, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.devices.gic_core import Offer
    from dbt.machine.machine import Machine
    from dbt.machine.native.builtin import Builtins

STATES = ("group", "enabled", "latched", "level", "active", "edge")
NOWHERE = 0xFFFF  # a route
CPU_WORDS = Cpu.size // 8
SETTINGS, LIMIT, RUNNING, LPI, BEST = (Cpu.offset(name) // 8 for name in ("lpi", "limit", "running", "lpi", "best"))
ENABLES = Cpu.offset("enables") // 8


def packed(offer: Offer) -> int:
    """An offer as native code has it."""
    return offer[0] << PRIORITY_AT | offer[1]


def unpacked(word: int) -> tuple[Offer, int]:
    """What a CPU is offered, and of which group it is."""
    return (word >> PRIORITY_AT & PRIORITY, word & NUMBER), word >> GROUP_AT & 1


class Shared:
    """The struct of one GIC."""

    def __init__(self, builtins: Builtins, numbers: Sequence[int], cpus: int, *, masks: bool) -> None:
        self._kept: list[Any] = []
        _, self.address = self._room(ctypes.c_uint64, Gic.size // 8, "Q")
        self._settle = builtins.bind(settle, self.address)
        self.words: dict[str, memoryview] = {}
        slots = len(numbers)
        everything, at_cpus = self._room(ctypes.c_uint64, CPU_WORDS * (cpus + 1), "Q")
        self.words["priority"], at_priorities = self._room(ctypes.c_uint8, 32 * slots, "B")
        self.route, at_routes = self._room(ctypes.c_uint16, 32 * slots, "H")
        self._changed, at_changed = self._room(ctypes.c_uint32, cpus, "I")
        fields = {
            "slots": slots, "cpus": cpus, "masks": masks,
            "cpu": at_cpus, "priority": at_priorities, "route": at_routes, "changed": at_changed,
        }  # fmt: skip
        for name in (*STATES, "number"):
            self.words[name], fields[name] = self._room(ctypes.c_uint32, slots, "I")
        gic = Gic.at(self.address)
        for name, value in fields.items():
            setattr(gic, name, value)
        self.words["number"][:] = array("I", numbers)
        self.cpu = [everything[CPU_WORDS * number : CPU_WORDS * (number + 1)] for number in range(cpus + 1)]
        for words in self.cpu:
            words[RUNNING], words[LPI], words[BEST] = IDLE, NOTHING, NOTHING

    def _room(self, kind: Any, count: int, code: Any) -> tuple[memoryview, int]:  # noqa: ANN401 - what ctypes and casts have
        """An array, and where it is."""
        there = (kind * count)()
        self._kept.append(there)
        return memoryview(there).cast("B").cast(code), ctypes.addressof(there)

    def adopt(self, states: dict[str, Any], slot: int) -> None:
        """Take over a bank's states, which begin at a slot here, in place of its lists."""
        for name in (*STATES, "priority"):
            values = states[name]
            if isinstance(values, list):
                start = 32 * slot if name == "priority" else slot
                view = self.words[name][start : start + len(values)]
                view[:] = array(view.format, values)
                states[name] = view

    def settle(self) -> list[int]:
        """Look at all anew; the CPUs whose lines are different."""
        count = self._settle()
        return self._changed[:count].tolist() if count else []


def shared(machine: Machine, numbers: Sequence[int], cpus: int, *, masks: bool) -> Shared | None:
    """What a GIC shares with native code, if there is any: each slot's first interrupt, and the CPUs."""
    made = builtins() if machine.native else None
    return Shared(made, numbers, cpus, masks=masks) if made else None
