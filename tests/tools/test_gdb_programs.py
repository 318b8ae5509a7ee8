"""The gdb stub of programs, driven by packets made by hand: `dragoman run -g`, and the library's."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dbt.guests
import pytest

import dbt
from dbt.run import ENGINES

from .gdb_client import ENDS, Client, packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"


BUSYBOX = "busybox-static:arm64"
WAIT = "echo ready; read x; exit 7"
TRAP = "trap 'echo got' USR1; kill -USR1 $$; exit 3"


@pytest.fixture(params=ENGINES)
def program(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Iterator[Callable[[str], Any]]:
    """Starts `dragoman run -g` with a script of the shell: the process, and a client of it."""
    started: list[subprocess.Popen[bytes]] = []
    clients: list[Client] = []

    def start(script: str) -> tuple[subprocess.Popen[bytes], Client]:
        where = tmp_path / f"socket{len(started)}"
        words = [Path(sys.executable).with_name("dragoman"), "run", "--engine", request.param, "-g", where]
        process = subprocess.Popen(
            [*map(str, words), str(busybox), "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stderr is not None
        while b"waiting for gdb" not in process.stderr.readline():
            assert process.poll() is None
        clients.append(Client(str(where)))
        return process, clients[-1]

    yield start
    for client in clients:
        client.socket.close()
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("state", ["fresh", "stepped", "running", "interrupted"])
def test_a_program_goes_on_or_is_killed(program: Callable[[str], Any], state: str) -> None:
    for end in ("closed", "cut") if state == "running" else ("closed", "detach", "kill"):
        process, client = program(WAIT)
        if state == "stepped":
            assert client.ask(b"vCont;s").startswith(b"T05")
        elif state != "fresh":
            client.socket.sendall(packet(b"vCont;c"))
            assert process.stdout.readline() == b"ready\n"
            if state == "interrupted":
                assert client.interrupt() == b"T02thread:1;"
        client.socket.sendall(ENDS[end])
        client.socket.close()
        out, _ = process.communicate(b"\n", timeout=60)
        if end == "kill":
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 7
            assert out == (b"ready\n" if state in {"fresh", "stepped"} else b"")


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"", 3, b"got\n"),
        (b"$g", 3, b"got\n"),
        (packet(b"D"), 3, b"got\n"),
        (packet(b"k"), -signal.SIGKILL, b""),
        (packet(b"c"), 3, b""),
        (packet(b"vCont;C1e"), 3, b"got\n"),
        (packet(b"C1f"), -signal.SIGUSR2, b""),
    ],
)
def test_in_front_of_a_signal(program: Callable[[str], Any], sent: bytes, status: int, said: bytes) -> None:
    """Who goes lets the program have its signal; who stays says which it gets."""
    process, client = program(TRAP)
    assert client.ask(b"c") == b"T1ethread:1;"
    client.socket.sendall(sent)
    if not sent or sent[:2] in {b"$g", b"$D", b"$k"}:
        client.socket.close()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, said)
    if status != -signal.SIGKILL and sent[:2] in {b"$c", b"$C", b"$v"}:
        assert client.answer() == (b"W03" if status == 3 else b"X1f")


def test_a_child_is_nobodys(program: Callable[[str], Any]) -> None:
    """gdb stays with the parent; the child is done when it goes away."""
    process, client = program("(echo child; exit 5) & wait $!; exit $?")
    assert client.ask(b"QPassSignals:14") == b"OK"  # SIGCHLD
    client.socket.sendall(packet(b"c"))
    assert client.answer() == b"W05"
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, b"child\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_of_the_library(engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It stands still again when gdb has gone, and the caller's signals are as they were."""
    where = str(tmp_path / "gdb")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ()), [signal.getsignal(n) for n in range(1, 32)]
    with dbt.open_program(HELLO, engine=engine) as program:
        said: list[bytes] = []

        def debug() -> None:
            client = Client(where)
            said.extend(client.ask(payload) for payload in (b"?", b"s", b"vCont;s:1", b"D"))
            client.socket.close()

        for _ in range(2):
            thread = threading.Thread(target=debug)
            thread.start()
            program.serve_gdb(where)
            thread.join()
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before[0]
        assert [answer[:3] for answer in said] == [b"T05", b"T05", b"T05", b"OK"] * 2
        assert program.run() == dbt.Exited(0)
    assert (signal.pthread_sigmask(signal.SIG_BLOCK, ()), [signal.getsignal(n) for n in range(1, 32)]) == before
    assert "hello from AArch64" in capfd.readouterr().out
