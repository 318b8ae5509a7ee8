"""Opening and making images: from a Spec to nodes, with the rules that keep strangers' images harmless.

- Formats are never guessed for writing. For reading, the first bytes tell (`probe`); raw, which anything looks like,
  has to be named.
- A name found inside an image (backing file, data file) opens only within the image's own folder, links resolved,
  unless `allow_backing` says otherwise; and never for writing.
- A chain that comes back to a file it went through, or is deeper than MAX_CHAIN, ends in an error.
"""

from __future__ import annotations

import os
from typing import Any, cast

from dbt.machine.block.bounds import bound
from dbt.machine.block.errors import AccessRefused, BadOption, ImageCorrupt, RequestRefused
from dbt.machine.block.node import Format, Node, Protocol
from dbt.machine.block.options import check_options
from dbt.machine.block.registry import driver_class, format_class, is_format, names
from dbt.machine.block.spec import Spec, is_filename, parse_spec

MAX_CHAIN = 100
HEAD = 1 << 16  # bytes that formats are told by


class Opening:
    """What a node's constructor is given: its options, and the way to its children."""

    def __init__(
        self, spec: Spec, *, writable: bool, allow_backing: bool = False, above: tuple[object, ...] = (),
        repair: bool = False, name: str = "",
    ) -> None:  # fmt: skip
        self.spec = spec
        self.name = name or str(spec)
        self.options = spec.options
        self.writable = writable
        self.allow_backing = allow_backing
        self.repair = repair  # opened for a check: what is broken is to be looked at, not refused
        self.above = above  # identities of the images that this one is the backing of
        self.children: dict[str, Node] = {}

    def child(self, role: str = "file", *, writable: bool | None = None) -> Node:
        """Open the child that the user described as `role`; it is writable if this node is."""
        if role in self.children:
            return self.children[role]
        spec = self.spec.children.get(role)
        if spec is None:
            hint = f"driver={self.spec.driver},{role}.driver=file,{role}.filename=…"
            raise BadOption(self.name, f"{self.spec.driver} needs a child {role!r}", hint=hint)
        return self._open(role, spec, self.writable if writable is None else writable, self.above)

    def has(self, role: str) -> bool:
        """Whether the user has described the child `role`."""
        return role in self.spec.children

    def data_file(self, name: str) -> Node:
        """Open the external data file: as the user described it, or what the image names, with the same policy."""
        spec = self.spec.children.get("data-file") or self.named(name, "raw", "data file")
        return self._open("data-file", spec, self.writable, self.above)

    def backing(self, name: str, driver: str | None) -> Node | None:
        """Open the backing file: as the user described it, or as the image says it, if that is allowed."""
        if "backing" in self.spec.children:
            spec = self.spec.children["backing"]
            if spec is None:
                return None
        elif name:
            spec = self.named(name, driver, "backing file")
            if not is_format(spec.driver):  # the image does not say: by the first bytes
                spec = Spec(probe(spec), {}, {"file": spec})
        else:
            return None
        above = (*self.above, *identities(self.children.get("file")))
        if len(above) > MAX_CHAIN:
            raise ImageCorrupt(self.name, f"the chain of backing files is longer than {MAX_CHAIN}")
        return self._open("backing", spec, False, above)

    def named(self, name: str, driver: str | None, what: str) -> Spec:
        """The Spec for a name that stands inside this image, after the policy has been asked."""
        hint = "if you trust the image, allow it (--allow-backing), or describe the child yourself"
        if "\0" in name:
            raise ImageCorrupt(self.name, f"the name of its {what} has a byte of zero in it: {name!r}")
        folder = os.path.dirname(self.name)
        if not is_filename(name):
            if not self.allow_backing:
                raise AccessRefused(self.name, f"its {what} is {name!r}, which is no file beside it", hint=hint)
            return parse_spec(name, driver)
        path = os.path.join(folder, name)
        if not self.allow_backing:
            home, real = os.path.realpath(folder or "."), os.path.realpath(path)
            if os.path.commonpath((home, real)) != home:
                raise AccessRefused(self.name, f"its {what} is {name!r}, outside of the folder of the image", hint=hint)
        return parse_spec(Spec("file", {"filename": path}), driver)

    def _open(self, role: str, spec: Spec, writable: bool, above: tuple[object, ...]) -> Node:
        node = open_node(
            spec,
            writable=writable,
            allow_backing=self.allow_backing,
            above=above,
            repair=self.repair and role == "file",
        )
        self.children[role] = node
        if role != "backing" and isinstance(node, Format) and not node.grows:
            bound(node)
        if isinstance(node, Protocol) and node.identity is not None and node.identity in above:
            raise ImageCorrupt(self.name, "the chain of backing files comes back to this file")
        return node


def identities(node: Node | None) -> list[object]:
    """What tells the storage below `node` from other storage."""
    if node is None:
        return []
    if isinstance(node, Protocol) and node.identity is not None:
        return [node.identity]
    return identities(node.children.get("file"))


def open_node(
    spec: Spec, *, writable: bool, allow_backing: bool = False, above: tuple[object, ...] = (), repair: bool = False
) -> Node:
    """Open the tree. A protocol in place of a format is probed, for reading, if it is the root or a backing file."""
    opening = Opening(spec, writable=writable, allow_backing=allow_backing, above=above, repair=repair)
    try:
        return driver_class(spec.driver)(opening)
    except BaseException:
        for child in reversed(opening.children.values()):
            child.close()
        raise


def probe(spec: Spec) -> str:
    """The format of what `spec`, a protocol's, holds."""
    file = open_node(spec, writable=False)
    try:
        head = bytes(file.pread(0, min(HEAD, file.size)))
        for name in names("formats"):
            if format_class(name).probe(head, file):
                return name
    finally:
        file.close()
    raise BadOption(str(spec), "no format that is known by its first bytes", hint="name the format: raw, if it is raw")


def open_image(
    image: str | dict[str, Any] | Spec, driver: str | None = None, *, writable: bool = False,
    allow_backing: bool = False, repair: bool = False,
) -> Node:  # fmt: skip
    """Open an image. `driver` is its format, which may be left out for reading; see spec.py for `image`.

    The result is the root node; `Disk` puts a queue on it.
    """
    spec = parse_spec(image, driver)
    if not is_format(spec.driver):
        if writable:
            raise BadOption(str(spec), "formats are not guessed for writing", hint="name the format")
        spec = Spec(probe(spec), {}, {"file": spec})
    return open_node(spec, writable=writable, allow_backing=allow_backing, repair=repair)


def create_image(
    image: str | dict[str, Any] | Spec, driver: str, size: int, options: dict[str, Any] | None = None
) -> None:
    """Make an image of format `driver`: first the file, if its protocol makes such, then what the format writes."""
    spec = parse_spec(image, driver)
    file = spec.children.get("file")
    if file is None:
        raise BadOption(str(spec), "where the image is to be is missing")
    if size < 0:
        raise RequestRefused(str(spec), f"a size of {size}")
    made = format_class(spec.driver)
    given = dict(options or {})
    protocol = driver_class(file.driver)
    if is_format(file.driver):  # a format in a format: the inner one exists
        checked = check_options(made.CREATE_OPTIONS, given, spec.driver)
        node = open_node(file, writable=True)
    else:
        protocol = cast("type[Protocol]", protocol)
        theirs = {option.name.replace("_", "-") for option in made.CREATE_OPTIONS}
        extra = {o.name.replace("_", "-") for o in protocol.CREATE_OPTIONS} - theirs
        below = {name: given.pop(name) for name in list(given) if name.replace("_", "-") in extra}
        checked = check_options(made.CREATE_OPTIONS, given, spec.driver)
        if protocol.create is not Protocol.create:
            below = check_options(protocol.CREATE_OPTIONS, below, file.driver)
            protocol.create({**file.options, **below}, 0 if spec.driver != "raw" else size, str(file))
        node = open_node(file, writable=True)
    try:
        made.create(node, size, checked)
    finally:
        node.close()


def make_beside(image: str, name: str, size: int) -> None:
    """Make the raw file that `image` is going to name `name`, where that name leads from the image."""
    path = os.path.join(os.path.dirname(image), name) if is_filename(name) else name
    create_image(Spec("file", {"filename": path}) if is_filename(name) else name, "raw", size)


def describe(node: Node) -> dict[str, Any]:
    """What `info` shows, as JSON has it: of this node, of its driver, and of its children."""
    found: dict[str, Any] = {"name": node.name, "driver": node.driver, "virtual-size": node.size}
    actual = node.allocated_size()
    if actual is not None:
        found["actual-size"] = actual
    if details := node.info():
        found["details"] = details
    if isinstance(node, Format) and (snapshots := node.snapshots()):
        found["snapshots"] = snapshots
    if node.children:
        found["children"] = {role: describe(child) for role, child in node.children.items()}
    return found
