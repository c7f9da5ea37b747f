"""01_your_own_potential with files that a user brings: three lines are changed, everything else follows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import own_data
import pytest
from nbclient.exceptions import CellExecutionError
from test_notebooks import execute, quick

import mlipkit as mk

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "01_your_own_potential.ipynb"
MARKS = ("← 1", "← 2", "← 3")

pytestmark = pytest.mark.full


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    return tmp_path


def with_lines(*lines: str) -> nbformat.NotebookNode:
    """The quick notebook with the three marked lines replaced, and nothing else."""
    notebook = quick(NOTEBOOK)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    old = cell.source.split("\n")
    marked = [next(i for i, line in enumerate(old) if mark in line) for mark in MARKS]
    for row, line in zip(marked, lines, strict=True):
        assert old[row].partition(" = ")[0] == line.partition(" = ")[0]
        old[row] = line
    cell.source = "\n".join(old)
    return notebook


def run(place: Path, name: str) -> mk.Run:
    return mk.open(place / "runs" / name).wait(timeout=200)


def test_extxyz_without_a_calculator(place: Path):
    own_data.extxyz(place / "mine.extxyz")
    execute(with_lines('data = "mine.extxyz"', "calculator = None", "temperature = 250"), place)
    training, md = run(place, "own_potential"), run(place, "own_md")
    assert training.state == "completed", training.reason
    assert training.files.parity.is_file()
    assert md.state in ("completed", "failed"), md.reason
    assert md.spec.temperature == 250
    assert np.abs(md.trajectory()[-1].positions - md.trajectory()[0].positions).max() > 0.05
    assert not (place / "runs" / "own_check").exists()


def test_outcar_with_a_calculator_of_ones_own(place: Path):
    (place / "calc.py").write_text(own_data.CALCULATOR)
    own_data.outcar(place / "OUTCAR")
    execute(with_lines('data = "OUTCAR"', 'calculator = "calc.py:make"', "temperature = 400"), place)
    md, check = run(place, "own_md"), run(place, "own_check")
    assert md.state in ("completed", "failed"), md.reason
    assert md.trajectory()[-1].pbc.all()
    assert check.state == "completed", check.reason
    labelled, frames = mk.read(check.folder / "labelled.extxyz"), mk.read(md.folder / "trajectory.traj@::10")
    assert len(labelled) == len(frames)
    # EMT itself on the same frames, and something else than the potential said.
    assert np.allclose(labelled.positions, frames.positions, atol=1e-6)
    assert not np.allclose(labelled.forces, frames.forces, atol=1e-3)


def test_frames_without_labels_are_labelled_first(place: Path):
    (place / "calc.py").write_text(own_data.CALCULATOR)
    images = own_data.hot_copper(12)
    for image in images:
        image.info.clear()
        del image.arrays["forces"]
    from ase.io import write

    write(place / "bare.xyz", images, format="extxyz")
    execute(with_lines('data = "bare.xyz"', 'calculator = "calc.py:make"', "temperature = 300"), place)
    assert run(place, "own_labels").state == "completed"
    training = run(place, "own_potential")
    assert training.state == "completed", training.reason
    assert sum(training.facts()["frames"].values()) == 12
    run(place, "own_check")


@pytest.mark.parametrize(
    ("line", "content", "said"),
    [
        ('data = "mine.xyz"', None, "mine.xyz: no such file"),
        ('data = "mine.xyz"', "", "mine.xyz: the file is empty"),
        ('data = "mine.xyz"', "2\n\nH 0 0 0\nH 0 0 nan\n", "mine.xyz: frame 0"),
        ('data = "mine.xyz"', "2\n\nH 0 0 0\nH 0 0 0.8\n", "mine.xyz: not every frame has energy and forces"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(place: Path, line: str, content: str | None, said: str):
    if content is not None:
        (place / "mine.xyz").write_text(content)
    notebook = with_lines(line, "calculator = None", "temperature = 300")
    with pytest.raises(CellExecutionError):
        execute(notebook, place)
    (error,) = [out for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    assert said in error.evalue
    assert error.traceback == [f"{error.ename}: {error.evalue}"]
    assert "\n" not in error.evalue
    assert not (place / "runs").exists()
