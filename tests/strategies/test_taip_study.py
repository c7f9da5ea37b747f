"""The evaluation of TAIP: a planted effect is found, a random step is none, a study goes on where it stood."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from taip_toys import batch, ethanol, toy

from mlipkit.data import FrameSet
from mlipkit.errors import DataError, LabelError, MissingPackageError, ModelError, RunError, SpecError
from mlipkit.models import predict
from mlipkit.strategies.taip import (
    Adapter,
    AdaptSettings,
    NoisyLabels,
    SelfSupervised,
    TaipOptions,
    predict_adapted,
)
from mlipkit.strategies.taip.arms import Arm, arm_names, train_arm
from mlipkit.strategies.taip.frames import keys_of, losses_of
from mlipkit.strategies.taip.kept import recall
from mlipkit.strategies.taip.measuring import (
    SMALLEST,
    Measured,
    best_rate,
    best_rates,
    frame_errors,
    groups_of,
    measure,
)
from mlipkit.strategies.taip.study import NAME, Study, evaluate_taip, judged
from mlipkit.strategies.taip.verdicts import answer, first_sentence, verdicts
from mlipkit.training import EnergyForcesStress, TrainSettings

RATE = 1e-2
ALONE = TaipOptions(noise=0.0, pseudo_forces=0.0, type_rate=0.99)
"""Types alone, all of them hidden: structures of one molecule then ask for nearly the same step."""


def planted(seeds=(0, 1, 2), direction="gradient"):
    """Encoders shifted from the one that made the labels, by the step that their own tasks will take back.

    Labels are those of weights θ*. With heads of seed s the shifted weights solve θ_s = θ* + η ḡ_s(θ_s), ḡ the mean
    gradient over the frames: one step from θ_s leads to θ* + η (ḡ - g), as close as a frame's gradient is to the mean.
    """
    truth, frames = toy("schnet", ALONE, seed=5), ethanol(16)
    labelled = predict(truth, frames)
    settings, measured = AdaptSettings(RATE, "sgd", direction=direction), []
    graph, _ = batch(truth, frames)
    start = [p.detach().clone() for p in truth.encoder.parameters()]
    for seed in seeds:
        shifted = toy("schnet", ALONE, seed=100 + seed)
        shifted.encoder.load_state_dict(truth.encoder.state_dict())
        shifted.head.load_state_dict(truth.head.state_dict())
        adapter = Adapter(shifted, settings)
        for _ in range(6):
            slopes, _ = adapter.gradient(graph, keys_of(frames))
            with torch.no_grad():
                for parameter, begin, slope in zip(adapter.parameters, start, slopes, strict=True):
                    parameter.copy_(begin + RATE * slope)
        arms = {name: Arm(name, seed, copy.deepcopy(shifted), 1.0, 1, 0) for name in ("baseline", "noise", "taip")}
        measured.append(
            measure(arms, labelled.select(range(4)), {"shifted": labelled}, settings, rates=(RATE,), repeats=2, draws=2)
        )
    return measured


def test_a_planted_shift_is_found_and_a_random_step_is_none():
    measured = planted()
    for one in measured:
        errors = {name: columns["forces"].mean() for name, columns in one.errors["shifted"].items()}
        assert errors["adapted"] < 0.5 * errors["off"]
        assert errors["random"] > 0.9 * errors["off"]
    for quantity in ("forces", "energy"):
        found = answer(measured, "shifted", quantity, "adaptation")
        assert found.answer == "works", found.sentence
        assert found.upper < 1
        assert answer(measured, "shifted", quantity, "placebo").answer != "works"
    controls = {"adaptation": {"baseline", "noise", "off", "random"}, "joint_training": {"baseline", "noise"},
                "placebo": {"off"}}  # fmt: skip
    for question, names in controls.items():
        assert set(answer(measured, "shifted", "forces", question).against) == names
    record = judged(Study(ALONE), measured, ["shifted"])
    assert record["sentence"].startswith("Adaptation: Works")
    assert "Training with the tasks: " in record["sentence"]


def test_the_same_pipeline_on_a_random_step_reports_nothing():
    """Against no step alone: the control with random signs is here, to the bit, the cure itself."""
    measured = planted(direction="random")
    for quantity in ("forces", "energy"):
        for one in measured:
            adapted, random, off = (one.errors["shifted"][name][quantity] for name in ("adapted", "random", "off"))
            assert np.array_equal(adapted, random)
            assert random.mean() > 0.9 * off.mean()
        assert answer(measured, "shifted", quantity, "placebo").answer != "works"


def test_errors_that_are_all_zero_judge_nothing():
    """Forces of lone atoms: every arm predicts them exactly, and a ratio of floors is no answer."""
    rng, names = np.random.default_rng(0), ("baseline", "noise", "off", "adapted", "random")
    measured, four = [], {"atoms": [0, 1, 2, 3]}
    for seed in range(3):
        errors = {name: {"forces": np.full(4, SMALLEST), "energy": rng.random(4)} for name in names}
        measured.append(Measured(seed, {}, {}, {"atoms": errors}, four, four))
    found = verdicts(measured)
    assert {one["quantity"] for one in found} == {"energy"}
    assert "energy error" in first_sentence(found, ["atoms"])
    measured[0].errors["atoms"]["noise"]["forces"][2] = 1e-6
    assert answer(measured, "atoms", "forces", "adaptation") is not None


def test_every_column_is_of_its_own_potential_and_step():
    arms = {
        name: Arm(name, 7, toy("schnet", options, seed=seed), 1.0, 1, 0)
        for seed, (name, options) in enumerate(
            {"baseline": None, "noise": None, "taip": None, "without_types": TaipOptions(types=0.0)}.items()
        )
    }
    taip, validation, hot = arms["taip"].potential, ethanol(3), ethanol(5, "ethanol_600K")
    settings = AdaptSettings(optimiser="sgd", seed=3)
    found = measure(
        arms, validation, {"hot": hot}, settings, rates=(1e-3, 3e-3), repeats=2, draws=3, train_frames=ethanol(4)
    )  # fmt: skip
    scanned = {
        rate: np.abs(np.asarray(predict_adapted(taip, validation, replace(settings, rate=rate)).frames.forces)
                     - np.asarray(validation.forces)).mean()
        for rate in (0.0, 1e-3, 3e-3)
    }  # fmt: skip
    assert found.scan["forces"] == pytest.approx(scanned)
    assert found.rates["adapted"]["forces"] == min((1e-3, 3e-3), key=scanned.__getitem__)
    assert found.scan_tests["hot"]["forces"][0.0] != pytest.approx(found.scan["forces"][0.0])
    alone = {"noise": 0.0, "types": 0.0, "pseudo_forces": 0.0}
    adapted = predict_adapted(taip, hot, replace(settings, rate=found.rates["adapted"]["forces"]))

    def at(column, quantity, potential=taip, **more):
        """Adapted by the step that this column has for the quantity."""
        how = replace(settings, rate=found.rates[column][quantity], **more)
        return predict_adapted(potential, hot, how).frames

    expected = {
        "baseline": predict(arms["baseline"].potential, hot), "noise": predict(arms["noise"].potential, hot),
        "off": predict(taip, hot), "adapted": partial(at, "adapted"),
        "random": partial(at, "random", direction="random"),
        **{f"only_{task}": partial(at, f"only_{task}", **{**alone, task: 1.0}) for task in alone},
        "without_types": partial(at, "without_types", potential=arms["without_types"].potential),
    }  # fmt: skip
    assert found.rates["random"] == found.rates["adapted"]
    assert set(found.errors["hot"]) == set(expected)
    for column, given in expected.items():
        for quantity in ("forces", "energy"):
            values = frame_errors(given(quantity=quantity) if callable(given) else given, hot)[quantity]
            assert np.allclose(found.errors["hot"][column][quantity], values, rtol=1e-10), (column, quantity)
    means = [found.errors["hot"][column]["forces"].mean() for column in expected]
    assert len({round(mean, 9) for mean in means}) == len(expected), "no two columns are alike"
    losses = losses_of(taip, hot, settings, 3)
    for name, loss in {"one draw": losses["all"][0], **{k: v.mean(0) for k, v in losses.items()}}.items():
        rank = np.argsort(np.argsort(loss)), np.argsort(np.argsort(found.errors["hot"]["off"]["forces"]))
        assert found.correlation["hot"][name] == pytest.approx(np.corrcoef(*rank)[0, 1])
    assert found.groups["hot"] == groups_of(hot).tolist()
    assert found.repeat["hot"] > 0
    frames_of_atoms = adapted.features.reshape(5, 9, -1)
    assert np.allclose(found.features["all"]["hot"]["adapted"], frames_of_atoms.mean(1), atol=1e-5)
    hydrogens = np.asarray(hot.numbers)[:9] == 1
    assert set(found.features) == {"all", "H", "C", "O"}
    assert np.allclose(found.features["H"]["hot"]["adapted"], frames_of_atoms[:, hydrogens].mean(1), atol=1e-5)
    for column, arm in (("baseline", "baseline"), ("off", "taip")):
        graph, _ = batch(arms[arm].potential, hot)
        of_atoms = arms[arm].potential(graph, features=True).features.detach().numpy()
        assert np.allclose(found.features["all"]["hot"][column], of_atoms.reshape(5, 9, -1).mean(1), atol=1e-5)


def test_every_arm_is_trained_on_what_it_is_named_for(tmp_path, monkeypatch):
    seen = {}

    def trained(potential, frames, validation, settings, *, folder, terms, **_):
        seen[folder.name] = (sorted(potential.auxiliary), settings, terms)
        return SimpleNamespace(state="stopped")

    monkeypatch.setattr("mlipkit.strategies.taip.arms.train", trained)
    made = []

    def make(seed):
        made.append(seed)
        potential = toy("schnet", seed=seed)
        potential.auxiliary.clear()
        return potential

    options = TaipOptions(gamma=2.0)
    for name in arm_names(options, True):
        found = train_arm(
            name, 5, make, ethanol(4), ethanol(2), TrainSettings(), options, folder=tmp_path / name, noise_sigma=0.02
        )
        assert found is None, "stopped"
    assert set(made) == {5}
    heads = {"noise": "taip_noise", "types": "taip_types", "pseudo_forces": "taip_forces"}
    for name, (auxiliary, settings, terms) in seen.items():
        assert (settings.shuffle_seed, settings.noise_seed) == (5, 5)
        assert terms[0].name == EnergyForcesStress.name
        if name == "baseline":
            assert len(terms) == 1
            assert not auxiliary
        elif name == "noise":
            assert not auxiliary
            assert isinstance(terms[1], NoisyLabels)
            assert (terms[1].sigma, terms[1].loss) == (0.02, terms[0])
        else:
            gone = name.removeprefix("without_")
            assert auxiliary == sorted(head for task, head in heads.items() if task != gone)
            assert isinstance(terms[1], SelfSupervised)
            assert terms[1].options == (replace(options, **{gone: 0.0}) if gone in heads else options)


def test_errors_are_means_over_a_frames_components():
    frames = ethanol(3)
    moved = frames.with_labels(energy=np.asarray(frames.energy) + 0.9, forces=np.asarray(frames.forces) + 0.25)
    found = frame_errors(moved, frames)
    assert np.allclose(found["forces"], 0.25)
    assert np.allclose(found["energy"], 0.1)
    assert (frame_errors(frames, frames)["energy"] > 0).all()
    assert set(frame_errors(moved, frames.with_labels(forces=np.nan))) == {"energy"}


def test_the_step_is_chosen_among_steps():
    assert best_rate({0.0: 0.1, 1e-5: 0.3, 1e-4: 0.2}) == 1e-4
    assert best_rate({0.0: 0.1, 1e-5: 0.3, 1e-4: float("nan")}) == 1e-5
    # Each quantity has its own; one without a label takes that of the other.
    scans = {"forces": {0.0: 1.0, 1e-5: 2.0, 1e-4: 3.0}, "energy": {0.0: 1.0, 1e-5: 3.0, 1e-4: 2.0}}
    assert best_rates(scans) == {"forces": 1e-5, "energy": 1e-4}
    assert best_rates({"energy": scans["energy"]}) == {"forces": 1e-4, "energy": 1e-4}


def test_arms():
    assert arm_names(TaipOptions(), False) == ["baseline", "noise", "taip"]
    assert arm_names(TaipOptions(noise=0), True)[3:] == ["without_types", "without_pseudo_forces"]
    assert arm_names(ALONE, True) == ["baseline", "noise", "taip"]


def small(folder, sink=lambda event: None, control=lambda: "run", hot=10, rates=(1e-5, 1e-3), **more):
    frames = ethanol(60)
    study = Study(rates=rates, seeds=(0, 1), draws=2, **more)

    def make(seed):
        potential = toy("schnet", seed=seed).float()
        potential.auxiliary.clear()
        return potential

    return evaluate_taip(
        study, make, TrainSettings(batch_size=8, max_epochs=1, ema_decay=None), frames.select(range(32)),
        frames.select(range(32, 40)), {"cold": frames.select(range(40, 50)), "hot": ethanol(hot, "ethanol_600K")},
        shifted=["hot"], folder=folder, sink=sink, control=control,
    )  # fmt: skip


def test_a_study_measures_every_control_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    record = small(tmp_path, ablate=True)
    assert json.loads((tmp_path / NAME).read_text()) == json.loads(json.dumps(record))
    one = recall(tmp_path / "seed_0")
    assert set(one.errors) == {"cold", "hot"}
    assert set(one.errors["hot"]) == {
        "baseline", "noise", "off", "adapted", "random", "only_noise", "only_types", "only_pseudo_forces",
        "without_noise", "without_types", "without_pseudo_forces",
    }  # fmt: skip
    assert one.errors["hot"]["off"]["forces"].shape == (10,)
    assert set(one.scan) == {"forces", "energy"}
    assert set(one.scan["energy"]) == {0.0, 1e-5, 1e-3}
    assert one.rates["adapted"]["energy"] in (1e-5, 1e-3)
    assert {row["question"] for row in record["verdicts"]} == {"adaptation", "joint_training", "placebo"}
    assert {row["column"] for row in record["ratios"]} >= {"off", "adapted", "random", "noise"}
    assert record["sentence"].startswith("Adaptation: ")
    assert len(record["seeds"]) == 2
    # Nothing is computed twice.
    monkeypatch.setattr("mlipkit.strategies.taip.study.train_arm", lambda *a, **k: pytest.fail("trained again"))
    again = small(tmp_path, ablate=True)
    assert again["verdicts"] == record["verdicts"]


@pytest.mark.parametrize("more", [{}, {"ablate": True, "features": True, "repeats": 4}])
def test_adapted_predictions_are_known_beforehand(tmp_path, monkeypatch, more):
    from mlipkit.strategies.taip import measuring

    done, predict = [], measuring.predict_adapted

    def counted(potential, frames, settings):
        done.append(len(frames))
        return predict(potential, frames, settings)

    monkeypatch.setattr(measuring, "predict_adapted", counted)
    small(tmp_path, **more)
    study = Study(rates=(1e-5, 1e-3), seeds=(0, 1), **more)
    # At most: a column whose steps for forces and energies are one is predicted once.
    most, columns = study.adapted_predictions(8, [10, 10], 32), 7 if study.ablate else 4
    assert most - 2 * columns * 20 <= sum(done) <= most


def test_one_frame_and_one_seed_are_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("mlipkit.strategies.taip.study.train_arm", lambda *a, **k: pytest.fail("trained"))
    frames = ethanol(12)
    with pytest.raises(DataError, match="say nothing of chance"):
        evaluate_taip(
            Study(seeds=(0,)), lambda seed: toy(), TrainSettings(), frames.select(range(6)),
            frames.select(range(6, 11)), {"one": frames.select([11])},
            shifted=["one"], folder=tmp_path,
        )  # fmt: skip


def learned():
    """Training and validation frames."""
    frames = ethanol(15)
    return frames.select(range(12)), frames.select(range(12, 15))


def holed(n: int = 4, **labels):
    """Hot frames of which the first has none of these labels."""
    frames = ethanol(n, "ethanol_600K")
    energy, forces = np.array(frames.energy), np.array(frames.forces)
    if "energy" in labels:
        energy[0] = np.nan
    if "forces" in labels:
        forces[:9] = np.nan
    return frames.with_labels(energy=energy, forces=forces)


@pytest.mark.parametrize(
    ("tests", "more", "kind", "said"),
    [
        ({"hot": holed(forces=1)}, {}, LabelError, "hot: forces is on 3 of 4 frames"),
        ({"hot": holed(energy=1, forces=1)}, {}, LabelError, "hot: energy is on 3 of 4 frames"),
        ({"hot": ethanol(4, "ethanol_600K"), "iron": "Fe"}, {}, ModelError, "iron: element unknown.*Fe"),
        ({"a/b": ethanol(4)}, {}, SpecError, "a/b"),
        ({"train": ethanol(4)}, {}, SpecError, "train"),
        ({"hot": ethanol(1, "ethanol_600K")}, {"features": True}, DataError, "features"),
        ({"hot": ethanol(4)}, {}, DataError, "hot: 4 of 4 frames are among the training frames"),
        ({"hot": ethanol(15).select([13, 14])}, {}, DataError, "hot: 2 of 2 frames are among the validation frames"),
    ],
)  # fmt: skip
def test_frames_that_cannot_judge_are_refused_before_anything_is_trained(
    tmp_path, monkeypatch, tests, more, kind, said
):
    monkeypatch.setattr("mlipkit.strategies.taip.study.train_arm", lambda *a, **k: pytest.fail("trained"))
    iron = FrameSet.from_atoms([Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]])] * 2)
    tests = {name: iron.with_labels(energy=[0.0, 0.0]) if isinstance(one, str) else one for name, one in tests.items()}
    with pytest.raises(kind, match=said):
        evaluate_taip(
            Study(**more), lambda seed: toy(), TrainSettings(), *learned(), tests, shifted=[*tests],
            folder=tmp_path,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_validation_frames_that_cannot_choose_are_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr("mlipkit.strategies.taip.study.train_arm", lambda *a, **k: pytest.fail("trained"))
    train, validation = learned()
    for wrong, kind in (
        (holed(forces=1), LabelError),
        (validation.with_labels(energy=np.nan, forces=np.nan), DataError),
        (validation.select([]), DataError),
        (train.select(range(3)), DataError),
    ):
        with pytest.raises(kind, match="validation"):
            evaluate_taip(
                Study(), lambda seed: toy(), TrainSettings(), train, wrong, {"hot": ethanol(4, "ethanol_600K")},
                shifted=["hot"], folder=tmp_path,
            )  # fmt: skip


def test_a_missing_package_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("mlipkit.strategies.taip.study.train_arm", lambda *a, **k: pytest.fail("trained"))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingPackageError, match="features"):
        evaluate_taip(
            Study(features=True), lambda seed: toy(), TrainSettings(), *learned(), {"hot": ethanol(4, "ethanol_600K")},
            shifted=["hot"], folder=tmp_path,
        )  # fmt: skip


def test_a_folder_goes_on_with_its_own_evaluation_alone(tmp_path, monkeypatch):
    small(tmp_path)
    monkeypatch.setattr("mlipkit.strategies.taip.study.train_arm", lambda *a, **k: pytest.fail("trained again"))
    for more in (
        {"options": TaipOptions(gamma=2.0)}, {"adaptation": AdaptSettings(optimiser="sgd")}, {"ablate": True},
        {"repeats": 2}, {"features": True}, {"noise_sigmas": (0.01,)},
    ):  # fmt: skip
        with pytest.raises(RunError, match=f"another evaluation.*{next(iter(more))}"):
            small(tmp_path, **more)
    # What judges alone may change.
    assert small(tmp_path, effect=0.2)["verdicts"][0]["effect"] == 0.2


def test_what_is_no_number_is_none_in_the_record(tmp_path):
    """One frame has no rank correlation, and a step of any size no error: the files stay JSON."""
    from mlipkit.runs.taip_report import _scan, cost_of

    def strict(path):
        return json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in {path.name}"))

    small(tmp_path, hot=1, rates=(1e-5, 1e30))
    record = strict(tmp_path / NAME)
    seed = record["seeds"][0]
    assert seed["correlation"]["hot"]["all"] is None
    assert isinstance(seed["correlation"]["cold"]["all"], float)
    assert seed["rates"]["adapted"] == {"forces": 1e-5, "energy": 1e-5}
    assert seed["scan"]["forces"]["1e+30"] is None
    strict(tmp_path / "seed_0" / "measured.json")
    again = recall(tmp_path / "seed_0")
    assert np.isnan([again.correlation["hot"]["all"], again.scan["forces"][1e30]]).all()
    rows, head = cost_of(record["seeds"])
    told = {row[1]: row[head.index("rank correlation of loss and error")] for row in rows}
    assert told["hot"] == "–"
    assert told["cold"] != "–"
    assert "–" in _scan(record["seeds"])[0][0]


def test_frames_of_one_simulation_are_no_independent_witnesses():
    """Without an effect, but with simulations that are alike in themselves: the interval must not exclude 1."""
    rng, excluded = np.random.default_rng(0), {True: 0, False: 0}
    runs = np.repeat(np.arange(4), 20)
    for known in (True, False):
        for _ in range(30):
            seeds = np.exp(0.1 * rng.normal(size=(3, 80)))
            shared = np.exp(0.05 * rng.normal(size=4))[runs]
            measured = [
                Measured(
                    seed, {}, {}, {"hot": {
                        **{name: {"forces": off} for name in ("baseline", "noise", "off", "random")},
                        "adapted": {"forces": off * shared * np.exp(0.01 * rng.normal(size=80))},
                    }}, {"hot": list(range(80))}, {"hot": (runs if known else -1 - np.arange(80)).tolist()},
                )
                for seed, off in enumerate(seeds)
            ]  # fmt: skip
            found = answer(measured, "hot", "forces", "adaptation").against["off"]
            excluded[known] += found.lower > 1 or found.upper < 1
    assert excluded[False] > 15
    assert excluded[True] <= 5


def test_the_noise_of_the_control_is_chosen_on_validation_frames(tmp_path, monkeypatch):
    found = small(tmp_path, noise_sigmas=(0.001, 0.5))
    assert [one["noise_sigma"] for one in found["seeds"]] == [0.001, 0.001]
    assert {path.name for path in (tmp_path / "seed_0").iterdir() if path.is_dir()} == {
        "baseline", "noise_0.001", "noise_0.5", "taip",
    }  # fmt: skip


def test_steps_that_break_every_prediction_are_said(tmp_path):
    with pytest.raises(DataError, match=r"validation.*adaptation step.*1e\+30"):
        small(tmp_path, rates=(1e30,))


def test_maps_of_features_are_of_the_frames_that_were_compared(tmp_path):
    from mlipkit.strategies.taip.maps import MAPS, feature_maps, keep_maps

    rng = np.random.default_rng(0)
    train, near, far = rng.normal(size=(40, 6)), rng.normal(size=(12, 6)), 8 + rng.normal(size=(12, 6))
    features = {"train": {"off": train}, "hot": {"off": far}, "cold": {"off": near, "baseline": near}}
    found = feature_maps(features, most=30)
    assert set(found) == {"hot", "cold"}
    assert set(found["cold"]) == {"off"}, "no training features to set the axes"
    ours, theirs = found["hot"]["off"]
    assert (ours.shape, theirs.shape) == ((30, 2), (12, 2))

    def apart(pair):
        return np.linalg.norm(pair[0].mean(0) - pair[1].mean(0)) / pair[0].std()

    assert apart(found["hot"]["off"]) > 2 * apart(found["cold"]["off"])
    again = feature_maps(features, most=30)
    assert np.array_equal(again["hot"]["off"][0], ours)
    keep_maps(found, tmp_path)
    with np.load(tmp_path / MAPS, allow_pickle=False) as kept:
        assert set(kept.files) == {"train/hot/off", "test/hot/off", "train/cold/off", "test/cold/off"}
        assert np.array_equal(kept["test/hot/off"], theirs)
    assert feature_maps({}) == {}


def test_a_stopped_study_says_so(tmp_path):
    assert small(tmp_path, control=lambda: "stop") is None
    assert not (tmp_path / NAME).exists()


def test_wrong_studies_are_refused(tmp_path):
    for wrong in ({"seeds": ()}, {"seeds": (1, 1)}, {"rates": (0.0,)}, {"rates": (1e-5, 1e-5)}, {"noise_sigmas": ()}):
        with pytest.raises(SpecError):
            Study(**wrong)
    frames = ethanol(10, "ethanol_600K")
    for tests in ({}, {"bare": frames.with_labels(energy=np.nan, forces=np.nan)}):
        with pytest.raises(DataError):
            evaluate_taip(Study(), lambda seed: toy(), TrainSettings(), *learned(), tests, shifted=[], folder=tmp_path)
