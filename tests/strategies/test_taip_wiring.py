"""What decides between controls and cure: frames that choose, seeds, folders, weights, draws. One test per wire."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from taip_toys import SMALL, batch, ethanol, toy

from mlipkit.data import fit_atomic_energies, samples
from mlipkit.errors import RunError, SpecError
from mlipkit.models import Potential, build_encoder
from mlipkit.runs import TaipSpec, parse_spec
from mlipkit.runs.building_taip import run_taip, study_of
from mlipkit.runs.building_train import tasks_of
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.spec_train import TasksSpec
from mlipkit.strategies.taip import AdaptSettings, TaipOptions, arms, attach, measuring, study, tasks
from mlipkit.strategies.taip.adapt import Adapter
from mlipkit.strategies.taip.arms import Arm, arm_folder, check_steps, train_arm
from mlipkit.strategies.taip.study import Study, evaluate_taip
from mlipkit.strategies.taip.term import NoisyLabels, SelfSupervised, published
from mlipkit.training import EnergyForcesStress, TrainSettings
from mlipkit.training.objective import StepState

SETTINGS = TrainSettings(batch_size=5, max_epochs=2, learning_rate=1e-3, ema_decay=None, schedule="constant")
FRAMES = samples.load("ethanol_300K")


def make(seed: int) -> Potential:
    torch.manual_seed(seed)
    encoder = build_encoder("schnet", seed=seed, **SMALL["schnet"])
    return Potential(encoder, atomic_energies=fit_atomic_energies(FRAMES), scale=1.5)


def evaluated(folder, first: int = 0, seeds=(0,), settings=SETTINGS, **more):
    frames = FRAMES.select(range(first, first + 30))
    asked = Study(rates=(1e-5, 1e-3), seeds=seeds, repeats=2, draws=2, **more)
    return evaluate_taip(asked, make, settings, frames[:15], frames[15:20], {"test": frames[20:]}, shifted=["test"],
                         folder=folder)  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taip")
    evaluated(folder)
    return folder


# ---- folders


def test_a_seed_measured_for_something_else_is_refused(done, tmp_path):
    evaluated(tmp_path / "other", first=40)
    shutil.rmtree(tmp_path / "other" / "seed_0")
    shutil.copytree(done / "seed_0", tmp_path / "other" / "seed_0")
    with pytest.raises(RunError, match=r"measured\.json: was measured for another evaluation or seed"):
        evaluated(tmp_path / "other", first=40)
    shutil.copytree(done, tmp_path / "seeds")
    shutil.copytree(done / "seed_0", tmp_path / "seeds" / "seed_1")
    with pytest.raises(RunError, match="expected seed 1 on test; found seed 0 on test"):
        evaluated(tmp_path / "seeds", seeds=(0, 1))
    shutil.copytree(done, tmp_path / "without")
    (tmp_path / "without" / "study.json").unlink()
    with pytest.raises(RunError, match="was measured for another evaluation"):
        evaluated(tmp_path / "without", first=40)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"first": 40}, "training frames, validation frames, tests"),
        ({"settings": dataclasses.replace(SETTINGS, max_epochs=3)}, "training"),
        ({"options": TaipOptions(noise=0.5)}, "options"),
    ],
    ids=str,
)
def test_every_part_of_what_a_folder_is_about_counts(done, tmp_path, change, what):
    with pytest.raises(RunError, match=rf"belongs to another evaluation: .*{what}.* differ"):
        evaluated(done, **change)


def test_another_effect_judges_the_same_folder(done):
    assert evaluated(done, effect=0.2)["sentence"]


@pytest.mark.parametrize("name", ["training frames", "validation frames", "tests", "training", "potential", "options"])
def test_a_folder_is_told_by(done, tmp_path, name):
    shutil.copytree(done, tmp_path / "copy")
    path = tmp_path / "copy" / "study.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, name: "something else"}))
    with pytest.raises(RunError, match=f"another evaluation: {name} differ"):
        evaluated(tmp_path / "copy")


def test_a_training_of_something_else_is_refused(done, tmp_path):
    frames, place = FRAMES.select(range(20)), tmp_path / "baseline"
    shutil.copytree(done / "seed_0" / "baseline", place)
    given = (make, frames[:15], frames[15:])
    for seed, settings, said in (
        (1, SETTINGS, "seed 1.*found seed 0"),
        (0, dataclasses.replace(SETTINGS, learning_rate=2e-3), r"settings\.learning_rate 0\.002; found .* 0\.001"),
    ):
        with pytest.raises(RunError, match=rf"arm\.json: this is the training of something else.*{said}"):
            train_arm("baseline", seed, *given, settings, TaipOptions(), folder=place)
    assert train_arm("baseline", 0, *given, SETTINGS, TaipOptions(), folder=place) is not None


@pytest.mark.parametrize("name", ["measured.json", "measured.npz"])
def test_damage_is_named(done, tmp_path, name):
    shutil.copytree(done, tmp_path / "copy")
    path = tmp_path / "copy" / "seed_0" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="cannot be read"):
        evaluated(tmp_path / "copy")
    (tmp_path / "copy" / "study.json").write_text("{half")
    with pytest.raises(RunError, match=r"study\.json: cannot be read"):
        evaluated(tmp_path / "copy")


# ---- equal terms


def test_arms_of_unequal_steps_are_not_compared():
    one = Arm("baseline", 0, make(0), 1.0, 30, 1)
    check_steps({"baseline": one, "taip": dataclasses.replace(one, name="taip")})
    with pytest.raises(RunError, match="unequal optimiser steps; found baseline 30, taip 31"):
        check_steps({"baseline": one, "taip": dataclasses.replace(one, name="taip", steps=31)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"time_limit_s": 60}, "time_limit_s: ends some trainings before others"),
        ({"optimiser": {"patience": 3}}, r"optimiser\.patience: ends some trainings"),
        ({"model": {"seed": 3}}, r"model\.seed: every training begins from its own"),
        ({"seeds": [0, -1]}, "seeds"),
        ({"noise_sigma": [0.005, 0.005]}, "noise_sigma.*each once"),
    ],
    ids=str,
)
def test_specifications_that_would_not_compare_like_with_like_are_refused(given, said):
    with pytest.raises(SpecError, match=said):
        parse_spec({"kind": "taip", "data": "sample:ethanol_300K", "shifted": "sample:ethanol_600K", **given})


@pytest.mark.parametrize(
    "given",
    [{"draws": 0}, {"rates": (float("nan"),)}, {"rates": ("a",)}, {"effect": 1.5}, {"noise_sigmas": (float("nan"),)},
     {"repeats": 0}, {"seeds": (0, -1)}],
    ids=str,
)  # fmt: skip
def test_studies_are_refused_when_they_are_made(given):
    with pytest.raises(SpecError, match=next(iter(given))):
        Study(**given)
    frames = FRAMES.select(range(30))
    with pytest.raises(SpecError, match="no such test set; expected test; found nosuch"):
        evaluate_taip(Study(), make, SETTINGS, frames[:15], frames[15:20], {"test": frames[20:]}, shifted=["nosuch"],
                      folder="unused")  # fmt: skip


def test_what_a_specification_says_reaches_the_study():
    spec = parse_spec({
        "kind": "taip", "data": "sample:ethanol_300K", "shifted": "sample:ethanol_600K", "effect": 0.12, "ablate": True,
        "noise_sigma": [0.01, 0.02], "seeds": [4, 5], "features": True, "taip": {"gamma": 2.5, "noise": 0.5},
        "adaptation": {"optimiser": "sgd", "together": 3, "rates": [1e-2], "seed": 9, "draws": 5, "repeats": 4},
    })  # fmt: skip
    assert isinstance(spec, TaipSpec)
    found = study_of(spec)
    assert (found.adaptation.optimiser, found.adaptation.together, found.adaptation.seed) == ("sgd", 3, 9)
    assert (found.rates, found.noise_sigmas, found.seeds) == ((1e-2,), (0.01, 0.02), (4, 5))
    assert (found.effect, found.ablate, found.features, found.draws, found.repeats) == (0.12, True, True, 5, 4)
    assert (found.options.noise, found.options.gamma) == (0.5, 2.5)


def test_every_option_of_the_tasks_reaches_them():
    given = {"noise": 0.5, "types": 0.4, "pseudo_forces": 0.3, "levels": 7, "sigma_max": 2.0, "sigma_min": 0.1,
             "edges": "kept", "pooling": "mean", "type_rate": 0.2, "gamma": 2.0, "force_rate": 0.3,
             "decoder": "equivariant"}  # fmt: skip
    assert {*given, "mf_mode"} == set(TasksSpec.model_fields) - {"enabled"}
    spec = TasksSpec(enabled=True, **given)  # type: ignore[arg-type]
    assert {name: getattr(tasks_of(spec), name) for name in given} == given
    assert tasks_of(TasksSpec(enabled=True, mf_mode="authors")).mf_mode == "authors"


def test_each_seed_has_weights_of_its_own_and_test_sets_no_more_frames_than_asked(tmp_path, monkeypatch):
    asked = {}

    def stopped(study, make, settings, train, validation, tests, **how):
        asked.update(make=make, tests=tests)

    monkeypatch.setattr("mlipkit.strategies.taip.study.evaluate_taip", stopped)
    spec = parse_spec({
        "kind": "taip", "data": "sample:ethanol_300K", "shifted": "sample:ethanol_600K", "most": 7,
        "model": {"encoder": "schnet", "features": 8, "layers": 1},
    })  # fmt: skip
    assert isinstance(spec, TaipSpec)
    assert run_taip(spec, RunFolder(tmp_path), tmp_path, lambda _: None, lambda: "run").state == "stopped"
    first, again, other = (list(asked["make"](seed).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1)
    hot, found = samples.load("ethanol_600K"), asked["tests"]["ethanol_600K"]
    assert {len(one) for one in asked["tests"].values()} == {7}
    assert [found.uid(0), found.uid(6)] == [hot.uid(0), hot.uid(len(hot) - 1)]


def test_validation_frames_choose_the_width_of_the_noise(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(study, "_score", lambda frames, arm: asked.append(frames.hash) or arm.noise_sigma or 0.0)
    evaluated(tmp_path, noise_sigmas=(0.02, 0.01))
    frames = FRAMES.select(range(30))
    assert set(asked) == {frames[15:20].hash}


def test_the_weights_of_an_arm_are_those_that_validation_chose(tmp_path, monkeypatch):
    seen = []
    real = arms.load
    monkeypatch.setattr(arms, "load", lambda path, **how: seen.append(path) or real(path, **how))
    frames = FRAMES.select(range(20))
    found = train_arm("baseline", 0, make, frames[:15], frames[15:], SETTINGS, TaipOptions(),
                      folder=arm_folder(tmp_path, "baseline"))  # fmt: skip
    assert found is not None
    assert [path.name for path in seen] == ["best.safetensors"]
    best = real(seen[0])
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), found.potential.parameters(), strict=True))


# ---- draws and slopes


def test_every_training_step_draws_anew():
    potential = toy()
    graph, targets = batch(potential, ethanol(3))
    said = potential(graph, features=True, create_graph=True)
    terms = {
        "tasks": SelfSupervised(TaipOptions()),
        "noise": NoisyLabels(EnergyForcesStress.from_settings(SETTINGS), 0.01),
    }
    for name, term in terms.items():
        values = [float(term(StepState(potential, step=step), graph, targets, said)[0].detach()) for step in (1, 2, 1)]
        assert values[0] == values[2] != values[1], name


def test_displacements_of_the_control_are_as_wide_as_they_are_said_to_be():
    potential, widths = toy(), []
    graph, targets = batch(potential, ethanol(40))

    class Measuring:
        needs, figures = frozenset({"energy", "forces"}), {}

        def __call__(self, state, moved, targets, found):
            widths.append(float((moved.positions - graph.positions).std()))
            return torch.zeros(()), {}

    NoisyLabels(Measuring(), 0.03)(StepState(potential), graph, targets, None)  # type: ignore[arg-type]
    assert widths[0] == pytest.approx(0.03, rel=0.1)


def test_the_clean_path_of_the_noise_task_is_trained_too():
    """Its energy of the structure as it is hangs on the encoder: without that path slopes would be other ones."""
    potential = toy()
    graph, targets = batch(potential, ethanol(3))
    weights = [one for one in potential.encoder.parameters() if one.requires_grad]

    def slopes(detach: bool) -> torch.Tensor:
        said = potential(graph, features=True, create_graph=True)
        assert said.features is not None
        if detach:
            said = dataclasses.replace(said, features=said.features.detach())
        term = SelfSupervised(TaipOptions(types=0.0, pseudo_forces=0.0))
        loss = term(StepState(potential), graph, targets, said)[0]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return torch.cat([one.flatten() for one in found if one is not None])

    whole, part = slopes(False), slopes(True)
    assert whole.shape != part.shape or not torch.allclose(whole, part)


def test_heads_begin_from_the_seed_and_know_whether_frames_are_periodic(tmp_path, monkeypatch):
    seen = []
    real = arms.attach
    monkeypatch.setattr(arms, "attach", lambda *given, **how: seen.append(how) or real(*given, **how))
    monkeypatch.setattr(arms, "train", lambda *_, **__: type("Result", (), {"state": "stopped"}))
    for seed, frames in ((0, FRAMES), (3, samples.load("ice_ih"))):
        given = (make, frames[:5], frames[5:8], SETTINGS, TaipOptions())
        assert train_arm("taip", seed, *given, folder=tmp_path / str(seed)) is None
    assert [how["seed"] for how in seen] == [0, 3]
    assert [how["periodic"] for how in seen] == [False, True]


# ---- steps, figures, published settings


def test_a_step_of_several_structures_is_along_the_mean_of_their_slopes():
    adapter = Adapter(toy(), AdaptSettings(rate=1e-3))
    graph, _ = batch(adapter.potential, ethanol(3))
    together, _ = adapter.gradient(graph, range(3))
    alone = [adapter.gradient(batch(adapter.potential, ethanol(3), [k])[0], [k])[0] for k in range(3)]
    for whole, *parts in zip(together, *alone, strict=True):
        assert torch.allclose(whole, torch.stack(parts).mean(0), atol=1e-9)


def test_steps_are_chosen_where_validation_frames_are_best_each_quantity_and_column_for_itself(monkeypatch):
    frames = FRAMES.select(range(30))
    validation, test = frames[15:20], frames[20:]
    rates = (1e-5, 1e-3)

    def fake(potential, some, settings, given):
        """On validation frames energies like the short step and forces the long one; on test frames the reverse."""
        best = {"energy": rates[0], "forces": rates[1]}
        if some.hash != validation.hash:
            best = {"energy": rates[1], "forces": rates[0]}
        return {rate: {kind: np.full(len(some), 1.0 if best[kind] == rate else 2.0) for kind in best}
                for rate in (0.0, *given)}  # fmt: skip

    monkeypatch.setattr(measuring, "scan", fake)
    trained = {name: Arm(name, 0, make(0), 1.0, 3, 1) for name in ("baseline", "noise")}
    taip = Arm("taip", 0, attach(make(0), TaipOptions(), periodic=False, seed=0), 1.0, 3, 1)
    found = measuring.measure({**trained, "taip": taip}, validation, {"test": test}, AdaptSettings(), rates=rates,
                              repeats=2, draws=2)  # fmt: skip
    assert {"adapted", "random", "only_noise", "only_types", "only_pseudo_forces"} == set(found.rates)
    for column, chosen in found.rates.items():
        assert chosen == {"energy": rates[0], "forces": rates[1]}, column
    assert np.array_equal(found.errors["test"]["adapted"]["energy"], np.full(10, 2.0)), (
        "what validation chose, not best"
    )


def test_a_recognised_level_is_the_one_that_was_drawn():
    class Head:
        def pooled(self, features, system, n_atoms):
            return features

        def __call__(self, clean, noisy):
            return torch.eye(4)[:3] * 5

    heads = type("Heads", (), {"noise": Head()})
    level = torch.tensor([0, 2, 2])
    graph = type("Graph", (), {"system": None, "n_atoms": None})
    loss, hit = tasks._noise(heads, graph, torch.zeros(3), torch.zeros(3), level)  # type: ignore[arg-type]
    assert hit.tolist() == [True, False, True]
    assert float(loss[0]) < float(loss[1])


def test_published_settings_halve_the_rate_every_150_epochs():
    found = published(dataclasses.replace(SETTINGS, max_epochs=7))
    assert (found.schedule, found.schedule_factor, found.schedule_epochs) == ("step", 0.5, 150)
    assert (found.learning_rate, found.batch_size, found.loss, found.forces_weight) == (1e-4, 2, "l1", 1000.0)
    assert (found.weight_decay, found.clip_norm, found.ema_decay, found.max_epochs) == (0.0, None, None, 7)
