"""What has been tried: sets of names by kind, a line for people, and a file that names what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Coverage:
    """Of each kind, what there is and what was tried. A name is `MODULE NAME…`."""

    def __init__(self) -> None:
        self._all: dict[str, set[str]] = {}
        self._tried: dict[str, set[str]] = {}

    def expect(self, kind: str, names: Iterable[str]) -> None:
        """There are these."""
        self._all.setdefault(kind, set()).update(names)

    def note(self, kind: str, name: str) -> None:
        """One was tried."""
        self._tried.setdefault(kind, set()).add(name)

    def untried(self, kind: str) -> list[str]:
        """What was not."""
        return sorted(self._all[kind] - self._tried.get(kind, set()))

    def summary(self) -> str:
        """A line."""
        parts = [f"{kind} {len(names) - len(self.untried(kind))}/{len(names)}" for kind, names in self._all.items()]
        return "tried: " + ", ".join(parts)

    def write(self, path: Path) -> None:
        """The file: a line for each module with its figures, then what was not tried."""
        lines: list[str] = []
        for kind, names in self._all.items():
            lines.append(f"{kind}:")
            left = self.untried(kind)
            for module in sorted({name.split()[0] for name in names}):
                total = sum(name.split()[0] == module for name in names)
                missing = [name for name in left if name.split()[0] == module]
                lines.append(f"  {module} {total - len(missing)}/{total}")
                lines += [f"    not tried: {name}" for name in missing]
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
