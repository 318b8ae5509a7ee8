"""qcow2's features one by one: sizes, widths, encryption, bitmaps, snapshots of old versions, crashes of two files."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import Disk, ImageUnsupported, create_image, open_image
from dbt.machine.block.formats.qcow2 import bitmaps
from dbt.machine.block.formats.qcow2.layout import EXT_CRYPTO, EXT_FEATURES, HeaderV3, SnapshotEntry

from .qcow2_cases import Trial, qemu_content, tool
from .test_crash import Sectors, workload

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")
MIB = 1 << 20
STATES = int(os.environ.get("DRAGOMAN_CRASH_STATES", "40"))


@pytest.mark.parametrize("bits", range(9, 22))
def test_all_sizes_of_clusters_and_widths_of_refcounts(tmp_path: Path, bits: int) -> None:
    width = 1 << (bits - 9) % 7
    trial = Trial(tmp_path, bits, {"cluster_size": 1 << bits, "refcount_bits": width})
    for _ in range(30):
        trial.step()
    trial.finish()


@pytest.mark.parametrize("bits", range(14, 22))
def test_all_sizes_of_subclusters(tmp_path: Path, bits: int) -> None:
    trial = Trial(tmp_path, bits, {"cluster_size": 1 << bits, "extended_l2": True})
    for _ in range(30):
        trial.step()
    trial.finish()


def test_encryption_is_refused_by_name(tmp_path: Path) -> None:
    path, secret = tmp_path / "a.qcow2", "secret,id=s,data=open sesame"
    option = "encrypt.format=aes,encrypt.key-secret=s"
    tool(tmp_path, "qemu-img", "create", "-q", "-f", "qcow2", "--object", secret, "-o", option, "a.qcow2", "1M")
    for kind in ("AES", "LUKS"):
        if kind == "LUKS":  # made by hand: to make one qemu measures the processor, which fails on busy machines
            data = bytearray(path.read_bytes())
            data[32:36] = struct.pack(">I", 2)
            data[112:136] = struct.pack(">IIQQ", EXT_CRYPTO, 16, 65536, 4096)
            path.write_bytes(data)
        for writable in (False, True):
            with pytest.raises(ImageUnsupported, match=f"encrypted with {kind}"):
                open_image(str(path), "qcow2", writable=writable)


def test_a_feature_of_the_future_is_refused_by_the_name_that_the_image_has(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", MIB)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack(">I", EXT_FEATURES)) + 8
    data[at : at + 48] = struct.pack(">BB46s", 0, 50, b"time travel")
    data[72:80] = struct.pack(">Q", 1 << 50)
    path.write_bytes(data)
    with pytest.raises(ImageUnsupported, match=r"'time travel' \(bit 50\)"):
        open_image(str(path), "qcow2")
    said = subprocess.run(["qemu-img", "info", path], capture_output=True, text=True, check=False).stderr
    assert "time travel" in said


def test_what_a_bitmap_holds_is_kept(tmp_path: Path) -> None:
    create_image(str(tmp_path / "a.qcow2"), "qcow2", 8 * MIB)
    tool(tmp_path, "qemu-img", "bitmap", "--add", "--enable", "a.qcow2", "b0")
    tool(tmp_path, "qemu-io", "-c", "write 0 1M", "-c", "write 5M 64k", "a.qcow2")
    tool(tmp_path, "qemu-img", "bitmap", "--disable", "a.qcow2", "b0")

    def held(node: Any) -> list[bytes]:
        return [bytes(node.file.pread(at, length)) for at, length in bitmaps.clusters(node)]

    with Disk(open_image(str(tmp_path / "a.qcow2"), "qcow2", writable=True)) as disk:
        node: Any = disk.node
        before = held(node)
        assert any(any(piece) for piece in before[2:])
        disk.write(2 * MIB, b"x" * MIB)
        disk.write_zeroes(0, 512 << 10)
        node.snapshot_create("s")
        disk.discard(5 * MIB, 64 << 10)
        node.change_backing("", "")
        assert node.check().clean
        assert held(node) == before
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    # qemu takes it as valid: it can go on recording.
    tool(tmp_path, "qemu-img", "bitmap", "--enable", "a.qcow2", "b0")
    found = json.loads(tool(tmp_path, "qemu-img", "info", "--output=json", "a.qcow2"))
    assert found["format-specific"]["data"]["bitmaps"] == [{"flags": ["auto"], "name": "b0", "granularity": 65536}]


def test_snapshots_of_old_versions_have_no_extra_data(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    tool(tmp_path, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "a.qcow2", "4M")
    tool(tmp_path, "qemu-io", "-c", "write -P 1 0 1M", "a.qcow2")
    for name in ("one", "two"):
        tool(tmp_path, "qemu-img", "snapshot", "-c", name, "a.qcow2")
    tool(tmp_path, "qemu-io", "-c", "write -P 2 0 2M", "a.qcow2")
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from(">Q", data, 64)
    at, table = start, b""
    for _ in range(2):
        entry = SnapshotEntry.parse(data[at : at + SnapshotEntry.SIZE], "")
        end = at + SnapshotEntry.SIZE + entry.extra_data_size + entry.id_str_size + entry.name_size
        names = bytes(data[end - entry.id_str_size - entry.name_size : end])
        entry.extra_data_size = 0
        table += (entry.pack() + names).ljust(len(entry.pack() + names) + 7 & -8, b"\0")
        at = end + 7 & -8
    data[start : start + 65536] = table.ljust(65536, b"\0")
    path.write_bytes(data)
    with Disk(open_image(str(path), "qcow2", writable=True)) as disk:
        node: Any = disk.node
        assert [s["name"] for s in node.snapshots()] == ["one", "two"]
        assert [s["virtual-size"] for s in node.snapshots()] == [4 * MIB] * 2
        assert node.check().clean
        node.snapshot_apply("one")
        assert bytes(disk.read(0, 2 * MIB)) == b"\1" * MIB + bytes(MIB)
        node.snapshot_delete("one")
        assert node.check().clean
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    assert qemu_content(tmp_path, "a.qcow2", "-l", "snapshot.name=two")[:MIB] == b"\1" * MIB


@pytest.mark.parametrize("raw", [False, True])
def test_crashes_of_an_image_with_an_external_data_file(tmp_path: Path, raw: bool) -> None:
    pick, size = random.Random(31), 192 << 10
    options = {"cluster_size": 4096, "data_file": "d.raw", "data_file_raw": raw}
    create_image(str(tmp_path / "a.qcow2"), "qcow2", size, options)
    below = {
        role: {"driver": "record", "file": {"driver": "file", "filename": str(tmp_path / name), "no-flush": True}}
        for role, name in (("file", "a.qcow2"), ("data-file", "d.raw"))
    }
    tree = {"driver": "qcow2", "file": below["file"], "data-file": {"driver": "raw", "file": below["data-file"]}}
    disk = Disk(open_image(tree, writable=True))
    node: Any = disk.node
    records = [node.file, node.data_file.file]
    sectors = Sectors(bytes(size))
    trace = [(records[0].clock(), [set(s) for s in sectors.may])]
    for _ in range(40):
        workload(disk, sectors, pick, 1)
        trace.append((records[0].clock(), [set(s) for s in sectors.may]))
    disk.close()
    end = records[0].clock()
    for k in range(STATES):
        moment = pick.randint(0, end)
        for record, name in zip(records, ("c.qcow2", "d.raw"), strict=True):
            (tmp_path / name).write_bytes(record.crash(record.entries_until(moment), pick))
        found: Any = open_image(str(tmp_path / "c.qcow2"), "qcow2")
        result = found.check()
        assert not result.corruptions, (k, moment, result.problems[:5])
        with Disk(found) as after:
            data = bytes(after.read(0, size))
        # During an operation (a flush among them) what was allowed before it is, too.
        last = max((i for i, (at, _) in enumerate(trace) if at <= moment), default=0)
        allowed = [a | b for a, b in zip(trace[last][1], trace[min(last + 1, len(trace) - 1)][1], strict=True)]
        for i, may in enumerate(allowed):
            assert data[i * 512 : (i + 1) * 512] in may, (k, moment, i)
        if k % 8 == 0:
            done = subprocess.run(["qemu-img", "check", "-q", "c.qcow2"], cwd=tmp_path, capture_output=True, check=False
            )  # fmt: skip
            assert done.returncode in {0, 3}, done.stderr


@pytest.mark.parametrize("options", [{"cluster_size": 512}, {"cluster_size": 512, "refcount_bits": 64}], ids=str)
def test_crashes_while_tables_grow_and_shrink(tmp_path: Path, options: dict[str, Any]) -> None:
    pick, path = random.Random(41), str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 128 << 10, options)
    file = {"driver": "file", "filename": path, "no-flush": True}
    disk = Disk(open_image({"driver": "qcow2", "file": {"driver": "record", "file": file}}, writable=True))
    record: Any = disk.node.children["file"]
    disk.write(0, first := pick.randbytes(128 << 10))
    disk.flush()
    flushed = len(record.log)
    for size in (8 * MIB, 400 << 10, 40 * MIB):
        disk.resize(size)
        for k in range(6):
            disk.write(pick.randrange(256 << 10, 380 << 10), bytes([k + 1]) * 20_000)
            if k % 3 == 2:
                disk.flush()
    disk.write(30 * MIB, b"z" * 3 * MIB)
    disk.close()
    for k in range(STATES):
        point = pick.randint(flushed, len(record.log))
        (tmp_path / "c.qcow2").write_bytes(record.crash(point, pick))
        node: Any = open_image(str(tmp_path / "c.qcow2"), "qcow2")
        result = node.check()
        assert not result.corruptions, (k, point, result.problems[:5])
        with Disk(node) as after:
            assert after.size in {128 << 10, 8 * MIB, 400 << 10, 40 * MIB}
            assert bytes(after.read(0, 128 << 10)) == first
        if k % 8 == 0:
            done = subprocess.run(["qemu-img", "check", "-q", "c.qcow2"], cwd=tmp_path, capture_output=True, check=False
            )  # fmt: skip
            assert done.returncode in {0, 3}, done.stderr
    header = HeaderV3.parse((tmp_path / "a.qcow2").read_bytes()[:512], "")
    assert (header.refcount_table_offset != 512) == ("refcount_bits" in options)  # wide ones need a larger table
