"""What 9P2000.L's messages do with files that are open. An OSError is the answer, by its number."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbt.machine.ninep.host import entries, lock, set_owner
from dbt.machine.ninep.wire import Qid, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbt.machine.ninep.fids import Fid, Fids
    from dbt.machine.ninep.host import Share
    from dbt.machine.ninep.places import Place, Places

MOST_OFFSET = (1 << 63) - 1
IOV_MAX = 1024
# Tlopen and Tlcreate have Linux's numbers of x86 for these, on all machines.
OPEN_FLAGS = {
    0o1000: os.O_TRUNC, 0o2000: os.O_APPEND, 0o10000: os.O_DSYNC, 0o200000: os.O_DIRECTORY, 0o4010000: os.O_SYNC,
}  # fmt: skip
CREATE_EXCLUSIVE = 0o200
LOCKS = (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK)  # 9P's numbers are Linux's
LOCK_SUCCESS, LOCK_BLOCKED = 0, 1
TYPES = {4: 0x80, 10: 0x02}  # DT_DIR, DT_LNK: their qids'


def checked(name: bytes) -> bytes:
    """A name that may be in a directory."""
    if not name or b"/" in name or b"\0" in name:
        raise OSError(errno.ENOENT, "no name")
    if name in {b".", b".."}:
        raise OSError(errno.EINVAL, "no name of its own")
    return name


def open_flags(flags: int) -> int:
    """What of the flags of a guest counts here."""
    return flags & os.O_ACCMODE | sum(ours for theirs, ours in OPEN_FLAGS.items() if flags & theirs == theirs)


class Files:
    """Opening, reading, writing, locks."""

    share: Share
    places: Places
    fids: Fids
    msize: int

    @contextmanager
    def using(self, number: int) -> Iterator[tuple[Fid, int]]:
        """A fid and a descriptor of its inode: what is open, if it is."""
        fid = self.fids.get(number)
        try:
            if fid.file >= 0:
                yield fid, fid.file
            else:
                with self.places.using(fid.place) as inode:
                    yield fid, inode
        finally:
            self.fids.done(fid)

    @contextmanager
    def inode(self, number: int) -> Iterator[tuple[Place, int]]:
        """The place of a fid and an O_PATH descriptor of it."""
        fid = self.fids.get(number)
        try:
            with self.places.using(fid.place) as inode:
                yield fid.place, inode
        finally:
            self.fids.done(fid)

    def changing(self) -> None:
        """EROFS if nothing may be changed."""
        if self.share.readonly:
            raise OSError(errno.EROFS, "read-only")

    # Open files

    def t_lopen(self, number: int, flags: int) -> tuple[Qid, int]:
        """Open a file or directory."""
        wanted = open_flags(flags)
        if wanted & (os.O_ACCMODE | os.O_TRUNC):
            self.changing()
        with self.inode(number) as (place, inode):
            fid = self.fids.get(number)
            try:
                if fid.flags is not None:
                    raise OSError(errno.EINVAL, "the fid is open")
                if place.kind == stat.S_IFLNK:
                    raise OSError(errno.ELOOP, "a link")
                if place.kind not in {stat.S_IFREG, stat.S_IFDIR}:
                    raise OSError(errno.ENXIO, "neither file nor directory")
                self.fids.open(fid, self.share.reopen(inode, wanted), wanted)
            finally:
                self.fids.done(fid)
            return self.share.qid(os.stat(inode)), 0

    def t_lcreate(self, number: int, name: bytes, flags: int, mode: int, gid: int) -> tuple[Qid, int]:
        """Create a file in the directory of a fid, which is at the file then."""
        self.changing()
        checked(name)
        wanted = open_flags(flags) & ~os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fid = self.fids.get(number)
        try:
            if fid.flags is not None:
                raise OSError(errno.EINVAL, "the fid is open")
            with self.places.using(fid.place) as directory:
                exclusive = wanted | os.O_CREAT | os.O_EXCL
                try:
                    file = os.open(name, exclusive, self.share.mode(mode), dir_fd=directory)
                except FileExistsError:
                    if flags & CREATE_EXCLUSIVE:
                        raise
                    return self._existing(fid, name, wanted)
            return self._created(fid, name, file, wanted, mode, gid)
        finally:
            self.fids.done(fid)

    def _created(self, fid: Fid, name: bytes, file: int, flags: int, mode: int, gid: int) -> tuple[Qid, int]:
        try:
            os.fchmod(file, self.share.mode(mode))
            self.give(file, gid)
            place, info = self.places.walk(fid.place, name)
        except OSError:
            os.close(file)
            raise
        try:
            self.fids.open(fid, file, flags)
            self.fids.move(fid, place)
        finally:
            self.places.spare(place)
        return self.share.qid(info), 0

    def _existing(self, fid: Fid, name: bytes, flags: int) -> tuple[Qid, int]:
        """A file that was there already is opened as any other."""
        place, info = self.places.walk(fid.place, name)
        with self.places.using(place) as inode:
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.ELOOP if stat.S_ISLNK(info.st_mode) else errno.EISDIR, "not a file")
            self.fids.open(fid, self.share.reopen(inode, flags), flags)
            self.fids.move(fid, place)
        return self.share.qid(info), 0

    def give(self, inode: int, gid: int) -> None:
        """The group of what was made, if guests set owners."""
        if self.share.owners:
            set_owner(inode, -1, gid)

    def read(self, number: int, offset: int, views: Sequence[memoryview]) -> int:
        """Bytes of a file, into `views`."""
        if offset > MOST_OFFSET:
            raise OSError(errno.EINVAL, "beyond any file")
        fid = self.fids.get(number)
        try:
            file = self.fids.file(fid)
            return os.preadv(file, views[:IOV_MAX], offset) if any(views) else 0
        finally:
            self.fids.done(fid)

    def write(self, number: int, offset: int, views: Sequence[memoryview]) -> int:
        """Bytes for a file."""
        self.changing()
        if offset > MOST_OFFSET:
            raise OSError(errno.EINVAL, "beyond any file")
        fid = self.fids.get(number)
        try:
            return os.pwritev(self.fids.file(fid), views[:IOV_MAX], offset)
        finally:
            self.fids.done(fid)

    def readdir(self, number: int, offset: int, views: Sequence[memoryview]) -> int:
        """Entries from `offset` on, which is what an entry said that comes next, as many as there is room for."""
        if offset > MOST_OFFSET:
            raise OSError(errno.EINVAL, "beyond any directory")
        room = sum(len(view) for view in views)
        fid = self.fids.get(number)
        try:
            directory = self.fids.file(fid)
            device = os.stat(directory).st_dev
            with fid.order:
                os.lseek(directory, offset, os.SEEK_SET)
                data = bytearray()
                while (found := entries(directory, min(max(room - len(data), 512), 1 << 16))) and len(data) < room:
                    for inode, following, kind, name in found:
                        entry = self._entry(fid.place, device, inode, kind, name) + encode(
                            "qbs", (following, kind, name)
                        )
                        if len(data) + len(entry) > room:
                            return self._fill(views, data)
                        data += entry
                return self._fill(views, data)
        finally:
            self.fids.done(fid)

    def _entry(self, place: Place, device: int, inode: int, kind: int, name: bytes) -> bytes:
        if name == b".." and place.parent is None:  # what is above the folder is nobody's business
            with self.places.using(place) as root:
                return encode("Q", ((0x80, 0, self.share.qid(os.stat(root))[2]),))
        return encode("Q", ((TYPES.get(kind, 0), 0, self.share.qid_path(device, inode)),))

    @staticmethod
    def _fill(views: Sequence[memoryview], data: bytearray) -> int:
        at = 0
        for view in views:
            piece = data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        return len(data)

    def t_fsync(self, number: int, data_only: int) -> None:
        """To stable storage."""
        fid = self.fids.get(number)
        try:
            (os.fdatasync if data_only else os.fsync)(self.fids.file(fid))
        finally:
            self.fids.done(fid)

    def t_clunk(self, number: int) -> None:
        """The fid is not needed any more."""
        self.fids.forget(number)

    def t_lock(self, number: int, kind: int, flags: int, start: int, length: int, process: int, client: bytes) -> int:
        """A lock; the client tries again if it is to wait."""
        del flags, process, client
        if kind not in LOCKS or start > MOST_OFFSET or length > MOST_OFFSET:
            raise OSError(errno.EINVAL, "no such lock")
        fid = self.fids.get(number)
        try:
            self.fids.set_lock(fid, kind, start, length)
        except (BlockingIOError, PermissionError):
            return LOCK_BLOCKED
        finally:
            self.fids.done(fid)
        return LOCK_SUCCESS

    def t_getlock(
        self, number: int, kind: int, start: int, length: int, process: int, client: bytes
    ) -> tuple[int, int, int, int, bytes]:
        """Whether a lock could be set, or which one is in the way."""
        if kind not in LOCKS or start > MOST_OFFSET or length > MOST_OFFSET:
            raise OSError(errno.EINVAL, "no such lock")
        fid = self.fids.get(number)
        try:
            kind, at, size, holder = lock(self.fids.file(fid), kind, start, length, ask=True)
        finally:
            self.fids.done(fid)
        if kind == fcntl.F_UNLCK:
            return kind, start, length, process, client
        return kind, at, size, holder, client
