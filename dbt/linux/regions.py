"""System calls on memory: brk, mmap, munmap, mprotect, mremap, madvise, mincore (linux/mm)."""

from __future__ import annotations

import os

from .abi import EBADF, EEXIST, EFAULT, EINVAL, ENOMEM, EPERM, PAGE, page_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_MSYNC, _HOST_MINCORE, _HOST_MADVISE, _HOST_MLOCK, _HOST_MUNLOCK, _HOST_MLOCK2 = 26, 27, 28, 149, 150, 325
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NOREPLACE = 1, 2, 0x10, 0x20, 0x100000
MAP_NORESERVE = 0x4000
_PROT, _PROT_IGNORED = 7, 0x10 | 0x20  # BTI, MTE
_LOWEST = 0x10000  # vm.mmap_min_addr
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
# madvise(2): hints and DONTNEED, FREE, REMOVE, WIPEONFORK, … that concern nothing but the guest's own pages.
_ADVICE = frozenset((0, 1, 2, 3, 4, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23))
_POPULATE = frozenset((22, 23))
_ADVICE_IGNORED = frozenset((10, 11))  # DONTFORK would tear a hole into the reserved range


def _physical() -> int:
    """Bytes of memory in the machine: the kernel refuses what obviously overcommits it (vm.overcommit_memory 0)."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE


def sys_brk(process: Process, end: int, *_: int) -> int:
    """Move the end of the heap; answers where it is, moved or not."""
    if end < process.brk_start or end > process.mmap_top:
        return process.brk
    old, new = page_up(process.brk), page_up(end)
    memory = process.memory
    try:
        if new > old:
            if new - old > _physical():
                return process.brk
            if memory.overlapping(old, new + PAGE):
                return process.brk
            memory.map(old, new - old, 3, name="[heap]")
        elif new < old:
            memory.unmap(new, old - new)
    except OSError:
        return process.brk
    process.brk = end
    return end


def sys_mmap(process: Process, address: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """Map memory or a file."""
    memory = process.memory
    size = page_up(length)
    if not size or offset % PAGE or not flags & 3:
        return -EINVAL
    if size >= process.limit:
        return -ENOMEM
    anonymous = bool(flags & MAP_ANONYMOUS)
    if anonymous and not flags & MAP_NORESERVE and size > _physical():
        return -ENOMEM
    number = -1 if anonymous else process.descriptor(fd)
    if number < 0 and not anonymous:
        return -EBADF
    if flags & (MAP_FIXED | MAP_NOREPLACE):
        if address % PAGE or address + size > process.limit:
            return -EINVAL if address % PAGE else -ENOMEM
        if address < _LOWEST:
            return -EPERM
        if flags & MAP_NOREPLACE and memory.overlapping(address, address + size):
            return -EEXIST
    else:
        address = memory.find_free(size, address if address + size < process.mmap_top else 0, process.mmap_top)
        if not address:
            return -ENOMEM
    name = "" if anonymous else _file_name(number)
    if flags & 3 == 3:
        flags &= ~MAP_PRIVATE
    kept = flags & (MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)  # the others change nothing that is seen
    memory.map(address, size, prot & _PROT, kept, number, 0 if anonymous else offset, name)
    return address


def _file_name(fd: int) -> str:
    """What /proc/self/maps shows for a file; never empty, since an empty name means anonymous memory."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "/"


def _range(process: Process, address: int, length: int) -> int:
    """The rounded size of a range that must start at a page; raises OSError."""
    size = page_up(length)
    if address % PAGE or size < length or address + size > process.limit:
        raise OSError(EINVAL, os.strerror(EINVAL))
    return size


def _covered(process: Process, address: int, size: int) -> bool:
    """Whether all pages of a range are mapped."""
    at = address
    for area in process.memory.overlapping(address, address + size):
        if area.start > at:
            return False
        at = area.end
    return at >= address + size


def sys_munmap(process: Process, address: int, length: int, *_: int) -> int:
    """Unmap pages."""
    size = _range(process, address, length)
    if not size:
        return -EINVAL
    process.memory.unmap(address, size)
    return 0


def sys_mprotect(process: Process, address: int, length: int, prot: int, *_: int) -> int:
    """Change rights of pages."""
    if address % PAGE or prot & ~(_PROT | _PROT_IGNORED):
        return -EINVAL
    if address + page_up(length) > process.limit:
        return -ENOMEM
    if length:
        process.memory.protect(address, length, prot & _PROT)
    return 0


def sys_mremap(process: Process, old: int, old_length: int, length: int, flags: int, new: int, *_: int) -> int:
    """Resize or move a mapping."""
    old_size, size = _range(process, old, old_length), page_up(length)
    if not size or not old_size or flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED):
        return -EINVAL
    if flags & MREMAP_FIXED:
        return _move_to(process, old, old_size, new, size) if flags & MREMAP_MAYMOVE else -EINVAL
    memory = process.memory
    # What has grown in its place is several mappings here, and one to the kernel.
    if not _covered(process, old, min(old_size, size)):
        return -EFAULT
    if size <= old_size:
        if size < old_size:
            memory.unmap(old + size, old_size - size)
        return old
    area = memory.area_at(old + old_size - 1)
    assert area is not None
    anonymous = not area.name and not area.shared
    end, more = old + size, size - old_size
    if anonymous and more > _physical():
        return -ENOMEM
    if anonymous and end <= process.limit and not memory.overlapping(old + old_size, end):
        memory.map(old + old_size, more, area.prot)
        return old
    if not flags & MREMAP_MAYMOVE:
        return -ENOMEM
    found = memory.find_free(size, 0, process.mmap_top)
    if not found:
        return -ENOMEM
    return _move(process, old, old_size, found, size)


def _move_to(process: Process, old: int, old_size: int, new: int, size: int) -> int:
    """mremap with MREMAP_FIXED."""
    if new % PAGE or new + size > process.limit or (new < old + old_size and old < new + size):
        return -EINVAL
    if size < old_size:
        process.memory.unmap(old + size, old_size - size)
        old_size = size
    return _move(process, old, old_size, new, size)


def _move(process: Process, old: int, old_size: int, new: int, size: int) -> int:
    """Move pages; memory that was mapped piece by piece is moved piece by piece."""
    memory = process.memory
    pieces = [area.part(max(area.start, old), min(area.end, old + old_size))
              for area in memory.overlapping(old, old + old_size)]  # fmt: skip
    if not pieces or sum(piece.end - piece.start for piece in pieces) != old_size:
        return -EFAULT
    for piece in pieces:
        span = piece.end - piece.start
        target = new + piece.start - old
        last = piece.end == old + old_size
        memory.move(piece.start, span, target, span + (size - old_size if last else 0))
    return new


def sys_madvise(process: Process, address: int, length: int, advice: int, *_: int) -> int:
    """Tell how memory will be used, or that it is not needed."""
    size = _range(process, address, length)
    if advice in _ADVICE_IGNORED or not size:
        return 0
    if advice not in _ADVICE:
        return -EINVAL
    if not _covered(process, address, size) or (advice in _POPULATE and size > _physical()):
        return -ENOMEM
    process.memory.on_code_change(address, address + size)
    return int(process.call(_HOST_MADVISE, process.pointer(address, size), size, advice))


def sys_mincore(process: Process, address: int, length: int, vector: int, *_: int) -> int:
    """Which pages are in memory."""
    size = _range(process, address, length)
    if not _covered(process, address, size):
        return -ENOMEM
    where = process.pointer(vector, size // PAGE)
    return int(process.call(_HOST_MINCORE, process.pointer(address, size), size, where))


def _on_range(process: Process, host: int, address: int, length: int, *flags: int) -> int:
    """Make a call on pages that must all be mapped: for the host those that are not are just reserved."""
    start = address & -PAGE
    size = page_up(address - start + length)
    if start + size > process.limit or size > _physical() or not _covered(process, start, size):
        return -ENOMEM
    return int(process.call(host, process.pointer(address, length), length, *flags))


def sys_msync(process: Process, address: int, length: int, flags: int, *_: int) -> int:
    """Write mapped files back."""
    return -EINVAL if address % PAGE else _on_range(process, _HOST_MSYNC, address, length, flags)


def sys_mlock(process: Process, address: int, length: int, *_: int) -> int:
    """Lock pages."""
    return _on_range(process, _HOST_MLOCK, address, length)


def sys_munlock(process: Process, address: int, length: int, *_: int) -> int:
    """Unlock pages."""
    return _on_range(process, _HOST_MUNLOCK, address, length)


def sys_mlock2(process: Process, address: int, length: int, flags: int, *_: int) -> int:
    """Lock pages, with flags."""
    return _on_range(process, _HOST_MLOCK2, address, length, flags)
