"""Tables of numbers in a file, in memory a page at a time; changes are written at once."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.block.node import Node

PAGE_WORDS = 512


class TableCache:
    """Tables of numbers in `file`, read a page at a time, `limit` bytes of them at most. The caller holds a mutex."""

    def __init__(self, file: Node, bits: int, order: str, limit: int = 4 << 20) -> None:
        self.file = file
        self.code = "Q" if bits == 64 else "I"
        self.order = "little" if order == "<" else "big"
        self.swap = self.order != sys.byteorder
        self.width = bits // 8
        self.limit = max(limit // (PAGE_WORDS * self.width), 2)
        self.pages: dict[tuple[int, int], array[int]] = {}

    def _page(self, base: int, number: int) -> array[int]:
        page = self.pages.get((base, number))
        if page is None:
            page = self._load(base + number * PAGE_WORDS * self.width)
            while len(self.pages) >= self.limit:
                del self.pages[next(iter(self.pages))]
            self.pages[base, number] = page
        return page

    def _load(self, at: int) -> array[int]:
        size = PAGE_WORDS * self.width
        data = self.file.pread(at, max(min(size, self.file.size - at), self.width))
        words = array(self.code, bytes(data.ljust(size, b"\0"))[:size])
        if self.swap:
            words.byteswap()
        return words

    def get(self, base: int, index: int) -> int:
        """Entry `index` of the table at `base`."""
        return self._page(base, index // PAGE_WORDS)[index % PAGE_WORDS]

    def remember(self, base: int, index: int, value: int) -> None:
        """Change the entry in memory only; somebody else writes it."""
        self._page(base, index // PAGE_WORDS)[index % PAGE_WORDS] = value

    def put(self, base: int, index: int, value: int) -> None:
        """Change the entry, on the disk first."""
        self.file.pwrite(base + index * self.width, value.to_bytes(self.width, self.order))  # type: ignore[arg-type]
        self.remember(base, index, value)

    def entries(self, base: int, count: int, nothing: int = 0) -> Iterator[tuple[int, int]]:
        """(index, value) of all entries but those that are `nothing`, read past the cache."""
        for start in range(0, count, PAGE_WORDS):
            words = self._load(base + start * self.width)[: count - start]
            if words.count(nothing) < len(words):
                for k, value in enumerate(words):
                    if value != nothing:
                        yield start + k, value
