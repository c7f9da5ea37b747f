"""The workflow arms: what each says of a situation, at a first scale that a morning can pay for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mlipkit.errors import MlipkitError
from mlipkit.strategies.applies.answers import Answer, Expected
from mlipkit.strategies.applies.situation import Situation

TITLES = {
    "naive": "Naive fine-tuning: frames from the untouched model",
    "iterative": "Iterative fine-tuning: each run with the model tuned so far",
    "longrun": "Long-run fine-tuning: frames from one long run",
    "hybrid": "Hybrid: several iterative chains together",
    "packmol_first": "Packings first: relaxed packings, then MD",
    "high_force": "High forces: rattled, strained and hot frames",
}
RUNS, FRAMES, EPOCHS = 4, 5, 40
TIME_PS, TIMESTEP_FS, STRIDE = 1.0, 0.5, 20
TESTS, TEST_FRAMES = 5, 5
RELAX_STEPS = 200
"""Of a relaxation at most, the default of a specification."""


def workflows(situation: Situation) -> Iterator[Answer]:
    """An answer for each arm."""
    for arm, title in TITLES.items():
        yield _answer(situation, arm, title)


def _answer(situation: Situation, arm: str, title: str) -> Answer:
    potential = situation.potential
    name = f"workflow:{arm}"
    try:
        counted = _count(arm)
    except MlipkitError as error:
        return Answer.of(name, title, ready="", why_not=f"no plan can be made ({error})")
    expected = _expected(situation, counted)
    budget = counted.plan.budget
    ready = (
        f"tunes {potential.title if potential else ''} on {budget.labels} frames labelled by "
        f"{situation.maker.title if situation.maker else ''}, from {budget.md_ps:g} ps of its MD"
    )
    return Answer.of(
        name, title, ready=ready, why_not=situation.untrainable(),
        needs=[
            situation.torch(), situation.a_potential(), situation.weights(), situation.some_frames(),
            situation.label_maker(), situation.memory(expected.peak_bytes),
        ],
        expected=expected, spec=_spec(situation, arm),
    )  # fmt: skip


def _count(arm: str):
    """Labels, steps, gradients of an arm at the first scale."""
    from mlipkit.strategies.workflows import Evaluation, Settings, dry_run, plan

    settings = Settings(
        runs=RUNS, steps=round(TIME_PS * 1000 / TIMESTEP_FS), timestep=TIMESTEP_FS, stride=STRIDE, frames=FRAMES,
        relax_starts=True, train={"validation": 0.2, "epochs": EPOCHS},
        evaluation=Evaluation(independent=TESTS, frames=TEST_FRAMES),
    )  # fmt: skip
    return dry_run(plan(arm, settings), relax_steps=RELAX_STEPS)


def _expected(situation: Situation, counted: Any) -> Expected:
    from mlipkit.strategies.workflows.tools import Rates

    rates, budget = situation.rates, counted.plan.budget
    seconds = None
    if None not in (rates.call, rates.label, rates.gradient):
        # A step of MD is a call with a neighbour list that is seldom made anew.
        measured = Rates(rates.call, rates.label, rates.gradient, rates.call, situation.frames.n_atoms)
        seconds = dataclasses.replace(counted, rates=measured).seconds
    sizes = [one for one in (rates.potential_bytes, rates.label_bytes) if one is not None]
    basis = f"{counted.md_steps} MD steps, {counted.gradients} frame-gradients, {counted.relaxations} relaxations"
    peak = sum(sizes) if rates.potential_bytes is not None else None
    return Expected(budget.labels + budget.test_labels, seconds, peak, basis)


def _spec(situation: Situation, arm: str) -> dict[str, Any] | None:
    frames, potential, maker = situation.frames, situation.potential, situation.maker
    if potential is None or not potential.place or not frames.place or maker is None:
        return None
    return {
        "kind": "workflow", "arm": arm, "potential": potential.place, "start": {"place": frames.place},
        "runs": RUNS, "frames": FRAMES, "sampling": {"time_ps": TIME_PS, "timestep": TIMESTEP_FS, "stride": STRIDE},
        "label": {"maker": maker.place}, "tuning": {"max_epochs": EPOCHS},
        "evaluation": {"independent": TESTS, "frames": TEST_FRAMES},
    }  # fmt: skip
