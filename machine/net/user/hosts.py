"""Which address of the host a guest's address means, and which address a guest sees for one of the host's.

The gateway's address is the host itself (its 127.0.0.1) if that is allowed, the name server's is the host's resolver.
What no router forwards is refused: loopback, "this network", link-local (RFC 3927, 2.6.2: so no cloud's metadata
service either), multicast, the guest's own network, and IPv6 addresses in which IPv4's are.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.machine.net.user.options import UserOptions

RESOLV_CONF = "/etc/resolv.conf"
LOCALHOST, LOCALHOST6 = "127.0.0.1", "::1"
LINK_LOCAL = b"\xfe\x80"
DNS_PORT = 53


class Hosts:
    """See the module."""

    def __init__(self, options: UserOptions, resolv_conf: str = RESOLV_CONF) -> None:
        self.options = options
        self._resolv_conf = resolv_conf
        self._stamp: tuple[int, int] | None = None
        self._resolvers: list[str] = []

    def of_guest(self, address: bytes, port: int) -> tuple[str, int] | None:
        """Where a guest's packets for (address, port) go to; None: nowhere."""
        options = self.options
        if len(address) == 16:
            return self._of_guest6(address, port)
        if address == options.gateway:
            return (LOCALHOST, port) if options.loopback else None
        if address == options.dns:
            resolver = self.resolver() if port == DNS_PORT else None
            return (resolver, port) if resolver else None
        if address[0] in {0, 127} or address[0] >= 224 or address[:2] == b"\xa9\xfe" or self.local(address):
            return None
        return ".".join(map(str, address)), port

    def _of_guest6(self, address: bytes, port: int) -> tuple[str, int] | None:
        options = self.options
        if address == options.gateway6:
            return (LOCALHOST6, port) if options.loopback else None
        if address == options.dns6:
            resolver = self.resolver(six=True) if port == DNS_PORT else None
            return (resolver, port) if resolver else None
        embedded = address[:2] in {b"\x20\x02", b"\0\0"} or address[:4] == b"\0\x64\xff\x9b"  # 6to4, mapped, NAT64
        if embedded or address[0] == 0xFF or (address[0] == 0xFE and address[1] >= 0x80) or self.local(address):
            return None
        return socket.inet_ntop(socket.AF_INET6, address), port

    def local(self, address: bytes) -> bool:
        """Whether an address is in the guest's network."""
        if len(address) == 16:
            return address[:8] == self.options.prefix or address[:2] == LINK_LOCAL
        number = int.from_bytes(address, "big")
        return number & self.options.mask == self.options.network

    def of_host(self, address: str) -> bytes:
        """What the guest sees as the source of what comes from a host's address: never one of its own network's."""
        seen = ipaddress.IPv4Address(address).packed
        return self.options.gateway if seen[0] in {0, 127} or self.local(seen) else seen

    def resolver(self, *, six: bool = False) -> str | None:
        """The host's first name server that can be reached (from IPv6 both kinds can), as resolv.conf has it now."""
        if self.options.resolver:
            return self.options.resolver if six or ":" not in self.options.resolver else None
        try:
            status = os.stat(self._resolv_conf)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._stamp, self._resolvers = stamp, self._read()
        except OSError:
            self._stamp, self._resolvers = None, []
        return next((each for each in self._resolvers if six or ":" not in each), None)

    def _read(self) -> list[str]:
        found: list[str] = []
        with open(self._resolv_conf, encoding="ascii", errors="replace") as lines:
            for line in lines:
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    try:
                        found.append(str(ipaddress.ip_address(words[1])))
                    except ValueError:
                        continue
        return found
