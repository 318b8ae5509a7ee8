"""The cache: only trusted where nobody else can write; damaged files are named."""

from __future__ import annotations

import os
import shutil
import struct
from mmap import MAP_ANONYMOUS, MAP_PRIVATE
from pathlib import Path

import pytest

from dbt.engine import cache
from dbt.engine.cache import Store, build_name, cache_root, check_private, make_private, open_store
from dbt.engine.cpu import Cpu
from dbt.engine.formats import TABLES_MAGIC, TablesHead
from dbt.engine.layout import EXIT_SYSCALL
from dbt.engine.runtime import load_checked
from dbt.errors import CacheUnusable


def test_where_it_is(tmp_path: Path) -> None:
    assert cache_root({"XDG_CACHE_HOME": str(tmp_path)}) == f"{tmp_path}/dragoman"
    assert cache_root({"HOME": "/home/someone", "XDG_CACHE_HOME": "relative"}) == "/home/someone/.cache/dragoman"
    with pytest.raises(CacheUnusable, match="HOME is not set"):
        cache_root({})


def test_a_folder_that_others_may_use_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    make_private(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(CacheUnusable, match="others have rights"):
        check_private(str(folder))


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CacheUnusable, match="not a folder"):
        make_private(str(tmp_path / "link"))


def test_an_unusable_cache_is_said_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dragoman").mkdir(mode=0o777)
    (tmp_path / "dragoman").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_said", set())
    monkeypatch.setattr(cache, "_kept", {})
    for _ in range(2):
        assert open_store().folder == ""
    said = capsys.readouterr().err
    assert "others have rights" in said
    assert said.count("\n") == 1


def test_builds_have_names_of_their_own() -> None:
    assert build_name("a") != build_name("b")
    assert len(build_name("x" * 10000)) == 16


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_tables_are_built_again(tmp_path: Path, damage: str) -> None:
    from dbt.engine import runtime

    tmp_path.chmod(0o700)
    store = Store(str(tmp_path), quiet=True)
    store.prepare("aarch64")
    path = Path(store.path("aarch64.tables"))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "truncate":
        del data[-100:]
    else:
        data.clear()
    path.write_bytes(data)
    held = runtime._loaded.pop("tables:aarch64", None)
    try:
        head, _ = runtime.load_tables(store, "aarch64")
        assert head.n_forms > 1000
        assert path.read_bytes() != data
    finally:
        if held is not None:
            runtime._loaded["tables:aarch64"] = held


def test_files_are_for_the_user_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    old = os.umask(0)
    try:
        store = Store(str(tmp_path), quiet=True)
        store.prepare("aarch64")
    finally:
        os.umask(old)
    assert all(not entry.stat().st_mode & 0o022 for entry in Path(store.folder).iterdir())


@pytest.mark.parametrize("engine", ["baseline", "interpreter"])
def test_constants_of_translated_code_outlive_the_cache(tmp_path: Path, engine: str) -> None:
    """A pack that is begun anew has others where those of the old one were."""
    tmp_path.chmod(0o700)
    store = Store(str(tmp_path), quiet=True)
    cpu = Cpu("aarch64", engine, store)
    try:
        words = (0x4E205821, 0x6E605842, 0x4E204863, 0x6E204884)  # cnt v1; rbit v2; cls v3; clz v4: all 16b
        seen: dict[int, int] = {}

        def run(at: int) -> int:
            """In a page of its own, which is mapped when it runs first: what else is there is compiled as well."""
            if at not in seen:
                cpu.memory.map(0x10000 * (at + 1), 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS)
                cpu.memory.write(0x10000 * (at + 1), struct.pack("<2I", words[at], 0xD4000001))
            for number in range(1, 5):
                cpu.set_reg(f"v{number}", 0x0123456789ABCDEF_7F80_0055AAFF1337)
            cpu.set_reg("pc", 0x10000 * (at + 1))
            assert cpu.run() == EXIT_SYSCALL
            return seen.setdefault(at, cpu.reg(f"v{at + 1}"))

        run(0), run(1)
        shutil.rmtree(store.folder)
        run(3)
        assert Path(store.folder).is_dir()
        for at in (0, 1, 2, 0, 1, 3):
            assert run(at) == seen[at]
            assert cpu.reg(f"v{at + 1}") == seen[at]
    finally:
        cpu.close()


def test_what_only_the_worker_can_open_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that has another user or root than at the start cannot open what the worker makes."""
    store = Store(str(tmp_path / "cache"), quiet=True)

    def refuse(name: str) -> int:
        if name in store.kept:
            return Store.open(store, name)
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(store, "open", refuse)
    store.build([("tables", "aarch64")])
    path = Path(store.path("aarch64.tables"))
    made = path.stat()
    address = load_checked(store, "aarch64.tables", ("tables", "aarch64"), TablesHead, TABLES_MAGIC)
    assert TablesHead.at(address).magic == TABLES_MAGIC
    assert path.stat() == made, "it was made a second time"
