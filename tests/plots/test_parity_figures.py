"""Parity pictures: points or counts, lines, residuals in meV, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.plots.parity import (
    MOST_POINTS,
    binned_residuals,
    cloud,
    force_parity,
    residuals_over_time,
    softening_slopes,
)

RNG = np.random.default_rng(0)


def test_a_panel_per_element_with_diagonal_and_line():
    x = RNG.uniform(0, 2, 100)
    figure = force_parity({"H": (x, 0.8 * x), "O": (x, x)}, lines={"H": (0.8, 0.0)}, slopes={"H": 0.8})
    points, diagonal, line, _, _ = figure.data
    assert points.type == "scatter"
    assert diagonal.y == diagonal.x
    assert line.y[1] == pytest.approx(0.8 * line.x[1])
    assert figure.layout.annotations[0].text == "<b>H</b>  slope 0.800"
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
    many = force_parity({str(index): (x, x) for index in range(7)})
    assert many.layout.xaxis7.title.text == many.layout.xaxis4.title.text == "|F| label (eV/Å)"
    assert many.layout.xaxis.title.text is None


def test_many_points_become_counts_and_none_is_lost():
    x = RNG.uniform(0, 1, MOST_POINTS + 1)
    found = cloud(x, x, (0, 1), (0, 1))
    assert found.type == "heatmap"
    assert np.sum(found.customdata) == len(x)
    assert np.isnan(found.z).any(), "empty bins let the page through"
    assert cloud(x[:-1], x[:-1], (0, 1), (0, 1)).type == "scatter"


def test_slopes_of_two_potentials_stand_side_by_side():
    figure = softening_slopes({"U": {"H": (0.8, 0.7, 0.95)}, "FT5": {"H": (1.0, 0.9, 1.1), "O": (1.0, 0.9, 1.1)}})
    first, second = figure.data
    assert first.x[0] < 0 < second.x[0]
    assert first.error_y.array[0] == pytest.approx(0.15)
    assert first.error_y.arrayminus[0] == pytest.approx(0.1)
    assert figure.layout.xaxis.ticktext == ("H", "O")
    assert figure.layout.shapes[0].y0 == 1


def test_residuals_are_in_milli_electronvolt_with_mean_and_spread():
    figure = residuals_over_time({"U": [2.0, 1.0, np.nan]}, {"U": [0.003, 0.001, 0.5]}, split_ps=1.5)
    series, mean = figure.data
    assert series.x.tolist() == [1, 2]
    assert series.y == pytest.approx([1, 3])
    assert series.name == "U: mean 2.00, std 1.00 meV/atom"
    assert mean.y == pytest.approx([2, 2])
    assert {shape.x0 for shape in figure.layout.shapes} >= {1.5}


def test_empty_bins_are_left_out():
    figure = binned_residuals({"U": ([-5.834, -5.832, -5.83], [0.002, np.nan], [0.001, np.nan])})
    (series,) = figure.data
    assert series.x == pytest.approx([1.0])
    assert series.y == pytest.approx([2.0])
    assert series.error_y.array[0] == pytest.approx(1.0)
    assert "-5.834" in figure.layout.xaxis.title.text
