"""Caches as runs find them. That of random code is filled first: it meets every form, and would have them
compiled one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST as AARCH64

from dbt.engine.cache import open_store
from tests.conftest import ROOT
from tests.differential.variants import every_number
from tests.robustness.bench import GUEST, Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


@pytest.fixture(scope="session")
def stencils(cache_home: Path) -> Path:
    """The folder of this build in the cache, all of its stencils compiled."""
    assert cache_home.exists()
    store = open_store(quiet=True)
    store.prepare(AARCH64.name)
    store.compile(AARCH64.name, every_number(AARCH64.tables))
    return Path(store.folder)
