"""Fids: a client's numbers for places, and the files that it has opened through them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from dbt.machine.errors import SnapshotError
from dbt.machine.ninep.host import lock
from dbt.machine.ninep.wire import NOFID

if TYPE_CHECKING:
    from dbt.machine.ninep.host import Share
    from dbt.machine.ninep.places import Place, Places

MOST_FIDS = 1 << 16
REOPEN = os.O_ACCMODE | os.O_APPEND | os.O_DSYNC | os.O_SYNC | os.O_DIRECTORY
MOST_NAMES = 1 << 12
MOST_LOCKS = 1 << 16  # of a session: each is memory of the host's kernel
Locks = list[tuple[int, int, int]]  # (start, end, kind) of ranges, in their order, as the kernel keeps them


def locked(held: Locks, start: int, end: int, kind: int) -> Locks:
    """What is held after a range was locked or unlocked: like neighbours are one, what is in part within is cut."""
    first = bisect_left(held, start, key=lambda one: one[1])  # those that end before it do not matter
    last = bisect_right(held, end, key=lambda one: one[0])
    pieces: Locks = []
    for at, to, other in held[first:last]:
        if other == kind:
            start, end = min(start, at), max(end, to)
            continue
        pieces += [piece for piece in ((at, min(to, start), other), (max(at, end), to, other)) if piece[0] < piece[1]]
    if kind != fcntl.F_UNLCK:
        pieces.append((start, end, kind))
    return held[:first] + sorted(pieces) + held[last:]


class Fid:
    """`flags`: how it is opened, or None; `file`: the open file, -1 while it is not, as after a restore."""

    __slots__ = ("file", "flags", "locks", "order", "place", "users")

    def __init__(self, place: Place, flags: int | None = None) -> None:
        self.place = place
        self.flags = flags
        self.file = -1
        self.users = 0
        self.locks: Locks = []
        self.order = threading.Lock()  # of those who open, lock, or read a directory, whose position is the file's


class Fids:
    """The table of a session."""

    def __init__(self, share: Share, places: Places) -> None:
        self.share = share
        self.places = places
        self.lock = places.lock
        self._fids: dict[int, Fid] = {}
        self._files = 0
        self._locks = 0
        self.closed = False  # there will be no more

    def __len__(self) -> int:
        return len(self._fids)

    def get(self, number: int) -> Fid:
        """The fid, in use until `done`. EBADF if there is none."""
        with self.lock:
            fid = self._fids.get(number)
            if fid is None:
                raise OSError(errno.EBADF, "no such fid")
            fid.users += 1
            return fid

    def done(self, fid: Fid) -> None:
        """It is not in use any more; if it was forgotten meanwhile, that is done now."""
        with self.lock:
            fid.users -= 1
            if fid.users < 0:
                self._release(fid)

    def add(self, number: int, place: Place) -> None:
        """A new fid."""
        with self.lock:
            if number in self._fids or number == NOFID:
                raise OSError(errno.EINVAL, "the fid is in use")
            if self.closed:
                raise OSError(errno.EBADF, "the session is over")
            if len(self._fids) >= MOST_FIDS:
                raise OSError(errno.EMFILE, "too many fids")
            self._fids[number] = Fid(place)
            self.places.hold(place)

    def move(self, fid: Fid, place: Place) -> None:
        """A fid is elsewhere."""
        with self.lock:
            self.places.hold(place)
            fid.place, old = place, fid.place
            self.places.leave(old)

    def forget(self, number: int) -> None:
        """Clunk. EBADF if there is none."""
        with self.lock:
            fid = self._fids.pop(number, None)
            if fid is None:
                raise OSError(errno.EBADF, "no such fid")
            fid.users -= 1
            if fid.users < 0:
                self._release(fid)

    def _release(self, fid: Fid) -> None:
        if fid.file >= 0:
            os.close(fid.file)
            fid.file = -1
            self._files -= 1
            self._locks -= len(fid.locks)
        self.places.leave(fid.place)

    def open(self, fid: Fid, file: int, flags: int) -> None:
        """`file` is what the fid has opened. It is closed again if that cannot be."""
        with self.lock:
            if fid.file >= 0 or self._files >= self.share.most_files:
                os.close(file)
                raise OSError(errno.EMFILE if fid.file < 0 else errno.EBADF, "too many files")
            fid.file, fid.flags = file, flags & REOPEN
            self._files += 1

    def set_lock(self, fid: Fid, kind: int, start: int, length: int) -> None:
        """Lock a range, or unlock it. BlockingIOError if another has it, ENOLCK if there are too many."""
        file = self.file(fid)
        with fid.order:
            held = locked(fid.locks, start, start + length if length else 1 << 63, kind)
            more = len(held) - len(fid.locks)
            with self.lock:
                if more > 0 and self._locks + more > MOST_LOCKS:
                    raise OSError(errno.ENOLCK, "too many locks")
                self._locks += more
            try:
                lock(file, kind, start, length)
            except BaseException:
                with self.lock:
                    self._locks -= more
                raise
            fid.locks = held

    def file(self, fid: Fid) -> int:
        """What it has opened. EBADF if it is not open."""
        if fid.file < 0:
            with fid.order:
                self._reopen(fid)
        return fid.file

    def _reopen(self, fid: Fid) -> None:
        """It was open when the session was saved."""
        if fid.file >= 0:
            return
        if fid.flags is None:
            raise OSError(errno.EBADF, "not open")
        with self.places.using(fid.place) as inode:
            if fid.place.kind not in {stat.S_IFREG, stat.S_IFDIR}:
                raise OSError(errno.ENXIO, "neither file nor directory")
            self.open(fid, self.share.reopen(inode, fid.flags), fid.flags)

    def close(self) -> None:
        """Forget all."""
        with self.lock:
            for number in list(self._fids):
                self.forget(number)

    # Snapshots

    def save(self) -> list[Any]:
        """Each as [number, how it is opened, whether it was removed, names]; names as text that os.fsencode takes.

        What is deeper than can be saved is lost: renames move what is below to any depth.
        """
        saved: list[Any] = []
        with self.lock:
            for number, fid in self._fids.items():
                names = [os.fsdecode(name) for name in fid.place.names()]
                deep = len(names) > MOST_NAMES
                saved.append([number, fid.flags, deep or fid.place.lost(), [] if deep else names])
        return saved

    @staticmethod
    def check(saved: object) -> list[tuple[int, int | None, bool, list[bytes]]]:
        """The same after a look at it; SnapshotError if it cannot be."""
        found: list[tuple[int, int | None, bool, list[bytes]]] = []
        if not isinstance(saved, list) or len(saved) > MOST_FIDS:
            raise SnapshotError("these are no saved fids")
        for entry in saved:
            if not isinstance(entry, list) or len(entry) != 4:
                raise SnapshotError("this is no saved fid")
            number, flags, lost, names = entry
            good = type(number) is int and 0 <= number < NOFID and type(lost) is bool and isinstance(names, list)
            good = good and (flags is None or (type(flags) is int and not flags & ~REOPEN))
            if not good or len(names) > MOST_NAMES or not all(isinstance(name, str) for name in names):
                raise SnapshotError("this is no saved fid")
            try:
                encoded = [os.fsencode(name) for name in names]
            except UnicodeEncodeError:
                raise SnapshotError("a saved fid has impossible names") from None
            if any(not name or b"/" in name or b"\0" in name or name in {b".", b".."} for name in encoded):
                raise SnapshotError("a saved fid has impossible names")
            found.append((number, flags, lost, encoded))
        if len({number for number, *_ in found}) != len(found):
            raise SnapshotError("a fid is saved twice")
        return found

    def load(self, saved: object) -> None:
        """Have those fids. Nothing of the host is looked at before they are used."""
        with self.lock:
            for number, flags, lost, names in self.check(saved):
                place = self.places.named(names, lost=lost)
                self.add(number, place)
                self._fids[number].flags = flags
