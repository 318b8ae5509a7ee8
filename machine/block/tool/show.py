"""`info`, `check`, `repair`, `map` and `measure`: what is known of an image, as text or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import ImageUnsupported
from dbt.machine.block.graph import describe
from dbt.machine.block.options import check_options
from dbt.machine.block.registry import format_class, is_format
from dbt.machine.block.spec import parse_spec
from dbt.machine.block.tool import images
from dbt.machine.block.tool.extents import data_ranges, pieces

from dbt.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from dbt.machine.block.node import CheckResult, Format

CLEAN, NOT_CHECKED, CORRUPT, LEAKING, NO_CHECK = 0, 1, 2, 3, 63  # exit statuses of check and repair


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")


def say_json(found: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """JSON on standard output."""
    say(json.dumps(found, indent=2, default=str))


def info(options: argparse.Namespace) -> int:
    """Format, sizes, what the format knows, snapshots, and the backing files if wanted."""
    node = images.open_source(options, options.image, options.format, alone=not options.backing_chain)
    try:
        found = describe(node)
        if options.verbose:
            found["structures"] = [
                {"title": title, "offset": at, "fields": structure.values()}
                for title, at, structure in node.structures()
            ]
        if options.json:
            say_json(found)
        else:
            _print_info(found)
            if options.verbose:
                _print_structures(node)
    finally:
        node.close()
    return 0


def _print_info(found: dict[str, Any]) -> None:
    say(f"image: {found['name']}")
    say(f"format: {found['driver']}")
    say(f"virtual size: {images.people(found['virtual-size'])} ({found['virtual-size']} bytes)")
    if "actual-size" in found:
        say(f"size on disk: {images.people(found['actual-size'])}")
    for name, value in found.get("details", {}).items():
        say(f"{name}: {_word(value)}")
    if snapshots := found.get("snapshots"):
        say("snapshots:")
        print_table(snapshots)
    if backing := found.get("children", {}).get("backing"):
        say("")
        _print_info(backing)


def _word(value: Any) -> str:  # noqa: ANN401 - a value of JSON
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows with the same names, as columns."""
    names = list(rows[0])
    lines = [names, *([_word(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    for line in lines:
        say("  " + "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def _print_structures(node: Format) -> None:
    for title, at, structure in node.structures():
        say(f"{title} at {at:#x}:")
        for name, offset, text in structure.describe():
            say(f"  {at + offset:#10x}  {name} = {text}")


def check(options: argparse.Namespace) -> int:
    """Look for inconsistencies, and repair them if that is wanted."""
    repair = getattr(options, "repair", "")
    if repair and not is_format(parse_spec(options.image, options.format).driver):
        raise UsageError(f"{options.image}: which format is to be repaired?", "Name it with -f: it is not guessed.")
    spec = images.spec_of(options.image, options.format, share=getattr(options, "force_share", False))
    node = images.open_format(spec, writable=bool(repair), alone=True, repair=True)
    try:
        try:
            result = node.check(repair)
        except ImageUnsupported as error:
            if options.json:
                say_json({"image": options.image, "format": node.driver, "error": str(error)})
            else:
                sys.stderr.write(f"dragoman: {error}\n")
            return NO_CHECK
        if options.json:
            say_json(_result(options.image, node, result))
        else:
            _print_check(result)
        return _status(result)
    finally:
        node.close()


def _status(result: CheckResult) -> int:
    if result.errors:
        return NOT_CHECKED
    if result.corruptions > result.corruptions_fixed:
        return CORRUPT
    return LEAKING if result.leaks > result.leaks_fixed else CLEAN


def _result(image: str, node: Format, result: CheckResult) -> dict[str, Any]:
    found: dict[str, Any] = {"image": image, "format": node.driver}
    for name, value in vars(result).items():
        if name != "problems":
            found[name.replace("_", "-")] = value
    found["problems"] = [{"offset": offset, "text": text} for offset, text in result.problems]
    return found


def _print_check(result: CheckResult) -> None:
    for offset, text in result.problems:
        say(text if offset is None else f"at {offset:#x}: {text}")
    if result.corruptions or result.leaks or result.errors:
        say(
            f"{result.corruptions} corruptions ({result.corruptions_fixed} repaired), {result.leaks} leaks "
            f"({result.leaks_fixed} repaired), {result.errors} errors of the check"
        )
    else:
        say("nothing is wrong")
    if result.total_clusters:
        share = 100 * result.allocated_clusters / result.total_clusters
        say(
            f"{result.allocated_clusters} of {result.total_clusters} clusters allocated ({share:.2f} %), "
            f"{result.compressed_clusters} compressed; the image ends at {result.image_end}"
        )


def map_image(options: argparse.Namespace) -> int:
    """What is where: data, zeroes, in which image of the chain and at which offset of it."""
    node = images.open_source(options, options.image, options.format)
    try:
        end = min(options.start + options.length, node.size) if options.length is not None else node.size
        rows = []
        if not options.json:
            say(f"{'offset':>18} {'length':>18} {'stored at':>18}  image")
        chain = _chain(node)
        for piece in pieces(node, options.start, end):
            extent = piece.extent
            row: dict[str, Any] = {
                "start": piece.start, "length": extent.length, "depth": piece.depth,
                "present": extent.allocated, "zero": extent.zero, "data": extent.data, "compressed": extent.compressed,
            }  # fmt: skip
            if extent.offset is not None and extent.data:
                row["offset"] = extent.offset
            rows.append(row)
            if not options.json and extent.data and not extent.zero:
                where = f"{extent.offset:#18x}" if "offset" in row else f"{'compressed':>18}"
                say(f"{piece.start:#18x} {extent.length:#18x} {where}  {chain[piece.depth]}")
        if options.json:
            say_json(rows)
    finally:
        node.close()
    return 0


def _chain(node: Format) -> list[str]:
    names = [node.name]
    while node.backing is not None:
        node = node.backing  # type: ignore[assignment]
        names.append(node.name)
        if not hasattr(node, "backing"):
            break
    return names


def measure(options: argparse.Namespace) -> int:
    """How many bytes an image of a format needs for what another image holds, or for a size."""
    made = format_class(options.output_format)
    given = check_options(
        made.CREATE_OPTIONS, images.create_options(options.options), options.output_format
    )  # fmt: skip
    if (options.image is None) == (options.size is None):
        raise UsageError("measure: of what?", "Give an image, or --size.")
    if options.image is None:
        found = made.measure(options.size, given, ())
    else:
        node = images.open_source(options, options.image, options.format)
        try:
            ranges = ((start, end - start) for start, end in data_ranges(node, 1))
            found = made.measure(node.size, given, ranges)
        finally:
            node.close()
    if options.json:
        say_json({"required": found.required, "fully-allocated": found.fully_allocated})
    else:
        say(f"required size: {found.required}")
        say(f"fully allocated size: {found.fully_allocated}")
    return 0
