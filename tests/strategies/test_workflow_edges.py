"""Workflows at their edges: frames that occur twice, compositions nobody trained on, plans that cannot end well."""

from __future__ import annotations

import dataclasses
import time

import pytest
from workflow_toys import TINY, toys

from mlipkit.data import read
from mlipkit.errors import SpecError
from mlipkit.strategies.workflows import Evaluation, approve, plan, provenance, run_workflow

BARE = dataclasses.replace(TINY, evaluation=Evaluation(independent=0, self_md="none"))


def test_a_structure_that_two_runs_hold_is_told_apart_by_its_run(tmp_path):
    """Without equilibration the first row of a run is the last one of the run before."""
    one = plan("iterative", dataclasses.replace(BARE, equilibration=0.0))
    assert run_workflow(one, tmp_path, toys()).state == "completed"
    rows = provenance.read(tmp_path)
    twice = [row for row in rows if (row["trajectory"], row["row"]) in (("md_1", 10), ("md_2", 0))]
    assert len({row["uid"] for row in twice}) == 1
    assert [len(row["entered"]) for row in rows] == [3, 3, 3, 2, 2, 2, 1, 1, 1]


def test_labels_chosen_by_one_user_are_not_taken_over_for_another(tmp_path):
    one = plan("iterative", dataclasses.replace(BARE, review=True))
    struck = []
    for name, row in (("a", 0), ("b", 2)):
        folder, tools = tmp_path / name, toys()
        assert run_workflow(one, folder, tools, reuse=[tmp_path / "a"]).state == "waiting"
        struck.append(read(folder / "candidates" / "01.extxyz").uid(row))
        approve(folder, 1, [struck[-1]])
        assert run_workflow(one, folder, tools, reuse=[tmp_path / "a"]).state == "waiting"
        assert ("simulate md_1" in tools.calls) == (name == "a")
        lost = [line["uid"] for line in provenance.read(folder) if line["outcome"] == "struck out by the user"]
        assert lost == struck[-1:]
        labelled = read(folder / one.folder("label_1") / "labelled.extxyz")
        assert struck[-1] not in {labelled.uid(i) for i in range(len(labelled))}
        assert len(labelled) == 2


@pytest.mark.parametrize(
    ("arm", "changes", "where"),
    [
        ("iterative", {"frames": 1}, "finetune_1"),
        ("naive", {"sizes": (1, 3)}, "finetune_1"),
        ("longrun", {"runs": 1, "frames": 1}, "finetune_1"),
    ],
)
def test_a_fine_tuning_on_one_frame_is_refused_before_anything_is_spent(arm, changes, where):
    with pytest.raises(SpecError, match=rf"{where}: one frame to train on and none to validate with"):
        plan(arm, dataclasses.replace(BARE, **changes))


def test_sizes_without_any_are_refused():
    with pytest.raises(SpecError, match="sizes: none"):
        dataclasses.replace(BARE, sizes=())


def test_the_keys_of_many_rounds_are_soon_known():
    one = plan("iterative", dataclasses.replace(TINY, runs=40, base="previous"))
    begin = time.process_time()
    assert len({one.key(stage.name) for stage in one.stages}) > 40
    assert time.process_time() - begin < 5
