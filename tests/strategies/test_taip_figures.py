"""What is recorded and told of adaptation is of the structures, frames, replicas and units it is named for."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import units
from taip_toys import ALL, ethanol, toy

import mlipkit as mk
from mlipkit.analysis import feature_shifts
from mlipkit.data import samples
from mlipkit.errors import DataError
from mlipkit.md import maxwell_boltzmann, state_from_atoms
from mlipkit.runs.building_taip import shifted_frames
from mlipkit.runs.building_train import terms_of
from mlipkit.runs.taip_report import taip_html, taip_table
from mlipkit.strategies.taip import (
    AdaptedForces,
    AdaptSettings,
    MDAdaptation,
    heads_of,
    measuring,
    predict_adapted,
    study,
)
from mlipkit.strategies.taip.adapt import Adapter
from mlipkit.strategies.taip.arms import Arm
from mlipkit.strategies.taip.forces import COLUMNS, MEMBERS
from mlipkit.strategies.taip.study import NAME, Study, judged
from mlipkit.strategies.taip.term import FIGURES
from mlipkit.training import TrainSettings


def start(n: int):
    state = state_from_atoms([samples.load("ethanol_300K")[i] for i in range(n)], seed=list(range(n)))
    maxwell_boltzmann(state, 300.0, list(range(n)))
    return state


def column(provider: AdaptedForces, name: str) -> np.ndarray:
    return provider.last[:, list(COLUMNS).index(name)]


# ---- the series of a simulation


@pytest.mark.parametrize("n", [1, 3])
def test_each_task_of_each_replica_has_its_own_column(n):
    potential, state = toy().float(), start(n)
    provider = AdaptedForces(potential, MDAdaptation("nonsaving", AdaptSettings(1e-3)))
    state.step = 5
    provider(state)
    given = Adapter(potential, AdaptSettings(1e-3)).losses(
        provider.graph(state), [5 * MEMBERS + member for member in range(n)]
    )
    assert set(given.by_task) == ALL
    for task, losses in given.by_task.items():
        assert column(provider, FIGURES[task]) == pytest.approx(losses.detach().numpy(), rel=1e-4), task
    assert len({float(column(provider, name)[0]) for name in FIGURES.values()}) == len(ALL)


def test_a_replica_that_stays_has_the_same_figures_alone_and_in_company():
    """Below the threshold no step is taken and no gradient asked for: 0, whatever the others do."""
    potential, state = toy().float(), start(3)
    settings = AdaptSettings(1e-3)
    every = AdaptedForces(potential, MDAdaptation("nonsaving", settings))
    every(state)
    losses = column(every, "self_supervised")
    between = float(np.sort(losses)[1])  # the largest alone is above it
    how = MDAdaptation("threshold", settings, threshold=between)
    together = AdaptedForces(potential, how)
    together(state)
    assert column(together, "adapted").tolist() == (losses > between).tolist()
    for index in range(3):
        alone = AdaptedForces(potential, how, replicas=[index])
        alone(state.select([index]))
        for name in ("self_supervised", "gradient", "change", "adapted"):
            assert column(alone, name)[0] == pytest.approx(column(together, name)[index], rel=1e-4), (index, name)
    assert (column(together, "gradient") == 0).tolist() == (losses <= between).tolist()


def test_moments_stay_with_their_replica_when_another_leaves():
    how = MDAdaptation("save_every", AdaptSettings(1e-3, "adam_kept"))
    state, together = start(3), AdaptedForces(toy().double(), how)
    together(state)
    rest = state.select([0, 2])
    together.select(rest, [0, 2])
    rest.step = 1
    found = together(rest).energy
    for index, member in enumerate((0, 2)):
        alone, one = AdaptedForces(toy().double(), how, replicas=[member]), state.select([member])
        one.step = 0
        alone(one)
        one.step = 1
        assert float(alone(one).energy[0]) == pytest.approx(float(found[index]), abs=1e-9), member


def test_a_potential_in_training_adapts_as_one_that_is_not():
    """What differs between the two modes, as dropout does, is off while losses are looked at."""
    potential, modes = toy(), []
    potential.encoder.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    potential.train()
    predict_adapted(potential, ethanol(2), AdaptSettings(1e-3))
    assert modes
    assert not any(modes[:2]), "the losses, then the step"
    assert potential.training, "put back"


# ---- evaluations


def test_features_of_training_frames_are_adapted_too():
    arms = {name: Arm(name, 0, toy(seed=seed), 1.0, 1, 0) for seed, name in enumerate(("baseline", "noise", "taip"))}
    train, settings = ethanol(4), AdaptSettings(optimiser="sgd")
    found = measuring.measure(
        arms, ethanol(3), {"hot": ethanol(5, "ethanol_600K")}, settings, rates=(1e-3,), repeats=1, draws=1,
        train_frames=train,
    )  # fmt: skip
    adapted = predict_adapted(arms["taip"].potential, train, replace(settings, rate=1e-3)).features
    assert np.allclose(found.features["all"]["train"]["adapted"], adapted.reshape(4, 9, -1).mean(1), atol=1e-5)
    assert not np.allclose(found.features["all"]["train"]["adapted"], found.features["all"]["train"]["off"], atol=1e-4)


def with_features(runs_train, runs_test) -> measuring.Measured:
    rng = np.random.default_rng(0)
    found = measuring.Measured(0, {}, {}, {}, {}, {})
    rows = {"train": rng.normal(size=(len(runs_train), 3)), "hot": rng.normal(size=(len(runs_test), 3))}
    found.features = {"all": {test: {"off": of_frames} for test, of_frames in rows.items()}}
    found.feature_groups = {"all": {"train": np.asarray(runs_train), "hot": np.asarray(runs_test)}}
    return found


@pytest.mark.parametrize(
    ("train", "test", "grouped"), [(4, 2, True), (3, 2, False), (4, 1, False)], ids=["both", "few train", "one test"]
)
def test_frames_of_one_simulation_go_together_in_the_shift_of_features(monkeypatch, train, test, grouped):
    seen = []
    module = sys.modules[feature_shifts.__module__]
    monkeypatch.setattr(module, "feature_shifts", lambda *_, **how: seen.append(how) or {})
    study._shifts(with_features(np.repeat(np.arange(train), 5), np.repeat(100 + np.arange(test), 6)))
    (how,) = seen
    if grouped:
        assert how["train_groups"].tolist() == np.repeat(np.arange(train), 5).tolist()
        assert how["test_groups"].tolist() == np.repeat(100 + np.arange(test), 6).tolist()
    else:
        assert (how["train_groups"], how["test_groups"]) == (None, None)


@pytest.mark.parametrize(("arm", "hint"), [("off", "Train longer"), ("adapted", "smaller adaptation steps")])
def test_predictions_that_are_no_numbers_end_the_evaluation(monkeypatch, arm, hint):
    """A mean over the frames that are left would judge the cure on easier ones."""
    arms = {name: Arm(name, 0, toy(seed=seed), 1.0, 1, 0) for seed, name in enumerate(("baseline", "noise", "taip"))}
    real = measuring.scan

    def broken(taip, frames, settings, rates, *more):
        found = real(taip, frames, settings, rates, *more)
        if len(frames) == 5:
            found[0.0 if arm == "off" else 1e-3]["forces"][2] = np.nan
        return found

    monkeypatch.setattr(measuring, "scan", broken)
    with pytest.raises(DataError, match="no numbers") as caught:
        measuring.measure(
            arms, ethanol(3), {"hot": ethanol(5, "ethanol_600K")}, AdaptSettings(), rates=(1e-3,), repeats=1, draws=1
        )
    assert hint in str(caught.value)
    assert "1 of 5 frames" in str(caught.value)


def test_intervals_are_told_as_they_were_found(tmp_path):
    rng = np.random.default_rng(1)
    measured = []
    for seed in range(2):
        base = np.exp(0.2 * rng.normal(size=30))
        names = {"baseline": 1.0, "noise": 1.1, "off": 1.05, "random": 1.04, "adapted": 0.7}
        errors = {name: {"forces": base * factor * np.exp(0.3 * rng.normal(size=30))} for name, factor in names.items()}
        frames = {"hot": list(range(30))}
        measured.append(measuring.Measured(seed, {"adapted": {"forces": 1e-3}}, {}, {"hot": errors}, frames, frames))
    record = judged(Study(rates=(1e-3,), seeds=(0, 1)), measured, ["hot"])
    (tmp_path / NAME).write_text(json.dumps(record))
    run = SimpleNamespace(folder=tmp_path, name="made up")
    page, text = taip_html(run), taip_table(run)
    ends = [(one["lower"], one["upper"]) for one in record["ratios"]]
    assert all(lower < upper for lower, upper in ends)
    assert len(set(ends)) == len(ends) == 4
    for lower, upper in ends:
        assert f"{lower:.3f} to {upper:.3f}" in page
    (verdict,) = [one for one in record["verdicts"] if one["question"] == "adaptation"]
    assert f"({verdict['lower']:.3f} to {verdict['upper']:.3f}) to '{verdict['best_control']}'" in text


# ---- what a specification says of frames


def test_units_are_those_of_the_frames_out_of_distribution_too(tmp_path):
    hot = samples.load("ethanol_600K").select(range(3))
    arrays = {"R": np.asarray(hot.positions).reshape(3, 9, 3), "F": np.asarray(hot.forces).reshape(3, 9, 3)}
    np.savez(tmp_path / "hot.npz", **arrays, z=np.asarray(hot.numbers)[:9], E=np.asarray(hot.energy))
    spec = mk.TaipSpec(
        data="sample:ethanol_300K@:20", model={"encoder": "schnet"}, shifted="hot.npz",
        units={"energy": "kcal/mol", "length": "angstrom"},
    )  # fmt: skip
    (found,) = shifted_frames(spec, tmp_path).values()
    assert np.asarray(found.energy) == pytest.approx(np.asarray(hot.energy) * units.kcal / units.mol)


@pytest.mark.parametrize(("place", "periodic"), [("ethanol_300K", False), ("ice_ih", True)])
def test_a_training_with_tasks_knows_whether_its_frames_are_periodic(monkeypatch, place, periodic):
    from mlipkit.strategies import taip

    seen, real = [], taip.attach
    monkeypatch.setattr(taip, "attach", lambda *given, **how: seen.append(how) or real(*given, **how))
    spec = mk.TrainSpec(data=f"sample:{place}", seed=7, model={"encoder": "schnet"}, taip={"enabled": True})
    potential = toy()
    terms_of(spec, potential, samples.load(place).select(range(4)), TrainSettings())
    assert seen == [{"periodic": periodic, "seed": 7}]
    assert heads_of(potential)
    assert torch.is_tensor(next(potential.parameters()))
