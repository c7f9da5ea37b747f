"""Iterative pretraining: what it says of a situation. It needs DFT labels and a universal teacher of these elements."""

from __future__ import annotations

from typing import Any

from mlipkit.strategies.applies.answers import Answer, Expected
from mlipkit.strategies.applies.situation import Situation

LEAST = 10
"""DFT frames: to train on, to choose by, to test with."""
ROUNDS, STEPS, BATCH = 4, 3000, 10
STARTS, MD_STEPS = 20, 2000


def pretraining(situation: Situation) -> Answer:
    """A new, fast student behind a universal teacher: the potential at hand, or one that is installed."""
    frames, rates, potential = situation.frames, situation.rates, situation.potential
    universal = potential is not None and potential.universal
    place = potential.place if universal and potential is not None else ""
    title = potential.title if universal and potential is not None else ""
    seconds = None
    if universal and rates.call is not None and rates.new_gradient is not None:
        # The teacher simulates once, students three times; a call of a student is about a third of its gradient.
        md = STARTS * MD_STEPS * (rates.call + (ROUNDS - 1) * rates.new_gradient / 3)
        seconds = md + ROUNDS * STEPS * BATCH * rates.new_gradient
    needs = [
        situation.torch(), situation.labels(LEAST),
        "" if universal else "a universal teacher" + (
            f", such as {situation.universals[0]}" if situation.universals else ""),
        potential.missing if universal and potential is not None else "", situation.memory(rates.potential_bytes),
    ]  # fmt: skip
    strange = potential.strangers(frames) if universal and potential is not None else ""
    spec: dict[str, Any] | None = None
    if place and frames.place:
        spec = {"kind": "ipip", "teacher": place, "data": frames.place}
        if frames.periodic == "all":
            spec["sampling"] = {"ensemble": "nose_hoover"}
    return Answer.of(
        "ipip", "Iterative pretraining: a fast student behind a universal teacher",
        ready=f"pretrains a new small potential on MD frames of {title}, fine-tunes it on {frames.labelled} labelled "
        f"frames, and refreshes the frames {ROUNDS - 1} times by its own MD",
        why_not=f"{title} does not know {strange}" if strange else "", needs=needs,
        expected=Expected(0, seconds, rates.potential_bytes, f"{ROUNDS} rounds of {STEPS} gradient steps; MD of "
                          f"{STARTS} starts x {MD_STEPS} steps each"), spec=spec,
    )  # fmt: skip
