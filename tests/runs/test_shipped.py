"""Recordings: small, of no machine, what their notebooks launch, and run here with all that they build on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import mlipkit as mk
from mlipkit.errors import RunError
from mlipkit.runs import LabelSpec, MDSpec, Run, launch, recording, recordings, run_here, shipped
from mlipkit.runs.family import runs_in
from mlipkit.runs.shipped import record, recorded_on, run_of_recording

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "notebooks" / "recorded"
MACHINE = re.compile(r"(^|[\"'\s=])(/(tmp|work|home|root|Users|opt|var)\b)|\bvm\b")
QUICK = {"potential": "calc.py:emt", "start": "calc.py:cluster", "temperature": 300, "stride": 5}


def test_recordings_are_whole_and_of_no_machine():
    names = recordings()
    assert {"00_start_here/ethanol_1000_900K", "01_your_own_potential/own_md"} <= set(names)
    for name in names:
        run = recording(name)
        assert run.state in ("completed", "failed"), name
        assert re.fullmatch(r"\d{1,2} [A-Z][a-z]+ 20\d\d", recorded_on(run))
        assert run.series_names()
        for file in run.folder.rglob("*"):
            if file.suffix in (".yaml", ".json", ".jsonl"):
                assert not MACHINE.search(file.read_text()), f"{name}: {file.name}"
    assert recording("00_start_here/ethanol_1000_900K").verdict.outcome == "failed"


def test_recordings_stay_small():
    assert sum(file.stat().st_size for file in RECORDED.rglob("*") if file.is_file()) < 8e6


def test_an_unknown_recording_names_the_known_ones():
    with pytest.raises(RunError, match="did you mean '01_your_own_potential/own_md'"):
        recording("01_your_own_potential/own_mad")


def launched(notebook: str) -> list:
    """The specifications that the cells of a notebook launch in full length."""
    specs: list = []

    class Mk:
        """mlipkit with a `launch` that launches nothing."""

        def __getattr__(self, name):
            return getattr(mk, name)

        def launch(self, spec):
            specs.append(spec)
            return Path("runs", spec.name)

    space: dict = {"mk": Mk(), "quick": False}
    for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            exec(cell.source, space)
        if cell.cell_type == "code" and "mk.launch(" in cell.source:
            space.setdefault("training_data", space.get("data"))
            lines = cell.source.split("\n")
            ends = [i for i, line in enumerate(lines) if line in ("))", "]")]
            if ends and not lines[0].startswith(("if", "from")):
                exec("\n".join(lines[: ends[-1] + 1]), space)
    return specs


@pytest.mark.parametrize("notebook", sorted({name.split("/")[0] for name in recordings()}))
def test_a_recording_is_what_its_notebook_launches(notebook: str):
    """So that "Run here" and the cell open one run."""
    known = {spec.name: spec for spec in launched(notebook)}
    for name in recordings():
        if name.startswith(f"{notebook}/"):
            spec = recording(name).spec
            assert known[spec.name] == spec, name


def test_the_recipe_makes_what_is_shipped():
    file = ROOT / "benchmarks" / "samples" / "recordings.py"
    recipe = importlib.util.module_from_spec(module := importlib.util.spec_from_file_location("recipe", file))
    module.loader.exec_module(recipe)
    made = {f"{notebook}/{spec.name}": spec for notebook, specs in recipe.SPECS.items() for spec in specs}
    assert set(made) == set(recordings())
    for name, spec in made.items():
        assert recording(name).spec == spec


@pytest.fixture
def two(work: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Recordings of a simulation and of one that goes on from it; the second."""
    first = launch(MDSpec(**QUICK, steps=20, name="first"), root="elsewhere")
    second = launch(MDSpec(**{**QUICK, "start": "elsewhere/first"}, steps=10, name="second"), root="elsewhere")
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


@pytest.mark.full
def test_frames_of_a_failed_simulation_can_be_labelled(work: Path):
    failed = launch(MDSpec(**QUICK, steps=200, name="failed", checks={"max_force": 0.4}))
    labels = launch(LabelSpec(data=failed, maker="calc.py:emt", name="labels"))  # type: ignore[arg-type]
    assert failed.wait(60).state == "failed"
    assert labels.wait(60).state == "completed", labels.reason
    assert any("failed; its frames are labelled" in getattr(event, "text", "") for event in labels.events())


def test_a_recording_is_on_screen_soon_and_without_torch():
    """In CPU time, as tests share the machine: interpreter, imports, files and widgets together."""
    code = (
        "import sys, time; from mlipkit_widgets import Recorded; view = Recorded('00_start_here/ethanol_1000_900K')\n"
        "assert view.header.title.startswith('Recorded on '), view.header.title\n"
        "assert view.view.curves.rows > 100 and view.view.atoms is not None\n"
        "print('torch' in sys.modules, time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    torch, seconds = out.stdout.split()
    assert torch == "False"
    assert float(seconds) < 3.0
