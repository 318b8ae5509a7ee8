"""Commands of the network device's control queue (section 5.1.6.5).

A command is {class, command, data, answer}: data is copied once, and what it says is checked before anything changes.
What is behind the data is ignored, as QEMU does.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.machine.devices.virtio_net import VirtioNet
    from dbt.machine.virtio import Chain, VirtQueue

OK, ERR = b"\0", b"\1"
RX, MAC, VLAN, ANNOUNCE, MQ, GUEST_OFFLOADS = range(6)  # classes
MODES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")  # commands of RX
TABLE_SET, ADDR_SET = 0, 1
VLAN_ADD, VLAN_DEL = 0, 1
PAIRS_SET = 0
ACK = 0
SET = 0
TABLE = 64  # addresses of each kind; more, and all are let through
BUDGET = 16  # commands in one go
# Features that classes need, section 5.1.3.
NEEDS = {RX: 1 << 18, VLAN: 1 << 19, ANNOUNCE: 1 << 21, MQ: 1 << 22, GUEST_OFFLOADS: 1 << 2}
RX_EXTRA, MAC_ADDR = 1 << 20, 1 << 23


class Control:
    """See the module."""

    def __init__(self, card: VirtioNet) -> None:
        self.card = card

    def serve(self, queue: VirtQueue) -> None:
        """What is in the queue."""
        for chain in self.card.chains(queue, BUDGET):
            if chain.readable_length < 2 or not chain.writable_length:
                self.card.fail("a command without a header, or without room for the answer")
                queue.push(chain)
                return
            kind, command = chain.read(0, 2)
            done = self._do(kind, command, chain)
            if not done:
                self.card.guest_error(f"command {command} of class {kind} is refused")
            queue.push(chain, chain.write(0, OK if done else ERR))
        queue.notify()

    def _do(self, kind: int, command: int, chain: Chain) -> bool:
        card = self.card
        if kind in NEEDS and not card.has(NEEDS[kind]):
            return False
        length = chain.readable_length - 2
        match kind, command:
            case 0, _ if command < len(MODES) and length >= 1 and (command < 2 or card.has(RX_EXTRA)):
                setattr(card, MODES[command], int(chain.read(2, 1) != b"\0"))
                return True
            case 1, 0:
                return self._tables(chain)
            case 1, 1 if length == 6 and card.has(MAC_ADDR):
                card.mac = list(chain.read(2, 6))
                return True
            case 2, (0 | 1) if length >= 2:
                vlan = int.from_bytes(chain.read(2, 2), "little")
                if vlan >= 4096:
                    return False
                card.vlans = card.vlans & ~(1 << vlan) | (command == VLAN_ADD) << vlan
                return True
            case 3, 0:
                if not card.net_status & 2:
                    return False
                card.net_status &= ~2
                return True
            case 4, 0 if length >= 2:
                pairs = int.from_bytes(chain.read(2, 2), "little")
                if not 1 <= pairs <= card.pairs:
                    return False
                card.pairs_used = pairs
                return True
            case 5, 0 if length >= 8:
                return self._offloads(*struct.unpack("<Q", chain.read(2, 8)))
        return False

    def _offloads(self, wanted: int) -> bool:
        """Section 5.1.6.5.6.1: what was not negotiated cannot be used."""
        if wanted & ~(self.card.driver_features & self.card.KNOWN_OFFLOADS):
            return False
        self.card.guest_offloads = wanted
        self.card.refresh()
        return True

    def _tables(self, chain: Chain) -> bool:
        """The addresses that are let through: unicast, then multicast, each with their number in front."""
        at = 2
        tables = []
        for _ in range(2):
            if at + 4 > chain.readable_length:
                return False
            count = int.from_bytes(chain.read(at, 4), "little")
            if at + 4 + 6 * count > chain.readable_length:
                return False
            tables.append((count > TABLE, chain.read(at + 4, 6 * count) if count <= TABLE else b""))
            at += 4 + 6 * count
        if at != chain.readable_length:
            return False
        card = self.card
        (card.unicast_overflow, card.multicast_overflow) = (int(over) for over, _ in tables)
        card.unicast[:], card.multicast[:] = (table for _, table in tables)
        card.refresh()
        return True
