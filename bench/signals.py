"""How long a signal takes to a busy guest: from before kill() here until the guest's handler has read the clock.

The guest computes without end; its handler writes the time (CLOCK_MONOTONIC, as here) to standard output. Signals come
at random distances, one after the other. The first of each process are not counted: they find code that is not
translated, or not hot, yet. Times are seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Final

from .measure import BenchError, Command, Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .suites import Setting

    Samples = list[float]

SIGNALS: Final = 10_000
UNCOUNTED: Final = 300  # of each process
LONGEST_PAUSE: Final = 0.001  # seconds between two signals, at most
LIMIT: Final = 0.001  # of the 99th percentile
ENGINES: Final = ("baseline", "interpreter", "optimizer", "reference")
_TIMESPEC: Final = struct.Struct("<qq")
_WORDS: Final = (
    0xD10103FF,  # _start: sub sp, sp, #64
    0x100002C0,  # adr x0, handler
    0xF90003E0,  # str x0, [sp]
    0xD2A08000,  # mov x0, #0x4000000: SA_RESTORER
    0xF90007E0,  # str x0, [sp, #8]
    0x100003C0,  # adr x0, restorer
    0xA9017FE0,  # stp x0, xzr, [sp, #16]
    0xD2800140,  # mov x0, #10: SIGUSR1
    0x910003E1,  # mov x1, sp
    0xD2800002,  # mov x2, #0
    0xD2800103,  # mov x3, #8
    0xD28010C8,  # mov x8, #134: rt_sigaction
    0xD4000001,  # svc #0
    0x9400000A,  # bl handler: it is ready
    0xD2801902,  # busy: mov x2, #200
    0x9B020021,  # inner: madd x1, x1, x2, x0
    0x8B411C00,  # add x0, x0, x1, lsr #7
    0xF1000442,  # subs x2, x2, #1
    0x54FFFFA1,  # b.ne inner
    0x94000002,  # bl leaf
    0x17FFFFFA,  # b busy
    0xCAC10C00,  # leaf: eor x0, x0, x1, ror #3
    0xD65F03C0,  # ret
    0xD10043FF,  # handler: sub sp, sp, #16
    0xD2800020,  # mov x0, #1: CLOCK_MONOTONIC
    0x910003E1,  # mov x1, sp
    0xD2800E28,  # mov x8, #113: clock_gettime
    0xD4000001,  # svc #0
    0xD2800020,  # mov x0, #1
    0x910003E1,  # mov x1, sp
    0xD2800202,  # mov x2, #16
    0xD2800808,  # mov x8, #64: write
    0xD4000001,  # svc #0
    0x910043FF,  # add sp, sp, #16
    0xD65F03C0,  # ret
    0xD2801168,  # restorer: mov x8, #139: rt_sigreturn
    0xD4000001,  # svc #0
)


def write_guest(path: Path) -> Path:
    """The guest as an executable for AArch64 Linux."""
    code = struct.pack(f"<{len(_WORDS)}I", *_WORDS)
    base, start = 0x400000, 120
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    size = start + len(code)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    path.write_bytes(head + code)
    path.chmod(0o755)
    return path


def latencies(command: Command, environ: Mapping[str, str], count: int) -> Samples:
    """Seconds of each of `count` signals to one process. Raises BenchError if it does not answer."""
    chance = random.Random(count)
    samples: Samples = []
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as guest:
        assert guest.stdout is not None
        try:
            _read(guest.stdout.fileno(), command)
            for number in range(-UNCOUNTED, count):
                time.sleep(chance.random() * LONGEST_PAUSE)
                sent = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                os.kill(guest.pid, signal.SIGUSR1)
                handled = _read(guest.stdout.fileno(), command)
                if number >= 0:
                    samples.append((handled - sent) / 1e9)
        finally:
            guest.kill()
    return samples


def _read(fd: int, command: Command) -> int:
    """The guest's time in nanoseconds."""
    data = os.read(fd, _TIMESPEC.size)
    if len(data) != _TIMESPEC.size:
        raise BenchError(f"{' '.join(str(word) for word in command)}: ended, or wrote {data!r}")
    seconds, nanoseconds = _TIMESPEC.unpack(data)
    return int(seconds * 1_000_000_000 + nanoseconds)


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that is not below `share` of all."""
    return sorted(samples)[max(-(-len(samples) * round(share * 1000) // 1000) - 1, 0)]


def signals(setting: Setting) -> Iterator[Figure]:
    """10,000 signals to a busy guest on each engine, in turns with qemu: median, 99th percentile and longest."""
    folder = setting.cache.parent
    guest = write_guest(setting.cache / "busy")
    every: dict[str, Samples] = {}
    for engine in ENGINES:
        ours: Samples = []
        qemus: Samples = []
        for number in range(setting.rounds):
            count = SIGNALS * (number + 1) // setting.rounds - SIGNALS * number // setting.rounds
            ours += latencies(setting.ours(guest, engine=engine), setting.environ, count)
            qemus += latencies(setting.qemus(guest), setting.environ, count)
        every[engine] = ours
        every.setdefault("qemu", []).extend(qemus)
        limit = None if engine == "reference" else LIMIT
        name = f"signal, {engine}"
        yield Figure(f"{name}: median", "us", [statistics.median(ours)], [statistics.median(qemus)], kind="signals")
        yield Figure(
            f"{name}: 99 of 100", "us", [percentile(ours, 0.99)], [percentile(qemus, 0.99)], limit=limit, kind="signals"
        )
        yield Figure(f"{name}: longest", "us", [max(ours)], [max(qemus)], kind="signals")
    rounded = {name: [round(sample * 1e6, 1) for sample in samples] for name, samples in every.items()}
    (folder / "signals.json").write_text(json.dumps({"unit": "us", "samples": rounded}) + "\n")
    plot(every, folder / "signals.svg")


def plot(every: Mapping[str, Samples], path: Path) -> bool:
    """How many signals took longer than a time, for each engine; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, samples in every.items():
        ordered = [sample * 1e6 for sample in sorted(samples)]
        shares = [1 - number / len(ordered) for number in range(len(ordered))]
        axes.step(ordered, shares, label=name, color="black" if name == "qemu" else None)
    axes.axvline(LIMIT * 1e6, color="grey", linewidth=0.8)
    axes.axhline(0.01, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("microseconds from kill() to the guest's handler")
    axes.set_ylabel("share of signals that took longer")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return True
