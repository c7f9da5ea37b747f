"""What a view shows at this moment as one HTML file, or its figures as pictures.

The file holds everything it needs: it opens offline, in any browser, without Python. Figures stay alive in it (zoom,
hover, saving as SVG), atoms are the still picture of the frame on show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Protocol, runtime_checkable

import ipywidgets as w
import plotly.graph_objects as go

from mlipkit.data.whole import write_whole
from mlipkit.errors import RunError, require
from mlipkit.runs.page import figure_html, page

from .atoms_pane import AtomsPane
from .header import STATIC, Header
from .plot import Plot
from .replica_list import ReplicaList
from .states import chip
from .thumbnails import Thumbnails
from .ticker import after

PICTURES = (".svg", ".png")
PATIENCE_S = 10.0
"""How long a page may take to draw the pictures."""
COLOURS = """
.mlipkit-view { --jp-ui-font-color1: var(--fg); --jp-ui-font-color2: var(--fg); --jp-border-color2: var(--line);
  --jp-layout-color1: var(--bg); --jp-layout-color2: var(--soft); border: 0; padding: 0; overflow: visible; }
.mk-still { flex: 1 1 320px; min-width: 0; } body { max-width: 1240px; }
"""


@runtime_checkable
class Still(Protocol):
    """What has a form of its own in a file."""

    def still_html(self) -> str: ...


def export(view: w.Widget, path: str | os.PathLike[str]) -> list[Path]:
    """Write what a view shows: `.html` for one file with everything, `.svg` or `.png` for one picture per figure.

    Args:
        view: any view of this package.
        path: file to write; of several pictures the numbered ones get ``-2``, ``-3`` ... before the suffix.

    Returns:
        The files that were written.

    Raises:
        RunError: no view, another suffix, nothing to draw, or a place that cannot be written.
        MissingPackageError: pictures without a browser need kaleido; the camera of each figure saves one as well.
    """
    place = Path(path).expanduser().resolve()
    if not isinstance(view, w.Widget):
        raise RunError("nothing to export", where="export", expected="a view", found=type(view).__name__)
    if place.suffix.lower() in PICTURES:
        return _pictures(view, place)
    if place.suffix.lower() not in (".html", ".htm"):
        raise RunError("cannot be exported to", where=str(place), expected=".html, .svg or .png", found=place.suffix)
    title = next((one.title for one in _visible(view) if isinstance(one, Header) and one.title), "mlipkit")
    style = f"<style>{(STATIC / 'view.css').read_text(encoding='utf-8')}{COLOURS}</style>"
    text = page(title, f'{style}<div class="mlipkit-view">{still(view)}</div>')
    _write(place, text.encode())
    return [place]


def _write(place: Path, content: bytes) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, content)
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror})", where=str(place)) from None


def page_pictures(view: w.Widget, path: str | os.PathLike[str], done: Callable[[list[Path], int], object]) -> int:
    """Have the page write each figure on show as SVG and PNG; nothing but the page is needed.

    Args:
        path: name of the files, without suffix; of several figures the later ones get ``-2``, ``-3`` ...
        done: called with the files that were written and the number of figures that did not answer, once.

    Returns:
        The number of figures that were asked.

    Raises:
        RunError: nothing to draw.
    """
    place = Path(path).expanduser().resolve()
    plots = _plots(view)
    asked = [(number, kind) for number in range(1, len(plots) + 1) for kind in PICTURES]
    answers: dict[tuple[int, str], Path | None] = {}
    ended: list[bool] = []

    def end() -> None:
        if not ended:
            ended.append(True)
            files = [found for key in asked if (found := answers.get(key)) is not None]
            done(files, len({number for number, kind in asked if answers.get((number, kind)) is None}))

    def came(key: tuple[int, str], content: bytes | None) -> None:
        if ended:
            return
        number, kind = key
        target = place.with_name(f"{place.name}{f'-{number}' if number > 1 else ''}{kind}")
        if content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, content)
        answers[key] = target if content is not None else None
        if len(answers) == len(asked):
            end()

    after(PATIENCE_S, end)
    for number, kind in asked:
        plots[number - 1].picture(kind[1:], partial(came, (number, kind)))
    return len(plots)


def still(widget: w.Widget) -> str:
    """HTML of what a widget shows; "" of what is hidden and of controls."""
    layout = getattr(widget, "layout", None)
    if layout is not None and layout.display == "none":
        return ""
    if isinstance(widget, Still):
        return widget.still_html()
    match widget:
        case Header():
            return _head(widget)
        case Plot():
            return f'<div class="mk-still">{figure_html(figure_of(widget))}</div>'
        case AtomsPane():
            return f'<div class="mk-still">{widget.still()}{widget.colour_bar.value}{widget.text.value}</div>'
        case Thumbnails():
            items = (
                f"<figure>{one['svg']}<figcaption>{escape(one['text'])}</figcaption></figure>" for one in widget.items
            )
            return f'<div class="mlipkit-row">{"".join(items)}{escape(widget.more)}</div>'
        case ReplicaList():
            return "".join(_replicas(group) for group in widget.groups)
        case w.HTML() | w.HTMLMath():
            return f"<div>{widget.value}</div>" if widget.value else ""
        case w.Box():
            inner = "".join(still(child) for child in widget.children)
            return f'<div class="{" ".join(widget._dom_classes)}">{inner}</div>' if inner else ""
    return ""


def figure_of(plot: Plot) -> go.Figure:
    """The figure as the page has it."""
    data, layout = plot.shown
    return go.Figure({"data": data, "layout": {**layout, "height": plot.height}}, skip_invalid=True)


def _head(head: Header) -> str:
    detail = f" <span>{escape(head.detail)}</span>" if head.detail else ""
    sentence = f"<p>{escape(head.sentence)}</p>" if head.sentence else ""
    state = chip(head.state) if head.word else ""
    return f"<header>{state} <b>{escape(head.title)}</b>{detail}{sentence}</header>"


def _replicas(group: dict) -> str:
    labels = "".join(
        f'<span class="mk-chip" style="--mk-tone:{one["tone"]}" title="{escape(one["told"])}">'
        f"{one['icon']} {one['index']} {escape(one['text'])}</span> "
        for one in group["members"]
    )
    return f"<p><b>{escape(group['name'])}</b> {escape(group['count'])}<br>{labels}</p>"


def _visible(widget: w.Widget) -> Iterator[w.Widget]:
    layout = getattr(widget, "layout", None)
    if layout is None or layout.display != "none":
        yield widget
        for child in getattr(widget, "children", ()):
            yield from _visible(child)


def _plots(view: w.Widget) -> list[Plot]:
    plots = [one for one in _visible(view) if isinstance(one, Plot) and one.shown[0]]
    if not plots:
        raise RunError("no figure is on show", where=type(view).__name__, hint="Export to .html, or open a run first")
    return plots


def _pictures(view: w.Widget, place: Path) -> list[Path]:
    plots = _plots(view)
    require("kaleido", "", "a picture without a browser", "Press the camera of the figure, or: pip install kaleido")
    written = []
    for number, plot in enumerate(plots, start=1):
        target = place if number == 1 else place.with_stem(f"{place.stem}-{number}")
        _write(target, figure_of(plot).to_image(format=place.suffix[1:], width=1000, height=plot.height))
        written.append(target)
    return written
