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
                work.add((len(curriculum.n_structures) * each, spec.optimiser.learning_rate))
                assert spec.batch_size == (2 if arm == "dt_steps" else 8)
        assert len(work) == 1
        assert study.seeds == [0, 1, 2]


def test_entries_of_arms_go_over_those_of_the_template(plans):
    found = plans.merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}}, {"d": [2]})
    assert found == {"a": {"b": 1, "c": 3}, "d": [2]}


def test_the_page_has_a_place_for_every_table_and_a_name_for_every_study_and_arm(plans):
    import dynamic_page

    page = dynamic_page.PAGE.read_text(encoding="utf-8")
    plan = yaml.safe_load((STUDIES / "dynamic_small.yaml").read_text())
    assert list(dynamic_page.STUDIES) == list(plan["studies"])
    assert set(dynamic_page.ARMS) == {"first_mepa", *plan["arms"]}
    verdict = {"ratio": 1.2, "lower": 0.9, "upper": 1.5, "n_seeds": 3, "n_units": 32, "answer": "undecided"}
    row = {"name": "dt", "mepa": 0.5, "spread": 0.1, "equal_frames": 0.2, "diverged": 1, "rollouts": 9,
           "per_element": {"H": 0.25}}  # fmt: skip
    found = {"verdicts": {"roll-outs": verdict}, "arms": [row], "error_curves": {"dt": [0.1] * 20}}
    text = dynamic_page.filled(page, dynamic_page.places({"ec_aimd": {"encoders": {"painn": found}}}), "page")
    assert "| liquid EC, DFT | painn | roll-outs | 1.20 | 0.90 to 1.50 | 3, 32 | undecided |" in text
    assert "| roll-outs | 0.500 ± 0.100 | 0.200 | 1 of 9 | H 0.250 |" in text
    assert "| 0.100 | 0.100 | 0.100 |  |  |  |" in text, "steps that were not walked stay empty"
