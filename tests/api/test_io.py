"""Devices in the address space of a bare CPU: functions see whole accesses, and nothing is lost when they raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dbt
from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.control.traps import Io

CODE, DATA, IO = 0x10000, 0x40000, 0x900_0000
SVC = 0xD4000001
LOADS = {1: 0x39400002, 2: 0x79400002, 4: 0xB9400002, 8: 0xF9400002}  # ldr x2, [x0]
STORES = {1: 0x39000001, 2: 0x79000001, 4: 0xB9000001, 8: 0xF9000001}  # str x1, [x0]
LDRSB = 0x39800002
LDR_POST = 0xF8408402  # ldr x2, [x0], #8


class Device:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, int]] = []
        self.answer = 0x8899AABBCCDDEEFF
        self.trouble: Exception | None = None

    def read(self, offset: int, size: int) -> int:
        self.seen.append(("read", offset, size, 0))
        if self.trouble:
            raise self.trouble
        return self.answer

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append(("write", offset, size, value))
        if self.trouble:
            raise self.trouble


@pytest.fixture
def device(cpu: dbt.CPU) -> Device:
    found = Device()
    cpu.memory.map_io(IO, 0x20, read=found.read, write=found.write)
    return found


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_sizes_are_real(cpu: dbt.CPU, load: Callable[..., None], device: Device, size: int) -> None:
    load(LOADS[size], STORES[size], SVC)
    cpu.registers.update({"x0": IO + 8, "x1": 0x1122334455667788})
    assert isinstance(cpu.run(), dbt.SystemCall)
    mask = (1 << 8 * size) - 1
    assert device.seen == [("read", 8, size, 0), ("write", 8, size, 0x1122334455667788 & mask)]
    assert cpu.registers["x2"] == device.answer & mask


def test_sign_and_write_back(cpu: dbt.CPU, load: Callable[..., None], device: Device) -> None:
    load(LDRSB, SVC)
    cpu.registers["x0"] = IO
    cpu.run()
    assert cpu.registers["x2"] == (1 << 64) - 1
    load(LDR_POST, SVC)
    cpu.run()
    assert cpu.registers["x0"] == IO + 8
    assert cpu.registers["x2"] == device.answer


def test_exceptions_come_out_and_nothing_has_changed(cpu: dbt.CPU, load: Callable[..., None], device: Device) -> None:
    load(LDR_POST, SVC)
    cpu.registers["x0"] = IO
    device.trouble = ValueError("not ready")
    for _ in range(2):
        with pytest.raises(ValueError, match="not ready"):
            cpu.run()
        assert (cpu.registers["pc"], cpu.registers["x0"], cpu.registers["x2"]) == (CODE, IO, 0)
    device.trouble = None
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.registers["x2"] == device.answer


def test_what_a_device_does_not_declare_is_refused(cpu: dbt.CPU, load: Callable[..., None], device: Device) -> None:
    load(0x3DC00001, SVC)  # ldr q1, [x0]
    cpu.registers["x0"] = IO
    found = cpu.run()
    assert isinstance(found, dbt.AccessRefused)
    assert (found.pc, found.address, found.access) == (CODE, IO, "read")
    load(LOADS[8], SVC)
    cpu.registers["x0"] = IO + 0x1C  # half of it is behind the device
    assert isinstance(cpu.run(), dbt.AccessRefused)
    cpu.registers["x0"] = IO + 0x20
    found = cpu.run()
    assert isinstance(found, dbt.MemoryFault)
    assert not isinstance(found, dbt.AccessRefused)
    assert device.seen == []
    words = Device()
    cpu.memory.map_io(IO + 0x1000, 4, read=words.read, sizes=(4,))
    cpu.registers["x0"] = IO + 0x1000
    assert isinstance(cpu.run(), dbt.AccessRefused)
    load(STORES[4], SVC)
    found = cpu.run()
    assert isinstance(found, dbt.AccessRefused)
    assert (found.access, found.size) == ("write", 4)
    load(LOADS[4], SVC)
    assert isinstance(cpu.run(), dbt.SystemCall)


def test_a_device_may_go_and_come(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(LOADS[4], SVC)
    cpu.registers["x0"] = DATA + 16
    cpu.memory.write(DATA + 16, b"\7")
    device = cpu.memory.map_io(DATA, 0x1000, read=lambda offset, _size: offset)  # hides memory
    cpu.run()
    assert cpu.registers["x2"] == 16
    device.remove()
    cpu.run(CODE)
    assert cpu.registers["x2"] == 7
    last: list[Io] = []

    def once(_offset: int, _size: int) -> int:
        last.pop().remove()
        return 5

    last.append(cpu.memory.map_io(DATA, 0x1000, read=once))
    cpu.run(CODE)
    assert cpu.registers["x2"] == 5
    cpu.run(CODE)
    assert cpu.registers["x2"] == 7


def test_a_device_may_look_at_the_cpu(cpu: dbt.CPU, load: Callable[..., None]) -> None:
    load(STORES[8], SVC)
    cpu.registers.update({"x0": IO, "x1": 3})

    def doorbell(_offset: int, _size: int, value: int) -> None:
        assert cpu.registers["pc"] == CODE
        cpu.memory.write(DATA, bytes([value]))

    cpu.memory.map_io(IO, 8, write=doorbell)
    assert isinstance(cpu.run(), dbt.SystemCall)
    assert cpu.memory.read(DATA, 1) == b"\3"


def test_wrong_arguments(cpu: dbt.CPU, device: Device) -> None:
    with pytest.raises(UserError, match="overlaps the device"):
        cpu.memory.map_io(IO + 8, 8, read=device.read)
    with pytest.raises(UserError, match="no sizes"):
        cpu.memory.map_io(IO + 0x100, 8, read=device.read, sizes=(3,))
