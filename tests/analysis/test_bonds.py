"""Bond lengths: each bond once whatever the order of atoms and the images; distances between distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew, wasserstein_distance
from trajectory_toys import water_box

from mlipkit.analysis.bonds import (
    BondLengths,
    bond_lengths,
    compare_bonds,
    cuts_of,
    joint_histogram,
    summarise_bonds,
)
from mlipkit.data import FrameSet, read
from mlipkit.errors import DataError


def test_water_box_has_two_bonds_per_molecule_at_the_known_length():
    bonds = bond_lengths(water_box(27, frames=3), "O-H")
    assert len(bonds.lengths) == 3 * 54
    assert np.allclose(bonds.lengths, 0.96)
    assert bonds.per_frame == 54
    edges, (density,) = joint_histogram([bonds])
    assert density @ np.diff(edges) == pytest.approx(1)


def test_order_of_the_pair_and_of_the_atoms_is_irrelevant():
    frames = water_box(8, frames=2)
    backwards = FrameSet.from_arrays(
        frames.numbers.reshape(2, -1)[0, ::-1],
        frames.positions.reshape(2, -1, 3)[:, ::-1],
        cell=frames.cell,
        pbc=[True] * 3,
    )
    lengths = [np.sort(bond_lengths(one, pair).lengths) for one in (frames, backwards) for pair in ("O-H", ("H", 8))]
    for other in lengths[1:]:
        assert np.allclose(lengths[0], other)


def test_published_counting_loses_the_pairs_whose_first_element_comes_later():
    frames = water_box(27)
    one_way = bond_lengths(frames, "O-H", order="first_lower")
    other_way = bond_lengths(frames, "H-O", order="first_lower")
    assert 0 < len(one_way.lengths) < 54
    assert len(one_way.lengths) + len(other_way.lengths) == 54


def test_soft_cut_keeps_the_tail_that_the_hard_one_ends():
    assert (cuts_of("O-H").hard, cuts_of("H-O").soft) == (1.25, 1.40)
    assert cuts_of("Cl-H").hard == 1.6
    assert cuts_of("C-N").soft == pytest.approx(1.4 * (0.76 + 0.71))
    frames = FrameSet.from_arrays([8, 1, 1], [[0, 0, 0], [1.0, 0, 0], [-1.35, 0, 0]], n_atoms=3)
    assert len(bond_lengths(frames).lengths) == 1
    soft = bond_lengths(frames, cut="soft")
    assert np.allclose(np.sort(soft.lengths), [1.0, 1.35])
    assert np.allclose(soft.within(1.25).lengths, [1.0])
    with pytest.raises(DataError, match="beyond the cut"):
        soft.within(1.5)


def made(lengths: np.ndarray, per_frame: int, spacing: float = 1000.0, runs: int = 1) -> BondLengths:
    frames = len(lengths) // per_frame
    trajectory = np.repeat(np.arange(runs), frames // runs)
    time = np.tile(np.arange(frames // runs) * spacing, runs)
    return BondLengths((8, 1), 1.4, lengths, np.repeat(np.arange(frames), per_frame), trajectory, time)


def test_summary_is_that_of_the_lengths_and_intervals_hold_the_truth():
    rng = np.random.default_rng(1)
    lengths = 0.9 + rng.gamma(4, 0.025, 20_000)
    summary = summarise_bonds(made(lengths, 50), block=25_000)
    assert summary.n_blocks == 16
    assert summary.values["mean"] == pytest.approx(lengths.mean())
    assert summary.values["skew"] == pytest.approx(skew(lengths))
    assert summary.values["q95"] == pytest.approx(np.quantile(lengths, 0.95))
    truth = {"mean": 1.0, "std": 0.05, "skew": 1.0}
    for name, value in truth.items():
        assert summary.low[name] < value < summary.high[name]
        assert summary.high[name] - summary.low[name] < 0.3 * value


def test_blocks_widen_the_interval_when_frames_are_no_independent_draws():
    """A bond length that drifts slowly: frames as draws pretend to know the mean better than blocks do."""
    rng = np.random.default_rng(2)
    slow = np.repeat(rng.normal(0, 0.01, 16), 25)
    lengths = (0.98 + slow[:, None] + rng.normal(0, 0.02, (400, 10))).ravel()
    width = {}
    for block in (1.0, 25_000.0):
        one = summarise_bonds(made(lengths, 10), block=block)
        width[block] = one.high["mean"] - one.low["mean"]
    assert width[25_000.0] > 2.5 * width[1.0]
    assert summarise_bonds(made(lengths, 10, runs=4), block="run").n_blocks == 4


def test_a_shift_is_found_and_none_is_found_where_none_is():
    rng = np.random.default_rng(3)
    a, b, c = (rng.normal(mean, 0.03, 4000) for mean in (0.98, 0.98, 0.99))
    null = compare_bonds(made(a, 40), made(b, 40))
    shifted = compare_bonds(made(a, 40), made(c, 40))
    assert null.wasserstein < null.chance
    assert null.p_value > 0.05
    assert shifted.wasserstein == pytest.approx(wasserstein_distance(a, c), rel=1e-6)
    assert shifted.low < 0.01 < shifted.high
    assert shifted.wasserstein > shifted.chance
    assert shifted.p_value < 0.01
    value, low, high = shifted.differences["mean"]
    assert value == pytest.approx(c.mean() - a.mean())
    assert low < 0.01 < high
    assert low > 0


def test_p_values_of_equal_sets_are_even():
    """Of 40 comparisons of two sets from one distribution about two may fall below 0.05, not ten."""
    rng = np.random.default_rng(4)
    draws = [
        compare_bonds(made(x, 10), made(y, 10), block=1000, replicas=100).p_value
        for x, y in rng.normal(1, 0.03, (40, 2, 200))
    ]
    assert np.mean(np.array(draws) < 0.05) < 0.2
    assert np.mean(draws) == pytest.approx(0.5, abs=0.17)


def test_one_block_has_no_interval():
    rng = np.random.default_rng(5)
    one, other = made(rng.normal(1, 0.03, 100), 10), made(rng.normal(1, 0.03, 100), 10)
    found = compare_bonds(one, other)
    assert np.isnan([found.low, found.high, found.chance, found.p_value]).all()


def test_what_cannot_be_compared_is_refused():
    a = made(np.full(10, 1.0), 1)
    with pytest.raises(DataError, match="two different bonds"):
        compare_bonds(a, a.within(1.2))
    with pytest.raises(DataError, match=r"no O-H pair below 0\.1 Å"):
        summarise_bonds(bond_lengths(water_box(8), "O-H", cut=0.1))
    with pytest.raises(DataError, match="no element 'Q'"):
        bond_lengths(water_box(8), "Q-H")


def test_published_sets(shared_data):
    """The hard cut ends the tail in which naive and iterative O-H bonds differ; over five runs neither cut decides.

    27 O-H: six citric acids with four, three cholines with one.
    """
    naive, periodic = (
        bond_lengths(read(shared_data / f"chclca_bias/{name}.extxyz"), "O-H", "soft")
        for name in ("naive_50", "periodic_50")
    )
    assert naive.within(1.25).per_frame == pytest.approx(27, abs=0.2)
    soft, hard = compare_bonds(naive, periodic), compare_bonds(naive.within(1.25), periodic.within(1.25))
    assert (soft.wasserstein, hard.wasserstein) == pytest.approx((0.0072, 0.0032), abs=1e-4)
    assert soft.differences["mean"][2] < 0
    assert soft.differences["std"][2] < 0
    assert soft.p_value < 0.01
    assert hard.p_value > 0.05
    assert compare_bonds(naive, periodic, block="run").p_value > 0.05


@pytest.mark.parametrize(
    ("options", "said"),
    [({"cut": "medium"}, "cut: no such choice.*'medium'.*hard, soft"), ({"order": "first"}, "order")],
)
def test_misspelt_options_are_refused(options: dict, said: str):
    with pytest.raises(DataError, match=said):
        bond_lengths(water_box(), "O-H", **options)


@pytest.mark.parametrize("block", [0, -5.0, float("nan"), "runs"])
def test_blocks_need_a_length(block):
    with pytest.raises(DataError, match="block"):
        summarise_bonds(bond_lengths(water_box(), "O-H"), block=block)
