"""Pictures of iterative pretraining: every figure holds what it was given, and what is unknown leaves a gap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlipkit.errors import DataError
from mlipkit.plots.pretraining import Iteration, arms_beside, failed_tests, loop_timeline

FIRST = Iteration(0, {"first": 40}, validation=90.0, test=150.0, failed=(0.0, 0.0, 0.28), n_runs=10, sampler="teacher",
                  teacher_share=1.0, speed=1.0)  # fmt: skip
SECOND = Iteration(1, {"kept": 6, "relabelled": 30, "new": 1, "unstable": 3}, 4, 80.0, 140.0, (0.3, 0.11, 0.6), 3, 10,
                   "student 0", (0.5, 0.24, 0.76), 5, 10, 0.1, 12.0)  # fmt: skip


def of(figure, name: str):
    return next(one for one in figure.data if (one.name or "").startswith(name))


def test_bars_add_up_to_the_pool_and_what_was_forgotten_stands_above():
    figure = loop_timeline([FIRST, SECOND])
    assert figure.layout.barmode == "stack"
    stacks = [one for one in figure.data if one.type == "bar" and one.legendgroup]
    assert [sum(one.y[k] for one in stacks) for k in (0, 1)] == [40, 44]
    assert of(figure, "forgotten").y == (0, 4)
    assert of(figure, "new, from before failures").y == (0, 3)


def test_failed_fractions_have_their_intervals():
    bars = of(loop_timeline([FIRST, SECOND]), "MD that made the pool")
    assert bars.y == (0.0, 30.0)
    assert bars.error_y.array == pytest.approx((28.0, 30.0))
    assert bars.error_y.arrayminus == pytest.approx((0.0, 19.0))
    tests = of(loop_timeline([FIRST, SECOND]), "test simulations")
    assert tests.y == (50.0,)
    assert tests.customdata[0][4] == "student 1"


def test_controls_are_lines_and_the_chosen_iteration_is_marked():
    figure = loop_timeline([FIRST, SECOND], {"scratch": 166.0}, chosen=1)
    assert set(of(figure, "scratch (test): 166").y) == {166.0}
    assert [shape.x0 for shape in figure.layout.shapes] == [pytest.approx(0.52)]
    assert [one.text for one in figure.data if one.text is not None] == [("100", "10"), ("  1x", "  12x")]


def test_what_fine_tuning_changed_is_drawn():
    figure = loop_timeline([replace(FIRST, pretrained=210.0), SECOND])
    assert of(figure, "force MAE, validation, before fine-tuning").y == (210.0, None)
    assert all("before" not in (one.name or "") or "failures" in one.name for one in loop_timeline([SECOND]).data)


def test_what_is_unknown_has_no_panel():
    whole = loop_timeline([FIRST, SECOND])
    begun = loop_timeline([Iteration(0, {"first": 40}, teacher_share=1.0), Iteration(1, {})])
    assert begun.layout.height < whole.layout.height
    assert {one.type for one in begun.data} == {"bar"}
    # A student that was never made leaves a gap in a curve that goes on.
    gap = loop_timeline([FIRST, Iteration(1, {}), Iteration(2, {}, test=130.0)])
    assert of(gap, "force MAE, test").y == (150.0, None, 130.0)
    for nothing in ([], [Iteration(0, {})]):
        with pytest.raises(DataError):
            loop_timeline(nothing)


def test_arms_with_their_seeds_and_tests_with_counts():
    rows = [
        {"name": "ipip", "seeds": 3, "forces_mae": (175.0, 163.0, 187.0), "energy_mae": (6.7, 6.3, 7.3)},
        {"name": "one_shot", "seeds": 3, "forces_mae": (113.0, 109.0, 119.0), "energy_mae": (4.6, 3.8, 5.8)},
    ]  # fmt: skip
    figure = arms_beside(rows)
    assert of(figure, "the loop").y == (175.0,)
    assert of(figure, "controls").error_y.arrayminus == pytest.approx((4.0,))
    # What is a loop itself judges none.
    figure = arms_beside([*rows, {**rows[0], "name": "continual"}, {**rows[0], "name": "no_new_frames"}])
    assert of(figure, "loops").x == (0, 2)
    assert of(figure, "controls").x == (1,)
    assert of(figure, "without a part").x == (3,)
    assert of(figure, "without a part").marker.color == of(figure, "loops").marker.color
    tests = failed_tests({"ipip": (8, 30, 0.14, 0.44), "scratch": (24, 30, 0.63, 0.9)})
    bars = tests.data[0]
    assert tests.layout.xaxis.ticktext == ("ipip<br><b>8 of 30</b>", "scratch<br><b>24 of 30</b>")
    assert bars.error_y.array[1] == pytest.approx(10.0)
    assert bars.marker.color[0] != bars.marker.color[1]
    marker = failed_tests(dict.fromkeys(("continual", "no_new_frames", "scratch"), (8, 30, 0.14, 0.44))).data[0].marker
    assert marker.color[0] == marker.color[1] != marker.color[2]
    assert marker.opacity[0] > marker.opacity[1]
