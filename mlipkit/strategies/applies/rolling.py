"""Dynamic training: what it says of a situation. It needs every frame of AIMD runs, with forces, in order of time."""

from __future__ import annotations

from typing import Any

from mlipkit.strategies.applies.answers import Answer, Expected
from mlipkit.strategies.applies.situation import Situation

STRUCTURES = (1, 2, 4, 8)
STAGE_EPOCHS, EVALUATIONS = 20, 512
VALIDATION_STRUCTURES, VALIDATION_POINTS = 60, 32
FOLLOWS = 0.5
"""Least correlation of successive steps, as of `mlipkit.strategies.dynamic.aimd_runs`."""
LEAST = 200
"""Frames in order of time: roll-outs to train with, and validation roll-outs of runs or blocks of their own."""


def dynamic(situation: Situation) -> Answer:
    """Dynamic training: labelled frames that follow each other in time."""
    frames, rates, potential = situation.frames, situation.rates, situation.potential
    gradient = rates.new_gradient if potential is None else rates.gradient
    peak = rates.new_bytes if potential is None else rates.potential_bytes
    evaluations = len(STRUCTURES) * STAGE_EPOCHS * EVALUATIONS
    validations = len(STRUCTURES) * STAGE_EPOCHS * VALIDATION_STRUCTURES * VALIDATION_POINTS
    # A force without a gradient in the weights is about half of one with it.
    seconds = None if gradient is None else (evaluations + 0.5 * validations) * gradient
    basis = f"{evaluations} force evaluations, {validations} more in validations" if gradient is not None else ""
    words = ", ".join(map(str, STRUCTURES))
    return Answer.of(
        "dynamic", "Dynamic training: learning through the simulation",
        ready=f"teaches {potential.title if potential is not None else 'a new potential'} pieces of {words} structures "
        f"that it integrates itself, from {frames.time_ordered} frames in order of time",
        why_not=situation.untrainable() if potential is not None else "",
        needs=[
            situation.torch(), situation.a_potential() if potential is not None else "", situation.weights(),
            _in_time(situation), situation.labels(), _forces(situation), situation.memory(peak),
        ],
        expected=Expected(0 if frames.labelled else frames.n, seconds, peak, basis), spec=_spec(situation),
    )  # fmt: skip


def _in_time(situation: Situation) -> str:
    there = situation.frames.time_ordered
    if there and there < LEAST:
        return f"at least {LEAST} frames in order of time, there are {there}"
    follows = situation.frames.follows
    if there and follows is not None and follows < FOLLOWS:
        return (
            "every step of the simulation: atoms go on as in the frame before with a correlation of "
            f"{follows:.2f} only, so frames were left out"
        )
    return situation.time_order()


def _forces(situation: Situation) -> str:
    """Roll-outs are compared with forces, of every frame."""
    frames = situation.frames
    if not frames.labelled or frames.forces >= frames.n:
        return ""
    return f"forces on every frame: {frames.forces or 'none'} of {frames.n} have them"


def _spec(situation: Situation) -> dict[str, Any] | None:
    frames, potential = situation.frames, situation.potential
    if not frames.place or (potential is not None and not potential.place):
        return None
    spec: dict[str, Any] = {
        "kind": "dynamic", "data": frames.place,
        "curriculum": {
            "n_structures": list(STRUCTURES), "converge": "fixed", "stage_epochs": STAGE_EPOCHS,
            "evaluations_per_epoch": EVALUATIONS,
        },
        "rollout_validation": {"n_structures": VALIDATION_STRUCTURES, "n_points": VALIDATION_POINTS},
        "optimiser": {"schedule_patience": 3},
    }  # fmt: skip
    if potential is not None:
        spec["potential"] = potential.place
    return spec | ({} if frames.energy else {"loss": {"energy": 0.0, "refit_energy": False}})
