"""The data report: every check fires on data that are wrong in that way, and is quiet on data that are right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.units import fs, kB

from mlipkit.data import FrameSet, read
from mlipkit.data.plausibility import all_electron_unit
from mlipkit.data.report import report
from mlipkit.errors import DataError
from mlipkit.units import ASE_TIME, BOHR, FORCE_TO_ACCELERATION, GPA, HARTREE, KCAL_PER_MOL


@pytest.fixture(scope="module")
def md() -> FrameSet:
    """80 consecutive steps of 2 fs: 32 copper atoms, EMT, NVE, with velocities and stress."""
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    momenta = np.random.default_rng(1).normal(size=(32, 3)) * np.sqrt(atoms.get_masses() * 600 * kB)[:, None]
    atoms.set_momenta(momenta - momenta.mean(0))
    dynamics = VelocityVerlet(atoms, 2 * fs)
    frames = []
    for step in range(80):
        image = atoms.copy()
        image.calc = None
        image.info.update(
            time_fs=2.0 * step,
            trajectory=0,
            energy=atoms.get_potential_energy(),
            stress=atoms.get_stress(voigt=False),
        )
        image.arrays["forces"] = atoms.get_forces()
        frames.append(image)
        dynamics.run(1)
    return FrameSet.from_atoms(frames, source="emt")


@pytest.fixture(scope="module")
def molecules() -> FrameSet:
    """200 water molecules with energies of the size of all-electron totals."""
    rng = np.random.default_rng(0)
    start = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    positions = start + 0.03 * rng.normal(size=(200, 3, 3))
    energy = -2080 + 0.05 * rng.normal(size=200)
    return FrameSet.from_arrays([8, 1, 1], positions, energy=energy, forces=rng.normal(size=(200, 3, 3)))


def found(frames: FrameSet, topic: str, *levels: str):
    matching = [one for one in report(frames).findings if one.topic == topic and one.level in (levels or ("problem",))]
    assert matching, f"no {topic}: " + "; ".join(f"{one.level} {one.topic}" for one in report(frames).findings)
    return matching[0]


def changed(frames: FrameSet, **columns) -> FrameSet:
    given = {
        "energy": frames.energy,
        "forces": frames.forces,
        "stress": frames.stress,
        "velocities": frames.velocities,
        "time": frames.time,
        "positions": frames.positions,
        "pbc": frames.pbc,
    } | columns
    return FrameSet.from_arrays(
        frames.numbers, given.pop("positions"), frames.n_atoms, cell=frames.cell, trajectory=frames.trajectory, **given
    )


def test_right_data_raise_no_problem(md, molecules):
    for frames in (md, molecules):
        assert not report(frames).problems, report(frames).table()
    topics = {one.topic for one in report(md).findings if one.level == "ok"}
    assert {"unit of forces", "time step", "unit of velocities", "temperature", "overlaps", "duplicates"} <= topics


@pytest.mark.parametrize(
    ("factor", "unit"), [(KCAL_PER_MOL, "kcal/mol/Å"), (HARTREE / BOHR, "hartree/bohr"), (1e-3, "meV/Å")]
)
def test_forces_in_other_units(md, factor, unit):
    assert unit in found(changed(md, forces=md.forces / factor), "unit of forces").text


def test_energies_in_other_units(md):
    assert "energies look like kcal/mol" in found(changed(md, energy=md.energy / KCAL_PER_MOL), "unit of forces").text


def test_forces_with_the_wrong_sign(md):
    assert "uphill" in found(changed(md, forces=-md.forces), "sign of forces").text


def test_wrong_time_step(md):
    assert "2 times the stated one" in found(changed(md, time=md.time / 2), "time step", "warning").text


def test_velocities_in_ases_unit(md):
    frames = changed(md, velocities=md.velocities * ASE_TIME)
    assert "ASE's unit" in found(frames, "unit of velocities").text
    assert "Å/fs" in found(frames, "temperature", "warning").text


def test_stress_sign_and_unit():
    frames = []
    for scale in np.linspace(0.97, 1.03, 15):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(atoms)
    good = FrameSet.from_atoms(frames)
    assert "falls with volume" in found(good, "sign of stress", "ok").text
    assert "wrong sign" in found(good.with_labels(stress=-good.stress), "sign of stress").text
    assert "GPa or kbar" in found(good.with_labels(stress=good.stress / GPA), "unit of stress", "warning").text


@pytest.mark.parametrize(("factor", "unit"), [(HARTREE, "hartree"), (KCAL_PER_MOL, "kcal/mol")])
def test_total_energies_in_other_units(molecules, factor, unit):
    assert f"totals in {unit}" in found(molecules.with_labels(energy=molecules.energy / factor), "unit of energy").text


def test_mixed_units(molecules):
    energy = molecules.energy.copy()
    energy[50:80] /= HARTREE
    one = found(molecules.with_labels(energy=energy), "unit of energy")
    assert "mixed units: the energies of 30 of 200" in one.text
    assert one.frames == tuple(range(50, 80))


def test_all_electron_unit_is_silent_where_it_cannot_know():
    assert all_electron_unit(np.array([8, 1, 1]), -2080.0) == "eV"
    assert all_electron_unit(np.array([8, 1, 1]), -14.2) is None
    assert all_electron_unit(np.array([78]), -5e5) is None
    assert all_electron_unit(np.array([8, 1, 1]), 2080.0) is None
    # GFN1-xTB ethanol, eV: as large as the all-electron total in rydberg.
    assert all_electron_unit(np.array([6, 6, 8, 1, 1, 1, 1, 1, 1]), -309.8) is None


@pytest.mark.parametrize(("scale", "which"), [(100.0, "large"), (1e-4, "small")])
def test_size_of_forces_when_nothing_else_can_tell(molecules, scale, which):
    frames = molecules.with_labels(forces=molecules.forces * scale)
    assert which in found(frames, "unit of forces", "warning").text


def test_outliers_in_energy_and_force(molecules):
    energy, forces = molecules.energy.copy(), molecules.forces.copy()
    energy[17] += 3.0
    forces[3 * 42] = [90, 0, 0]
    frames = molecules.with_labels(energy=energy, forces=forces)
    texts = {one.text: one for one in report(frames).findings if one.topic == "outliers" and one.level == "warning"}
    assert any(text.startswith("1 outlier in energy: frame 17") for text in texts)
    assert any("frame 42" in text and one.frames == (42,) for text, one in texts.items())


def test_energy_of_absurd_size(molecules):
    energy = molecules.energy.copy()
    energy[5] = -9e9
    frames = molecules.with_labels(energy=energy)
    assert found(frames, "atomic energies").level == "problem"
    assert "frame 5" in found(frames, "outliers").text


def test_overlap_names_the_pair(molecules):
    positions = molecules.positions.copy()
    positions[3 * 7 + 2] = positions[3 * 7 + 1] + [0.1, 0, 0]
    one = found(changed(molecules, positions=positions), "overlaps", "warning")
    assert "H1 and H2 of frame 7, 0.10 Å apart" in one.text
    assert one.frames == (7,)


def test_overlap_through_the_cell_wall():
    atoms = Atoms("ArAr", positions=[[0.1, 0, 0], [9.9, 0, 0]], cell=[10, 10, 10], pbc=True)
    assert "0.20 Å apart" in found(FrameSet.from_atoms([atoms]), "overlaps", "warning").text
    atoms.pbc = False
    assert found(FrameSet.from_atoms([atoms]), "overlaps", "ok")


def test_duplicates_with_equal_and_with_other_labels(molecules):
    twice = FrameSet.concat([molecules, molecules[3:5]])
    assert found(twice, "duplicates", "warning").frames == (200, 201)
    other = FrameSet.concat([molecules, molecules[3:5].with_labels(energy=molecules.energy[3:5] + 1)])
    assert "different energies" in found(other, "duplicates", "problem").text


def test_zeroed_forces_partial_labels_and_mixed_periodicity(molecules):
    forces = molecules.forces.copy()
    forces[::3] = 0
    assert "constraints" in found(molecules.with_labels(forces=forces), "zero forces", "warning").text
    energy = molecules.energy.copy()
    energy[:10] = np.nan
    one = found(molecules.with_labels(energy=energy), "coverage", "warning")
    assert (one.text, one.frames) == ("energy on 190 of 200 frames", tuple(range(10)))
    solid = FrameSet.from_atoms([bulk("Cu")])
    both = FrameSet.concat([molecules, solid])
    assert "FFF 200, TTT 1" in found(both, "periodicity", "info").text
    stressed = molecules.with_labels(stress=np.zeros((200, 3, 3)))
    assert found(stressed, "stress without cell", "warning")


def test_numbers_of_the_report(md):
    found_report = report(md)
    assert found_report.compositions == (("Cu32", 80),)
    assert (found_report.pbc, found_report.time_step, found_report.trajectories) == ({"TTT": 80}, 2.0, 1)
    assert found_report.coverage == {"energy": 80, "forces": 80, "stress": 80, "velocities": 80}
    mass = 32 * 63.546 * 1.66053906660 / (2 * 3.61) ** 3
    assert found_report.statistics["density, mean (g/cm³)"] == pytest.approx(mass, rel=1e-6)
    rms = float(np.sqrt((md.forces**2).mean()))
    assert found_report.statistics["force, root mean square (eV/Å)"] == pytest.approx(rms)
    assert sum(found_report.histograms["force"].counts) == 80 * 32


def test_suggested_atomic_energies():
    rng = np.random.default_rng(0)
    zero = {8: -2041.0, 1: -13.6}
    frames = []
    for k in range(40):
        numbers = [8] * (1 + k % 3) + [1] * (1 + k % 4)
        atoms = Atoms(numbers, positions=rng.normal(size=(len(numbers), 3)) * 6)
        atoms.info["energy"] = sum(zero[z] for z in numbers)
        frames.append(atoms)
    suggested = report(FrameSet.from_atoms(frames)).atomic_energies
    assert suggested == pytest.approx({"H": -13.6, "O": -2041.0}, rel=1e-6)


def test_views(md, molecules):
    for frames in (md, molecules, molecules.with_labels(energy=float("nan"), forces=float("nan"))):
        found_report = report(frames)
        text = found_report.table()
        assert str(len(frames)) in text
        assert all(one.text in text for one in found_report.findings)
        json.dumps(found_report.to_dict(), allow_nan=False)
        page = found_report._repr_html_()
        assert page.count("<tr>") == len(found_report.rows())
        assert len(page) < 20000
    marked = report(FrameSet.from_atoms([Atoms("H")], source="<b>x"))._repr_html_()
    assert "&lt;b&gt;x" in marked
    assert "<b>x" not in marked


def test_figures_have_units_and_the_counts(md):
    figures = report(md).figures()
    assert {"composition", "force", "distance", "density", "energy"} <= set(figures)
    assert figures["force"].layout.xaxis.title.text == "force on an atom, eV/Å"
    assert sum(figures["force"].data[0].y) == 80 * 32
    for figure in figures.values():
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text


def test_nothing_to_report_on(md):
    with pytest.raises(DataError, match="no frames to report on"):
        report(md.select([]))


def test_one_composition_gives_no_single_atomic_energies(molecules):
    assert "only their sum has a meaning" in report(molecules).atomic_energies_from


def test_motion_outweighs_a_coincidence_of_size():
    """Helium moving freely, energies that look like hartree totals: forces and motion say eV."""
    time = np.arange(40.0)
    x = np.cos(0.05 * time)
    acceleration = -(0.05**2) * x
    force = acceleration * 4.002602 / FORCE_TO_ACCELERATION
    energy = -2.9037 + 0.5 * 4.002602 / FORCE_TO_ACCELERATION * 0.05**2 * x**2 * 1e-2
    positions, forces = np.zeros((40, 1, 3)), np.zeros((40, 1, 3))
    positions[:, 0, 0], forces[:, 0, 0] = 0.1 * x, 0.1 * force
    frames = FrameSet.from_arrays([2], positions, energy=energy, forces=forces, time=time, trajectory=0)
    assert not [one for one in report(frames).problems if one.topic == "unit of energy"]
    assert found(frames.with_labels(forces=float("nan")), "unit of energy")


def test_samples_raise_no_alarm():
    from mlipkit.data import samples

    for name in samples.names():
        frames = samples.load(name)
        assert not [one for one in report(frames[:2000]).problems if one.level == "problem"], name


def test_real_outlier_is_found(shared_data):
    frames = read(shared_data / "nacl_water_revpbe0d3/nacl4_w56.extxyz.gz")
    one = next(one for one in frames.report().problems if "largest force" in one.text)
    assert float(np.linalg.norm(frames.frame(one.frames[0])["forces"], axis=1).max()) > 30


def test_real_sets_raise_no_false_alarm(shared_data):
    for name in ("ch4_nve_aimd/ch4_nve_1fs.extxyz", "md17_ethanol/ethanol_traj_0p5fs.extxyz.gz"):
        assert not read(shared_data / name).report().problems


@pytest.mark.full
def test_a_large_set_needs_little_time_and_memory():
    import time
    import tracemalloc

    rng = np.random.default_rng(0)
    start = rng.normal(size=(9, 3)) * 3
    positions = start + 0.05 * rng.normal(size=(30_000, 9, 3))
    frames = FrameSet.from_arrays(
        [6, 6, 8, 1, 1, 1, 1, 1, 1], positions, energy=rng.normal(size=30_000), forces=rng.normal(size=positions.shape)
    )
    tracemalloc.start()
    begin = time.perf_counter()
    report(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - begin < 60
    assert peak < 6 * frames.positions.nbytes


def test_temperature_counts_degrees_of_freedom():
    """Molecules that do not drift have 3N-3: the sample's report says 300 K, not 267 K."""
    from mlipkit.data import samples

    (said,) = [f.text for f in samples.load("ethanol_300K").report().findings if f.topic == "temperature"]
    kelvin = float(said.split()[-2])
    assert abs(kelvin - 300) < 10
