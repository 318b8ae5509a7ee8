"""What the qcow2 tests share: option sets, a random driver with a model, and qemu's tools."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbt.machine.block import COMPRESSED, MAY_UNMAP, WRITE, Disk, ImageUnsupported, Request, create_image, open_image

BACKING = "below.raw"
BACKED = {"backing_file": BACKING, "backing_fmt": "raw"}
CASES: list[dict[str, Any]] = [
    {}, {"cluster_size": 512}, {"cluster_size": 4096, "refcount_bits": 64}, {"cluster_size": 2 << 20},
    {"extended_l2": True}, {"extended_l2": True, "cluster_size": 16384, **BACKED}, {"compat": "0.10"}, BACKED,
    {"compat": "0.10", **BACKED}, {"refcount_bits": 1}, {"refcount_bits": 2, "cluster_size": 1024},
    {"refcount_bits": 4}, {"refcount_bits": 8}, {"refcount_bits": 32}, {"lazy_refcounts": True},
    {"compression_type": "zstd"}, {"data_file": "d.raw"}, {"data_file": "d.raw", "data_file_raw": True},
    {"preallocation": "metadata"}, {"preallocation": "full"}, {"preallocation": "falloc", "extended_l2": True},
]  # fmt: skip
NAMES = [",".join(f"{k}={v}" for k, v in case.items()) or "default" for case in CASES]


def tool(folder: Path, *words: str, status: int = 0) -> str:
    """Run one of qemu's tools; its output."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status, (words, done.stdout[-800:], done.stderr[-800:])
    return done.stdout


def qemu_content(folder: Path, name: str, *options: str) -> bytes:
    """What qemu reads from an image."""
    tool(folder, "qemu-img", "convert", "-f", "qcow2", *options, "-O", "raw", name, "out.raw")
    return (folder / "out.raw").read_bytes()


def make_backing(folder: Path, size: int = 2 << 20) -> bytes:
    content = random.Random(1).randbytes(size)
    (folder / BACKING).write_bytes(content)
    return content


class Trial:
    """An image under random operations, and what it has to contain."""

    def __init__(self, folder: Path, seed: int, options: dict[str, Any], size: int = 3 << 20) -> None:
        self.folder, self.random, self.options = folder, random.Random(seed), options
        self.path = str(folder / "a.qcow2")
        self.model = bytearray(size)
        if "backing_file" in options:
            below = make_backing(folder)
            self.model[: len(below)] = below
        create_image(self.path, "qcow2", size, options)
        self.snapshots: dict[str, bytes] = {}
        self.disk = self.open()
        self.count = 0

    def open(self) -> Disk:
        return Disk(open_image(self.path, "qcow2", writable=True))

    def step(self) -> None:
        pick, disk, model = self.random, self.disk, self.model
        self.count += 1
        external = "data_file" in self.options
        operation = pick.choice(["write"] * 5 + ["zero", "unmap", "discard", "flush", "reopen", "read", "read"]
                                + ([] if external else ["snap", "apply", "delete", "pack"]))  # fmt: skip
        offset = pick.randrange(len(model))
        length = min(pick.choice([1, 512, 4096, 70000, 300000]), len(model) - offset)
        if pick.random() < 0.4:
            offset &= -65536
            length = min(65536 * pick.randint(1, 3), len(model) - offset)
        if operation == "write":
            model[offset : offset + length] = data = pick.randbytes(length)
            disk.write(offset, data)
        elif operation in {"zero", "unmap"}:
            disk.write_zeroes(offset, length, MAY_UNMAP if operation == "unmap" else 0)
            model[offset : offset + length] = bytes(length)
        elif operation == "discard":
            disk.discard(offset, length)
            found = bytes(disk.read(offset, length))
            before = bytes(model[offset : offset + length])
            assert all(a in (b, 0) for a, b in zip(found, before, strict=True))  # as it was, or zero
            model[offset : offset + length] = found
        elif operation == "flush":
            disk.flush()
        elif operation == "reopen":
            disk.close()
            self.disk = self.open()
        elif operation == "snap" and len(self.snapshots) < min(3, (1 << self.options.get("refcount_bits", 16)) - 2):
            name = f"s{self.count}"
            if self.counted(disk.node.snapshot_create, name):  # type: ignore[attr-defined]
                self.snapshots[name] = bytes(model)
        elif operation == "apply" and self.snapshots:
            name = pick.choice(list(self.snapshots))
            if self.counted(disk.node.snapshot_apply, name):  # type: ignore[attr-defined]
                model[:] = self.snapshots[name]
        elif operation == "delete" and self.snapshots:
            name = pick.choice(list(self.snapshots))
            disk.node.snapshot_delete(name)  # type: ignore[attr-defined]
            del self.snapshots[name]
        elif operation == "pack":
            cluster = disk.node.geometry.cluster_size  # type: ignore[attr-defined]
            offset &= -cluster
            length = min(cluster * pick.randint(1, 4), len(model) - offset)
            model[offset : offset + length] = data = bytes([pick.randrange(256)]) * length
            disk.run(Request(WRITE, offset, [memoryview(data)], flags=COMPRESSED))
        elif operation == "read":
            assert bytes(disk.read(offset, length)) == model[offset : offset + length]

    def counted(self, call: Callable[[str], None], name: str) -> bool:
        """Whether a snapshot could be made or applied: narrow refcounts run out where compressed clusters share."""
        try:
            call(name)
        except ImageUnsupported:
            if self.options.get("refcount_bits", 16) > 4:
                raise
            return False
        return True

    def finish(self) -> None:
        """Check with our tools and with qemu's."""
        result = self.disk.node.check()  # type: ignore[attr-defined]
        assert result.clean, result.problems[:5]
        assert bytes(self.disk.read(0, len(self.model))) == self.model
        self.disk.close()
        tool(self.folder, "qemu-img", "check", "a.qcow2")
        assert qemu_content(self.folder, "a.qcow2") == self.model
        for name, content in self.snapshots.items():
            assert qemu_content(self.folder, "a.qcow2", "-l", f"snapshot.name={name}") == content


def our_map(path: str) -> list[dict[str, Any]]:
    """Block status of an image without backing, in the terms of qemu-img map, neighbours merged."""
    with Disk(open_image(path, "qcow2")) as disk:
        rows: list[dict[str, Any]] = []
        at = 0
        while at < disk.size:
            e = disk.status(at, disk.size - at)
            rows.append({"start": at, "length": e.length, "present": e.allocated, "zero": e.zero, "data": e.data,
                         "offset": e.offset})  # fmt: skip
            at += e.length
    return merged(rows)


def qemu_map(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = json.loads(tool(folder, "qemu-img", "map", "-f", "qcow2", "--output=json", name))
    keys = ("start", "length", "present", "zero", "data")
    return merged(
        [{**{key: row[key] for key in keys}, "offset": row.get("offset") if row["present"] else None} for row in rows]
    )


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in rows:
        last = found[-1] if found else None
        if last and all(last[key] == row[key] for key in ("present", "zero", "data")) and (
            (last["offset"] is None and row["offset"] is None)
            or (last["offset"] is not None and row["offset"] == last["offset"] + last["length"])
        ):  # fmt: skip
            last["length"] += row["length"]
        else:
            found.append(dict(row))
    return found
