"""The gdb stub, driven by packets made by hand: every state left in every way, nonsense, and what gdb never sends."""

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
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import dbt.guests
import pytest

import dbt
from dbt.engine.layout import MAX_STOPS
from dbt.gdb.packets import Connection
from dbt.gdb.registers import REGISTERS
from dbt.run import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"
CODE, DATA = 0x10000, 0x20000
SELF, SVC, MOV0_5, STR = 0x14000000, 0xD4000001, 0xD28000A0, 0xF9000020  # str x0, [x1]
LINGER = struct.pack("ii", 1, 0)  # close() resets the connection


def packet(payload: bytes) -> bytes:
    return b"$" + payload + b"#%02x" % (sum(payload) & 0xFF)


def hexed(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little").hex().encode()


class Client:
    """The other side, by hand."""

    def __init__(self, where: str) -> None:
        for _ in range(3000):
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(where)
                break
            except OSError:
                self.socket.close()
                time.sleep(0.01)
        self.socket.settimeout(30)
        self.connection = Connection(self.socket)

    def ask(self, payload: bytes) -> bytes:
        self.socket.sendall(packet(payload))
        return self.answer()

    def answer(self) -> bytes:
        answer = self.connection.receive()
        assert answer is not None
        return answer

    def interrupt(self) -> bytes:
        self.socket.sendall(b"\x03")
        return self.answer()


Bare = tuple[dbt.CPU, Client, threading.Thread]


@pytest.fixture(params=ENGINES)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bare]:
    """A CPU that is served in another thread, and a client of it."""
    with dbt.open_cpu(engine=request.param) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x1000)
        cpu.memory.write(CODE, struct.pack("<IIIII", MOV0_5, STR, SVC, SELF, MOV0_5))
        cpu.memory.protect(CODE, 0x1000, "rx")
        cpu.registers.update({"pc": CODE, "x1": DATA})
        where = str(tmp_path / "gdb")
        thread = threading.Thread(target=cpu.serve_gdb, args=(where,))
        thread.start()
        client = Client(where)
        yield cpu, client, thread
        client.socket.close()
        thread.join(30)
        assert not thread.is_alive()


def test_a_bare_cpu(bare: Bare) -> None:
    cpu, client, _ = bare
    assert b"PacketSize" in client.ask(b"qSupported:swbreak+")
    assert client.ask(b"?") == b"T05thread:1;"
    assert client.ask(b"s") == b"T05thread:1;"
    assert client.ask(b"p0") == b"0500000000000000"
    assert client.ask(b"P0=0700000000000000") == b"OK"
    assert cpu.registers["x0"] == 7
    assert client.ask(b"vCont;c") == b"T0cthread:1;"  # a system call that nobody serves
    assert cpu.memory.read(DATA, 8) == struct.pack("<Q", 7)
    assert client.ask(b"M%x,4:e0008052" % CODE) == b"OK"  # mov w0, #7, in memory that the guest may only read
    assert client.ask(b"m%x,4" % CODE) == b"e0008052"
    assert client.ask(b"m0,4") == b"E0e"
    assert client.ask(b"P20=" + hexed(CODE)) == b"OK"
    assert client.ask(b"Z0,%x,4" % (CODE + 4)) == b"OK"
    assert client.ask(b"c") == b"T05swbreak:;thread:1;"
    assert cpu.registers["x0"] == 7
    assert client.ask(b"z0,%x,4" % (CODE + 4)) == b"OK"
    for kind, name in ((2, b"watch"), (3, b"rwatch"), (4, b"awatch")):
        assert client.ask(b"Z%d,%x,8" % (kind, DATA)) == b"OK"
        assert client.ask(b"P20=" + hexed(CODE)) == b"OK"
        reply = b"T0cthread:1;" if name == b"rwatch" else b"T05%s:%x;thread:1;" % (name, DATA)
        assert client.ask(b"c") == reply
        assert cpu.registers["pc"] == (CODE + 12 if name == b"rwatch" else CODE + 4)  # before the store
        assert client.ask(b"z%d,%x,8" % (kind, DATA)) == b"OK"
    client.socket.sendall(packet(b"P20=" + hexed(CODE + 12)))
    assert client.answer() == b"OK"
    client.socket.sendall(packet(b"c"))
    time.sleep(0.1)
    assert client.interrupt() == b"T02thread:1;"
    assert client.ask(b"D") == b"OK"


def test_all_registers_by_the_description(bare: Bare) -> None:
    """Numbers and sizes are those of the description; what is written is read, is in `g`, and is the guest's."""
    cpu, client, _ = bare
    text = client.ask(b"qXfer:features:read:target.xml:0,3fff")
    assert text[:1] == b"l"
    tree = ET.fromstring(text[1:])  # noqa: S314 - our own
    described = [(reg.attrib["name"], int(reg.attrib["bitsize"]) // 8) for reg in tree.iter("reg")]
    assert described == [(register.name, register.size) for register in REGISTERS]
    assert {f"v{i}" for i in range(32)} | {"fpsr", "fpcr", "cpsr", "sp", "pc"} <= dict(described).keys()
    known = {"pc": CODE, "cpsr": 0xA0000000, "fpsr": 0x08000010, "fpcr": 0x00C00000}
    rng = random.Random(3)
    whole = b""
    for number, (name, size) in enumerate(described):
        value = known.get(name, rng.randrange(1 << 8 * size))
        assert client.ask(b"P%x=%s" % (number, hexed(value, size))) == b"OK"
        ours = {"cpsr": "nzcv", "tpidr": "tpidr_el0"}.get(name, name)
        assert cpu.registers[ours] == value, name
        assert client.ask(b"p%x" % number) == hexed(value, size)
        whole += hexed(value, size)
    assert client.ask(b"g") == whole
    assert client.ask(b"G" + whole) == b"OK"
    assert client.ask(b"g") == whole
    assert client.ask(b"P0=00") == b"E01"
    assert client.ask(b"p%x" % len(described)) == b"E01"


def test_the_guest_computes_with_what_is_written(bare: Bare) -> None:
    cpu, client, _ = bare
    code = struct.pack("<III", 0x1E612802, 0x4E228443, SVC)  # fadd d2, d0, d1; add v3.16b, v2.16b, v2.16b
    assert client.ask(b"M%x,c:%s" % (CODE, code.hex().encode())) == b"OK"
    numbers = {register.name: number for number, register in enumerate(REGISTERS)}
    for name, value, size in (("v0", 0x3FF << 52, 16), ("v1", (0x3FF - 60) << 52, 16), ("fpcr", 1 << 22, 4)):
        assert client.ask(b"P%x=%s" % (numbers[name], hexed(value, size))) == b"OK"
    assert client.ask(b"c") == b"T0cthread:1;"
    assert client.ask(b"p%x" % numbers["v2"]) == hexed((0x3FF << 52) + 1, 16)  # rounded up
    doubled = bytes(byte * 2 & 255 for byte in ((0x3FF << 52) + 1).to_bytes(16, "little"))
    assert client.ask(b"p%x" % numbers["v3"]) == doubled.hex().encode()
    assert client.ask(b"p%x" % numbers["fpsr"]) == hexed(1 << 4, 4)  # inexact
    assert cpu.registers["fpsr"] == 1 << 4


def test_more_breakpoints_than_there_is_room_for(bare: Bare) -> None:
    _, client, _ = bare
    for number in range(MAX_STOPS):
        assert client.ask(b"Z0,%x,4" % (CODE + 0x100 + 4 * number)) == b"OK"
    assert client.ask(b"Z0,%x,4" % CODE) == b"E01"
    assert client.ask(b"Z1,1%016x,4" % CODE) == b"E01"
    assert client.ask(b"c") == b"T0cthread:1;"


# ---- coming and going

STATES = ("fresh", "silent", "stepped", "broken", "watched", "interrupted", "running")
ENDS = {
    "closed": b"",
    "reset": b"",
    "cut": b"$m10000,1000",
    "cut at its checksum": b"$g#6",
    "cut at its start": b"$",
    "garbage": b"\xff\0$$$###}}}+-" * 50,
    "many packets at once": packet(b"g") * 50 + packet(b"m10000,1000") * 50,
    "detach": packet(b"D"),
    "detach of a process": packet(b"D;1"),
    "kill": packet(b"k"),
    "kill by vKill": packet(b"vKill;1"),
}


def bring(client: Client, state: str) -> None:
    """Have the bare guest in a state."""
    if state == "silent":
        assert client.ask(b"QStartNoAckMode") == b"OK"
        client.connection.acknowledge = False
    elif state == "stepped":
        assert client.ask(b"s") == b"T05thread:1;"
    elif state == "broken":
        assert client.ask(b"Z1,%x,4" % (CODE + 8)) == b"OK"
        assert client.ask(b"c") == b"T05hwbreak:;thread:1;"
    elif state == "watched":
        assert client.ask(b"Z2,%x,4" % (DATA + 4)) == b"OK"
        assert client.ask(b"c") == b"T05watch:%x;thread:1;" % (DATA + 4)
    elif state in {"interrupted", "running"}:
        assert client.ask(b"P20=" + hexed(CODE + 12)) == b"OK"
        client.socket.sendall(packet(b"vCont;c"))
        if state == "interrupted":
            time.sleep(0.02)
            assert client.interrupt() == b"T02thread:1;"


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_left_in_every_way(tmp_path: Path, state: str) -> None:
    """The client goes; the next one is served, and afterwards nothing of either is left."""
    for engine in ENGINES:
        with dbt.open_cpu(engine=engine) as cpu:
            cpu.memory.map(CODE, 0x1000, "rwx")
            cpu.memory.map(DATA, 0x1000)
            cpu.memory.write(CODE, struct.pack("<IIIII", MOV0_5, STR, SVC, SELF, MOV0_5))
            held: list[tuple[int, int]] = []
            for number, (end, sent) in enumerate(ENDS.items()):
                cpu.registers.update({"pc": CODE, "x1": DATA})
                where = str(tmp_path / f"{engine}{number}")
                thread = threading.Thread(target=cpu.serve_gdb, args=(where,))
                thread.start()
                client = Client(where)
                bring(client, state)
                if end == "reset":
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
                client.socket.sendall(sent)
                client.socket.close()
                thread.join(30)
                assert not thread.is_alive(), (engine, end)
                assert not os.path.exists(where)
                cpu.registers.update({"pc": CODE, "x1": DATA})
                assert cpu.run() == dbt.SystemCall(CODE + 12, 0, (5, DATA, 0, 0, 0, 0)), (engine, end)
                held.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
            assert len(set(held)) == 1, held


def test_another_client_after_the_first(bare: Bare, tmp_path: Path) -> None:
    cpu, client, thread = bare
    assert client.ask(b"D") == b"OK"
    thread.join(30)
    again = threading.Thread(target=cpu.serve_gdb, args=(str(tmp_path / "again"),))
    again.start()
    second = Client(str(tmp_path / "again"))
    assert second.ask(b"s") == b"T05thread:1;"
    assert second.ask(b"D") == b"OK"
    second.socket.close()
    again.join(30)
    assert cpu.registers["x0"] == 5


# ---- nonsense


def test_nonsense_does_no_harm(bare: Bare) -> None:
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


SESSION = [
    *b"qSupported:swbreak+;hwbreak+ ? Hg0 g p20 P3=0102030405060708 m10000,20 M20000,4:01020304 X20008,4:abcd".split(),
    *b"Z0,10004,4 z0,10004,4 Z1,10008,4 Z2,20000,8 z2,20000,8 Z3,20000,8 Z4,20010,1 s c vCont;s:1 vCont;c".split(),
    *b"C0b S05 c10000 s10004 vCont? qXfer:features:read:target.xml:0,100 qfThreadInfo qC QPassSignals:e;10".split(),
    *(b"G" + b"00" * 40, b"P20=0000010000000000"),
]


@pytest.mark.parametrize("seed", range(2))
def test_sessions_with_bytes_changed(bare: Bare, seed: int) -> None:
    """Sensible packets, a byte or two of most changed: each is answered, and Ctrl-C ends whatever it began."""
    _, client, thread = bare
    rng = random.Random(f"gdb {seed}")
    for _ in range(250):
        payload = bytearray(rng.choice(SESSION))
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(len(payload))
            payload[at : at + rng.choice((0, 1, 2))] = bytes(
                rng.choice(b"0123456789abcdefcsZ,:;=}*\xff\0") for _ in range(rng.choice((0, 1, 1, 3)))
            )
        if not payload or payload.startswith((b"D", b"k", b"vKill")):
            continue
        client.socket.sendall(packet(bytes(payload)) + b"\x03")
        client.answer()
        assert thread.is_alive()
    answer = client.ask(b"?")
    while not answer.startswith(b"T"):  # of a guest that was let go and interrupted there may be one more
        answer = client.answer()


# ---- programs

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
