"""The disk is full, the cache is gone, damaged, replaced or read-only: guests run, and one line says why it is slow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import USER
from tests.robustness.bench import ENGINES, FIRST, NATIVE, Bench, right, said

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
