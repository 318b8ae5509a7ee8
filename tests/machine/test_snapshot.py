"""Machines in files: all boards from any state into any other, disks, and files that are damaged or made up."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.block import Disk, create_image, open_image
from dbt.machine.boards import BOARDS, Options, load
from dbt.machine.device import Device
from dbt.machine.errors import SnapshotError
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM, Attributes, Transaction
from dbt.machine.registers import RW, Register, Window
from dbt.machine.snapshot.container import CHUNK, HEADER, MAGIC, Reader
from dbt.machine.snapshot.content import MemoryContent, memories

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Command

MIB = 1 << 20


def traffic(machine: Machine, random: Random, operations: int = 3000) -> None:
    """Any accesses to all that is there."""
    spaces = [(space, [(s.start, s.end) for s in space.view.sections]) for space in (machine.memory, machine.ports)]
    for number in range(operations):
        space, places = random.choice([pair for pair in spaces if pair[1]])
        start, end = random.choice(places)
        size = random.choice((1, 2, 4))
        at = start + random.randrange(random.choice((end - start, min(end - start, 0x40))))
        access = Transaction(at & -size, size, write=random.random() < 0.7, data=random.getrandbits(8 * size))
        access.attributes = Attributes(cpu=random.randrange(2))
        space.perform(access)
        if not number % 100:
            machine.advance(random.choice((1_000, 1_000_000, 20_000_000)))


def built(name: str, seed: int) -> Machine:
    machine = load(name).build(Options(ram=4 * MIB, cpus=1, epoch=seed))
    traffic(machine, Random(seed))
    return machine


def contents(machine: Machine) -> dict[str, str]:
    found = {}
    for name, memory in memories(machine).items():
        pieces = (
            (number, memory.view[number * CHUNK : (number + 1) * CHUNK]) for number in MemoryContent(memory).chunks()
        )
        found[name] = str([(number, zlib.crc32(piece)) for number, piece in pieces if piece != bytes(len(piece))])
    return found


@pytest.mark.parametrize("name", BOARDS)
def test_boards_come_back_from_any_state_into_any_other(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a.snapshot")
    machine = built(name, 1)
    machine.save_file(path)
    state, bytes_ = machine.save(), contents(machine)
    for seed in (2,):
        other = built(name, seed)
        assert contents(other) != bytes_
        other.restore_file(path)
        assert other.save() == state
        assert contents(other) == bytes_
        for one in (machine, other):
            traffic(one, Random(9), 300)
        assert (other.save(), contents(other)) == (machine.save(), contents(machine))
        machine.restore_file(path)
    assert os.listdir(tmp_path) == ["a.snapshot"]


class Notes(Device):
    """A register, and perhaps a disk."""

    WINDOW = Window(0x10)
    NOTE = Register(0, RW, "anything")

    def __init__(self, name: str, machine: Machine, disk: Disk | None = None) -> None:
        super().__init__(name, machine)
        self.disk = disk


def simple(disk: Disk | None = None, ram: int = 3 * CHUNK + 8192) -> Machine:
    machine = Machine("simple")
    machine.place(RAM("ram", ram), 0)
    machine.place(Notes("notes", machine, disk), 1 << 40)
    machine.reset()
    return machine


def test_what_is_zero_takes_no_room(tmp_path: Path) -> None:
    path = str(tmp_path / "big")
    machine = simple(ram=8 << 30)
    for at in (0, 1 << 32, (8 << 30) - 4):
        machine.memory.write(at, 4, 0xCAFE)
    machine.memory.write(1 << 33 >> 1, 4, 0)
    size = machine.save_file(path)
    assert size == os.stat(path).st_size < 2000
    assert os.stat(path).st_mode & 0o777 == 0o600
    other = simple(ram=8 << 30)
    for at in range(0, 64 * MIB, 4096):
        other.memory.write(at + 4, 4, 1)
    other.restore_file(path)
    assert [other.memory.read(at, 8) for at in (0, 4096, 1 << 32, (8 << 30) - 8)] == [0xCAFE, 0, 0, 0xCAFE << 32]
    assert os.fstat(memories(other)["ram"].fd).st_blocks * 512 <= 3 * CHUNK


def test_observers_are_told(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    machine = simple()
    machine.memory.write(CHUNK, 4, 5)
    machine.save_file(path)
    machine.memory.write(2 * CHUNK, 4, 6)
    told: list[int] = []
    memories(machine)["ram"].observe(lambda offset, _length: told.append(offset))
    machine.restore_file(path)
    assert sorted(told) == [CHUNK, 2 * CHUNK]


def image(path: Path, driver: str, size: int = 2 * MIB, *, writable: bool = True) -> Disk:
    if not path.exists():
        create_image(str(path), driver, size)
    return Disk(open_image(str(path), driver, writable=writable))


def test_qcow2_keeps_its_state_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with image(tmp_path / "a.qcow2", "qcow2") as disk:
        machine = simple(disk)
        disk.write(0, b"before")
        machine.memory.write(0, 4, 1)
        machine.save_file(path)
        disk.write(0, b"after!")
        disk.write(MIB, b"new")
        machine.memory.write(0, 4, 2)
        machine.restore_file(path)
        assert (bytes(disk.read(0, 6)), bytes(disk.read(MIB, 3)), machine.memory.read(0, 4)) == (b"before", bytes(3), 1)
        with pytest.raises(SnapshotError, match="other disks were saved; here are none"):
            simple().restore_file(path)
        for entry in disk.node.snapshots():  # type: ignore[attr-defined]
            disk.node.snapshot_delete(entry["name"])  # type: ignore[attr-defined]
        with pytest.raises(SnapshotError, match=r"a\.qcow2.*has no snapshot 'dragoman-"):
            machine.restore_file(path)
        (tmp_path / "folder").mkdir()
        with pytest.raises(SnapshotError, match="is no ordinary file"):
            machine.save_file(str(tmp_path / "folder"))
        assert disk.node.snapshots() == []  # type: ignore[attr-defined]


def test_other_disks_are_in_the_file_or_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with image(tmp_path / "a.raw", "raw", 3 * MIB + 512) as disk:
        machine = simple(disk)
        disk.write(MIB, b"before")
        with pytest.raises(SnapshotError, match=r"the disk of notes/0 cannot be saved.*a\.raw"):
            machine.save_file(path)
        assert os.listdir(tmp_path) == ["a.raw"]
        machine.save_file(path, include_disks=True)
        disk.write(MIB, b"after!")
        disk.write(3 * MIB, b"end")
        machine.restore_file(path)
        assert (bytes(disk.read(MIB, 6)), bytes(disk.read(3 * MIB, 3))) == (b"before", bytes(3))
        with image(tmp_path / "b.raw", "raw", MIB) as small, pytest.raises(SnapshotError, match="not the one that was"):
            simple(small).restore_file(path)
    with image(tmp_path / "a.raw", "raw", writable=False) as disk:
        with pytest.raises(SnapshotError, match="not the one that was saved"):
            simple(disk).restore_file(path)
        machine = simple(disk)
        machine.save_file(path)
        machine.restore_file(path)


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    machine = simple()
    machine.save_file(str(path))
    before = path.read_bytes()
    for name in ("fsync", "pwrite", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(SnapshotError, match="No space left"):
                machine.save_file(str(path))
        assert (os.listdir(tmp_path), path.read_bytes()) == (["s"], before)
    for wrong in (tmp_path / "no" / "s", tmp_path):
        with pytest.raises(SnapshotError):
            machine.restore_file(str(wrong))
    with pytest.raises(SnapshotError, match="No such file"):
        machine.save_file(str(tmp_path / "no" / "s"))


def test_a_save_replaces_ordinary_files_only_and_follows_links(tmp_path: Path) -> None:
    machine = load("isapc").build(Options(ram=MIB))
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("target")
    for path in (fifo, tmp_path):
        with pytest.raises(SnapshotError, match="is no ordinary file"):
            machine.save_file(str(path))
    assert fifo.is_fifo()
    machine.save_file(str(link))
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "link", "target"]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Machine, Path, bytes]:
    machine = simple()
    random = Random(1)
    for at in (0, CHUNK, 3 * CHUNK + 4096):
        for word in range(0, 4096, 4):
            machine.memory.write(at + word, 4, random.getrandbits(32))
    machine.memory.write(1 << 40, 4, 7)
    path = tmp_path / "s"
    machine.save_file(str(path))
    return machine, path, path.read_bytes()


def test_damage_is_found_before_anything_changes(saved: tuple[Machine, Path, bytes]) -> None:
    machine, path, good = saved
    machine.memory.write(1 << 40, 4, 8)
    machine.memory.write(CHUNK, 4, 9)
    state, bytes_ = machine.save(), contents(machine)
    random = Random(2)
    harmless = 0
    for number in range(300):
        data = bytearray(good)
        if number % 3 == 0:
            del data[random.randrange(len(data)) :]
        else:
            at = random.choice((random.randrange(len(data)), random.randrange(HEADER.size)))
            data[at] ^= 1 << random.randrange(8)
        path.unlink()  # ext4 waits for the disk if an old file is cut off instead
        path.write_bytes(data)
        try:
            machine.restore_file(str(path))
            harmless += 1
        except SnapshotError as error:
            assert str(path) in str(error)  # noqa: PT017 - most of them
            assert number > 20 or "at offset 0x" in str(error)  # noqa: PT017
        else:
            raise AssertionError(data == good)
        assert (machine.save() == state, contents(machine) == bytes_) == (True, True)
    assert not harmless


def forged(good: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The same file with another directory, and checksums that are right."""
    _, version, _, at, length, _, _ = HEADER.unpack_from(good)
    directory = json.loads(good[at : at + length])
    change(directory)
    text = json.dumps(directory).encode()
    head = HEADER.pack(MAGIC, version, 0, at, len(text), hashlib.sha256(text).digest(), 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little") + good[HEADER.size : at] + text


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2,
    1 << 31,
    1 << 63,
    1 << 200,
    0.5,
    "",
    "00",
    "zz",
    "x" * 99,
    [],
    [[]],
    {},
    [1, 2, 3],
    {"a": 1},
)


def mutate(directory: dict[str, Any], random: Random) -> None:
    path = random.choice(places(directory)[1:])
    parent: Any = directory
    for key in path[:-1]:
        parent = parent[key]
    if random.random() < 0.15:
        del parent[path[-1]]
    elif random.random() < 0.1 and isinstance(parent, dict):
        parent["other"] = random.choice(VALUES)
    else:
        parent[path[-1]] = random.choice(VALUES)


def test_made_up_directories_are_refused(saved: tuple[Machine, Path, bytes]) -> None:
    machine, path, good = saved
    machine.memory.write(CHUNK, 4, 9)
    random = Random(3)
    refused = 0
    for _ in range(200):
        state, bytes_ = machine.save(), contents(machine)
        path.unlink()  # ext4 waits for the disk if an old file is cut off instead
        path.write_bytes(forged(good, lambda directory: mutate(directory, random)))
        try:
            machine.restore_file(str(path))
        except SnapshotError as error:
            assert len(str(error)) < 500  # noqa: PT017
            refused += 1
            assert (machine.save() == state, contents(machine) == bytes_) == (True, True)
    assert refused > 150


@pytest.mark.parametrize("name", BOARDS)
def test_made_up_states_of_boards_raise_nothing_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    machine = built(name, 1)
    machine.save_file(str(path))
    good = path.read_bytes()
    random = Random(4)
    refused = 0
    for _ in range(50):
        path.unlink()  # ext4 waits for the disk if an old file is cut off instead
        path.write_bytes(forged(good, lambda directory: mutate(directory["state"], random)))
        try:
            machine.restore(Reader(str(path)).directory["state"])
        except SnapshotError:
            refused += 1
        else:
            machine.save()
            traffic(machine, random, 30)
    assert refused > 10


def test_what_cannot_be_a_directory(saved: tuple[Machine, Path, bytes]) -> None:
    machine, path, good = saved
    _, version, _, at, _, _, _ = HEADER.unpack_from(good)
    for text, says in (
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON"),
        (b"9" * 5000, "no JSON"),
    ):
        head = HEADER.pack(MAGIC, version, 0, at, len(text), hashlib.sha256(text).digest(), 0)[:-4]
        path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + good[HEADER.size : at] + text)
        with pytest.raises(SnapshotError, match=f"at offset {at:#x}: the directory is {says}"):
            machine.restore_file(str(path))
    head = HEADER.pack(MAGIC, 2, 0, at, 2, bytes(32), 0)[:-4]
    path.write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + good[HEADER.size :])
    with pytest.raises(SnapshotError, match="version 2 is not known"):
        machine.restore_file(str(path))
    path.write_bytes(b"#!/bin/sh" * 20)
    with pytest.raises(SnapshotError, match="another magic"):
        machine.restore_file(str(path))
    path.write_bytes(b"")
    with pytest.raises(SnapshotError, match="too short"):
        machine.restore_file(str(path))
    path.write_bytes(good)
    with pytest.raises(SnapshotError, match="a snapshot of 'simple', and this is isapc"):
        load("isapc").build().restore_file(str(path))


def test_the_command_loads_saves_and_restores(dragoman: Command, tmp_path: Path) -> None:
    (tmp_path / "fi@rmware").write_bytes(b"\x55\xaa" * 600)
    (tmp_path / "Image").write_bytes(bytes(16) + (1 << 20).to_bytes(8, "little") + bytes(32) + b"ARM\x64" + bytes(100))
    file = f"{tmp_path}/s"
    words = ["machine", "virt", "-m", "64M", "--load", f"{tmp_path}/fi@rmware@0x1000", "--load", f"{tmp_path}/Image"]
    done = dragoman(*words, "--save", file)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "fi@rmware: raw at 0x1000-0x14af (1,200 B)",
        "Image: arm64 Image at 0x40000000-0x400fffff (1.0 MiB), entry 0x40000000",
    ]
    machine = load("virt").build(Options(ram=64 * MIB))
    machine.restore_file(file)
    assert machine.memory.peek(0x1000 + 1198, 4) == b"\x55\xaa\0\0"
    assert dragoman("machine", "virt", "-m", "64M", "--restore", file, "--map").returncode == 0
    for wrong, says in (
        (["-m", "128M", "--restore", file], b"memory ram has 134,217,728 bytes here"),
        (["--load", f"{tmp_path}/fi@rmware"], b"no address of its own"),
        (["--load", f"{tmp_path}/none@0"], b"none: no such file"),
        (["--restore", f"{tmp_path}/Image"], b"is no snapshot"),
    ):
        done = dragoman("machine", "virt", *wrong)
        assert (done.returncode != 0, says in done.stderr, b"Traceback" in done.stderr) == (True, True, False), done
