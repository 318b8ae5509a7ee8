"""A driver for virtio-net on the user-mode network, over both kinds of rings and all transports."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.log import GUEST_ERROR
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options
from dbt.machine.virtio.device import RINGS

from tests.machine.net.card import NetDriver
from tests.machine.net.guest import GATEWAY, SELF, Tcp
from tests.machine.net.virtio_card import PACKED, TEXT
from tests.machine.virtio import KINDS, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.machine import Machine


@pytest.fixture
def server() -> Iterator[tuple[int, int]]:
    """TCP and UDP ports of this host that echo."""
    listener, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))

    def stream() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                while data := peer.recv(65536):
                    peer.sendall(data)

    def echo() -> None:
        data, peer = datagrams.recvfrom(65536)
        with contextlib.suppress(OSError):
            datagrams.sendto(data, peer)

    threads = [threading.Thread(target=target, daemon=True) for target in (stream, echo)]
    for thread in threads:
        thread.start()
    yield listener.getsockname()[1], datagrams.getsockname()[1]
    for sock in (listener, datagrams):
        with contextlib.suppress(OSError):  # wakes who waits
            sock.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(30)
    listener.close()
    datagrams.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rings", [RINGS, PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("wanted", [~0, (1 << 5) | RINGS | PACKED], ids=["offloads", "plain"])
def test_a_guest_on_the_user_mode_network(kind: str, rings: int, wanted: int, server: tuple[int, int]) -> None:
    nets: list[UserNet] = []

    def make(machine: Machine) -> VirtioNet:
        nets.append(UserNet(machine.lock, make_options(loopback=True)))
        return VirtioNet("net", machine, nets[0], rings=rings)

    guest, device = connect(kind, make)
    driver = NetDriver(guest, wanted)
    stack = driver.stack(device.machine.lock)
    stack.address = bytes(4)
    assert stack.dhcp()["yiaddr"] == SELF
    stack.udp_send(1234, (GATEWAY, server[1]), TEXT[:3000][:1400])
    assert stack.udp_wait(1234) == ((GATEWAY, server[1]), TEXT[:1400])
    count = 60_000
    connection = Tcp(stack, (GATEWAY, server[0]), scale=3).connect()
    connection.send(TEXT[:count])
    assert connection.read(count) == TEXT[:count]
    connection.close()
    connection.read(1)
    assert connection.ended
    assert any(header[:2] != b"\0\0" for header in driver.headers) == (wanted == ~0)
    assert device.machine.log.counts[GUEST_ERROR] == 0
    nets[0].close()
