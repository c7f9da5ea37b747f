"""A case in which training on single frames must drift and training through roll-outs must not, and one without effect.

Two atoms, a heavy one (U) and a light one (H), hang on springs of their own, k_U = 160 and k_H = 200 eV/Å². The model
has one weight, one spring k for both: it cannot represent both forces. Everything is known in closed form.

*Single frames.* With x_U, x_H the displacements, the loss (sum over species of mean |ΔF|, only x moves) is

    L_1(k) = (|k - k_U| <|x_U|> + |k - k_H| <|x_H|>) / 3 ,

a weighted median: wherever <|x_U|> > <|x_H|>, its slope between k_U and k_H is (<|x_U|> - <|x_H|>) / 3 > 0, so that its
only minimum is k = k_U. The light atom then swings with the wrong frequency, and leaves its reference.

*Roll-outs.* Velocity Verlet solves a harmonic oscillator exactly: with cos θ = 1 - k c Δt² / 2m,

    x_s = x_0 cos sθ + v_0 Δt sin sθ / sin θ .

So L_S(k) = Σ over atoms of mean over starts, steps of |k x_s(k) - k_i x_s(k_i)| / 3 is a formula, too. Along 16 steps
the heavy atom turns by 0.7 radian and hardly notices the wrong spring; the light one turns by eleven. `landscape`
below evaluates the formula: its minimum is k_H, where the light atom is followed exactly.

*Placebo.* When the light atom swings wider, <|x_U|> < <|x_H|>, the weighted median is k_H as well: both trainings
end at the same weight.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.data import atomic_masses

from mlipkit.data import FrameSet
from mlipkit.models import BasePotential, load, register_potential
from mlipkit.strategies.dynamic import (
    AIMDRuns,
    DynamicRecipe,
    RolloutSettings,
    aimd_runs,
    dynamic_training,
    nve_rollouts,
    validation_starts,
)
from mlipkit.strategies.dynamic.comparing import judge_rollouts
from mlipkit.training import TrainSettings

C = 9.648533e-3
STEP = 0.5
LENGTH = 16
K = {92: 160.0, 1: 200.0}
HOME = {92: 3.0, 1: 0.0}


@register_potential
class OneSpring(BasePotential):
    """E = ½ k Σ (R - home)²: one weight for all elements."""

    kind = "one_spring_of_a_test"
    cutoff = 2.0  # type: ignore[assignment]

    def __init__(self, k: float = 180.0) -> None:
        super().__init__(list(K))
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def evaluate(self, graph, positions, cell):
        home = torch.zeros_like(positions)
        home[:, 0] = torch.where(graph.numbers == 92, HOME[92], HOME[1])
        return 0.5 * self.k * (positions - home).square().sum(1).double(), None

    def describe(self):
        return {"kind": self.kind}

    def specification(self):
        return {}

    @classmethod
    def from_specification(cls, spec, *, where):
        return cls()


def swing(z: int, k: float, x0, v0, steps: int) -> np.ndarray:
    """Positions of Verlet steps in closed form, [steps, ...]."""
    theta = np.arccos(1 - 0.5 * k * C * STEP**2 / atomic_masses[z])
    s = np.arange(steps).reshape(-1, *[1] * np.ndim(x0))
    return x0 * np.cos(s * theta) + v0 * STEP * np.sin(s * theta) / np.sin(theta)


def runs_of(amplitude: dict[int, float], seeds) -> FrameSet:
    """Runs of 60 frames of the two atoms, as Verlet with the true springs makes them."""
    made = []
    for number in seeds:
        rng = np.random.default_rng(number)
        positions, velocities, forces = np.zeros((3, 60, 2, 3))
        for column, z in enumerate((92, 1)):
            # The heavy one turns slowly: begun near its largest displacement, it stays far out for all of the run.
            phase = rng.uniform(-0.3, 0.0) if z == 92 else rng.uniform(0, 2 * np.pi)
            omega = np.sqrt(K[z] * C / atomic_masses[z])
            x0 = amplitude[z] * np.cos(phase) * rng.uniform(0.9, 1.1)
            x = swing(z, K[z], x0, -amplitude[z] * omega * np.sin(phase), 62)
            positions[:, column, 0] = HOME[z] + x[1:61]
            velocities[:, column, 0] = (x[2:62] - x[0:60]) / (2 * STEP)
            forces[:, column, 0] = -K[z] * x[1:61]
        made.append(FrameSet.from_arrays(
            [92, 1], positions, velocities=velocities, forces=forces, energy=np.zeros(60), trajectory=number,
            time=STEP * np.arange(60),
        ))  # fmt: skip
    return FrameSet.concat(made)


def landscape(runs: AIMDRuns, structures: int, k: float) -> float:
    """L_S(k) / S over all start points, by the formula of the module's docstring."""
    starts = runs.start_points(LENGTH)
    total = 0.0
    for column, z in enumerate((92, 1)):
        x0 = np.array([runs.frames.frame(int(a))["positions"][column, 0] for a in starts]) - HOME[z]
        v0 = np.array([runs.velocities(int(a))[column, 0] for a in starts])
        ours, true = (spring * swing(z, spring, x0, v0, structures) for spring in (k, K[z]))
        total += float(np.abs(ours - true).mean()) / 3
    return total


PLANTED, PLACEBO = {92: 0.25, 1: 0.1}, {92: 0.1, 1: 0.25}
GRID = np.linspace(144.0, 216.0, 73)


@pytest.mark.parametrize(("amplitude", "single"), [(PLANTED, K[92]), (PLACEBO, K[1])])
def test_where_the_minima_lie(amplitude, single):
    runs = aimd_runs(runs_of(amplitude, range(6)))
    assert GRID[np.argmin([landscape(runs, 1, k) for k in GRID])] == single
    errors = [landscape(runs, LENGTH, k) for k in GRID]
    assert GRID[np.argmin(errors)] == K[1]
    # And it is reached from the minimum of single frames: nothing lies in between.
    between = [landscape(runs, LENGTH, k) for k in np.linspace(single, K[1], 30)]
    assert np.all(np.diff(between) < 0) or single == K[1]


def trained(amplitude, structures: tuple[int, ...], seed: int, folder: Path) -> OneSpring:
    recipe = DynamicRecipe(
        n_structures=structures, rollout=RolloutSettings(), first_weight=1.0, energy_weight=0.0, refit_energy=False,
        evaluations_per_epoch=160, validation_structures=LENGTH, validation_points=4, choose="last",
    )  # fmt: skip
    settings = TrainSettings(
        batch_size=4, precision="float64", converge="fixed", stage_epochs=8, schedule="cosine", learning_rate=2.0,
        stage_learning_rate=10.0, beta1=0.0, beta2=0.8, minimum_rate=1e-3, ema_decay=None, clip_norm=None,
        shuffle_seed=seed,
    )  # fmt: skip
    dynamic_training(
        OneSpring(168.0 + 12 * seed), runs_of(amplitude, range(6)), runs_of(amplitude, [10]), settings, recipe,
        folder=folder,
    )  # fmt: skip
    # Not the best epoch, which validation roll-outs choose in both arms: where training leads is the question.
    ended = load(folder / "checkpoints" / "last.safetensors")
    assert isinstance(ended, OneSpring)
    return ended


def arms(amplitude, tmp_path: Path):
    """Springs and roll-outs on unseen runs, per seed, of single frames and of roll-outs at equal work."""
    unseen = aimd_runs(runs_of(amplitude, range(20, 26)))
    starts = validation_starts(unseen, LENGTH, 24)
    springs, rolled = {}, {}
    for name, structures in (("single", (1, 1)), ("rolled", (1, LENGTH))):
        models = [trained(amplitude, structures, seed, tmp_path / f"{name}{seed}") for seed in range(3)]
        springs[name] = [float(model.k.detach()) for model in models]
        rolled[name] = {seed: nve_rollouts(model, unseen, starts, LENGTH) for seed, model in enumerate(models)}
    return unseen, springs, rolled


@pytest.mark.full
def test_single_frames_drift_and_roll_outs_do_not(tmp_path: Path):
    unseen, springs, rolled = arms(PLANTED, tmp_path)
    assert springs["single"] == pytest.approx([K[92]] * 3, abs=2.0)
    assert springs["rolled"] == pytest.approx([K[1]] * 3, abs=2.0)
    verdict = judge_rollouts(rolled["rolled"], {"equal compute": rolled["single"]})
    assert verdict.answer == "works", verdict.sentence
    errors = [np.mean([landscape(unseen, LENGTH, k) for k in springs[name]]) for name in ("rolled", "single")]
    assert verdict.ratio == pytest.approx(errors[0] / errors[1], rel=0.1)
    for one in rolled["single"].values():
        assert np.isfinite(one.divergence_time(0.05)).mean() > 0.9
    for one in rolled["rolled"].values():
        assert np.isinf(one.divergence_time(0.05)).all()
    # At equal frames single frames are the better ones: the error that they make small.
    equal = {name: np.mean([one.equal_frames().mean() for one in arm.values()]) for name, arm in rolled.items()}
    assert equal["single"] < equal["rolled"]


@pytest.mark.full
def test_where_both_minima_are_one_nothing_is_found(tmp_path: Path):
    _, springs, rolled = arms(PLACEBO, tmp_path)
    assert springs["single"] == pytest.approx([K[1]] * 3, abs=2.0)
    assert springs["rolled"] == pytest.approx([K[1]] * 3, abs=2.0)
    verdict = judge_rollouts(rolled["rolled"], {"equal compute": rolled["single"]})
    assert verdict.answer != "works", verdict.sentence
    assert verdict.ratio == pytest.approx(1.0, abs=0.2)
