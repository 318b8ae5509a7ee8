"""Nodes: the parts of a block graph, formats over formats over protocols, and what each of them can be asked.

A node's methods do their work in the caller's thread and return when it is done: a format reads its tables with
`self.file.pread(…)` and goes on in the next line. Asynchrony is outside: `Disk` (disk.py) takes request objects and
runs these methods on its pool of workers. So

- a node is called from many threads at once and guards what it shares (see ranges.py for data, a Lock for tables);
- `try_read` is the short way for what needs no waiting: cached metadata and cached data. The submitter's thread calls
  it before it asks a worker; False means "not now", and nothing has been done;
- every error is a BlockError with the node's name, the offset and the reason.

What a format or protocol must have and may have is in the classes Format and Protocol below; how one is written is in
docs/storage-drivers.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dbt.machine.block.buffers import ZEROES
from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.options import Option
    from dbt.machine.block.request import Vectors
    from dbt.machine.block.structure import Structure


class Extent:
    """What `status` says of the `length` bytes from the offset that was asked for.

    `data`: bytes are stored, `zero`: it reads as zeroes, `allocated`: this node decides what it reads as, not its
    backing. `offset`: where the bytes are in the child `file`, None if nowhere or not as they are (`compressed`).
    """

    __slots__ = ("allocated", "compressed", "data", "length", "offset", "zero")

    def __init__(
        self, length: int, *, data: bool, zero: bool, allocated: bool = True, offset: int | None = None,
        compressed: bool = False,
    ) -> None:  # fmt: skip
        self.length = length
        self.data = data
        self.zero = zero
        self.allocated = allocated
        self.offset = offset
        self.compressed = compressed

    def __repr__(self) -> str:
        words = [word for word in ("data", "zero", "allocated", "compressed") if getattr(self, word)]
        return f"<{self.length} bytes {' '.join(words) or 'unallocated'} at {self.offset}>"


class CheckResult:
    """What `check` found, and repaired: `problems` are (offset or None, text) and stop growing at a limit."""

    LIMIT = 1000

    def __init__(self) -> None:
        self.corruptions = 0
        self.leaks = 0
        self.corruptions_fixed = 0
        self.leaks_fixed = 0
        self.errors = 0  # what could not be checked
        self.allocated_clusters = 0
        self.total_clusters = 0
        self.compressed_clusters = 0
        self.fragmented_clusters = 0
        self.image_end = 0
        self.problems: list[tuple[int | None, str]] = []

    def note(self, text: str, offset: int | None = None) -> None:
        """Keep a line for the user."""
        if len(self.problems) < self.LIMIT:
            self.problems.append((offset, text))

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong, or everything was repaired."""
        return self.corruptions == self.corruptions_fixed and self.leaks == self.leaks_fixed and not self.errors


class Measure:
    """Bytes that an image needs: for the data that was named, and if all of it were allocated."""

    def __init__(self, required: int, fully_allocated: int) -> None:
        self.required = required
        self.fully_allocated = fully_allocated


class Node:
    """One part of the graph. `size` in bytes is kept up to date by the node; `name` is what errors say."""

    driver: ClassVar[str]
    OPTIONS: ClassVar[tuple[Option, ...]] = ()
    # Whether `write` honours FUA itself; else the disk flushes after it.
    handles_fua = False

    name: str
    size: int
    writable: bool
    options: dict[str, Any]
    children: dict[str, Node]
    alignment = 1  # requests of other alignment are taken as well, and cost more

    def __init__(self, opening: Opening) -> None:
        self.name = opening.name
        self.writable = opening.writable
        self.options = opening.options
        self.children = opening.children  # filled by opening.child(...)
        self.size = 0

    @classmethod
    def label(cls, options: dict[str, Any]) -> str:
        """What errors call a node of these options that has no file name."""
        return f"{cls.driver}:{','.join(f'{k}={v}' for k, v in options.items() if v not in {None, ''})}"

    # Data. Vectors hold `length` bytes; offset + length is within the size, the caller has seen to that.

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        """Fill `vectors` from `offset` on."""
        raise NotImplementedError

    def try_read(self, offset: int, length: int, vectors: Vectors) -> bool:
        """Do `read` if that needs no waiting; False, and nothing done, else. What is in `vectors` then is anything."""
        return False

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        """Store `vectors` at `offset`."""
        raise NotImplementedError

    def flush(self) -> None:
        """Whatever was written and had completed before is on stable storage afterwards."""

    def discard(self, offset: int, length: int) -> None:
        """The content of this range is not needed; what it reads as afterwards is the node's choice."""

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """The range reads as zeroes afterwards. By default they are written."""
        for at in range(offset, offset + length, len(ZEROES)):
            piece = min(len(ZEROES), offset + length - at)
            self.write(at, piece, [memoryview(ZEROES)[:piece]])

    def status(self, offset: int, length: int) -> Extent:
        """What is at `offset`: an Extent of 1 to `length` bytes that are alike."""
        return Extent(length, data=True, zero=False, offset=offset)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        """Change the size. What is new reads as zeroes."""
        raise ImageUnsupported(self.name, f"{self.driver} cannot be resized")

    def close(self) -> None:
        """Write what is to be written and let go, children last. Called once."""
        try:
            if self.writable:
                self.flush()
        finally:
            for child in reversed(self.children.values()):
                child.close()

    # What is known about it.

    def info(self) -> dict[str, Any]:
        """What the driver knows, as JSON has it; size, name and children are added by `describe` (graph.py)."""
        return {}

    def allocated_size(self) -> int | None:
        """Bytes that are taken on the host, if that can be told."""
        file = self.children.get("file")
        return None if file is None else file.allocated_size()

    # For those above.

    def pread(self, offset: int, length: int) -> bytearray:
        """`length` bytes from `offset`. Beyond the end: an error, because it is a table that should be there."""
        if offset < 0 or offset + length > self.size:
            reason = f"{length} bytes are wanted here, and the file ends at {self.size:#x}"
            raise ImageCorrupt(self.name, reason, offset=offset)
        data = bytearray(length)
        if length:
            self.read(offset, length, [memoryview(data)])
        return data

    def pwrite(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Store `data` at `offset`."""
        if len(data):
            self.write(offset, len(data), [memoryview(data).cast("B")])

    def check_writable(self) -> None:
        """RequestRefused unless the node was opened for writing."""
        if not self.writable:
            raise RequestRefused(self.name, "was opened for reading only")


class Protocol(Node):
    """Where bytes are kept: a file, a device, a server. Reads beyond the end give zeroes; writes there grow a file.

    A protocol is a module of `protocols/` with `DRIVER = ItsClass`. Its constructor opens it.
    """

    # URI schemes, where they are not just the module's name.
    SCHEMES: ClassVar[tuple[str, ...]] = ()
    CREATE_OPTIONS: ClassVar[tuple[Option, ...]] = ()

    remote: ClassVar[bool] = False  # whether it waits for others' machines, so that many requests at once are quicker
    NEW_IS_ZERO: ClassVar[bool] = False  # what `create` has made reads as zeroes: a device that was there need not

    identity: object = None  # equal for two nodes that are the same storage: finds loops in backing chains

    @classmethod
    def parse_uri(cls, uri: str) -> dict[str, Any]:
        """The options that a URI means, as they would be given by name."""
        raise ImageUnsupported(uri, f"{cls.driver} has no URIs: use driver={cls.driver},…")

    @classmethod
    def create(cls, options: dict[str, Any], size: int, name: str) -> None:
        """Make the storage, `size` bytes of zeroes; `options` are checked OPTIONS and CREATE_OPTIONS together."""
        raise ImageUnsupported(name, f"{cls.driver} cannot make new ones: it must exist")


class Format(Node):
    """How a disk is laid out in what its child `file` keeps.

    A format is a module of `formats/` with `DRIVER = ItsClass`. Its constructor reads the headers:

        def __init__(self, opening):
            super().__init__(opening)
            self.file = opening.child("file")          # open; its options came from the user
            self.header = Header.parse(self.file.pread(0, Header.SIZE), self.name)
            self.size = …
            if name: self.backing = opening.backing(name, format)   # policy, loops and the user's wishes are seen to
    """

    # Options of `create`, apart from the size.
    CREATE_OPTIONS: ClassVar[tuple[Option, ...]] = ()
    grows = False  # whether a write beyond the end makes it larger, as with files: else see bounds.py
    file: Node
    backing: Node | None = None

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        """Whether this looks like one, by the first 64 KiB, `head`. Used for reading only."""
        return False

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        """Write an empty image of `size` bytes into `file`, which is empty; `options` are checked CREATE_OPTIONS."""
        raise ImageUnsupported(file.name, f"{cls.driver} images can be read, not made")

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        """Bytes that an image of `size` would take, with `data` (offset, length) in it."""
        raise ImageUnsupported(cls.driver, "sizes of such images cannot be told in advance")

    def structures(self) -> Iterator[tuple[str, int, Structure]]:
        """(title, offset in the file, structure) of the headers, for `info --verbose` and for the fuzzer."""
        return iter(())

    def check(self, repair: str = "") -> CheckResult:
        """Look for inconsistencies. `repair`: "" (only look), "leaks" or "all"."""
        raise ImageUnsupported(self.name, f"{self.driver} images have nothing that can be checked")

    def change_backing(self, name: str, driver: str) -> None:
        """Store another backing name ("": none) in the image; the data stays as it is."""
        raise ImageUnsupported(self.name, f"{self.driver} images have no backing file")

    def empty(self) -> None:
        """Drop all data of this node (after a commit), so that the backing shows through."""
        raise ImageUnsupported(self.name, f"{self.driver} images cannot be emptied")

    def snapshots(self) -> list[dict[str, Any]]:
        """Internal snapshots, oldest first: id, name, date, vm-size, and so on."""
        return []

    def snapshot_create(self, name: str) -> None:
        """Keep the state of now under `name`."""
        raise ImageUnsupported(self.name, f"{self.driver} has no internal snapshots")

    def snapshot_apply(self, name: str) -> None:
        """Go back to a snapshot (id or name)."""
        raise ImageUnsupported(self.name, f"{self.driver} has no internal snapshots")

    def snapshot_delete(self, name: str) -> None:
        """Forget a snapshot (id or name)."""
        raise ImageUnsupported(self.name, f"{self.driver} has no internal snapshots")
