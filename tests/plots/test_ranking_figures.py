"""Pictures of scores: curves, areas, warnings."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.errors import DataError
from mlipkit.plots.ranking import lead_times, roc_curves, score_against_error, warning_tradeoff


def test_roc_names_the_area_and_shows_guessing():
    figure = roc_curves({"Q": ([0, 0.2, 1], [0, 0.9, 1])}, {"Q": (0.85, 0.8, 0.9)})
    curve, guessing = figure.data
    assert curve.name == "Q: 0.85 [0.80, 0.90]"
    assert guessing.x == guessing.y == (0, 1)
    assert figure.layout.legend.title.text == "AUC"
    assert roc_curves({"Q": ([0, 1], [0, 1])}).data[0].name == "Q"


def test_score_against_error_has_ticks_in_its_own_units():
    figure = score_against_error(
        [0.1, 1.0, 10.0, -1.0], [0.01, 0.1, 1.0, 1.0], score_title="Q", error_title="ΔF", limit=2.0
    )
    assert len(figure.data[0].x) == 3, "what is not positive has no logarithm"
    assert figure.layout.xaxis.title.text == "Q (1 of 4 not shown: not positive)"
    assert "1" in figure.layout.xaxis.ticktext
    assert figure.layout.xaxis.tickvals[figure.layout.xaxis.ticktext.index("10")] == pytest.approx(1.0)
    assert figure.layout.shapes[0].x0 == pytest.approx(np.log10(2))


def test_warnings_and_their_price():
    figure = warning_tradeoff({"Q": ([0.5, 0.1, 0.0], [1.0, 0.8, 0.1], [1, 2, 3])})
    assert figure.data[0].customdata.tolist() == [1, 2, 3]
    leads = lead_times({"Q": [1.0, 3.0, np.nan], "T²": [np.nan]})
    assert leads.data[0].y.tolist() == [1.0, 3.0]
    assert leads.data[1].y == (2.0, 2.0)
    assert leads.layout.xaxis.ticktext == ("Q<br>2 of 3 warned", "T²<br>0 of 1 warned")


def test_scores_and_errors_must_match():
    with pytest.raises(DataError, match="one error per score"):
        score_against_error([1.0, 2.0], [1.0], score_title="Q", error_title="ΔF")
