"""Several CPUs in threads: each meets its own faults, and none disturbs another by coming or going."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading

import pytest

import dbt
from dbt.errors import UserError

CODE, DATA = 0x10000, 0x40000
# x0: address, x1: rounds. Sum up, then fault at 0.
LOOP = (
    0xF9400002,  # ldr x2, [x0]
    0x8B010042,  # add x2, x2, x1
    0xF9000002,  # str x2, [x0]
    0xF1000421,  # subs x1, x1, #1
    0x54FFFF81,  # b.ne the ldr
    0xF9400063,  # ldr x3, [x3]
    0xD4000001,  # svc
)


def work(number: int, failures: list[str], rounds: int = 40) -> None:
    try:
        with dbt.open_cpu() as cpu:
            cpu.memory.map(CODE, 0x1000, "rwx")
            cpu.memory.map(DATA, 0x1000)
            cpu.memory.write(CODE, struct.pack(f"<{len(LOOP)}I", *LOOP))
            for i in range(rounds):
                cpu.memory.write(DATA, bytes(8))
                bad = (number << 32) + (i << 16)
                cpu.registers.update({"x0": DATA, "x1": 1000, "x3": bad})
                found = cpu.run(CODE)
                total = int.from_bytes(cpu.memory.read(DATA, 8), "little")
                if found != dbt.MemoryFault(CODE + 20, bad, "read") or total != 500500:
                    failures.append(f"{number}: {found} {total}")
    except BaseException as error:  # noqa: BLE001 - a thread's
        failures.append(repr(error))


def test_two_cpus_fault_in_two_threads() -> None:
    failures: list[str] = []
    for _ in range(5):  # they come and go
        threads = [threading.Thread(target=work, args=(n, failures)) for n in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures


def test_a_cpu_moves_between_threads() -> None:
    with dbt.open_cpu() as cpu, dbt.open_cpu() as other:
        for each in (cpu, other):
            each.memory.map(CODE, 0x1000, "rwx")
            each.memory.write(CODE, struct.pack("<II", 0xF9400063, 0xD4000001))
        found: list[dbt.Exit] = []
        for number in range(4):
            thread = threading.Thread(target=lambda n=number: found.append((cpu, other)[n % 2].run(CODE)))
            thread.start()
            thread.join(60)
            found.append((other, cpu)[number % 2].run(CODE))
        assert found == [dbt.MemoryFault(CODE, 0, "read")] * 8


def test_the_first_cpu_may_be_closed_first() -> None:
    first = dbt.open_cpu()
    with dbt.open_cpu() as second:
        first.close()
        second.memory.map(CODE, 0x1000, "rwx")
        second.memory.write(CODE, struct.pack("<I", 0xF9400063))
        assert isinstance(second.run(CODE), dbt.MemoryFault)


def test_a_stop_from_another_thread_while_both_run() -> None:
    with dbt.open_cpu() as one, dbt.open_cpu() as two:
        found: dict[int, dbt.Exit] = {}

        def spin(number: int, cpu: dbt.CPU) -> None:
            cpu.memory.map(CODE, 0x1000, "rwx")
            cpu.memory.write(CODE, struct.pack("<I", 0x14000000))
            found[number] = cpu.run(CODE)

        threads = [threading.Thread(target=spin, args=pair) for pair in ((1, one), (2, two))]
        for thread in threads:
            thread.start()
        for cpu, thread in ((one, threads[0]), (two, threads[1])):
            while thread.is_alive():
                cpu.stop()
                thread.join(0.02)
        assert found == {1: dbt.Interrupted(CODE), 2: dbt.Interrupted(CODE)}


def test_a_range_is_as_asked_for_or_refused() -> None:
    program = """
import dbt
with dbt.open_cpu() as first, dbt.open_cpu() as second, dbt.open_cpu(address_bits=44) as third:
    print([cpu.memory.limit.bit_length() - 1 for cpu in (first, second, third)])
    dbt.open_cpu(address_bits=46)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[46, 44, 44]\n"
    assert "UserError: the host grants no address range of 2**46 bytes for the guest" in done.stderr


def test_many_cpus_at_once() -> None:
    opened = []
    try:
        for _ in range(40):
            opened.append(dbt.open_cpu(address_bits=36))
            cpu = opened[-1]
            assert cpu.memory.limit == 1 << 36
            cpu.memory.map(CODE, 0x1000, "rwx")
            cpu.memory.write(CODE, struct.pack("<I", 0xF9400063))
        assert {cpu.run(CODE) for cpu in opened} == {dbt.MemoryFault(CODE, 0, "read")}
    finally:
        for cpu in opened:
            cpu.close()
    with pytest.raises(UserError, match="bits"):
        dbt.open_cpu(address_bits=47)


LOOKER = """
import sys, threading, dbt
from dbt.errors import GuestFault
place, size = 0x5000000, 1 << 19
with dbt.open_cpu() as cpu:
    cpu.memory.map(0x10000, 0x1000, "rwx")
    cpu.memory.write(0x10000, bytes.fromhex("010000d4 ffffff17"))  # svc; b to it
    rounds = iter(range(1000))
    def call(_call):
        number = next(rounds, None)
        if number is not None:
            cpu.memory.unmap(place, size) if number & 1 else cpu.memory.map(place, size)
        else:
            cpu.stop()
        return 0
    cpu.on_system_call(call)
    thread = threading.Thread(target=cpu.run, args=(0x10000,))
    sys.setswitchinterval(1e-6)
    thread.start()
    while thread.is_alive():
        try:
            cpu.memory.write(place + 1, bytes(size - 1)) if sys.argv[1] == "write" else cpu.memory.read(place, size)
        except GuestFault:
            pass
"""


@pytest.mark.parametrize("what", ["read", "write"])
def test_memory_that_comes_and_goes_while_another_thread_looks(what: str) -> None:
    """It gets bytes or a fault of the guest's, never one of the host's."""
    done = subprocess.run([sys.executable, "-c", LOOKER, what], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
