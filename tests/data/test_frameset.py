"""FrameSet: exactness, sharing, identity, refusals."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from mlipkit.data import FrameSet
from mlipkit.errors import DataError, LabelError


def mixed_set(n_frames: int = 12, seed: int = 0) -> FrameSet:
    """Frames of different sizes, periodic and not, with some labels missing."""
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(1, 7, n_frames)
    total = int(n_atoms.sum())
    pbc = np.zeros((n_frames, 3), bool)
    pbc[::3] = True
    cell = np.zeros((n_frames, 3, 3))
    cell[::3] = np.eye(3) * 9 + rng.normal(size=(len(cell[::3]), 3, 3))
    energy = rng.normal(size=n_frames)
    energy[1] = np.nan
    forces = rng.normal(size=(total, 3))
    starts = np.r_[0, np.cumsum(n_atoms)]
    forces[starts[2] : starts[3]] = np.nan
    return FrameSet.from_arrays(
        rng.choice([1, 6, 8], total),
        rng.normal(size=(total, 3)),
        n_atoms,
        cell=cell,
        pbc=pbc,
        velocities=rng.normal(size=(total, 3)),
        energy=energy,
        forces=forces,
        stress=rng.normal(size=(n_frames, 6)),
        source=["a.xyz" if i < 5 else "b.xyz" for i in range(n_frames)],
        trajectory=np.where(np.arange(n_frames) < 8, np.arange(n_frames) // 4, -1),
        time=np.arange(n_frames) * 0.5,
        tag=["hot" if i % 2 else "" for i in range(n_frames)],
    )


def test_columns_keep_every_bit_and_are_read_only():
    rng = np.random.default_rng(1)
    positions, forces = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    frames = FrameSet.from_arrays([8, 1, 1, 6, 8, 8], positions, [3, 3], energy=[1.5, -2.5], forces=forces)
    assert np.array_equal(frames.positions, positions)
    assert np.array_equal(frames.forces, forces)
    assert frames.numbers.dtype == np.int16
    assert frames.offsets.tolist() == [0, 3, 6]
    assert frames.elements == (1, 6, 8)
    assert np.isnan(frames.stress).all()
    assert frames.stress.shape == (2, 3, 3)
    assert frames.velocities is None
    with pytest.raises(ValueError):
        frames.positions[0] = 0
    positions[0] = 99.0
    assert frames.positions[0, 0] != 99.0, "the set must not follow the caller's array"


def test_voigt_order_is_that_of_ase():
    frames = FrameSet.from_arrays([1], np.zeros((1, 3)), 1, stress=[[1, 2, 3, 4, 5, 6]])
    assert frames.stress[0].tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    assert frames[0].get_stress().tolist() == [1, 2, 3, 4, 5, 6]


def test_atoms_round_trip_is_exact():
    frames = mixed_set()
    again = FrameSet.from_atoms(list(frames))
    differing = {name for name, value in frames.hashes().items() if again.hashes()[name] != value}
    # ASE keeps momenta, so velocities pass through a product and a quotient; stress is symmetric to start with.
    assert differing <= {"velocities"}
    np.testing.assert_allclose(again.velocities, frames.velocities, rtol=1e-14)
    assert np.array_equal(again.uids, frames.uids)


def test_atoms_carry_labels_provenance_and_ase_velocities():
    from mlipkit.units import velocities_from_ase

    frames = mixed_set()
    atoms = frames[3]
    assert atoms.get_potential_energy() == frames.energy[3]
    a, b = frames.offsets[3:5]
    assert np.array_equal(atoms.get_forces(), frames.forces[a:b])
    np.testing.assert_allclose(velocities_from_ase(atoms.get_velocities()), frames.velocities[a:b], rtol=1e-12)
    assert atoms.info == {
        "uid": frames.uid(3),
        "source": "a.xyz",
        "tag": "hot",
        "time_fs": 1.5,
        "trajectory": 0,
    }
    atoms.positions[:] = 0.0
    assert not np.array_equal(frames[3].positions, atoms.positions), "frames[i] must be fresh"
    assert "energy" not in frames[1].calc.results
    assert "forces" not in frames[2].calc.results


def test_constraints_do_not_touch_forces():
    atoms = molecule("H2O")
    forces = np.arange(9.0).reshape(3, 3)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    assert np.array_equal(FrameSet.from_atoms([atoms]).forces, forces)


def test_selections_share_stored_arrays():
    frames = mixed_set()
    part = frames[3:7]
    assert np.shares_memory(part.positions, frames.positions)
    assert np.shares_memory(part.energy, frames.energy)
    assert part.offsets[0] == 0
    scattered = frames.select([9, 2, 2, -1])
    assert scattered.uids.tolist() == frames.uids[[9, 2, 2, 11]].tolist()
    for k, i in enumerate([9, 2, 2, 11]):
        a, b = scattered.offsets[k : k + 2]
        c, d = frames.offsets[i : i + 2]
        assert np.array_equal(scattered.positions[a:b], frames.positions[c:d])
        assert np.array_equal(scattered.frame(k)["forces"], frames.frame(i)["forces"], equal_nan=True)
    assert scattered.select([1]) == frames.select([2])
    assert frames[::-1][::-1] == frames
    mask = frames.n_atoms > 2
    assert frames[mask] == frames.select(np.flatnonzero(mask))
    assert len(frames[5:5]) == 0
    assert frames[5:5].positions.shape == (0, 3)


def test_selection_of_a_selection_equals_direct_selection():
    frames = mixed_set(40)
    rng = np.random.default_rng(2)
    for _ in range(20):
        first = rng.permutation(40)[:20] if rng.random() < 0.5 else slice(5, 30)
        second = rng.permutation(20)[:7] if rng.random() < 0.5 else slice(3, 11)
        direct = np.arange(40)[first][second]
        assert frames[first][second] == frames.select(direct)


def test_with_labels_shares_the_rest_and_keeps_uids():
    frames = mixed_set()
    part = frames.select([4, 0, 7])
    new = part.with_labels(energy=[1.0, 2.0, 3.0])
    assert np.array_equal(new.uids, part.uids)
    assert new.energy.tolist() == [1, 2, 3]
    assert new._columns["positions"].values is frames._columns["positions"].values
    assert {k for k in new.hashes() if new.hashes()[k] != part.hashes()[k]} == {"energy"}
    again = new.select([2, 0])
    assert again.energy.tolist() == [3, 1]
    assert np.array_equal(again.forces, part.select([2, 0]).forces, equal_nan=True)
    dropped = new.with_labels(forces=np.nan)
    assert not dropped.has("forces").any()
    assert "forces" not in dropped.hashes()
    with pytest.raises(LabelError, match=r"forces: wrong shape.*expected \(\d+, 3\)"):
        part.with_labels(forces=np.zeros((1, 3)))


def test_has_counts_only_complete_labels():
    frames = mixed_set()
    assert frames.has("energy").tolist() == [i != 1 for i in range(12)]
    assert frames.has("forces").tolist() == [i != 2 for i in range(12)]
    with pytest.raises(LabelError, match="did you mean 'forces'"):
        frames.has("force")


def test_uids_depend_on_structure_alone_and_are_unique():
    a, b = molecule("H2O"), molecule("NH3")
    frames = FrameSet.from_atoms([a, b, a, a])
    assert len(set(frames.uids.tolist())) == 4
    assert len(set(frames.structure_hashes.tolist())) == 2
    assert frames.uids[0] == FrameSet.from_atoms([a]).uids[0]
    assert frames.with_labels(energy=[1, 2, 3, 4]).uids.tolist() == frames.uids.tolist()

    def structure_hash(atoms: Atoms) -> int:
        return int(FrameSet.from_atoms([atoms]).structure_hashes[0])

    for change in (
        lambda x: x.positions.__setitem__((0, 0), np.nextafter(x.positions[0, 0], 9.0)),
        lambda x: x.numbers.__setitem__(0, 16),
        lambda x: (x.set_cell([9, 9, 9]), x.set_pbc(True)),
    ):
        other = a.copy()
        change(other)
        assert structure_hash(other) != structure_hash(a)
    swapped = a[[0, 2, 1]]
    assert structure_hash(swapped) != structure_hash(a), "order of atoms is part of a structure"
    boxed = a.copy()
    boxed.set_cell([20, 20, 20])
    boxed.positions[boxed.positions == 0] = -0.0
    assert structure_hash(boxed) == structure_hash(a), "a box without pbc and the sign of zero are not"


def test_uids_do_not_depend_on_how_frames_were_grouped():
    frames = mixed_set(30)
    alone = np.concatenate([FrameSet.from_atoms([atoms]).uids for atoms in frames])
    assert np.array_equal(alone, frames.uids)


def test_concat_shares_parts_of_one_set():
    frames = mixed_set()
    joined = FrameSet.concat([frames[6:], frames[:6]])
    assert joined == frames.select([*range(6, 12), *range(6)])
    assert joined._columns["forces"].values is frames._columns["forces"].values
    assert joined.trajectory.tolist() == np.r_[frames.trajectory[6:], frames.trajectory[:6]].tolist()


def test_concat_of_different_sets_keeps_everything_apart():
    first, second = mixed_set(8, seed=1), mixed_set(8, seed=2).with_labels(forces=np.nan, velocities=np.nan)
    joined = first.concat(second, first[:2])
    assert len(joined) == 18
    assert len(set(joined.uids.tolist())) == 18
    assert joined.uids[:8].tolist() == first.uids.tolist()
    assert joined.has("forces").tolist() == [*first.has("forces"), *[False] * 8, *first[:2].has("forces")]
    assert joined.trajectory.tolist() == [*first.trajectory, *(second.trajectory + 2), *first[:2].trajectory]
    assert [joined.frame(i)["source"] for i in (0, 8)] == ["a.xyz", "a.xyz"]
    assert [joined.frame(i)["tag"] for i in (1, 9)] == ["hot", "hot"]
    assert joined[8:16].with_labels().hashes()["positions"] == second.hashes()["positions"]


def test_hash_says_whether_two_sets_are_equal():
    frames = mixed_set()
    assert frames == mixed_set()
    assert frames.hash == mixed_set().hash
    assert frames != mixed_set(seed=5)
    assert frames != frames[1:]
    energy = np.array(frames.energy)
    energy[0] = np.nextafter(energy[0], 9)
    assert frames.with_labels(energy=energy).hash != frames.hash
    # The same atoms cut into other frames.
    numbers, positions = [1, 1, 1], np.eye(3)
    cut = [FrameSet.from_arrays(numbers, positions, n) for n in ([1, 2], [2, 1])]
    assert cut[0].hashes()["numbers"] != cut[1].hashes()["numbers"]


def test_with_table_replaces_provenance():
    frames = mixed_set().with_table(source="new", tag=[f"t{i}" for i in range(12)], trajectory=3, time=np.arange(12))
    assert frames.frame(5)["source"] == "new"
    assert frames.frame(5)["tag"] == "t5"
    assert frames.trajectory.tolist() == [3] * 12
    assert np.array_equal(frames.uids, mixed_set().uids)


def test_select_uids_takes_text_and_numbers():
    frames = mixed_set()
    wanted = [frames.uid(7), frames.uid(2)]
    assert frames.select_uids(wanted) == frames.select([7, 2])
    assert frames.select_uids(frames.uids[[7, 2]]) == frames.select([7, 2])
    with pytest.raises(DataError, match="1 of 2 uids are not in this set"):
        frames.select_uids([frames.uid(0), "00000000000000ff"])


def test_what_is_no_uid_and_no_frame_number_is_refused():
    frames = mixed_set()
    for uid in ("zz", -1, 1 << 64, 1.5, None):
        with pytest.raises(DataError, match="select_uids: no uid; expected 64-bit"):
            frames.select_uids([uid])  # type: ignore[list-item]
    for truth in (True, np.True_):
        with pytest.raises(DataError, match=r"cannot select frames.*found True"):
            frames[truth]  # type: ignore[index]


def test_describe_names_size_elements_and_labels():
    assert "12 frames of" in mixed_set().describe()
    assert "energy 11/12" in repr(mixed_set())
    assert repr(FrameSet.from_atoms([])) == "<FrameSet: no frames>"


def test_an_empty_set_works():
    empty = FrameSet.from_atoms([])
    assert len(empty) == 0
    assert empty.elements == ()
    assert empty.has("energy").shape == (0,)
    assert list(empty) == []
    assert FrameSet.concat([empty, mixed_set()]) == mixed_set()
    with pytest.raises(IndexError):
        empty[0]


one = {"numbers": [1, 8], "positions": np.zeros((2, 3)), "n_atoms": 2, "source": "x.xyz"}
two = {"numbers": [1, 8], "positions": np.zeros((2, 3)), "n_atoms": [1, 1], "source": ["x.xyz", "y.xyz"]}
bad_position = np.array([[0, 0, 0], [0, np.nan, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (one | {"n_atoms": [2, 0]}, "x.xyz: frame 1: a frame needs at least one atom; found 0 atoms"),
        (one | {"n_atoms": 0}, "at least one atom"),
        (one | {"n_atoms": 3}, "2 atoms cannot be cut into frames of 3"),
        (one | {"n_atoms": [3]}, "frame sizes do not add up; expected 3 positions; found 2"),
        (one | {"n_atoms": None}, "give either n_atoms"),
        (two | {"positions": bad_position}, r"y.xyz: frame 0: atom 0: position is not finite"),
        (one | {"positions": bad_position}, r"x.xyz: frame 0: atom 1: position is not finite"),
        (one | {"numbers": [1, 0]}, "x.xyz: frame 0: atom 1: no such element"),
        (one | {"numbers": [1, 119]}, "no such element"),
        (one | {"numbers": [1, 8.5]}, "numbers: not whole numbers"),
        (one | {"numbers": ["H", "O"]}, "numbers: not numbers"),
        (one | {"numbers": [1]}, r"numbers: wrong shape; expected \(2,\); found \(1,\)"),
        (one | {"positions": np.zeros((2, 2))}, r"positions: wrong shape"),
        (one | {"pbc": [True] * 3}, "x.xyz: frame 0: the cell vector along the periodic axis a is zero"),
        (
            two | {"pbc": [[False] * 3, [False, True, False]], "cell": np.diag([1.0, 0, 1])},
            "y.xyz: frame 0: the cell vector along the periodic axis b is zero",
        ),
        (one | {"pbc": [True] * 3, "cell": np.ones((3, 3))}, "lie in one plane or line"),
        (one | {"pbc": [True, True, False], "cell": [[1, 0, 0], [2, 0, 0], [0, 0, 0]]}, "one plane or line"),
        (one | {"cell": np.full((3, 3), np.inf)}, "x.xyz: frame 0: cell is not finite"),
        (one | {"energy": [np.inf]}, "x.xyz: frame 0: energy: is infinite"),
        (two | {"forces": [[0, 0, 0], [0, 0, -np.inf]]}, "y.xyz: frame 0: forces: is infinite"),
        (one | {"energy": [1.0, 2.0]}, r"energy: wrong shape; expected \(1,\)"),
        (one | {"energy": 1.0}, r"energy: wrong shape"),
        (one | {"forces": np.zeros((3, 3))}, "forces: wrong shape"),
        (one | {"stress": np.zeros((1, 5))}, "stress: wrong shape"),
        (one | {"trajectory": [0, 1]}, "trajectory: wrong shape"),
        (one | {"trajectory": [-2]}, "not a trajectory number"),
        (two | {"source": ["a", "b", "c"]}, "source of the wrong length; expected one or 2; found 3"),
    ],
)
def test_refusals_name_source_and_frame(arguments, message):
    with pytest.raises(DataError, match=message) as caught:
        FrameSet.from_arrays(**arguments)
    assert "\n" not in str(caught.value)


def test_from_atoms_refuses_what_is_no_structure_and_names_the_frame():
    broken = molecule("H2")
    broken.positions[0] = np.nan
    with pytest.raises(DataError, match=r"new.xyz: frame 1: atom 0: position is not finite"):
        FrameSet.from_atoms([molecule("H2"), broken], source="new.xyz")
    with pytest.raises(DataError, match=r"frame 0: not a structure; expected ase.Atoms; found str"):
        FrameSet.from_atoms(["H2"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="frame 0: a frame needs at least one atom"):
        FrameSet.from_atoms([Atoms()])


def test_flat_and_skewed_but_valid_cells_are_accepted():
    slab = bulk("Cu")
    slab.set_cell([[10, 0, 0], [9.9, 1.0, 0], [0, 0, 0]])
    slab.pbc = [True, True, False]
    assert len(FrameSet.from_atoms([slab])) == 1


@pytest.mark.parametrize("index", [[0, 12], [-13], [[0]], [0.5], [True, False], "ab"])
def test_bad_selections_are_refused(index):
    with pytest.raises(DataError):
        mixed_set().select(index)


@pytest.mark.full
def test_a_million_frames_hold_no_object_per_frame():
    n_frames, size = 1_000_000, 9
    rng = np.random.default_rng(0)
    positions = rng.random((n_frames, size, 3))
    positions.flags.writeable = False
    gc.collect()
    n_objects = len(gc.get_objects())
    tracemalloc.start()
    frames = FrameSet.from_arrays(
        [6, 6, 8, 1, 1, 1, 1, 1, 1], positions, energy=np.zeros(n_frames), forces=positions, source="big.npz"
    )
    part = frames.select(np.arange(0, n_frames, 2))
    assert part.frame(3)["positions"][0, 0] == positions[6, 0, 0]
    new = frames.with_labels(energy=np.ones(n_frames))
    assert new.has("energy").all()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    gc.collect()
    assert len(gc.get_objects()) - n_objects < 2000
    assert len(np.unique(frames.uids)) == n_frames
    # Positions and forces (432 MB) are not copied; what is added are numbers, energies, hashes, codes, temporaries.
    assert peak < 250e6, f"{peak / 1e6:.0f} MB"


def test_without_labels_keeps_the_motion_unless_told_otherwise():
    frames = mixed_set()
    moving = frames.with_labels(velocities=np.ones((int(frames.offsets[-1]), 3)))
    bare = moving.without_labels()
    assert not any(bare.has(name).any() for name in ("energy", "forces", "stress"))
    assert bare.has("velocities").all()
    assert np.array_equal(bare.uids, moving.uids)
    assert np.array_equal(bare.positions, moving.positions)
    assert not moving.without_labels(velocities=False).has("velocities").any()
