"""Arms side by side: equal terms are enforced, controls stand beside, the verdict is that of judge_cure."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from workflow_toys import TINY, toys

from mlipkit.errors import RunError, SpecError
from mlipkit.strategies.workflows import Evaluation, compare_arms, dry_run, plan, run_workflow
from mlipkit.strategies.workflows.evaluating import Evaluated

SMALL = dataclasses.replace(TINY, runs=2, evaluation=Evaluation(independent=4, self_md="last", frames=3))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root, done = tmp_path_factory.mktemp("arms"), []
    for arm in ("naive", "iterative"):
        for seed in (0, 1, 2):
            folder = root / f"{arm}_{seed}"
            assert run_workflow(plan(arm, SMALL, seed), folder, toys(), reuse=done).state == "completed"
            done.append(folder)
    return done


def better(folder: Path, kind: str, factor: float) -> None:
    """Multiply the energy residuals of a kind of models: a planted effect."""
    one = Evaluated.read(folder)
    assert one is not None
    for row in one.rows:
        if row["kind"] == kind:
            with np.load(folder / row["per_frame"]) as arrays:
                kept = {name: arrays[name] for name in arrays}
            np.savez(folder / row["per_frame"], **{**kept, "energy": factor * kept["energy"]})


@pytest.mark.full
def test_frames_are_read_once_for_all_models(folders):
    found = Evaluated.read(folders[0])
    assert found is not None
    one, other = [row for row in found.rows if row["test_set"] == "independent"][:2]
    assert one["model"] != other["model"]
    assert found.residuals(one).frames is found.residuals(other).frames


@pytest.mark.full
def test_rows_of_every_arm_seed_and_round_with_their_controls(folders):
    found = compare_arms(folders)
    assert "6 labels" in found.budgets
    kinds = {(row["arm"], row["seed"], row["kind"], row["round"]) for row in found.rows}
    for arm in ("naive", "iterative"):
        for seed in (0, 1, 2):
            assert {(arm, seed, "untouched", 0), (arm, seed, "offset", 1), (arm, seed, "offset", 2),
                    (arm, seed, "finetuned", 1), (arm, seed, "finetuned", 2)} <= kinds  # fmt: skip
    pooled = next(row for row in found.pooled if (row["arm"], row["kind"], row["round"], row["test_set"]) == (
        "iterative", "finetuned", 2, "independent"))  # fmt: skip
    assert pooled["n_seeds"] == 3
    each = [row["rmse_e"][0] for row in found.rows if (row["arm"], row["kind"], row["round"], row["test_set"]) == (
        "iterative", "finetuned", 2, "independent")]  # fmt: skip
    assert pooled["rmse_e"][0] == pytest.approx(np.sqrt(np.mean(np.square(each))))
    assert "independent" in found.table()
    json.dumps(found.to_json())


@pytest.mark.full
def test_an_arm_that_does_not_beat_its_offset_control_is_said_to_have_learned_an_offset(folders):
    found = compare_arms(folders)
    verdict = found.verdicts["iterative", "independent", "energy"]
    assert set(verdict.against) == {"untouched", "offset control", "naive arm"}
    assert verdict.answer == "does not"
    assert "it has learned an offset" in found.sentence
    assert set(found.verdicts["naive", "independent", "energy"].against) == {"untouched", "offset control"}
    assert "offset control" not in found.verdicts["iterative", "independent", "forces"].against


@pytest.mark.full
def test_a_planted_gain_is_found(folders, tmp_path):
    copies = [Path(shutil.copytree(one, tmp_path / one.name)) for one in folders]
    for folder in copies:
        if folder.name.startswith("iterative"):
            better(folder, "finetuned", 1e-5)
    found = compare_arms(copies)
    assert found.verdicts["iterative", "independent", "energy"].answer == "works"
    assert found.sentence.startswith("Iterative sampling, energies on independent frames: Works")
    assert "offset" not in found.sentence.split(":")[1].split(";")[0] or "learned an offset" not in found.sentence


@pytest.mark.full
def test_unequal_terms_are_refused_by_name(folders, tmp_path):
    other = plan("iterative", dataclasses.replace(SMALL, frames=2), 0)
    run_workflow(other, tmp_path / "fewer", toys())
    with pytest.raises(SpecError, match="labels differ by -2 labels"):
        compare_arms([folders[0], tmp_path / "fewer"])
    assert "Unequal budgets" in compare_arms([folders[0], tmp_path / "fewer"], unequal=True).notes[0]
    run_workflow(plan("iterative", SMALL, 0), tmp_path / "other", toys(words={"model": "another"}))
    with pytest.raises(RunError, match="differ in more than their frames; expected model"):
        compare_arms([folders[0], tmp_path / "other"])
    with pytest.raises(RunError, match="not evaluated yet"):
        compare_arms([tmp_path])


def test_a_dry_run_counts_and_starts_nothing(tmp_path):
    cost = dry_run(plan("naive", SMALL), relax_steps=3)
    # Two runs and two of the evaluation, 20 steps each; 6 labels and 4 + 2 * 3 of the evaluation.
    assert (cost.md_steps, cost.labels, cost.relaxations) == (80, 16, 4)
    assert cost.gradients == 2 * 2 + 5 * 2
    assert cost.seconds is None
    assert "6 labels, 0.04 ps of MD, 14 frame-gradients" in cost.table()
    measured = dry_run(plan("naive", SMALL), toys(), tmp_path, relax_steps=3)
    assert measured.rates is not None
    assert measured.seconds is not None
    assert measured.rates.md_step > 0
    assert measured.seconds > 80 * measured.rates.md_step
    assert "About" in measured.table()
    assert not list(tmp_path.iterdir())
