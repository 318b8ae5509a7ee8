"""TLS of our client with servers of others; Linux' own client, nbd-client and the kernel, with our server."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dbt.machine.block import Disk, HostError, create_image, open_image

from .nbd_peers import certificates, run, served

MIB = 1 << 20
SIZE = 4 * MIB
KERNEL = Path("/dev/nbd0")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def listening(words: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of somebody else's, once its port answers; killed at the end."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert child.poll() is None, child.communicate()[1]
                assert time.monotonic() < end
                time.sleep(0.02)
        yield child
    finally:
        child.kill()
        child.communicate()


Words = Callable[[Path, int, Path, bool], list[str]]
SERVERS: dict[str, Words] = {
    "nbdkit": lambda image, port, folder, clients: [
        "nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "--tls=require", f"--tls-certificates={folder}",
        *(["--tls-verify-peer"] if clients else []), "file", str(image),
    ],
    "qemu-nbd": lambda image, port, folder, clients: [
        "qemu-nbd", "-t", "-e", "4", "-b", "127.0.0.1", "-p", str(port), "-f", "raw", "--object",
        f"tls-creds-x509,id=tls0,endpoint=server,dir={folder},verify-peer={'on' if clients else 'off'}",
        "--tls-creds", "tls0", str(image),
    ],
}  # fmt: skip


@pytest.mark.needs("nbdkit", "qemu-nbd", "openssl")
@pytest.mark.parametrize("clients", [False, True], ids=["anybody", "with certificates"])
@pytest.mark.parametrize("name", list(SERVERS))
def test_tls_of_others(tmp_path: Path, name: str, clients: bool) -> None:
    folder, image, port = certificates(tmp_path / "pki"), tmp_path / "a.raw", free_port()
    create_image(str(image), "raw", SIZE)
    model, pick = bytearray(SIZE), random.Random(9)
    uri = f"nbds://localhost:{port}/?tls-certificates={folder}&reconnect-delay=20"
    words = SERVERS[name](image, port, folder, clients)

    def write(disk: Disk, times: int) -> None:
        for _ in range(times):
            at, data = pick.randrange(SIZE - 300_000), pick.randbytes(pick.choice((1, 4096, 300_000)))
            disk.write(at, data)
            model[at : at + len(data)] = data

    with listening(words, port) as server:
        disk = Disk(open_image(uri, "raw", writable=True))
        assert disk.size == SIZE
        write(disk, 20)
        disk.flush()
        write(disk, 5)
        assert bytes(disk.read(0, SIZE)) == model
        server.kill()
    with listening(words, port):
        assert bytes(disk.read(0, SIZE)) == model
        write(disk, 5)
        disk.close()
        for wrong in (
            f"nbd://localhost:{port}/",  # in the open
            f"nbds://localhost:{port}/",  # of an authority that is not known
            f"{uri}&tls-hostname=elsewhere",
        ):
            with pytest.raises(HostError):
                open_image(wrong, "raw")
        if clients:
            for part in ("cert", "key"):
                (folder / f"client-{part}.pem").unlink()
            with pytest.raises(HostError), Disk(open_image(uri.replace("delay=20", "delay=0"), "raw")) as without:
                without.read(0, 1)  # TLS 1.3: the server may refuse after the handshake
    assert image.read_bytes() == model


@pytest.mark.needs("nbd-client")
def test_nbd_client_lists_our_exports() -> None:
    disk = Disk(open_image({"driver": "memory", "size": SIZE}, "raw", writable=True))
    with disk, served(disk, name="a disk") as server:
        assert "a disk" in run("nbd-client", "-l", "127.0.0.1", str(server.listener.getsockname()[1]))


@pytest.mark.needs("nbd-client")
def test_nbd_client_agrees_with_our_server(tmp_path: Path) -> None:
    """All but the kernel's part, which a device of another name keeps it from."""
    disk = Disk(open_image({"driver": "memory", "size": 64 * MIB}, "raw", writable=True))
    with disk, served(disk, tmp_path / "s"):
        said = run("nbd-client", "-unix", str(tmp_path / "s"), str(tmp_path / "none"), "-b", "4096", status=1)
    assert "size = 64MB" in said


@pytest.mark.needs("nbd-client")
def test_the_kernel_as_client(tmp_path: Path) -> None:
    """As root, where the kernel has the module nbd (modprobe nbd)."""
    if not KERNEL.is_block_device() or os.geteuid():
        pytest.skip("no /dev/nbd0 that we may use")
    create_image(str(tmp_path / "a.qcow2"), "qcow2", 64 * MIB)
    program, path = Path(sys.executable).with_name("dragoman"), tmp_path / "s"
    words: list[str | Path] = [program, "nbd", "-f", "qcow2", "-k", path, tmp_path / "a.qcow2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        run("nbd-client", "-unix", str(path), str(KERNEL), "-b", "4096")
        try:
            (tmp_path / "mounted").mkdir()
            run("mkfs.ext4", "-q", str(KERNEL))
            run("mount", str(KERNEL), tmp_path / "mounted")
            try:
                data = random.Random(1).randbytes(20 * MIB)
                (tmp_path / "mounted/file").write_bytes(data)
                os.sync()
            finally:
                run("umount", tmp_path / "mounted")
            run("fsck.ext4", "-f", "-n", str(KERNEL))
        finally:
            run("nbd-client", "-d", str(KERNEL))
            server.terminate()
        assert server.wait(20) == 0
    found = json.loads(run(program, "img", "check", "--json", tmp_path / "a.qcow2"))
    assert (found["corruptions"], found["leaks"]) == (0, 0)
    with Disk(open_image(str(tmp_path / "a.qcow2"))) as disk:
        assert data[:4096] in bytes(disk.read(0, disk.size))
