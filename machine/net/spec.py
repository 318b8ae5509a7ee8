"""Which network: what users write, as a back end's name and its options, and what every back end can have besides.

    user                                                   the user-mode network
    user,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22        options; `hostfwd` as often as it takes
    socket,connect=127.0.0.1:1234                          frames over a stream; also listen=, reconnect=SECONDS
    dgram,local=:1234,remote=:1235                         frames in datagrams; remote=230.0.0.1:1234: multicast
    tap,ifname=tap0                                        an interface of the host's
    none                                                   nobody; sink: the same, counted
    …,pcap=FILE                                            and all that passes is written to a file

`,,` is a comma in a value.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbt.machine.block.options import REQUIRED, SIZE, Option, convert
from dbt.machine.net.address import parse_address
from dbt.machine.net.backend import NetBackend, Sink
from dbt.machine.net.errors import NetError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    Lock = AbstractContextManager[object]

COMMON = (
    Option("pcap", str, None, help="write all frames to this file"),
    Option("pcap-limit", SIZE, None, help="the file's largest size"),
    Option("pcap-snaplen", SIZE, 262_144, help="at most so many bytes of a frame"),
    Option("pcap-time", ("ns", "us"), "ns", help="the unit of its times"),
)
KINDS: dict[str, tuple[Option, ...]] = {
    "none": (),
    "sink": (),
    "user": (
        Option("net", str, "10.0.2.0/24", help="the guest's network"),
        Option("host", str, None, help="the gateway's address (default .2)"),
        Option("dns", str, None, help="the name server's address (default .3)"),
        Option("dhcpstart", str, None, help="the first address that DHCP gives (default .15)"),
        Option("restrict", bool, False, help="the guest reaches nothing but forwards reach it"),
        Option("loopback", bool, False, help="the gateway's address is the host's 127.0.0.1"),
        Option("resolver", str, None, help="the name server of the host (default: resolv.conf's)"),
        Option("ipv6", bool, True, help="IPv6 as well"),
        Option("ipv6net", str, "fec0::/64", help="the guest's IPv6 prefix"),
        Option("hostfwd", str, (), help="tcp|udp:[HOST]:PORT-[GUEST]:PORT, may be repeated"),
    ),
    "socket": (
        Option("listen", str, None, help="wait for a peer at HOST:PORT or unix:PATH"),
        Option("connect", str, None, help="connect to a peer"),
        Option("reconnect", int, None, help="try again after so many seconds"),
    ),
    "dgram": (
        Option("local", str, None, help="where datagrams come to: HOST:PORT or unix:PATH"),
        Option("remote", str, help="where they go"),
    ),
    "tap": (Option("ifname", str, "tap%d", help="the interface"),),
}
REPEATED = {"hostfwd"}


@dataclass(frozen=True, slots=True)
class NetSpec:
    """A back end's kind and the values of all its options."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


def parse_net(text: str) -> NetSpec:
    """What `text` means; NetError says what is wrong with it."""
    kind, *pairs = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    if kind not in KINDS:
        raise NetError(text, f"there is no network {kind!r}", f"networks: {', '.join(KINDS)}")
    declared = {option.name: option for option in (*KINDS[kind], *COMMON)}
    values = {name: option.default for name, option in declared.items()}
    given: set[str] = set()
    for pair in pairs:
        name, equals, value = pair.partition("=")
        option = declared.get(name)
        if option is None or not equals:
            what = f"there is no option {name!r}" if equals else f"{pair!r} is no name=value"
            raise NetError(text, what, f"options of {kind}: {', '.join(declared)}")
        if name in given and name not in REPEATED:
            raise NetError(text, f"{name!r} is given twice")
        given.add(name)
        try:
            meant = convert(option.kind, value)
        except ValueError as wrong:
            raise NetError(text, f"option {name!r}: {wrong}") from None
        values[name] = (*values[name], meant) if name in REPEATED else meant
    for name, option in declared.items():
        if values[name] is REQUIRED:
            raise NetError(text, f"option {name!r} must be given ({option.help})")
    return NetSpec(kind, values)


def open_net(spec: str | NetSpec, lock: Lock) -> NetBackend:
    """The back end. `lock` is the machine's; not under it. NetError if the host refuses."""
    spec = parse_net(spec) if isinstance(spec, str) else spec
    options = {name: value for name, value in spec.options.items() if not name.startswith("pcap")}
    net = _open(spec.kind, options, lock)
    if not spec.options.get("pcap"):
        return net
    from dbt.machine.net.pcap import PcapNet

    try:
        return PcapNet(
            net, spec.options["pcap"], nanoseconds=spec.options["pcap-time"] == "ns",
            snaplen=spec.options["pcap-snaplen"], limit=spec.options["pcap-limit"],
        )  # fmt: skip
    except NetError:
        net.close()
        raise


def _open(kind: str, options: dict[str, Any], lock: Lock) -> NetBackend:
    match kind:
        case "user":
            from dbt.machine.net.user.net import UserNet
            from dbt.machine.net.user.options import make_options

            return UserNet(lock, make_options(**options))
        case "socket":
            from dbt.machine.net.stream import StreamNet

            listen, connect = options["listen"], options["connect"]
            if (listen is None) == (connect is None):
                raise NetError("socket", "either listen= or connect= must be given")
            address = parse_address(listen or connect, socket.SOCK_STREAM)
            return StreamNet(lock, address, listen=connect is None, reconnect=options["reconnect"])
        case "dgram":
            from dbt.machine.net.datagram import DatagramNet

            local = parse_address(options["local"], socket.SOCK_DGRAM) if options["local"] else None
            return DatagramNet(lock, local, parse_address(options["remote"], socket.SOCK_DGRAM))
        case "tap":
            from dbt.machine.net.tap import TapNet

            return TapNet(lock, options["ifname"])
        case "sink":
            return Sink()
    return NetBackend()
