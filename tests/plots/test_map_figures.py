"""Maps of score space: what is drawn is what the arrays say, small however many atoms, on light and dark ground."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from mlipkit.errors import DataError
from mlipkit.plots.cells import CELLS, POINTS
from mlipkit.plots.embedding import Panel, embedding_maps, measures_of
from mlipkit.plots.maps import (
    coverage_grid,
    distance_trend,
    growth_curve,
    growth_panels,
    score_map,
    time_projection,
    white_overlay,
)

RNG = np.random.default_rng(0)
MANY = RNG.normal(size=(2, 100_000))


def images(figure: go.Figure) -> list[go.Heatmap]:
    return [trace for trace in figure.data if isinstance(trace, go.Heatmap)]


def keys(figure: go.Figure) -> list[str]:
    """Names in the legend."""
    return [trace.name for trace in figure.data if isinstance(trace, go.Scatter) and trace.showlegend is not False]


def cell(image: go.Heatmap, x: float, y: float) -> float:
    """Value of the cell that holds a place."""
    column, row = np.abs(np.asarray(image.x) - x).argmin(), np.abs(np.asarray(image.y) - y).argmin()
    return float(np.asarray(image.z)[row, column])


def test_points_by_element_the_rare_on_top() -> None:
    figure = score_map([0, 1, 2, 3], [0, 0, 1, 1], groups=["O", "H", "H", "H"], axes=("PC1 (23.0 %)", "PC2"))
    assert [trace.name for trace in figure.data] == ["H", "O"]
    assert figure.data[1].x.tolist() == [0]
    assert figure.layout.xaxis.title.text == "PC1 (23.0 %)"
    assert figure.data[0].marker.color != figure.data[1].marker.color
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_points_by_value_have_a_bar_with_its_unit_and_the_largest_on_top() -> None:
    figure = score_map([0, 1, 2], [0, 1, 2], values=[5.0, 9.0, 1.0], value_title="force error (eV/Å)", text=list("abc"))
    (trace,) = figure.data
    assert trace.marker.color.tolist() == [1, 5, 9]
    assert trace.x.tolist() == [2, 0, 1]
    assert list(trace.text) == ["c", "a", "b"]
    assert trace.marker.colorbar.title.text == "force error (eV/Å)"


def test_many_atoms_are_binned_and_stay_small() -> None:
    groups = np.where(MANY[0] > 0, "naive", "iterative")
    figure = score_map(*MANY, groups=groups)
    assert len(figure.to_json()) < 150_000
    assert "100,000 atoms" in figure.layout.annotations[0].text
    assert sorted(keys(figure)) == ["iterative", "naive"]
    assert len(images(figure)) == 2
    naive = next(image for image in images(figure) if image.name == "naive")
    assert min(naive.x) > -0.1, "no further than its atoms"
    assert cell(naive, 0.3, 0.0) > cell(naive, 2.5, 0.0) > 0
    points = score_map(*MANY[:, :POINTS], groups=groups[:POINTS])
    assert all(isinstance(trace, go.Scatter) for trace in points.data)


def test_a_binned_value_is_the_mean_or_the_largest_of_its_cell() -> None:
    x = np.append(np.zeros(10), [1.0])
    values = np.append(np.arange(10.0), 50.0)
    mean = score_map(x, x, values=values, value_title="Q", limit=5)
    assert (cell(images(mean)[0], 0, 0), cell(images(mean)[0], 1, 1)) == (4.5, 50)
    largest = score_map(x, x, values=values, value_title="Q", limit=5, how="max")
    assert cell(images(largest)[0], 0, 0) == 9
    assert np.isnan(cell(images(largest)[0], 0.5, 0.5)), "empty is not zero"
    counts = score_map(x, x)
    assert cell(images(counts)[0], 0, 0) == pytest.approx(1.0), "ten atoms, logarithm"
    assert images(counts)[0].colorbar.ticktext == ("1", "10")


def test_t2_against_q_is_logarithmic() -> None:
    figure = score_map([1, 10], [0.1, 5], values=[1, 2], value_title="Q", axes=("T²", "Q"), log=True)
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    binned = score_map([1, 10, 100], [1, 1, 10], values=[1, 2, 3], axes=("T²", "Q"), log=True, limit=2)
    assert binned.layout.xaxis.title.text == "log₁₀ T²"
    assert cell(images(binned)[0], 2.0, 1.0) == 3
    with pytest.raises(DataError, match="positive scores"):
        score_map([0, 1], [1, 1], log=True)


def test_what_b_covers_is_gone() -> None:
    """A at 0 and 10, B at 0: only the dot at 10 is left, in the colour of its element."""
    figure = white_overlay(([0, 10], [0, 10]), ([0], [0]), ("A", "B"), groups=["H", "O"], ghost=False, share=0.5)
    (image,) = images(figure)
    assert cell(image, 0, 0) == 0
    assert cell(image, 10, 10) > 1
    assert image.colorscale[0][1] == "rgba(0,0,0,0)", "the ground shows, light or dark"
    assert keys(figure) == ["H", "O"]
    assert "U(A \\ B) = 50.0%" in figure.layout.annotations[0].text
    shaded = white_overlay(([0, 10], [0, 10]), ([0], [0]), ("A", "B"))
    assert cell(images(shaded)[0], 0, 0) == 1
    assert keys(shaded) == ["only A", "B"]
    large = white_overlay((MANY[0], MANY[1]), (MANY[1], MANY[0]), ("A", "B"))
    assert len(large.to_json()) < 200_000


def test_grid_of_both_sets() -> None:
    figure = coverage_grid([[0, 0], [1, 0], [1, 0]], [[1, 0], [3, -2]], 0.1, ("naive", "iterative"))
    (image,) = images(figure)
    assert [cell(image, x, y) for x, y in ((0.05, 0.05), (0.15, 0.05), (0.35, -0.15), (0.25, 0.05))] == [1, 3, 2, 0]
    assert keys(figure) == ["only naive: 1 bins", "only iterative: 1 bins", "both: 1 bins"]
    with pytest.raises(DataError, match="rows of two"):
        coverage_grid([], [[1, 0]], 0.1, ("a", "b"))


def test_growth_shows_the_new_over_the_old() -> None:
    figure = growth_panels([[0, 0], [1, 0], [2, 0]], [0, 1, 1], ["U", "FT1"], 0.1)
    first, second = images(figure)
    assert [cell(first, x, 0.05) for x in (0.05, 0.15, 0.25)] == [2, 0, 0]
    assert [cell(second, x, 0.05) for x in (0.05, 0.15, 0.25)] == [1, 2, 2]
    assert [note.text for note in figure.layout.annotations] == ["U: +1", "FT1: +2"]
    curve = growth_curve(["U", "FT1"], [1, 2], [1, 3], 0.1)
    assert (curve.data[0].y.tolist(), curve.data[1].y.tolist()) == ([1, 2], [1, 3])


def test_a_trajectory_over_its_fit_on_set() -> None:
    figure = time_projection([5, 6], [5, 5], [0.0, 1.0], ([0, 1], [0, 1]), time_title="time (ns)")
    assert cell(images(figure)[0], 0, 0) == 1
    path = next(trace for trace in figure.data if isinstance(trace, go.Scatter) and trace.marker.showscale)
    assert path.marker.color.tolist() == [0, 1]
    assert path.marker.colorbar.title.text == "time (ns)"
    assert "fit-on set" in keys(figure)
    assert len(time_projection(*MANY, MANY[0], (MANY[1], MANY[0])).to_json()) < 400_000


def test_trend_with_its_number() -> None:
    figure = distance_trend([0, 1], [0.1, 0.2], by_element={"H": [0.1, 0.3]}, rho=(0.9, 0.5, 0.98))
    assert [trace.name for trace in figure.data] == ["H", "all atoms"]
    assert figure.layout.annotations[0].text == "Spearman ρ = 0.90 (95% interval 0.50 to 0.98)"
    unknown = distance_trend([0, 1], [0.1, 0.2], rho=(1.0, np.nan, np.nan))
    assert unknown.layout.annotations[0].text == "Spearman ρ = 1.00"


def test_embeddings_side_by_side_with_their_numbers() -> None:
    points = RNG.normal(size=(50, 2))
    panel = Panel(points, np.repeat(["training", "test"], 25), measures_of(0.139, 0.002, 3.28, 0.84))
    figure = embedding_maps({"before adaptation": panel, "after adaptation": panel})
    assert len(figure.data) == 4
    assert (
        figure.layout.annotations[0].text
        == "<b>before adaptation</b><br>MMD² 0.139 (p = 0.002)<br>Fréchet 3.28<br>AUC 0.84"
    )
    assert figure.layout.xaxis.showticklabels is False, "its axes mean nothing"
    assert [trace.name for trace in figure.data if trace.showlegend] == ["test", "training"]
    colours = {trace.name: {one.marker.color for one in figure.data if one.name == trace.name} for trace in figure.data}
    assert all(len(one) == 1 for one in colours.values()), "one colour per set in all panels"
    large = embedding_maps({"one": Panel(MANY.T, np.full(MANY.shape[1], "test"), {})})
    assert len(large.data[0].x) <= CELLS**2
    with pytest.raises(DataError, match="one group per point"):
        embedding_maps({"one": Panel(points, ["test"], {})})


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="two finite columns"):
        score_map([0, np.nan], [0, 1])
    with pytest.raises(DataError, match="one group per atom"):
        score_map([0, 1], [0, 1], groups=["H"])
    with pytest.raises(DataError, match="groups or by values"):
        score_map([0, 1], [0, 1], groups=["H", "O"], values=[1, 2])
