"""Atomic energies: exact where they are determined, least norm where not, refused where implausible."""

from __future__ import annotations

import numpy as np
import pytest

from mlipkit.data import (
    FrameSet,
    choose_atomic_energies,
    fit_atomic_energies,
    isolated_atom_energies,
    undetermined,
)
from mlipkit.errors import DataError, LabelError
from mlipkit.units import HARTREE, KCAL_PER_MOL

TRUE = {1: -13.6, 6: -1030.0, 8: -2040.0}


def labelled(
    n_frames: int = 300, binding: float = -4.5, seed: int = 0, compositions: list[list[int]] | None = None, **labels
) -> FrameSet:
    """Molecules with energy Σ E0 + binding per atom + noise; `compositions` in atoms of H, C, O."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, (n_frames, 3)) if compositions is None else np.array(compositions)
    counts[counts.sum(1) < 2] = [2, 0, 1]
    numbers = np.concatenate([np.repeat([1, 6, 8], row) for row in counts])
    n_atoms = counts.sum(1)
    energy = counts @ np.array([TRUE[1], TRUE[6], TRUE[8]]) + binding * n_atoms + rng.normal(0, 0.05, len(counts))
    return FrameSet.from_arrays(
        numbers, rng.normal(size=(int(n_atoms.sum()), 3)) * 9, n_atoms, energy=energy, source="molecules.xyz"
    )


def atoms(energies: dict[int, float] = TRUE) -> FrameSet:
    return FrameSet.from_arrays(
        list(energies), np.zeros((len(energies), 3)), 1, energy=list(energies.values()), source="atoms.xyz"
    )


def test_least_squares_is_numpys_where_the_data_determine_it():
    frames = labelled()
    counts = np.stack([[np.sum(frames.frame(i)["numbers"] == z) for z in (1, 6, 8)] for i in range(len(frames))])
    expected = np.linalg.lstsq(counts.astype(float), frames.energy, rcond=None)[0]
    found = fit_atomic_energies(frames)
    assert list(found) == [1, 6, 8]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
    assert found.origin == "least squares"
    assert found.residual < 0.05


def test_folding_in_pieces_changes_nothing(monkeypatch):
    from mlipkit.data import atomic_energies

    whole = fit_atomic_energies(labelled())
    monkeypatch.setattr(atomic_energies, "_CHUNK", 7)
    pieces = fit_atomic_energies(labelled())
    np.testing.assert_allclose(list(pieces.values()), list(whole.values()), rtol=1e-10)


def test_one_composition_gives_the_least_norm():
    frames = labelled(compositions=[[6, 2, 1]] * 50)
    found = fit_atomic_energies(frames)
    expected = frames.energy.mean() * np.array([6, 2, 1]) / (36 + 4 + 1)
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-8)
    total = 6 * found[1] + 2 * found[6] + found[8]
    assert total == pytest.approx(frames.energy.mean(), abs=1e-4)


def test_elements_in_fixed_ratio_give_the_least_norm_and_the_right_sums():
    frames = labelled(compositions=[[2 * k, k % 3, k] for k in range(1, 40)])
    found = fit_atomic_energies(frames)
    assert found[1] == pytest.approx(2 * found[8], rel=1e-6), "along (2, 1) there is no other direction"
    assert found.residual < 0.1


def test_compositions_that_others_leave_open():
    ethanol, methane, water, twice = [6, 2, 1], [4, 1, 0], [2, 0, 1], [12, 4, 2]
    others = labelled(compositions=[ethanol, twice, methane, water])
    assert undetermined(labelled(compositions=[ethanol] * 3), others).tolist() == [False, False, True, True]
    # Ethanol and water make C2H4, and nothing else.
    assert undetermined(labelled(compositions=[ethanol, water]), others).tolist() == [False, False, True, False]
    assert not undetermined(labelled(compositions=[ethanol, water, methane]), others).any()
    assert not undetermined(FrameSet.concat([labelled(compositions=[ethanol]), atoms()]), others).any()
    bare = others.with_labels(energy=np.nan)
    assert undetermined(labelled(compositions=[ethanol]), bare).tolist() == [False, False, True, True]
    # An element that is in none of them.
    assert undetermined(labelled(compositions=[[4, 1, 0], [2, 0, 0]]), others).tolist() == [True, True, False, True]


def test_missing_energies_do_not_count():
    frames = labelled()
    energy = np.array(frames.energy)
    energy[::2] = np.nan
    with_gaps = fit_atomic_energies(frames.with_labels(energy=energy))
    assert with_gaps == fit_atomic_energies(frames[1::2])
    with pytest.raises(LabelError, match="no frame has an energy"):
        fit_atomic_energies(frames.with_labels(energy=np.nan))
    with pytest.raises(LabelError, match="no frame has an energy"):
        choose_atomic_energies(frames.with_labels(energy=np.nan))


def test_isolated_atoms_are_single_without_images_and_the_lowest_counts():
    frames = FrameSet.from_arrays(
        [1, 1, 1, 6, 8, 8],
        np.zeros((6, 3)),
        1,
        cell=np.stack([np.eye(3) * size for size in (0, 0, 0, 3, 12, 0)]),
        pbc=[[False] * 3, [False] * 3, [False] * 3, [True] * 3, [True] * 3, [False] * 3],
        energy=[-12.0, -13.6, -13.0, -9.0, -2040.0, np.nan],
    )
    assert isolated_atom_energies(frames) == {1: -13.6, 8: -2040.0}
    assert isolated_atom_energies(labelled(compositions=[[2, 0, 1]])) == {}


def test_isolated_atoms_are_preferred():
    chosen = choose_atomic_energies(FrameSet.concat([labelled(), atoms()]))
    assert chosen == TRUE
    assert chosen.origin == "isolated atoms"
    assert 4 < chosen.residual < 5
    given = choose_atomic_energies(labelled(), {"H": -13.6, "C": -1030.0, "O": -2040.0, "Pd": -1.0})
    assert {z: given[z] for z in TRUE} == TRUE
    assert given.origin == "isolated atoms (given)"


def test_least_squares_when_an_isolated_atom_is_missing():
    chosen = choose_atomic_energies(FrameSet.concat([labelled(), atoms({1: -13.6})]))
    assert chosen.origin == "least squares"
    assert chosen[6] == pytest.approx(-1034.5, abs=0.5)


def test_given_energies_must_cover_every_element():
    with pytest.raises(DataError, match="no atomic energy for C, O"):
        choose_atomic_energies(labelled(), {1: -13.6})
    with pytest.raises(DataError, match=r"no element 'Hx'.*did you mean"):
        choose_atomic_energies(labelled(), {"Hx": -13.6})
    with pytest.raises(DataError, match="energy of H is not finite"):
        choose_atomic_energies(labelled(), {1: np.nan})


def scaled(frames: FrameSet, factor: float) -> FrameSet:
    return frames.with_labels(energy=frames.energy * factor)


@pytest.mark.parametrize(
    ("frames", "isolated", "cause"),
    [
        (scaled(labelled(), 1 / HARTREE), TRUE, "the frames' energies look like hartree"),
        (scaled(labelled(), 1 / KCAL_PER_MOL), TRUE, "the frames' energies look like kcal/mol"),
        (labelled(), {z: e / HARTREE for z, e in TRUE.items()}, "the atomic energies look like hartree"),
        (
            labelled().with_labels(energy=labelled().energy / labelled().n_atoms),
            TRUE,
            "look like energies per atom",
        ),
        (labelled(), {1: -13.6, 6: -150.0, 8: -430.0}, "another energy zero.*shift them by H .*, C -8.*, O -16"),
        (
            labelled().with_labels(energy=-4.5 * labelled().n_atoms),
            TRUE,
            "already subtracted",
        ),
    ],
)
def test_implausible_isolated_atoms_are_refused_with_the_suspected_cause(frames, isolated, cause):
    with pytest.raises(
        DataError, match=f"eV per atom away from the isolated atoms.*Suspected cause.*{cause}"
    ) as caught:
        choose_atomic_energies(frames, isolated)
    assert "\n" not in str(caught.value)


def test_the_gate_can_be_opened_by_hand():
    frames = labelled(binding=-14.0)
    with pytest.raises(DataError, match="expected within 12 eV per atom"):
        choose_atomic_energies(frames, TRUE)
    assert choose_atomic_energies(frames, TRUE, max_binding=20.0) == TRUE


def test_mixed_sources_and_outliers_are_named():
    other = labelled(seed=3)
    mixed = FrameSet.concat([labelled(), scaled(other, 1 / HARTREE).with_table(source="hartree.xyz")])
    with pytest.raises(DataError, match=r"scatter by .* eV per atom.*different units or energy zeros.*hartree.xyz -"):
        choose_atomic_energies(mixed)
    frames = labelled()
    energy = np.array(frames.energy)
    energy[17] += 5000.0
    with pytest.raises(DataError, match=f"1 outliers, the worst is frame {frames.uid(17)} of molecules.xyz"):
        choose_atomic_energies(frames.with_labels(energy=energy))
    per_atom = frames.with_labels(energy=frames.energy / frames.n_atoms)
    with pytest.raises(DataError, match="energies are energies per atom"):
        choose_atomic_energies(per_atom)
