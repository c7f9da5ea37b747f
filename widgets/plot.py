"""A plotly figure in the page that is fed with deltas.

plotly's own FigureWidget carries a 4.9 MB script per figure, stays 700 px wide and white, and sends whole arrays. This
one asks for the script once per page, follows width and theme, and sends appended points only. The figure itself is an
ordinary `plotly.graph_objects.Figure` built by `mlipkit.plots`, the same one that reports and tests use.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets as t

from .ticker import in_background, kernel_loop, on_loop

STATIC = Path(__file__).parent / "static"
Curves = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Trace number -> (x, y)."""
Parts = tuple[list[dict[str, Any]], dict[str, Any]]
"""Traces and layout as plain data, for pictures that change too often to be built as a figure each time."""


class Plot(anywidget.AnyWidget):
    """Shows a figure; `extend` and `replace` change curves, `relayout` everything else.

    Args:
        figure: what to show first.
        height: px; that of the figure when omitted.
        label: what the picture shows, for screen readers.
        on_click: called as ``on_click(x, y, trace)`` on the kernel's loop.

    Attributes:
        tools: "curves", or "map" for lasso, box, zoom and picking anywhere (`MapPlot`).
        prompt: draw at once, also just after a click; for pictures that are the answer to it.
    """

    _esm = STATIC / "plot.js"

    tools = t.Unicode("curves").tag(sync=True)
    prompt = t.Bool(False).tag(sync=True)
    height = t.Int(420).tag(sync=True)
    label = t.Unicode("").tag(sync=True)
    cursor = t.Float(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        figure: go.Figure,
        *,
        height: int | None = None,
        label: str = "",
        on_click: Callable[[float, float, int], None] | None = None,
    ) -> None:
        super().__init__(height=int(height or figure.layout.height or 420), label=label)
        self._data, self._layout = plain(figure)
        self._on_click = on_click
        self.sent_points = 0
        self._wanted: dict[str, Callable[[bytes | None], None]] = {}
        self.on_msg(self._message)

    @property
    def shown(self) -> Parts:
        """Traces and layout as the page has them."""
        return self._data, self._layout

    @property
    def n_points(self) -> list[int]:
        """Number of points per trace as the page has them."""
        return [len(trace.get("x") or ()) for trace in self._data]

    def show(self, figure: go.Figure | Parts) -> None:
        """Replace the whole figure."""
        self._data, self._layout = figure if isinstance(figure, tuple) else plain(figure)
        self._send_all()

    def extend(self, curves: Curves) -> None:
        """Append points to curves."""
        self._send_curves("extend", curves)

    def replace(self, curves: Curves) -> None:
        """Replace the points of curves."""
        self._send_curves("replace", curves)

    def relayout(self, **values: Any) -> None:
        """Change keys of the layout (``shapes``, ``annotations``, ``xaxis``) given as plain data, when they differ.

        Lists are replaced, the keys of mappings one by one.
        """
        values = {
            key: {**(self._layout.get(key) or {}), **value} if isinstance(value, dict) else value
            for key, value in values.items()
        }
        changed = {key: value for key, value in values.items() if self._layout.get(key) != value}
        if changed:
            self._layout.update(changed)
            self.send({"type": "layout", "layout": changed})

    def picture(self, kind: str, done: Callable[[bytes | None], None]) -> None:
        """Have the page draw the figure as a file; without a page nothing ever comes.

        Args:
            kind: "svg" or "png".
            done: called with its bytes, or None when the page could not.
        """
        self._wanted[kind] = done
        self.send({"type": "picture", "format": kind})

    def _drawn(self, content: dict) -> None:
        # A figure that stands on the page twice answers twice.
        done = self._wanted.pop(str(content.get("format")), None)
        if done is not None:
            on_loop(done, picture_bytes(str(content["data"])) if content.get("data") else None)

    def _send_curves(self, kind: str, curves: Curves) -> None:
        buffers: list[bytes] = []
        for index, (x, y) in curves.items():
            columns = [np.ascontiguousarray(column, dtype="<f8") for column in (x, y)]
            trace = self._data[index]
            for key, column in zip("xy", columns, strict=True):
                values = [value if value == value and abs(value) != np.inf else None for value in column.tolist()]
                trace[key] = (list(trace.get(key) or []) + values) if kind == "extend" else values
                buffers.append(column.tobytes())
            self.sent_points += len(columns[0])
        if buffers:
            self.send({"type": kind, "curves": list(curves)}, buffers=buffers)

    def _send_all(self) -> None:
        self.send({"type": "figure", "data": self._data, "layout": self._layout})

    def _message(self, _widget: object, content: dict, _buffers: object) -> None:
        kind = content.get("type")
        if kind == "ready":
            on_loop(self._send_all)
        elif kind == "library":
            # Packing it takes a tenth of a second, once.
            in_background(library, lambda packed, _error: self.send({"type": "library"}, buffers=[packed]))
        elif kind == "picture":
            self._drawn(content)
        elif kind == "click" and self._on_click is not None and content.get("x") is not None:
            on_loop(self._on_click, float(content["x"]), float(content.get("y") or 0.0), int(content["curve"]))
        else:
            self._heard(content)

    def _heard(self, content: dict) -> None:
        """For subclasses: any other message of the page."""


def picture_bytes(address: str) -> bytes:
    """What lies in a data address: base64 (PNG) or percent signs (SVG)."""
    head, _, body = address.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode()


@cache
def preload() -> Plot | None:
    """Have the page fetch plotly.js while nothing is to be drawn yet; None without a kernel."""
    return Plot(go.Figure()) if kernel_loop() is not None else None


@cache
def library() -> bytes:
    """plotly.js as the installed plotly package ships it, gzipped."""
    import plotly

    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return gzip.compress(source.read_bytes(), compresslevel=5)


def plain(figure: go.Figure) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of a figure as plain lists and dictionaries; NaN and infinity become None.

    The template is left out: colours come from the page.
    """
    record = _listed(figure.to_plotly_json())
    record["layout"].pop("template", None)
    return record["data"], record["layout"]


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        if "bdata" in value and "dtype" in value:
            column = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]).newbyteorder("<"))
            return _listed(column.reshape([int(n) for n in str(value["shape"]).split(",")] if "shape" in value else -1))
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _listed(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
