"""What differs between two results, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.frontends.a64 import state

from tests.differential.case import DATA, DATA_SIZE, REGISTERS, Outcome

from .machines import ALIAS, FAULTS, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .machines import Mode, Result

INSIDE: Final = (*FAULTS, "alignment", "unimplemented", "budget")  # stops where flags that nobody reads may be missing
NOT_JUDGED: Final = ("alignment", "unimplemented", "fetch", "budget", ALIAS)  # Unicorn is another machine there
PARTIAL: Final = 64  # bytes around a fault that a store may have written already, or not


def between_ours(expected: Result, found: Result, mode: Mode) -> list[str]:
    """Between the reference engine and another one of ours."""
    wrong = [
        f"{name}: expected {_text(want)}, found {_text(got)}"
        for name in ("stop", "pc", "value", "write", *(("executed",) if mode.counted else ()))
        if (want := getattr(expected, name)) != (got := getattr(found, name))
    ]
    want_state, got_state = bytearray(expected.state), bytearray(found.state)
    if expected.stop in INSIDE and not mode.all_flags:
        want_state[state.JUNK : state.JUNK + 8] = got_state[state.JUNK : state.JUNK + 8] = bytes(8)
    if want_state != got_state:
        wrong += _registers(bytes(want_state), bytes(got_state), (*REGISTERS, "tpidrro_el0"))
        wrong += _monitor(bytes(want_state), bytes(got_state))
        wrong = wrong or ["the register file, where no register is"]
    skip = range(0)
    if expected.stop in FAULTS and expected.write:
        at = (expected.value & (1 << 56) - 1) - DATA
        skip = range(at - PARTIAL, at + PARTIAL)
    return [*wrong, *_memory(expected.data, found.data, skip)]


def with_outside(expected: Result, found: Result) -> list[str]:
    """Between Unicorn, which is right, and the reference engine.

    Unicorn may have done half of what faults, and has no exact PC at faults of exclusive stores.
    """
    faults = expected.stop == found.stop == "fault"
    wrong = [
        f"{name}: expected {_text(want)}, found {_text(got)}"
        for name in (("stop",) if faults else ("stop", "pc"))
        if (want := getattr(expected, name)) != (got := getattr(found, name))
    ]
    if not faults:
        wrong += _registers(expected.state, found.state, REGISTERS)
        wrong += _memory(expected.data, found.data, range(0))
    return wrong


def _text(value: object) -> str:
    return hex(value) if type(value) is int else str(value)


def _registers(want: bytes, got: bytes, names: tuple[str, ...]) -> Iterator[str]:
    expected, found = unpack(want), unpack(got)
    for name in names:
        if expected[name] != found[name]:
            yield f"{name}: expected {expected[name]:#x}, found {found[name]:#x}"


def _monitor(want: bytes, got: bytes) -> Iterator[str]:
    for name, start, end in (
        ("address", state.EXCLUSIVE_ADDRESS, state.EXCLUSIVE_SIZE),
        ("size", state.EXCLUSIVE_SIZE, state.EXCLUSIVE_LOW),
        ("value", state.EXCLUSIVE_LOW, state.TPIDRRO_EL0),
    ):
        if want[start:end] != got[start:end]:
            yield f"exclusive {name}: expected {want[start:end].hex()}, found {got[start:end].hex()}"


def _memory(want: bytes, got: bytes, skip: range) -> Iterator[str]:
    if want == got:
        return
    for at in range(DATA_SIZE):
        if want[at] != got[at] and at not in skip:
            yield f"memory at {DATA + at:#x}: expected {want[at : at + 16].hex()}, found {got[at : at + 16].hex()}"
            return


def outcome(result: Result) -> Outcome:
    """A result as the text format has it."""
    registers = {name: value for name, value in result.registers.items() if name in REGISTERS}
    return Outcome({"bus": "fault", "budget": "ok"}.get(result.stop, result.stop), result.pc, registers, result.data)
