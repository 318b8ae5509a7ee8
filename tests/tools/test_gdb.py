"""The gdb stub: Debian's gdb drives it, and what is no protocol does it no harm."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dbt.guests
import pytest

import dbt
from dbt.gdb.packets import Connection, escape, unescape
from dbt.gdb.registers import REGISTERS, from_gdb, to_gdb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = """
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
volatile long counter;
volatile int got;
static void handler(int n) { got = n; }
int __attribute__((noinline)) work(int n) { for (int i = 0; i < n; i++) counter += i; return (int)counter; }
int main(int argc, char **argv)
{
    char c;
    signal(SIGUSR1, handler);
    int r = work(5);
    raise(SIGUSR1);
    if (argc > 1 && !strcmp(argv[1], "spin")) for (;;) counter++;
    if (argc > 1 && !strcmp(argv[1], "read")) read(0, &c, 1);
    if (argc > 1 && !strcmp(argv[1], "exec")) execl(argv[0], argv[0], "again", NULL);
    if (argc > 1 && !strcmp(argv[1], "crash")) *(volatile int *)16 = 1;
    return got == SIGUSR1 ? r : 99;
}
"""
ENGINES = ("baseline", "interpreter", "optimizer")
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
def test_signals_are_shown_and_passed_or_not(debug: Callable[..., tuple[str, int]]) -> None:
    said, status = debug("continue", "p $_siginfo.si_signo", "continue")
    assert "received signal SIGUSR1" in said
    assert "$1 = 10" in said
    assert status == 10
    said, status = debug("continue", "signal 0")
    assert status == 99
    said, status = debug(QUIET, "continue", "info registers pc", "continue", argument="crash")
    assert "received signal SIGSEGV" in said
    assert "terminated with signal SIGSEGV" in said
    assert status == -signal.SIGSEGV


@NEEDS
@pytest.mark.parametrize(("argument", "engine"), [("read", "baseline"), *(("spin", engine) for engine in ENGINES)])
def test_ctrl_c(debug: Callable[..., tuple[str, int]], argument: str, engine: str) -> None:
    said, status = debug(
        QUIET, "break work", "continue", "delete", "echo now running\\n", "continue", "bt", "kill",
        argument=argument, interrupt=1.5, engine=engine,
    )  # fmt: skip
    assert "received signal SIGINT" in said
    assert "in main" in said
    assert status == -signal.SIGKILL


@NEEDS
def test_exec_and_detach(debug: Callable[..., tuple[str, int]]) -> None:
    said, status = debug(QUIET, "catch exec", "continue", "break work", "continue", "detach", argument="exec")
    assert "is executing new program" in said
    assert "Breakpoint 2, work" in said
    assert status == 10


def packet(payload: bytes) -> bytes:
    return b"$" + payload + b"#%02x" % (sum(payload) & 0xFF)


class Client:
    """The other side, by hand."""

    def __init__(self, where: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(500):
            try:
                self.socket.connect(where)
                break
            except OSError:
                time.sleep(0.01)
        self.socket.settimeout(20)
        self.connection = Connection(self.socket)

    def ask(self, payload: bytes) -> bytes:
        self.socket.sendall(packet(payload))
        answer = self.connection.receive()
        assert answer is not None
        return answer


CODE = 0x10000
SELF, SVC, MOV0_5 = 0x14000000, 0xD4000001, 0xD28000A0


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[tuple[dbt.CPU, Client, threading.Thread]]:
    """A CPU that is served in another thread, and a client of it."""
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rx")
        cpu.memory.protect(CODE, 0x1000, "rwx")
        cpu.memory.write(CODE, struct.pack("<III", MOV0_5, SVC, SELF))
        cpu.memory.protect(CODE, 0x1000, "rx")
        cpu.registers["pc"] = CODE
        where = str(tmp_path / "gdb")
        thread = threading.Thread(target=cpu.serve_gdb, args=(where,))
        thread.start()
        client = Client(where)
        yield cpu, client, thread
        client.socket.close()
        thread.join(20)
        assert not thread.is_alive()


def test_a_bare_cpu(bare: tuple[dbt.CPU, Client, threading.Thread]) -> None:
    cpu, client, _ = bare
    assert b"PacketSize" in client.ask(b"qSupported:swbreak+")
    assert client.ask(b"?") == b"T05thread:1;"
    assert b"org.gnu.gdb.aarch64.fpu" in client.ask(b"qXfer:features:read:target.xml:0,3000")
    assert len(client.ask(b"g")) == 2 * sum(register.size for register in REGISTERS)
    assert client.ask(b"s") == b"T05thread:1;"
    assert client.ask(b"p0") == b"0500000000000000"
    assert client.ask(b"P0=0700000000000000") == b"OK"
    assert cpu.registers["x0"] == 7
    assert client.ask(b"vCont;c") == b"T0cthread:1;"  # a system call that nobody serves
    assert client.ask(b"M%x,4:e0008052" % CODE) == b"OK"  # mov w0, #7, in memory that the guest may only read
    assert client.ask(b"m%x,4" % CODE) == b"e0008052"
    assert client.ask(b"m0,4") == b"E0e"
    assert client.ask(b"P20=" + struct.pack("<Q", CODE).hex().encode()) == b"OK"
    assert client.ask(b"Z0,%x,4" % (CODE + 4)) == b"OK"
    assert client.ask(b"c") == b"T05swbreak:;thread:1;"
    assert cpu.registers["x0"] == 7
    assert client.ask(b"P20=" + struct.pack("<Q", CODE + 8).hex().encode()) == b"OK"
    client.socket.sendall(packet(b"c"))
    time.sleep(0.2)
    client.socket.sendall(b"\x03")
    assert client.connection.receive() == b"T02thread:1;"
    assert client.ask(b"D") == b"OK"


def test_nonsense_does_no_harm(bare: tuple[dbt.CPU, Client, threading.Thread]) -> None:
    _, client, _ = bare
    rng = random.Random(7)
    heads = [b"m", b"M", b"X", b"G", b"P", b"p", b"Z", b"z", b"q", b"Q", b"v", b"H", b"T", b"qXfer:", b"vFile:", b"!"]
    for head in heads:
        for tail in (b"", b"-1", b",", b":", b"zz,zz", b"ffffffffffffffffffff,ffffffff", b"0,", b"\xff\0}", b"1;2;3:4"):
            client.ask(head + tail)
    for _ in range(300):
        payload = rng.choice(heads) + bytes(
            rng.choice(b"0123456789abcdef,:;=-}*\xff") for _ in range(rng.randrange(30))
        )
        client.ask(payload.replace(b"$", b"").replace(b"#", b""))
    client.socket.sendall(b"+++-garbage$m0,4#00$$##zz" + os.urandom(100).replace(b"$", b"").replace(b"\x03", b""))
    client.socket.sendall(b"#00")
    for _ in range(20):
        if client.ask(b"?").startswith(b"T05"):
            break
    assert client.ask(b"?") == b"T05thread:1;"
    client.socket.sendall(b"$" + b"0" * 100000 + b"#")


@pytest.mark.parametrize("sent", [b"", b"$", b"$g", packet(b"m10000,1000"), packet(b"k"), packet(b"s")])
def test_a_client_that_goes_at_any_time(bare: tuple[dbt.CPU, Client, threading.Thread], sent: bytes) -> None:
    """It is let go, and the next one is served."""
    cpu, client, thread = bare
    client.socket.sendall(sent)
    client.socket.close()
    thread.join(20)
    assert not thread.is_alive()
    cpu.registers["pc"] = CODE
    assert cpu.run() == dbt.SystemCall(CODE + 8, 0, (5, 0, 0, 0, 0, 0))


def test_another_client_after_the_first(bare: tuple[dbt.CPU, Client, threading.Thread], tmp_path: Path) -> None:
    cpu, client, thread = bare
    assert client.ask(b"D") == b"OK"
    thread.join(20)
    again = threading.Thread(target=cpu.serve_gdb, args=(str(tmp_path / "again"),))
    again.start()
    second = Client(str(tmp_path / "again"))
    assert second.ask(b"s") == b"T05thread:1;"
    assert second.ask(b"D") == b"OK"
    second.socket.close()
    again.join(20)
    assert cpu.registers["x0"] == 5


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
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
