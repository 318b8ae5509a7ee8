"""The memory map as a graph of regions: RAM, ROM, ROM device, MMIO, alias, windows, container.

A region has a size and no address: a container places it. Placements may overlap: the higher priority wins, among
equal ones the later. Priorities are compared within one container only. A container is transparent where nothing is
placed. An alias shows a part of another region at a second place, windows show several parts at their own. A region is
in one container at most; the graph has no cycles. Everything may change while the machine runs, under the machine's
lock: spaces that show the region get a new view of what changed at once, or at the end of `with container.changes():`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, cast

from dbt.machine.errors import BusError, MapError
from dbt.machine.memory.access import MASKS, AccessSizes, Attributes
from dbt.machine.memory.extents import Extents, clipped, moved, union
from dbt.machine.memory.ram import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = AccessSizes()


class Handler(Protocol):
    """What an MMIO region calls: offsets are the region's own, `value` has `size` bytes."""

    def read(self, offset: int, size: int, attributes: Attributes) -> int: ...
    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None: ...


class Viewer(Protocol):
    """An address space, as regions see it."""

    def update(self, extents: Extents) -> None: ...


class Region:
    """What all have: `name`, `size`, whether it is `enabled`, and who shows it."""

    kind = "region"

    def __init__(self, name: str, size: int) -> None:
        if not 0 < size <= 1 << 64:
            raise MapError(f"region {name}: size {size:#x} is not in 1 to 2**64")
        self.name = name
        self.size = size
        self.parent: Container | None = None
        self.at = 0  # of the parent's
        self._enabled = True
        self._shown_by: list[Alias | Windows] = []
        self._viewers: list[Viewer] = []

    @property
    def enabled(self) -> bool:
        """Whether it is there at all; in a disabled region nothing below is either."""
        return self._enabled

    @enabled.setter
    def enabled(self, on: bool) -> None:
        if on != self._enabled:
            self._enabled = on
            self.changed()

    def below(self) -> Iterator[Region]:
        """The regions that this one shows."""
        return iter(())

    def changed(self, extents: Extents | None = None) -> None:
        """Give all spaces that show `extents` of this region, by default all of it, a new view there.

        MapError, when all have been told, if the view of one cannot be.
        """
        changed: dict[int, Extents] = {id(self): ((0, self.size),) if extents is None else extents}
        errors: list[MapError] = []
        for region in self._above():
            here = clipped(changed.pop(id(region), ()), 0, region.size)
            if not here or region._hold(here):  # noqa: SLF001 - another region
                continue
            for viewer in region._viewers:  # noqa: SLF001 - another region
                try:
                    viewer.update(here)
                except MapError as error:
                    errors.append(error)
            for above, there in region._shown(here):  # noqa: SLF001 - another region
                changed[id(above)] = union(changed.get(id(above), ()), there)
        if errors:
            raise errors[0]

    def _above(self) -> list[Region]:
        """This region and all that show it, each behind those below it that are among them."""
        order: list[Region] = []
        seen = {id(self)}
        todo: list[tuple[Region, Iterator[Region]]] = [(self, self._showing())]
        while todo:
            region, rest = todo[-1]
            above = next(rest, None)
            if above is None:
                order.append(region)
                todo.pop()
            elif id(above) not in seen:
                seen.add(id(above))
                todo.append((above, above._showing()))  # noqa: SLF001 - another region
        return order[::-1]

    def _showing(self) -> Iterator[Region]:
        return iter((*self._shown_by, *([self.parent] if self.parent else [])))

    def _shown(self, extents: Extents) -> Iterator[tuple[Region, Extents]]:
        """Where what is next above shows `extents` of this region."""
        for other in self._shown_by:
            yield other, other.showing(extents)
        if self.parent is not None:
            yield self.parent, moved(extents, self.at)

    def _hold(self, extents: Extents) -> bool:
        """Whether these changes wait for others."""
        del extents
        return False

    def viewed(self, viewer: Viewer, on: bool) -> None:
        """`viewer` is a space with this region as its root, or is one no more."""
        if on:
            self._viewers.append(viewer)
        else:
            self._viewers.remove(viewer)

    def reaches(self, other: Region) -> bool:
        """Whether `other` is this region or below it."""
        todo: list[Region] = [self]
        seen = set()
        while todo:
            region = todo.pop()
            if region is other:
                return True
            if id(region) not in seen:
                seen.add(id(region))
                todo.extend(region.below())
        return False

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} {self.size:#x}>"


class Direct(Region):
    """A region of bytes: devices and native code reach them without a call. See the subclasses."""

    writable = True

    def __init__(self, name: str, size: int, memory: Memory | None = None) -> None:
        super().__init__(name, size)
        if memory is not None and memory.size < size:
            raise MapError(f"region {name}: {size:#x} bytes of a memory of {memory.size:#x}")
        self.memory = memory or Memory(name, size)


class RAM(Direct):
    """Memory that is read and written."""

    kind = "ram"


class ROM(Direct):
    """Memory that the guest only reads: its writes are dropped and logged."""

    kind = "rom"
    writable = False


class MMIO(Region):
    """Accesses are calls of a device's handler, made with the sizes and the byte order that the device declares."""

    kind = "mmio"

    def __init__(self, name: str, size: int, handler: Handler, sizes: AccessSizes = ANY) -> None:
        super().__init__(name, size)
        if size % sizes.implemented[0]:
            raise MapError(f"region {name}: {size:#x} is no multiple of the smallest access, {sizes.implemented[0]}")
        self.handler = handler
        self.sizes = sizes
        self._direct = sizes.direct
        self._aligned = 0 if sizes.unaligned else -1
        self._busy = False

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """What the device answers. BusError for sizes and places that it does not take, and from within itself."""
        if self._busy:
            raise BusError(offset, size, write=False, reason=f"{self.name} is within an access already")
        self._busy = True
        try:
            if size in self._direct and not offset & (size - 1):
                return self.handler.read(offset, size, attributes) & MASKS[size]
            step = self._step(offset, size, write=False)
            first = offset & -step
            order = cast("Literal['little', 'big']", self.sizes.order)
            data = b"".join(
                (self.handler.read(at, step, attributes) & MASKS[step]).to_bytes(step, order)
                for at in range(first, offset + size, step)
            )
            return int.from_bytes(data[offset - first : offset - first + size], "little")
        finally:
            self._busy = False

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """Give the device `value`, as above."""
        if self._busy:
            raise BusError(offset, size, write=True, reason=f"{self.name} is within an access already")
        self._busy = True
        try:
            if size in self._direct and not offset & (size - 1):
                self.handler.write(offset, size, value & MASKS[size], attributes)
                return
            step = self._step(offset, size, write=True)
            first = offset & -step
            order = cast("Literal['little', 'big']", self.sizes.order)
            data = bytes(offset - first) + (value & MASKS[size]).to_bytes(size, "little")
            data += bytes(-len(data) % step)
            for at in range(0, len(data), step):
                self.handler.write(first + at, step, int.from_bytes(data[at : at + step], order), attributes)
        finally:
            self._busy = False

    def _step(self, offset: int, size: int, *, write: bool) -> int:
        if reason := self.sizes.refuses(offset, size):
            raise BusError(offset, size, write=write, reason=f"{self.name}: {reason}")
        return self.sizes.step(offset, size)


class ROMDevice(MMIO):
    """Memory whose writes are calls (flash): reads are direct while `direct`, and calls as well while it is not."""

    kind = "rom device"

    def __init__(
        self, name: str, size: int, handler: Handler, sizes: AccessSizes = ANY, memory: Memory | None = None
    ) -> None:
        super().__init__(name, size, handler, sizes)
        if memory is not None and memory.size < size:
            raise MapError(f"region {name}: {size:#x} bytes of a memory of {memory.size:#x}")
        self.memory = memory or Memory(name, size)
        self._reads_direct = True

    @property
    def direct(self) -> bool:
        """Whether reads go to the memory; else they are calls."""
        return self._reads_direct

    @direct.setter
    def direct(self, on: bool) -> None:
        if on != self._reads_direct:
            self._reads_direct = on
            self.changed()


class Alias(Region):
    """`size` bytes of `target` from `offset` on, at a second place; what is beyond the target's end is transparent."""

    kind = "alias"

    def __init__(
        self, name: str, target: Region, offset: int = 0, size: int | None = None, *, readonly: bool = False
    ) -> None:
        super().__init__(name, target.size - offset if size is None else size)
        if offset < 0:
            raise MapError(f"alias {name}: offset {offset}")
        self.target = target
        self.offset = offset
        self._readonly = readonly
        target._shown_by.append(self)  # noqa: SLF001 - another region

    @property
    def readonly(self) -> bool:
        """Whether writes through the alias are dropped."""
        return self._readonly

    @readonly.setter
    def readonly(self, on: bool) -> None:
        if on != self._readonly:
            self._readonly = on
            self.changed()

    def below(self) -> Iterator[Region]:
        """The target."""
        yield self.target

    def showing(self, extents: Extents) -> Extents:
        """Where the alias shows these of its target."""
        return moved(clipped(extents, self.offset, self.offset + self.size), -self.offset)

    def close(self) -> None:
        """Be an alias no more: the target forgets it. It must not be placed."""
        if self.parent is not None:
            raise MapError(f"alias {self.name} is still in {self.parent.name}", "remove it from there first")
        self.target._shown_by.remove(self)  # noqa: SLF001 - another region


class Windows(Region):
    """Parts of `target` at their own offsets: what a bridge passes on. They change often, so they are no aliases."""

    kind = "windows"

    def __init__(self, name: str, target: Region) -> None:
        super().__init__(name, target.size)
        self.target = target
        self._ranges: tuple[tuple[int, int], ...] = ()
        target._shown_by.append(self)  # noqa: SLF001 - another region

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of what is shown, without overlap."""
        return self._ranges

    @ranges.setter
    def ranges(self, ranges: tuple[tuple[int, int], ...]) -> None:
        if ranges != self._ranges:
            differing = set(self._ranges) ^ set(ranges)
            self._ranges = ranges
            self.changed(union(differing))

    def below(self) -> Iterator[Region]:
        """The target."""
        yield self.target

    def showing(self, extents: Extents) -> Extents:
        """Where the windows show these of their target."""
        return union(part for start, end in self._ranges for part in clipped(extents, start, end))


class Container(Region):
    """A region of placed regions."""

    kind = "container"

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size)
        self.placements: list[tuple[int, int, Region]] = []  # (priority, offset, region), what wins first
        self._held = 0
        self._pending: Extents = ()

    def place(self, region: Region, at: int, priority: int = 0) -> None:
        """Put `region` at `at`. It may reach over the container's end: that part is not seen."""
        if region.parent is not None:
            raise MapError(f"{region.name} is in {region.parent.name} already", "place an Alias of it")
        if at < 0:
            raise MapError(f"{region.name} at {at} of {self.name}: offsets start at 0")
        if region.reaches(self):
            raise MapError(f"{region.name} cannot be in {self.name}, which it contains or shows itself")
        region.parent = self
        self._insert(region, at, priority)
        self.changed(((at, at + region.size),))

    def _insert(self, region: Region, at: int, priority: int) -> None:
        region.at = at
        places = self.placements
        index = next((i for i, (other, _, _) in enumerate(places) if other <= priority), len(places))
        places.insert(index, (priority, at, region))

    def _take(self, region: Region) -> tuple[int, int]:
        for index, (priority, at, other) in enumerate(self.placements):
            if other is region:
                del self.placements[index]
                return priority, at
        raise MapError(f"{region.name} is not in {self.name}")

    def remove(self, region: Region) -> None:
        """Take `region` out; it may be placed elsewhere then."""
        _, at = self._take(region)
        region.parent = None
        self.changed(((at, at + region.size),))

    def move(self, region: Region, at: int, priority: int | None = None) -> None:
        """Put a region of this container elsewhere in it; among equal priorities it counts as the latest."""
        if at < 0:
            raise MapError(f"{region.name} at {at} of {self.name}: offsets start at 0")
        old, before = self._take(region)
        self._insert(region, at, old if priority is None else priority)
        self.changed(union(((before, before + region.size), (at, at + region.size))))

    def below(self) -> Iterator[Region]:
        """The placed regions."""
        return (region for _, _, region in self.placements)

    @contextmanager
    def changes(self) -> Iterator[None]:
        """Several changes in and below this container, shown all at once at the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and self._pending:
                pending, self._pending = self._pending, ()
                self.changed(pending)

    def _hold(self, extents: Extents) -> bool:
        if self._held:
            self._pending = union(self._pending, extents)
        return self._held > 0
