"""TAIP as runs: tasks in a training, adaptation in a simulation, the evaluation as one specification."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import mlipkit as mk
from mlipkit.data import samples
from mlipkit.data.series import Series
from mlipkit.errors import ModelError, SpecError
from mlipkit.events import Message
from mlipkit.runs import parse_spec
from mlipkit.runs.build import execute
from mlipkit.runs.building_forces import build_forces
from mlipkit.runs.building_taip import judging_frames, run_taip
from mlipkit.runs.building_train import split_frames
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.run import Run
from mlipkit.strategies.taip import AdaptSettings, heads_of, loss_threshold
from mlipkit.strategies.taip.study import NAME

MODEL = {"encoder": "schnet", "features": 16, "layers": 1, "cutoff": 4.0}
QUICK = {"data": "sample:ethanol_300K@:60", "model": MODEL, "max_epochs": 2, "device": "cpu"}


def work(spec, folder):
    """Do it in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    files = RunFolder(folder)
    files.spec.write_text(spec.to_yaml())
    return execute(spec, files, folder.parent, lambda event: None, lambda: "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taip") / "train"
    spec = mk.TrainSpec(**QUICK, taip={"enabled": True, "sigma_max": 1.0, "levels": 5})
    assert work(spec, folder).state == "completed"
    return folder


def test_specifications_are_their_yaml_and_their_code():
    for spec in (
        mk.TrainSpec(**QUICK, taip={"enabled": True, "gamma": 2.0}),
        mk.TaipSpec(**QUICK, shifted=["sample:ethanol_600K@:9"], adaptation={"rates": [1e-5]}),
        mk.MDSpec(adaptation={"strategy": "save_every_k", "every": 10}),
    ):
        assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
        assert eval(spec.code().partition("mk.launch(")[2].rpartition(")\nrun.wait")[0], {"mk": mk}) == spec
    assert mk.TaipSpec(**QUICK).default_name == "taip_schnet"
    # A block that does not say so is on, as no block is.
    for block in ({}, {"sigma_max": 1.0}, mk.runs.TasksSpec(enabled=True, sigma_max=1.0)):
        asked = mk.TaipSpec(**QUICK, taip=block).taip
        assert (asked.enabled, asked.sigma_max) == (True, 1.0 if block else 10.0)
    assert mk.TaipSpec(**QUICK, adaptation={"rates": "1e-5, 1e-4"}).adaptation.rates == [1e-5, 1e-4]


def test_the_evaluation_trains_by_the_published_loss():
    """L1 of total energies to forces as 1 to 1000, no clipping; a part of it can be said alone."""
    from mlipkit.runs.building_taip import as_training
    from mlipkit.runs.building_train import settings_of
    from mlipkit.strategies.taip import published

    for fields, energy in (({}, 1.0), ({"loss": {"energy": 0.0}}, 0.0)):
        spec = mk.TaipSpec(**QUICK, **fields)
        for one in (spec, parse_spec(yaml.safe_load(spec.to_yaml()))):
            made = settings_of(as_training(one).changed(seed=3))
            said = published(made)
            assert made.energy_weight == energy
            for name in ("loss", "forces_weight", "energy_unit", "clip_norm"):
                assert getattr(made, name) == getattr(said, name), name


@pytest.mark.parametrize(
    ("cls", "fields", "said"),
    [
        ("TrainSpec", {"data": "x", "taip": {"gamma": 2.0}}, "no effect unless enabled"),
        ("TrainSpec", {"data": "x", "taip": {"enabled": True, "noise": 0, "types": 0, "pseudo_forces": 0}}, "weight"),
        (
            "TrainSpec", {"data": "x", "taip": {"enabled": True, "mf_mode": "authors", "decoder": "equivariant"}},
            "effect",
        ),
        ("TrainSpec", {"data": "x", "taip": {"enabled": True, "sigma_min": 20}}, "larger"),
        ("TaipSpec", {"data": "x", "taip": {"enabled": False}}, "needs them"),
        ("TaipSpec", {"data": "x", "taip": {"enabled": False, "gamma": 2.0}}, "no effect unless enabled"),
        ("TaipSpec", {"data": "x", "seeds": [1, 1]}, "seeds: each once"),
        ("TaipSpec", {"data": "x", "adaptation": {"rates": "1e-5, 1e-05"}}, "rates.*each once"),
        ("TaipSpec", {"data": "x", "shifted": ["a.xyz", "b.xyz", "a.xyz"]}, "shifted: each once"),
        ("TaipSpec", {"data": "x", "test": ["a.xyz", "a.xyz"]}, "test: each once"),
        ("MDSpec", {"adaptation": {"rate": 1e-3}}, "no effect"),
        ("MDSpec", {"adaptation": {"strategy": "threshold", "threshold": float("nan")}}, "threshold.*number"),
        ("MDSpec", {"adaptation": {"strategy": "nonsaving", "rate": float("inf")}}, "rate.*finite"),
        ("TaipSpec", {"data": "x", "adaptation": {"rates": [float("inf")]}}, "rates.*finite"),
        ("MDSpec", {"adaptation": {"strategy": "nonsaving", "every": 3}}, "no effect"),
        ("MDSpec", {"adaptation": {"strategy": "nonsaving", "optimiser": "adam_kept"}}, "moments"),
    ],
)  # fmt: skip
def test_options_that_cannot_act_are_refused(cls, fields, said):
    with pytest.raises(SpecError, match=said):
        getattr(mk, cls)(**fields)


def test_a_training_with_tasks_saves_their_heads_and_records_each(trained):
    heads = heads_of(mk.load(trained))
    assert heads.noise.levels == 5
    columns = Series(trained / "series" / "training").columns
    assert {"loss_noise", "loss_types", "loss_pseudo_forces", "noise_recognised"} <= set(columns)
    assert "train_loss_types" in Series(trained / "series" / "validation").columns


def test_a_simulation_adapts_and_records_it(trained, tmp_path):
    fields = {"potential": str(trained), "steps": 5, "timestep": 0.1, "device": "cpu", "replicas": 2,
              "checks": {"max_force": False, "temperature": False, "overlap": False}}  # fmt: skip
    energies = {}
    for strategy in ("none", "nonsaving", "save_every"):
        spec = mk.MDSpec(**fields, adaptation={"strategy": strategy} | ({"rate": 1e-3} if strategy != "none" else {}))
        work(spec, tmp_path / strategy)
        place = tmp_path / strategy / "replica_001" / "series"
        energies[strategy] = Series(place / "md").read("potential_energy")["potential_energy"]
        if strategy == "none":
            assert not (place / "adaptation").exists()
            continue
        found = Series(place / "adaptation").read()
        assert found["step"].tolist() == list(range(6))
        assert (found["change"] > 0).all()
        assert (found["drift"] > 0).all() == (strategy == "save_every")
    assert not np.allclose(energies["none"], energies["nonsaving"], atol=1e-6)
    how = {"strategy": "save_every_k", "rate": 2e-4, "optimiser": "sgd", "every": 7, "direction": "random", "seed": 9}
    built = build_forces(mk.MDSpec(**fields, adaptation=how), tmp_path).adaptation
    settings = built.settings
    assert (built.strategy, built.every, built.hold, built.threshold) == ("save_every_k", 7, 1, None)
    assert (settings.rate, settings.optimiser, settings.direction, settings.seed) == (2e-4, "sgd", "random", 9)
    for how in ({"strategy": "threshold", "threshold": 3.5}, {"strategy": "nonsaving", "hold": 4}):
        built = build_forces(mk.MDSpec(**fields, adaptation=how), tmp_path).adaptation
        assert (built.threshold, built.hold) == (how.get("threshold"), how.get("hold", 1))
    with pytest.raises(ModelError, match="without self-supervised tasks"):
        work(mk.MDSpec(steps=1, device="cpu", adaptation={"strategy": "nonsaving"}), tmp_path / "bare")


def test_a_threshold_that_is_left_open_is_that_of_the_validation_frames(trained, tmp_path):
    fields = {"steps": 3, "timestep": 0.1, "device": "cpu", "adaptation": {"strategy": "threshold", "rate": 1e-4}}
    spec, folder, events = mk.MDSpec(**fields, potential=str(trained)), tmp_path / "md", []
    folder.mkdir()
    files = RunFolder(folder)
    files.spec.write_text(spec.to_yaml())
    execute(spec, files, tmp_path, events.append, lambda: "run")
    uids = json.loads((trained / "split.json").read_text())["uids"]["validation"]
    frames = samples.load("ethanol_300K").select_uids(uids)
    expected = loss_threshold(mk.load(trained), frames, AdaptSettings(1e-4))
    assert json.loads((folder / "threshold.json").read_text())["threshold"] == pytest.approx(expected)
    assert Series(folder / "series" / "adaptation").read("threshold")["threshold"] == pytest.approx(expected)
    (said,) = [event.text for event in events if isinstance(event, Message) and "adapts where" in event.text]
    assert f"above {expected:.4g}" in said
    # Resumed, it stays what it was.
    (folder / "threshold.json").write_text(json.dumps({"threshold": 1.5}))
    assert build_forces(spec, tmp_path, folder).adaptation.threshold == 1.5

    # Weights alone tell nothing of validation frames.
    (weights,) = trained.rglob("best*.safetensors")
    (tmp_path / "alone.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(SpecError, match=r"(?s)adaptation.threshold.*training run.*threshold: NUMBER"):
        build_forces(mk.MDSpec(**fields, potential=str(tmp_path / "alone.safetensors")), tmp_path)


def test_the_evaluation_is_one_specification_with_its_verdict_first(tmp_path):
    spec = mk.TaipSpec(
        **QUICK, shifted="sample:ethanol_600K@:12", seeds=[0, 1], adaptation={"rates": [1e-5, 1e-3], "repeats": 2},
        taip={"enabled": True, "sigma_max": 1.0},
    )  # fmt: skip
    expected = mk.runs.estimate(spec)
    assert expected.steps == 2 * 3 * 2 * 5  # seeds, arms, epochs, batches of ten
    found = work(spec, tmp_path / "taip")
    assert found.state == "completed"
    record = json.loads((tmp_path / "taip" / NAME).read_text())
    assert found.reason == record["sentence"] == found.facts["sentence"]
    assert record["sentence"].startswith("Adaptation: ")
    assert record["shifted"] == ["ethanol_600K"]
    # The answer in a line is that of the sentence: of the frames out of distribution.
    asked = [v for v in record["verdicts"] if (v["test"], v["question"]) == ("ethanol_600K", "adaptation")]
    assert record["sentence"].startswith(f"Adaptation: {asked[0]['sentence']}")
    assert found.facts["test"] == "ethanol_600K"
    assert found.facts["answer"] == asked[0]["answer"]
    assert set(found.facts["tests"]) == {"in distribution", "ethanol_600K"}
    run = Run(tmp_path / "taip")
    from mlipkit.runs.taip_report import taip_html

    # Its potentials know their validation frames.
    place = tmp_path / "taip" / "seed_1" / "taip"
    how = mk.MDSpec(potential=str(place), device="cpu", adaptation={"strategy": "threshold", "rate": 1e-4})
    expected = loss_threshold(mk.load(place), split_frames(spec, tmp_path).validation, AdaptSettings(1e-4))
    assert build_forces(how, tmp_path).adaptation.threshold == pytest.approx(expected)

    page = taip_html(run)
    assert page.index("Adaptation: ") < page.index("Errors over those of the baseline") < page.index("random step")
    assert "chosen" in page


def test_energies_of_other_compositions_judge_nothing(tmp_path):
    water = molecule("H2O")
    images = []
    for k in range(3):
        water.positions += 0.01 * k
        images.append(water.copy())
        images[-1].calc = SinglePointCalculator(images[-1], energy=-14.0 - k, forces=np.zeros((3, 3)))
    write(tmp_path / "water.extxyz", images)
    spec = mk.TaipSpec(**QUICK, shifted=[str(tmp_path / "water.extxyz"), "sample:ethanol_600K@:5"])
    events = []
    tests = judging_frames(spec, split_frames(spec, tmp_path), tmp_path, events.append)
    assert tests["water"].has("forces").all()
    assert not tests["water"].has("energy").any()
    assert tests["ethanol_600K"].has("energy").all()
    (said,) = [event.text for event in events if isinstance(event, Message) and "composition" in event.text]
    assert said.startswith("water: 3 of 3 frames have a composition whose energy the training frames do not determine")


def test_the_evaluation_needs_frames_to_judge_by(tmp_path):
    spec = mk.TaipSpec(**QUICK, split={"test": 0.0, "validation": 0.2})
    with pytest.raises(SpecError, match="to judge by"):
        work(spec, tmp_path / "none")


def test_what_was_not_measured_is_said(tmp_path, monkeypatch):
    rows = [{"test": "in distribution", "quantity": name, "question": "adaptation", "answer": "does not"}
            for name in ("forces", "energy")]  # fmt: skip
    record = {
        "ratios": rows,
        "sentence": "",
        "seeds": [{"seed": 0, "rates": {"adapted": {}}, "seconds": {}, "training_s": {}}],
    }
    for kept, answer in ((rows[1:], "does not"), ([], "undecided")):
        monkeypatch.setattr(
            "mlipkit.strategies.taip.study.evaluate_taip", lambda *_, kept=kept, **__: {**record, "verdicts": kept}
        )
        said, files = [], RunFolder(tmp_path)
        found = run_taip(mk.TaipSpec(**QUICK), files, tmp_path, said.append, lambda: "run")
        warned = [
            one.text.partition(": nothing")[0] for one in said if isinstance(one, Message) and one.level == "warning"
        ]
        assert warned == [
            f"in distribution: no arm has an error of {row['quantity']}" for row in rows if row not in kept
        ]
        assert (found.facts["answer"], found.facts["test"]) == (answer, "in distribution")


def test_test_sets_have_names_of_their_own(tmp_path):
    from mlipkit.runs.building_taip import judging_frames, shifted_frames, split_frames

    spec = mk.TaipSpec(**QUICK)
    hot = samples.load("ethanol_600K").select(range(3))
    names = ("a/hot.xyz", "b/hot.xyz", "train.xyz", ".hidden.xyz", "in distribution.xyz", "hot_1.xyz", "set/")
    for name in names[:-1]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, list(hot))
    hot.save(tmp_path / "set")
    found = shifted_frames(spec.changed(shifted=list(names)), tmp_path)
    assert list(found) == ["hot", "hot_2", "train_2", "hidden", "in distribution_2", "hot_1", "set"]
    parts = split_frames(spec, tmp_path)
    tests = judging_frames(spec.changed(shifted=["in distribution.xyz"]), parts, tmp_path)
    assert list(tests) == ["in distribution", "in distribution_2"]


def test_frames_without_a_label_judge_nothing_and_that_is_said(tmp_path):
    from mlipkit.runs.building_taip import judging_frames, split_frames

    hot = samples.load("ethanol_600K").select(range(4))
    energy = np.array(hot.energy)
    energy[1] = np.nan
    write(tmp_path / "hot.xyz", list(hot.with_labels(energy=energy)))
    said = []
    for partial, kept in ((False, 4), (True, 3)):
        spec = mk.TaipSpec(**QUICK, shifted="hot.xyz", allow_partial=partial)
        found = judging_frames(spec, split_frames(spec, tmp_path), tmp_path, said.append)
        assert len(found["hot"]) == kept
    told = [event.text for event in said if isinstance(event, Message)]
    assert any("hot: 1 of 4 frames lack energy or forces and are left out of the evaluation" in text for text in told)


def test_the_strategy_answers_for_itself():
    found = mk.what_applies("sample:ethanol_300K", measure=False)["taip"]
    assert found.state == "ready", found.sentence
    assert parse_spec(found.spec).kind == "taip"


def test_records_of_one_step_for_both_quantities_are_still_read():
    from mlipkit.runs.taip_report import _scan, cost_of, upgraded

    seed = {"seed": 0, "rate": 1e-5, "scan": {"0": 1.0, "1e-05": 0.9}, "scan_tests": {"hot": {"0": 2.0, "1e-05": 1.9}},
            "correlation": {"hot": 0.3}, "repeat": {"hot": 0.01}, "change": {"hot": 1e-3},
            "seconds": {"off": 1.0, "adapted": 8.0}, "training_s": {}}  # fmt: skip
    told = (("hot", "forces"), ("hot", "energy"), ("profile", "energy"))
    verdicts = [{"test": test, "quantity": quantity} for test, quantity in told]
    found = upgraded({"verdicts": verdicts, "seeds": [seed]})["seeds"]
    rows, _ = _scan(found)
    assert rows[0][1:] == ["validation", "forces", "1", "0.9 ← chosen"]
    assert rows[1][2:] == ["forces", "2", "1.9"]
    assert "–" in cost_of(found)[0][0]
