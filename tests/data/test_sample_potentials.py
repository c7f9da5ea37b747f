"""The ready potentials: what their cards say can be measured again, and the lesson they teach is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlipkit.data import samples
from mlipkit.events import Event, Judged
from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, state_from_atoms
from mlipkit.models import load
from mlipkit.runs.spec import load_spec, parse_spec
from mlipkit.training import evaluate

POTENTIALS = {"ethanol_50": 50, "ethanol_1000": 1000}
RECIPES = Path(__file__).parents[2] / "benchmarks" / "samples"


def failures(name: str, temperature: float, steps: int, seeds: list[int], folder: Path) -> int:
    """Replicas that fail within `steps` steps of 0.5 fs."""
    atoms = samples.load("ethanol_300K")[0]
    atoms.calc = None
    state = state_from_atoms([atoms] * len(seeds), seed=seeds)
    maxwell_boltzmann(state, temperature, seed=seeds)
    failed: list[Event] = []

    def sink(event: Event) -> None:
        if isinstance(event, Judged) and event.final and event.verdict.outcome == "failed":
            failed.append(event)

    options = {"temperature": temperature, "friction": 0.01}
    forces = PotentialForces(load(f"sample:{name}"))
    simulate(state, forces, "langevin", steps=steps, timestep=0.5, folder=folder, options=options, sink=sink)
    return len(failed)


def test_names() -> None:
    assert samples.potential_names() == tuple(sorted(POTENTIALS))


@pytest.mark.parametrize(("name", "frames"), POTENTIALS.items())
def test_card_is_complete(name: str, frames: int) -> None:
    card = samples.potential_card(name)
    assert card["errors"]["train"]["frames"] == frames
    for part in ("train", "validation", "test", "ethanol_600K"):
        assert card["errors"][part]["forces_mae"] > 0
    for field in ("title", "licence", "level_of_theory", "training", "versions", "command", "survival"):
        assert card[field], field
    assert card["training"]["steps"]
    assert card["training"]["seconds"]
    for data, digest in card["data_sha256"].items():
        assert digest == samples.card(data)["sha256"]
    assert parse_spec(card["training"]["specification"]) == load_spec(RECIPES / f"{name}.yaml")


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("data", ["ethanol_600K", "ethanol_nve@4010::40"])
def test_errors_of_the_card_are_measured_again(name: str, data: str) -> None:
    from mlipkit.data import read_source

    recorded = samples.potential_card(name)["errors"]["test" if "@" in data else data]
    figures = evaluate(load(f"sample:{name}"), read_source(f"sample:{data}"))
    for figure in ("energy_mae", "forces_mae", "forces_rmse"):
        assert figures[figure] == pytest.approx(recorded[figure], rel=1e-2, abs=2e-6)


def test_both_recipes_differ_in_the_number_of_frames_only() -> None:
    few, many = (load_spec(RECIPES / f"{name}.yaml").model_dump() for name in POTENTIALS)
    assert {key for key in few if few[key] != many[key]} == {"name", "data", "max_epochs"}
    cards = [samples.potential_card(name) for name in POTENTIALS]
    assert cards[0]["training"]["steps"] == cards[1]["training"]["steps"]
    assert cards[0]["errors"]["test"]["forces_mae"] > 2 * cards[1]["errors"]["test"]["forces_mae"]


def test_recorded_survival_separates_hot_from_cold() -> None:
    results = {name: samples.potential_card(name)["survival"]["results"] for name in POTENTIALS}
    for table in results.values():
        assert set(table) == {"300 K", "600 K", "900 K"}
        for row in table.values():
            assert row["of"] == 20
            assert len(row["times_to_failure_ps"]) == row["failed"] == sum(row["checks"].values())
    assert results["ethanol_50"]["900 K"]["failed"] >= 16
    assert results["ethanol_50"]["300 K"]["failed"] <= 1
    assert results["ethanol_1000"]["300 K"]["failed"] <= 1
    control = samples.potential_card("ethanol_50")["survival"]["control"]["GFN2-xTB 900 K"]
    assert control["failed"] <= 1


@pytest.mark.full
def test_fifty_frames_fail_hot_and_last_cold(tmp_path: Path) -> None:
    seeds = np.arange(100, 108).tolist()
    assert failures("ethanol_50", 900.0, 2500, seeds, tmp_path / "hot") >= 6
    assert failures("ethanol_50", 300.0, 500, seeds, tmp_path / "cold") == 0
