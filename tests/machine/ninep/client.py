"""A client of 9P2000.L: messages as Linux sends them, through a function that carries them to a server."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from typing import Any

from dbt.machine.ninep.wire import MESSAGES, NUMBERS_OF, RLERROR, decode, encode, message

NOFID = 0xFFFF_FFFF
NOTAG = 0xFFFF


class Refused(Exception):
    """An Rlerror."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Client:
    """`carry` gives a message to the server and returns the reply. Fids are numbers that `fid` gives out."""

    def __init__(self, carry: Callable[[bytes], bytes]) -> None:
        self.carry = carry
        self.next = 100
        self.tag = 0

    def ask(self, name: str, *values: Any, payload: bytes = b"") -> Any:
        """The values of the reply; of read and readdir, the payload."""
        number = NUMBERS_OF[name]
        self.tag = NOTAG if name == "version" else (self.tag + 1) % 1000
        reply = self.carry(message(number, self.tag, encode(MESSAGES[number].request, values) + payload))
        size, kind, tag = struct.unpack_from("<IBH", reply)
        assert (size, tag) == (len(reply), self.tag)
        if kind == RLERROR:
            raise Refused(decode("d", reply, 7)[0][0])
        assert kind == number + 1
        found, end = decode(MESSAGES[number].reply, reply, 7)
        if name in {"read", "readdir"}:
            assert found[0] == len(reply) - end
            return reply[end:]
        assert end == len(reply)
        return found[0] if len(found) == 1 else found

    def fails(self, name: str, *values: Any, payload: bytes = b"") -> int:
        """The number of the error."""
        try:
            result = self.ask(name, *values, payload=payload)
        except Refused as refused:
            return refused.code
        raise AssertionError(f"{name} {values} gives {result}")

    def start(self, msize: int = 1 << 17) -> int:
        """Version and attach; the fid of the root."""
        assert self.ask("version", msize, b"9P2000.L")[1] == b"9P2000.L"
        self.ask("attach", 0, NOFID, b"root", b"", 0)
        return 0

    def fid(self) -> int:
        self.next += 1
        return self.next

    def walk(self, path: str | bytes, start: int = 0) -> int:
        """A fid at a path."""
        names = [name for name in (path.encode() if isinstance(path, str) else path).split(b"/") if name]
        fid = self.fid()
        found = self.ask("walk", start, fid, names[:16])
        if len(found) != len(names[:16]):
            raise Refused(2)
        for at in range(16, len(names), 16):
            assert len(self.ask("walk", fid, fid, names[at : at + 16])) == len(names[at : at + 16])
        return fid

    def open(self, path: str, flags: int = 0) -> int:
        fid = self.walk(path)
        self.ask("lopen", fid, flags)
        return fid

    def create(self, path: str, data: bytes = b"", mode: int = 0o644) -> int:
        folder, _, name = path.rpartition("/")
        fid = self.walk(folder)
        self.ask("lcreate", fid, name.encode(), 2, mode, 0)
        if data:
            assert self.write(fid, 0, data) == len(data)
        return fid

    def write(self, fid: int, offset: int, data: bytes) -> int:
        done: int = self.ask("write", fid, offset, len(data), payload=data)
        return done

    def read(self, path: str) -> bytes:
        fid = self.open(path)
        data = b""
        while piece := self.ask("read", fid, len(data), 32768):
            data += piece
        self.ask("clunk", fid)
        return data

    def names(self, path: str = "", room: int = 4096) -> dict[bytes, tuple[tuple[int, int, int], int]]:
        """(qid, type) of each entry of a directory."""
        fid = self.open(path, 0o200000)
        found = {}
        offset = 0
        while data := self.ask("readdir", fid, offset, room):
            at = 0
            while at < len(data):
                (qid, offset, kind, name), at = decode("Qqbs", data, at)
                assert name not in found
                found[name] = qid, kind
        self.ask("clunk", fid)
        return found

    def attributes(self, fid: int) -> dict[str, Any]:
        values = self.ask("getattr", fid, 0x7FF)
        names = (
            "valid", "qid", "mode", "uid", "gid", "nlink", "rdev", "size", "blksize", "blocks",
            "atime", "atime_ns", "mtime", "mtime_ns", "ctime", "ctime_ns",
        )  # fmt: skip
        return dict(zip(names, values, strict=False))

    def set(
        self, fid: int, valid: int, *, mode: int = 0, uid: int = 0, gid: int = 0, size: int = 0,
        atime: tuple[int, int] = (0, 0), mtime: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.ask("setattr", fid, valid, mode, uid, gid, size, *atime, *mtime)

    def kind(self, path: str) -> int:
        fid = self.walk(path)
        mode: int = self.attributes(fid)["mode"]
        self.ask("clunk", fid)
        return stat.S_IFMT(mode)
