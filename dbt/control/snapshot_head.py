"""What the head of a snapshot's bytes may hold: checked whole before anything is made of it (dbt/control/snapshot.py).

The bytes may come from anywhere. Their checksum shows damage, not intent: so types, ranges and sizes are looked at
here, and what passes is state that a guest could have had.
"""

from __future__ import annotations

from typing import Any, Final

from dbt.engine.guests import guest_info
from dbt.engine.layout import PAGE_SIZE
from dbt.errors import UserError

LARGEST: Final = 1 << 46  # of a guest's memory
MONITOR: Final = 32  # bytes of the exclusive monitor: address, size, value
_U64: Final = 1 << 64
_KEYS: Final = {"guest", "registers", "monitor", "ranges", "size", "extents", "process"}
_SIGNALS: Final = {"actions", "mask", "altstack", "saved_mask", "restart"}
_PROCESS: Final = {
    "brk_start", "brk", "mmap_top", "stack", "exe", "argv", "environment", "auxv", "sigreturn", "clear_tid",
    "personality", "limits", "status", "signals",
}  # fmt: skip


def checked(head: object) -> dict[str, Any]:
    """The head; raises ValueError if it is not one."""
    if not isinstance(head, dict) or head.keys() != _KEYS:
        raise ValueError("its parts are others")
    _need(isinstance(head["guest"], str), "guest")
    try:
        info = guest_info(head["guest"])
    except UserError:
        raise ValueError(f"guest {head['guest']!r}") from None
    registers = head["registers"]
    _need(isinstance(registers, dict), "registers")
    for name, value in registers.items():
        size = 4 if name == "nzcv" else 8 if name == "pc" else info.registers.get(name, (0, 0))[1]
        _need(size > 0 and number(value, 0, 1 << 8 * size), f"register {name!r}")
    _need(registers.keys() >= {"pc", "nzcv", *(name for name in info.registers if name[0] != "w")}, "registers")
    _need(isinstance(head["monitor"], bytes) and len(head["monitor"]) == MONITOR, "monitor")
    _need(number(head["size"], 0, LARGEST + 1) and head["size"] % PAGE_SIZE == 0, "size")
    _check_ranges(head["ranges"], head["size"])
    last = 0
    for extent in sequence(head["extents"], "extents"):
        _need(isinstance(extent, tuple) and len(extent) == 2, "extents")
        start, end = extent
        _need(number(start, last, head["size"]) and number(end, start + 1, head["size"] + 1), "extents")
        last = end
    if head["process"] is not None:
        _check_process(head["process"])
    return head


def _check_ranges(ranges: object, size: int) -> None:
    """Mappings in order, none over another, each with bytes of its own that are there."""
    last, taken = 0, 0
    for entry in sequence(ranges, "mappings"):
        _need(isinstance(entry, tuple) and len(entry) == 7, "mappings")
        start, end, prot, name, offset, shared, at = entry
        _need(number(start, last, LARGEST) and number(end, start + 1, LARGEST + 1), "mappings")
        _need(start % PAGE_SIZE == end % PAGE_SIZE == 0, "mappings")
        _need(number(prot, 0, 8) and isinstance(name, str) and number(offset, 0, _U64), "mappings")
        _need(isinstance(shared, bool) and (number(at, -1, 0) if shared else number(at, taken, taken + 1)), "mappings")
        taken += 0 if shared else end - start
        last = end
    _need(taken == size, "mappings")


def _check_process(process: object) -> None:
    """What the Linux personality keeps."""
    _need(isinstance(process, dict) and process.keys() == _PROCESS, "process")
    assert isinstance(process, dict)
    for name in ("brk_start", "brk", "mmap_top", "sigreturn", "clear_tid", "personality"):
        _need(number(process[name], 0, _U64), name)
    _need(tuple_of(process["stack"], 2), "stack")
    _need(isinstance(process["exe"], str) and "\0" not in process["exe"], "exe")
    _need(isinstance(process["auxv"], bytes), "auxv")
    for name in ("argv", "environment"):
        _need(all(isinstance(word, bytes) for word in sequence(process[name], name)), name)
    _need(isinstance(process["limits"], dict), "limits")
    for resource, limit in process["limits"].items():
        _need(number(resource, 0, 64) and tuple_of(limit, 2), "limits")
    _need(process["status"] is None or number(process["status"], -64, 256), "status")
    signals = process["signals"]
    _need(isinstance(signals, dict) and signals.keys() == _SIGNALS, "signals")
    _need(isinstance(signals["actions"], dict), "actions")
    for signo, action in signals["actions"].items():
        _need(number(signo, 1, 65) and tuple_of(action, 4), "actions")
    _need(number(signals["mask"], 0, _U64), "mask")
    _need(tuple_of(signals["altstack"], 3), "altstack")
    _need(signals["saved_mask"] is None or number(signals["saved_mask"], 0, _U64), "saved_mask")
    restart = signals["restart"]
    signed = isinstance(restart, tuple) and len(restart) == 3 and all(number(n, -_U64, _U64) for n in restart)
    _need(restart is None or signed, "restart")


def number(value: object, low: int, end: int) -> bool:
    """Whether it is an int in [low, end)."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < end


def tuple_of(value: object, count: int) -> bool:
    """Whether it is a tuple of so many 64-bit numbers."""
    return isinstance(value, tuple) and len(value) == count and all(number(each, 0, _U64) for each in value)


def sequence(value: object, what: str) -> list[Any]:
    """A list."""
    _need(isinstance(value, list), what)
    assert isinstance(value, list)
    return value


def _need(right: bool, what: str) -> None:
    if not right:
        raise ValueError(what)
