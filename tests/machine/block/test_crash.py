"""What was flushed survives: every kind of crash state that a disk may be left in, kill -9, and a full disk."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import COMPRESSED, MAY_UNMAP, WRITE, BlockError, Disk, Request, create_image, open_image

from .qcow2_cases import tool

SIZE = 192 << 10
SECTOR = 512
STATES = int(os.environ.get("DRAGOMAN_CRASH_STATES", "80"))  # of each case; more on demand
OPTIONS: list[dict[str, Any]] = [
    {"cluster_size": 4096}, {"cluster_size": 512, "refcount_bits": 64}, {"cluster_size": 16384, "extended_l2": True},
    {"cluster_size": 4096, "lazy_refcounts": True}, {"cluster_size": 4096, "compat": "0.10"},
    {"cluster_size": 4096, "backing_file": "below", "backing_fmt": "raw"},
]  # fmt: skip


class Sectors:
    """What each sector may hold: the content of the last acknowledged flush, or anything written since."""

    def __init__(self, content: bytes) -> None:
        self.now = bytearray(content)
        self.flushed: list[tuple[int, list[set[bytes]]]] = []
        self.may = [{content[at : at + SECTOR]} for at in range(0, len(content), SECTOR)]

    def put(self, offset: int, data: bytes) -> None:
        self.now[offset : offset + len(data)] = data
        for at in range(offset, offset + len(data), SECTOR):
            self.may[at // SECTOR].add(bytes(self.now[at : at + SECTOR]))

    def flush(self) -> None:
        self.may = [{bytes(self.now[at : at + SECTOR])} for at in range(0, len(self.now), SECTOR)]


def workload(disk: Disk, sectors: Sectors, pick: random.Random, steps: int) -> list[tuple[int, list[set[bytes]]]]:
    """Run random operations; for each of them (length of the log after it, what sectors may hold until then)."""
    log = disk.node.children["file"].log  # type: ignore[attr-defined]
    node: Any = disk.node
    trace = [(len(log), [set(s) for s in sectors.may])]
    for step in range(steps):
        offset = pick.randrange(SIZE // SECTOR) * SECTOR
        length = min(pick.choice([SECTOR, 4096, 12288, 30 * SECTOR]), SIZE - offset)
        action = pick.choice(["write"] * 4 + ["zero", "unmap", "discard", "flush"] + ["pack"] * (not node.external))
        if action == "write":
            data = bytes([step + 1]) * length
            sectors.put(offset, data)
            disk.write(offset, data)
        elif action in {"zero", "unmap"}:
            sectors.put(offset, bytes(length))
            disk.write_zeroes(offset, length, MAY_UNMAP if action == "unmap" else 0)
        elif action == "discard":
            sectors.put(offset, bytes(length))
            disk.discard(offset, length)
            sectors.put(offset, bytes(disk.read(offset, length)))
        elif action == "pack":
            cluster = node.geometry.cluster_size
            offset &= -cluster
            data = bytes([step + 1]) * cluster
            sectors.put(offset, data)
            disk.run(Request(WRITE, offset, [memoryview(data)], flags=COMPRESSED))
        before = [set(s) for s in sectors.may]
        if action == "flush":
            disk.flush()
            trace.append((len(log) - 1, before))
            sectors.flush()
        trace.append((len(log), [set(s) for s in sectors.may]))
    return trace


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_crashes_leave_leaks_at_worst(tmp_path: Path, options: dict[str, Any]) -> None:
    pick = random.Random(11)
    content = bytes(SIZE)
    if "backing_file" in options:
        content = pick.randbytes(SIZE)
        (tmp_path / "below").write_bytes(content)
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", SIZE, options)
    sectors = Sectors(content)
    spec = {
        "driver": "qcow2",
        "file": {"driver": "record", "file": {"driver": "file", "filename": path, "no-flush": True}},
    }
    disk = Disk(open_image(spec, writable=True, allow_backing=True))
    record: Any = disk.node.children["file"]
    trace = workload(disk, sectors, pick, 60)
    disk.close()
    crashed = tmp_path / "crashed.qcow2"
    seen_leaks = 0
    for k in range(STATES):
        point = pick.randint(0, len(record.log))
        state = record.crash(point, pick)
        crashed.write_bytes(state)
        # What may be there: the operation during which it crashed is the next one of the trace.
        may = next((allowed for length, allowed in trace if length >= point), trace[-1][1])
        if options.get("lazy_refcounts"):  # the dirty bit tells to repair
            open_image(str(crashed), "qcow2", writable=True).close()
        node: Any = open_image(str(crashed), "qcow2")
        found = node.check()
        assert not found.corruptions, (k, point, found.problems[:5])
        assert not found.errors
        seen_leaks += found.leaks
        with Disk(node) as after:
            data = bytes(after.read(0, SIZE))
        for i, allowed in enumerate(may):
            assert data[i * SECTOR : (i + 1) * SECTOR] in allowed, (k, point, i)
        if k % 8 == 0:
            done = subprocess.run(["qemu-img", "check", "-q", crashed], capture_output=True, text=True, check=False)
            assert done.returncode in {0, 3}, done.stdout + done.stderr
    if not options.get("lazy_refcounts"):
        assert seen_leaks  # else the states were not what they are meant to be


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("options", [{"cluster_size": 4096}, {"cluster_size": 16384, "extended_l2": True}], ids=str)
def test_crashes_around_snapshots_are_repaired(tmp_path: Path, options: dict[str, Any]) -> None:
    pick, path = random.Random(21), str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", SIZE, options)
    file = {"driver": "file", "filename": path, "no-flush": True}
    disk = Disk(open_image({"driver": "qcow2", "file": {"driver": "record", "file": file}}, writable=True))
    node: Any = disk.node
    record = node.children["file"]
    states: list[tuple[int, bytes]] = []  # (length of the log, what the disk holds from there on)
    kept: dict[str, bytes] = {}

    def note() -> None:
        disk.flush()
        states.append((len(record.log), bytes(disk.read(0, SIZE))))

    for k, action in enumerate(["write", "one", "write", "two", "write", "apply one", "write", "delete two"]):
        word, _, name = action.partition(" ")
        if word == "write":
            disk.write(pick.randrange(SIZE // 2), bytes([k + 1]) * 40_000)
        elif word == "apply":
            node.snapshot_apply(name)
        elif word == "delete":
            node.snapshot_delete(name)
        else:
            kept[word] = bytes(disk.read(0, SIZE))
            node.snapshot_create(word)
        note()
    disk.close()
    crashed = tmp_path / "crashed.qcow2"
    dirty = 0
    for k in range(STATES):
        point = pick.randint(states[0][0], len(record.log))
        crashed.write_bytes(record.crash(point, pick))
        before = [content for length, content in states if length <= point][-1]
        after = next((content for length, content in states if length >= point), before)
        looked: Any = open_image(str(crashed), "qcow2")
        dirty += looked.info()["dirty"]
        looked.close()
        with Disk(open_image(str(crashed), "qcow2", writable=True)) as disk:
            node = disk.node
            assert not node.check().corruptions
            data = bytes(disk.read(0, SIZE))
            if before == after:  # between states that read differently any mixture may be
                assert data == before, (k, point)
            names = [snapshot["name"] for snapshot in node.snapshots()]
            if names:
                node.snapshot_apply(names[0])
                assert bytes(disk.read(0, SIZE)) == kept[names[0]]
        if k % 8 == 0:
            done = subprocess.run(["qemu-img", "check", "-q", crashed], capture_output=True, text=True, check=False)
            assert done.returncode in {0, 3}, done.stdout + done.stderr
    assert dirty


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("options", [{"cluster_size": 4096}, {"cluster_size": 16384, "extended_l2": True}], ids=str)
def test_a_full_disk_at_any_point(tmp_path: Path, options: dict[str, Any]) -> None:
    path = str(tmp_path / "a.qcow2")
    met = 0
    for at in range(1, 60, 3):
        pick = random.Random(5)
        create_image(path, "qcow2", SIZE, options)
        fault = {"driver": "fault", "at": at, "count": 4, "error": "ENOSPC", "short": bool(at & 1),
                 "file": {"driver": "file", "filename": path, "no-flush": True}}  # fmt: skip
        disk = Disk(open_image({"driver": "qcow2", "file": fault}, writable=True))
        sectors = Sectors(bytes(SIZE))
        failures = 0
        for step in range(40):
            offset = pick.randrange(SIZE // SECTOR) * SECTOR
            length = min(pick.choice([SECTOR, 4096, 12288]), SIZE - offset)
            before = [set(s) for s in sectors.may]
            data = bytes([step + 1]) * length
            sectors.put(offset, data)
            try:
                if step % 7 == 6:
                    disk.flush()
                    sectors.may = before
                else:
                    disk.write(offset, data)
                    sectors.may = before
                    for sector in range(offset // SECTOR, (offset + length) // SECTOR):
                        sectors.may[sector] = {data[:SECTOR]}
            except BlockError as error:
                assert error.errno == 28  # noqa: PT017 - the rest goes on
                failures += 1
                if step % 7 == 6:
                    sectors.may = before
        met += failures
        disk.node.children["file"].options["at"] = 0  # there is room again
        disk.close()
        node: Any = open_image(path, "qcow2")
        found = node.check()
        assert not found.corruptions, (at, found.problems[:5])
        with Disk(node) as after:
            data = bytes(after.read(0, SIZE))
        for i, allowed in enumerate(sectors.may):
            assert data[i * SECTOR : (i + 1) * SECTOR] in allowed, (at, i)
        assert subprocess.run(["qemu-img", "check", "-q", path], check=False).returncode in {0, 3}
    assert met > 20  # else nothing was tried


WRITER = """
import sys
from dbt.machine.block import Disk, open_image
disk = Disk(open_image(sys.argv[1], "qcow2", writable=True))
for k in range(1, 100000):
    disk.write((k * 7919 % 2048) * 4096, k.to_bytes(4, "big") * 1024)
    if k % 5 == 0:
        disk.flush()
        print(k, flush=True)
"""


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("seed", range(3))
def test_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 8 << 20, {"cluster_size": 4096})
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.Random(seed).random() * 0.3)
        writer.kill()
        acknowledged = [int(line) for line in writer.stdout.read().split()]
    last = acknowledged[-1] if acknowledged else 5
    node: Any = open_image(path, "qcow2")
    assert not node.check().corruptions
    with Disk(node) as disk:
        expected = {k * 7919 % 2048: k for k in range(1, last + 1)}
        later = {k * 7919 % 2048 for k in range(last + 1, last + 7)}
        for block, k in expected.items():
            if block not in later:
                assert bytes(disk.read(block * 4096, 4)) == k.to_bytes(4, "big")
    tool(tmp_path, "qemu-img", "check", "-q", "-r", "leaks", "a.qcow2")
