"""Commands that are stopped at any write: killed, interrupted, or on a disk that is full from there on.

A child of this process runs the command and is stopped at its nth change of a file; what it leaves is looked at here.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import Disk, create_image, host, open_image
from dbt.machine.block.tool.parser import main

pytestmark = pytest.mark.needs("qemu-img")
MIB = 1 << 20
POINTS = int(os.environ.get("DRAGOMAN_STOPS", "4"))  # of each command; more on demand
KILLED, INTERRUPTED, FULL = "kill", "interrupt", "full"


def child(words: list[str], at: int, how: str) -> tuple[int, int]:
    """Run a command in a child that is stopped at change `at`: (wait status, changes that it has begun)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _stopped_child(words, at, how, writer)
    os.close(writer)
    seen = 0
    while piece := os.read(reader, 4096):
        seen += len(piece)
    os.close(reader)
    return os.waitpid(pid, 0)[1], seen


def _stopped_child(words: list[str], at: int, how: str, writer: int) -> None:
    seen = 0

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any) -> Any:
            nonlocal seen
            seen += 1
            os.write(writer, b".")
            if how == KILLED and seen == at:
                if name == "pwritev":  # part of it is there
                    fd, vectors, offset = arguments
                    os.pwrite(fd, bytes(vectors[0][: len(vectors[0]) // 2 & -512]), offset)
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == INTERRUPTED and seen == at:
                os.kill(os.getpid(), signal.SIGINT)
            elif how == FULL and 0 < at <= seen and name != "ftruncate":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments)

        return changed

    status = 99
    try:
        for name in ("pwritev", "ftruncate", "replace"):
            setattr(os, name, watched(name, getattr(os, name)))
        host.fallocate = watched("fallocate", host.fallocate)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = main(words)
    finally:
        os._exit(status)


def points(words: list[str], prepare: Callable[[], None]) -> list[int]:
    """Changes at which to stop a command, from its first to its last."""
    prepare()
    status, count = child(words, 0, "")
    assert status == 0
    assert count > 2
    return sorted({1 + k * (count - 1) // (POINTS - 1) for k in range(POINTS)})


def content(name: str, driver: str) -> bytes:
    with Disk(open_image(name, driver)) as disk:
        return bytes(disk.read(0, disk.size))


def valid(name: str, driver: str = "qcow2") -> None:
    """Repaired, if it asks for that, when it is opened for writing; leaks at worst."""
    node: Any = open_image(name, driver, writable=True)
    found = node.check("leaks" if driver == "vdi" else "")  # its count of blocks, which qemu takes for a corruption
    node.close()
    assert not found.corruptions, found.problems[:5]
    if driver != "vpc":  # which qemu-img cannot check
        done = subprocess.run(["qemu-img", "check", "-f", driver, name], capture_output=True, text=True, check=False)
        assert done.returncode in {0, 3}, done.stdout + done.stderr


def patterned(name: str, options: dict[str, Any], seed: int, driver: str = "qcow2") -> None:
    create_image(name, driver, MIB, {**({"cluster_size": 4096} if driver in {"qcow2", "qed"} else {}), **options})
    with Disk(open_image(name, driver, writable=True)) as disk:
        for k in range(6):
            disk.write((seed * 7 + k * 37) % 250 * 4096 + 100, bytes([seed + k]) * 9000)
        disk.write_zeroes(seed * 40_000, 30_000)


def expect(status: int, how: str) -> bool:
    """Whether the command has come to its end; if not, that it ended as it was made to."""
    if status == 0:
        return True
    if how == KILLED:
        assert status == signal.SIGKILL
    else:
        assert os.waitstatus_to_exitcode(status) == (130 if how == INTERRUPTED else 1)
    return False


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL = pytest.mark.parametrize("how", [KILLED, INTERRUPTED, FULL])


@ALL
@pytest.mark.parametrize("made", ["qcow2", "qcow2 -c -o compression_type=zstd", "qed", "vhdx", "vdi", "vpc", "vmdk",
                                  "vmdk -o subformat=streamOptimized", "raw"])  # fmt: skip
def test_convert(folder: Path, made: str, how: str) -> None:
    driver, *more = made.split()
    data = b"".join(bytes([k]) * 40_000 for k in range(1, 40)).ljust(2 * MIB, b"\0")
    (folder / "s.raw").write_bytes(data)

    def prepare() -> None:
        (folder / "t").write_bytes(b"what was there before")

    words = ["convert", "-q", "-f", "raw", "-O", driver, *more, "s.raw", "t"]
    for at in points(words, prepare):
        prepare()
        status, _ = child(words, at, how)
        if expect(status, how):
            assert content("t", driver)[: len(data)] == data
        else:
            assert (folder / "t").read_bytes() == b"what was there before"
        left = {path.name for path in folder.iterdir()} - {"s.raw", "t"}
        assert not left or how == KILLED
        for name in left:
            (folder / name).unlink()


@pytest.mark.parametrize("how", [INTERRUPTED, FULL])
def test_convert_that_overwrites(folder: Path, how: str) -> None:
    (folder / "s.raw").write_bytes(b"x" * MIB)

    def prepare() -> None:
        (folder / "t").write_bytes(b"what was there before")

    words = ["convert", "-q", "--overwrite", "-f", "raw", "-O", "qcow2", "s.raw", "t"]
    for at in points(words, prepare):
        prepare()
        status, _ = child(words, at, how)
        if expect(status, how):
            assert content("t", "qcow2") == b"x" * MIB
        else:
            assert {path.name for path in folder.iterdir()} == {"s.raw"} or content(
                "t", "raw"
            ) == b"what was there before"
    prepare()
    for wrong in (["-o", "nonsense=1"], ["-o", "cluster_size=1000"]):
        assert main([*words[:-2], *wrong, "s.raw", "t"]) != 0
        assert (folder / "t").read_bytes() == b"what was there before"
    assert main([*words[:-2], "s.raw", "s.raw"]) != 0  # it is in use
    assert (folder / "s.raw").read_bytes() == b"x" * MIB


@ALL
@pytest.mark.parametrize("below", ["qcow2", "qed", "vhdx", "vdi", "vpc", "vmdk"])
def test_commit(how: str, below: str) -> None:
    def prepare() -> None:
        patterned("base", {"force_size": True} if below == "vpc" else {}, 1, below)
        patterned("top", {"backing_file": "base", "backing_fmt": below}, 4)

    prepare()
    before = content("top", "qcow2")
    words = ["commit", "-q", "-f", "qcow2", "top"]
    for at in points(words, prepare):
        prepare()
        done = expect(child(words, at, how)[0], how)
        assert content("top", "qcow2") == before
        valid("base", below)
        valid("top")
        if done:
            assert content("base", below) == before


@ALL
@pytest.mark.parametrize("new", ["other", ""])
def test_rebase(how: str, new: str) -> None:
    patterned("base", {}, 1)
    patterned("other", {}, 2)

    def prepare() -> None:
        patterned("top", {"backing_file": "base", "backing_fmt": "qcow2"}, 4)

    prepare()
    before = content("top", "qcow2")
    words = ["rebase", "-q", "-f", "qcow2", "-b", new, *(["-F", "qcow2"] if new else []), "top"]
    for at in points(words, prepare):
        prepare()
        done = expect(child(words, at, how)[0], how)
        assert content("top", "qcow2") == before
        valid("top")
        with Disk(open_image("top", "qcow2")) as disk:
            named = disk.node.info().get("backing-filename", "")
        assert named in ({new} if done else {"base", new})


@ALL
@pytest.mark.parametrize("size", ["40M", "300K"])
def test_resize(how: str, size: str) -> None:
    def prepare() -> None:
        patterned("a", {"cluster_size": 512}, 3)

    prepare()
    before = content("a", "qcow2")
    words = ["resize", "--shrink", "-f", "qcow2", "a", size]
    for at in points(words, prepare):
        prepare()
        expect(child(words, at, how)[0], how)
        now = content("a", "qcow2")
        kept = min(len(now), len(before), 300 << 10)
        assert now[:kept] == before[:kept]
        assert len(now) in {len(before), 40 * MIB, 300 << 10}
        valid("a")


@ALL
@pytest.mark.parametrize("action", [["-c", "two"], ["-a", "one"], ["-d", "one"]])
def test_snapshot(how: str, action: list[str]) -> None:
    kept = b""

    def prepare() -> None:
        nonlocal kept
        patterned("a", {}, 3)
        kept = content("a", "qcow2")
        with Disk(open_image("a", "qcow2", writable=True)) as disk:
            disk.node.snapshot_create("one")  # type: ignore[attr-defined]
            disk.write(0, b"later" * 20_000)

    prepare()
    now = content("a", "qcow2")
    words = ["snapshot", "-f", "qcow2", *action, "a"]
    for at in points(words, prepare):
        prepare()
        expect(child(words, at, how)[0], how)
        valid("a")
        assert content("a", "qcow2") in ({now, kept} if action[0] == "-a" else {now})
        with Disk(open_image("a", "qcow2", writable=True)) as disk:
            node: Any = disk.node
            names = [snapshot["name"] for snapshot in node.snapshots()]
            assert "one" in names or action[0] == "-d"
            if "one" in names:
                node.snapshot_apply("one")
                assert bytes(disk.read(0, MIB)) == kept
