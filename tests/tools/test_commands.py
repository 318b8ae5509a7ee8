"""trace, coverage and profile as commands, with forked children, and what they write."""

from __future__ import annotations

import re
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dbt.engine.cpu import ENGINES
from dbt.tools.commands import own_path
from tests.conftest import default_signals

from .guests import BASE, INSTRUCTIONS, LOOP, ROUNDS, START, STATUS
from .pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable

Command = Any  # of tests/conftest.py
ROOT = Path(__file__).parents[2]
HELLO = ROOT / "bench" / "guests" / "bin" / "hello"
FORKS = "(echo child; exit 4); echo $?"


def read_drcov(path: Path) -> tuple[list[tuple[int, int, str]], list[tuple[int, int, int]]]:
    """(base, end, path) of the modules and (offset, size, module) of the blocks, as Lighthouse reads them."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    assert lines[0] == b"DRCOV VERSION: 2"
    assert lines[1].startswith(b"DRCOV FLAVOR: ")
    count = int(lines[2].removeprefix(b"Module Table: version 2, count "))
    assert lines[3] == b"Columns: id, base, end, entry, path"
    modules = []
    for number, line in enumerate(lines[4 : 4 + count]):
        own, base, end, _entry, name = (field.strip() for field in line.split(b",", 4))
        assert int(own) == number
        modules.append((int(base, 16), int(end, 16), name.decode()))
    head = lines[4 + count]
    match = re.fullmatch(rb"BB Table: (\d+) bbs", head)
    assert match is not None
    table = data[data.index(head) + len(head) + 1 :]
    assert len(table) == 8 * int(match[1])
    return modules, list(struct.iter_unpack("<IHH", table))


def test_trace_of_everything(dragoman: Command, looping: Path) -> None:
    done = dragoman("trace", looping)
    assert done.returncode == STATUS
    lines = done.stderr.decode().splitlines()
    pid = lines[0].split()[0]
    assert all(line.startswith(f"{pid} ") for line in lines)
    assert re.fullmatch(rf"{pid} 0x0*{BASE + START:x} _start +mov x0, #0x3e8", lines[0])
    stored = next(i for i, line in enumerate(lines) if "str x0" in line)
    assert re.fullmatch(rf"{pid} +writes 8 bytes at 0x[0-9a-f]+", lines[stored + 1])
    assert sum("subs x0" in line for line in lines) == ROUNDS
    assert lines[-1] == f"{pid} exit(7) …"
    assert len(lines) == INSTRUCTIONS + 2


def test_trace_of_some_things(dragoman: Command, looping: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert dragoman("trace", "-m", "-o", out, looping).returncode == STATUS
    (line,) = out.read_text().splitlines()
    assert re.fullmatch(rf"\d+ 0x0*{BASE + LOOP:x} loop +writes 8 bytes at 0x[0-9a-f]+", line)
    assert dragoman("trace", "-s", "-o", out, looping).returncode == STATUS
    assert re.fullmatch(r"\d+ exit\(7\) …\n", out.read_text())
    assert dragoman("trace", "-i", "-o", out, looping).returncode == STATUS
    assert len(out.read_text().splitlines()) == INSTRUCTIONS


def test_trace_of_children(dragoman: Command, busybox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = dragoman("trace", "-i", "-o", out, busybox, "sh", "-c", FORKS)
    assert (done.returncode, done.stdout) == (0, b"child\n4\n")
    processes = [line.split()[0] for line in out.read_text().splitlines()]
    assert len(set(processes)) == 2
    assert min(processes.count(pid) for pid in set(processes)) > 50


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "baseline"])
def test_every_engine_shows_the_same(dragoman: Command, looping: Path, tmp_path: Path, engine: str) -> None:
    found = {}
    for name in ("baseline", engine):
        out = tmp_path / name
        assert dragoman("trace", "-i", "-m", "--engine", name, "-o", out, looping).returncode == STATUS
        # process numbers differ, and where the stack is
        trace = re.sub(r"at 0x\w+", "", re.sub(r"^\d+ ", "", out.read_text(), flags=re.MULTILINE))
        assert dragoman("coverage", "--engine", name, "-o", out, looping).returncode == STATUS
        covered = read_drcov(out)
        profile = dragoman("profile", "--engine", name, looping)
        assert profile.returncode == STATUS
        found[name] = trace, covered, profile.stderr
    assert found["baseline"] == found[engine]


def test_coverage(dragoman: Command, looping: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert dragoman("coverage", "-o", out, looping).returncode == STATUS
    modules, blocks = read_drcov(out)
    assert modules == [(BASE, BASE + 0x2000, str(looping))]
    assert blocks == [(START, 8, 0), (START + 8, 8, 0), (LOOP, 12, 0), (LOOP + 4, 8, 0), (LOOP + 12, 12, 0)]


def test_coverage_has_a_name_by_itself(dragoman: Command, tmp_path: Path) -> None:
    assert dragoman("coverage", HELLO, cwd=tmp_path).returncode == 0
    assert read_drcov(tmp_path / "hello.drcov")[1]


def test_coverage_of_children(dragoman: Command, busybox: Path, tmp_path: Path) -> None:
    assert dragoman("coverage", "-o", tmp_path / "out", busybox, "sh", "-c", FORKS).stdout == b"child\n4\n"
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 2
    assert re.fullmatch(r"out\.\d+", files[1])
    parent, child = (set(read_drcov(tmp_path / name)[1]) for name in files)
    assert parent - child
    assert child - parent


def test_profile_as_text(dragoman: Command, looping: Path) -> None:
    done = dragoman("profile", looping)
    assert done.returncode == STATUS
    text = done.stderr.decode()
    assert f"looping: {INSTRUCTIONS:,} instructions in 5 blocks of 2 functions" in text
    assert re.search(r"99\.8 % +2,004  loop +█{20}\n", text)
    assert re.search(r"99\.5 % +1,998 +999  loop\+0x4 +subs x0, x0, #1\n", text)


def test_profile_as_a_page(dragoman: Command, looping: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    done = dragoman("profile", "--html", out, looping)
    assert (done.returncode, done.stderr) == (STATUS, b"")
    text = Page(out).text
    for part in ("2,008 instructions in 2 functions", "999 × loop+0x4", "b.ne #0x401014"):
        assert part in text


def test_profile_without_symbols_and_with_children(dragoman: Command, busybox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = dragoman("profile", "-o", out, busybox, "sh", "-c", FORKS)
    assert (done.stdout, done.stderr) == (b"child\n4\n", b"")
    (child,) = tmp_path.glob("out.*")
    assert "[busybox]" in out.read_text()
    assert f"(process {child.suffix[1:]})" in child.read_text()
    assert own_path("/dev/null", child=True) == "/dev/null"


def test_exec_is_followed(dragoman: Command, busybox: Path, looping: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (busybox, "sh", "-c", f"exec {looping}")
    assert dragoman("coverage", "-o", out, *words).returncode == STATUS
    modules, blocks = read_drcov(out)
    assert {path for _, _, path in modules} == {str(busybox.resolve()), str(looping)}
    assert sum(modules[module][2] == str(looping) for _, _, module in blocks) == 5
    done = dragoman("trace", "-i", *words)
    assert done.returncode == STATUS
    assert done.stderr.decode().count("subs x0, x0, #1") == ROUNDS


def test_deaths_by_signals_are_followed(dragoman: Command, busybox: Path, tmp_path: Path) -> None:
    def prepare() -> None:  # whatever the tests before this one have left ignored or blocked
        default_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    words = (busybox, "sh", "-c", "kill -TERM $$")
    done = dragoman("coverage", "-o", tmp_path / "out", *words, preexec_fn=prepare)
    assert done.returncode == -15
    assert read_drcov(tmp_path / "out")[1]


@pytest.mark.parametrize("words", [("trace",), ("coverage", "-o", "/nowhere/x"), ("explain", "--at", "nobody", HELLO)])
def test_mistakes_are_explained(dragoman: Command, words: tuple[Any, ...], looping: Path) -> None:
    if words[0] == "coverage":
        words = ("trace", *words[1:], looping)
    done = dragoman(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(b"dragoman: ")


@pytest.mark.needs("chromium")
def test_a_browser_shows_the_page(
    dragoman: Command, looping: Path, tmp_path: Path, browser: Callable[[Path], tuple[int, int, int]]
) -> None:
    out = tmp_path / "out.html"
    dragoman("profile", "--html", out, looping)
    width, height, colours = browser(out)
    assert (width, height) == (1200, 900)
    assert colours > 20  # text is smoothed: many shades
