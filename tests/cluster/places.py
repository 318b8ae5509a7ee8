"""A Ceph cluster and a GlusterFS volume on this machine, of one node each, for as long as the tests run.

They are no part of `make test`, only of `make test-cluster`. Ceph: ceph-mon, and ceph-osd with a store in memory, as
any user, on free ports of 127.0.0.1; 10 s to start. Gluster: glusterd and one brick, as root (a brick has `trusted`
attributes), on glusterd's own port 24007 of the address that this machine's name stands for; 3 s.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STARTING = 60  # seconds that a daemon may take to answer
FSID = "6d6f6e6b-6579-4c61-6e64-000000000001"
CEPH = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
mon initial members = a
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 2147483648
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
osd data = {folder}/osd
keyring = {folder}/keyring
pid file =
"""
GLUSTERD = """\
volume management
    type mgmt/glusterd
    option working-directory {folder}/state
    option run-directory {folder}/run
    option glusterd-sockfile {folder}/run/cli.socket
    option transport-type socket
    option transport.socket.bind-address {address}
end-volume
"""


@dataclass
class Place:
    """Where disks can be: the driver's options but for the disk's name."""

    options: dict[str, Any]
    folder: Path

    def named(self, name: str) -> dict[str, Any]:
        """The options of a disk."""
        return {**self.options, "image" if self.options["driver"] == "rbd" else "path": name}

    def content(self, name: str) -> bytes:
        """What others read: Ceph's command, or the brick's own file."""
        if self.options["driver"] == "rbd":
            command = ["rbd", "-c", self.options["conf"], "export", "--no-progress", f"rbd/{name}", "-"]
            return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        return (self.folder / "brick" / name).read_bytes()

    def delete(self, name: str) -> None:
        """Remove a disk."""
        if self.options["driver"] == "rbd":
            command = ["rbd", "-c", self.options["conf"], "rm", "--no-progress", f"rbd/{name}"]
            subprocess.run(command, capture_output=True, check=True, timeout=60)
        else:
            (self.folder / "brick" / name).unlink()


def say(*words: str | Path, timeout: float = STARTING) -> str:
    """Run a command that has to succeed; its output."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, (words, done.stdout[-800:], done.stderr[-800:])
    return done.stdout


def ended(*daemons: subprocess.Popen[bytes]) -> None:
    """End what was started."""
    for daemon in daemons:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@pytest.fixture(scope="session")
def ceph() -> Iterator[Place]:
    """A cluster with the pool `rbd`."""
    folder = Path(tempfile.mkdtemp(prefix="ceph-", dir="/tmp"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    conf = folder / "ceph.conf"
    conf.write_text(CEPH.format(fsid=FSID, port=port, folder=folder))
    daemons: list[subprocess.Popen[bytes]] = []

    def daemon(*words: str | Path) -> None:
        with (folder / "output").open("ab") as output:
            daemons.append(subprocess.Popen(words, stdout=output, stderr=output))

    try:
        for name in ("mon", "osd"):
            (folder / name).mkdir()
        keyring, monmap = folder / "keyring", folder / "monmap"
        caps = ("--cap", "mon", "allow *")
        say("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", *caps)
        say("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *caps, "--cap", "osd", "allow *")
        say("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{port}]", "--fsid", FSID, monmap)
        say("ceph-mon", "-c", conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        daemon("ceph-mon", "-c", conf, "-i", "a", "-f")
        say("ceph", "-c", conf, "osd", "create")
        say("ceph-osd", "-c", conf, "-i", "0", "--mkfs")
        daemon("ceph-osd", "-c", conf, "-i", "0", "-f")
        say("ceph", "-c", conf, "osd", "pool", "create", "rbd", "8")
        say("rbd", "-c", conf, "pool", "init", "rbd")  # waits until the pool can be written
        yield Place({"driver": "rbd", "pool": "rbd", "conf": str(conf)}, folder)
    finally:
        ended(*reversed(daemons))
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def gluster() -> Iterator[Place]:
    """The volume `disks`, of one brick."""
    folder = Path(tempfile.mkdtemp(prefix="gluster-", dir="/tmp"))
    host = socket.gethostname()  # glusterd takes no brick of `localhost`
    address = socket.gethostbyname(host)
    for name in ("state", "run", "log", "brick"):
        (folder / name).mkdir()
    (folder / "glusterd.vol").write_text(GLUSTERD.format(folder=folder, address=address))
    command = ["gluster", f"--glusterd-sock={folder}/run/cli.socket", f"--log-file={folder}/log/cli", "--mode=script"]
    with (folder / "output").open("ab") as output:
        daemon = subprocess.Popen(
            ["glusterd", "-N", "-f", folder / "glusterd.vol", "-l", folder / "log/glusterd", "-p", folder / "run/pid"],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        end = time.monotonic() + STARTING
        while subprocess.run([*command, "peer", "status"], capture_output=True, check=False).returncode:
            assert daemon.poll() is None, (folder / "log/glusterd").read_text()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.2)
        say(*command, "volume", "create", "disks", f"{host}:{folder}/brick", "force")
        say(*command, "volume", "start", "disks")
        try:
            yield Place({"driver": "gluster", "volume": "disks", "host": address}, folder)
        finally:
            say(*command, "volume", "stop", "disks", "force")  # ends the brick's process
    finally:
        ended(daemon)
        shutil.rmtree(folder)
