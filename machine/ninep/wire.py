"""Messages of 9P2000.L, declared once: numbers, and of what requests and replies consist.

Letters: b w d q are numbers of 1, 2, 4 and 8 bytes, s a string, Q a qid, *x several of x, with their count (w) in
front. All numbers are little-endian. The payload of read, write and readdir is behind what is declared here.
Facts: Plan 9's intro(5), Linux's include/net/9p/9p.h, diod's protocol.md.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = struct.Struct("<IBH")  # size of all, type, tag
NUMBERS = {"b": struct.Struct("<B"), "w": struct.Struct("<H"), "d": struct.Struct("<I"), "q": struct.Struct("<Q")}
QID = struct.Struct("<BIQ")
NOTAG, NOFID = 0xFFFF, 0xFFFF_FFFF
RLERROR = 7
MAX_WALK = 16
Qid = tuple[int, int, int]  # type, version, path
QTDIR, QTSYMLINK, QTFILE = 0x80, 0x02, 0x00


class Message(NamedTuple):
    """A request and its reply, whose number is one higher."""

    name: str
    request: str
    reply: str

    @property
    def single(self) -> bool:
        """Whether the reply is one value."""
        return len(self.reply.replace("*", "")) == 1


MESSAGES = {
    8: Message("statfs", "d", "ddqqqqqqd"),
    12: Message("lopen", "dd", "Qd"),
    14: Message("lcreate", "dsddd", "Qd"),
    16: Message("symlink", "dssd", "Q"),
    18: Message("mknod", "dsdddd", "Q"),
    20: Message("rename", "dds", ""),
    22: Message("readlink", "d", "s"),
    24: Message("getattr", "dq", "qQdddqqqqqqqqqqqqqqq"),
    26: Message("setattr", "ddddd" + "qqqqq", ""),
    30: Message("xattrwalk", "dds", "q"),
    32: Message("xattrcreate", "dsqd", ""),
    40: Message("readdir", "dqd", "d"),
    50: Message("fsync", "dd", ""),
    52: Message("lock", "dbdqqds", "b"),
    54: Message("getlock", "dbqqds", "bqqds"),
    70: Message("link", "dds", ""),
    72: Message("mkdir", "dsdd", "Q"),
    74: Message("renameat", "dsds", ""),
    76: Message("unlinkat", "dsd", ""),
    100: Message("version", "ds", "ds"),
    102: Message("auth", "dssd", "Q"),
    104: Message("attach", "ddssd", "Q"),
    108: Message("flush", "w", ""),
    110: Message("walk", "dd*s", "*Q"),
    116: Message("read", "dqd", "d"),
    118: Message("write", "dqd", "d"),
    120: Message("clunk", "d", ""),
    122: Message("remove", "d", ""),
}
NUMBERS_OF = {message.name: number for number, message in MESSAGES.items()}
WRITE = NUMBERS_OF["write"]
WRITE_FIXED = HEADER.size + 16  # the bytes of a write request in front of its payload
READ_FIXED = HEADER.size + 4  # of a reply to read or readdir


class Malformed(ValueError):
    """These bytes are no message of the kind that they say they are."""


def _one(letter: str, data: bytes, at: int) -> tuple[Any, int]:
    if letter == "s":
        end = at + 2 + int.from_bytes(data[at : at + 2], "little")
        if at + 2 > len(data) or end > len(data):
            raise Malformed("a string beyond the end")
        return data[at + 2 : end], end
    form = QID if letter == "Q" else NUMBERS[letter]
    end = at + form.size
    if end > len(data):
        raise Malformed("a number beyond the end")
    value = form.unpack_from(data, at)
    return value if letter == "Q" else value[0], end


def decode(form: str, data: bytes, at: int = 0) -> tuple[tuple[Any, ...], int]:
    """The values of `form` in `data` from `at` on, and where they end."""
    values: list[Any] = []
    letters = iter(form)
    for letter in letters:
        if letter == "*":
            letter = next(letters)  # noqa: PLW2901 - what there is a number of
            count, at = _one("w", data, at)
            several = []
            for _ in range(count):
                value, at = _one(letter, data, at)
                several.append(value)
            values.append(several)
        else:
            value, at = _one(letter, data, at)
            values.append(value)
    return tuple(values), at


def _encoded(letter: str, value: Any) -> bytes:  # noqa: ANN401 - a number, string or qid
    if letter == "s":
        return len(value).to_bytes(2, "little") + bytes(value)
    return QID.pack(*value) if letter == "Q" else NUMBERS[letter].pack(value)


def encode(form: str, values: Iterable[Any]) -> bytes:
    """The bytes of such values."""
    parts = []
    letters = iter(form)
    for value in values:
        letter = next(letters)
        if letter == "*":
            letter = next(letters)
            parts.append(len(value).to_bytes(2, "little"))
            parts += [_encoded(letter, one) for one in value]
        else:
            parts.append(_encoded(letter, value))
    return b"".join(parts)


def message(number: int, tag: int, body: bytes) -> bytes:
    """A whole message."""
    return HEADER.pack(HEADER.size + len(body), number, tag) + body
