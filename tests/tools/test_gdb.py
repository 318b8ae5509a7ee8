"""The gdb stub, driven by Debian's gdb. Packets by hand: test_gdb_packets.py, test_gdb_programs.py."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dbt.guests
import pytest

from dbt.gdb.packets import escape, unescape
from dbt.gdb.registers import from_gdb, to_gdb
from dbt.run import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = """
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
volatile long counter;
volatile int got;
volatile double sum;
static void handler(int n) { got = n; }
int __attribute__((noinline)) work(int n) { for (int i = 0; i < n; i++) counter += i; return (int)counter; }
double __attribute__((noinline)) add(double a, double b) { return a + b; }
int main(int argc, char **argv)
{
    char c;
    signal(SIGUSR1, handler);
    signal(SIGUSR2, handler);
    sum = add(1, 0x1p-60);
    int r = work(5);
    raise(SIGUSR1);
    if (argc > 1 && !strcmp(argv[1], "spin")) for (;;) counter++;
    if (argc > 1 && !strcmp(argv[1], "read")) read(0, &c, 1);
    if (argc > 1 && !strcmp(argv[1], "exec")) execl(argv[0], argv[0], "again", NULL);
    if (argc > 1 && !strcmp(argv[1], "crash")) *(volatile int *)16 = 1;
    return got == SIGUSR1 ? r : 99;
}
"""
NEEDS = pytest.mark.needs("gdb-multiarch", "aarch64-linux-gnu-gcc")
START = ("set pagination off", "set confirm off", "target remote {socket}")
QUIET = "handle SIGUSR1 nostop noprint pass"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gdb")
    source = folder / "guest.c"
    source.write_text(SOURCE, encoding="utf-8")
    program = folder / "guest"
    subprocess.run(["aarch64-linux-gnu-gcc", "-g", "-O1", "-static", "-o", program, source], check=True)
    return program


Session = "Callable[..., tuple[str, int]]"


@pytest.fixture
def debug(tmp_path: Path, guest: Path) -> Iterator[Callable[..., tuple[str, int]]]:
    """Runs gdb's commands on the guest with an argument; what gdb says, and the command's status."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*commands: str, argument: str = "", interrupt: float = 0, engine: str = "baseline") -> tuple[str, int]:
        where = tmp_path / "socket"
        words = [Path(sys.executable).with_name("dragoman"), "run", "--engine", engine, "-g", where, guest]
        server = subprocess.Popen(
            [*map(str, words), *([argument] if argument else [])], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(server)
        assert server.stderr is not None
        assert b"waiting for gdb" in server.stderr.readline()
        script = tmp_path / "script"
        script.write_text("\n".join([*START, *commands]).format(socket=where) + "\n", encoding="utf-8")
        gdb = subprocess.Popen(
            ["gdb-multiarch", "-nx", "-batch", "-x", script, guest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(gdb)
        if interrupt:
            assert gdb.stdout is not None
            while b"now running" not in gdb.stdout.readline():
                pass
            time.sleep(interrupt)
            gdb.send_signal(signal.SIGINT)
        said, _ = gdb.communicate(timeout=60)
        return said.decode(), server.wait(60)

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@NEEDS
@pytest.mark.parametrize("engine", ENGINES)
def test_breakpoints_steps_and_registers(debug: Callable[..., tuple[str, int]], engine: str) -> None:
    said, status = debug(
        QUIET, "break work", "continue", "bt", "stepi", "stepi", "p $pc == $x30", "finish", "p counter",
        "set var counter = 77", "p counter", "p $v0.d.u", "set $x0 = 5", "p $x0", "info registers fpcr tpidr",
        "info auxv", "continue", engine=engine,
    )  # fmt: skip
    assert "Breakpoint 1, work (n=n@entry=5)" in said
    assert "in main (argc=1" in said
    assert "Value returned is $2 = 10" in said
    assert "$4 = 77" in said
    assert "AT_ENTRY" in said
    assert "exited with code 05]" in said
    assert status == 5


@NEEDS
@pytest.mark.parametrize("engine", ENGINES)
def test_watchpoints(debug: Callable[..., tuple[str, int]], engine: str) -> None:
    said, status = debug(
        QUIET, "watch counter", "continue", "continue", "delete", "rwatch got", "continue", "continue", engine=engine
    )
    assert "Old value = 0\nNew value = 1" in said
    assert "Old value = 1\nNew value = 3" in said
    assert "Hardware read watchpoint 2: got\n\nValue = 10" in said
    assert status == 10


@NEEDS
@pytest.mark.parametrize("engine", ENGINES)
def test_access_watchpoints(debug: Callable[..., tuple[str, int]], engine: str) -> None:
    said, status = debug(
        QUIET, "break work", "continue", "awatch counter", "continue", "continue", "delete", "continue", engine=engine
    )
    assert "Hardware access (read/write) watchpoint 2: counter\n\nValue = 0" in said
    assert "Old value = 0\nNew value = 1" in said or said.count("Hardware access (read/write) watchpoint 2") == 3
    assert status == 10


@NEEDS
@pytest.mark.parametrize("engine", ENGINES)
def test_vectors_and_floating_point_control(debug: Callable[..., tuple[str, int]], engine: str) -> None:
    """What gdb writes is what the guest computes with, and the other way round."""
    said, status = debug(
        QUIET, "break add", "continue", "p $v0.d.f[0] == 1.0", "p/x $v1.d.u", "set $fpcr = 0x400000",
        "p/x $fpsr & 0x10", "finish", "p/x $v0.d.u[0]", "p/x $fpsr & 0x10", "set $v31.d.u[0] = 0xfedcba9876543210",
        "set $v31.d.u[1] = 0x123456789abcdef0", "p/x $v31.b.u[15]", "p/x $v31.s.u", "p/x $fpcr", "continue",
        engine=engine,
    )  # fmt: skip
    values = [line.partition(" = ")[2] for line in said.splitlines() if line.startswith("$")]
    assert values[:2] == ["1", "{0x3c30000000000000, 0x0}"], said
    assert values[2] == "0x0"
    assert values[3:] == ["0x3ff0000000000001", "0x10", "0x12", "{0x76543210, 0xfedcba98, 0x9abcdef0, 0x12345678}",
                          "0x400000"]  # fmt: skip
    assert "Value returned is $4 = 1.0000000000000002" in said
    assert status == 10


@NEEDS
@pytest.mark.parametrize("engine", ENGINES)
def test_signals_are_shown_and_passed_or_not(debug: Callable[..., tuple[str, int]], engine: str) -> None:
    said, status = debug("continue", "p $_siginfo.si_signo", "continue", engine=engine)
    assert "received signal SIGUSR1" in said
    assert "$1 = 10" in said
    assert status == 10
    said, status = debug("continue", "signal 0", engine=engine)
    assert status == 99
    said, status = debug("continue", "signal SIGUSR2", engine=engine)
    assert status == 99
    said, status = debug(QUIET, "break work", "continue", "signal SIGUSR2", "p got", "continue", engine=engine)
    assert said.count("Breakpoint 1, work") == 2  # once more when the handler has returned
    assert "$1 = 12" in said
    assert status == 10
    said, status = debug(QUIET, "continue", "info registers pc", "continue", argument="crash", engine=engine)
    assert "received signal SIGSEGV" in said
    assert "terminated with signal SIGSEGV" in said
    assert status == -signal.SIGSEGV


@NEEDS
@pytest.mark.parametrize(("argument", "engine"), [(how, engine) for how in ("read", "spin") for engine in ENGINES])
def test_ctrl_c(debug: Callable[..., tuple[str, int]], argument: str, engine: str) -> None:
    said, status = debug(
        QUIET, "break work", "continue", "delete", "echo now running\\n", "continue", "bt", "kill",
        argument=argument, interrupt=1.5, engine=engine,
    )  # fmt: skip
    assert "received signal SIGINT" in said
    assert "in main" in said
    assert status == -signal.SIGKILL


@NEEDS
@pytest.mark.parametrize("engine", ENGINES)
def test_exec_and_detach(debug: Callable[..., tuple[str, int]], engine: str) -> None:
    said, status = debug(
        QUIET, "catch exec", "continue", "break work", "continue", "detach", argument="exec", engine=engine
    )
    assert "is executing new program" in said
    assert "Breakpoint 2, work" in said
    assert status == 10


def test_escapes_and_signals() -> None:
    for data in (b"", b"}", b"a#b$c}d*e", bytes(range(256))):
        assert unescape(escape(data)) == data
    assert unescape(b"abc}") == b"abc"
    for number in (*range(1, 16), *range(17, 65)):
        assert from_gdb(to_gdb(number)) == number or number == 29


def test_a_port_that_is_none(dragoman: Callable[..., subprocess.CompletedProcess[bytes]], warm: object) -> None:
    assert warm
    hello = Path(dbt.guests.__file__).parent / "bin" / "hello"
    for where in ("nonsense", "99999999", "/nowhere/at/all"):
        done = dragoman("run", "-g", where, hello)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
