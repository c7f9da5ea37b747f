"""More replicas than go together: same results, one folder, one progress, stop and go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.io import read
from md_systems import Harmonic, ethanol_state
from test_md_simulation import same_files, tiny_potential

from mlipkit.data import graph_of
from mlipkit.errors import DataError, RunError
from mlipkit.events import Judged, Progress, Started, time_to_failure
from mlipkit.md import (
    CalculatorForces,
    PotentialForces,
    endings,
    maxwell_boltzmann,
    memory,
    relax,
    simulate,
    simulate_batches,
    state_from_atoms,
)
from mlipkit.md.memory import BACKWARD, batches_of, bytes_of_replicas, plan_batches

KELVIN = [200.0, 300.0, 400.0, 500.0, 600.0]
QUIET = {"checks": dict.fromkeys(("broken_bonds", "lone_atoms", "overlap", "energy_drift"), False)}


def start():
    state = state_from_atoms([molecule("CH3CH2OH"), molecule("H2O")] * 2 + [molecule("CO")], seed=[3, 1, 4, 1, 5])
    maxwell_boltzmann(state, KELVIN, seed=[9, 2, 6, 5, 3])
    return state


def test_batches_give_what_all_at_once_give(tmp_path):
    """Also the targets of each: a replica does not know with whom it goes."""
    options = {"options": {"temperature": KELVIN}, "stride": 10, **QUIET}
    together = simulate_batches(start(), Harmonic(0.01), steps=50, folder=tmp_path / "one", **options)
    heard = []
    apart = simulate_batches(
        start(), Harmonic(0.01), steps=50, folder=tmp_path / "two", batch=2, sink=heard.append, **options
    )
    assert together == apart
    assert [one.replica for one in apart] == [0, 1, 2, 3, 4]
    assert {(one.step, one.time, one.failed) for one in apart} == {(50, 25.0, False)}
    for replica in range(5):
        name = f"replica_{replica:03d}"
        one, two = (read(tmp_path / folder / name / "trajectory.traj", ":") for folder in ("one", "two"))
        assert len(one) == len(two) == 6
        # Sums over one replica and over several round differently; nothing else does.
        np.testing.assert_allclose(one[-1].positions, two[-1].positions, rtol=0, atol=1e-12)
        assert one[-1].info == two[-1].info
    done = [event.done for event in heard if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] == 50
    assert {event.total for event in heard if isinstance(event, Progress)} == {50}
    assert [event.resumed_at for event in heard if isinstance(event, Started)] == [0, 16, 33]
    assert sorted(e.verdict.replica for e in heard if isinstance(e, Judged) and e.final) == [0, 1, 2, 3, 4]


def test_a_replica_alone_is_bit_for_bit_the_same_in_any_company(tmp_path):
    """As long as the batch has several: with one the sums take another way."""
    options = {"options": {"temperature": KELVIN}, "stride": 10, **QUIET}
    simulate_batches(start(), Harmonic(0.01), steps=30, folder=tmp_path / "two", batch=2, **options)
    simulate_batches(start(), Harmonic(0.01), steps=30, folder=tmp_path / "three", batch=3, **options)
    for replica in range(4):
        same_files(tmp_path / f"two/replica_{replica:03d}", tmp_path / f"three/replica_{replica:03d}")


def test_stopped_in_the_second_batch_and_gone_on(tmp_path):
    calls = []

    def control():
        calls.append(1)
        return "stop" if len(calls) > 60 else "run"

    options = {"options": {"temperature": KELVIN}, "stride": 10, "batch": 2, **QUIET}
    found = simulate_batches(start(), Harmonic(0.01), steps=40, folder=tmp_path / "halves", control=control, **options)
    assert [(one.replica, one.step) for one in found] == [(0, 40), (1, 40), (2, 20), (3, 20)]
    # What goes together was decided at the start, whatever is asked now.
    again = simulate_batches(start(), Harmonic(0.01), steps=40, folder=tmp_path / "halves", **{**options, "batch": 5})
    simulate_batches(start(), Harmonic(0.01), steps=40, folder=tmp_path / "whole", **options)
    assert [one.step for one in again] == [40] * 5
    for replica in range(5):
        same_files(tmp_path / f"whole/replica_{replica:03d}", tmp_path / f"halves/replica_{replica:03d}")
    few = start().select([0, 1])
    with pytest.raises(RunError, match="another number of replicas; expected 2; found 5"):
        simulate_batches(few, Harmonic(0.01), steps=40, folder=tmp_path / "halves", **QUIET)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"options": {"temperature": KELVIN[:4]}}, "options: temperature: one value .* expected 5; found 4"),
        ({"options": {"friction": np.full(6, 0.01)}}, "friction: one value .* expected 5; found 6"),
        ({"batch": 0}, "batch: a batch needs a replica; expected 1 or more; found 0"),
        ({"stride": 0}, "stride: .* expected 1 or more steps; found 0"),
        (
            {"options": {"temperature": [300.0, 300.0, 300.0, 300.0, -1.0]}, "batch": 5},
            "langevin: temperature below zero",
        ),
        ({"options": {"temperature": float("nan")}}, "langevin: temperature .* not finite"),
        ({"options": {"friction": -0.01}}, "langevin: friction below zero"),
        ({"options": {"friction": float("inf")}}, "langevin: friction .* not finite"),
    ],
)
def test_wrong_options_are_refused(tmp_path, more, message):
    with pytest.raises(DataError, match=message):
        simulate_batches(start(), Harmonic(0.01), steps=3, folder=tmp_path, **{"batch": 2, **QUIET, **more})


def test_a_list_of_one_and_an_array_are_options_of_batches(tmp_path):
    options = {"temperature": np.array(KELVIN), "friction": [0.02]}
    ends = simulate_batches(start(), Harmonic(0.01), steps=3, folder=tmp_path, batch=2, options=options, **QUIET)
    assert [one.step for one in ends] == [3] * 5


class Scaled(LennardJones):
    """Another potential for each replica: the energy tells whose it was."""

    def __init__(self, depth):
        super().__init__(epsilon=depth, sigma=1.0, rc=20.0)


@pytest.mark.parametrize("batch", [1, 2])
def test_each_replica_keeps_its_calculator_in_any_batch(tmp_path, batch):
    state = state_from_atoms(Atoms("Ar2", [[0, 0, 0], [0, 0, 1.3]]), replicas=3)
    depths = [0.1, 0.2, 0.4]

    def energies(folder, work, **options):
        forces = CalculatorForces([Scaled(depth) for depth in depths])
        work(state.select(range(3)), forces, folder=tmp_path / folder, steps=4, **options)
        paths = [tmp_path / folder / f"replica_{r:03d}/trajectory.traj" for r in range(3)]
        return [read(path, "0").get_potential_energy() for path in paths]

    md = {"ensemble": "nve", "checks": {"overlap": False}}
    for name, work, options in (("md", simulate_batches, md), ("relax", relax, {})):
        together = energies(f"{name}_one", work, **options)
        assert together[2] == pytest.approx(4 * together[0]) != 0
        assert energies(f"{name}_parts", work, batch=batch, **options) == together
    with pytest.raises(DataError, match="one for each; expected 3; found 2"):
        relax(state, CalculatorForces([Scaled(0.1), Scaled(0.2)]), folder=tmp_path / "two", batch=batch)


def test_time_to_failure_is_censored_where_they_survive(tmp_path):
    state = ethanol_state(replicas=3)
    good = Harmonic(0.01)

    def bomb(state):
        forces = good(state)
        if state.step == 12:
            forces.forces[7] = torch.nan
        return forces

    found = simulate_batches(state, bomb, steps=30, folder=tmp_path, batch=2, options={"temperature": 300.0}, **QUIET)
    assert found == endings(tmp_path)
    times, failed, reasons = time_to_failure(found)
    # Atom 7 of each batch is one of its first replica.
    assert times == [6.0, 15.0, 6.0]
    assert failed == [True, False, True]
    assert reasons == ["finite", "", "finite"]


def test_one_replica_has_the_folder_and_endings_of_always(tmp_path):
    simulate(ethanol_state(), Harmonic(0.01), steps=7, folder=tmp_path, **QUIET)
    (one,) = endings(tmp_path)
    assert (one.replica, one.step, one.failed) == (0, 7, False)


def test_memory_is_measured_and_shared_out():
    potential = tiny_potential(torch.float64, cutoff=4.0, numbers=(1, 6, 8))
    state = state_from_atoms([molecule("H2O"), bulk("C", "diamond", a=3.6, cubic=True), molecule("CH3CH2OH")])
    sizes = bytes_of_replicas(state, PotentialForces(potential))
    assert sizes is not None
    graph = graph_of(state.atoms(1), 4.5)
    # At the very least the edge vectors and the radial functions of all pairs are kept.
    assert sizes[1] > BACKWARD * graph.edge_index.shape[1] * (3 + 6) * 8
    assert sizes[0] < 0.5 * sizes[1]
    twice = bytes_of_replicas(state_from_atoms([bulk("C", "diamond", a=3.6, cubic=True) * (2, 1, 1)]),
                              PotentialForces(potential))  # fmt: skip
    assert twice is not None
    # Less than twice: a part does not depend on the structure, which makes estimates of many replicas careful.
    assert 1.2 * sizes[1] < twice[0] < 2.05 * sizes[1]
    assert plan_batches([3, 3, 3, 9, 1, 20, 1], 7, 9) == [[0, 1], [2], [3], [4], [5], [6]]
    assert plan_batches([1, 1], 10, 9) == [[0, 1]]
    assert plan_batches([1, 1, 1], 10, 2) == [[0, 1], [2]]
    assert batches_of(state, Harmonic(0.01)) == [[0, 1, 2]]
    assert batches_of(state, PotentialForces(potential), 2) == [[0, 1], [2]]
    assert batches_of(state, PotentialForces(potential)) == [[0, 1, 2]]


def test_no_more_replicas_together_than_files_may_be_open(monkeypatch):
    resource = pytest.importorskip("resource")
    limits = {"now": (256, 512)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert memory.most_replicas() == (512 - memory.OTHER_FILES) // memory.FILES_EACH
    assert limits["now"] == (512, 512)

    def refuses(*_):
        raise ValueError("not allowed")

    limits["now"] = (256, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "setrlimit", refuses)
    assert memory.most_replicas() == (256 - memory.OTHER_FILES) // memory.FILES_EACH
