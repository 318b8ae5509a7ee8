"""What firmware does before a system starts: bus numbers, BARs and bridge windows, everything switched on.

Boards without firmware let this do it, through configuration space alone; maps for people show what comes of it. BARs
are placed by size, the largest first, each naturally aligned; a bridge's window is what lies below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError
from dbt.machine.pci.bar import ROM
from dbt.machine.pci.config import IO, MASTER, MEMORY, Header, Type1

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.pci.bar import BaseAddress
    from dbt.machine.pci.bridge import PciBridge
    from dbt.machine.pci.bus import PciBus
    from dbt.machine.pci.function import PciFunction

MIB, IO_GRAIN = 1 << 20, 1 << 12  # what windows of bridges are multiples of
KINDS = ("io", "memory", "prefetchable")


@dataclass(slots=True)
class Ranges:
    """(first, size) that the host's windows leave for BARs. Without `high`, nothing is above 4 GiB."""

    memory: tuple[int, int]
    io: tuple[int, int]
    high: tuple[int, int] | None = None


@dataclass(slots=True)
class _Wish:
    """Something that wants `size` bytes: a BAR, or a bridge with the wishes of its bus."""

    size: int
    align: int
    base: BaseAddress | None = None
    bridge: PciBridge | None = None
    inner: list[_Wish] = field(default_factory=list)


def assign(root: PciBus, ranges: Ranges, line: Callable[[int, int], int] | None = None) -> None:
    """Configure all that is on `root` and below. `line(slot, pin)`: what the interrupt line register is to say.

    Prefetchable memory is above 4 GiB only if there is no room for it below, since not all guests reach that far.
    """
    _number(root, 0)
    ports, memory, prefetchable = (_wishes(root, kind) for kind in KINDS)
    _place(ports, ranges.io[0], sum(ranges.io), "io")
    start, end = ranges.memory[0], sum(ranges.memory)
    _place(memory, start, end, "memory")
    start = _after(memory, start)
    if ranges.high is not None and _after(prefetchable, start) > end:
        start, end = ranges.high[0], sum(ranges.high)
    _place(prefetchable, start, end, "prefetchable")
    _enable(root, line or (lambda _slot, _pin: 0))


def _after(wishes: list[_Wish], at: int) -> int:
    """Where the last of them ends if the first is at `at` or behind."""
    for wish in wishes:
        at = -(-at // wish.align) * wish.align + wish.size
    return at


def _set(function: PciFunction, offset: int, size: int, value: int) -> None:
    function.config_write(offset, size, value)


def _number(bus: PciBus, last: int) -> int:
    """Depth first; the result is the highest number so far."""
    number = bus.number
    for bridge in bus.bridges():
        _set(bridge, Type1.PRIMARY_BUS.offset, 1, number)
        _set(bridge, Type1.SECONDARY_BUS.offset, 1, last + 1)
        _set(bridge, Type1.SUBORDINATE_BUS.offset, 1, 0xFF)
        for kind in KINDS:
            _window(bridge, kind, 0xF000 if kind == "io" else MIB, 0)  # the limit below the base: none
        last = _number(bridge.secondary, last + 1)
        _set(bridge, Type1.SUBORDINATE_BUS.offset, 1, last)
    return last


def _kind(base: BaseAddress) -> str:
    if base.bar.io:
        return "io"
    return "prefetchable" if base.bar.prefetchable and base.bar.bits == 64 else "memory"


def _wishes(bus: PciBus, kind: str) -> list[_Wish]:
    found = []
    for function in bus.functions.values():
        found += [
            _Wish(base.size, base.size, base)
            for base in function.bars.values()
            if _kind(base) == kind and base.bar.index != ROM
        ]
        bridge = function.as_bridge()
        if bridge:
            inner = _wishes(bridge.secondary, kind)
            grain = IO_GRAIN if kind == "io" else MIB
            if inner:
                align = max(grain, *(wish.align for wish in inner))
                found.append(_Wish(-(-_after(inner, 0) // grain) * grain, align, bridge=bridge, inner=inner))
    return sorted(found, key=lambda wish: -wish.align)


def _place(wishes: list[_Wish], at: int, end: int, kind: str) -> None:
    for wish in wishes:
        at = -(-at // wish.align) * wish.align
        if at + wish.size > end:
            who = wish.base.contents.name if wish.base else wish.bridge.name if wish.bridge else ""
            raise MapError(f"there is no room for {wish.size:#x} bytes of {who}", "have fewer or smaller devices")
        if wish.base is not None:
            wish.base.configure(at)
        elif wish.bridge is not None:
            _window(wish.bridge, kind, at, at + wish.size)
            _place(wish.inner, at, at + wish.size, kind)
        at += wish.size


def _window(bridge: PciBridge, kind: str, start: int, end: int) -> None:
    last = end - 1 if end else 0
    if kind == "io":
        _set(bridge, Type1.IO_BASE.offset, 1, start >> 8 & 0xF0)
        _set(bridge, Type1.IO_LIMIT.offset, 1, last >> 8 & 0xF0)
    elif kind == "memory":
        _set(bridge, Type1.MEMORY_BASE.offset, 2, start >> 16 & 0xFFF0)
        _set(bridge, Type1.MEMORY_LIMIT.offset, 2, last >> 16 & 0xFFF0)
    else:
        _set(bridge, Type1.PREFETCHABLE_BASE.offset, 2, start >> 16 & 0xFFF0)
        _set(bridge, Type1.PREFETCHABLE_LIMIT.offset, 2, last >> 16 & 0xFFF0)
        _set(bridge, Type1.PREFETCHABLE_BASE_UPPER.offset, 4, start >> 32)
        _set(bridge, Type1.PREFETCHABLE_LIMIT_UPPER.offset, 4, last >> 32)


def _enable(bus: PciBus, line: Callable[[int, int], int]) -> None:
    for function in bus.functions.values():
        pin = function.identity.pin
        if pin:
            _set(function, Header.INTERRUPT_LINE.offset, 1, line(*bus.upward(function.devfn >> 3, pin - 1)))
        _set(function, Header.COMMAND.offset, 2, IO | MEMORY | MASTER)
        bridge = function.as_bridge()
        if bridge:
            _enable(bridge.secondary, line)
