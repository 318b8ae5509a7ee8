"""The file of a snapshot: a header, pieces of memory as zstd frames, and a directory of them in JSON at the end.

    header   magic, version, where the directory is, its SHA-256, and a CRC-32 of all that
    frames   each of up to CHUNK bytes, with zstd's checksum of the content
    JSON     whatever the writer wants to find again

Files are hostile: numbers are checked before they are used, and nothing is allocated in proportion to one of them but
up to fixed bounds. A file is written beside, and takes its name when all of it is on the disk; through a link it takes
the name that the link leads to, and what is no ordinary file (root could lose /dev/null so) is not replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import tempfile
import zlib
from typing import TYPE_CHECKING, Any, NoReturn, Self

import zstandard
from dbt.machine.errors import SnapshotError

if TYPE_CHECKING:
    from types import TracebackType

MAGIC = b"\x89Dragoman\r\n\x1a\n\0\0\0"
VERSION = 1
HEADER = struct.Struct("<16sIIQQ32sI")  # magic, version, reserved, directory: offset, length, SHA-256; CRC-32
CHUNK = 1 << 20
LEVEL = -1  # of zstd: as quick as the fastest, three quarters of its size
MOST_DIRECTORY = 1 << 28


def compressor() -> zstandard.ZstdCompressor:
    """One for each thread."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)


class Writer:
    """Use it with `with`: what was not finished leaves nothing behind."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        folder, name = os.path.split(self.path)
        try:
            if os.path.exists(self.path) and not stat.S_ISREG(os.stat(self.path).st_mode):
                raise SnapshotError(f"{path}: is no ordinary file", "Name a file that is to be made or replaced.")
            self._fd, self._beside = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        except OSError as error:
            raise SnapshotError(f"{path}: {error.strerror}") from error
        self._end = HEADER.size
        self._finished = False

    def put(self, data: bytes) -> tuple[int, int]:
        """Add a frame; where it is, and its length."""
        at = self._end
        self._write(at, data)
        self._end += len(data)
        return at, len(data)

    def _write(self, at: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            raise SnapshotError(f"{self.path}: cannot be written: {error.strerror}") from error

    def finish(self, directory: dict[str, Any]) -> int:
        """Write the directory and the header, and give the file its name; its size."""
        text = json.dumps(directory, separators=(",", ":")).encode()
        at, length = self.put(text)
        head = HEADER.pack(MAGIC, VERSION, 0, at, length, hashlib.sha256(text).digest(), 0)[:-4]
        self._write(0, head + zlib.crc32(head).to_bytes(4, "little"))
        try:
            os.fsync(self._fd)
            os.rename(self._beside, self.path)
            self._finished = True
            folder = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise SnapshotError(f"{self.path}: cannot be written: {error.strerror}") from error
        return self._end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if not self._finished:
            os.unlink(self._beside)


class Reader:
    """An open snapshot: `directory`, and frames by `chunk`. Everything wrong is a SnapshotError."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SnapshotError(f"{path}: {error.strerror}") from error
        try:
            self.size = os.fstat(self._fd).st_size
            self.directory = self._directory()
        except BaseException:
            os.close(self._fd)
            raise
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)

    def wrong(self, reason: str, offset: int | None = None) -> NoReturn:
        """Say what is wrong, and where."""
        where = "" if offset is None else f"at offset {offset:#x}: "
        raise SnapshotError(f"{self.path}: {where}{reason}")

    def _read(self, at: int, length: int) -> bytes:
        parts = []
        try:
            while length:
                part = os.pread(self._fd, min(length, 1 << 24), at)
                if not part:
                    self.wrong("the file ends here: truncated?", at)
                parts.append(part)
                at, length = at + len(part), length - len(part)
        except OSError as error:
            self.wrong(f"cannot be read: {error.strerror}", at)
        return b"".join(parts)

    def _directory(self) -> dict[str, Any]:
        if self.size < HEADER.size:
            self.wrong("is no snapshot of a machine: too short", 0)
        head = self._read(0, HEADER.size)
        magic, version, _, at, length, digest, check = HEADER.unpack(head)
        if magic != MAGIC:
            self.wrong("is no snapshot of a machine: another magic number", 0)
        if zlib.crc32(head[:-4]) != check:
            self.wrong("the header is damaged", 0)
        if version != VERSION:
            self.wrong(f"version {version} is not known, only {VERSION}", 16)
        if length > MOST_DIRECTORY or at < HEADER.size or at + length > self.size:
            self.wrong(f"a directory of {length:,} bytes at {at:#x} is not in the file of {self.size:,}", 24)
        text = self._read(at, length)
        if hashlib.sha256(text).digest() != digest:
            self.wrong("the directory is damaged", at)
        try:
            directory = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.wrong(f"the directory is no JSON: {error}", at)
        if not isinstance(directory, dict):
            self.wrong("the directory is no JSON object", at)
        return directory

    def chunk(self, at: int, length: int, expected: int) -> bytes:
        """The content of a frame, which has to have `expected` bytes."""
        if not (HEADER.size <= at <= self.size - length and 0 < length <= 2 * CHUNK):
            self.wrong(f"a frame of {length} bytes is not in the file", at)
        data = self._read(at, length)
        try:
            if zstandard.get_frame_parameters(data).content_size != expected:
                self.wrong(f"a frame that has not the {expected} bytes that it should", at)
            content = self._decompressor.decompress(data, max_output_size=expected)
        except zstandard.ZstdError as error:
            self.wrong(f"a damaged frame: {error}", at)
        if len(content) != expected:
            self.wrong(f"a frame of {len(content)} bytes, not {expected}", at)
        return content

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
