"""The gdb stub of a CPU, driven by packets made by hand: every state left in every way, nonsense."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import dbt.guests
import pytest

import dbt
from dbt.engine.layout import MAX_STOPS
from dbt.gdb.registers import REGISTERS
from dbt.run import ENGINES

from .gdb_client import ENDS, Client, hexed, packet

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE, DATA = 0x10000, 0x20000
SELF, SVC, MOV0_5, STR = 0x14000000, 0xD4000001, 0xD28000A0, 0xF9000020  # str x0, [x1]
LINGER = struct.pack("ii", 1, 0)  # close() resets the connection


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
