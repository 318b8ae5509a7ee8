"""The 82540EM's transmitter (3.3 to 3.6): descriptors, checksums, segmentation, VLAN tags and what is written back.

A frame that the network does not take stays where it is: TDH stops at the descriptor that ends it. Segmentation is the
back end's business; a context of more than 64 KiB leaves in several pieces.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Unpack

from dbt.machine.devices.e1000_interrupts import TXD_LOW, TXQE
from dbt.machine.devices.e1000_phy import LOOPBACK
from dbt.machine.devices.e1000_receive import BROADCAST, RFCE, VME, E1000Receive, size_class
from dbt.machine.devices.e1000_registers import E1000Registers
from dbt.machine.errors import DmaError
from dbt.machine.net.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    BadOffload,
    Buffer,
    Offload,
    checksum,
    ones_sum,
    segment,
)
from dbt.machine.registers import Fifo, State, States
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.net.backend import NetBackend
    from dbt.machine.pci.function import Where

DESCRIPTOR = struct.Struct("<QII")
CONTEXT = struct.Struct("<BBHBBHIBBH")  # IPCSS IPCSO IPCSE TUCSS TUCSO TUCSE PAYLEN+DTYP+TUCMD STA HDRLEN MSS
EOP, IFCS, IC_TSE, RS, DEXT, VLE, IDE = 1 << 24, 1 << 25, 1 << 26, 1 << 27, 1 << 29, 1 << 30, 1 << 31
IXSM, TXSM = 1, 2
TUCMD_TCP, TUCMD_IP = 1 << 24, 1 << 25
DD = 1
EN, PSP = 1 << 1, 1 << 3
STARTED, SEGMENTED, TAGGED, DISCARDED = 1 << 32, 1 << 33, 1 << 34, 1 << 35  # of `options`, above POPTS and the tag
LONGEST = 16384
SEGMENTS = 64  # of one piece
BATCH, BUDGET = 64, 64  # descriptors fetched at once; descriptors and frames of one go


class E1000Transmit(E1000Receive):
    """From the guest's descriptors to the back end's `send`."""

    contexts = States(2, bits=128)  # for checksums, for segmentation
    gathered = Fifo(0x20000)  # the frame up to here
    consumed = State(bits=20)  # of the descriptor at TDH
    options = State(bits=36)  # of the first descriptor of the frame
    payload = State(bits=40)  # of the segmented packet, what left already

    def __init__(self, name: str, machine: Machine, net: NetBackend, **where: Unpack[Where]) -> None:
        super().__init__(name, machine, net, **where)
        self.transmitting = Work(self.clock, self._transmit, BUDGET)

    def ready(self) -> None:
        """The network has room again."""
        self.transmitting.run()

    def on_link(self) -> None:
        """A pause begins or ends, or the link changed."""
        self.transmitting.cancel()
        self.transmitting.later(self.paused_until)

    def paused(self) -> bool:
        """Whether a pause frame holds the transmitter."""
        if self.paused_until and (self.clock.now >= self.paused_until or not self.CTRL & RFCE):
            self.paused_until = 0
        return bool(self.paused_until)

    @E1000Registers.TDT.after_write
    @E1000Registers.TCTL.after_write
    def transmit(self) -> None:
        """Go through descriptors from TDH on, some of them now and the rest at the next turn of the timers."""
        self.transmitting.run()

    def _transmit(self) -> None:
        if not self.TCTL & EN:
            return
        before = self.TDH
        while self.TDH != self.TDT and not self.paused():
            if self.transmitting.over:
                self.transmitting.later()
                break
            if not self._batch():
                break
        self._interrupts(before)

    def _interrupts(self, before: int) -> None:
        if before == self.TDH:
            return
        causes = TXQE if self.TDH == self.TDT else 0
        low, count = 8 * (self.TXDCTL >> 25), max(self.TDLEN >> 4, 1)
        if low and (self.TDT - self.TDH) % count <= low < (self.TDT - before) % count:
            causes |= TXD_LOW
        self.cause(causes)

    def _batch(self) -> bool:
        """Descriptors that are next to each other, each copied once. False: no more can be done now."""
        count, head, tail = self.TDLEN >> 4, self.TDH, self.TDT
        if head >= count or tail >= count:
            self.guest_error("TDH or TDT is beyond the transmit ring")
            return False
        number = min((tail if tail > head else count) - head, BATCH)
        ring = (self.TDBAH << 32 | self.TDBAL) + 16 * head
        try:
            data = bytearray(self.dma.dma_read(ring, 16 * number))
        except DmaError:
            return False
        done, reports, at_once = 0, [], False
        for address, lower, upper in DESCRIPTOR.iter_unpack(bytes(data)):
            if self.transmitting.over or not self._descriptor(address, lower, upper):
                break
            self.transmitting.spend()
            self.consumed = 0
            if lower & RS:
                data[16 * done + 12] |= DD
                reports.append(done)
                at_once |= not lower & IDE
            done += 1
        self.TDH = (head + done) % count
        if reports:
            try:
                self.dma.dma_write(ring + 16 * reports[0], data[16 * reports[0] : 16 * reports[-1] + 16])
            except DmaError:
                return False
            self.written_back(delayed=not at_once)
        return done == number or self.transmitting.over

    # Descriptors (3.3.3, 3.3.6, 3.3.7)

    def _descriptor(self, address: int, lower: int, upper: int) -> bool:
        """One of them; False if it has to be looked at again later."""
        if not lower & DEXT:
            return self._data(address, lower & 0xFFFF, lower, upper, 0)
        kind = lower >> 20 & 15
        if kind == 1:
            return self._data(address, lower & 0xFFFFF, lower, upper, upper >> 8 & 0xFF)
        if kind == 0:
            self.contexts[bool(lower & IC_TSE)] = address | lower << 64 | upper << 96
        else:
            self.guest_error("a transmit descriptor of no known type", f": {kind}")
        return True

    def _data(self, address: int, length: int, lower: int, upper: int, popts: int) -> bool:
        if not self.options:
            self.options = STARTED | upper & 0xFFFF_0000 | popts & (IXSM | TXSM)
            if lower & DEXT and lower & IC_TSE:
                self.options |= SEGMENTED
                self.payload = 0
            if lower & VLE:
                self.options |= TAGGED
        if self.options & SEGMENTED:
            return self._segmented(address, length, bool(lower & EOP))
        if not self.consumed:
            if len(self.gathered) + length > LONGEST and not self.options & DISCARDED:
                self.guest_error("a packet is longer than the transmit FIFO takes")
                self._discard()
            if not self.options & DISCARDED:
                try:
                    piece = self.dma.dma_read(address, length)
                except DmaError:
                    self._discard()
                else:
                    self.transmitting.spend(length >> 14)
                    self.gathered += piece
            self.consumed = 1  # the rest of this is done again if the network is full
        return not lower & EOP or self._frame(lower, upper)

    def _discard(self) -> None:
        self.options |= DISCARDED
        self.gathered.clear()

    def _ended(self) -> bool:
        self.options = 0
        self.gathered.clear()
        return True

    # Frames

    def _frame(self, lower: int, upper: int) -> bool:
        """All of it is there: checksums, tag, padding. False: the network is full."""
        data = bytearray(self.gathered)
        if not lower & IFCS:
            del data[-4:]  # the guest's own check sequence
        if self.options & DISCARDED or not data:
            return self._ended()
        offload = None
        if lower & DEXT:
            offload = self._checksums(data, self.options & (IXSM | TXSM))
        elif lower & IC_TSE:
            insert(data, upper >> 8 & 0xFF, lower >> 16 & 0xFF, 0)
        tag = upper >> 16 if lower & VLE and self.CTRL & VME else None
        if self.TCTL & PSP:
            data = data.ljust(60 if tag is None else 56, b"\0")
        if not self._send(data, tag, offload):
            return False
        return self._ended()

    def _checksums(self, data: bytearray, options: int) -> Offload | None:
        """Insert them (3.6), but leave to the network what it takes."""
        if not options:
            return None
        ipcss, ipcso, ipcse, tucss, tucso, tucse, *_ = CONTEXT.unpack(self.contexts[0].to_bytes(16, "little"))
        if options & IXSM:
            insert(data, ipcss, ipcso, ipcse)
        if options & TXSM:
            if not tucse and tucss <= tucso <= len(data) - 2:
                return Offload(needs_csum=True, csum_start=tucss, csum_offset=tucso - tucss)
            insert(data, tucss, tucso, tucse, zero=0xFFFF)
        return None

    def _send(self, data: bytearray, tag: int | None, offload: Offload | None) -> bool:
        """To the network, or back to the receiver."""
        if tag is not None:
            data = data[:12] + struct.pack(">HH", self.VET, tag) + data[12:]
            if offload is not None:
                offload = offload._replace(
                    csum_start=offload.csum_start + 4, hdr_len=offload.hdr_len + 4 if offload.hdr_len else 0
                )
        if self.RCTL >> 6 & 3 == 1 or self.PCTRL & LOOPBACK:
            self._loop_back(data, offload)
        elif self.link and not self.net.send(data, offload):
            return False
        self.transmitting.spend()
        octets, packets = len(data) + 4, 1
        if offload is not None and offload.gso_size:
            headers, size = offload.hdr_len, offload.gso_size
            whole, rest = divmod(len(data) - headers, size)
            packets = whole + (rest > 0 or not whole)
            octets += (packets - 1) * (headers + 4)
            self.transmitting.spend(packets if offload.needs & ~self.net.offers else 4)
            self.count("PTC" + size_class(headers + size + 4), whole)
            self.count("PTC" + size_class(headers + rest + 4), packets - whole)
        else:
            self.count("PTC" + size_class(octets))
        self.count("TPT", packets)
        self.count("GPTC", packets)
        self.count_octets("TOTL", "TOTH", octets)
        self.count_octets("GOTCL", "GOTCH", octets)
        if data[0] & 1:
            self.count("BPTC" if data[:6] == BROADCAST else "MPTC", packets)
        return True

    def _loop_back(self, data: Buffer, offload: Offload | None) -> None:
        try:
            frames = segment(data, offload) if offload else [bytes(data)]
        except BadOffload as wrong:
            self.guest_error("a frame whose offload cannot be done", f": {wrong.args[0]}")
            return
        for frame in frames:
            self.transmitting.spend()
            if self.RCTL & EN and not self.take(frame):
                self._overrun()

    # Segmentation (3.5)

    def _segmented(self, address: int, length: int, end: bool) -> bool:
        """A descriptor of a packet that is segmented, as far as there is room. False: the network is full."""
        *_, command, _, header, size = context = CONTEXT.unpack(self.contexts[1].to_bytes(16, "little"))
        most = header + min(SEGMENTS * size, (0xFFFF - header) // size * size) if size else 0
        if not self.options & DISCARDED and (not most or header + size > LONGEST or header < 42):
            self.guest_error("a segmentation context with impossible lengths", f": {header} and {size}")
            self._discard()
        while not self.options & DISCARDED:
            if self.transmitting.over:
                return False  # `transmit` goes on by the timer
            if len(self.gathered) == most and (self.consumed < length or not end):
                if not self._piece(context, last=False):
                    return False
                continue
            number = min(length - self.consumed, most - len(self.gathered))
            if not number:
                break
            try:
                self.gathered += self.dma.dma_read(address + self.consumed, number)
            except DmaError:
                self._discard()
                break
            self.consumed += number
            self.transmitting.spend(number >> 14)
        if not end:
            return True
        if not self.options & DISCARDED:
            left = self.payload + len(self.gathered) - header
            if not self._piece(context, last=True):
                return False
            self.count("TSCTC")
            if left != command & 0xFFFFF:
                self.count("TSCTFC")
        return self._ended()

    def _piece(self, context: tuple[int, ...], *, last: bool) -> bool:
        """What is gathered leaves; the headers stay, for what comes next. False: the network is full."""
        ipcss, _, _, tucss, tucso, _, command, _, header, size = context
        data = bytearray(self.gathered)
        number = len(data) - header
        tcp, ipv4 = bool(command & TUCMD_TCP), bool(command & TUCMD_IP)
        field = tucss + (16 if tcp else 6)
        fits = 14 <= ipcss < ipcss + (20 if ipv4 else 40) <= tucss < header - 7
        if number < 0 or not fits or tucso != field or field + 2 > header:
            self.guest_error("a segmentation context that does not fit the headers")
            self._discard()
            return True
        struct.pack_into(">H", data, ipcss + (2 if ipv4 else 4), len(data) - ipcss - (0 if ipv4 else 40))
        if ipv4:
            struct.pack_into(">H", data, ipcss + 10, 0)
            struct.pack_into(">H", data, ipcss + 10, checksum(data[ipcss:tucss]))
        if not tcp:
            struct.pack_into(">H", data, tucss + 4, len(data) - tucss)
        elif not last:
            data[tucss + 13] &= ~9  # FIN and PSH are the last one's
        struct.pack_into(">H", data, field, ones_sum(data[field : field + 2], len(data) - tucss))
        kind = (GSO_TCPV4 if ipv4 else GSO_TCPV6) if tcp else GSO_UDP_L4
        offload = Offload(
            needs_csum=True, csum_start=tucss, csum_offset=field - tucss, gso_type=kind, gso_size=size, hdr_len=header
        )
        tag = self.options >> 16 & 0xFFFF if self.options & TAGGED and self.CTRL & VME else None
        if not self._send(data, tag, offload):
            return False
        self.payload += number
        del self.gathered[header:]
        packets = -(-number // size)
        if tcp:
            sequence = struct.unpack_from(">I", self.gathered, tucss + 4)[0]
            struct.pack_into(">I", self.gathered, tucss + 4, (sequence + number) & 0xFFFF_FFFF)
        if ipv4:
            identity = struct.unpack_from(">H", self.gathered, ipcss + 4)[0]
            struct.pack_into(">H", self.gathered, ipcss + 4, (identity + packets) & 0xFFFF)
        return True


def insert(data: bytearray, start: int, at: int, end: int, zero: int = 0) -> None:
    """A checksum of the bytes from `start` to `end` (0: the last one), if it is within the frame (3.6)."""
    if at + 2 <= len(data) and start < len(data):
        struct.pack_into(">H", data, at, checksum(data[start : end + 1 if end else None]) or zero)
