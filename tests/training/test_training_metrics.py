import dataclasses

import numpy as np
import pytest
import torch
from emt_sets import clusters, crystals, make_potential

from mlipkit.data import FrameSet, NeighbourCache, collate
from mlipkit.errors import LabelError, SpecError
from mlipkit.models import Prediction
from mlipkit.training import TrainSettings, evaluate, table
from mlipkit.training.metrics import ErrorSums, compact, monitored, objective


def hand():
    """Water-like triple and a single O: numbers [8,1,1] and [8]; tags a, b; energies off by 3 and -1 eV."""
    frames = FrameSet.from_arrays(
        numbers=[8, 1, 1, 8],
        positions=np.arange(12.0).reshape(4, 3),
        n_atoms=[3, 1],
        energy=[0.0, 0.0],
        forces=np.zeros((4, 3)),
        source=["one", "two"],
        tag=["a", "b"],
    )
    graph, targets = collate(frames, [0, 1], NeighbourCache(frames, 0.5), torch.float64)
    forces = torch.zeros(4, 3, dtype=torch.float64)
    forces[0, 0], forces[1, 1], forces[3, 2] = 3.0, -1.0, 1.0
    energy = torch.tensor([3.0, -1.0], dtype=torch.float64)
    return frames, graph, targets, Prediction(energy, forces, None, None, energy)


def test_figures_by_hand():
    frames, graph, targets, prediction = hand()
    sums = ErrorSums([1, 8], frames.sources, frames.tags)
    sums.add(graph, targets, prediction)
    figures = sums.figures()
    expected = {
        "energy_mae": 1.0,
        "energy_rmse": 1.0,
        "energy_n": 2,
        "energy_total_mae": 2.0,
        "energy_total_rmse": np.sqrt(5.0),
        "forces_mae": 5 / 12,
        "forces_rmse": np.sqrt(11 / 12),
        "forces_mae/element=O": 4 / 6,
        "forces_mae/element=H": 1 / 6,
        "forces_rmse/element=H": np.sqrt(1 / 6),
        "forces_n/element=H": 6,
        "energy_mae/source=one": 1.0,
        "forces_mae/source=two": 1 / 3,
        "forces_mae/tag=a": 4 / 9,
        "energy_rmse/tag=b": 1.0,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert not any(name.startswith("stress") for name in figures)


def test_missing_labels_are_no_errors_and_broken_predictions_are():
    frames, graph, targets, prediction = hand()
    energy = targets.energy.clone()
    energy[0] = torch.nan
    missing = dataclasses.replace(targets, energy=energy)
    sums = ErrorSums([1, 8], frames.sources, frames.tags)
    sums.add(graph, missing, prediction)
    assert sums.figures()["energy_mae"] == 1.0
    assert sums.figures()["energy_n"] == 1
    assert "energy_mae/source=one" not in sums.figures()
    for broken in (torch.nan, torch.inf):
        sums = ErrorSums([1, 8])
        sums.add(graph, missing, dataclasses.replace(prediction, energy=torch.tensor([0.0, broken])))
        assert np.isnan(sums.figures()["energy_mae"])


def test_any_partition_gives_the_same_figures():
    frames = clusters(7, seed=5, sizes=(5, 4, 3))
    potential = make_potential(frames).double()
    reference = evaluate(potential, frames, 7)
    for size in (1, 2, 3):
        assert evaluate(potential, frames, size) == pytest.approx(reference, rel=1e-10)


def test_evaluate_leaves_the_potential_as_it_is():
    frames = clusters(3, seed=5)
    potential = make_potential(frames).train()
    frozen = next(potential.encoder.parameters()).requires_grad_(False)
    evaluate(potential, frames)
    assert potential.training
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in potential.parameters() if p is not frozen)


def test_evaluate_measures_stress_where_there_is_some():
    frames = crystals(3, seed=5)
    potential = make_potential(frames).double()
    figures = evaluate(potential, frames)
    predicted = [
        potential(collate(frames, [i], NeighbourCache(frames, 4.0), torch.float64)[0], stress=True).stress
        for i in range(3)
    ]
    error = torch.cat(predicted).numpy() - frames.stress
    assert figures["stress_mae"] == pytest.approx(np.abs(error).mean())
    assert figures["stress_rmse"] == pytest.approx(np.sqrt((error**2).mean()))


def test_evaluate_needs_a_label():
    frames = clusters(2, seed=5).with_labels(energy=np.nan, forces=np.nan)
    with pytest.raises(LabelError, match="nothing to compare"):
        evaluate(make_potential(clusters(2, seed=5)), frames)


def test_one_table_for_all_splits():
    rows = table(
        {
            "train": {"forces_mae": 1.0, "forces_mae/element=O": 2.0, "energy_mae": 0.5},
            "test": {"forces_mae": 3.0, "forces_rmse/element=O": 4.0},
        }
    )
    assert rows == [
        {"split": "train", "group": "all", "name": "", "forces_mae": 1.0, "energy_mae": 0.5},
        {"split": "train", "group": "element", "name": "O", "forces_mae": 2.0},
        {"split": "test", "group": "all", "name": "", "forces_mae": 3.0},
        {"split": "test", "group": "element", "name": "O", "forces_rmse": 4.0},
    ]


def test_objective_weights_errors_like_the_loss():
    figures = {"energy_mae": 1.0, "energy_rmse": 2.0, "energy_total_mae": 10.0, "forces_mae": 3.0, "forces_rmse": 4.0}
    assert objective(figures, TrainSettings(loss="l1", energy_weight=2, forces_weight=5)) == 2 + 15
    assert objective(figures, TrainSettings(loss="l2", energy_weight=2, forces_weight=5)) == 8 + 80
    total = TrainSettings(loss="l1", energy_weight=2, forces_weight=0, energy_unit="total")
    assert objective(figures, total) == 20
    assert np.isnan(objective({}, TrainSettings()))


def test_monitor_must_name_a_figure():
    assert monitored({"forces_mae": 3.0}, TrainSettings(monitor="forces_mae")) == 3.0
    with pytest.raises(SpecError, match="forces_mae"):
        monitored({"forces_mae": 3.0}, TrainSettings(monitor="force_mae"))


def test_compact_keeps_figures_and_drops_crowds():
    figures = {"forces_mae": 1.0, **{f"forces_mae/source={i}": 1.0 for i in range(5)}, "forces_mae/tag=a": 1.0}
    assert set(compact(figures, 4)) == {"forces_mae", "forces_mae/tag=a"}
    assert compact(figures, 5) == figures
