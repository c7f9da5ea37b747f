"""Every notebook runs from top to bottom without clicks, with smaller numbers, and again without starting anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest

import mlipkit as mk
from mlipkit_widgets.first_cell import FIRST_CELL

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def quick(path: Path) -> nbformat.NotebookNode:
    """The notebook with `quick = True` in its parameters cell."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1, f"{path.name}: exactly one cell is tagged 'parameters'"
    changed = cells[0].source.replace("quick = False", "quick = True")
    assert changed != cells[0].source, f"{path.name}: no 'quick = False' in the parameters cell"
    cells[0].source = changed
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run all cells in a kernel of this Python."""
    from nbclient import NotebookClient

    notebook.metadata["kernelspec"]["name"] = "python3"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def said(notebook: nbformat.NotebookNode) -> str:
    """All that cells have printed."""
    return "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))


def test_there_are_notebooks():
    assert NOTEBOOKS
    assert NOTEBOOKS[0].name == "00_start_here.ipynb"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_clean(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "mlipkit"
    assert "widgets" not in notebook.metadata, "widget state is stored in the file"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.strip() == FIRST_CELL.strip(), "the first cell does not check the kernel"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, "outputs are stored in the file"
            assert cell.execution_count is None


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_a_second_time_starts_nothing(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MLIPKIT_CACHE", str(tmp_path / "cache"))
    # Its runs wait for nobody else's.
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    published = (Path(os.environ.get("MLIPKIT_DATA", tmp_path)) / "chclca_bias").is_dir()
    notebook = execute(quick(path), tmp_path)
    told = said(notebook)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    runs = [mk.open(spec.parent) for spec in sorted((tmp_path / "runs").glob("*/spec.yaml"))]
    assert runs
    ends = {}
    for run in runs:
        assert run.wait(timeout=120).state in ("completed", "failed"), (run.name, run.state, run.reason)
        ends[run.name] = (run.entries()[-1].seq, run.files.read("pid.json")["pid"])
    # Nor does it need data that do not come with the package.
    monkeypatch.delenv("MLIPKIT_DATA", raising=False)
    bare = said(execute(quick(path), tmp_path))
    again = [mk.open(spec.parent) for spec in sorted((tmp_path / "runs").glob("*/spec.yaml"))]
    assert {run.name: (run.entries()[-1].seq, run.files.read("pid.json")["pid"]) for run in again} == ends
    if path.stem == "03_explore_a_shift":
        assert "are not on this machine" in bare
        assert ("(23.00, 18.82, 11.64, 8.59, 6.86)" in told) == published
        assert "(23.00" not in bare
    if path.stem == "04_naive_vs_iterative":
        assert "sampling, energies on independent frames" in told
        assert "are not on this machine" in bare
        assert ("U    less the constant of its 50 naive frames: RMSE  16.28 ->  2.88" in told) == published
        assert "16.28" not in bare
    if path.stem == "05_close_the_loop":
        assert told.count("log-rank p = ") == bare.count("log-rank p = ") == 3
        assert "10 of 10 frames labelled" in told
    if path.stem == "06_dynamic_training":
        # The verdict comes first, and says how little one seed is.
        first = "roll-outs against single frames, at equal work: "
        judged = [line for line in told.splitlines() if line.startswith(first)]
        assert len(judged) == 1
        assert "one seed says nothing of other seeds" in judged[0]
        work = {line.split()[0]: int(line.split()[1]) for line in told.splitlines() if line.count("meV/Å") == 2}
        assert work["roll_outs"] == work["control"] == 4 * work["single_frames"]
        assert judged[0] in bare
    if path.stem == "07_taip":
        lines = [line for line in told.splitlines() if "error ratio" in line]
        assert len(lines) == 9, "three questions, three test sets out of distribution"
        assert all("undecided" in line for line in lines), "one seed says nothing of other seeds"
        assert sum("Random step" in line and "'off'" in line for line in lines) == 3
        assert all(line in bare for line in lines)
    if path.stem == "08_ipip":
        # The verdict comes first; all arms have the same steps, and rounds are counted from the one-shot one.
        assert "Iterative pretraining, forces on test frames: " in told
        assert "one seed says nothing of other seeds" in told
        assert "Equal budgets: 40 gradient steps in every student's arm" in told
        assert told.count(" meV/Å\n") == 4, "two loops of two rounds"


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_wrong_kernel_is_named_in_one_sentence(path: Path, tmp_path: Path):
    """The first code cell, run by a Python that cannot import mlipkit."""
    import subprocess

    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    file = tmp_path / "cell.py"
    # -S: no site-packages, hence neither mlipkit nor anything it needs.
    file.write_text(first.source)
    out = subprocess.run([sys.executable, "-S", str(file)], capture_output=True, text=True, cwd=tmp_path)
    said = (out.stdout + out.stderr).strip()
    assert out.returncode != 0 or said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert "mlipkit lab" in said
    assert "kernel" in said
