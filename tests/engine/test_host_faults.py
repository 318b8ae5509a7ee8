"""Handlers of Python's, faulthandler and bugs of the host, beside guests that fault: each gets what is its own.

Everything runs in processes of its own, since most of them are to die.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dbt.run import ENGINES

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import ctypes, faulthandler, os, signal, sys, threading
import dbt

engine, seen = sys.argv[1], []

def opened():
    cpu = dbt.open_cpu(engine=engine, address_bits=40)
    cpu.memory.map(0x10000, 4096, "rwx")
    cpu.memory.write(0x10000, 0xF9400020.to_bytes(4, "little"))  # ldr x0, [x1]
    cpu.memory.write(0x10100, bytes.fromhex("00040091400000f9feffff17"))  # add x0, x0, #1; str x0, [x2]; b
    cpu.memory.map(0x60000, 4096)
    cpu.registers["x2"] = 0x60000
    cpu.registers["x1"] = 0x50000
    return cpu

def faults(cpu):
    for _ in range(3):
        assert cpu.run(0x10000) == dbt.MemoryFault(0x10000, 0x50000, "read")

def handler(signo, frame):
    seen.append(signo)

def crash():
    print("fine", flush=True)
    ctypes.string_at(0)
"""

# The kernel's action for each signal.
ACTIONS = """
def actions():
    call, buffer, found = ctypes.CDLL(None).syscall, ctypes.create_string_buffer(32), {}
    for signo in signal.valid_signals():
        assert call(13, int(signo), None, buffer, 8) == 0
        found[int(signo)] = buffer.raw if any(buffer.raw[:8]) else b"default"
    return found
"""


def child(script: str, engine: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", HEAD + ACTIONS + script, engine, *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=40)


def dies(script: str, engine: str, traces: int, signo: int = signal.SIGSEGV) -> None:
    """The script says that it is fine, and dies of the signal after so many traces of faulthandler's."""
    done = child(script, engine)
    assert done.stdout == b"fine\n", done.stderr
    assert done.returncode == -signo
    assert done.stderr.count(b"Fatal Python error") == traces, done.stderr
    if traces:
        assert b'File "<string>", line' in done.stderr


def succeeds(script: str, engine: str, *arguments: str) -> None:
    done = child(script, engine, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("script", "traces"),
    [
        ("cpu = opened(); faults(cpu); crash()", 0),
        ("faulthandler.enable(); cpu = opened(); faults(cpu); crash()", 1),
        ("cpu = opened(); faulthandler.enable(); crash()", 1),
        ("cpu = opened(); faulthandler.enable(); faults(cpu); crash()", 1),
        ("cpu = opened(); faults(cpu); faulthandler.enable(); faults(cpu); crash()", 1),
        ("faulthandler.enable(); cpu = opened(); faulthandler.disable(); faults(cpu); crash()", 0),
        ("cpu = opened(); faulthandler.enable(); faults(cpu); faulthandler.disable(); faults(cpu); crash()", 0),
        ("cpu = opened(); faulthandler.enable(); other = opened(); faults(cpu); faults(other); crash()", 1),
        ("cpu = opened(); faulthandler.enable(); faults(cpu); cpu.close(); crash()", 1),
        ("cpu = opened(); faulthandler.enable(); cpu.close(); crash()", 1),
        ("cpu = opened(); faulthandler.enable(); faults(cpu); faulthandler.disable(); cpu.close(); crash()", 0),
        ("cpu = opened(); faulthandler.enable(); cpu.close(); faulthandler.disable(); crash()", 0),
        ("cpu = opened(); faulthandler.enable(); cpu.close(); faulthandler.disable(); faults(opened()); crash()", 0),
        ("faulthandler.enable(); opened().close(); crash()", 1),
        ("cpu = opened(); cpu.on_fault(lambda fault: crash()); cpu.run(0x10000)", 0),
        ("faulthandler.enable(); cpu = opened(); cpu.on_fault(lambda fault: crash()); cpu.run(0x10000)", 1),
        ("cpu = opened(); faulthandler.enable(); cpu.on_block(lambda block: crash()); cpu.run(0x10000)", 1),
    ],
)  # fmt: skip
def test_a_bug_of_the_hosts_ends_the_process(engine: str, script: str, traces: int) -> None:
    dies(script.replace("; ", "\n"), engine, traces)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", ["before", "after"])
def test_in_another_thread_while_a_guest_runs(engine: str, order: str) -> None:
    enable = ["faulthandler.enable()"]
    lines = [
        *(enable if order == "before" else ()),
        "cpu = opened()",
        *(enable if order == "after" else ()),
        "faults(cpu)",
    ]
    lines += [
        "threading.Thread(target=cpu.run, args=(0x10100,), daemon=True).start()",
        "thread = threading.Thread(target=crash)", "thread.start()", "thread.join()",
    ]  # fmt: skip
    dies("\n".join(lines), engine, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_several_cpus_in_threads_and_a_handler_that_comes_late(engine: str) -> None:
    dies(
        """
def work():
    cpu = opened()
    for _ in range(5):
        faults(cpu)
    cpu.close()

first = opened()
faulthandler.enable()
for _ in range(3):
    threads = [threading.Thread(target=work) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    faults(first)
crash()
""",
        engine,
        1,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_handlers_of_pythons(engine: str) -> None:
    """Signals that are sent come to Python's handlers, set before or after; faults of the guest do not."""
    succeeds(
        """
signal.signal(signal.SIGSEGV, handler)
cpu = opened()
signal.signal(signal.SIGBUS, handler)
signal.signal(signal.SIGINT, handler)
faults(cpu)
for signo in (signal.SIGSEGV, signal.SIGBUS, signal.SIGINT):
    os.kill(os.getpid(), signo)
    signal.raise_signal(signo)
    faults(cpu)
assert seen == [11, 11, 7, 7, 2, 2], seen
signal.signal(signal.SIGSEGV, signal.SIG_IGN)
faults(cpu)
os.kill(os.getpid(), signal.SIGSEGV)
cpu.close()
os.kill(os.getpid(), signal.SIGSEGV)
assert len(seen) == 6
os.kill(os.getpid(), signal.SIGBUS)
assert seen.pop() == 7
""",
        engine,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_and_a_handler_of_pythons_while_the_guest_runs(engine: str) -> None:
    succeeds(
        """
import time
signal.signal(signal.SIGINT, handler)
cpu = opened()
def interrupt():
    while not cpu.memory.read(0x60000, 8).strip(bytes(1)):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
assert isinstance(cpu.run(0x10100), dbt.Interrupted)
assert seen == [2]
cpu.memory.write(0x60000, bytes(8))
assert signal.getsignal(signal.SIGINT) is handler
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt).start()
try:
    cpu.run(0x10100)
except KeyboardInterrupt:
    seen.append("interrupted")
assert seen == [2, "interrupted"]
faults(cpu)
""",
        engine,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_default_action_is_one_still(engine: str) -> None:
    script = "cpu = opened(); faults(cpu); print('fine', flush=True); os.kill(os.getpid(), signal.SIGBUS)"
    dies(script, engine, 0, signal.SIGBUS)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_there_comes_back_in_any_order(engine: str) -> None:
    succeeds(
        """
plain = actions()
with opened() as cpu:
    faults(cpu)
assert actions() == plain
faulthandler.enable()
enabled = actions()
with opened() as cpu, opened() as other:
    cpu.close()
    faults(other)
assert actions() == enabled
faulthandler.disable()
assert actions() == plain
with opened() as cpu:
    signal.signal(signal.SIGSEGV, handler)
    changed = signal.getsignal(signal.SIGSEGV)
    faults(cpu)
os.kill(os.getpid(), signal.SIGSEGV)
assert seen == [11]
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
with opened() as cpu:
    faulthandler.enable()
    faults(cpu)
    faulthandler.disable()
assert actions() == plain
""",
        engine,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_program_has_set_goes_with_it(engine: str, busybox: Path) -> None:
    """A shell with a child and traps: nothing of its dispositions is left, and no signal comes to the next guest."""
    succeeds(
        """
signal.signal(signal.SIGUSR1, handler)
before = actions()
script = "trap 'x=1' TERM USR1; trap '' HUP; (exit 3) & kill -USR1 $$; wait $!; wait $!; exit $?"
with dbt.open_program(sys.argv[2], ["sh", "-c", script], engine=engine) as program:
    assert program.run() == dbt.Exited(3), program.run()
assert actions() == before
os.kill(os.getpid(), signal.SIGUSR1)
assert seen == [10]
faults(opened())
""",
        engine,
        str(busybox),
    )
