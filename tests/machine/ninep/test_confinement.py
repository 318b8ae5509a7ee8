"""Nothing of a guest gets out of the shared folder: not by links, not by names, not by being quick."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from dbt.machine.ninep import Session, Share, host, places
from dbt.machine.ninep.wire import MESSAGES, encode, message

from tests.machine.ninep.client import NOFID, Client, Refused

Shared = tuple[Client, Path, Session]


@pytest.fixture(params=["openat2", "steps"])
def shared(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    if request.param == "steps":
        monkeypatch.setattr(host, "OPENAT2", 1 << 20)  # a call that no kernel has
    folder, outside = tmp_path / "shared", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    share = Share(str(folder))
    session = Session(share)
    client = Client(session.call)
    client.start()
    yield client, folder, session
    session.close()
    share.close()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_links_lead_nowhere(shared: Shared) -> None:
    client, folder, session = shared
    (folder / "out").symlink_to(folder.parent / "outside")
    (folder / "up").symlink_to("..")
    (folder / "file").symlink_to("../outside/secret")
    (folder / "real").mkdir()
    session.share.most_handles = 1
    for link in ("out", "up", "file"):
        fid = client.walk(link)
        for name in (b"secret", b"outside"):
            assert client.fails("walk", fid, client.fid(), [name]) == errno.ENOTDIR
        for name in (b".", b".."):
            assert client.fails("walk", fid, client.fid(), [name]) == errno.ENOTDIR
        assert client.fails("lopen", fid, 0) == errno.ELOOP
        assert client.fails("lcreate", fid, b"new", 2, 0o600, 0) == errno.ENOTDIR
        assert client.fails("mkdir", fid, b"new", 0o700, 0) == errno.ENOTDIR
        assert client.fails("unlinkat", fid, b"secret", 0) == errno.ENOTDIR
        assert client.fails("renameat", fid, b"secret", 0, b"mine") == errno.ENOTDIR
        assert client.fails("renameat", 0, b"real", fid, b"mine") == errno.ENOTDIR
        assert client.fails("link", fid, client.walk("real"), b"x") in {errno.EPERM, errno.ENOTDIR}
        assert client.fails("setattr", fid, 8, 0, 0, 0, 0, 0, 0, 0, 0) == errno.EINVAL
    # Creating where a link is does not follow it
    assert client.fails("lcreate", client.walk(""), b"file", 0o1002, 0o600, 0) == errno.ELOOP
    (folder / "dangling").symlink_to("../outside/made")
    assert client.fails("lcreate", client.walk(""), b"dangling", 2, 0o600, 0) == errno.ELOOP


def test_names_that_are_found_again(shared: Shared) -> None:
    """What a snapshot names is walked to anew, by several names at once where the kernel does that."""
    client, folder, session = shared
    (folder / "out").symlink_to("../outside")
    (folder / "real").mkdir()
    (folder / "real" / "file").write_bytes(b"inside")
    (folder / "real" / "out").symlink_to("../../outside")
    session.fids.close()
    fids = [["out", "secret"], ["out"], ["real", "file"], ["real", "out", "secret"]]
    session.load({"msize": 8192, "fids": [[number, None, False, names] for number, names in enumerate(fids)]})
    for number in (0, 3):
        for request in (("getattr", number, 0x7FF), ("lopen", number, 0), ("walk", number, 9, [b"secret"])):
            assert client.fails(*request) in {errno.ELOOP, errno.ENOTDIR}
    assert client.ask("readlink", 1) == b"../outside"
    assert client.attributes(2)["size"] == 6


def test_up_ends_at_the_folder(shared: Shared) -> None:
    client, folder, _ = shared
    (folder / "a").mkdir()
    root = client.attributes(0)["qid"][2]
    found = client.ask("walk", 0, 5, [b".."] * 16)
    assert {qid[2] for qid in found} == {root}
    assert client.attributes(5)["qid"][2] == root
    found = client.ask("walk", 0, 6, [b"a", b"..", b"..", b"a"])
    assert [qid[2] for qid in found[1:3]] == [root, root]
    assert len(client.ask("walk", 0, 7, [b"..", b"outside"])) == 1
    assert client.fails("clunk", 7) == errno.EBADF


@pytest.mark.parametrize("name", [b"", b".", b"a/b", b"/etc/passwd", b"../outside", b"a\0b", b"../outside/secret"])
def test_hard_names(shared: Shared, name: bytes) -> None:
    client, folder, _ = shared
    (folder / "a").mkdir()
    wanted = {errno.ENOENT, errno.EINVAL}
    if name != b".":
        assert client.fails("walk", 0, 5, [name]) in wanted
    for request in (
        ("lcreate", 0, name, 2, 0o600, 0), ("mkdir", 0, name, 0o700, 0), ("symlink", 0, name, b"x", 0),
        ("mknod", 0, name, 0o600, 0, 0, 0), ("link", 0, 0, name), ("unlinkat", 0, name, 0),
        ("unlinkat", 0, name, 0x200),
        ("renameat", 0, name, 0, b"x"), ("renameat", 0, b"a", 0, name), ("rename", client.walk("a"), 0, name),
    ):  # fmt: skip
        assert client.fails(*request) in wanted | {errno.EPERM}
    assert client.fails("mkdir", 0, b"..", 0o700, 0) == errno.EINVAL
    assert client.fails("renameat", 0, b"..", 0, b"x") == errno.EINVAL
    assert client.fails("unlinkat", 0, b"..", 0x200) == errno.EINVAL
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_name_that_is_too_long(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "DEEPEST", 100)
    client, _, _ = shared
    assert client.fails("walk", 0, 5, [b"x" * 300]) == errno.ENAMETOOLONG
    assert client.fails("mkdir", 0, b"x" * 60000, 0o700, 0) == errno.ENAMETOOLONG
    assert client.fails("symlink", 0, b"x", b"a\0b", 0) == errno.EINVAL
    fid = client.walk("")
    for _ in range(100):
        client.ask("mkdir", fid, b"d", 0o700, 0)
        client.ask("walk", fid, fid, [b"d"])
    assert client.fails("mkdir", fid, b"d", 0o700, 0) == errno.ENAMETOOLONG
    assert client.fails("walk", fid, fid, [b"d"]) == errno.ENAMETOOLONG


def test_swapped_while_walking(shared: Shared) -> None:
    """A directory becomes a link to the outside and back, as fast as it can be."""
    client, folder, session = shared
    session.share.most_handles = 1
    (folder / "real").mkdir()
    (folder / "real" / "secret").write_bytes(b"inside")
    (folder / "elsewhere").mkdir()
    ended = threading.Event()

    def swap() -> None:
        flip = str(folder / "flip")
        while not ended.is_set():
            os.symlink("../outside", flip)
            os.unlink(flip)
            os.rename(folder / "real", flip)
            os.rename(flip, folder / "real")

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: dict[object, int] = {}
    try:
        for turn in range(600):
            try:
                fid = client.walk("flip/secret" if turn & 1 else "flip")
                if turn & 1:
                    client.walk("elsewhere")
                    client.ask("lopen", fid, 0)
                    data = client.ask("read", fid, 0, 100)
                    assert data == b"inside"
                else:
                    client.ask("lcreate", fid, b"made", 0o1002, 0o600, 0)
                outcome: object = "done"
            except Refused as refused:
                outcome = refused.code
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            client.ask("version", 1 << 16, b"9P2000.L")
            client.ask("attach", 0, NOFID, b"root", b"", 0)
    finally:
        ended.set()
        thread.join()
    assert outcomes.keys() <= {"done", errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP}, outcomes
    assert len(outcomes) > 1


def unlock(folder: Path) -> None:
    """What a guest takes from itself by modes, which are no bounds to root only."""
    folder.chmod(0o700)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if not path.is_symlink():
                path.chmod(0o700)


def test_hostile_messages(tmp_path: Path) -> None:
    """100,000 of them: an answer to each, nothing that stays, nothing outside."""
    random = Random(9)
    folder, outside = tmp_path / "shared", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (folder / "out").symlink_to("../outside")
    share = Share(str(folder))
    share.most_files, share.most_handles = 20, 20
    session = Session(share)
    names = [b"a", b"b", b"c", b"out", b"..", b".", b"", b"a/b", b"\0", b"../outside", b"secret", b"x" * 300]
    numbers = list(MESSAGES)
    answers: dict[int, int] = {}

    def string() -> bytes:
        return random.choice(names)

    def number(letter: str) -> int:
        bits = {"b": 8, "w": 16, "d": 32, "q": 64}[letter]
        return (
            random.choice((0, 1, 2, 3, 5, 8, 0o100, 0o1000, 0x1FF, 4096, (1 << bits) - 1, random.getrandbits(bits)))
            & (1 << bits) - 1
        )

    def value(letter: str) -> object:
        return string() if letter == "s" else number(letter)

    for turn in range(100_000):
        if turn % 200 == 0:
            unlock(folder)
        kind = random.choice(numbers)
        if kind == 100 and random.random() < 0.9:
            kind = 110
        form = MESSAGES[kind].request
        values: list[object] = []
        if kind == 110:
            values = [random.randrange(6), random.randrange(6), [string() for _ in range(random.randrange(4))]]
        else:
            values = [value(letter) for letter in form.replace("*", "")]
            if form.startswith("d") and random.random() < 0.8:
                values[0] = random.randrange(6)
        if kind == 26:
            values[5] = min(int(str(values[5])), 4096)  # no large files
        if kind == 118:
            values[1] = min(int(str(values[1])), 4096)
        body = encode(form, values)
        if kind == 118:
            body = body[:-4] + (5).to_bytes(4, "little") + b"hello"
        request = message(kind, random.randrange(4), body)
        match random.randrange(20):
            case 0:
                request = request[: random.randrange(len(request) + 1)]
            case 1:
                position = random.randrange(len(request))
                request = request[:position] + random.randbytes(1) + request[position + 1 :]
            case 2:
                request += random.randbytes(3)
        reply = session.call(request, random.choice((4096, 4096, 64, 8)))
        if reply:
            size, answer = int.from_bytes(reply[:4], "little"), reply[4]
            assert size == len(reply)
            answers[answer] = answers.get(answer, 0) + 1
        assert len(session.fids) < 200
        assert len(session.places._handles) < 60
        assert not session._active
    assert len(answers) > 20
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    session.close()
    share.close()


def test_several_at_once(tmp_path: Path) -> None:
    """Threads work with the same fids and names: each gets an answer, and every descriptor comes back."""
    share = Share(str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    share.most_files, share.most_handles = 30, 8
    session = Session(share)
    Client(session.call).start()
    failures: list[BaseException] = []
    names = [b"a", b"b", b"c"]

    def work(seed: int) -> None:
        random = Random(seed)
        client = Client(session.call)

        def fid() -> int:
            return random.randrange(1, 12)

        requests: list[Callable[[], tuple[object, ...]]] = [
            lambda: ("walk", random.choice((0, fid())), fid(), random.choices(names, k=random.randrange(3))),
            lambda: ("mkdir", random.choice((0, fid())), random.choice(names), 0o755, 0),
            lambda: ("lcreate", fid(), random.choice(names), 2, 0o644, 0),
            lambda: ("lopen", fid(), random.choice((0, 2))),
            lambda: ("renameat", 0, random.choice(names), random.choice((0, fid())), random.choice(names)),
            lambda: ("unlinkat", random.choice((0, fid())), random.choice(names), random.choice((0, 0x200))),
            lambda: ("getattr", fid(), 0x7FF), lambda: ("clunk", fid()), lambda: ("clunk", fid()),
            lambda: ("remove", fid()), lambda: ("read", fid(), 0, 100), lambda: ("readdir", fid(), 0, 500),
        ]  # fmt: skip
        try:
            for _ in range(1200):
                name, *values = random.choice(requests)()
                with contextlib.suppress(Refused):
                    client.ask(str(name), *values)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    session.close()
    assert not session.places._handles
    assert len(os.listdir("/proc/self/fd")) == before
    share.close()
