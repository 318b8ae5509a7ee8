"""Requests, options, specs, structures, ranges and the queue, over memory and files."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import (
    FLUSH,
    MAY_UNMAP,
    READ,
    RESIZE,
    STATUS,
    WRITE,
    BadOption,
    Disk,
    HostError,
    ImageCorrupt,
    ImageLocked,
    Request,
    RequestRefused,
    create_image,
    describe,
    open_image,
    parse_spec,
)  # fmt: skip
from dbt.machine.block.options import SIZE, convert
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.structure import Structure, raw, u16, u32, u64

MIB = 1 << 20


class Example(Structure, order=">"):
    magic = u32(only=(0x12345678,), form="hex")
    width = u16(8, minimum=1, maximum=64)
    flags = u64(bits={0: "dirty", 3: "odd"})
    name = raw(6, form="text")


def memory(size: int = MIB) -> Disk:
    return Disk(open_image({"driver": "memory", "size": size}, "raw", writable=True))


def test_structure_both_ways() -> None:
    data = Example(width=16, flags=9, name=b"abc\0\0\0").pack()
    assert data == bytes.fromhex("12345678 0010 0000000000000009 616263000000")
    found = Example.parse(b"--" + data, "f", start=2)
    assert (found.width, found.flags, found.name) == (16, 9, b"abc\0\0\0")
    assert found.describe() == [
        ("magic", 0, "0x12345678"), ("width", 4, "16"), ("flags", 6, "0x9 (dirty, odd)"), ("name", 14, "abc"),
    ]  # fmt: skip
    assert found == Example.parse(found.pack(), "f")


def test_structure_says_what_is_wrong_and_where() -> None:
    bad = Example(width=65).pack()
    with pytest.raises(ImageCorrupt, match=r"^a\.img: at offset 0x104: Example\.width is 65, above 64$") as caught:
        Example.parse(bad, "a.img", at=0x100)
    assert (caught.value.file, caught.value.offset) == ("a.img", 0x104)
    with pytest.raises(ImageCorrupt, match="cut off: 20 bytes, 19 are there"):
        Example.parse(bad[:-1], "a.img")


def test_mutants_change_one_field() -> None:
    generator, data = random.Random(1), Example().pack()
    for _ in range(200):
        mutant = Example.mutant(data, generator)
        assert len(mutant) == len(data)
        changed = {
            f.name for f in Example.FIELDS if mutant[f.offset : f.offset + f.size] != data[f.offset : f.offset + f.size]
        }
        assert len(changed) <= 1


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(SIZE, "64K", 65536), (SIZE, "1.5g", 3 << 29), (SIZE, 512, 512), (bool, "on", True), (bool, False, False),
     (int, "0x10", 16), (("a", "b"), "b", "b")],
)  # fmt: skip
def test_options_mean(kind: type, text: object, value: object) -> None:
    assert convert(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [(SIZE, "12Q"), (SIZE, "-1"), (SIZE, "9E"), (SIZE, "٣"), (bool, "maybe"), (int, "x"), (("a",), "c")],
)
def test_options_mean_nothing(kind: type, text: str) -> None:
    with pytest.raises(ValueError, match=r"is (no|neither|none|too)"):
        convert(kind, text)


def test_specs_in_all_spellings_are_one_tree() -> None:
    tree = {"driver": "raw", "offset": 512, "file": {"driver": "file", "filename": "a,b"}}
    spellings: list[str | dict[str, Any]] = [
        tree, 'json:{"driver":"raw","offset":"512","file":{"driver":"file","filename":"a,b"}}',
        "driver=raw,offset=0x200,file.driver=file,file.filename=a,,b".replace("0x200", "512"),
        "driver=raw,offset=512,file.filename=a,,b",
    ]  # fmt: skip
    trees = [parse_spec(spelling).to_dict() for spelling in spellings]
    assert trees[0] == trees[1] == trees[2] == trees[3]
    assert parse_spec(trees[0]).to_dict() == trees[0]
    assert parse_spec("file:///srv/a%20b").options["filename"] == "/srv/a b"
    assert parse_spec("a:b").options["filename"] == "a:b"


@pytest.mark.parametrize(
    ("text", "why"),
    [("driver=nope", "none called 'nope'"), ("driver=file", "'filename' must be given"), ("{", "no JSON"),
     ("driver=file,filename=a,color=red", "no option 'color'"), ("driver=file,filename", "no name=value"),
     ("driver=file,filename=a,filename=b", "given twice"), ("driver=file,filename=a,locking=perhaps", "is none of"),
     ("[" * 5 + "driver=file", "without driver|none|no "), ('{"driver":' * 3000, "no JSON"),
     ('{"driver":"raw","file":' * 70 + '{"driver":"memory"}' + "}" * 70, "deeper than")],
)  # fmt: skip
def test_specs_that_mean_nothing(text: str, why: str) -> None:
    with pytest.raises(BadOption, match=why):
        parse_spec(text if text[0] != "[" else {"file": text})


def test_requests_complete_with_their_data(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    create_image(str(path), "raw", MIB)
    seen: list[Request] = []
    with Disk(open_image(str(path), "raw", writable=True)) as disk:
        writes = [Request(WRITE, i * 4096, [memoryview(bytes([i]) * 4096)], seen.append) for i in range(64)]
        done = disk.submit_all(writes)
        disk.drain()
        assert len(seen) + len(done) == 64
        assert not [r for r in writes if not r.done or r.error]
        target = bytearray(8192)
        view = memoryview(target)
        request = Request(READ, 4096 * 5, [view[:1000], view[1000:]], seen.append)
        if not disk.submit(request):
            disk.drain()
            assert seen[-1] is request
        assert target == b"\5" * 4096 + b"\6" * 4096
        disk.flush()
    assert path.read_bytes()[4096:8192] == b"\1" * 4096


def test_requests_out_of_bounds_are_refused() -> None:
    with memory() as disk:
        for operation in (READ, WRITE, STATUS):
            for offset in (-1, MIB - 511, 1 << 62):
                request = Request(operation, offset, [memoryview(bytearray(512))])
                assert disk.submit(request)
                assert isinstance(request.error, RequestRefused)
                assert request.error.errno == errno.EINVAL
    with Disk(open_image({"driver": "memory", "size": 512}, "raw")) as disk:
        with pytest.raises(RequestRefused, match="reading only"):
            disk.write(0, b"x")
        with pytest.raises(RequestRefused, match="reading only"):
            disk.run(Request(RESIZE, length=5))


def test_submit_calls_no_completion_and_drain_waits() -> None:
    with memory() as disk:
        started, go = threading.Event(), threading.Event()
        original = disk.node.flush

        def slow() -> None:
            started.set()
            go.wait()
            original()

        disk.node.flush = slow  # type: ignore[method-assign]
        calls: list[int] = []
        assert not disk.submit(Request(FLUSH, completion=lambda _: calls.append(1)))
        assert started.wait(10)
        drained = threading.Thread(target=disk.drain)
        drained.start()
        while not disk._draining:
            time.sleep(0.001)
        target = memoryview(bytearray(512))
        late = Request(READ, 0, [target], lambda _: calls.append(2))
        assert not disk.submit(late)  # cached, but the disk drains: it waits
        assert calls == []
        go.set()
        drained.join()
        disk.drain()
        assert calls == [1, 2]
        assert late.done


def test_ranges_first_come_first_served() -> None:
    ranges = Ranges()
    order: list[str] = []
    first = ranges.acquire(0, 10, alone=False)
    ready = threading.Event()

    def alone() -> None:
        ready.set()
        with ranges.alone(5, 15):
            order.append("alone")

    def shared() -> None:
        with ranges.shared(0, 8):
            order.append("shared")

    one = threading.Thread(target=alone)
    one.start()
    ready.wait()
    while ranges._waiting < 1:
        time.sleep(0.001)
    two = threading.Thread(target=shared)
    two.start()
    while ranges._waiting < 2:
        time.sleep(0.001)
    with ranges.alone(20, 30):
        pass  # does not touch the others
    ranges.release(first)
    one.join()
    two.join()
    assert order == ["alone", "shared"]


def test_file_zeroes_discards_and_status(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(b"x" * MIB)
    with Disk(open_image(str(path), "raw", writable=True)) as disk:
        disk.write_zeroes(65536, 65536, MAY_UNMAP)
        disk.write_zeroes(1000, 24)
        disk.discard(262144, 65536)
        assert bytes(disk.read(65536, 65536)) == bytes(65536)
        assert bytes(disk.read(990, 44)) == b"x" * 10 + bytes(24) + b"x" * 10
        at, kinds = 0, []
        while at < disk.size:
            extent = disk.status(at, disk.size - at)
            kinds.append((at, extent.length, extent.data))
            at += extent.length
        assert sum(length for _, length, _ in kinds) == MIB
        assert (65536, 65536, False) in kinds
        disk.resize(2 * MIB)
        assert bytes(disk.read(MIB, 10)) == bytes(10)
        assert describe(disk.node)["virtual-size"] == 2 * MIB
    assert path.stat().st_size == 2 * MIB


def test_raw_window(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(range(256)) * 16)
    with Disk(open_image(f"driver=raw,offset=1024,size=512,file.filename={path}", writable=True)) as disk:
        assert disk.size == 512
        disk.write(10, b"hello")
        with pytest.raises(RequestRefused, match="ends at 0x200"):
            disk.read(511, 2)
    assert path.read_bytes()[1034:1039] == b"hello"
    with pytest.raises(BadOption, match="beyond its end"):
        open_image(f"driver=raw,offset=1M,file.filename={path}")


@pytest.mark.parametrize("seed", range(3))
def test_direct_io_takes_any_alignment(tmp_path: Path, seed: int) -> None:
    path, generator = tmp_path / "a.raw", random.Random(seed)
    model = bytearray(generator.randbytes(50_000))
    path.write_bytes(model)
    with Disk(open_image(f"driver=raw,file.filename={path},file.direct=on", writable=True)) as disk:
        for _ in range(60):
            offset = generator.randrange(len(model))
            length = generator.randint(1, min(20_000, len(model) - offset))
            if generator.random() < 0.5:
                model[offset : offset + length] = data = generator.randbytes(length)
                disk.write(offset, data)
            else:
                assert bytes(disk.read(offset, length)) == model[offset : offset + length]
    assert path.read_bytes() == model


def test_two_writers_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(4096))
    with Disk(open_image(str(path), "raw", writable=True)):
        with pytest.raises(ImageLocked, match=rf"a\.raw: .*open for writing.*\({os.getpid()}\)"):
            open_image(str(path), "raw", writable=True)
        with pytest.raises(ImageLocked):
            open_image(str(path), "raw")
        with pytest.raises(ImageLocked):
            create_image(str(path), "raw", 512)
        open_image(f"driver=raw,file.filename={path},file.locking=off").close()
    readers = [open_image(str(path), "raw") for _ in range(2)]
    with pytest.raises(ImageLocked, match="does not share writing"):
        open_image(str(path), "raw", writable=True)
    for reader in readers:
        reader.close()
    open_image(str(path), "raw", writable=True).close()
    assert path.stat().st_size == 4096


@pytest.mark.needs("qemu-io")
def test_qemu_respects_our_locks_and_we_respect_qemus(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(1 << 16))
    command = ["qemu-io", "-f", "raw", str(path)]
    with Disk(open_image(str(path), "raw", writable=True)):
        done = subprocess.run([*command, "-c", "read 0 512"], capture_output=True, text=True, check=False)
        assert "Is another process using the image" in done.stderr
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"length\n")
        other.stdin.flush()
        assert b"64 KiB" in other.stdout.readline()
        with pytest.raises(ImageLocked, match="qemu-io"):
            open_image(str(path), "raw")
        other.stdin.close()
    open_image(str(path), "raw").close()


def test_formats_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(4096))
    with pytest.raises(BadOption, match="not guessed for writing"):
        open_image(str(path), writable=True)
    with pytest.raises(BadOption, match="no format that is known by its first bytes"):
        open_image(str(path))


def test_host_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"nothing: cannot be opened: No such file") as caught:
        open_image(str(tmp_path / "nothing"), "raw")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(HostError, match="directory"):
        open_image(str(tmp_path), "raw")
    with pytest.raises(HostError, match="large"):
        create_image(str(tmp_path / "huge"), "raw", (1 << 63) - 1)
    with pytest.raises(HostError, match=r"preallocation|large"):
        create_image(str(tmp_path / "full"), "raw", 1 << 50, {"preallocation": "falloc"})


def test_a_failed_flush_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(4096))
    disk = Disk(open_image(str(path), "raw", writable=True))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(HostError, match="flush: Input/output error"):
            disk.flush()
    with pytest.raises(HostError, match="an earlier flush failed"):
        disk.flush()
    with pytest.raises(HostError, match="an earlier flush failed"):
        disk.close()


def test_what_is_wrong_with_us_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    with memory() as disk:
        disk.workers = 1

        def fail(*_: object) -> None:
            raise MemoryError("a table of 2 PiB")

        for also in (True, False):  # the completion as well, then not
            event = threading.Event()

            def completion(_: Request, event: threading.Event = event, also: bool = also) -> None:
                event.set()
                if also:
                    raise KeyError

            request = Request(READ, 0, [memoryview(bytearray(512))], completion)
            with monkeypatch.context() as patch:
                patch.setattr(disk.node, "read", fail)
                patch.setattr(disk, "_try_read", lambda *_: False)
                assert not disk.submit(request)
                assert event.wait(30)
                with pytest.raises(MemoryError):
                    disk.read(0, 512)
            assert request.done
            assert "MemoryError: a table of 2 PiB" in str(request.error)
        disk.drain()
        assert told == [KeyError, MemoryError]
        assert bytes(disk.read(0, 512)) == bytes(512)


def test_a_full_memory_is_enospc() -> None:
    with Disk(open_image({"driver": "memory", "size": MIB, "limit": 65536}, "raw", writable=True)) as disk:
        disk.write(0, b"x")
        with pytest.raises(HostError) as caught:
            disk.write(500_000, b"x")
        assert caught.value.errno == errno.ENOSPC
