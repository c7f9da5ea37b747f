import dataclasses

import numpy as np
import pytest
import torch
from emt_sets import clusters, crystals, make_potential

from mlipkit.data import NeighbourCache, collate
from mlipkit.models import Prediction
from mlipkit.training.objective import EnergyForcesStress, StepState, penalty

ALL = {"energy": 1.0, "forces": 3.0, "stress": 50.0}


def batch(frames, potential, indices=None):
    indices = range(len(frames)) if indices is None else indices
    return collate(frames, list(indices), NeighbourCache(frames, potential.cutoff), potential.dtype)


def loss_of(term, potential, graph, targets, **state):
    needs = term.needs
    prediction = potential(graph, forces="forces" in needs, stress="stress" in needs, create_graph=True)
    return term(StepState(potential, **state), graph, targets, prediction)


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
@pytest.mark.parametrize("energy_unit", ["per_atom", "total"])
def test_gradient_equals_finite_differences(loss, energy_unit):
    frames = crystals(2, seed=0)
    potential = make_potential(frames).double()
    graph, targets = batch(frames, potential)
    term = EnergyForcesStress(ALL, loss, energy_unit, huber_delta=0.3)
    value, _ = loss_of(term, potential, graph, targets)
    value.backward()
    rng, h, checked = np.random.default_rng(0), 1e-5, 0
    for name, parameter in potential.named_parameters():
        if parameter.grad is None:
            continue
        # The largest entry and a random one: most rows of the embedding have none.
        for at in {int(parameter.grad.abs().argmax()), int(rng.integers(parameter.numel()))}:
            flat, sides = parameter.data.view(-1), []
            for sign in (1, -1):
                flat[at] += sign * h
                sides.append(float(loss_of(term, potential, graph, targets)[0].detach()))
                flat[at] -= sign * h
            slope = (sides[0] - sides[1]) / (2 * h)
            exact = float(parameter.grad.view(-1)[at])
            assert slope == pytest.approx(exact, rel=2e-5, abs=2e-7), name
            checked += abs(exact) > 1e-4
    assert checked > 10


def test_penalties_by_hand():
    r = torch.tensor([-3.0, 0.5, 0.0])
    assert penalty(r, "l1", 1.0).tolist() == [3.0, 0.5, 0.0]
    assert penalty(r, "l2", 1.0).tolist() == [9.0, 0.25, 0.0]
    assert penalty(r, "huber", 1.0).tolist() == [2.5, 0.125, 0.0]


def by_hand():
    """Two structures of one and two atoms with round errors: energies +2 and -1 eV, forces 1 and 0 eV/Å."""
    frames = clusters(3, seed=0, sizes=(1, 2)).select([0, 1])
    potential = make_potential(frames).double()
    graph, targets = batch(frames, potential)
    forces = targets.forces.clone()
    forces[0] += 1.0
    prediction = Prediction(targets.energy + torch.tensor([2.0, -1.0]), forces, None, None, targets.energy)
    return potential, graph, targets, prediction


def test_means_and_units_by_hand():
    potential, graph, targets, prediction = by_hand()
    weights = {"energy": 10.0, "forces": 1.0}
    loss, figures = EnergyForcesStress(weights, "l2")(StepState(potential), graph, targets, prediction)
    # Per atom: errors 2 and -0.5; three of nine force components are off by one.
    assert float(loss) == pytest.approx(10 * (4 + 0.25) / 2 + 3 / 9)
    assert float(figures["energy_mae"]) == pytest.approx(1.25)
    assert float(figures["forces_mae"]) == pytest.approx(1 / 3)
    total, figures = EnergyForcesStress(weights, "l1", "total")(StepState(potential), graph, targets, prediction)
    assert float(total) == pytest.approx(10 * 1.5 + 1 / 3)
    assert float(figures["energy_mae"]) == pytest.approx(1.25)


def test_missing_labels_do_not_enter_and_do_not_poison():
    frames = clusters(4, seed=3, sizes=(5, 4))
    energy, forces = frames.energy.copy(), frames.forces.copy()
    energy[1] = np.nan
    forces[: frames.n_atoms[0]] = np.nan
    partly = frames.with_labels(energy=energy, forces=forces)
    potential = make_potential(frames).double()
    term = EnergyForcesStress({"energy": 1.0, "forces": 1.0}, "l1")
    graph, targets = batch(partly, potential)
    value, _ = loss_of(term, potential, graph, targets)
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in potential.parameters() if p.grad is not None)
    full, complete = batch(frames, potential)
    prediction = potential(full)
    energy_error = ((prediction.energy - complete.energy) / full.n_atoms).abs()[[0, 2, 3]].mean()
    force_error = (prediction.forces - complete.forces).abs()[int(frames.n_atoms[0]) :].mean()
    assert float(value.detach()) == pytest.approx(float(energy_error + force_error))


def test_a_batch_without_any_label_has_loss_zero_and_no_figure():
    frames = clusters(2, seed=3)
    potential = make_potential(frames)
    bare = frames.with_labels(forces=np.nan)
    graph, targets = batch(bare, potential)
    loss, figures = loss_of(EnergyForcesStress({"forces": 1.0}), potential, graph, targets)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert np.isnan(float(figures["forces_mae"]))
    assert all(torch.isfinite(p.grad).all() for p in potential.parameters() if p.grad is not None)


def test_stress_of_open_structures_is_left_out():
    frames = crystals(2, seed=0)
    potential = make_potential(frames).double()
    graph, targets = batch(frames, potential)
    term = EnergyForcesStress({"stress": 1.0}, "l1")
    pbc = graph.pbc.clone()
    pbc[0, 2] = False
    slab = dataclasses.replace(graph, pbc=pbc)
    value, _ = loss_of(term, potential, slab, targets)
    prediction = potential(graph, stress=True)
    assert float(value.detach()) == pytest.approx(float((prediction.stress - targets.stress)[1].abs().mean()))
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in potential.parameters() if p.grad is not None)


def test_unequal_pieces_with_common_counts_add_up_to_the_whole():
    """What several processes do: sums of local parts over global counts, gradients added."""
    frames = clusters(6, seed=4, sizes=(5, 3))
    energy = frames.energy.copy()
    energy[[0, 4]] = np.nan
    frames = frames.with_labels(energy=energy)
    potential = make_potential(frames).double()
    term = EnergyForcesStress({"energy": 1.0, "forces": 1.0}, "l2")
    graph, targets = batch(frames, potential)
    whole, _ = loss_of(term, potential, graph, targets)
    wanted = torch.autograd.grad(whole, list(potential.encoder.parameters()), allow_unused=True)
    counts = torch.tensor([4, int(frames.n_atoms.sum()) * 3])
    parts, gradients = 0.0, [0.0] * len(wanted)
    for piece in ([0, 1, 2, 3], [4, 5]):
        graph, targets = batch(frames, potential, piece)
        part, _ = loss_of(term, potential, graph, targets, total=lambda _: counts)
        parts += float(part.detach())
        found = torch.autograd.grad(part, list(potential.encoder.parameters()), allow_unused=True)
        gradients = [g + (0 if f is None else f) for g, f in zip(gradients, found, strict=True)]
    assert parts == pytest.approx(float(whole.detach()))
    for found, exact in zip(gradients, wanted, strict=True):
        if exact is not None:
            torch.testing.assert_close(found, exact)


def test_random_numbers_of_a_step_depend_on_seed_purpose_step_and_process_alone():
    potential = make_potential(clusters(2, seed=0))

    def draw(purpose="noise", **state):
        return torch.rand(3, generator=StepState(potential, **state).generator(purpose)).tolist()

    same = draw(step=4, seed=1)
    assert draw(step=4, seed=1, epoch=9) == same
    others = [draw(step=5, seed=1), draw(step=4, seed=2), draw("mask", step=4, seed=1), draw(step=4, seed=1, rank=1)]
    assert all(other != same for other in others)
