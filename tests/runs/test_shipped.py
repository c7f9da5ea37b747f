"""Recordings: small, of no machine, what their notebooks launch, and run here with all that they build on."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import mlipkit as mk
from mlipkit.errors import RunError
from mlipkit.runs import LabelSpec, MDSpec, Run, launch, recording, recordings, run_here, shipped
from mlipkit.runs.family import parents, runs_in
from mlipkit.runs.frames import RunFrames
from mlipkit.runs.places import split_place
from mlipkit.runs.record_run import record
from mlipkit.runs.shipped import exhibit, exhibits, kept_every, recorded_on, run_of_recording

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "notebooks" / "recorded"
MACHINE = re.compile(r"(^|[\"'\s=])(/(tmp|work|home|root|Users|opt|var)\b)|\bvm\b")
QUICK = {"potential": "calc.py:emt", "start": "calc.py:cluster", "temperature": 300, "stride": 5}


def test_recordings_are_whole_and_of_no_machine():
    names = recordings()
    notebooks = {path.stem: path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")}
    shown = {name for name, text in notebooks.items() if "Recorded(" in text}
    assert {name.split("/")[0] for name in names} == shown
    assert len(shown) >= 5
    for name in names:
        run = recording(name)
        assert run.state in ("completed", "failed"), name
        assert re.fullmatch(r"\d{1,2} [A-Z][a-z]+ 20\d\d", recorded_on(run))
        assert run.kind in ("label", "workflow", "ipip", "taip") or run.series_names(0)
        for file in run.folder.rglob("*"):
            if file.suffix in (".yaml", ".json", ".jsonl"):
                assert not MACHINE.search(file.read_text()), f"{name}: {file.name}"
    assert recording("00_start_here/ethanol_1000_900K").verdict.outcome == "failed"


def test_recordings_stay_small():
    assert sum(file.stat().st_size for file in RECORDED.rglob("*") if file.is_file()) < 8e6


def test_an_unknown_recording_names_the_known_ones():
    with pytest.raises(RunError, match="did you mean '01_your_own_potential/own_md'"):
        recording("01_your_own_potential/own_mad")


WANTED = ("mk.launch(", "frames = read_source(", "usual =")
"""What a specification is made from: cells are carried out up to the last line with one of these."""


def launched(notebook: str, folder: Path) -> list:
    """The specifications that the cells of a notebook launch in full length; what it launched is that of `folder`."""
    specs: list = []

    class Mk:
        """mlipkit with a `launch` that launches nothing."""

        def __getattr__(self, name):
            return getattr(mk, name)

        def launch(self, spec):
            specs.append(spec)
            made = folder / "runs" / (spec.name or spec.default_name)
            return Run(made) if made.is_dir() else made

    space: dict = {"mk": Mk(), "quick": False}
    for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            continue
        if "parameters" in cell.metadata.get("tags", []):
            exec(cell.source, space)
        body = ast.parse(cell.source.replace("await ", "")).body
        ends = [i for i, line in enumerate(body) if any(word in ast.unparse(line) for word in WANTED)]
        if ends:
            # A view at the end of a cell, and what is only said, are left out.
            lines = [line for line in body[: ends[-1] + 1] if not isinstance(line, ast.Expr | ast.If)]
            exec("\n".join(map(ast.unparse, lines)), space)
    return specs


@pytest.mark.full
@pytest.mark.parametrize("notebook", sorted({name.split("/")[0] for name in recordings()}))
def test_a_recording_is_what_its_notebook_launches(notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that "Run here" and the cell open one run."""
    folder = Path(shutil.copytree(RECORDED / notebook, tmp_path / notebook))
    monkeypatch.chdir(folder)
    known = {spec.name or spec.default_name: spec for spec in launched(notebook, folder)}
    for name in recordings():
        if name.startswith(f"{notebook}/"):
            mine = known[name.split("/")[1]].to_yaml().replace(f"{folder}/", "")
            assert mine == recording(name).spec.to_yaml(), name


@pytest.mark.parametrize("name", exhibits())
def test_what_a_notebook_shows_together_is_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown = exhibit(name)
    assert {f"{name}/{run.name}" for run in shown.runs} == {one for one in recordings() if one.startswith(f"{name}/")}
    assert shown.first
    for place in shown.sets.values():
        assert place.startswith("sample:") or Run(shown.folder / place).name in {run.name for run in shown.runs}
    names = [run.name for run in shown.runs]
    assert all(one in names for one in shown.compared)
    # Every run that another one reads is beside it, and known as such.
    for run in shown.runs:
        for _, text in run.spec.places():
            if text.startswith("runs/"):
                assert split_place(text)[0].removeprefix("runs/") in {one.name for one in map(Run, parents(run))}


def test_the_recipe_makes_what_is_shipped():
    file = ROOT / "benchmarks" / "samples" / "recordings.py"
    recipe = importlib.util.module_from_spec(module := importlib.util.spec_from_file_location("recipe", file))
    sys.modules["recipe"] = recipe
    module.loader.exec_module(recipe)
    assert {f"{notebook}/{run}" for notebook, one in recipe.RECIPES.items() for run in one.runs} == set(recordings())
    for notebook, one in recipe.RECIPES.items():
        assert all((RECORDED / notebook / name).is_file() for name in one.inputs)
        for run in (recording(f"{notebook}/{name}") for name in one.runs):
            assert kept_every(run) == (one.every if any(run.folder.glob("**/trajectory.traj")) else 1), run.name
        if one.shown:
            assert json.loads((RECORDED / notebook / "shown.json").read_text()) == one.shown


@pytest.fixture
def two(work: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Recordings of a simulation and of one that goes on from it; the second."""
    (work / "elsewhere").mkdir()
    shutil.copy("calc.py", "elsewhere")
    monkeypatch.chdir("elsewhere")
    first = launch(MDSpec(**QUICK, steps=20, name="first"))
    second = launch(MDSpec(**{**QUICK, "start": "runs/first"}, steps=10, name="second"))
    monkeypatch.chdir(work)
    assert second.wait(90).state == "completed", second.reason
    for run in (first, second):
        made = record(run, work / "shipped" / "nn_two")
        assert not (made / "checkpoints").exists()
        assert not (made / "log.txt").exists()
    monkeypatch.setattr(shipped, "_root", lambda: work / "shipped")
    return recording("nn_two/second")


@pytest.mark.full
def test_run_here_runs_what_it_builds_on_first(two: Run, work: Path):
    assert recorded_on(two)
    assert two.trajectory()[-1].positions.shape == (6, 3)
    assert run_of_recording(two) is None
    mine = run_here(two)
    assert mine.folder == work / "runs" / "second"
    assert mine.wait(90).state == "completed", mine.reason
    assert recorded_on(mine) == ""
    assert [run.name for run in runs_in(work / "runs")] == ["first", "second"]
    assert mine.spec.start == str(work / "runs" / "first")
    # Asked for again it is opened again.
    assert run_here(two) == mine
    assert run_of_recording(two) == mine
    assert len(runs_in(work / "runs")) == 2
    with pytest.raises(RunError, match="is no recording"):
        run_here(mine)
    with pytest.raises(RunError, match="the folder exists"):
        record(mine, work / "shipped" / "nn_two")


def test_run_here_brings_the_files_that_its_notebook_makes(work: Path, monkeypatch: pytest.MonkeyPatch):
    from ase.build import molecule
    from ase.io import read, write

    write("start.xyz", molecule("CO"))
    run = launch(MDSpec(**{**QUICK, "start": "start.xyz"}, steps=5, name="short"))
    assert run.wait(60).state == "completed", run.reason
    record(run, work / "shipped" / "nn_one")
    shutil.copy("start.xyz", work / "shipped" / "nn_one")
    monkeypatch.setattr(shipped, "_root", lambda: work / "shipped")
    (work / "elsewhere").mkdir()
    shutil.copy("calc.py", "elsewhere")
    monkeypatch.chdir("elsewhere")
    mine = run_here(recording("nn_one/short"))
    assert mine.wait(60).state == "completed", mine.reason
    assert Path("start.xyz").is_file()
    # One's own file stays.
    write("start.xyz", molecule("N2"))
    run_here(recording("nn_one/short"), root="other")
    assert str(read("start.xyz").symbols) == "N2"


def test_of_a_thinned_recording_all_that_is_kept_is_as_it_was(work: Path):
    run = launch(MDSpec(**QUICK, steps=200, name="one", replicas=2, checks={"max_force": 2.0}))
    assert run.wait(90).state == "failed", run.reason
    made = Run(record(run, work / "kept", every=4, last=3))
    assert kept_every(made) == 4
    assert recorded_on(made)
    assert [(one.fate, one.time) for one in made.replicas] == [(one.fate, one.time) for one in run.replicas]
    assert {one.fate for one in made.replicas} == {"held", "failed"}
    with pytest.raises(RunError, match="would leave out the last step"):
        record(run, work / "other", every=3)
    for number, replica in enumerate(run.replicas):
        whole, part = (RunFrames(each.replica_folder(number)) for each in (run, made))
        assert whole.refresh()
        assert part.refresh()
        stored = [one.info["step"] for one in part]
        assert [part.step(i) for i in range(len(part))] == stored
        assert stored == sorted(set(stored))
        by_step = {one.info["step"]: one for one in whole}
        assert set(stored) <= set(by_step)
        assert len(part) < len(whole) / 2
        for one in part:
            other = by_step[one.info["step"]]
            assert np.array_equal(one.positions, other.positions)
            assert np.array_equal(one.get_momenta(), other.get_momenta())
            assert np.array_equal(one.get_forces(), other.get_forces())
            assert one.get_potential_energy() == other.get_potential_energy()
        if replica.failed:
            assert stored[-1] == whole[-1].info["step"]
            assert part.first_last_step < len(part)
        one, other = (each.series("md", number).read() for each in (run, made))
        assert all(np.array_equal(one[name][::4], other[name]) for name in one)


@pytest.mark.full
def test_frames_of_a_failed_simulation_can_be_labelled(work: Path):
    failed = launch(MDSpec(**QUICK, steps=200, name="failed", checks={"max_force": 0.4}))
    labels = launch(LabelSpec(data=failed, maker="calc.py:emt", name="labels"))  # type: ignore[arg-type]
    assert failed.wait(60).state == "failed"
    assert labels.wait(60).state == "completed", labels.reason
    assert any("failed; its frames are labelled" in getattr(event, "text", "") for event in labels.events())


@pytest.mark.parametrize(("name", "holds"), [
    ("00_start_here/ethanol_1000_900K", "view.view.curves.rows > 100 and view.view.atoms is not None"),
    ("03_explore_a_shift", "view.view.data.n_points == 3105 and view.view.bonds.plot.n_points"),
    ("05_close_the_loop", "view.view.view.atoms is not None"),
    ("07_taip", "len(view.view.evaluations.panes[0].maps.shown[0]) == 6 and "
     "all('Adaptation: ' in pane.verdict.value for pane in view.view.evaluations.panes)"),
    ("08_ipip", "view.view.pane.compared.value is not None and view.view.round == 3"),
])  # fmt: skip
def test_a_recording_is_on_screen_soon_and_without_torch(name: str, holds: str):
    """In CPU time, as tests share the machine: interpreter, imports, files and widgets together."""
    code = (
        f"import sys, time; from mlipkit_widgets import Recorded; view = Recorded({name!r})\n"
        "assert view.header.title.startswith('Recorded on '), view.header.title\n"
        f"assert {holds}\n"
        "print('torch' in sys.modules, time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    torch, seconds = out.stdout.split()
    assert torch == "False"
    assert float(seconds) < 3.0
