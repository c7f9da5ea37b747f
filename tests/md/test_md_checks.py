"""Each check has a run that makes it fire and one in which it stays quiet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from md_systems import FreeGas, Harmonic, Springs, ethanol_state

from mlipkit import events
from mlipkit.errors import SpecError
from mlipkit.md import CHECKS, CalculatorForces, Forces, Look, build_checks, preflight, simulate, state_from_atoms
from mlipkit.md.judging import Judge
from mlipkit.md.recorder import figures, look_at


def only(name, limit=True):
    return {other: limit if other == name else False for other in CHECKS}


def look_of(atoms, **values) -> Look:
    look = Look(atoms.numbers, atoms.get_masses(), atoms.pbc, dof=3.0 * len(atoms))
    look.positions, look.cell = atoms.positions.copy(), atoms.cell.array.copy()
    look.forces, look.velocities = np.zeros_like(look.positions), np.zeros_like(look.positions)
    look.temperature, look.potential_energy, look.conserved_energy, look.max_force = 300.0, -1.0, 0.0, 1.0
    for name, value in values.items():
        setattr(look, name, value)
    return look


def judge_of(name, start, limit=True) -> Judge:
    judge = Judge(build_checks(only(name, limit)))
    assert judge.begin(start) == []
    return judge


def move(look, judge, fs=1.0, steps=10, **values):
    look.step, look.time = look.step + steps, look.time + fs
    for name, value in values.items():
        setattr(look, name, value)
    return judge.look(look, stored=False)


def outcomes(verdicts):
    return [verdict.outcome for verdict in verdicts]


# Quiet


def test_all_checks_are_quiet_on_a_healthy_molecule(tmp_path):
    state = ethanol_state()
    verdict = simulate(state, Springs(state), steps=400, folder=tmp_path, options={"temperature": 300.0})
    assert verdict.outcome == "ok"
    assert verdict.check == ""
    assert verdict.last_good == 400
    assert verdict.first_warning is None


def test_all_checks_are_quiet_on_a_healthy_metal(tmp_path):
    state = state_from_atoms(bulk("Cu", cubic=True), seed=1)
    forces = CalculatorForces(EMT(), stress=True)
    assert preflight(state, forces) == []
    verdict = simulate(state, forces, "npt", steps=100, folder=tmp_path, timestep=2.0)
    assert verdict.outcome == "ok"


# Fire


def test_finite_names_the_atoms():
    look = look_of(molecule("CH3CH2OH"))
    judge = judge_of("finite", look)
    assert move(look, judge, steps=1) == []
    forces = np.zeros((9, 3))
    forces[[2, 8], 0] = np.nan
    (verdict,) = move(look, judge, steps=1, forces=forces, max_force=np.nan)
    assert (verdict.outcome, verdict.atoms) == ("failed", (2, 8))
    assert verdict.sentence == "Failed at step 2 (2 fs): no finite force on O2-H8; no warning before."
    json.loads(json.dumps(events.to_json(events.Judged(verdict)), allow_nan=False))


def test_finite_also_looks_at_the_energy():
    look = look_of(molecule("H2O"))
    (verdict,) = move(look, judge_of("finite", look), steps=1, potential_energy=np.inf)
    assert "energy is not a finite number" in verdict.sentence


def test_temperature_warns_then_fails_after_a_while():
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    look = look_of(atoms, target=300.0)
    judge = judge_of("temperature", look)
    assert move(look, judge, fs=10, temperature=899.0) == []
    assert outcomes(move(look, judge, fs=10, temperature=1000.0)) == ["warning"]
    assert move(look, judge, fs=10, temperature=1600.0) == []  # said already; hot since now
    assert move(look, judge, fs=90, temperature=1600.0) == []
    (verdict,) = move(look, judge, fs=10, temperature=1600.0)
    assert verdict.outcome == "failed"
    assert verdict.limit == 1500.0
    assert verdict.first_warning == 20
    assert "temperature for 100 fs too high" in verdict.sentence
    assert "first warning at step 20 (20 fs, temperature)" in verdict.sentence


def test_temperature_forgives_a_short_spike_and_not_a_jump():
    look = look_of(bulk("Cu", cubic=True) * (3, 3, 3), target=300.0)
    judge = judge_of("temperature", look)
    move(look, judge, fs=50, temperature=1600.0)
    move(look, judge, fs=60, temperature=300.0)
    assert move(look, judge, fs=60, temperature=1600.0) == []
    velocities = np.zeros_like(look.positions)
    velocities[17, 1] = 1.0
    (verdict,) = move(look, judge, fs=1, temperature=6001.0, velocities=velocities)
    assert (verdict.outcome, verdict.atoms) == ("failed", (17,))
    assert "hottest atom Cu17" in verdict.sentence


def test_temperature_of_few_atoms_may_fluctuate():
    hydrogen = look_of(molecule("H2"), target=300.0)
    hydrogen.dof = 1.0
    assert move(hydrogen, judge_of("temperature", hydrogen), temperature=2500.0) == []


def test_max_force_warns_and_fails():
    look = look_of(molecule("CH3CH2OH"))
    judge = judge_of("max_force", look)
    assert move(look, judge, steps=1, max_force=29.0) == []
    assert outcomes(move(look, judge, steps=1, max_force=31.0)) == ["warning"]
    assert move(look, judge, steps=1, max_force=32.0) == []  # one warning is enough
    forces = np.zeros((9, 3))
    forces[3] = [0, 40.0, 40.0]
    (verdict,) = move(look, judge, steps=1, forces=forces, max_force=56.57)
    assert verdict.sentence == (
        "Failed at step 4 (4 fs): force on H3 too large: 56.6 eV/Å, limit 50 eV/Å; "
        "first warning at step 2 (2 fs, max_force)."
    )
    assert (verdict.step, verdict.value, verdict.limit, verdict.unit, verdict.atoms) == (4, 56.57, 50.0, "eV/Å", (3,))


def test_energy_drift_fires_when_the_step_is_too_long(tmp_path):
    state = ethanol_state(temperature=600.0)
    verdict = simulate(
        state, Springs(state, k=20.0), "nve", steps=3000, timestep=1.7, folder=tmp_path, checks=only("energy_drift")
    )
    assert verdict.outcome == "failed"
    assert verdict.check == "energy_drift"
    assert "conserved energy changed" in verdict.sentence


def test_energy_drift_looks_at_a_window():
    """Slow drift over a long run is no fault; the same change within a picosecond is."""
    look = look_of(molecule("CH3CH2OH"))
    judge = judge_of("energy_drift", look)
    for k in range(1, 101):
        assert move(look, judge, fs=100.0, conserved_energy=0.008 * k) == []
    assert len(judge.checks[0].times) <= 12
    (verdict,) = move(look, judge, fs=100.0, conserved_energy=0.008 * 101 + 0.9)
    assert verdict.outcome == "failed"
    assert verdict.value == pytest.approx((0.9 + 0.08) / 9, rel=1e-6)


def test_overlap_names_the_pair():
    atoms = molecule("CH3CH2OH")
    look = look_of(atoms)
    judge = judge_of("overlap", look)
    near = atoms.positions.copy()
    near[7] = near[1] + [0.68, 0.0, 0.0]
    assert outcomes(move(look, judge, positions=near)) == ["warning"]
    near = atoms.positions.copy()
    near[7] = near[1] + [0.5, 0.0, 0.0]
    (verdict,) = move(look, judge, positions=near)
    assert (verdict.outcome, verdict.atoms, verdict.value) == ("failed", (1, 7), pytest.approx(0.5))
    assert "C1-H7 overlap: 0.5 Å, limit 0.535 Å" in verdict.sentence


def test_overlap_sees_images_and_the_half_angstrom_rule():
    atoms = Atoms("H2", [[0.1, 5, 5], [9.7, 5, 5]], cell=[10, 10, 10], pbc=True)
    look = look_of(atoms)
    (verdict,) = Judge(build_checks(only("overlap"))).begin(look)
    assert verdict.value == pytest.approx(0.4)
    assert verdict.limit == 0.5  # half the sum of radii would be 0.31
    assert verdict.sentence.startswith("Cannot start from this structure: H0-H1 overlap")


@pytest.mark.parametrize("atoms", [Atoms("H2"), Atoms("H2", [[0.5] * 3] * 2, cell=[4] * 3, pbc=True)])
def test_overlap_sees_atoms_on_one_point(atoms):
    verdicts = preflight(state_from_atoms(atoms), FreeGas())
    (overlap,) = [verdict for verdict in verdicts if verdict.check == "overlap"]
    assert (overlap.outcome, overlap.atoms, overlap.value) == ("failed", (0, 1), 0.0)


def test_broken_bonds_follow_the_start_topology():
    atoms = molecule("CH3CH2OH")
    look = look_of(atoms)
    judge = judge_of("broken_bonds", look)
    assert judge.checks[0].bonds.shape == (2, 8)
    out = (atoms.positions[3] - atoms.positions[2]) / atoms.get_distance(2, 3)
    stretched = atoms.positions.copy()
    stretched[3] = stretched[2] + 1.4 * out
    assert move(look, judge, positions=stretched) == []
    stretched = stretched.copy()
    stretched[3] = stretched[2] + 1.6 * out
    assert outcomes(move(look, judge, positions=stretched)) == ["warning"]
    stretched = stretched.copy()
    stretched[3] = stretched[2] + 2.0 * out
    (verdict,) = move(look, judge, positions=stretched)
    assert (verdict.outcome, verdict.atoms) == ("failed", (2, 3))
    assert "bond O2-H3 is stretched: 2 Å, limit 1.94 Å" in verdict.sentence


def test_bonds_through_the_cell_wall_and_far_from_home_are_whole():
    water = molecule("H2O")
    water.set_cell([5, 5, 5])
    water.pbc = True
    water.positions[1] += [5, 0, -5]  # an image of the same atom
    look = look_of(water)
    judge = judge_of("broken_bonds", look)
    assert judge.checks[0].bonds.shape == (2, 2)
    assert move(look, judge, positions=water.positions + 1e4) == []


def test_contacts_of_metals_are_no_bonds():
    copper = bulk("Cu", cubic=True)
    look = look_of(copper)
    assert judge_of("broken_bonds", look).checks[0].bonds.size == 0


def test_lone_atoms_warn_at_once_and_fail_after_a_while():
    atoms = molecule("CH3CH2OH")
    look = look_of(atoms)
    judge = judge_of("lone_atoms", look)
    far = atoms.positions.copy()
    far[5] += [0, 0, 3.0]
    assert outcomes(move(look, judge, fs=10, positions=far)) == ["warning"]
    assert move(look, judge, fs=90, positions=far) == []
    (verdict,) = move(look, judge, fs=10, positions=far)
    assert (verdict.outcome, verdict.atoms, verdict.value) == ("failed", (5,), 110.0)
    assert "H5 without a neighbour: 110 fs, limit 100 fs" in verdict.sentence


def test_an_atom_that_was_alone_from_the_start_may_stay_alone():
    gas = Atoms("Ar2", [[0, 0, 0], [9, 0, 0]])
    look = look_of(gas)
    judge = judge_of("lone_atoms", look)
    assert move(look, judge, fs=500) == []


def test_density_fires_in_both_directions():
    water = molecule("H2O", cell=[5, 5, 5], pbc=True)
    for factor, word in ((1.3, "failed"), (0.85, "failed"), (1.08, "warning"), (1.03, None)):
        look = look_of(water)
        judge = judge_of("density", look)
        said = move(look, judge, cell=water.cell.array * factor)
        assert outcomes(said) == ([word] if word else [])
    look = look_of(molecule("H2O"))
    assert move(look, judge_of("density", look), cell=np.eye(3)) == []


# What the loop makes of them


def test_verdict_names_the_first_warning_and_keeps_running_on_warnings(tmp_path):
    class Pull:
        """Tears H3 off the oxygen, slowly."""

        def __call__(self, state):
            forces = torch.zeros_like(state.positions)
            forces[3, 1], forces[2, 1] = -2.0, 2.0
            return Forces(torch.zeros(1, dtype=torch.float64), forces)

    heard = []
    state = state_from_atoms(molecule("CH3CH2OH"))
    verdict = simulate(
        state, Pull(), "nve", steps=500, folder=tmp_path, stride=5, sink=heard.append,
        checks=only("broken_bonds"),
    )  # fmt: skip
    assert verdict.outcome == "failed"
    assert verdict.atoms == (2, 3)
    warning = next(event.verdict for event in heard if isinstance(event, events.Judged))
    assert warning.outcome == "warning"
    assert verdict.first_warning == warning.step
    assert 0 <= verdict.last_good < warning.step < verdict.step
    assert f"first warning at step {warning.step} (" in verdict.sentence


def test_memory_of_checks_survives_a_restart(tmp_path):
    """A warning before the restart is the first warning after it."""

    class Slide:
        def __call__(self, state):
            forces = torch.zeros_like(state.positions)
            forces[4, 2] = 35.0 if state.step >= 6 else 0.0
            forces[4, 2] = 70.0 if state.step >= 15 else forces[4, 2]
            return Forces(torch.zeros(1, dtype=torch.float64), forces)

    def go(folder, steps):
        return simulate(
            state_from_atoms(molecule("CH3CH2OH")), Slide(), "nve", steps=steps, folder=folder, checks=only("max_force")
        )

    whole = go(tmp_path / "whole", 100)
    assert go(tmp_path / "parts", 10).outcome == "warning"
    assert go(tmp_path / "parts", 100) == whole
    assert (whole.first_warning, whole.step) == (6, 15)


def test_preflight_names_pair_force_and_cell():
    atoms = molecule("CH3CH2OH", cell=[3.0, 8.0, 8.0], pbc=[True, False, False])
    atoms.positions[8] = atoms.positions[5] + [0.0, 0.0, 0.3]
    forces = Harmonic(60.0)
    forces.cutoff = 5.0
    verdicts = {verdict.check: verdict for verdict in preflight(state_from_atoms(atoms), forces)}
    assert verdicts["max_force"].outcome == "failed"
    slim = preflight(state_from_atoms(atoms), forces, {"max_force": False})
    by_name = {verdict.check: verdict for verdict in slim}
    assert by_name["overlap"].atoms == (5, 8)
    assert by_name["cell"].outcome == "warning"
    assert "3 Å high along axis a, less than the cutoff of 5 Å" in by_name["cell"].sentence


def test_height_of_a_skewed_cell_is_not_its_edge():
    cell = [[6.0, 0, 0], [5.0, 3.0, 0], [0, 0, 9.0]]
    state = state_from_atoms(Atoms("Ar", cell=cell, pbc=True))
    forces = FreeGas()
    forces.cutoff = 5.0
    (verdict,) = preflight(state, forces)
    assert verdict.value == pytest.approx(3.0)


# How limits are given


def test_limits_as_numbers_mappings_and_off():
    checks = {
        check.name: check for check in build_checks({"max_force": 20, "overlap": False, "temperature": {"fail": 4}})
    }
    assert "overlap" not in checks
    assert (checks["max_force"].fail, checks["max_force"].warn) == (20.0, 20.0)
    assert (checks["temperature"].fail, checks["temperature"].warn) == (4, 3.0)
    assert [check.name for check in build_checks()] == list(CHECKS)
    quiet = next(c for c in build_checks({"max_force": {"warn": None, "fail": None}}) if c.name == "max_force")
    look = look_of(molecule("H2O"), max_force=1e6)
    assert quiet.look(look) is None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_forces": 3}, "did you mean 'max_force'"),
        ({"max_force": "high"}, "not a limit"),
        ({"max_force": {"fale": 3}}, "did you mean 'fail'"),
        ({"max_force": {"fail": "high"}}, "not a limit"),
        ({"max_force": {"every": 0}}, "not a limit"),
        ({"max_force": -3}, "above 0"),
        ({"max_force": float("nan")}, "above 0"),
        ({"max_force": {"fail": -3}}, "not a limit"),
    ],
)
def test_wrong_limits_are_refused(limits, message):
    with pytest.raises(SpecError, match=message):
        build_checks(limits)


def test_every_check_has_its_test_here():
    text = Path(__file__).read_text()
    for name in CHECKS:
        assert f'"{name}", look' in text or f'only("{name}")' in text


def test_figures_see_a_nan_in_any_replica():
    state = ethanol_state(replicas=3)
    state.forces = torch.zeros_like(state.forces)
    state.forces[9 + 3, 1] = torch.nan
    rows = figures(state)
    assert np.isnan(rows[1, 7])
    assert np.isfinite(rows[[0, 2], 7]).all()
    assert look_at(state, 1, rows[1]).names([0, 3]) == "C0-H3"
