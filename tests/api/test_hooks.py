"""Hooks: what they return decides, what they raise comes out, and they may come and go at any time."""

from __future__ import annotations

import os
import signal
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import dbt.guests
import pytest

import dbt
from tests.threads import ctrl_c

if TYPE_CHECKING:
    from collections.abc import Callable

CODE, DATA = 0x10000, 0x40000
SVC, UDF, BRK = 0xD4000001, 0x00000000, 0xD4200020
LDR = 0xF9400002
ADD1 = 0x91000400  # add x0, x0, #1
SELF = 0x14000000
HELLO = Path(dbt.guests.__file__).parent / "bin" / "hello"


def test_system_calls_of_a_bare_cpu(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(SVC, SVC, SVC, UDF)
    cpu.registers.update({"x0": 1, "x8": 5})
    seen: list[dbt.SystemCall] = []

    def answer(call: dbt.SystemCall) -> int:
        seen.append(call)
        return call.arguments[0] + 10

    hook = cpu.on_system_call(answer)
    assert isinstance(cpu.run(), dbt.Undefined)
    assert [call.arguments[0] for call in seen] == [1, 11, 21]
    assert cpu.registers["x0"] == 31
    hook.remove()
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    other = cpu.on_system_call(lambda _call: None)
    assert isinstance(cpu.run(CODE), dbt.SystemCall)
    other.remove()
    other.remove()


def test_an_exception_can_be_repeated(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(ADD1, SVC, UDF)

    def refuse(_call: dbt.SystemCall) -> int:
        raise RuntimeError("no")

    hook = cpu.on_system_call(refuse)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            cpu.run()
        assert (cpu.registers["pc"], cpu.registers["x0"]) == (CODE + 4, 1)
    hook.remove()
    cpu.on_system_call(lambda _call: 0)
    assert isinstance(cpu.run(), dbt.Undefined)


def test_a_fault_that_is_mended(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(LDR, SVC)
    cpu.registers["x0"] = 0x700008

    def mend(fault: dbt.MemoryFault | dbt.api.Misaligned) -> bool:
        cpu.memory.map(fault.address & -4096, 4096)
        cpu.memory.write(fault.address, b"\5")
        return True

    hook = cpu.on_fault(mend)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x2"] == 5
    hook.remove()
    cpu.memory.unmap(0x700000, 4096)
    assert isinstance(cpu.run(CODE), dbt.MemoryFault)


def test_an_instruction_that_is_emulated(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(UDF, ADD1, BRK, ADD1, SVC)

    def emulate(found: dbt.Exit) -> bool:
        cpu.registers["x0"] += 100
        return found.pc == CODE

    cpu.on_undefined(emulate)
    found = cpu.run()
    assert isinstance(found, dbt.Breakpoint)
    assert found.pc == CODE + 8
    assert cpu.registers["x0"] == 201

    def skip(_found: dbt.Exit) -> bool:
        cpu.registers["pc"] = CODE + 12
        return True

    cpu.on_undefined(skip)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_a_stop_behind_a_hook(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(SVC, ADD1, SVC)
    cpu.on_system_call(lambda _call: 3)
    assert cpu.run(until=CODE + 4) == dbt.Reached(CODE + 4)
    assert cpu.registers["x0"] == 3


def test_a_program_whose_calls_are_seen(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    with dbt.open_program(HELLO) as program:
        hook = program.on_system_call(lambda call: seen.append(call.number))
        assert program.run() == dbt.Exited(0)
        hook.remove()
    assert 64 in seen
    assert seen[-1] in {93, 94}
    assert capfd.readouterr().out == "hello from AArch64\n"


def test_a_program_whose_calls_are_answered(capfd: pytest.CaptureFixture[str]) -> None:
    with dbt.open_program(HELLO) as program:
        said: list[bytes] = []

        def write(call: dbt.SystemCall) -> int | None:
            if call.number != 64:
                return None
            said.append(program.memory.read(call.arguments[1], call.arguments[2]))
            return call.arguments[2]

        program.on_system_call(write)
        assert program.run() == dbt.Exited(0)
    assert said == [b"hello from AArch64\n"]
    assert not capfd.readouterr().out


def assemble(folder: Path, *words: int) -> Path:
    """A static program of these instructions at 0x400078, on one writable page."""
    code = struct.pack(f"<{len(words)}I", *words)
    size = 120 + len(code)
    head = (
        b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, 0x400000, 0x400000, size, 0x1000, 0x1000)
    path = folder / "program"
    path.write_bytes(head + segment + code)
    path.chmod(0o755)
    return path


READ_TWO = (
    0x10001001,  # adr x1, . + 0x200
    0xD2800000,  # mov x0, #0
    0xD2800042,  # mov x2, #2
    0xD28007E8,  # mov x8, #63: read
    SVC,
    0x39400023,  # ldrb w3, [x1]
    0x39000423,  # strb w3, [x1, #1]
    0xAA0003E4,  # mov x4, x0
    0x39400420,  # ldrb w0, [x1, #1]
    0xD2800BA8,  # mov x8, #93: exit
    SVC,
)


def test_the_kernel_writes_to_watched_pages(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"*!")
    saved = os.dup(0)
    fd = os.open(data, os.O_RDONLY)
    os.dup2(fd, 0)
    try:
        with dbt.open_program(assemble(tmp_path, *READ_TWO)) as program:
            place = 0x400078 + 0x200
            program.watch(place, 2, "access")
            first = program.run()
            assert first == dbt.Watched(0x400078 + 24, place, 1, "read", 0x400078 + 20)
            assert program.memory.read(place, 2) == b"*!"
            second = program.run()
            assert isinstance(second, dbt.Watched)
            assert (second.access, second.address) == ("write", place + 1)
            assert program.registers["x0"] == 2
            third = program.run()
            assert isinstance(third, dbt.Watched)
            assert program.run() == dbt.Exited(ord("*"))
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(fd)


def test_faults_and_undefined_instructions_of_a_program(tmp_path: Path) -> None:
    path = assemble(tmp_path, UDF, 0xD2800002, 0xF9400040, 0xD2800BA8, SVC)  # udf; ldr x0, [x2] at 0; exit
    with dbt.open_program(path) as program:
        assert program.run() == dbt.Killed(signal.SIGILL)
    with dbt.open_program(path) as program:
        program.on_undefined(lambda _found: True)
        assert program.run() == dbt.Killed(signal.SIGSEGV)
    with dbt.open_program(path) as program:
        program.on_undefined(lambda _found: True)

        def mend(_fault: dbt.Exit) -> bool:
            program.registers["x2"] = 0x400000
            return True

        program.on_fault(mend)
        assert program.run() == dbt.Exited(0x7F)


def test_a_program_is_stopped_and_goes_on(tmp_path: Path) -> None:
    with dbt.open_program(assemble(tmp_path, SELF, 0xD2800BA8, SVC)) as program:
        timer = threading.Timer(0.1, program.stop)
        timer.start()
        found = program.run()
        assert isinstance(found, dbt.Interrupted)
        assert found.pc == 0x400078
        thread = ctrl_c(program)
        with pytest.raises(KeyboardInterrupt):
            program.run()
        thread.join()
        program.registers["pc"] = 0x40007C
        program.registers["x0"] = 3
        assert program.run() == dbt.Exited(3)
