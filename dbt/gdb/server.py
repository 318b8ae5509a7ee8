"""The stub's answers (gdb manual, E.2 and E.4), and its listening socket.

What gdb sends is not trusted to make sense: a packet that does not gets an error or the empty answer that stands for
'unknown', and nothing more happens.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from dbt.errors import DragomanError, GuestFault, UsageError

from . import registers
from .packets import INTERRUPT, PACKET_SIZE, Connection, escape, unescape
from .target import SIGKILL, SIGTRAP, Stop, Target, check_kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.control.traps import Traps
    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

OK: Final = b"OK"
_FEATURES: Final = (
    f"PacketSize={PACKET_SIZE:x};QStartNoAckMode+;QPassSignals+;QProgramSignals+;swbreak+;hwbreak+;vContSupported+;"
    "qXfer:features:read+"
)
_OF_PROCESSES: Final = ";qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:siginfo:read+;exec-events+"
_FATAL_ERRORS: Final = (ValueError, IndexError, KeyError, OverflowError, MemoryError, OSError, DragomanError)


class Server:
    """A debugger's session with one target."""

    def __init__(self, target: Target, connection: Connection) -> None:
        self.target = target
        self.connection = connection
        self.last = Stop("signal", SIGTRAP)
        self.attached = True
        self._resumed = False
        self._signal = 0  # that the guest gets when it goes on
        target.stopped = self._stopped
        self._handlers: dict[bytes, Callable[[bytes], bytes | None]] = {
            b"?": lambda _rest: self._reply(self.last),
            b"g": self._read_registers,
            b"G": self._write_registers,
            b"p": lambda rest: registers.read(target.cpu, _hex(rest)).hex().encode(),
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"X": self._write_binary,
            b"c": lambda rest: self._go(step=False, address=rest),
            b"s": lambda rest: self._go(step=True, address=rest),
            b"C": lambda rest: self._go_with(rest, step=False),
            b"S": lambda rest: self._go_with(rest, step=True),
            b"Z": lambda rest: self._point(rest, insert=True),
            b"z": lambda rest: self._point(rest, insert=False),
            b"H": lambda _rest: OK,
            b"T": lambda _rest: OK,
            b"D": self._detach,
            b"k": self._kill,
            b"v": self._v,
            b"q": self._query,
            b"Q": self._set,
        }

    # ---- the session

    def run(self) -> None:
        """Serve until the guest has ended or the debugger has gone."""
        self._commands()
        while self.attached:
            if self._signal:
                self.target.deliver(self._signal)
                self._signal = 0
            stop = self.target.go()
            if self.connection.closed:
                return
            self._tell(stop)
            if stop.kind != "signal":
                self._last_words()
                return
            self._commands()

    def _stopped(self, stop: Stop) -> int:
        """A stop before a signal is delivered; which signal is to be."""
        self._signal = stop.number
        if not self.attached:
            return stop.number
        self._tell(stop)
        self._commands()
        return self._signal

    def _commands(self) -> None:
        """Answer packets until the guest is to go on."""
        self._resumed = False
        while not self._resumed:
            packet = self.connection.receive()
            if packet is None:
                self._leave()
                return
            if packet == INTERRUPT:
                continue
            answer = self.answer(packet)
            if answer is not None and self.attached:
                self.connection.send(answer)
            if packet.startswith(b"QStartNoAckMode"):
                self.connection.acknowledge = False

    def _last_words(self) -> None:
        """After the guest's end: answer until gdb closes, which it does at once."""
        self.connection.socket.settimeout(1)
        while (packet := self.connection.receive()) is not None:
            if packet[:1] == b"k":
                break
            self.connection.send(b"OK" if packet[:1] in b"DvH" else b"")
        self._leave()

    def _leave(self) -> None:
        self.attached = False
        self._resumed = True
        self.target.stepping = False
        self.target.detach()

    def _tell(self, stop: Stop) -> None:
        self.last = stop
        self.connection.send(self._reply(stop))

    def _reply(self, stop: Stop) -> bytes:
        if stop.kind == "exited":
            return b"W%02x" % (stop.number & 0xFF)
        if stop.kind == "killed":
            return b"X%02x" % registers.to_gdb(stop.number)
        return b"T%02x%sthread:1;" % (registers.to_gdb(stop.number), stop.details)

    def answer(self, packet: bytes) -> bytes | None:
        """The answer to a packet; None where there is none (yet)."""
        handler = self._handlers.get(packet[:1])
        if handler is None:
            return b""
        try:
            return handler(packet[1:])
        except GuestFault:
            return b"E0e"
        except _FATAL_ERRORS:
            return b"E01"

    # ---- registers and memory

    def _read_registers(self, _rest: bytes) -> bytes:
        cpu = self.target.cpu
        return b"".join(registers.read(cpu, n).hex().encode() for n in range(len(registers.REGISTERS)))

    def _write_registers(self, rest: bytes) -> bytes:
        data = bytes.fromhex(rest.decode())
        at = 0
        for number, register in enumerate(registers.REGISTERS):
            part = data[at : at + register.size]
            at += register.size
            if len(part) == register.size:
                registers.write(self.target.cpu, number, part)
        return OK

    def _write_register(self, rest: bytes) -> bytes:
        number, _, value = rest.partition(b"=")
        registers.write(self.target.cpu, _hex(number), bytes.fromhex(value.decode()))
        return OK

    def _read_memory(self, rest: bytes) -> bytes:
        address, size = _pair(rest)
        size = min(size, PACKET_SIZE // 2 - 8)
        return self.target.read_memory(address, size).hex().encode() if size else b""

    def _write_memory(self, rest: bytes) -> bytes:
        place, _, data = rest.partition(b":")
        address, size = _pair(place)
        raw = bytes.fromhex(data.decode())
        if len(raw) != size:
            return b"E01"
        self.target.write_memory(address, raw)
        return OK

    def _write_binary(self, rest: bytes) -> bytes:
        place, _, data = rest.partition(b":")
        address, size = _pair(place)
        raw = unescape(data)
        if len(raw) != size:
            return b"E01"
        self.target.write_memory(address, raw)
        return OK

    # ---- going on

    def _go(self, *, step: bool, address: bytes = b"", signal: int = 0) -> None:
        if address:
            self.target.cpu.set_reg("pc", _hex(address))
        self.target.stepping = step
        self._signal = signal
        self._resumed = True

    def _go_with(self, rest: bytes, *, step: bool) -> None:
        number, _, address = rest.partition(b";")
        self._go(step=step, address=address, signal=registers.from_gdb(_hex(number)))

    def _v(self, rest: bytes) -> bytes | None:
        if rest.startswith(b"Cont?"):
            return b"vCont;c;C;s;S"
        if rest.startswith(b"Cont;"):
            action = rest[5:].partition(b";")[0].partition(b":")[0]
            kind, number = action[:1], action[1:]
            if kind in {b"c", b"s"} and not number:
                self._go(step=kind == b"s")
                return None
            if kind in {b"C", b"S"}:
                self._go(step=kind == b"S", signal=registers.from_gdb(_hex(number)))
                return None
            return b"E01"
        if rest.startswith(b"Kill"):
            self.connection.send(OK)
            self._kill(b"")
            return None
        return b""

    def _kill(self, _rest: bytes) -> None:
        process = self.target.process
        if process is not None:
            process.status = -SIGKILL
        self._leave()

    def _detach(self, _rest: bytes) -> None:
        self.connection.send(OK)
        self._leave()

    def _point(self, rest: bytes, *, insert: bool) -> bytes:
        kind, address, size = (_hex(word) for word in rest.partition(b";")[0].split(b","))
        check_kind(kind)
        if insert:
            self.target.insert(kind, address, size)
        else:
            self.target.remove(kind, address, size)
        return OK

    # ---- questions

    def _query(self, rest: bytes) -> bytes:
        name, _, words = rest.partition(b":")
        if name == b"Supported":
            text = _FEATURES + (_OF_PROCESSES if self.target.process is not None else "")
            return text.encode()
        if name == b"Xfer":
            return self._transfer(words)
        simple = {
            b"C": b"QC1",
            b"fThreadInfo": b"m1",
            b"sThreadInfo": b"l",
            b"Attached": b"0",
            b"Symbol": OK,
            b"TStatus": b"",
        }
        return simple.get(name, b"")

    def _transfer(self, words: bytes) -> bytes:
        kind, action, annex, place = words.split(b":", 3)
        offset, size = _pair(place)
        data = self._object(kind, annex) if action == b"read" else None
        if data is None:
            return b""
        size = min(size, PACKET_SIZE // 2 - 8)
        part = data[offset : offset + size]
        return (b"m" if offset + len(part) < len(data) else b"l") + escape(part)

    def _object(self, kind: bytes, annex: bytes) -> bytes | None:
        process = self.target.process
        if kind == b"features" and annex == b"target.xml":
            return registers.description()
        if process is not None:
            if kind == b"auxv":
                return process.auxv
            if kind == b"exec-file":
                return os.fsencode(process.exe)
            if kind == b"siginfo":
                return self.target.siginfo
        return None

    def _set(self, rest: bytes) -> bytes:
        name, _, words = rest.partition(b":")
        if name == b"StartNoAckMode":
            return OK
        if name == b"PassSignals":
            self.target.passed = frozenset(registers.from_gdb(_hex(word)) for word in words.split(b";") if word)
            return OK
        return OK if name == b"ProgramSignals" else b""


def _hex(word: bytes) -> int:
    """A number as gdb writes it; Python's int() takes signs, blanks and underscores as well."""
    if not word or word.strip(b"0123456789abcdefABCDEF"):
        raise ValueError(word)
    return int(word, 16)


def _pair(words: bytes) -> tuple[int, int]:
    first, _, second = words.partition(b",")
    return _hex(first), _hex(second)


# ---- listening


def listen(where: str | int) -> socket.socket:
    """A socket on `where`: a port (on 127.0.0.1 only), HOST:PORT, or a path with a slash in it. Raises UsageError."""
    if not isinstance(where, str | int):
        raise UsageError(f"{where!r} is no place to listen", "Give a port number, HOST:PORT, or a path with a slash.")
    where = str(where)
    sock = socket.socket(socket.AF_UNIX if "/" in where else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if "/" in where:
            sock.bind(where)
        else:
            host, _, port = where.rpartition(":")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host or "127.0.0.1", int(port)))
        sock.listen(1)
    except (ValueError, OverflowError):
        sock.close()
        raise UsageError(f"{where!r} is no port", "Give a port number, HOST:PORT, or a path with a slash.") from None
    except OSError as error:
        sock.close()
        raise UsageError(
            f"cannot listen on {where}: {error.strerror or error}", "Choose another port or path."
        ) from None
    return sock


def address_of(sock: socket.socket) -> str:
    """Where gdb has to connect."""
    name = sock.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def serve(
    cpu: Cpu,
    process: Process | None,
    sock: socket.socket,
    *,
    traps: Traps | None = None,
) -> None:
    """Wait for one debugger on a listening socket and serve it, until it or the guest has gone. Closes the socket."""
    path = sock.getsockname()
    sys.stderr.write(f"dragoman: waiting for gdb on {address_of(sock)}\n")
    try:
        peer, _ = sock.accept()
    finally:
        sock.close()
        if isinstance(path, str) and path:
            os.unlink(path)
    if process is not None:
        peer = socket.socket(fileno=process.hide(peer.detach()))
    if peer.family == socket.AF_INET:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(peer)
    target = Target(cpu, process, traps)
    target.attach(connection)
    try:
        Server(target, connection).run()
    finally:
        target.detach()


def debug_process(process: Process, where: str) -> None:
    """`dragoman run -g`: the program under gdb, then, if gdb has gone before it ended, on its own."""
    serve(process.cpu, process, listen(where))
    process.run()
