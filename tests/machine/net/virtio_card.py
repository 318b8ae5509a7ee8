"""A virtio-net card with a driver, and frames for it."""

from __future__ import annotations

from random import Random
from typing import Any

from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.net.backend import MemoryNet
from dbt.machine.net.offload import CSUM, ECN, TSO4, TSO6, UFO
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.spec import IN_ORDER, RING_PACKED

from tests.machine.net.card import NetDriver
from tests.machine.net.guest import MAC
from tests.machine.virtio import connect

PACKED = RINGS | RING_PACKED | IN_ORDER
PEER = bytes.fromhex("525400abcdef")
ALL = CSUM | TSO4 | TSO6 | ECN | UFO
TEXT = Random(9).randbytes(300_000)


def frame(target: bytes = MAC, length: int = 100, *, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else b"\x81\0" + vlan.to_bytes(2, "big")
    return (target + PEER + tag + b"\x88\xb5").ljust(length, b"\xa5")


def build(
    kind: str = "mmio", wanted: int = ~0, *, net: MemoryNet | None = None, pairs: int = 1, buffer: int | None = None,
    **options: Any,
) -> tuple[NetDriver, VirtioNet, MemoryNet]:  # fmt: skip
    net = net or MemoryNet()
    guest, device = connect(kind, lambda machine: VirtioNet("net", machine, net, pairs=pairs, **options))
    assert isinstance(device, VirtioNet)
    return NetDriver(guest, wanted, pairs=pairs, buffer=buffer), device, net


def command_tables(unicast: list[bytes], multicast: list[bytes]) -> bytes:
    return b"".join(len(table).to_bytes(4, "little") + b"".join(table) for table in (unicast, multicast))
