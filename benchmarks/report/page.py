"""The page around the sections: one file, no script, no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report.section import Section

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #57606a; --rule: #d8dee4;
  --track: #f3f5f7; --ours: #0a58ca; --base: #a5b0bb; --peer: #e08a3c; }
@media (prefers-color-scheme: dark) { :root { --paper: #0e1116; --ink: #e6e9ee; --soft: #9aa4b0;
  --rule: #2b323b; --track: #181d24; --ours: #6cb2ff; --base: #5b6672; --peer: #d98842; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0 1rem; } h2 { font-size: 1.1rem; margin: 0 0 .25rem; }
p { margin: 0 0 .75rem; } .origin, section > p { color: var(--soft); font-size: .85rem; }
main { columns: 2 440px; column-gap: 1.25rem; }
section { border: 1px solid var(--rule); border-radius: .5rem; padding: 1rem; margin: 0 0 1.25rem;
  break-inside: avoid; }
.plot { display: block; width: 100%; height: auto; }
.plot text { font-size: 11px; fill: var(--ink); }
@media (max-width: 480px) { .plot text { font-size: 13px; } }
.plot .axis { fill: var(--soft); } .mid { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--rule); fill: none; } .track { fill: var(--track); }
rect.base, .base i { fill: var(--base); background: var(--base); }
rect.own, .own i { fill: var(--ours); background: var(--ours); }
rect.peer, .peer i { fill: var(--peer); background: var(--peer); }
.line { color: hsl(var(--hue) 65% 42%); } .line path { stroke: currentColor; fill: none;
  stroke-width: 1.4; } .line circle { fill: currentColor; } .dashed path { stroke-dasharray: 4 3; }
.ours { color: var(--ours); font-weight: 600; } .ours path { stroke-width: 3; }
.c0 { --hue: 25; } .c1 { --hue: 140; } .c2 { --hue: 280; } .c3 { --hue: 0; } .c4 { --hue: 185; }
.c5 { --hue: 325; } .c6 { --hue: 60; } .c7 { --hue: 100; }
@media (prefers-color-scheme: dark) { .line:not(.ours) { color: hsl(var(--hue) 55% 62%); } }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; padding: 0;
  margin: .5rem 0; font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.legend svg { width: 22px; height: 10px; } .boxes i { width: 12px; height: 12px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--rule);
  white-space: nowrap; font-variant-numeric: tabular-nums; } summary { cursor: pointer; }
details { margin-bottom: .75rem; font-size: .9rem; }
"""


def page(sections: Sequence[Section]) -> str:
    """The whole document."""
    body = "\n".join(section.html() for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>NPS Store: measured</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>NPS Store: measured</h1>
<main>
{body}
</main>
</body>
</html>
"""
