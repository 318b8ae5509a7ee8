"""Many requests at once: what threads do to neighbouring sectors of the same clusters does not mix."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import (
    DISCARD,
    FLUSH,
    FUA,
    READ,
    WRITE,
    WRITE_ZEROES,
    Disk,
    Request,
    create_image,
    open_image,
)  # fmt: skip

from .qcow2_cases import BACKED, make_backing, tool

SECTOR = 512
SECTORS = 4096


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("options", [{"cluster_size": 65536}, {"cluster_size": 4096, **BACKED}, {"extended_l2": True}],
                         ids=str)  # fmt: skip
def test_requests_in_flight_do_not_mix(tmp_path: Path, options: dict[str, Any]) -> None:
    pick = random.Random(9)
    below = make_backing(tmp_path) if options.get("backing_file") else b""
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", SECTORS * SECTOR, options)
    spec = f"driver=qcow2,l2-cache-size=8192,file.filename={path}"
    model = bytearray(below.ljust(SECTORS * SECTOR, b"\0"))
    errors: list[BaseException] = []
    room = threading.Semaphore(24)
    busy: set[int] = set()  # sectors that a request in flight has: the model is clear only without overlaps
    lock = threading.Lock()

    def done(request: Request) -> None:
        at, count = request.context
        if request.error is not None:
            errors.append(request.error)
        elif request.operation == READ and bytes(request.vectors[0]) != model[at * SECTOR : (at + count) * SECTOR]:
            errors.append(AssertionError(f"{request!r} got something else"))
        with lock:
            busy.difference_update(range(at, at + count))
        room.release()

    with Disk(open_image(spec, writable=True), workers=6) as disk:
        for k in range(2500):
            at = pick.randrange(SECTORS)
            count = min(pick.choice((1, 1, 2, 8, 150)), SECTORS - at)
            if k % 500 == 499:
                assert not disk.submit(Request(FLUSH, completion=lambda _: None))
            with lock:
                if not busy.isdisjoint(range(at, at + count)):
                    continue
                busy.update(range(at, at + count))
            room.acquire()
            operation = pick.choice((READ, WRITE, WRITE, WRITE_ZEROES))
            data = bytearray(count * SECTOR)
            if operation == WRITE:
                data[:] = pick.randbytes(SECTOR) * count
            request = Request(operation, at * SECTOR, [memoryview(data)], done, context=(at, count))
            if k % 97 == 0 and operation == WRITE:
                request.flags = FUA
            if operation != READ:
                model[at * SECTOR : (at + count) * SECTOR] = data
            if disk.submit(request):
                done(request)
        disk.drain()
        assert not errors
        assert bytes(disk.read(0, len(model))) == model
    tool(tmp_path, "qemu-img", "check", "a.qcow2")


def test_discard_while_writing_leaves_a_consistent_image(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 1 << 20, {"cluster_size": 4096})
    pick = random.Random(4)
    with Disk(open_image(path, "qcow2", writable=True)) as disk:
        for k in range(1500):
            at = pick.randrange(200) * 4096
            operation = pick.choice((WRITE, DISCARD, WRITE, FLUSH) if k % 20 == 0 else (WRITE, DISCARD, WRITE))
            vectors = [memoryview(bytes([k & 255]) * 8192)]
            disk.submit(Request(operation, at, vectors if operation == WRITE else (), length=8192))
        disk.drain()
        node: Any = disk.node
        assert node.check().clean


def test_fua_reaches_the_disk_before_it_completes(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qcow2")
    create_image(path, "qcow2", 1 << 20)
    file = {"driver": "record", "file": {"driver": "file", "filename": path}}
    with Disk(open_image({"driver": "qcow2", "file": file}, writable=True)) as disk:
        record: Any = disk.node.children["file"]
        disk.write(0, b"x" * 512)
        assert None not in record.log
        disk.write(4096, b"y" * 512, FUA)
        state = record.crash(len(record.log), random.Random(0))  # everything was flushed: there is one state only
        (tmp_path / "b.qcow2").write_bytes(state)
    with Disk(open_image(str(tmp_path / "b.qcow2"), "qcow2")) as disk:
        assert bytes(disk.read(4096, 512)) == b"y" * 512
        assert bytes(disk.read(0, 512)) == b"x" * 512


@pytest.mark.parametrize("started", [False, True])
def test_a_signal_while_a_worker_starts_keeps_nobody(monkeypatch: pytest.MonkeyPatch, *, started: bool) -> None:
    """Ctrl-C comes at any instruction: the request that was handed over is done all the same, and closing ends."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if started:
            start(thread)
        raise KeyboardInterrupt

    disk = Disk(open_image({"driver": "memory", "size": 1 << 20}, "raw", writable=True))
    request = Request(WRITE, 4096, [memoryview(b"x" * 4096)])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            disk.submit(request)
    disk.close()
    assert request.done
    assert request.error is None
