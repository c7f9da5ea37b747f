"""A loop in seconds: flexible water, a soft teacher, labels of the reference, a student of a few hundred weights."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlipkit.data import FrameSet
from mlipkit.models import predict
from mlipkit.strategies.ipip import Instability, LoopTools, Sampling, Settings, Stability
from mlipkit.strategies.workflows.synthetic import NUMBERS, box, reference, soft
from mlipkit.training import TrainSettings

SAMPLING = Sampling(starts=3, steps=60, stride=3, temperature=300.0, friction=0.02)
LIMITS = Instability(window=20, every=2)
TINY = Settings(
    iterations=2, sampling=SAMPLING, instability=LIMITS, stability=Stability(runs=0), pretrain_steps=6,
    finetune_steps=6, copies=2,
)  # fmt: skip
TRAINING = TrainSettings(
    batch_size=4, learning_rate=1e-3, ema_decay=None, points_per_epoch=12, checkpoint_s=1e9, schedule="constant"
)


def water(n: int, seed: int, spread: float = 0.08) -> list[Atoms]:
    """Single molecules out of their boxes, shaken."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        one = box(seed + k, 1)
        one = Atoms(list(NUMBERS), one.positions + rng.normal(0, spread, (3, 3)))
        found.append(one)
    return found


def dft(n: int, seed: int) -> FrameSet:
    return predict(reference(), FrameSet.from_atoms(water(n, seed), source=f"dft {seed}"))


def toys(**more) -> LoopTools:
    given = {
        "teacher": soft(), "train": dft(8, 100), "validation": dft(4, 200), "test": dft(10, 300), "encoder": "painn",
        "options": {"features": 8, "layers": 1, "cutoff": 3.0, "n_radial": 6}, "pretraining": TRAINING,
        "finetuning": TRAINING, "words": {"teacher": "soft water"},
    }  # fmt: skip
    return LoopTools(**{**given, **more})
