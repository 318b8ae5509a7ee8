"""`convert` and `dd`: the content of one image into another, new one."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import BadOption, ImageUnsupported
from dbt.machine.block.graph import create_image
from dbt.machine.block.options import check_options
from dbt.machine.block.registry import format_class, is_format, protocol_class
from dbt.machine.block.request import MAY_UNMAP
from dbt.machine.block.tool import images
from dbt.machine.block.tool.aside import aside, orderly
from dbt.machine.block.tool.copying import Copy, gaps
from dbt.machine.block.tool.extents import data_ranges
from dbt.machine.block.tool.progress import Progress

from dbt.errors import UsageError

if TYPE_CHECKING:
    from dbt.machine.block.node import Format
    from dbt.machine.block.spec import Spec


def convert(options: argparse.Namespace) -> int:
    """Write what an image reads as into a new image."""
    source = images.open_source(options, options.source, options.format)
    try:
        made = images.create_options(options.options)
        if options.backing:
            made |= _backing(options, source)
        with orderly():
            if options.existing:
                _into(options, source, images.open_target(options, options.target, options.output_format), own=False)
            else:
                _new(options, source, made)
    finally:
        source.close()
    return 0


def _new(options: argparse.Namespace, source: Format, made: dict[str, Any]) -> None:
    name = options.target
    with aside(name, options.output_format, overwrite=options.overwrite, durable=options.sync) as spec:
        if options.overwrite:
            _foresee(spec.driver, source.size, made)
        file = spec.children["file"]
        assert file is not None
        if "no-flush" in file.options and not options.sync:
            file.options["no-flush"] = True
        create_image(spec, spec.driver, source.size, made)
        target = images.open_format(spec, writable=True, allow_backing=True, alone=not options.backing)
        _into(options, source, target, own=bool(options.backing), empty=reads_zero(spec))


def _foresee(driver: str, size: int, made: dict[str, Any]) -> None:
    """Say what is wrong with the options before anything is gone."""
    form = format_class(driver)
    known = {option.name.replace("-", "_") for option in form.CREATE_OPTIONS}
    given = {name: value for name, value in made.items() if name in known}
    with suppress(ImageUnsupported):  # there is no telling
        form.measure(size, check_options(form.CREATE_OPTIONS, given, driver), ())


def _backing(options: argparse.Namespace, source: Format) -> dict[str, str]:
    """The create options for a target that has the source's own backing file behind it."""
    if not options.backing_format:
        raise UsageError("convert -B: which format has the backing file?", "Name it with -F.")
    images.open_backing(options, options.target, options.backing, options.backing_format).close()
    if not source.backing:
        raise BadOption(options.source, "has no backing file that the target could share", hint="leave -B out")
    return {"backing_file": options.backing, "backing_fmt": options.backing_format}


def reads_zero(spec: Spec) -> bool:
    """Whether a new image reads as zeroes everywhere: its file was made for it. What existed may hold anything."""
    file = spec.children["file"]
    assert file is not None
    return not is_format(file.driver) and protocol_class(file.driver).NEW_IS_ZERO


def _into(options: argparse.Namespace, source: Format, target: Format, *, own: bool, empty: bool = False) -> None:
    """Copy everything; `own`: only what the source itself decides, above a backing that both have."""
    disk = images.queue(target, workers=1)
    try:
        if target.size < source.size:
            raise BadOption(options.target, f"has {target.size} bytes, the source {source.size}")
        granule = images.granularity(target)
        empty = empty and not own
        copy = Copy(
            images.queue(source, workers=1), disk, granule=granule, empty=empty, compressed=options.compress,
            threads=options.threads,
        )  # fmt: skip
        if not empty and not own:
            for start, end in gaps(data_ranges(source, granule), 0, target.size):
                disk.write_zeroes(start, end - start, MAY_UNMAP)
        with Progress(source.size, "convert", show=not options.quiet) as progress:
            copy.run(data_ranges(source, granule, own=own), progress)
        disk.flush()
    finally:
        disk.close()


def dd(options: argparse.Namespace) -> int:
    """Copy blocks, as dd does, from one image into a new one."""
    words = _operands(options.operands)
    block, skip = words.get("bs", 512), words.get("skip", 0)
    source = images.open_source(options, words["if"], options.format)
    try:
        start = min(skip * block, source.size)
        end = min(start + words["count"] * block, source.size) if "count" in words else source.size
        with orderly(), aside(words["of"], options.output_format) as spec:
            create_image(spec, spec.driver, end - start)
            target = images.open_format(spec, writable=True)
            disk = images.queue(target, workers=1)
            try:
                granule, empty = images.granularity(target), reads_zero(spec)
                ranges = list(data_ranges(source, granule, start=start, end=end))
                for low, high in [] if empty else gaps(ranges, start, end):
                    disk.write_zeroes(low - start, high - low, MAY_UNMAP)
                copy = Copy(images.queue(source, workers=1), disk, granule=granule, empty=empty, shift=-start)
                with Progress(end, "dd", show=not options.quiet) as progress:
                    copy.run(ranges, progress)
                disk.flush()
            finally:
                disk.close()
    finally:
        source.close()
    return 0


def _operands(operands: list[str]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for operand in operands:
        name, equals, value = operand.partition("=")
        if not equals or name not in {"if", "of", "bs", "count", "skip"}:
            raise UsageError(f"dd: {operand!r} is none of if=, of=, bs=, count=, skip=")
        try:
            words[name] = value if name in {"if", "of"} else images.size(value)
        except argparse.ArgumentTypeError as wrong:
            raise UsageError(f"dd: {name}: {wrong}") from None
    for name in ("if", "of"):
        if not words.get(name):
            raise UsageError(f"dd: {name}= is missing", "dragoman img dd if=SOURCE of=TARGET [bs=…] [count=…] [skip=…]")
    if words.get("bs") == 0:
        raise UsageError("dd: bs=0: no blocks")
    return words
