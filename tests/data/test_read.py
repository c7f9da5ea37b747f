"""Reading every format: the same numbers as ASE, indices, compression, trajectories, what VASP says about itself."""

from __future__ import annotations

import gzip
import shutil
import sys
import tracemalloc
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from vasp_text import outcar, vasprun

from mlipkit.data import FrameSet, read, read_source, write
from mlipkit.data.files import detect
from mlipkit.data.read import read_with_report
from mlipkit.data.resolve import raw_frame, resolve
from mlipkit.errors import DataError, LabelError, SpecError
from mlipkit.events import Message
from mlipkit.units import HARTREE, KBAR, KCAL_PER_MOL

ETHANOL = [6, 6, 8, 1, 1, 1, 1, 1, 1]


def molecules(count: int = 12, spread: float = 0.3) -> list[Atoms]:
    rng = np.random.default_rng(1)
    start = rng.normal(size=(3, 3)) * 2
    frames = []
    for _ in range(count):
        atoms = Atoms("OH2", positions=start + spread * rng.normal(size=(3, 3)), cell=[7, 8, 9], pbc=True)
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(3, 3)), stress=rng.normal(size=6)
        )
        frames.append(atoms)
    return frames


def same_as_ase(path: Path, frames: FrameSet) -> None:
    for i, atoms in enumerate(ase.io.iread(path)):
        expected, mine = resolve(raw_frame(atoms)).values, frames.frame(i)
        np.testing.assert_array_equal(mine["positions"], atoms.positions)
        np.testing.assert_array_equal(mine["numbers"], atoms.numbers)
        np.testing.assert_array_equal(mine["cell"], atoms.cell.array)
        np.testing.assert_array_equal(mine["pbc"], atoms.pbc)
        for label, value in expected.items():
            np.testing.assert_array_equal(mine[label], value, err_msg=label)
        assert i < len(frames)


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json", "db"])
def test_formats_of_ase(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    ase.io.write(path, molecules())
    frames = read(path)
    assert len(frames) == 12
    same_as_ase(path, frames)


@pytest.mark.parametrize(
    "name",
    [
        "chclca_bias/naive_50.extxyz",
        "elemental_Mo/mo_test.extxyz.gz",
        "ch4_nve_aimd/ch4_nve_1fs.extxyz",
        "acac/isolated_atoms.extxyz",
    ],
)
def test_real_files_bit_for_bit(shared_data, name):
    same_as_ase(shared_data / name, read(shared_data / name))


def test_never_judged_by_suffix(tmp_path):
    plain = tmp_path / "a.extxyz"
    ase.io.write(plain, molecules())
    disguised = tmp_path / "labels.dat"
    disguised.write_bytes(gzip.compress(plain.read_bytes()))
    trajectory = tmp_path / "b.traj"
    ase.io.write(trajectory, molecules())
    odd = Path(shutil.copy(trajectory, tmp_path / "b.xyz"))
    assert read(disguised).hashes()["positions"] == read(plain).hashes()["positions"]
    assert (detect(odd), len(read(odd))) == ("traj", 12)


def test_compressed_trajectory(tmp_path):
    ase.io.write(tmp_path / "b.traj", molecules())
    packed = tmp_path / "b.traj.gz"
    packed.write_bytes(gzip.compress((tmp_path / "b.traj").read_bytes()))
    assert read(packed).hashes()["forces"] == read(tmp_path / "b.traj").hashes()["forces"]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (":", range(12)),
        ("-1", [11]),
        ("3", [3]),
        (":4", range(4)),
        ("-3:", [9, 10, 11]),
        ("1:8:3", [1, 4, 7]),
        (5, [5]),
    ],
)
@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_indices(tmp_path, suffix, index, expected):
    path = tmp_path / f"a.{suffix}"
    ase.io.write(path, molecules())
    whole = read(path)
    np.testing.assert_array_equal(read(path, index=index).energy, whole.energy[list(expected)])
    np.testing.assert_array_equal(read(f"{path}@{index}").energy, whole.energy[list(expected)])


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_an_index_that_selects_nothing(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    ase.io.write(path, molecules())
    for index in ("5:2", ":0", "4:4", "-1:-3", "2:5:-1"):
        with pytest.raises(DataError, match=f"selects no frame, however many.*found {index}$"):
            read(f"{path}@{index}")
    with pytest.raises(DataError, match=r"selects no frame, however many.*found 5:2"):
        read(path, index=slice(5, 2))
    with pytest.raises(DataError, match=r"selects no frame.*found (index 20:|20: of 12 frames)"):
        read(path, index="20:")


def test_a_name_with_at_sign(tmp_path):
    path = tmp_path / "run@300"
    ase.io.write(path, molecules(3), format="extxyz")
    assert len(read(str(path))) == 3
    assert len(read(f"{path}@-1")) == 1


def test_lists_patterns_and_sources(tmp_path):
    for name in ("b", "a"):
        ase.io.write(tmp_path / f"{name}.extxyz", molecules(3))
    by_pattern = read(tmp_path / "*.extxyz")
    assert [by_pattern.sources[c].split("/")[-1] for c in by_pattern.source_codes] == ["a.extxyz"] * 3 + [
        "b.extxyz"
    ] * 3
    by_list = read([f"{tmp_path / 'b.extxyz'}@:2", tmp_path / "a.extxyz"])
    assert len(by_list) == 5
    assert len(read_source([f"{tmp_path / 'a.extxyz'}@0", str(tmp_path / "b.extxyz")])) == 4


def test_header_variants(tmp_path):
    """Voigt stress, JSON stress, quotes of every kind, Fortran exponents, lower-case symbols, no Lattice."""
    path = tmp_path / "a.xyz"
    path.write_text(
        "1\nLattice='4 0 0 0 5 0 0 0 6' Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5D+01"
        ' stress="1 2 3 4 5 6" pbc=[T, T, T] note="x = {1}"\n'
        "he 0.0 1.0D-01 2.0 0 0 1\n"
        '1\nLattice={4 0 0 0 5 0 0 0 6} Properties=species:S:1:pos:R:3:forces:R:3 energy=2 pbc="T T T" '
        "stress=[[1,6,5],[6,2,4],[5,4,3]]\n"
        "He 0 0 0 0 0 1\n\n"
    )
    frames = read(path)
    np.testing.assert_array_equal(frames.stress[0], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_array_equal(frames.stress[1], frames.stress[0])
    np.testing.assert_array_equal(frames.energy, [-15, 2])
    np.testing.assert_array_equal(frames.positions[0], [0, 0.1, 2])
    assert frames.pbc.all()


def test_plain_xyz_and_ignored_columns(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("2\nno labels here\nH 0 0 0 0.5\nH 0 0 0.74 0.5\n")
    frames, report = read_with_report(path)
    assert not frames.has("energy").any()
    assert not frames.pbc.any()
    assert "columns after the positions are ignored" in report.notes()[0]


def test_many_chunks(tmp_path, monkeypatch):
    ase.io.write(tmp_path / "a.extxyz", molecules(50))
    whole = read(tmp_path / "a.extxyz")
    monkeypatch.setattr(sys.modules["mlipkit.data.collect"], "_ATOMS_PER_CHUNK", 7)
    assert read(tmp_path / "a.extxyz") == whole
    assert len(whole) == 50


@pytest.mark.full
@pytest.mark.parametrize("suffix", ["extxyz", "npz"])
def test_peak_memory_grows_with_the_columns_only(tmp_path, suffix, monkeypatch):
    """Ten times the frames: the peak grows with the bytes of the columns, not with objects per frame."""
    # Below one chunk the frames are still objects: small chunks make that part equal in both.
    monkeypatch.setattr(sys.modules["mlipkit.data.collect"], "_ATOMS_PER_CHUNK", 1 << 12)
    peaks, columns = [], []
    for count in (500, 5000):
        rng = np.random.default_rng(0)
        positions = rng.normal(size=(count, 9, 3))
        path = tmp_path / f"{count}.{suffix}"
        if suffix == "npz":
            np.savez(path, R=positions, z=np.array(ETHANOL), E=rng.normal(size=count), F=positions, e_unit="eV")
        else:
            write(path, FrameSet.from_arrays(ETHANOL, positions, energy=rng.normal(size=count), forces=positions))
        tracemalloc.start()
        frames = read(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        columns.append(count * (9 * (2 + 24 + 24) + 8 + 72 + 3 + 8 + 8 + 8 + 12))
        assert len(frames) == count
    assert (peaks[1] - peaks[0]) < 2.5 * (columns[1] - columns[0])


# ---- coverage


def test_partial_labels_need_consent(tmp_path):
    frames = molecules(4)
    del frames[2].calc.results["forces"]
    ase.io.write(tmp_path / "a.extxyz", frames)
    with pytest.raises(LabelError, match=r"forces is on 3 of 4 frames .*a\.extxyz: frame 2; coverage: energy 4/4"):
        read(tmp_path / "a.extxyz")
    kept = read(tmp_path / "a.extxyz", allow_partial=True)
    assert kept.has("forces").tolist() == [True, True, False, True]
    assert len(read(tmp_path / "a.extxyz", keys={"forces": None})) == 4


def test_messages_go_to_the_sink(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", molecules(4))
    said: list[Message] = []
    read(tmp_path / "a.extxyz", sink=said.append)  # type: ignore[arg-type]
    assert said[0].text.startswith("labels: energy 4/4 from calc.results['energy'], forces 4/4")


def test_named_keys_of_a_file(tmp_path):
    frames = molecules(3)
    for atoms in frames:
        atoms.arrays["pbe_f"] = atoms.calc.results["forces"] * 2
        atoms.info["pbe_e"] = -7.0
    ase.io.write(tmp_path / "a.extxyz", frames)
    found = read(tmp_path / "a.extxyz", keys={"energy": "pbe_e", "forces": "pbe_f"})
    assert (found.energy == -7).all()
    np.testing.assert_allclose(found.forces[:3], frames[0].calc.results["forces"] * 2, atol=1e-7)


# ---- trajectories


def walk(count: int, step: float) -> list[Atoms]:
    rng = np.random.default_rng(3)
    positions = np.cumsum(rng.normal(size=(count, 3, 3)) * step, axis=0) + np.eye(3) * 2
    return [Atoms("OH2", positions=one) for one in positions]


def test_ordered_frames_are_a_trajectory_and_shuffled_ones_are_not(tmp_path):
    frames = walk(60, 0.02)
    ase.io.write(tmp_path / "md.xyz", frames, format="extxyz")
    found, report = read_with_report(tmp_path / "md.xyz")
    assert (found.trajectory == 0).all()
    assert "frames follow each other" in report.notes()[0]
    shuffled = [frames[i] for i in np.random.default_rng(0).permutation(60)]
    ase.io.write(tmp_path / "iid.xyz", shuffled, format="extxyz")
    assert (read(tmp_path / "iid.xyz").trajectory == -1).all()


def test_times_cut_trajectories(tmp_path):
    frames = walk(7, 0.5)
    for atoms, time in zip(frames, [0, 1, 2, 0, 1, 5, 5], strict=True):
        atoms.info["time_fs"] = float(time)
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert read(tmp_path / "a.extxyz").trajectory.tolist() == [0, 0, 0, 1, 1, 1, -1]


def test_real_data_order(shared_data):
    assert (read(shared_data / "md17_ethanol/ethanol_random_1000.extxyz.gz").trajectory == -1).all()
    assert (read(shared_data / "md17_ethanol/ethanol_traj_0p5fs.extxyz.gz").trajectory == 0).all()
    assert (read(shared_data / "combustion_fragments/c1h4o2.extxyz.gz").trajectory == -1).all()


def test_two_files_keep_their_trajectories_apart(tmp_path):
    for name in "ab":
        ase.io.write(tmp_path / f"{name}.xyz", walk(20, 0.02), format="extxyz")
    assert np.unique(read(tmp_path / "?.xyz").trajectory).tolist() == [0, 1]


# ---- npz


def ethanol_arrays(count: int = 4, factor: float = KCAL_PER_MOL) -> dict:
    rng = np.random.default_rng(2)
    return {
        "R": rng.normal(size=(count, 9, 3)),
        "z": np.array(ETHANOL),
        "E": np.full((count, 1), -4214.7 / factor),
        "F": rng.normal(size=(count, 9, 3)) / factor,
    }


def test_sgdml_with_declared_units(tmp_path):
    arrays = ethanol_arrays()
    np.savez(tmp_path / "a.npz", **arrays, e_unit=b"kcal/mol", r_unit=b"Ang", name=b"ethanol", type=b"d")
    frames = read(tmp_path / "a.npz")
    np.testing.assert_allclose(frames.energy, -4214.7, rtol=1e-12)
    np.testing.assert_allclose(frames.forces.reshape(4, 9, 3), arrays["F"] * KCAL_PER_MOL, rtol=1e-12)
    assert frames.numbers[:9].tolist() == ETHANOL


@pytest.mark.parametrize(("factor", "unit"), [(KCAL_PER_MOL, "kcal/mol"), (HARTREE, "hartree"), (1.0, "eV")])
def test_units_are_recognised_from_total_energies(tmp_path, factor, unit):
    np.savez(tmp_path / "a.npz", **ethanol_arrays(factor=factor))
    frames, report = read_with_report(tmp_path / "a.npz")
    np.testing.assert_allclose(frames.energy, -4214.7, rtol=1e-12)
    assert any(f"read as {unit}" in note for note in report.notes())


def test_rmd17_names_and_units_by_hand(tmp_path):
    arrays = ethanol_arrays()
    np.savez(
        tmp_path / "a.npz", coords=arrays["R"] / 0.529177, nuclear_charges=arrays["z"], energies=np.arange(4.0),
        forces=arrays["F"], old_indices=np.arange(4),
    )  # fmt: skip
    frames = read(tmp_path / "a.npz", units={"energy": "hartree", "length": "bohr"})
    np.testing.assert_allclose(frames.positions.reshape(4, 9, 3), arrays["R"], rtol=1e-5)
    np.testing.assert_allclose(frames.energy, np.arange(4) * HARTREE)
    np.testing.assert_allclose(frames.forces.reshape(4, 9, 3), arrays["F"] * HARTREE / 0.529177210903, rtol=1e-12)


def test_unconverged_that_cannot_act_is_refused(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", molecules(3))
    for choice in ("drop", "error"):
        with pytest.raises(DataError, match=r"a\.extxyz: unconverged: unconverged has no effect.*found extxyz"):
            read(tmp_path / "a.extxyz", unconverged=choice)
    assert len(read(tmp_path / "a.extxyz", unconverged="keep")) == 3


def test_units_that_cannot_act_are_refused(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", molecules(3))
    arrays = ethanol_arrays()
    np.savez(tmp_path / "b.npz", R=arrays["R"], z=arrays["z"], E=np.arange(4.0))
    with pytest.raises(DataError, match=r"a\.extxyz: units: units have no effect.*found extxyz"):
        read(tmp_path / "a.extxyz", units={"energy": "kcal/mol"})
    both = read([tmp_path / "a.extxyz", tmp_path / "b.npz"], units={"energy": "kcal/mol"}, allow_partial=True)
    assert both.energy[4] == pytest.approx(KCAL_PER_MOL)
    assert both.energy[0] == read(tmp_path / "a.extxyz").energy[0]
    with pytest.raises(SpecError, match="'enrgy' has no unit of its own; expected energy or length"):
        read(tmp_path / "b.npz", units={"enrgy": "kcal/mol"})


def test_npz_index_keys_lattice_and_gzip(tmp_path):
    arrays = ethanol_arrays(6)
    arrays["E"] = arrays["E"] + np.arange(6)[:, None]
    lattice = np.array([[9.0, 1, 0], [0, 10, 0], [0, 0, 11]])
    np.savez(tmp_path / "a.npz", **arrays, E2=np.arange(6.0), lattice=lattice, e_unit="eV", r_unit="Ang")
    frames = read(f"{tmp_path / 'a.npz'}@-4::2", keys={"energy": "E2", "forces": None})
    assert frames.energy.tolist() == [2, 4]
    np.testing.assert_array_equal(frames.cell[0], lattice.T)
    assert frames.pbc.all()
    assert not frames.has("forces").any()
    (tmp_path / "b").write_bytes(gzip.compress((tmp_path / "a.npz").read_bytes()))
    assert len(read(tmp_path / "b", format="npz")) == 6


# ---- DeePMD


def deepmd_system(folder: Path, sets: int = 2, frames: int = 3, virial: bool = True) -> dict[str, np.ndarray]:
    folder.mkdir()
    (folder / "type.raw").write_text("1\n0\n0\n")
    (folder / "type_map.raw").write_text("H\nO\n")
    rng = np.random.default_rng(4)
    written: dict[str, list[np.ndarray]] = {}
    for k in range(sets):
        part = folder / f"set.{k:03d}"
        part.mkdir()
        arrays = {
            "coord": rng.normal(size=(frames, 9)),
            "box": np.tile(np.diag([4.0, 5, 6]).ravel(), (frames, 1)),
            "energy": rng.normal(size=frames),
            "force": rng.normal(size=(frames, 9)),
        }
        if virial:
            half = rng.normal(size=(frames, 3, 3))
            arrays["virial"] = (half + half.transpose(0, 2, 1)).reshape(frames, 9)
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", array)
            written.setdefault(name, []).append(array)
    return {name: np.concatenate(parts) for name, parts in written.items()}


def test_deepmd(tmp_path):
    arrays = deepmd_system(tmp_path / "water")
    frames = read(tmp_path / "water")
    assert frames.numbers[:3].tolist() == [8, 1, 1]
    np.testing.assert_array_equal(frames.positions.reshape(6, 9), arrays["coord"])
    np.testing.assert_array_equal(frames.energy, arrays["energy"])
    np.testing.assert_array_equal(frames.forces.reshape(6, 9), arrays["force"])
    np.testing.assert_allclose(frames.stress.reshape(6, 9), -arrays["virial"] / 120, rtol=1e-12)
    np.testing.assert_array_equal(read(f"{tmp_path / 'water'}@2:5:2").energy, arrays["energy"][2:5:2])


def test_deepmd_without_periodicity(tmp_path):
    deepmd_system(tmp_path / "water", virial=False)
    (tmp_path / "water" / "nopbc").touch()
    assert not read(tmp_path / "water").pbc.any()


def test_deepmd_mixed_types(tmp_path):
    deepmd_system(tmp_path / "water", sets=1, frames=2)
    np.save(tmp_path / "water/set.000/real_atom_types.npy", np.array([[0, 0, 1], [1, 0, 0]]))
    assert read(tmp_path / "water").numbers.tolist() == [1, 1, 8, 8, 1, 1]


# ---- VASP


@pytest.mark.parametrize("says", [True, False])
def test_outcar_is_one_trajectory_with_time_settings_and_convergence(tmp_path, says):
    (tmp_path / "OUTCAR").write_text(outcar([5, 15, 8, 6], says=says))
    frames, report = read_with_report(tmp_path / "OUTCAR")
    assert (frames.trajectory == 0).all()
    assert frames.time.tolist() == [0, 0.5, 1.0, 1.5]
    found = report.files[0]
    assert (found.format, found.time_step, found.unconverged) == ("outcar", 0.5, [1])
    assert (found.settings["ENCUT"], found.settings["GGA"], found.settings["SIGMA"]) == ("400.0", "PE", "0.20")
    np.testing.assert_allclose(frames.energy, [-14.2, -14.3, -14.4, -14.5])
    np.testing.assert_allclose(report.other_energy, [-14.1, -14.2, -14.3, -14.4])
    # VASP prints pressure-like stress in kbar, order xx yy zz xy yz zx.
    expected = -KBAR * np.array([[10, 4, 6], [4, 20, 5], [6, 5, 30]])
    np.testing.assert_allclose(frames.stress[0], expected, rtol=1e-6)


def test_unconverged_frames_can_be_dropped(tmp_path):
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress(outcar([5, 15, 8]).encode()))
    said: list[Message] = []
    assert len(read(tmp_path / "OUTCAR.gz", sink=said.append)) == 3  # type: ignore[arg-type]
    warning = next(message for message in said if message.level == "warning")
    assert "1 frames with unconverged electronic structure (1)" in warning.text
    assert read(tmp_path / "OUTCAR.gz", unconverged="drop").time.tolist() == [0, 1.0]


def test_relaxation_has_no_time(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar([5, 6], ibrion=2))
    frames = read(tmp_path / "OUTCAR")
    assert (frames.trajectory == 0).all()
    assert np.isnan(frames.time).all()


def test_truncated_outcar_keeps_whole_steps_and_says_so(tmp_path):
    text = outcar([5, 6, 7])
    (tmp_path / "OUTCAR").write_text(text[: int(len(text) * 0.9)])
    frames, report = read_with_report(tmp_path / "OUTCAR")
    assert len(frames) == 2
    assert "last ionic step is incomplete" in report.notes()[0]


def test_two_outcars_are_two_trajectories(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "OUTCAR").write_text(outcar([5, 6]))
    frames = read(tmp_path / "*" / "OUTCAR")
    assert frames.trajectory.tolist() == [0, 0, 1, 1]
    assert frames.sources == ("one/OUTCAR", "two/OUTCAR")


def test_vasprun_equals_outcar(tmp_path):
    (tmp_path / "vasprun.xml").write_text(vasprun([5, 60, 8]))
    frames, report = read_with_report(tmp_path / "vasprun.xml")
    assert frames.time.tolist() == [0, 0.5, 1.0]
    assert report.files[0].unconverged == [1]
    np.testing.assert_allclose(frames.energy, [-14.2, -14.3, -14.4])
    np.testing.assert_allclose(report.other_energy, [-14.1, -14.2, -14.3])
    np.testing.assert_allclose(frames.stress[0], -0.1 * GPa * np.array([[10, 4, 6], [4, 20, 5], [6, 5, 30]]))


def test_truncated_vasprun(tmp_path):
    text = vasprun([5, 6, 7])
    (tmp_path / "vasprun.xml").write_text(text[: int(len(text) * 0.8)])
    frames, report = read_with_report(tmp_path / "vasprun.xml")
    assert len(frames) == 2
    assert "cut short" in report.notes()[0]


def test_outcar_of_a_real_run():
    """A file shipped with ASE's own tests."""
    folder = Path(ase.__file__).parent / "test/testdata/vasp"
    path = folder / "OUTCAR_example_1"
    if not path.is_file():
        pytest.skip("this installation of ASE has no test data")
    frames, report = read_with_report(path)
    expected = ase.io.read(path, format="vasp-out")
    assert len(frames) == 1
    np.testing.assert_array_equal(frames.forces, expected.calc.results["forces"])
    assert frames.energy[0] == expected.calc.results["free_energy"]
    assert report.files[0].settings["ENCUT"] == "300.0"
    assert len(read(folder / "vasprun_pstress.xml")) == 1


# ---- folders


def test_frameset_folder(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", molecules())
    frames = read(tmp_path / "a.extxyz")
    frames.save(tmp_path / "store")
    assert read(tmp_path / "store") == frames
    assert read(f"{tmp_path / 'store'}@-2:") == frames[-2:]
    both = read([tmp_path / "store", tmp_path / "a.extxyz"])
    assert len(both) == 24
    with pytest.raises(DataError, match="has its labels already"):
        read(tmp_path / "store", keys={"energy": "x"})


def test_own_files_come_back(tmp_path):
    frames = read(write(tmp_path / "b.extxyz", FrameSet.from_atoms(molecules())))
    assert frames.uids.tolist() == FrameSet.from_atoms(molecules()).uids.tolist()
