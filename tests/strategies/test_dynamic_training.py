"""Dynamic training as a whole: the curriculum's state machine, resuming, equal work, what is returned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlipkit.data import FrameSet, fit_atomic_energies, samples
from mlipkit.data.series import Series
from mlipkit.errors import DataError, SpecError
from mlipkit.events import Message
from mlipkit.models import Potential, build_encoder, load
from mlipkit.models.heads import MLPHead
from mlipkit.strategies.dynamic import (
    DynamicRecipe,
    RolloutSettings,
    SequenceSource,
    aimd_runs,
    dynamic_training,
    nve_rollouts,
    roll_beside,
    validation_starts,
)  # fmt: skip
from mlipkit.strategies.dynamic.outcome import energy_offset
from mlipkit.strategies.dynamic.validation import RolloutValidation
from mlipkit.training import TrainSettings, train


def painn(seed: int = 0) -> Potential:
    torch.manual_seed(seed)
    encoder = build_encoder("painn", features=8, layers=1, cutoff=4.0, n_radial=6)
    return Potential(encoder, atomic_energies=fit_atomic_energies(samples.load("ethanol_nve"))).double()


@pytest.fixture(scope="module")
def parts() -> tuple[FrameSet, FrameSet]:
    """Two runs of forty frames to train on, another one to validate with."""
    frames = samples.load("ethanol_nve")
    rows = [np.flatnonzero(frames.trajectory == k)[:40] for k in (0, 1, 2)]
    return frames.select(np.concatenate(rows[:2])), frames.select(rows[2])


FIXED = TrainSettings(
    batch_size=4, precision="float64", converge="fixed", stage_epochs=2, schedule="plateau", schedule_patience=3,
    schedule_factor=0.33, minimum_rate=2e-6, stage_learning_rate=1e-4, ema_decay=None, clip_norm=1.0,
)  # fmt: skip
SMALL = {"n_structures": (1, 2, 4), "evaluations_per_epoch": 8, "validation_structures": 6, "validation_points": 2}


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


# ---- the state machine


class Scripted:
    """A validation that finds what it is told, one value after the other."""

    figures = {"rollout_mepa": "eV/Å"}  # noqa: RUF012

    def __init__(self, source: SequenceSource, values) -> None:
        self.source, self.values, self.seen = source, iter(values), []

    def __call__(self, potential):
        self.seen.append(self.source.n_structures)
        return {"rollout_mepa": next(self.values)}


def sequence(parts, folder: Path, values, **settings) -> list[tuple[float, int]]:
    """(learning rate, S) of every epoch."""
    train_part, validation = parts
    runs = aimd_runs(train_part)
    source = SequenceSource(runs, 4.0, torch.float64, [1, 2, 4])
    how = TrainSettings(
        batch_size=1, points_per_epoch=1, precision="float64", schedule="plateau", schedule_patience=2,
        schedule_factor=0.33, learning_rate=1e-3, minimum_rate=2e-6, stage_learning_rate=1e-4, ema_decay=None,
        monitor="rollout_mepa", max_epochs=1000, **settings,
    )  # fmt: skip
    watch = Scripted(source, values)
    result = train(painn(), source, validation.select([0]), how, folder=folder, validate=watch,
                   terms=[DynamicRecipe().term])  # fmt: skip
    assert result.ending == "converged"
    rates = Series(folder / "series" / "training").read("learning_rate")["learning_rate"]
    return [(round(float(rate), 12), s) for rate, s in zip(rates, watch.seen[1:], strict=True)]


def ladder(start: float, n: int) -> list[float]:
    return [round(max(2e-6, start * 0.33**k), 12) for k in range(n)]


def test_rates_and_structures_follow_the_published_curriculum(parts, tmp_path: Path):
    """A stage is over when the patience is exceeded at the minimum rate; the next one starts at the reset rate.

    Patience 2: three epochs without gain reduce the rate. 1e-3 needs six reductions by 0.33 to reach 2e-6, 1e-4 four.
    In the first stage the look before the first step is the best; epoch 5, the second at 3.3e-4, finds a better one.
    A later stage forgets the best of the one before, so that its first epoch is always better.
    """
    first = [(1e-3, 1)] * 3 + [(3.3e-4, 1)] * 5 + [(rate, 1) for rate in ladder(1e-3, 7)[2:] for _ in range(3)]
    later = [[(1e-4, s)] * 4 + [(rate, s) for rate in ladder(1e-4, 5)[1:] for _ in range(3)] for s in (2, 4)]
    assert len(first) == 23
    assert first[-1] == (2e-6, 1)
    values = [5.0] * 5 + [4.0] + [6.0] * 200
    assert sequence(parts, tmp_path, values, converge="patience_at_min_lr") == first + later[0] + later[1]


def test_in_the_published_code_nothing_is_trained_at_the_minimum_rate(parts, tmp_path: Path):
    first = [(rate, 1) for rate in ladder(1e-3, 6) for _ in range(3)]
    later = [[(1e-4, s)] * 4 + [(rate, s) for rate in ladder(1e-4, 4)[1:] for _ in range(3)] for s in (2, 4)]
    found = sequence(parts, tmp_path, [5.0] * 200, converge="at_min_lr")
    assert found == first + later[0] + later[1]
    assert min(rate for rate, _ in found) > 2e-6


def test_stages_of_fixed_length_reset_the_rate_all_the_same(parts, tmp_path: Path):
    found = sequence(parts, tmp_path, [5.0] * 200, converge="fixed", stage_epochs=5)
    assert found == [
        *[(1e-3, 1)] * 3, *[(3.3e-4, 1)] * 2, *[(1e-4, 2)] * 4, (3.3e-5, 2), *[(1e-4, 4)] * 4, (3.3e-5, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [3, 9, 17])
def test_an_interrupted_curriculum_is_the_one_that_never_stopped(parts, tmp_path: Path, cut: int):
    """Weights, S, rate and patience counter go on bit for bit, from inside an epoch too."""
    train_part, validation = parts
    settings = TrainSettings(
        batch_size=4, points_per_epoch=8, precision="float64", schedule="plateau", schedule_patience=1,
        schedule_factor=0.1, learning_rate=1e-2, minimum_rate=1e-3, stage_learning_rate=5e-3, ema_decay=None,
        converge="patience_at_min_lr", max_epochs=100, max_steps=28,
    )  # fmt: skip
    recipe = DynamicRecipe(n_structures=(1, 2, 3), validation_structures=4, validation_points=2, apart_limit=None)

    def go(folder: Path, steps: int):
        how = TrainSettings(**{**settings.to_json(), "max_steps": steps})
        return dynamic_training(painn(1), train_part, validation, how, recipe, folder=folder)

    whole, _, parted = go(tmp_path / "whole", 28), go(tmp_path / "parts", cut), go(tmp_path / "parts", 28)
    assert torch.equal(weights(whole.potential), weights(parted.potential))
    a, b = (Series(tmp_path / name / "series" / "validation").read() for name in ("whole", "parts"))
    steps = [int(step) for step in a["step"]]
    rows = [list(b["step"]).index(step) for step in steps]
    for column in ("learning_rate", "n_structures", "stage", "rollout_mepa"):
        assert a[column].tolist() == b[column][rows].tolist(), column
    assert len(set(a["n_structures"])) > 1, "the curriculum went on"
    assert [one.n_structures for one in whole.stages] == [one.n_structures for one in parted.stages]


def test_the_next_stage_may_begin_with_the_best_weights(parts, tmp_path: Path):
    train_part, validation = parts
    seen = {}

    class Watched(Scripted):
        def __call__(self, potential):
            seen[len(self.seen)] = weights(potential).clone()
            return super().__call__(potential)

    for start in ("current", "best"):
        source = SequenceSource(aimd_runs(train_part), 4.0, torch.float64, [1, 2])
        how = TrainSettings(
            batch_size=4, points_per_epoch=4, precision="float64", schedule="constant", learning_rate=1e-2,
            stage_learning_rate=1e-12, ema_decay=None, monitor="rollout_mepa", max_epochs=10, converge="fixed",
            stage_epochs=3, stage_start=start,
        )  # fmt: skip
        watch = Watched(source, [5.0, 1.0, 2.0, 3.0] + [1.0] * 9)
        train(painn(), source, validation.select([0]), how, folder=tmp_path / start, validate=watch,
              terms=[DynamicRecipe().term])  # fmt: skip
        # The rate of the second stage is as good as none: its first epoch shows where it began.
        best, last, begun = seen[1], seen[3], seen[4]
        expected, other = (last, best) if start == "current" else (best, last)
        assert torch.allclose(begun, expected, atol=1e-9)
        assert not torch.allclose(begun, other, atol=1e-4)


# ---- equal work, the guard


def test_all_arms_make_as_many_force_evaluations(parts, tmp_path: Path):
    train_part, validation = parts
    recipe = DynamicRecipe(**SMALL)
    control = recipe.equal_compute_control
    assert control.n_structures == (1, 1, 1)
    found = {}
    for name, one in {"rolled": recipe, "control": control}.items():
        said: list = []
        found[name] = dynamic_training(painn(), train_part, validation, FIXED, one, folder=tmp_path / name,
                                       sink=said.append)  # fmt: skip
        rates = Series(tmp_path / name / "series" / "validation").read()
        found[name, "rates"] = rates["learning_rate"].tolist()
        assert any("epochs each of 8 force evaluations" in e.text for e in said if isinstance(e, Message))
        last = [e for e in said if type(e).__name__ == "Progress"][-1]
        assert last.done == last.total == found[name].result.step
    assert [one.evaluations for one in found["rolled"].stages] == [16, 16, 16]
    assert [one.evaluations for one in found["control"].stages] == [16, 16, 16]
    assert [one.steps for one in found["rolled"].stages] == [4, 2, 2]
    assert found["rolled", "rates"] == found["control", "rates"]
    assert not torch.equal(weights(found["rolled"].potential), weights(found["control"].potential))


def test_roll_outs_that_go_astray_do_not_become_longer_and_it_is_said(parts, tmp_path: Path):
    train_part, validation = parts
    said: list = []
    recipe = DynamicRecipe(**{**SMALL, "apart_limit": 1e-6})
    found = dynamic_training(painn(), train_part, validation, FIXED, recipe, folder=tmp_path, sink=said.append)
    assert found.held_at == 2
    assert [one.n_structures for one in found.stages] == [1, 2, 2]
    assert [one.evaluations for one in found.stages] == [16, 16, 16]
    warnings = [e.text for e in said if isinstance(e, Message) and e.level == "warning"]
    assert any("not made longer and stay at 2 structures" in text for text in warnings)
    assert "went astray" in found.sentence
    ends = TrainSettings(**{**FIXED.to_json(), "converge": "at_min_lr", "stage_epochs": None, "schedule_patience": 1,
                            "learning_rate": 0.5, "stage_learning_rate": 0.5, "minimum_rate": 0.3,
                            "points_per_epoch": 4})  # fmt: skip
    recipe = DynamicRecipe(**{**SMALL, "apart_limit": 1e-6, "evaluations_per_epoch": None})
    found = dynamic_training(painn(), train_part, validation, ends, recipe, folder=tmp_path / "ends")
    assert (found.result.ending, found.stages[-1].n_structures) == ("converged", 2)


# ---- what is returned


def test_the_best_stage_is_returned_with_its_energy_zero_and_heads(parts, tmp_path: Path):
    train_part, validation = parts
    start = painn()
    start.auxiliary["task"] = MLPHead([8, 1]).double()
    before = weights(start).clone()
    frames = samples.load("ethanol_nve")
    unseen = frames.select(np.flatnonzero(frames.trajectory == 3)[:40])
    found = dynamic_training(start, train_part, validation, FIXED, DynamicRecipe(**SMALL), folder=tmp_path / "keep",
                             test=unseen)  # fmt: skip
    assert torch.equal(weights(start), before), "the given potential is left as it is"
    mepa = [one.rollout_mepa for one in found.stages]
    assert found.chosen == 1 + int(np.argmin(mepa))
    assert abs(energy_offset(found.potential, train_part, 16)) < 1e-6
    assert found.energy_shift != 0
    assert set(found.metrics) == {"train", "validation", "test"}
    again = load(tmp_path / "keep")
    assert torch.equal(weights(again), weights(found.potential))
    assert list(again.auxiliary) == ["task"]
    runs = aimd_runs(validation)
    rolled = nve_rollouts(again, runs, validation_starts(runs, 6, 2), 6)
    assert rolled.mepa().mean() == pytest.approx(mepa[found.chosen - 1], rel=1e-9)
    for stage in found.stages:
        assert sum(stage.per_element.values()) == pytest.approx(stage.rollout_mepa, rel=1e-9)
        assert (tmp_path / "keep" / "checkpoints" / stage.file).is_file()
    recipe = DynamicRecipe(**SMALL, auxiliary_heads="drop", refit_energy=False, choose="last")
    dropped = dynamic_training(start, train_part, validation, FIXED, recipe, folder=tmp_path / "drop")
    assert not list(dropped.potential.auxiliary)
    assert (dropped.chosen, dropped.energy_shift) == (3, 0.0)


def test_terms_of_other_strategies_ride_along(parts, tmp_path: Path):
    """A further summand of the loss on the start frames trains an auxiliary head."""

    class Heads:
        name, needs, labels, figures = "task", frozenset({"features"}), {}, {"task": ""}

        def __call__(self, state, graph, targets, prediction):
            said = state.potential.auxiliary["task"](prediction.features)
            loss = (said - 1.0).square().mean()
            return loss, {"task": loss.detach()}

    train_part, validation = parts
    start = painn()
    start.auxiliary["task"] = MLPHead([8, 1]).double()
    found = dynamic_training(start, train_part, validation, FIXED, DynamicRecipe(**SMALL), folder=tmp_path,
                             terms=[Heads()])  # fmt: skip
    heads = (one.auxiliary["task"].parameters() for one in (start, found.potential))
    assert not any(torch.equal(a, b) for a, b in zip(*heads, strict=True))
    assert np.isfinite(Series(tmp_path / "series" / "training").read("task")["task"]).all()


def test_energies_weigh_on_longer_roll_outs_only_when_asked(parts, tmp_path: Path):
    train_part, validation = parts
    found = {}
    for weight in (0.0, 5.0):
        recipe = DynamicRecipe(**{**SMALL, "n_structures": (2,)}, energy_weight_dyn=weight, refit_energy=False)
        one = dynamic_training(painn(), train_part, validation, FIXED, recipe, folder=tmp_path / str(weight))
        found[weight] = weights(one.potential)
    assert not torch.equal(found[0.0], found[5.0])


def test_frozen_atoms_stay_in_validation_and_count_in_no_error(parts):
    _, validation = parts
    runs, frozen = aimd_runs(validation), np.arange(9) < 3
    found = nve_rollouts(painn(), runs, [0, 5], 8, frozen=frozen)
    free = nve_rollouts(painn(), runs, [0, 5], 8)
    assert not np.allclose(found.error, free.error, equal_nan=True)
    only_carbon_and_oxygen = runs.frames.numbers[:3].tolist()
    assert sorted(only_carbon_and_oxygen) == [6, 6, 8]
    assert np.isnan(found.error[:, :, [1, 2]]).all()
    assert np.isfinite(found.error[:, :, 0]).all()


def test_frozen_atoms_stay_beside_aimd_too(parts):
    frames = parts[1]
    found = roll_beside(painn(), frames, 5, 6, frozen=[0, 1, 8])
    path = np.asarray(found.predicted.positions).reshape(6, 9, 3)
    assert (path[:, [0, 1, 8]] == path[0, [0, 1, 8]]).all()
    assert (np.linalg.norm(path[5] - path[0], axis=1)[2:8] > 0).all()
    free = roll_beside(painn(), frames, 5, 6)
    forces = [np.asarray(part.forces, float).reshape(6, 9, 3) for part in (free.predicted, free.reference)]
    # At the start both have the same forces; atoms of H that move alone count.
    hydrogen = [at for at in range(9) if frames.numbers[at] == 1 and at != 8]
    assert found.error[0, 0] == pytest.approx(np.abs(forces[0] - forces[1])[0, hydrogen].mean())
    with pytest.raises(DataError, match=r"frozen: no such atom; expected 0 to 8; found \[9\]"):
        roll_beside(painn(), frames, 5, 6, frozen=[9])


def test_a_roll_out_without_numbers_is_the_worst_and_not_the_best(parts, tmp_path: Path):
    """NaN must not be summed up as no error."""
    _, validation = parts
    runs = aimd_runs(validation)
    broken = painn()

    class Breaks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * (torch.nan if self.calls > 3 else 1.0)

    broken.head.mlp.append(Breaks())
    found = nve_rollouts(broken, runs, [0, 3], 8, equal_frames=False)
    assert np.isfinite(found.error[:, 0]).all()
    assert np.isinf(found.mepa()).all()
    assert np.isnan(found.drift()).all()
    figures = RolloutValidation(runs, np.array([0, 3]), 8, path=tmp_path / "rollouts.json")(broken)
    assert figures["rollout_mepa"] == np.inf


@pytest.mark.parametrize(
    ("settings", "recipe", "match"),
    [
        ({"converge": "fixed", "stage_epochs": None}, {}, "stage_epochs"),
        ({"converge": "at_min_lr", "schedule": "constant", "stage_epochs": None}, {}, "schedule='plateau'"),
        ({"patience": 3}, {}, "no effect with converge"),
        ({"points_per_epoch": 8}, {}, "same thing twice"),
        ({"converge": "patience", "stage_epochs": None}, {}, "needs converge='fixed'"),
        ({}, {"frozen": (99,)}, "no such atom"),
        ({}, {"frozen": tuple(range(9))}, "every atom is frozen"),
        ({}, {"first_weight": -1.0}, "first_weight"),
    ],
)
def test_what_contradicts_itself_is_refused(parts, tmp_path: Path, settings, recipe, match):
    with pytest.raises(SpecError, match=match):
        dynamic_training(
            painn(), *parts, TrainSettings(**{**FIXED.to_json(), **settings}), DynamicRecipe(**{**SMALL, **recipe}),
            folder=tmp_path,
        )  # fmt: skip


def test_curricula_and_roll_outs_of_nonsense_are_refused():
    for structures in ((), (0, 1), (2, 1), (1.5, 2), ("1", "2")):
        with pytest.raises(SpecError, match="n_structures: not a curriculum"):
            DynamicRecipe(n_structures=structures)
    with pytest.raises(SpecError, match="window: out of range; expected at least 1"):
        RolloutSettings(window=0)
    with pytest.raises(SpecError, match="window: has no effect without bptt"):
        RolloutSettings(bptt=False, window=2)
    with pytest.raises(DataError, match=r"update: no such choice; found 'verlett'.*verlet"):
        RolloutSettings(update="verlett")  # type: ignore[arg-type]


def test_validation_without_forces_or_too_short_is_said_before_anything_is_trained(parts, tmp_path: Path):
    train_part, validation = parts
    bare = FrameSet.from_arrays(
        validation.numbers, validation.positions, validation.n_atoms, velocities=validation.velocities,
        energy=validation.energy, trajectory=validation.trajectory, time=validation.time,
    )  # fmt: skip
    for held, match in (
        (bare, "validation: frame 0 of run 0: forces are missing"),
        (validation.select(range(7)), r"validation: no run is long enough for roll-outs of 6.*at least 8.*at most 7"),
    ):
        with pytest.raises(DataError, match=match):
            dynamic_training(painn(), train_part, held, FIXED, DynamicRecipe(**SMALL), folder=tmp_path)
    with pytest.raises(DataError, match=r"training: no run is long enough for roll-outs of 4.*at most 5"):
        dynamic_training(
            painn(), train_part.select(range(5)), validation, FIXED, DynamicRecipe(**SMALL), folder=tmp_path
        )


def test_long_roll_outs_keep_nothing_unless_it_is_said():
    assert DynamicRecipe().rollout.recompute_above == 8
    assert RolloutSettings().recompute_above is None
