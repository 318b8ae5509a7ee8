"""`create`, `resize` and `snapshot`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dbt.machine.block.graph import create_image
from dbt.machine.block.options import convert
from dbt.machine.block.registry import format_class
from dbt.machine.block.spec import parse_spec
from dbt.machine.block.tool import images
from dbt.machine.block.tool.aside import orderly
from dbt.machine.block.tool.show import print_table, say, say_json

from dbt.errors import UsageError

if TYPE_CHECKING:
    import argparse

PREALLOCATIONS = ("off", "metadata", "falloc", "full")


def create(options: argparse.Namespace) -> int:
    """Make an empty image. With a backing file its size is the default."""
    made = images.create_options(options.options)
    size = options.size
    backing = options.backing or made.get("backing_file")
    if backing:
        driver = options.backing_format or made.get("backing_fmt")
        if not driver:
            raise UsageError("create -b: which format has the backing file?", "Name it with -F: it is not guessed.")
        made |= {"backing_file": backing, "backing_fmt": driver}
        if not options.unsafe:
            node = images.open_backing(options, str(parse_spec(options.image, options.format)), backing, driver)
            size = node.size if size is None else size
            node.close()
    if size is None:
        raise UsageError("create: how large?", "Give a size, for example 10G, or a backing file with -b.")
    new = not os.path.lexists(options.image)
    try:
        with orderly():
            create_image(options.image, options.format, size, made)
    except BaseException:
        if new and os.path.isfile(options.image):
            os.unlink(options.image)
        raise
    return 0


def list_options(options: argparse.Namespace) -> int:
    """The options of `-o` for a format."""
    found = format_class(options.format).CREATE_OPTIONS
    if options.json:
        say_json([{"name": o.name, "kind": str(o.kind), "default": o.default, "help": o.help} for o in found])
    for option in found if not options.json else ():
        kind = (
            "|".join(option.kind) if isinstance(option.kind, tuple) else getattr(option.kind, "__name__", option.kind)
        )
        say(f"  {option.name}={kind}  {option.help}")
    return 0


def resize(options: argparse.Namespace) -> int:
    """Change the size, to a number or by one: +1G, -512M. Smaller only with --shrink."""
    text = options.size
    sign = text[:1] if text[:1] in {"+", "-"} else ""
    amount = images.size(text.removeprefix(sign))
    convert(PREALLOCATIONS, options.preallocation)
    node = images.open_target(options, options.image, options.format)
    try:
        size = node.size + amount if sign == "+" else node.size - amount if sign else amount
        if size < 0:
            raise UsageError(f"resize {text}: the image has {node.size} bytes only")
        if size < node.size and not options.shrink:
            what = f"resize from {node.size} to {size} bytes would cut off what is there"
            raise UsageError(what, "If the guest does not use it any more, say --shrink.")
        node.resize(size, preallocation=options.preallocation)
    finally:
        node.close()
    return 0


def snapshot(options: argparse.Namespace) -> int:
    """Internal snapshots: list, create, go back to one, delete."""
    if options.create is options.apply is options.delete is None:
        node = images.open_source(options, options.image, options.format, alone=True)
        try:
            found = node.snapshots()
        finally:
            node.close()
        if options.json:
            say_json(found)
        elif found:
            print_table(found)
        return 0
    node = images.open_target(options, options.image, options.format, alone=False)
    try:
        if options.create is not None:
            node.snapshot_create(options.create)
        elif options.apply is not None:
            node.snapshot_apply(options.apply)
        else:
            node.snapshot_delete(options.delete)
    finally:
        node.close()
    return 0
