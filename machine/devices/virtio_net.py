"""virtio network device (version 1.2, section 5.1): offloads both ways, mergeable buffers, several queues, control.

What the back end does not take in whole is segmented on its side (`net/backend.py`), so all offloads are offered
whatever it is: cheaper than in the guest. Without hashes (RSS, HASH_REPORT), coalescing and RSC. Filters are QEMU's: as
the specification has them, and tables that overflow let everything through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.errors import MapError
from dbt.machine.net.backend import NetBackend
from dbt.machine.net.offload import CSUM, ECN, HEADER, MAX_FRAME, TSO4, TSO6, UFO, USO, unpack
from dbt.machine.registers import RO, RW, Fifo, Register, Registers, State, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.net_control import TABLE, Control
from dbt.machine.virtio.spec import VERSION_1
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.net.offload import Buffer, Offload
    from dbt.machine.virtio import Chain, VirtQueue

# Features, section 5.1.3, as masks.
F_CSUM, F_GUEST_CSUM, F_CTRL_GUEST_OFFLOADS, F_MTU, F_MAC = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN, F_GUEST_UFO = 1 << 7, 1 << 8, 1 << 9, 1 << 10
F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN, F_HOST_UFO = 1 << 11, 1 << 12, 1 << 13, 1 << 14
F_MRG_RXBUF, F_STATUS, F_CTRL_VQ, F_CTRL_RX, F_CTRL_VLAN = 1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 19
F_CTRL_RX_EXTRA, F_GUEST_ANNOUNCE, F_MQ, F_CTRL_MAC_ADDR = 1 << 20, 1 << 21, 1 << 22, 1 << 23
F_GUEST_USO4, F_GUEST_USO6, F_HOST_USO = 1 << 54, 1 << 55, 1 << 56
SENDING = F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_HOST_UFO | F_HOST_USO
RECEIVING = {
    F_GUEST_CSUM: CSUM, F_GUEST_TSO4: TSO4, F_GUEST_TSO6: TSO6, F_GUEST_ECN: ECN, F_GUEST_UFO: UFO,
    F_GUEST_USO4 | F_GUEST_USO6: USO,
}  # fmt: skip
GUEST_OFFLOADS = sum(RECEIVING)
CONTROL = F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR | F_GUEST_ANNOUNCE
LINK_UP, ANNOUNCE = 1, 2
DATA, COMMANDS = 256, 64  # entries of the queues
MOST_PAIRS = 8
PIECE = 2048
BROADCAST = b"\xff" * 6
PLAIN = bytes(10) + b"\1\0"  # a header for a frame with nothing to do, in one buffer
FLOWS = 256


class VirtioNet(VirtioDevice):
    """virtio network device (virtio 1.2, section 5.1). `pairs`: of queues; `mtu`: what the driver is told, if any."""

    DEVICE_ID = 1
    KEPT = frozenset({"max_virtqueue_pairs", "mtu"})
    KNOWN_OFFLOADS = GUEST_OFFLOADS

    CONFIG = Window(12, CONFIG_SIZES, partial=True, placed=False)
    mac = Registers(0, RW, "hardware address; only legacy drivers write it", count=6, size=1)
    net_status = Register(6, RO, "what the link is like", size=2, fields={"LINK_UP": 0, "ANNOUNCE": 1})
    max_virtqueue_pairs = Register(8, RO, "pairs of data queues", size=2)
    mtu = Register(10, RO, "the largest packet", size=2)

    promisc = State(1, bits=1)
    allmulti = State(bits=1)
    alluni = State(bits=1)
    nomulti = State(bits=1)
    nouni = State(bits=1)
    nobcast = State(bits=1)
    unicast = Fifo(6 * TABLE)  # addresses that are taken besides `mac`
    multicast = Fifo(6 * TABLE)
    unicast_overflow = State(bits=1)
    multicast_overflow = State(bits=1)
    vlans = State(bits=4096)
    pairs_used = State(1, bits=8)
    guest_offloads = State(bits=64)  # the features that are in use, if the driver has chosen

    def __init__(
        self,
        name: str,
        machine: Machine,
        net: NetBackend | None = None,
        *,
        mac: bytes = b"\x52\x54\x00\x12\x34\x56",
        pairs: int = 1,
        mtu: int | None = None,
        offloads: bool = True,
        rings: int = RINGS,
    ) -> None:
        if not 1 <= pairs <= MOST_PAIRS or len(mac) != 6 or mac[0] & 1 or not 68 <= (mtu or 68) <= 65535:
            raise MapError(f"{name}: 1 to {MOST_PAIRS} pairs of queues, a unicast address, an MTU of at least 68")
        self.pairs = pairs
        self.net = net or NetBackend()
        self._permanent = mac
        self._control = Control(self)
        self._flows = bytearray(FLOWS)  # which pair a flow was sent on last
        self._accepts = 0
        self._filter: frozenset[bytes] = frozenset()
        self._full = 0  # queues whose frames the back end did not take, as bits
        self._empty = False  # a frame waits for a buffer
        super().__init__(name, machine, [DATA] * (2 * pairs) + [COMMANDS], rings=rings)
        self.FEATURES = F_MAC | F_STATUS | F_MRG_RXBUF | CONTROL
        if offloads:
            self.FEATURES |= SENDING | GUEST_OFFLOADS | F_CTRL_GUEST_OFFLOADS
        if pairs > 1:
            self.FEATURES |= F_MQ
        if mtu is not None:
            self.FEATURES |= F_MTU
        self.max_virtqueue_pairs = pairs
        self.mtu = mtu or 0
        self._restored = Work(self.clock, self._after_restore)
        self.net.attach(self)

    @mac.on_write
    def _set_mac(self, index: int, value: int) -> None:
        if self.driver_features & (VERSION_1 | F_CTRL_MAC_ADDR):
            self.guest_error("the address is set without a command")
        else:
            self.mac[index] = value

    # State

    def on_reset(self) -> None:
        self.mac = list(self._permanent)
        self.net_status = LINK_UP if self.net.up else 0
        self._full = 0
        self._flows = bytearray(FLOWS)
        self.refresh()
        self._restored.cancel()
        super().on_reset()
        if self._empty:  # what waits for buffers is lost, as all frames for a card without a driver are
            self._empty = False
            self.net.resume()

    def on_driver_ok(self) -> None:
        """The offloads that were negotiated are in use until the driver says otherwise."""
        self.guest_offloads = self.driver_features & GUEST_OFFLOADS
        self.refresh()

    def on_restore(self) -> None:
        self.refresh()
        self._flows = bytearray(FLOWS)
        self._restored.later()

    def _after_restore(self) -> None:
        """Go on with what the back end had no room for, and let the network know where the guest is now."""
        self.link_changed()
        self.announce()
        self.net.resume()
        for queue in self.queues[1::2]:
            if queue.ready and self.running:
                self.on_notify(queue)

    def refresh(self) -> None:
        """The tables have changed: compute what each frame asks."""
        self._accepts = 0
        for features, offload in RECEIVING.items():
            if self.guest_offloads & features == features:
                self._accepts |= offload
        both = bytes(self.unicast + self.multicast)
        self._filter = frozenset(both[at : at + 6] for at in range(0, len(both), 6))

    @property
    def header_size(self) -> int:
        """Of virtio_net_hdr, section 5.1.6.1."""
        return 12 if self.driver_features & (VERSION_1 | F_MRG_RXBUF) else 10

    @property
    def control_index(self) -> int:
        """The number of the control queue, section 5.1.2."""
        return 2 * self.pairs if self.has(F_MQ) else 2

    def announce(self) -> None:
        """Ask the driver to tell the network where it is, section 5.1.6.5.4."""
        if self.has(F_GUEST_ANNOUNCE) and self.has(F_CTRL_VQ):
            self.net_status |= ANNOUNCE
            self.config_changed()

    # Queues

    def on_notify(self, queue: VirtQueue) -> None:
        """Frames to send, buffers for what comes, or commands."""
        if queue.index == self.control_index and self.has(F_CTRL_VQ):
            self._control.serve(queue)
        elif queue.index & 1:
            self._transmit(queue)
        elif self._empty:
            self._empty = False
            self.net.resume()

    def _transmit(self, queue: VirtQueue) -> None:
        size, send = self.header_size, self.net.send
        several = self.pairs_used > 1
        self._full &= ~(1 << queue.index)
        for chain in self.chains(queue):
            frame = self._frame(chain, size)
            if frame is not None:
                header, data = frame
                if several:
                    self._flows[flow_of(data)] = queue.index >> 1
                if not send(data, unpack(header)):
                    queue.unpop(chain)
                    self._full |= 1 << queue.index
                    break
                self.work.spend(len(data) // PIECE)
            queue.push(chain)
        queue.notify()

    def _frame(self, chain: Chain, size: int) -> tuple[bytes, bytes] | None:
        """(header, frame), copied; None if there is none in the chain."""
        length = chain.readable_length - size
        if not 14 <= length <= MAX_FRAME:
            self.guest_error("sends a frame of an impossible length", f": {length}")
            return None
        parts = chain.readable
        if len(parts) == 2 and len(parts[0]) == size:
            return bytes(parts[0]), bytes(parts[1])
        whole = chain.read(0, size + length)
        return whole[:size], whole[size:]

    # The back end's side

    @property
    def accepts(self) -> int:
        """What the driver takes in whole."""
        return self._accepts

    def ready(self) -> None:
        """There is room for what was refused."""
        full, self._full = self._full, 0
        for queue in self.queues:
            if full >> queue.index & 1 and queue.ready and self.running:
                self.on_notify(queue)

    def link_changed(self) -> None:
        """The cable is plugged in or out."""
        status = self.net_status & ~LINK_UP | (LINK_UP if self.net.up else 0)
        if status != self.net_status:
            self.net_status = status
            self.config_changed()

    def receive(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame from the network. Without a driver, and if no filter lets it through, it is dropped."""
        if not self.running or not (self.promisc or self._wanted(frame)):
            return True
        pair = self._flows[flow_of(frame)] if self.pairs_used > 1 else 0
        queue = self.queues[2 * (pair if pair < self.pairs_used else 0)]
        if not queue.ready:
            return True
        head = PLAIN if offload is None else offload.pack() + b"\1\0"
        size = self.header_size
        if self.driver_features & F_MRG_RXBUF:
            return self._merged(queue, head, frame)
        chain = queue.pop()
        if chain is None:
            self._empty = True
            return self.broken == 1
        data = b"".join((head[:size], frame))
        if chain.writable_length < len(data):
            queue.unpop(chain)
            self.guest_error("a buffer is too small for a frame", f": {chain.writable_length} < {len(data)}")
            return True
        queue.push(chain, chain.write(0, data))
        queue.notify()
        return True

    def _merged(self, queue: VirtQueue, head: bytes, frame: Buffer) -> bool:
        """A frame in as many buffers as it takes (section 5.1.6.4)."""
        need = len(head) + len(frame)
        chains: list[Chain] = []
        room = 0
        while room < need:
            chain = queue.pop()
            if chain is None or not chain.writable_length:
                for other in (*([chain] if chain else []), *reversed(chains)):
                    queue.unpop(other)
                if chain is not None:
                    self.fail(f"queue {queue.index}: a buffer for frames has no room")
                self._empty = True
                return self.broken == 1
            chains.append(chain)
            room += chain.writable_length
        data = memoryview(b"".join((head[: HEADER.size], len(chains).to_bytes(2, "little"), frame)))
        done = 0
        for chain in chains:
            written = chain.write(0, data[done : done + chain.writable_length])
            queue.push(chain, written)
            done += written
        queue.notify()
        return True

    def _wanted(self, frame: Buffer) -> bool:
        """Whether the filters let a frame through, section 5.1.6.5.1."""
        target = bytes(frame[:6])
        if self.has(F_CTRL_VLAN) and frame[12:14] == b"\x81\0" and len(frame) >= 16:
            vlan = (frame[14] << 8 | frame[15]) & 0xFFF
            if not self.vlans >> vlan & 1:
                return False
        if target == BROADCAST:
            return not self.nobcast
        if target[0] & 1:
            return not self.nomulti and bool(self.allmulti or self.multicast_overflow or target in self._filter)
        if self.nouni:
            return False
        return bool(self.alluni or self.unicast_overflow or target == bytes(self.mac) or target in self._filter)


def flow_of(frame: Buffer) -> int:
    """A number of FLOWS for the connection a frame belongs to, the same in both directions."""
    if frame[12:14] == b"\x08\0" and len(frame) >= 38:
        ends = int.from_bytes(frame[26:30], "big") ^ int.from_bytes(frame[30:34], "big")
        if frame[23] in {6, 17} and not frame[21] and not frame[20] & 0x3F:
            ends ^= int.from_bytes(frame[34:36], "big") ^ int.from_bytes(frame[36:38], "big")
    elif frame[12:14] == b"\x86\xdd" and len(frame) >= 58:
        ends = int.from_bytes(frame[22:38], "big") ^ int.from_bytes(frame[38:54], "big")
        if frame[20] in {6, 17}:
            ends ^= int.from_bytes(frame[54:56], "big") ^ int.from_bytes(frame[56:58], "big")
    else:
        ends = int.from_bytes(frame[:6], "big") ^ int.from_bytes(frame[6:12], "big")
    return ends % 251  # a prime: all bytes count
