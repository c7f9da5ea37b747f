"""Pictures of runs: units on every axis, marks where they belong, numbers that are right."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.errors import DataError
from mlipkit.plots.runs import Mark, md_curves, parity, training_curves, validation_errors


def axis_titles(figure) -> list[str]:
    layout = figure.to_plotly_json()["layout"]
    return [axis["title"]["text"] for name, axis in layout.items() if name[1:].startswith("axis") and "title" in axis]


def test_md_curves_share_one_time_axis_and_carry_units():
    t = np.linspace(0, 1, 50)
    figure = md_curves(
        t, temperature=300 + t, energies={"potential": -5 + t, "conserved": np.full(50, -4.0)}, max_force=1 + t,
        target_temperature=300, marks=[Mark(0.5, "warning", "hot"), Mark(0.9, "failure", "broken")],
    )  # fmt: skip
    assert axis_titles(figure) == ["temperature<br>K", "energy change<br>eV", "time (ps)", "largest force<br>eV/Å"]
    assert all(len(trace.x) == 50 for trace in figure.data)
    potential = next(trace for trace in figure.data if trace.name == "potential")
    assert potential.y[0] == 0
    assert [a.text for a in figure.layout.annotations] == ["▼", "✖"]
    assert [a.x for a in figure.layout.annotations] == [0.5, 0.9]
    matched = {axis.matches for axis in figure.select_xaxes()}
    assert len(matched - {None}) == 1


def test_md_curves_start_at_the_first_finite_energy():
    figure = md_curves([0, 1, 2], energies={"e": [np.nan, 2.0, 3.0]})
    assert np.array_equal(figure.data[0].y, [np.nan, 0.0, 1.0], equal_nan=True)
    with pytest.raises(DataError, match="nothing to draw"):
        md_curves([0, 1])


def test_errors_are_shown_in_milli_units():
    figure = validation_errors([0, 1], {"validation": {"energy_mae": [0.01, 0.005], "forces_mae": [0.1, 0.05]}}, 1)
    assert figure.data[0].y.tolist() == [10.0, 5.0]
    assert figure.data[1].y.tolist() == [100.0, 50.0]
    assert axis_titles(figure) == ["energy MAE<br>meV/atom", "epoch", "force MAE<br>meV/Å"]


def test_training_curves():
    figure = training_curves([1, 2], {"loss": [1.0, 0.5], "forces": [0.8, 0.4]}, [1e-3, 1e-3])
    assert [trace.name for trace in figure.data] == ["loss", "forces", "learning rate"]
    assert {"loss", "learning rate", "step"} <= set(axis_titles(figure))


def test_parity_leaves_missing_labels_out_and_says_the_errors():
    figure = parity([1.0, 2.0, np.nan], [1.01, 1.98, 5.0], quantity="energy", unit="eV/atom", label="test")
    assert len(figure.data[0].x) == 2
    assert "MAE 15," in figure.layout.title.text
    assert "meV/atom (n = 2)" in figure.layout.title.text
    with pytest.raises(DataError, match="differ in size"):
        parity([1.0], [1.0, 2.0], quantity="energy", unit="eV")
