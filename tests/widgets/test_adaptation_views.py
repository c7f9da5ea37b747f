"""Losses of tasks in TrainingMonitor, and the strip of a simulation that adapts in MDView, without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from adapting import TASKS, RecordedAdaptation, recorded_tasks
from recorded import RecordedMD, recorded_training

import mlipkit as mk
from mlipkit_widgets import MDView, TrainingMonitor
from mlipkit_widgets.curves import MOST_POINTS


def hidden(widget) -> bool:
    return widget.layout.display == "none"


def named(plot) -> dict[str, list]:
    """Name of each trace -> its values; a thin line of a step comes before its mean."""
    return {f"{trace['name']}{' thin' if trace.get('opacity') else ''}": trace["y"] for trace in plot.shown[0]}


def test_a_training_shows_the_loss_of_each_task(tmp_path: Path) -> None:
    monitor = TrainingMonitor(recorded_tasks(tmp_path / "runs" / "tasks"))
    assert not hidden(monitor.tasks)
    curves = named(monitor.tasks.plot)
    assert set(curves) == {
        "noise level", "hidden types", "hidden forces", "noise level thin", "hidden types thin", "hidden forces thin",
        "recognised",
    }  # fmt: skip
    assert len(curves["noise level thin"]) == 100
    assert curves["noise level"][1:] == pytest.approx([3.0 * 0.8**k for k in range(1, 6)])
    assert curves["hidden forces"][-1] == pytest.approx(0.8**5)
    assert curves["recognised"][-1] == pytest.approx(1 - 0.9 * 0.8**5)
    # A training without tasks in the same view shows none of it.
    monitor.watch(recorded_training(tmp_path / "runs" / "plain"))
    assert hidden(monitor.tasks)
    monitor.close()


def test_a_training_with_one_task_shows_that_one(tmp_path: Path) -> None:
    monitor = TrainingMonitor(recorded_tasks(tmp_path / "runs" / "one", tasks=("loss_types",)))
    assert set(named(monitor.tasks.plot)) == {"hidden types", "hidden types thin"}
    assert monitor.tasks.plot.n_points == [100, 6]
    monitor.close()


def test_a_simulation_that_adapts_has_a_strip_on_the_same_time(tmp_path: Path) -> None:
    made = RecordedAdaptation(tmp_path / "runs" / "adapts", strategy="nonsaving", rate=1e-4)
    made.advance(200)
    made.alive()
    view = MDView(made.run, viewer="still")
    strip = view.adaptation
    assert not hidden(strip)
    curves = named(strip.plot)
    assert curves["all tasks"][:2] == pytest.approx([4.0, 4.0 + np.sin(0.05)])
    assert curves["noise level"][0] == pytest.approx(4 / 3)
    assert curves["adapted here"] == [], "every step does"
    assert strip.plot.shown[0][0]["x"][-1] == pytest.approx(0.1)  # ps
    assert (strip.steps, strip.adapted) == (201, 201)
    assert "from the trained weights" in strip.told.value
    assert "<b>201</b> of 201" in strip.told.value
    assert "no energy is conserved" in strip.told.value
    made.advance(200)
    view.refresh()
    assert (strip.steps, strip.plot.n_points[0]) == (401, 401)
    # One frame for all pictures.
    view.go(5)
    assert strip.plot.cursor == view.curves.plot.cursor == pytest.approx(0.05)
    strip.plot._on_click(0.15, 4.0, 0)
    assert view.frame == 15
    made.close()
    view.close()


def test_crossings_of_the_threshold_are_marked(tmp_path: Path) -> None:
    made = RecordedAdaptation(tmp_path / "runs" / "threshold", strategy="threshold", threshold=4.8)
    made.advance(300)
    view = MDView(made.run, viewer="still")
    strip = view.adaptation
    above = [step for step in range(301) if made.loss(step) > 4.8]
    assert strip.adapted == len(above) > 20
    marks = strip.plot.shown[0][4]
    assert marks["name"] == "adapted here"
    assert marks["x"] == pytest.approx([step * 0.0005 for step in above])
    assert min(marks["y"]) > 4.8
    (line,) = strip.plot.shown[1]["shapes"]
    assert line["y0"] == line["y1"] == 4.8
    assert "above 4.8" in strip.told.value
    assert f"drift {1e-3 * len(above):.3g} now" in strip.told.value
    made.close()
    view.close()


def test_a_threshold_that_the_specification_leaves_open_comes_from_the_series(tmp_path: Path) -> None:
    made = RecordedAdaptation(tmp_path / "runs" / "open", strategy="threshold", threshold=4.8)
    spec = made.run.folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("threshold: 4.8", "threshold: null"))
    made.advance(50)
    view = MDView(mk.open(made.run.folder), viewer="still")
    (line,) = view.adaptation.plot.shown[1]["shapes"]
    assert line["y0"] == 4.8
    assert "above 4.8" in view.adaptation.told.value
    made.close()
    view.close()


def test_a_long_simulation_stays_small_and_keeps_steps_that_adapt_seldom(tmp_path: Path) -> None:
    made = RecordedAdaptation(
        tmp_path / "runs" / "seldom", steps=9000, strategy="save_every_k", every=100, tasks=TASKS[:2]
    )
    made.advance(9000)
    view = MDView(made.run, viewer="still")
    strip = view.adaptation
    curves = named(strip.plot)
    assert "hidden forces" not in curves
    assert strip.adapted == 91
    assert len(curves["adapted here"]) == 91
    assert max(strip.plot.n_points) <= MOST_POINTS
    # Between them the loss is unknown, and the line goes through.
    assert strip.plot.shown[0][0]["connectgaps"]
    assert np.isfinite([value for value in curves["all tasks"] if value is not None]).sum() > 50
    assert "Every 100. step" in strip.told.value
    made.close()
    view.close()


def test_a_simulation_that_does_not_adapt_has_no_strip(tmp_path: Path) -> None:
    plain = RecordedMD(tmp_path / "runs" / "plain")
    plain.advance(100)
    view = MDView(plain.run, viewer="still")
    assert hidden(view.adaptation)
    made = RecordedAdaptation(tmp_path / "runs" / "random", strategy="save_every", rate=1e-4, direction="random")
    made.advance(40)
    view.watch(made.run)
    assert not hidden(view.adaptation)
    assert "Control: each step goes in a random direction" in view.adaptation.told.value
    view.watch(plain.run)
    assert hidden(view.adaptation)
    plain.close()
    made.close()
    view.close()
