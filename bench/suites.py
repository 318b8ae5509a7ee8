"""What is measured: each suite is a function from a Setting to figures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .devices import ACCESSES, COPIED, DEVICES, REGIONS, TIME
from .guests import FOLDER, GUESTS, PLAIN, Guest
from .images import storage
from .measure import NATIVE, BenchError, Command, Figure, check, pairs, peak_mebibytes, turns, wall_seconds
from .signals import signals
from .snapshots import snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
LOOP = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; echo $i"
SPAWN = "i=0; while [ $i -lt 200 ]; do {command} true; i=$((i+1)); done; echo $i"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the two translators and the guest programs are, and how often each pair runs.

    Suites need different things, so what is missing is missed when it is asked for.
    """

    dragoman: Path
    qemu_command: str
    busybox_file: Path | None
    rounds: int
    cache: Path
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """A plain environment, with a cache that is the benchmark's own."""
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        object.__setattr__(self, "environ", {**keep, "XDG_CACHE_HOME": str(self.cache)})

    @property
    def qemu(self) -> Path:
        """The other translator."""
        found = shutil.which(self.qemu_command)
        if found is None:
            raise BenchError(f"{self.qemu_command} is missing: apt-get install qemu-user-static")
        return Path(found)

    @property
    def busybox(self) -> Path:
        """An arm64 busybox: Debian's, which is downloaded once, if none was given."""
        if self.busybox_file is not None:
            return self.busybox_file.absolute()
        folder = ROOT / "build" / "debian-arm64"
        file = folder / "bin" / "busybox"
        if not file.exists():
            command: Command = [ROOT / "bin" / "debian-package", "busybox-static:arm64", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchError(f"no busybox, which --busybox would name: {done.stderr.strip()}")
        return file

    def ours(self, program: Path, *arguments: str, engine: str = "baseline") -> Command:
        """The command that runs a guest program with Dragoman."""
        choice = [] if engine == "baseline" else ["--engine", engine]
        return [self.dragoman, "run", *choice, program, *arguments]

    def qemus(self, program: Path, *arguments: str) -> Command:
        """The command that runs a guest program with qemu."""
        return [self.qemu, program, *arguments]


def kernels(setting: Setting) -> Iterator[Figure]:
    """The compute-bound and memory-bound guests, each long enough that starting does not count."""
    yield from _kernels(setting, "baseline", goal=0.6)


def interpreter(setting: Setting) -> Iterator[Figure]:
    """The same on the interpreter."""
    yield from _kernels(setting, "interpreter", goal=0.4)


def optimizer(setting: Setting) -> Iterator[Figure]:
    """The same on the optimizer, longer, so that compiling counts as it does for programs worth it; and the host's."""
    with tempfile.TemporaryDirectory(prefix="host-", dir=setting.cache) as folder:
        built = None
        if shutil.which(os.environ.get("CC", "cc")) is None:
            print("native times are left out: a C compiler is missing (apt-get install gcc)", file=sys.stderr)
        else:
            built = Path(folder)
            subprocess.run([FOLDER / "build.sh", "--host", built], check=True)
        for guest in GUESTS:
            if guest.kind != PLAIN:
                yield from _against_host(setting, guest, built)


def _against_host(setting: Setting, guest: Guest, built: Path | None) -> Iterator[Figure]:
    work, environ = str(guest.longer), setting.environ
    ours = setting.ours(guest.path, work, engine="optimizer")
    commands = [ours, setting.qemus(guest.path, work)]
    said = setting.ours(guest.path, str(guest.ordinary), engine="optimizer")
    check(said, environ, guest.ordinary_line)
    if built is not None:
        check([built / guest.name, str(guest.ordinary)], environ, guest.ordinary_line)
        commands.append([built / guest.name, work])
    times, qemus, *host = turns(commands, environ, setting.rounds)
    yield Figure(f"{guest.name}, optimizer", "s", times, qemus, goal=1, kind=f"optimizer {guest.kind}")
    for natives in host:
        ratios = [ours / native for ours, native in zip(times, natives, strict=True)]
        yield Figure(f"{guest.name}, optimizer by native", "x", ratios, kind=f"{NATIVE} {guest.kind}")


def _kernels(setting: Setting, engine: str, goal: float) -> Iterator[Figure]:
    for guest in GUESTS:
        if guest.kind == PLAIN:
            continue
        work = str(guest.long)
        check(setting.ours(guest.path, str(guest.ordinary), engine=engine), setting.environ, guest.ordinary_line)
        ours, qemus = setting.ours(guest.path, work, engine=engine), setting.qemus(guest.path, work)
        name = guest.name if engine == "baseline" else f"{guest.name}, {engine}"
        times = pairs(ours, qemus, setting.environ, setting.rounds)
        yield Figure(name, "s", *times, goal=goal, kind=guest.kind if engine == "baseline" else engine)


def startup(setting: Setting) -> Iterator[Figure]:
    """busybox echo as a whole process, everything cached by another command line before."""
    busybox, environ = setting.busybox, setting.environ
    check(setting.ours(busybox, "sh", "-c", "echo one two | cat"), environ)
    ours, qemus = setting.ours(busybox, "echo", "hello"), setting.qemus(busybox, "echo", "hello")
    yield Figure("first run by a warm cache", "s", [wall_seconds(ours, environ)], kind="startup")
    times = pairs(ours, qemus, environ, setting.rounds * 5)
    yield Figure("busybox echo", "s", *times, goal=1 / 2.2, kind="startup")
    our_peaks, qemu_peaks = ([peak_mebibytes(c, environ) for _ in range(setting.rounds)] for c in (ours, qemus))
    yield Figure("busybox echo, peak memory", "MiB", our_peaks, qemu_peaks, limit=45, kind="startup")


def shell(setting: Setting) -> Iterator[Figure]:
    """A shell loop, and a shell that starts 200 guest programs: under qemu it has to name qemu in front."""
    busybox, environ = setting.busybox, setting.environ
    check(setting.ours(busybox, "sh", "-c", LOOP), environ, "1000")
    ours, qemus = setting.ours(busybox, "sh", "-c", LOOP), setting.qemus(busybox, "sh", "-c", LOOP)
    yield Figure(
        "shell loop of 1,000 rounds", "s", *pairs(ours, qemus, environ, setting.rounds * 3), goal=1, kind="shell"
    )
    ours = setting.ours(busybox, "sh", "-c", SPAWN.format(command=busybox))
    qemus = setting.qemus(busybox, "sh", "-c", SPAWN.format(command=f"{setting.qemu} {busybox}"))
    check(ours, environ, "200")
    yield Figure("fork and exec, 200 times", "s", *pairs(ours, qemus, environ, setting.rounds), goal=1, kind="shell")


def translation(setting: Setting) -> Iterator[Figure]:
    """What decoding and emitting costs: a guest's blocks translated again, each for the first time after a flush."""
    check(setting.ours(setting.busybox, "vi", "--help"), setting.environ)
    python = setting.dragoman.with_name("python3")
    command: Command = [python, "-I", Path(__file__).with_name("translate.py"), setting.busybox, str(setting.rounds)]
    done = subprocess.run(command, env=setting.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(done.stderr)
    facts = json.loads(done.stdout.splitlines()[-1])
    yield Figure("translation of an instruction", "ns", facts["nanoseconds"], limit=150, kind="translation")
    yield Figure("host code of an instruction", "B", facts["host_bytes"], limit=40, kind="translation")


def first(setting: Setting) -> Iterator[Figure]:
    """The first run ever, with an empty cache, and compiling everything at once."""
    seconds = []
    for _ in range(3):
        with empty_cache(setting) as environ:
            seconds.append(wall_seconds(setting.ours(setting.busybox, "echo", "hello"), environ))
    yield Figure("first run ever of busybox echo", "s", seconds, limit=2, kind="first")
    with empty_cache(setting) as environ:
        seconds = [wall_seconds([setting.dragoman, "cache", "build"], environ)]
    yield Figure("the full table of forms", "s", seconds, limit=15, kind="first")


def instrumentation(setting: Setting) -> Iterator[Figure]:
    """How many times as long the compute-bound guests take with a counter in every block."""
    python = setting.dragoman.with_name("python3")
    script = Path(__file__).with_name("counting.py")
    for guest in GUESTS:
        if guest.kind == PLAIN:
            continue
        command: Command = [python, "-I", script, guest.path, str(guest.long), str(setting.rounds), "baseline"]
        done = subprocess.run(command, env=setting.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(done.stderr)
        facts = json.loads(done.stdout.splitlines()[-1])
        times = [counted / plain for counted, plain in zip(facts["counted"], facts["plain"], strict=True)]
        yield Figure(f"{guest.name}, every block counted", "x", times, limit=1.3, kind="instrumentation")


def machine(setting: Setting) -> Iterator[Figure]:
    """What accesses to devices, timers, packets, downloads, and requests to a virtio disk cost."""
    for name, nanoseconds in facts_of(setting, "dispatch.py").items():
        most = 500_000 if name == "a region moves" else 3000
        yield Figure(f"device access: {name}", "ns", nanoseconds, limit=most, kind="machine")
    for name, nanoseconds in facts_of(setting, "timers.py").items():
        yield Figure(f"timers: {name}", "ns", nanoseconds, limit=None if "Python" in name else 2500, kind="machine")
    for name, nanoseconds in facts_of(setting, "network.py").items():
        limit = 20_000 if name.startswith("packet") else 50_000_000  # 50,000 packets and 20 MiB a second
        yield Figure(f"network: {name}", "ns", nanoseconds, limit=limit, kind="machine")
    for name, seconds in facts_of(setting, "requests.py").items():
        at_most = VIRTIO_LIMITS.get(name.split(",")[0])
        yield Figure(f"virtio-blk: {name}", "us", seconds, limit=at_most, kind="machine")


def facts_of(setting: Setting, script: str) -> dict[str, Any]:
    """What a script of this folder prints in its last line."""
    python = setting.dragoman.with_name("python3")
    command: Command = [python, "-I", Path(__file__).with_name(script), str(setting.rounds)]
    done = subprocess.run(command, env=setting.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def devices(setting: Setting) -> Iterator[Figure]:
    """What moving a MiB through each device costs in accesses, copies and time, and what these grow with."""
    facts = facts_of(setting, "moving.py")
    for way in facts["ways"]:
        name = way["name"]
        yield Figure(f"{name}: accesses", "", [way["accesses"]], kind=f"{DEVICES}{ACCESSES}")
        yield Figure(f"{name}: copied", "B", [way["copied"]], kind=f"{DEVICES}{COPIED}")
        yield Figure(f"{name}: time", "s", way["seconds"], kind=f"{DEVICES}{TIME}")
    yield Figure("one access", "ns", facts["access"], limit=3000, kind=f"{DEVICES}one access")
    for count, nanoseconds in facts["regions"]:
        yield Figure(f"an access among {count}", "ns", nanoseconds, kind=f"{DEVICES}{REGIONS}", at=count)
    for way in facts["growth"]:
        for count, seconds in way["points"]:
            yield Figure(f"{way['name']}: {count}", "s", seconds, kind=f"{DEVICES}{way['name']}", at=count)


@contextmanager
def empty_cache(setting: Setting) -> Iterator[dict[str, str]]:
    """An environment whose cache is empty, removed afterwards."""
    folder = tempfile.mkdtemp(prefix="empty-", dir=setting.cache)
    try:
        yield {**setting.environ, "XDG_CACHE_HOME": folder}
    finally:
        shutil.rmtree(folder)


# Seconds: 30,000 requests a second, and 1 GiB/s.
VIRTIO_LIMITS = {"read of 4 KiB": 1 / 30_000, "write of 4 KiB": 1 / 30_000, "read of 1 MiB": 1 / 1024}

SUITES: dict[str, Callable[[Setting], Iterator[Figure]]] = {
    "kernels": kernels,
    "interpreter": interpreter,
    "optimizer": optimizer,
    "startup": startup,
    "shell": shell,
    "translation": translation,
    "first": first,
    "storage": storage,
    "instrumentation": instrumentation,
    "machine": machine,
    "devices": devices,
    "signals": signals,
    "snapshots": snapshots,
}
