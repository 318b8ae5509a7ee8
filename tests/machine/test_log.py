"""A guest's errors are counted all and said a bounded number of times."""

from __future__ import annotations

from dbt.machine.log import GUEST_ERROR, KINDS, REPEATS, THINGS, TRACE, UNIMPLEMENTED, Log


def test_repetitions_are_counted_and_said_ten_times() -> None:
    lines: list[tuple[str, str]] = []
    log = Log(lambda *line: lines.append(line))
    for number in range(50):
        log.say(GUEST_ERROR, "uart", "write to UARTFR", f" {number}")
    assert log.counts[GUEST_ERROR] == 50
    assert len(lines) == REPEATS
    assert lines[0] == (GUEST_ERROR, "uart: write to UARTFR 0")
    assert lines[-1][1].endswith("(not said again)")
    for number in range(2 * THINGS):
        log.say(UNIMPLEMENTED, "uart", f"thing {number}")
    assert len(lines) == REPEATS + THINGS - 1
    for number in range(2 * THINGS):
        log.say(TRACE, "uart", f"{number}")
    assert len(lines) == REPEATS + THINGS - 1 + 2 * THINGS


def test_kinds_that_nobody_wants_are_only_counted() -> None:
    lines: list[tuple[str, str]] = []
    log = Log(lambda *line: lines.append(line), kinds=(UNIMPLEMENTED,))
    for kind in KINDS:
        log.say(kind, "device", "thing")
    assert lines == [(UNIMPLEMENTED, "device: thing")]
    assert set(log.counts.values()) == {1}
