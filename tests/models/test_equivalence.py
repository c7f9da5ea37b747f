"""The same weights give the same energies and forces as other implementations of the same equations.

SchNetPack runs in an environment of its own, so that its answers are recorded (`references/record_schnetpack.py`);
where it can be imported they are also made anew. PyTorch Geometric runs here, on our neighbour lists.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import suites
import torch
from ase import Atoms
from ase.build import make_supercell

from mlipkit.data import FrameSet, NeighbourCache, collate, graph_of
from mlipkit.models import Potential, build_encoder
from mlipkit.models.bases import ShiftedSoftplus

REFERENCES = Path(__file__).parent / "references"
RELATIVE = 1e-9


def _equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    size = float(expected.abs().max())
    assert size > 1e-2
    assert float((found - expected).abs().max()) < RELATIVE * size


def _take(own: torch.nn.Linear, *others: torch.nn.Linear) -> None:
    """Weights of one or several maps, row by row, into one of ours."""
    own.weight.data.copy_(torch.cat([other.weight.data for other in others]))
    if own.bias is not None:
        own.bias.data.copy_(torch.cat([other.bias.data for other in others]))


def _potential(name: str, elements: list[int], head: str = "per_atom", **options) -> Potential:
    encoder = build_encoder(name, **options)
    return Potential(encoder, atomic_energies=dict.fromkeys(elements, 0.0), head=head).double()


# ---- SchNetPack


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORDER = _module(REFERENCES / "record_schnetpack.py")


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(REFERENCES / "schnetpack.npz") as file:
        return dict(file)


class _Weights:
    """Recorded weights of one model by SchNetPack's names."""

    def __init__(self, record: dict[str, np.ndarray], kind: str) -> None:
        start = f"{kind}/weights/"
        self.found = {
            name.removeprefix(start): torch.from_numpy(value).double()
            for name, value in record.items() if name.startswith(start)
        }  # fmt: skip
        self.left = set(self.found)

    def __call__(self, name: str) -> torch.Tensor:
        self.left.discard(name)
        return self.found[name]

    def into(self, own: torch.nn.Linear, name: str, order: tuple[int, ...] = (0,), columns: bool = False) -> None:
        """Copy a map; `order` rearranges equal blocks of its rows (or of the inputs it takes)."""
        weight = self(f"{name}.weight").chunk(len(order), dim=1 if columns else 0)
        own.weight.data.copy_(torch.cat([weight[k] for k in order], dim=1 if columns else 0))
        if own.bias is None:
            return
        bias = self(f"{name}.bias")
        own.bias.data.copy_(bias if columns else torch.cat([bias.chunk(len(order))[k] for k in order]))


def _ours(record: dict[str, np.ndarray], kind: str) -> Potential:
    """Our potential with the weights of SchNetPack's."""
    elements = record[f"{kind}/elements"].tolist()
    potential = _potential(
        kind, elements, features=RECORDER.WIDTH, layers=RECORDER.LAYERS, cutoff=RECORDER.CUTOFF,
        n_radial=RECORDER.N_RADIAL[kind],
    )  # fmt: skip
    encoder, take = potential.encoder, _Weights(record, kind)
    encoder.embedding.weight.data[elements] = take("representation.embedding.weight")
    for k in range(RECORDER.LAYERS):
        if kind == "schnet":
            layer, name = encoder.layers[k], f"representation.interactions.{k}"
            take.into(layer.filter_in, f"{name}.filter_network.0")
            take.into(layer.filter_out, f"{name}.filter_network.1")
            take.into(layer.project, f"{name}.in2f")
            take.into(layer.update[0], f"{name}.f2out.0")
            take.into(layer.update[2], f"{name}.f2out.1")
            continue
        block, update = encoder.messages[k], encoder.updates[k]
        # Their rows are (scalar, along the unit vector, vectors), ours the other way round; one filter map for all.
        turned = (2, 1, 0)
        name = f"representation.interactions.{k}.interatomic_context_net"
        take.into(block.mix_in, f"{name}.0")
        take.into(block.mix_out, f"{name}.1", turned)
        rows = slice(3 * RECORDER.WIDTH * k, 3 * RECORDER.WIDTH * (k + 1))
        filters = take("representation.filter_net.weight")[rows].chunk(3)
        biases = take("representation.filter_net.bias")[rows].chunk(3)
        block.filter.weight.data.copy_(torch.cat([filters[i] for i in turned]))
        block.filter.bias.data.copy_(torch.cat([biases[i] for i in turned]))
        # Their first half has the norm taken of it (our V); (ds, dv, dsv) and [s, |Vv|] against ours.
        name = f"representation.mixing.{k}"
        take.into(update.uv, f"{name}.mu_channel_mix", (1, 0))
        take.into(update.mix[0], f"{name}.intraatomic_context_net.0", (1, 0), columns=True)
        take.into(update.mix[2], f"{name}.intraatomic_context_net.1", (1, 2, 0))
    take.into(potential.head.mlp[0], "head.outnet.0")
    take.into(potential.head.mlp[2], "head.outnet.1")
    assert not take.left
    return potential


def _compare(record: dict[str, np.ndarray], kind: str) -> None:
    potential = _ours(record, kind)
    for number, atoms in enumerate(RECORDER.structures()):
        result = potential(graph_of(atoms, RECORDER.CUTOFF, torch.float64))
        _equal(result.energy, torch.from_numpy(record[f"{kind}/energy/{number}"].reshape(1)))
        _equal(result.forces, torch.from_numpy(record[f"{kind}/forces/{number}"]))


@pytest.mark.parametrize("kind", ["painn", "schnet"])
def test_schnetpack_recorded(kind, recorded):
    for number, atoms in enumerate(RECORDER.structures()):
        assert np.allclose(recorded[f"structure/{number}/positions"], atoms.positions, rtol=0, atol=1e-12)
        assert np.array_equal(recorded[f"structure/{number}/numbers"], atoms.numbers)
    _compare(recorded, kind)


@pytest.mark.parametrize("kind", ["painn", "schnet"])
def test_schnetpack_live(kind, recorded):
    pytest.importorskip("schnetpack", reason="SchNetPack is not installed here: its recorded answers are compared")
    found = RECORDER.record(kind)
    for name, value in found.items():
        assert np.allclose(value, recorded[name], rtol=1e-10, atol=1e-12), name
    _compare(found, kind)


def test_swapped_blocks_are_noticed(recorded):
    """The comparison is sharp: the order of blocks in one map decides it."""
    potential = _ours(recorded, "painn")
    weight = potential.encoder.updates[1].uv.weight.data
    weight.copy_(weight.roll(RECORDER.WIDTH, 0))
    result = potential(graph_of(RECORDER.structures()[0], RECORDER.CUTOFF, torch.float64))
    with pytest.raises(AssertionError):
        _equal(result.forces, torch.from_numpy(recorded["painn/forces/0"]))


# ---- PyTorch Geometric


def _batch(cutoff: float, *others: Atoms):
    """A molecule and others together."""
    frames = FrameSet.from_atoms([suites.ethanol(), *others])
    return collate(frames, range(len(frames)), NeighbourCache(frames, cutoff), torch.float64)[0]


def _random(module: torch.nn.Module, seed: int) -> None:
    """Biases and norms away from their start, so that none of them hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def _theirs(model, graph) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies and forces of a PyG model; it has been given our edges."""
    positions = graph.positions.clone().requires_grad_()
    energy = model(graph.numbers, positions, graph.system)
    energy = energy[0] if isinstance(energy, tuple) else energy
    (slope,) = torch.autograd.grad(energy.sum(), positions)
    return energy.detach().flatten(), -slope


def test_pyg_schnet():
    models = pytest.importorskip("torch_geometric.nn.models", reason="torch-geometric is not installed")
    schnet = pytest.importorskip("torch_geometric.nn.models.schnet")
    graph = _batch(4.0, suites.skewed_crystal(), Atoms("O"))
    torch.manual_seed(3)
    theirs = models.SchNet(
        hidden_channels=16, num_filters=12, num_interactions=3, num_gaussians=10, cutoff=4.0,
        interaction_graph=lambda positions, _: (graph.edge_index, graph.edge_vectors(positions).norm(dim=-1)),
    ).double()  # fmt: skip
    _random(theirs, 4)
    # Constants that they round to float32, in float64.
    theirs.distance_expansion.offset = torch.linspace(0.0, 4.0, 10, dtype=torch.float64)
    theirs.distance_expansion.coeff = -0.5 / (4.0 / 9) ** 2
    for module in theirs.modules():
        if isinstance(module, schnet.ShiftedSoftplus):
            module.shift = math.log(2.0)
    ours = _potential("schnet", [1, 6, 8], features=16, layers=3, cutoff=4.0, n_radial=10, n_filters=12)
    # Their head has the shifted softplus where ours has SiLU.
    ours.head.mlp[1] = ShiftedSoftplus()
    ours.encoder.embedding.weight.data[:100] = theirs.embedding.weight.data
    for own, other in zip(ours.encoder.layers, theirs.interactions, strict=True):
        _take(own.filter_in, other.mlp[0])
        _take(own.filter_out, other.mlp[2])
        _take(own.project, other.conv.lin1)
        _take(own.update[0], other.conv.lin2)
        _take(own.update[2], other.lin)
    _take(ours.head.mlp[0], theirs.lin1)
    _take(ours.head.mlp[2], theirs.lin2)
    energy, forces = _theirs(theirs, graph)
    result = ours(graph)
    _equal(result.energy, energy)
    _equal(result.forces, forces)


class _Given(torch.nn.Module):
    """Our edges in the place of PyG's search, with self-loops last where it has them."""

    def __init__(self, graph, self_loops: bool) -> None:
        super().__init__()
        self.graph, self.self_loops = graph, self_loops

    def forward(self, positions, _):
        edges, vectors = self.graph.edge_index, self.graph.edge_vectors(positions)
        lengths = vectors.norm(dim=-1)
        if self.self_loops:
            own = torch.arange(len(positions)).expand(2, -1)
            edges = torch.cat([edges, own], dim=1)
            vectors = torch.cat([vectors, vectors.new_zeros(len(positions), 3)])
            lengths = torch.cat([lengths, lengths.new_zeros(len(positions))])
        # They normalise vectors in place.
        return edges, lengths, vectors.clone()


def _copy_visnet(ours: Potential, theirs) -> None:
    own, other = ours.encoder, theirs.representation_model
    own.embedding.weight.data[:100] = other.embedding.weight.data
    own.neighbour_embedding.weight.data[:100] = other.neighbor_embedding.embedding.weight.data
    _take(own.neighbour_filter, other.neighbor_embedding.distance_proj)
    _take(own.combine, other.neighbor_embedding.combine)
    _take(own.edge_filter, other.edge_embedding.edge_proj)
    own.norm.load_state_dict(other.out_norm.state_dict())
    for mine, its in zip(own.layers, other.vis_mp_layers, strict=True):
        mine.norm.load_state_dict(its.layernorm.state_dict())
        _take(mine.query_key_value, its.q_proj, its.k_proj, its.v_proj)
        _take(mine.edge, its.dk_proj, its.dv_proj, *([] if its.last_layer else [its.f_proj]))
        _take(mine.vector, its.vec_proj, *([] if its.last_layer else [its.w_trg_proj, its.w_src_proj]))
        _take(mine.spread, its.s_proj)
        _take(mine.out, its.o_proj)
    for mine, its in zip((ours.head.first, ours.head.second), theirs.output_model.output_network, strict=True):
        _take(mine.inner, its.vec1_proj)
        _take(mine.outer, its.vec2_proj)
        # They give the scalars first, then the norm of the vectors, as we do.
        _take(mine.mix[0], its.update_net[0])
        _take(mine.mix[2], its.update_net[2])


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("lmax", [1, 2])
def test_pyg_visnet(lmax, self_loops, monkeypatch):
    """Their vector messages end at the cutoff without an envelope; norms in the head are plain ones.

    Their code takes an edge between an atom and its own image for a self-loop, so the cell is larger than the cutoff;
    and without self-loops a lone atom has no vectors, where the slope of a plain norm is not a number.
    """
    models = pytest.importorskip("torch_geometric.nn.models", reason="torch-geometric is not installed")
    crystal = make_supercell(suites.skewed_crystal(), 2 * np.eye(3, dtype=int))
    graph = _batch(4.0, crystal, *([Atoms("O")] if self_loops else []))
    assert bool((graph.edge_index[0] != graph.edge_index[1]).all())
    assert bool(graph.shift.any())
    torch.manual_seed(5)
    theirs = models.ViSNet(lmax=lmax, num_heads=4, num_layers=3, hidden_channels=16, num_rbf=8, cutoff=4.0).double()
    _random(theirs, 6)
    block = theirs.representation_model
    block.distance = _Given(graph, self_loops)
    # Constants that they round to float32, in float64.
    start = math.exp(-4.0)
    block.distance_expansion.means = torch.linspace(start, 1.0, 8, dtype=torch.float64)
    block.distance_expansion.betas = torch.full((8,), (2 / 8 * (1 - start)) ** -2, dtype=torch.float64)
    ours = _potential(
        "visnet", [1, 6, 8], head="gated", features=16, layers=3, heads=4, n_radial=8, cutoff=4.0, lmax=lmax,
        envelope=False, self_loops=self_loops,
    )  # fmt: skip
    _copy_visnet(ours, theirs)
    monkeypatch.setattr("mlipkit.models.heads.NORM_EPS", 0.0)
    energy, forces = _theirs(theirs, graph)
    result = ours(graph)
    _equal(result.energy, energy)
    _equal(result.forces, forces)
    with torch.no_grad():
        x, v = block(graph.numbers, graph.positions, graph.system)
        features = ours.encode(graph)
    _equal(features.scalar, x)
    _equal(features.vector, v[:, :3])
    if features.tensor is not None:
        _equal(features.tensor, v[:, 3:])
