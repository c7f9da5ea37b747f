"""Species over time: every count is drawn as it is, rare species are added up, changes and a failure are marked."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.errors import DataError
from mlipkit.plots.species import MOST, species_graph

TIME = np.arange(4) * 0.5
COUNTS = {"S2": np.array([12, 11, 11, 10]), "Mo3O9": np.array([1, 0, 0, 0]), "Mo3S2O9": np.array([0, 1, 1, 1])}


def test_clusters_of_the_element_stand_above_all_others():
    figure = species_graph(TIME, COUNTS, ("Mo3O9", "Mo3S2O9"), element="Mo",
                           events=[(0.5, "insertion", "Mo3O9 → Mo3S2O9")], end_ps=1.7, failed=True)  # fmt: skip
    curves = {one.name: one for one in figure.data}
    # One cluster at any time: a bar where it is this one, a level for each.
    assert curves["Mo₃O₉"].x == (0.0, 0.5, None)
    assert curves["Mo₃S₂O₉"].x == (0.5, 1.5, None)
    levels = {one.name: one.y[0] for one in figure.data if one.name in ("Mo₃O₉", "Mo₃S₂O₉")}
    assert {figure.layout.yaxis.ticktext[level]: level for level in levels.values()} == levels
    assert curves["Mo₃O₉"].yaxis == "y"
    assert curves["S₂"].yaxis == "y2"
    assert curves["S₂"].line.shape == "hv"
    event = curves["changes that last"]
    assert event.x == (0.5,)
    assert event.y[0] == figure.layout.yaxis.range[1], "above the panels"
    assert event.customdata[0] == ["insertion", "Mo3O9 → Mo3S2O9"]
    # One line per panel for the change and one for the failure, to the end of the run.
    assert sorted(shape.x0 for shape in figure.layout.shapes) == [0.5, 0.5, 1.7, 1.7]
    assert figure.layout.xaxis.range == (0.0, 1.7)
    assert figure.layout.yaxis2.range[1] > 12


def test_several_clusters_at_a_time_are_counted():
    split = {**COUNTS, "MoS6": np.array([0, 0, 1, 2])}
    figure = species_graph(TIME, split, ("Mo3O9", "Mo3S2O9", "MoS6"), element="Mo")
    curves = {one.name: one for one in figure.data}
    assert curves["Mo₃O₉"].y.tolist() == [1, 0, 0, 0]
    assert curves["MoS₆"].y.tolist() == [0, 0, 1, 2]


def test_without_an_element_there_is_one_panel_and_rare_species_are_added_up():
    many = {f"S{k + 2}": np.array([20 - k, 20 - k]) for k in range(MOST + 3)}
    figure = species_graph(TIME[:2], many)
    assert len(figure.data) == MOST + 1
    assert figure.data[-1].name == "others"
    assert figure.data[-1].y.tolist() == [sum(20 - k for k in range(MOST, MOST + 3))] * 2
    assert "yaxis2" not in figure.layout.to_plotly_json()
    single = species_graph(TIME[:1], {"S2": np.array([3])})
    assert single.data[0].mode == "markers"
    with pytest.raises(DataError, match="no species"):
        species_graph([], {})
