"""qcow2 against a model and against qemu-img and qemu-io, both ways; creation, snapshots, resizing, repair."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import (
    MAY_UNMAP,
    AccessRefused,
    BadOption,
    Disk,
    ImageCorrupt,
    ImageUnsupported,
    create_image,
    describe,
    open_image,
)  # fmt: skip
from dbt.machine.block.formats.qcow2 import Qcow2
from dbt.machine.block.formats.qcow2.layout import HeaderV3
from dbt.machine.block.options import check_options

from .qcow2_cases import BACKED, CASES, NAMES, Trial, make_backing, our_map, qemu_content, qemu_map, tool

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")
MIB = 1 << 20


@pytest.mark.parametrize("options", CASES, ids=NAMES)
def test_random_operations_leave_what_qemu_reads(tmp_path: Path, options: dict[str, Any]) -> None:
    trial = Trial(tmp_path, 1, options)
    for _ in range(60):
        trial.step()
    trial.finish()


@pytest.mark.parametrize("options", CASES, ids=NAMES)
def test_the_same_operations_by_qemu_and_by_us(tmp_path: Path, options: dict[str, Any]) -> None:
    pick, size = random.Random(7), 3 * MIB
    backing = make_backing(tmp_path) if "backing_file" in options else b""
    theirs = {**options, "data_file": "q.raw"} if "data_file" in options else options
    words = [f"{key}={'on' if value is True else value}" for key, value in theirs.items()]
    tool(tmp_path, "qemu-img", "create", "-q", "-f", "qcow2", *(["-o", ",".join(words)] if words else []), "q.qcow2",
         str(size))  # fmt: skip
    create_image(str(tmp_path / "a.qcow2"), "qcow2", size, options)
    commands: list[str] = []
    model = bytearray(backing.ljust(size, b"\0"))
    granule = options.get("cluster_size", 65536) // 32 if "extended_l2" in options else 512
    with Disk(open_image(str(tmp_path / "a.qcow2"), "qcow2", writable=True)) as disk:
        for k in range(60):
            offset = pick.randrange(size // 512) * 512
            length = min(pick.choice([512, 4096, 69632, 300032]), size - offset)
            kind = pick.random()
            if kind < 0.4:
                offset &= -65536
                length = min(65536 * pick.randint(1, 3), size - offset)
            elif kind < 0.6:
                offset &= -granule
                length = min(granule * pick.randint(1, 40), size - offset)
            if pick.random() < 0.6:
                commands.append(f"write -P {k + 1} {offset} {length}")
                disk.write(offset, bytes([k + 1]) * length)
                model[offset : offset + length] = bytes([k + 1]) * length
            else:
                unmap = pick.random() < 0.5
                commands.append(f"write -z{' -u' if unmap else ''} {offset} {length}")
                disk.write_zeroes(offset, length, MAY_UNMAP if unmap else 0)
                model[offset : offset + length] = bytes(length)
    done = tool(tmp_path, "qemu-io", "-f", "qcow2", *[w for c in commands for w in ("-c", c)], "q.qcow2")
    assert "failed" not in done
    with Disk(open_image(str(tmp_path / "q.qcow2"), "qcow2")) as disk:
        assert bytes(disk.read(0, size)) == model
        assert disk.node.check().clean  # type: ignore[attr-defined]
    assert qemu_content(tmp_path, "a.qcow2") == model
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    if not backing and not options.keys() & {"preallocation", "data_file_raw"}:  # qemu looks at files below as well
        for name in ("a.qcow2", "q.qcow2"):
            assert our_map(str(tmp_path / name)) == qemu_map(tmp_path, name)
    assert zero_runs(our_map(str(tmp_path / "a.qcow2"))) == zero_runs(our_map(str(tmp_path / "q.qcow2")))


def zero_runs(rows: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    runs: list[tuple[int, bool]] = []
    for row in rows:
        if not runs or runs[-1][1] != row["zero"]:
            runs.append((row["start"], row["zero"]))
    return runs


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed_images_both_ways(tmp_path: Path, kind: str) -> None:
    content = b"".join(bytes([k]) * 50_000 + random.Random(k).randbytes(30_000) for k in range(30))[: 2 * MIB]
    (tmp_path / "a.raw").write_bytes(content)
    tool(tmp_path, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={kind}", "a.raw",
         "q.qcow2")  # fmt: skip
    with Disk(open_image(str(tmp_path / "q.qcow2"), "qcow2")) as disk:
        assert bytes(disk.read(0, len(content))) == content
        assert bytes(disk.read(100_001, 10)) == content[100_001:100_011]
        result = disk.node.check()  # type: ignore[attr-defined]
        assert result.clean
        assert result.compressed_clusters > 10
        assert disk.status(0, 65536).compressed


@pytest.mark.parametrize("options", CASES, ids=NAMES)
def test_what_we_create_is_what_qemu_creates(tmp_path: Path, options: dict[str, Any]) -> None:
    if "backing_file" in options:
        make_backing(tmp_path)
    words = [f"{key}={'on' if value is True else value}" for key, value in options.items()]
    tool(
        tmp_path,
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        *(["-o", ",".join(words)] if words else []),
        "q.qcow2",
        "5M",
    )
    theirs = json.loads(tool(tmp_path, "qemu-img", "info", "--output=json", "q.qcow2"))
    for data_file in tmp_path.glob("d.raw"):
        data_file.unlink()
    create_image(str(tmp_path / "a.qcow2"), "qcow2", 5 * MIB, options)
    ours = json.loads(tool(tmp_path, "qemu-img", "info", "--output=json", "a.qcow2"))
    for found in (ours, theirs):
        for key in ("filename", "actual-size", "children", "full-backing-filename"):
            found.pop(key, None)
    assert ours == theirs
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    details = describe(node := open_image(str(tmp_path / "a.qcow2"), "qcow2"))
    node.close()
    assert details["virtual-size"] == 5 * MIB
    assert details["details"]["refcount-bits"] == options.get("refcount_bits", 16)


@pytest.mark.parametrize("options", [{}, {"cluster_size": 512}, {"extended_l2": True}, BACKED], ids=str)
def test_resize(tmp_path: Path, options: dict[str, Any]) -> None:
    content = make_backing(tmp_path, 3 * MIB) if options == BACKED else bytes(3 * MIB)
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 2 * MIB, options)
    with Disk(open_image(path, "qcow2", writable=True)) as disk:
        disk.write(2 * MIB - 100_000, b"x" * 100_000)
        disk.resize(20 * MIB)
        expected = content[: 2 * MIB - 100_000] + b"x" * 100_000
        assert bytes(disk.read(0, 20 * MIB)) == expected + bytes(18 * MIB)
        disk.write(19 * MIB, b"y" * MIB)
        disk.resize(2 * MIB - 50_001)
        disk.resize(4 * MIB)
        expected = expected[: 2 * MIB - 50_001].ljust(4 * MIB, b"\0")
        assert bytes(disk.read(0, 4 * MIB)) == expected
        assert disk.node.check().clean  # type: ignore[attr-defined]
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    assert qemu_content(tmp_path, "a.qcow2") == expected
    assert Path(path).stat().st_size < 4 * MIB + 400_000  # the end was given back


def test_a_refcount_table_that_grows(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 64 * MIB, {"cluster_size": 512, "refcount_bits": 64})
    with Disk(open_image(path, "qcow2", writable=True)) as disk:
        for at in range(0, 8 * MIB, MIB):
            disk.write(at, bytes([at >> 20]) * MIB)
        assert disk.node.header.refcount_table_offset != 512  # type: ignore[attr-defined]
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    assert qemu_content(tmp_path, "a.qcow2")[: 8 * MIB] == b"".join(bytes([k]) * MIB for k in range(8))


def test_small_caches_bound_memory_and_change_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 8 * MIB, {"cluster_size": 512})
    spec = f"driver=qcow2,l2-cache-size=4096,refcount-cache-size=2048,file.filename={path}"
    pick, model = random.Random(3), bytearray(8 * MIB)
    with Disk(open_image(spec, writable=True)) as disk:
        meta = disk.node.meta  # type: ignore[attr-defined]
        for _ in range(300):
            at = pick.randrange(8 * MIB - 5000)
            data = pick.randbytes(5000)
            disk.write(at, data)
            model[at : at + 5000] = data
            assert len(meta.l2) <= 8
            assert len(meta.refcounts.blocks) <= 8
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    assert qemu_content(tmp_path, "a.qcow2") == model


def test_backing_names_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    path = str(tmp_path / "in" / "a.qcow2")
    for name in ("../secret", str(tmp_path / "secret"), "link", "nbd://host/x", "rbd:pool/x", "gluster://h/v/x",
                 'json:{"driver":"file"}'):  # fmt: skip
        if name.startswith("nbd"):
            name = "memory:x"  # noqa: PLW2901 - a protocol that is there
        create_image(path, "qcow2", MIB, {"backing_file": name, "backing_fmt": "raw"})
        with pytest.raises(AccessRefused, match=r"a\.qcow2: its backing file is .*(outside|no file beside)"):
            open_image(path, "qcow2")
    create_image(path, "qcow2", MIB, {"backing_file": "../secret", "backing_fmt": "raw"})
    with Disk(open_image(path, "qcow2", allow_backing=True)) as disk:
        assert bytes(disk.read(0, 6)) == b"secret"
    with Disk(open_image(f"driver=qcow2,file.filename={path},backing=")) as disk:
        assert bytes(disk.read(0, 6)) == bytes(6)


def test_loops_of_backing_files(tmp_path: Path) -> None:
    for name, below in (("a", "b"), ("b", "c"), ("c", "a")):
        create_image(str(tmp_path / name), "qcow2", MIB, {"backing_file": below, "backing_fmt": "qcow2"})
    with pytest.raises(ImageCorrupt, match="comes back"):
        open_image(str(tmp_path / "a"), "qcow2")
    for k in range(110):
        create_image(str(tmp_path / f"x{k}"), "qcow2", MIB, {"backing_file": f"x{k + 1}", "backing_fmt": "qcow2"})
    with pytest.raises(ImageCorrupt, match="longer than"):
        open_image(str(tmp_path / "x0"), "qcow2")


def patched(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_features_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", MIB)
    patched(path, 32, struct.pack(">I", 2))
    with pytest.raises(ImageUnsupported, match="LUKS"):
        open_image(str(path), "qcow2")
    patched(path, 32, bytes(4))
    patched(path, 72, struct.pack(">Q", 1 << 40))
    with pytest.raises(ImageUnsupported, match=r"at offset 0x48: .*bit 40"):
        open_image(str(path), "qcow2")
    patched(path, 72, struct.pack(">Q", 2))
    with pytest.raises(ImageCorrupt, match="marked corrupt"):
        open_image(str(path), "qcow2", writable=True)
    open_image(str(path), "qcow2").close()


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("cluster_bits", 8, "below 9"), ("cluster_bits", 40, "above 21"), ("l1_size", 1 << 30, "above"),
     ("l1_size", 0, "1 are needed"), ("size", 1 << 63, "above"), ("l1_table_offset", 0x10001, "not aligned"),
     ("l1_table_offset", 0, "overlap"), ("refcount_table_offset", 0, "overlap"), ("refcount_order", 7, "above 6"),
     ("refcount_table_clusters", 0, "has 0 clusters"), ("nb_snapshots", 1 << 20, "above"),
     ("backing_file_size", 5000, "above"), ("header_length", 1, "below 104"), ("version", 4, "2 or 3")],
)  # fmt: skip
def test_headers_that_cannot_be(tmp_path: Path, field: str, value: int, why: str) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", MIB)
    header = HeaderV3.parse(path.read_bytes()[:4096], "")
    setattr(header, field, value)
    patched(path, 0, header.pack())
    with pytest.raises(ImageCorrupt, match=why) as caught:
        open_image(str(path), "qcow2")
    assert caught.value.offset is not None


def test_bitmaps_are_kept_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", 4 * MIB)
    tool(tmp_path, "qemu-io", "-c", "write 0 1M", "a.qcow2")
    tool(tmp_path, "qemu-img", "bitmap", "--add", "a.qcow2", "b0")
    with pytest.raises(ImageUnsupported, match="bitmap 'b0' records writes"):
        open_image(str(path), "qcow2", writable=True)
    tool(tmp_path, "qemu-img", "bitmap", "--disable", "a.qcow2", "b0")
    with Disk(open_image(str(path), "qcow2", writable=True)) as disk:
        disk.write(2 * MIB, b"x" * MIB)
        assert disk.node.check().clean  # type: ignore[attr-defined]
        assert disk.node.info()["bitmaps"][0]["name"] == "b0"
        with pytest.raises(ImageUnsupported, match="bitmaps"):
            disk.resize(8 * MIB)
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    found = json.loads(tool(tmp_path, "qemu-img", "info", "--output=json", "a.qcow2"))
    assert found["format-specific"]["data"]["bitmaps"][0]["name"] == "b0"


def test_qemus_snapshots_are_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 4 * MIB)
    tool(tmp_path, "qemu-io", "-c", "write -P 1 0 1M", "a.qcow2")
    tool(tmp_path, "qemu-img", "snapshot", "-c", "one", "a.qcow2")
    tool(tmp_path, "qemu-io", "-c", "write -P 2 512k 1M", "a.qcow2")
    with Disk(open_image(path, "qcow2", writable=True)) as disk:
        node: Any = disk.node
        assert [s["name"] for s in node.snapshots()] == ["one"]
        node.snapshot_create("two")
        node.snapshot_apply("one")
        assert bytes(disk.read(0, 2 * MIB)) == b"\1" * MIB + bytes(MIB)
        node.snapshot_apply("2")  # by id
        assert bytes(disk.read(512 << 10, MIB)) == b"\2" * MIB
        with pytest.raises(BadOption, match="no snapshot 'three'"):
            node.snapshot_delete("three")
        with pytest.raises(ImageUnsupported, match="snapshots cannot be shrunk"):
            disk.resize(MIB)
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    tool(tmp_path, "qemu-img", "snapshot", "-d", "two", "a.qcow2")
    tool(tmp_path, "qemu-img", "check", "a.qcow2")


@pytest.mark.parametrize("bits", [1, 2])
def test_more_references_than_refcounts_can_say(tmp_path: Path, bits: int) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", MIB, {"cluster_size": 1024, "refcount_bits": bits})
    with Disk(open_image(path, "qcow2", writable=True)) as disk:
        node: Any = disk.node
        disk.write(0, b"x" * 200_000)
        for k in range((1 << bits) - 2):
            node.snapshot_create(str(k))
        with pytest.raises(ImageUnsupported, match=f"refcounts of {bits} bits cannot say that"):
            node.snapshot_create("one more")
        assert node.check().clean
        assert not node.info()["dirty"]
        disk.write(100, b"y")
        assert bytes(disk.read(0, 102)) == b"x" * 100 + b"yx"
    tool(tmp_path, "qemu-img", "check", "a.qcow2")


@pytest.mark.parametrize("damage", ["leak", "low", "copied", "block", "table"])
def test_repair(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", 4 * MIB)
    tool(tmp_path, "qemu-io", "-c", "write -P 1 0 1M", "a.qcow2")
    header = HeaderV3.parse(path.read_bytes()[:4096], "")
    data = path.read_bytes()
    (block,) = struct.unpack_from(">Q", data, header.refcount_table_offset)
    (l1,) = struct.unpack_from(">Q", data, header.l1_table_offset)
    l2 = l1 & ~(1 << 63)
    if damage == "leak":
        patched(path, block + 2 * 100, b"\0\1")
    elif damage == "low":
        patched(path, block + 2 * 6, b"\0\0")
    elif damage == "copied":
        patched(path, l2 + 8, (struct.unpack_from(">Q", data, l2 + 8)[0] & ~(1 << 63)).to_bytes(8, "big"))
    elif damage == "block":
        patched(path, header.refcount_table_offset, (block + 512).to_bytes(8, "big"))
    else:
        patched(path, header.refcount_table_offset, header.l1_table_offset.to_bytes(8, "big"))
    node: Any = open_image(str(path), "qcow2", writable=True, repair=True)
    found = node.check()
    assert not found.clean
    assert (found.leaks > 0, found.corruptions > 0) == ((True, False) if damage == "leak" else (found.leaks > 0, True))
    repaired = node.check("leaks" if damage == "leak" else "all")
    assert repaired.clean, repaired.problems
    assert node.check().clean
    node.close()
    tool(tmp_path, "qemu-img", "check", "a.qcow2")
    assert qemu_content(tmp_path, "a.qcow2")[:MIB] == b"\1" * MIB


@pytest.mark.parametrize("options", [{}, {"cluster_size": 4096}, {"extended_l2": True}, {"refcount_bits": 64}], ids=str)
def test_measure_says_what_qemu_says(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.raw"
    with path.open("wb") as file:
        for at in (0, 3 * MIB, 700 * MIB):
            file.seek(at)
            file.write(b"x" * 100_000)
        file.truncate(1 << 30)
    words = [f"{key}={'on' if value is True else value}" for key, value in options.items()]
    chosen = ["-o", ",".join(words)] if words else []
    measure = ["qemu-img", "measure", "--output=json", "-f", "raw", "-O", "qcow2"]
    theirs = json.loads(tool(tmp_path, *measure, *chosen, "a.raw"))
    with Disk(open_image(str(path), "raw")) as disk:
        data, at = [], 0
        while at < disk.size:
            extent = disk.status(at, disk.size - at)
            if extent.data:
                data.append((at, extent.length))
            at += extent.length
    checked = check_options(Qcow2.CREATE_OPTIONS, options, "qcow2")
    ours = Qcow2.measure(1 << 30, checked, data)
    assert (ours.required, ours.fully_allocated) == (theirs["required"], theirs["fully-allocated"])


def test_two_entries_for_one_table_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", 1 << 30)
    tool(tmp_path, "qemu-io", "-c", "write 0 64k", "a.qcow2")
    header = HeaderV3.parse(path.read_bytes()[:4096], "")
    patched(path, header.l1_table_offset + 8, path.read_bytes()[header.l1_table_offset :][:8])
    node: Any = open_image(str(path), "qcow2")
    assert "L1 entry 1 has the L2 table of another" in [text for _, text in node.check().problems]
    node.close()


def test_metadata_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", 4 * MIB)
    header = HeaderV3.parse(path.read_bytes()[:4096], "")
    (block,) = struct.unpack_from(">Q", path.read_bytes(), header.refcount_table_offset)
    patched(path, block, bytes(65536))  # everything is said to be free
    disk = Disk(open_image(str(path), "qcow2", writable=True))
    with pytest.raises(ImageCorrupt, match="would be overwritten"):
        disk.write(0, b"x")
    disk.close()
    assert open_image(str(path), "qcow2").info()["corrupt"]
