"""TCP of the user-mode network over a link that loses segments."""

from __future__ import annotations

from random import Random

from dbt.machine.clock import Clock

from tests.machine.net.guest import ACK, parse
from tests.machine.net.test_user_tcp import TEXT, Site, until

STEP = 10_000_000  # nanoseconds
LENGTH, LOST = 120_000, 0.25


def test_a_lossy_link_is_slow_and_not_at_an_end() -> None:
    """In virtual time; the guest keeps what comes out of order, acknowledges each segment, and loses as many."""
    for seed in range(2):
        random = Random(seed)
        site = Site(clock=Clock())
        connection, peer = site.connect(scale=3)
        peer.sendall(TEXT[:LENGTH])
        (inside,) = site.net.tcp.connections.values()
        until(lambda inside=inside: len(inside.sending) == LENGTH)
        start, kept, got, steps = connection.ack, dict[int, bytes](), 0, 0
        while got < LENGTH:
            frames = site.guest.poll() + site.guest.frames
            site.guest.frames = []
            site.advance(STEP)
            steps += 1
            for frame in frames:
                ip = parse(frame)
                if ip is None or not connection.mine(ip) or random.random() < LOST:
                    continue
                payload = ip.payload
                at = int.from_bytes(payload[4:8], "big") - start & 0xFFFF_FFFF
                kept[at] = payload[payload[12] >> 2 :]
                while got in kept:
                    piece = kept.pop(got)
                    assert piece == TEXT[got : got + len(piece)]
                    got += len(piece)
                connection.ack = start + got & 0xFFFF_FFFF
                if random.random() >= LOST:
                    connection.segment(ACK)
            assert steps < 3_000
        site.close()
