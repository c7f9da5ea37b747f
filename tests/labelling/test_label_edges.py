"""Engines asked for what cannot be: electrons that do not add up, options that are no numbers, other atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlipkit.data import FrameSet
from mlipkit.errors import SpecError
from mlipkit.labelling import LabelMakerError, RecordedLabels, label_maker

ENGINES: dict[str, dict[str, Any]] = {"gfn1-xtb": {}, "pyscf": {"functional": "hf", "basis": "sto-3g"}}
PACKAGE = {"gfn1-xtb": "tblite", "pyscf": "pyscf"}


def maker(engine: str, **options: Any) -> Any:
    pytest.importorskip(PACKAGE[engine])
    return label_maker(engine, **{**ENGINES[engine], **options})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"multiplicity": 1}, "multiplicity 1 does not fit 9 electrons"),
        ({"multiplicity": 2, "charge": -1}, "multiplicity 2 does not fit 10 electrons"),
        ({"multiplicity": 40}, "multiplicity 40 does not fit 9 electrons"),
        ({"charge": 20}, "a charge of 20 e is more than all 9 electrons"),
    ],
)
def test_a_state_that_a_structure_cannot_have_is_no_label_of_another(engine, options, reason):
    """tblite would label the nearest state without a word."""
    with pytest.raises(LabelMakerError, match=reason):
        maker(engine, **options).label(molecule("OH"))


@pytest.mark.parametrize("engine", ENGINES)
def test_states_that_fit_are_labelled(engine):
    lowest = maker(engine).label(molecule("OH")).energy
    assert maker(engine, multiplicity=2).label(molecule("OH")).energy == pytest.approx(lowest, abs=1e-4)
    assert maker(engine, multiplicity=4).label(molecule("OH")).energy > lowest + 1
    assert maker(engine, charge=1).label(molecule("OH")).energy > lowest + 5


@pytest.mark.parametrize(
    ("engine", "options", "problem"),
    [
        ("pyscf", {"charge": 0.5}, r"charge: no charge; expected a whole number of electrons, e; found 0\.5"),
        ("gfn1-xtb", {"charge": "a"}, "charge: no charge; expected a number of electrons, e; found 'a'"),
        ("gfn1-xtb", {"charge": float("nan")}, "found nan"),
        ("gfn1-xtb", {"multiplicity": 1.5}, r"multiplicity: no multiplicity; expected a whole number.*found 1\.5"),
        ("pyscf", {"multiplicity": 0}, "multiplicity: no multiplicity"),
        ("gfn1-xtb", {"electronic_temperature": -5.0}, "electronic_temperature: out of range; expected above 0 K"),
        ("gfn1-xtb", {"accuracy": 0.0}, "accuracy: out of range"),
        ("gfn1-xtb", {"max_iterations": 0}, "max_iterations: out of range"),
        ("pyscf", {"convergence": 0.0}, "convergence: out of range"),
        ("pyscf", {"max_cycles": 0}, "max_cycles: out of range"),
    ],
)
def test_options_that_cannot_be_are_refused_when_the_engine_is_built(engine, options, problem):
    with pytest.raises(SpecError, match=problem):
        maker(engine, **options)


def test_recorded_labels_are_not_given_to_other_elements_of_the_same_name_and_places():
    kept = FrameSet.from_atoms([Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])]).with_labels(
        energy=[-1.0], forces=np.zeros((2, 3))
    )
    other = Atoms("He2", [[0, 0, 0], [0, 0, 0.8]], info={"uid": kept.uid(0)})
    same = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], info={"uid": kept.uid(0)})
    recorded = RecordedLabels(kept)
    assert recorded.label(same).energy == -1.0
    mixed = FrameSet.concat([kept, FrameSet.from_atoms([other]).with_labels(energy=[-2.0], forces=np.zeros((2, 3)))])
    assert RecordedLabels(mixed).label(other).energy == -2.0
