"""Shares numbers out to child processes, watches them, and adds up what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dbt.frontends.a64.guest import GUEST

from dbt.engine import layout
from dbt.engine.build import Progress
from dbt.engine.cache import open_store
from tests.conftest import ROOT
from tests.differential.variants import every_number

from .child import PLACE, Options, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SILENCE: Final = 300.0  # seconds that a child may stay at one place: the compiler of regions alone may take 120
LOST: Final = 5  # children that may be lost before it is given up
LARGE: Final = ("baseline", "optimizer", "interpreter")  # which engine has a full address space, by process
NOTHING: Final[dict[str, Any]] = {"mode": {}, "wrong": [], "line": "", "stops": [], "note": "", "batch": 0}
ISOLATION: Final = 1800.0  # seconds for making a crash small


def prepare() -> None:
    """Fill the cache: random code meets every form, and would have them compiled one by one."""
    store = open_store(quiet=not sys.stderr.isatty())
    store.prepare(GUEST.name)
    store.compile(GUEST.name, every_number(GUEST.tables))
    handlers = range(layout.VARIANTS, len(GUEST.tables.forms) * layout.VARIANTS, layout.VARIANTS)
    store.compile(GUEST.name, handlers, "handlers")


@dataclass
class Report:
    """What came out: how many numbers were tried, how often what happened, and records of what is wrong."""

    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self, kind: str) -> str:
        """Some lines for people."""
        stops = {name: n for name, n in self.counts.most_common() if name.startswith("stop ")}
        runs = {name: n for name, n in self.counts.most_common() if not name.startswith("stop ")}
        lines = [
            f"{self.done} {kind} in {self.seconds:.0f} s, {len(self.wrong)} differences, crashes and hangs",
            "  runs compared with the reference engine: " + ", ".join(f"{name} {n}" for name, n in runs.items()),
            "  they stopped for: " + ", ".join(f"{name.removeprefix('stop ')} {n}" for name, n in stops.items()),
        ]
        return "\n".join(lines)

    def details(self) -> str:
        """All that is wrong."""
        return "\n".join(shown(record) for record in self.wrong)


def shown(record: dict[str, Any]) -> str:
    """A difference for people, with the command that shows it again."""
    mode = ", ".join(f"{name} {value}" for name, value in record["mode"].items() if name != "stops")
    note = f" ({record['note']})" if record["note"] else ""
    stops = "".join(f" --until {address:#x}" for address in record["stops"])
    lines = [f"number {record['seed']} on {record['engine']}{note}; {mode}", *record["wrong"]]
    if record["line"]:
        lines.append(f"python -m tests.soak replay '{record['line']}'{stops}")
    else:
        count = record["seed"] - record["batch"] + 1
        lines.append(f"python -m tests.soak programs|pages --seed {record['batch']} --count {count} --jobs 1")
    return "\n    ".join(lines)


class Parent:
    """`count` numbers from `start` on, in `jobs` processes. `show` gets what is wrong when it is found."""

    def __init__(self, options: Options, jobs: int, show: Callable[[str], None] = lambda _text: None) -> None:
        self._options: Final = options
        self._jobs: Final = jobs
        self._show: Final = show
        self._children: Final[list[subprocess.Popen[bytes]]] = []
        self._stopped = False
        self._lock: Final = threading.Lock()
        self._progress: Final = Progress(quiet=False)
        self.report: Final = Report()

    def run(self) -> Report:
        """Try all of them, or what there is time for until Ctrl-C or SIGTERM."""
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dragoman-soak-") as folder:
            threads = [
                threading.Thread(target=self._share, args=(part, Path(folder) / str(number)))
                for number, part in enumerate(self._parts())
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except KeyboardInterrupt:
                self._stop()
                for thread in threads:
                    thread.join()
        self._progress.clear()
        self.report.seconds = time.monotonic() - begin
        return self.report

    def _stop(self) -> None:
        self._stopped = True
        with self._lock:
            for child in self._children:
                child.kill()

    def _parts(self) -> Iterator[Options]:
        options = self._options
        each = -(-options.count // self._jobs)
        for number, start in enumerate(range(options.start, options.start + options.count, each)):
            count = min(each, options.start + options.count - start)
            yield replace(options, start=start, count=count, large=LARGE[number % len(LARGE)])

    def _share(self, options: Options, path: Path) -> None:
        """One child after the other, until all numbers of a part were tried."""
        path.write_bytes(bytes(PLACE.size))
        options = replace(options, place=str(path))
        lost = 0
        while options.count > 0:
            how = self._child(options)
            if not how or self._stopped:
                return
            seed, engine = Place(path).read()
            self._blame(replace(options, start=seed, count=1, isolate=True), engine, how)
            lost += 1
            if lost == LOST:
                return
            with self._lock:
                self.report.done += 1
            options = replace(options, start=seed + 1, count=options.start + options.count - seed - 1)

    def _child(self, options: Options) -> str:
        """Run a child; how it was lost, if it was."""
        with tempfile.TemporaryFile() as said, self._start(options, said) as child:
            late = threading.Event()
            watch = threading.Thread(target=_watch, args=(child, options.place, late), daemon=True)
            watch.start()
            assert child.stdout is not None
            for line in child.stdout:
                self._note(json.loads(line))
            status = child.wait()
            watch.join()
            if not status:
                return ""
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()[-2000:]
            how = "did not go on" if late.is_set() else f"ended with {status}"
            return f"the process {how}\n{words}".strip()

    def _blame(self, options: Options, engine: str, how: str) -> None:
        """A child was lost: have it made small what was to blame."""
        before = len(self.report.wrong)
        with tempfile.TemporaryFile() as said, self._start(options, said) as child:
            assert child.stdout is not None
            timer = threading.Timer(ISOLATION, child.kill)
            timer.start()
            for line in child.stdout:
                self._note(json.loads(line), show=False)
            timer.cancel()
        with self._lock:
            if len(self.report.wrong) == before:
                self.report.wrong.append({**NOTHING, "seed": options.start, "engine": engine})
            self.report.wrong[-1]["engine"] = self.report.wrong[-1]["engine"] or engine
            self.report.wrong[-1]["wrong"] = [*self.report.wrong[-1]["wrong"], how]
            self._show(shown(self.report.wrong[-1]))

    def _start(self, options: Options, said: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command(options), cwd=ROOT, stdout=subprocess.PIPE, stderr=said)
        with self._lock:
            self._children.append(child)
            if self._stopped:
                child.kill()
        return child

    def _note(self, record: dict[str, Any], *, show: bool = True) -> None:
        with self._lock:
            report = self.report
            if "done" in record:
                report.done += record["done"]
                report.counts.update(record["counts"])
            else:
                report.wrong.append(record)
                if show:
                    self._progress.clear()
                    self._show(shown(record))
            found = f", {len(report.wrong)} found" if report.wrong else ""
            self._progress.update(report.done, self._options.count, f"{self._options.kind}{found}")


def command(options: Options) -> list[str]:
    """What starts a child."""
    return [sys.executable, "-m", "tests.soak.child", options.text()]


def _watch(child: subprocess.Popen[bytes], place: str, late: threading.Event) -> None:
    """Ends a child that stays where it is for too long. What it makes small moves on from engine to engine as well."""
    shared, since, before = Path(place), time.monotonic(), b""
    while child.poll() is None:
        time.sleep(0.2)
        now = shared.read_bytes()
        if now != before:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > SILENCE:
            late.set()
            child.kill()
            return
