"""Bond pictures: one outline per set on the same bins, moments with their own intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid

from mlipkit.plots.bonds import bond_distributions, bond_figures

EDGES = np.array([0.9, 1.0, 1.1, 1.2])
DENSITIES = {"naive": np.array([2.0, 6.0, 2.0]), "iterative": np.array([3.0, 7.0, 0.0])}


def test_outlines_hold_the_area_and_share_the_bins():
    figure = bond_distributions(EDGES, DENSITIES, pair="O-H", means={"naive": 1.05}, hard_cut=1.15, title="W = 8 mÅ")
    assert [trace.name for trace in figure.data] == ["naive", "iterative"]
    for trace in figure.data:
        assert trapezoid(trace.y, trace.x) == pytest.approx(1)
        assert (trace.x[0], trace.x[-1]) == (0.9, 1.2)
    assert figure.data[0].line.color != figure.data[1].line.color
    assert [shape.x0 for shape in figure.layout.shapes] == [1.05, 1.15]
    assert figure.layout.xaxis.title.text == "O-H distance (Å)"
    assert figure.layout.title.text == "W = 8 mÅ"


def test_logarithm_shows_the_tail_and_leaves_empty_bins_out():
    figure = bond_distributions(EDGES, DENSITIES, pair="O-H", log=True)
    assert figure.layout.yaxis.type == "log"
    assert np.isnan(figure.data[1].y[-2:]).all()
    assert figure.data[0].fill == "none"


def test_moments_have_a_panel_each_with_an_interval():
    one = {
        "mean": (1.0, 0.9, 1.2),
        "std": (0.05, 0.04, 0.06),
        "skew": (1.0, 0.5, 2.0),
        "q05": (0.9,) * 3,
        "q95": (1.1,) * 3,
    }
    figure = bond_figures({"naive": one, "iterative": one})
    assert len(figure.data) == 10
    first = figure.data[0]
    assert (first.error_x.arrayminus[0], first.error_x.array[0]) == (1.0 - 0.9, 1.2 - 1.0)
    assert [note.text for note in figure.layout.annotations][:3] == ["mean, Å", "std, Å", "skew"]
    assert len(bond_figures({"naive": one}, names=("mean", "std")).data) == 2
