"""Machines in files: devices, memory and disks of one moment (DESIGN, section 13).

    machine.save_file("boot.snapshot")             # disks: qcow2 keeps a snapshot of its own; read-only ones stay
    machine.save_file("boot.snapshot", include_disks=True)   # others go into the file
    other.restore_file("boot.snapshot")            # the same board, with the same disks

Saving: what is under way on disks is waited for, then devices, then memory and disks. A disk whose state can neither be
kept in itself nor is to be in the file makes the save fail. Restoring looks at everything, and unpacks it once, before
it changes anything; then come disks, memory and devices. If the host fails in the middle of that, the machine is
broken, says so to whoever uses it, and may be restored again.

container.py: the file; content.py: memory and disks in it.
"""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dbt.machine.block import BlockError, Format
from dbt.machine.errors import SnapshotError
from dbt.machine.snapshot.container import Reader, Writer
from dbt.machine.snapshot.content import Content, DiskContent, MemoryContent, checked, disks, load, memories, store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.block import Disk
    from dbt.machine.machine import Machine

THREADS = 4
READ_ONLY, WITHIN, HERE = "read-only", "snapshot", "content"  # how a disk's state is kept


@contextmanager
def _still(machine: Machine) -> Iterator[dict[str, Disk]]:
    """The machine stands still, and nothing is under way on its disks: by label.

    Disks are waited for without the machine's lock, since who has done a request takes it to say so.
    """
    while True:
        for device in machine.devices.values():
            device.settle()
        with ExitStack() as stack:
            found = dict(disks(machine))
            for disk in {id(disk): disk for disk in found.values()}.values():
                stack.enter_context(disk.drained())
            with machine.lock:
                if found == dict(disks(machine)) and not any(device.busy for device in machine.devices.values()):
                    yield found
                    return


def save(machine: Machine, path: str, *, include_disks: bool = False, threads: int = 0) -> int:
    """Write a snapshot; its size. `threads`: how many compress, by default up to four."""
    machine.whole()
    threads = threads or min(THREADS, os.cpu_count() or 1)
    name = f"dragoman-{uuid.uuid4().hex}"
    made: list[Format] = []
    with _still(machine) as found, Writer(path) as writer, ThreadPoolExecutor(threads) as pool:
        try:
            directory: dict[str, Any] = {"machine": machine.name, "state": machine.state(), "disks": {}, "memory": {}}
            for label, disk in found.items():
                entry = _keep(label, disk, name, made, include_disks=include_disks)
                if entry["how"] == HERE:
                    entry["chunks"] = store(DiskContent(disk), writer, pool, threads)
                directory["disks"][label] = entry
            for key, memory in memories(machine).items():
                chunks = store(MemoryContent(memory), writer, pool, threads)
                directory["memory"][key] = {"size": memory.size, "chunks": chunks}
            return writer.finish(directory)
        except BaseException:
            for node in made:
                node.snapshot_delete(name)
            raise


def _keep(label: str, disk: Disk, name: str, made: list[Format], *, include_disks: bool) -> dict[str, Any]:
    """Keep a disk's state within the disk if it can; what the directory says of it."""
    node = disk.node
    if not node.writable:
        return {"how": READ_ONLY, "size": disk.size}
    if isinstance(node, Format):
        if node in made:
            return {"how": WITHIN, "size": disk.size, "name": name}
        try:
            node.snapshot_create(name)
        except BlockError as error:
            if not include_disks:
                raise SnapshotError(
                    f"the disk of {label} cannot be saved: {error}",
                    "use qcow2, or let the file have the disks too (include_disks)",
                ) from error
        else:
            made.append(node)
            return {"how": WITHIN, "size": disk.size, "name": name}
    if include_disks:
        return {"how": HERE, "size": disk.size}
    raise SnapshotError(
        f"the disk of {label} cannot be saved: {node.name} keeps no snapshots",
        "use qcow2, or let the file have the disks too (include_disks)",
    )


def restore(machine: Machine, path: str) -> None:
    """Be as a snapshot says. SnapshotError, before anything changes, if that cannot be.

    RestoreFailed if the host fails meanwhile: memory and disks are partly those of before, so the machine is `broken`.
    """
    with Reader(path) as reader, _still(machine) as found:
        directory = reader.directory
        if directory.get("machine") != machine.name:
            reader.wrong(f"a snapshot of {str(directory.get('machine'))[:40]!r}, and this is {machine.name}")
        machine.check(directory.get("state"))
        loads: list[tuple[Content, list[list[int]]]] = []
        within = _check_disks(directory.get("disks"), found, reader, loads)
        saved, here = directory.get("memory"), memories(machine)
        if not isinstance(saved, dict) or saved.keys() != here.keys():
            reader.wrong(f"other memory was saved; here is {', '.join(here)}")
        for name, memory in here.items():
            content = MemoryContent(memory)
            loads.append((content, checked(saved[name], content, reader, f"memory {name}")))
        with machine.replacing():
            for node, name in within:
                node.snapshot_apply(name)
            for target, chunks in loads:
                load(target, chunks, reader)
            machine.put_back(directory["state"])


def _check_disks(
    saved: object, found: dict[str, Disk], reader: Reader, loads: list[tuple[Content, list[list[int]]]]
) -> list[tuple[Format, str]]:
    """The disks that go back to a snapshot of their own; `loads` gets those that are in the file."""
    if not isinstance(saved, dict) or saved.keys() != found.keys():
        reader.wrong(f"other disks were saved; here are {', '.join(found) or 'none'}")
    within: dict[int, tuple[Format, str]] = {}
    for label, disk in found.items():
        entry, node = saved[label], disk.node
        how, size = (entry.get("how"), entry.get("size")) if isinstance(entry, dict) else (None, None)
        if size != disk.size or how not in {READ_ONLY, WITHIN, HERE} or node.writable != (how != READ_ONLY):
            reader.wrong(f"the disk of {label} is not the one that was saved: {str(size)[:20]} bytes, {str(how)[:20]}")
        if how == HERE:
            content = DiskContent(disk)
            loads.append((content, checked(entry, content, reader, f"the disk of {label}")))
        elif how == WITHIN:
            name = entry.get("name")
            if not isinstance(node, Format) or name not in [known["name"] for known in node.snapshots()]:
                reader.wrong(f"the disk of {label}, {node.name}, has no snapshot {str(name)[:60]!r}")
            within[id(node)] = node, name
    return list(within.values())
