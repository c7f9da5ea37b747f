"""Pictures of a shift from plain numbers."""

from __future__ import annotations

import pytest

from mlipkit.plots.shift import Spread, spread_by_element


def test_spreads_stand_side_by_side_under_their_element():
    values = {
        "a": {"H": Spread((1, 2, 3, 4, 5), 3.1), "O": Spread((2, 3, 4, 5, 6), 4.1)},
        "b": {"H": Spread((2, 3, 4, 5, 6), 4.2)},
    }
    figure = spread_by_element(values, limits={"H": 5.0, "Xe": 1.0}, elements=["H", "O"])
    dots = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(dots["a"].y) == [3.1, 4.1]
    assert list(dots["b"].y) == [4.2]
    assert dots["a"].x[0] < dots["b"].x[0] < dots["a"].x[1]
    assert list(figure.layout.xaxis.ticktext) == ["H", "O"]
    limit = next(trace for trace in figure.data if trace.name == "limit")
    assert limit.y[0] == limit.y[1] == 5.0
    assert limit.x[0] == pytest.approx(-0.42)
    thin = next(trace for trace in figure.data if trace.mode == "lines" and trace.legendgroup == "a")
    assert list(thin.y[:2]) == [1, 5]


def test_every_tick_says_its_whole_value():
    spread = Spread((0.03, 0.1, 0.2, 0.3, 0.6), 0.2)
    axis = spread_by_element({"all": {"H": spread}}).layout.yaxis
    assert axis.ticktext == ("0.02", "0.05", "0.1", "0.2", "0.5")
    assert list(axis.tickvals) == [0.02, 0.05, 0.1, 0.2, 0.5]
    assert spread_by_element({}).layout.yaxis.tickvals == ()
