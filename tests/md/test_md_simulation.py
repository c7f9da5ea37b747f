"""The simulation loop: exact restart, what it writes, what it obeys, what it leaves behind when it dies."""

from __future__ import annotations

import gc
import os
import tracemalloc

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from md_systems import FreeGas, Harmonic, Springs, ethanol_state

from mlipkit.data import FrameSet, Series
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.events import Finished, Judged, Message, Progress, Saved, Started
from mlipkit.md import CalculatorForces, Forces, PotentialForces, maxwell_boltzmann, simulate, state_from_atoms
from mlipkit.md.checkpoint import read_checkpoint
from mlipkit.models import Potential, build_encoder

NO_CHECKS = dict.fromkeys(("temperature", "max_force", "energy_drift", "broken_bonds", "lone_atoms"), False)
ENSEMBLE_OPTIONS = {
    "nve": {},
    "berendsen": {"temperature": 400.0},
    "langevin": {"temperature": 400.0, "friction": 0.02},
    "bussi": {"temperature": 400.0, "relaxation_time": 50.0},
    "nose_hoover": {"temperature": 400.0, "relaxation_time": 50.0},
}


def tiny_potential(dtype=torch.float32, cutoff=4.0, numbers=(1, 6, 8)):
    torch.manual_seed(3)
    encoder = build_encoder("painn", features=8, layers=2, cutoff=cutoff, n_radial=6)
    potential = Potential(encoder, atomic_energies=dict.fromkeys(numbers, -1.0), scale=0.05)
    return potential.to(dtype)


def same_files(one, two):
    assert (one / "series/md/rows.f64").read_bytes() == (two / "series/md/rows.f64").read_bytes()
    first, second = (ase.io.read(folder / "trajectory.traj", ":") for folder in (one, two))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.get_momenta(), b.get_momenta())
        assert np.array_equal(a.get_forces(), b.get_forces())
        assert a.info == b.info


def same_state(one, two):
    first, second = (read_checkpoint(folder / "checkpoints/md.safetensors") for folder in (one, two))
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for name, tensor in first[0].items():
        assert torch.equal(tensor, second[0][name]) or torch.isnan(tensor).all(), name


@pytest.mark.parametrize("name", list(ENSEMBLE_OPTIONS))
def test_two_halves_equal_the_whole_bit_for_bit(tmp_path, name):
    options = {"options": ENSEMBLE_OPTIONS[name], "stride": 7, "checks": {"energy_drift": False}}
    springs = Springs(ethanol_state())
    simulate(ethanol_state(), springs, name, steps=1000, folder=tmp_path / "whole", **options)
    simulate(ethanol_state(), springs, name, steps=500, folder=tmp_path / "halves", **options)
    simulate(ethanol_state(), springs, name, steps=1000, folder=tmp_path / "halves", **options)
    same_files(tmp_path / "whole", tmp_path / "halves")
    same_state(tmp_path / "whole", tmp_path / "halves")


def test_npt_restarts_exactly(tmp_path):
    # EMT itself keeps lists that depend on the past; a potential does not.
    potential = tiny_potential(torch.float64, cutoff=3.0, numbers=(6,))
    options = {"options": {"temperature": 300.0}, "stride": 5, "checks": NO_CHECKS}

    def start():
        state = state_from_atoms(bulk("C", "diamond", a=3.57, cubic=True) * (2, 1, 1), seed=1)
        maxwell_boltzmann(state, 300.0, seed=2)
        return state

    def go(folder, steps):
        return simulate(start(), PotentialForces(potential, stress=True), "npt", steps=steps, folder=folder, **options)

    go(tmp_path / "whole", 40)
    go(tmp_path / "halves", 20)
    go(tmp_path / "halves", 40)
    same_files(tmp_path / "whole", tmp_path / "halves")
    same_state(tmp_path / "whole", tmp_path / "halves")
    series = Series(tmp_path / "whole/series/md").read(["pressure", "density"])
    assert np.ptp(series["density"]) > 0
    assert np.isfinite(series["pressure"]).all()


@pytest.mark.parametrize("periodic", [False, True])
def test_a_potential_with_skin_lists_restarts_exactly(tmp_path, periodic):
    """Stopped between two rebuilds of the neighbour list, at a step that is no checkpoint of the other run."""
    potential = tiny_potential()
    options = {"options": {"temperature": 900.0}, "stride": 10, "checks": NO_CHECKS}

    def start():
        atoms = molecule("CH3CH2OH")
        if periodic:
            atoms.set_cell([6.0, 6.5, 7.0])
            atoms.pbc = True
        state = state_from_atoms(atoms, seed=1)
        maxwell_boltzmann(state, 900.0, seed=2)
        return state

    whole = PotentialForces(potential, skin=0.3)
    simulate(start(), whole, steps=120, folder=tmp_path / "whole", **options)
    for steps in (37, 83, 120):
        simulate(start(), PotentialForces(potential, skin=0.3), steps=steps, folder=tmp_path / "parts", **options)
    assert 2 < whole.n_rebuilds < 60
    same_files(tmp_path / "whole", tmp_path / "parts")


def test_folder_holds_what_views_need(tmp_path):
    state = ethanol_state()
    verdict = simulate(state, Springs(state), steps=50, folder=tmp_path, stride=10, options={"temperature": 300.0})
    frames = ase.io.read(tmp_path / "trajectory.traj", ":")
    assert [frame.info["step"] for frame in frames] == [0, 10, 20, 30, 40, 50]
    assert frames[-1].info["time_fs"] == pytest.approx(25.0)
    np.testing.assert_array_equal(frames[-1].positions, state.positions.numpy())
    assert frames[-1].get_potential_energy() == state.energy.item()
    series = Series(tmp_path / "series/md")
    rows = series.read()
    assert len(series) == 51
    assert series.units["max_force"] == series.units["mean_force"] == "eV/Å"
    np.testing.assert_array_equal(rows["step"], np.arange(51))
    np.testing.assert_allclose(rows["total_energy"], rows["potential_energy"] + rows["kinetic_energy"])
    assert rows["temperature"][-1] == pytest.approx(state.temperature().item())
    assert not (tmp_path / "last_steps.traj").exists()
    assert verdict.outcome == "ok"
    assert verdict.last_good == 50
    assert verdict.sentence == "No check had anything to say in 50 steps (25 fs)."


def test_events_tell_the_story(tmp_path):
    heard = []
    state = ethanol_state()
    simulate(state, Springs(state), steps=30, folder=tmp_path, sink=heard.append)
    assert isinstance(heard[0], Started)
    assert heard[0].total == 30
    assert heard[0].facts["friction"] == 0.01
    assert any(isinstance(event, Saved) for event in heard)
    assert [event.done for event in heard if isinstance(event, Progress)][-1] == 30
    assert isinstance(heard[-1], Judged)
    assert heard[-1].final
    assert not any(isinstance(event, Finished) for event in heard)  # the run says that, not the simulation


def test_stop_and_go_on(tmp_path):
    state, asked = ethanol_state(), []

    def control():
        asked.append(1)
        return "stop" if len(asked) > 20 else "run"

    springs = Springs(ethanol_state())
    verdict = simulate(state, springs, steps=100, folder=tmp_path / "stopped", stride=10, control=control)
    assert verdict.outcome == "ok"
    assert state.step == 20
    simulate(ethanol_state(), springs, steps=100, folder=tmp_path / "stopped", stride=10)
    simulate(ethanol_state(), springs, steps=100, folder=tmp_path / "whole", stride=10)
    same_files(tmp_path / "whole", tmp_path / "stopped")


def test_pause_saves_and_waits(tmp_path):
    requests = iter(["run", "run", "pause", "pause", "run"])
    state = ethanol_state()
    springs = Springs(ethanol_state())
    saved = []

    def control():
        request = next(requests, "run")
        if request == "pause":
            saved.append((state.step, (tmp_path / "checkpoints/md.safetensors").stat().st_mtime_ns, springs.n_calls))
        return request

    simulate(state, springs, steps=10, folder=tmp_path, control=control)
    (step, before, calls), (again, after, same_calls) = saved
    assert step == again == 2
    assert calls == same_calls
    assert after > before
    assert state.step == 10


def test_a_finished_simulation_asked_again_computes_nothing(tmp_path):
    springs = Springs(ethanol_state())
    first = simulate(ethanol_state(), springs, steps=20, folder=tmp_path)
    springs.n_calls = 0
    state = ethanol_state()
    second = simulate(state, springs, steps=20, folder=tmp_path)
    assert springs.n_calls == 0
    assert state.step == 20
    assert second == first


def test_a_changed_temperature_takes_effect_and_is_said(tmp_path):
    heard = []
    state = ethanol_state()
    springs = Springs(state)
    simulate(state, springs, steps=20, folder=tmp_path, options={"temperature": 300.0})
    state = ethanol_state()
    simulate(state, springs, steps=40, folder=tmp_path, options={"temperature": 700.0}, sink=heard.append)
    assert state.thermostat["temperature"].item() == 700.0
    texts = [event.text for event in heard if isinstance(event, Message)]
    assert texts == ["temperature changes from 300.0 to 700.0 at step 20"]
    # and stays in effect without being said again
    heard.clear()
    state = ethanol_state()
    simulate(state, springs, steps=60, folder=tmp_path, options={"temperature": 700.0}, sink=heard.append)
    assert state.thermostat["temperature"].item() == 700.0
    assert not [event for event in heard if isinstance(event, Message)]


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    state = ethanol_state()
    springs = Springs(state)
    simulate(state, springs, "langevin", steps=5, folder=tmp_path)
    with pytest.raises(RunError, match=r"another ensemble; expected nve; found langevin"):
        simulate(ethanol_state(), springs, "nve", steps=10, folder=tmp_path)
    with pytest.raises(RunError, match=r"another timestep; expected 1.0; found 0.5"):
        simulate(ethanol_state(), springs, steps=10, folder=tmp_path, timestep=1.0)
    other = state_from_atoms(molecule("CH3OCH3"))
    with pytest.raises(RunError, match="another system"):
        simulate(other, springs, steps=10, folder=tmp_path)
    with pytest.raises(SpecError, match="unknown check 'max_forces'"):
        simulate(ethanol_state(), springs, steps=10, folder=tmp_path, checks={"max_forces": 3})


def test_a_spoilt_checkpoint_is_one_sentence(tmp_path):
    state = ethanol_state()
    simulate(state, Springs(state), steps=5, folder=tmp_path)
    path = tmp_path / "checkpoints/md.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match="unreadable checkpoint"):
        simulate(ethanol_state(), Springs(state), steps=10, folder=tmp_path)


class Bomb:
    """Good forces until a step, then something bad."""

    def __init__(self, inner, at: int, what: str) -> None:
        self.inner, self.at, self.what = inner, at, what

    def __call__(self, state):
        forces = self.inner(state)
        if state.step < self.at:
            return forces
        if self.what == "raise":
            raise RuntimeError("out of memory")
        bad = forces.forces.clone()
        if self.what == "nan":
            bad[7] = torch.nan
        else:
            bad[7] = 400.0
        return Forces(forces.energy, bad)


@pytest.mark.parametrize("what", ["nan", "force"])
def test_a_failure_three_steps_after_a_stored_frame_is_visible_step_by_step(tmp_path, what):
    state = ethanol_state()
    heard = []
    verdict = simulate(
        state, Bomb(Springs(state), 303, what), steps=1000, folder=tmp_path, stride=100, sink=heard.append,
        options={"temperature": 300.0},
    )  # fmt: skip
    assert verdict.outcome == "failed"
    assert verdict.check == {"nan": "finite", "force": "max_force"}[what]
    assert verdict.step == 303
    assert verdict.atoms == (7,)
    assert "H7" in verdict.sentence
    assert verdict.last_good == 300
    stored = ase.io.read(tmp_path / "trajectory.traj", ":")
    assert [frame.info["step"] for frame in stored] == [0, 100, 200, 300]
    last = ase.io.read(tmp_path / "last_steps.traj", ":")
    assert [frame.info["step"] for frame in last] == list(range(104, 304))
    rows = Series(tmp_path / "series/md").read()
    assert rows["step"][-1] == 303
    assert last[-2].info["temperature"] == rows["temperature"][-2]
    np.testing.assert_array_equal(last[196].positions, stored[-1].positions)
    if what == "nan":
        assert np.isnan(last[-1].get_forces()[7]).all()
    assert [event.verdict for event in heard if isinstance(event, Judged) and event.final] == [verdict]
    # Asked again, the same verdict without a step.
    again = simulate(ethanol_state(), Bomb(Springs(state), 303, what), steps=1000, folder=tmp_path, stride=100)
    assert again.sentence == verdict.sentence
    assert (tmp_path / "last_steps.traj").exists()


def test_an_exception_leaves_the_last_steps_and_can_be_resumed(tmp_path):
    springs = Springs(ethanol_state())
    options = {"stride": 25, "checkpoint_every": 40}
    with pytest.raises(RuntimeError, match="out of memory"):
        simulate(ethanol_state(), Bomb(springs, 62, "raise"), steps=100, folder=tmp_path / "crashed", **options)
    last = ase.io.read(tmp_path / "crashed/last_steps.traj", ":")
    assert [frame.info["step"] for frame in last] == list(range(62))
    assert len(Series(tmp_path / "crashed/series/md")) == 62
    simulate(ethanol_state(), springs, steps=100, folder=tmp_path / "crashed", **options)
    simulate(ethanol_state(), springs, steps=100, folder=tmp_path / "whole", **options)
    same_files(tmp_path / "whole", tmp_path / "crashed")
    same_state(tmp_path / "whole", tmp_path / "crashed")
    assert not (tmp_path / "crashed/last_steps.traj").exists()


def test_the_ring_survives_a_restart(tmp_path):
    """A failure just after going on still shows the steps before the checkpoint."""
    springs = Springs(ethanol_state())
    simulate(ethanol_state(), springs, steps=150, folder=tmp_path, options={"temperature": 300.0})
    simulate(ethanol_state(), Bomb(springs, 153, "nan"), steps=300, folder=tmp_path, options={"temperature": 300.0})
    last = ase.io.read(tmp_path / "last_steps.traj", ":")
    assert [frame.info["step"] for frame in last] == list(range(154))


def test_a_replica_that_fails_stops_alone(tmp_path):
    class OneBad:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, state):
            energy, forces, stress = self.inner(state)
            if state.step == 30 and state.n_systems == 3:
                forces = forces.clone()
                forces[9 + 4] = torch.inf
            return Forces(energy, forces, stress)

    heard = []
    state = ethanol_state(replicas=3)
    springs = Springs(state)
    options = {"stride": 10, "options": {"temperature": [300.0, 400.0, 500.0]}}
    verdict = simulate(state, OneBad(springs), steps=60, folder=tmp_path / "one", sink=heard.append, **options)
    assert (verdict.outcome, verdict.replica, verdict.step, verdict.atoms) == ("failed", 1, 30, (4,))
    assert verdict.sentence.startswith("Replica 1 failed at step 30 (15 fs): no finite force on H4")
    assert state.n_systems == 2
    assert state.step == 60
    assert state.thermostat["temperature"].tolist() == [300.0, 500.0]
    final = {
        event.verdict.replica: event.verdict.outcome for event in heard if isinstance(event, Judged) and event.final
    }
    assert final == {0: "ok", 1: "failed", 2: "ok"}
    assert len(Series(tmp_path / "one/replica_001/series/md")) == 31
    assert (tmp_path / "one/replica_001/last_steps.traj").exists()
    # The others ran as if nothing had happened, also through a restart after the failure.
    simulate(ethanol_state(replicas=3), springs, steps=60, folder=tmp_path / "none", **options)
    simulate(ethanol_state(replicas=3), OneBad(springs), steps=40, folder=tmp_path / "two", **options)
    again = simulate(ethanol_state(replicas=3), OneBad(springs), steps=60, folder=tmp_path / "two", **options)
    assert again == verdict
    for replica in ("replica_000", "replica_002"):
        same_files(tmp_path / "none" / replica, tmp_path / "one" / replica)
        same_files(tmp_path / "none" / replica, tmp_path / "two" / replica)


def test_a_growing_trajectory_and_series_can_be_read(tmp_path):
    seen = []
    state = ethanol_state()

    def control():
        if state.step in (35, 71):
            seen.append(len(ase.io.read(tmp_path / "trajectory.traj", ":")))
            seen.append(len(Series(tmp_path / "series/md")))
        return "run"

    simulate(state, Springs(state), steps=80, folder=tmp_path, stride=10, control=control)
    assert seen[0] == 4
    assert seen[2] == 8
    assert seen[1] <= seen[3] <= 81


def test_memory_stays_flat(tmp_path):
    """After the first steps nothing grows: not Python's memory, not open files."""
    state = ethanol_state()
    sizes, files = {}, {}

    def control():
        if state.step in (600, 1600):
            gc.collect()
            sizes[state.step] = tracemalloc.get_traced_memory()[0]
            files[state.step] = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        return "run"

    tracemalloc.start()
    try:
        simulate(state, FreeGas(), steps=1601, folder=tmp_path, stride=5, control=control, checkpoint_every=200,
                 checks={**NO_CHECKS, "overlap": False})  # fmt: skip
    finally:
        tracemalloc.stop()
    # 200 more frames cost their offsets in the trajectory's table and nothing else.
    assert sizes[1600] - sizes[600] < 40_000
    assert files[1600] == files[600]


def test_bad_starts_are_refused_or_named(tmp_path):
    fixed = molecule("H2O")
    from ase.constraints import FixAtoms

    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(DataError, match="constraints are not supported: every atom would move; found FixAtoms"):
        state_from_atoms(fixed)
    flat = molecule("H2O")
    flat.pbc = True
    with pytest.raises(DataError, match="periodic axes without a cell"):
        state_from_atoms(flat)
    with pytest.raises(DataError, match="no atoms"):
        state_from_atoms(molecule("H2O")[:0])
    broken = molecule("H2O")
    broken.positions[1, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        state_from_atoms(broken)

    overlap = molecule("CH3CH2OH")
    overlap.positions[8] = overlap.positions[5] + [0.0, 0.3, 0.0]
    state = state_from_atoms(overlap)
    verdict = simulate(state, Harmonic(0.1), steps=100, folder=tmp_path)
    assert verdict.outcome == "failed"
    assert verdict.step == 0
    assert verdict.sentence.startswith("Cannot start from this structure: H5-H8 overlap: 0.3 Å, limit 0.5 Å")
    assert state.step == 0


def test_frames_of_a_simulation_are_training_data(tmp_path):
    from mlipkit.data import read

    state = ethanol_state()
    simulate(state, Springs(state), steps=20, folder=tmp_path, stride=10)
    frames = read(tmp_path / "trajectory.traj")
    assert isinstance(frames, FrameSet)
    assert len(frames) == 3
    assert frames.has("energy").all()
    np.testing.assert_allclose(frames.velocities[-9:], state.velocities.numpy(), rtol=1e-12)
    assert frames.time.tolist() == [0.0, 5.0, 10.0]


def test_emt_runs_through_a_calculator(tmp_path):
    state = state_from_atoms(bulk("Cu", cubic=True), seed=1)
    maxwell_boltzmann(state, 300.0, seed=2)
    verdict = simulate(state, CalculatorForces(EMT()), "bussi", steps=30, folder=tmp_path, timestep=2.0)
    assert verdict.outcome == "ok"


def test_a_provider_may_fill_the_same_memory_at_every_call(tmp_path):
    springs, out = Springs(ethanol_state()), torch.zeros(9, 3, dtype=torch.float64)

    def thrifty(state):
        answer = springs(state)
        return Forces(answer.energy, out.copy_(answer.forces))

    def breaks(state):
        if state.step == 12:
            raise ValueError("broken")
        return thrifty(state)

    with pytest.raises(ValueError, match="broken"):
        simulate(ethanol_state(), breaks, "nve", steps=50, folder=tmp_path, checks=NO_CHECKS)
    frames = ase.io.read(tmp_path / "last_steps.traj", ":")
    assert len(frames) == 12
    for frame in frames:
        state = state_from_atoms(frame)
        np.testing.assert_allclose(frame.get_forces(), springs(state).forces.numpy(), atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("replicas", [1, 2])
def test_an_explosion_that_overflows_the_thermostat_is_a_failure_and_no_error(tmp_path, replicas):
    def explodes(state):
        forces = torch.zeros_like(state.positions)
        forces[0, 0] = 1e6 if state.step >= 5 else 0.0
        return Forces(torch.zeros_like(state.energy), forces)

    state = ethanol_state(replicas=replicas)
    verdict = simulate(state, explodes, "nose_hoover", steps=20, timestep=1.0, folder=tmp_path, checks=NO_CHECKS)
    assert (verdict.outcome, verdict.check, verdict.step) == ("failed", "finite", 5)
