"""diod, another implementation of 9P2000.L: its clients on our server, and our client on its server."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbt.machine.ninep import Session, Share

from tests.machine.ninep.client import Client


def message(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < int.from_bytes(data[:4], "little"):
        wanted = int.from_bytes(data[:4], "little") - len(data) if len(data) >= 4 else 4 - len(data)
        if not (piece := connection.recv(wanted)):
            raise EOFError
        data += piece
    return data


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Our server behind a port, one connection at a time."""
    share = Share(str(folder))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    session = Session(share)
                    with connection, contextlib.suppress(EOFError):
                        while True:
                            connection.sendall(session.call(message(connection)))
                    session.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    share.close()


def run(*words: str) -> bytes:
    return subprocess.run(words, check=True, capture_output=True, timeout=30).stdout


@pytest.mark.needs("diodls", "diodcat")
def test_their_clients(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    (tmp_path / "sub").mkdir()
    for number in range(200):
        (tmp_path / "sub" / f"{number}").touch()
    with serving(tmp_path) as port:
        server = ("-s", f"127.0.0.1:{port}", "-a", "/")
        assert run("diodcat", *server, "file") == (tmp_path / "file").read_bytes()
        assert set(run("diodls", *server).split()) >= {b"file", b"sub"}
        names = {line.split()[-1] for line in run("diodls", "-l", *server, "sub").splitlines() if line}
        assert names >= {str(number).encode() for number in range(200)}


@pytest.mark.needs("diod")
def test_their_server(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = str(tmp_path / "socket")
    words = ["diod", "--foreground", "--no-auth", "--export", str(folder), "--listen", path, "--logdest", "stderr"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    connection.connect(path)
                    break
                time.sleep(0.02)

            def carry(request: bytes) -> bytes:
                connection.sendall(request)
                return message(connection)

            client = Client(carry)
            client.ask("version", 65536, b"9P2000.L")
            client.ask("attach", 0, 0xFFFF_FFFF, b"root", str(folder).encode(), os.getuid())
            client.create("file", b"some text")
            assert client.read("file") == b"some text"
            client.ask("mkdir", 0, b"sub", 0o755, 0)
            client.ask("rename", client.walk("file"), client.walk("sub"), b"moved")
            assert client.attributes(client.walk("sub/moved"))["size"] == 9
            assert client.names("sub").keys() == {b".", b"..", b"moved"}
            assert client.fails("remove", client.walk("sub")) == errno.ENOTEMPTY
            lock = client.open("sub/moved", 2)
            assert client.ask("lock", lock, 1, 0, 0, 10, 5, b"guest") == 0
            client.set(client.walk("sub/moved"), 8, size=4)
        assert (folder / "sub" / "moved").read_bytes() == b"some"
    finally:
        process.kill()
        process.wait()
