"""The 82540EM's receiver (3.2, 8.7, chapter 9): filters, the ring, buffers and what is written back.

A frame for which there are no descriptors waits in the network. One that can never fit is an overrun.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from typing import TYPE_CHECKING, Unpack

from dbt.machine.devices.e1000_checksums import IXSM, inspect, multicast_hash
from dbt.machine.devices.e1000_interrupts import RXDMT0, RXO, SRPD
from dbt.machine.devices.e1000_phy import E1000Phy
from dbt.machine.devices.e1000_registers import E1000Registers
from dbt.machine.errors import DmaError
from dbt.machine.net.offload import ones_sum
from dbt.machine.registers import State
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.net.backend import NetBackend
    from dbt.machine.net.offload import Buffer, Offload
    from dbt.machine.pci.function import Where

EN, UPE, MPE, LPE, BAM, VFE, CFIEN = 1 << 1, 1 << 3, 1 << 4, 1 << 5, 1 << 15, 1 << 18, 1 << 19
CFI, DPF, PMCF, BSEX, SECRC = 1 << 20, 1 << 22, 1 << 23, 1 << 25, 1 << 26
RFCE, VME = 1 << 27, 1 << 30
AV, SOURCE = 1 << 31, 1 << 16  # RAH
IPOFLD, TUOFLD = 1 << 8, 1 << 9
DD, EOP, VP = 1, 2, 8
SHORTEST, LONGEST, LONG_LONGEST = 60, 1518, 16384 - 4  # without the check sequence
WRITE_BACK = struct.Struct("<HHBBH")  # length, packet checksum, status, errors, special
DESCRIPTOR = struct.Struct("<Q8x")
BATCH, BURST = 32, 64  # descriptors fetched at once; frames taken at one write of RDT
NULLS = 64  # descriptors without a buffer that one frame may use up
BROADCAST = b"\xff" * 6
PAUSE_ADDRESS, MAC_CONTROL = b"\x01\x80\xc2\x00\x00\x01", b"\x88\x08"
PAUSE_QUANTUM = 512  # nanoseconds at 1 Gb/s
SIZES = ((64, "64"), (127, "127"), (255, "255"), (511, "511"), (1023, "1023"), (1 << 32, "1522"))


def size_class(size: int) -> str:
    """The end of the name of the statistics register that counts packets of this size."""
    return next(name for most, name in SIZES if size <= most)


class E1000Receive(E1000Phy):
    """From a back end's frames to the guest's buffers."""

    paused_until = State(bits=64)  # by a pause frame; 0: not

    accepts = 0  # the network checks and segments: what comes in here is as on the wire

    def __init__(self, name: str, machine: Machine, net: NetBackend, **where: Unpack[Where]) -> None:
        super().__init__(name, machine, **where)
        self.net = net
        self.addresses: frozenset[bytes] = frozenset()
        self.fetched: deque[int] = deque()  # buffers of the descriptors from RDH on
        self.credit: int | None = None  # how many frames are taken now; None: as many as come
        self.resuming = Work(self.clock, self.resume)

    # From the network

    def receive(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame from the network. False: not now, but when `resume` of the back end was called."""
        del offload
        if not (self.RCTL & EN and self.link):
            return True  # nobody listens
        if self.credit is not None:
            if not self.credit:
                self.resuming.later()
                return False
            self.credit -= 1
        return self.take(bytes(frame))

    def resume(self) -> None:
        """There are descriptors: take what waited, some of it now."""
        self.credit = BURST
        try:
            self.net.resume()
        finally:
            self.credit = None

    def take(self, frame: bytes) -> bool:
        """A frame as on the wire. False: there are no descriptors for it now."""
        if not self.dma.enabled:
            return False
        frame = frame.ljust(SHORTEST, b"\0")
        if len(frame) > (LONG_LONGEST if self.RCTL & LPE else LONGEST):
            self.count("ROC")
            return True
        return self._store(frame) if self._passes(frame) else True

    # Filters (3.2.1, 9.3)

    def _tagged(self, frame: bytes) -> bool:
        return frame[12] << 8 | frame[13] == self.VET

    def _passes(self, frame: bytes) -> bool:
        control = self.RCTL
        if frame[12:14] == MAC_CONTROL and self._flow_control(frame):
            return False
        if control & VFE and self._tagged(frame):
            tag = frame[14] << 8 | frame[15]
            if not self.VFTA[tag >> 5 & 127] >> (tag & 31) & 1:
                return False
            if control & CFIEN and bool(tag & 1 << 12) != bool(control & CFI):
                return False
        target = frame[:6]
        if target in self.addresses:
            return True
        if target == BROADCAST:
            return bool(control & (BAM | MPE))
        if not target[0] & 1:
            return bool(control & UPE)
        hashed = multicast_hash(target, control >> 12 & 3)
        return bool(control & MPE or self.MTA[hashed >> 5] >> (hashed & 31) & 1)

    def _flow_control(self, frame: bytes) -> bool:
        """A MAC control frame (8.7): whether it ends here."""
        mine = frame[:6] == self._own_address()
        if frame[14:16] != b"\0\1" or not (mine or frame[:6] == PAUSE_ADDRESS):
            self.count("FCRUC")
            return not self.RCTL & PMCF
        quanta = frame[16] << 8 | frame[17]
        if self.CTRL & RFCE:
            self.count("XOFFRXC" if quanta else "XONRXC")
            self.paused_until = self.clock.now + PAUSE_QUANTUM * quanta if quanta else 0
            self.on_link()
        return bool(mine and self.RCTL & DPF)

    def _own_address(self) -> bytes:
        return self.RAL[0].to_bytes(4, "little") + (self.RAH[0] & 0xFFFF).to_bytes(2, "little")

    @E1000Registers.RAL.after_write
    @E1000Registers.RAH.after_write
    def _new_address(self, index: int) -> None:
        del index
        self.find_addresses()

    def find_addresses(self) -> None:
        """The addresses that are valid."""
        self.addresses = frozenset(
            (low | (high & 0xFFFF) << 32).to_bytes(6, "little")
            for low, high in zip(self.RAL, self.RAH, strict=True)
            if high & AV and not high & SOURCE
        )

    # The ring

    def _ring(self) -> int:
        """Its descriptors, 0 if head or tail is not in it."""
        count, head, tail = self.RDLEN >> 4, self.RDH, self.RDT
        if head >= count or tail >= count:
            self.guest_error("RDH or RDT is beyond the receive ring")
            return 0
        return count

    def _fetch(self, number: int, count: int) -> bool:
        """Have `number` descriptors from RDH on, of those that the guest gave; more, if they are there."""
        given = (self.RDT - self.RDH) % count
        while len(self.fetched) < number:
            at = (self.RDH + len(self.fetched)) % count
            batch = min(given - len(self.fetched), count - at, BATCH)
            if batch <= 0:
                return False
            try:
                data = self.dma.dma_read((self.RDBAH << 32 | self.RDBAL) + 16 * at, 16 * batch)
            except DmaError:
                return False
            self.fetched.extend(address for (address,) in DESCRIPTOR.iter_unpack(data))
        return True

    def _store(self, frame: bytes) -> bool:
        control = self.RCTL
        if not (count := self._ring()):
            return False
        special = status = 0
        data = frame
        if self.CTRL & VME and self._tagged(frame):
            special, status, data = frame[14] << 8 | frame[15], VP, frame[:12] + frame[16:]
        if not control & SECRC:
            data += zlib.crc32(frame).to_bytes(4, "little")
        size = (256 << (~control >> 16 & 3)) << (4 if control & BSEX and control & 3 << 16 else 0)
        size = min(size, 16384)
        needed = -(-len(data) // size)
        if not self._fetch(needed, count):
            if needed < count:
                return False
            return self._overrun()
        checks = self.RXCSUM
        good, errors = inspect(frame, bool(checks & IPOFLD), bool(checks & TUOFLD)) if checks >> 8 else (IXSM, 0)
        checksum = ones_sum(memoryview(data)[checks & 0xFF :]) ^ 0xFFFF
        checksum = checksum >> 8 | checksum << 8 & 0xFF00
        if not self._write(data, size, count, (checksum, status, good, errors, special)):
            return self._overrun()
        self._received(frame, count)
        return True

    def _write(self, data: bytes, size: int, count: int, report: tuple[int, int, int, int, int]) -> bool:
        """Into buffers; descriptors of no buffer are used up. False: there were too many of those."""
        checksum, status, good, errors, special = report
        ring = self.RDBAH << 32 | self.RDBAL
        view, done, unused = memoryview(data), 0, 0
        while done < len(data):
            if not self._fetch(1, count):
                return False
            address, at = self.fetched.popleft(), ring + 16 * self.RDH + 8
            self.RDH = (self.RDH + 1) % count
            unused += not address
            if unused > NULLS:
                return False
            piece = view[done : done + size] if address else view[:0]
            done += len(piece)
            end = done == len(data)
            flags = (EOP | good) if end else 0
            try:
                if address:
                    self.dma.dma_write(address, piece)
                self.dma.dma_write(
                    at, WRITE_BACK.pack(len(piece), checksum, DD | status | flags, errors if end else 0, special)
                )
            except DmaError:
                return True  # the bus has logged it: the rest of the packet is lost with it
        return True

    def _overrun(self) -> bool:
        self.count("MPC")
        self.count("RNBC")
        self.cause(RXO)
        return True

    def _received(self, frame: bytes, count: int) -> None:
        size = len(frame) + 4
        self.count("PRC" + size_class(size))
        self.count("TPR")
        self.count("GPRC")
        self.count_octets("TORL", "TORH", size)
        self.count_octets("GORCL", "GORCH", size)
        if frame[0] & 1:
            self.count("BPRC" if frame[:6] == BROADCAST else "MPRC")
        causes = 0
        if 16 * ((self.RDT - self.RDH) % count) <= self.RDLEN >> (self.RCTL >> 8 & 3) + 1:
            causes |= RXDMT0
        if size <= self.RSRPD:
            causes |= SRPD
        self.received(causes)

    # Registers

    @E1000Registers.RDT.after_write
    @E1000Registers.RCTL.after_write
    def _ready_to_receive(self) -> None:
        if self.RCTL & EN:
            self.resume()

    @E1000Registers.RDH.after_write
    @E1000Registers.RDLEN.after_write
    @E1000Registers.RDBAL.after_write
    @E1000Registers.RDBAH.after_write
    def _new_ring(self) -> None:
        self.fetched.clear()
