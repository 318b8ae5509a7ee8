"""The NBD server: against Debian's clients, against clients that mean harm, and as a command."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dbt.machine.block import Disk, create_image, open_image
from dbt.machine.block.nbd import wire
from dbt.machine.block.nbd.handshake import MAX_OPTION, Handshake, Offer, Rejected
from dbt.machine.block.nbd.server import Server
from dbt.machine.block.nbd.server import server_context as make_context
from dbt.machine.block.nbd.session import Session
from dbt.machine.block.nbd.stream import Stream

from .nbd_peers import certificates, run, served, server_context

MIB = 1 << 20


def memory(size: int = 4 * MIB) -> Disk:
    return Disk(open_image({"driver": "memory", "size": size}, "raw", writable=True))


def option(number: int, data: bytes = b"") -> bytes:
    return wire.OPTION.pack(wire.IHAVEOPT, number, len(data)) + data


def request(
    command: int, offset: int = 0, length: int = 0, flags: int = 0, cookie: int = 7, data: bytes = b""
) -> bytes:
    return wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, command, cookie, offset, length) + data


GO = wire.string(b"") + struct.pack(">HH", 1, wire.INFO_NAME)
CONTEXTS = wire.string(b"") + struct.pack(">I", 1) + wire.string(wire.BASE_ALLOCATION)
FLAGS = struct.pack(">I", 3)


class Talk:
    """A client made by hand, over a pair of sockets, with the server's side in a thread."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or memory()
        self.mine, theirs = socket.socketpair()
        self.mine.settimeout(20)
        self.thread = threading.Thread(target=self._serve, args=(theirs,))
        self.thread.start()

    def _serve(self, theirs: socket.socket) -> None:
        stream = Stream(theirs)
        try:
            offer = Offer("", "", self.disk.size, 0x1ED, 4096)
            Session(self.disk, Handshake(stream, offer, None).run()).run()
        except (Rejected, OSError):
            pass
        finally:
            stream.close()

    def take(self, length: int) -> bytes:
        data = b""
        while len(data) < length and (more := self.mine.recv(length - len(data))):
            data += more
        return data

    def rest(self) -> bytes:
        data = b""
        try:
            while more := self.mine.recv(1 << 20):
                data += more
        except ConnectionResetError:
            pass
        return data

    def start(self, *, structured: bool = True) -> None:
        self.mine.sendall(FLAGS)
        if structured:
            self.mine.sendall(option(wire.OPT_STRUCTURED_REPLY) + option(wire.OPT_SET_META_CONTEXT, CONTEXTS))
        self.mine.sendall(option(wire.OPT_EXPORT_NAME))
        self.take(18 + (20 + 20 + 4 + 15 + 20 if structured else 0) + 10)

    def end(self) -> bytes:
        self.mine.shutdown(socket.SHUT_WR)
        data = self.rest()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.mine.close()
        return data


def error_of(reply: bytes) -> int:
    """The error in a reply, simple or structured."""
    if reply[:4] == struct.pack(">I", wire.SIMPLE_REPLY_MAGIC):
        return int(wire.SIMPLE_REPLY.unpack_from(reply)[1])
    _, _, kind, _, _ = wire.CHUNK.unpack_from(reply)
    return struct.unpack_from(">I", reply, wire.CHUNK.size)[0] if kind & 1 << 15 else 0


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (request(wire.CMD_READ, 4 * MIB - 1, 2), 22),
        (request(wire.CMD_READ, 1 << 63, 2), 22),
        (request(wire.CMD_WRITE, 4 * MIB, 2, data=b"xx"), 28),
        (request(wire.CMD_READ, 0, 4, flags=wire.CMD_FLAG_FUA), 22),
        (request(wire.CMD_FLUSH, 1, 0), 22),
        (request(wire.CMD_WRITE_ZEROES, 4 * MIB, 1), 28),
        (request(wire.CMD_TRIM, 4 * MIB, 1), 22),
        (request(wire.CMD_BLOCK_STATUS, 0, 0), 22),
        (request(wire.CMD_CACHE, 0, 1), 22),
        (request(77, 0, 1), 22),
    ],
)
def test_requests_that_cannot_be_get_an_error_and_the_next_is_served(bad: bytes, error: int, structured: bool) -> None:
    talk = Talk()
    talk.start(structured=structured)
    talk.mine.sendall(bad)
    first = talk.take(16)
    if structured and first[:4] == struct.pack(">I", wire.STRUCTURED_REPLY_MAGIC):
        first += talk.take(4)
        first += talk.take(wire.CHUNK.unpack(first)[4])
    assert error_of(first) == error
    talk.mine.sendall(request(wire.CMD_WRITE, 5, 3, data=b"abc", cookie=9))
    assert wire.SIMPLE_REPLY.unpack(talk.take(16)) == (wire.SIMPLE_REPLY_MAGIC, 0, 9)
    assert talk.end() == b""
    assert bytes(talk.disk.read(5, 3)) == b"abc"


def test_a_read_larger_than_is_allowed() -> None:
    talk = Talk(memory(1 << 30))
    talk.start(structured=False)
    talk.mine.sendall(request(wire.CMD_READ, 0, wire.MAX_PAYLOAD + 1))
    assert error_of(talk.take(16)) == 75
    talk.mine.sendall(request(wire.CMD_WRITE, 0, wire.MAX_PAYLOAD + 1))
    assert talk.rest() == b""  # it cannot know where the next request would begin
    talk.end()


def test_options_of_any_length_do_not_fill_memory() -> None:
    talk = Talk()
    talk.take(18)
    talk.mine.sendall(FLAGS + wire.OPTION.pack(wire.IHAVEOPT, wire.OPT_LIST, MAX_OPTION + 1))
    assert talk.rest() == b""
    talk.end()
    talk = Talk()
    talk.take(18)
    talk.mine.sendall(FLAGS + option(999) * 127)
    assert talk.take(20 * 127)
    talk.end()


def test_a_client_that_does_not_read_its_replies_is_not_read_from() -> None:
    talk = Talk(memory(64 * MIB))
    talk.start(structured=False)
    talk.mine.setblocking(False)
    sent = 0
    piece = request(wire.CMD_READ, 0, MIB) * 8
    idle = 0
    while idle < 20:  # until nothing more is taken for a while
        try:
            sent += talk.mine.send(piece)
            idle = 0
        except BlockingIOError:
            idle += 1
            threading.Event().wait(0.02)
        assert sent < 1 << 26
    talk.mine.close()
    talk.thread.join(20)
    assert not talk.thread.is_alive()


TALKS = [
    FLAGS + option(wire.OPT_LIST) + option(wire.OPT_INFO, GO) + option(wire.OPT_ABORT),
    FLAGS + option(wire.OPT_STARTTLS) + option(wire.OPT_STRUCTURED_REPLY) + option(wire.OPT_LIST_META_CONTEXT, CONTEXTS)
    + option(wire.OPT_SET_META_CONTEXT, CONTEXTS) + option(wire.OPT_GO, GO)
    + request(wire.CMD_WRITE, 3, 5, data=b"hello") + request(wire.CMD_READ, 0, 64)
    + request(wire.CMD_BLOCK_STATUS, 0, MIB)
    + request(wire.CMD_WRITE_ZEROES, 0, 65536) + request(wire.CMD_TRIM, 0, 65536) + request(wire.CMD_FLUSH)
    + request(wire.CMD_DISC),
    FLAGS + option(wire.OPT_EXPORT_NAME) + request(wire.CMD_READ, 0, 4096, cookie=1) * 3 + request(wire.CMD_DISC),
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out, doubled; numbers set to limits."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(found))
        kind = rng.randrange(4)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice((0, 1, (1 << 8 * width) - 1, 1 << 8 * width - 1, rng.getrandbits(8 * width)))
            found[at : at + width] = value.to_bytes(width, "big")
        elif kind == 2:
            del found[at : at + rng.choice((1, 4, 16, 28))]
        else:
            found[at:at] = found[at : at + rng.choice((4, 16, 28))]
        if not found:
            break
    return bytes(found)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_clients_send_ends_their_session_only(seed: int) -> None:
    rng = random.Random(seed)
    disk = memory()
    for _ in range(75):
        talk = Talk(disk)
        talk.mine.settimeout(20)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            talk.mine.sendall(mutated(rng.choice(TALKS), rng))
        try:
            talk.end()
        except OSError:
            talk.thread.join(20)
            assert not talk.thread.is_alive()
            talk.mine.close()
    disk.drain()  # nothing is left in flight


def test_silent_clients_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbt.machine.block.nbd.server.HANDSHAKE_SECONDS", 0.2)
    said: list[str] = []
    with memory() as disk, served(disk, clients=1, log=said.append) as server:
        address = server.listener.getsockname()
        with socket.create_connection(address) as silent, socket.create_connection(address) as second:
            for client in (silent, second):  # the second is served after the first has been cut off
                client.settimeout(20)
                assert client.recv(18) == wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT, 3)
                assert client.recv(1) == b""
    assert len(said) == 2


# Clients of others.


@pytest.mark.needs("nbdinfo", "nbdcopy", "qemu-img", "qemu-io")
def test_debians_clients(tmp_path: Path) -> None:
    data = bytearray(random.Random(1).randbytes(3 * MIB)) + bytes(2 * MIB)
    (tmp_path / "a.raw").write_bytes(data)
    create_image(str(tmp_path / "a.qcow2"), "qcow2", len(data))
    uri = f"nbd+unix:///a%20disk?socket={tmp_path / 's'}"
    disk = Disk(open_image(str(tmp_path / "a.qcow2"), "qcow2", writable=True))
    with disk, served(disk, tmp_path / "s", name="a disk", description="for a test"):
        run("nbdcopy", tmp_path / "a.raw", uri)
        assert bytes(disk.read(0, len(data))) == data
        told = json.loads(run("nbdinfo", "--json", uri))
        (export,) = told["exports"]
        assert (export["export-size"], export["description"]) == (len(data), "for a test")
        for can in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_fast_zero", "can_df"):
            assert export[can]
        assert "a disk" in run("nbdinfo", "--list", f"nbd+unix:///?socket={tmp_path / 's'}")
        rows = json.loads(run("nbdinfo", "--map", "--json", uri))
        assert [(row["offset"], row["type"]) for row in rows] == [(0, 0), (3 * MIB, 3)]
        run("nbdcopy", uri, tmp_path / "b.raw")
        assert (tmp_path / "b.raw").read_bytes() == data
        words = "write -P 7 1M 70k;write -z 2M 64k;write -z -u 128k 64k;discard 256k 64k;write -f -P 9 3M 5k;flush"
        run("qemu-io", "-f", "raw", *(word for command in words.split(";") for word in ("-c", command)), uri)
        data[MIB : MIB + 70 * 1024] = b"\7" * 70 * 1024
        for start in (2 * MIB, 128 << 10, 256 << 10):
            data[start : start + 65536] = bytes(65536)
        data[3 * MIB : 3 * MIB + 5120] = b"\x09" * 5120
        assert bytes(disk.read(0, len(data))) == data
        disk.resize(6 * MIB)
        assert run("nbdinfo", "--size", uri) == f"{6 * MIB}\n"
        run("nbdinfo", f"nbd+unix:///other?socket={tmp_path / 's'}", status=1)
    run("qemu-img", "check", tmp_path / "a.qcow2")


@pytest.mark.needs("nbdcopy", "openssl", "qemu-img")
def test_tls(tmp_path: Path) -> None:
    folder = certificates(tmp_path / "pki")
    data = random.Random(2).randbytes(3 * MIB + 5)
    (tmp_path / "a.raw").write_bytes(data)
    for clients in (False, True):
        with memory(len(data)) as disk, served(disk, tls=server_context(folder, clients=clients)) as server:
            host, port = "localhost", server.listener.getsockname()[1]
            secure = f"nbds://{host}:{port}/?tls-certificates={folder}"
            run("nbdcopy", tmp_path / "a.raw", secure)
            assert bytes(disk.read(0, len(data))) == data
            run("nbdcopy", secure, tmp_path / "b.raw")
            assert (tmp_path / "b.raw").read_bytes() == data
            run("nbdinfo", f"nbd://{host}:{port}/", status=1)  # TLS only
            client = f"tls-creds-x509,id=tls0,endpoint=client,dir={folder}"
            opts = f"driver=nbd,host={host},port={port},tls-creds=tls0"
            run("qemu-img", "info", "--object", client, "--image-opts", opts)
            if clients:
                for name in ("client-cert.pem", "client-key.pem"):
                    (folder / name).rename(folder / f"no-{name}")
                run("nbdinfo", secure, status=1)  # without a certificate of its own


def test_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nowhere\.pem"):
        make_context(str(tmp_path / "nowhere.pem"), None, None)


@pytest.mark.needs("qemu-io")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path, number: int) -> None:
    create_image(str(tmp_path / "a.qcow2"), "qcow2", MIB)
    command = Path(sys.executable).with_name("dragoman")
    words: list[str | Path] = [command, "nbd", "-f", "qcow2", "-k", tmp_path / "s", tmp_path / "a.qcow2"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    uri = child.stdout.readline().strip()
    assert uri == f"nbd+unix:///?socket={tmp_path / 's'}"
    run("qemu-io", "-f", "raw", "-c", "write -P 5 0 64k", uri)
    child.send_signal(number)
    assert child.wait(20) == 0
    child.stdout.close()
    assert not os.path.exists(tmp_path / "s")
    with Disk(open_image(str(tmp_path / "a.qcow2"))) as disk:
        assert bytes(disk.read(0, 65536)) == b"\5" * 65536


def test_the_command_wants_a_format_and_one_place_to_listen(dragoman: object, tmp_path: Path) -> None:
    create_image(str(tmp_path / "a.raw"), "raw", MIB)
    assert callable(dragoman)
    done = dragoman("nbd", "-k", tmp_path / "s", tmp_path / "a.raw")
    assert done.returncode == 1
    assert b"-f" in done.stderr
    assert dragoman("nbd", "-k", tmp_path / "s", "-p", "0", "-f", "raw", tmp_path / "a.raw").returncode == 2
    assert dragoman("nbd", "--help").returncode == 0


def test_once_ends_with_the_last_client() -> None:
    with memory() as disk, served(disk, once=True) as server:
        assert isinstance(server, Server)
        with socket.create_connection(server.listener.getsockname()) as client:
            client.sendall(FLAGS + option(wire.OPT_EXPORT_NAME) + request(wire.CMD_DISC))
            client.settimeout(20)
            while client.recv(4096):
                pass
        assert server._stopping.wait(20)


def test_a_host_without_descriptors_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are served stay, and who comes is served later."""
    monkeypatch.setattr("dbt.machine.block.nbd.server.PAUSE_SECONDS", 0.001)
    said: list[str] = []
    disk, listener = memory(), socket.create_server(("127.0.0.1", 0))
    refusals = [errno.EMFILE, errno.ECONNABORTED]
    accept = listener.accept

    class Short(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if refusals:
                code = refusals.pop()
                raise OSError(code, os.strerror(code))
            return accept()

    server = Server(disk, Short(fileno=listener.fileno()), log=said.append)
    thread = threading.Thread(target=server.serve)
    thread.start()
    with socket.create_connection(listener.getsockname()) as client:
        client.settimeout(20)
        assert client.recv(8) == b"NBDMAGIC"
    server.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert [text for text in said if "yet" in text] == [
        f"a client cannot be taken yet: {os.strerror(code)}" for code in (errno.ECONNABORTED, errno.EMFILE)
    ]
    listener.detach()
    disk.close()
