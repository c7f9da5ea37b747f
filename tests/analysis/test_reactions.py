"""Toy trajectories with known events: each is found once, with who, when, how long; flickers are none."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_toys import proton_run, run

from mlipkit.analysis.reactions import reactions
from mlipkit.data import read
from mlipkit.errors import DataError

O_H, CL_H = 0.97, 1.6
"""H at 0.97 Å from O; at 1.6 Å from O it lies 1.3 Å from Cl."""


def test_a_proton_from_o_to_cl_is_exactly_one_event():
    (event,) = reactions(proton_run([O_H] * 10 + [CL_H] * 10)).events
    assert event.kind == "transfer"
    assert (event.atom, event.donor, event.acceptor) == (2, 1, 3)
    assert event.elements == (1, 8, 17)
    assert (event.time, event.frame) == (5000.0, 10)
    assert event.duration == 5000.0
    assert not event.ended
    assert not event.returns
    assert event.deprotonation
    assert not event.unphysical
    assert event.donor_group == "hydroxyl"
    assert event.text == "H2 leaves O1 (hydroxyl) and binds Cl3 at 5.0 ps, for 5.0 ps or longer"


def test_a_flicker_of_half_a_picosecond_is_none():
    assert reactions(proton_run([O_H] * 10 + [CL_H] + [O_H] * 10)).events == ()
    assert reactions(proton_run([O_H, 1.3] * 20)).events == (), "a soft bond is no reaction"


def test_a_proton_that_comes_back_is_two_events_and_says_so():
    there, back = reactions(proton_run([O_H] * 6 + [CL_H] * 4 + [O_H] * 6)).events
    assert there.returns
    assert there.ended
    assert there.duration == 2000.0
    assert (back.donor, back.acceptor, back.time) == (3, 1, 5000.0)
    assert not back.returns
    assert not back.deprotonation
    assert there.text.endswith("for 2.0 ps, then returns")


def test_a_slow_passage_between_both_is_one_event():
    """Both bonds at once in the middle, or neither for a while: still one transfer."""
    shared = [O_H] * 5 + [1.4] * 5 + [CL_H] * 5
    (event,) = reactions(proton_run(shared, gap=2.85)).events
    assert event.bound_time < event.time
    free = [O_H] * 5 + [1.5] * 4 + [CL_H + 0.5] * 5
    (event,) = reactions(proton_run(free, gap=3.4)).events
    assert event.kind == "transfer"
    assert event.bound_time - event.time == 2000.0
    broken, formed = reactions(proton_run(free, gap=3.4), gap=1000.0).events
    assert (broken.kind, formed.kind) == ("broken", "formed")
    assert (broken.donor, formed.acceptor) == (1, 3)


def test_a_bond_that_breaks_and_forms_again_returns():
    broken, formed = reactions(proton_run([O_H] * 5 + [1.5] * 4 + [O_H] * 5, gap=9.0)).events
    assert broken.kind == "broken"
    assert broken.returns
    assert broken.duration == 2000.0
    assert formed.kind == "formed"


def carbons(distances, x_h: float = 1.09) -> np.ndarray:
    """Two C on a line, an H on the first: [T,3,3]."""
    positions = np.zeros((len(distances), 3, 3))
    positions[:, 1, 0] = distances
    positions[:, 2, 1] = x_h
    return positions


def test_a_broken_skeleton_is_unphysical():
    found = reactions(run([6, 6, 1], carbons([1.5] * 5 + [2.5] * 5), 500.0))
    (event,) = found.unphysical
    assert (event.kind, event.atom, event.donor) == ("broken", 0, 1)
    assert event.text.startswith("bond C0-C1 breaks at 2.5 ps")
    assert event.text.endswith("unphysical")
    assert found.deprotonations == ()
    # 1.4 r_sum = 2.13 Å: a stretched bond is none that broke.
    assert reactions(run([6, 6, 1], carbons([1.5] * 5 + [2.0] * 5), 500.0)).events == ()


def test_hydrogen_that_leaves_carbon_is_unphysical_even_as_a_transfer():
    positions = np.zeros((12, 3, 3))
    positions[:, 1, 0] = 2.6
    positions[:, 2, 0] = [1.09] * 6 + [1.6] * 6
    (event,) = reactions(run([6, 8, 1], positions, 500.0)).events
    assert (event.kind, event.donor, event.acceptor, event.unphysical) == ("transfer", 0, 1, True)
    assert event.acceptor_group == "hydroxide"


def test_carboxyl_and_water_are_named():
    """Formic acid gives its proton to a water."""
    acid = np.array([[0, 0, 0], [-0.6, 1.05, 0], [1.3, 0, 0], [-0.6, -0.9, 0]], float)
    water = np.array([[4.0, 0, 0], [4.5, 0.8, 0], [4.5, -0.8, 0]])
    proton = [[2.27, 0, 0]] * 4 + [[3.02, 0, 0]] * 4
    positions = [np.concatenate([acid, water, [x]]) for x in proton]
    (event,) = reactions(run([6, 8, 8, 1, 8, 1, 1, 1], positions, 500.0)).events
    assert (event.donor, event.donor_group) == (2, "carboxyl")
    assert (event.acceptor, event.acceptor_group) == (4, "hydronium")


def test_the_table_has_a_row_per_event():
    (row,) = reactions(proton_run([O_H] * 10 + [CL_H] * 10)).table()
    assert (row["atom"], row["donor"], row["acceptor"], row["time_ps"]) == ("H2", "O1", "Cl3", 5.0)


def test_two_runs_at_once_are_refused():
    one = proton_run([O_H] * 10)
    with pytest.raises(DataError, match="several trajectories"):
        reactions(one.concat(one.with_table(trajectory=3)))


def test_published_frames_have_their_atoms_in_no_common_order(shared_data):
    """Within an element atoms change places from frame to frame: nobody can be followed, species can be counted."""
    with pytest.raises(DataError, match="another order"):
        reactions(read(shared_data / "chclca_bias/nonperiodic_50.extxyz"))


def test_dft_trajectory_of_ethylene_carbonate_has_no_reaction_of_its_own(shared_data):
    found = reactions(read(shared_data / "ec_aimd/ec_400K_1fs.extxyz"), lifetime=0)
    assert found.events == ()
    assert found.history.count("C-H").min() == 4
