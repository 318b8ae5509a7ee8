"""Running commands: wall time, peak memory, and interleaved pairs of both."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Command = Sequence[str | os.PathLike[str]]
NATIVE = "native"  # in the kind of figures that say how many times as long we take as the host's own code
CONFIDENCE = 0.95
SAMPLE_SECONDS = 0.0002  # between two looks at a process's peak memory


class BenchError(Exception):
    """A command that is to be measured did not do what it should."""


@dataclass(slots=True)
class Figure:
    """One measured pair. `ratio` is how many times as fast as qemu we are; `goal` is the least that is wanted of it."""

    name: str
    unit: str
    ours: list[float]
    qemus: list[float] = field(default_factory=list)
    goal: float | None = None  # of `ratio`
    limit: float | None = None  # of `ours`, where that has to be below a figure
    kind: str = ""
    at: float | None = None  # where it is on the line of its kind, of figures over something

    @property
    def ratio(self) -> float | None:
        """qemu's median by ours."""
        return statistics.median(self.qemus) / statistics.median(self.ours) if self.qemus else None

    @property
    def pairs(self) -> list[float]:
        """The ratio of each pair."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.qemus, strict=True)]

    @property
    def met(self) -> bool | None:
        """Whether the figure is what is wanted; None if nothing particular is."""
        if self.limit is not None:
            return statistics.median(self.ours) <= self.limit
        return None if self.goal is None or self.ratio is None else self.ratio >= self.goal


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """Where the median of what the samples are of lies, 95 times in 100; of less than six samples, their range.

    By the sign test: between the k-th smallest and the k-th largest, with the largest k for which the tails of the
    binomial distribution are small enough. It asks nothing of how the samples are distributed.
    """
    ordered, count = sorted(samples), len(samples)
    k, tail = 0, 0.5**count
    while 2 * tail <= 1 - CONFIDENCE:
        k += 1
        tail += math.comb(count, k) * 0.5**count
    k = max(k - 1, 0)
    return ordered[k], ordered[count - 1 - k]


def check(command: Command, environ: Mapping[str, str], expected: str | None = None) -> str:
    """Run a command once for what it says on standard error; its output has to be what is expected."""
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or (expected is not None and done.stdout.strip() != expected):
        words = " ".join(str(word) for word in command)
        raise BenchError(f"{words}: status {done.returncode}, output {done.stdout[-200:]!r}\n{done.stderr[-2000:]}")
    return done.stderr


def _spawn(command: Command, environ: Mapping[str, str]) -> int:
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(command[0], [os.fspath(word) for word in command], dict(environ), file_actions=nowhere)


def wall_seconds(command: Command, environ: Mapping[str, str]) -> float:
    """Seconds from before the process exists until it has been waited for."""
    start = time.perf_counter()
    _, status = os.waitpid(_spawn(command, environ), 0)
    seconds = time.perf_counter() - start
    if status:
        raise BenchError(f"{' '.join(str(word) for word in command)}: wait status {status}")
    return seconds


def peak_mebibytes(command: Command, environ: Mapping[str, str]) -> float:
    """Peak resident memory: VmHWM, looked at until the end (what wait4 reports has the parent's own peak in it)."""
    process = _spawn(command, environ)
    peak = 0
    with open(f"/proc/{process}/status", "rb", buffering=0) as status:
        while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            status.seek(0)
            for line in status.read(4096).split(b"\n"):
                if line.startswith(b"VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
            time.sleep(SAMPLE_SECONDS)
    os.waitpid(process, 0)
    return peak / 1024


def pairs(ours: Command, qemus: Command, environ: Mapping[str, str], rounds: int) -> tuple[list[float], list[float]]:
    """Wall seconds of both, taken in turns."""
    ours_seconds, qemus_seconds = turns((ours, qemus), environ, rounds)
    return ours_seconds, qemus_seconds


def turns(commands: Sequence[Command], environ: Mapping[str, str], rounds: int) -> list[list[float]]:
    """Wall seconds of each command, taken in turns; which goes first changes."""
    seconds: list[list[float]] = [[] for _ in commands]
    order = list(range(len(commands)))
    for _ in range(rounds):
        for side in order:
            seconds[side].append(wall_seconds(commands[side], environ))
        order.append(order.pop(0))
    return seconds
