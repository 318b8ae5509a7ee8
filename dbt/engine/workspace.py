"""The files of one build as the worker sees them: in the cache, or in its memory where the cache cannot be written.

What is in memory goes to the supervisor with the answer, so the guest goes on; each answer tries the cache again for
what it makes. A cache that was removed is made again, one that is not ours alone any more is neither read nor written.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from dbt.errors import CacheUnusable

from .cache import Store, check_private, make_private
from .files import write_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK_PATIENCE: Final = 30.0  # seconds for which another worker may keep its lock; then nothing is written
_LOOK: Final = 0.05


class Workspace:
    """Contents of files by their names."""

    def __init__(self, root: str, build: str) -> None:
        """`root` of the cache, '' for none, and `build` as the supervisor knows them."""
        self.current = Store(quiet=True, files=False)
        self.stamp = self.current.stamp
        self.matches = build == self.current.build_name
        self._root = root
        self._folder = os.path.join(root, build) if root else ""
        self._memory: dict[str, bytes] = {}
        self._usable = False
        self._again: set[str] = set()  # files that the supervisor could not use
        self.changed: dict[str, bytes | None] = {}  # since the request: what is in memory, None: in the cache again
        self.trouble: dict[str, str] = {}

    def begin(self, known: dict[str, bytes]) -> None:
        """A request: `known` are files that the supervisor has in memory."""
        self._memory.update(known)
        self.changed, self.trouble = {}, {}
        self._usable = bool(self._folder)
        if not self._folder:
            return
        try:
            there = os.path.isdir(self._folder)
            make_private(self._root)
            make_private(self._folder)
            check_private(self._root)
        except (CacheUnusable, OSError) as error:
            self._cannot(error)
            return
        if not there:
            self.trouble["removed"] = f"cache {self._folder}: it was removed while it was in use, and is made again"

    @contextmanager
    def locked(self, alive: Callable[[], None]) -> Iterator[None]:
        """One worker at a time for a folder; `alive` is called while there is another one."""
        lock = -1
        if self._usable:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                lock = os.open(os.path.join(self._folder, "lock"), flags, 0o600)
            except OSError as error:
                # A folder that can be read only is read: files in it are whole, whoever writes them.
                self._trouble(error)
        try:
            if lock >= 0 and not _taken(lock, alive):
                self._cannot(TimeoutError(f"its lock was not free for {LOCK_PATIENCE:.0f} s"))
            yield
        finally:
            if lock >= 0:
                os.close(lock)

    def forget(self, name: str) -> None:
        """The supervisor could not use this file: it has to be made again."""
        self._memory.pop(name, None)
        self._again.add(name)
        if self._usable:
            with suppress(OSError):
                os.unlink(os.path.join(self._folder, name))

    def give(self, name: str) -> None:
        """The supervisor cannot open this file: it is in the answer."""
        data = self.read(name)
        if data is not None:
            self.changed[name] = data

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.read(name) is not None

    def read(self, name: str) -> bytes | None:
        """The contents of a file, None if there is none."""
        if name in self._memory:
            return self._memory[name]
        if self._usable and name not in self._again:
            with suppress(OSError), open(os.path.join(self._folder, name), "rb") as file:
                return file.read()
        return None

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Put a file into the cache, or keep it in memory."""
        if self._usable:
            try:
                write_aside(os.path.join(self._folder, name), data, durable=durable)
            except OSError as error:
                self._trouble(error)
            else:
                self._again.discard(name)
                self._memory.pop(name, None)
                self.changed[name] = None
                return
        self._memory[name] = self.changed[name] = data

    def _cannot(self, error: Exception) -> None:
        self._usable = False
        self._trouble(error)

    def _trouble(self, error: Exception) -> None:
        why = error.reason if isinstance(error, CacheUnusable) else getattr(error, "strerror", None) or str(error)
        folder = error.path if isinstance(error, CacheUnusable) else self._folder
        self.trouble.setdefault("cache", f"cache {folder}: {why}. Compiled code is kept in memory only.")


def _taken(lock: int, alive: Callable[[], None]) -> bool:
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            alive()
            time.sleep(_LOOK)
        except OSError:  # a file system without locks: files are whole in any case
            return True
        else:
            return True
