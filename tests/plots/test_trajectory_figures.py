"""Trajectory pictures draw what they are given: bands, fits, medians, spans, means."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.plots.trajectories import (
    Fit,
    Span,
    coordination_series,
    density_by_run,
    displacements,
    radial_distributions,
    reaction_timeline,
    species_counts,
    subscripted,
)

R = np.linspace(0.5, 5.5, 6)


def test_radial_distribution_with_band_and_neighbours():
    g, error = np.array([0, 2.0, 0.5, 1, 1, 1]), np.full(6, 0.1)
    figure = radial_distributions(R, {"O-O": g}, errors={"O-O": error}, coordination={"O-O": np.arange(6.0)})
    band, curve, neighbours = figure.data
    assert band.y[1] == pytest.approx(2.2)
    assert min(band.y) == 0, "no density is below nothing"
    assert curve.y.tolist() == g.tolist()
    assert neighbours.yaxis == "y2"
    assert figure.layout.yaxis.title.text == "g(r)"
    assert figure.layout.shapes[0].y0 == 1
    plain = radial_distributions(R, {"C-H": g}, normalised=False)
    assert plain.layout.yaxis.title.text == "neighbours per Å"
    assert not plain.layout.shapes
    assert len(plain.data) == 1


def test_displacements_with_the_line_that_was_fitted():
    lag = np.arange(11.0)
    figure = displacements(lag, {"Li": 3 * lag, "O": 0 * lag + 1}, fits={"Li": Fit(5.0e-5, 0.12e-5, 2.0, 6.0)})
    curve, line, other = figure.data
    assert curve.name == "Li: D = 5.00(12)·10⁻⁵ cm²/s"
    assert line.x.tolist() == [2, 6]
    assert line.y == pytest.approx([6, 18])
    assert other.name == "O"
    log = displacements(lag, {"Li": 3 * lag}, log=True)
    assert log.data[0].x[0] == 1, "lag zero has no logarithm"
    assert log.layout.xaxis.type == log.layout.yaxis.type == "log"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(2.314e-5, 1.2e-6, "2.31(12)·10⁻⁵"), (2.314e-5, np.nan, "2.31·10⁻⁵"), (1e-6, 3e-6, "(1.0 ± 3.0)·10⁻⁶")],
)
def test_values_are_given_to_the_digits_that_their_errors_leave(value: float, error: float, text: str):
    figure = displacements([0.0, 1, 2], {"O": [0.0, 1, 2]}, fits={"O": Fit(value, error, 0, 2)})
    assert text in figure.data[0].name


def test_coordination_median_stands_before_the_thin_series():
    figure = coordination_series(
        [0.0, 1, 2], {"Co1": [3.1, 3.0, 3.9]}, median={"Co1": [3, 3, 4]}, changes=[(2.0, "3 → 4 Cl")]
    )
    thin, thick = figure.data
    assert thin.line.width < thick.line.width
    assert thick.y.tolist() == [3, 3, 4]
    assert figure.layout.annotations[0].text == "3 → 4 Cl"
    assert coordination_series([0.0], {"Co1": [3.1]}).data[0].showlegend


def test_species_have_a_panel_each():
    figure = species_counts([0.0, 1, 2], {"C6H8O7": [6, 5, 6], "HCl": [0, 1, 0]})
    assert [trace.y.tolist() for trace in figure.data] == [[6, 5, 6], [0, 1, 0]]
    assert figure.layout.yaxis.title.text == subscripted("C6H8O7") == "C₆H₈O₇"
    assert figure.layout.yaxis.tickvals == (5, 6)
    assert figure.layout.xaxis2.title.text == "time (ps)"


def test_reactions_lie_where_they_are_in_time():
    spans = [
        Span("H2 → Cl3", 30.0, 50.0, "H2 leaves O1"),
        Span("H2 → Cl3", 100.0, 150.0, "again", ended=False),
        Span("C0-C1", 70.0, 150.0, "breaks", unphysical=True, ended=False),
    ]
    figure = reaction_timeline(spans, 150.0)
    usual, still, bad, _ = figure.data
    assert (usual.base, usual.x) == ((30.0, 100.0), (20.0, 50.0))
    assert still.x == (150.0,)
    assert bad.name == "unphysical"
    assert bad.marker.line.color != usual.marker.line.color
    assert figure.layout.yaxis.categoryarray == ("C0-C1", "H2 → Cl3")
    assert "no reaction" in [note.text for note in reaction_timeline([], 10.0).layout.annotations]


def test_density_has_a_column_per_run_and_a_bar_at_its_mean():
    figure = density_by_run({"naive": {"1": [1.2, 1.4], "2": [1.0, np.nan]}, "iterative": {"0": [0.9]}})
    points, bars, other, _ = figure.data
    assert points.y == (1.2, 1.4, 1.0)
    assert bars.y[:2] == pytest.approx((1.3, 1.3))
    assert bars.y[3] == 1.0
    assert other.x[0] > max(points.x) + 1
    assert figure.layout.xaxis.ticktext == ("1", "2", "0")
    assert figure.layout.yaxis.title.text == "density (g/cm³)"
