"""What 9P2000.L's messages do with attributes and names. An OSError is the answer, by its number."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from dbt.machine.ninep.files import MOST_OFFSET, Files, checked
from dbt.machine.ninep.host import UTIME_NOW, UTIME_OMIT, set_owner, set_times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.ninep.places import Place
    from dbt.machine.ninep.wire import Qid

V9FS_MAGIC = 0x0102_1997
GETATTR_BASIC = 0x7FF
SET_MODE, SET_UID, SET_GID, SET_SIZE, SET_ATIME, SET_MTIME = 1, 2, 4, 8, 0x10, 0x20
SET_ATIME_TO, SET_MTIME_TO = 0x80, 0x100
AT_REMOVEDIR = 0x200


class Operations(Files):
    """All that are about what is in the folder; Session has the others."""

    # Attributes

    def t_statfs(self, number: int) -> tuple[int, ...]:
        """The file system, which is ours for the guest."""
        with self.using(number) as (_, inode):
            info = os.fstatvfs(inode)
        return (
            V9FS_MAGIC, info.f_bsize & 0xFFFF_FFFF, info.f_blocks, info.f_bfree, info.f_bavail, info.f_files,
            info.f_ffree, info.f_fsid & (1 << 64) - 1, info.f_namemax,
        )  # fmt: skip

    def t_getattr(self, number: int, mask: int) -> tuple[object, ...]:
        """All that stat says, whatever is asked for."""
        del mask
        with self.using(number) as (_, inode):
            info = os.stat(inode)
        times = [
            part for time in (info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns) for part in divmod(time, 10**9)
        ]
        return (
            GETATTR_BASIC, self.share.qid(info), info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_rdev,
            info.st_size, info.st_blksize, info.st_blocks, *(part & (1 << 64) - 1 for part in times), 0, 0, 0, 0,
        )  # fmt: skip

    def t_setattr(self, number: int, valid: int, mode: int, uid: int, gid: int, size: int, *times: int) -> None:
        """What `valid` says."""
        self.changing()
        accessed, modified = times[:2], times[2:]
        if size > MOST_OFFSET or any(part > MOST_OFFSET for part in times):
            raise OSError(errno.EINVAL, "a size or time that cannot be")
        with self.inode(number) as (place, inode):
            if valid & (SET_UID | SET_GID) and self.share.owners:
                set_owner(inode, uid if valid & SET_UID else -1, gid if valid & SET_GID else -1)
            if valid & SET_MODE:
                if place.kind == stat.S_IFLNK:
                    raise OSError(errno.EOPNOTSUPP, "links have no mode")
                self.share.set_mode(inode, mode)
            if valid & SET_SIZE:
                self._truncate(number, place, inode, size)
            if valid & (SET_ATIME | SET_MTIME):
                set_times(
                    inode,
                    _time(valid & SET_ATIME, valid & SET_ATIME_TO, accessed),
                    _time(valid & SET_MTIME, valid & SET_MTIME_TO, modified),
                )

    def _truncate(self, number: int, place: Place, inode: int, size: int) -> None:
        if place.kind != stat.S_IFREG:
            raise OSError(errno.EISDIR if place.kind == stat.S_IFDIR else errno.EINVAL, "not a file")
        with self.using(number) as (fid, file):
            if fid.file >= 0 and (fid.flags or 0) & os.O_ACCMODE:
                os.ftruncate(file, size)
                return
        file = self.share.reopen(inode, os.O_WRONLY)
        try:
            os.ftruncate(file, size)
        finally:
            os.close(file)

    def t_readlink(self, number: int) -> bytes:
        """Where a link leads: for the guest to follow."""
        with self.inode(number) as (place, inode):
            if place.kind != stat.S_IFLNK:
                raise OSError(errno.EINVAL, "not a link")
            return os.readlink(b"", dir_fd=inode)

    def t_xattrwalk(self, number: int, new: int, name: bytes) -> int:
        """There are no extended attributes: they would be the host's."""
        del new, name
        with self.inode(number):
            raise OSError(errno.EOPNOTSUPP, "no extended attributes")

    def t_xattrcreate(self, number: int, name: bytes, size: int, flags: int) -> None:
        """The same."""
        del name, size, flags
        with self.inode(number):
            raise OSError(errno.EOPNOTSUPP, "no extended attributes")

    # Names

    def _made(self, place: Place, name: bytes, mode: int | None, gid: int) -> Qid:
        """The qid of what was made, which has the mode that was asked for, whatever the server's umask."""
        made, info = self.places.walk(place, name)
        try:
            with self.places.using(made) as inode:
                if mode is not None and not stat.S_ISLNK(info.st_mode):
                    self.share.set_mode(inode, mode)
                self.give(inode, gid)
                return self.share.qid(os.stat(inode))
        finally:
            self.places.spare(made)

    def t_mkdir(self, number: int, name: bytes, mode: int, gid: int) -> Qid:
        """A directory."""
        self.changing()
        with self.inode(number) as (place, directory):
            os.mkdir(checked(name), self.share.mode(mode), dir_fd=directory)
            return self._made(place, name, mode, gid)

    def t_symlink(self, number: int, name: bytes, target: bytes, gid: int) -> Qid:
        """A link, to whatever it is for the guest."""
        self.changing()
        if b"\0" in target:
            raise OSError(errno.EINVAL, "a link with a zero in it")
        with self.inode(number) as (place, directory):
            os.symlink(target, checked(name), dir_fd=directory)
            return self._made(place, name, None, gid)

    def t_mknod(self, number: int, name: bytes, mode: int, major: int, minor: int, gid: int) -> Qid:
        """An empty file or a FIFO."""
        del major, minor
        self.changing()
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind != stat.S_IFREG and not (kind == stat.S_IFIFO and self.share.fifos):
            raise OSError(errno.EPERM, "neither file nor FIFO")
        with self.inode(number) as (place, directory):
            os.mknod(checked(name), kind | self.share.mode(mode), dir_fd=directory)
            return self._made(place, name, mode, gid)

    def t_link(self, directory: int, number: int, name: bytes) -> None:
        """Another name for a file."""
        self.changing()
        with self.inode(directory) as (_, target), self.inode(number) as (place, inode):
            if place.kind in {stat.S_IFDIR, stat.S_IFLNK}:
                raise OSError(errno.EPERM, "directories and links have one name")
            self.share.link(inode, target, checked(name))

    def t_unlinkat(self, number: int, name: bytes, flags: int) -> None:
        """Remove a name; AT_REMOVEDIR: of an empty directory."""
        self.changing()
        with self.inode(number) as (place, directory):
            (os.rmdir if flags & AT_REMOVEDIR else os.unlink)(checked(name), dir_fd=directory)
            self.places.removed(place, name)

    def t_remove(self, number: int) -> None:
        """Remove what a fid is at, and the fid in any case."""
        try:
            self.changing()
            with self.inode(number) as (place, _):
                if place.parent is None or place.lost():
                    raise OSError(errno.EBUSY if place.parent is None else errno.ENOENT, "no name")
                with self.places.using(place.parent) as directory:
                    (os.rmdir if place.kind == stat.S_IFDIR else os.unlink)(place.name, dir_fd=directory)
                self.places.removed(place.parent, place.name)
        finally:
            self.fids.forget(number)

    def t_renameat(self, old: int, name: bytes, new: int, new_name: bytes) -> None:
        """Another name, or another directory."""
        self.changing()
        with self.inode(old) as (place, directory), self.inode(new) as (target, there):
            os.rename(checked(name), checked(new_name), src_dir_fd=directory, dst_dir_fd=there)
            self.places.renamed(place, name, target, new_name)

    def t_rename(self, number: int, new: int, name: bytes) -> None:
        """The same by what a fid is at."""
        self.changing()
        with self.inode(number) as (place, _), self.inode(new) as (target, there):
            if place.parent is None or place.lost():
                raise OSError(errno.EBUSY if place.parent is None else errno.ENOENT, "no name")
            parent, old = place.parent, place.name
            with self.places.using(parent) as directory:
                os.rename(old, checked(name), src_dir_fd=directory, dst_dir_fd=there)
                self.places.renamed(parent, old, target, name)


def _time(wanted: int, given: int, value: Sequence[int]) -> tuple[int, int]:
    if not wanted:
        return 0, UTIME_OMIT
    return (value[0], value[1]) if given else (0, UTIME_NOW)
