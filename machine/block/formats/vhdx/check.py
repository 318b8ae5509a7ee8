"""Checks of an open image, and repairs: the log, BAT entries that cannot be, space at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.formats.vhdx import create as making
from dbt.machine.block.formats.vhdx import layout
from dbt.machine.block.formats.vhdx.layout import MIB, OFFSET, SECTOR, STATE
from dbt.machine.block.node import CheckResult
from dbt.machine.block.usage import Usage

if TYPE_CHECKING:
    from dbt.machine.block.formats.vhdx import Vhdx


def check(node: Vhdx, repair: str) -> CheckResult:
    """Compare the BAT with what can be. The range of everything is held alone, and the mutex."""
    result = CheckResult()
    usage = Usage(node, MIB, result)
    if node.log_error:
        usage.corrupt(f"the log: {node.log_error}", node.header.LogOffset)
        if repair == "all" and node.log is None:
            node.write_header(LogGuid=layout.NO_GUID)
            result.corruptions_fixed += 1
    if node.replayed:
        result.note("the log was replayed", node.header.LogOffset)
    for at, length in node.regions:
        usage.take(at, length, "a region")
    result.total_clusters = node.blocks
    previous = None
    entries, _ = making.bat_entries(node.size, node.cluster, node.sector, parent=node.has_parent)
    for number, entry in node.tables.entries(node.bat_at, entries):
        state, host = entry & STATE, entry & OFFSET
        is_bitmap = number % (node.ratio + 1) == node.ratio
        present = state == layout.FULLY_PRESENT or (state == layout.PARTIALLY_PRESENT and not is_bitmap)
        if not present and (state == layout.NOT_PRESENT or (state in layout.ZEROES and not is_bitmap)):
            continue
        length = MIB if is_bitmap else node.cluster
        what = f"BAT entry {number}"
        good = present and (node.has_parent or state == layout.FULLY_PRESENT)
        if not good:
            usage.corrupt(f"{what} has state {state}", node.bat_at + 8 * number)
        else:
            good = usage.take(host, min(length, max(usage.limit - host, 1)), what)
        if not good:
            if repair == "all":
                page = number * 8 // SECTOR * SECTOR
                data = node.file.pread(node.bat_at + page, SECTOR)
                data[number * 8 - page : number * 8 - page + 8] = bytes(8)
                node.write_log([(node.bat_at + page, bytes(data))])
                node.tables.remember(node.bat_at, number, 0)
                result.corruptions_fixed += 1
            continue
        if not is_bitmap:
            result.allocated_clusters += 1
            result.fragmented_clusters += previous is not None and host != previous + node.cluster
            previous = host
    spare = usage.count_leaks()
    if result.leaks != spare:
        result.problems.pop()  # gaps between structures are the writer's choice, as qemu's are
        result.leaks = spare
        if spare:
            result.note(f"{spare} MiB at the end are not used by anything", result.image_end)
    if repair and spare:
        node.file.resize(result.image_end)
        node.end = result.image_end
        result.leaks_fixed = spare
    return result
