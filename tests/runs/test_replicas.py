"""Simulations of one run: fates, groups and survival, read from a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_folders import Acted, folder_of

from mlipkit.data.series import SeriesWriter
from mlipkit.errors import RunError
from mlipkit.events import Finished, Judged, Started, Verdict
from mlipkit.runs import (
    MDSpec,
    Run,
    TrainSpec,
    before_failure,
    hotter_step,
    label_step,
    simulate_step,
    survival_change,
)
from mlipkit.runs.console import figures_of
from mlipkit.runs.log import EventLog
from mlipkit.runs.replicas import Replicas
from mlipkit.runs.report import survival_table

STEPS, TIMESTEP = 1000, 0.5


class Recorded(Acted):
    """A run folder with replicas of chosen lengths, without a process of its own."""

    def __init__(self, path: Path, count: int, table: list[dict] | None = None) -> None:
        self.files = folder_of(path, MDSpec(replicas=count, steps=STEPS, timestep=TIMESTEP, temperature=900))
        if table is not None:
            (path / "replicas.json").write_text(json.dumps({"replicas": table}))
        self.log = EventLog(self.files.events)
        self.log(Started("langevin MD of 9 atoms", STEPS))
        self.series: dict[int, SeriesWriter] = {}

    def reach(self, replica: int, step: int) -> None:
        """Rows up to and with this step."""
        if replica not in self.series:
            folder = self.files.path / f"replica_{replica:03d}" / "series" / "md"
            self.series[replica] = SeriesWriter(folder, {"step": "", "time_fs": "fs"})
            self._at = {**getattr(self, "_at", {}), replica: -1}
        steps = np.arange(self._at[replica] + 1, step + 1)
        self.series[replica].append(np.stack([steps, steps * TIMESTEP], axis=1).astype(float))
        self.series[replica].flush()
        self._at[replica] = step

    def fail(self, replica: int, step: int, check: str = "broken_bonds") -> None:
        self.reach(replica, step)
        verdict = Verdict("failed", check, step, step * TIMESTEP, replica=replica, sentence=f"Failed at step {step}.")
        self.log(Judged(verdict, final=True))


def test_fates_follow_the_run(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "md", 4)
    found = Replicas(recorded.run)
    assert [one.fate for one in found] == ["waiting"] * 4
    assert found.survival() == {}
    recorded.alive()
    for replica in (0, 1, 2):
        recorded.reach(replica, 400)
    assert found.refresh()
    assert [one.fate for one in found] == ["running", "running", "running", "waiting"]
    assert not found.refresh(), "no news"
    recorded.reach(0, 450)
    assert not found.refresh(), "growing alone is no change of fate"
    assert found[0].time == 450 * TIMESTEP
    recorded.fail(1, 500, "overlap")
    recorded.fail(2, 470)
    recorded.log(Judged(Verdict("ok", replica=2), final=True))  # comes late
    assert found.refresh()
    assert found.count == "2 of 4 failed"
    said = "2 of 4 failed so far (1 overlap, 1 broken bonds), the first (number 2) after 0.235 ps"
    assert found.sentence == said
    assert (found[1].why, found[2].why) == ("overlap", "broken bonds")
    assert found.first_failed is found[2]
    recorded.reach(0, STEPS)
    recorded.reach(3, 700)
    recorded.log(Finished("failed", "2 of 4 replicas failed"))
    found.refresh()
    assert [one.fate for one in found] == ["held", "failed", "failed", "ended"]
    assert found[0].folder == recorded.run.folder / "replica_000"


def test_survival_of_one_group(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "md", 5)
    for replica, step in ((0, STEPS), (1, STEPS), (2, STEPS)):
        recorded.reach(replica, step)
    recorded.fail(3, 200)
    recorded.fail(4, 600, "overlap")
    recorded.log(Finished("failed", ""))
    ((name, curve),) = Replicas(recorded.run).survival().items()
    assert name == "900 K"
    assert curve.times.tolist() == [100.0, 300.0]
    assert curve.survival.tolist() == [0.8, 0.6]
    assert curve.interval == "exact"
    assert curve.reasons == {"broken bonds": 1, "overlap": 1}
    assert curve.longest == STEPS * TIMESTEP
    table = survival_table(Replicas(recorded.run))
    for cell in ("900 K", "2 of 5", "0.5", "60% (15% to 95%)", "not reached"):
        assert f"<td>{cell}</td>" in table


def test_groups_by_start_and_temperature(tmp_path: Path) -> None:
    table = [
        {"index": i, "start": start, "temperature": temperature, "folder": f"replica_{i:03d}", "velocity_seed": i}
        for i, (start, temperature) in enumerate(
            (s, t) for s in ("a.xyz", "b.xyz") for t in (300, 900) for _ in range(2)
        )
    ]  # fmt: skip
    recorded = Recorded(tmp_path / "md", 2, table)
    recorded.fail(7, 100)
    found = Replicas(recorded.run)
    assert {name: [one.index for one in members] for name, members in found.groups().items()} == {
        "a.xyz, 300 K": [0, 1], "a.xyz, 900 K": [2, 3], "b.xyz, 300 K": [4, 5], "b.xyz, 900 K": [6, 7],
    }  # fmt: skip
    assert list(found.survival()) == ["b.xyz, 900 K"], "groups that have not begun have no curve"
    assert found[7].facts == {"velocity_seed": 7}


@pytest.mark.full
def test_of_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot ethanol under the potential of 50 frames: times and reasons are those of the verdicts."""
    import mlipkit as mk

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    run = mk.launch(MDSpec(potential="sample:ethanol_50", temperature=1500, replicas=3, steps=600)).wait(120)
    assert run.state in ("failed", "completed"), run.reason
    found = Replicas(run)
    said = {
        event.verdict.replica: event.verdict
        for event in run.events()
        if isinstance(event, Judged) and event.verdict.outcome == "failed"
    }
    assert found.n_failed == len(said) == run.facts().get("failed_replicas", 0)
    assert {one.index: one.time for one in found if one.failed} == {i: verdict.time for i, verdict in said.items()}
    assert all(one.fate == "held" and one.time == 300 for one in found if not one.failed)
    figures = figures_of(run)
    assert figures["simulations_failed"] == {"value": found.n_failed, "unit": "of 3"}
    page = run.report().read_text()
    assert f"{found.n_failed} of 3 failed" in page
    assert "<h3>Survival</h3>" in page
    assert page.count("<h3>Replica ") == 3


def test_a_simulation_that_was_ended_early_does_not_count_as_one_that_held(tmp_path: Path) -> None:
    before, after = Recorded(tmp_path / "before", 4), Recorded(tmp_path / "after", 4)
    for replica in range(4):
        before.fail(replica, 100)
        after.reach(replica, STEPS if replica < 2 else 150)
    before.log(Finished("failed", "4 of 4 failed"))
    after.log(Finished("stopped", "stopped by the user"))
    said = survival_change(before.run, after.run).sentence
    assert "0 of 4 held" in said
    assert "2 of 2 held [16%, 100%] and 2 ended early after" in said
    assert "hold longer than before" in said, "also where all failed at one step"
    assert "hold less long than before" in survival_change(after.run, before.run).sentence
    none = Recorded(tmp_path / "none", 4)
    none.reach(0, 50)
    none.log(Finished("stopped", "stopped by the user"))
    assert "after 1 ended early after" not in survival_change(before.run, none.run).sentence
    assert "all 1 ended early after" in survival_change(before.run, none.run).sentence
    assert survival_change(before.run.folder, after.run.folder).sentence == said, "folders do as well"


def test_steps_of_the_loop_refuse_what_is_no_simulation(tmp_path: Path) -> None:
    training = Run(folder_of(tmp_path / "train", TrainSpec(data="sample:ethanol_300K")).path)
    for step in (
        lambda: simulate_step(training, "x"),
        lambda: hotter_step(training),
        lambda: label_step(training, "x"),
    ):
        with pytest.raises(RunError, match="expected an MD run; found train"):
            step()
    recorded = Recorded(tmp_path / "md", 2)
    assert hotter_step(recorded.run.folder).temperature == 1120, "folders do as well"
    for most in (0, -1, 2.5, "3"):
        with pytest.raises(RunError, match="most: no number of frames"):
            before_failure(recorded.run, most)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no simulation has failed"):
        before_failure(recorded.run.folder)
