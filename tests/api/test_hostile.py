"""Arguments and snapshots that make no sense: an error that says so, never a crash. In child processes, seeds in a row.

DRAGOMAN_HOSTILE_COUNT is how many calls and how many snapshots are tried on each engine.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zlib
from random import Random
from typing import Any

import pytest

import dbt
from dbt.errors import UserError
from dbt.run import ENGINES
from tests.conftest import ROOT

from .conftest import CODE, DATA

COUNT = int(os.environ.get("DRAGOMAN_HOSTILE_COUNT", "1500"))
VALUES: tuple[Any, ...] = (
    None, 0, 1, -1, 4095, 4096, 1 << 32, 1 << 46, 1 << 63, 1 << 64, 1 << 90, -(1 << 63), True, 1.5, "", "x", "\0", b"",
    b"x" * 32, (), (0, 0), [], [0], {}, {"x": 1}, {1: 2},
)  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_calls(engine: str) -> None:
    command = [sys.executable, "-m", "tests.api.hostile", engine, "0", str(COUNT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    last = done.stderr.splitlines()[-1:]
    assert (done.returncode, done.stdout) == (0, ""), f"after {last}: status {done.returncode}\n{done.stdout[-4000:]}"


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and compressed pages of a snapshot."""
    size = int.from_bytes(data[12:16], "little")
    head: dict[str, Any] = ast.literal_eval(data[16 : 16 + size].decode())
    return head, data[16 + size : -4]


def joined(start: bytes, head: bytes, pages: bytes) -> bytes:
    """A snapshot whose checksum is right."""
    raw = start + len(head).to_bytes(4, "little") + head + pages
    return raw + zlib.crc32(raw).to_bytes(4, "little")


def changed(value: Any, random: Random) -> Any:
    """The same with one part of it, at any depth, something else."""
    if not isinstance(value, dict | list | tuple) or not value or random.random() < 0.1:
        return random.choice(VALUES)
    if isinstance(value, dict):
        key = random.choice(list(value))
        if random.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], random)}
    at = random.randrange(len(value))
    kept = list(value)
    kept[at : at + 1] = [] if random.random() < 0.1 else [changed(value[at], random)]
    return type(value)(kept)


@pytest.mark.parametrize("seed", range(4))
def test_snapshots(seed: int) -> None:
    """Bytes with any change are refused, or restore to a state that a guest could have."""
    random = Random(seed)
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x4000)
        cpu.memory.map(DATA + 0x8000, 0x1000, "r")
        cpu.memory.write(DATA, random.randbytes(0x3000))
        good = cpu.snapshot().to_bytes()
        head, pages = split(good)
        accepted = 0
        for _ in range(COUNT // 4):
            kind = random.randrange(4)
            if kind == 0:
                data = joined(good[:12], repr(changed(head, random)).encode(), pages)
            elif kind == 1:
                at = random.randrange(len(pages))
                data = joined(good[:12], repr(head).encode(), pages[:at] + random.randbytes(2) + pages[at + 1 :])
            elif kind == 2:
                text = bytearray(repr(head).encode())
                text[random.randrange(len(text))] = random.randrange(256)
                data = joined(good[:12], bytes(text), pages)
            else:
                data = good[: random.randrange(len(good))]
            try:
                snapshot = dbt.Snapshot.from_bytes(data)
                repr(snapshot)
                cpu.restore(snapshot)
                accepted += 1
            except UserError as error:
                assert "snapshot" in str(error)  # noqa: PT017 - the wording is what is looked at
                continue
            assert cpu.memory.mappings()
            assert isinstance(cpu.run(CODE), dbt.Exit)
        assert accepted > 5
        cpu.restore(dbt.Snapshot.from_bytes(good))
        assert cpu.snapshot().to_bytes() == good


def test_a_head_of_a_thousand_brackets() -> None:
    with dbt.open_cpu() as cpu:
        good = cpu.snapshot().to_bytes()
    for text in (b"[" * 100_000, b"-" * 100_000 + b"1", b"9" * 10_000, b"\xff", b"", b"__import__('os')"):
        with pytest.raises(UserError, match="makes no sense"):
            dbt.Snapshot.from_bytes(joined(good[:12], text, b""))


def test_another_process_restores_it() -> None:
    program = (
        "import sys, dbt; cpu = dbt.open_cpu(engine='interpreter')\n"
        "cpu.restore(dbt.Snapshot.from_bytes(sys.stdin.buffer.read()))\n"
        "print(cpu.run(), cpu.registers['x0'], cpu.registers['v3'])\n"
    )
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rx")
        cpu.memory.protect(CODE, 0x1000, "rwx")
        cpu.memory.write(CODE, bytes.fromhex("00040091010000d4"))  # add x0, x0, #1; svc
        cpu.registers.update({"pc": CODE, "x0": 41, "v3": 1 << 100})
        data = cpu.snapshot().to_bytes()
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stdout.decode() == f"system call at pc {CODE + 8:#x} 42 {1 << 100}\n"
