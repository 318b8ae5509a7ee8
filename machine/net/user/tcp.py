"""TCP between guests and the host: an endpoint for the guest, a socket of the host, and what goes between them."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.loop import IN, OUT
from dbt.machine.net.offload import checksum, ones_sum
from dbt.machine.net.user.endpoint import Endpoint
from dbt.machine.net.user.packets import HOST, NET, TCP, UNREACHABLE, Malformed, Packet
from dbt.machine.net.user.segments import ACK, BUFFER, FIN, MASK, RST, SEGMENT, SYN, State

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

CONNECTIONS = 512
IDLE = 7440 * SECOND  # RFC 5382, REQ-5: at least 2 hours and 4 minutes
TIME_WAIT = 10 * SECOND
READ = 65536
CODES = {errno.ENETUNREACH: NET, errno.EHOSTUNREACH: HOST, errno.ETIMEDOUT: HOST}
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

Key = tuple[bytes, int, bytes, int]


class Connection(Endpoint):
    """A guest's connection and the host's socket for it."""

    def __init__(self, nat: TcpNat, key: Key, sock: socket.socket, asked: Packet | None) -> None:
        super().__init__(nat.net, key[:2], key[2:])
        self.nat = nat
        self.key = key
        self.sock: socket.socket | None = sock
        self._asked = asked  # the guest's SYN, until the host has answered
        self._to_host = bytearray()
        self._host_ended = False
        self._shut = False
        self._over = False  # but for what the host has not taken yet
        self._watched = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the guest has done its own waiting
        self._watch()

    def pending(self) -> int:
        return len(self._to_host)

    # The host's socket

    def _watch(self) -> None:
        """Wait for what can be used, and for nothing else: a socket that hangs up would wake us for ever."""
        if self.sock is None:
            return
        wanted = OUT if self.state is State.WAITING or self._to_host else 0
        if self.state is State.OPEN and not self._host_ended and len(self.sending) < BUFFER:
            wanted |= IN
        if wanted != self._watched:
            loop, fd = self.net.loop, self.sock.fileno()
            if not wanted:
                loop.forget(fd)
            elif self._watched:
                loop.change(fd, wanted)
            else:
                loop.watch(fd, wanted, self._event)
            self._watched = wanted

    def _event(self, events: int) -> None:
        if self.sock is None:
            return
        if self.state is State.WAITING:
            self._connected()
        else:
            if events & OUT or self._to_host:
                self._flush()
            if events & ~OUT and self.state is State.OPEN and not self._host_ended and len(self.sending) < BUFFER:
                self._read()
        self._watch()

    def _connected(self) -> None:
        assert self.sock is not None
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.failed(error)
        else:
            self._asked = None
            self.start(State.SYN_RECEIVED)

    def failed(self, error: int) -> None:
        """The host could not connect: tell the guest."""
        if error in CODES and self._asked is not None:
            self.net.icmp.error(self._asked, UNREACHABLE, CODES[error])
            self.finish(reset=True)
        else:
            self.refuse()

    def _read(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(min(BUFFER - len(self.sending), READ))
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if data:
            self.sending += data
        else:
            self._host_ended = self.ending = True
            self._release()
        self.output()

    def _flush(self) -> None:
        assert self.sock is not None
        if self._to_host:
            try:
                done = self.sock.send(self._to_host)
            except BlockingIOError:
                return
            except OSError:
                self.abort()
                return
            del self._to_host[:done]
            self.window_grew()
        if self.got_fin and not self._to_host and not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):  # it has gone already
                self.sock.shutdown(socket.SHUT_WR)
            self._release()
            if self._over:
                self.over(wait=True)

    def _release(self) -> None:
        """The socket is not needed when both sides have ended."""
        if self._host_ended and self._shut and self.sock is not None:
            self.net.loop.forget(self.sock.fileno())
            self.sock.close()
            self.sock = None

    # The guest's side

    def on_open(self) -> None:
        self._watch()

    def on_data(self, data: bytes | memoryview) -> None:
        if self._shut or self.sock is None:
            return
        if not self._to_host:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                self.abort()
                return
        if data:
            self._to_host += data
            self._watch()

    def on_end(self) -> None:
        self._flush()
        self._watch()

    def on_room(self) -> None:
        self._watch()

    def over(self, *, wait: bool) -> None:
        self._over = True
        if self._to_host:
            return
        if wait:
            self.wait(TIME_WAIT)
        else:
            self.finish(reset=False)

    def on_close(self, *, reset: bool) -> None:
        if self.nat.connections.get(self.key) is self:
            del self.nat.connections[self.key]
        if self.sock is not None:
            self.net.loop.forget(self.sock.fileno())
            if reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self.sock.close()
            self.sock = None


class TcpNat:
    """The connections, by (guest's address, port, remote address, port)."""

    def __init__(self, net: UserNet) -> None:
        self.net = net
        self.connections: dict[Key, Connection] = {}

    def receive(self, packet: Packet) -> None:
        """A segment of a guest's."""
        payload = packet.payload
        if len(payload) < 20:
            raise Malformed("a short TCP header")
        source, target, sequence, ack, words, flags, window, _, _ = SEGMENT.unpack_from(payload)
        length = (words >> 4) * 4
        if not 20 <= length <= len(payload):
            raise Malformed("a TCP header that contradicts the packet")
        if not packet.checked:
            start = ones_sum(packet.source + packet.target) + TCP + len(payload)
            if ones_sum(payload, start) != 0xFFFF:
                raise Malformed("a wrong TCP checksum")
        key = (packet.source, source, packet.target, target)
        connection = self.connections.get(key)
        if connection is not None and connection.state is State.TIME_WAIT and flags & (SYN | ACK | RST) == SYN:
            connection.finish(reset=False)
            connection = None
        if connection is not None:
            connection.receive(sequence, ack, flags, window, payload[20:length], payload[length:])
        elif flags & (SYN | ACK | RST) == SYN:
            self._open(key, packet, (sequence, window, payload[20:length]))
        elif not flags & RST:
            self._reset(packet, (source, target), sequence, ack, flags, len(payload) - length)

    def _reset(self, packet: Packet, ports: tuple[int, int], sequence: int, ack: int, flags: int, length: int) -> None:
        """Nobody is there (RFC 9293, 3.10.7.1)."""
        source, target = ports
        if flags & ACK:
            words = (target, source, ack, 0, 0x50, RST, 0)
        else:
            end = sequence + length + bool(flags & SYN) + bool(flags & FIN) & MASK
            words = (target, source, 0, end, 0x50, RST | ACK, 0)
        start = ones_sum(packet.source + packet.target) + TCP + 20
        segment = SEGMENT.pack(*words, checksum(SEGMENT.pack(*words, 0, 0), start), 0)
        self.net.give_ip(packet.target, packet.source, TCP, segment)

    def _room(self) -> bool:
        """Whether one more fits, perhaps in the place of one that only waits for its end."""
        if len(self.connections) >= CONNECTIONS:
            for connection in self.connections.values():
                if connection.state is State.TIME_WAIT:
                    connection.finish(reset=False)
                    return True
            self.net.count("TCP: too many connections")
            return False
        return True

    def _open(self, key: Key, packet: Packet, said: tuple[int, int, memoryview]) -> None:
        host = None if self.net.options.restrict else self.net.hosts.of_guest(packet.target, key[3])
        sock = None
        if host is not None and self._room():
            try:
                family = socket.AF_INET6 if ":" in host[0] else socket.AF_INET
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                self.net.count(f"TCP: {error.strerror}")
        if sock is None or host is None:
            self._reset(packet, (key[1], key[3]), said[0], 0, SYN, 0)
            return
        status = sock.connect_ex(host)
        kept = packet._replace(payload=memoryview(bytes(packet.payload[:40])))
        connection = self.connections[key] = Connection(self, key, sock, kept)
        connection.learn(*said)
        if status not in {0, errno.EINPROGRESS}:
            connection.failed(status)

    def accept(self, sock: socket.socket, remote: tuple[bytes, int], guest: tuple[bytes, int]) -> None:
        """Somebody has connected to a forwarded port."""
        key = (*guest, *remote)
        while key in self.connections:  # two hosts that the guest cannot tell apart
            key = (*guest, remote[0], key[3] % 65535 + 1)
        if not self._room():
            sock.close()
            return
        connection = self.connections[key] = Connection(self, key, sock, None)
        connection.start(State.SYN_SENT)

    def sweep(self, now: int) -> None:
        """Reset what nobody has used for hours."""
        for connection in list(self.connections.values()):
            if now - connection.last > IDLE:
                connection.abort()
