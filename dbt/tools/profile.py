"""`dragoman profile`: how many instructions ran in each function and block, as text and as a page.

A counter for each block, times its instructions: exact but for blocks that are left early by a fault.
"""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.instrument import Plugin
from dbt.wording import counted

from .assembly import disassemble
from .commands import Output, check_writable, load, own_path, run, run_options, write_file
from .page import page
from .symbols import Names, short

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import NoReturn

    from dbt.instrument import Block
    from dbt.launch import Origin

Key = tuple[str, int, bytes]  # path, offset in the module, code


class Site(NamedTuple):
    """A block that has run."""

    path: str
    offset: int
    pc: int
    code: bytes
    entered: int
    instructions: int  # that ran in it


class Function(NamedTuple):
    """The blocks of one function that have run, the hottest first."""

    name: str
    path: str
    instructions: int
    blocks: list[Site]


class Profile(Plugin):
    """Counts blocks; `report` is called with itself when the program ends, in each forked child as well."""

    def __init__(self, report: Callable[[Profile], None]) -> None:
        super().__init__()
        self.child = False
        self.machine = ""
        self._report: Final = report
        self._blocks: dict[Key, tuple[int, int]] = {}  # pc, instructions
        self._names: Final = Names()

    def block(self, block: Block) -> None:
        """The same block of a file is the same wherever it lies; other code at its place is another."""
        path, offset, _base = block.where
        self.machine = block.cpu.info.name
        key = (path, offset, block.cpu.memory.read(block.pc, block.size))
        self._blocks[key] = (block.pc, len(block.instructions))
        block.count(self.counters[key])

    def forked(self) -> None:
        """The child counts from here on."""
        self.child = True
        self.counters.clear()

    def finish(self) -> None:
        """Report."""
        self._report(self)

    def sites(self) -> list[Site]:
        """All blocks that have run, the hottest first."""
        counts = self.counters.values()
        found = [
            Site(path, offset, pc, code, counts[path, offset, code], counts[path, offset, code] * n)
            for (path, offset, code), (pc, n) in self._blocks.items()
            if counts[path, offset, code]
        ]
        return sorted(found, key=lambda s: (-s.instructions, s.pc))

    def functions(self) -> list[Function]:
        """All functions that have run, the hottest first."""
        found: dict[tuple[str, str], list[Site]] = {}
        for site in self.sites():
            found.setdefault((self._names.function(site.path, site.offset)[0], site.path), []).append(site)
        made = [
            Function(name, path, sum(s.instructions for s in sites), sites) for (name, path), sites in found.items()
        ]
        return sorted(made, key=lambda f: (-f.instructions, f.name))

    def place(self, site: Site) -> str:
        """function+offset of a block."""
        return self._names.at(site.path, site.offset)


def text(profile: Profile, title: str, top: int = 20) -> str:
    """The report for a terminal."""
    functions, sites = profile.functions(), profile.sites()
    total = sum(f.instructions for f in functions)
    where = f"{counted(len(sites), 'block')} of {counted(len(functions), 'function')}"
    lines = [f"{title}: {counted(total, 'instruction')} in {where}", ""]
    lines.append(f"{'share':>7} {'instructions':>16}  function")
    for f in functions[:top]:
        bar = "█" * round(20 * f.instructions / max(functions[0].instructions, 1))
        lines.append(f"{_share(f.instructions, total):>7} {f.instructions:>16,}  {f.name:<32} {bar}".rstrip())
    lines += ["", f"{'share':>7} {'instructions':>16} {'entered':>14}  block"]
    for s in sites[:top]:
        first = disassemble(profile.machine, s.code, s.pc)[0].text
        share = _share(s.instructions, total)
        lines.append(f"{share:>7} {s.instructions:>16,} {s.entered:>14,}  {profile.place(s):<32} {first}".rstrip())
    return "\n".join(lines) + "\n"


def _share(part: int, total: int) -> str:
    return f"{100 * part / max(total, 1):.1f} %"


_STYLE: Final = """
.map { display: flex; height: 26px; margin-bottom: 2px; }
.map i { min-width: 0; } .map a { min-width: 0; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  padding: 3px 0; text-indent: 5px;  font-size: 12px; border-radius: 3px; text-decoration: none; color: var(--fore);
  background: rgb(var(--hot) / var(--heat)); box-shadow: inset -1px 0 var(--back); }
details { border-bottom: 1px solid var(--line); } details:last-child { border-bottom: 0; }
summary { display: grid; grid-template-columns: 5.5em 11em 1fr; gap: 14px; padding: 5px 14px; cursor: pointer;
  align-items: center; } summary:hover { background: var(--back); }
@media (max-width: 700px) { summary { grid-template-columns: 4em 6.5em 1fr; gap: 8px; padding: 5px 8px; } }
summary .name { position: relative; padding: 1px 6px; overflow-wrap: anywhere; }
summary .name i { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: 3px; z-index: 0; }
summary .name span { position: relative; z-index: 1; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 2px 14px 12px 14px; scroll-margin-top: 3em; }
td { padding: 0 12px 0 0; vertical-align: top; }
tr.head td { padding-top: 8px; color: var(--accent); }
td.heat { border-left: 4px solid rgb(var(--hot) / var(--heat)); padding-left: 10px; }
"""
_SHOWN, _BLOCKS = 150, 40  # functions of a page, blocks of each


def html(profile: Profile, title: str) -> str:
    """The report as a page: a map of widths, then functions that open to their blocks."""
    functions = profile.functions()
    total = max(sum(f.instructions for f in functions), 1)
    facts = f"{counted(total, 'instruction')} in {counted(len(functions), 'function')}"
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="dim">{facts}</p>']
    parts += ["<h2>Where the instructions are</h2>", _maps(profile, functions, total)]
    parts += ["<h2>Functions, the hottest first</h2>", '<div class="panel">']
    for number, f in enumerate(functions[:_SHOWN]):
        width = 100 * f.instructions / functions[0].instructions
        parts.append(
            f'<details><summary><span class="number">{_share(f.instructions, total)}</span>'
            f'<span class="number dim">{f.instructions:,}</span><span class="name mono"><i style="width:{width:.2f}%">'
            f'</i><span>{escape(f.name)} <span class="dim">{escape(short(f.path))}</span></span></span></summary>'
        )
        parts += [_blocks(profile, f, f"f{number}"), "</details>"]
    parts.append("</div>")
    if len(functions) > _SHOWN:
        more = counted(len(functions) - _SHOWN, "more function")
        parts.append(f'<p class="dim">and {more}</p>')
    return page(f"{title}: profile", _STYLE, "\n".join(parts))


def _maps(profile: Profile, functions: list[Function], total: int) -> str:
    """Three rows, each part as wide as its share: files, functions, blocks below their function."""
    files: dict[str, int] = {}
    for f in functions:
        files[f.path] = files.get(f.path, 0) + f.instructions
    ordered = sorted(files, key=lambda path: -files[path])
    rows: list[list[str]] = [[], [], []]
    for path in ordered:
        rows[0].append(_part(files[path], total, short(path), ""))
        for number, f in enumerate(functions):
            if f.path != path:
                continue
            if _visible(f.instructions, total):
                rows[1].append(_part(f.instructions, total, f.name, f"#f{number}"))
                blocks = [s for s in f.blocks if _visible(s.instructions, total)]
                rows[2] += [_part(s.instructions, total, profile.place(s), f"#f{number}") for s in blocks]
                rows[2].append(_rest(f.instructions - sum(s.instructions for s in blocks)))
        shown = [f.instructions for f in functions if f.path == path and _visible(f.instructions, total)]
        for row in rows[1:]:
            row.append(_rest(files[path] - sum(shown)))
    return "\n".join(f'<div class="map">{"".join(row)}</div>' for row in rows)


def _visible(part: int, total: int) -> bool:
    return part >= 0.001 * total


def _rest(part: int) -> str:
    """The place of what is too narrow to be shown."""
    return f'<i style="flex:{part} 1 0"></i>' if part else ""


def _part(part: int, total: int, name: str, link: str) -> str:
    share = part / total
    shown = escape(name) if share > 0.03 else ""
    thin = "" if shown else ' class="thin" tabindex="-1"'  # too many to tab through: the list has them all
    link = f' href="{link}"' if link else ""
    heat = f"--heat:{0.12 + 0.6 * share**0.5:.2f}"
    hint = f"{escape(name, quote=True)}: {counted(part, 'instruction')}, {_share(part, total)}"
    return f'<a{thin}{link} style="flex:{part} 1 0;{heat}" title="{hint}">{shown}</a>'


def _blocks(profile: Profile, function: Function, name: str) -> str:
    """The code; a link to `name`, which is inside of what is folded, unfolds it."""
    rows = []
    for s in sorted(function.blocks[:_BLOCKS], key=lambda s: s.pc):
        heat = f"--heat:{(s.instructions / max(function.instructions, 1)) ** 0.5:.2f}"
        place = escape(profile.place(s))
        rows.append(f'<tr class="head mono"><td class="number">{s.entered:,} ×</td><td>{place}</td></tr>')
        rows += [
            f'<tr class="mono"><td class="number dim">{line.address:#x}</td>'
            f'<td class="heat" style="{heat}">{escape(line.text)}</td></tr>'
            for line in disassemble(profile.machine, s.code, s.pc)
        ]
    if len(function.blocks) > _BLOCKS:
        more = counted(len(function.blocks) - _BLOCKS, "more block")
        rows.append(f'<tr class="dim"><td></td><td>and {more}</td></tr>')
    return f'<div class="scroll"><table id="{name}">{"".join(rows)}</table></div>'


def profile(options: argparse.Namespace, origin: Origin) -> NoReturn:
    """The command."""
    found = run_options(options, origin)
    process = load(found, origin=origin)
    title = " ".join([os.path.basename(found.path), *(os.fsdecode(a) for a in found.argv[1:])])
    output = None if options.output or options.html else Output(process, None)
    for path in filter(None, (options.output, options.html)):
        check_writable(path)
    paths = [os.path.abspath(path) if path else "" for path in (options.output, options.html)]

    def report(plugin: Profile) -> None:
        name = f"{title} (process {os.getpid()})" if plugin.child else title
        if paths[1]:
            write_file(own_path(paths[1], child=plugin.child), html(plugin, name).encode(errors="backslashreplace"))
        if paths[0]:
            shown = text(plugin, name, options.top).encode(errors="backslashreplace")
            write_file(own_path(paths[0], child=plugin.child), shown)
        if output is not None:
            output.write(text(plugin, name, options.top))

    run(process, Profile(report), output)
