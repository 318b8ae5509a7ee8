"""From words of the command line to open images: formats, options, who may share what, sizes for people."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, cast

from dbt.machine.block.disk import Disk
from dbt.machine.block.errors import BadOption
from dbt.machine.block.graph import open_image, open_node, probe
from dbt.machine.block.options import parse_size
from dbt.machine.block.registry import is_format
from dbt.machine.block.spec import Spec, is_filename, parse_spec

from dbt.errors import UsageError

if TYPE_CHECKING:
    from dbt.machine.block.node import Format, Node

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(text: str) -> int:
    """A size of the command line, for argparse: 4096, 64K, 64KiB, 1.5G, 2TB (all in powers of 1024)."""
    short = text
    for ending in ("iB", "ib", "B", "b"):
        if len(short) > len(ending) and short.endswith(ending) and short[-len(ending) - 1].isalpha():
            short = short.removesuffix(ending)
            break
    try:
        return parse_size(short)
    except ValueError:
        message = f"{text!r} is no size below 8 EiB: give bytes, or a number with K, M, G, T, P or E (also KiB …)"
        raise argparse.ArgumentTypeError(message) from None


def count(text: str) -> int:
    """A number of the command line that is above zero."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def people(number: int) -> str:
    """A number of bytes as people read it."""
    unit, scaled = 0, float(number)
    while scaled >= 1024 and unit < len(UNITS) - 1:
        scaled /= 1024
        unit += 1
    return f"{scaled:.3g} {UNITS[unit]}" if scaled < 1000 else f"{scaled:.0f} {UNITS[unit]}"


def create_options(words: list[str]) -> dict[str, str]:
    """What `-o name=value,…`, given once or more, says; `,,` is a comma in a value."""
    found: dict[str, str] = {}
    for word in words:
        for pair in word.replace(",,", "\0").split(","):
            name, equals, value = pair.replace("\0", ",").partition("=")
            if not name:
                raise UsageError(f"-o {word}: not name=value")
            found[name.replace("-", "_")] = value if equals else "on"
    return found


def spec_of(image: str, driver: str | None, *, share: bool = False) -> Spec:
    """The tree that `image` means, the format on top; where no format is named its first bytes tell."""
    spec = parse_spec(image, driver)
    if share:
        unlocked(spec)
    return spec if is_format(spec.driver) else Spec(probe(spec), {}, {"file": spec})


def unlocked(spec: Spec) -> None:
    """Take no locks for the files of the tree."""
    if "locking" in spec.options:
        spec.options["locking"] = "off"
    for child in spec.children.values():
        if child is not None:
            unlocked(child)


def open_source(options: argparse.Namespace, image: str, driver: str | None, *, alone: bool = False) -> Format:
    """Open for reading; `alone`: without what is behind it."""
    spec = spec_of(image, driver, share=getattr(options, "force_share", False))
    return open_format(spec, allow_backing=options.allow_backing, alone=alone)


def open_format(
    spec: Spec, *, writable: bool = False, allow_backing: bool = False, alone: bool = False, repair: bool = False
) -> Format:
    """Open a tree whose top is a format."""
    if alone:
        spec.children["backing"] = None
    return cast("Format", open_node(spec, writable=writable, allow_backing=allow_backing, repair=repair))


def open_target(options: argparse.Namespace, image: str, driver: str | None, *, alone: bool = False) -> Format:
    """Open for writing: the format has to be named."""
    spec = parse_spec(image, driver)
    if not is_format(spec.driver):
        open_node(spec, writable=False, allow_backing=options.allow_backing).close()  # what is not there has no format
        hint = "name it: -f qcow2, for example; the first bytes are the guest's, who could choose it"
        raise BadOption(str(spec), "the format is not guessed for writing", hint=hint)
    return open_format(spec, writable=True, allow_backing=options.allow_backing, alone=alone)


def queue(node: Node, *, workers: int) -> Disk:
    """A disk over `node`."""
    return Disk(node, workers=workers)


def backing_of(node: Format) -> tuple[str, str | None]:
    """The name of the backing file as it stands in the image, "" if there is none, and its format."""
    info = node.info()
    return str(info.get("backing-filename", "")), info.get("backing-format")


def beside(image: str, name: str) -> str:
    """A name that stands in `image`, as seen from here."""
    return os.path.join(os.path.dirname(image), name) if is_filename(name) else name


def open_backing(options: argparse.Namespace, image: str, name: str, driver: str | None) -> Format:
    """What an image is to have behind it, open for reading, `name` as it is to stand in the image."""
    return cast("Format", open_image(beside(image, name), driver, allow_backing=options.allow_backing))


def granularity(node: Node) -> int:
    """Bytes that the node stores or leaves out together."""
    found: Any = node.info().get("cluster-size")
    return found if isinstance(found, int) and found >= 512 else 4096
