"""Labels by one's own VASP in the Workbench: jobs out by clicks, what came of them, labels in, training on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read as ase_read
from dft_text import Run as Calculation
from dft_text import outcar, vasp_template
from recorded import RecordedReplicas
from test_views import visible

import mlipkit_widgets.next_actions as next_actions
from mlipkit.data import read
from mlipkit.data.jobs.folder import JOB
from mlipkit.runs import FinetuneSpec, OwnJobs, Run, before_failure, next_step, runs_in, train_step
from mlipkit_widgets import Workbench


@pytest.fixture
def hot(here: Path) -> Run:
    """Three of four simulations failed."""
    replicas = RecordedReplicas(Path("runs/hot"), 4, {0: 500, 1: 700, 3: 640}, steps=1000)
    replicas.finish()
    return replicas.run


@pytest.fixture
def bench(hot: Run):
    """A Workbench with six frames in its tray, about to be labelled by the user's own means."""
    view = Workbench("runs", viewer="still")
    view.go_to_failure(hot)
    view.next.most.value = 6
    view.act()
    view.next.own.value = True
    yield view
    view.close()


def job_folders(folder: str = "jobs/hot") -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if (path / JOB).is_file())


def compute(folder: Path, row: int, **changes: object) -> None:
    """Run "VASP" in a job: what its POSCAR holds, with forces that tell atoms apart."""
    atoms = ase_read(folder / "POSCAR", format="vasp")
    forces = np.round(np.arange(3.0 * len(atoms)).reshape(-1, 3) / 100 + row, 6)
    made = Calculation(atoms.numbers, atoms.positions, atoms.cell.array, forces, energy=-46.0 - row, zero=-46.0 - row)
    (folder / "OUTCAR").write_text(outcar(made.but(**changes)))


def test_the_form_checks_the_template_against_the_frames(bench: Workbench) -> None:
    pane = bench.actions.own.pane
    assert visible(bench, "Export 6 jobs")
    assert pane.layout.display != "none"
    assert bench.next.maker.layout.display == "none", "no label maker is asked for"
    assert pane.folder.value == "jobs/hot"
    bench.act()
    assert "name the folder with your inputs first" in bench.next.problem.value
    pane.template.value = "nowhere"
    pane._check()
    assert "no such folder" in pane.text.value
    vasp_template(Path("inputs"), ("C", "O", "H"))
    pane.template.value = "inputs"
    pane._check()
    assert "mk-wrong" in pane.text.value
    assert "no cell" in pane.text.value, "molecules need a box"
    pane.box.value = "wide"
    pane._check()
    assert "no number" in pane.text.value
    pane.box.value = "12"
    pane._check()
    assert "VASP template: INCAR, KPOINTS, POTCAR, job.sh" in pane.text.value
    assert "mk-wrong" not in pane.text.value
    bench.next.own.value = False
    assert pane.layout.display == "none"
    assert not visible(bench, "Export 6 jobs")
    assert bench.next.maker.layout.display != "none"


def test_the_loop_by_own_calculations(bench: Workbench, hot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export, collect twice, add to data, train on; every step's code says the same."""
    pane, picked = bench.actions.own.pane, before_failure(hot, most=6)
    vasp_template(Path("inputs"), ("C", "O", "H"))
    pane.template.value, pane.box.value = "inputs", "12"
    assert ".selection.export_jobs(" in bench._panel("code")
    compile(bench._panel("code"), "code", "exec")
    bench.act()
    assert bench.next.problem.value == ""
    assert len(job_folders()) == 6
    assert len(bench.selection) == 0
    assert bench.tray.tray.undo_steps
    assert bench.step.action == "collect"
    assert "nothing was collected yet" in bench.next.why.value
    # Nothing has been computed yet.
    bench.act()
    assert bench.step.action == "collect"
    assert "0 of 6 jobs in jobs/hot done, 6 missing" in bench.next.why.value
    # A restart of the kernel forgets nothing.
    bench.close()
    view = Workbench("runs", viewer="still")
    assert view.step.action == "collect"
    pane = view.actions.own.pane
    folders = job_folders()
    for row in range(4):
        compute(folders[row], row)
    compute(folders[4], 4, iterations=60)
    assert "collect('jobs/hot')" in view._panel("code")
    view.act()
    assert view.step.action == "add"
    assert "4 of 6 jobs in jobs/hot done, 1 missing, 1 unconverged" in view.next.why.value
    assert folders[4].name in pane.found.value
    assert "unconverged" in pane.found.value
    assert folders[0].name not in pane.found.value, "a line for those that are not done"
    assert visible(view, "Add 4 labels to data")
    assert "write('selections/dft_hot.extxyz'" in view._panel("code")
    # Later ones are taken along when they are collected before.
    compute(folders[5], 5)
    pane.collect_button.click()
    assert visible(view, "Add 5 labels to data")
    view.act()
    labels = read("selections/dft_hot.extxyz")
    assert labels.uids.tolist() == [uid for k, uid in enumerate(picked.frames.uids.tolist()) if k != 4]
    order = json.loads((folders[1] / JOB).read_text())["permutation"]
    forces = np.empty((9, 3))
    forces[order] = np.round(np.arange(27.0).reshape(-1, 3) / 100 + 1, 6)
    assert np.array_equal(np.asarray(labels.forces)[9:18], forces), "in the order of the frame's atoms"
    assert view.step.action == "train_on"
    assert "the two must not be mixed" in view.next.why.value
    spec = view.step.spec
    assert isinstance(spec, FinetuneSpec)
    assert spec == train_step(hot, "selections/dft_hot.extxyz", level=OwnJobs(Path("jobs/hot")).level)
    assert spec.data == ["selections/dft_hot.extxyz@1:"], "not beside labels of another level"
    assert spec.validation == ["selections/dft_hot.extxyz@:1"]
    assert spec.recipe.shifts == "fit"
    launched = []

    def launch(spec, **_options):
        launched.append(spec)
        raise OSError("enough")

    monkeypatch.setattr(next_actions, "launch", launch)
    view.act()
    assert launched == [spec]
    view.close()


def test_labels_of_the_same_level_go_beside_the_old_training_set(hot: Run) -> None:
    level = "GFN2-xTB (electrons at 300 K, free energy), accuracy 0.01"
    spec = train_step(hot, "selections/dft_hot.extxyz", level=level)
    assert spec == train_step(hot, "selections/dft_hot.extxyz")
    assert spec.recipe.shifts == "keep"
    assert spec.data[0].startswith("sample:ethanol_300K")


def test_jobs_can_be_put_away_and_are_of_one_simulation(bench: Workbench, hot: Run) -> None:
    vasp_template(Path("inputs"), ("C", "O", "H"))
    pane = bench.actions.own.pane
    pane.template.value, pane.box.value = "inputs", "12"
    bench.act()
    jobs = bench.memory.jobs
    assert [(one.run, one.n) for one in jobs] == [("hot", 6)]
    assert next_step(runs_in("runs"), seen={hot.folder}, jobs=jobs).action == "collect"
    other = [OwnJobs(jobs[0].folder, "another simulation")]
    assert next_step(runs_in("runs"), seen={hot.folder}, jobs=other).action == "select"
    pane.forget_button.click()
    assert bench.step.action == "select"
    assert pane.layout.display == "none"
    assert len(job_folders()) == 6, "the folder stays"


def test_a_damaged_record_of_jobs_locks_nobody_out(bench: Workbench) -> None:
    vasp_template(Path("inputs"), ("C", "O", "H"))
    pane = bench.actions.own.pane
    pane.template.value, pane.box.value = "inputs", "12"
    bench.act()
    for text in ("{torn", '{"counts": 5}', '{"counts": {"done": 6}, "jobs": "all", "maker": []}'):
        Path("jobs/hot/collected.json").write_text(text)
        bench.refresh()
        assert bench.step.action == "collect"
    bench.act()
    assert "6 missing" in bench.next.why.value


def test_adding_twice_overwrites_nothing(bench: Workbench) -> None:
    vasp_template(Path("inputs"), ("C", "O", "H"))
    pane = bench.actions.own.pane
    pane.template.value, pane.box.value = "inputs", "12"
    bench.act()
    folders = job_folders()
    compute(folders[0], 0)
    bench.act()
    bench.act()
    assert bench.step.action == "train_on"
    compute(folders[1], 1)
    pane.collect_button.click()
    assert bench.step.action == "add"
    bench.act()
    assert len(read("selections/dft_hot.extxyz")) == 1
    assert len(read("selections/dft_hot_2.extxyz")) == 2
    assert bench.memory.jobs[0].added == "selections/dft_hot_2.extxyz"
