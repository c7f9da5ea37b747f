"""The plans of the dynamic-training studies: every training is a specification, arms do the same work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

STUDIES = Path(__file__).resolve().parents[1] / "benchmarks" / "studies"


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(STUDIES))
    monkeypatch.setenv("MLIPKIT_DATA", "/data")
    monkeypatch.delitem(sys.modules, "dynamic", raising=False)
    import dynamic

    yield dynamic
    sys.modules.pop("dynamic", None)


@pytest.mark.parametrize("plan", ["dynamic_small.yaml", "dynamic_paper.yaml"])
def test_every_training_is_a_specification_and_begins_after_its_first_one(plans, plan):
    for name in yaml.safe_load((STUDIES / plan).read_text())["studies"]:
        study = plans.Study(plan, name)
        begun = set()
        for encoder, arm, seed in study.trainings():
            spec = study.spec(encoder, arm, seed)
            assert spec.seed == seed
            folder = study.folder(encoder, arm, seed)
            if arm.startswith("first"):
                assert spec.potential is None
                assert spec.model.encoder == encoder
                assert spec.curriculum.n_structures == [1]
            else:
                assert spec.potential is not None
                assert Path(spec.potential).parents[1] in begun, "it goes on from a training before it"
            begun.add(folder)
        for cure, controls in study.verdicts.values():
            assert {cure, *controls} <= {*study.arms, *yaml.safe_load((STUDIES / plan).read_text())["arms"]}


def test_small_arms_do_the_same_work_with_the_same_rates(plans):
    for name in yaml.safe_load((STUDIES / "dynamic_small.yaml").read_text())["studies"]:
        study = plans.Study("dynamic_small.yaml", name)
        work = set()
        for encoder in study.encoders:
            for arm in study.arms:
                spec = study.spec(encoder, arm, 0)
                curriculum = spec.curriculum
                each = (curriculum.stage_epochs or 0) * (curriculum.evaluations_per_epoch or 0)
                work.add((len(curriculum.n_structures) * each, spec.optimiser.learning_rate, spec.batch_size))
        assert len(work) == 1
        assert study.seeds == [0, 1, 2]


def test_entries_of_arms_go_over_those_of_the_template(plans):
    found = plans.merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}}, {"d": [2]})
    assert found == {"a": {"b": 1, "c": 3}, "d": [2]}
