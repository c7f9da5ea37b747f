"""Dynamic training: roll-outs, their gradients, their losses, their data source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mlipkit.data import FrameSet, fit_atomic_energies, samples
from mlipkit.data.graph import collate
from mlipkit.data.neighbours import NeighbourCache, neighbour_list
from mlipkit.errors import DataError, SpecError
from mlipkit.models import BasePotential, Potential, build_encoder
from mlipkit.strategies.dynamic.evaluation import nve_rollouts
from mlipkit.strategies.dynamic.losses import RolloutLoss, Sequences, species_error
from mlipkit.strategies.dynamic.overlap import edge_overlap, suggested_refresh
from mlipkit.strategies.dynamic.rollout import RolloutSettings, roll_out
from mlipkit.strategies.dynamic.runs import AIMDRuns, aimd_runs
from mlipkit.strategies.dynamic.source import SequenceSource
from mlipkit.strategies.dynamic.validation import RolloutValidation
from mlipkit.training import TrainSettings, train
from mlipkit.training.batches import FrameSource
from mlipkit.training.objective import StepState

SPRING = 20.0


class Springs(BasePotential):
    """Every atom on a spring to the origin: E = ½ k R², with one weight, k."""

    def __init__(self, k: float = SPRING) -> None:
        super().__init__([1, 6, 8])
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))

    cutoff = 3.0  # type: ignore[assignment]

    def evaluate(self, graph, positions, cell):
        return 0.5 * self.k * (positions * positions).sum(1), None


def springs_graph(positions: torch.Tensor):
    frames = FrameSet.from_arrays([8] * len(positions), positions.numpy()[None])
    return collate(frames, [0], NeighbourCache(frames, 3.0), torch.float64)[0].moved(positions, torch.zeros(1, 3, 3))


def painn(seed: int = 0, cutoff: float = 4.0) -> Potential:
    torch.manual_seed(seed)
    encoder = build_encoder("painn", features=8, layers=2, cutoff=cutoff, n_radial=6)
    return Potential(encoder, atomic_energies=fit_atomic_energies(samples.load("ethanol_nve"))).double()


@pytest.fixture(scope="module")
def ethanol() -> AIMDRuns:
    """Three runs of forty consecutive frames at 0.5 fs."""
    frames = samples.load("ethanol_nve")
    rows = np.concatenate([np.flatnonzero(frames.trajectory == k)[:40] for k in np.unique(frames.trajectory)[:3]])
    return aimd_runs(frames.select(rows))


def rolled(potential, batch, **settings):
    extra: Sequences = batch.extra
    return list(roll_out(
        potential, extra.graphs, extra.displacement, extra.masses, extra.timestep, RolloutSettings(**settings),
        frozen=extra.frozen,
    ))  # fmt: skip


# ---- the step


def oscillation(timestep: float, steps: int) -> list:
    """A single atom on its spring, from rest at 0.3 Å."""
    x = torch.tensor([[0.3, 0.0, 0.0]], dtype=torch.float64)
    graphs = [springs_graph(x)] * (steps + 1)
    ones = torch.ones(1, dtype=torch.float64)
    return list(roll_out(Springs(), graphs, torch.zeros_like(x), 16.0 * ones, timestep * ones, create_graph=False))


def test_the_step_is_of_second_order_and_keeps_the_energy():
    frequency = np.sqrt(SPRING * 9.648533e-3 / 16.0)
    errors = []
    for timestep, steps in ((0.5, 40), (0.25, 80)):
        path = oscillation(timestep, steps)
        exact = 0.3 * np.cos(frequency * timestep * steps)
        errors.append(abs(path[-1].positions[0, 0].item() - exact))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)
    path = oscillation(0.5, 2000)
    kinetic = [0.5 * 16.0 * float((s.displacement / 0.5).square().sum()) / 9.648533e-3 for s in path]
    total = np.array([float(s.energy.detach()) + k for s, k in zip(path, kinetic, strict=True)])
    assert np.ptp(total) < 1e-3 * total[0]


def test_a_roll_out_goes_back_the_way_it_came():
    path = oscillation(0.5, 50)
    graphs = [springs_graph(path[-1].positions)] * 51
    ones = torch.ones(1, dtype=torch.float64)
    back = list(roll_out(Springs(), graphs, -path[-1].displacement, 16 * ones, 0.5 * ones, create_graph=False))
    assert abs(back[-1].positions[0, 0].item() - 0.3) < 1e-10
    euler = RolloutSettings(update="euler")
    there = list(roll_out(Springs(), graphs, path[0].displacement, 16 * ones, 0.5 * ones, euler, create_graph=False))
    again = list(roll_out(
        Springs(), [springs_graph(there[-1].positions)] * 51, -there[-1].displacement, 16 * ones, 0.5 * ones, euler,
        create_graph=False,
    ))  # fmt: skip
    assert abs(again[-1].positions[0, 0].item() - graphs[0].positions[0, 0].item()) > 1e-6


def test_momentum_is_kept(ethanol):
    source = SequenceSource(ethanol, 4.0, torch.float64, [12])
    batch = source.batch(np.arange(3))
    path = rolled(painn(), batch)
    mass, system = batch.extra.masses.unsqueeze(1), batch.graph.system
    momenta = [torch.zeros(3, 3).double().index_add_(0, system, mass * s.displacement.detach()) for s in path]
    assert max(float((one - momenta[0]).abs().max()) for one in momenta) < 1e-8


def test_its_own_path_has_no_error_and_each_structure_its_own_time_step(ethanol):
    """The reference made by the potential itself; runs of 0.5 and of 1 fs in one batch."""
    model = painn(3)
    made = []
    for number, timestep in enumerate((0.5, 1.0)):
        start = ethanol.frames.atoms(int(ethanol.starts[number]))
        graph, _ = collate(
            ethanol.frames, [int(ethanol.starts[number])], NeighbourCache(ethanol.frames, 8.0), torch.float64
        )
        ones = torch.full((9,), timestep, dtype=torch.float64)
        masses = torch.tensor(start.get_masses())
        velocities = torch.tensor(ethanol.velocities(int(ethanol.starts[number])))
        path = list(roll_out(model, [graph] * 12, velocities * ones[:, None], masses, ones, create_graph=False))
        made.append(FrameSet.from_arrays(
            start.numbers, np.stack([s.positions.numpy() for s in path]),
            velocities=np.stack([s.displacement.numpy() / timestep for s in path]),
            energy=np.array([float(s.energy) for s in path]), forces=np.stack([s.forces.numpy() for s in path]),
            trajectory=number, time=timestep * np.arange(12),
        ))  # fmt: skip
    runs = aimd_runs(FrameSet.concat(made))
    assert runs.timestep.tolist() == [0.5, 1.0]
    source = SequenceSource(runs, model.cutoff, torch.float64, [8])
    batch = source.batch(np.arange(len(source)))
    path = rolled(model, batch)
    for step, forces in zip(path, batch.extra.forces, strict=True):
        assert float(species_error(step.forces.detach() - forces, batch.graph).max()) < 1e-6


# ---- gradients


def loss_of(model, batch, **settings) -> torch.Tensor:
    term = RolloutLoss(settings=RolloutSettings(**settings))
    return term(StepState(model, extra=batch.extra), batch.graph, batch.targets, None)[0]


def slopes(model, batch, **settings) -> torch.Tensor:
    weights = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss_of(model, batch, **settings), weights, allow_unused=True)
    return torch.cat([torch.zeros(p.numel()).double() if g is None else g.reshape(-1)
                      for p, g in zip(weights, found, strict=True)])  # fmt: skip


def test_gradients_run_through_time_and_are_those_of_the_loss(ethanol):
    model, batch = painn(), SequenceSource(ethanol, 4.0, torch.float64, [4]).batch(np.arange(2))
    through, apart = slopes(model, batch), slopes(model, batch, bptt=False)
    weight = next(p for p in model.parameters() if p.ndim == 2 and p.requires_grad)
    offset = sum(p.numel() for p in list(model.parameters())[: [id(p) for p in model.parameters()].index(id(weight))])
    for entry in (0, weight.numel() // 2):
        step, values = 1e-5, []
        for side in (1, -1):
            with torch.no_grad():
                weight.view(-1)[entry] += side * step
            values.append(float(loss_of(model, batch)))
            with torch.no_grad():
                weight.view(-1)[entry] -= side * step
        assert through[offset + entry].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-9)
    assert not torch.allclose(through, apart, rtol=1e-3)
    single = SequenceSource(ethanol, 4.0, torch.float64, [1]).batch(np.arange(2))
    assert torch.equal(slopes(model, single), slopes(model, single, bptt=False))


def test_computing_again_gives_the_same_gradients(ethanol):
    model, batch = painn(), SequenceSource(ethanol, 4.0, torch.float64, [5]).batch(np.arange(3))
    for settings in ({}, {"window": 2}, {"bptt": False}):
        kept, again = slopes(model, batch, **settings), slopes(model, batch, recompute=True, **settings)
        torch.testing.assert_close(again, kept, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(slopes(model, batch, window=2), slopes(model, batch), rtol=1e-3)


@pytest.mark.parametrize(("settings", "reaches"), [({}, True), ({"bptt": False}, False), ({"window": 3}, False)])
def test_the_start_is_felt_in_later_forces_only_through_time(ethanol, settings, reaches):
    batch = SequenceSource(ethanol, 4.0, torch.float64, [4]).batch(np.arange(1))
    start = batch.graph.positions.clone().requires_grad_()
    batch.extra.graphs[0] = batch.graph.moved(start, batch.graph.cell)  # type: ignore[index]
    last = rolled(painn(), batch, **settings)[3]
    error = species_error(last.forces - batch.extra.forces[3], batch.graph).sum()
    (slope,) = torch.autograd.grad(error, start, allow_unused=True)
    assert (slope is not None and float(slope.abs().max()) > 0) == reaches


# ---- losses


def test_errors_are_summed_over_species_and_the_first_step_weighs_fifty_times():
    positions = torch.zeros(4, 3, dtype=torch.float64)
    frames = FrameSet.from_arrays([6, 6, 6, 1], np.arange(12.0).reshape(1, 4, 3))
    graph, targets = collate(frames, [0], NeighbourCache(frames, 1.0), torch.float64)
    residual = torch.tensor([[0.3, 0, 0], [0, -0.6, 0], [0, 0, 0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    assert species_error(residual, graph).item() == pytest.approx(0.9 / 9 + 1.0)
    missing = residual.clone()
    missing[3] = torch.nan
    assert species_error(missing, graph, torch.isfinite(missing).all(1)).item() == pytest.approx(0.1)
    # Springs of k = 0 give no force: the error of a step is that of the reference forces.
    ones = torch.ones(4, dtype=torch.float64)
    forces = torch.stack([residual, 2 * residual, 3 * residual])
    extra = Sequences([graph] * 3, forces, positions, ones, ones)
    loss, figures = RolloutLoss()(StepState(Springs(0.0), extra=extra), graph, targets, None)
    assert loss.item() == pytest.approx(1.1 * (50 + 2 + 3))
    assert figures["loss_forces"].item() == pytest.approx(1.1 * 2)
    one = Sequences([graph], forces[:1], positions, ones, ones)
    assert RolloutLoss()(StepState(Springs(0.0), extra=one), graph, targets, None)[0].item() == pytest.approx(1.1)
    labelled = frames.with_labels(energy=np.array([8.0]), forces=residual.numpy())
    _, targets = collate(labelled, [0], NeighbourCache(labelled, 1.0), torch.float64)
    assert RolloutLoss()(StepState(Springs(0.0), extra=one), graph, targets, None)[0].item() == pytest.approx(1.1 + 2.0)


@pytest.mark.parametrize("kind", ["mepa", "mae", "mse"])
def test_a_prediction_that_is_no_number_is_no_missing_label(ethanol, kind: str):
    broken = Springs(float("nan"))
    batch = SequenceSource(ethanol, 3.0, torch.float64, [3]).batch(np.arange(2))
    loss, figures = RolloutLoss(kind)(StepState(broken, extra=batch.extra), batch.graph, batch.targets, None)  # type: ignore[arg-type]
    assert torch.isnan(loss)
    assert torch.isnan(figures["loss_forces"])


def test_more_carbon_of_the_same_error_changes_nothing():
    def error(n: int) -> float:
        frames = FrameSet.from_arrays([6] * n + [1], np.arange(3.0 * n + 3).reshape(1, n + 1, 3))
        graph, _ = collate(frames, [0], NeighbourCache(frames, 1.0), torch.float64)
        residual = torch.full((n + 1, 3), 0.2, dtype=torch.float64)
        residual[-1] = 0.5
        return species_error(residual, graph).item()

    assert error(1) == pytest.approx(error(7)) == pytest.approx(0.7)


# ---- the data source


def test_edges_of_a_step_are_those_of_its_frame_or_of_the_refreshed_one(ethanol):
    for refresh, frames_used in ((1, range(12)), (5, [0] * 5 + [5] * 5 + [10] * 2), (None, [0] * 12)):
        source = SequenceSource(ethanol, 3.0, torch.float64, [12], refresh=refresh)
        start = int(source.points[3])
        graphs = source.batch(np.array([3])).extra.graphs
        for graph, used, step in zip(graphs, frames_used, range(12), strict=True):
            atoms = ethanol.frames.atoms(start + used)
            edges = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)[0]
            assert set(zip(*graph.edge_index.tolist(), strict=True)) == set(zip(*edges.tolist(), strict=True))
            there = ethanol.frames.atoms(start + step).positions
            np.testing.assert_allclose(graph.positions.numpy(), there, atol=1e-12)


def water_runs(wrapped: bool) -> AIMDRuns:
    """Rigid drift of the packaged water across the faces of its box."""
    atoms = samples.load("water_liquid").atoms(0)
    images = []
    for step in range(14):
        moved = atoms.copy()
        moved.positions += 0.4 * step
        moved.set_velocities(np.full((len(atoms), 3), 0.4 / 0.5 / 0.09822694788464063))
        if wrapped:
            moved.wrap()
        images.append(moved)
    frames = FrameSet.from_atoms(images)
    n = sum(map(len, images))
    labelled = frames.with_labels(energy=np.zeros(14), forces=np.zeros((n, 3)))
    return aimd_runs(labelled.with_table(trajectory=0, time=0.5 * np.arange(14)), "difference")


def test_wrapped_and_unwrapped_runs_are_the_same():
    one, two = water_runs(True), water_runs(False)
    np.testing.assert_allclose(np.diff(one.frames.positions.reshape(14, -1, 3), axis=0), 0.4, atol=1e-9)
    np.testing.assert_allclose(one.velocities(3), 0.8, atol=1e-9)
    for runs in (one, two):
        source = SequenceSource(runs, 3.0, torch.float64, [6])
        graphs = source.batch(np.array([2])).extra.graphs
        lengths = [graph.edge_vectors().norm(dim=1).sort().values for graph in graphs]
        for length in lengths[1:]:
            torch.testing.assert_close(length, lengths[0], rtol=0, atol=1e-9)
    assert suggested_refresh(edge_overlap(one, 3.0, (1, 5, 9)), (1, 5, 9)) == 9


def test_the_number_of_start_points_is_that_of_the_paper():
    sizes = np.full(100, 2289)
    sizes[:25] += 1
    runs = AIMDRuns(None, np.concatenate([[0], np.cumsum(sizes)]), np.full(100, 0.5), False)  # type: ignore[arg-type]
    assert sizes.sum() == 228_925
    assert len(runs.start_points(20)) == 226_825
    with pytest.raises(DataError, match="no run is long enough"):
        runs.start_points(2300)


def test_neighbour_lists_overlap(ethanol):
    lags = (1, 3, 9)
    found = edge_overlap(ethanol, 4.0, lags)
    assert set(found) == {"H", "C", "O"}
    assert all(np.all((values > 0.5) & (values <= 1)) for values in found.values())
    frozen = FrameSet.from_arrays(
        [6, 1], np.tile([[[0.0, 0, 0], [1.0, 0, 0]]], (12, 1, 1)), trajectory=0, time=np.arange(12.0)
    )
    still = AIMDRuns(frozen, np.array([0, 12]), np.ones(1), True)
    assert all((values == 1).all() for values in edge_overlap(still, 2.0, lags).values())
    jumping = np.zeros((12, 2, 3))
    jumping[:, 1, 0] = np.where(np.arange(12) % 2, 1.0, 5.0)
    apart = AIMDRuns(FrameSet.from_arrays([6, 1], jumping), np.array([0, 12]), np.ones(1), True)
    odd, even = edge_overlap(apart, 2.0, (1, 2))["C"]
    assert (odd, even) == (0.0, 1.0)
    assert suggested_refresh({"H": np.array([0.99, 0.96, 0.9])}, lags) == 3


def test_frames_that_do_not_follow_each_other_are_refused():
    frames = samples.load("ethanol_nve")
    run = frames.select(np.flatnonzero(frames.trajectory == 0))
    with pytest.raises(DataError, match=r"do not follow each other.*more than 0\.5; found"):
        aimd_runs(run.select(np.arange(0, 400, 8)))
    assert run.velocities is not None
    shuffled = np.random.default_rng(0).permutation(run.velocities[: 9 * 40])
    mixed = _with_velocities(run.select(np.arange(40)), shuffled)
    with pytest.raises(DataError, match=r"velocities do not belong.*found -?0\."):
        aimd_runs(mixed)
    with pytest.raises(DataError, match="belong to no run"):
        aimd_runs(run.select(np.arange(40)).with_table(trajectory=-1))
    gaps = run.select([*range(10), *range(12, 30)])
    with pytest.raises(DataError, match="not equally spaced"):
        aimd_runs(gaps)
    by_difference = aimd_runs(run.select(np.arange(40)), "difference")
    from_file = aimd_runs(run.select(np.arange(40)))
    np.testing.assert_allclose(by_difference.velocities(7), from_file.velocities(7), atol=2e-3)
    assert by_difference.start_points(5)[0] == 1
    assert from_file.start_points(5)[0] == 0


def test_a_single_frame_that_is_missing_is_found():
    """Also where frames were numbered anew, so that times tell nothing."""
    frames = samples.load("ethanol_nve")
    run = frames.select(np.flatnonzero(frames.trajectory == 3)[:60])
    short = run.select([*range(30), *range(31, 60)]).with_table(time=0.5 * np.arange(59))
    with pytest.raises(DataError, match=r"run 3: between frames 29 and 30: a frame was left out.*found (1\.9|2\.0)"):
        aimd_runs(short)
    assert len(aimd_runs(run)) == 1


@pytest.mark.parametrize("factor", [10.18, 1000.0, 0.1])
def test_velocities_in_other_units_are_refused(factor: float):
    """They correlate perfectly."""
    frames = samples.load("ethanol_nve")
    run = frames.select(np.flatnonzero(frames.trajectory == 0)[:40])
    found = re.escape(f"{factor:.3g}")
    with pytest.raises(DataError, match=f"validation: velocities are not in Å/fs.*found {found} times"):
        aimd_runs(_with_velocities(run, factor * np.asarray(run.velocities)), part="validation")
    with pytest.raises(DataError, match=r"not in Å/fs.*found 2 times"):
        aimd_runs(run.with_table(time=2 * run.time))


def test_what_is_no_run_is_said_with_its_place():
    frames = samples.load("ethanol_nve")
    run = frames.select(np.flatnonzero(frames.trajectory == 2)[:40])
    with pytest.raises(DataError, match="validation: no frame"):
        aimd_runs(run.select([]), part="validation")
    with pytest.raises(DataError, match=r"test: run 2: at least two frames"):
        aimd_runs(run.select([0]), part="test")
    with pytest.raises(DataError, match=r"run 2: a run of fewer than three frames; found 2\. Leave"):
        aimd_runs(run.select([0, 1]))
    holes = np.array(run.velocities)
    holes[9 * 7 + 3] = np.nan
    with pytest.raises(DataError, match=r"run 2: frame 7: velocities are missing"):
        aimd_runs(_with_velocities(run, holes))
    with pytest.raises(DataError, match=r"velocities do not belong.*found nan"):
        aimd_runs(_with_velocities(run, np.zeros_like(holes)))
    jump = np.array(run.positions).reshape(40, 9, 3)
    jump[30:, 0] += 3.0
    moved = FrameSet.from_arrays(
        run.numbers, jump.reshape(-1, 3), run.n_atoms, trajectory=run.trajectory, time=run.time
    )
    with pytest.raises(DataError, match=r"run 2: frame 30: frames do not follow.*1\.5 Å; found [45]\.\d\d Å"):
        aimd_runs(moved)
    with pytest.raises(DataError, match=r"validation: no run is long enough for roll-outs of 60.*at least 62.*most 40"):
        aimd_runs(run, part="validation").start_points(60)
    by_difference = aimd_runs(run, "difference")
    for runs in (aimd_runs(run), by_difference):
        assert len(runs.start_points(runs.longest)) == 1
        with pytest.raises(DataError, match=f"at least {40 + 1} frames"):
            runs.start_points(runs.longest + 1)


def _with_velocities(frames: FrameSet, velocities) -> FrameSet:
    return FrameSet.from_arrays(
        frames.numbers, frames.positions, frames.n_atoms, velocities=velocities, energy=frames.energy,
        forces=frames.forces, trajectory=frames.trajectory, time=frames.time,
    )  # fmt: skip


def test_atoms_that_are_frozen_stay_and_count_in_no_error(ethanol):
    frozen = np.arange(9) < 3
    source = SequenceSource(ethanol, 4.0, torch.float64, [4], frozen=frozen)
    batch = source.batch(np.arange(2))
    path = rolled(painn(), batch)
    still = torch.tensor(np.tile(frozen, 2))
    for step in path:
        assert torch.equal(step.positions[still], batch.graph.positions[still])
    assert not torch.equal(path[-1].positions[~still], batch.graph.positions[~still])
    assert torch.isnan(batch.extra.forces[:, still]).all()


@pytest.mark.parametrize("structures", [[], [0], [2, 1]])
def test_a_curriculum_never_gets_shorter(ethanol, structures):
    with pytest.raises(SpecError, match="not a curriculum"):
        SequenceSource(ethanol, 4.0, torch.float64, structures)


# ---- training


SETTINGS = TrainSettings(
    batch_size=4, max_steps=3, precision="float64", schedule="constant", ema_decay=None, clip_norm=1.0, max_epochs=50,
)  # fmt: skip


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_one_structure_is_ordinary_training_bit_for_bit(ethanol, tmp_path):
    source = SequenceSource(ethanol, 4.0, torch.float64, [1])
    single = FrameSource(ethanol.frames.select(source.points), 4.0, torch.float64)
    models = []
    for name, data in (("sequences", source), ("frames", single)):
        model = painn(1)
        train(model, data, ethanol.frames.select([0]), SETTINGS, folder=tmp_path / name, terms=[RolloutLoss()])
        models.append(weights(model))
    assert torch.equal(*models)
    assert not torch.equal(models[0], weights(painn(1)))


def test_the_curriculum_goes_on_where_it_was_interrupted(ethanol, tmp_path):
    settings = TrainSettings(
        batch_size=8, points_per_epoch=8, max_steps=9, precision="float64", schedule="plateau", schedule_patience=1,
        patience=1, stop_at_minimum_rate=False, stage_learning_rate=1e-4, ema_decay=None, monitor="rollout_mepa",
    )  # fmt: skip

    class Scripted:
        """Gets worse after the first look of each stage."""

        def __init__(self, source) -> None:
            self.source, self.last = source, (-1, 0.0)
            self.figures = {"rollout_mepa": "eV/Å"}

        def __call__(self, potential):
            stage, value = self.last
            value = value + 1.0 if stage == self.source.stage else 1.0
            self.last = self.source.stage, value
            return {"rollout_mepa": value}

    def go(folder: Path, steps: int) -> tuple[SequenceSource, torch.Tensor]:
        source, model = SequenceSource(ethanol, 4.0, torch.float64, [1, 2, 4]), painn(2)
        now = TrainSettings(**{**settings.to_json(), "max_steps": steps})
        train(model, source, ethanol.frames.select([0]), now, folder=folder, terms=[RolloutLoss()],
              validate=Scripted(source))  # fmt: skip
        return source, weights(model)

    whole, _ = go(tmp_path / "whole", 9)
    assert whole.n_structures == 4
    part, _ = go(tmp_path / "parts", 2)
    again, _ = go(tmp_path / "parts", 9)
    assert part.n_structures < again.n_structures == 4
    for name in ("best_stage_1", "best_stage_2"):
        assert list((tmp_path / "whole" / "checkpoints").glob(f"*{name}*")), "the best of each stage is kept"


def test_roll_outs_that_go_astray_are_not_made_longer(ethanol):
    source = SequenceSource(ethanol, 4.0, torch.float64, [1, 2, 4])
    assert source.advance() == "roll-outs of 2 structures"
    source.apart = 0.3
    assert source.advance() == ""
    assert source.n_structures == 2
    other = SequenceSource(ethanol, 4.0, torch.float64, [1, 2, 4])
    other.restore(source.state())
    assert (other.n_structures, other.apart) == (2, 0.3)


def test_runs_of_several_time_steps_are_rolled_out_together():
    frames = samples.load("ethanol_nve")
    rows = np.flatnonzero(frames.trajectory == 0)
    fine, coarse = frames.select(rows[:40]), frames.select(rows[40:120:2]).with_table(trajectory=5)
    runs = aimd_runs(FrameSet.concat([coarse, fine]))
    starts = np.array([3, 45, 4, 50])
    found = nve_rollouts(painn(), runs, starts, 4)
    assert found.timestep.tolist() == [1.0, 0.5, 1.0, 0.5]
    for row, (alone, start) in enumerate([(coarse, 3), (fine, 5), (coarse, 4), (fine, 10)]):
        one = nve_rollouts(painn(), aimd_runs(alone), [start], 4)
        np.testing.assert_allclose(found.error[row], one.error[0], rtol=1e-9)
        np.testing.assert_allclose(found.apart[row], one.apart[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.energy[row], one.energy[0], rtol=1e-12)


def test_frames_without_forces_are_no_perfect_roll_outs(ethanol):
    frames = ethanol.frames
    for forces, match in (
        (None, r"validation: frame 18 of run 0: forces are missing.*6 of 6 frames"),
        (np.where(np.arange(len(frames.positions))[:, None] // 9 == 22, np.nan, frames.forces),
         r"validation: frame 22 of run 0: forces are missing.*1 of 6 frames"),
    ):  # fmt: skip
        bare = FrameSet.from_arrays(
            frames.numbers, frames.positions, frames.n_atoms, velocities=frames.velocities, forces=forces,
            trajectory=frames.trajectory, time=frames.time,
        )  # fmt: skip
        runs = aimd_runs(bare, part="validation")
        with pytest.raises(DataError, match=match):
            nve_rollouts(painn(), runs, [18, 20], 4)
    assert np.isfinite(nve_rollouts(painn(), runs, [23], 4).mepa()).all()


def test_an_evaluation_of_the_reference_itself_finds_nothing(ethanol):
    model = painn(5)
    starts = ethanol.start_points(20)[[0, 25]]
    found = nve_rollouts(model, ethanol, starts, 20)
    assert found.error.shape == (2, 20, 3)
    assert found.apart[:, 0].max() == 0
    np.testing.assert_allclose(found.error[:, 0], found.on_reference[:, 0], rtol=1e-6)
    assert found.mepa() == pytest.approx(found.error.sum(axis=2).mean(axis=1))
    assert set(found.per_element()) == {"H", "C", "O"}
    assert np.all(np.abs(found.drift()) < 50)
    assert np.all(found.divergence_time(1e-4) > 0)
    assert np.isinf(found.divergence_time(1e3)).all()
    source = SequenceSource(ethanol, model.cutoff, torch.float64, [1, 4])
    source.advance()
    figures = RolloutValidation(ethanol, starts, 20, source)(model)
    assert figures["rollout_mepa"] == pytest.approx(found.mepa().mean())
    assert source.apart == pytest.approx(found.apart[:, 3, 0].mean())
    with pytest.raises(DataError, match="too few frames behind a start"):
        nve_rollouts(model, ethanol, [39], 20)
