"""The end of a CPU: what comes after it is an error, and it does not come while the CPU is at something."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import TYPE_CHECKING, Any

import dbt.guests
import pytest

import dbt
from dbt.engine import hostmem
from dbt.errors import UserError

from .conftest import CODE, DATA

if TYPE_CHECKING:
    from collections.abc import Callable

LOAD, SVC, BRANCH, UNDEFINED = 0xF9400020, 0xD4000001, 0x14000000, 0  # ldr x0, [x1]; b .
DEVICE = 0x90000


def test_everything_is_refused() -> None:
    cpu = dbt.open_cpu()
    cpu.memory.map(CODE, 0x1000, "rwx")
    watch, hook, stop = cpu.watch(CODE, 4), cpu.on_block(print), cpu.break_at(CODE)
    state = cpu.snapshot()
    cpu.close()
    calls: list[Callable[[], Any]] = [
        lambda: cpu.memory.read(CODE, 4), lambda: cpu.memory.write(CODE, b"1"), lambda: cpu.memory.map(CODE, 1),
        lambda: cpu.memory.unmap(CODE, 1), lambda: cpu.memory.protect(CODE, 1, "r"), cpu.memory.mappings,
        lambda: cpu.memory.map_io(DATA, 4), lambda: cpu.memory.limit, lambda: cpu.registers["x0"],
        lambda: cpu.registers.update(x0=1), lambda: dict(cpu.registers), cpu.run, cpu.step, cpu.snapshot,
        lambda: cpu.restore(state), lambda: cpu.break_at(CODE), lambda: cpu.watch(CODE, 4), lambda: cpu.on_block(print),
        lambda: cpu.on_fault(print), lambda: cpu.serve_gdb(0), lambda: cpu.instrument(dbt.Plugin()),
    ]  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises(UserError, match="closed"):
            pytest.fail(f"call {number}: {call()}")
    for each in (watch, hook, stop):
        each.remove()
    cpu.stop()
    cpu.close()


def test_memory_that_the_host_gives_to_somebody_else_is_left_alone() -> None:
    cpu = dbt.open_cpu()
    cpu.memory.map(CODE, 0x1000)
    space = cpu._cpu.memory
    place = space.base + CODE
    cpu.close()
    assert hostmem.map_memory(4096, 3, hostmem.MAP_PRIVATE | hostmem.MAP_ANONYMOUS, place) == place
    try:
        ctypes.memset(place, 0x41, 4)
        for call in (lambda: space.write(CODE, b"B"), lambda: space.map(CODE, 4096, 3), lambda: space.read(CODE, 1)):
            with pytest.raises((dbt.errors.GuestFault, OSError)):
                call()
        assert ctypes.string_at(place, 4) == b"AAAA"
    finally:
        hostmem.unmap_memory(place, 4096)


def prepare(cpu: dbt.CPU, where: str, function: Callable[..., Any]) -> None:
    """Have a callback of a kind call a function once the CPU runs."""
    cpu.registers.update(x1=DEVICE, pc=CODE)
    first = {"fault": LOAD, "device": LOAD, "undefined": UNDEFINED, "call": SVC}.get(where, BRANCH)
    cpu.memory.write(CODE, struct.pack("<II", first, SVC))
    if where == "device":
        cpu.memory.map_io(DEVICE, 0x1000, read=function)
    else:
        hooks: dict[str, Callable[..., object]] = {
            "fault": cpu.on_fault, "undefined": cpu.on_undefined, "call": cpu.on_system_call, "block": cpu.on_block,
            "instruction": cpu.on_instruction,
        }  # fmt: skip
        hooks[where](function)


@pytest.mark.parametrize("where", ["call", "fault", "undefined", "device", "block", "instruction"])
def test_not_in_a_callback(cpu: dbt.CPU, where: str) -> None:
    def forbidden(*_: object) -> int:
        calls: tuple[Callable[[], object], ...] = (cpu.close, cpu.run, cpu.step)
        for call in calls:
            with pytest.raises(UserError, match="runs"):
                call()
        raise RuntimeError

    prepare(cpu, where, forbidden)
    with pytest.raises(RuntimeError):
        cpu.run()
    assert cpu.registers["pc"] == CODE


def test_not_while_another_thread_runs_it(cpu: dbt.CPU) -> None:
    began = threading.Event()

    def note(_call: object) -> int:
        began.set()
        return 0

    cpu.on_system_call(note)
    cpu.memory.write(CODE, struct.pack("<II", SVC, BRANCH))
    thread = threading.Thread(target=cpu.run, args=(CODE,))
    thread.start()
    assert began.wait(60)
    try:
        with pytest.raises(UserError, match="cannot be closed"):
            cpu.close()
    finally:
        cpu.stop()
        thread.join()
    cpu.close()


def test_programs() -> None:
    path = f"{dbt.guests.__path__[0]}/bin/hello"
    with dbt.open_program(path) as program:
        program.on_system_call(lambda _call: program.close())
        with pytest.raises(UserError, match="cannot be closed"):
            program.run()
        program.close()
        with pytest.raises(UserError, match="closed"):
            program.run()
