"""Drivers that move data through devices as a guest's do, for `python -m bench devices`: bench/moving.py runs them.

A mover prepares everything but the accesses to its device beforehand: what it does in `move` is what a guest traps for.
`Traps` is how it makes them; `Counted` counts, and what devices copy meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dbt.machine.ata.scatter import Local
from dbt.machine.block import Disk, open_image
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM, DmaPort, Unassigned
from dbt.machine.pci import PciBus
from dbt.machine.virtio import Chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.ata.scatter import Piece

MIB, PAGE, SECTOR = 1 << 20, 4096, 512
RAM_SIZE = 64 * MIB
DEVICE = 0xE000_0000  # where memory of devices is
IMAGE = bytes(range(251)) * (8 * MIB // 251 + 1)  # what disks have


class Traps:
    """The accesses of a guest, as they are."""

    def __init__(self, machine: Machine) -> None:
        self.read: Callable[[int, int], int] = machine.memory.read
        self.write: Callable[[int, int, int], None] = machine.memory.write
        self.inp: Callable[[int, int], int] = machine.ports.read
        self.out: Callable[[int, int, int], None] = machine.ports.write


class Counted(Traps):
    """The same, and how many there were; with `copies`, the bytes that devices copied, those in registers too."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.traps = 0
        self.copied = 0
        read, write, inp, out = self.read, self.write, self.inp, self.out

        def count(size: int) -> None:
            self.traps += 1
            self.copied += size

        def counted_read(address: int, size: int) -> int:
            count(size)
            return read(address, size)

        def counted_write(address: int, size: int, value: int) -> None:
            count(size)
            write(address, size, value)

        def counted_inp(port: int, size: int) -> int:
            count(size)
            return inp(port, size)

        def counted_out(port: int, size: int, value: int) -> None:
            count(size)
            out(port, size, value)

        self.read, self.write, self.inp, self.out = counted_read, counted_write, counted_inp, counted_out

    def watch(self, move: Callable[[Traps], None]) -> None:
        """Run `move` with all copies counted: by DMA, through a drive's buffer, out of and into virtio's chains."""
        kept = (DmaPort.dma_read, DmaPort.dma_write, Chain.read, Chain.write, Local.take, VirtioNet._frame)  # noqa: SLF001

        def dma_read(port: DmaPort, address: int, length: int) -> bytes:
            self.copied += length
            return kept[0](port, address, length)

        def dma_write(port: DmaPort, address: int, data: bytes | bytearray | memoryview) -> None:
            self.copied += len(data)
            kept[1](port, address, data)

        def chain_read(chain: Chain, offset: int, length: int) -> bytes:
            data = kept[2](chain, offset, length)
            self.copied += len(data)
            return data

        def chain_write(chain: Chain, offset: int, data: bytes | bytearray | memoryview) -> int:
            written = kept[3](chain, offset, data)
            self.copied += written
            return written

        def take(local: Local, want: int, unit: int, *, to_memory: bool) -> Piece:
            piece = kept[4](local, want, unit, to_memory=to_memory)
            self.copied += piece.length
            return piece

        def frame(device: VirtioNet, chain: Chain, size: int) -> tuple[bytes, bytes] | None:
            before = self.copied
            found = kept[5](device, chain, size)
            self.copied = before + (len(found[0]) + len(found[1]) if found else 0)  # however it was copied
            return found

        patches: dict[str, tuple[Any, Any, Any]] = {
            "dma_read": (DmaPort, dma_read, kept[0]), "dma_write": (DmaPort, dma_write, kept[1]),
            "read": (Chain, chain_read, kept[2]), "write": (Chain, chain_write, kept[3]),
            "take": (Local, take, kept[4]), "_frame": (VirtioNet, frame, kept[5]),
        }  # fmt: skip
        try:
            for name, (kind, replacement, _) in patches.items():
                setattr(kind, name, replacement)
            move(self)
        finally:
            for name, (kind, _, original) in patches.items():
                setattr(kind, name, original)


class Mover:
    """One way to move `size` bytes; `requests`: in how many commands or packets."""

    NAME: ClassVar[str]
    size: int
    requests: int

    def __init__(self, *, native: bool = True) -> None:
        self.machine = Machine("bench", unassigned=Unassigned.ONES, native=native)
        ram = RAM("ram", RAM_SIZE)
        self.ram = ram.memory.view
        self.bus = PciBus("pci", self.machine)
        self.machine.place(ram, 0)
        self.machine.system.place(self.bus.memory, 0, -1)
        self.machine.place(self.bus.io, 0, PORTS)
        self.build()

    def settle(self) -> None:
        """Let devices go on with what they have put off: no accesses, but time."""
        clock = self.machine.clock
        while (deadline := clock.next_deadline()) is not None and deadline <= clock.now:
            self.machine.advance(0)

    def build(self) -> None:
        """Make the device and all that it is to be told of."""
        raise NotImplementedError

    def move(self, traps: Traps) -> None:
        """Move it all."""
        raise NotImplementedError

    def check(self) -> bool:
        """Whether it has arrived."""
        raise NotImplementedError


def disk(size: int = 8 * MIB) -> Disk:
    """One in memory, with IMAGE in it over and over."""
    made = Disk(open_image({"driver": "memory", "size": size}, "raw", writable=True))
    for at in range(0, size, 8 * MIB):
        made.write(at, IMAGE[: 8 * MIB])
    return made
