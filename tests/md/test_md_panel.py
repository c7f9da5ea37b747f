"""Screening all replicas at once says what looking at each of them says, and remembers the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from md_systems import Springs, ethanol_state

from mlipkit.events import Judged
from mlipkit.md import CHECKS, build_checks, simulate, state_from_atoms
from mlipkit.md.figures import COLUMNS
from mlipkit.md.judging import Judge
from mlipkit.md.looks import Looks, new_look
from mlipkit.md.panel import Panel
from mlipkit.md.recorder import Recorder
from mlipkit.md.ring import Ring


def start_state():
    crystal = bulk("Si", "diamond", a=5.43, cubic=True)
    gas = Atoms("Ar3", positions=[[0, 0, 0], [6, 0, 0], [0, 6, 0]], cell=[12, 12, 12], pbc=True)
    images = [molecule("CH3CH2OH"), crystal, molecule("H2O"), gas, molecule("CH3CH2OH")]
    state = state_from_atoms(images)
    state.thermostat = {"temperature": torch.tensor([300.0, 600.0, 300.0, 100.0, 900.0], dtype=torch.float64)}
    return state


def path(state, n_steps, seed):
    """Rows, arrays and cells of a made-up simulation in which one thing after the other goes wrong."""
    rng = np.random.default_rng(seed)
    base, cell = state.positions.numpy(), state.cell.numpy()
    system = state.system.numpy()
    walk = np.zeros_like(base)
    heat = np.ones(state.n_systems)
    energy = np.zeros(state.n_systems)
    for step in range(n_steps):
        walk += 0.012 * rng.standard_normal(base.shape) * (system != 3)[:, None]
        heat *= np.exp(0.03 * rng.standard_normal(state.n_systems) + 0.004)
        energy += 0.02 * rng.standard_normal(state.n_systems) * rng.integers(0, 2, state.n_systems)
        rows = np.zeros((state.n_systems, len(COLUMNS)))
        rows[:, 0], rows[:, 1] = step, 2.0 * step
        rows[:, 2] = state.thermostat["temperature"].numpy() * heat * rng.uniform(0.7, 1.3, state.n_systems)
        rows[:, 3], rows[:, 6], rows[:, 7] = energy, energy, rng.gamma(2.0, 3.0, state.n_systems)
        if step > 150 and rng.random() < 0.01:
            rows[rng.integers(state.n_systems), rng.choice([2, 3, 7])] = np.nan
        arrays = np.stack([base + walk, rng.standard_normal(base.shape) * 0.01, np.zeros_like(base)])
        yield rows, arrays, cell * (1 + 0.001 * step)


LIMITS = [
    {},
    {"temperature": {"warn": 1.5, "fail": 2.0, "during": 20.0}, "max_force": {"every": 3}},
    {"broken_bonds": {"fail": None, "warn": 1.6}, "lone_atoms": {"fail": 300}, "overlap": 0.4, "density": False},
    {"finite": False, "max_force": False, "energy_drift": {"window": 40.0, "fail": 0.02}, "overlap": False},
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("seed", range(4))
def test_panel_says_what_single_judges_say(limits, seed):
    state = start_state()
    replicas = list(range(state.n_systems))
    panel = Panel([Judge(build_checks(limits), r) for r in replicas], Looks([new_look(state, r) for r in replicas]))
    singles = [Judge(build_checks(limits), r) for r in replicas]
    looks = Looks([new_look(state, r) for r in replicas])
    ended, heard = set(), 0
    for rows, arrays, cells in path(state, 400, seed):
        step = int(rows[0, 0])
        stored = step % 7 == 0
        looks.fill(rows, lambda now=(arrays, cells): now)
        if step == 0:
            panel.looks.fill(rows, lambda now=(arrays, cells): now)
            said = panel.begin()
            expected = {r: singles[r].begin(looks.close(r)) for r in replicas}
        else:
            said = panel.look(rows, lambda now=(arrays, cells): now, stored, ended)
            expected = {r: singles[r].look(looks.close(r), stored) for r in replicas if r not in ended}
        assert {r: v for r, v in said.items() if v} == {r: v for r, v in expected.items() if v}
        heard += sum(map(len, expected.values()))
        ended |= {r for r in replicas if singles[r].failed}
        for r in set(replicas) - ended:
            (record, memory), (other, wanted) = copy.deepcopy(panel.judges[r]).memory(), singles[r].memory()
            assert record == other
            for name, values in wanted.items():
                np.testing.assert_array_equal(memory[name], values, err_msg=name)
    assert heard > 2


def test_looks_at_all_see_atoms_on_one_point():
    state = start_state()
    looks = Looks([new_look(state, r) for r in range(state.n_systems)])
    (rows, (positions, velocities, forces), cells) = next(iter(path(state, 1, 0)))
    positions = positions.copy()
    positions[1] = positions[0]
    looks.fill(rows, lambda: (np.stack([positions, velocities, forces]), cells))
    edges, distances, _ = looks.pairs()
    assert edges.T[distances == 0].tolist() == [[1, 0], [0, 1]]


def test_the_path_of_this_test_makes_most_checks_speak():
    spoken = set()
    for seed in range(4):
        for limits in LIMITS:
            state = start_state()
            looks = Looks([new_look(state, r) for r in range(state.n_systems)])
            judges = [Judge(build_checks(limits)) for _ in range(state.n_systems)]
            for rows, arrays, cells in path(state, 400, seed):
                looks.fill(rows, lambda now=(arrays, cells): now)
                for r, judge in enumerate(judges):
                    if not judge.failed:
                        close = looks.close(r)
                        spoken |= {v.check for v in (judge.look(close, True) if rows[0, 0] else judge.begin(close))}
    assert spoken == set(CHECKS)


@pytest.mark.parametrize("every", [1, 10])
def test_figures_read_late_change_nothing_but_when_it_is_said(tmp_path, monkeypatch, every):
    """A GPU does some steps before the host looks: a failure is dated, recorded and cut off right all the same."""
    start = ethanol_state(replicas=3)
    springs = Springs(start)

    class OneBad:
        def __call__(self, state):
            forces = springs(state)
            if state.step >= 33 and state.n_systems == 3:
                forces.forces[9 + 4] = torch.nan
            return forces

    monkeypatch.setattr(Recorder, "__init__", _late(Recorder.__init__, every))
    heard = []
    state = start.select([0, 1, 2])
    verdict = simulate(state, OneBad(), steps=64, folder=tmp_path, stride=8, sink=heard.append,
                       options={"temperature": 300.0})  # fmt: skip
    assert (verdict.step, verdict.replica, verdict.atoms, verdict.last_good) == (33, 1, (4,), 32)
    from ase.io import read

    from mlipkit.data import Series

    assert len(Series(tmp_path / "replica_001/series/md")) == 34
    assert [a.info["step"] for a in read(tmp_path / "replica_001/trajectory.traj", ":")] == [0, 8, 16, 24, 32]
    assert [a.info["step"] for a in read(tmp_path / "replica_001/last_steps.traj", ":")] == list(range(34))
    for replica in ("replica_000", "replica_002"):
        assert len(Series(tmp_path / replica / "series/md")) == 65
        assert len(read(tmp_path / replica / "trajectory.traj", ":")) == 9
    final = {e.verdict.replica: e.verdict.outcome for e in heard if isinstance(e, Judged) and e.final}
    assert final == {0: "ok", 1: "failed", 2: "ok"}


def _late(init, every):
    def make(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.every = every

    return make


def test_ring_of_several_replicas_gives_each_its_own(tmp_path):
    ring = Ring(5, ("step", "time_fs", "potential_energy"), size=4, n_systems=2)
    for k in range(6):
        x = np.full((5, 3), float(k))
        x[2:] += 100
        rows = np.array([[k, 0.5 * k, -k], [k, 0.5 * k, -10.0 * k]])
        ring.append(rows, x, x, x, np.zeros((2, 3, 3)))
    mine = ring.memory(1, slice(2, 5))
    assert mine["arrays"].shape == (4, 3, 3, 3)
    assert mine["arrays"][:, 0, 0, 0].tolist() == [102, 103, 104, 105]
    assert mine["rows"][:, 2].tolist() == [-20, -30, -40, -50]
    again = Ring(5, ring.columns, size=4, n_systems=2)
    again.recall(ring.memory(0, slice(0, 2)), mine)
    ring.select([1], torch.arange(2, 5))
    assert ring.rows(2)[:, 0, 0].tolist() == [4, 5]
    assert again.arrays(1)[0][0, 4, 0] == 104
    again.write(tmp_path / "last.traj", np.ones(3, int), np.ones(3), np.zeros(3, bool), 1, slice(2, 5), skip=2)
    from ase.io import read

    assert [a.positions[0, 0] for a in read(tmp_path / "last.traj", ":")] == [102, 103]
