"""What users say about the user-mode network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dbt.machine.net.errors import NetError

SITE = bytes.fromhex("fec0000000000000")


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host that leads to one of the guest. Port 0 of the host: any that is free."""

    protocol: str
    host: str
    host_port: int
    guest: bytes | None  # None: the first address that DHCP gives
    guest_port: int

    def __str__(self) -> str:
        return f"{self.protocol}:{self.host}:{self.host_port}"


@dataclass(frozen=True, slots=True)
class UserOptions:
    """Addresses are packed; `network` and `mask` are numbers."""

    network: int = 0x0A000200
    mask: int = 0xFFFF_FF00
    gateway: bytes = bytes((10, 0, 2, 2))
    dns: bytes = bytes((10, 0, 2, 3))
    first: bytes = bytes((10, 0, 2, 15))
    restrict: bool = False
    loopback: bool = False
    resolver: str | None = None
    forwards: tuple[Forward, ...] = ()
    ipv6: bool = True
    prefix: bytes = SITE  # the first half of the guest's addresses; ::2 is the gateway, ::3 the name server

    @property
    def gateway6(self) -> bytes:
        """The router's address in the prefix."""
        return self.prefix + bytes(7) + b"\2"

    @property
    def dns6(self) -> bytes:
        """The name server's."""
        return self.prefix + bytes(7) + b"\3"


def address(text: str, where: str) -> bytes:
    """An IPv4 address, packed."""
    try:
        return ipaddress.IPv4Address(text).packed
    except ValueError:
        raise NetError("user", f"{where}: {text!r} is no IPv4 address", "for example 10.0.2.15") from None


def _port(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise NetError("user", f"{where}: {text!r} is no port", "0 to 65535")
    return int(text)


def parse_forward(text: str) -> Forward:
    """`tcp:[hostaddr]:port-[guestaddr]:port`, as QEMU's hostfwd has it."""
    hint = "hostfwd=tcp:127.0.0.1:2222-:22: protocol, the host's address and port, the guest's"
    host, dash, guest = text.partition("-")
    words, ends = host.split(":"), guest.split(":")
    if not dash or len(words) != 3 or len(ends) != 2 or words[0] not in {"tcp", "udp", ""}:
        raise NetError("user", f"hostfwd: {text!r} is no forward", hint)
    where = f"hostfwd {text!r}"
    listen = ".".join(map(str, address(words[1] or "0.0.0.0", where)))  # noqa: S104 - as QEMU's users mean it
    port = _port(ends[1], where)
    if not port:
        raise NetError("user", f"{where}: the guest's port is missing", hint)
    target = address(ends[0], where) if ends[0] else None
    return Forward(words[0] or "tcp", listen, _port(words[2], where), target, port)


def make_options(
    *,
    net: str = "10.0.2.0/24",
    host: str | None = None,
    dns: str | None = None,
    dhcpstart: str | None = None,
    restrict: bool = False,
    loopback: bool = False,
    resolver: str | None = None,
    hostfwd: tuple[str, ...] = (),
    ipv6: bool = True,
    ipv6net: str = "fec0::/64",
) -> UserOptions:
    """Options as users write them, checked against each other. The defaults follow `net`: .2, .3 and .15 of it."""
    try:
        whole = ipaddress.IPv4Network(net, strict=False)
    except ValueError:
        raise NetError("user", f"net: {net!r} is no network", "for example 10.0.2.0/24") from None
    if whole.prefixlen > 28:
        raise NetError("user", f"net: {net} has too few addresses", "at most /28")
    addresses: dict[str, bytes] = {}
    first = 15 if whole.prefixlen < 28 else 4
    for name, given, default in (("host", host, 2), ("dns", dns, 3), ("dhcpstart", dhcpstart, first)):
        packed = address(given, name) if given else whole[default].packed
        if ipaddress.IPv4Address(packed) not in whole or packed in {whole[0].packed, whole[-1].packed}:
            raise NetError("user", f"{name}: {given} is no address of a machine in {whole}")
        if packed in addresses.values():
            raise NetError("user", f"{name}: {given} is used twice")
        addresses[name] = packed
    try:
        if resolver:
            ipaddress.ip_address(resolver)
        prefix = ipaddress.IPv6Network(ipv6net)
    except ValueError as wrong:
        raise NetError("user", str(wrong)) from None
    if prefix.prefixlen != 64:
        raise NetError("user", f"ipv6net: {ipv6net} has another length than 64 bits")
    forwards = tuple(parse_forward(text) for text in hostfwd)
    udp = [forward for forward in forwards if forward.protocol == "udp"]
    ends = [(forward.guest or addresses["dhcpstart"], forward.guest_port) for forward in udp]
    if len(set(ends)) < len(ends):
        raise NetError("user", "hostfwd: two UDP forwards lead to the same port of the guest")
    return UserOptions(
        int(whole.network_address), int(whole.netmask), addresses["host"], addresses["dns"], addresses["dhcpstart"],
        restrict, loopback, resolver, forwards,
        ipv6, prefix.network_address.packed[:8],
    )  # fmt: skip
