"""Handlers of the host: ours while there is a CPU, those from before when the last one is closed."""

from __future__ import annotations

import ctypes
import itertools
import signal
import subprocess
import sys

import pytest

import dbt

SYS_SIGACTION, SYS_SIGALTSTACK = 13, 131
LDR = 0xF9400020  # ldr x0, [x1]


def actions() -> dict[int, bytes]:
    """The kernel's action for each signal (key 0: the alternate stack)."""
    call = ctypes.CDLL(None).syscall
    found = {}
    buffer = ctypes.create_string_buffer(32)
    for signo in signal.valid_signals():
        assert call(SYS_SIGACTION, int(signo), None, buffer, 8) == 0
        found[int(signo)] = buffer.raw
    assert call(SYS_SIGALTSTACK, None, buffer) == 0
    found[0] = buffer.raw[:16]
    return found


def faults(cpu: dbt.CPU) -> bool:
    cpu.memory.map(0x10000, 4096, "rwx")
    cpu.memory.write(0x10000, LDR.to_bytes(4, "little"))
    cpu.registers["x1"] = 0x50000
    return cpu.run(0x10000) == dbt.MemoryFault(0x10000, 0x50000, "read")


@pytest.mark.parametrize("engine", ["baseline", "reference"])
def test_what_was_there_comes_back(engine: str) -> None:
    before = actions()
    with dbt.open_cpu(engine=engine) as cpu:
        assert faults(cpu)
    now = actions()
    if engine == "baseline":  # the alternate stack may stay: it is ours alone
        before.pop(0), now.pop(0)
    assert now == before


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_cpus_close_in_any_order(order: tuple[int, ...]) -> None:
    before = actions()
    cpus = [dbt.open_cpu() for _ in range(3)]
    left = list(cpus)
    for number in order:
        assert all(faults(cpu) for cpu in left)
        cpus[number].close()
        left.remove(cpus[number])
    now = actions()
    before.pop(0), now.pop(0)
    assert now == before


CHILD = """
import ctypes, faulthandler, signal, sys
import dbt
faulthandler.enable()
cpu = dbt.open_cpu(engine=sys.argv[1])
cpu.memory.map(0x10000, 4096, "rwx")
cpu.memory.write(0x10000, (0xF9400020).to_bytes(4, "little"))
cpu.registers["x1"] = 0x50000
for _ in range(3):
    assert cpu.run(0x10000) == dbt.MemoryFault(0x10000, 0x50000, "read")
if sys.argv[2] == "late":
    faulthandler.disable()
    faulthandler.enable()
    assert cpu.run(0x10000) == dbt.MemoryFault(0x10000, 0x50000, "read")
print("fine", flush=True)
signal.raise_signal(signal.SIGFPE) if sys.argv[3] == "raise" else ctypes.string_at(8)
"""


@pytest.mark.parametrize("engine", ["baseline", "optimizer", "interpreter"])
@pytest.mark.parametrize(("how", "signo"), [("raise", signal.SIGFPE), ("touch", signal.SIGSEGV)])
def test_a_bug_of_the_host_s_is_still_told(engine: str, how: str, signo: int) -> None:
    """The handler from before ours, faulthandler's, gets what is not the guest's; the process dies of the signal."""
    done = subprocess.run([sys.executable, "-c", CHILD, engine, "early", how], capture_output=True, check=False)
    assert done.stdout == b"fine\n", done.stderr
    assert done.returncode == -signo
    assert b"Fatal Python error" in done.stderr
    assert b'File "<string>", line' in done.stderr


def test_a_handler_of_python_s_comes_back() -> None:
    seen = []
    old = signal.signal(signal.SIGFPE, lambda signo, _frame: seen.append(signo))
    try:
        with dbt.open_cpu() as cpu:
            assert faults(cpu)
        signal.raise_signal(signal.SIGFPE)
    finally:
        signal.signal(signal.SIGFPE, old)
    assert seen == [signal.SIGFPE]
