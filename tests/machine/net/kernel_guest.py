"""Linux's own stack as the guest of the user-mode network, through a tap interface, in a namespace of their own.

    unshare -Urn python kernel_guest.py         # prints a line of JSON: what was done

The namespace has nothing but this: its loopback is the "host" that the gateway's address leads to. So all of TCP is
spoken with a real peer, with the kernel's segmentation offloads, and nothing leaves the namespace.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import subprocess
import threading
import time

from dbt.machine.net.hub import Hub
from dbt.machine.net.tap import TapNet
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options

GATEWAY, GATEWAY6, SELF = "10.0.2.2", "fec0::2", "10.0.2.15"
TEXT = random.Random(1).randbytes(4 << 20)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def everything(sock: socket.socket) -> bytes:
    pieces = []
    while data := sock.recv(1 << 18):
        pieces.append(data)
    return b"".join(pieces)


def server(address: str, handle: object) -> tuple[socket.socket, int]:
    """A listening socket; each connection has a thread."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, backlog=64)

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(peer,), daemon=True).start()  # type: ignore[arg-type]

    threading.Thread(target=serve, daemon=True).start()
    return listener, listener.getsockname()[1]


def answer(peer: socket.socket) -> None:
    """Read a number, send so many bytes; or take all, and send its digest."""
    with peer:
        (count,) = struct.unpack(">q", peer.recv(8, socket.MSG_WAITALL))
        if count >= 0:
            peer.sendall(TEXT[:count])
        else:
            peer.sendall(digest(everything(peer)).encode())


def ask(port: int, count: int, host: str = GATEWAY) -> bytes:
    with socket.create_connection((host, port), 60) as sock:
        sock.sendall(struct.pack(">q", count))
        if count < 0:
            sock.sendall(TEXT[: -count - 1])
            sock.shutdown(socket.SHUT_WR)
        return everything(sock)


def echo_datagram(address: str = "127.0.0.1") -> int:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))

    def serve() -> None:
        while True:
            data, peer = sock.recvfrom(65536)
            sock.sendto(data, peer)

    threading.Thread(target=serve, daemon=True).start()
    return int(sock.getsockname()[1])


def six(done: dict[str, object]) -> None:
    """The same over IPv6, with an address that the kernel has made itself of what the router advertises."""
    end = time.monotonic() + 20
    while b"fec0::" not in (text := subprocess.run(["ip", "-6", "addr"], capture_output=True, check=True).stdout):
        assert time.monotonic() < end, text
        time.sleep(0.05)
    while b"tentative" in subprocess.run(["ip", "-6", "addr"], capture_output=True, check=True).stdout:
        time.sleep(0.05)
    _, port = server("::1", answer)
    done["IPv6 download"] = ask(port, len(TEXT), GATEWAY6) == TEXT
    done["IPv6 upload"] = ask(port, -len(TEXT) - 1, GATEWAY6).decode() == digest(TEXT)
    try:
        socket.create_connection((GATEWAY6, 1), 30)
    except ConnectionRefusedError:
        done["IPv6 refused"] = True
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((GATEWAY6, echo_datagram("::1")))
        for size in (1, 9000, 60_000):
            sock.send(TEXT[:size])
            done[f"IPv6 datagram of {size}"] = sock.recv(65536) == TEXT[:size]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((GATEWAY6, 1))
        sock.send(b"anybody?")
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            done["IPv6 port unreachable"] = True
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as sock:
        sock.settimeout(30)
        sock.sendto(struct.pack(">BBHHH", 128, 0, 0, 0, 1) + b"ping", (GATEWAY6, 0))
        done["IPv6 echo"] = sock.recv(100)[8:] == b"ping"


def main() -> dict[str, object]:
    ip("link", "set", "lo", "up")
    lock = threading.RLock()
    tap = TapNet(lock)
    net = UserNet(lock, make_options(loopback=True, hostfwd=(f"tcp:127.0.0.1:0-{SELF}:7777",)))
    hub = Hub()
    hub.connect(tap)
    hub.connect(net)
    ip("addr", "add", f"{SELF}/24", "dev", tap.name)
    ip("link", "set", tap.name, "up")
    ip("route", "add", "default", "via", GATEWAY)
    done: dict[str, object] = {}
    _, port = server("127.0.0.1", answer)

    start = time.monotonic()
    done["download"] = ask(port, len(TEXT)) == TEXT
    done["download MiB/s"] = round(4 / (time.monotonic() - start), 1)
    start = time.monotonic()
    done["upload"] = ask(port, -len(TEXT) - 1).decode() == digest(TEXT)
    done["upload MiB/s"] = round(4 / (time.monotonic() - start), 1)

    counts = [random.Random(n).randrange(-50_000, 50_000) for n in range(40)]
    answers: list[bytes] = [b""] * len(counts)

    def one(number: int) -> None:
        answers[number] = ask(port, counts[number])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done["parallel"] = all(
        got == (TEXT[:count] if count >= 0 else digest(TEXT[: -count - 1]).encode())
        for count, got in zip(counts, answers, strict=True)
    )

    try:
        socket.create_connection((GATEWAY, 1), 30)
    except ConnectionRefusedError:
        done["refused"] = True

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((GATEWAY, echo_datagram()))
        for size in (1, 1400, 9000, 60_000):
            sock.send(TEXT[:size])
            done[f"datagram of {size}"] = sock.recv(65536) == TEXT[:size]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((GATEWAY, 1))
        sock.send(b"anybody?")
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            done["port unreachable"] = True

    with open("/proc/sys/net/ipv4/ping_group_range", "w", encoding="ascii") as file:
        file.write("0 0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(30)
        sock.sendto(struct.pack(">BBHHH", 8, 0, 0, 0, 1) + b"ping", (GATEWAY, 0))
        done["echo"] = sock.recv(100)[8:] == b"ping"

    guest = socket.create_server((SELF, 7777))
    threading.Thread(target=lambda: answer(guest.accept()[0]), daemon=True).start()
    done["forward"] = ask(net.ports[0], 500_000, "127.0.0.1") == TEXT[:500_000]

    six(done)
    end = time.monotonic() + 60
    while states := {each.state.value for each in list(net.tcp.connections.values())} - {"TIME-WAIT"}:
        assert time.monotonic() < end, states
        time.sleep(0.01)
    # A tenth of what passes is lost, between the router and the interface, then in the other direction as well.
    losing = random.Random(3)
    receive, put = tap.put, net.put
    tap.put = lambda frame, offload=None: losing.random() < 0.1 or receive(frame, offload)  # type: ignore[method-assign]
    done["download with losses"] = ask(port, 300_000) == TEXT[:300_000]
    net.put = lambda frame, offload=None: losing.random() < 0.1 or put(frame, offload)  # type: ignore[method-assign]
    done["upload with losses"] = ask(port, -300_001).decode() == digest(TEXT[:300_000])
    done["counts"] = dict(net.counts) | dict(tap.counts)
    hub.close()
    return done


if __name__ == "__main__":
    print(json.dumps(main()))
