"""Test-time adaptation: what it says of a situation. A new potential learns the tasks; an old one has them or not."""

from __future__ import annotations

from typing import Any

from mlipkit.strategies.applies.answers import Answer, Expected
from mlipkit.strategies.applies.situation import Situation

LEAST = 20
"""Labelled frames: to train with, to choose the step on, to judge by."""
SEEDS, ARMS, EPOCHS, BATCH = 3, 3, 100, 5
HELD_OUT = 0.2
COST = 3.0
"""Of an arm's step on average beside one on labels alone: noise augmentation doubles it, the tasks take five."""
HEADS = frozenset({"taip_noise", "taip_types", "taip_forces"})


def adaptation(situation: Situation) -> Answer:
    """TAIP: labels, from which potentials learn the tasks; its evaluation brings the controls along."""
    frames, rates, potential = situation.frames, situation.rates, situation.potential
    n_train = max(0, round((1 - 2 * HELD_OUT) * frames.labelled))
    steps = SEEDS * ARMS * EPOCHS * n_train
    seconds = None if rates.new_gradient is None or not n_train else COST * steps * rates.new_gradient
    trained = potential is not None and bool(HEADS & set(potential.heads))
    also = f"; {potential.title} knows them and can adapt in MD already" if trained and potential is not None else ""
    spec: dict[str, Any] | None = None
    if frames.place:
        spec = {
            "kind": "taip", "data": frames.place, "max_epochs": EPOCHS, "batch_size": BATCH,
            "split": {"validation": HELD_OUT, "test": HELD_OUT},
        }  # fmt: skip
        if frames.labelled:
            spec |= {"loss": {name: 0.0 for name in ("energy", "forces") if not getattr(frames, name)}}
    return Answer.of(
        "taip", "Test-time adaptation (TAIP)",
        ready=f"teaches new potentials self-supervised tasks beside {n_train} of {frames.labelled} labelled frames, "
        f"adapts them to every frame that they predict, and judges that against four controls{also}",
        needs=[situation.torch(), situation.labels(LEAST), situation.memory(rates.new_bytes)],
        expected=Expected(
            0 if frames.labelled >= LEAST else frames.n, seconds, rates.new_bytes,
            f"{SEEDS} seeds of {ARMS} potentials, {EPOCHS} epochs of {n_train} frames each" if n_train else "",
        ),
        spec=spec,
    )  # fmt: skip
