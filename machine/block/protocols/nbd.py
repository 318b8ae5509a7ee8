"""NBD as client: a disk that a server exports. `nbd://host:port/export`, `nbds://` (TLS), `nbd+unix:///export?socket=…`.

When the connection is lost, it is made anew for `reconnect-delay` seconds, and whoever waits goes on waiting. Writes
that the server has acknowledged may be in its memory only, until a flush: so they are kept here, in the order in which
they were made, until a flush that was sent after their acknowledgement is acknowledged itself. Behind a new connection
all that are kept are sent again, before anything else is; what was not answered is sent again after them. When
`replay-limit` bytes are kept a flush of our own empties the list. So

- a write that was acknowledged is there after a server has crashed and come back;
- if it does not come back, or with another size or other abilities, every request fails from then on, flushes first of
  all: what was not flushed is never taken for safe.

What this cannot do: a server that has no flush tells nothing of what is safe, so its acknowledgements are taken for
it; and a request that the old server still carries out after we have gone on with a new one is its fault and our loss.
Two clients that write to the same export at the same time must not rely on this, for the same reason.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, fill, scatter
from dbt.machine.block.errors import BadOption, BlockError, HostError, ImageUnsupported
from dbt.machine.block.nbd import wire
from dbt.machine.block.nbd.connection import Call, Connection, ProtocolError, negotiate
from dbt.machine.block.nbd.stream import Stream
from dbt.machine.block.node import Extent, Protocol
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.request import FUA, MAY_UNMAP, NO_FALLBACK

if TYPE_CHECKING:
    import ssl

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
        self._context = self._tls() if options["tls"] else None
        self._ranges = Ranges()
        self._changed = threading.Condition()
        self._kept: dict[Call, bool] = {}  # in the order in which they were made; whether they are acknowledged
        self._kept_bytes = 0
        self._connecting = False
        self._failed: BlockError | None = None
        try:
            self._connection: Connection | None = self._connect()
        except OSError as error:
            raise self._trouble(error, "cannot be connected to") from None
        facts = self.facts = self._connection.facts
        if self.writable and facts.flags & wire.FLAG_READ_ONLY:
            self._connection.close()
            raise HostError(self.name, OSError(errno.EROFS, ""), doing="the export cannot be written")
        self.size = facts.size
        self.alignment = facts.minimum
        self.handles_fua = bool(facts.flags & wire.FLAG_SEND_FUA)
        self._keeps = bool(
            self.writable and options["reconnect-delay"] > 0 and facts.flags & wire.FLAG_SEND_FLUSH
        )  # fmt: skip
        self.identity = ("nbd", options["host"], options["port"], options["path"], options["export"])

    # Connecting.

    def _tls(self) -> ssl.SSLContext:
        import ssl

        folder = self.options["tls-certificates"]
        try:
            context = ssl.create_default_context(cafile=os.path.join(folder, "ca-cert.pem") if folder else None)
            certificate = os.path.join(folder, "client-cert.pem")
            if folder and os.path.exists(certificate):
                context.load_cert_chain(certificate, os.path.join(folder, "client-key.pem"))
        except OSError as error:
            raise HostError(self.name, error, doing=f"TLS with the certificates in {folder or 'the system'}") from None
        if self.options["path"] and not self.options["tls-hostname"]:
            context.check_hostname = False  # a socket's path is no name; the authority still has to be right
        return context

    def _connect(self) -> Connection:
        options = self.options
        if options["path"]:
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.settimeout(HANDSHAKE_SECONDS)
                connected.connect(options["path"])
            except BaseException:
                connected.close()
                raise
        else:
            connected = socket.create_connection((options["host"], options["port"]), timeout=HANDSHAKE_SECONDS)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4)):
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        try:
            name = options["tls-hostname"] or options["host"]
            stream, facts = negotiate(Stream(connected), options["export"], self._context, name)
            connected.settimeout(None)
        except BaseException:
            connected.close()
            raise
        return Connection(stream, facts)

    def _trouble(self, error: OSError, doing: str) -> BlockError:
        if isinstance(error, ProtocolError) or not error.errno or error.errno < 0:
            return HostError(self.name, OSError(f"{doing}: {error}"))
        if type(error).__module__ == "ssl" or isinstance(error, socket.gaierror):
            return HostError(self.name, OSError(f"{doing}: {error.strerror or error}"))
        return HostError(self.name, error, doing=doing)

    def _current(self) -> Connection:
        """The connection, once there is one."""
        with self._changed:
            while self._connection is None and self._failed is None:
                self._changed.wait()
            if self._connection is None:
                assert self._failed is not None
                raise self._failed
            return self._connection

    def _lost(self, connection: Connection, error: OSError) -> None:
        """The connection has failed somebody: the first who comes here makes another, or ends all."""
        with self._changed:
            if self._connection is not connection:
                return  # somebody else is at it
            self._connection = None
        connection.close()
        found: Connection | None = None
        failure: BlockError | None = None
        try:
            found = self._again(error)
        except BlockError as lost:
            failure = lost
        except BaseException:
            failure = self._trouble(error, "connection lost")
            raise
        finally:
            with self._changed:
                self._connection, self._failed = found, failure
                self._changed.notify_all()

    def _again(self, error: OSError) -> Connection:
        """A new connection, on which everything that is kept was sent again."""
        end = time.monotonic() + self.options["reconnect-delay"]
        pause = FIRST_PAUSE
        last = error
        while time.monotonic() < end:
            connection = None
            try:
                connection = self._connect()
                facts = connection.facts
                if facts != self.facts:
                    what = f"it came back as another: {facts} in place of {self.facts}"
                    raise HostError(self.name, OSError(f"connection lost ({error}); {what}; {self._at_stake()}"))
                with self._changed:
                    kept = list(self._kept)
                for call in kept:
                    again = Call(call.command, call.offset, call.length, flags=call.flags, data=call.data)
                    connection.perform(again)
                    if again.error:
                        said = again.message or f"error {again.error}"
                        raise HostError(self.name, OSError(f"a write sent again after a reconnect failed: {said}"))
            except OSError as trouble:
                last = trouble
                if connection is not None:
                    connection.close()
            except BlockError:
                if connection is not None:
                    connection.close()
                raise
            else:
                return connection
            time.sleep(min(pause, max(end - time.monotonic(), 0)))
            pause = min(2 * pause, LONGEST_PAUSE)
        text = (
            f"connection lost ({error}), not back in {self.options['reconnect-delay']} s ({last}); {self._at_stake()}"
        )
        raise HostError(self.name, OSError(text))

    def _at_stake(self) -> str:
        with self._changed:
            count = sum(self._kept.values())
        return f"{count} acknowledged writes since the last flush may be lost" if count else "no write is lost"

    # Requests.

    def _perform(self, call: Call) -> None:
        """Have a request done, over as many connections as it takes."""
        for _ in range(ATTEMPTS):
            connection = self._current()
            try:
                connection.perform(call)
                break
            except OSError as error:
                self._lost(connection, error)
        else:  # a request that kills the server is not to kill it for ever
            text = f"the connection was lost {ATTEMPTS} times with the same request"
            raise HostError(self.name, OSError(text), offset=call.offset)
        if call.error:
            number = wire.HOST_ERRORS.get(call.error, errno.EIO)
            reason = OSError(number, "")
            what = f"the server says {call.message!r}" if call.message else "the server says"
            raise HostError(self.name, reason, doing=what, offset=call.offset)

    def _change(self, call: Call) -> None:
        """The same for what changes the content: kept until it is flushed."""
        if not self._keeps:
            self._perform(call)
            return
        count = max(call.length if call.data else 0, KEPT_AT_LEAST)
        if self._kept_bytes + count > self.options["replay-limit"]:
            self.flush()
        call.data = [memoryview(b"".join(call.data))] if call.data else ()  # the caller's memory is the caller's again
        with self._changed:
            self._kept[call] = False
            self._kept_bytes += count
        try:
            self._perform(call)
        except BaseException:
            with self._changed:
                self._forget(call)
            raise
        with self._changed:
            if call in self._kept:
                self._kept[call] = True

    def _forget(self, call: Call) -> None:
        if self._kept.pop(call, None) is not None:
            self._kept_bytes -= max(call.length if call.data else 0, KEPT_AT_LEAST)

    def flush(self) -> None:
        if not self.facts.flags & wire.FLAG_SEND_FLUSH:
            return
        with self._changed:
            covered = [call for call, acknowledged in self._kept.items() if acknowledged]
        self._perform(Call(wire.CMD_FLUSH))
        with self._changed:
            for call in covered:
                self._forget(call)

    # Data.

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
            self._perform(Call(wire.CMD_READ, offset + done, count, vectors=part))
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
            self._change(Call(wire.CMD_WRITE, offset + done, count, flags=fua, data=part))
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
            self._perform(Call(wire.CMD_TRIM, at, min(LONGEST, end - at)))

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
            self._change(Call(wire.CMD_WRITE_ZEROES, at, min(LONGEST, offset + length - at), flags=how))

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
        self._perform(call)
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
            with self._changed:
                connection, self._connection = self._connection, None
                self._failed = self._failed or HostError(self.name, OSError("is closed"))
            if connection is not None:
                with suppress(OSError):
                    connection.close()

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
