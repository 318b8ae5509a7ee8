"""An e1000 on the user-mode network: its driver gets an address, and TCP and UDP go there and back."""

from __future__ import annotations

import socket
import threading
from typing import Any

from dbt.machine.devices.e1000 import E1000
from dbt.machine.log import GUEST_ERROR
from dbt.machine.net.backend import MemoryNet
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options

from tests.machine.e1000 import RX_RING, Driver
from tests.machine.net.guest import GATEWAY, SELF, Guest, Tcp
from tests.machine.net.test_user_tcp import TEXT
from tests.machine.pci import machine
from tests.machine.qtest import Ours


def test_a_guest_with_an_e1000() -> None:
    made, bus = machine()
    net = UserNet(made.lock, make_options(loopback=True))
    E1000("nic", made, net=net, bus=bus, slot=2, mac=b"\x52\x54\0\x12\x34\x56")
    made.reset()
    driver: Any = Driver(Ours(made), MemoryNet(), ecam=0)
    driver.start(rx=16)

    def poll() -> list[bytes]:
        made.advance(1000)
        frames = []
        while driver.bus.load(RX_RING + 16 * driver.next + 12, 1)[0] & 1:
            frames += [data for _, data in driver.received()]
            driver.set("RDT", driver.rx_tail)
        return frames

    def send(frame: bytes) -> None:
        driver.send(frame)
        made.advance(1000)

    guest = Guest(send, poll, made.lock)
    guest.address = bytes(4)
    assert guest.dhcp()["yiaddr"] == SELF
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Tcp(guest, (GATEWAY, listener.getsockname()[1]), scale=7).connect()
        peer, _ = listener.accept()
        with peer:
            threading.Thread(target=peer.sendall, args=(TEXT[:300_000],), daemon=True).start()
            assert connection.read(300_000) == TEXT[:300_000]
            connection.send(TEXT[:50_000])
            got = bytearray()
            while len(got) < 50_000:
                got += peer.recv(65536)
            assert got == TEXT[:50_000]
    net.close()
    assert made.log.counts[GUEST_ERROR] == 0
