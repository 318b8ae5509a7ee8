"""The disk is full, the cache is gone, damaged, replaced or read-only: guests run, and one line says why it is slow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING

import pytest

from tests.conftest import USER
from tests.robustness.bench import ENGINES, FIRST, NATIVE, TIMEOUT, Bench, right, said

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_a_guest_that_may_open_no_file_any_more(cold: Bench, tmp_path: Path) -> None:
    """It sets RLIMIT_NOFILE to 0, as sandboxes do, forks, waits for the child, and computes 6 * 7: that is new code.

    Then poll(2) has an error for every descriptor, nothing can be imported, and only the worker can read the cache.
    """
    path = tmp_path / "program"
    path.write_bytes(program(
        # prlimit64(0, RLIMIT_NOFILE, {0, 0}, 0), then to the end if that fails
        0xD2800000, 0xD28000E1, 0x100002C2, 0xD2800003, 0xD28020A8, 0xD4000001, 0xB5000200,
        # clone(SIGCHLD, 0, 0, 0, 0), the child to the end, wait4(child, 0, 0, 0)
        0xD2800220, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800004, 0xD2801B88, 0xD4000001, 0xB4000100,
        0xD2800001, 0xD2800002, 0xD2800003, 0xD2802088, 0xD4000001,
        # a jump that nobody can follow; exit(x0); the limits, behind which nobody looks; x0 = 6 * 7, to the end
        0x10000109, 0xD61F0120, 0xD2800BA8, 0xD4000001, 0, 0, 0, 0, 0xD28000C1, 0xD28000E2, 0x9B027C20, 0x17FFFFF7,
    ))  # fmt: skip
    path.chmod(0o755)
    child = cold.start("nothing", "run", path)
    _, errors = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 42, errors
    assert len(errors.splitlines()) == 1
    assert "Too many open files" in errors


def program(*words: int) -> bytes:
    """A static program of these instructions."""
    code = pack(f"<{len(words)}I", *words)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + pack("<HHIQQQIHHHHHH", 2, 183, 1, 0x10078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(head) + 56 + len(code)
    return head + pack("<IIQQQQQQ", 1, 5, 0, 0x10000, 0x10000, size, size, 0x1000) + code


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
