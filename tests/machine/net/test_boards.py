"""Boards with network cards that users have asked for."""

from __future__ import annotations

import threading

from dbt.machine.boards import Options, load
from dbt.machine.net.spec import open_net

from tests.machine.net.card import NetDriver
from tests.machine.net.guest import SELF
from tests.machine.qtest import Ours
from tests.machine.virtio import Guest, Mmio, Pool


def test_the_first_card_of_virt_is_on_the_user_mode_network() -> None:
    lock = threading.RLock()
    net = open_net("user,restrict=on", lock)
    machine = load("virt").build(Options(lock=lock, nets=(net,)))
    assert machine.lock is lock
    guest = Guest(Mmio(Ours(machine), 0x0A00_3E00), Pool(0x4010_0000, 8 << 20), lambda: machine.advance(0))
    assert NetDriver(guest).stack(lock).dhcp()["yiaddr"] == SELF
    net.close()
