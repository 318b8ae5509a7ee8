"""virtio block device (version 1.2, section 5.2) over a disk of machine/block.

Data goes between the disk and the guest's memory without a copy, by the disk's workers; what is done at once, such as
cached reads, is answered at once. Workers leave finished requests in a queue, and whoever gets the machine's lock first
gives several back with one interrupt.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from typing import TYPE_CHECKING

from dbt.machine.block import DISCARD, FLUSH, FUA, MAY_UNMAP, READ, WRITE, WRITE_ZEROES, Request
from dbt.machine.block.buffers import cut
from dbt.machine.errors import MapError
from dbt.machine.registers import RO, RW, Register, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import BUDGET, RINGS

if TYPE_CHECKING:
    from dbt.machine.block import Disk
    from dbt.machine.machine import Machine
    from dbt.machine.virtio import Chain, VirtQueue

SECTOR = 512
# Feature bits, section 5.2.3, as masks.
SEG_MAX, GEOMETRY, READ_ONLY, BLK_SIZE, F_FLUSH = 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 9
TOPOLOGY, CONFIG_WCE, MQ, F_DISCARD, F_WRITE_ZEROES = 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14
T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13  # section 5.2.6
OK, IOERR, UNSUPP = b"\0", b"\1", b"\2"
HEADER = struct.Struct("<IIQ")  # type, reserved, sector
SEGMENT = struct.Struct("<QII")  # sector, sectors, flags
UNMAP = 1
ID_BYTES = 20
MOST_AT_ONCE = 4 << 20  # bytes of cached data that are copied in one go, give or take a request
MAX_SECTORS = (1 << 31) // SECTOR - 1  # of one discard or write zeroes
HEADS, SECTORS, CYLINDERS = 16, 63, (2, 16383)  # as PC firmware has it for disks of any size


class VirtioBlk(VirtioDevice):
    """virtio block device (virtio 1.2, section 5.2)."""

    DEVICE_ID = 2
    KEPT = frozenset({
        "capacity", "seg_max", "cylinders", "blk_size", "physical_block_exp", "min_io_size", "num_queues",
        "discard_sector_alignment",
    })  # fmt: skip

    CONFIG = Window(0x3C, CONFIG_SIZES, partial=True, placed=False)
    capacity = Register(0x00, RO, "sectors of 512 bytes", size=8)
    size_max = Register(0x08, RO, "the longest buffer: not offered")
    seg_max = Register(0x0C, RO, "buffers in one request")
    cylinders = Register(0x10, RO, "geometry", size=2)
    heads = Register(0x12, RO, "geometry", size=1, reset=HEADS)
    sectors = Register(0x13, RO, "geometry", size=1, reset=SECTORS)
    blk_size = Register(0x14, RO, "bytes of a logical block")
    physical_block_exp = Register(0x18, RO, "logical blocks in a physical one, as a power of two", size=1)
    alignment_offset = Register(0x19, RO, "where the first aligned block is", size=1)
    min_io_size = Register(0x1A, RO, "blocks of the smallest good request", size=2)
    opt_io_size = Register(0x1C, RO, "blocks of the best request")
    writeback = Register(0x20, RW, "1: the disk may keep writes back until a flush", size=1, reset=1, mask=1)
    num_queues = Register(0x22, RO, "queues for requests", size=2)
    max_discard_sectors = Register(0x24, RO, "sectors of one discard", reset=MAX_SECTORS)
    max_discard_seg = Register(0x28, RO, "segments of one discard", reset=1)
    discard_sector_alignment = Register(0x2C, RO, "where discards are best cut")
    max_write_zeroes_sectors = Register(0x30, RO, "sectors of one write zeroes", reset=MAX_SECTORS)
    max_write_zeroes_seg = Register(0x34, RO, "segments of one write zeroes", reset=1)
    write_zeroes_may_unmap = Register(0x38, RO, "1: space may be given back", size=1, reset=1)

    def __init__(
        self,
        name: str,
        machine: Machine,
        disk: Disk | None = None,
        *,
        serial: str = "",
        queues: int = 1,
        queue_size: int = 256,
        block_size: int = SECTOR,
        physical_block_size: int = 0,
        rings: int = RINGS,
    ) -> None:
        """`serial`: what GET_ID says. `block_size` in bytes; `physical_block_size`: if it is larger. No disk: empty."""
        physical = physical_block_size or block_size
        if block_size < SECTOR or block_size & block_size - 1 or physical < block_size or physical & physical - 1:
            raise MapError(f"{name}: blocks of {block_size} bytes in blocks of {physical} cannot be")
        if queue_size < 4:
            raise MapError(f"{name}: a request has three buffers at least, and a queue of {queue_size} no room")
        super().__init__(name, machine, (queue_size,) * queues, rings=rings)
        self.disk = disk
        self.serial = serial.encode("ascii", "replace")[:ID_BYTES]
        self.sector_mask = block_size // SECTOR - 1
        writable = disk is not None and disk.node.writable
        self.FEATURES = SEG_MAX | GEOMETRY | BLK_SIZE | TOPOLOGY | F_FLUSH | CONFIG_WCE | (MQ if queues > 1 else 0)
        self.FEATURES |= F_DISCARD | F_WRITE_ZEROES if writable else READ_ONLY
        self.capacity = disk.size // SECTOR if disk else 0
        self.seg_max = queue_size - 2
        self.cylinders = min(max(self.capacity // (HEADS * SECTORS), CYLINDERS[0]), CYLINDERS[1])
        self.blk_size = block_size
        self.physical_block_exp = (physical // block_size).bit_length() - 1
        self.min_io_size = physical // block_size if physical > block_size else 0
        self.num_queues = queues
        self.discard_sector_alignment = block_size // SECTOR
        self._in_flight = 0
        self._finished: deque[Request] = deque()

    # Requests

    def on_notify(self, queue: VirtQueue) -> None:
        """Start what is there, and stop for a while when much was copied at once."""
        done = copied = 0
        for chain in self.chains(queue):
            length = chain.writable_length
            if self._start(queue, chain):
                done += 1
                copied += length
                if copied > MOST_AT_ONCE:
                    self.later(queue)
                    break
        if done:
            queue.notify()

    def _start(self, queue: VirtQueue, chain: Chain) -> bool:
        """Begin one request; True if it is over."""
        header = chain.read(0, HEADER.size)
        if len(header) < HEADER.size or not chain.writable_length:
            queue.drop(chain)
            self.fail(f"queue {queue.index}: a request without header or status")
            return False
        kind, _, sector = HEADER.unpack(header)
        if kind in {T_IN, T_OUT}:
            request = self._transfer(kind, sector, chain)
        elif kind == T_FLUSH:
            request = Request(FLUSH) if self.disk else OK
        elif kind in {T_DISCARD, T_WRITE_ZEROES}:
            request = self._range(kind, chain)
        elif kind == T_GET_ID:
            chain.write(0, self.serial.ljust(ID_BYTES, b"\0")[: chain.writable_length - 1])
            request = OK
        else:
            self.unimplemented(f"requests of type {kind}")
            request = UNSUPP
        if isinstance(request, bytes):
            self._answer(queue, chain, request)
            return True
        assert self.disk is not None
        request.completion = self._completed
        request.context = queue, chain
        if self.disk.submit(request):
            self._answer(queue, chain, self._status(request))
            return True
        self._in_flight += 1
        return False

    def _fits(self, sector: int, length: int) -> bool:
        good = not (length % SECTOR or (sector | length // SECTOR) & self.sector_mask)
        return good and sector + length // SECTOR <= self.capacity

    def _transfer(self, kind: int, sector: int, chain: Chain) -> Request | bytes:
        write = kind == T_OUT
        length = chain.readable_length - HEADER.size if write else chain.writable_length - 1
        if not self._fits(sector, length) or self.disk is None:
            self.guest_error("a request beyond the end, or of parts of blocks", f": {length} bytes at sector {sector}")
            return IOERR
        if not write:
            return Request(READ, sector * SECTOR, cut(chain.writable, 0, length), length=length)
        if self.FEATURES & READ_ONLY:
            return IOERR
        vectors = cut(chain.readable, HEADER.size, length)
        return Request(WRITE, sector * SECTOR, vectors, length=length, flags=self._flags)

    @property
    def _flags(self) -> int:
        """Section 5.2.5.1: without a cache each write is on stable storage when it is over."""
        cached = self.writeback if self.has(CONFIG_WCE) else self.has(F_FLUSH)
        return 0 if cached else FUA

    def _range(self, kind: int, chain: Chain) -> Request | bytes:
        """A discard or write zeroes."""
        discard = kind == T_DISCARD
        if not self.has(F_DISCARD if discard else F_WRITE_ZEROES):
            return UNSUPP
        segment = chain.read(HEADER.size, SEGMENT.size)
        if chain.readable_length != HEADER.size + SEGMENT.size:
            self.guest_error("a discard or write zeroes of other than one segment")
            return IOERR
        sector, sectors, flags = SEGMENT.unpack(segment)
        if flags & ~UNMAP or (discard and flags):
            return UNSUPP
        if sectors > MAX_SECTORS or not self._fits(sector, sectors * SECTOR):
            self.guest_error("a discard or write zeroes beyond the end", f": {sectors} sectors at {sector}")
            return IOERR
        length = sectors * SECTOR
        if discard:
            return Request(DISCARD, sector * SECTOR, length=length)
        return Request(
            WRITE_ZEROES, sector * SECTOR, length=length, flags=self._flags | (MAY_UNMAP if flags & UNMAP else 0)
        )

    # Ends

    @staticmethod
    def _status(request: Request) -> bytes:
        error = request.error
        if error is None:
            return OK
        return UNSUPP if error.errno == errno.ENOTSUP else IOERR

    def _answer(self, queue: VirtQueue, chain: Chain, status: bytes) -> None:
        if chain.ring is queue.ring:  # else there was a reset, and the memory is not the device's any more
            chain.write(chain.writable_length - 1, status)
        queue.push(chain, chain.writable_length)

    def _completed(self, request: Request) -> None:
        """A worker has done a request: its thread, no lock."""
        self._finished.append(request)
        with self.machine.lock:
            touched = set()
            for _ in range(BUDGET):  # others that wait for the lock will do the rest
                if not self._finished:
                    break
                finished = self._finished.popleft()
                queue, chain = finished.context
                self._in_flight -= 1
                self._answer(queue, chain, self._status(finished))
                touched.add(queue)
            for queue in touched:
                queue.notify()

    @property
    def busy(self) -> bool:
        """Whether the disk works on the guest's memory."""
        return self._in_flight > 0

    def settle(self) -> None:
        """Wait for the disk."""
        if self.disk is not None:
            self.disk.drain()

    # What changes

    def resized(self) -> None:
        """The disk has another size: tell the driver."""
        self.capacity = self.disk.size // SECTOR if self.disk else 0
        self.config_changed()

    @writeback.on_write
    def _set_writeback(self, value: int) -> None:
        if self.has(CONFIG_WCE):
            self.writeback = value & 1
        else:
            self.guest_error("writeback is written without VIRTIO_BLK_F_CONFIG_WCE")
