"""The benchmark's arithmetic and its list of jobs; what it measures is not a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mlipkit.data import samples
from mlipkit.data.graph import graph_of
from mlipkit.models import Potential, build_encoder
from mlipkit.ops import use_version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from bench import engines, floors, jobs, table  # noqa: E402


def line(engine: str, cpu: float, *, group: str = "a", job: str = "painn.ef.water_2", **changes) -> dict:
    facts = {"edges": 100, "atoms": 10, "parameters": 1200, "without_embedding": 1000}
    made = {
        "group": group, "job": job, "engine": engine, "threads": 1, "settings": "tuned", "device": "cpu",
        "cpu_ms": [0.9 * cpu, cpu, 1.1 * cpu], "wall_ms": [2 * cpu] * 3, "peak_mib": 10 * cpu, "facts": facts,
        "gflop": 1.0, "machine_gflops": 100.0,
    }  # fmt: skip
    return {**made, **changes}


def trained(engine: str, seed: int, mae: float, data: str = "md17") -> dict:
    return {
        "engine": engine, "model": "painn", "data": data, "steps": 10, "settings": {"seed": seed},
        "test": {"forces_mae": mae},
    }  # fmt: skip


def test_quartiles_are_in_ms_per_unit():
    assert table.quartiles([1.0, 2.0, 3.0, 4.0, 5.0], 10) == [200.0, 300.0, 400.0]


def test_the_better_peer_is_the_one_compared_with():
    found = table.compare([line("mlipkit", 20.0), line("schnetpack", 50.0), line("graph-pes", 40.0)])
    assert found is not None
    assert found["best"]["engine"] == "graph-pes"
    assert found["ratio"] == pytest.approx(2.0)
    assert found["floor_share"] == pytest.approx(0.5)  # 1 GFLOP at 100 GFLOP/s is 10 of 20 ms
    assert table.compare([line("schnetpack", 1.0)]) is None


def test_only_what_was_measured_together_is_compared():
    lines = [line("mlipkit", 10.0), line("schnetpack", 30.0), line("mlipkit", 1.0, group="b")]
    (group,) = table.latest(lines).values()
    assert {x["group"] for x in group} == {"a"}
    again = [*lines, line("mlipkit", 5.0, group="c"), line("schnetpack", 20.0, group="c")]
    (group,) = table.latest(again).values()
    assert {x["group"] for x in group} == {"c"}


def test_figure_is_wall_time_on_a_gpu():
    assert table.figure(line("mlipkit", 3.0)) == 3.0
    assert table.figure(line("mlipkit", 3.0, device="cuda")) == 6.0


def test_unequal_work_is_named():
    other = line("schnetpack", 1.0)
    assert table.unequal([line("mlipkit", 1.0), other]) == []
    other["facts"] = {"edges": 99, "atoms": 10, "without_embedding": 1019}
    (said,) = table.unequal([line("mlipkit", 1.0), other])
    assert "edges mlipkit 100, schnetpack 99" in said
    other["facts"] = {"edges": 100, "atoms": 10, "without_embedding": 1021}
    assert "without_embedding" in table.unequal([line("mlipkit", 1.0), other])[0]


def test_force_error_is_that_of_the_worst_data_set_over_the_seeds_both_have():
    lines = [
        trained("mlipkit", 0, 1.0), trained("schnetpack 2.2.0", 0, 1.0),
        trained("mlipkit", 1, 2.0), trained("schnetpack 2.2.0", 1, 1.0), trained("mlipkit", 2, 9.0),
        trained("mlipkit", 0, 1.0, "acac"), trained("schnetpack 2.2.0", 0, 4.0, "acac"),
        trained("mlipkit", 0, 1.0, "alone"),
    ]  # fmt: skip
    assert table.force_errors(lines) == {"painn": pytest.approx(1.5)}


@pytest.mark.parametrize(
    ("ratio", "error", "said"),
    [
        (1.6, 1.0, "yes"),
        (1.4, 1.0, "no"),
        (9.0, 1.06, "error too large"),
        (9.0, None, "not compared"),
        (None, 1.0, "-"),
    ],
)
def test_a_ratio_counts_at_equal_force_error_only(ratio, error, said):
    job = next(job for job in jobs.JOBS if job.name == "painn.ef.water_2")
    assert table.verdict(job, ratio, error) == said


def test_the_table_says_it_all():
    lines = [line("mlipkit", 20.0), line("schnetpack", 40.0)]
    lines += [line("mlipkit", 20.0, settings="installed"), line("schnetpack", 80.0, settings="installed")]
    text = table.render(lines, {"painn": 1.01})
    row = next(x for x in text.splitlines() if "painn.ef.water_2" in x)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3:] == ["schnetpack", "2.00", "2.00", "4.00", "1.5", "yes", "50%", "200 / 400"]
    assert "NOT EQUAL" not in text
    assert "painn 1.010" in text


def test_jobs_are_well_defined():
    names = [job.name for job in jobs.JOBS]
    assert len(set(names)) == len(names)
    for job in jobs.JOBS:
        assert job.peers
        assert set(job.peers) <= set(engines.SERVERS)
        assert bool(job.model) == (job.kind in floors.EVALUATIONS)
        assert bool(job.steps) == ("md" in job.kind)
        assert not job.model or job.n_radial == jobs.N_RADIAL[job.model]
    for script, *_ in engines.SERVERS.values():
        assert (engines.PEERS / script).exists()
    for engine in engines.OWN_ENVIRONMENT:
        assert (engines.PEERS / f"{engine}.txt").exists()


def test_jobs_are_chosen_by_part_or_pattern():
    assert {job.name for job in jobs.chosen(["painn.md.eth"])} == {"painn.md.ethanol", "painn.md.ethanol_x32"}
    assert [job.name for job in jobs.chosen(["*.ef.water_1"])] == [
        f"{m}.ef.water_1" for m in ("painn", "schnet", "visnet")
    ]
    assert jobs.chosen(None) == list(jobs.JOBS)
    assert jobs.chosen(["nothing"]) == []


def test_an_engine_that_is_not_there_says_how_to_get_it():
    said = engines.missing("graph-pes", {"graph-pes": "/nowhere/python"})
    assert said is not None
    assert "make bench-peers" in said
    assert engines.missing("schnetpack", {"schnetpack": sys.executable}) == (
        f"schnetpack: schnetpack is not installed for {sys.executable}"
    )
    assert engines.missing("mlipkit", {}) is None


@pytest.mark.parametrize("model", ["painn", "schnet"])
def test_floor_agrees_with_what_torch_counts(model: str):
    """The plain version may do both directions of a pair, leaves out what is zero in the first layer, adds the head."""
    frame = samples.load("ethanol_300K").frame(0)
    graph = graph_of(frame, jobs.CUTOFF)
    encoder = build_encoder(model, features=64, layers=3, cutoff=jobs.CUTOFF, n_radial=jobs.N_RADIAL[model])
    potential = Potential(encoder, atomic_energies={1: 0.0, 6: 0.0, 8: 0.0})
    counter = FlopCounterMode(display=False)
    with use_version("reference"), counter, torch.no_grad():
        potential(graph, forces=False)
    counted = floors.forward(model, 9, graph.edge_index.shape[1], 64, 3, jobs.N_RADIAL[model])
    assert 0.9 * counted < counter.get_total_flops() < 1.25 * counted
