"""An installation that only opens runs: without torch every kind of recorded run opens, with its views and report."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlipkit.events import Finished, Started
from mlipkit.runs import FinetuneSpec, LabelSpec, RelaxSpec, Run, recording
from mlipkit.runs.folder import RunFolder, write_text
from mlipkit.runs.spec import KINDS, IPIPSpec, TaipSpec

ROOT = Path(__file__).resolve().parent
BLOCKED = (
    "import sys\n"
    "for name in ('torch', 'lightning_fabric', 'sevenn', 'chgnet', 'so3krates_torch'):\n"
    "    sys.modules[name] = None\n"
)
OPENING = """
import sys
from pathlib import Path
import mlipkit as mk
import mlipkit_widgets as views
from mlipkit.runs import runs_in, next_step
VIEWS = {"md": "MDView", "train": "TrainingMonitor", "finetune": "TrainingMonitor", "label": "LabelView",
         "workflow": "WorkflowView", "dynamic": "TrainingMonitor"}
for folder in sorted(Path("runs").iterdir()):
    run = mk.open(folder)
    assert run.state in ("completed", "failed"), (run.name, run.state)
    assert run.sentence and run._repr_html_()
    assert run.report().stat().st_size > 1000
    print(run.kind)
    if run.kind in VIEWS:
        view = getattr(views, VIEWS[run.kind])(run)
        assert view.refresh() == run.state, run.name
        view.close()
table = views.RunList("runs")
assert len(table.runs) == len(list(Path("runs").iterdir()))
assert next_step(runs_in("runs")).words
assert len(mk.samples.load("ethanol_300K")) == 1000
assert "torch" not in [name for name, module in sys.modules.items() if module is not None]
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a run of every kind."""
    monkeypatch.syspath_prepend(str(ROOT / "widgets"))
    monkeypatch.syspath_prepend(str(ROOT))
    from recorded import RecordedMD, RecordedReplicas, log, recorded_training
    from workflow_folders import recorded, workflow

    from mlipkit.data import samples, write

    (tmp_path / "runs").mkdir()
    RecordedMD(tmp_path / "runs" / "md", steps=400, fails_at=300).fail()
    RecordedReplicas(tmp_path / "runs" / "replicas", 3, {1: 200}, steps=400).finish()
    recorded_training(tmp_path / "runs" / "train")
    frames = samples.load("ethanol_300K")[:4]
    made = {
        "finetune": FinetuneSpec(data="sample:ethanol_300K", potential="sample:ethanol_50"),
        "label": LabelSpec(data="sample:ethanol_300K@:4"),
        "relax": RelaxSpec(start="sample:ethanol_300K@0", potential="sample:ethanol_50"),
        "taip": TaipSpec(data="sample:ethanol_300K", shifted="sample:ethanol_600K"),
        "ipip": IPIPSpec(data="sample:ethanol_300K"),
    }
    for name, spec in made.items():
        files = RunFolder(tmp_path / "runs" / name)
        files.path.mkdir()
        write_text(files.spec, spec.to_yaml())
        log(files, Started(name, 4), Finished("completed", "done", {"asked": 4, "labelled": 4, "failed_frames": 0}))
    write(tmp_path / "runs" / "label" / "labelled.extxyz", frames)
    folder = tmp_path / "runs" / "workflow"
    shutil.copytree(recording("06_dynamic_training/roll_outs_0").folder, tmp_path / "runs" / "dynamic")
    assert workflow(folder, "naive").state == "completed"
    recorded(folder, Started("naive", 3), Finished("completed", "evaluated"))
    return tmp_path


def blocked(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], cwd=folder, capture_output=True, text=True)


@pytest.mark.full
def test_every_kind_of_run_opens_with_views_and_report(runs: Path):
    kinds = {Run(folder).kind for folder in (runs / "runs").iterdir()}
    assert kinds == set(KINDS)
    done = blocked(OPENING, runs)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == kinds


@pytest.mark.full
def test_the_command_opens_a_run_and_writes_its_report(runs: Path):
    done = blocked("from mlipkit.cli import main\nmain(['open', 'runs/md', '--report'])", runs)
    assert done.returncode == 3, done.stderr  # the simulation failed, as it says
    assert (runs / "runs" / "md" / "report.html").is_file()
    said = blocked("from mlipkit.cli import main\nmain(['what', 'sample:ethanol_300K'])", runs)
    assert said.returncode == 0, said.stderr
    assert 'pip install "mlipkit[compute]"' in said.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    "code",
    [
        "mk.load('sample:ethanol_50')",
        "mk.predict",
        "mk.Potential",
        "mk.launch(mk.MDSpec())",
        "from mlipkit.runs import estimate; estimate(mk.MDSpec())",
        "import mlipkit.training",
        "import mlipkit.md",
        "from mlipkit.ops import message",
        "from mlipkit.strategies import finetuning; finetuning.finetune",
        "from mlipkit.data import Graph",
    ],
)
def test_what_computes_says_what_to_install(code: str, tmp_path: Path):
    done = blocked(f"import mlipkit as mk\n{code}\n", tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mlipkit.errors.MissingPackageError"), last
    assert last.endswith("needs the package 'torch', which is not installed. "
                         'Install it with: pip install "mlipkit[compute]"'), last  # fmt: skip
    assert not (tmp_path / "runs").exists()


def test_the_command_says_it_in_one_line(tmp_path: Path):
    done = blocked("from mlipkit.cli import main\nmain(['md'])", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("mlipkit: computing a run needs the package 'torch'")
