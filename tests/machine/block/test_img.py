"""`dragoman img` as a user meets it, on raw images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import Disk, create_image, open_image

from .img_images import MIB, Img, patchwork


def test_raw_to_raw_keeps_content_and_holes(img: Img) -> None:
    data = patchwork("a.raw", 9 * MIB + 7, 1)
    assert img("convert", "-f", "raw", "-O", "raw", "a.raw", "b.raw") == (0, "", "")
    assert Path("b.raw").read_bytes() == data
    assert os.stat("b.raw").st_blocks <= os.stat("a.raw").st_blocks
    assert sorted(os.listdir()) == ["a.raw", "b.raw"]


def test_formats_are_not_guessed_for_writing(img: Img) -> None:
    img("create", "-f", "raw", "a.raw", "1M")
    for words in (
        ["resize", "a.raw", "2M"],
        ["snapshot", "-c", "x", "a.raw"],
        ["repair", "a.raw"],
        ["bench", "-w", "a.raw"],
    ):
        status, _, errors = img(*words)
        assert status in {1, 2}
        assert "-f" in errors
    status, _, errors = img("info", "a.raw")
    assert status == 1
    assert "name the format" in errors


def test_a_convert_that_fails_leaves_the_old_target(img: Img) -> None:
    patchwork("a.raw", MIB, 2)
    Path("b.raw").write_bytes(b"precious")
    status, _, errors = img("convert", "-f", "raw", "-O", "raw", "-o", "preallocation=perhaps", "a.raw", "b.raw")
    assert status == 1
    assert "perhaps" in errors
    assert "as it was" in errors
    assert Path("b.raw").read_bytes() == b"precious"
    assert sorted(os.listdir()) == ["a.raw", "b.raw"]


def test_a_target_in_use_is_refused(img: Img) -> None:
    patchwork("a.raw", MIB, 2)
    create_image("b.raw", "raw", MIB)
    with Disk(open_image("b.raw", "raw", writable=True)):
        status, _, errors = img("convert", "-f", "raw", "-O", "raw", "a.raw", "b.raw")
        assert status == 1
        assert "somebody else" in errors
        assert img("info", "-f", "raw", "b.raw")[0] == 1
        assert img("info", "-U", "-f", "raw", "b.raw")[0] == 0


def test_into_an_existing_target_zeroes_are_written(img: Img) -> None:
    data = patchwork("a.raw", 3 * MIB, 3)
    Path("b.raw").write_bytes(b"\xff" * 4 * MIB)
    assert img("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", "b.raw")[0] == 0
    assert Path("b.raw").read_bytes() == data + bytes(MIB)
    Path("b.raw").write_bytes(b"\xff" * 2 * MIB)
    status, _, errors = img("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", "b.raw")
    assert status == 1
    assert "2097152" in errors


def test_a_device_that_was_there_is_not_taken_for_zeroes(img: Img) -> None:
    data = patchwork("a.raw", 3 * MIB, 3)
    Path("b.raw").write_bytes(b"\xff" * 3 * MIB)
    target = "driver=raw,file.driver=host-device,file.filename=b.raw"
    assert img("convert", "-f", "raw", "-O", "raw", "a.raw", target)[0] == 0
    assert Path("b.raw").read_bytes() == data


def test_options_name_images_too(img: Img) -> None:
    data = patchwork("a.raw", 2 * MIB, 4)
    window = "driver=raw,offset=64K,size=1M,file.driver=file,file.filename=a.raw"
    assert img("convert", "-O", "raw", window, "file:b.raw")[0] == 0
    assert Path("b.raw").read_bytes() == data[65536 : 65536 + MIB]
    tree = json.dumps({"driver": "raw", "file": {"driver": "file", "filename": "b.raw"}})
    status, text, _ = img("compare", window, tree)
    assert (status, text) == (0, "the images are the same\n")


def test_compare_tells_the_first_difference(img: Img) -> None:
    data = bytearray(patchwork("a.raw", 9 * MIB, 5))
    for at in (0, 4095, 5 * MIB + 1, 9 * MIB - 1):
        other = bytearray(data)
        other[at] ^= 1
        other[-1] ^= 1 if at < len(other) - 1 else 0
        Path("b.raw").write_bytes(other)
        status, text, _ = img("compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw", "--json")
        assert (status, json.loads(text)["offset"]) == (1, at)
    Path("b.raw").write_bytes(bytes(data) + bytes(12345))
    assert img("compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw")[0] == 0
    assert img("compare", "-s", "-f", "raw", "-F", "raw", "b.raw", "a.raw")[0] == 1
    Path("b.raw").write_bytes(bytes(data) + b"\0" * 100 + b"\1")
    status, text, _ = img("compare", "--json", "-f", "raw", "-F", "raw", "b.raw", "a.raw")
    assert (status, json.loads(text)["offset"]) == (1, len(data) + 100)
    assert img("compare", "-f", "raw", "-F", "raw", "a.raw", "nowhere.raw")[0] == 2


def test_dd_copies_blocks(img: Img) -> None:
    data = patchwork("a.raw", 3 * MIB + 100, 6)
    assert img("dd", "-f", "raw", "-O", "raw", "if=a.raw", "of=b.raw", "bs=1000", "skip=3", "count=1K")[0] == 0
    assert Path("b.raw").read_bytes() == data[3000 : 3000 + 1024 * 1000]
    assert img("dd", "-f", "raw", "-O", "raw", "if=a.raw", "of=c.raw", "bs=1M", "skip=2")[0] == 0
    assert Path("c.raw").read_bytes() == data[2 * MIB :]
    for words in (["if=a.raw"], ["if=a.raw", "of=b.raw", "bs=0"], ["if=a.raw", "of=b.raw", "conv=sync"]):
        assert img("dd", "-f", "raw", "-O", "raw", *words)[0] == 2


def test_resize_by_and_to(img: Img) -> None:
    img("create", "-f", "raw", "a.raw", "1M")
    for amount, expected in (("+1M", 2 * MIB), ("3M", 3 * MIB)):
        assert img("resize", "-f", "raw", "a.raw", amount)[0] == 0
        assert os.stat("a.raw").st_size == expected
    status, _, errors = img("resize", "-f", "raw", "a.raw", "-1M")
    assert status == 2
    assert "no such option" not in errors or os.stat("a.raw").st_size == 3 * MIB
    assert img("resize", "--shrink", "-f", "raw", "a.raw", "--", "-1M")[0] == 0
    assert os.stat("a.raw").st_size == 2 * MIB


def test_bench_counts(img: Img) -> None:
    img("create", "-f", "raw", "a.raw", "1M")
    for more in ([], ["-w", "--pattern", "7", "--flush-interval", "30"]):
        status, text, _ = img("bench", "-f", "raw", "-c", "300", "-d", "8", "-S", "5K", "--json", *more, "a.raw")
        assert status == 0
        assert json.loads(text)["count"] == 300
    assert b"\7" * 4096 in Path("a.raw").read_bytes()


def test_an_interrupted_convert_leaves_no_half_image(dragoman: Any, tmp_path: Path) -> None:
    assert dragoman("img", "--help").returncode == 0
    source, target = tmp_path / "a.raw", tmp_path / "b.raw"
    with open(source, "wb") as file:
        file.truncate(1 << 42)  # much longer than anybody waits: data here and there
        for n in range(1 << 12):
            os.pwrite(file.fileno(), b"x" * 4096, n << 30)
    for number in (signal.SIGINT, signal.SIGTERM):
        for old in (None, b"before"):
            target.unlink(missing_ok=True)
            if old is not None:
                target.write_bytes(old)
            program = Path(sys.executable).with_name("dragoman")
            words: list[str | Path] = [program, "img", "convert", "-m", "1", "-f", "raw", "-O", "raw", source, target]
            child = subprocess.Popen(words, stderr=subprocess.PIPE)
            while child.poll() is None and not list(tmp_path.glob(".b.raw.*")):
                time.sleep(0.001)
            child.send_signal(number)
            _, errors = child.communicate(timeout=60)
            if child.returncode == 0:  # it was faster
                continue
            assert child.returncode == 130, errors
            assert b"unfinished one is removed" in errors
            assert (target.read_bytes() if target.exists() else None) == old
            assert {p.name for p in tmp_path.iterdir()} <= {"a.raw", "b.raw"}


def test_create_with_a_backing_file_wants_its_format_and_looks_at_it(img: Img) -> None:
    img("create", "-f", "raw", "a.raw", "3M")
    assert img("create", "-f", "qcow2", "-b", "a.raw", "top.qcow2")[0] == 2
    assert img("create", "-f", "qcow2", "-b", "none.raw", "-F", "raw", "top.qcow2")[0] == 1
    assert not os.path.exists("top.qcow2")
    assert img("create", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "top.qcow2")[0] == 0
    assert json.loads(img("info", "--json", "top.qcow2")[1])["virtual-size"] == 3 * MIB
    os.mkdir("sub")
    assert img("create", "-f", "qcow2", "-b", "../a.raw", "-F", "raw", "sub/top.qcow2")[0] == 0
    assert img("map", "sub/top.qcow2")[0] == 1
    assert img("map", "--allow-backing", "sub/top.qcow2")[0] == 0


@pytest.mark.parametrize("how", [["--sync"], ["--sync", "--overwrite"], []])
def test_a_target_that_is_on_stable_storage_has_its_name_there(
    img: Img, how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert img("create", "-f", "raw", "a.raw", "1M")[0] == 0
    calls: list[str] = []
    fsync, fdatasync, replace = os.fsync, os.fdatasync, os.replace

    def noted(call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            calls.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
            call(fd)

        return sync

    def renamed(old: str, new: str) -> None:
        calls.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted(fsync))
    monkeypatch.setattr(os, "fdatasync", noted(fdatasync))
    monkeypatch.setattr(os, "replace", renamed)
    assert img("convert", "-f", "raw", "-O", "raw", *how, "a.raw", "b.raw")[0] == 0
    wanted = {"--sync": ["file", "name", "folder"], "--sync--overwrite": ["file", "folder"], "": ["name"]}
    assert [call for call, _ in groupby(calls)] == wanted["".join(how)]
