"""`dragoman img` on formats, with qemu-img as the other opinion."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import Disk, open_image

from .img_images import MIB, Img, content, patchwork, qemu_img


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(
    "more", [[], ["-c"], ["-c", "-o", "compression_type=zstd"], ["-o", "extended_l2=on,cluster_size=32K"]]
)
def test_convert_to_qcow2_and_back(img: Img, more: list[str]) -> None:
    data = patchwork("a.raw", 9 * MIB + 512, 7)
    assert img("convert", "-f", "raw", "-O", "qcow2", *more, "a.raw", "b.qcow2") == (0, "", "")
    qemu_img("compare", "-f", "raw", "-F", "qcow2", "a.raw", "b.qcow2")
    qemu_img("check", "b.qcow2")
    assert img("convert", "-O", "raw", "--sync", "b.qcow2", "c.raw")[0] == 0
    assert Path("c.raw").read_bytes() == data
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *more, "a.raw", "theirs.qcow2")
    assert os.stat("b.qcow2").st_size <= os.stat("theirs.qcow2").st_size * 1.1
    assert img("compare", "theirs.qcow2", "b.qcow2")[0] == 0


@pytest.mark.needs("qemu-img")
def test_map_is_as_qemu_has_it(img: Img) -> None:
    patchwork("a.raw", 8 * MIB, 8)
    img("convert", "-f", "raw", "-O", "qcow2", "a.raw", "base.qcow2")
    img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "12M")
    with Disk(open_image("top.qcow2", "qcow2", writable=True)) as disk:
        disk.write(MIB + 5, b"x" * 100_000)
        disk.write_zeroes(5 * MIB, 3 * MIB)
    ours, theirs = (
        json.loads(text)
        for text in (img("map", "--json", "top.qcow2")[1], qemu_img("map", "--output=json", "top.qcow2"))
    )

    def flat(rows: list[dict[str, Any]], name: str) -> list[object]:
        return [row[name] for row in rows for _ in range(row["start"], row["start"] + row["length"], 65536)]

    for name in ("data", "zero"):
        assert flat(ours, name) == flat(theirs, name)
    depths = zip(flat(ours, "depth"), flat(theirs, "depth"), flat(ours, "data"), strict=True)
    assert all(a == b for a, b, data in depths if data)
    status, text, _ = img("map", "top.qcow2", "--start", "1M", "--length", "64K")
    assert status == 0
    assert "0x100000" in text


@pytest.mark.needs("qemu-img")
def test_info_and_measure_are_as_qemu_has_them(img: Img) -> None:
    patchwork("a.raw", 8 * MIB, 9)
    for words in (["-f", "raw", "a.raw"], ["--size", "1T"]):
        ours = json.loads(img("measure", "-O", "qcow2", "--json", *words)[1])
        theirs = json.loads(qemu_img("measure", "-O", "qcow2", "--output=json", *words))
        assert ours["fully-allocated"] == theirs["fully-allocated"]
        if "a.raw" in words:
            assert ours["required"] == theirs["required"]
    qemu_img("create", "-f", "qcow2", "big.qcow2", "64T")
    found = json.loads(img("info", "--json", "--verbose", "big.qcow2")[1])
    assert found["virtual-size"] == 64 << 40
    assert found["structures"][0]["fields"]["cluster_bits"] == 16
    assert found["details"]["compat"] == "1.1"


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("seed", range(4))
def test_rebase_and_commit_keep_what_is_read(img: Img, seed: int) -> None:
    rng = random.Random(seed)
    patchwork("a.raw", 6 * MIB, seed)
    patchwork("b.raw", 5 * MIB if seed % 2 else 7 * MIB, seed + 100)
    for name in "ab":
        img("convert", "-f", "raw", "-O", "qcow2", f"{name}.raw", f"{name}.qcow2")
    cluster = ("4K", "64K", "1M", "2M")[seed]
    img("create", "-f", "qcow2", "-o", f"cluster_size={cluster}", "-b", "a.qcow2", "-F", "qcow2", "top.qcow2")
    with Disk(open_image("top.qcow2", "qcow2", writable=True)) as disk:
        for _ in range(10):
            at = rng.randrange(6 * MIB - 100_000)
            (disk.write if rng.random() < 0.6 else lambda a, d: disk.write_zeroes(a, len(d)))(
                at, rng.randbytes(100_000)
            )
    before = content("top.qcow2")
    assert img("rebase", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "top.qcow2") == (0, "", "")
    assert content("top.qcow2") == before
    assert json.loads(qemu_img("info", "--output=json", "top.qcow2"))["backing-filename"] == "b.qcow2"
    qemu_img("check", "top.qcow2")
    assert img("commit", "-f", "qcow2", "top.qcow2") == (0, "", "")
    assert content("b.qcow2")[: len(before)] == before
    assert content("top.qcow2") == before
    qemu_img("check", "b.qcow2")
    qemu_img("check", "top.qcow2")
    assert img("rebase", "-f", "qcow2", "-b", "", "top.qcow2")[0] == 0
    os.unlink("b.qcow2")
    assert content("top.qcow2") == before


@pytest.mark.needs("qemu-img")
def test_a_target_that_shares_the_backing_file_stores_its_own_only(img: Img) -> None:
    patchwork("a.raw", 6 * MIB, 11)
    img("convert", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2")
    img("create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "top.qcow2")
    with Disk(open_image("top.qcow2", "qcow2", writable=True)) as disk:
        disk.write(MIB, b"y" * 65536)
        disk.write_zeroes(2 * MIB, MIB)
    assert img("convert", "-B", "a.qcow2", "-F", "qcow2", "-O", "qcow2", "top.qcow2", "copy.qcow2") == (0, "", "")
    assert content("copy.qcow2") == content("top.qcow2")
    assert os.stat("copy.qcow2").st_size < 2 * MIB
    qemu_img("compare", "top.qcow2", "copy.qcow2")


@pytest.mark.needs("qemu-img")
def test_check_and_repair(img: Img) -> None:
    assert img("create", "-f", "qcow2", "a.qcow2", "10M")[0] == 0
    assert img("check", "a.qcow2")[0] == 0
    assert img("check", "-f", "raw", "a.qcow2")[0] == 63
    header = Path("a.qcow2").read_bytes()
    table = int.from_bytes(header[48:56], "big")
    block = int.from_bytes(header[table : table + 8], "big")
    with open("a.qcow2", "r+b") as file:
        file.seek(block + 2 * 30)
        file.write(b"\0\1")  # cluster 30 has a reference that nobody holds
        file.truncate(40 * 65536)
    status, text, _ = img("check", "--json", "a.qcow2")
    assert (status, json.loads(text)["leaks"]) == (3, 1)
    assert img("repair", "a.qcow2")[0] == 2
    assert img("repair", "-f", "qcow2", "a.qcow2")[0] == 0
    assert img("check", "a.qcow2")[0] == 0
    qemu_img("check", "a.qcow2")


@pytest.mark.needs("qemu-img")
def test_snapshots(img: Img) -> None:
    img("create", "-f", "qcow2", "a.qcow2", "1M")
    assert img("snapshot", "-f", "qcow2", "-c", "empty", "a.qcow2")[0] == 0
    with Disk(open_image("a.qcow2", "qcow2", writable=True)) as disk:
        disk.write(0, b"data")
    (only,) = json.loads(img("snapshot", "--json", "a.qcow2")[1])
    assert only["name"] == "empty"
    assert "empty" in qemu_img("snapshot", "-l", "a.qcow2")
    assert img("snapshot", "-f", "qcow2", "-a", "empty", "a.qcow2")[0] == 0
    assert not any(content("a.qcow2"))
    assert img("snapshot", "-f", "qcow2", "-d", "empty", "a.qcow2")[0] == 0
    assert json.loads(img("snapshot", "--json", "a.qcow2")[1]) == []
    assert img("snapshot", "-f", "qcow2", "-a", "gone", "a.qcow2")[0] == 1
