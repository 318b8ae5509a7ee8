"""`dragoman img` as a user meets it, with qemu-img as the other opinion."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import Disk, create_image, open_image
from dbt.machine.block.tool.copying import Crew, cut_up, gaps, runs
from dbt.machine.block.tool.images import people, size
from dbt.machine.block.tool.parser import build, main
from dbt.machine.block.tool.progress import Progress

MIB = 1 << 20
Img = Callable[..., tuple[int, str, str]]


@pytest.fixture
def img(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Img:
    """Runs a command in an empty folder: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def qemu_img(*words: str) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def patchwork(path: str, length: int, seed: int) -> bytes:
    """A raw image with data, holes, written zeroes and an end that is no multiple of anything."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(length)
        for _ in range(40):
            at = rng.randrange(length)
            file.seek(at)
            count = min(rng.choice((1, 512, 4096, 70_000, 300_000)), length - at)
            file.write(rng.randbytes(count) if rng.random() < 0.7 else bytes(count))
    return Path(path).read_bytes()


def content(path: str, driver: str | None = None) -> bytes:
    with Disk(open_image(path, driver)) as disk:
        return bytes(disk.read(0, disk.size))


# Small parts.


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("4096", 4096), ("64K", 65536), ("64KiB", 65536), ("1.5G", 3 << 29), ("2TB", 2 << 40), ("7b", 7)],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "x", "-1", "1X", "1KK", "1 G", "0x10", "8E", "1.2.3", "K", "iB", "BiB"])
def test_sizes_that_are_none(text: str, img: Img) -> None:
    status, _, errors = img("create", "-f", "raw", "a.raw", f" {text}" if text.startswith("-") else text)
    assert status == 2
    assert "is no size" in errors
    assert not os.path.exists("a.raw")


def test_people() -> None:
    assert [people(n) for n in (0, 999, 1023, 1536, 64 << 40)] == [
        "0 bytes",
        "999 bytes",
        "1023 bytes",
        "1.5 KiB",
        "64 TiB",
    ]


@pytest.mark.parametrize("granule", [512, 4096, 65536])
def test_runs_find_zeroes_as_a_plain_loop_does(granule: int) -> None:
    rng = random.Random(granule)
    for length in (granule, 5 * granule, 5 * granule + 8, 5 * granule - 3, 1):
        for _ in range(20):
            buffer = bytearray(length)
            for _ in range(rng.randrange(4)):
                buffer[rng.randrange(length)] = rng.choice((0, 1, 255))
            expected = [any(buffer[at : at + granule]) for at in range(0, length, granule)]
            for kind in (buffer, memoryview(bytes(buffer))):
                found = list(runs(kind, length, granule))
                assert [found[0][0], found[-1][1]] == [0, length]
                assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(found))
                flat = [data for start, end, data in found for _ in range(start, end, granule)]
                assert flat == expected


def test_ranges_are_cut_at_multiples_and_have_gaps() -> None:
    assert list(cut_up([(3, 5), (6, 17)], 4)) == [(3, 4), (4, 5), (6, 8), (8, 12), (12, 16), (16, 17)]
    assert list(gaps([(3, 5), (6, 17)], 0, 20)) == [(0, 3), (5, 6), (17, 20)]
    assert list(gaps([(0, 20)], 0, 20)) == []


def test_an_error_in_one_thread_ends_all() -> None:
    seen = []

    def work(part: tuple[int, int], _: object) -> None:
        seen.append(part)
        if part[0] == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        Crew(((n, n + 1) for n in range(10**9)), work, chunk=1, threads=3).run(Progress(0, ""))
    assert len(seen) < 10**6


def test_every_command_has_help(img: Img) -> None:
    status, text, _ = img("--help")
    assert status == 0
    (actions,) = (a for a in build()._actions if a.dest == "command")
    assert actions.choices is not None
    names = [
        "create",
        "info",
        "check",
        "repair",
        "convert",
        "resize",
        "snapshot",
        "commit",
        "rebase",
        "map",
        "compare",
        "measure",
        "dd",
        "bench",
    ]
    assert set(names) <= set(actions.choices)
    for name in actions.choices:
        assert f"    {name} " in text
        status, own, _ = img(name, "--help")
        assert status == 0
        assert f"dragoman img {name}" in own


# Raw and files.


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


# Formats, against qemu-img.


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
