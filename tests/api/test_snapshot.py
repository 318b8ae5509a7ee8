"""Snapshots: everything comes back, as often as one likes, also from bytes and on another engine."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import dbt.guests
import pytest

import dbt
from dbt.control.pages import page_runs
from dbt.control.state import CLEAN_EVERY
from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

CODE, DATA = 0x10000, 0x40000
SVC, STR_POST, STR, ADD1 = 0xD4000001, 0xF8008401, 0xF9000001, 0x91000400
MOV0_5, MOV0_6 = 0xD28000A0, 0xD28000C0
HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"


def state(cpu: dbt.CPU) -> tuple[object, ...]:
    memory = [cpu.memory.read(start, end - start) for start, end, _, _ in cpu.memory.mappings()]
    return dict(cpu.registers), cpu.memory.mappings(), memory


def test_everything_comes_back(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR_POST, 0xEB03007F, SVC)
    cpu.registers.update({"x0": DATA, "x1": 1 << 63, "v7": 1 << 127, "fpcr": 1 << 22, "tpidr_el0": 99, "nzcv": 9 << 28})
    cpu.memory.write(DATA + 0x1FF8, b"before")
    before = state(cpu)
    snapshot = cpu.snapshot()
    assert state(cpu) == before
    for _ in range(3):
        assert isinstance(cpu.run(), dbt.SystemCall)
        cpu.memory.write(DATA + 0x1FF8, b"after!")
        cpu.registers.update({"v7": 0, "fpcr": 0})
        assert state(cpu) != before
        cpu.restore(snapshot)
        assert state(cpu) == before
    cpu.memory.unmap(DATA, 0x1000)
    cpu.memory.protect(DATA + 0x1000, 0x1000, "r")
    cpu.memory.map(0x900000, 0x3000)
    cpu.restore(snapshot)
    assert state(cpu) == before
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_code_comes_back_as_well(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(MOV0_5, SVC)
    snapshot = cpu.snapshot()
    for _ in range(3):
        cpu.run()
        assert cpu.registers["x0"] == 5
        load(MOV0_6, SVC)
        cpu.run()
        assert cpu.registers["x0"] == 6
        cpu.restore(snapshot)


def test_several_snapshots(cpu: dbt.CPU) -> None:
    taken = []
    for number in range(4):
        cpu.memory.write(DATA + 8 * number, bytes([number + 1]))
        cpu.registers["x5"] = number
        taken.append((cpu.snapshot(), state(cpu)))
    for snapshot, expected in [*taken[::-1], *taken, *taken[::2]]:
        cpu.restore(snapshot)
        assert state(cpu) == expected


@pytest.mark.parametrize("engine", ["baseline", "reference"])
def test_bytes_carry_it_to_another_cpu(cpu: dbt.CPU, load: Callable[..., None], engine: str) -> None:
    load(STR_POST, SVC)
    cpu.registers.update({"x0": DATA, "x1": 7, "nzcv": 5 << 28})
    cpu.memory.map(1 << 32, 1 << 30)  # mostly nothing, and that must not cost anything
    cpu.memory.write((1 << 32) + 12345, b"far away")
    before = state_without(cpu)
    data = cpu.snapshot().to_bytes()
    assert len(data) < 20000
    snapshot = dbt.Snapshot.from_bytes(data)
    with dbt.open_cpu(engine=engine) as other:
        other.memory.map(0x5000, 0x1000)
        other.restore(snapshot)
        assert state_without(other) == before
        assert isinstance(other.run(), dbt.SystemCall)
        assert other.memory.read(DATA, 1) == b"\7"
        other.restore(snapshot)
        assert state_without(other) == before
    assert dbt.Snapshot.from_bytes(snapshot.to_bytes()).to_bytes() == snapshot.to_bytes()


def state_without(cpu: dbt.CPU) -> tuple[object, ...]:
    return dict(cpu.registers), cpu.memory.mappings(), cpu.memory.read(DATA, 0x4000), cpu.memory.read(1 << 32, 1 << 16)


def test_with_watchpoints(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR, SVC)
    cpu.registers["x0"] = DATA
    watch = cpu.watch(DATA, 8)
    snapshot = cpu.snapshot()
    for _ in range(2):
        assert isinstance(cpu.run(), dbt.Watched)
        cpu.restore(snapshot)
    watch.remove()
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_damage_is_refused(cpu: dbt.CPU) -> None:
    data = cpu.snapshot().to_bytes()
    for bad, said in (
        (b"", "no snapshot"),
        (b"x" * 100, "no snapshot"),
        (data[:-9] + b"!" + data[-8:], "damaged"),
        (data[:8] + b"\xff" + data[9:], "version"),
        (data[: len(data) // 2], "damaged"),
    ):
        with pytest.raises(UserError, match=said):
            dbt.Snapshot.from_bytes(bad)


def test_any_byte_may_be_damaged(cpu: dbt.CPU) -> None:
    """Damage is told by the checksum; with a right checksum, what makes no sense is refused whole."""
    cpu.memory.write(DATA + 0x1000, bytes(range(256)) * 8)
    data = cpu.snapshot().to_bytes()
    before = state(cpu)
    rng = Random(5)
    refused = 0
    for number in range(400):
        raw = bytearray(data[:-4])
        for _ in range(rng.choice((1, 1, 2, 8))):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        if number % 4 == 0:
            del raw[rng.randrange(12, len(raw)) :]
        elif number % 4 == 1:
            at = rng.randrange(16, len(raw))
            raw[at:at] = raw[at : at + rng.randrange(1, 40)]
        right = bytes(raw) + zlib.crc32(raw).to_bytes(4, "little")
        with pytest.raises(UserError, match="snapshot"):
            dbt.Snapshot.from_bytes(bytes(raw) + b"\0\0\0\0")
        try:
            snapshot = dbt.Snapshot.from_bytes(right)
            cpu.restore(snapshot)
        except UserError as error:
            refused += "snapshot" in str(error)
    assert refused > 200
    cpu.restore(dbt.Snapshot.from_bytes(data))
    assert state(cpu) == before
    version = data[:8] + (2).to_bytes(4, "little") + data[12:-4]
    with pytest.raises(UserError, match="version 2"):
        dbt.Snapshot.from_bytes(version + zlib.crc32(version).to_bytes(4, "little"))


def pages_held(cpu: dbt.CPU, *, written: bool) -> int:
    """Pages of the guest that the kernel has for it: copies of those that were written to, or all that are mapped."""
    space = cpu._cpu.memory
    runs = page_runs(space.base, 0, space.limit, anonymous=written)
    if runs is None:
        pytest.skip("this kernel does not say which pages are written to")
    return sum(end - start for start, end in runs) >> 12


def test_copies_are_made_of_what_is_written_and_dropped(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STR, SVC)
    cpu.memory.map(1 << 32, 64 << 20)
    for page in range(0, 64 << 20, 1 << 16):
        cpu.memory.write((1 << 32) + page, b"full")
    snapshot = cpu.snapshot()
    for count in (0, 1, 7, 300):
        for number in range(count):
            cpu.registers.update({"pc": CODE, "x0": (1 << 32) + 0x1000 * (200 * number % 16384)})
            assert isinstance(cpu.run(), dbt.SystemCall)
        assert pages_held(cpu, written=True) == count
        cpu.restore(snapshot)
        assert pages_held(cpu, written=True) == 0
    cpu.memory.read(1 << 32, 16 << 20)
    assert pages_held(cpu, written=False) >= 4096
    for _ in range(CLEAN_EVERY):
        cpu.restore(snapshot)
    assert pages_held(cpu, written=False) == 0  # what was read is not looked at for ever
    assert cpu.memory.read((1 << 32) + (1 << 16), 4) == b"full"


def test_restores_hold_nothing() -> None:
    rounds = int(os.environ.get("DRAGOMAN_LEAKS", "300"))
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x40000)
        cpu.memory.write(CODE, struct.pack("<II", STR_POST, SVC))
        cpu.registers.update({"x0": DATA, "pc": CODE})
        snapshot = cpu.snapshot()
        figures = []
        for number in range(rounds):
            cpu.run()
            cpu.restore(snapshot)
            if number % 7 == 0:  # mappings change as well
                cpu.memory.map(DATA + 0x100000, 0x1000)
            if number in {rounds // 3, rounds - 1}:
                figures.append(
                    (len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_bytes().splitlines()))
                )
        assert figures[1][0] == figures[0][0]
        assert figures[1][1] - figures[0][1] < 4
    before = len(os.listdir("/proc/self/fd"))
    del snapshot
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_program_runs_again(capfd: pytest.CaptureFixture[str]) -> None:
    with dbt.open_program(HELLO) as program:
        start = program.snapshot()
        for _ in range(3):
            assert program.run() == dbt.Exited(0)
            program.restore(start)
        data = start.to_bytes()
    with dbt.open_program(HELLO, ["other", "words"]) as other:
        other.restore(dbt.Snapshot.from_bytes(data))
        assert other.run() == dbt.Exited(0)
        with dbt.open_cpu() as cpu, pytest.raises(UserError, match="do not mix"):
            cpu.restore(start)
    assert capfd.readouterr().out == "hello from AArch64\n" * 4
