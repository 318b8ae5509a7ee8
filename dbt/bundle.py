"""Our own modules of the warm path in one file of the cache: importing them from there takes half the time.

Python spends most of an import on finding the file, reading it and checking its time. The bundle holds the compiled
modules behind each other, with an index, and a finder that knows nothing else. It is used where the sources cannot
change unnoticed, that is in a plain install (its RECORD is part of the build's stamp), and trusted like all compiled
code: from the user's private cache folder only.
"""

from __future__ import annotations

import marshal
import os
import sys

from dbt.engine.cache import Store, is_plain_install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

MAGIC = b"DRAGMOD1"
NAME = "modules.bundle"
# What a run that is fully cached may need; the rest is imported as usual.
PACKAGES = ("dbt", "dbt.engine", "dbt.linux", "dbt.native", "dbt.frontends", "dbt.frontends.a64", "dbt.backends")
LEFT_OUT = (
    "dbt.bundle", "dbt.launch", "dbt.cli", "dbt.api", "dbt.exits", "dbt.engine.worker", "dbt.engine.build",
    "dbt.engine.spawn", "dbt.engine.transport", "dbt.engine.workspace", "dbt.engine.children", "dbt.engine.failures",
    "dbt.engine.promoter", "dbt.engine.region_job",
)  # fmt: skip

Index = dict[str, tuple[int, int, bool, str]]  # name: offset, size, whether it is a package, source file


class BundleFinder:
    """A finder and loader (importlib.abc) over a bundle's bytes."""

    def __init__(self, data: bytes, index: Index, start: int) -> None:
        self._data = memoryview(data)
        self._index = index
        self._start = start
        self._spec = type(sys.__spec__)

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> object:
        """The spec of a module that the bundle has."""
        entry = self._index.get(name)
        if entry is None:
            return None
        _, _, is_package, origin = entry
        spec = self._spec(name, self, origin=origin, is_package=is_package)  # type: ignore[arg-type] # no importlib here
        if is_package and spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(origin.rpartition("/")[0])
        return spec

    def create_module(self, _spec: object) -> None:
        """The ordinary module object will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        offset, size, _, module.__file__ = self._index[module.__name__]
        at = self._start + offset
        exec(marshal.loads(self._data[at : at + size]), module.__dict__)  # noqa: S102, S302 - our own code


def use_bundle() -> None:
    """Import from the bundle from now on, where there is one for this build."""
    if not is_plain_install():
        return
    try:
        store = Store(quiet=True)
        fd = os.open(store.path(NAME), os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, os.fstat(fd).st_size)  # not mapped: a file that gets shorter would be our end
        finally:
            os.close(fd)
    except Exception:  # noqa: BLE001 - whatever it is, imports work without; the engine complains about the cache
        return
    found = read_bundle(data, store.stamp)
    if found is not None:
        sys.meta_path.insert(0, found)  # type: ignore[arg-type]


def read_bundle(data: bytes, stamp: str) -> BundleFinder | None:
    """A finder over a bundle file, None if it is not of this build or damaged."""
    text = stamp.encode()
    head = len(MAGIC) + 8
    if data[: len(MAGIC)] != MAGIC or len(data) < head:
        return None
    size = int.from_bytes(data[len(MAGIC) : head], "little")
    start = head + size
    try:
        found, total, index = marshal.loads(data[head:start])  # noqa: S302
    except (EOFError, ValueError, TypeError):
        return None
    if found != text or total != len(data) - start:
        return None
    return BundleFinder(data, index, start)


def bundle_bytes(stamp: str) -> bytes:
    """A bundle of this installation's modules."""
    from importlib.util import find_spec

    index: Index = {}
    body = bytearray()
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        folder = os.path.dirname(spec.origin)
        for entry in sorted(os.listdir(folder)):
            stem, extension = os.path.splitext(entry)
            name = package if stem == "__init__" else f"{package}.{stem}"
            if extension != ".py" or name in LEFT_OUT:
                continue
            if stem not in WARM_STEMS.get(package, (stem,)):
                continue
            path = os.path.join(folder, entry)
            with open(path, "rb") as file:
                code: CodeType = compile(file.read(), path, "exec", dont_inherit=True, optimize=2)
            data = marshal.dumps(code)
            index[name] = (len(body), len(data), stem == "__init__", path)
            body += data
    head = marshal.dumps((stamp.encode(), len(body), index))
    return MAGIC + len(head).to_bytes(8, "little") + head + bytes(body)


# Of packages that are mostly not for the warm path: the modules that are.
WARM_STEMS = {
    "dbt.native": ("__init__", "function", "types"),
    "dbt.frontends": ("__init__",),
    "dbt.frontends.a64": ("__init__", "state", "helpers"),
    "dbt.backends": ("__init__",),
}
