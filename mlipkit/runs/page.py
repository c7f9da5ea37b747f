"""A page that opens offline: style, figures, tables; one HTML file with everything in it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs

if TYPE_CHECKING:
    import plotly.graph_objects as go

STYLE = """
:root { color-scheme: light dark; --fg: #1b1b1f; --bg: #ffffff; --soft: #f2f3f5; --line: #d5d7dc; }
@media (prefers-color-scheme: dark) { :root { --fg: #e7e7ea; --bg: #16171a; --soft: #22242a; --line: #3a3d45; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 1000px;
  margin: 0 auto; padding: 1.5rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
tr + tr td { border-top: 1px solid var(--line); }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: 6px; }
.verdict { border-left: 6px solid #009E73; background: var(--soft); padding: .6rem 1rem; font-size: 1.1rem; }
.verdict.failed, .verdict.crashed, .verdict.lost { border-color: #D62728; }
.verdict.warning, .verdict.stopped { border-color: #E69F00; }
details { margin: .6rem 0; } h2 { margin-top: 2.2rem; }
"""
# Figures carry no colours of text: the page tells them which ground they lie on.
SCRIPT = """
const dark = window.matchMedia('(prefers-color-scheme: dark)');
function ink() { const colour = getComputedStyle(document.body).color;
  document.querySelectorAll('.figure').forEach(el => Plotly.relayout(el,
    {'font.color': colour, 'modebar.bgcolor': 'rgba(0,0,0,0)'})); }
document.querySelectorAll('.figure').forEach(el => { const spec = JSON.parse(el.nextElementSibling.textContent);
  Plotly.newPlot(el, spec.data, spec.layout, {responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ['sendChartToCloud', 'select2d', 'lasso2d'], toImageButtonOptions: {format: 'svg'}}); });
ink(); dark.addEventListener('change', ink);
"""


def page(title: str, body: str) -> str:
    """The whole file. `body` is HTML, the title plain text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n<body>"
        f"{body}<script>{SCRIPT}</script></body></html>\n"
    )


def figure_html(figure: go.Figure) -> str:
    """A figure as a piece of the page; its numbers lie beside it as JSON."""
    text = str(figure.to_json()).replace("</", "<\\/")
    return f'<div class="figure"></div><script type="application/json">{text}</script>'


def table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """A table; `head` are its column titles."""
    top = "<tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in head) + "</tr>" if head else ""
    lines = ("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{top}{''.join(lines)}</table>"


def details(title: str, text: str) -> str:
    """Text that unfolds on a click."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
