"""Fine-tuning as a run: specification, files, what is said at its end, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mlipkit as mk
from mlipkit.errors import SpecError
from mlipkit.runs import parse_spec
from mlipkit.runs.build import JOBS
from mlipkit.runs.spec import KINDS

QUICK = {
    "potential": "sample:ethanol_50", "data": "sample:ethanol_600K@:40", "max_epochs": 2, "retention": "general",
    "split": {"validation": 8, "test": 8, "by": "random"},
}  # fmt: skip


def test_every_kind_has_a_builder():
    assert set(JOBS) == set(KINDS)


def test_the_specification_is_its_yaml_and_its_code():
    spec = mk.FinetuneSpec(**QUICK, recipe={"mix": "loss10", "weight": 5}, replay="sample:ethanol_300K@:10")
    import yaml

    assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
    assert eval(spec.code().splitlines()[2].removeprefix("run = mk.launch")) == spec
    assert dict(spec.places())["replay"] == "sample:ethanol_300K@:10"
    assert "retention" not in dict(spec.places())
    assert mk.FinetuneSpec(data="x").default_name == "finetune_so3lr"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"recipe": {"mix": "loss10"}}, "go together"),
        ({"replay": "a.xyz"}, "go together"),
        ({"isolated": "a.xyz"}, "go together"),
        ({"recipe": {"weight": 3}}, "weight has no effect"),
        ({"recipe": {"train": "lora", "frozen": ["*embedding*"]}}, "frozen has no effect"),
        ({"recipe": {"lora_rank": 8}}, "lora_rank has no effect"),
        ({"recipe": {"mix": "loss11"}}, "mix"),
        ({"loss": {"huber_delta": 0.2}}, "huber_delta has no effect"),
        ({"loss": {"energy_unit": "total"}}, "energy_unit has no effect"),
    ],
)
def test_what_cannot_act_is_refused(fields, match):
    with pytest.raises(SpecError, match=match):
        mk.FinetuneSpec(data="sample:ethanol_300K", **fields)


def test_one_option_leaves_the_other_defaults_of_fine_tuning():
    for given in ({}, {"clip_norm": 5.0}, {"warmup_steps": 3}):
        optimiser = mk.FinetuneSpec(data="sample:ethanol_300K", optimiser=given).optimiser
        assert (optimiser.learning_rate, optimiser.patience) == (1e-4, 40)
    assert mk.TrainSpec(data="sample:ethanol_300K", optimiser={"clip_norm": 5.0}).optimiser.learning_rate == 1e-3


def test_one_option_leaves_the_other_defaults_of_a_workflow():
    from mlipkit.runs.spec import TuningSpec

    for given in ({}, {"clip_norm": 5.0}):
        tuning = TuningSpec(optimiser=given)
        assert (tuning.optimiser.learning_rate, tuning.optimiser.patience) == (1e-4, None)
        alone = mk.FinetuneSpec(data=".", optimiser=tuning.optimiser)
        assert (alone.optimiser.learning_rate, alone.optimiser.patience) == (1e-4, None)


def test_patterns_may_be_typed_as_one_text():
    spec = mk.FinetuneSpec(data="x", recipe={"frozen": "*embedding*, encoder.messages.0"})
    assert spec.recipe.frozen == ["*embedding*", "encoder.messages.0"]


def test_where_no_general_frame_can_be_made_there_is_no_retention(tmp_path: Path):
    """The default must not refuse a potential of an element that the general frames lack."""
    from mlipkit.events import Message
    from mlipkit.models import ZBLRepulsion
    from mlipkit.runs.building_finetune import retention_frames

    heard = []
    found = retention_frames(mk.FinetuneSpec(data="x"), ZBLRepulsion([22]), tmp_path, heard.append)
    assert found is None
    assert [event.text.split(":")[0] for event in heard if isinstance(event, Message)] == ["No retention column"]


@pytest.mark.full
def test_the_estimate_counts_the_epochs_of_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"mix": "loss10", "steps_per_epoch": 11}
    spec = mk.FinetuneSpec(**QUICK, recipe=recipe, replay="sample:ethanol_300K@:6")
    assert mk.runs.estimate(spec).steps == 22
    assert mk.runs.estimate(mk.FinetuneSpec(**{**QUICK, "max_epochs": 0})).steps == 0


@pytest.mark.full
def test_a_run_says_what_fine_tuning_did_and_its_potential_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = mk.launch(mk.FinetuneSpec(**QUICK, name="tuned")).wait(120)
    assert run.state == "completed", run.reason
    facts = run.facts()
    assert facts["sentence"] in run.reason
    assert set(facts["before"]) == {"untouched", "offset"}
    assert facts["shifts"]["rank"] == 1
    assert facts["frame_gradients"] == 2 * 24
    rows = run.series("validation").read()
    assert len(rows["epoch"]) == 3
    assert rows["retention_forces_mae"][0] < 1e-5
    assert np.isfinite(rows["retention_forces_mae"]).all()
    assert (run.folder / "bond_scan.json").is_file()
    page = run.report().read_text()
    assert "deviation from the original potential" in page
    for words in (
        "Before and after",
        "untouched, energies moved",
        "Energy zero (least squares)",
        "two isolated atoms pulled apart",
    ):
        assert words in page
    assert "encoder.messages.0" in page
    md = mk.launch(mk.MDSpec(potential="runs/tuned", start="sample:ethanol_300K@0", steps=20)).wait(120)
    assert md.state in ("completed", "failed"), md.reason
