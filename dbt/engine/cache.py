"""The cache of compiled code: where it is, what identifies it, who builds what is missing.

    <cache>/<build>/runtime.image     the native runtime
    <cache>/<build>/machine.image     native parts of machines
    <cache>/<build>/<guest>.tables    decoder tables
    <cache>/<build>/<guest>.pack      stencils, growing as guests need them
    <cache>/<build>/<guest>.handlers  the interpreter's handlers, likewise
    <cache>/<build>/<guest>.superinstructions  those of its hot blocks, likewise
    <cache>/<build>/<guest>.pack.failed  stencils that LLVM does not survive, why; <guest>.handlers.failed likewise
    <cache>/<build>/<guest>.regions.failed  the same of regions
    <cache>/<build>/modules.bundle    our Python modules, see dbt/bundle.py

A build is identified by a stamp: version, our source files (name, size, time), LLVM bindings, and the host CPU's
features. The warm path compares it, and neither hashes nor imports. Code is only ever trusted from a folder of mode
0700 that belongs to the user (DESIGN, section 5). Where a file cannot be written it is kept in memory (`Store.kept`).
"""

from __future__ import annotations

import os
import stat
import sys

from dbt.errors import CacheUnusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .build import Answer
    from .image import Image

    Job = tuple[Any, ...]  # see worker.py

SOURCE_FOLDERS = (
    ("dbt", ("native", "engine", "ir", "ir/passes")),
    ("frontends", ("", "a64")),
    ("backends", ("", "llvm", "reference")),
    ("machine", ("native",)),
)
BUILD_DIGITS = 16
PACKS = {"stencils": "pack", "handlers": "handlers"}  # what the worker's jobs make: ends of file names
BUILDS_KEPT = 4
LINE = 600  # characters of what is said in one line


def cache_root(environment: dict[str, str] | os._Environ[str] | None = None) -> str:
    """The folder that holds all builds: $XDG_CACHE_HOME/dragoman or ~/.cache/dragoman."""
    env = os.environ if environment is None else environment
    base = env.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = env.get("HOME", "")
        if not os.path.isabs(home):
            raise CacheUnusable("~/.cache/dragoman", "HOME is not set", "Set HOME or XDG_CACHE_HOME.")
        base = os.path.join(home, ".cache")
    return os.path.join(base, "dragoman")


def check_private(folder: str) -> None:
    """Raise CacheUnusable unless `folder` is a real folder of ours that nobody else can write."""
    info = os.lstat(folder)
    if not stat.S_ISDIR(info.st_mode):
        raise CacheUnusable(folder, "not a folder (symbolic links are not followed)", "Remove it.")
    if info.st_uid != os.geteuid():
        raise CacheUnusable(folder, f"belongs to user {info.st_uid}", "Set XDG_CACHE_HOME to a folder of your own.")
    if info.st_mode & 0o077:
        raise CacheUnusable(folder, f"others have rights on it (mode {info.st_mode & 0o777:o})", f"chmod 700 {folder}")


def make_private(folder: str) -> None:
    """Create a folder of mode 0700 (and what leads to it), or check that it is one."""
    try:
        try:
            check_private(folder)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                check_private(folder)
    except OSError as error:
        raise CacheUnusable(
            folder, os.strerror(error.errno or 0), "Set XDG_CACHE_HOME to a folder that can be written."
        ) from error


def record_path() -> str:
    """Where pip notes the files of a plain install of ours; the file is not there in a checkout or editable install."""
    import dbt
    from dbt.version import VERSION

    return os.path.join(os.path.dirname(os.path.dirname(dbt.__file__ or "")), f"dragoman-{VERSION}.dist-info", "RECORD")


def is_plain_install() -> bool:
    """Whether our sources were installed by pip as they are, so that they change with its RECORD or not at all."""
    return os.path.exists(record_path())


def source_stamp() -> str:
    """What identifies our sources: the installation, or names, sizes and times of all that compiled code depends on."""
    lines = [f"dragoman python {sys.implementation.cache_tag}"]
    try:
        info = os.stat(record_path())
        return f"{lines[0]} installed {info.st_dev} {info.st_ino} {info.st_size} {info.st_mtime_ns}"
    except OSError:
        pass
    import dbt
    import dbt.backends
    import dbt.frontends
    import dbt.machine

    roots = {
        "dbt": dbt.__file__, "frontends": dbt.frontends.__file__, "backends": dbt.backends.__file__,
        "machine": dbt.machine.__file__,
    }  # fmt: skip
    for root, folders in SOURCE_FOLDERS:
        top = os.path.dirname(roots[root] or "")
        for folder in folders:
            lines += sorted(
                f"{root}/{folder}/{entry.name} {info.st_size} {info.st_mtime_ns}"
                for entry in os.scandir(os.path.join(top, folder))
                if entry.name.endswith(".py") and (info := entry.stat())
            )
    return "\n".join(lines)


def bindings_stamp() -> str:
    """Which llvmlite is installed, without importing it."""
    for folder in sys.path:
        try:
            info = os.stat(os.path.join(folder, "llvmlite", "_version.py"))
        except OSError:
            continue
        return f"llvmlite {info.st_size} {info.st_mtime_ns}"
    return "llvmlite none"


def host_stamp() -> str:
    """The host's architecture and the features of its (first) CPU."""
    machine = os.uname().machine
    try:
        fd = os.open("/proc/cpuinfo", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return machine
    try:
        text = os.read(fd, 4096)  # the kernel writes it CPU by CPU: the first one is enough
    finally:
        os.close(fd)
    wanted = [line for line in text.split(b"\n") if line.startswith((b"flags", b"model name", b"Features"))]
    return machine + " " + b" ".join(wanted[:2]).decode("ascii", "replace")


def build_name(stamp: str) -> str:
    """A short form of a stamp, for a folder's name; the stamp itself is compared as well."""
    number = int.from_bytes(stamp.encode(), "little") % ((1 << 89) - 1)
    return f"{number & ((1 << 64) - 1):0{BUILD_DIGITS}x}"


_said: set[str] = set()  # kinds of trouble that this process has told the user about
_kept: dict[str, dict[str, bytes]] = {}  # by the folder that they should be in


def say_once(kind: str, text: str, *, quiet: bool = False) -> None:
    """A line on standard error about trouble that the guest goes on with, unless one of this kind was said before."""
    if quiet or kind in _said or sys.stderr is None:
        return
    _said.add(kind)
    try:
        sys.stderr.write("dragoman: " + " ".join(text.split())[:LINE] + "\n")
    except (OSError, ValueError):  # the guest has closed it
        return


class Store:
    """The part of the cache that belongs to this build. Everything in it is made on demand."""

    def __init__(self, root: str = "", *, quiet: bool = False, files: bool = True) -> None:
        """`files`: without them everything is kept in the memory of this process. Raises CacheUnusable, OSError."""
        self.quiet = quiet
        self.stamp = f"{source_stamp()}\n{bindings_stamp()}\n{host_stamp()}"
        self.build_name = build_name(self.stamp)
        self.root = self.folder = ""
        if files:
            self.root = root or cache_root()
            make_private(self.root)
            self.folder = os.path.join(self.root, self.build_name)
            make_private(self.folder)
        self.kept = _kept.setdefault(self.folder, {})

    def path(self, name: str) -> str:
        """The path of a file of this build; where nothing is written, a name to speak of it."""
        return os.path.join(self.folder, name) if self.folder else name

    def has(self, name: str) -> bool:
        """Whether there is such a file, here or in memory."""
        return name in self.kept or (bool(self.folder) and os.path.exists(self.path(name)))

    def open(self, name: str) -> int:
        """A descriptor of a file. Raises OSError."""
        if name in self.kept:
            from .hostmem import memory_file

            return memory_file(self.kept[name])
        if not self.folder:
            raise FileNotFoundError(2, os.strerror(2), name)
        return os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)

    def prepare(self, guest: str, job: str = "stencils") -> None:
        """See to it that all files are there that a guest needs to start, in one go. `job`: one of PACKS."""
        if not all(self.has(name) for name in ("runtime.image", f"{guest}.tables", f"{guest}.{PACKS[job]}")):
            forget_old_builds(self)
            self.build([("image",), ("modules",), ("tables", guest), (job, guest, ())])

    def image(self, name: str = "runtime.image", job: str = "image") -> Image:
        """The native runtime, or another image, loaded."""
        from .image import ImageError

        try:
            return self._load_image(name)
        except (ImageError, OSError) as error:
            self.rebuild(name, (job,), str(error))
            return self._load_image(name)

    def _load_image(self, name: str) -> Image:
        from .hostmem import open_to_run
        from .image import load_image

        try:
            fd = open_to_run(self.open(name))
        except OSError:
            if name not in self.kept:
                raise
            return load_image(self.path(name), self.stamp, data=self.kept[name])
        return load_image(self.path(name), self.stamp, fd)

    def rebuild(self, name: str, job: Job, why: str) -> None:
        """Replace a file that is damaged, and say so."""
        say_once(f"damaged {name}", f"{why}; building it again", quiet=self.quiet)
        self.kept.pop(name, None)
        self.build([("again", name), job])

    def fetch(self, name: str, job: Job, why: str) -> None:
        """Get a file that cannot be opened from the worker, who may: a guest may have changed its root or its user."""
        say_once(f"damaged {name}", f"{why}; it is built again, if the worker cannot read it either", quiet=self.quiet)
        self.build([("give", name), job])

    def compile(self, guest: str, stencils: Iterable[int], job: str = "stencils") -> dict[int, str]:
        """Compile stencils (indices as in EXIT_STENCIL) into the pack; those that are there already are kept.

        Returns why by the index of those that cannot be compiled.
        """
        return self.build([(job, guest, tuple(sorted(stencils)))])

    def build(self, jobs: list[Job]) -> dict[int, str]:
        """Have the worker build what is missing. Raises InternalError with what it said if it fails."""
        from .build import run_worker  # the cold path

        answer = run_worker(self, jobs)
        self.accept(answer)
        return answer.failed

    def accept(self, answer: Answer) -> None:
        """Keep the files that are not in the cache, and say what the worker has to say."""
        for name, data in answer.files.items():
            if data is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = data
        for kind, text in answer.trouble.items():
            say_once(kind, text, quiet=self.quiet)


def forget_old_builds(store: Store) -> None:
    """Keep the builds that were used last, of other versions and machines, and remove the rest."""
    try:
        builds = [entry for entry in os.scandir(store.root) if entry.is_dir(follow_symlinks=False)]
        builds.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    except OSError:  # it was removed, or there is none
        return
    for entry in builds[BUILDS_KEPT:]:
        if entry.path != store.folder:
            import shutil

            shutil.rmtree(entry.path, ignore_errors=True)


def open_store(*, quiet: bool = False) -> Store:
    """The user's cache; where it cannot be used, the memory of this process, with a warning."""
    try:
        return Store(quiet=quiet)
    except (CacheUnusable, OSError) as error:
        if isinstance(error, CacheUnusable):
            text = f"{error.what}. {error.hint}"
        else:
            text = f"cache {error.filename}: {error.strerror}."
        say_once("cache", f"{text} Compiled code is not kept.", quiet=quiet)
        return Store(quiet=quiet, files=False)
