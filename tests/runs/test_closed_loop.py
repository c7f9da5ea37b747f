"""The closed loop: a simulation fails, frames from before that are labelled and trained on, and it is repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mlipkit as mk
from mlipkit.errors import RunError
from mlipkit.runs import (
    FinetuneSpec,
    LabelSpec,
    MDSpec,
    Run,
    TrainSpec,
    before_failure,
    delete,
    hotter_step,
    label_step,
    next_step,
    runs_in,
    simulate_step,
    survival_change,
    train_step,
)
from mlipkit.runs.failure_frames import _spread
from mlipkit.runs.family import parents, picked_from
from mlipkit.runs.loop import maker_of, trained_on

HOT = MDSpec(
    potential="sample:ethanol_50", start="sample:ethanol_300K@0", temperature=700, replicas=4, steps=12000, stride=10,
    name="hot",
)  # fmt: skip


@pytest.fixture(scope="module")
def hot(tmp_path_factory) -> Run:
    """Four simulations that all fail: of twenty, nineteen did at 600 K and twenty at 900 K (card of this potential)."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("loop")
        patch.chdir(home)
        patch.setenv("MLIPKIT_QUEUE", str(home / "queue"))
        run = mk.launch(HOT)
        run.wait()
    return run


@pytest.fixture
def home(hot, monkeypatch) -> Path:
    monkeypatch.chdir(hot.folder.parent.parent)
    monkeypatch.setenv("MLIPKIT_QUEUE", str(Path.cwd() / "queue"))
    return Path.cwd()


def test_picked_frames_are_sound_late_apart_and_without_labels(hot, home):
    picked = before_failure(hot)
    assert len(picked.frames) == len(picked.selection) == 10
    assert not any(picked.frames.has(label).any() for label in ("energy", "forces"))
    assert picked.selection.criterion["kind"] == "before_failure"
    assert "hot" in picked.selection.sentence
    spacing = picked.selection.criterion["spacing_fs"]
    by_replica = {one.index: one for one in hot.replicas}
    for name in set(picked.frames.sources):
        number = int(name.rpartition("_")[2])
        rows = [i for i in range(len(picked.frames)) if picked.frames.frame(i)["source"] == name]
        assert 1 <= len(rows) <= 4
        verdict = by_replica[number].verdict
        assert verdict is not None
        assert verdict.outcome == "failed"
        times = sorted(float(picked.frames[i].info["time_fs"]) for i in rows)
        assert times[0] > 0
        assert times[-1] <= verdict.last_good * HOT.timestep < verdict.time
        assert min(np.diff(times), default=np.inf) >= min(spacing) - 1e-6
    assert before_failure(hot).selection.uids == picked.selection.uids


def test_picks_lie_at_many_distances_from_the_failure():
    """Where a simulation left the known structures nobody knows; its last frames alone are wrecks."""
    numbers = list(range(100, 140))
    assert _spread(numbers, 0)[:6] == [139, 138, 136, 132, 124, 108]
    assert _spread(numbers, 2)[:6] == [136, 132, 124, 108, 139, 138]
    assert sorted(_spread(numbers, 1)) == numbers
    assert _spread([], 3) == []
    assert _spread([7], 3) == [7]


def test_fewer_frames_and_one_simulation_alone(hot, home):
    assert len(before_failure(hot, most=2).frames) == 2
    one = before_failure(hot, replica=1)
    assert set(one.frames.sources) == {"hot/replica_001"}
    assert len(one.frames) <= 10
    with pytest.raises(RunError, match=r"no such simulation.*0 to 3"):
        before_failure(hot, replica=4)


def test_what_has_not_failed_gives_no_frames(work):
    run = mk.launch(MDSpec(potential="calc.py:emt", start="calc.py:cluster", steps=20))
    run.wait()
    with pytest.raises(RunError, match=r"no simulation has failed.*Raise the temperature"):
        before_failure(run)


def test_labels_of_the_level_that_the_potential_knows():
    assert trained_on("sample:ethanol_50") == ["sample:ethanol_300K@::20"]
    assert maker_of("sample:ethanol_50") == "gfn2-xtb"
    assert trained_on("universal:so3lr") == []
    assert maker_of("universal:so3lr") is None


def test_the_loop_closes(hot, home):
    """Each step comes out of `next_step`; what it launches runs, and the survival is compared."""
    pytest.importorskip("tblite", reason="needs tblite")

    def step(**more):
        return next_step(runs_in("runs"), **more)

    assert step().action == "go_to_failure"
    assert "4 of 4 failed" in step().why
    assert step(seen=[hot.folder]).action == "select"
    picked = before_failure(hot)
    picked.selection.export("selections/hot.extxyz", picked.frames)
    assert step(seen=[hot.folder], selection=picked.selection).words == "Label 10 frames"
    spec = label_step(hot, "selections/hot.extxyz")
    assert spec.maker == "gfn2-xtb"
    labelled = mk.launch(spec)
    labelled.wait()
    told = step()
    assert told.action == "train_on"
    assert isinstance(told.spec, FinetuneSpec)
    assert told.spec.data == ["sample:ethanol_300K@::20", "runs/label_hot@2:"]
    assert told.spec.validation == ["runs/label_hot@:2"], "judged on new frames that it does not see"
    assert told.spec.test == "sample:ethanol_nve@4010::40", "and tested on what it was tested on before"
    trained = mk.launch(told.spec.changed(max_epochs=2, test=None))
    trained.wait()
    assert trained.state == "completed", trained.log_text()
    told = step()
    assert told.action == "simulate"
    assert told.words == "Run again"
    assert told.spec is not None
    assert told.spec.name == "hot_round2"
    again = mk.launch(told.spec)
    again.wait()
    assert again.spec.potential == "runs/train_on_label_hot"  # type: ignore[union-attr]
    told = step()
    assert told.action == "compare"
    assert told.other == hot
    change = survival_change(hot, again)
    assert change.before.n == change.after.n == 4
    assert "0 of 4 held" in change.sentence
    assert "mk.survival_change(" in told.code
    assert step(compared=[again.folder]).action in ("go_to_failure", "hotter")
    assert simulate_step(again, "sample:ethanol_1000").name == "hot_round3"
    assert parents(trained) == [labelled.folder]
    assert picked_from(labelled) == [hot.folder]
    # A second round keeps what was held out in the first.
    second = train_step(again, "selections/hot.extxyz")
    assert second.data == ["sample:ethanol_300K@::20", "runs/label_hot@2:", "selections/hot.extxyz@2:"]
    assert second.validation == ["selections/hot.extxyz@:2", "runs/label_hot@:2"]
    assert maker_of("runs/train_on_label_hot") == "gfn2-xtb"
    delete(again)
    delete(trained)
    delete(labelled)


def test_equal_potentials_make_no_difference_and_unequal_simulations_are_refused(hot, home):
    assert survival_change(hot, hot).p_value == 1.0
    assert "undecided" in survival_change(hot, hot).sentence
    other = mk.launch(HOT.changed(temperature=300, steps=20, name="cold"))
    other.wait()
    with pytest.raises(RunError, match=r"temperature: not the same simulation"):
        survival_change(hot, other)
    assert next_step([other]).action == "hotter"
    assert next_step([other]).spec == hotter_step(other)
    assert hotter_step(other).temperature == 380
    assert hotter_step(other).name == "ethanol_50_md_380K"
    delete(other)


def test_the_first_step_and_the_way_from_data_to_a_simulation(work, frames):
    first = next_step([])
    assert first.action == "begin"
    assert isinstance(first.spec, TrainSpec)
    trained = mk.launch(TrainSpec(data="cu.xyz", max_epochs=1, name="cu"))
    trained.wait()
    told = next_step([trained])
    assert told.action == "simulate"
    assert told.words == "Run MD"
    assert isinstance(told.spec, MDSpec)
    assert (told.spec.potential, told.spec.start) == ("runs/cu", "cu.xyz@0")
    run = mk.launch(told.spec.changed(time_ps=None, steps=100_000, stride=100))
    assert next_step([trained, run]).action == "watch"
    run.stop()
    run.wait()
    assert next_step([trained, run]).action in ("resume", "go_to_failure")
    assert simulate_step(run, trained).potential == "runs/cu"
    assert isinstance(train_step(run, "more.xyz"), FinetuneSpec)
    assert train_step(run, "more.xyz").data == ["cu.xyz", "more.xyz"]
    assert isinstance(label_step(run, "some.xyz", maker="gfn1-xtb"), LabelSpec)


def test_a_crash_is_the_next_thing_to_see_to(work):
    run = mk.launch(MDSpec(potential="calc.py:breaking", start="calc.py:cluster", steps=200))
    run.wait()
    told = next_step([run])
    assert told.action == "resume"
    assert "gave up" in told.why
