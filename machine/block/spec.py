r"""Which image: what users write, as a tree of options with a driver at each node.

    disk.img                                              a file
    file:disk.img, nbd://host/export                      a URI: its protocol says what it means
    driver=qcow2,file.driver=file,file.filename=a.qcow2   options; `,,` is a comma in a value; `backing=`: none
    {"driver": "qcow2", "file": {"driver": "file", "filename": "a.qcow2"}}    the same as JSON; json:{…} too

A Spec is the driver's name, its options, checked by the driver's declarations into Python values, and its children.
"""

from __future__ import annotations

import json
from typing import Any

from dbt.machine.block.errors import BadOption
from dbt.machine.block.options import check_options
from dbt.machine.block.registry import driver_class, is_format, protocol_class, scheme_protocol

MAX_DEPTH = 64


class Spec:
    """One node's options, and its children's; a child that is None is wanted not to be there."""

    __slots__ = ("children", "driver", "options")

    def __init__(
        self, driver: str, options: dict[str, Any] | None = None, children: dict[str, Spec | None] | None = None
    ) -> None:
        self.driver = driver
        self.options = check_options(driver_class(driver).OPTIONS, options or {}, driver)
        self.children = children or {}

    def to_dict(self) -> dict[str, Any]:
        """The tree as JSON has it."""
        tree: dict[str, Any] = {"driver": self.driver, **{k: v for k, v in self.options.items() if v is not None}}
        return tree | {name: child and child.to_dict() for name, child in self.children.items()}

    def __str__(self) -> str:
        """What errors call it: the file's name if it is all that was given."""
        if "filename" in self.options:
            return str(self.options["filename"])
        file = self.children.get("file")
        if file is not None:
            return str(file)
        return driver_class(self.driver).label(self.options)


def parse_spec(text: str | dict[str, Any] | Spec, driver: str | None = None) -> Spec:
    """The tree that `text` means. With `driver`, a format, it is put on top unless it is there already."""
    spec = text if isinstance(text, Spec) else _build(text if isinstance(text, dict) else _tree(text), str(text), 0)
    if driver is None or driver == spec.driver:
        return spec
    if is_format(spec.driver) and not spec.driver.startswith("raw"):
        raise BadOption(str(text), f"format {driver} was asked for, and the options say driver={spec.driver}")
    return Spec(driver, {}, {"file": spec})


def is_filename(text: str) -> bool:
    """Whether `text` is a plain file's name: neither options, JSON nor a URI."""
    if text.startswith(("{", "json:")) or _is_options(text):
        return False
    scheme, colon, _ = text.partition(":")
    return not colon or "/" in scheme or scheme_protocol(scheme) is None


def _is_options(text: str) -> bool:
    return text.startswith("driver=") or ",driver=" in text


def _tree(text: str) -> dict[str, Any]:
    if text.startswith(("{", "json:")):
        try:
            tree = json.loads(text.removeprefix("json:"))
        except (ValueError, RecursionError) as wrong:
            raise BadOption(text[:200], f"is no JSON: {wrong}") from None
        if not isinstance(tree, dict):
            raise BadOption(text[:200], "is no JSON object")
        return tree
    if _is_options(text):
        return _dotted(text)
    if is_filename(text):
        return {"driver": "file", "filename": text}
    protocol = scheme_protocol(text.partition(":")[0])
    assert protocol is not None
    return {"driver": protocol, **protocol_class(protocol).parse_uri(text)}


def _dotted(text: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for pair in text.replace(",,", "\0").split(","):
        path, equals, value = pair.replace("\0", ",").partition("=")
        if not equals:
            raise BadOption(text, f"{pair!r} is no name=value", hint="a comma in a value is written twice")
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise BadOption(text, f"{parent!r} is given a value and options")
        if name in node:
            raise BadOption(text, f"{path!r} is given twice")
        node[name] = value
    return tree


def _build(tree: dict[str, Any], where: str, depth: int) -> Spec:
    if depth > MAX_DEPTH:
        raise BadOption(where[:200], f"nodes are nested deeper than {MAX_DEPTH}")
    tree = dict(tree)
    driver = tree.pop("driver", None)
    if driver is None and "filename" in tree:
        driver = "file"
    if not isinstance(driver, str):
        raise BadOption(where, f"a node without driver: {tree}", hint="driver=qcow2,file.driver=file,file.filename=…")
    declared = {option.name.replace("_", "-") for option in driver_class(driver).OPTIONS}
    options: dict[str, Any] = {}
    children: dict[str, Spec | None] = {}
    for name, value in tree.items():
        if name.replace("_", "-") in declared:
            options[name] = value
        elif isinstance(value, dict):
            children[name] = _build(value, where, depth + 1)
        elif name in {"file", "backing", "data-file"}:
            children[name] = _build(_tree(value), where, depth + 1) if value else None
        else:
            options[name] = value  # Spec names what is wrong with it
    return Spec(driver, options, children)
