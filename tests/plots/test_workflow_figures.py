"""Pictures of workflows: what stands where, what is marked, what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.errors import DataError
from mlipkit.plots.workflows import (
    ModelErrors,
    OwnRun,
    Rounds,
    arm_errors,
    growth_of_arms,
    iteration_timeline,
    model_places,
    own_residuals,
)


def model(kind: str, round: int, energy: float = 2.0) -> ModelErrors:
    figure = (energy, 0.5 * energy, 2 * energy)
    return ModelErrors(kind, round, {"rmse_e": figure, "std_e": figure, "rmse_f": (0.1, None, None)}, 22)


ARMS = {
    "naive": [model("untouched", 0, 16), model("offset", 2, 4), model("finetuned", 1), model("finetuned", 2)],
    "iterative": [model("untouched", 0, 16), model("offset", 2, 4), model("finetuned", 1), model("finetuned", 2, 1)],
}


def test_models_stand_beside_their_controls_with_a_gap_between_arms():
    places = model_places(ARMS)
    assert [x for x, _, _ in places] == [0, 1, 2, 3, 5, 6, 7, 8]
    figure = arm_errors(ARMS, chosen=2)
    assert list(figure.layout.xaxis3.ticktext) == ["untouched", "offset", "1", "2"] * 2
    energies = [trace for trace in figure.data if trace.yaxis == "y"]
    tuned = next(trace for trace in energies if trace.name == "iterative")
    assert list(tuned.x) == [7, 8]
    assert list(tuned.y) == [2.0, 1.0]
    assert list(tuned.error_y.array) == [2.0, 1.0]
    assert list(tuned.error_y.arrayminus) == [1.0, 0.5]
    assert tuned.marker.size[1] > tuned.marker.size[0]
    forces = next(trace for trace in figure.data if trace.yaxis == "y3" and trace.name == "iterative")
    assert list(forces.error_y.array) == [0.0, 0.0], "no interval, no bar"


def test_errors_that_differ_by_decades_get_a_logarithmic_axis():
    figure = arm_errors({"naive": [model("untouched", 0, 1000), model("finetuned", 1, 1)]})
    assert figure.layout.yaxis.type == "log"
    low, high = figure.layout.yaxis.range
    assert low < 0 < 3 < high
    assert arm_errors({"naive": [model("untouched", 0, 2), model("finetuned", 1, 1)]}).layout.yaxis.type is None
    with pytest.raises(DataError):
        arm_errors({})
    alone = arm_errors({"naive": [ModelErrors("finetuned", 1, {"rmse_e": (1.0, 0.5, 2.0)})]})
    assert "yaxis2" not in alone.layout.to_plotly_json(), "no panel without a figure"


def test_rounds_of_arms_lie_side_by_side_and_outcomes_on_each_other():
    figure = iteration_timeline(
        {
            "naive": Rounds({"labelled": [3, 3]}, [3, 6]),
            "iterative": Rounds({"labelled": [3, 1], "failed": [0, 1], "struck": [0, 1]}, [3, None]),
        },
        2, chosen=2,
    )  # fmt: skip
    bars = {(trace.name, trace.legendgroup): trace for trace in figure.data if trace.type == "bar"}
    naive, mine = bars["naive: labelled", "naive"], bars["iterative: labelled", "iterative"]
    for one in (naive, mine):
        assert list(np.round(one.x)) == [1, 2], "a click on a bar tells the round"
    assert (np.asarray(naive.x) < np.asarray(mine.x)).all()
    assert list(bars["labelling failed", "failed"].base) == [3, 1]
    assert list(bars["struck out", "struck"].base) == [3, 2]
    texts = [tuple(trace.text) for trace in figure.data if trace.type == "scatter"]
    assert texts == [("▲ 3", "▲ 6"), ("▲ 3",)]
    band = figure.layout.shapes[0]
    assert (band.x0, band.x1) == (1.52, 2.48)
    assert not iteration_timeline({"naive": Rounds({"labelled": [1]}, [None])}, 1).layout.shapes


def test_workflows_that_are_added_up_are_counted():
    figure = iteration_timeline(
        {"naive": Rounds({"labelled": [6]}, [6], workflows=2), "longrun": Rounds({"labelled": [3]})}, 1
    )
    assert [trace.name for trace in figure.data if trace.type == "bar"] == [
        "naive, 2 workflows: labelled",
        "longrun: labelled",
    ]


def test_residuals_of_many_models_leave_room_for_their_names():
    runs = [OwnRun(f"arm {k}", k, [0.0, 1.0], [1.0, 2.0]) for k in range(9)]
    one, many = own_residuals(runs[:1]).layout.height, own_residuals(runs).layout.height
    assert many - one >= 4 * 20


def test_growth_shows_nothing_of_later_rounds():
    bins, born = np.array([[0, 0], [1, 0], [2, 2]]), np.array([1, 2, 3])
    first, second = (growth_of_arms({"naive": (bins, born)}, 0.5, chosen=k) for k in (1, 2))
    assert sorted(np.asarray(first.data[0].z).ravel())[-2:] == [0, 2]
    assert (np.asarray(second.data[0].z) == 1).sum() == 1
    assert (np.asarray(second.data[0].z) == 2).sum() == 1
    assert second.layout.annotations[0].text == "naive: 2 bins, 1 new"
    # One bin of 0.5 around each place.
    row, column = np.argwhere(np.asarray(second.data[0].z) == 2)[0]
    assert second.data[0].x[column] == pytest.approx(0.75)
    assert second.data[0].y[row] == pytest.approx(0.25)
    with pytest.raises(DataError):
        growth_of_arms({"naive": (np.empty((0, 2)), np.empty(0))}, 0.5, chosen=1)


def test_residuals_carry_their_mean():
    figure = own_residuals([
        OwnRun("naive 0", 0, [0.0, 1.0, 2.0], [-4.0, -6.0, np.nan]), OwnRun("untouched", -1, [0.0], [1e3], hidden=True),
        OwnRun("nothing", 1, [0.0], [np.nan]),
    ])  # fmt: skip
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        "naive 0: mean -5, std 1", "untouched: mean +1000, std 0"
    ]  # fmt: skip
    line = figure.data[1]
    assert list(line.y) == [-5.0, -5.0]
    assert line.line.dash == "dash"
    assert figure.data[2].visible == "legendonly"
