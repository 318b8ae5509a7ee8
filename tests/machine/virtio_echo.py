"""A device that gives back what it gets, for tests of rings and transports, and its driver over MMIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.registers import RO, RW, Register, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import IN_ORDER, RING_PACKED

from tests.machine.qtest import Ours
from tests.machine.virtio import Guest, Mmio, Pool

if TYPE_CHECKING:
    from dbt.machine.virtio import Chain, VirtQueue

BASE, MEMORY, SIZE = 0x0A00_0000, 0x4000_0000, 0x40_0000
ALL = RINGS | RING_PACKED | IN_ORDER


class Echo(VirtioDevice):
    """Gives back what it gets, backwards; or holds chains until `finish`."""

    DEVICE_ID = 42
    FEATURES = 1 << 3
    CONFIG = Window(16, CONFIG_SIZES, partial=True, placed=False)
    length = Register(0, RO, "a number", size=8, reset=0x1122_3344_5566_7788)
    mode = Register(8, RW, "another")

    def __init__(self, name: str, machine: Machine, *, rings: int = ALL) -> None:
        super().__init__(name, machine, (64, 16), rings=rings)
        self.hold = False
        self.held: list[tuple[VirtQueue, Chain]] = []

    def refuses(self, features: int) -> str:
        return "" if not features & 1 << 3 else "of no reason"

    def on_notify(self, queue: VirtQueue) -> None:
        for chain in self.chains(queue, 21):
            if self.hold:
                self.held.append((queue, chain))
            else:
                self.answer(queue, chain)
        queue.notify()

    @staticmethod
    def answer(queue: VirtQueue, chain: Chain) -> None:
        queue.push(chain, chain.write(0, chain.read(0, 1 << 20)[::-1]))


def build(**options: int) -> tuple[Machine, Echo, VirtioMmio]:
    machine = Machine()
    machine.place(RAM("ram", SIZE), MEMORY)
    device = Echo("echo", machine, **options)
    mmio = VirtioMmio("echo.mmio", machine, device=device)
    machine.place(mmio, BASE)
    machine.reset()
    return machine, device, mmio


def drive(machine: Machine, wanted: int, *, legacy: bool = False) -> Guest:
    guest = Guest(Mmio(Ours(machine), BASE, legacy=legacy), Pool(MEMORY, SIZE), lambda: machine.advance(0))
    guest.begin(wanted & ~(1 << 3))
    return guest
