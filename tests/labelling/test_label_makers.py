"""Engines: labels are what they say they are, names find them, refusals are in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

import mlipkit as mk
from mlipkit.data import FrameSet, samples
from mlipkit.errors import MissingPackageError, SpecError
from mlipkit.labelling import (
    CalculatorLabels,
    LabelMaker,
    LabelMakerError,
    Labels,
    PotentialLabels,
    PySCFLabels,
    Recipe,
    RecordedLabels,
    XTBLabels,
    build,
    label_frames,
    label_maker,
    recipe_of,
)
from mlipkit.labelling.protocol import fault_of

STEP = 2e-4


def water(periodic: bool = False, seed: int = 3) -> Atoms:
    """A bent molecule without symmetry, alone or in a skewed cell."""
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=seed)
    if periodic:
        atoms.set_cell([[4.2, 0, 0], [0.5, 4.6, 0], [0.2, -0.4, 5.0]])
        atoms.center()
        atoms.pbc = True
    return atoms


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (1, 1, 1)
    atoms.rattle(0.05, seed=1)
    return atoms


def slope(maker: LabelMaker, atoms: Atoms, atom: int, axis: int) -> float:
    """-dE/dx by central differences."""
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[atom, axis] += sign * STEP
        energies.append(maker.label(moved).energy)
    return -(energies[0] - energies[1]) / (2 * STEP)


def strain_slope(maker: LabelMaker, atoms: Atoms, a: int, b: int) -> float:
    """dE/d(strain)/V by central differences of a symmetric strain."""
    energies = []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[a, b] += 0.5 * sign * STEP
        strain[b, a] += 0.5 * sign * STEP
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        energies.append(maker.label(strained).energy)
    return (energies[0] - energies[1]) / (2 * STEP) / atoms.get_volume()


def gfn1(**options) -> LabelMaker:
    return XTBLabels("gfn1-xtb", accuracy=0.01, **options)


def gfn2(**options) -> LabelMaker:
    return XTBLabels("gfn2-xtb", accuracy=0.01, **options)


def hydrogen_fluoride() -> Atoms:
    return Atoms("HF", [[0.1, -0.2, 0.05], [0.3, 0.4, 0.75]])


CASES = {
    "gfn1 molecule": (gfn1, water, 2e-5),
    "gfn1 cell": (gfn1, lambda: water(True), 2e-5),
    "gfn2 molecule": (gfn2, water, 2e-5),
    "gfn2 cell": (gfn2, lambda: water(True), 2e-5),
    "gfn1 cation": (lambda: gfn1(charge=1), water, 2e-5),
    "gfn2 triplet": (lambda: gfn2(multiplicity=3), water, 2e-5),
    "calculator molecule": (lambda: CalculatorLabels(EMT()), water, 1e-5),
    "calculator cell": (lambda: CalculatorLabels(EMT()), crystal, 1e-5),
    "own potential": (lambda: PotentialLabels("sample:ethanol_50"), lambda: molecule("CH3CH2OH"), 1e-4),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.full] if case == "own potential" else []) for case in CASES]
)
def test_labels_are_the_slopes_of_the_energy(case: str):
    make, structure, tolerance = CASES[case]
    maker, atoms = make(), structure()
    labels = maker.label(atoms)
    assert fault_of(labels, len(atoms)) == ""
    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        assert labels.forces[atom, axis] == pytest.approx(slope(maker, atoms, atom, axis), abs=tolerance)
    assert (labels.stress is not None) == bool(atoms.pbc.all())
    if labels.stress is not None:
        np.testing.assert_allclose(labels.stress, labels.stress.T, atol=1e-10)
        for a, b in ((0, 0), (1, 2)):
            assert labels.stress[a, b] == pytest.approx(strain_slope(maker, atoms, a, b), abs=tolerance)
            assert abs(labels.stress[a, b]) > 1e-5


@pytest.mark.full
@pytest.mark.parametrize(
    ("options", "structure"),
    [
        ({"functional": "pbe"}, hydrogen_fluoride),
        ({"functional": "hf"}, hydrogen_fluoride),
        ({"functional": "pbe", "charge": 1}, water),
        ({"functional": "hf", "multiplicity": 3}, water),
    ],
)
def test_pyscf_labels_are_the_slopes_of_the_energy(options, structure):
    pytest.importorskip("pyscf", reason='needs PySCF: pip install "mlipkit[pyscf]"')
    maker, atoms = PySCFLabels(basis="sto-3g", convergence=1e-11, **options), structure()
    labels = maker.label(atoms)
    assert labels.stress is None
    for atom, axis in ((0, 0), (1, 2)):
        assert labels.forces[atom, axis] == pytest.approx(slope(maker, atoms, atom, axis), abs=2e-5)


def test_pyscf_leaves_no_file_behind_and_no_setting(tmp_path: Path, monkeypatch):
    scf = pytest.importorskip("pyscf.scf", reason='needs PySCF: pip install "mlipkit[pyscf]"')
    from pyscf import lib

    monkeypatch.setattr(lib.param, "TMPDIR", str(tmp_path))
    monkeypatch.setattr("pyscf.lib.NamedTemporaryFile", lambda **_: pytest.fail("a file is made"))
    before = scf.hf.MUTE_CHKFILE
    label_maker("pyscf", functional="hf", basis="sto-3g").label(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
    assert before == scf.hf.MUTE_CHKFILE


def test_pyscf_names_what_it_does_and_says_no_in_its_words():
    pytest.importorskip("pyscf", reason='needs PySCF: pip install "mlipkit[pyscf]"')
    maker = label_maker("pyscf", functional="b3lyp", basis="sto-3g", max_cycles=1)
    assert maker.describe()["level_of_theory"] == "B3LYP/sto-3g"
    with pytest.raises(LabelMakerError, match="SCF did not converge in 1 cycles"):
        maker.label(hydrogen_fluoride())
    with pytest.raises(LabelMakerError, match="molecules only; this is periodic along a, b"):
        maker.label(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[9, 9, 0], pbc=[True, True, False]))
    with pytest.raises(LabelMakerError, match=r"lectron|spin"):
        label_maker("pyscf", basis="sto-3g", multiplicity=2).label(hydrogen_fluoride())
    with pytest.raises(LabelMakerError, match=r"[Bb]asis"):
        label_maker("pyscf", basis="sto-3g").label(Atoms("U"))
    with pytest.raises(SpecError, match="no functional 'pbee'"):
        label_maker("pyscf", functional="pbee")


def test_pyscf_that_is_missing_is_said_with_the_cure(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(MissingPackageError, match=r'labelling with PySCF needs.*pip install "mlipkit\[pyscf\]"'):
        label_maker("pyscf")


@pytest.mark.full
def test_a_universal_potential_labels():
    pytest.importorskip("so3krates_torch", reason='needs SO3LR: pip install "mlipkit[universal]"')
    maker, atoms = label_maker("universal:so3lr"), water()
    labels = maker.label(atoms)
    assert labels.forces[1, 2] == pytest.approx(slope(maker, atoms, 1, 2), abs=1e-4)
    assert labels.stress is None
    assert maker.name == "potential universal:so3lr"


def test_xtb_is_the_same_whatever_came_before():
    maker, atoms = gfn2(), water()
    alone = maker.label(atoms)
    for other in (molecule("CH3OH"), water(True), atoms):
        again = maker.label(other)
    assert again.energy == alone.energy
    np.testing.assert_array_equal(again.forces, alone.forces)


def test_xtb_says_no_in_its_own_words():
    with pytest.raises(LabelMakerError, match="SCF not converged in 2 cycles"):
        XTBLabels(max_iterations=2).label(molecule("CH3OH"))
    with pytest.raises(LabelMakerError, match="not along a, b"):
        gfn1().label(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[9, 9, 9], pbc=[True, True, False]))
    with pytest.raises(LabelMakerError, match="Z >86"):
        gfn1().label(Atoms("U"))
    with pytest.raises(LabelMakerError, match="multiplicity 2 does not fit 10 electrons"):
        gfn1(multiplicity=2).label(water())
    with pytest.raises(LabelMakerError, match="Too close"):
        gfn1().label(Atoms("H2"))


def test_options_of_xtb_act():
    radical = molecule("CH3")
    assert gfn1().label(radical).energy == gfn1(multiplicity=2).label(radical).energy
    atoms = water()
    energies = {
        XTBLabels(**options).label(atoms).energy
        for options in (
            {},
            {"charge": 1},
            {"multiplicity": 3},
            {"electronic_temperature": 9000},
            {"method": "gfn2-xtb"},
        )
    }
    assert len(energies) == 5
    record = XTBLabels(charge=-1, electronic_temperature=500).describe()
    assert json.loads(json.dumps(record)) == record
    assert (record["settings"]["charge"], record["settings"]["electronic_temperature_K"]) == (-1, 500)


class Smeared(Calculator):
    """Energy extrapolated to zero smearing beside the free energy, to which the forces belong; no stress."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - as ASE has it

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "free_energy": 0.9, "forces": np.full((len(atoms), 3), 2.0)}


def test_a_calculator_gives_the_energy_of_its_forces_and_raw_forces():
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    labels = CalculatorLabels(Smeared()).label(atoms)
    assert labels.energy == 0.9
    assert (labels.forces == 2.0).all()
    assert labels.stress is None
    assert atoms.constraints
    with pytest.raises(LabelMakerError, match="No EMT-potential for U"):
        CalculatorLabels(EMT()).label(Atoms("U2", [[0, 0, 0], [0, 0, 2]]))
    with pytest.raises(SpecError, match="expected an ASE calculator; found int"):
        CalculatorLabels(3)
    assert CalculatorLabels(LennardJones()).describe()["engine"] == "ase.calculators.lj.LennardJones"


def test_recorded_labels_are_given_out_for_their_own_frames_only(tmp_path: Path):
    known = samples.load("ethanol_300K")[:30]
    maker = RecordedLabels(known[10:20])
    found = label_frames(known, maker, tmp_path)
    np.testing.assert_array_equal(found.frames.uids, known.uids[10:20])
    np.testing.assert_array_equal(found.frames.energy, known.energy[10:20])
    np.testing.assert_array_equal(found.frames.forces, known[10:20].forces)
    assert found.reasons == [("not in the recorded set", 20)]


def test_recorded_labels_find_a_frame_by_its_atoms():
    known = samples.load("ethanol_300K")[:5]
    maker = RecordedLabels(known, tolerance=1e-3)
    atoms = known.atoms(3)
    atoms.info.clear()
    atoms.positions += 5e-4
    assert maker.label(atoms).energy == known.energy[3]
    # A uid from another set says nothing when the atoms differ.
    atoms.info["uid"] = known.uid(1)
    assert maker.label(atoms).energy == known.energy[3]
    for change in ({"positions": atoms.positions + 2e-3}, {"numbers": atoms.numbers[::-1].copy()}):
        other = atoms.copy()
        for name, values in change.items():
            other.arrays[name][:] = values
        with pytest.raises(LabelMakerError, match="not in the recorded set"):
            maker.label(other)
    other = atoms.copy()
    other.set_cell([9, 9, 9])
    assert maker.label(other).energy == known.energy[3]
    other.pbc = True
    with pytest.raises(LabelMakerError, match="not in the recorded set"):
        maker.label(other)
    with pytest.raises(LabelMakerError, match="not in the recorded set"):
        maker.label(Atoms("H2"))


def test_recorded_frames_that_did_not_converge_fail_again():
    frames = samples.load("ethanol_300K")[:3]
    energy, forces = frames.energy.copy(), frames.forces.copy()
    energy[1] = np.nan
    forces[18:] = np.nan
    maker = RecordedLabels(frames.with_labels(energy=energy, forces=forces))
    assert maker.label(frames.atoms(0)).energy == frames.energy[0]
    for row, what in ((1, "energy"), (2, "forces")):
        with pytest.raises(LabelMakerError, match=f"recorded without {what}"):
            maker.label(frames.atoms(row))
    with pytest.raises(SpecError, match="holds no energy"):
        RecordedLabels(frames.with_labels(energy=float("nan")))


def test_recorded_stress_and_cells(tmp_path: Path):
    atoms = [water(True), water(True, seed=5)]
    frames = FrameSet.from_atoms(atoms).with_labels(
        energy=[1.0, 2.0], forces=np.zeros((6, 3)), stress=np.arange(18.0).reshape(2, 3, 3)
    )
    mk.write(tmp_path / "set.extxyz", frames)
    maker = label_maker(f"recorded:{tmp_path / 'set.extxyz'}")
    np.testing.assert_array_equal(maker.label(atoms[1]).stress, frames.stress[1])  # type: ignore[arg-type]
    atoms[1].set_cell(atoms[1].cell.array * 1.01)
    with pytest.raises(LabelMakerError, match="not in the recorded set"):
        maker.label(atoms[1])
    found = label_frames(frames, recipe_of(f"recorded:{tmp_path / 'set.extxyz'}"), tmp_path / "out")
    np.testing.assert_array_equal(found.frames.stress, frames.stress)


def test_names():
    assert recipe_of("gfn2-xtb", charge=1) == Recipe("tblite", {"method": "gfn2-xtb", "charge": 1})
    assert recipe_of("recorded:public:md17") == Recipe("recorded", {"frames": "public:md17"})
    assert recipe_of("universal:so3lr", device="cuda").options == {"potential": "universal:so3lr", "device": "cuda"}
    assert recipe_of("some/model.safetensors").engine == "potential"
    maker = label_maker("gfn1-xtb")
    assert isinstance(maker, LabelMaker)
    assert maker.name.startswith("GFN1-xTB (tblite ")
    with pytest.raises(SpecError, match=r"unknown label maker; found 'gfn1'\. did you mean 'gfn1-xtb'"):
        recipe_of("gfn1")
    with pytest.raises(SpecError, match=r"maker: gfn1-xtb: chrage: unknown option\. did you mean 'charge'"):
        recipe_of("gfn1-xtb", chrage=1)
    with pytest.raises(SpecError, match="method: unknown option"):
        recipe_of("gfn1-xtb", method="gfn2-xtb")
    with pytest.raises(SpecError, match="unknown engine; found 'tblit'"):
        build(Recipe("tblit"))
    with pytest.raises(SpecError, match="options do not fit"):
        build(Recipe("tblite", {"colour": "red"}))
    with pytest.raises(SpecError, match="cannot be imported"):
        build(Recipe("no_such_module:make"))
    with pytest.raises(SpecError, match="gives no label maker; found Fraction"):
        build(Recipe("fractions:Fraction", {"numerator": 3}))


def test_a_maker_by_name_works_in_child_processes_and_agrees_with_itself(tmp_path: Path):
    frames = samples.load("ethanol_300K")[:4]
    maker = label_maker("gfn1-xtb")
    found = label_frames(frames, maker, tmp_path, processes=2, timeout=60)
    for atoms, labelled in zip(frames, found.frames, strict=True):
        labels = maker.label(atoms)
        assert labelled.get_potential_energy() == labels.energy
        np.testing.assert_array_equal(labelled.get_forces(), labels.forces)
    assert found.sentence.endswith("of GFN1-xTB")


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (Labels(0.0, np.zeros((2, 3))), ""),
        (Labels(float("inf"), np.zeros((2, 3))), "energy is inf"),
        (Labels(0.0, np.zeros((2, 2))), "forces of shape"),
        (Labels(0.0, np.full((2, 3), np.nan)), "forces are not finite"),
        (Labels(0.0, np.zeros((2, 3)), np.zeros(6)), "stress of shape"),
        (Labels(0.0, np.zeros((2, 3)), np.full((3, 3), np.nan)), "stress is not finite"),
        (Labels(0.0, np.array([[900.0, 500, 0], [0, 0, 0]])), "a force of 1030 eV/Å"),
        (Labels("x", np.zeros((2, 3))), "no numbers"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_has_a_name(labels: Labels, fault: str):
    said = fault_of(labels, 2)
    assert (said == "") == (fault == "")
    assert fault in said
