"""Closing the loop: labels for what led to a failure, training on, and the same simulation again."""

from __future__ import annotations

from mlipkit.strategies.applies.answers import Answer, Expected
from mlipkit.strategies.applies.situation import Situation

MOST = 10
"""Frames that are labelled in a round, as `mlipkit.runs.before_failure` picks them."""
TIME_PS, TIMESTEP_FS = 10.0, 0.5
"""Of the simulation that looks for a failure."""


def closing_the_loop(situation: Situation) -> Answer:
    """Labels from failures: a simulation that failed, a label maker, and a potential that can be trained on."""
    frames, potential, rates = situation.frames, situation.potential, situation.rates
    failed = frames.simulation == "failed"
    needs = [
        situation.torch(), situation.a_potential(), situation.weights(), situation.some_frames(),
        situation.label_maker(),
    ]  # fmt: skip
    if frames.n and not failed:
        needs.append(
            f"a simulation that fails, to be launched at these frames ({TIME_PS:g} ps)"
            if not frames.simulation
            else f"a simulation that failed: this one {frames.simulation}; raise the temperature or run longer"
        )
    steps = 0 if failed else round(TIME_PS * 1000 / TIMESTEP_FS)
    seconds = None
    if rates.label is not None and (failed or rates.call is not None):
        seconds = MOST * rates.label + steps * (rates.call or 0.0)
    spec = None
    if not failed and not frames.simulation and potential is not None and potential.place and frames.place:
        spec = {"kind": "md", "potential": potential.place, "start": first_of(frames.place), "time_ps": TIME_PS}
    return Answer.of(
        "close_loop", "Closing the loop: labels from failures",
        ready=f"picks at most {MOST} sound frames from before the failure (mlipkit.before_failure), labels them by "
        f"{situation.maker.title if situation.maker else ''}, trains on, and repeats the simulation",
        why_not=situation.untrainable(), needs=needs,
        expected=Expected(MOST, seconds, rates.potential_bytes, "labels and simulation, without the training"),
        spec=spec,
    )  # fmt: skip


def first_of(place: str) -> str:
    """The first frame of a place."""
    from re import fullmatch

    head, at, tail = place.rpartition("@")
    if at and fullmatch(r"-?\d*(:-?\d*){0,2}", tail) and tail:
        start = tail.partition(":")[0]
        return place if ":" not in tail else f"{head}@{start or 0}"
    return f"{place}@0"
