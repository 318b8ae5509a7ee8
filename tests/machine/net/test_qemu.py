"""QEMU's network as oracle: its virtio-net, its framing on sockets, and its user-mode network (slirp)."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.devices.virtio_net import VirtioNet
from dbt.machine.machine import Machine
from dbt.machine.memory import RAM
from dbt.machine.net.address import parse_address
from dbt.machine.net.datagram import DatagramNet
from dbt.machine.net.stream import StreamNet
from dbt.machine.net.user.net import UserNet
from dbt.machine.net.user.options import make_options
from dbt.machine.virtio.device import RINGS
from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.spec import RING_PACKED

from tests.machine.net.card import NetDriver
from tests.machine.net.guest import GATEWAY, MAC, Card, Tcp, internet_sum, packet
from tests.machine.net.guest6 import (
    ALL_ROUTERS,
    DNS6,
    GATEWAY6,
    LINK_LOCAL,
    ROUTER,
    SELF6,
    icmp6,
    nd_options,
    send6,
    solicitation,
    wait6,
)
from tests.machine.net.test_backends import FRAMES, until
from tests.machine.net.virtio_card import command_tables, frame
from tests.machine.qtest import ARM, X86, Bus, Ours, agree, qemu
from tests.machine.test_virtio_qemu import ARM_RAM, LEFT_OUT, SLOT, by_pci, note, pc
from tests.machine.virtio import Guest, Mmio, PciLegacy, PciModern, Pool

FORCE = ("-nodefaults", "-global", "virtio-mmio.force-legacy=false")
OTHER, MULTICAST, EVERYBODY = bytes.fromhex("525400000099"), bytes.fromhex("01005e000001"), b"\xff" * 6
MARK = EVERYBODY + bytes(6) + b"\x88\xb6that is all"


def card(*options: str) -> list[str]:
    return ["-device", ",".join(("virtio-net-device,netdev=n,mac=52:54:00:12:34:56", *options))]


def arm(build: Callable[[Machine], VirtioNet]) -> Machine:
    machine = Machine()
    machine.place(RAM("ram", 16 << 20), ARM_RAM)
    machine.place(VirtioMmio("mmio", machine, device=build(machine)), SLOT)
    machine.reset()
    return machine


def driver(bus: Bus, step: Callable[[], None] = lambda: None) -> NetDriver:
    transport = Mmio(bus, SLOT)
    transport.known &= ~LEFT_OUT
    transport.sizes = False
    return NetDriver(Guest(transport, Pool(ARM_RAM + 0x10_0000, 8 << 20), step))


class Peer:
    """The other end of a stream of frames."""

    def __init__(self, listener: socket.socket) -> None:
        self.sock, _ = listener.accept()
        self.sock.settimeout(30)

    def give(self, data: bytes) -> None:
        self.sock.sendall(len(data).to_bytes(4, "big") + data)

    def take(self) -> bytes:
        (length,) = struct.unpack(">I", self.sock.recv(4, socket.MSG_WAITALL))
        return self.sock.recv(length, socket.MSG_WAITALL)


def card_script(bus: Bus, peer: Peer) -> None:
    """Configuration, frames both ways, and what each command answers and changes."""
    net = driver(bus)
    guest = net.guest
    for offset in range(6):
        guest.transport.config(offset, 1)
    guest.transport.config(6, 2)
    for length in (14, 60, 61, 1514, 9000, 65_550):
        net.send(FRAMES[1999][:10] + bytes(length - 10))
        sent = peer.take()
        note(bus, "sent", len(sent))
        note(bus, "content", int(hashlib.sha256(sent).hexdigest(), 16))

    def passes(*targets: bytes, vlan: int | None = None) -> None:
        for number, target in enumerate(targets):
            peer.give(frame(target, 64 + number, vlan=vlan))
        peer.give(MARK)
        got: list[tuple[bytes, bytes]] = []

        def complete() -> bool:
            got.extend(net.raw())
            return bool(got) and got[-1][1][:15] == MARK[:15]

        guest.until(complete)
        for header, data in got:
            note(bus, "header", int.from_bytes(header, "big"))
            note(bus, "frame", int.from_bytes(data.rstrip(b"\0"), "big"))

    everything = (MAC, OTHER, MULTICAST, EVERYBODY)
    passes(*everything)
    commands: list[tuple[int, int, bytes]] = [
        (0, 0, b"\0"), (0, 1, b"\1"), (0, 1, b"\0"), (0, 2, b"\1"), (0, 3, b"\1"), (0, 2, b"\0"), (0, 3, b"\0"),
        (1, 0, command_tables([OTHER], [])), (1, 0, command_tables([], [MULTICAST])), (1, 1, OTHER),
        (1, 0, command_tables([bytes((2, 0, 0, 0, 0, n)) for n in range(65)], [])), (1, 0, command_tables([], [])),
        (0, 4, b"\1"), (0, 4, b"\0"), (1, 1, MAC), (0, 6, b"\1"), (0, 0, b""), (0, 0, b"\1\1"), (1, 0, b"\1\0\0\0"),
        (1, 0, command_tables([], []) + b"x"), (1, 1, b"x"), (1, 2, b""), (2, 2, b"\0\0"), (2, 0, b"\0\x10"),
        (3, 0, b""), (3, 1, b""), (4, 0, b"\1\0"), (9, 0, b""), (0, 5, b"\0"),
    ]  # fmt: skip
    for kind, command, data in commands:
        note(bus, f"answer to {kind}.{command}", net.command(kind, command, data))
        passes(*everything)
    for command, vlan in ((0, 5), (0, 6), (1, 5)):
        note(bus, "vlan", net.command(2, command, vlan.to_bytes(2, "little")))
        for tag in (5, 6, 7):
            passes(MAC, vlan=tag)
    assert net.control is not None
    net.control.add([(net.out, 1, False)])
    net.control.kick(always=True)
    guest.until(lambda: bool(guest.bus.read(SLOT + 0x70) & 0x40) or (bool(bus.log.pop()) and False))
    bus.log.pop()


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize("packed", [False, True])
def test_the_card_agrees(packed: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "net")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(2)
        listener.settimeout(30)
        nets: list[StreamNet] = []
        rings = RINGS | (RING_PACKED if packed else 0)

        def build(machine: Machine) -> VirtioNet:
            nets.append(StreamNet(machine.lock, parse_address(f"unix:{path}", socket.SOCK_STREAM), listen=False))
            return VirtioNet("net", machine, nets[0], offloads=False, rings=rings)

        machine = arm(build)
        peers = [Peer(listener)]
        netdev = ["-netdev", f"stream,id=n,server=off,addr.type=unix,addr.path={path}"]
        options = ["ctrl_guest_offloads=off"] + (["packed=on"] if packed else [])
        with qemu(*ARM, *FORCE, *netdev, *card(*options), running=True) as other:
            peers.append(Peer(listener))
            which = iter(peers)
            assert agree(lambda bus: card_script(bus, next(which)), machine, other) > 200
        nets[0].close()
        for peer in peers:
            peer.sock.close()


@pytest.mark.needs("qemu-system-aarch64")
@pytest.mark.parametrize("kind", ["stream", "dgram", "socket"])
def test_frames_to_and_from_qemu(kind: str, tmp_path: Path) -> None:
    lock = threading.RLock()
    net: Any
    if kind == "dgram":
        one, other = f"{tmp_path}/one", f"{tmp_path}/other"
        local, remote = (parse_address(f"unix:{path}", socket.SOCK_DGRAM) for path in (one, other))
        net = DatagramNet(lock, local, remote)
        netdev = f"dgram,id=n,local.type=unix,local.path={other},remote.type=unix,remote.path={one}"
    else:
        net = StreamNet(lock, parse_address("127.0.0.1:0", socket.SOCK_STREAM), listen=True)
        netdev = f"socket,id=n,connect=127.0.0.1:{net.port}"
        if kind == "stream":
            netdev = f"stream,id=n,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port={net.port}"
    ours = Card(net, buffers=5)
    with qemu(*ARM, *FORCE, "-netdev", netdev, *card(), running=True) as bus:
        theirs = driver(bus)
        frames = [MAC + data for data in FRAMES[:60]]
        while not ours.frames:  # before the connection is made frames are lost
            theirs.send(MARK)
            time.sleep(0.01)
        for number, data in enumerate(frames):
            theirs.send(data)
            got: list[bytes] = []
            while data not in got:
                until(lambda: ours.frames)
                with lock:
                    got += ours.poll()
            assert {*got} <= {data, MARK}
            with lock:
                assert net.send(data)
            assert theirs.stack(lock).wait(lambda _: True)[: len(data)] == data, number
    net.close()


def probe_script(guest: Guest) -> None:
    """What a driver looks at before its first frame."""
    guest.begin()
    for offset, size in ((0, 4), (4, 2), (6, 2)):
        guest.transport.config(offset, size)
    for index, size in ((0, 256), (1, 256), (2, 64)):
        guest.queue(index, size)
    guest.go()
    guest.transport.status()
    guest.transport.interrupt()
    guest.reset()


@pytest.mark.needs("qemu-system-x86_64")
@pytest.mark.parametrize("kind", [PciModern, PciLegacy])
@pytest.mark.parametrize("transitional", [True, False], ids=["transitional", "modern"])
def test_the_function_agrees(kind: type[PciModern | PciLegacy], transitional: bool) -> None:
    if kind is PciLegacy and not transitional:
        return
    machine = pc(lambda machine: VirtioNet("net", machine, offloads=False), 5, transitional=transitional)
    model = "virtio-net-pci,netdev=n,addr=5,mac=52:54:00:12:34:56,ctrl_guest_offloads=off,gso=off,romfile="
    model += "" if transitional else ",disable-legacy=on"
    with qemu(*X86, "-netdev", "hubport,id=n,hubid=0", "-device", model) as other:
        assert agree(by_pci(probe_script, 5, kind), machine, other) > 70


def echo_servers() -> tuple[int, int]:
    """TCP, which echoes until the end, and UDP; in threads that end with the process."""
    listener, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    ports = listener.getsockname()[1], datagrams.getsockname()[1]

    def stream() -> None:
        with listener:
            for _ in range(2):
                peer, _ = listener.accept()
                with peer:
                    while data := peer.recv(65536):
                        peer.sendall(data)

    def echo() -> None:
        with datagrams:
            for _ in range(2):
                data, peer = datagrams.recvfrom(65536)
                datagrams.sendto(data, peer)

    for target in (stream, echo):
        threading.Thread(target=target, daemon=True).start()
    return ports


def user_script(net: NetDriver, lock: Any, ports: tuple[int, int]) -> dict[str, Any]:
    """What a guest sees of a user-mode network, but for what is left to chance."""
    guest = net.stack(lock)
    facts: dict[str, Any] = {"gateway": guest.find(GATEWAY), "dns": guest.find(bytes((10, 0, 2, 3)))}
    guest.address = bytes(4)
    guest.dhcp_send(1)
    offer = guest.dhcp_answer()
    guest.dhcp_send(3, more=bytes((50, 4)) + offer["yiaddr"])
    ack = guest.dhcp_answer()
    wanted = ("yiaddr", "siaddr", "xid", 53, 54, 1, 3, 6, 51)
    facts["dhcp"] = [{name: answer.get(name) for name in wanted} for answer in (offer, ack)]
    guest.address = ack["yiaddr"]
    guest.dhcp_send(3, more=bytes((50, 4, 10, 0, 2, 200)))
    facts["refusal"] = guest.dhcp_answer()[53]
    message = b"\x08\0\0\0\x12\x34\0\1" + bytes(range(56))
    message = message[:2] + internet_sum(message).to_bytes(2, "big") + message[4:]
    guest.send(packet(guest.address, GATEWAY, 1, message))
    facts["echo"] = guest.icmp_wait()
    guest.udp_send(1234, (GATEWAY, ports[1]), b"datagram")
    facts["udp"] = guest.udp_wait(1234)
    refused = Tcp(guest, (GATEWAY, 1))
    refused.segment(2, said=refused.syn_options())
    _, number, flags, _, data = refused.take()
    facts["refused"] = (number, flags, data)
    connection = Tcp(guest, (GATEWAY, ports[0]), port=40001)
    connection.connect()
    for text in (b"hello", bytes(range(256)) * 40):
        connection.send(text)
        assert connection.read(len(text)) == text
    connection.close()
    connection.read(1)
    facts["end"] = (connection.ended, connection.una - connection.seq)
    stray = Tcp(guest, (GATEWAY, 2), port=40002)
    stray.ack = 77
    stray.segment(16)
    facts["stray"] = stray.take()[:3]
    send6(guest, icmp6(LINK_LOCAL, ALL_ROUTERS, 133, bytes(4) + b"\1\1" + MAC))
    source, _, message = wait6(guest, 58, 134)
    options = nd_options(message[16:])
    options.pop(25, None)  # QEMU has a name server only if the host's has an IPv6 address
    facts["advertisement"] = (source, message[:2], message[4:16], options)
    for address in (GATEWAY6, DNS6, ROUTER):
        send6(guest, solicitation(address))
        source, target, message = wait6(guest, 58, 136)
        facts[f"where is {address.hex()}"] = (source, target, message[8:24], nd_options(message[24:]))
    send6(guest, icmp6(SELF6, GATEWAY6, 128, b"\1\2\0\1ping"))
    facts["echo of IPv6"] = wait6(guest, 58, 129)
    return facts


@pytest.mark.needs("qemu-system-aarch64")
def test_the_user_mode_network_agrees() -> None:
    ports = echo_servers()
    nets: list[UserNet] = []

    def build(machine: Machine) -> VirtioNet:
        nets.append(UserNet(machine.lock, make_options(loopback=True)))
        return VirtioNet("net", machine, nets[0])

    machine = arm(build)
    mine = user_script(driver(Ours(machine), lambda: machine.advance(0)), machine.lock, ports)
    nets[0].close()
    with qemu(*ARM, *FORCE, "-netdev", "user,id=n", *card(), running=True) as bus:
        theirs = user_script(driver(bus), threading.RLock(), ports)
    for name, fact in mine.items():
        assert (name, fact) == (name, theirs[name])
