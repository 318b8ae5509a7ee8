"""The page about what is supported and what is not: docs/support.md, printed by `dragoman features --markdown`.

Names and numbers come from the tables that do the work; what is written here by hand is what tables cannot say.
tests/cli/test_support.py compares the page with the file.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from dbt.features import collect
from dbt.frontends.guest import load_guest
from dbt.linux import passthrough
from dbt.linux.table import CALLS
from dbt.linux.unserved import UNSERVED
from dbt.machine import devices
from dbt.machine.block.registry import names
from dbt.machine.boards import BOARDS
from dbt.machine.boards import load as load_board
from dbt.machine.net.spec import KINDS
from dbt.run import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterable

INTRODUCTION = """\
# What is supported

`dragoman features --markdown` prints this page, from the tables that the code itself works by; a test compares them.

Where something is missing, Dragoman says so on standard error and by name, once for each, and the guest gets what a
kernel or a processor without it would give: ENOSYS, EINVAL, SIGILL.

## Hosts

x86-64 Linux with Python 3.11 or later; developed and tested on Debian 12. Floating point on the native engines needs a
CPU with AVX, FMA and F16C. No other host has a native engine.
"""
GUEST = """\
A64 at EL0, little-endian: the base instruction set, and of the optional parts those of the first table. The guest's
HWCAP says exactly that.
"""
NO_INSTRUCTIONS = {
    "AArch32, big-endian data, EL1 and above": "not there; there is no emulation of a whole processor",
    "SVE, SVE2, SME": "SIGILL",
    "pointer authentication and BTI in the hint space": "no operation, as on CPUs without them; other forms are SIGILL",
    "MTE, bfloat16, RNG, MOPS, SM3, SM4, DC CVAP": "SIGILL",
}
ENGINE = {
    "baseline": "stencils, compiled once and kept, copied and patched: the default",
    "optimizer": "baseline, and hot code as regions that LLVM compiles in each run",
    "interpreter": "native handlers over decoded steps; exact, and without executable memory of its own",
    "reference": "plain Python, the definition of all others; needs no compiler",
}
PROGRAMS = """\
ELF files of 64 bits for AArch64: static ones at fixed and at any addresses, and with `-L ROOT` dynamic ones with their
interpreter. Scripts with `#!` are for the guest's `execve`; a host program that a guest executes just runs.

One thread in each process: `clone` of a thread is ENOSYS, vfork is a fork whose parent waits. Of `ioctl`, `fcntl`,
`prctl`, `futex` and socket options those are served whose structs are known; others answer ENOTTY, EINVAL, ENOSYS or
ENOPROTOOPT.
"""
MACHINES = """\
No CPU runs on boards yet: devices are driven from Python. What each lacks is in [devices.md](devices.md).
"""
FORMAT = {
    "qcow2": "versions 2 and 3; not encryption; bitmaps are not kept up to date, which refuses writing",
    "qed": "all of it",
    "raw": "all of it",
    "vdi": "dynamic and static; not differencing",
    "vhdx": "fixed, dynamic and differencing, with the log",
    "vmdk": "monolithicSparse and streamOptimized; not several files, not a parent",
    "vpc": "fixed and dynamic; not differencing",
}
PROTOCOL = {
    "fault": "for tests: errors on demand",
    "file": "a file of the host, with qemu's locks",
    "gluster": "a file on a GlusterFS volume; needs libgfapi0",
    "host-device": "a block device of the host",
    "memory": "nothing is kept",
    "nbd": "an export of an NBD server: TCP, Unix sockets, TLS",
    "rbd": "an image in a Ceph cluster; needs librbd1",
    "record": "for tests: what a crash may leave",
}
NETWORK = {
    "none": "nobody is there",
    "sink": "the same, counted",
    "user": "a router in the process: DHCP, DNS, TCP, UDP, IPv6 by router advertisement, forwards",
    "socket": "a peer at a stream socket",
    "dgram": "a peer at a datagram socket, or a multicast group",
    "tap": "an interface of the host",
}
LAST = """\
## Not there

Guests other than AArch64; threads; processors on boards; a display, sound, USB; migration between hosts; other hosts.
"""


def table(head: tuple[str, str], rows: dict[str, str]) -> str:
    """A table of two columns."""
    lines = [f"| {' | '.join(head)} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {about} |" for name, about in rows.items())]) + "\n"


def words(calls: Iterable[str]) -> str:
    """Names in lines."""
    return fill(", ".join(sorted(calls)), 118, break_on_hyphens=False) + "\n"


def code(rows: dict[str, str]) -> dict[str, str]:
    """The same with names as code."""
    return {f"`{name}`": about for name, about in rows.items()}


def page() -> str:
    """The whole page, in Markdown."""
    parts = [INTRODUCTION, "## Guests\n"]
    facts = collect()
    for guest in facts["guests"]:
        aliases = ", ".join(guest["aliases"])
        parts += [f"### {guest['name']} ({aliases})\n", GUEST]
        parts.append(f"{guest['instructions']} instructions in {guest['forms']:,} forms.\n")
        known = {feature["name"]: feature["description"] for feature in guest["features"]}
        parts.append(table(("optional part", "what it is"), known))
        missing = [f.name for f in load_guest(guest["name"]).all_features if f.name not in known]
        parts.append(table(("not there", "then"), {", ".join(missing): "SIGILL", **NO_INSTRUCTIONS}))
    parts += ["## Engines\n", table(("`--engine`", "what it is"), code({name: ENGINE[name] for name in ENGINES}))]
    parts += ["## Programs\n", PROGRAMS]
    served = {name for name, _ in CALLS.values()} | {row[1] for row in passthrough.ROWS}
    parts += [f"## System calls\n\nServed, {len(served)}:\n", words(served)]
    parts += [f"Not served, {sum(map(len, UNSERVED.values()))} of Linux 6.1: ENOSYS.\n"]
    parts.append(table(("what they are for", "calls"), {why: ", ".join(UNSERVED[why].values()) for why in UNSERVED}))
    parts += ["## Machines\n", MACHINES]
    parts.append(table(("board", "what it has"), code({name: load_board(name).ABOUT for name in BOARDS})))
    about = {name: (devices.load(name).__doc__ or "").partition("\n")[0] for name in devices.DEVICES}
    parts.append(table(("device", "what it is"), code(dict(sorted(about.items())))))
    parts.append("Images into memory: raw, ELF, Linux's arm64 Image, x86's bzImage.\n")
    parts += ["## Disks\n", "How each is used, grows and is repaired: [storage.md](storage.md).\n"]
    parts.append(table(("format", "what of it"), code({name: FORMAT[name] for name in names("formats")})))
    parts.append(table(("protocol", "what it is"), code({name: PROTOCOL[name] for name in names("protocols")})))
    parts += ["## Networks\n", table(("network", "what it is"), code({name: NETWORK[name] for name in KINDS}))]
    parts.append("Options: [network.md](network.md).\n")
    return "\n".join([*parts, LAST])
