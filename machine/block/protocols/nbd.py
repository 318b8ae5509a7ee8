"""NBD as client: a disk that a server exports. `nbd://host:port/export`, `nbds://` (TLS), `nbd+unix:///export?socket=…`.

The connection, and what happens when it is lost, is a Link (nbd/link.py). Here is what a node does with it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, fill, scatter
from dbt.machine.block.errors import BadOption, HostError, ImageUnsupported
from dbt.machine.block.nbd import wire
from dbt.machine.block.nbd.connection import Call
from dbt.machine.block.nbd.link import Link
from dbt.machine.block.node import Extent, Protocol
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.request import FUA, MAY_UNMAP, NO_FALLBACK

if TYPE_CHECKING:
    from dbt.machine.block.graph import Opening
    from dbt.machine.block.request import Vectors

PORT = 10809
HANDSHAKE_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # between two attempts to connect again
ATTEMPTS = 8  # to have one request answered
LONGEST = 1 << 30  # of what has no data
KEPT_AT_LEAST = 512  # what a kept write counts, also without data


class Nbd(Protocol):
    """One export of a server."""

    driver = "nbd"
    remote = True
    SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")
    OPTIONS = (
        Option("host", str, "", help="the server's name or address"),
        Option("port", int, PORT, help="its TCP port"),
        Option("path", str, "", help="its Unix socket, in place of host and port"),
        Option("export", str, "", help="name of the export"),
        Option("tls", bool, False, help="talk TLS"),
        Option("tls-certificates", str, "", help="folder with ca-cert.pem, perhaps client-cert.pem and client-key.pem"),
        Option("tls-hostname", str, "", help="whom the server's certificate has to name, if not host"),
        Option("reconnect-delay", int, 30, help="seconds in which a lost server may come back; 0: do not wait"),
        Option("replay-limit", SIZE, 64 << 20, help="bytes of writes kept until they are flushed"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        options = self.options
        if bool(options["host"]) == bool(options["path"]):
            raise BadOption(self.name, "needs either host or path")
        if not 0 < options["port"] < 1 << 16:  # getaddrinfo would take what is left of it
            raise BadOption(self.name, f"{options['port']} is no port", hint="ports are 1 to 65535")
        self.link = Link(self.name, options, writable=self.writable)
        facts = self.facts = self.link.facts
        self.size = facts.size
        self.alignment = facts.minimum
        self.handles_fua = bool(facts.flags & wire.FLAG_SEND_FUA)
        self.identity = ("nbd", options["host"], options["port"], options["path"], options["export"])
        self._ranges = Ranges()

    # Data.

    def flush(self) -> None:
        self.link.flush()

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        inside = max(min(length, self.size - offset), 0)
        if inside < length:
            fill(vectors, inside, length - inside)
        mask = self.facts.minimum - 1
        if (offset | inside) & mask:
            start, end = offset & ~mask, offset + inside + mask & ~mask
            buffer = memoryview(bytearray(end - start))
            self._read(start, end - start, [buffer])
            scatter(buffer[offset - start : offset - start + inside], cut(vectors, 0, inside))
        elif inside:
            self._read(offset, inside, vectors if inside == length else cut(vectors, 0, inside))

    def _read(self, offset: int, length: int, vectors: Vectors) -> None:
        done = 0
        while done < length:
            count = min(length - done, self.facts.maximum)
            part = vectors if count == length else cut(vectors, done, count)
            self.link.perform(Call(wire.CMD_READ, offset + done, count, vectors=part))
            done += count

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self._inside(offset, length)
        mask = self.facts.minimum - 1
        if not (offset | length) & mask:
            self._write(offset, length, vectors, flags)
            return
        start, end = offset & ~mask, offset + length + mask & ~mask
        with self._ranges.alone(start, end):
            buffer = memoryview(bytearray(end - start))
            self._read(start, end - start, [buffer])
            scatter(b"".join(vectors), [buffer[offset - start : offset - start + length]])
            self._write(start, end - start, [buffer], flags)

    def _write(self, offset: int, length: int, vectors: Vectors, flags: int) -> None:
        fua = wire.CMD_FLAG_FUA if flags & FUA and self.handles_fua else 0
        done = 0
        while done < length:
            count = min(length - done, self.facts.maximum)
            part = vectors if count == length else cut(vectors, done, count)
            self.link.change(Call(wire.CMD_WRITE, offset + done, count, flags=fua, data=part))
            done += count

    def _inside(self, offset: int, length: int) -> None:
        if offset + length > self.size:
            raise HostError(self.name, OSError(errno.ENOSPC, ""), doing="write behind the export's end", offset=offset)

    def discard(self, offset: int, length: int) -> None:
        mask = self.facts.minimum - 1
        start, end = offset + mask & ~mask, min(offset + length, self.size) & ~mask
        if not self.facts.flags & wire.FLAG_SEND_TRIM:
            return
        for at in range(start, end, LONGEST):
            self.link.perform(Call(wire.CMD_TRIM, at, min(LONGEST, end - at)))

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self._inside(offset, length)
        able = self.facts.flags
        fast = bool(flags & NO_FALLBACK)
        if not able & wire.FLAG_SEND_WRITE_ZEROES or (offset | length) & (self.facts.minimum - 1):
            if fast:
                raise ImageUnsupported(self.name, "the server cannot zero this range", offset=offset)
            super().write_zeroes(offset, length, flags)
            return
        if fast and not able & wire.FLAG_SEND_FAST_ZERO:
            raise ImageUnsupported(self.name, "the server has no fast zeroes", offset=offset)
        how = 0 if flags & MAY_UNMAP else wire.CMD_FLAG_NO_HOLE
        how |= wire.CMD_FLAG_FAST_ZERO if fast else 0
        how |= wire.CMD_FLAG_FUA if flags & FUA and self.handles_fua else 0
        for at in range(offset, offset + length, LONGEST):
            self.link.change(Call(wire.CMD_WRITE_ZEROES, at, min(LONGEST, offset + length - at), flags=how))

    def status(self, offset: int, length: int) -> Extent:
        if offset >= self.size:
            return Extent(length, data=False, zero=True, offset=offset)
        length = min(length, self.size - offset)
        if not self.facts.allocation:
            return Extent(length, data=True, zero=False, offset=offset)
        mask = self.facts.minimum - 1
        start = offset & ~mask
        asked = min(offset + length - start + mask & ~mask, LONGEST)
        call = Call(wire.CMD_BLOCK_STATUS, start, asked)
        self.link.perform(call)
        count, state = 0, call.extents[0][1]
        for piece, other in call.extents:
            if other != state:
                break
            count += piece
        count -= offset - start
        if count <= 0:
            return Extent(min(length, mask + 1 - (offset - start)), data=True, zero=False, offset=offset)
        zero = bool(state & wire.STATE_ZERO)
        hole = bool(state & wire.STATE_HOLE)
        return Extent(min(count, length), data=not (hole and zero), zero=zero, offset=offset)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        if size != self.size:
            raise ImageUnsupported(self.name, "the size of an export is the server's to change")

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.link.close()

    # Names.

    @classmethod
    def parse_uri(cls, uri: str) -> dict[str, Any]:
        """The URIs of NBD (doc/uri.md)."""
        from urllib.parse import parse_qsl, unquote, urlsplit

        try:
            parts = urlsplit(uri)
            host, port = parts.hostname, parts.port
            query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError as wrong:
            raise BadOption(uri, f"is no URI: {wrong}", hint="nbd://host:port/export") from None
        options: dict[str, Any] = {"export": unquote(parts.path.removeprefix("/"))}
        if parts.scheme.startswith("nbds"):
            options["tls"] = True
        path = query.pop("socket", None)
        if parts.scheme.endswith("+unix"):
            if not path or host:
                raise BadOption(uri, "a Unix socket's path is missing", hint="nbd+unix:///export?socket=PATH")
            options["path"] = path
        elif path or not host:
            raise BadOption(uri, "which host?", hint="nbd://host:port/export, or nbd+unix:///export?socket=PATH")
        else:
            options |= {"host": host, "port": port or PORT}
        return options | query


DRIVER = Nbd
