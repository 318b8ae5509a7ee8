"""The server: one disk, exported to several clients at once by a Unix socket or TCP, with TLS if wanted.

All clients share one `Disk`, so a flush by one covers what all have written, and CAN_MULTI_CONN is true. There are at
most `clients` at a time; further ones wait in the kernel's queue. A client has HANDSHAKE_SECONDS to come to requests.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from dbt.machine.block.errors import HostError
from dbt.machine.block.nbd.handshake import Handshake, Offer, Rejected
from dbt.machine.block.nbd.session import Session
from dbt.machine.block.nbd.stream import Stream
from dbt.machine.block.nbd.wire import (
    FLAG_CAN_MULTI_CONN,
    FLAG_HAS_FLAGS,
    FLAG_READ_ONLY,
    FLAG_SEND_DF,
    FLAG_SEND_FAST_ZERO,
    FLAG_SEND_FLUSH,
    FLAG_SEND_FUA,
    FLAG_SEND_TRIM,
    FLAG_SEND_WRITE_ZEROES,
)

from dbt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.block.disk import Disk

HANDSHAKE_SECONDS = 20.0
CLIENTS = 16
PAUSE_SECONDS = 0.5  # when the host has no descriptors for one more
PORT = 10809
FLAGS = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_SEND_DF | FLAG_CAN_MULTI_CONN
WRITING = FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO


class Server:
    """`listener` is bound and listens. `log` is told of clients that come, go and misbehave."""

    def __init__(
        self, disk: Disk, listener: socket.socket, *, name: str = "", description: str = "",
        tls: ssl.SSLContext | None = None, clients: int = CLIENTS, once: bool = False,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.listener = listener
        self.name = name
        self.description = description
        self.tls = tls
        self.once = once
        self.log = log
        self._room = threading.Semaphore(clients)
        self._lock = threading.Lock()
        self._streams: dict[Stream, threading.Thread] = {}
        self._stopping = threading.Event()

    def offer(self) -> Offer:
        """What a client that comes now is offered."""
        flags = FLAGS | (WRITING if self.disk.node.writable else FLAG_READ_ONLY)
        return Offer(self.name, self.description, self.disk.size, flags, 65536)

    def serve(self) -> None:
        """Accept clients until `stop`, or with `once` until the last has gone."""
        try:
            while True:
                while not self._room.acquire(timeout=0.2):
                    if self._stopping.is_set():
                        return
                try:
                    connection, address = self.listener.accept()
                except OSError as error:
                    if self._stopping.is_set() or error.errno in {errno.EBADF, errno.EINVAL}:
                        return  # `stop` has shut the listener
                    self.log(f"a client cannot be taken yet: {error.strerror}")  # the host is short of something
                    self._room.release()
                    self._stopping.wait(PAUSE_SECONDS)
                    continue
                if self._stopping.is_set():
                    connection.close()
                    return
                self._begin(connection, str(address or "a client"))
        finally:
            self._end()

    def _begin(self, connection: socket.socket, who: str) -> None:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream = Stream(connection)
        thread = threading.Thread(target=self._client, args=(stream, who), name="nbd-client", daemon=True)
        with self._lock:
            self._streams[stream] = thread
        thread.start()

    def _client(self, stream: Stream, who: str) -> None:
        timer = threading.Timer(HANDSHAKE_SECONDS, stream.shut)
        timer.daemon = True
        timer.start()
        served = False
        try:
            try:
                agreed = Handshake(stream, self.offer(), self.tls).run()
            finally:
                timer.cancel()
            self.log(f"{who} is served")
            served = True
            Session(self.disk, agreed).run()
            self.log(f"{who} has left")
        except (OSError, ssl.SSLError, Rejected) as error:
            self.log(f"{who}: no session: {error}")
        finally:
            stream.close()
            with self._lock:
                del self._streams[stream]
                last = not self._streams
            self._room.release()
            if self.once and served and last:
                self.stop()

    def stop(self) -> None:
        """End: no more clients, and those that are there are cut off. From any thread, and from signal handlers."""
        self._stopping.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.listener.close()

    def _end(self) -> None:
        with self._lock:
            clients = dict(self._streams)
        for stream in clients:
            stream.shut()
        for thread in clients.values():
            if thread is not threading.current_thread():
                thread.join()
        self.listener.close()


def listen_unix(path: str) -> socket.socket:
    """A listening Unix socket; one that nobody listens on any more is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        try:
            listener.bind(path)
        except OSError:
            if not _abandoned(path):
                raise
            os.unlink(path)
            listener.bind(path)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise HostError(path, error, doing="listen") from None
    return listener


def _abandoned(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0: any that is free."""
    if not 0 <= port < 1 << 16:  # getaddrinfo would take what is left of it
        raise UsageError(f"{port} is no port", "Ports are 1 to 65535; 0: any that is free.")
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(64)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise HostError(f"{host}:{port}", error, doing="listen") from None
    return listener


def server_context(certificate: str, key: str | None, authority: str | None) -> ssl.SSLContext:
    """TLS for a server: its certificate, and whose certificates clients must have, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if authority:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # SSLError is one
        raise HostError(certificate, error, doing="TLS") from None
    return context
