"""Frames out as folders of VASP and CP2K inputs, and the labels of what comes back."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read as ase_read
from dft_text import CP2K_INPUT, INCAR, KPOINTS, Run, cp2k_log, cp2k_template, outcar, potcar, vasp_template, vasprun

from mlipkit.data import FrameSet, Selection, export_jobs, read, write
from mlipkit.data.jobs import vasp_input
from mlipkit.data.jobs.folder import JOB, MANIFEST
from mlipkit.errors import DataError
from mlipkit.labelling import collect, label_maker, read_records

CELL = np.array([[8.0, 0.0, 0.0], [1.0, 9.0, 0.0], [0.5, -0.5, 10.0]])


def waters(count: int, molecules: int = 2, seed: int = 0) -> FrameSet:
    """Water molecules as H O H H O H ...: elements interleaved, atoms in neighbouring images of the cell."""
    random = np.random.default_rng(seed)
    one = np.array([[0.76, 0.59, 0.0], [0.0, 0.0, 0.0], [-0.76, 0.59, 0.0]])
    images = []
    for k in range(count):
        places = np.concatenate([one + np.array([0.0, 0.0, 3.0 * m]) for m in range(molecules)])
        places += random.normal(0.0, 0.1, places.shape)
        images.append(Atoms("HOH" * molecules, places, cell=CELL, pbc=True, info={"time_fs": 10.0 * k}))
    return FrameSet.from_atoms(images, source="water")


def forces_of(row: int, n: int) -> np.ndarray:
    """Forces with the digits of an OUTCAR, other ones for every atom of every frame."""
    return np.round(np.random.default_rng(100 + row).normal(0.0, 1.0, (n, 3)), 6)


def run_of(folder: Path, row: int) -> Run:
    """The calculation of a job: what its POSCAR holds, with the forces of that frame in the order of the POSCAR."""
    atoms = ase_read(folder / "POSCAR", format="vasp")
    order = json.loads((folder / JOB).read_text())["permutation"]
    return Run(atoms.numbers, atoms.positions, atoms.cell.array, forces_of(row, len(atoms))[order],
               energy=-14.2 - row, zero=-14.1 - row)  # fmt: skip


@pytest.fixture
def frames() -> FrameSet:
    return waters(4)


@pytest.fixture
def exported(tmp_path: Path, frames: FrameSet) -> Path:
    export_jobs(frames, tmp_path / "dft", vasp_template(tmp_path / "template"))
    return tmp_path / "dft"


def jobs_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / JOB).is_file())


def states(folder: Path, **options) -> list[str]:
    return [job.state for job in collect(folder, **options).jobs]


# ---- the writers of this file's outputs are held to ASE's readers


@pytest.mark.parametrize(("writer", "format"), [(outcar, "vasp-out"), (vasprun, "vasp-xml")])
def test_ase_reads_the_synthetic_outputs(tmp_path: Path, exported: Path, writer, format: str) -> None:
    run = run_of(jobs_of(exported)[0], 0)
    path = tmp_path / "output"
    path.write_text(writer(run))
    found = ase_read(path, format=format)
    assert found.get_chemical_symbols() == ["O", "O", "H", "H", "H", "H"]
    assert np.array_equal(found.calc.results["forces"], run.forces)
    assert found.calc.results["free_energy"] == run.energy
    assert found.get_stress(voigt=False) == pytest.approx(run.stress, abs=1e-8)


# ---- export


def test_a_job_holds_the_users_files_the_structure_and_what_it_is(tmp_path: Path, frames: FrameSet) -> None:
    template = vasp_template(tmp_path / "template")
    done = export_jobs(frames, tmp_path / "dft", template)
    folders = jobs_of(tmp_path / "dft")
    assert [folder.name for folder in folders] == list(done.new)
    assert done.sentence == f"4 VASP jobs in {tmp_path / 'dft'}: 4 new, 0 as they were"
    for row, folder in enumerate(folders):
        for name in ("INCAR", "KPOINTS", "POTCAR", "job.sh"):
            assert (folder / name).read_bytes() == (template / name).read_bytes()
        assert os.access(folder / "job.sh", os.X_OK)
        record = json.loads((folder / JOB).read_text())
        assert record["uid"] == frames.uid(row)
        atoms = ase_read(folder / "POSCAR", format="vasp")
        assert atoms.get_chemical_symbols() == ["O", "O", "H", "H", "H", "H"], "order of the POTCAR"
        assert np.array_equal(atoms.positions, frames.frame(row)["positions"][record["permutation"]]), "every bit"
        assert np.array_equal(atoms.cell.array, CELL)


def test_permutation_round_trip() -> None:
    numbers = np.random.default_rng(0).choice([1, 8, 6], 50)
    order = vasp_input.atom_order(numbers, ["C", "H", "O"])
    assert sorted(order.tolist()) == list(range(50))
    assert [int(z) for z in numbers[order]] == sorted(numbers.tolist(), key=[6, 1, 8].index)
    back = np.empty(50, int)
    back[order] = numbers[order]
    assert np.array_equal(back, numbers)
    assert all(np.diff(order[numbers[order] == z]).min() > 0 for z in (1, 6, 8)), "atoms of an element stay in order"


def test_the_selection_exports_its_frames(tmp_path: Path, frames: FrameSet) -> None:
    picked = Selection.of(frames, rows=[3, 1], tag="rare")
    picked.export_jobs(tmp_path / "dft", frames, template=vasp_template(tmp_path / "template"))
    found = collect(tmp_path / "dft")
    assert [job.uid for job in found.jobs] == [frames.uid(3), frames.uid(1)]
    assert found.counts == {"missing": 2}


def test_exporting_again_adds_what_is_new_and_touches_nothing(tmp_path: Path, frames: FrameSet) -> None:
    template, folder = vasp_template(tmp_path / "template"), tmp_path / "dft"
    export_jobs(frames[:2], folder, template)
    started = jobs_of(folder)[0]
    (started / "POSCAR").write_text("edited")
    (started / "WAVECAR").write_bytes(b"days of work")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.parent != folder}
    done = export_jobs(frames, folder, template)
    assert (len(done.new), len(done.kept)) == (2, 2)
    assert (started / "POSCAR").read_text() == "edited"
    for path, time in before.items():
        if path.parent.name != "frames":
            assert path.stat().st_mtime_ns == time
    again = export_jobs(frames[::-1], folder, template)
    assert (len(again.new), len(again.kept)) == (0, 4)
    assert [job.uid for job in collect(folder).jobs] == [frames.uid(row) for row in range(4)]


def test_another_template_is_refused(tmp_path: Path, frames: FrameSet) -> None:
    folder = tmp_path / "dft"
    export_jobs(frames[:2], folder, vasp_template(tmp_path / "one"))
    other = vasp_template(tmp_path / "two", INCAR=INCAR.replace("400", "520"))
    with pytest.raises(DataError, match=r"dft: holds jobs of another template; expected one \(vasp, \w+\); found two"):
        export_jobs(frames, folder, other)
    assert len(jobs_of(folder)) == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"INCAR": ""}, r"neither VASP's INCAR nor CP2K's .inp is there"),
        ({"OUTCAR": "vasp.5.4.4"}, r"holds outputs of a calculation.*found OUTCAR"),
        ({"POTCAR": potcar(["O", "O"])}, r"POTCAR: holds an element twice; found O O"),
        ({"POTCAR": potcar(["O"])}, r"frame 0 \(uid \w{16}\): POTCAR: an element is missing; expected H; found O"),
        ({"KPOINTS": "mesh\n0\nGamma\n"}, r"KPOINTS: cannot be read"),
        ({"INCAR": INCAR + "MAGMOM = 5*0.6\n"}, r"INCAR: MAGMOM does not fit the number of atoms; expected 6; found 5"),
        ({"INCAR": INCAR + "ENCUT_ = 3\nSIGMA = wide\n", "POTCAR": potcar(["H", "O"])}, None),
        ({"INCAR": INCAR.replace("400", "four")}, r"INCAR: ENCUT: is no number; found 'four'"),
    ],
)
def test_templates_that_cannot_be_used(
    tmp_path: Path, frames: FrameSet, change: dict[str, str], text: str | None
) -> None:
    template = vasp_template(tmp_path / "template", **change)
    if text is None:
        export_jobs(frames, tmp_path / "dft", template)  # a repeated tag keeps its first value, as in VASP
        return
    with pytest.raises(DataError, match=text):
        export_jobs(frames, tmp_path / "dft", template)
    assert not (tmp_path / "dft").exists(), "nothing is begun that cannot be finished"


def test_a_template_without_potcar(tmp_path: Path, frames: FrameSet) -> None:
    template = vasp_template(tmp_path / "template", None)
    done = export_jobs(frames, tmp_path / "dft", template, species=["O", "H"])
    assert any("no POTCAR" in text for text in done.warnings)
    assert ase_read(jobs_of(tmp_path / "dft")[0] / "POSCAR", format="vasp").symbols[0] == "O"
    export_jobs(frames, tmp_path / "by_number", template)
    assert ase_read(jobs_of(tmp_path / "by_number")[0] / "POSCAR", format="vasp").symbols[0] == "H"
    with pytest.raises(DataError, match="order of elements contradicts the POTCAR; expected O H; found H O"):
        export_jobs(frames, tmp_path / "other", vasp_template(tmp_path / "with"), species=["H", "O"])
    with pytest.raises(DataError, match="holds jobs with another order of elements"):
        export_jobs(frames, tmp_path / "dft", template, species=["H", "O"])


def test_a_frame_without_an_element_of_the_potcar(tmp_path: Path) -> None:
    both = FrameSet.from_atoms(
        [Atoms("HOH", np.eye(3), cell=CELL, pbc=True), Atoms("HH", np.eye(3)[:2], cell=CELL, pbc=True)]
    )
    export_jobs(both, tmp_path / "dft", vasp_template(tmp_path / "template", ["C", "O", "H"]))
    first, second = jobs_of(tmp_path / "dft")
    assert (first / "POTCAR").read_text() == potcar(["O", "H"]), "as many datasets as the POSCAR has elements"
    assert (second / "POTCAR").read_text() == potcar(["H"])
    per_species = vasp_template(tmp_path / "u", ["C", "O", "H"], INCAR=INCAR + "LDAU = T\nLDAUU = 0 1 0\n")
    with pytest.raises(
        DataError, match="LDAUU has a value for each dataset of the POTCAR, of which this frame needs some"
    ):
        export_jobs(both, tmp_path / "no", per_species)


@pytest.mark.parametrize(
    ("cell", "text"), [(None, "no cell, and VASP needs one"), (CELL[[1, 0, 2]], "left-handed cell")]
)
def test_cells_that_vasp_refuses(tmp_path: Path, cell, text: str) -> None:
    frames = FrameSet.from_atoms([Atoms("HOH", np.eye(3), cell=cell, pbc=cell is not None)])
    with pytest.raises(DataError, match=text):
        export_jobs(frames, tmp_path / "dft", vasp_template(tmp_path / "template"))


def test_an_export_that_is_killed_is_completed_by_the_next(tmp_path: Path, frames: FrameSet) -> None:
    template, folder = vasp_template(tmp_path / "template"), tmp_path / "dft"
    frames.save(tmp_path / "frames")
    code = f"""
import os, shutil, signal
from mlipkit.data import FrameSet, export_jobs
copied, real = [], shutil.copy
def copy(*arguments):
    copied.append(arguments)
    if len(copied) == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
shutil.copy = copy
export_jobs(FrameSet.open({str(tmp_path / "frames")!r}), {str(folder)!r}, {str(template)!r})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert list(folder.glob(".*.part"))
    assert len(jobs_of(folder)) == 2
    before = collect(folder, write=False)
    assert before.counts == {"missing": 4}
    assert "export again" in before.jobs[3].reason
    done = export_jobs(frames, folder, template)
    assert (len(done.new), len(done.kept)) == (2, 2)
    assert not list(folder.glob(".*.part"))
    for row, path in enumerate(jobs_of(folder)):
        (path / "OUTCAR").write_text(outcar(run_of(path, row)))
    assert collect(folder).counts == {"done": 4}


def test_folders_that_cannot_be_used(tmp_path: Path, frames: FrameSet, exported: Path, monkeypatch) -> None:
    template = vasp_template(tmp_path / "t")
    with pytest.raises(DataError, match="cannot be written"):
        export_jobs(frames, "/proc/nowhere/dft", template)
    with pytest.raises(DataError, match="holds something else"):
        export_jobs(frames, template, template)
    with pytest.raises(DataError, match="holds no exported jobs"):
        collect(tmp_path / "nothing")
    with pytest.raises(DataError, match="no frames"):
        export_jobs(frames[:0], tmp_path / "new", template)
    (exported / MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"jobs\.json: cannot be read"):
        collect(exported)


def test_a_read_only_folder_is_read_all_the_same(exported: Path, monkeypatch) -> None:
    for row, path in enumerate(jobs_of(exported)):
        (path / "OUTCAR").write_text(outcar(run_of(path, row)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mlipkit.data.whole.tempfile.mkstemp", refuse)
    found = collect(exported)
    assert found.counts == {"done": 4}
    assert found.notes == ["records could not be written (Permission denied); the labels are here all the same"]


# ---- collect


def test_twenty_jobs_three_missing_one_unconverged_one_with_other_settings(tmp_path: Path) -> None:
    frames, folder = waters(20, molecules=4), tmp_path / "dft"
    export_jobs(frames, folder, vasp_template(tmp_path / "template"))
    for row, path in enumerate(jobs_of(folder)):
        run = run_of(path, row)
        if row == 3:
            continue
        if row == 5:
            (path / "OUTCAR").write_text(outcar(run)[:3000])
        elif row == 7:
            (path / "OUTCAR").write_text(outcar(run.but(ended=False)))
        elif row == 11:
            (path / "OUTCAR").write_text(outcar(run.but(iterations=60)))
        elif row == 13:
            (path / "OUTCAR").write_text(outcar(run.but(encut=520.0)))
        else:
            (path / "OUTCAR").write_text(outcar(run))
    found = collect(folder)
    assert found.counts == {"done": 15, "missing": 3, "unconverged": 1, "other settings": 1}
    named = {row: (job.state, job.reason) for row, job in enumerate(found.jobs) if job.state != "done"}
    assert named == {
        3: ("missing", "not started: neither OUTCAR nor vasprun.xml"),
        5: ("missing", "not finished: OUTCAR ends before the calculation did"),
        7: ("missing", "not finished: OUTCAR ends before the calculation did"),
        11: ("unconverged", "electrons not converged within NELM = 60"),
        13: ("other settings", "cutoff (eV): expected 400, found 520"),
    }
    rows = [row for row in range(20) if row not in named]
    assert [found.frames.uid(k) for k in range(15)] == [frames.uid(row) for row in rows]
    for k, row in enumerate(rows):
        frame, original = found.frames.frame(k), frames.frame(row)
        assert np.array_equal(frame["forces"], forces_of(row, 12)), "the order of the frame, every bit"
        assert np.array_equal(frame["positions"], original["positions"])
        assert np.array_equal(frame["numbers"], original["numbers"])
        assert frame["energy"] == -14.2 - row, "force-consistent"
        assert frame["stress"] == pytest.approx(np.diag([0.01, 0.02, 0.03]), abs=1e-8), "tension positive, eV/Å³"
        assert (frame["time"], frame["source"]) == (original["time"], original["source"])
    assert found.other_energy == pytest.approx([-14.1 - row for row in rows], abs=0)
    assert found.level_of_theory == "PBE, cutoff 400 eV, k-points 2×2×2 with Γ"
    assert found.sentence == (
        "15 of 20 jobs done, 3 missing, 1 unconverged, 1 other settings; PBE, cutoff 400 eV, k-points 2×2×2 with Γ"
    )
    assert all(text in str(found) for text in ("expected 400, found 520", "NELM = 60", "not started"))
    html = found._repr_html_()
    assert html.count("<tr>") == 21
    assert html.index("unconverged") < html.index("done</td>"), "what needs the user comes first"


def test_collecting_twice_gives_the_same_and_adds_nothing(exported: Path) -> None:
    folders = jobs_of(exported)
    for row, path in enumerate(folders[:3]):
        (path / "OUTCAR").write_text(outcar(run_of(path, row).but(encut=520.0 if row == 1 else 400.0)))
    first = collect(exported)
    kept = {path.name: path.read_bytes() for path in exported.iterdir() if path.is_file()}
    second = collect(exported)
    assert second.frames == first.frames
    assert second.to_json() == first.to_json()
    assert {path.name: path.read_bytes() for path in exported.iterdir() if path.is_file()} == kept
    (folders[3] / "OUTCAR").write_text(outcar(run_of(folders[3], 3)))
    (folders[1] / "OUTCAR").write_text(outcar(run_of(folders[1], 1)))
    assert collect(exported).counts == {"done": 4}


def test_records_are_those_of_other_label_makers(exported: Path, frames: FrameSet) -> None:
    for row, path in enumerate(jobs_of(exported)[:3]):
        (path / "OUTCAR").write_text(outcar(run_of(path, row).but(iterations=60 if row == 0 else 12)))
    found = collect(exported)
    head, rows = read_records(exported)
    assert head["maker"]["level_of_theory"] == found.level_of_theory
    assert rows[frames.uid(0)]["failed"] == "unconverged: electrons not converged within NELM = 60"
    assert rows[frames.uid(1)]["forces"] == forces_of(1, 6).tolist()
    assert frames.uid(3) not in rows
    labelled = found.labelled
    assert (labelled.n_asked, len(labelled.frames), len(labelled.failed), labelled.n_missing) == (4, 2, 1, 1)
    assert read(exported / "labelled.extxyz").forces.tolist() == found.frames.forces.tolist()
    replayed = label_maker(f"recorded:{exported / 'labelled.extxyz'}").label(frames[1])
    assert np.array_equal(replayed.forces, forces_of(1, 6)), "for workflows, which ask a label maker"


def test_other_settings_are_named_with_what_was_expected(exported: Path) -> None:
    changes = [
        ({"mesh": (3, 3, 3)}, "k-points: expected 2×2×2 with Γ, found 3×3×3 with Γ"),
        ({"gamma": False}, "k-points: expected 2×2×2 with Γ, found 2×2×2 without Γ"),
        ({"functional": "CA"}, "functional: expected PE, found CA"),
        ({"gga": "PS"}, "functional: expected PE, found PS"),
        ({"titles": {"O": "PAW_PBE O_s 07Sep2000"}},
         "POTCAR of O: expected PAW_PBE O 08Apr2002, found PAW_PBE O_s 07Sep2000"),
        ({"ismear": 1}, "ISMEAR: expected 0, found 1"),
    ]  # fmt: skip
    path = jobs_of(exported)[0]
    for change, text in changes:
        for name, writer in (("OUTCAR", outcar), ("vasprun.xml", vasprun)):
            if name == "vasprun.xml" and change == {"functional": "CA"}:
                continue  # it does not say what a POTCAR was made for but by its title
            (path / name).write_text(writer(run_of(path, 0).but(**change)))
            job = collect(exported).jobs[0]
            assert (job.state, job.reason) == ("other settings", text), name
            (path / name).unlink()


def test_the_same_functional_said_otherwise_is_the_same(exported: Path) -> None:
    first, second, *_ = jobs_of(exported)
    (first / "OUTCAR").write_text(outcar(run_of(first, 0).but(gga="PE")))
    (second / "vasprun.xml").write_text(vasprun(run_of(second, 1).but(version="6.3.0")))
    found = collect(exported)
    assert found.counts == {"done": 2, "missing": 2}
    assert found.notes == ["several versions of the program: VASP 5.4.4, VASP 6.3.0"]


def test_what_outputs_print_with_few_digits_is_no_difference(tmp_path: Path, frames: FrameSet) -> None:
    incar = INCAR.replace("SIGMA = 0.05", "SIGMA = 0.0472").replace("400", "400.04") + "IVDW = 12\n"
    export_jobs(frames, tmp_path / "dft", vasp_template(tmp_path / "t", INCAR=incar))
    first, second, *_ = jobs_of(tmp_path / "dft")
    text = outcar(run_of(first, 0))
    (first / "OUTCAR").write_text(text.replace("  FORCE on cell", "  Edisp (eV)   -0.12345\n  FORCE on cell"))
    (second / "OUTCAR").write_text(outcar(run_of(second, 1)))
    found = collect(tmp_path / "dft")
    assert found.jobs[0].state == "done", found.jobs[0].reason
    assert found.jobs[1].reason == "IVDW: expected 12, found 0"
    assert found.level_of_theory.startswith("PBE with dispersion (IVDW 12), cutoff 400")


def test_template_or_majority(exported: Path) -> None:
    for row, path in enumerate(jobs_of(exported)):
        (path / "OUTCAR").write_text(outcar(run_of(path, row).but(encut=400.0 if row == 2 else 520.0)))
    assert states(exported) == ["other settings", "other settings", "done", "other settings"]
    found = collect(exported, settings="majority")
    assert [job.state for job in found.jobs] == ["done", "done", "other settings", "done"]
    assert found.notes == ["not as in the template: cutoff (eV): expected 400, found 520"]
    path = jobs_of(exported)[2]
    (path / "OUTCAR").write_text(outcar(run_of(path, 2).but(encut=520.0)))
    assert "settings='majority'" in collect(exported).notes[0]


def test_settings_that_the_template_leaves_open_follow_the_majority(tmp_path: Path, frames: FrameSet) -> None:
    export_jobs(frames, tmp_path / "dft", vasp_template(tmp_path / "t", INCAR="PREC = Accurate\n"))
    for row, path in enumerate(jobs_of(tmp_path / "dft")):
        (path / "OUTCAR").write_text(outcar(run_of(path, row).but(encut=300.0 if row == 0 else 400.0)))
    assert states(tmp_path / "dft") == ["other settings", "done", "done", "done"]


def test_kspacing_gives_each_cell_its_mesh(tmp_path: Path) -> None:
    images = [Atoms("HOH", np.eye(3), cell=CELL * scale, pbc=True) for scale in (1.0, 1.5)]
    template = vasp_template(tmp_path / "t", KPOINTS="", INCAR=INCAR + "KSPACING = 0.4\n")
    export_jobs(FrameSet.from_atoms(images), tmp_path / "dft", template)
    for row, path in enumerate(jobs_of(tmp_path / "dft")):
        (path / "OUTCAR").write_text(outcar(run_of(path, row).but(spacing=True, mesh=(2 - row,) * 3)))
    found = collect(tmp_path / "dft")
    assert found.counts == {"done": 2}, str(found)
    assert found.settings["k-points"] == "KSPACING 0.4"


def test_the_incar_that_vasp_6_copies_is_no_setting(exported: Path) -> None:
    first, second, *_ = jobs_of(exported)
    copied = " INCAR:\n   ENCUT = 400 ! was 520\n   LREAL = Auto\n   SIGMA = 0.5d-1\n   PREC = Accurate\n"
    (first / "OUTCAR").write_text(outcar(run_of(first, 0)).replace(" INCAR:\n", copied))
    (second / "OUTCAR").write_text(outcar(run_of(second, 1)).replace("ENCUT  =  400.0 eV", "ENCUT  = ****** eV"))
    found = collect(exported)
    assert found.jobs[0].state == "done", found.jobs[0].reason
    assert found.jobs[1].state == "failed"
    assert "could not convert string to float: '******'" in found.jobs[1].reason


def test_wrong_structures(exported: Path, frames: FrameSet) -> None:
    first, second, third, fourth = jobs_of(exported)
    run = run_of(first, 0)
    moved = run.positions.copy()
    moved[1, 2] += 0.02
    (first / "OUTCAR").write_text(outcar(run.but(positions=moved)))
    (second / "OUTCAR").write_text(outcar(run_of(second, 1).but(cell=CELL * 1.01)))
    (third / "OUTCAR").write_text(outcar(run_of(fourth, 3)))
    swapped = run_of(fourth, 3)
    (fourth / "OUTCAR").write_text(outcar(swapped.but(numbers=np.array([1, 1, 1, 1, 8, 8]))))
    found = collect(exported)
    assert found.counts == {"wrong structure": 4}
    reasons = [job.reason for job in found.jobs]
    assert reasons[0] == "another structure: atom 4 (O) is 0.02 Å from where it was exported"
    assert reasons[1].startswith("another cell: a component differs by 0.1 Å")
    assert reasons[2].startswith("another structure: atom")
    assert reasons[3] == "elements in another order: expected O2 H4, found H4 O2"
    assert len(found.frames) == 0
    assert states(exported, tolerance=0.05)[0] == "done"


def test_atoms_in_another_image_of_the_cell_are_the_same_atoms(exported: Path) -> None:
    path = jobs_of(exported)[0]
    run = run_of(path, 0)
    images = np.array([[1, 0, 0], [0, -1, 2], [0, 0, 0], [1, 1, 1], [-1, 0, 0], [0, 0, 1]]) @ CELL
    (path / "OUTCAR").write_text(outcar(run.but(positions=run.positions + images)))
    assert states(exported)[0] == "done"


def test_vasprun_only_outcar_only_both_and_packed(exported: Path) -> None:
    first, second, third, fourth = jobs_of(exported)
    (first / "vasprun.xml").write_text(vasprun(run_of(first, 0)))
    (second / "OUTCAR").write_text(outcar(run_of(second, 1)))
    for name, writer in (("OUTCAR", outcar), ("vasprun.xml", vasprun)):
        (third / name).write_text(writer(run_of(third, 2)))
        (fourth / f"{name}.gz").write_bytes(gzip.compress(writer(run_of(fourth, 3)).encode()))
    found = collect(exported)
    assert found.counts == {"done": 4}, str(found)
    assert [job.files for job in found.jobs] == [
        ("vasprun.xml",), ("OUTCAR",), ("vasprun.xml", "OUTCAR"), ("vasprun.xml.gz", "OUTCAR.gz")
    ]  # fmt: skip
    for row in range(4):
        assert np.array_equal(found.frames.frame(row)["forces"], forces_of(row, 6))
        assert found.frames.energy[row] == -14.2 - row
        assert found.other_energy[row] == pytest.approx(-14.1 - row, abs=1e-8)
    taken = collect(exported, energy="energy")
    assert taken.frames.energy == pytest.approx([-14.1 - row for row in range(4)], abs=1e-8)
    assert taken.other_energy == pytest.approx([-14.2 - row for row in range(4)])


def test_outputs_that_are_cut_short(exported: Path) -> None:
    path = jobs_of(exported)[0]
    for name, text in (("OUTCAR", outcar(run_of(path, 0))), ("vasprun.xml", vasprun(run_of(path, 0)))):
        for share in (0.02, 0.3, 0.6, 0.9, 0.94):
            (path / name).write_text(text[: int(share * len(text))])
            job = collect(exported).jobs[0]
            assert job.state == "missing", (name, share, job.reason)
            assert job.reason == f"not finished: {name} ends before the calculation did"
        packed = gzip.compress(text.encode())
        (path / name).unlink()
        (path / f"{name}.gz").write_bytes(packed[: len(packed) // 2])
        job = collect(exported).jobs[0]
        assert job.state == "missing", job.reason
        assert "cut short" in job.reason or "ends before" in job.reason
        (path / f"{name}.gz").unlink()
    (path / "OUTCAR").write_bytes(b"")
    assert collect(exported).jobs[0].reason.startswith("not started")
    (path / "OUTCAR").write_bytes(bytes(range(256)) * 10)
    assert collect(exported).jobs[0].state in ("failed", "missing")


def test_one_whole_file_beside_a_broken_one_is_enough(exported: Path) -> None:
    first, second, third, _ = jobs_of(exported)
    (first / "OUTCAR").write_text(outcar(run_of(first, 0)))
    (first / "vasprun.xml").write_text(vasprun(run_of(first, 0).but(ended=False)))
    (second / "OUTCAR").write_text(outcar(run_of(second, 1)))
    (second / "vasprun.xml").write_text(vasprun(run_of(second, 1).but(forces=forces_of(5, 6))))
    (third / "OUTCAR").write_text(outcar(run_of(third, 2)))
    (third / "vasprun.xml").write_text(vasprun(run_of(third, 2).but(energy=-16.0, zero=-15.9)))
    found = collect(exported)
    assert found.jobs[0].state == "done"
    assert found.jobs[0].notes == ["vasprun.xml not used: not finished: vasprun.xml ends before the calculation did"]
    assert found.jobs[1].state == "failed"
    assert found.jobs[1].reason == "OUTCAR and vasprun.xml hold different atoms or forces"
    assert found.jobs[2].notes == ["the energy is that of the OUTCAR; the vasprun.xml differs by 0.2000 eV"]
    assert found.frames.energy.tolist() == [-14.2, -16.2]


def test_hubbard_u_is_compared_by_element(exported: Path) -> None:
    said = """ LDA+U is selected, type is set to LDAUTYPE =  2
   angular momentum for each species LDAUL =     1   -1
   U (eV)           for each species LDAUU =   {}  0.0
   J (eV)           for each species LDAUJ =   0.0  0.0
 k-points in reciprocal"""
    for row, path in enumerate(jobs_of(exported)):
        text = outcar(run_of(path, row))
        if row < 3:
            text = text.replace(" k-points in reciprocal", said.format("4.0" if row == 1 else "5.0"))
        (path / "OUTCAR").write_text(text)
    found = collect(exported)
    assert [job.state for job in found.jobs] == ["done", "other settings", "done", "other settings"]
    assert found.jobs[1].reason == "U (eV) of O: expected 5, found 4"
    assert found.jobs[3].reason == "DFT+U: expected T, found F"
    assert found.level_of_theory.startswith("PBE+U, cutoff 400 eV")


def test_unconverged_in_every_way_it_can_be_told(exported: Path) -> None:
    path = jobs_of(exported)[0]
    run = run_of(path, 0)
    for name, text in (
        ("OUTCAR", outcar(run.but(iterations=60))),
        ("OUTCAR", outcar(run.but(iterations=15, nelm=15, says=False))),
        ("vasprun.xml", vasprun(run.but(iterations=60))),
    ):
        (path / name).write_text(text)
        assert states(exported)[0] == "unconverged"
        (path / name).unlink()
    reached = outcar(run.but(iterations=60, nelm=61)).replace("NELM   =     61", "NELM   =     60")
    (path / "OUTCAR").write_text(reached)
    (path / "vasprun.xml").write_text(vasprun(run.but(iterations=60)))
    assert states(exported)[0] == "done", "converged in the very last iteration, as only the OUTCAR can tell"


def test_of_a_relaxation_the_first_step_is_taken(exported: Path) -> None:
    first, second, third, _ = jobs_of(exported)
    (first / "OUTCAR").write_text(outcar(run_of(first, 0).but(steps=5)))
    (second / "vasprun.xml").write_text(vasprun(run_of(second, 1).but(steps=5)))
    started_elsewhere = run_of(third, 2)
    later = started_elsewhere.but(positions=started_elsewhere.positions - 0.05, steps=2)
    (third / "OUTCAR").write_text(outcar(later))
    found = collect(exported)
    assert [job.state for job in found.jobs] == ["done", "done", "wrong structure", "missing"]
    assert found.jobs[0].notes == found.jobs[1].notes == ["5 ionic steps: the first one is taken"]
    assert found.frames.energy.tolist() == [-14.2, -15.2]


def test_constraints_do_not_zero_forces(tmp_path: Path) -> None:
    atoms = Atoms("HOH", np.eye(3), cell=CELL, pbc=True, constraint=FixAtoms([0, 1, 2]))
    export_jobs(FrameSet.from_atoms([atoms]), tmp_path / "dft", vasp_template(tmp_path / "t"))
    path = jobs_of(tmp_path / "dft")[0]
    assert "elective" not in (path / "POSCAR").read_text()
    run = run_of(path, 0)
    (path / "vasprun.xml").write_text(vasprun(run.but(selective=True)))
    assert ase_read(path / "vasprun.xml").constraints
    assert np.array_equal(collect(tmp_path / "dft").frames.forces, forces_of(0, 3))


def test_jobs_whose_record_is_gone_or_swapped(exported: Path) -> None:
    first, second, third, fourth = jobs_of(exported)
    for row, path in enumerate((first, second, third, fourth)):
        (path / "OUTCAR").write_text(outcar(run_of(path, row)))
    (first / JOB).unlink()
    shutil.copy(third / JOB, second / JOB)
    record = json.loads((third / JOB).read_text())
    (third / JOB).write_text(json.dumps(record | {"permutation": [0, 0, 1, 2, 3, 4]}))
    shutil.rmtree(fourth)
    found = collect(exported)
    assert [job.state for job in found.jobs] == ["failed", "failed", "failed", "missing"]
    assert "mlipkit_job.json: is not there" in found.jobs[0].reason
    assert "uid: belongs to another job" in found.jobs[1].reason
    assert "is no permutation of the atoms" in found.jobs[2].reason
    assert "export again" in found.jobs[3].reason


def test_a_force_that_is_nonsense(exported: Path) -> None:
    path = jobs_of(exported)[0]
    run = run_of(path, 0)
    (path / "OUTCAR").write_text(outcar(run.but(forces=run.forces * 5000)))
    job = collect(exported).jobs[0]
    assert job.state == "failed"
    assert "nonsense: a force of" in job.reason


def test_energies_of_two_kinds_are_never_mixed(cp2k: Path, frames: FrameSet) -> None:
    (jobs_of(cp2k)[0] / "water.out").write_text(cp2k_log(cp2k_run(frames, 0)))
    assert collect(cp2k).counts == {"done": 1, "missing": 3}
    job = collect(cp2k, energy="energy").jobs[0]
    assert (job.state, job.reason) == ("failed", "the output says no energy extrapolated to no smearing")


def test_stress_that_is_not_in_an_output_is_said(exported: Path) -> None:
    for row, path in enumerate(jobs_of(exported)[:2]):
        text = outcar(run_of(path, row))
        (path / "OUTCAR").write_text(text.replace("  in kB", "  in  B") if row else text)
    found = collect(exported)
    assert found.frames.has("stress").tolist() == [True, False]
    assert found.notes == ["no stress in the outputs of 1 of 2 frames"]


def test_frames_that_are_not_periodic_get_no_stress(tmp_path: Path) -> None:
    frames = FrameSet.from_atoms([Atoms("HOH", np.eye(3), cell=CELL, pbc=False)])
    export_jobs(frames, tmp_path / "dft", vasp_template(tmp_path / "t"))
    path = jobs_of(tmp_path / "dft")[0]
    (path / "OUTCAR").write_text(outcar(run_of(path, 0)))
    found = collect(tmp_path / "dft")
    assert found.counts == {"done": 1}
    assert not found.frames.has("stress").any()


@pytest.mark.parametrize("code", ["vasp", "cp2k"])
def test_molecules_without_a_cell_are_computed_in_a_box_and_stay_as_they_are(tmp_path: Path, code: str) -> None:
    places = np.array([[0.8, 0.6, 30.0], [0.0, 0.0, 30.0], [-0.8, 0.6, 30.0]])
    frames = FrameSet.from_atoms([Atoms("HOH", places), Atoms("HOH", places * 1.01)])
    template = vasp_template(tmp_path / "t") if code == "vasp" else cp2k_template(tmp_path / "t")
    folder = tmp_path / "dft"
    with pytest.raises(DataError, match=r"no cell, and \w+ needs one.* Give molecules a box: box=15"):
        export_jobs(frames, folder, template)
    with pytest.raises(DataError, match="box: the molecule does not fit"):
        export_jobs(frames, folder, template, box=1.0)
    with pytest.raises(DataError, match="one or three edges in Å"):
        export_jobs(frames, folder, template, box=(1.0, 2.0))
    export_jobs(frames, folder, template, box=12.0)
    with pytest.raises(DataError, match="holds jobs with another box"):
        export_jobs(frames, folder, template, box=13.0)
    for row, path in enumerate(jobs_of(folder)):
        if code == "vasp":
            run = run_of(path, row)
            (path / "OUTCAR").write_text(outcar(run))
            assert run.positions.mean(0) == pytest.approx([6.0, 6.0, 6.0], abs=0.2)
        else:
            assert "PERIODIC NONE" in (path / "water.inp").read_text()
            shifted = places * (1.01 if row else 1.0)
            shifted = shifted - (shifted.min(0) + shifted.max(0)) / 2 + 6.0
            run = Run(frames.frame(row)["numbers"], shifted, 12.0 * np.eye(3), forces_of(row, 3))
            (path / "water.out").write_text(cp2k_log(run))
    found = collect(folder)
    assert found.counts == {"done": 2}, str(found)
    assert np.array_equal(found.frames.positions, frames.positions)
    assert not found.frames.cell.any()
    assert np.array_equal(found.frames.uids, frames.uids), "they join the selection"
    assert found.frames.forces == pytest.approx(np.concatenate([forces_of(0, 3), forces_of(1, 3)]), abs=1e-6)


# ---- CP2K


@pytest.fixture
def cp2k(tmp_path: Path, frames: FrameSet) -> Path:
    export_jobs(frames, tmp_path / "cp2k", cp2k_template(tmp_path / "inputs"), format="cp2k")
    return tmp_path / "cp2k"


def cp2k_run(frames: FrameSet, row: int) -> Run:
    frame = frames.frame(row)
    return Run(frame["numbers"], frame["positions"], frame["cell"], forces_of(row, 6), energy=-470.0 - row)


def test_a_cp2k_job_holds_the_structure_in_its_input(cp2k: Path, frames: FrameSet) -> None:
    text = (jobs_of(cp2k)[1] / "water.inp").read_text()
    for gone in ("old.xyz", "CELL_REF", "ABC 1.0"):
        assert gone not in text
    for kept in ("@SET NAME water", "CUTOFF 600", "&KIND O", "&FORCES ON"):
        assert kept in text
    lines = [line.split() for line in text.split("&COORD")[1].split("&END COORD")[0].splitlines()]
    rows = [words for words in lines if len(words) == 4]
    assert [words[0] for words in rows] == ["H", "O", "H", "H", "O", "H"], "CP2K takes atoms in any order"
    assert np.array_equal(np.array([[float(v) for v in words[1:]] for words in rows]), frames.frame(1)["positions"])
    cell = [[float(v) for v in line.split()[2:]] for line in text.splitlines() if "[angstrom]" in line]
    assert np.array_equal(cell, CELL)
    assert "PERIODIC XYZ" in text
    assert (jobs_of(cp2k)[1] / "run.sh").is_file()


@pytest.mark.parametrize("new", [False, True])
def test_labels_of_cp2k(cp2k: Path, frames: FrameSet, new: bool) -> None:
    for row, path in enumerate(jobs_of(cp2k)):
        (path / "water.out").write_text(cp2k_log(cp2k_run(frames, row), new=new))
    found = collect(cp2k)
    assert found.counts == {"done": 4}, str(found)
    for row in range(4):
        assert found.frames.frame(row)["forces"] == pytest.approx(forces_of(row, 6), abs=1e-6)
    assert found.frames.energy == pytest.approx([-470.0 - row for row in range(4)], abs=1e-9)
    assert found.frames.stress[0] == pytest.approx(np.diag([0.01, 0.02, 0.03]), abs=1e-9), "the sign is turned"
    assert found.level_of_theory == "PBE, cutoff 300 hartree, k-points Γ"
    assert found.settings["basis set of O"] == "DZVP-MOLOPT-SR-GTH"
    assert found.jobs[0].program == f"CP2K {'2025.2' if new else '8.1'}"


def test_what_may_be_wrong_with_cp2k(cp2k: Path, frames: FrameSet) -> None:
    path = jobs_of(cp2k)[0]
    run = cp2k_run(frames, 0)
    whole = cp2k_log(run)
    moved = run.but(positions=run.positions + 0.01 * np.eye(6, 3))
    cases = [
        (cp2k_log(run, converged=False), "unconverged", "SCF run NOT converged"),
        (cp2k_log(run.but(ended=False)), "missing", "the log ends before the calculation did"),
        (whole[: len(whole) // 2], "missing", "the log ends before the calculation did"),
        (cp2k_log(run, aborted=True), "missing", "aborted: CPASSERT failed"),
        (cp2k_log(moved), "wrong structure", "another structure: atom 0 (H) is 0.01 Å"),
        (cp2k_log(run.but(cell=CELL + 0.01)), "wrong structure", "another cell"),
        (cp2k_log(run, cutoff=400.0), "other settings", "cutoff (hartree): expected 300, found 400"),
        (cp2k_log(run, functional="BLYP"), "other settings", "functional: expected PBE, found BLYP"),
        (whole.replace("MODULE QUICKSTEP", ""), "failed", "holds no positions"),
        (whole.replace("ATOMIC FORCES in", ""), "failed", "holds no forces"),
        ("PROGRAM STARTED AT\n CP2K| nothing", "missing", "not finished"),
    ]
    for text, state, reason in cases:
        (path / "water.out").write_text(text)
        job = collect(cp2k).jobs[0]
        assert job.state == state, (reason, job.reason)
        assert reason in job.reason


def test_cp2k_settings_that_the_input_leaves_open(cp2k: Path, frames: FrameSet) -> None:
    for row, path in enumerate(jobs_of(cp2k)):
        log = cp2k_log(cp2k_run(frames, row), kpoints="    2    2    2" if row == 0 else "", vdw=row == 1)
        (path / "water.log.gz").write_bytes(gzip.compress(log.encode()))
    found = collect(cp2k)
    assert [job.state for job in found.jobs] == ["other settings", "other settings", "done", "done"]
    assert found.jobs[0].reason == "k-points: expected Γ, found monkhorst-pack 2×2×2"
    assert found.jobs[1].reason.startswith("dispersion: expected none, found Pair Potential, DFT-D3")


def test_a_log_to_which_a_second_run_was_appended(cp2k: Path, frames: FrameSet) -> None:
    path = jobs_of(cp2k)[0]
    run = cp2k_run(frames, 0)
    (path / "water.out").write_text(cp2k_log(run.but(energy=-1.0), converged=False) + cp2k_log(run))
    found = collect(cp2k)
    assert found.jobs[0].state == "done", found.jobs[0].reason
    assert found.frames.energy[0] == pytest.approx(-470.0)
    (path / "water.out").write_text(cp2k_log(run.but(steps=3)))
    found = collect(cp2k)
    assert found.jobs[0].notes == ["3 force evaluations: the first one is taken"]
    assert found.frames.energy[0] == pytest.approx(-470.0)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("    &FORCES ON\n    &END FORCES\n", "", "water.inp: prints no forces"),
        ("RUN_TYPE ENERGY_FORCE", "RUN_TYPE ENERGY", "computes no forces; expected ENERGY_FORCE; found ENERGY"),
        ("RUN_TYPE ENERGY_FORCE", "RUN_TYPE ENERGY_FORCE\n  PRINT_LEVEL LOW", "does not print the positions"),
        ("&KIND O", "&KIND O1", r"an element is missing; expected &KIND O; found &KIND H, &KIND O1"),
        ("&END FORCE_EVAL", "", "a section is never closed; expected &END FORCE_EVAL"),
        ("&SUBSYS", "&SUB", "has no &SUBSYS to put the structure in"),
    ],
)
def test_cp2k_templates_that_cannot_be_used(tmp_path: Path, frames: FrameSet, old: str, new: str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        export_jobs(frames, tmp_path / "dft", cp2k_template(tmp_path / "t", CP2K_INPUT.replace(old, new)))


def test_kpoints_files() -> None:
    words = vasp_input.kpoints_words
    assert words(KPOINTS) == "2×2×2 with Γ"
    assert words("x\n0\nMonkhorst-Pack\n2 2 1\n") == "2×2×1 without Γ"
    assert words("x\n0\nmonkhorst\n3 3 1\n0 0 0\n") == "3×3×1 with Γ"
    assert words("x\n0\nAuto\n20\n") == vasp_input.BY_LENGTH
    assert words("x\n2\nReciprocal\n0 0 0 1\n0.5 0 0 1\n") is None


# ---- the shell


def test_from_the_shell(tmp_path: Path, frames: FrameSet, capsys) -> None:
    from mlipkit import cli

    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return int(caught.value.code or 0)

    folder, template = tmp_path / "dft", vasp_template(tmp_path / "t")
    write(tmp_path / "picked.extxyz", frames)
    told = tmp_path / "told.json"
    export = ("jobs", "export", tmp_path / "picked.extxyz", "--template", template, "-o", folder, "--json", told)
    assert run(*export) == 0
    assert json.loads(told.read_text())["figures"]["new"]["value"] == 4
    for row, path in enumerate(jobs_of(folder)[:3]):
        (path / "OUTCAR").write_text(outcar(run_of(path, row)))
    capsys.readouterr()
    assert run("jobs", "collect", folder, "--json", told) == 0
    shown = capsys.readouterr().out
    assert "3 of 4 jobs done, 1 missing; PBE, cutoff 400 eV" in shown
    assert "not started: neither OUTCAR nor vasprun.xml" in shown
    assert json.loads(told.read_text())["figures"] == {
        "done": {"value": 3, "unit": "jobs"}, "missing": {"value": 1, "unit": "jobs"},
    }  # fmt: skip
    assert run("jobs", "collect", tmp_path / "t") == 1
    assert "holds no exported jobs" in capsys.readouterr().err
    assert run("jobs", "collect", folder, "--energy", "free") == 1
    assert "no such choice" in capsys.readouterr().err


def test_the_page_of_the_documentation(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    vasp_template(tmp_path / "inputs", ("C", "H", "O"))
    page = (Path(__file__).resolve().parents[2] / "docs/labelling.md").read_text()
    code = page.split("## By your own VASP or CP2K")[1].split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert names["found"].counts == {"missing": 2}


# ---- outputs of real programs, which ASE ships for its own tests


def real(name: str) -> Path:
    ase_tests = pytest.importorskip("ase.test", reason="ASE's test data is not installed")
    path = Path(ase_tests.__file__).parent / "testdata" / "vasp" / name
    if not path.is_file():
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.parametrize(
    ("name", "settings", "level"),
    [
        ("OUTCAR_example_1", {"cutoff (eV)": 300.0, "k-points": "1×1×1 with Γ", "ISPIN": 2.0, "functional": "PE"},
         "PBE, cutoff 300 eV, k-points 1×1×1 with Γ"),
        ("vasprun_pstress.xml",
         {"cutoff (eV)": 400.0, "k-points": "4×4×4 without Γ", "functional": "CA", "charge": 0.0},
         "LDA, cutoff 400 eV, k-points 4×4×4 without Γ"),
    ],
)  # fmt: skip
def test_real_outputs(tmp_path: Path, name: str, settings: dict, level: str) -> None:
    source = real(name)
    truth = ase_read(source, format="vasp-xml" if name.endswith("xml") else "vasp-out")
    shuffled = np.random.default_rng(1).permutation(len(truth))
    frames = FrameSet.from_atoms([truth[shuffled]])
    symbol = truth.get_chemical_symbols()[0]
    template = vasp_template(
        tmp_path / "t", None, INCAR="PREC = Normal\n" if name.endswith("xml") else "PREC = A\n", KPOINTS=""
    )
    export_jobs(frames, tmp_path / "dft", template, species=[symbol])
    path = jobs_of(tmp_path / "dft")[0]
    order = np.array(json.loads((path / JOB).read_text())["permutation"])
    target = "vasprun.xml" if name.endswith("xml") else "OUTCAR"
    shutil.copy(source, path / target)
    found = collect(tmp_path / "dft")
    if len(truth) > 1 and not np.array_equal(shuffled[order], np.arange(len(truth))):
        assert found.jobs[0].state == "wrong structure", "atoms of one element that were shuffled"
        frames = FrameSet.from_atoms([truth])
        export_jobs(frames, tmp_path / "again", template, species=[symbol])
        path = jobs_of(tmp_path / "again")[0]
        shutil.copy(source, path / target)
        found = collect(tmp_path / "again")
    assert found.counts == {"done": 1}, str(found)
    assert np.array_equal(found.frames.forces, truth.calc.results["forces"])
    assert found.frames.energy[0] == truth.calc.results["free_energy"]
    assert found.frames.stress[0] == pytest.approx(truth.get_stress(voigt=False), abs=1e-12)
    assert {key: found.settings.get(key) for key in settings} == settings
    assert found.level_of_theory == level
    text = source.read_text()
    (path / target).write_text(text[: int(0.9 * len(text))])
    assert collect(path.parent).jobs[0].state == "missing"


def test_jobs_in_their_own_template_and_a_box_of_words_are_refused(tmp_path: Path, frames: FrameSet) -> None:
    template = vasp_template(tmp_path / "inputs")
    with pytest.raises(DataError, match=r"lies in the template"):
        export_jobs(frames, template / "jobs", template)
    assert not (template / "jobs").exists()
    with pytest.raises(DataError, match=r"box: no box; expected one or three edges in Å; found large"):
        export_jobs(frames, tmp_path / "jobs", template, box="large")  # type: ignore[arg-type]
