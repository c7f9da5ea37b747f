"""Pictures of the shift explorer: what is drawn of few points and of many."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import plotly.graph_objects as go
import pytest

from mlipkit.errors import DataError
from mlipkit.plots import bins
from mlipkit.plots import explorer as plots
from mlipkit.plots.runs import Mark

EXTENT = (0.0, 1.0, 0.0, 1.0)


def decoded(address: str) -> np.ndarray:
    """The picture of a data address, read without a library."""
    data = base64.b64decode(address.partition(",")[2])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + content)
        chunks[kind] = content
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 4 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 4)


def test_png_gives_back_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 4)).astype(np.uint8)
    assert np.array_equal(decoded(bins.png(image)), image)


def test_bins_are_where_the_points_are() -> None:
    width, height = bins.BINS
    image = bins.shade(np.array([0.0, 0.999]), np.array([0.999, 0.0]), "#ff0000", EXTENT)
    filled = np.argwhere(image[..., 3] > 0)
    assert filled.tolist() == [[0, 0], [height - 1, width - 1]], "top left and bottom right"
    assert image[0, 0, :3].tolist() == [255, 0, 0]


def test_a_bin_has_the_mean_colour_and_more_points_hide_more() -> None:
    x = np.array([0.2] * 3 + [0.8])
    groups = bins.Groups(np.array([0, 0, 1, 1]), ("a", "b"), ("#000000", "#ff0000"))
    image = bins.shade(x, np.full(4, 0.5), groups, EXTENT)
    mixed, single = image[image[..., 3] > 0]
    assert mixed[0] == 85
    assert single[0] == 255
    assert mixed[3] > single[3] > 100
    values = bins.Values(np.array([0.0, 0.0, 3.0, np.inf]), 0.0, 1.0, "v")
    low_mean, high = bins.shade(x, np.full(4, 0.5), values, EXTENT)[image[..., 3] > 0]
    assert low_mean[:3].tolist() == high[:3].tolist(), "both are at the end of the scale"


@pytest.mark.parametrize("n", [500, 20_000])
def test_few_points_travel_and_many_become_an_image(n: int) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, n))
    x[0] = np.nan
    colour = plots.by_element(random.choice([1, 8], n))
    figure = plots.score_map(
        x, y, colour, axes=("PC1", "log10 Q"), chosen=np.arange(n) < 30, picked=(0.0, 0.0),
        trail=plots.Trail(np.zeros((3, 2)), np.zeros((200, 2))), marks=[(0.1, 0.2, "warning"), (0.3, 0.4, "failure")],
    )  # fmt: skip
    assert isinstance(figure, go.Figure)
    named = {trace.name: trace for trace in figure.data}
    assert {"selected", "trail", "frame now", "warning", "failure", "picked"} <= set(named)
    assert len(named["selected"].x) == 29, "a point that is not finite is left out"
    assert len(named["trail"].x) == 200
    assert named["trail"].marker.opacity[0] < named["trail"].marker.opacity[-1] == 1.0
    drawn = sum(len(trace.x) for trace in figure.data if trace.name in ("H", "O", ""))
    if n > plots.MANY_POINTS:
        assert len(figure.layout.images) == 1
        assert (decoded(figure.layout.images[0].source)[..., 3] > 0).sum() > 1000
        assert drawn < 20
    else:
        assert not figure.layout.images
        assert drawn == n - 1 + 2
    assert [entry.name for entry in figure.data if entry.showlegend] == ["H", "O"]
    assert figure.layout.yaxis.title.text == "Q"
    assert figure.layout.yaxis.ticktext[0].startswith("10<sup>")


def test_what_lies_outside_the_part_on_show_is_not_drawn() -> None:
    x = np.linspace(0, 1, 101)
    figure = plots.score_map(x, x, plots.by_element(np.ones(101)), extent=(0.25, 0.5, 0.0, 1.0))
    assert sum(len(trace.x) for trace in figure.data if trace.name == "H" and trace.x[0] is not None) == 26
    assert list(figure.layout.xaxis.range) == [0.25, 0.5]


def test_points_behind_are_grey() -> None:
    x = np.arange(4.0)
    figure = plots.score_map(x, x, plots.by_element([1, 1, 8, 8]), behind=[True, False, True, False])
    grey = figure.data[0]
    assert list(grey.x) == [0.0, 2.0]
    assert grey.marker.color == bins.GREY


def test_nothing_to_draw_and_sizes_that_differ() -> None:
    figure = plots.score_map([], [], bins.Values(np.zeros(0), 0, 1, "Q / limit"))
    assert figure.data[-2].marker.colorbar.title.text == "Q / limit"
    with pytest.raises(DataError, match="x and y differ in size"):
        plots.score_map([1.0], [1.0, 2.0], plots.by_element([1]))


def test_series_has_bands_limits_and_marks() -> None:
    figure = plots.value_series(
        [0, 1, 2], {"H": [1, 2, 3], "O": [2, 2, np.nan]}, x_title="frame", y_title="Q", bands={"H": (0.5, 2.5)},
        limits={"H": 4.0, "O": 5.0}, marks=[Mark(1.0, "warning", "w")], colours={"H": "#111111"},
    )  # fmt: skip
    assert [trace.name for trace in figure.data] == ["H", "O"]
    kinds = [(shape.type, shape.y0) for shape in figure.layout.shapes]
    assert kinds == [("rect", 0.5), ("line", 4.0), ("line", 5.0), ("line", 0)]
    assert figure.layout.annotations[0].text == "▼"
    assert figure.layout.shapes[0].fillcolor == "#111111"


def test_density_curves_show_the_frame_as_ticks() -> None:
    figure = plots.density_curves([0.9, 1.0, 1.1], {"a": [4, 6]}, x_title="O-H (Å)", now=[0.95, 1.05])
    assert np.allclose(figure.data[0].x, [0.95, 1.05])
    assert len(figure.data[-1].x) == 2
    assert figure.data[-1].showlegend
