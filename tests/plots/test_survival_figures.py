"""Survival pictures: steps, bands, numbers at risk and reasons are those of the data."""

from __future__ import annotations

import numpy as np

from mlipkit.plots.survival import (
    PER_CURVE,
    Curve,
    at_risk_layout,
    failure_reasons,
    points_of,
    survival_curves,
)


def curve(shift: float = 0.0) -> Curve:
    """Four simulations: two fail at 1 and 2 ps, one is ended at 3 ps, one holds to 5 ps."""
    return Curve(
        time_ps=np.array([0, 1, 2, 5]) + shift * np.array([0, 1, 1, 0]),
        survival=np.array([1, 0.75, 0.5, 0.5]),
        lower=np.array([0.4, 0.2, 0.1, 0.1]),
        upper=np.array([1, 0.99, 0.9, 0.9]),
        censored_ps=np.array([3.0]),
        ended_ps=np.array([1.0, 2.0, 3.0, 5.0]),
        n_failed=2,
    )


def test_curve_band_and_censored_simulations():
    figure = survival_curves({"300 K": curve()})
    upper, lower, estimate, ended = figure.data
    assert estimate.y.tolist() == [1, 0.75, 0.5, 0.5]
    assert estimate.line.shape == upper.line.shape == lower.line.shape == "hv"
    assert lower.fill == "tonexty"
    assert (ended.x.tolist(), ended.y.tolist()) == ([3.0], [0.5])
    assert "95%" in figure.layout.yaxis.title.text
    assert figure.layout.xaxis.title.text == "time (ps)"
    assert not estimate.showlegend


def test_numbers_at_risk_stand_below_the_ticks_of_their_group():
    curves = {"300 K": curve(), "900 K": curve(0.5)}
    figure = survival_curves(curves)
    assert figure.layout.xaxis.tickvals == (0, 1, 2, 3, 4, 5)
    rows: dict[float, list] = {}
    for note in figure.layout.annotations:
        if note.text != "at risk":
            rows.setdefault(note.y, []).append(note)
    assert [[note.text for note in row] for row in rows.values()] == [["■", "4", "4", "3", "2", "1", "1"]] * 2
    colours = [figure.data[number * PER_CURVE + 2].line.color for number in range(2)]
    assert [row[0].font.color for row in rows.values()] == colours, "the square says whose numbers these are"
    assert {note.font.color for row in rows.values() for note in row[1:]} == {None}, "numbers in the page's own colour"
    assert [trace.name for trace in figure.data if trace.showlegend] == ["300 K", "900 K"]
    lowest = min(note.y for note in figure.layout.annotations)
    assert -lowest * (figure.layout.height - 40 - figure.layout.margin.b) < figure.layout.margin.b - 12, "cut off"


def test_the_axis_may_reach_beyond_what_was_followed():
    layout = at_risk_layout({"300 K": curve()}, end_ps=20.0)
    assert layout["xaxis"]["tickvals"] == [0, 4, 8, 12, 16, 20] or layout["xaxis"]["tickvals"] == [0, 5, 10, 15, 20]
    known = [note["x"] for note in layout["annotations"] if note["text"] != "at risk"]
    assert max(known) <= 5, "nothing is known there"


def test_points_feed_the_same_traces():
    curves = {"a": curve(), "b": curve(0.5)}
    figure = survival_curves(curves)
    for index, (x, y) in points_of(curves).items():
        assert np.array_equal(figure.data[index].x, x)
        assert np.array_equal(figure.data[index].y, y)


def test_reasons_are_stacked_and_ordered():
    figure = failure_reasons({"300 K": {"overlap": 1}, "900 K": {"broken bonds": 4, "overlap": 2}})
    assert [bar.name for bar in figure.data] == ["300 K", "900 K"]
    assert list(figure.data[0].y) == ["overlap", "broken bonds"], "the most frequent on top"
    assert list(figure.data[1].x) == [2, 4]
    assert figure.layout.barmode == "stack"
    assert len(failure_reasons({}).data) == 0
