"""Boxes of molecules: distances, density, whole molecules, seeds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

import mlipkit as mk
from mlipkit.cli import main
from mlipkit.data import packing
from mlipkit.data.packing import COMMON, molecule_of, pack
from mlipkit.errors import DataError, MissingPackageError
from mlipkit.units import AMU_PER_A3


@pytest.fixture(autouse=True)
def _packmol() -> None:
    try:
        packing.packmol()
    except MissingPackageError as error:
        pytest.skip(str(error))


def nearest_between_molecules(atoms: Atoms) -> float:
    """Å, over all images; by brute force."""
    kind, best = atoms.get_array("molecule"), np.inf
    reach = range(-1, 2) if atoms.pbc.all() else range(1)
    for shift in ((i, j, k) for i in reach for j in reach for k in reach):
        image = atoms.positions + np.array(shift) @ atoms.cell.array
        distances = np.linalg.norm(atoms.positions[:, None] - image[None], axis=2)
        other = kind[:, None] != kind[None] if shift == (0, 0, 0) else np.ones((len(atoms), len(atoms)), bool)
        best = min(best, distances[other].min(initial=np.inf))
    return float(best)


@pytest.mark.parametrize(
    ("molecules", "options"),
    [
        ({"ethanol": 6}, {"density": 0.789}),
        ({"water": 12, "CH3OH": 3, "Li": 1, "Cl": 1}, {"density": 0.9, "seed": 4}),
        ({"water": 10}, {"cell": [6.0, 7.0, 9.5], "tolerance": 1.8}),
        ({"water": 8}, {"cell": 9.0, "tolerance": 2.5}),
        ({"water": 8}, {"density": 1.0, "pbc": False}),
    ],
)
def test_boxes_keep_distances_across_images_and_molecules_whole(molecules, options):
    atoms = pack(molecules, **options)
    assert nearest_between_molecules(atoms) >= options.get("tolerance", 2.0) - packing.SLACK
    assert atoms.pbc.all() == options.get("pbc", True)
    first, number = 0, 0
    for name, count in molecules.items():
        alone = molecule_of(name)
        for _ in range(count):
            part = atoms[first : first + len(alone)]
            np.testing.assert_array_equal(part.numbers, alone.numbers)
            np.testing.assert_allclose(part.get_all_distances(), alone.get_all_distances(), atol=1e-5)
            assert set(part.get_array("molecule")) == {number}
            first, number = first + len(alone), number + 1
    assert first == len(atoms)
    if "density" in options and atoms.pbc.all():
        assert atoms.get_masses().sum() / atoms.get_volume() * AMU_PER_A3 == pytest.approx(options["density"])
        assert np.ptp(atoms.cell.lengths()) == 0
    if "cell" in options:
        np.testing.assert_array_equal(atoms.cell.lengths(), np.broadcast_to(options["cell"], 3))
    if not atoms.pbc.all():
        assert not atoms.cell.array.any()


def test_the_same_seed_gives_the_same_box():
    boxes = [pack({"water": 6}, density=0.9, seed=seed) for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(boxes[0].positions, boxes[1].positions)
    for other in boxes[2:]:
        assert np.abs(other.positions - boxes[0].positions).max() > 0.5
    assert boxes[2].info["source"] == "packed 6 water, seed 1"


def test_molecules_by_name_symbol_file_and_as_they_are(tmp_path: Path):
    own = molecule("C2H6")
    own.set_cell([30, 30, 30])
    write(tmp_path / "own.xyz", own)
    atoms = pack([("water", 2), (str(tmp_path / "own.xyz"), 1), (own, 1), ("Na", 1)], cell=10)
    assert atoms.get_chemical_formula() == "C4H16NaO2"
    for name in COMMON:
        assert len(molecule_of(name)) > 1
    assert len(molecule_of("sample:ethanol_300K@0")) == 9
    with pytest.raises(DataError, match=r"ethanl: unknown molecule. did you mean 'ethanol'"):
        pack({"ethanl": 1}, cell=9)
    with pytest.raises(DataError, match=r"holds 1000 structures.*Name one: sample:ethanol_300K@0"):
        pack({"sample:ethanol_300K": 1}, cell=9)
    with pytest.raises(DataError, match=r"none\.xyz"):
        pack({str(tmp_path / "none.xyz"): 1}, cell=9)


@pytest.mark.parametrize(
    ("molecules", "options", "message"),
    [
        ({"water": 4}, {}, "give either a density or a cell"),
        ({"water": 4}, {"density": 1, "cell": 9}, "give either a density or a cell"),
        ({"water": 4}, {"density": 789}, r"no density.*expected 0.001 to 25 g/cm³; found 789"),
        ({"water": 4}, {"density": -1}, "no density"),
        ({"water": 4}, {"cell": 1.0}, "no density of a liquid or solid; expected at most 25 g/cm³; found 120 g/cm³"),
        ({"water": 4}, {"cell": [9, 9]}, "one or three edge lengths"),
        ({"water": 4}, {"cell": float("nan")}, "one or three edge lengths"),
        ({"water": 4}, {"density": 4.0}, r"do not fit: 2 Å apart they take \d+% of the box"),
        ({"water": 4}, {"density": 1, "tolerance": 0}, "tolerance: no distance"),
        ({"water": 4}, {"density": 1, "seed": -1}, "no seed"),
        ({"water": 4}, {"density": 1, "seed": 2**31}, "no seed"),
        ({"water": -4}, {"density": 1}, "water: no number of molecules.*found -4"),
        ({"water": 1.5}, {"density": 1}, "no number of molecules"),
        ({"water": 0}, {"density": 1}, "no molecule to pack"),
        ({"benzene": 1}, {"density": 0.87}, "one of them to its own image"),
        ({"water": 60}, {"density": 2.0, "timeout": 1.0}, r"found no packing: not within 1 s. Lower the density"),
    ],
)
def test_what_cannot_be_packed_is_said(molecules, options, message):
    with pytest.raises(DataError, match=message):
        pack(molecules, **options)


def test_a_packing_that_is_given_up_is_no_box(monkeypatch, tmp_path: Path):
    fake = tmp_path / "packmol"
    monkeypatch.setattr(packing, "packmol", lambda: fake)
    for script, message in (
        ("echo '1\\n\\nO 0 0 0' > packed.xyz; exit 173", "found no packing: it gave up"),
        ("echo 'ERROR: no good'; exit 171", "Packmol failed; found ERROR: no good"),
        ("exit 2", "Packmol failed; found exit code 2"),
    ):
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        with pytest.raises(DataError, match=message):
            pack({"water": 2}, cell=8)
    rows = "".join(f"{symbol} {x} 0 0\\n" for x in (0, 1.0) for symbol in "OHH")
    fake.write_text(f"#!/bin/sh\nprintf '6\\n\\n{rows}' > packed.xyz\n")
    with pytest.raises(DataError, match=r"molecules too close; expected 2 Å; found 1 Å. Try another seed"):
        pack({"water": 2}, cell=8)
    fake.unlink()
    with pytest.raises(DataError, match="cannot be started"):
        pack({"water": 2}, cell=8)


def test_packmol_that_is_missing_is_said_with_the_cure(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'not installed. Install it with: pip install "mlipkit\[pack\]"'):
        packing.packmol()
    monkeypatch.setattr("shutil.which", lambda name: "/somewhere/packmol")
    assert packing.packmol() == Path("/somewhere/packmol")


def test_the_command_writes_boxes_that_runs_start_from(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["data", "pack", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    command = ["water=5", "methanol=2", "--density", "0.9", "-o", "start.extxyz", "--boxes", "3", "--seed", "7"]
    assert call(*command, "--json", "o.json") == 0
    frames = mk.read("start.extxyz")
    assert (len(frames), frames.n_atoms.tolist(), frames.pbc.all()) == (3, [27] * 3, True)
    assert frames.sources[int(frames.source_codes[1])] == "packed 5 water, 2 methanol, seed 8"
    np.testing.assert_array_equal(
        frames.atoms(1).positions, pack({"water": 5, "methanol": 2}, density=0.9, seed=8).positions
    )
    record = json.loads(Path("o.json").read_text())
    assert record["figures"]["boxes"] == {"value": 3, "unit": "frames"}
    assert record["what"]["molecules"] == {"water": 5, "methanol": 2}
    assert call("water=2", "--cell", "7,8,9", "--free", "-o", "free.xyz") == 0
    assert not mk.read("free.xyz").pbc.any()
    assert call("water", "--density", "1", "-o", "x.xyz") == 2
    assert call("water=2", "--cell", "7,8", "-o", "x.xyz") == 2
    assert call("water=2", "-o", "x.xyz") == 1
    said = capsys.readouterr().err
    for text in ("not of the form NAME=COUNT; found water", "one or three edge lengths", "either a density or a cell"):
        assert text in said
    assert not Path("x.xyz").exists()
