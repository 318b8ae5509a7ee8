"""The worker hangs, and the user has enough."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.robustness.bench import ENGINES, GUEST, NATIVE, TIMEOUT, Bench, wait_for


@pytest.mark.parametrize("engine", ENGINES)
def test_the_user_ends_a_run_whose_worker_is_silent(cold: Bench, engine: str) -> None:
    child = cold.start("request=stop", "run", "--engine", engine, GUEST.path, str(GUEST.short))
    wait_for(cold, child)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, errors) == (-signal.SIGINT, "")


def test_the_user_ends_a_run_whose_region_does_not_come(warm: Bench) -> None:
    child = warm.start("request=stop", "run", "--wait", "--engine", "optimizer", GUEST.path, str(GUEST.ordinary))
    wait_for(warm, child)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, errors) == (-signal.SIGINT, "")


def test_a_program_that_uses_the_library_is_interrupted_and_goes_on(cold: Bench) -> None:
    script = f"""
import sys
from tests.robustness import sabotage
sabotage.prepare("request=stop", {str(cold.notes)!r}, 1)
import dbt
cpu = dbt.open_cpu("aarch64")
cpu.memory.map(0x10000, 0x1000, "rwx")
cpu.memory.write(0x10000, bytes.fromhex("200080d2 00040091"))
try:
    cpu.run(0x10000, until=0x10008)
except KeyboardInterrupt:
    print("interrupted", flush=True)
cpu.run(0x10000, until=0x10008)
print(cpu.registers["x0"])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cold.cache)}
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe)
    wait_for(cold, child)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=TIMEOUT) == (b"interrupted\n2\n", b"")


@pytest.mark.parametrize("engine", NATIVE)
def test_a_guest_with_a_handler_gets_its_signal(cold: Bench, engine: str, busybox: Path) -> None:
    """While it waits for a worker that is silent; what its handler needs comes from another one."""
    start = "trap 'echo caught; exit 3' INT; echo ready"
    words = ("run", "--engine", engine, busybox, "sh", "-c")
    first = cold.start("nothing", *words, f"{start}; kill -INT $$")
    assert first.communicate(timeout=TIMEOUT) == ("ready\ncaught\n", "")
    child = cold.start("request=stop", *words, f"{start}; printf '%f' 1.5; echo late")
    wait_for(cold, child)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=TIMEOUT) == ("ready\n1.500000caught\n", "")  # a shell ends its command first
    assert child.returncode == 3
