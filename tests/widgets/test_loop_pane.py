"""Iterative pretraining in StrategyComparison and in a view of its own, without a browser: what they read and say."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from loop_folders import arms, loop, recorded
from workflow_folders import workflow

from mlipkit.errors import RunError
from mlipkit.events import Finished
from mlipkit.plots.trajectories import subscripted
from mlipkit.strategies.ipip import Reaction, species_record, timeline
from mlipkit.strategies.ipip.evaluating import selected_row
from mlipkit_widgets import PretrainingView, StrategyComparison
from mlipkit_widgets.loop_data import LoopData
from mlipkit_widgets.loop_folder import LoopFolder, iteration_of, parts_of
from mlipkit_widgets.loop_pane import LoopPane
from mlipkit_widgets.staged_folder import kind_of

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return arms(tmp_path_factory.mktemp("loops"))


def trace(plot, name: str) -> dict:
    return next(one for one in plot.shown[0] if str(one.get("name", "")).startswith(name))


def test_verdict_first_then_arms_tests_iterations_budgets(ended):
    view = StrategyComparison(ended)
    pane = view.pane
    assert isinstance(pane, LoopPane)
    assert view.header.detail == "3 arms, 6 runs"
    assert view.header.state == "completed"
    assert pane.compared.problem == ""
    assert pane.children[0] is pane.verdict
    assert "Iterative pretraining, forces on test frames" in pane.verdict.value
    assert "Against the teacher, forces" in pane.answers.value
    assert "fewer than three" in pane.notes.value
    # Errors are those of the evaluations, controls in grey beside the loop.
    last = [selected_row(json.loads((folder / "evaluation.json").read_text())) for folder in ended]
    means = {arm: (last[k]["forces_mae"] + last[k + 3]["forces_mae"]) / 2 for k, arm in enumerate(("ipip", "scratch"))}
    assert trace(pane.arms, "the loop")["y"] == pytest.approx([means["ipip"]])
    assert trace(pane.arms, "controls")["y"][0] == pytest.approx(means["scratch"])
    assert trace(pane.timeline, "scratch (test)")["y"][0] == pytest.approx(means["scratch"])
    assert pane.tests.shown[0][0]["customdata"] == ["ipip", "scratch", "one_shot"]
    assert pane.budget.value.count("<td>36 of 36") == 6
    assert "MD steps of the teacher" in pane.budget.value
    assert "compare(['" in view._code()
    assert "comparing import compare" in view._code()
    view.close()


def test_iterations_are_those_of_the_timeline(ended):
    view = StrategyComparison(ended)
    pane = view.pane
    assert pane.run.value == "ipip 0"
    rows = timeline(ended[0])
    assert trace(pane.timeline, "force MAE, test")["y"] == pytest.approx([row["forces_mae"] for row in rows])
    for row in rows:
        assert sum(parts_of(row).values()) == row["pool"]["size"], "a partition of the pool"
    assert parts_of(rows[0]) == {"first": rows[0]["pool"]["size"]}
    lines = re.findall("<tr>.*?</tr>", pane.table.value)
    assert len(lines) == 1 + len(rows)
    assert "100%" in lines[1]
    assert f"{rows[2]['md_failed']} of 3" in lines[3]
    # The teacher's rate is the yardstick; it is one by itself.
    speeds = [one.speed for one in LoopFolder(ended[0]).iterations]
    assert speeds[0] == pytest.approx(1)
    assert speeds[1] == pytest.approx(rows[1]["md_steps_per_s"] / rows[0]["md_steps_per_s"])
    pane.run.value = "scratch 1"
    assert [one["name"] for one in pane.timeline.shown[0] if one.get("showlegend") is not False][:1] == [
        "force MAE, test"]  # fmt: skip
    assert "teacher&#x27;s labels" not in pane.table.value, "a column that nobody needs"
    view.close()


def test_species_of_one_simulation_over_time_with_what_lasted(ended, tmp_path):
    view = StrategyComparison(ended)
    pane, box = view.pane, view.pane.species
    assert box.layout.display is None
    tested, test = next((row["round"], row["reaction"]) for row in timeline(ended[0]) if row["reaction"])
    runs = species_record.load(next((ended[0] / "stages").glob("*_reaction")))
    assert runs is not None
    assert f"Test simulations of student {tested}: {test['failed']} of 2 runs failed" in box.told.value
    assert f"mass balances in {test['species']['frames']} of {test['species']['frames']} frames" in box.told.value
    assert len(box.simulation.options) == 2
    run = runs[box.simulation.index]
    # One oxygen atom is always in one cluster: a bar per species, in total as long as what was stored.
    bars = [trace(box.graph, subscripted(name))["x"] for name in run.tracked("O")]
    lengths = [end - first for x in bars for first, end in zip(x[::3], x[1::3], strict=True)]
    assert sum(lengths) == pytest.approx((run.time[-1] - run.time[0]) / 1000)
    for name, x in zip(run.tracked("O"), bars, strict=True):
        there = run.count(name) > 0
        begin, end = (
            np.flatnonzero(there & ~beside) for beside in (np.append(False, there[:-1]), np.append(there[1:], False))
        )
        assert x[::3] == pytest.approx(run.time[begin] / 1000)
        assert x[1::3] == pytest.approx(np.append(run.time[1:], run.time[-1])[end] / 1000)
    assert box.graph.shown[1]["xaxis"]["range"][0] == 0.0
    assert "species at the end" in pane.table.value
    # An iteration without such a test shows that of the one that has it; a run without any shows none.
    view.round = next(k for k in range(3) if k != tested)
    assert f"student {tested}:" in box.told.value
    assert loop(tmp_path / "scratch_0", "scratch", reaction=Reaction()).state == "completed"
    view.watch([tmp_path / "scratch_0"])
    assert view.pane.species.layout.display == "none"
    assert "species at the end" not in view.pane.table.value
    view.close()


def test_changes_are_lines_in_the_graph_and_told_beside_the_simulation(ended, tmp_path):
    shutil.copytree(ended[0], tmp_path / "ipip_0")
    folder = next((tmp_path / "ipip_0" / "stages").glob("*_reaction"))
    runs = species_record.load(folder)
    assert runs is not None
    change = {"time": 5.0, "before": ["H2O"], "after": ["OH"], "kind": "loss"}
    again = {**change, "time": 15.0}
    runs[0] = dataclasses.replace(runs[0], changes=[])
    runs[1] = dataclasses.replace(
        runs[1], changes=[change, again], checkpoints={"ring open": 5.0, "MoS6 or MoS7": None}
    )
    species_record.save(folder, runs)
    view = StrategyComparison([tmp_path / "ipip_0"])
    box = view.pane.species
    assert box.simulation.value == "1: 2 changes", "where something happened"
    assert trace(box.graph, "changes that last")["x"] == [0.005, 0.015]
    assert "ring open from 0.005 ps, MoS6 or MoS7 not seen" in box.passed.value
    box.simulation.index = 0
    assert all(one.get("name") != "changes that last" for one in box.graph.shown[0])
    view.close()


def test_one_iteration_is_marked_and_counts_from_0(ended):
    view = StrategyComparison(ended)
    assert view.round == view.pane.round == 2, "the newest"
    view.pane.timeline._message(None, {"type": "click", "x": 0.1, "y": 2, "curve": 0}, None)
    assert view.round == 0
    assert view.pane.timeline.shown[1]["shapes"][0]["x0"] == pytest.approx(-0.48)
    view.round = 99
    assert (view.round, view.pane.round) == (2, 2)
    view.close()


def test_failures_and_relabelling_come_out_as_they_are():
    row = {
        "round": 2, "pool": {"size": 100, "teacher_share": 0.3}, "forgotten": 10, "relabelled": 70, "new": 12,
        "new_unstable": 15, "md_failed": 4, "md_runs": 10, "md_fraction": 0.4, "md_interval": [0.17, 0.69],
        "md_by": "finetune_1", "md_steps_per_s": 50.0, "finetuning": None, "forces_mae": None, "stability": None,
    }  # fmt: skip
    one = iteration_of(row, 25.0)
    assert one.pool == {"kept": 18, "relabelled": 70, "new": 0, "unstable": 12}, "doubles were dropped among the new"
    assert (one.failed, one.sampler, one.speed, one.tested) == ((0.4, 0.17, 0.69), "student 1", 2.0, None)
    assert iteration_of({**row, "round": 0, "md_by": "teacher"}, 25.0).speed == 2.0
    assert iteration_of({**row, "md_by": "teacher"}, 25.0).speed is None, "no student has simulated"


def test_it_follows_a_run_that_goes_on(ended, tmp_path):
    root = tmp_path / "runs"
    view = StrategyComparison(root)
    assert view.header.state == "empty"
    half = root / "ipip_0"
    assert loop(half, "ipip", stop_after=6).state == "stopped"
    view.refresh()
    assert isinstance(view.pane, LoopPane)
    assert "No verdict yet: 0 of 1 run evaluated" in view.pane.verdict.value
    assert view.pane.no_arms.layout.display is None
    # One pool, one student by then, and the head says where it stands.
    assert view.round == 0
    assert trace(view.pane.timeline, "force MAE, validation")["y"][1:] == [None, None]
    assert loop(half, "ipip").state == "completed"
    view.refresh()
    assert view.round == 2
    assert "One arm alone is no verdict" in view.pane.verdict.value
    shutil.copytree(ended[2], root / "one_shot_0")
    view.refresh()
    assert view.header.detail == "2 arms, 2 runs"
    view.close()


def test_parts_of_a_loop_are_asked_for_in_words():
    asked = [("no_unstable", "forces"), ("no_new_frames", "forces"), ("continual, teacher", "forces")]
    found = SimpleNamespace(verdicts={one: SimpleNamespace(sentence=one[0]) for one in asked})
    assert LoopData([]).answers(found) == [  # type: ignore[arg-type]
        ("Continual pretraining against the teacher, forces", "continual, teacher"),
        ("Iterative pretraining against itself without preferring unstable runs, forces", "no_unstable"),
        ("Continual pretraining against itself without adding new frames, forces", "no_new_frames"),
    ]


def test_kinds_are_told_apart_and_not_mixed(ended, tmp_path):
    assert kind_of(ended[1]) == "ipip"
    shutil.copytree(ended[0], tmp_path / "ipip_0")
    assert workflow(tmp_path / "naive_0", "naive").state == "completed"
    assert kind_of(tmp_path / "naive_0") == "workflow"
    with pytest.raises(RunError, match="several strategies are not set side by side"):
        StrategyComparison([tmp_path / "ipip_0", tmp_path / "naive_0"])
    view = StrategyComparison(tmp_path)
    assert isinstance(view.pane, LoopPane)
    assert "1 of another strategy not shown" in view.problem.value
    view.watch([tmp_path / "naive_0"])
    assert not isinstance(view.pane, LoopPane)
    assert view.header.detail == "1 arm, 1 workflow"
    view.close()


def test_a_broken_file_is_named_and_hides_nobody(ended, tmp_path):
    for name in ("ipip_0", "one_shot_0"):
        shutil.copytree(ended[0].parent / name, tmp_path / name)
    (tmp_path / "one_shot_0" / "evaluation.json").write_text("{half")
    view = StrategyComparison(tmp_path)
    assert "one_shot_0/evaluation.json: cannot be read" in view.problem.value
    assert view.header.detail == "1 arm, 1 run"
    view.close()
    record = next((tmp_path / "one_shot_0" / "stages").glob("*_evaluate")) / "stage.json"
    record.write_text(json.dumps({key: one for key, one in json.loads(record.read_text()).items() if key != "facts"}))
    view = StrategyComparison(tmp_path)
    assert "the record of a stage without its facts" in view.problem.value
    assert view.header.detail == "1 arm, 1 run"
    view.close()


def test_a_run_has_a_view_of_its_own_beside_others(ended, tmp_path):
    for name in ("ipip_0", "one_shot_0"):
        shutil.copytree(ended[0].parent / name, tmp_path / name)
        arm = name.removesuffix("_0")
        recorded(tmp_path / name, Finished("completed", "all stages done", {}), arm=arm)
    view = PretrainingView(tmp_path / "ipip_0")
    assert view.header.state == "completed"
    assert view.pane.data.arms.keys() == {"ipip"}
    assert view.compare_button.description == "Compare with 1 other"
    view.compare_button.click()
    assert view.pane.data.arms.keys() == {"ipip", "one_shot"}
    assert "1 seed" in view.pane.verdict.value
    with pytest.raises(RunError, match="made without launch"):
        PretrainingView(ended[0])
    view.close()
    empty = PretrainingView()
    assert "Launcher(&#x27;ipip&#x27;)" in empty.empty.value
    empty.close()


def test_places_where_nothing_is_are_named_and_a_damaged_one_hides_nobody(ended, tmp_path):
    shutil.copytree(ended[0], tmp_path / "ipip_0")
    shutil.copytree(ended[2], tmp_path / "one_shot_0")
    (tmp_path / "foreign").mkdir()
    for place, what in (("no_such", "no such folder"), ("foreign", "holds neither a workflow nor an iterative")):
        with pytest.raises(RunError, match=f"{place}: {what}"):
            StrategyComparison([tmp_path / "ipip_0", tmp_path / place])
    whole = (tmp_path / "one_shot_0" / "plan.json").read_text()
    (tmp_path / "one_shot_0" / "plan.json").write_text(whole[:100])
    with pytest.raises(RunError, match=r"one_shot_0.* cannot be read"):
        StrategyComparison([tmp_path / "one_shot_0"])
    view = StrategyComparison([tmp_path / "ipip_0", tmp_path / "one_shot_0"])
    assert view.header.detail == "1 arm, 1 run"
    assert "cannot be read" in view.problem.value
    (tmp_path / "one_shot_0" / "plan.json").write_text(whole)
    view.refresh()
    assert view.header.detail == "2 arms, 2 runs"
    assert "cannot be read" not in view.problem.value
    view.watch(tmp_path / "later")
    assert f"there is no folder {tmp_path / 'later'} yet" in view.problem.value
    view.close()
