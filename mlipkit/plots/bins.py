"""Many points as one small image: bins coloured by the points in them, written as PNG without a library."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from plotly.colors import sample_colorscale, sequential

BINS = (260, 180)
"""Bins across and up."""
GREY = "#8b949e"
Extent = tuple[float, float, float, float]
"""x0, x1, y0, y1."""


@dataclass(frozen=True)
class Groups:
    """Points coloured by what they belong to: codes int [n] into names and colours."""

    codes: np.ndarray
    names: tuple[str, ...]
    colours: tuple[str, ...]


@dataclass(frozen=True)
class Values:
    """Points coloured by a number [n]; the scale goes from low to high, `title` has the unit."""

    values: np.ndarray
    low: float
    high: float
    title: str


def extent_of(x: np.ndarray, y: np.ndarray) -> Extent:
    """x0, x1, y0, y1 around points with a margin of 4 %; a unit square without points."""
    if not len(x):
        return -1.0, 1.0, -1.0, 1.0
    ends = []
    for values in (x, y):
        low, high = float(values.min()), float(values.max())
        margin = 0.04 * (high - low) or 0.5
        ends += [low - margin, high + margin]
    return ends[0], ends[1], ends[2], ends[3]


def shade(x: np.ndarray, y: np.ndarray, colour: Groups | Values | str | None, extent: Extent) -> np.ndarray:
    """Image uint8 [height, width, 4] of points in bins, the first row on top.

    A bin has the mean colour (of `Groups`) or the colour of the mean (of `Values`) of its points; the more points, the
    more opaque, by the logarithm of their number. `colour`: also one colour as text; None is grey.
    """
    width, height = BINS
    x0, x1, y0, y1 = extent
    column = np.clip(((x - x0) / (x1 - x0) * width).astype(np.int64), 0, width - 1)
    row = np.clip(((y1 - y) / (y1 - y0) * height).astype(np.int64), 0, height - 1)
    at, n_bins = row * width + column, width * height
    count = np.bincount(at, minlength=n_bins).astype(float)
    filled = count > 0
    rgba = np.zeros((n_bins, 4))
    if isinstance(colour, Values):
        values = np.nan_to_num(np.asarray(colour.values, float), nan=colour.low)
        mean = np.bincount(at, values, n_bins)[filled] / count[filled]
        share = np.clip((mean - colour.low) / max(colour.high - colour.low, 1e-12), 0, 1)
        rgba[filled, :3] = _ramp()[(share * 255).astype(int)]
    elif isinstance(colour, Groups):
        parts = np.bincount(at * len(colour.names) + colour.codes, minlength=n_bins * len(colour.names))
        parts = parts.reshape(n_bins, -1)[filled] / count[filled, None]
        rgba[filled, :3] = parts @ np.array([rgb(tone) for tone in colour.colours])
    else:
        rgba[filled, :3] = rgb(colour or GREY)
    top = np.log1p(count.max()) if len(count) else 1.0
    weakest, strongest = (0.25, 0.55) if colour is None else (0.6, 1.0)
    rgba[filled, 3] = 255 * (weakest + (strongest - weakest) * np.log1p(count[filled]) / top)
    return rgba.round().astype(np.uint8).reshape(height, width, 4)


def png(rgba: np.ndarray) -> str:
    """Data address of an image uint8 [height, width, 4]."""
    height, width, _ = rgba.shape
    rows = np.zeros((height, 1 + 4 * width), np.uint8)
    rows[:, 1:] = rgba.reshape(height, -1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
    return "data:image/png;base64," + base64.b64encode(data + chunk(b"IEND", b"")).decode()


def over(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """One image on another."""
    a, b = above[..., 3:] / 255.0, below[..., 3:] / 255.0
    alpha = a + b * (1 - a)
    mixed = (above[..., :3] * a + below[..., :3] * b * (1 - a)) / np.maximum(alpha, 1e-9)
    return np.concatenate([mixed, 255 * alpha], axis=-1).round().astype(np.uint8)


@cache
def _ramp() -> np.ndarray:
    """[256,3] of the scale for numbers."""
    shares = np.linspace(0, 1, 256).tolist()
    return np.array([rgb(str(tone)) for tone in sample_colorscale(sequential.Viridis, shares)])


@cache
def rgb(colour: str) -> tuple[float, ...]:
    if colour.startswith("#"):
        return tuple(float(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return tuple(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
