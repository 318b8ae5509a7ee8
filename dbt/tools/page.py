"""What the HTML pages share: one file without anything from elsewhere, light or dark as the browser is."""

from __future__ import annotations

from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; }
:root { --back: #fbfbf9; --fore: #1d2129; --dim: #6b7280; --line: #e2e2dc; --panel: #ffffff; --accent: #2f6fb0;
  --bar: #cfe0f1; --hot: 214 90 49; }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --fore: #e3e5e8; --dim: #9097a3; --line: #2c3038;
  --panel: #1d2025; --accent: #7db3e8; --bar: #27435e; --hot: 240 120 70; } }
* { box-sizing: border-box; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
body { margin: 0; padding: 28px 32px; background: var(--back); color: var(--fore);
  font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 10px; }
p { margin: 4px 0; } .dim { color: var(--dim); }
code, pre, .mono { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
@media (max-width: 700px) { body { padding: 16px 12px; } h1 { overflow-wrap: anywhere; } }
"""


def page(title: str, style: str, body: str) -> str:
    """A whole page."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
