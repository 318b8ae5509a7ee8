"""The finisher: a driver of `syscon-poweroff` and `syscon-reboot`."""

from __future__ import annotations

from dbt.machine.devices.sifive_test import FAIL, POWEROFF, REBOOT, SifiveTest
from dbt.machine.log import GUEST_ERROR
from dbt.machine.machine import Machine
from dbt.machine.power import PowerKind, PowerRequest

from tests.machine.fuzzing import fuzz


def test_what_drivers_write() -> None:
    machine = Machine()
    machine.place(SifiveTest("test", machine), 0x10_0000)
    machine.reset()
    requests = []
    for value, size in ((POWEROFF, 4), (REBOOT, 4), (7 << 16 | FAIL, 4), (FAIL, 4), (REBOOT, 2), (0x1234, 4)):
        machine.memory.write(0x10_0000, size, value)
        requests.append(machine.power.take())
    off, reset = PowerKind.OFF, PowerKind.RESET
    assert requests == [
        PowerRequest(off, "test"),
        PowerRequest(reset, "test"),
        PowerRequest(off, "test", 7),
        PowerRequest(off, "test", 1),
        PowerRequest(reset, "test"),
        None,
    ]
    assert machine.log.counts[GUEST_ERROR] == 1


def test_random_traffic() -> None:
    fuzz(lambda machine: SifiveTest("test", machine), 77)
