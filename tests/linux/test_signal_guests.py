"""Signals from a guest's point of view: C programs on every engine, against what Linux does.

expected.txt is what the programs print on Linux: those that need nothing of AArch64 were run natively, the others are
checked against the kernel's source (arch/arm64/kernel/{signal,traps,ptrace}.c, mm/fault.c). Where qemu-aarch64-static
does as the kernel does it says so as well; the cases of KERNEL are those where qemu 7.2 does not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dbt.run import ENGINES
from tests.conftest import default_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Command

pytestmark = pytest.mark.needs("aarch64-linux-gnu-gcc")

FOLDER = Path(__file__).parent / "guests"
PROGRAMS = ("faults", "delivery", "processes")
# qemu 7.2: no ESR record, si_code of undefined instructions, PSTATE is not looked at, sigqueueinfo's codes, what is
# pending of SIGSEGV, flags of sigaction, SS_AUTODISARM, sigsuspend for SIGSEGV (it hangs), signals 63 and 64,
# SA_NOCLDSTOP, /proc/self/exe at exec, and what a host program inherits.
KERNEL = {
    "syndromes", "instructions", "illegal_state", "senders", "sent_faults", "order", "actions", "dropped", "stacks",
    "suspend", "defaults", "children", "forks", "execs", "host",
}  # fmt: skip
# On a busy machine qemu 7.2 itself dies of a SIGSEGV in one of five runs of `waiting`, which says nothing.
CRASHED = ["killed by 11"]
TRIES = 12
# The reference engine has no native handler: SIGSEGV from elsewhere is the host's, and signals do not queue.
REFERENCE = {
    "faults": ["accesses", "syndromes", "instructions", "edited", "edited_flags", "no_room", "illegal_state", "blocked",
               "ignored"],
    "delivery": ["senders", "masks", "stacks", "restarts"],
    "processes": ["start", "stops"],
}  # fmt: skip
# Compiling regions in each of many short children takes its time: what depends on regions, and a little more.
OPTIMIZER = {"delivery": ["senders", "masks", "order", "stacks"], "processes": ["busy", "timers"]}


def sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            lines = found[line.removeprefix("== ")] = []
        elif not line.startswith("# "):
            lines.append(line)
    return found


def cases_of(name: str) -> list[str]:
    """The names in a program's table."""
    table = (FOLDER / f"{name}.c").read_text().rpartition("CASES(")[2]
    return re.findall(r'"(\w+)"', table)


EXPECTED = sections((FOLDER / "expected.txt").read_text())


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs, compiled."""
    folder = tmp_path_factory.mktemp("signals")
    for name in PROGRAMS:
        subprocess.run(
            ["aarch64-linux-gnu-gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static",
             "-o", folder / name, FOLDER / f"{name}.c", "-lrt"], check=True,
        )  # fmt: skip
    return folder


def test_every_case_is_expected() -> None:
    assert {case for name in PROGRAMS for case in cases_of(name)} == set(EXPECTED)


@pytest.mark.needs("qemu-aarch64-static")
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_expected_is_what_qemu_does(programs: Path, name: str) -> None:
    wanted = [case for case in cases_of(name) if case not in KERNEL]
    # Its default processor has SVE, whose record in a frame wins over that of the vectors.
    found: dict[str, list[str]] = {}
    for _ in range(TRIES):
        left: list[str | Path] = [case for case in wanted if found.get(case, CRASHED) == CRASHED]
        if left:
            words = ["qemu-aarch64-static", "-cpu", "cortex-a57", programs / name, *left]
            found |= sections(subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout)
    assert found == {case: EXPECTED[case] for case in wanted}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_guests(programs: Path, dragoman: Command, name: str, engine: str) -> None:
    cases = {"reference": REFERENCE, "optimizer": OPTIMIZER}.get(engine, {}).get(name, [])
    words = ("run", "--engine", engine, programs / name, *cases)
    plain = prepared([], [], [])
    wanted = {case: EXPECTED[case] for case in cases or cases_of(name)}
    done = dragoman(*words, preexec_fn=plain)
    if sections(done.stdout.decode()) != wanted:
        # While stencils were compiled, what another process did may have come too early.
        done = dragoman(*words, preexec_fn=plain)
    found = sections(done.stdout.decode())
    assert found == wanted, done.stderr.decode()
    assert done.returncode == 0


def prepared(ignored: list[int], blocked: list[int], pending: list[int]) -> Callable[[], None]:
    """What a child does before it becomes the command."""

    def prepare() -> None:
        default_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        for number in pending:
            os.kill(os.getpid(), number)

    return prepare


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("ignored", "blocked", "pending"),
    [
        ([], [], []),
        ([1, 2, 13, 17, 25, 30], [10, 15, 34, 40, 64], [10, 40]),
        ([11, 8], [5, 7, 11, 20], [7, 20]),
        ([], [2, 13, 14, 25], [2, 13, 14, 25]),
    ],
)  # fmt: skip
def test_a_guest_finds_what_the_command_was_given(
    programs: Path, warm: Command, engine: str, ignored: list[int], blocked: list[int], pending: list[int]
) -> None:
    if engine == "reference" and set(pending) & {7}:
        pytest.skip("SIGBUS from elsewhere is the host's")
    done = warm(
        "run", "--engine", engine, programs / "processes", "only", "start",
        preexec_fn=prepared(ignored, blocked, pending),
    )  # fmt: skip
    mask, waiting = (sum(1 << (number - 1) for number in numbers) for numbers in (blocked, pending))
    ignoring = "".join(f" {number} flags 0 mask 0" for number in sorted(ignored))
    line = f"mask {mask:x} pending {waiting:x} ignored{ignoring} stack 2 timer 0 timers 0\n"
    assert (done.stdout.decode(), done.returncode) == (line, 0), done.stderr.decode()
    # A program of the host's, started the same way, agrees.
    words = ["sed", "-n", "/^Sig/p; /^Shd/p", "/proc/self/status"]
    native = subprocess.run(
        words, capture_output=True, text=True, check=True, preexec_fn=prepared(ignored, blocked, pending)
    )
    found = {name: int(value, 16) for name, value in re.findall(r"(\w+):\s+(\w+)", native.stdout)}
    assert (found["SigBlk"], found["ShdPnd"]) == (mask, waiting)
    assert found["SigIgn"] == sum(1 << (number - 1) for number in ignored)


def test_ignored_children_do_not_stop_the_compiler(
    programs: Path, dragoman: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # empty: everything is compiled while SIGCHLD is ignored
    done = dragoman("run", programs / "processes", "only", "start", preexec_fn=prepared([17], [], []))
    assert done.stdout == b"mask 0 pending 0 ignored 17 flags 0 mask 0 stack 2 timer 0 timers 0\n", done.stderr.decode()
