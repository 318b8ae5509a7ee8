"""The client's link to a server: a connection that is made anew when it is lost.

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

from dbt.machine.block.errors import BlockError, HostError
from dbt.machine.block.nbd import wire
from dbt.machine.block.nbd.connection import Call, Connection, ProtocolError, negotiate
from dbt.machine.block.nbd.stream import Stream

if TYPE_CHECKING:
    import ssl

HANDSHAKE_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # between two attempts to connect again
ATTEMPTS = 8  # to have one request answered
KEPT_AT_LEAST = 512  # what a kept write counts, also without data


class Link:
    """To the export that `options` (of the protocol nbd) name. `facts` is what the server said of it."""

    def __init__(self, name: str, options: dict[str, Any], *, writable: bool) -> None:
        self.name = name
        self.options = options
        self._context = self._tls() if options["tls"] else None
        self._changed = threading.Condition()
        self.kept: dict[Call, bool] = {}  # in the order in which they were made; whether they are acknowledged
        self.kept_bytes = 0
        self._failed: BlockError | None = None
        try:
            self._connection: Connection | None = self._connect()
        except OSError as error:
            raise self._trouble(error, "cannot be connected to") from None
        facts = self.facts = self._connection.facts
        if writable and facts.flags & wire.FLAG_READ_ONLY:
            self._connection.close()
            raise HostError(self.name, OSError(errno.EROFS, ""), doing="the export cannot be written")
        self._keeps = bool(writable and options["reconnect-delay"] > 0 and facts.flags & wire.FLAG_SEND_FLUSH)

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
                    kept = list(self.kept)
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
            count = sum(self.kept.values())
        return f"{count} acknowledged writes since the last flush may be lost" if count else "no write is lost"

    # Requests.

    def perform(self, call: Call) -> None:
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

    def change(self, call: Call) -> None:
        """The same for what changes the content: kept until it is flushed."""
        if not self._keeps:
            self.perform(call)
            return
        count = max(call.length if call.data else 0, KEPT_AT_LEAST)
        if self.kept_bytes + count > self.options["replay-limit"]:
            self.flush()
        call.data = [memoryview(b"".join(call.data))] if call.data else ()  # the caller's memory is the caller's again
        with self._changed:
            self.kept[call] = False
            self.kept_bytes += count
        try:
            self.perform(call)
        except BaseException:
            with self._changed:
                self._forget(call)
            raise
        with self._changed:
            if call in self.kept:
                self.kept[call] = True

    def _forget(self, call: Call) -> None:
        if self.kept.pop(call, None) is not None:
            self.kept_bytes -= max(call.length if call.data else 0, KEPT_AT_LEAST)

    def flush(self) -> None:
        """Have the server flush; what that covers need not be kept."""
        if not self.facts.flags & wire.FLAG_SEND_FLUSH:
            return
        with self._changed:
            covered = [call for call, acknowledged in self.kept.items() if acknowledged]
        self.perform(Call(wire.CMD_FLUSH))
        with self._changed:
            for call in covered:
                self._forget(call)

    def close(self) -> None:
        """Say goodbye; requests fail from then on."""
        with self._changed:
            connection, self._connection = self._connection, None
            self._failed = self._failed or HostError(self.name, OSError("is closed"))
        if connection is not None:
            with suppress(OSError):
                connection.close()
