"""For the tests of both sides of NBD: servers of ours in this process, certificates, programs of others."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.machine.block.nbd.server import Server, listen_tcp, listen_unix

if TYPE_CHECKING:
    from dbt.machine.block import Disk


@contextmanager
def served(disk: Disk, path: Path | None = None, **options: Any) -> Iterator[Server]:
    """Our server over `disk`, on a Unix socket at `path` or on a port of this machine."""
    server = Server(disk, listen_tcp("127.0.0.1", 0) if path is None else listen_unix(str(path)), **options)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
        if path is not None:
            path.unlink()


def run(*words: str | Path, status: int = 0) -> str:
    """What a program says; it has to end with `status`."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def program(*words: str | Path, socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server of somebody else's, once its socket is there; killed at the end."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 20
    while not socket.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    try:
        assert socket.exists(), child.communicate(timeout=5)[1]
        yield child
    finally:
        child.kill()
        child.communicate()
        socket.unlink(missing_ok=True)


def certificates(folder: Path) -> Path:
    """An authority, and certificates by it for `localhost` and a client, by the names that libnbd and qemu want."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, capture_output=True, check=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-x509", "-subj", "/CN=test authority", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    for who, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        (folder / "extensions").write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        openssl(*new, "-subj", f"/CN={who}", "-keyout", f"{who}-key.pem", "-out", f"{who}.csr")
        openssl(
            "x509", "-req", "-in", f"{who}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
            "-days", "2", "-extfile", "extensions", "-out", f"{who}-cert.pem",
        )  # fmt: skip
    return folder


def server_context(folder: Path, *, clients: bool = False) -> ssl.SSLContext:
    """The server's TLS; `clients`: they must have certificates as well."""
    from dbt.machine.block.nbd.server import server_context as context

    authority = str(folder / "ca-cert.pem") if clients else None
    return context(str(folder / "server-cert.pem"), str(folder / "server-key.pem"), authority)


def has(tool: str) -> bool:
    """Whether it is installed."""
    return shutil.which(tool) is not None
