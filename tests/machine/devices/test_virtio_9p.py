"""A shared folder, as a guest mounts it: over all transports and rings, and against QEMU's."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.devices.virtio_9p import Virtio9p
from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.ninep import Share
from dbt.machine.ninep.wire import HEADER, MESSAGES, NUMBERS_OF, encode, message
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import DEVICE_NEEDS_RESET, RING_PACKED

from tests.machine.fuzzing import fuzz
from tests.machine.ninep.client import Client, Refused
from tests.machine.qtest import ARM, Bus, agree, qemu
from tests.machine.test_virtio_qemu import arm, by_mmio, note
from tests.machine.virtio import KINDS, Guest, Ring, connect
from tests.machine.virtio_hostile import drive

if TYPE_CHECKING:
    from random import Random

    from dbt.machine.device import Device

ROOM = 70_000


class Mount:
    """A folder, its device and a guest that speaks 9P to it."""

    def __init__(self, kind: str, folder: Path, wanted: int = ~0, rings: int = RINGS | RING_PACKED) -> None:
        self.share = Share(str(folder))
        made: list[Virtio9p] = []

        def make(machine: Machine) -> Virtio9p:
            made.append(Virtio9p("p9", machine, self.share, tag="folder", rings=rings))
            return made[0]

        self.guest, _ = connect(kind, make)
        self.device = made[0]
        self.guest.begin(wanted)
        self.ring: Ring = self.guest.queue(0, 128)
        self.guest.go()
        self.client = Client(partial(carry, self.guest, self.ring))

    def close(self) -> None:
        self.device.machine.close()


def carry(guest: Guest, ring: Ring, request: bytes) -> bytes:
    """As Linux does: header and data of a write, and of a read's reply, are buffers of their own."""
    cut = 23 if request[4] == NUMBERS_OF["write"] else len(request)
    out = [request[:cut], request[cut:]] if cut < len(request) else [request]
    written, data = guest.request(ring, out, [11, ROOM])
    return data[:written]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    made: list[Mount] = []

    def start(kind: str = "mmio", *options: Any) -> Mount:
        made.append(Mount(kind, tmp_path, *options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_files_over_all_transports(kind: str, packed: bool, mount: Callable[..., Mount], tmp_path: Path) -> None:
    one = mount(kind, ~0 if packed else ~RING_PACKED)
    transport = one.guest.transport
    assert transport.config(0, 2) == 6
    assert bytes(transport.config(2 + at, 1) for at in range(6)) == b"folder"
    client = one.client
    client.start(65536)
    data = os.urandom(100_000)
    fid = client.create("file", data[:50_000])
    client.write(fid, 50_000, data[50_000:])
    client.ask("clunk", fid)
    assert (tmp_path / "file").read_bytes() == data == client.read("file")
    assert client.names().keys() == {b".", b"..", b"file"}
    assert client.fails("walk", 0, 5, [b"missing"]) == errno.ENOENT
    one.guest.reset()
    assert len(one.device.session.fids) == 0  # type: ignore[union-attr]


def test_many_at_once(mount: Callable[..., Mount], tmp_path: Path) -> None:
    one = mount()
    one.client.start()
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 5000)
    fids = [one.client.open(str(number)) for number in range(20)]
    chains = {}
    for tag, fid in enumerate(fids):
        request = message(NUMBERS_OF["read"], tag, encode("dqd", (fid, 0, 5000)))
        buffers = one.guest.buffers([request], [11, 5000])
        chains[one.ring.add(buffers, indirect=True)] = tag, buffers
    one.ring.kick()
    for chain, written in one.guest.wait(one.ring, 20):
        tag, buffers = chains[chain]
        assert written == 5011
        assert one.guest.bus.load(buffers[2][0], 5000) == bytes([tag]) * 5000


def test_flushes_wait_and_resets_do_not(
    mount: Callable[..., Mount], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = mount()
    one.client.start()
    (tmp_path / "slow").write_bytes(b"data")
    fid = one.client.open("slow")
    gate, entered = threading.Event(), threading.Event()
    plain = os.preadv

    def slow(*values: Any) -> int:
        entered.set()
        gate.wait(10)
        return plain(*values)

    monkeypatch.setattr(os, "preadv", slow)

    def begin(name: str, tag: int, *values: Any) -> int:
        request = message(NUMBERS_OF[name], tag, encode(MESSAGES[NUMBERS_OF[name]].request, values))
        chain = one.ring.add(one.guest.buffers([request], [11, 100]), indirect=True)
        one.ring.kick(always=True)
        return chain

    read = begin("read", 1, fid, 0, 4)
    entered.wait(10)
    flush = begin("flush", 2, 1)
    nothing = begin("flush", 3, 77)
    again = begin("flush", 4, 2)  # of a flush: that is not waited for
    assert {chain for chain, _ in one.guest.wait(one.ring, 2)} == {nothing, again}
    assert one.device.busy
    with one.device.machine.lock:  # which is free while the host is waited for
        pass
    gate.set()
    assert [chain for chain, _ in one.guest.wait(one.ring, 2)] == [read, flush]
    one.device.settle()
    # The driver resets while the host is waited for
    gate.clear()
    entered.clear()
    begin("read", 1, fid, 0, 4)
    entered.wait(10)
    one.guest.transport.set_status(0)
    assert one.guest.transport.status() != 0  # its memory is still in use
    gate.set()
    one.guest.until(lambda: one.guest.transport.status() == 0)
    one.guest.begin()
    one.ring = one.guest.queue(0, 128)
    one.guest.go()
    client = Client(partial(carry, one.guest, one.ring))
    client.start()
    assert client.read("slow") == b"data"


@pytest.mark.parametrize(
    ("out", "into"), [([b""], []), ([b"\7\0\0\0\x78\0\0"], [4]), ([message(24, 1, bytes(12))], [7]), ([], [100])]
)
def test_no_room_for_a_reply(out: list[bytes], into: list[int], mount: Callable[..., Mount]) -> None:
    one = mount()
    buffers = one.guest.buffers([data for data in out if data] or ([b"x"] if not into else []), into)
    one.ring.add(buffers)
    one.ring.kick()
    if into == [100]:  # no message, but room to say so
        ((_, written),) = one.guest.wait(one.ring, 1)
        assert written == HEADER.size + 4
    else:
        one.guest.until(lambda: bool(one.guest.transport.status() & DEVICE_NEEDS_RESET))


def test_a_message_from_before_a_reset_breaks_nothing(
    mount: Callable[..., Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = mount()
    jobs: list[Callable[[], None]] = []
    with monkeypatch.context() as patch:
        patch.setattr(one.device.workers, "submit", jobs.append)
        one.ring.add(one.guest.buffers([bytes(7)], [1]))
        one.ring.kick()
        one.guest.transport.set_status(0)
    assert one.guest.transport.status()  # not over before the message is
    for job in jobs:
        job()
    assert (one.device.broken, one.guest.transport.status()) == (0, 0)
    assert len(jobs) == 2  # the message; what was opened is closed


def test_saved_and_restored(mount: Callable[..., Mount], tmp_path: Path) -> None:
    one = mount()
    client = one.client
    client.start()
    fid = client.create("file", b"before")
    saved = json.loads(json.dumps(one.device.machine.save()))
    one.device.machine.reset()
    assert not len(one.device.session.fids)  # type: ignore[union-attr]
    (tmp_path / "file").write_bytes(b"BEFORE, and after")
    one.device.machine.restore(saved)
    assert client.write(fid, 6, b"!") == 1
    assert client.read("file") == b"BEFORE! and after"
    saved["devices"]["p9"]["session"] = None
    with pytest.raises(SnapshotError, match="folder"):
        one.device.machine.restore(saved)


def test_without_a_folder() -> None:
    guest, device = connect("mmio", lambda machine: Virtio9p("p9", machine))
    guest.begin()
    ring = guest.queue(0, 8)
    guest.go()
    assert guest.transport.config(0, 2) == 0
    ring.add(guest.buffers([b"x"], [100]))
    ring.kick()
    assert guest.transport.status() & DEVICE_NEEDS_RESET
    assert device.save()["session"] is None


def test_impossible_tags(tmp_path: Path) -> None:
    share = Share(str(tmp_path))
    for tag in ("", "x" * 65):
        with pytest.raises(MapError, match="a tag of"):
            Virtio9p("p9", Machine(), share, tag=tag)
    share.close()


def test_random_traffic(tmp_path: Path) -> None:
    """Messages are hostile elsewhere; here rings are, and time, resets and snapshots come between."""
    (tmp_path / "file").write_bytes(b"data")
    share = Share(str(tmp_path), readonly=True)
    made: list[Virtio9p] = []
    requests = [
        message(100, 0, encode("ds", (8192, b"9P2000.L"))),
        message(104, 1, encode("ddssd", (0, 0xFFFF_FFFF, b"", b"", 0))),
        message(110, 2, encode("dd*s", (0, 1, [b"file"]))), message(12, 3, encode("dd", (1, 0))),
        message(116, 4, encode("dqd", (1, 0, 100))), message(24, 5, encode("dq", (0, 0x7FF))),
        message(120, 6, encode("d", (1,))),
    ]  # fmt: skip

    def make(machine: Machine) -> Device:
        machine.place(RAM("ram", 0x1_0000), 0x4000_0000)
        made.append(Virtio9p("p9", machine, share, queue_size=16, rings=RINGS | RING_PACKED))
        return VirtioMmio("mmio", machine, device=made[-1])

    def also(device: Device, random: Random) -> None:
        drive(device, random, lambda _: random.choice(requests))
        if not random.randrange(50):
            made[0].settle()

    fuzz(make, 1260, also=also, settle=lambda machine: machine.devices["p9"].settle())
    for one in made:
        one.close()
    share.close()


# Against QEMU's


class Compared(Client):
    """Notes what the server says: inodes by the order in which they came, no times and places on a disk."""

    def __init__(self, carry: Callable[[bytes], bytes], bus: Bus) -> None:
        super().__init__(carry)
        self.bus = bus
        self.inodes: dict[int, int] = {}

    def qid(self, qid: tuple[int, int, int]) -> tuple[int, int]:
        return qid[0], self.inodes.setdefault(qid[2], len(self.inodes))

    def plain(self, name: str, found: Any) -> Any:
        match name:
            case "walk":
                return [self.qid(qid) for qid in found]
            case "attach" | "mkdir" | "symlink" | "mknod":
                return self.qid(found)
            case "lopen" | "lcreate":
                return self.qid(found[0])  # iounit is a hint
            case "getattr":
                return self.qid(found[1]), *found[2:8]
            case "statfs":
                return found[8]  # QEMU's blocks are as large as messages
            case "readdir":
                return len(found) > 0
        return found

    def ask(self, name: str, *values: Any, payload: bytes = b"") -> Any:
        try:
            found = super().ask(name, *values, payload=payload)
        except Refused as refused:
            note(self.bus, f"{name} {values} fails", refused.code)
            raise
        text = repr(self.plain(name, found)).encode()
        note(self.bus, f"{name} {values}", int.from_bytes(text, "big"))
        return found


def script(guest: Guest) -> None:
    transport = guest.transport
    for at in range(6):
        transport.config(at, 1)
    guest.begin(1)
    ring = guest.queue(0, 128)
    guest.go()
    client = Compared(partial(carry, guest, ring), guest.bus)
    client.ask("version", 65536, b"9P2000.L")
    client.ask("attach", 0, 0xFFFF_FFFF, b"root", b"", 0)
    fid = client.create("new", b"some text", 0o640)
    client.ask("getattr", fid, 0x7FF)
    client.ask("fsync", fid, 1)
    client.ask("clunk", fid)
    assert client.read("new") == client.read("there") == b"some text"
    client.ask("mkdir", 0, b"sub", 0o755, 0)
    client.ask("symlink", 0, b"link", b"sub/nowhere", 0)
    client.ask("readlink", client.walk("link"))
    client.ask("mknod", 0, b"fifo", 0o100644, 0, 0, 0)
    client.ask("link", client.walk("sub"), client.walk("new"), b"second")
    client.ask("renameat", 0, b"there", client.walk("sub"), b"moved")
    moved = client.walk("sub/moved")
    client.set(moved, 1, mode=0o600)
    client.set(moved, 8, size=3)
    client.set(moved, 0x1B0, atime=(5, 6), mtime=(7, 8))
    client.ask("getattr", moved, 0x7FF)
    client.ask("rename", moved, 0, b"back")
    client.ask("getattr", moved, 0x7FF)
    client.ask("walk", 0, 50, [b"sub", b"..", b"..", b"back"])
    client.ask("walk", 0, 51, [b"sub", b"missing"])
    note(guest.bus, "names", int.from_bytes(repr(sorted(client.names("sub"))).encode(), "big"))
    client.ask("statfs", 0)
    lock = client.open("back", 2)
    client.ask("lock", lock, 1, 0, 0, 10, 5, b"guest")
    client.ask("unlinkat", 0, b"fifo", 0)
    for request in (
        ("walk", 0, 60, [b"missing"]), ("unlinkat", 0, b"sub", 0x200), ("unlinkat", 0, b"x", 0), ("walk", 0, 50, []),
        ("mkdir", 0, b"sub", 0o700, 0), ("readlink", client.walk("back")), ("walk", 0, 60, [b"a/b"]),
        ("walk", 0, 60, [b""]), ("mkdir", 0, b"a/b", 0o700, 0), ("lopen", client.walk("link"), 0),
        ("unlinkat", 0, b"sub", 0), ("remove", client.walk("sub")), ("link", 0, client.walk("sub"), b"folder"),
        ("attach", 0, 0xFFFF_FFFF, b"root", b"", 0),
    ):  # fmt: skip
        client.fails(*request)
    client.ask("remove", moved)
    client.ask("unlinkat", client.walk("sub"), b"second", 0)
    client.ask("unlinkat", 0, b"sub", 0x200)
    note(guest.bus, "names", int.from_bytes(repr(sorted(client.names())).encode(), "big"))


@pytest.mark.needs("qemu-system-aarch64")
def test_it_agrees_with_qemu(tmp_path: Path) -> None:
    folders = []
    for name in ("ours", "theirs"):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "there").write_bytes(b"some text")
    share = Share(str(folders[0]))
    devices: list[Virtio9p] = []

    def build(machine: Machine) -> Virtio9p:
        devices.append(Virtio9p("p9", machine, share, tag="host"))
        return devices[0]

    options = [
        "-global",
        "virtio-mmio.force-legacy=false",
        "-fsdev",
        f"local,id=f,path={folders[1]},security_model=none",
    ]
    options += ["-device", "virtio-9p-device,fsdev=f,mount_tag=host"]
    with qemu(*ARM, "-nodefaults", *options, running=True) as other:
        assert agree(by_mmio(script), arm(build), other) > 90
    devices[0].close()
    share.close()
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(path.name for path in folders[1].iterdir())
