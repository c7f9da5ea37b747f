"""Relaxation against ASE's FIRE, structure by structure; cells against its Frechet filter; stop, go on, leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import FIRE
from md_systems import Harmonic, ethanol, palladium
from test_md_simulation import tiny_potential

from mlipkit import units
from mlipkit.data import FrameSet, Series
from mlipkit.data import read as read_frames
from mlipkit.errors import DataError, RunError
from mlipkit.events import Judged, Progress
from mlipkit.md import CalculatorForces, Forces, MlipCalculator, PotentialForces, relax, state_from_atoms
from mlipkit.models import load


def copper(strain=0.03, seed=0):
    """A crystal with a distorted, sheared cell and rattled atoms."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    rng = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * rng.standard_normal((3, 3))), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def ase_relaxed(atoms, calculator, fmax, cell=False, steps=500, **options):
    atoms = atoms.copy()
    atoms.calc = calculator
    optimiser = FIRE(FrechetCellFilter(atoms, **options) if cell else atoms, logfile=None)
    optimiser.run(fmax=fmax, steps=steps)
    return atoms, optimiser.nsteps


def last(folder):
    return read(folder / "trajectory.traj", "-1")


def test_fixed_cell_follows_ase_step_by_step(tmp_path):
    images = [palladium(), copper(), copper(seed=3)]
    state = state_from_atoms(images)
    verdicts = relax(state, CalculatorForces([EMT() for _ in images]), fmax=0.01, folder=tmp_path, stride=1)
    for index, image in enumerate(images):
        wanted, steps = ase_relaxed(image, EMT(), 0.01)
        folder = tmp_path / f"replica_{index:03d}"
        got = last(folder)
        assert verdicts[index].outcome == "ok"
        assert verdicts[index].step == steps == got.info["step"]
        assert got.get_potential_energy() == pytest.approx(wanted.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(got.positions, wanted.positions, rtol=0, atol=1e-8)
        series = Series(folder / "series/relax").read()
        assert len(series["step"]) == steps + 1
        assert series["max_force"][-1] < 0.01 < series["max_force"][-2]
    assert len({verdict.step for verdict in verdicts}) == 3  # each left when it was done


@pytest.mark.parametrize("options", [{}, {"hydrostatic_strain": True}, {"scalar_pressure": 5 * units.GPA}])
def test_variable_cell_follows_ase(tmp_path, options):
    images = [copper(), copper(0.02, seed=5)]
    mine = {"hydrostatic": "hydrostatic_strain" in options, "pressure": 5.0 if "scalar_pressure" in options else 0.0}
    wanted = [ase_relaxed(image, EMT(), 1e-9, cell=True, steps=60, **options)[0] for image in images]
    relax(state_from_atoms(images), CalculatorForces([EMT() for _ in images], stress=True), fmax=1e-9, smax=1e-9,
          steps=60, cell=True, folder=tmp_path / "steps", **mine)  # fmt: skip
    for index, atoms in enumerate(wanted):
        got = last(tmp_path / f"steps/replica_{index:03d}")
        assert got.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(got.cell.array, atoms.cell.array, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.positions, atoms.positions, rtol=0, atol=1e-6)
    verdicts = relax(state_from_atoms(images), CalculatorForces([EMT() for _ in images], stress=True), fmax=1e-3,
                     smax=0.01, cell=True, folder=tmp_path / "whole", **mine)  # fmt: skip
    assert [verdict.outcome for verdict in verdicts] == ["ok", "ok"]
    for index, image in enumerate(images):
        atoms, steps = ase_relaxed(image, EMT(), 1e-4, cell=True, **options)
        got = last(tmp_path / f"whole/replica_{index:03d}")

        def enthalpy(structure):
            return structure.get_potential_energy() + mine["pressure"] * units.GPA * structure.get_volume()

        assert enthalpy(got) == pytest.approx(enthalpy(atoms), abs=2e-6)
        assert verdicts[index].step < 1.2 * steps
        pressure = -got.get_stress(voigt=False).trace() / 3 / units.GPA
        assert pressure == pytest.approx(mine["pressure"], abs=0.011)
        if mine["hydrostatic"]:
            ratio = np.linalg.solve(image.cell.array, got.cell.array)
            np.testing.assert_allclose(ratio, ratio[0, 0] * np.eye(3), atol=1e-9)


def test_the_sample_potential_on_ethanol_reaches_ases_minimum(tmp_path):
    potential = load("sample:ethanol_1000").double()
    images = []
    for seed in range(3):
        image = ethanol()
        image.rattle(0.08, seed=seed)
        images.append(image)
    verdicts = relax(state_from_atoms(images), PotentialForces(potential), fmax=0.01, folder=tmp_path, batch=3)
    for index, image in enumerate(images):
        wanted, steps = ase_relaxed(image, MlipCalculator(potential), 0.01)
        assert verdicts[index].step == pytest.approx(steps, abs=2)
        assert last(tmp_path / f"replica_{index:03d}").get_potential_energy() == pytest.approx(
            wanted.get_potential_energy(), abs=1e-6
        )


def test_batches_stop_and_go_on_exactly(tmp_path):
    images = [copper(seed=seed) for seed in range(3)]
    potential = tiny_potential(torch.float64, cutoff=4.0, numbers=(29,))

    def go(folder, **options):
        forces = PotentialForces(potential, stress=True, skin=0.2)
        return relax(state_from_atoms(images), forces, fmax=1e-5, smax=1e-4, steps=40, cell=True, stride=7,
                     folder=tmp_path / folder, batch=2, **options)  # fmt: skip

    calls, heard = [], []

    def control():
        calls.append(1)
        return "stop" if len(calls) in (13, 30, 65) else "run"

    whole = go("whole", sink=heard.append)
    for _ in range(4):
        parts = go("parts", control=control, checkpoint_every=5)
    assert parts == whole
    assert [verdict.outcome for verdict in whole] == ["warning"] * 3
    assert "Structure 1 not converged within 40 steps: largest" in whole[1].sentence
    for index in range(3):
        one, two = (tmp_path / name / f"replica_{index:03d}" for name in ("whole", "parts"))
        assert (one / "series/relax/rows.f64").read_bytes() == (two / "series/relax/rows.f64").read_bytes()
        a, b = (read(folder / "trajectory.traj", ":") for folder in (one, two))
        assert [x.info["step"] for x in a] == [x.info["step"] for x in b] == [0, 7, 14, 21, 28, 35, 40]
        assert all(np.array_equal(x.positions, y.positions) and np.array_equal(x.cell, y.cell)
                   for x, y in zip(a, b, strict=True))  # fmt: skip
    done = [event.done for event in heard if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] == 40
    with pytest.raises(RunError, match="another relaxation"):
        relax(state_from_atoms(images), PotentialForces(potential), steps=40, folder=tmp_path / "whole", batch=2)


def test_more_steps_let_go_on_what_had_not_converged(tmp_path):
    def go(folder, steps):
        return relax(state_from_atoms(palladium()), CalculatorForces(EMT()), fmax=0.01, steps=steps, folder=folder)

    (few,) = go(tmp_path / "one", 7)
    assert (few.outcome, few.check, few.step, few.unit) == ("warning", "convergence", 7, "eV/Å")
    assert few.value > few.limit == 0.01
    (again,) = go(tmp_path / "one", 7)
    assert again == few
    (done,) = go(tmp_path / "one", 200)
    (whole,) = go(tmp_path / "two", 200)
    assert done == whole
    assert whole.sentence.startswith(f"Converged after {whole.step} steps: largest force")
    frames = read_frames(tmp_path / "one/trajectory.traj")
    assert isinstance(frames, FrameSet)
    assert frames.has("energy").all()
    assert [a.info["step"] for a in read(tmp_path / "one/trajectory.traj", ":")][:3] == [0, 7, 10]


def test_a_batch_that_has_ended_stays_ended_when_the_next_was_stopped(tmp_path):
    images, stopped = [copper(), copper(seed=3)], []

    def go(fmax=0.05, control=lambda: "run", folder="parts"):
        return relax(state_from_atoms(images), CalculatorForces(EMT()), fmax=fmax, folder=tmp_path / folder, batch=1,
                     control=control)  # fmt: skip

    def in_the_second():
        stopped.append((tmp_path / "parts/checkpoints/relax_001.safetensors").is_file())
        return "stop" if stopped.count(True) == 3 else "run"

    (first,) = go(control=in_the_second)
    assert first.outcome == "ok"
    done = go()
    assert [(one.outcome, one.step) for one in done] == [(one.outcome, one.step) for one in go(folder="whole")]
    with pytest.raises(RunError, match="structure 0 has already converged to a looser fmax") as refused:
        go(fmax=0.01)
    assert "new run" in str(refused.value)
    assert go(fmax=0.2) == done


def test_a_structure_that_has_converged_takes_no_tighter_limit(tmp_path):
    def go(**limits):
        return relax(state_from_atoms(copper()), CalculatorForces(EMT(), stress=True), cell=True, folder=tmp_path,
                     **limits)  # fmt: skip

    done = go(fmax=0.1, smax=0.5)
    assert done[0].outcome == "ok"
    assert go(fmax=0.1, smax=0.5) == done
    assert go(fmax=done[0].value, smax=0.5) == done  # small enough without another step
    with pytest.raises(RunError, match="the structure has already converged to a looser fmax"):
        go(fmax=0.99 * done[0].value, smax=0.5)
    with pytest.raises(RunError, match="looser smax"):
        go(fmax=0.1, smax=1e-9)


def test_more_steps_and_a_stop_take_back_that_it_had_not_converged(tmp_path):
    def go(steps, control=lambda: "run"):
        return relax(state_from_atoms(palladium()), CalculatorForces(EMT()), fmax=0.01, steps=steps, folder=tmp_path,
                     control=control)  # fmt: skip

    assert [one.outcome for one in go(3)] == ["warning"]
    assert go(200, lambda: "stop") == []
    assert [one.outcome for one in go(200)] == ["ok"]


def test_what_breaks_leaves_alone_and_says_why(tmp_path):
    class Bad:
        def __call__(self, state):
            forces = Harmonic(0.5)(state)
            if state.step == 3 and state.n_systems == 3:
                forces.forces[9 + 2] = torch.nan
            return forces

    heard = []
    images = [molecule("H2O"), ethanol(), molecule("CO")]
    images[0].positions *= 3
    verdicts = relax(state_from_atoms(images), Bad(), fmax=0.02, folder=tmp_path, sink=heard.append)
    # Springs to one point pull all atoms together, which is a minimum of nothing real.
    assert [verdict.outcome for verdict in verdicts] == ["failed"] * 3
    assert [verdict.check for verdict in verdicts] == ["overlap", "finite", "overlap"]
    assert verdicts[1].step == 3
    assert verdicts[1].sentence == "Structure 1 energy or forces are not finite numbers at step 3."
    assert "overlap" in verdicts[0].sentence
    assert next(event.verdict.replica for event in heard if isinstance(event, Judged)) == 1
    assert [a.info["step"] for a in read(tmp_path / "replica_001/trajectory.traj", ":")] == [0, 3]


@pytest.mark.parametrize("wrong", ["batch", "stride"])
def test_batch_and_stride_count_from_one(tmp_path, wrong):
    with pytest.raises(DataError, match=f"{wrong}: .* expected 1 or more"):
        relax(state_from_atoms(ethanol()), Harmonic(), folder=tmp_path, **{wrong: 0})


def test_a_cell_needs_axes_and_a_stress(tmp_path):
    with pytest.raises(DataError, match="three periodic axes"):
        relax(state_from_atoms(ethanol()), Harmonic(), cell=True, folder=tmp_path / "a")
    with pytest.raises(DataError, match="needs the stress"):
        relax(state_from_atoms(copper()), CalculatorForces(EMT()), cell=True, folder=tmp_path / "b")


def test_a_structure_at_rest_has_converged_at_once(tmp_path):
    class Flat:
        def __call__(self, state):
            return Forces(torch.zeros_like(state.energy), torch.zeros_like(state.positions))

    (verdict,) = relax(state_from_atoms(ethanol()), Flat(), folder=tmp_path)
    assert (verdict.outcome, verdict.step) == ("ok", 0)
    assert len(read(tmp_path / "trajectory.traj", ":")) == 1


def test_two_atoms_on_one_point_have_not_converged(tmp_path):
    atoms = ethanol()
    atoms.append(atoms[8])
    (verdict,) = relax(state_from_atoms(atoms), PotentialForces(load("sample:ethanol_1000").double()), folder=tmp_path)
    assert (verdict.outcome, verdict.check, verdict.atoms) == ("failed", "overlap", (8, 9))
