"""Disks in a Ceph cluster and on a GlusterFS volume, looked at by Ceph's own command and in the brick's folder."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import (
    FUA,
    MAY_UNMAP,
    NO_FALLBACK,
    READ,
    WRITE,
    BadOption,
    Disk,
    HostError,
    ImageUnsupported,
    Request,
    create_image,
    open_image,
)  # fmt: skip
from dbt.machine.block.tool.parser import main

from .places import Place, say

MIB = 1 << 20
SIZE = 24 * MIB
PLACES = [
    pytest.param("ceph", marks=pytest.mark.needs("ceph-mon", "ceph-osd", "rbd")),
    pytest.param("gluster", marks=pytest.mark.needs("glusterd", "root")),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def opened(place: Place, name: str, driver: str = "raw", *, writable: bool = True) -> Disk:
    return Disk(open_image({"driver": driver, "file": place.named(name)}, writable=writable))


def test_random_operations(place: Place) -> None:
    rng, model = random.Random(1), bytearray(SIZE)
    create_image({"driver": "raw", "file": place.named("a")}, "raw", SIZE)
    with opened(place, "a") as disk:
        assert disk.size == SIZE
        for _ in range(120):
            length = rng.choice((1, 512, 4096, 70_001, 300_000, 5 * MIB))
            at = rng.randrange(SIZE - length)
            kind = rng.randrange(7)
            if kind < 3:
                data = rng.randbytes(length)
                disk.write(at, data, FUA if kind == 1 else 0)
                model[at : at + length] = data
            elif kind == 3:
                disk.write_zeroes(at, length, rng.choice((0, MAY_UNMAP)))
                model[at : at + length] = bytes(length)
            elif kind == 4:
                disk.discard(at, length)
                found = bytes(disk.read(at, length))
                assert all(a in (b, 0) for a, b in zip(found, model[at : at + length], strict=True))
                model[at : at + length] = found
            elif kind == 5:
                disk.flush()
            else:
                assert bytes(disk.read(at, length)) == model[at : at + length]
        pieces = [memoryview(rng.randbytes(3000)) for _ in range(1500)]  # more than one call takes
        disk.run(Request(WRITE, 5, pieces))
        model[5 : 5 + 4_500_000] = b"".join(pieces)
        back = [memoryview(bytearray(3000)) for _ in range(1500)]
        disk.run(Request(READ, 5, back))
        assert b"".join(back) == model[5 : 5 + 4_500_000]
        at = 0
        while at < SIZE:
            extent = disk.status(at, SIZE - at)
            assert 1 <= extent.length <= SIZE - at
            assert not extent.zero or not any(model[at : at + extent.length])
            at += extent.length
    assert place.content("a") == model
    place.delete("a")


def test_holes_growth_and_sizes(place: Place) -> None:
    create_image({"driver": "raw", "file": place.named("b")}, "raw", 64 * MIB)
    with opened(place, "b") as disk:
        disk.write(16 * MIB, b"x" * 4 * MIB)
        assert (disk.status(0, 64 * MIB).zero, disk.status(0, 64 * MIB).length) == (True, 16 * MIB)
        extent = disk.status(17 * MIB, 40 * MIB)
        assert (extent.data, extent.length) == (True, 3 * MIB)
        assert disk.status(20 * MIB, 44 * MIB).zero
        disk.write_zeroes(16 * MIB, 4 * MIB, MAY_UNMAP)
        assert disk.status(0, 64 * MIB).zero
        assert disk.status(0, 64 * MIB).length == 64 * MIB
        disk.resize(3 * MIB + 512)
        file: Any = disk.node.children["file"]
        file.write(5 * MIB, 3, [memoryview(b"abc")])  # beyond the end: a file grows
        assert file.size == 5 * MIB + 3
        file.write_zeroes(5 * MIB, MIB)
        assert file.size == 6 * MIB
        assert not any(file.pread(0, 6 * MIB))
        with pytest.raises(ImageUnsupported) if place.options["driver"] == "rbd" else pytest.raises(HostError):
            file.write_zeroes(0, 512, NO_FALLBACK) if place.options["driver"] == "rbd" else file.resize(-1)
    assert place.content("b") == bytes(6 * MIB)
    place.delete("b")


def test_many_requests_at_once(place: Place) -> None:
    create_image({"driver": "raw", "file": place.named("c")}, "raw", SIZE)
    data = random.Random(3).randbytes(SIZE)
    with opened(place, "c") as disk:
        for operation in (WRITE, READ):
            done = threading.Semaphore(0)
            wrong: list[object] = []

            def completed(request: Request, done: threading.Semaphore = done, wrong: list[object] = wrong) -> None:
                if request.error is not None:
                    wrong.append(request.error)
                done.release()

            target = bytearray(data) if operation == WRITE else bytearray(SIZE)
            view = memoryview(target)
            steps = range(0, SIZE, 100_000)
            for at in steps:
                request = Request(operation, at, [view[at : at + 100_000]], completed)
                if disk.submit(request):
                    completed(request)
            for _ in steps:
                assert done.acquire(timeout=60)
            assert not wrong
            assert target == data
    assert place.content("c") == data
    place.delete("c")


WRITER = """
import json, sys, time
from dbt.machine.block import Disk, open_image
disk = Disk(open_image({"driver": "qcow2", "file": json.loads(sys.argv[1])}, writable=True))
for k in range(1, 1000):
    disk.write(k % 64 * 65536, bytes([k % 256]) * 65536)
    disk.flush()
    print(k, flush=True)
"""


def test_what_was_flushed_survives_kill(place: Place) -> None:
    create_image({"driver": "qcow2", "file": place.named("d")}, "qcow2", SIZE)
    words = [sys.executable, "-c", WRITER, json.dumps(place.named("d"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        last = 0
        while last < 70:
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        for line in writer.stdout:
            last = int(line)
    with opened(place, "d", "qcow2", writable=False) as disk:
        assert disk.node.check().corruptions == 0  # type: ignore[attr-defined]
        for k in range(last - 62, last + 1):
            assert bytes(disk.read(k % 64 * 65536, 65536)) == bytes([k % 256]) * 65536


def test_the_command(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, back = tmp_path / "a.raw", tmp_path / "b.raw"
    data = random.Random(4).randbytes(5 * MIB) + bytes(20 * MIB) + b"end".ljust(512, b"\0")
    source.write_bytes(data)
    target = json.dumps(place.named("e"))
    assert main(["convert", "-f", "raw", "-O", "qcow2", str(source), target]) == 0
    assert main(["check", "-f", "qcow2", target]) == 0
    assert main(["compare", "-f", "raw", "-F", "qcow2", str(source), target]) == 0
    assert main(["convert", "-f", "qcow2", "-O", "raw", target, str(back)]) == 0
    assert back.read_bytes() == data
    capsys.readouterr()
    assert main(["info", "-f", "qcow2", "--json", target]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["virtual-size"] == len(data)
    assert told["name"].startswith(("rbd:rbd/e", "gluster:disks/e"))
    assert main(["resize", "-f", "qcow2", target, "+1M"]) == 0
    assert main(["bench", "-f", "qcow2", "-c", "200", target]) == 0
    capsys.readouterr()
    place.delete("e")


def test_what_is_not_there(place: Place) -> None:
    with pytest.raises(HostError, match="cannot be opened: No such file"):
        opened(place, "nowhere")
    other = {**place.named("x"), "pool" if place.options["driver"] == "rbd" else "volume": "nowhere"}
    with pytest.raises(HostError, match="nowhere"):
        open_image({"driver": "raw", "file": other})


@pytest.mark.needs("ceph-mon", "ceph-osd", "rbd")
def test_images_of_ceph(ceph: Place) -> None:
    conf = ceph.options["conf"]
    create_image({"driver": "raw", "file": ceph.named("f g")}, "raw", 3 * MIB, {"object_size": "1M"})
    with pytest.raises(HostError, match="File exists"):
        create_image({"driver": "raw", "file": ceph.named("f g")}, "raw", MIB)
    with opened(ceph, "f g") as disk:
        disk.write(0, b"old")
        file: Any = disk.node.children["file"]
        assert file.info()["object-size"] == MIB
        assert "exclusive-lock" in file.info()["features"]
    say("rbd", "-c", conf, "snap", "create", "--no-progress", "rbd/f g@first")
    with Disk(open_image(f"rbd:rbd/f g:conf={conf}", "raw", writable=True)) as disk:
        disk.write(0, b"new")
        disk.flush()
        with Disk(open_image(f"rbd:rbd/f g@first:conf={conf}", "raw")) as snapshot:
            assert bytes(snapshot.read(0, 3)) == b"old"
            assert snapshot.status(0, MIB).data
            assert snapshot.status(MIB, 2 * MIB).zero
    with pytest.raises(BadOption, match="only be read"):
        open_image(f"rbd:rbd/f g@first:conf={conf}", "raw", writable=True)
    create_image({"driver": "raw", "file": {**ceph.named("h"), "namespace": ""}}, "raw", MIB)
    say("rbd", "-c", conf, "namespace", "create", "rbd/inner")
    create_image(f"rbd:rbd/inner/h:conf={conf}", "raw", 2 * MIB)
    with Disk(open_image(f"rbd:rbd/inner/h:conf={conf}", "raw")) as disk:
        assert disk.size == 2 * MIB
    say("rbd", "-c", conf, "create", "--size", "5M", "--image-feature", "layering", "rbd/plain")
    with opened(ceph, "plain") as disk:  # without a map of objects everything may be data
        assert disk.status(0, 5 * MIB).data
        assert not any(disk.read(0, 5 * MIB))


@pytest.mark.needs("glusterd", "root")
def test_files_of_gluster(gluster: Place) -> None:
    for how in ("falloc", "full"):
        create_image({"driver": "raw", "file": gluster.named("full")}, "raw", 3 * MIB, {"preallocation": how})
        assert os.stat(gluster.folder / "brick/full").st_blocks * 512 >= 3 * MIB
    with Disk(open_image(f"gluster://{gluster.options['host']}/disks/full", "raw", writable=True)) as disk:
        disk.write(0, b"hello")
        disk.node.resize(4 * MIB, preallocation="falloc")
    assert os.stat(gluster.folder / "brick/full").st_blocks * 512 >= 4 * MIB
    assert gluster.content("full") == b"hello".ljust(4 * MIB, b"\0")
    through = f"gluster+unix:///disks/full?socket={gluster.folder}/run/cli.socket"
    with Disk(open_image(through, "raw")) as disk:
        assert bytes(disk.read(0, 5)) == b"hello"


def test_commands_end_well(place: Place) -> None:
    """Libraries with threads of their own may fall when a process ends."""
    create_image({"driver": "qcow2", "file": place.named("i")}, "qcow2", SIZE)
    program = Path(sys.executable).with_name("dragoman")
    for word in ("info", "map", "check", "resize") * 3:
        more = ["+64K"] if word == "resize" else []
        say(program, "img", word, "-f", "qcow2", json.dumps(place.named("i")), *more)
