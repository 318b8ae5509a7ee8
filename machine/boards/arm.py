"""What Arm boards have around their devices: a GIC, the way of messages to it, CPUs as far as power goes, and PSCI.

Addresses are those of QEMU's virt. CPUs only keep account of what they are told, as long as none runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.devicetree import cells, strings, wide
from dbt.machine.devices.gicv2 import GICv2
from dbt.machine.devices.gicv2m import SETSPI, GICv2m
from dbt.machine.devices.gicv3 import SETSPI_NSR, GICv3
from dbt.machine.devices.gicv3_its import TRANSLATER, GICv3Its
from dbt.machine.devices.psci import SMC64, Function, Psci
from dbt.machine.power import RecordedCpu

from dbt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.boards.devicetree import Node
    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine

GICD, GICC, V2M, GITS, GICR = 0x0800_0000, 0x0801_0000, 0x0802_0000, 0x0808_0000, 0x080A_0000
REDISTRIBUTOR = 0x2_0000
INTERRUPTS = 288
V2M_FIRST, V2M_COUNT = 48, 64
MOST_CPUS = {2: 8, 3: 123}  # by the GIC's version: what it has, and what its redistributors have room for
CLUSTER = {2: 8, 3: 16}  # CPUs of one Aff1: as many as a software interrupt may name


def check(version: int, cpus: int) -> None:
    """UsageError if this cannot be."""
    if version not in MOST_CPUS:
        raise UsageError(f"there is no GIC of version {version}", "versions: 2, 3")
    if cpus > MOST_CPUS[version]:
        raise UsageError(f"a GIC of version {version} has up to {MOST_CPUS[version]} CPUs, not {cpus}")


def interrupts(machine: Machine, version: int, cpus: int) -> Callable[[int], Line]:
    """Make all of it; the result gives the wire of a shared interrupt."""
    check(version, cpus)
    affinities = [number // CLUSTER[version] << 8 | number % CLUSTER[version] for number in range(cpus)]
    gic = _version_2(machine, cpus) if version == 2 else _version_3(machine, affinities)
    for number, affinity in enumerate(affinities):
        cpu = RecordedCpu(f"cpu{number}", machine, number=number, affinity=affinity)
        gic.irq[number].connect(cpu.irq.set)
        gic.fiq[number].connect(cpu.fiq.set)
    Psci("psci", machine)
    return gic.spi


def _version_2(machine: Machine, cpus: int) -> GICv2:
    gic = GICv2("gic", machine, cpus=cpus, interrupts=INTERRUPTS)
    machine.place(gic, GICD, window="GICD")
    machine.place(gic, GICC, window="GICC")
    frame = GICv2m("v2m", machine, gic.spi, first=V2M_FIRST, count=V2M_COUNT)
    machine.place(frame, V2M)
    machine.msi.add(V2M + SETSPI, 4, frame.message)
    return gic


def _version_3(machine: Machine, affinities: list[int]) -> GICv3:
    gic = GICv3("gic", machine, affinities=affinities, interrupts=INTERRUPTS)
    machine.place(gic, GICD)
    machine.msi.add(GICD + SETSPI_NSR, 4, gic.message)
    for number, redistributor in enumerate(gic.redistributors):
        machine.place(redistributor, GICR + REDISTRIBUTOR * number)
    its = GICv3Its("its", machine, gic)
    machine.place(its, GITS)
    machine.msi.add(GITS + TRANSLATER, 4, its.message)
    return gic


def add_controller(machine: Machine, root: Node, phandle: int, messages: int) -> None:
    """Nodes of the GIC and of what takes messages, which have these phandles (bindings arm,gic and arm,gic-v3)."""
    gic = machine.devices["gic"]
    properties = {
        "#interrupt-cells": cells(3),
        "interrupt-controller": b"",
        "#address-cells": cells(2),
        "#size-cells": cells(2),
        "ranges": b"",
        "phandle": cells(phandle),
    }
    takes = {"msi-controller": b"", "phandle": cells(messages)}
    if isinstance(gic, GICv3):
        node = root.add(f"intc@{GICD:x}", properties | {
            "compatible": strings("arm,gic-v3"),
            "#redistributor-regions": cells(1),
            "reg": wide(GICD, gic.region.size, GICR, REDISTRIBUTOR * len(gic.redistributors)),
        })  # fmt: skip
        its = machine.devices["its"].region
        node.add(f"its@{GITS:x}", takes | {
            "compatible": strings("arm,gic-v3-its"),
            "#msi-cells": cells(1),
            "reg": wide(GITS, its.size),
        })  # fmt: skip
        return
    node = root.add(f"intc@{GICD:x}", properties | {
        "compatible": strings("arm,cortex-a15-gic"),
        "reg": wide(GICD, gic.regions["GICD"].size, GICC, gic.regions["GICC"].size),
    })  # fmt: skip
    node.add(f"v2m@{V2M:x}", takes | {
        "compatible": strings("arm,gic-v2m-frame"),
        "reg": wide(V2M, machine.devices["v2m"].region.size),
    })  # fmt: skip


def add_psci(root: Node) -> None:
    """The node of PSCI, which is called by HVC; the identifiers are for those that know version 0.1 only."""
    root.add("psci", {
        "compatible": strings("arm,psci-1.0", "arm,psci-0.2", "arm,psci"),
        "method": strings("hvc"),
        "cpu_suspend": cells(Function.CPU_SUSPEND | SMC64),
        "cpu_off": cells(Function.CPU_OFF),
        "cpu_on": cells(Function.CPU_ON | SMC64),
    })  # fmt: skip


def add_power_key(root: Node, gpio: int, pin: int) -> None:
    """The power button as a key on a pin of a GPIO controller (binding gpio-keys)."""
    keys = root.add("gpio-keys", {"compatible": strings("gpio-keys")})
    keys.add("poweroff", {
        "label": strings("GPIO Key Poweroff"),
        "linux,code": cells(116),  # KEY_POWER
        "gpios": cells(gpio, pin, 0),
    })  # fmt: skip
