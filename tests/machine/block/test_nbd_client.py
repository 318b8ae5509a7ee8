"""NBD as client: against Debian's servers, ours, one that crashes, and one that lies."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import (
    FLUSH,
    FUA,
    MAY_UNMAP,
    BadOption,
    BlockError,
    Disk,
    HostError,
    Request,
    create_image,
    open_image,
    parse_spec,
)  # fmt: skip
from dbt.machine.block.nbd import wire
from dbt.machine.block.tool.parser import main

from .nbd_peers import certificates, program, served, server_context

MIB = 1 << 20
SIZE = 4 * MIB


def memory(size: int = SIZE) -> Disk:
    return Disk(open_image({"driver": "memory", "size": size}, "raw", writable=True))


def client(path: Path, **options: Any) -> Disk:
    tree = {"driver": "nbd", "path": str(path), "reconnect-delay": 20, **options}
    return Disk(open_image(tree, "raw", writable=True))


def test_uris() -> None:
    def options(uri: str) -> dict[str, Any]:
        spec = parse_spec(uri)
        assert spec.driver == "nbd"
        return {
            name: value for name, value in spec.options.items() if name in {"host", "port", "path", "export", "tls"}
        }

    assert options("nbd://h/a%2Fb") == {"host": "h", "port": 10809, "path": "", "export": "a/b", "tls": False}
    assert options("nbds://[::1]:77/") == {"host": "::1", "port": 77, "path": "", "export": "", "tls": True}
    assert options("nbd+unix:///x?socket=/a%20b") == {
        "host": "", "port": 10809, "path": "/a b", "export": "x", "tls": False,
    }  # fmt: skip
    assert parse_spec("nbd://h/?reconnect-delay=0").options["reconnect-delay"] == 0
    for bad in ("nbd:///x", "nbd+unix:///x", "nbd://h:99999/", "nbd://h/?what=1", "nbd+unix://h/x?socket=a"):
        with pytest.raises(BadOption):
            parse_spec(bad)


def work(disk: Disk, seed: int, steps: int = 150) -> bytes:
    """Random operations; what the disk has to read as."""
    rng = random.Random(seed)
    model = bytearray(disk.size)
    disk.write_zeroes(0, disk.size)
    for _ in range(steps):
        length = rng.choice((1, 512, 4096, 70_001, 300_000))
        at = rng.randrange(disk.size - length)
        kind = rng.randrange(6)
        if kind < 3:
            data = rng.randbytes(length)
            disk.write(at, data, FUA if kind == 1 else 0)
            model[at : at + length] = data
        elif kind == 3:
            disk.write_zeroes(at, length, rng.choice((0, MAY_UNMAP)))
            model[at : at + length] = bytes(length)
        elif kind == 4:
            disk.flush()
        else:
            assert bytes(disk.read(at, length)) == model[at : at + length]
    at = 0
    while at < disk.size:
        extent = disk.status(at, disk.size - at)
        assert not extent.zero or not any(model[at : at + extent.length])
        at += extent.length
    return bytes(model)


Words = Callable[[Path, Path], list[str]]
SERVERS: dict[str, Words] = {
    "nbdkit": lambda image, path: ["nbdkit", "-f", "-U", str(path), "file", str(image)],
    "nbdkit, large blocks": lambda image, path: [
        "nbdkit", "-f", "-U", str(path), "--filter=blocksize-policy", "file", str(image),
        "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=64K", "blocksize-error-policy=error",
    ],
    "nbdkit, old": lambda image, path: ["nbdkit", "-f", "--no-sr", "-U", str(path), "file", str(image)],
    "qemu-nbd": lambda image, path: ["qemu-nbd", "-t", "-f", "raw", "-k", str(path), str(image)],
    "nbd-server": lambda image, path: ["nbd-server", "-d", "-C", str(configuration(image, path))],
}  # fmt: skip


def configuration(image: Path, path: Path) -> Path:
    """What nbd-server wants to know, in a file."""
    found = path.with_suffix(".conf")
    found.write_text(
        f"[generic]\nunixsock = {path}\nlistenaddr = 127.0.0.1\nport = {free_port()}\nallowlist = true\n"
        f"[disk]\nexportname = {image}\nflush = true\nfua = true\ntrim = true\n"
    )
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.needs("nbdkit", "qemu-nbd", "nbd-server")
@pytest.mark.parametrize("name", list(SERVERS))
def test_debians_servers_also_when_they_die(tmp_path: Path, name: str) -> None:
    image, path = tmp_path / "a.raw", tmp_path / "s"
    create_image(str(image), "raw", SIZE)
    export = "disk" if name == "nbd-server" else ""
    words = SERVERS[name](image, path)
    with program(*words, socket=path) as server:
        disk = client(path, export=export)
        assert disk.size == SIZE
        model = bytearray(work(disk, 1))
        disk.write(5, b"before")
        server.kill()
        server.wait()
        path.unlink(missing_ok=True)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(bytes(disk.read(0, 64))))
        reader.start()  # waits for the server to come back
        with program(*words, socket=path):
            reader.join(20)
            disk.write(20, b"after")
            model[5:11], model[20:25] = b"before", b"after"
            assert found == [bytes(model[:20]) + found[0][20:]]
            assert bytes(disk.read(0, SIZE)) == model
            disk.close()
        assert image.read_bytes() == model


def test_acknowledged_writes_survive_a_server_that_forgets_them(tmp_path: Path) -> None:
    path = tmp_path / "s"
    disk_of_old, disk_of_new = memory(), memory()
    with served(disk_of_old, path):
        disk = client(path)
        disk.write(0, b"a" * 8192)
        disk.flush()
        disk.write(4096, b"b" * 8192)
        disk.write_zeroes(8192, 100)
        disk.write(8000, b"c" * 300, FUA)
    disk_of_new.write(0, b"a" * 8192)  # what was flushed is all that has survived
    with served(disk_of_new, path):
        request = Request(FLUSH)
        disk.run(request)
        expected = b"a" * 4096 + b"b" * 3904 + b"c" * 300 + b"b" * 3988
        assert bytes(disk_of_new.read(0, 12288)) == expected
        disk.write(0, b"d")
        disk.close()
        assert bytes(disk_of_new.read(0, 1)) == b"d"


def test_what_is_kept_is_bounded_by_flushes_of_our_own(tmp_path: Path) -> None:
    backing = memory()
    with served(backing, tmp_path / "s"):
        disk = client(tmp_path / "s", **{"replay-limit": 100_000})
        node: Any = disk.node.children["file"]
        for at in range(0, SIZE, 30_000):
            disk.write(at, b"x" * min(30_000, SIZE - at))
            assert 0 < node.link.kept_bytes <= 100_000
        disk.flush()
        assert node.link.kept_bytes == 0
        assert not node.link.kept
        disk.close()


@pytest.mark.parametrize("delay", [0, 1])
def test_a_server_that_stays_away_fails_every_request(tmp_path: Path, delay: int) -> None:
    with served(memory(), tmp_path / "s"):
        disk = client(tmp_path / "s", **{"reconnect-delay": delay})
        disk.write(0, b"x")
    with pytest.raises(HostError, match="may be lost" if delay else "connection lost"):
        disk.read(0, 1)
    with served(memory(), tmp_path / "s"):  # too late: what was acknowledged is not there
        with pytest.raises(HostError, match="connection lost"):
            disk.flush()
        with pytest.raises(HostError, match="connection lost"):
            disk.close()


def test_a_server_that_comes_back_smaller_is_refused(tmp_path: Path) -> None:
    with served(memory(), tmp_path / "s"):
        disk = client(tmp_path / "s")
        disk.write(0, b"x")
    with served(memory(SIZE - 4096), tmp_path / "s"):
        with pytest.raises(HostError, match="came back as another"):
            disk.read(0, 1)
        with pytest.raises(HostError):
            disk.close()


def test_many_threads_and_a_server_that_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    backing = memory()
    stop = threading.Event()
    wrong: list[str] = []

    def one(number: int, disk: Disk) -> None:
        rng = random.Random(number)
        base, model = number * MIB, bytearray(MIB)
        while not stop.is_set():
            at, length = rng.randrange(MIB - 5000), rng.randrange(1, 5000)
            data = rng.randbytes(length)
            disk.write(base + at, data)
            model[at : at + length] = data
            at = rng.randrange(MIB - 5000)
            if bytes(disk.read(base + at, 5000)) != model[at : at + 5000]:
                wrong.append(f"thread {number} at {at}")
        if bytes(disk.read(base, MIB)) != model:
            wrong.append(f"thread {number} at the end")

    with served(backing, path):
        disk = client(path)
        threads = [threading.Thread(target=one, args=(n, disk)) for n in range(4)]
        for thread in threads:
            thread.start()
        stop.wait(0.2)
    for _ in range(3):
        with served(backing, path):
            stop.wait(0.2)
    with served(backing, path):
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        disk.close()
    assert wrong == []


def test_no_server_and_a_wrong_export_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        client(tmp_path / "s")
    with served(memory(), tmp_path / "s", name="disk"):
        with pytest.raises(HostError, match="no export of that name"):
            client(tmp_path / "s", export="other")
        with pytest.raises(HostError, match="does not do TLS"):
            client(tmp_path / "s", tls=True)
    with pytest.raises(BadOption, match="host or path"):
        Disk(open_image("driver=nbd,export=x", "raw"))


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    create_image(str(tmp_path / "a.raw"), "raw", MIB)
    with served(Disk(open_image(str(tmp_path / "a.raw"), "raw")), tmp_path / "s"):
        with pytest.raises(HostError, match="cannot be written"):
            client(tmp_path / "s")
        with Disk(open_image({"driver": "nbd", "path": str(tmp_path / "s")}, "raw")) as disk:
            assert not any(disk.read(0, MIB))


@pytest.mark.needs("openssl")
def test_tls(tmp_path: Path) -> None:
    folder = certificates(tmp_path / "pki")
    with memory() as backing, served(backing, tls=server_context(folder, clients=True)) as server:
        port = server.listener.getsockname()[1]
        uri = f"nbds://localhost:{port}/?tls-certificates={folder}"
        with Disk(open_image(uri, "raw", writable=True)) as disk:
            assert work(disk, 3) == bytes(backing.read(0, SIZE))
        for wrong in (
            f"nbds://localhost:{port}/",  # not signed by an authority that this system knows
            f"{uri}&tls-hostname=elsewhere",
            f"nbd://localhost:{port}/",
        ):
            with pytest.raises(HostError, match=r"TLS|certificate|CERTIFICATE|Hostname"):
                open_image(wrong, "raw")


class Liar:
    """Between a client and our server: passes on what the server says, with a few bits turned."""

    def __init__(self, path: Path, backing: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.backing = backing
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.threads = [threading.Thread(target=self._serve)]
        self.threads[0].start()

    def _serve(self) -> None:
        mine, _ = self.listener.accept()
        theirs = socket.socket(socket.AF_UNIX)
        theirs.connect(str(self.backing))
        up = threading.Thread(target=self._pass, args=(mine, theirs, 0.0))
        up.start()
        self._pass(theirs, mine, self.rng.choice((0.002, 0.01, 0.1)))
        up.join()
        mine.close()
        theirs.close()

    def _pass(self, source: socket.socket, target: socket.socket, rate: float) -> None:
        try:
            while data := bytearray(source.recv(512)):
                for at in range(len(data)):
                    if self.rng.random() < rate:
                        data[at] = self.rng.choice((0, 255, data[at] ^ 1 << self.rng.randrange(8)))
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.threads[0].join(20)
        assert not self.threads[0].is_alive()
        self.listener.close()


def test_a_server_that_lies_causes_errors_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbt.machine.block.protocols.nbd.HANDSHAKE_SECONDS", 0.2)
    monkeypatch.setattr(socket.socket, "settimeout", _short(socket.socket.settimeout))
    ends = {"error": 0, "through": 0}
    with memory() as backing, served(backing, tmp_path / "s"):
        for seed in range(60):
            path = tmp_path / f"liar{seed}"
            liar = Liar(path, tmp_path / "s", seed)
            try:
                with client(path, **{"reconnect-delay": 0}) as disk:
                    disk.write(10, b"x" * 100)
                    disk.read(0, min(disk.size, 4096))
                    disk.status(0, min(disk.size, MIB))
                    disk.flush()
                ends["through"] += 1
            except BlockError:
                ends["error"] += 1
            liar.close()
    assert ends["error"] > 20


def _short(plain: Callable[[socket.socket, float | None], None]) -> Callable[[socket.socket, float | None], None]:
    """Also requests end soon, if a reply never comes because its cookie was turned."""
    return lambda self, seconds: plain(self, 0.2 if seconds is None else seconds)


@pytest.mark.needs("qemu-nbd")
def test_commands_take_uris(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, path = tmp_path / "a.qcow2", tmp_path / "s"
    data = random.Random(5).randbytes(MIB) + bytes(2 * MIB)
    (tmp_path / "a.raw").write_bytes(data)
    create_image(str(image), "qcow2", len(data))
    uri = f"nbd+unix:///?socket={path}"
    with program("qemu-nbd", "-t", "-f", "qcow2", "-k", str(path), str(image), socket=path):
        assert main(["convert", "-n", "-f", "raw", "-O", "raw", str(tmp_path / "a.raw"), uri]) == 0
        assert main(["compare", "-f", "raw", "-F", "raw", uri, str(tmp_path / "a.raw")]) == 0
        assert main(["convert", "-f", "raw", "-O", "qcow2", uri, str(tmp_path / "b.qcow2")]) == 0
        assert main(["info", "--json", "-f", "raw", uri]) == 0
    assert "the images are the same" in capsys.readouterr().out
    assert (tmp_path / "b.qcow2").stat().st_size < 2 * MIB
    with Disk(open_image(str(tmp_path / "b.qcow2"))) as disk:
        assert bytes(disk.read(0, disk.size)) == data


def test_names_of_errors_cover_each_other() -> None:
    assert all(wire.ERRORS[code] == number for number, code in wire.HOST_ERRORS.items())
