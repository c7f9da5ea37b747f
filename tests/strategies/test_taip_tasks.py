"""The self-supervised tasks of TAIP: what they draw, what they cost, where their gradients go."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from taip_toys import SMALL, batch, draws_of, ethanol, self_supervised, toy

from mlipkit.data import FrameSet, samples
from mlipkit.data.neighbours import neighbour_list
from mlipkit.data.series import Series
from mlipkit.errors import DataError, ModelError, SpecError
from mlipkit.models import load, save
from mlipkit.models.self_supervised import ForcesHead, NoiseHead, TypesHead
from mlipkit.strategies.taip import (
    FIGURES,
    HIT,
    TASKS,
    NoisyLabels,
    SelfSupervised,
    TaipOptions,
    attach,
    heads_of,
    published,
)
from mlipkit.strategies.taip.draws import draw, n_hidden, perturbed
from mlipkit.strategies.taip.tasks import pseudo_forces
from mlipkit.training import EnergyForcesStress, TrainSettings, train
from mlipkit.training.objective import StepState

# ---- what is drawn


def test_displacements_have_the_width_of_their_level():
    heads = heads_of(toy())
    drawn = draw(heads, [9] * 6000, seed=3, keys=range(6000))
    sigmas = torch.tensor(heads.noise.sigmas)
    assert len(sigmas) == 30
    assert (sigmas[0].item(), sigmas[-1].item()) == pytest.approx((10.0, 0.01))
    assert torch.allclose(sigmas[1:] / sigmas[:-1], (sigmas[1] / sigmas[0]).expand(29), rtol=1e-5)
    of_atom = drawn.level.repeat_interleave(9)
    assert set(drawn.level.tolist()) == set(range(30))
    for level in (0, 10, 29):
        found = drawn.displacement[of_atom == level]
        assert found.std().item() == pytest.approx(sigmas[level].item(), rel=0.03)
    whole = drawn.displacement / sigmas[of_atom].unsqueeze(1)
    assert whole.std().item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    ("n", "rate", "count"), [(1, 0.15, 1), (9, 0.15, 2), (9, 0.10, 1), (288, 0.10, 29), (288, 0.05, 15)]
)
def test_how_many_are_hidden(n, rate, count):
    assert n_hidden(rate, n) == count
    potential = toy(options=TaipOptions(type_rate=rate, force_rate=rate))
    drawn = draw(heads_of(potential), [n, n], 0, [1, 2])
    assert drawn.masked.view(2, n).sum(1).tolist() == [count] * 2
    assert drawn.hidden.view(2, n).sum(1).tolist() == [count] * 2


def test_a_stream_belongs_to_its_structure_alone():
    heads = heads_of(toy())
    alone, among = draw(heads, [9], 5, [17]), draw(heads, [7, 9, 4], 5, [2, 17, 9])
    assert torch.equal(alone.displacement, among.displacement[7:16])
    assert torch.equal(alone.masked, among.masked[7:16])
    assert not torch.equal(alone.displacement, draw(heads, [9], 6, [17]).displacement)


def test_edges_of_perturbed_structures_are_those_of_a_neighbour_list():
    potential = toy()
    for frames in (ethanol(3), samples.load("water_liquid").select([0, 1])):
        graph, _ = batch(potential, frames)
        for sigma in (0.3, 40.0):
            drift = torch.from_numpy(np.random.default_rng(0).normal(0, sigma, tuple(graph.positions.shape)))
            moved = perturbed(graph, drift, 4.0)
            start = 0
            for index, n in enumerate(graph.n_atoms.tolist()):
                edges, shift, _ = neighbour_list(
                    moved.positions[start : start + n].numpy(),
                    frames.frame(index)["cell"],
                    frames.frame(index)["pbc"],
                    4.0,
                )
                mine = moved.system[moved.edge_index[1]] == index
                assert np.array_equal(moved.edge_index[:, mine].numpy() - start, edges)
                assert np.array_equal(moved.shift[mine].numpy(), shift)
                start += n
    assert perturbed(graph, drift, 4.0, "kept").edge_index is graph.edge_index


# ---- the losses


@pytest.mark.parametrize("name", SMALL)
def test_every_encoder_has_every_task(name):
    potential = toy(name)
    graph, _ = batch(potential, ethanol())
    found = self_supervised(potential, graph)
    assert set(found.by_task) == set(TASKS)
    for one in found.by_task.values():
        assert one.shape == (4,)
        assert torch.isfinite(one).all()
    slopes = torch.autograd.grad(
        found.total(dict.fromkeys(TASKS, 1.0)).sum(), list(potential.encoder.parameters()), allow_unused=True
    )
    assert all(torch.isfinite(g).all() for g in slopes if g is not None)
    assert sum(float(g.abs().sum()) for g in slopes if g is not None) > 0


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_its_structures_and_versions_may_go_together(name):
    potential = toy(name)
    graph, _ = batch(potential, ethanol())
    whole = self_supervised(potential, graph)
    together = self_supervised(potential, graph, together=True)
    for task in TASKS:
        single = [
            self_supervised(potential, batch(potential, ethanol(), [i])[0], keys=[i]).by_task[task][0] for i in range(4)
        ]
        assert torch.allclose(whole.by_task[task], torch.stack(single), rtol=1e-9, atol=1e-10)
        assert torch.allclose(whole.by_task[task], together.by_task[task], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_equal_finite_differences(task):
    potential = toy("painn")
    graph, _ = batch(potential, ethanol(1))

    def value():
        return self_supervised(potential, graph, tasks=[task]).by_task[task].sum()

    weight = potential.encoder.messages[1].mix_in.weight
    (slope,) = torch.autograd.grad(value(), weight)
    at = int(slope.abs().argmax())
    if task == "pseudo_forces":
        # The target is held: move it along where the difference is taken.
        return _check_held(potential, graph, weight, slope, at)
    assert _difference(value, weight, at) == pytest.approx(float(slope.view(-1)[at]), rel=1e-5)
    return None


def _difference(value, weight, at, h=1e-6):
    flat, sides = weight.data.view(-1), []
    for sign in (1, -1):
        flat[at] += sign * h
        sides.append(float(value().detach()))
        flat[at] -= sign * h
    return (sides[0] - sides[1]) / (2 * h)


def _check_held(potential, graph, weight, slope, at):
    from mlipkit.ops import gather
    from mlipkit.strategies.taip import tasks as module

    heads, drawn = heads_of(potential), draws_of(potential, graph)
    rows = drawn.hidden.nonzero().squeeze(1)

    def forces():
        positions = graph.positions.clone().requires_grad_()
        pseudo = graph.moved(positions, graph.cell)
        numbers = torch.where(drawn.masked, 0, graph.numbers)
        return module.pseudo_forces(potential, heads, pseudo, potential.encode(pseudo, numbers))

    target = forces().detach()

    def value():
        seen = heads.forces.shown(forces(), drawn.hidden)
        said = heads.forces(seen, drawn.hidden, graph.edge_index, graph.edge_vectors())
        return (gather(said, rows) - gather(target, rows)).abs().mean()

    assert _difference(value, weight, at) == pytest.approx(float(slope.view(-1)[at]), rel=1e-4)


def test_no_level_is_likelier_before_training():
    for name in SMALL:
        potential = toy(name)
        graph, _ = batch(potential, ethanol())
        loss = self_supervised(potential, graph).by_task["noise"].mean().item()
        assert loss == pytest.approx(math.log(30), abs=0.35), name
    potential = toy(periodic=True)
    graph, _ = batch(potential, samples.load("water_liquid").select([0]))
    assert heads_of(potential).noise.levels == 50
    assert self_supervised(potential, graph).by_task["noise"].item() == pytest.approx(math.log(50), abs=1.5)


def test_the_mask_is_no_element():
    potential = toy()
    table = potential.encoder.embedding.weight
    (slope,) = torch.autograd.grad(
        self_supervised(potential, batch(potential, ethanol())[0], tasks=["types"]).by_task["types"].sum(), table
    )
    assert slope[0].abs().sum() > 0  # hidden atoms
    assert 0 not in potential.elements
    assert all(not torch.equal(table[0], table[z]) for z in range(1, len(table)))
    # Without a table the mask is no column at all.
    assert toy("egnn").encoder.columns[0].abs().sum() == 0


def test_hidden_types_do_not_reach_the_encoder():
    potential = toy()
    graph, _ = batch(potential, ethanol(1))
    drawn = draws_of(potential, graph)
    swapped = dataclasses.replace(graph, numbers=torch.where(drawn.masked, 7, graph.numbers))
    seen = []
    for one in (graph, swapped):
        self_supervised(
            potential,
            one,
            draws=drawn,
            tasks=["types"],
            encode=lambda g, n=None, r=None: seen.append(n.clone()) or potential.encode(g, n, r),
        )
    assert torch.equal(*seen)
    assert (seen[0][drawn.masked] == 0).all()


def test_gamma_is_a_power_of_each_atom():
    plain, squared = (toy(options=TaipOptions(gamma=gamma, type_rate=0.0)) for gamma in (1.0, 2.0))
    graph, _ = batch(plain, ethanol())
    one, two = (self_supervised(p, graph, tasks=["types"]).by_task["types"] for p in (plain, squared))
    assert torch.allclose(one**2, two)  # one hidden atom each


def test_losses_are_what_their_equations_say():
    """By hand, of several hidden atoms: the power before the mean, u pooled over atoms, edges as the option says."""
    # Blown up, so that pairs beyond the cutoff come within it when atoms are displaced.
    frames = FrameSet.from_atoms([Atoms(one.numbers, 1.8 * one.positions) for one in ethanol(2)])
    for edges, pooling, gamma in (("rebuilt", "sum", 1.0), ("kept", "mean", 2.0)):
        options = TaipOptions(edges=edges, pooling=pooling, gamma=gamma, type_rate=0.4, sigma_min=1.0, sigma_max=1.0)
        potential = toy("painn", options)
        heads, (graph, _) = heads_of(potential), batch(potential, frames)
        heads.noise.classify[-1].weight.data *= 1000  # it begins small
        drawn = draws_of(potential, graph)
        found = self_supervised(potential, graph, draws=drawn, tasks=["noise", "types"]).by_task
        noisy = perturbed(graph, drawn.displacement, potential.cutoff, edges)
        within = [
            int((one.edge_vectors().norm(dim=1) < potential.cutoff).sum())
            for one in (perturbed(graph, drawn.displacement, potential.cutoff, how) for how in ("kept", "rebuilt"))
        ]
        assert within[0] < within[1], "pairs come near that were none"
        assert drawn.masked.view(2, 9).sum(1).tolist() == [4, 4]
        u, other = (heads.noise.atoms(potential.encode(one).scalar).view(2, 9, -1) for one in (graph, noisy))
        pooled = [one.sum(1) if pooling == "sum" else one.mean(1) for one in (u, other)]
        chance = heads.noise.classify(torch.cat(pooled, dim=1)).softmax(1)
        assert torch.allclose(found["noise"], -chance[torch.arange(2), drawn.level].log())
        scores = heads.types(potential.encode(graph, torch.where(drawn.masked, 0, graph.numbers)).scalar)
        cosine = scores[torch.arange(18), graph.numbers] / scores.norm(dim=1)
        lost = torch.where(drawn.masked, (1 - cosine) ** gamma, 0.0).view(2, 9)
        assert torch.allclose(found["types"], lost.sum(1) / 4)


def test_pseudo_forces_are_slopes_of_what_the_option_names():
    for mode in ("paper", "authors"):
        potential = toy("painn", TaipOptions(mf_mode=mode))
        heads, (graph, _) = heads_of(potential), batch(potential, ethanol(2))
        positions = graph.positions.clone().requires_grad_()
        moved = graph.moved(positions, graph.cell)
        features = potential.encode(moved)
        if mode == "paper":
            energy = potential.scale * potential.head(features, graph.system, graph.n_atoms).sum()
        else:
            energy = heads.noise.atoms(features.scalar).sum()
        (slope,) = torch.autograd.grad(energy, positions, retain_graph=True)
        found = pseudo_forces(potential, heads, moved, features)
        assert slope.abs().max() > 0
        assert torch.allclose(found, -slope), mode


# ---- pseudo-forces, as printed and as coded


def test_the_paper_trains_the_decoder_and_the_code_does_not():
    for mode, trained in (("paper", True), ("authors", False)):
        potential = toy(options=TaipOptions(mf_mode=mode))
        graph, _ = batch(potential, ethanol())
        self_supervised(potential, graph, tasks=["pseudo_forces"]).by_task["pseudo_forces"].sum().backward()
        head = heads_of(potential).forces
        grads = [p.grad for p in head.parameters() if p is not head.token]
        moved = [g is not None and bool(g.abs().sum() > 0) for g in grads]
        assert all(moved) if trained else not any(moved), mode
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in potential.encoder.parameters())


def test_the_target_has_no_gradient():
    """With every force hidden nothing visible is left, and the encoder hears nothing."""
    for decoder in ("filter", "equivariant"):
        potential = toy(options=TaipOptions(decoder=decoder))
        graph, _ = batch(potential, ethanol())
        everything = torch.ones(len(graph.numbers), dtype=torch.bool)
        drawn = draws_of(potential, graph, hidden=everything)
        self_supervised(potential, graph, tasks=["pseudo_forces"], draws=drawn).by_task[
            "pseudo_forces"
        ].sum().backward()
        assert all(p.grad is None or p.grad.abs().max() == 0 for p in potential.encoder.parameters())


def test_the_code_takes_the_graph_feature_and_labels_with_noise():
    potential = toy(options=TaipOptions(mf_mode="authors", noise=0.0))
    heads = heads_of(potential)
    assert heads.noise is not None
    assert heads.forces.pseudo_energy == "graph_sum"
    graph, _ = batch(potential, ethanol(1))
    drawn = draws_of(potential, graph)
    assert drawn.force_noise.std() == pytest.approx(1.0, abs=0.4)
    quiet = dataclasses.replace(drawn, force_noise=torch.zeros_like(drawn.force_noise))
    one, other = (
        self_supervised(potential, graph, tasks=["pseudo_forces"], draws=d).by_task["pseudo_forces"]
        for d in (drawn, quiet)
    )
    assert not torch.allclose(one, other)


def test_losses_of_pseudo_forces_by_hand():
    """Paper: hidden forces are the token, the label their true value. Authors: input and label are the noisy force."""
    for mode in ("paper", "authors"):
        potential = toy(options=TaipOptions(mf_mode=mode, force_rate=0.4))
        heads, (graph, _) = heads_of(potential), batch(potential, ethanol(2))
        torch.nn.init.normal_(heads.forces.token)
        drawn = draws_of(potential, graph)
        assert drawn.hidden.view(2, 9).sum(1).tolist() == [4, 4]
        positions = graph.positions.clone().requires_grad_()
        moved, numbers = graph.moved(positions, graph.cell), torch.where(drawn.masked, 0, graph.numbers)
        shown = pseudo_forces(potential, heads, moved, potential.encode(moved, numbers)).detach()
        label = shown.clone()
        for atom in drawn.hidden.nonzero().squeeze(1).tolist():
            noisy = shown[atom] + drawn.force_noise[atom]
            shown[atom] = heads.forces.token if mode == "paper" else noisy
            label[atom] = label[atom] if mode == "paper" else noisy
        said = heads.forces(shown, drawn.hidden, graph.edge_index, graph.edge_vectors())
        lost = [
            (said - label).abs()[9 * one : 9 * one + 9][drawn.hidden[9 * one : 9 * one + 9]].mean() for one in (0, 1)
        ]
        found = self_supervised(potential, graph, draws=drawn, tasks=["pseudo_forces"]).by_task["pseudo_forces"]
        assert torch.allclose(found, torch.stack(lost), rtol=1e-10), mode


def test_the_published_decoder_by_hand():
    """In NumPy, of three atoms in a row whose ends do not see each other."""
    torch.manual_seed(0)
    head = ForcesHead(4, 3.0, hidden=6, filters=5, n_radial=7).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    weight = {name: value.detach().numpy() for name, value in head.named_parameters()}
    positions = np.array([[0.0, 0.0, 0.0], [1.1, 0.2, 0.0], [3.3, 0.0, 0.5]])
    shown = np.random.default_rng(0).normal(size=(3, 3))

    def ssp(x):
        return np.log(0.5 * np.exp(x) + 0.5)

    def layer(name, x):
        return x @ weight[f"{name}.weight"].T + weight.get(f"{name}.bias", 0.0)

    def two(name, x):
        return layer(f"{name}.2", ssp(layer(f"{name}.0", x)))

    centres = np.linspace(0.0, 3.0, 7)
    entered, pairs = layer("enter", shown), [(0, 1), (1, 0), (1, 2), (2, 1)]
    gathered = np.zeros((3, 5))
    for sender, receiver in pairs:
        d = np.linalg.norm(positions[sender] - positions[receiver])
        basis = np.exp(-((d - centres) ** 2) / (2 * centres[1] ** 2))
        filters = two("filter", basis) * 0.5 * (np.cos(np.pi * d / 3.0) + 1)
        gathered[receiver] += layer("project", entered[sender]) * filters
    expected = two("leave", ssp(entered + two("update", gathered)))
    ends = torch.tensor(pairs).T
    vectors = torch.from_numpy(positions[ends[0]] - positions[ends[1]])
    found = head(torch.from_numpy(shown), torch.zeros(3, dtype=torch.bool), ends, vectors)
    assert np.allclose(found.detach(), expected, rtol=1e-10)


def test_the_code_cuts_distances_to_whole_angstroms(monkeypatch):
    monkeypatch.setattr("mlipkit.models.self_supervised.cosine_cutoff", lambda d, cutoff: torch.ones_like(d))
    ends, forces = torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 3, dtype=torch.float64)

    def said(mode, d):
        vectors = torch.tensor([[d, 0.0, 0.0], [-d, 0.0, 0.0]], dtype=torch.float64)
        head = heads_of(toy(options=TaipOptions(mf_mode=mode))).forces
        return head(forces, torch.zeros(2, dtype=torch.bool), ends, vectors)

    assert torch.equal(said("authors", 1.2), said("authors", 1.9))
    assert not torch.equal(said("paper", 1.2), said("paper", 1.9))


def test_the_equivariant_decoder_turns_with_the_structure_and_the_published_one_does_not():
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3))))[0]
    gaps = {}
    for decoder in ("equivariant", "filter"):
        potential = toy("painn", TaipOptions(decoder=decoder))
        graph, _ = batch(potential, ethanol(2))
        drawn = draws_of(potential, graph)
        turned = dataclasses.replace(drawn, displacement=drawn.displacement @ turn)
        rotated = graph.moved(graph.positions @ turn, graph.cell)
        heads = heads_of(potential)
        forces = torch.from_numpy(np.random.default_rng(1).normal(size=tuple(graph.positions.shape)))
        said = heads.forces(
            heads.forces.shown(forces, drawn.hidden), drawn.hidden, graph.edge_index, graph.edge_vectors()
        )
        other = heads.forces(
            heads.forces.shown(forces @ turn, turned.hidden), turned.hidden, graph.edge_index, rotated.edge_vectors()
        )
        gaps[decoder] = float((said @ turn - other).detach().abs().max())
    assert gaps["equivariant"] < 1e-10
    assert gaps["filter"] > 1e-3


# ---- on a potential


def test_heads_are_saved_with_the_potential(tmp_path):
    options = TaipOptions(levels=7, sigma_max=1.0, pooling="mean", gamma=2.0, type_rate=0.3, decoder="equivariant")
    potential = toy("painn", options)
    graph, _ = batch(potential, ethanol())
    again = load(save(potential, tmp_path / "p.safetensors"))
    one, other = self_supervised(potential, graph), self_supervised(again, graph)
    for task in TASKS:
        assert torch.equal(one.by_task[task], other.by_task[task])
    assert heads_of(again).noise.sigmas[0] == 1.0
    assert again.describe()["auxiliary"] == ["taip_forces", "taip_noise", "taip_types"]


def test_heads_that_options_do_not_ask_for_are_taken_off():
    potential = toy()
    attach(potential, TaipOptions(types=0.0, levels=5), periodic=False)
    assert heads_of(potential).tasks == ("noise", "pseudo_forces")
    assert heads_of(potential).noise.levels == 5
    graph, targets = batch(potential, ethanol(2))
    with pytest.raises(ModelError, match=r"no head for a task with a weight.*types"):
        SelfSupervised()(StepState(potential), graph, targets, None)
    with pytest.raises(ModelError, match="heads"):
        attach(object(), TaipOptions(), periodic=False)


def test_published_numbers_follow_the_frames():
    molecule, box = heads_of(toy()), heads_of(toy(periodic=True))
    assert (molecule.noise.levels, molecule.types.rate, molecule.forces.rate) == (30, 0.15, 0.10)
    assert (box.noise.levels, box.types.rate, box.forces.rate) == (50, 0.10, 0.05)
    big = attach(toy(), TaipOptions(), periodic=False)
    assert (big.auxiliary["taip_forces"].hidden, big.auxiliary["taip_forces"].filters) == (32, 16)
    made = published(TrainSettings(max_epochs=7, batch_size=30))
    assert (made.batch_size, made.learning_rate, made.forces_weight, made.loss) == (2, 1e-4, 1000.0, "l1")
    assert (made.energy_unit, made.schedule_epochs, made.clip_norm, made.ema_decay) == ("total", 150, None, None)
    assert made.max_epochs == 7


def test_wrong_options_are_refused():
    for wrong in (
        {"noise": 0, "types": 0, "pseudo_forces": 0},
        {"types": -1},
        {"mf_mode": "authors", "decoder": "equivariant"},
        {"noise": "much"},
        {"levels": 1},
        {"levels": 2.5},
        {"gamma": 0.5},
        {"type_rate": 1.0},
        {"force_rate": -0.1},
        {"sigma_min": 2.0, "sigma_max": 1.0},
        {"sigma_max": float("inf")},
    ):
        with pytest.raises(SpecError):
            TaipOptions(**wrong)
    for wrong in ({"mf_mode": "code"}, {"decoder": "none"}, {"edges": "old"}, {"pooling": "max"}):
        with pytest.raises(DataError):
            TaipOptions(**wrong)
    for wrong in (lambda: NoiseHead(8, 1), lambda: TypesHead(8, gamma=0.5), lambda: ForcesHead(8, 4.0, rate=1.0)):
        with pytest.raises(ModelError):
            wrong()
    for wrong in (lambda: NoiseHead(8, pooling="max"), lambda: ForcesHead(8, 4.0, mode="code")):
        with pytest.raises(DataError):
            wrong()
    bare = toy()
    del bare.auxiliary["taip_noise"], bare.auxiliary["taip_types"], bare.auxiliary["taip_forces"]
    with pytest.raises(ModelError, match="without self-supervised tasks"):
        heads_of(bare)


# ---- training


def term_loss(term, potential, frames):
    graph, targets = batch(potential, frames)
    needs = term.needs
    prediction = potential(graph, forces=False, features="features" in needs, create_graph=True)
    return term(StepState(potential, step=3, seed=1), graph, targets, prediction)


def test_the_term_is_the_weighted_sum_of_its_figures():
    potential = toy()
    term = SelfSupervised(TaipOptions(noise=0.5, types=2.0, pseudo_forces=3.0))
    loss, figures = term_loss(term, potential, ethanol())
    assert set(figures) == set(term.figures) == {*FIGURES.values(), HIT}
    expected = 0.5 * figures["loss_noise"] + 2 * figures["loss_types"] + 3 * figures["loss_pseudo_forces"]
    assert loss.item() == pytest.approx(expected.item())
    again, _ = term_loss(term, potential, ethanol())
    assert again.item() == loss.item()
    alone = SelfSupervised(TaipOptions(noise=0, pseudo_forces=0))
    assert set(alone.figures) == {"loss_types"}
    assert alone.needs == frozenset()


def test_noisy_labels_are_the_supervised_loss_of_displaced_structures():
    potential = toy()
    graph, targets = batch(potential, ethanol())
    supervised = EnergyForcesStress()
    loss, figures = NoisyLabels(supervised, sigma=1e-9)(StepState(potential), graph, targets, None)
    still, _ = supervised(StepState(potential), graph, targets, potential(graph, create_graph=True))
    assert loss.item() == pytest.approx(still.item(), rel=1e-6)
    assert set(figures) == set(NoisyLabels(supervised).figures)
    _, other = NoisyLabels(supervised, sigma=0.1)(StepState(potential), graph, targets, None)
    assert other["noisy_forces_mae"].item() != pytest.approx(figures["noisy_forces_mae"].item(), rel=1e-3)


@pytest.mark.parametrize("options", [TaipOptions(sigma_max=1.0), TaipOptions(noise=0, mf_mode="authors")])
def test_training_learns_the_tasks_and_records_each(tmp_path, options):
    frames = ethanol(40)
    potential = toy(options=options).float()
    settings = TrainSettings(batch_size=4, max_epochs=6, ema_decay=None, learning_rate=3e-3, schedule="constant")
    terms = [EnergyForcesStress.from_settings(settings), SelfSupervised(options)]
    before = heads_of(potential).types.decode[0].weight.clone()
    train(potential, frames.select(range(32)), frames.select(range(32, 40)), settings, folder=tmp_path, terms=terms)
    series = Series(tmp_path / "series" / "training")
    types = series.read("loss_types")["loss_types"]
    assert types[-8:].mean() < 0.7 * types[:8].mean()
    assert "loss_pseudo_forces" in series.columns
    assert ("loss_noise" in series.columns) == bool(options.noise)
    assert not torch.equal(before, heads_of(potential).types.decode[0].weight)
    again = heads_of(load(tmp_path / "checkpoints" / "best.safetensors"))
    assert again.noise is not None
    # Without a weight the noise head gives the graph feature alone, and no task to adapt by.
    assert again.tasks == tuple(name for name in TASKS if options.weights[name])
