"""Regions are asked for, waited for or not, by a process that never has LLVM in it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dbt.engine import build, cache, spawn
from dbt.engine.build import WorkerEnded
from dbt.engine.cache import Store, open_store
from dbt.engine.former import Profile
from dbt.engine.layout import PAGE_SIZE
from dbt.engine.promoter import NoRegion, Promoter
from dbt.engine.transport import Channel
from dbt.engine.worker import Server
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE = 0x10000
# x0 rounds: ldr x2, [x1]; add x3, x3, x2; str x3, [x1, #8]; subs x0, x0, #1; b.ne to the start; svc
LOOP = struct.pack("<6I", 0xF9400022, 0x8B020063, 0xF9000423, 0xF1000400, 0x54FFFF81, 0xD4000001)
KEY = ((), True, 37)


@pytest.fixture
def promoter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Promoter]:
    monkeypatch.setattr(build, "_pools", [])
    monkeypatch.setattr(cache, "_said", set())
    yield Promoter(open_store(), "aarch64")
    for worker in build._pool().workers:
        worker.close()


def page(address: int) -> bytes:
    return LOOP.ljust(PAGE_SIZE, b"\0") if address == CODE else b""


def workers() -> list[Any]:
    return build._pool().workers


def test_a_region_is_waited_for(promoter: Promoter) -> None:
    found = promoter.region(CODE, KEY, page)
    assert found is not None
    code, ranges = found
    assert ranges == [(CODE, LOOP)]
    assert sorted(at for _, _, at in code.landings) == [CODE, CODE, CODE + 8, CODE + 8]  # in both rounds of the loop
    assert [worker.busy for worker in workers()] == [False]


def test_a_region_is_asked_for_again_and_again(promoter: Promoter) -> None:
    expected = promoter.region(CODE, KEY, page)
    assert expected is not None
    promotion = promoter.begin(CODE, KEY, page)
    assert [worker.busy for worker in workers()] == [True]
    other = promoter.begin(CODE, KEY, page)
    open_store(quiet=True).compile("aarch64", {8})  # meanwhile
    assert len(workers()) == 3
    assert len({worker._channel._socket.fileno() for worker in workers()}) == 3
    for one in (promotion, other):
        while not one.ready():
            time.sleep(0.01)
        assert (one.result(), one.ranges) == expected
    assert sum(worker.busy for worker in workers()) == 0


def test_several_at_once_are_the_same_regions(promoter: Promoter) -> None:
    blocks = (CODE, CODE + 12, CODE + 20)  # the second one leads into the loop, the third one is straight
    alone = [promoter.region(block, KEY, page) for block in blocks]
    found = promoter.several([(block, Profile()) for block in (*blocks, 0x90000)], KEY, page)
    assert [(code, ranges) for _, code, ranges in found] == alone
    assert [block for block, _, _ in found] == list(blocks)


def test_a_worker_ends_after_very_many_regions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The next request finds its good-bye, and starts another one."""

    class Refusing(Server):
        def _answer(self, kind: str, *arguments: Any) -> tuple[object, ...]:
            return "none", kind, *arguments

    monkeypatch.setattr("dbt.engine.worker.MOST_REGIONS", 3)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        channel.send(("hello", str(tmp_path), "build"))
        for number in range(4):
            channel.send(("region", number))
        Refusing(Channel(theirs)).serve()
        assert [channel.receive() for _ in range(4)] == [*(("none", "region", n) for n in range(3)), ("bye",)]


def test_one_that_nobody_waits_for(promoter: Promoter) -> None:
    promotion = promoter.begin(CODE, KEY, page)
    promotion.abandon()
    promotion.abandon()
    assert workers() == []
    assert promoter.region(CODE, KEY, page) is not None


def test_nothing_to_compile(promoter: Promoter, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoRegion, match="no instruction"):
        promoter.begin(CODE, KEY, lambda _: b"").result()
    assert promoter.region(CODE, KEY, lambda _: b"") is None
    assert promoter.region(CODE + 64, KEY, lambda _: b"") is None
    assert capfd.readouterr().err.count("\n") == 1
    assert [worker.busy for worker in workers()] == [False]


def test_a_worker_that_ends_meanwhile(promoter: Promoter) -> None:
    promotion = promoter.begin(CODE, KEY, page)
    workers()[0]._channel._socket.shutdown(2)
    with pytest.raises(WorkerEnded):
        promotion.result()
    assert workers() == []


def test_an_exception_of_the_guests_memory(promoter: Promoter) -> None:
    def failing(_address: int) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promoter.begin(CODE, KEY, failing).result()
    assert workers() == []  # it still waits for a page
    assert promoter.region(CODE, KEY, page) is not None


def test_a_fork_has_a_worker_of_its_own(promoter: Promoter) -> None:
    assert promoter.region(CODE, KEY, page) is not None
    before = workers()[0]
    child = os.fork()
    if not child:
        found = promoter.region(CODE, KEY, page)
        os._exit(0 if found is not None and workers() and workers()[0] is not before else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert promoter.region(CODE, KEY, page) is not None
    assert workers() == [before]


def test_the_guests_process_has_no_llvm_in_it() -> None:
    script = f"""
import sys, dbt
with dbt.open_cpu(engine="optimizer") as cpu:
    cpu.memory.map({CODE:#x}, 0x1000, "rwx")
    cpu.memory.map(0x40000, 0x1000)
    cpu.memory.write({CODE:#x}, bytes.fromhex({LOOP.hex()!r}))
    cpu.registers.update({{"x0": 50000, "x1": 0x40000}})
    cpu.run({CODE:#x})
    print(cpu._cpu.baseline.compiled, "llvmlite" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1 False\n", "")


def test_another_worker_keeps_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for for ever: what is compiled stays in memory."""
    tmp_path.chmod(0o700)
    store = Store(str(tmp_path), quiet=True)
    bootstrap = spawn.BOOTSTRAP.replace("main()", "import dbt.engine.workspace as w; w.LOCK_PATIENCE = 0.3; main()")
    monkeypatch.setattr(spawn, "BOOTSTRAP", bootstrap)
    with open(store.path("lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.prepare("aarch64")
    assert set(store.kept) >= {"runtime.image", "aarch64.tables", "aarch64.pack"}
    assert os.listdir(store.folder) == ["lock"]
    store.compile("aarch64", {8})
    assert "aarch64.pack" not in store.kept
    assert Path(store.path("aarch64.pack")).stat().st_size > 1000


def groups_of_sessions() -> list[str]:
    """What the kernel says of the groups of all processes that can be looked at: "/autogroup-NUMBER nice VALUE"."""
    found = []
    for path in Path("/proc").glob("[0-9]*/autogroup"):
        with suppress(OSError):
            found.append(path.read_text().strip())
    return found


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists() or os.nice(0) > 12,
    reason="the kernel makes no groups of sessions, or these tests are nice",
)
def test_a_worker_is_as_nice_as_who_starts_it() -> None:
    assert not any(group.endswith(" nice 13") for group in groups_of_sessions())
    child = os.fork()
    if not child:
        os.nice(13 - os.nice(0))
        with spawn.held_signals():
            connection, _ = spawn.start_worker()  # which waits for a greeting
        late = time.monotonic() + 60
        found = False
        while not found and time.monotonic() < late:
            time.sleep(0.05)
            found = any(group.endswith(" nice 13") for group in groups_of_sessions())
        connection.close()
        os._exit(not found)
    assert os.waitpid(child, 0) == (child, 0)


def test_children_of_the_guest_are_reported_to_it(promoter: Promoter) -> None:
    """The SIGCHLD of the middle process is taken back, one of the guest's own is not."""
    seen: list[int] = []
    previous = signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
    try:
        assert promoter.region(CODE, KEY, page) is not None
        assert seen == []
        child = os.fork()
        if not child:
            os._exit(3)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        seen.clear()
        workers()[0].close()
        with spawn.held_signals():
            os.kill(os.getpid(), signal.SIGCHLD)  # as if it came just now
            connection, log = spawn.start_worker()
        connection.close()
        os.close(log)
        assert seen == [1]
        assert os.waitpid(child, 0) == (child, 3 << 8)
    finally:
        signal.signal(signal.SIGCHLD, previous)
