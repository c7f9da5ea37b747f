"""Adaptation at test time: what moves, what does not, and that all of it is put back."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from taip_toys import SMALL, batch, ethanol, toy

from mlipkit.data import FrameSet, fit_atomic_energies, samples
from mlipkit.errors import DataError, ModelError, SpecError
from mlipkit.models import Potential, build_encoder, load, predict, save
from mlipkit.strategies.taip import (
    TASKS,
    Adapter,
    AdaptSettings,
    SelfSupervised,
    TaipOptions,
    attach,
    loss_threshold,
    predict_adapted,
)
from mlipkit.strategies.taip.adapt import EPSILON
from mlipkit.strategies.taip.stacked import Stacked, stackable
from mlipkit.training import EnergyForcesStress, TrainSettings, train

RATE = 1e-3


def state(potential) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in potential.state_dict().items()}


def same(potential, before) -> bool:
    """To the bit, NaN included."""
    return all(
        np.array_equal(value.numpy().view(np.uint8), before[name].numpy().view(np.uint8))
        if value.ndim
        else torch.equal(value, before[name])
        for name, value in potential.state_dict().items()
    )


def flags(potential):
    return [(p.requires_grad, p.data_ptr()) for p in potential.parameters()]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("optimiser", ["sgd", "adam_fresh", "adam_kept"])
def test_all_weights_are_put_back_bit_for_bit_in_place(name, optimiser, monkeypatch):
    potential = toy(name).float()
    potential.auxiliary["taip_types"].requires_grad_(False)
    graph, _ = batch(potential, ethanol(1))
    before, stood = state(potential), flags(potential)
    adapter = Adapter(potential, AdaptSettings(RATE, optimiser))
    plain = potential(graph)
    found, _ = adapter.predict(graph, [7])
    assert not torch.equal(found.forces, plain.forces)
    assert same(potential, before)
    assert flags(potential) == stood
    assert torch.equal(potential(graph).forces, plain.forces)

    def fails(*args, **more):
        raise RuntimeError("in the middle of a prediction")

    for where in ("evaluate", "encode"):
        with monkeypatch.context() as patch:
            patch.setattr(type(potential), where, fails)
            with pytest.raises(RuntimeError, match="middle"):
                adapter.predict(graph, [7])
        assert same(potential, before)
    assert flags(potential) == stood
    assert potential.training


@pytest.mark.parametrize(("n", "optimiser"), [(1, "sgd"), (1, "adam_fresh"), (1, "adam_kept"), (3, "adam_fresh")])
def test_a_step_of_zero_is_the_plain_prediction_to_the_bit(n, optimiser):
    potential = toy("painn").float()
    graph, _ = batch(potential, ethanol(n))
    adapter, plain = Adapter(potential, AdaptSettings(0.0, optimiser)), potential(graph, features=True)
    found, seen = adapter.predict(graph, [0], features=True) if n == 1 else adapter.predict_each(graph, range(n))
    for name in ("forces", "energy", "features"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name
    assert (seen.gradient > 0).all()
    assert (seen.change == 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_only_the_encoder_moves_and_not_its_row_of_hidden_types(name):
    potential = toy(name)
    graph, _ = batch(potential, ethanol(1))
    before = state(potential)
    Adapter(potential, AdaptSettings(RATE)).move(graph, [0])
    moved = {
        key
        for key, value in potential.state_dict().items()
        if not torch.equal(value.nan_to_num(), before[key].nan_to_num())
    }
    assert moved
    assert all(key.startswith("encoder.") for key in moved)
    for key in ("encoder.embedding.weight", "encoder.neighbour_embedding.weight"):
        if key in before and name != "egnn":
            assert torch.equal(potential.state_dict()[key][0], before[key][0])
            assert not torch.equal(potential.state_dict()[key][[1, 6, 8]], before[key][[1, 6, 8]])


def test_a_new_adam_moves_against_the_gradient_by_the_rate():
    adapter = Adapter(toy("painn"), AdaptSettings(RATE))
    graph, _ = batch(adapter.potential, ethanol(1))
    slopes, _ = adapter.gradient(graph, [5])
    steps = adapter.step(slopes, 5)
    fresh = [torch.zeros_like(g).requires_grad_() for g in slopes]
    optimiser = torch.optim.Adam(fresh, lr=RATE, eps=EPSILON)
    for one, slope in zip(fresh, slopes, strict=True):
        one.grad = slope
    optimiser.step()
    for step, slope, one in zip(steps, slopes, fresh, strict=True):
        assert step.abs().max() <= RATE * (1 + 1e-3)
        assert torch.equal(step.sign(), -slope.sign())
        assert torch.allclose(step, one.detach(), rtol=1e-6, atol=1e-12)
    plain = Adapter(adapter.potential, AdaptSettings(RATE, "sgd"))
    assert all(torch.allclose(a, -RATE * b) for a, b in zip(plain.step(slopes, 5), slopes, strict=True))


def test_kept_moments_are_those_of_one_adam():
    potential = toy("schnet")
    adapter = Adapter(potential, AdaptSettings(RATE, "adam_kept"))
    weights = [torch.zeros_like(p).requires_grad_() for p in adapter.parameters]
    optimiser = torch.optim.Adam(weights, lr=RATE, eps=EPSILON)
    for index in range(3):
        slopes, _ = adapter.gradient(batch(potential, ethanol(3), [index])[0], [index])
        before = [w.detach().clone() for w in weights]
        for one, slope in zip(weights, slopes, strict=True):
            one.grad = slope.clone()
        optimiser.step()
        for step, new, old in zip(adapter.step(slopes, index), weights, before, strict=True):
            assert torch.allclose(step, (new - old).detach(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SMALL)
def test_all_at_once_is_one_after_the_other(name, dtype):
    """In float32 a gradient near zero may round to either sign, which a new Adam turns into a step of full length."""
    frames, rate = ethanol(5), RATE if dtype == torch.float64 else 1e-5
    for direction in ("gradient", "random"):
        potential = toy(name).to(dtype)
        before = state(potential)
        adapter = Adapter(potential, AdaptSettings(rate, direction=direction))
        graph, _ = batch(potential, frames)
        assert stackable(graph, potential)
        together, found = adapter.predict_each(graph, [11, 12, 13, 14, 15])
        assert same(potential, before)
        for index in range(5):
            one, seen = adapter.predict(batch(potential, frames, [index])[0], [11 + index])
            rows = slice(9 * index, 9 * index + 9)
            assert torch.allclose(together.forces[rows], one.forces, rtol=0, atol=1e-5)
            assert together.energy[index].item() == pytest.approx(one.energy.item(), abs=1e-5)
            assert found.total[index].item() == pytest.approx(seen.total.item(), rel=1e-4)
            assert found.change[index].item() == pytest.approx(seen.change.item(), rel=1e-4)
            assert found.gradient[index].item() == pytest.approx(seen.gradient.item(), rel=1e-4)
        assert (together.forces - potential(graph).forces).abs().max() > rate


def test_moments_that_are_kept_go_one_at_a_time():
    potential = toy()
    with pytest.raises(SpecError, match="one at a time"):
        Adapter(potential, AdaptSettings(optimiser="adam_kept")).predict_each(batch(potential, ethanol())[0], range(4))


def test_the_random_step_is_as_long_and_elsewhere():
    potential = toy("painn")
    graph, _ = batch(potential, ethanol(1))
    plain, random = (Adapter(potential, AdaptSettings(RATE, direction=d)) for d in ("gradient", "random"))
    slopes, _ = plain.gradient(graph, [4])
    one, other = plain.step(slopes, 4), random.step(slopes, 4)
    assert all(torch.equal(a.abs(), b.abs()) for a, b in zip(one, other, strict=True))
    along = sum((a * b).sum() for a, b in zip(one, other, strict=True)) / sum((a * a).sum() for a in one)
    assert abs(float(along)) < 0.1
    assert all(torch.equal(a, b) for a, b in zip(other, random.step(slopes, 4), strict=True))


@pytest.mark.parametrize("name", ["schnet", "egnn"])
def test_the_same_seed_gives_the_same_and_order_does_not_matter(name):
    potential, frames = toy(name).float(), ethanol(6)
    settings = AdaptSettings(RATE, seed=3)
    one = predict_adapted(potential, frames, settings)
    again = predict_adapted(potential, frames, settings)
    assert np.array_equal(one.frames.forces, again.frames.forces)
    order = [4, 0, 5, 2, 1, 3]
    turned = predict_adapted(potential, frames.select(order), settings)
    assert np.allclose(turned.frames.energy, np.asarray(one.frames.energy)[order], atol=1e-5)
    assert np.allclose(turned.change, one.change[order], rtol=1e-5)
    few = predict_adapted(potential, frames.select([2]), settings)
    assert np.allclose(few.frames.forces, np.asarray(one.frames.forces)[18:27], atol=1e-5)
    other = predict_adapted(potential, frames, AdaptSettings(RATE, seed=4))
    assert not np.allclose(other.frames.forces, one.frames.forces, atol=1e-4)
    assert one.features.shape == (6 * 9, 16)
    assert set(one.by_task) == {"noise", "types", "pseudo_forces"}


def test_frames_of_many_sizes_and_cells():
    potential = toy("schnet").float()
    water = samples.load("water_liquid").select([0])
    assert predict_adapted(potential, water, AdaptSettings(RATE)).change[0] > 0
    small = ethanol(2)
    found = predict_adapted(potential, type(small).concat([small, water]), AdaptSettings(RATE))
    assert np.allclose(found.frames.energy[:2], predict_adapted(potential, small, AdaptSettings(RATE)).frames.energy)


def test_a_shared_step_depends_on_who_shares_it():
    potential, frames = toy("schnet").float(), ethanol(4)
    each = predict_adapted(potential, frames, AdaptSettings(RATE))
    pairs = predict_adapted(potential, frames, AdaptSettings(RATE, together=2))
    other = predict_adapted(potential, frames.select([0, 2, 1, 3]), AdaptSettings(RATE, together=2))
    assert not np.allclose(pairs.frames.energy, each.frames.energy, atol=1e-5)
    assert not np.allclose(pairs.frames.energy[0], other.frames.energy[0], atol=1e-5)
    assert pairs.change[0] == pairs.change[1]


def test_nothing_moves_without_a_step():
    potential, frames = toy("painn").float(), ethanol(3)
    still = predict_adapted(potential, frames, AdaptSettings(0.0))
    plain = predict(potential, frames)
    assert np.array_equal(still.frames.forces, plain.forces)
    assert (still.change == 0).all()


def test_forces_are_slopes_at_held_weights():
    """θ' depends on the positions too; the force is that of the energy at fixed θ'."""
    potential = toy("painn")
    graph, _ = batch(potential, ethanol(1))
    adapter, h = Adapter(potential, AdaptSettings(RATE)), 1e-4
    with adapter.adapted(graph, [1]):
        forces = potential(graph).forces
        for atom, axis in ((0, 0), (4, 2)):
            sides = []
            for sign in (1, -1):
                moved = graph.positions.clone()
                moved[atom, axis] += sign * h
                sides.append(potential(graph.moved(moved, graph.cell)).energy.item())
            assert -(sides[0] - sides[1]) / (2 * h) == pytest.approx(forces[atom, axis].item(), abs=1e-6)
    found, _ = adapter.predict(graph, [1])
    assert torch.equal(found.forces, forces)


def test_memory_stays_flat():
    potential = toy("schnet").float()
    graph, _ = batch(potential, ethanol(1))
    adapter = Adapter(potential, AdaptSettings(RATE))

    def held():
        gc.collect()
        return sum(1 for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter))

    for key in range(20):
        adapter.predict(graph, [key])
    first = held()
    for key in range(1000):
        adapter.predict(graph, [key])
    assert held() <= first


def test_repeated_adaptation_lowers_the_loss_of_shifted_frames(tmp_path):
    """A sanity check, not one of accuracy: trained on cold frames, the encoder adapts to hot ones.

    Without pseudo-forces: their target is held while the step is made and moves with it afterwards, so that their loss
    has no slope to go down, and indeed rises here.
    """
    options = TaipOptions(sigma_max=1.0, sigma_min=0.03, levels=4, pooling="mean")
    potential, cold = toy("schnet", options).float(), ethanol(60)
    settings = TrainSettings(batch_size=5, max_epochs=10, ema_decay=None, learning_rate=3e-3, schedule="constant")
    terms = [EnergyForcesStress.from_settings(settings), SelfSupervised(options)]
    train(potential, cold.select(range(50)), cold.select(range(50, 60)), settings, folder=tmp_path, terms=terms)
    hot, _ = batch(potential, ethanol(20, "ethanol_600K"))

    def before_and_after(**weights: float) -> tuple[float, float]:
        adapter = Adapter(potential, AdaptSettings(3e-4, "adam_kept", **weights))

        def loss() -> float:
            fresh = (range(10_000 * k, 10_000 * k + 20) for k in range(1, 9))
            each = [adapter.losses(hot, keys).total(adapter.weights) for keys in fresh]
            return float(torch.stack(each).mean().detach())

        begin = loss()
        with adapter.restored():
            for turn in range(60):
                adapter.move(hot, range(20 * turn, 20 * turn + 20))
            end = loss()
        assert loss() == begin
        return begin, end

    begin, end = before_and_after(pseudo_forces=0.0)
    assert end < 0.96 * begin
    begin, end = before_and_after(noise=0.0, types=0.0)
    assert end > begin


def test_the_threshold_is_a_quantile_of_validation_losses():
    potential, frames = toy("schnet").float(), ethanol(8)
    seen = np.concatenate(
        [predict_adapted(potential, frames, AdaptSettings(seed=7919 * turn)).loss for turn in (1, 2, 3, 4)]
    )
    assert len(set(seen.tolist())) == 32, "draws of their own"
    for share in (0.5, 0.99):
        found = loss_threshold(potential, frames, AdaptSettings(), share=share)
        assert found == pytest.approx(np.quantile(seen, share), rel=1e-5)
    assert loss_threshold(potential, frames, AdaptSettings()) == pytest.approx(np.quantile(seen, 0.99), rel=1e-5)


def test_a_potential_adapts_by_the_weights_that_it_was_trained_with(tmp_path):
    trained = toy("schnet", TaipOptions(noise=0.5, types=2.0, pseudo_forces=3.0))
    potential = load(save(trained, tmp_path / "p.safetensors"))
    graph, _ = batch(potential, ethanol(1))
    _, found = Adapter(potential).predict(graph, [0])
    parts = found.losses
    assert found.total.item() == pytest.approx(
        (0.5 * parts["noise"] + 2 * parts["types"] + 3 * parts["pseudo_forces"]).item()
    )
    _, other = Adapter(potential, AdaptSettings(types=0.0, noise=1.0)).predict(graph, [0])
    assert other.total.item() == pytest.approx((parts["noise"] + 3 * parts["pseudo_forces"]).item())
    # The authors' pseudo-energy needs the noise head: where it was never trained, it is no task.
    untrained = toy("schnet", TaipOptions(noise=0.0, mf_mode="authors"))
    assert Adapter(untrained).tasks == {"types", "pseudo_forces"}
    with pytest.raises(SpecError, match="has a weight"):
        Adapter(untrained, AdaptSettings(noise=1.0, types=0.0, pseudo_forces=0.0))


def test_what_is_put_back_may_be_asked_for_again_on_the_way():
    potential = toy("schnet")
    graph, _ = batch(potential, ethanol(1))
    adapter, before = Adapter(potential, AdaptSettings(RATE)), state(potential)
    with adapter.restored():
        adapter.move(graph, [0])
        kept = state(potential)
        adapter.predict(graph, [1])
        assert same(potential, kept)
    assert same(potential, before)


def test_what_is_put_back_has_the_numbers_of_today():
    """A potential that was float32 when its adapter was made."""
    potential = toy("schnet").float()
    adapter, (graph, _) = Adapter(potential, AdaptSettings(RATE)), batch(potential, ethanol(2))
    adapter.predict_each(graph, [0, 1])
    with torch.no_grad():
        for parameter in potential.double().parameters():
            parameter /= 3
    before, fresh = state(potential), Adapter(potential, AdaptSettings(RATE))
    for n in (1, 2):
        graph, _ = batch(potential, ethanol(n))
        one, other = ((each.predict if n == 1 else each.predict_each)(graph, range(n))[0] for each in (adapter, fresh))
        assert same(potential, before)
        assert torch.equal(one.forces, other.forces)


def test_no_frames_and_no_draws_are_said_in_a_line():
    potential, none = toy("schnet"), ethanol(2).select([])
    with pytest.raises(DataError, match="no frame"):
        predict_adapted(potential, none, AdaptSettings())
    with pytest.raises(DataError, match="no frame"):
        loss_threshold(potential, none, AdaptSettings())
    iron = FrameSet.from_atoms([Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]])])
    with pytest.raises(ModelError, match="Fe"):
        loss_threshold(potential, iron, AdaptSettings())
    for wrong in ({"draws": 0}, {"share": 2.0}, {"share": float("nan")}):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            loss_threshold(potential, ethanol(2), AdaptSettings(), **wrong)
    with pytest.raises(SpecError, match="keys"):
        Adapter(potential).predict(batch(potential, ethanol(2))[0], [0])


def test_wrong_settings_are_refused():
    for wrong in ({"rate": -1.0}, {"together": 0}, {"noise": float("nan")}, {"rate": "1e-5"}, {"rate": True},
                  {"together": 1.5}, {"seed": "a"}, {"seed": -1}):  # fmt: skip
        with pytest.raises(SpecError):
            AdaptSettings(**wrong)
    for wrong in ({"optimiser": "adam"}, {"direction": "up"}):
        with pytest.raises(DataError):
            AdaptSettings(**wrong)
    with pytest.raises(SpecError, match="has a weight"):
        Adapter(toy(options=TaipOptions(types=0, pseudo_forces=0)), AdaptSettings(noise=0))
    bare = toy()
    bare.auxiliary.clear()
    with pytest.raises(ModelError, match="self-supervised"):
        Adapter(bare)


@pytest.mark.parametrize("name", SMALL)
def test_the_gradient_of_a_structure_is_what_it_leaves_behind(name):
    """Shared and own weights, steps along the gradient itself, against autograd one by one."""
    potential = toy(name)
    graph, _ = batch(potential, ethanol(3))
    adapter = Adapter(potential, AdaptSettings(RATE, "sgd"))
    for weights in (None, "own"):
        stack = Stacked(potential, graph)
        if weights == "own":
            stack = Stacked(potential, graph, stack.flat.expand(3, -1).clone())
        start = stack.flat.clone()
        adapter.move_each(stack, graph, [5, 6, 7])
        for index in range(3):
            slopes, _ = adapter.gradient(batch(potential, ethanol(3), [index])[0], [5 + index])
            one = torch.cat([slope.flatten() for slope in slopes])
            moved = stack.flat[index] - (start if start.ndim == 1 else start[index])
            assert torch.allclose(moved, -RATE * one, rtol=0, atol=1e-12 + 1e-10 * RATE * float(one.abs().max()))


@pytest.mark.parametrize("mode", ["paper", "authors"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", SMALL)
def test_each_loss_alone_at_once_is_one_after_the_other(name, task, mode):
    """Weights that a loss does not reach stay, the last ones too."""
    potential = toy(name, TaipOptions(mf_mode=mode))
    graph, _ = batch(potential, ethanol(2))
    weights = {other: float(other == task) for other in TASKS}
    adapter = Adapter(potential, AdaptSettings(RATE, "sgd", **weights))
    together, found = adapter.predict_each(graph, [3, 4])
    for index in range(2):
        one, seen = adapter.predict(batch(potential, ethanol(2), [index])[0], [3 + index])
        assert torch.allclose(together.forces[9 * index : 9 * index + 9], one.forces, rtol=0, atol=1e-7)
        assert found.gradient[index].item() == pytest.approx(seen.gradient.item(), rel=1e-6)


def test_steps_without_compiled_loops_are_the_same(monkeypatch):
    potential = toy("painn")
    graph, _ = batch(potential, ethanol(3))
    for direction in ("gradient", "random"):
        adapter = Adapter(potential, AdaptSettings(RATE, direction=direction))
        loops, plain = Stacked(potential, graph), Stacked(potential, graph)
        seen, _ = adapter.move_each(loops, graph, [5, 6, 7], threshold=5.0)
        found = loops.flat.clone()
        with monkeypatch.context() as patch:
            patch.setattr("mlipkit.strategies.taip.own_steps.native", SimpleNamespace(serves=lambda *_: False))
            again, _ = adapter.move_each(plain, graph, [5, 6, 7], threshold=5.0)
        assert torch.allclose(plain.flat, found, rtol=0, atol=1e-12)
        assert torch.allclose(seen.change, again.change)
        assert torch.allclose(seen.gradient, again.gradient)


@pytest.mark.parametrize("name", SMALL)
def test_cells_at_once_are_one_after_the_other(name, monkeypatch):
    """Cells with different numbers of edges; uses of a weight side by side and apart; and own weights to begin with."""
    frames = samples.load("water_liquid").select([0, 70, 140])
    potential = toy(name, periodic=True)
    graph, _ = batch(potential, frames)
    assert len(set(torch.bincount(graph.system[graph.edge_index[1]]).tolist())) == 3
    assert stackable(graph, potential)
    adapter, steps = Adapter(potential, AdaptSettings(RATE)), Adapter(potential, AdaptSettings(RATE, "sgd"))
    ones = [batch(potential, frames, [index])[0] for index in range(3)]
    for room in (1 << 40, 0):
        monkeypatch.setattr("mlipkit.strategies.taip.own_steps.APART", room)
        together, found = adapter.predict_each(graph, [11, 12, 13])
        for index in range(3):
            one, seen = adapter.predict(ones[index], [11 + index])
            rows = slice(96 * index, 96 * index + 96)
            assert torch.allclose(together.forces[rows], one.forces, rtol=0, atol=1e-5)
            assert together.energy[index].item() == pytest.approx(one.energy.item(), abs=1e-5)
            assert found.total[index].item() == pytest.approx(seen.total.item(), rel=1e-6)
        assert (together.forces - potential(graph).forces).abs().max() > RATE

        stack = Stacked(potential, graph, Stacked(potential, graph).flat.expand(3, -1).clone())
        start = stack.flat.clone()
        steps.move_each(stack, graph, [5, 6, 7])
        for index in range(3):
            slopes, _ = steps.gradient(ones[index], [5 + index])
            one = torch.cat([slope.flatten() for slope in slopes])
            moved = stack.flat[index] - start[index]
            assert torch.allclose(moved, -RATE * one, rtol=0, atol=1e-12 + 1e-9 * RATE * float(one.abs().max()))


def test_potentials_whose_edges_are_not_all_pairs_in_order():
    torch.manual_seed(0)
    encoder = build_encoder("visnet", **SMALL["visnet"], self_loops=True)
    looped = attach(
        Potential(encoder, atomic_energies=fit_atomic_energies(ethanol())), TaipOptions(), periodic=False
    ).double()
    kept = toy("schnet", TaipOptions(edges="kept"))
    for potential, at_once in ((looped, False), (kept, True)):
        graph, _ = batch(potential, ethanol(2))
        assert stackable(graph, potential) is at_once
        both = predict_adapted(potential, ethanol(2), AdaptSettings(RATE))
        alone = predict_adapted(potential, ethanol(2).select([1]), AdaptSettings(RATE))
        assert np.allclose(np.asarray(both.frames.forces)[9:], alone.frames.forces, atol=1e-8)
