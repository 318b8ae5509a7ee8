"""A hub: what comes in at one port goes out at all others.

    hub = Hub()
    hub.connect(UserNet(machine.lock))            # a back end
    VirtioNet("net0", machine, hub.port())        # and cards
    VirtioNet("net1", machine, hub.port())

A port that cannot take a frame keeps up to WAITING of them, then it loses what comes. All under the machine's lock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dbt.machine.net.backend import NetBackend
from dbt.machine.net.offload import CSUM, ECN, TSO4, TSO6, UFO, USO

if TYPE_CHECKING:
    from dbt.machine.net.offload import Buffer, Offload

ALL = CSUM | TSO4 | TSO6 | ECN | UFO | USO
WAITING = 256
Frames = deque[tuple[bytes, "Offload | None"]]


class HubPort(NetBackend):
    """The back end of a card that is on a hub."""

    KIND = "hub"
    offers = ALL

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.lost = 0
        self._hub = hub
        self._waiting: Frames = deque()

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame for the others."""
        self._hub.flood(self, bytes(frame), offload)
        return True

    def deliver_here(self, frame: bytes, offload: Offload | None) -> None:
        """A frame of another port's."""
        if not self._waiting and self.offer(frame, offload):
            return
        if len(self._waiting) < WAITING:
            self._waiting.append((frame, offload))
        else:
            self.lost += 1

    def resume(self) -> None:
        """The card has buffers."""
        if self.deliver():
            while self._waiting and self.offer(*self._waiting[0]):
                self._waiting.popleft()


class Uplink:
    """A port to which a back end is connected: for that it is a card."""

    accepts = ALL

    def __init__(self, hub: Hub, net: NetBackend) -> None:
        self.net = net
        self.lost = 0
        self._hub = hub
        self._waiting: Frames = deque()
        net.attach(self)

    def receive(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame of the back end's."""
        self._hub.flood(self, bytes(frame), offload)
        return True

    def deliver_here(self, frame: bytes, offload: Offload | None) -> None:
        """A frame of another port's."""
        if not self._waiting and self.net.send(frame, offload):
            return
        if len(self._waiting) < WAITING:
            self._waiting.append((frame, offload))
        else:
            self.lost += 1

    def ready(self) -> None:
        """The back end has room again."""
        while self._waiting and self.net.send(*self._waiting[0]):
            self._waiting.popleft()

    def link_changed(self) -> None:
        """Nobody asks."""

    def guest_error(self, thing: str, detail: str = "") -> None:
        """Some card's frame could not be segmented."""
        self._hub.errors.append((thing + detail)[:200])


class Hub:
    """See the module. `errors`: the last frames that nobody could make sense of."""

    def __init__(self) -> None:
        self.ports: list[HubPort | Uplink] = []
        self.errors: deque[str] = deque(maxlen=16)

    def port(self) -> HubPort:
        """A back end for one more card."""
        port = HubPort(self)
        self.ports.append(port)
        return port

    def connect(self, net: NetBackend) -> None:
        """Let a back end hear and speak."""
        self.ports.append(Uplink(self, net))

    def flood(self, source: HubPort | Uplink, frame: bytes, offload: Offload | None) -> None:
        """Give a frame to all ports but `source`."""
        for port in self.ports:
            if port is not source:
                port.deliver_here(frame, offload)

    def close(self) -> None:
        """Close the back ends. Not under the machine's lock."""
        for port in self.ports:
            if isinstance(port, Uplink):
                port.net.close()
