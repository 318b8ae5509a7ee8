"""Places: what fids are at, as names below the shared folder, with a descriptor while one can be spared.

There is one place for a name in a directory, so a rename moves all that is below. Descriptors (O_PATH) are taken away
from places that were not used for long; they are found again by their names, and have to be the same inode. A place
whose name was removed or taken over is `gone`: it keeps its descriptor as long as others can be taken.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dbt.machine.ninep.host import descend, step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import RLock

    from dbt.machine.ninep.host import Share

DEEPEST = 2048


class Place:
    """`parent` is None for the folder itself. `identity`: device, inode, kind; None before it was looked at."""

    __slots__ = ("__weakref__", "below", "fids", "gone", "handle", "identity", "name", "parent", "users")

    def __init__(self, parent: Place | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.handle = -1
        self.identity: tuple[int, int, int] | None = None
        self.gone = False
        self.fids = 0
        self.users = 0
        self.below: WeakValueDictionary[bytes, Place] = WeakValueDictionary()

    def names(self) -> list[bytes]:
        """From the folder to here."""
        found: list[bytes] = []
        place = self
        while place.parent is not None:
            found.append(place.name)
            place = place.parent
        return found[::-1]

    @property
    def depth(self) -> int:
        """How many names those are. Counted, since a rename moves all that is below."""
        depth = 0
        place = self
        while place.parent is not None:
            depth += 1
            place = place.parent
        return depth

    def within(self, other: Place) -> bool:
        """Whether it is at or below another."""
        place: Place | None = self
        while place is not None and place is not other:
            place = place.parent
        return place is not None

    def lost(self) -> bool:
        """Whether its names lead elsewhere."""
        place: Place | None = self
        while place is not None:
            if place.gone:
                return True
            place = place.parent
        return False

    @property
    def kind(self) -> int:
        """S_IFDIR and such."""
        return self.identity[2] if self.identity else 0


class Places:
    """All places of a session. `lock` is the session's, and is held in here."""

    def __init__(self, share: Share, lock: RLock) -> None:
        self.share = share
        self.lock = lock
        self.root = Place(None, b"")
        self._handles: OrderedDict[Place, None] = OrderedDict()  # with a descriptor; what was used last is at the end

    # Descriptors

    @contextmanager
    def using(self, place: Place) -> Iterator[int]:
        """A descriptor of the place, for so long. ESTALE if it is not there any more."""
        with self.lock:
            if place.handle < 0:
                self._find(place)
            self._handles.move_to_end(place)
            place.users += 1
            handle = place.handle
        try:
            yield handle
        finally:
            with self.lock:
                place.users -= 1
                self._spare(place)

    def _find(self, place: Place) -> None:
        if place.lost():
            raise OSError(errno.ESTALE, "removed")
        handle = descend(self.share.root, place.names())
        info = os.stat(handle)
        identity = info.st_dev, info.st_ino, stat.S_IFMT(info.st_mode)
        if place.identity not in {None, identity}:
            os.close(handle)
            raise OSError(errno.ESTALE, "replaced")
        place.identity = identity
        self._keep(place, handle)

    def _keep(self, place: Place, handle: int) -> None:
        place.handle = handle
        self._handles[place] = None
        if len(self._handles) > self.share.most_handles:
            idle = [old for old in self._handles if not old.users and old is not place]
            spared = next((old for old in idle if not old.gone), idle[0] if idle else None)
            if spared is not None:
                self._close(spared)

    def _spare(self, place: Place) -> None:
        """Nobody may need its descriptor any more."""
        if not place.fids and not place.users:
            self._close(place)

    def _close(self, place: Place) -> None:
        if place.handle >= 0:
            del self._handles[place]
            os.close(place.handle)
            place.handle = -1

    def hold(self, place: Place) -> None:
        """A fid is here."""
        with self.lock:
            place.fids += 1

    def leave(self, place: Place) -> None:
        """It is not any more."""
        with self.lock:
            place.fids -= 1
            self._spare(place)

    # Names

    def walk(self, place: Place, name: bytes) -> tuple[Place, os.stat_result]:
        """One step; up, only as far as the folder. The place has a descriptor until `hold` or `spare`."""
        if name in {b".", b".."}:
            if place.kind not in {0, stat.S_IFDIR}:
                raise OSError(errno.ENOTDIR, "not a directory")
            there = place.parent or place if name == b".." else place
            with self.using(there) as handle:
                return there, os.stat(handle)
        if place.depth >= DEEPEST:
            raise OSError(errno.ENAMETOOLONG, "too deep")
        with self.using(place) as directory:
            return self._enter(place, name, step(directory, name))

    def _enter(self, place: Place, name: bytes, handle: int) -> tuple[Place, os.stat_result]:
        """`handle` is what `name` is in `place`: the place for it."""
        info = os.stat(handle)
        identity = info.st_dev, info.st_ino, stat.S_IFMT(info.st_mode)
        with self.lock:
            found = place.below.get(name)
            if found is not None and found.identity not in {None, identity}:
                found.gone = True
                found = None
            if found is None:
                found = place.below[name] = Place(place, name)
            found.identity = identity
            if found.handle < 0:
                self._keep(found, handle)
            else:
                os.close(handle)
        return found, info

    def spare(self, place: Place) -> None:
        """A place that was walked through is not needed, unless a fid is there."""
        with self.lock:
            self._spare(place)

    def removed(self, place: Place, name: bytes) -> None:
        """That name does not lead there any more."""
        with self.lock:
            found = place.below.pop(name, None)
            if found is not None:
                found.gone = True

    def renamed(self, old: Place, name: bytes, new: Place, new_name: bytes) -> None:
        """A name has become another; what had that is gone."""
        with self.lock:
            if (old, name) == (new, new_name):
                return
            moved = old.below.pop(name, None)
            there = new.below.pop(new_name, None)
            if there is not None and (moved is None or there.identity != moved.identity):
                there.gone = True
            if moved is None:
                return
            if new.within(moved):  # the host has not what was known here: others have moved directories meanwhile
                moved.gone = True
                return
            moved.parent, moved.name = new, new_name
            new.below[new_name] = moved

    def close(self) -> None:
        """Give all descriptors back that nobody uses now."""
        with self.lock:
            for place in list(self._handles):
                self._spare(place)

    def named(self, names: list[bytes], *, lost: bool) -> Place:
        """The place of these names, which is not looked at."""
        with self.lock:
            place = self.root
            for name in names:
                found = place.below.get(name)
                if found is None:
                    found = place.below[name] = Place(place, name)
                place = found
            if lost:
                place = Place(place.parent, place.name)
                place.gone = True
            return place
