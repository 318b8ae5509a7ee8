"""PSCI as DEN0022 says it: CPUs go on and off, sleep and wake; the machine is asked to end."""

from __future__ import annotations

import json
from random import Random

import pytest
from dbt.machine.devices.psci import SMC64, WARM_RESET, Function, Psci, Status
from dbt.machine.log import UNIMPLEMENTED
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.power import CpuState, PowerKind, PowerRequest, RecordedCpu

ENTRY = 0x4000_1000
AFFINITIES = (0x000, 0x001, 0x100, 0x1_0000_0000)


def build() -> tuple[Machine, Psci, list[RecordedCpu]]:
    machine = Machine()
    machine.place(RAM("ram", 1 << 20), 0x4000_0000)
    cpus = [RecordedCpu(f"cpu{n}", machine, number=n, affinity=affinity) for n, affinity in enumerate(AFFINITIES)]
    psci = Psci("psci", machine)
    machine.reset()
    return machine, psci, cpus


def state(cpu: RecordedCpu) -> CpuState:
    return cpu.power_state


def test_cpus_are_switched_on_and_off() -> None:
    machine, psci, cpus = build()
    assert psci.call(0, Function.PSCI_VERSION) == 0x10001
    assert [cpu.power_state for cpu in cpus] == [CpuState.ON, *[CpuState.OFF] * 3]
    on = Function.CPU_ON | SMC64
    info = Function.AFFINITY_INFO | SMC64
    assert psci.call(0, info, 0x100) == 1
    assert psci.call(0, on, 0x100, 0xDEAD_0000, 7) == Status.INVALID_ADDRESS
    assert psci.call(0, on, 0x100, ENTRY, 7) == Status.SUCCESS
    assert (psci.call(0, info, 0x100), psci.call(0, on, 0x100, ENTRY)) == (2, Status.ON_PENDING)
    assert (psci.call(0, info, 0x100, 1), psci.call(0, info, 0, 1), psci.call(0, info, 0, 3)) == (2, 0, 0)
    cpus[2].begin()
    assert (cpus[2].entry, cpus[2].context) == (ENTRY, 7)
    assert (psci.call(0, info, 0x100), psci.call(0, on, 0x100, ENTRY)) == (0, Status.ALREADY_ON)
    assert psci.call(0, on, AFFINITIES[3], ENTRY) == Status.SUCCESS
    assert psci.call(0, Function.CPU_ON, AFFINITIES[3] | 1, ENTRY) == Status.SUCCESS  # 32 bits: that is CPU 1
    for target, level in ((0x555, 0), (0, 4), (1 << 31, 0), (0x7700, 1)):
        assert psci.call(0, info, target, level) == Status.INVALID_PARAMETERS
    assert psci.call(0, on, 0x555, ENTRY) == Status.INVALID_PARAMETERS
    saved = json.loads(json.dumps(machine.save()))
    assert psci.call(2, Function.CPU_OFF) is None
    assert psci.call(0, info, 0x100) == 1
    other, _, copies = build()
    other.restore(saved)
    assert [cpu.power_state for cpu in copies] == [CpuState.ON, CpuState.PENDING, CpuState.ON, CpuState.PENDING]


def test_suspended_cpus_wake_by_interrupts() -> None:
    _, psci, cpus = build()
    suspend = Function.CPU_SUSPEND | SMC64
    assert psci.call(0, suspend, 0, 0, 0) == Status.SUCCESS
    assert (state(cpus[0]), psci.call(1, Function.AFFINITY_INFO, 0)) == (CpuState.STANDBY, 0)
    cpus[0].irq.set(True)
    assert state(cpus[0]) == CpuState.ON
    assert psci.call(0, suspend, 1 << 16, 0x10, 0) == Status.INVALID_ADDRESS
    assert psci.call(0, suspend, 1 << 16, ENTRY, 9) is None  # there is an interrupt already
    assert (state(cpus[0]), cpus[0].entry, cpus[0].context) == (CpuState.PENDING, ENTRY, 9)
    cpus[0].begin()
    cpus[0].irq.set(False)
    psci.call(0, suspend, 1 << 16, ENTRY, 9)
    assert state(cpus[0]) == CpuState.DOWN
    cpus[0].fiq.set(True)
    assert state(cpus[0]) == CpuState.PENDING
    for power in (1 << 24, 1 << 31, 1 << 17):
        assert psci.call(0, suspend, power, ENTRY) == Status.INVALID_PARAMETERS


def test_the_machine_is_asked_to_end() -> None:
    machine, psci, _ = build()
    heard: list[PowerRequest] = []
    machine.power.listen(heard.append)
    assert psci.call(0, Function.SYSTEM_OFF) is None
    psci.call(0, Function.SYSTEM_RESET)
    request = machine.power.take()
    assert request is not None
    assert (request.kind, request.source, heard) == (PowerKind.OFF, "psci", [request])
    psci.call(0, Function.SYSTEM_RESET)
    assert machine.power.request
    assert machine.power.request.kind is PowerKind.RESET
    machine.reset()
    assert machine.power.take() is None
    assert psci.call(0, Function.SYSTEM_RESET2, 1) == Status.INVALID_PARAMETERS
    assert psci.call(0, Function.SYSTEM_RESET2, 1 << 31) == Status.NOT_SUPPORTED
    assert psci.call(0, Function.SYSTEM_RESET2 | SMC64) is None
    request = machine.power.take()
    assert request is not None
    assert (request.kind, request.code) == (PowerKind.RESET, WARM_RESET)


def test_features_tell_what_is_there() -> None:
    machine, psci, _ = build()
    there = [n for n in range(0x20) if psci.call(0, Function.PSCI_FEATURES, 0x8400_0000 + n) == 0]
    wide = [n for n in range(0x20) if psci.call(0, Function.PSCI_FEATURES, 0xC400_0000 + n) == 0]
    assert (there, wide) == ([0, 1, 2, 3, 4, 6, 8, 9, 10, 0x12], [1, 3, 4, 0x12])
    assert psci.call(0, Function.MIGRATE_INFO_TYPE) == 2
    for function in (0x8400_0005, 0xC400_0000, 0, 1 << 40):
        assert psci.call(0, function) == Status.NOT_SUPPORTED
    assert machine.log.counts[UNIMPLEMENTED] == 4


@pytest.mark.parametrize("seed", range(3))
def test_random_calls(seed: int) -> None:
    random = Random(seed)
    _, psci, cpus = build()
    for _ in range(100_000):
        function = random.choice((0x8400_0000, 0xC400_0000)) + random.randrange(0x16)
        words = [random.choice((0, 1, 0x100, ENTRY, 1 << 16, random.getrandbits(64))) for _ in range(3)]
        result = psci.call(random.randrange(4), function, *words)
        assert result is None or -10 < result <= 0x10001
        cpu = random.choice(cpus)
        random.choice((cpu.begin, lambda cpu=cpu: cpu.irq.set(not cpu.irq.level)))()
        assert cpu.power_state in CpuState
