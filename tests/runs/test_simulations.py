"""Grids of simulations and relaxations as runs: specification, table, folders, changes, outputs as inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io import read, write

import mlipkit as mk
from mlipkit.cli import main
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.events import Judged
from mlipkit.runs import MDSpec, RelaxSpec, parse_spec
from mlipkit.runs.building_md import start_structure
from mlipkit.runs.building_relax import structures_of
from mlipkit.runs.options import spec_from_options

EMT = {"potential": "calc.py:emt", "timestep": 2.0}


def test_a_grid_is_starts_times_temperatures_times_replicas():
    spec = MDSpec(start=["a.xyz@1", "b.xyz"], temperature=[300, 600, 900], replicas=2, seed=5)
    table = spec.table()
    assert spec.n_simulations == len(table) == 12
    assert [row["index"] for row in table] == list(range(12))
    assert [(row["start"], row["temperature"]) for row in table[:5]] == [
        ("a.xyz@1", 300), ("a.xyz@1", 300), ("a.xyz@1", 600), ("a.xyz@1", 600), ("a.xyz@1", 900),
    ]  # fmt: skip
    assert table[11]["folder"] == "replica_011"
    seeds = [row[name] for row in table for name in ("velocity_seed", "thermostat_seed")]
    others = [row[name] for row in spec.changed(seed=6).table() for name in ("velocity_seed", "thermostat_seed")]
    assert len({*seeds, *others}) == 48
    assert parse_spec(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    assert spec.default_name == "md_300-900K"
    (alone,) = MDSpec(seed=5).table()
    assert alone["folder"] == ""
    assert {name: alone[name] for name in ("velocity_seed", "thermostat_seed")} == {
        name: table[0][name] for name in ("velocity_seed", "thermostat_seed")
    }


@pytest.mark.parametrize("text", ["300, 450.5", "[300, 450.5]", "300,450.5"])
def test_lists_are_read_as_people_write_them(text):
    assert MDSpec(temperature=text).temperature == [300.0, 450.5]
    assert spec_from_options(MDSpec, {"temperature": [text]}).temperature == [300.0, 450.5]  # type: ignore[union-attr]
    several = spec_from_options(MDSpec, {"temperature": ["300", "450.5"], "start": ["a", "b"]})
    assert several == MDSpec(temperature=[300, 450.5], start=["a", "b"])
    assert spec_from_options(MDSpec, {"temperature": ["450.5"]}) == MDSpec(temperature=450.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": [300, "x"]}, "MDSpec: temperature: 1: .*found 'x'"),
        ({"temperature": [300, -1]}, "temperature: 1: .*greater than or equal to 0"),
        ({"start": ["a", 3]}, "start: 1: .*found 3"),
        ({"ensemble": "bussi", "temperature": [0, 300]}, "bussi needs one above 0 K"),
        ({"batch": 0}, "batch"),
        ({"batch": 2, "ensemble": "npt"}, "batch has no effect with ensemble 'npt', only with nve"),
    ],
)
def test_wrong_lists_say_which_part_is_wrong(fields, message):
    with pytest.raises(SpecError, match=message):
        MDSpec(**fields)


def test_table_is_there_from_the_start_and_readable_without_torch(work: Path):
    run = mk.launch(MDSpec(**EMT, start="calc.py:cluster", temperature=[50, 100], replicas=2, steps=10))
    assert [row["temperature"] for row in json.loads((run.folder / "replicas.json").read_text())["replicas"]] == [
        50, 50, 100, 100,
    ]  # fmt: skip
    run.wait(60)
    code = f"""
import sys, mlipkit as mk
run = mk.open({str(run.folder)!r})
print([(one.index, one.temperature, one.fate, one.time) for one in run.replicas])
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([(i, [50.0, 50.0, 100.0, 100.0][i], "held", 20.0) for i in range(4)])


def test_simulations_of_a_grid_know_their_own_temperature(work: Path):
    """Targets, checks and seeds go with the row; batches and a change of steps leave all in place."""
    spec = MDSpec(
        **EMT, start="calc.py:cluster", temperature=[20, 2000], steps=30, stride=5, batch=1, ensemble="bussi",
        relaxation_time=1.0, checks={"temperature": {"warn": 2.0, "fail": None}, "broken_bonds": False},
    )  # fmt: skip
    run = mk.launch(spec).wait(60)
    assert run.state == "completed", run.reason
    cold, hot = (run.series("md", number).read("temperature")["temperature"] for number in (0, 1))
    assert cold.mean() < 100 < hot.mean()
    # 2000 K against a target of 20 K would have been said.
    assert not [e for e in run.events() if isinstance(e, Judged) and e.verdict.check == "temperature"]
    assert run.facts()["replicas"] == 2
    assert json.loads((run.folder / "checkpoints/batches.json").read_text()) == {"batches": [[0], [1]]}
    with pytest.raises(SpecError, match=r"number of simulations.*expected 2 simulations; found 3"):
        run.change(temperature=[1, 2, 3])
    run.change(steps=40)
    run.resume().wait(60)
    assert [one.time for one in run.replicas] == [80.0, 80.0]
    with pytest.raises(SpecError, match="has done 40 steps already"):
        run.change(steps=39)
    frames = mk.read(str(run.folder / "replica_*" / "trajectory.traj"))
    assert len(frames) == 18


def test_failures_are_counted_by_reason(work: Path):
    spec = MDSpec(**EMT, start="calc.py:cluster", temperature=[5, 900], replicas=2, steps=40,
                  checks={"temperature": {"warn": 2, "fail": 2, "jump": 2.5}})  # fmt: skip
    run = mk.launch(spec).wait(60)
    facts = run.facts()
    failed = [one for one in run.replicas if one.failed]
    assert len(failed) == facts.get("failed_replicas", 0) == sum(facts.get("failure_reasons", {}).values())
    assert set(facts.get("failure_reasons", {})) <= {"temperature", "energy_drift", "max_force", "overlap"}


def test_structures_of_different_size_go_together(work: Path):
    """And each is what it would be alone, to rounding."""
    starts = ["calc.py:cluster", "sample:ethanol_300K@3"]
    options = {"potential": "calc.py:emt", "steps": 12, "stride": 4, "ensemble": "nve"}
    both = mk.launch(MDSpec(**options, start=starts, name="both")).wait(60)
    assert both.state == "completed", both.reason
    alone = mk.launch(MDSpec(**options, start=starts[0], name="alone")).wait(60)
    a = read(both.folder / "replica_000/trajectory.traj", ":")
    b = read(alone.folder / "trajectory.traj", ":")
    np.testing.assert_allclose(a[-1].positions, b[-1].positions, rtol=0, atol=1e-12)
    assert len(read(both.folder / "replica_001/trajectory.traj", "-1")) == 9


def test_relaxation_is_a_run_whose_structures_start_others(work: Path, frames: Path):
    run = mk.launch(RelaxSpec(potential="calc.py:emt", start="cu.xyz@:3", fmax=0.01, stride=4)).wait(90)
    assert run.state == "completed", run.reason
    assert run.reason == "3 of 3 structures converged"
    facts = run.facts()
    assert (facts["converged"], facts["failed"], len(facts["relaxation_steps"])) == (3, 0, 3)
    relaxed = mk.read(run.folder / "relaxed.xyz")
    assert len(relaxed) == 3
    for index, image in enumerate(relaxed):
        last = read(run.folder / f"replica_{index:03d}/trajectory.traj", "-1")
        np.testing.assert_array_equal(image.positions, last.positions)
        assert np.linalg.norm(image.get_forces(), axis=1).max() < 0.01
        assert image.get_potential_energy() == last.get_potential_energy()
        steps = run.series("relax", index).read("step")["step"]
        assert len(steps) == facts["relaxation_steps"][index] + 1
    with pytest.raises(RunError, match="has no simulations"):
        _ = run.replicas
    md = mk.launch(MDSpec(**EMT, start=f"{run.folder}@1", steps=5)).wait(60)
    assert md.state == "completed", md.reason
    np.testing.assert_array_equal(read(md.folder / "trajectory.traj", "0").positions, relaxed[1].positions)
    assert run.report().is_file()


def test_relax_command(work: Path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["relax", "calc.py:cluster", "--potential", "calc.py:emt", "--fmax", "0.02", "--json", "out.json"])
    assert end.value.code == 0
    record = json.loads(Path("out.json").read_text())
    assert record["what"]["state"] == "completed"
    assert record["what"]["specification"]["fmax"] == 0.02
    assert record["what"]["verdict"]["sentence"].startswith("Converged after")
    with pytest.raises(SystemExit) as end:
        main(["relax", "calc.py:cluster", "--potential", "calc.py:emt", "--hydrostatic"])
    assert end.value.code == 2
    assert "hydrostatic has no effect without cell" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["relax", "calc.py:cluster", "--potential", "calc.py:emt", "--cell"])
    assert end.value.code == 1
    assert "three periodic axes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["start.extxyz", "start.xyz.gz", "POSCAR", "start.traj", "start.db"])
def test_constraints_of_a_start_are_refused_whatever_the_file(work: Path, name):
    atoms = molecule("H2O", vacuum=3.0)
    atoms.pbc = True
    write(name, atoms)
    assert len(structures_of(RelaxSpec(start=name), work)) == 1
    Path(name).unlink()
    atoms.set_constraint(FixAtoms([0]))
    write(name, atoms)
    for read_start in (
        lambda: structures_of(RelaxSpec(start=name), work),
        lambda: start_structure(MDSpec(start=name), work),
    ):
        with pytest.raises(DataError, match=f"{name}.*constraints are not supported.*FixAtoms"):
            read_start()


def test_constraints_of_a_made_start_are_refused_on_the_command_line(work: Path, capsys):
    text = "from ase.constraints import FixAtoms\n\n\ndef fixed():\n    made = cluster()\n"
    text += "    made.set_constraint(FixAtoms([0]))\n    yield made\n"
    Path("calc.py").write_text(Path("calc.py").read_text() + text)
    for command in (["relax"], ["md", "--start"]):
        with pytest.raises(SystemExit) as end:
            main([*command, "calc.py:fixed", "--potential", "calc.py:emt"])
        assert end.value.code == 1
        assert "constraints are not supported" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [MDSpec, RelaxSpec])
def test_an_unknown_element_names_the_start_that_has_it(work: Path, kind):
    write("ammonia.xyz", molecule("NH3"))
    run = mk.launch(kind(start=["sample:ethanol_300K@0", "ammonia.xyz"], steps=2)).wait(60)
    assert run.state == "crashed"
    assert "ammonia.xyz: element unknown to this potential: N" in run.reason


def test_relaxation_stops_goes_on_and_takes_more_steps(work: Path):
    spec = RelaxSpec(potential="calc.py:slow", start="calc.py:cluster", fmax=1e-12, steps=3)
    run = mk.launch(spec).wait(60)
    assert run.state == "completed"
    assert run.reason.startswith("Not converged within 3 steps: largest force")
    run.change(steps=6, fmax=1e-11)
    run.resume().wait(60)
    assert run.reason.startswith("Not converged within 6 steps")
    assert len(run.series("relax").read("step")["step"]) == 7
    assert len(structures_of(spec, work)) == 1
