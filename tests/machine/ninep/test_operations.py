"""What a Linux guest does with a shared folder, message by message."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbt.machine.errors import SnapshotError
from dbt.machine.ninep import Session, Share, fids

from dbt.errors import UsageError
from tests.machine.ninep.client import NOFID, Client, Refused


def served(folder: Path, **options: bool) -> tuple[Client, Session]:
    session = Session(Share(str(folder), **options))
    return Client(session.call), session


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Client, Path, Session]]:
    folder = tmp_path / "shared"
    folder.mkdir()
    before = set(os.listdir("/proc/self/fd"))
    client, session = served(folder)
    client.start()
    yield client, folder, session
    session.close()
    session.share.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


Shared = tuple[Client, Path, Session]


def test_version(shared: Shared) -> None:
    client, _, session = shared
    assert client.ask("version", 8192, b"9P2000.L") == (8192, b"9P2000.L")
    assert len(session.fids) == 0
    assert client.ask("version", 1 << 30, b"9P2000.L") == (512 * 1024, b"9P2000.L")
    assert client.ask("version", 8192, b"9P2000.u")[1] == b"unknown"
    assert client.fails("version", 100, b"9P2000.L") == errno.EMSGSIZE
    assert client.fails("auth", 1, b"root", b"", 0) == errno.ENOENT
    client.start()
    assert client.fails("attach", 0, NOFID, b"root", b"", 0) == errno.EINVAL
    assert client.fails("attach", 1, 5, b"root", b"", 0) == errno.EINVAL


def test_files(shared: Shared) -> None:
    client, folder, _ = shared
    (folder / "there").write_bytes(b"x" * 100_000)
    assert client.read("there") == b"x" * 100_000
    fid = client.create("new", b"hello", 0o640)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o640
    assert client.write(fid, 3, b"p!") == 2
    assert client.ask("read", fid, 0, 100) == b"help!"
    assert client.ask("read", fid, 100, 100) == b""
    client.ask("fsync", fid, 0)
    client.ask("fsync", fid, 1)
    assert client.fails("lopen", fid, 0) == errno.EINVAL
    assert client.fails("walk", fid, fid, [b"x"]) == errno.EINVAL
    client.ask("clunk", fid)
    assert client.fails("clunk", fid) == errno.EBADF
    assert client.fails("read", fid, 0, 1) == errno.EBADF
    assert client.fails("read", client.walk("new"), 0, 1) == errno.EBADF
    again = client.walk("")
    assert client.fails("lcreate", again, b"new", 0o300, 0o600, 0) == errno.EEXIST  # O_EXCL
    client.ask("lcreate", again, b"new", 0o1002, 0o600, 0)  # O_TRUNC
    assert (folder / "new").read_bytes() == b""
    appending = client.open("new", 0o2001)
    client.write(appending, 0, b"one")
    client.write(appending, 0, b"two")
    assert (folder / "new").read_bytes() == b"onetwo"
    reading = client.open("new")
    assert client.fails("write", reading, 0, 1, payload=b"x") == errno.EBADF
    assert client.fails("write", appending, 1 << 63, 1, payload=b"x") == errno.EINVAL
    assert client.fails("write", appending, 0, 2, payload=b"x") == errno.EINVAL
    assert client.fails("read", client.open("", 0o200000), 0, 10) == errno.EISDIR
    assert client.fails("lcreate", client.walk(""), b"sub/x", 2, 0o600, 0) == errno.ENOENT


def test_what_was_removed_is_still_open(shared: Shared) -> None:
    client, folder, _ = shared
    fid = client.create("gone", b"still")
    client.ask("unlinkat", 0, b"gone", 0)
    assert client.ask("read", fid, 0, 100) == b"still"
    assert client.attributes(fid)["nlink"] == 0
    client.set(fid, 8, size=2)
    assert client.ask("read", fid, 0, 100) == b"st"
    assert not list(folder.iterdir())


def test_directories(shared: Shared) -> None:
    client, folder, _ = shared
    assert client.ask("mkdir", 0, b"sub", 0o1777, 0)[0] == 0x80
    assert stat.S_IMODE((folder / "sub").stat().st_mode) == 0o1777
    assert client.fails("mkdir", 0, b"sub", 0o755, 0) == errno.EEXIST
    for number in range(300):
        (folder / "sub" / f"file {number}").touch()
    (folder / "sub" / "link").symlink_to("nowhere")
    for room in (100, 4096):
        assert len(client.names("sub", room)) == 303
    found = client.names("sub", 60000)
    assert found[b"link"][0][0] == 2
    assert found[b"link"][1] == 10
    assert found[b"file 3"][0][2] == client.attributes(client.walk("sub/file 3"))["qid"][2]
    assert found[b".."][0][2] == client.attributes(0)["qid"][2]
    assert client.names()[b".."][0][2] == client.attributes(0)["qid"][2]
    assert client.fails("unlinkat", 0, b"sub", 0) == errno.EISDIR
    assert client.fails("unlinkat", 0, b"sub", 0x200) == errno.ENOTEMPTY
    assert client.fails("readdir", client.walk("sub"), 0, 100) == errno.EBADF
    assert client.fails("readdir", client.open("sub/file 1"), 0, 100) == errno.ENOTDIR
    client.ask("mkdir", 0, b"empty", 0o700, 0)
    client.ask("unlinkat", 0, b"empty", 0x200)


def test_walks(shared: Shared) -> None:
    client, folder, _ = shared
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/file").touch()
    assert len(client.ask("walk", 0, 1, [b"a", b"b", b"missing", b"c"])) == 2
    assert client.fails("walk", 0, 1, [b"missing"]) == errno.ENOENT
    assert client.fails("clunk", 1) == errno.EBADF
    assert client.fails("walk", 7, 8, []) == errno.EBADF
    assert client.fails("walk", 0, 0, [b"a"] * 17) == errno.EINVAL
    fid = client.walk("a/b/c")
    assert client.ask("walk", fid, fid, []) == []
    assert len(client.ask("walk", fid, fid, [b"..", b".", b"..", b"b"])) == 4
    assert client.attributes(fid)["qid"][2] == client.attributes(client.walk("a/b"))["qid"][2]
    assert client.fails("walk", 0, fid, []) == errno.EINVAL
    assert client.fails("walk", 0, NOFID, []) == errno.EINVAL
    assert client.fails("walk", client.walk("a/file"), 50, [b"x"]) == errno.ENOTDIR
    deep = "/".join(["d"] * 40)
    (folder / deep).mkdir(parents=True)
    assert client.kind(deep) == stat.S_IFDIR


def test_attributes(shared: Shared) -> None:
    client, folder, _ = shared
    (folder / "file").write_bytes(b"12345")
    fid = client.walk("file")
    info = (folder / "file").stat()
    found = client.attributes(fid)
    assert found["qid"][0] == 0
    assert (found["mode"], found["uid"], found["size"], found["nlink"], found["mtime"] * 10**9 + found["mtime_ns"]) == (
        info.st_mode, info.st_uid, 5, 1, info.st_mtime_ns,
    )  # fmt: skip
    client.set(fid, 1, mode=0o6751)  # the server's user's programs are not the guest's business
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o751
    client.set(fid, 8, size=3)
    assert (folder / "file").read_bytes() == b"123"
    client.set(fid, 0x1B0, atime=(1000, 5), mtime=(2000, 7))
    info = (folder / "file").stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (1000 * 10**9 + 5, 2000 * 10**9 + 7)
    client.set(fid, 0x20)
    assert (folder / "file").stat().st_mtime > 1e9
    assert (folder / "file").stat().st_atime_ns == 1000 * 10**9 + 5
    client.set(fid, 2 | 4, uid=12345, gid=12345)
    assert (folder / "file").stat().st_uid == os.geteuid()
    assert client.fails("setattr", fid, 8, 0, 0, 0, 1 << 63, 0, 0, 0, 0) == errno.EINVAL
    assert client.fails("setattr", 0, 8, 0, 0, 0, 5, 0, 0, 0, 0) == errno.EISDIR
    magic, size, blocks, *_, names = client.ask("statfs", fid)
    assert (magic, names) == (0x01021997, os.statvfs(folder).f_namemax)
    assert blocks * size > 0
    assert client.fails("xattrwalk", fid, 77, b"user.x") == errno.EOPNOTSUPP
    assert client.fails("xattrcreate", fid, b"user.x", 3, 0) == errno.EOPNOTSUPP


def test_links_and_nodes(shared: Shared) -> None:
    client, folder, _ = shared
    (folder / "file").write_bytes(b"data")
    assert client.ask("symlink", 0, b"sym", b"/etc/passwd", 0)[0] == 2
    link = client.walk("sym")
    assert client.ask("readlink", link) == b"/etc/passwd"
    assert client.fails("lopen", link, 0) == errno.ELOOP
    assert client.fails("setattr", link, 1, 0o777, 0, 0, 0, 0, 0, 0, 0) == errno.EOPNOTSUPP
    client.set(link, 0x120, mtime=(99, 0))
    assert (folder / "sym").lstat().st_mtime == 99
    assert client.fails("readlink", client.walk("file")) == errno.EINVAL
    client.ask("link", 0, client.walk("file"), b"other")
    assert (folder / "other").stat().st_nlink == 2
    assert client.fails("link", 0, link, b"another") == errno.EPERM
    client.ask("mknod", 0, b"fifo", stat.S_IFIFO | 0o622, 0, 0, 0)
    client.ask("mknod", 0, b"plain", stat.S_IFREG | 0o604, 0, 0, 0)
    assert stat.S_IMODE((folder / "fifo").stat().st_mode) == 0o622
    assert client.fails("lopen", client.walk("fifo"), 0) == errno.ENXIO
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        assert client.fails("mknod", 0, b"device", kind | 0o600, 1, 3, 0) == errno.EPERM
    for name in ("fifo", "plain", "sym"):
        assert client.kind(name) == stat.S_IFMT((folder / name).lstat().st_mode)


def test_renames_move_what_is_below(shared: Shared) -> None:
    client, folder, session = shared
    (folder / "a/b").mkdir(parents=True)
    (folder / "c").mkdir()
    (folder / "a/b/file").write_bytes(b"1")
    (folder / "c/victim").write_bytes(b"2")
    fid, victim = client.walk("a/b/file"), client.walk("c/victim")
    session.share.most_handles = 1
    client.ask("renameat", client.walk("a"), b"b", client.walk("c"), b"bb")
    client.walk("c/bb")
    assert client.attributes(fid)["size"] == 1
    client.ask("rename", fid, client.walk("c"), b"victim")
    assert (folder / "c/victim").read_bytes() == b"1"
    client.walk("a")
    assert client.fails("getattr", victim, 0x7FF) == errno.ESTALE  # its descriptor was needed elsewhere
    client.ask("remove", fid)
    assert not (folder / "c/victim").exists()
    assert client.fails("remove", victim) == errno.ESTALE
    assert client.fails("remove", client.walk("")) == errno.EBUSY
    assert client.fails("rename", client.walk(""), 0, b"x") == errno.EBUSY
    assert client.fails("renameat", 0, b"missing", 0, b"x") == errno.ENOENT
    assert client.fails("renameat", 0, b"c", client.walk("c/bb"), b"x") == errno.EINVAL


def test_few_descriptors_serve_many_fids(shared: Shared) -> None:
    client, folder, session = shared
    session.share.most_handles = 16
    session.share.most_files = 4
    fids = []
    for number in range(200):
        (folder / str(number)).write_bytes(b"x" * number)
        fids.append(client.walk(str(number)))
    assert len(session.places._handles) <= 17
    assert [client.attributes(fid)["size"] for fid in fids] == list(range(200))
    (folder / "new").write_bytes(b"another")
    (folder / "new").rename(folder / "7")
    assert client.fails("getattr", fids[7], 0) == errno.ESTALE
    for fid in fids[10:14]:
        client.ask("lopen", fid, 0)
    assert client.fails("lopen", fids[20], 0) == errno.EMFILE
    assert client.fails("lcreate", client.walk(""), b"one more", 2, 0o600, 0) == errno.EMFILE


def test_locks(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    client, folder, _ = shared
    (folder / "file").touch()
    one, two = client.open("file", 2), client.open("file", 2)
    lock = (1, 0, 10, 20, 4711, b"guest")  # write, no flags
    assert client.ask("lock", one, *lock) == 0
    assert client.ask("lock", two, *lock) == 1
    kind, start, length, _, name = client.ask("getlock", two, 0, 15, 2, 1, b"guest")
    assert (kind, start, length, name) == (1, 10, 20, b"guest")
    assert client.ask("getlock", two, 0, 40, 2, 1, b"guest") == (2, 40, 2, 1, b"guest")
    assert client.ask("lock", one, 2, *lock[1:]) == 0
    assert client.ask("lock", two, *lock) == 0
    assert client.fails("lock", two, 3, *lock[1:]) == errno.EINVAL
    assert client.fails("getlock", two, 1, 1 << 63, 1, 1, b"") == errno.EINVAL
    assert client.fails("lock", client.open("file"), *lock) == errno.EBADF
    monkeypatch.setattr(fids, "MOST_LOCKS", 50)
    with pytest.raises(Refused, match=str(errno.ENOLCK)):
        any(client.ask("lock", one, 1, 0, 2 * start, 1, 1, b"") for start in range(100, 160))
    assert client.ask("lock", one, 2, 0, 0, 0, 1, b"") == 0
    assert client.ask("lock", one, 1, 0, 100, 1, 1, b"") == 0


def test_readonly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"look")
    client, session = served(tmp_path, readonly=True)
    client.start()
    assert client.read("file") == b"look"
    fid = client.walk("file")
    for name, *values in (
        ("lopen", fid, 1), ("lopen", fid, 0o1000), ("lcreate", 0, b"x", 2, 0o600, 0), ("mkdir", 0, b"x", 0o700, 0),
        ("symlink", 0, b"x", b"y", 0), ("mknod", 0, b"x", 0o600, 0, 0, 0), ("link", 0, fid, b"x"),
        ("unlinkat", 0, b"file", 0), ("renameat", 0, b"file", 0, b"x"), ("rename", fid, 0, b"x"),
        ("setattr", fid, 1, 0, 0, 0, 0, 0, 0, 0, 0), ("remove", fid),
    ):  # fmt: skip
        assert client.fails(str(name), *values) == errno.EROFS
    reading = client.open("file")
    assert client.fails("write", reading, 0, 1, payload=b"x") == errno.EROFS
    assert (tmp_path / "file").read_bytes() == b"look"
    session.close()
    session.share.close()


def test_owners(tmp_path: Path) -> None:
    client, session = served(tmp_path, owners=True, fifos=False)
    client.start()
    root = os.geteuid() == 0  # others own what they make
    uid, gid = (1234, 4321) if root else (os.geteuid(), os.getegid())
    fid = client.walk("")
    client.ask("lcreate", fid, b"file", 2, 0o4711, gid)
    client.set(fid, 2, uid=uid)
    client.set(fid, 1, mode=0o6751)
    info = (tmp_path / "file").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (uid, gid, 0o6751)
    if not root:
        assert client.fails("setattr", fid, 2, 0, 0, 0, 0, 0, 0, 0, 0) == errno.EPERM
    assert client.fails("mknod", 0, b"fifo", stat.S_IFIFO | 0o600, 0, 0, 0) == errno.EPERM
    session.close()
    session.share.close()


def test_saved_and_restored(shared: Shared) -> None:
    client, folder, session = shared
    (folder / "a").mkdir()
    os.mkfifo(os.fsencode(folder) + b"/\xff\xfe")
    fid = client.create("a/file", b"before")
    odd = client.walk(b"\xff\xfe")
    removed = client.create("a/gone")
    client.ask("unlinkat", client.walk("a"), b"gone", 0)
    saved = json.loads(json.dumps(session.save()))
    other = Session(session.share)
    other.load(saved)
    assert other.save() == saved
    client = Client(other.call)
    assert client.write(fid, 6, b" after") == 6
    assert client.ask("read", fid, 0, 100) == b"before after"
    assert stat.S_ISFIFO(client.attributes(odd)["mode"])
    assert client.fails("read", removed, 0, 1) == errno.ESTALE
    other.close()
    good: list[object] = [1, None, False, []]
    bad_fids: list[object] = [
        [1, None, False, ["..", "x"]], [1, None, False, ["a/b"]], [1, 0o100, False, []], [1, None, False, ["\ud800"]],
        [-1, None, False, []], [1, None, 0, []], [1, None, False, None], None,
    ]  # fmt: skip
    for bad in (
        None, {}, {"msize": 5, "fids": []}, {"msize": 8192, "fids": None}, {"msize": 8192, "fids": [good, good]},
        *({"msize": 8192, "fids": [one]} for one in bad_fids),
    ):  # fmt: skip
        with pytest.raises(SnapshotError):
            Session.check(bad)


def test_what_cannot_be_shared(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("missing", "file", "zero\0"):
        with pytest.raises(UsageError, match="cannot be shared"):
            Share(str(tmp_path / folder))


def test_refused_is_an_error() -> None:
    assert Refused(5).code == 5
