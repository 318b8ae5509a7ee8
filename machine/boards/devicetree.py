"""Flattened device trees (Devicetree Specification 0.4, chapter 5): what a guest is told about a board.

root = Node("", {"compatible": strings("linux,dummy-virt"), "#address-cells": cells(2)})
root.add("memory@40000000", {"device_type": strings("memory"), "reg": cells(0, 0x4000_0000, 0, 0x800_0000)})
root.flatten()                                   # the blob
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAGIC, VERSION, COMPATIBLE_VERSION = 0xD00DFEED, 17, 16
BEGIN_NODE, END_NODE, PROP, END = 1, 2, 3, 9
HEADER = struct.Struct(">10I")


def cells(*values: int) -> bytes:
    """Numbers of 32 bits."""
    return struct.pack(f">{len(values)}I", *values)


def wide(*values: int) -> bytes:
    """Numbers of 64 bits, as two cells each."""
    return struct.pack(f">{len(values)}Q", *values)


def strings(*texts: str) -> bytes:
    """Texts, each with its zero."""
    return b"".join(text.encode("ascii") + b"\0" for text in texts)


@dataclass(slots=True)
class Node:
    """A node: properties are bytes, in the order in which they were given."""

    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def add(self, name: str, properties: dict[str, bytes]) -> Node:
        """A new child."""
        child = Node(name, properties)
        self.children.append(child)
        return child

    def flatten(self) -> bytes:
        """The blob of this node as the root."""
        names: dict[str, int] = {}
        texts = bytearray()
        parts: list[bytes] = []

        def padded(data: bytes) -> bytes:
            return data + bytes(-len(data) % 4)

        def put(node: Node) -> None:
            parts.append(cells(BEGIN_NODE) + padded(strings(node.name)))
            for name, value in node.properties.items():
                if name not in names:
                    names[name] = len(texts)
                    texts.extend(strings(name))
                parts.append(cells(PROP, len(value), names[name]) + padded(value))
            for child in node.children:
                put(child)
            parts.append(cells(END_NODE))

        put(self)
        body = b"".join(parts) + cells(END)
        reserved = HEADER.size  # an empty list of reserved memory: one entry of zeroes
        start = reserved + 16
        total = start + len(body) + len(texts)
        header = HEADER.pack(
            MAGIC, total, start, start + len(body), reserved, VERSION, COMPATIBLE_VERSION, 0, len(texts), len(body)
        )
        return header + bytes(16) + body + bytes(texts)
