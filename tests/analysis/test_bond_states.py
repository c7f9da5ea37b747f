"""The covalent graph: hysteresis, lifetimes, what is not decided, images."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import proton_run, run, water_box

from mlipkit.analysis.bond_states import BondLimits, bond_history, bonds_of_frame, limits_of
from mlipkit.data import FrameSet
from mlipkit.errors import DataError


def spans(history, first: int, second: int) -> list[tuple[int, int]]:
    rows = (history.pairs == (first, second)).all(axis=1)
    return list(zip(history.start[rows].tolist(), history.end[rows].tolist(), strict=True))


def test_between_the_limits_a_bond_keeps_its_state():
    out = [0.97, 1.2, 1.4, 1.44, 1.5, 1.5, 1.3, 1.2, 1.16, 1.1, 1.0]
    history = bond_history(proton_run(out), lifetime=0)
    assert spans(history, 1, 2) == [(0, 4), (9, 11)]


def test_the_published_limits_are_the_default_and_can_be_replaced():
    limits = limits_of((1, 6, 8, 17, 27))
    assert (limits[1, 8].form, limits[1, 8].broken) == (1.15, 1.45)
    assert (limits[1, 17].form, limits[1, 17].broken) == (1.5, 1.8)
    assert limits[6, 8].broken == pytest.approx(1.4 * (0.76 + 0.66))
    assert not any(27 in pair for pair in limits), "metals have coordination, not bonds"
    own = limits_of((17, 27), {"Co-Cl": BondLimits(2.5, 3.0)})
    assert own[17, 27] == BondLimits(2.5, 3.0)
    with pytest.raises(DataError, match="form <= broken"):
        limits_of((1, 8), {"O-H": BondLimits(1.5, 1.2)})


def test_a_flicker_of_one_frame_counts_for_nothing_and_two_are_a_change():
    near, far = 0.97, 1.8
    one = bond_history(proton_run([near] * 5 + [far] + [near] * 5))
    assert spans(one, 1, 2) == [(0, 11)]
    assert one.flickers == 2, "of the bond to O and of that to Cl"
    two = bond_history(proton_run([near] * 5 + [far] * 2 + [near] * 5))
    assert spans(two, 1, 2) == [(0, 5), (7, 12)]
    bound = bond_history(proton_run([far] * 5 + [near] + [far] * 5))
    assert spans(bound, 1, 2) == []


def test_a_last_change_that_is_too_short_is_undecided():
    assert spans(bond_history(proton_run([0.97] * 9 + [1.8])), 1, 2) == [(0, 10)]
    assert spans(bond_history(proton_run([0.97] * 9 + [1.8] * 2)), 1, 2) == [(0, 9)]


def test_a_start_between_the_limits_is_decided_by_what_follows():
    assert spans(bond_history(proton_run([1.3] * 4 + [1.0] * 4)), 1, 2) == [(0, 8)]
    assert spans(bond_history(proton_run([1.3] * 4 + [1.55] * 4)), 1, 2) == []
    later = bond_history(proton_run([1.3] * 4 + [1.55] * 4 + [1.0] * 4))
    assert spans(later, 1, 2) == [(8, 12)]


def test_lifetime_is_in_time_and_not_in_frames():
    distances = [0.97] * 20 + [1.8] * 10 + [0.97] * 20
    assert len(spans(bond_history(proton_run(distances, step=50.0)), 1, 2)) == 1, "0.5 ps"
    assert len(spans(bond_history(proton_run(distances, step=100.0)), 1, 2)) == 2, "1 ps"
    assert len(spans(bond_history(proton_run([0.97, 1.8, 0.97], step=50_000.0)), 1, 2)) == 2, "50 ps in one frame"


def test_counts_and_changes():
    history = bond_history(proton_run([0.97] * 4 + [1.5] * 4 + [0.97] * 4, gap=2.9))
    assert history.count("O-H").tolist() == [1] * 4 + [0] * 4 + [1] * 4
    assert history.count("H-Cl").tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert history.change_frames().tolist() == [0, 4, 8]
    assert len(history.at(5)) == 2


def test_bonds_through_the_cell_and_of_single_frames():
    frames = water_box(27)
    bonds = bonds_of_frame(frames, 0)
    assert len(bonds) == 54
    numbers = frames.numbers[bonds]
    assert (np.sort(numbers, axis=1) == (1, 8)).all()
    positions = np.stack([frames.positions] * 4)
    history = bond_history(run(frames.numbers, positions, 500.0, edge=12.0))
    assert np.array_equal(history.pairs, bonds)


def test_two_images_of_one_pair_are_one_bond():
    frames = FrameSet.from_arrays(
        [6, 6], [[0, 0, 0], [0.75, 0, 0.0]], n_atoms=2, cell=np.diag([1.5, 9, 9]), pbc=[True] * 3
    )
    assert bonds_of_frame(frames, 0).tolist() == [[0, 1]]


def test_atoms_in_another_order_are_refused_and_an_explosion_is_not():
    frames = water_box(8)
    positions = np.stack([frames.positions] * 4)
    hydrogens = np.flatnonzero(frames.numbers == 1)
    positions[2:, hydrogens] = positions[2:, np.roll(hydrogens, 1)]
    with pytest.raises(DataError, match="frame 2: atoms seem to be in another order"):
        bond_history(run(frames.numbers, positions, 500.0, edge=12.0))
    positions = np.stack([frames.positions] * 4)
    positions[2:] *= 2
    history = bond_history(run(frames.numbers, positions, 500.0))
    assert history.count("O-H").tolist()[2:] == [0, 0]


def test_a_run_in_which_no_change_could_count_is_refused():
    frames = proton_run([0.97] * 10, step=50.0)
    with pytest.raises(DataError, match=r"at least 1000 fs; found 500 fs.*shorter lifetime"):
        bond_history(frames)
    assert len(bond_history(frames, lifetime=100.0).pairs) == 2


def test_frames_without_order_are_refused():
    with pytest.raises(DataError, match="without a time"):
        bond_history(water_box(8, frames=3))
