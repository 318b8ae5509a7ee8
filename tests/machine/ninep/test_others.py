"""Others change the folder meanwhile; locks as the kernel counts them; sessions that end while something is served."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from dbt.machine.ninep import Session, Share, fids
from dbt.machine.ninep.fids import Locks, locked

from tests.machine.ninep.client import NOFID, Client

Shared = tuple[Client, Path, Session]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    session = Session(Share(str(tmp_path)))
    client = Client(session.call)
    client.start()
    yield client, tmp_path, session
    session.close()
    session.share.close()


def test_directories_that_others_move_make_no_circle(shared: Shared) -> None:
    client, folder, session = shared
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    (folder / "b" / "file").touch()
    a, b, file = client.walk("a"), client.walk("b"), client.walk("b/file")
    client.ask("renameat", 0, b"a", b, b"x")
    (folder / "b" / "x").rename(folder / "elsewhere")  # by somebody of whom the session does not know
    client.ask("renameat", 0, b"b", a, b"y")
    assert (folder / "elsewhere" / "y" / "file").exists()
    assert client.fails("remove", file) == errno.ENOENT  # where it is now nobody knows
    assert client.kind("elsewhere/y") == 0o040000
    assert [saved[2] for saved in session.save()["fids"]] == [False, True, True]


def test_renames_do_not_lead_deeper_than_is_walked(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    client, folder, session = shared
    for top in "ab":
        (folder / top / "/".join("1234567")).mkdir(parents=True)
    monkeypatch.setattr("dbt.machine.ninep.places.DEEPEST", 8)
    monkeypatch.setattr(fids, "MOST_NAMES", 10)
    deep, other = client.walk("a/1/2/3/4/5/6/7"), client.walk("b/1/2/3/4/5/6")
    client.ask("renameat", 0, b"a", other, b"a")
    assert client.fails("walk", deep, client.fid(), [b"x"]) == errno.ENAMETOOLONG
    saved = session.save()
    again = Session(session.share)
    again.load(saved)
    assert [(number, lost) for number, _, lost, _ in again.save()["fids"]] == [(0, False), (deep, True), (other, False)]
    again.close()


def test_locking_and_unlocking_may_go_on_for_ever(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    client, folder, _ = shared
    (folder / "file").touch()
    monkeypatch.setattr(fids, "MOST_LOCKS", 20)
    one, two = client.open("file", 2), client.open("file", 2)
    for start in range(100):
        for kind in (0, 1, 1, 2):  # read, write, write, unlock: a range, as data bases do
            assert client.ask("lock", one, kind, 0, start, 1, 1, b"") == 0
    assert client.ask("lock", one, 1, 0, 0, 1, 1, b"") == 0
    assert [client.ask("lock", two, 1, 0, 0, 1, 1, b"") for _ in range(100)] == [1] * 100  # blocked is no lock
    for start in range(100):
        assert client.ask("lock", one, 1, 0, start, 1, 1, b"") == 0  # neighbours are one
    client.ask("clunk", one)
    assert [client.ask("lock", two, 1, 0, 2 * start, 1, 1, b"") for start in range(20)] == [0] * 20
    assert client.fails("lock", two, 1, 0, 100, 1, 1, b"") == errno.ENOLCK
    assert client.ask("lock", two, 2, 0, 0, 0, 1, b"") == 0


def test_ranges_are_as_a_map_of_bytes_has_them() -> None:
    random = Random(6)
    held: Locks = []
    table = [fcntl.F_UNLCK] * 40
    for _ in range(2000):
        start = random.randrange(40)
        end = random.randint(start + 1, 40)
        kind = random.choice((fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK))
        table[start:end] = [kind] * (end - start)
        held = locked(held, start, end, kind)
        edges = [at for at in range(41) if at in {0, 40} or table[at] != table[at - 1]]
        runs = [(a, b, table[a]) for a, b in pairwise(edges) if table[a] != fcntl.F_UNLCK]
        assert held == runs


def test_what_is_served_while_a_session_ends_leaves_no_descriptors(shared: Shared) -> None:
    _, folder, session = shared
    (folder / "file").touch()
    old = Session(session.share)
    client = Client(old.call)
    client.start()
    before = len(os.listdir("/proc/self/fd"))
    late = old.fids.get(0)  # a walk is being served
    old.close()
    place, _ = old.places.walk(late.place, b"file")
    with pytest.raises(OSError, match="over"):
        old.fids.add(5, place)
    old.places.spare(place)
    old.fids.done(late)
    assert client.fails("attach", 7, NOFID, b"", b"", 0) == errno.EBADF
    assert (len(os.listdir("/proc/self/fd")), len(old.fids)) == (before - 1, 0)


def test_a_saved_fid_opens_files_and_directories_only(shared: Shared) -> None:
    _, folder, session = shared
    os.mkfifo(folder / "fifo")
    again = Session(session.share)
    again.load({"msize": 8192, "fids": [[1, os.O_RDWR, False, ["fifo"]]]})
    assert Client(again.call).fails("read", 1, 0, 1) == errno.ENXIO
    again.close()


def test_a_large_directory_is_read_in_linear_time(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, session = shared
    client.start(1 << 19)
    monkeypatch.setattr("dbt.machine.ninep.files.entries", lambda _directory, room: [(1, 1, 8, b"n")] * (room // 24))
    fid = client.open("", 0o200000)
    begin = time.process_time()
    assert len(session.call(b"\x17\0\0\0\x28\1\0" + fid.to_bytes(4, "little") + bytes(8) + b"\0\0\x08\0")) > 500_000
    assert time.process_time() - begin < 1  # 2.4 s with a copy for each entry
