"""Whatever happens to the worker or to the cache, the guest goes on, and one line says what happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dbt.guests import GUESTS, Guest

from tests.conftest import ROOT, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NATIVE = ("baseline", "interpreter")
ENGINES = (*NATIVE, "optimizer")
HELLO, GUEST = (next(guest for guest in GUESTS if guest.name == name) for name in ("hello", "fib"))
FIRST = {"baseline": GUEST, "interpreter": HELLO, "optimizer": HELLO}  # whatever runs first will do, some fast ones
TIMEOUT = 100  # seconds: shorter than the patience that a silent worker finds
STARTED_AGAIN = "was started again"


class Run:
    """What a run of the command came to, and what the guest should have printed."""

    def __init__(self, done: subprocess.CompletedProcess[str], expected: str) -> None:
        self.expected = expected
        self.status = done.returncode
        self.output = done.stdout.strip()
        self.lines = done.stderr.splitlines()


class Bench:
    """A cache of its own, and the command with a worker that something happens to."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.notes = folder / "notes"
        self.notes.mkdir()

    @property
    def build(self) -> Path:
        """The folder of this build."""
        (folder,) = (path for path in (self.cache / "dragoman").iterdir() if path.is_dir())
        return folder

    def start(
        self, what: str, *words: str | Path, count: int = 1, prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start `python -m tests.robustness.sabotage` with these words."""
        command = [*prefix, sys.executable, "-m", "tests.robustness.sabotage", what, self.notes, str(count), *words]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.cache)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe)

    def run(
        self, what: str, engine: str, *, count: int = 1, guest: Guest = GUEST, long: bool = False,
        prefix: tuple[str, ...] = (),
    ) -> Run:  # fmt: skip
        """Run a guest, for as long as its hot code takes to become regions if `long`."""
        work, expected = (guest.ordinary, guest.ordinary_line) if long else (guest.short, guest.short_line)
        words = ("run", "--wait", "--engine", engine, guest.path, str(work))
        child = self.start(what, *words, count=count, prefix=prefix)
        output, errors = child.communicate(timeout=TIMEOUT)
        return Run(subprocess.CompletedProcess(child.args, child.returncode, output, errors), expected)

    def done(self) -> int:
        """How often it happened."""
        return len(list(self.notes.glob("done-*")))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A cache of a kind: `cold` has what a start needs, `warm` all that a guest needs on an engine."""
    found: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in found:
            folder = tmp_path_factory.mktemp("prepared")
            bench = Bench(folder)
            found[kind] = bench.cache
            if kind.startswith("warm"):
                shutil.copytree(get("cold"), bench.cache, symlinks=True)
                engine = kind.removeprefix("warm-")
                assert bench.run("nothing", engine, long=True).output == GUEST.ordinary_line
            else:
                script = (
                    "from dbt.engine.cache import Store; s = Store(quiet=True); "
                    "s.prepare('aarch64'); s.prepare('aarch64', 'handlers')"
                )
                environment = {**os.environ, "XDG_CACHE_HOME": str(bench.cache)}
                subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
        return found[kind]

    return get


@pytest.fixture
def cold(tmp_path: Path, prepared: Callable[[str], Path]) -> Iterator[Bench]:
    """No stencil is compiled yet."""
    yield from _bench(tmp_path, prepared("cold"))


@pytest.fixture
def warm(tmp_path: Path, prepared: Callable[[str], Path]) -> Iterator[Bench]:
    """For the optimizer: the stencils are there, regions are not."""
    yield from _bench(tmp_path, prepared("warm-optimizer"))


def _bench(folder: Path, cache: Path) -> Iterator[Bench]:
    bench = Bench(folder)
    shutil.copytree(cache, bench.cache, symlinks=True)
    yield bench
    for note in bench.notes.glob("done-*"):
        with suppress(OSError, ValueError):  # a worker that was stopped
            process = int(note.read_text())
            if b"dbt.engine.worker" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
    for path in (bench.cache, *bench.cache.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


def right(run: Run) -> None:
    """The guest did what it does."""
    assert run.output == run.expected, run.lines
    assert run.status == 0


def said(run: Run, *words: str) -> None:
    """One line, with these words in it."""
    assert len(run.lines) == 1, run.lines
    assert run.lines[0].startswith("dragoman: ")
    for word in words:
        assert word in run.lines[0]


# ---- the worker is killed


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["start", "request", "answer=progress:head", "answer=done", "garbage"])
def test_a_worker_that_ends_is_started_again(cold: Bench, engine: str, what: str) -> None:
    run = cold.run(what, engine, guest=FIRST[engine])
    assert cold.done() == 1
    right(run)
    said(run, STARTED_AGAIN)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["behind=done", "noise"])
def test_a_worker_that_ends_unasked_is_no_trouble(cold: Bench, engine: str, what: str) -> None:
    run = cold.run(what, engine, guest=FIRST[engine])
    assert what == "noise" or cold.done() == 1
    right(run)
    assert run.lines == []


@pytest.mark.parametrize("engine", NATIVE)
def test_without_a_worker_the_guest_is_interpreted(cold: Bench, engine: str) -> None:
    run = cold.run("request", engine, count=1000, guest=HELLO)
    right(run)
    said(run, "is interpreted", "the compiler process ended")


@pytest.mark.parametrize(
    "what", ["start", "request", "answer=page", "answer=formed", "answer=region", "answer=region:head", "garbage"]
)
def test_a_worker_that_ends_on_a_region_is_started_again(warm: Bench, what: str) -> None:
    run = warm.run(what, "optimizer", long=True)
    assert warm.done() == 1
    right(run)
    said(run, STARTED_AGAIN)


@pytest.mark.parametrize("what", ["behind=region", "noise"])
def test_a_worker_that_ends_behind_a_region_is_no_trouble(warm: Bench, what: str) -> None:
    run = warm.run(what, "optimizer", long=True)
    right(run)
    assert run.lines == []


@pytest.mark.parametrize("what", ["start", "request", "answer=region"])
def test_without_a_worker_hot_code_stays_as_it_is(warm: Bench, what: str) -> None:
    run = warm.run(what, "optimizer", count=1000, long=True)
    assert 1 < warm.done() < 20
    right(run)
    said(run, "stays in the baseline engine", "the compiler process ended")


# ---- LLVM ends the process


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("how", "words"), [("abort", "SIGABRT: LLVM ERROR: Cannot select"), ("exit", "exit status 1")])
def test_a_form_that_llvm_does_not_survive_is_interpreted(cold: Bench, engine: str, how: str, words: str) -> None:
    form = "LDR_pre_size0_opc1"
    run = cold.run(f"form={how}:{form}", engine)
    right(run)
    said(run, f"{form} is interpreted", words)
    (record,) = cold.build.glob("*.failed")
    noted = record.read_text()
    assert words in noted
    again = cold.run("nothing", engine)  # nothing would be in the way now, but it is not tried again
    right(again)
    assert again.lines == run.lines
    assert record.read_text() == noted


@pytest.mark.parametrize(("how", "words"), [("abort", "SIGABRT: LLVM ERROR: Cannot select"), ("exit", "exit status 1")])
def test_a_region_that_llvm_does_not_survive_stays_as_it_is(warm: Bench, how: str, words: str) -> None:
    run = warm.run(f"region={how}", "optimizer", count=2, long=True)
    assert warm.done() == 2
    right(run)
    said(run, "stays in the baseline engine", words)
    (record,) = warm.build.glob("*.regions.failed")
    assert len(record.read_text().splitlines()) == 1
    again = warm.run("nothing", "optimizer", long=True)
    right(again)
    assert again.lines == run.lines


def test_llvm_that_survives_no_region_is_not_asked_for_ever(warm: Bench) -> None:
    run = warm.run("region=abort", "optimizer", count=1000, long=True)
    right(run)
    said(run, "stays in the baseline engine")


# ---- the disk is full, the cache is gone


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("what", "words"), [("full", "No space left on device"), ("limit", "File too large"), ("cache=open", "others have")]
)
def test_what_cannot_be_written_is_kept_in_memory(cold: Bench, engine: str, what: str, words: str) -> None:
    before = {path.name: path.read_bytes() for path in cold.build.iterdir()}
    run = cold.run(what, engine, guest=FIRST[engine])
    right(run)
    said(run, words, "in memory only")
    assert {path.name: path.read_bytes() for path in cold.build.iterdir()} == before


@pytest.mark.parametrize("engine", ENGINES)
def test_a_first_run_on_a_full_disk(tmp_path: Path, engine: str) -> None:
    bench = Bench(tmp_path)
    run = bench.run("full", engine)
    right(run)
    said(run, "No space left on device", "in memory only")
    assert [path.name for path in bench.build.iterdir()] == ["lock"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_first_run_that_may_write_no_file(tmp_path: Path, engine: str) -> None:
    """`ulimit -f 0` is the worker's limit and the guest's, and one of memory files as well."""
    bench = Bench(tmp_path)
    run = bench.run("nothing", engine, prefix=("prlimit", "--fsize=0"))
    right(run)
    said(run, "File too large", "in memory only")


@pytest.mark.needs(USER)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_cache_that_becomes_read_only(cold: Bench, engine: str) -> None:
    run = cold.run("cache=read-only", engine, guest=FIRST[engine])
    right(run)
    said(run, "Permission denied", "in memory only")


@pytest.mark.parametrize("engine", NATIVE)
def test_a_cache_that_was_never_there(tmp_path: Path, engine: str) -> None:
    bench = Bench(tmp_path)
    bench.cache.write_bytes(b"a file")
    run = bench.run("nothing", engine)
    right(run)
    said(run, str(bench.cache), "not kept")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["cache=remove", "cache=remove-all"])
def test_a_cache_that_is_removed_is_made_again(cold: Bench, engine: str, what: str) -> None:
    run = cold.run(what, engine, guest=FIRST[engine])
    assert cold.done() == 1
    right(run)
    said(run, "it was removed", "made again")
    assert [path for path in cold.build.iterdir() if path.suffix in {".pack", ".handlers"}]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["cache=file", "cache=link"])
def test_a_cache_that_is_replaced_is_not_used(cold: Bench, engine: str, what: str) -> None:
    run = cold.run(what, engine, guest=FIRST[engine])
    assert cold.done() == 1
    right(run)
    said(run, "not a folder", "in memory only")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("harm", "when"), [("truncate", "before"), ("overwrite", "after")])
def test_what_happens_to_files_does_not_happen_to_the_guest(cold: Bench, engine: str, harm: str, when: str) -> None:
    run = cold.run(f"cache={harm}:{when}", engine)
    assert cold.done() == 1
    right(run)
    said(run, "building it again")


@pytest.mark.parametrize(
    ("engine", "name", "harm"),
    [
        ("baseline", "pack", "truncate"), ("optimizer", "pack", "garbage"), ("interpreter", "handlers", "truncate"),
        ("interpreter", "handlers", "garbage"), ("baseline", "tables", "garbage"), ("optimizer", "tables", "truncate"),
        ("interpreter", "image", "garbage"), ("baseline", "image", "truncate"), ("baseline", "failed", "garbage"),
        ("interpreter", "pack", "garbage"),
    ],
)  # fmt: skip
def test_damaged_files_are_built_again(
    tmp_path: Path, prepared: Callable[[str], Path], engine: str, harm: str, name: str
) -> None:
    bench = Bench(tmp_path)
    shutil.copytree(prepared(f"warm-{engine}"), bench.cache, symlinks=True)
    (bench.build / "aarch64.pack.failed").write_text("12345678 so it was\n")
    damaged = next(path for path in bench.build.iterdir() if path.name.endswith(name))
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2] if harm == "truncate" else os.urandom(len(data)))
    run = bench.run("nothing", engine)
    right(run)
    if name == "failed" or (engine, name) == ("interpreter", "pack"):  # the one is a hint, the other is not its own
        assert run.lines == []
    else:
        said(run, damaged.name, "building it again")


# ---- the worker hangs, and the user has enough


@pytest.mark.parametrize("engine", ENGINES)
def test_the_user_ends_a_run_whose_worker_is_silent(cold: Bench, engine: str) -> None:
    child = cold.start("request=stop", "run", "--engine", engine, GUEST.path, str(GUEST.short))
    wait_for(cold, child)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, errors) == (-signal.SIGINT, "")


def test_the_user_ends_a_run_whose_region_does_not_come(warm: Bench) -> None:
    child = warm.start("request=stop", "run", "--wait", "--engine", "optimizer", GUEST.path, str(GUEST.ordinary))
    wait_for(warm, child)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, errors) == (-signal.SIGINT, "")


def test_a_program_that_uses_the_library_is_interrupted_and_goes_on(cold: Bench) -> None:
    script = f"""
import sys
from tests.robustness import sabotage
sabotage.prepare("request=stop", {str(cold.notes)!r}, 1)
import dbt
cpu = dbt.open_cpu("aarch64")
cpu.memory.map(0x10000, 0x1000, "rwx")
cpu.memory.write(0x10000, bytes.fromhex("200080d2 00040091"))
try:
    cpu.run(0x10000, until=0x10008)
except KeyboardInterrupt:
    print("interrupted", flush=True)
cpu.run(0x10000, until=0x10008)
print(cpu.registers["x0"])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cold.cache)}
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe)
    wait_for(cold, child)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=TIMEOUT) == (b"interrupted\n2\n", b"")


@pytest.mark.parametrize("engine", NATIVE)
def test_a_guest_with_a_handler_gets_its_signal(cold: Bench, engine: str, busybox: Path) -> None:
    """While it waits for a worker that is silent; what its handler needs comes from another one."""
    start = "trap 'echo caught; exit 3' INT; echo ready"
    words = ("run", "--engine", engine, busybox, "sh", "-c")
    first = cold.start("nothing", *words, f"{start}; kill -INT $$")
    assert first.communicate(timeout=TIMEOUT) == ("ready\ncaught\n", "")
    child = cold.start("request=stop", *words, f"{start}; printf '%f' 1.5; echo late")
    wait_for(cold, child)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=TIMEOUT) == ("ready\n1.500000caught\n", "")  # a shell ends its command first
    assert child.returncode == 3


def wait_for(bench: Bench, child: subprocess.Popen[Any]) -> None:
    """Until it has happened; the worker stops itself at once then."""
    while child.poll() is None:
        for note in bench.notes.glob("done-*"):
            process = note.read_text()
            if process and Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return
