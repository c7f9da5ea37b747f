"""What each part of the loop gets from the others, and what the further signals of a teacher are."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ipip_toys import LIMITS, SAMPLING, TINY, TRAINING, dft, toys

from mlipkit.data import FrameSet, collate
from mlipkit.data.neighbours import NeighbourCache
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.md import Forces
from mlipkit.models import BasePotential, Potential, build_encoder, load, predict
from mlipkit.runs import parse_spec
from mlipkit.strategies.ipip import LoopPlan, LoopTools, Pool, Settings, objectives, plan, run_ipip, stages, timeline
from mlipkit.strategies.ipip.cost import Rates
from mlipkit.strategies.ipip.evaluating import selected
from mlipkit.strategies.ipip.fitting import re_referenced, rezeroed
from mlipkit.strategies.ipip.instability import checks
from mlipkit.strategies.ipip.pools import TEACHER
from mlipkit.strategies.ipip.sampling import run_md
from mlipkit.strategies.ipip.settings import Instability, Stability
from mlipkit.strategies.ipip.signals import Signals, signals
from mlipkit.strategies.ipip.torsions import conformations
from mlipkit.strategies.workflows.synthetic import soft
from mlipkit.strategies.workflows.work import read_record
from mlipkit.training.objective import StepState

ONCE = dataclasses.replace(TINY, iterations=1)


def facts(folder, one: LoopPlan, name: str) -> dict:
    found = read_record(folder / one.folder(name))
    assert found is not None
    return found["facts"]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A loop of one iteration, and its folder."""
    one, folder = plan("ipip", ONCE, 3), tmp_path_factory.mktemp("once")
    assert run_ipip(one, folder, toys()).state == "completed"
    return one, folder


def without(folder, one: LoopPlan, target, first: str):
    """A copy of a folder in which a stage and all behind it are not done yet."""
    shutil.copytree(folder, target)
    names = [stage.name for stage in one.stages]
    for name in names[names.index(first) :]:
        shutil.rmtree(target / one.folder(name))
    return target


# ---- what passes between stages


def test_what_an_iteration_brings_is_never_among_the_test_frames(once, tmp_path):
    one, folder = once
    pool = Pool.open(folder / one.folder("pool_1"))
    new = np.flatnonzero(pool.table["iteration"] == 1)
    # The same seeds simulate and choose the same frames again; they are test and validation frames now.
    held = pool.frames.select(new)
    tools = toys(test=held[:3], validation=toys().validation)
    assert run_ipip(one, tmp_path / "again", tools).state == "completed"
    again = Pool.open(tmp_path / "again" / one.folder("pool_1"))
    assert facts(tmp_path / "again", one, "choose_1")["dropped"]["among test or validation frames"] > 0
    assert not set(again.frames.structure_hashes) & set(tools.held_out.structure_hashes)


def test_weights_that_a_pretraining_begins_with(tmp_path):
    # With next to no learning rate a pretraining ends where it began.
    still = dataclasses.replace(TRAINING, learning_rate=1e-12, minimum_rate=1e-13)
    tools = toys(pretraining=still)
    ends = {}
    for init in ("fresh", "previous_finetuned"):
        one = plan("ipip", dataclasses.replace(ONCE, init=init), 3)
        assert run_ipip(one, tmp_path / init, tools).state == "completed"
        names = ("pretrain_0", "finetune_0", "pretrain_1")
        ends[init] = [load(tmp_path / init / one.folder(name) / facts(tmp_path / init, one, name)["best"])
                      for name in names]  # fmt: skip
    for init, came_from in (("fresh", 0), ("previous_finetuned", 1)):
        assert near(ends[init][2], ends[init][came_from]), init
        assert not near(ends[init][2], ends[init][1 - came_from]), init


def near(one: BasePotential, other: BasePotential) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, atol=1e-7) for a, b in pairs)


def test_a_committee_is_all_students_and_noise_is_of_the_last_one(tmp_path, monkeypatch):
    seen: dict[str, list[int]] = {}
    for gate in ("noise", "committee"):

        def spread(students, frames, noise, seed, batch_size, gate=gate):
            seen.setdefault(gate, []).append(len(students))
            return np.arange(len(frames), dtype=float)

        monkeypatch.setattr(stages, "spread", spread)
        one = plan("ipip", dataclasses.replace(TINY, gate=gate), 3)
        assert run_ipip(one, tmp_path / gate, toys()).state == "completed"
        # The widest fifth of the spreads keeps the labels that it had.
        rows = timeline(tmp_path / gate)[1]
        assert rows["refused"] == 11
    assert seen == {"noise": [1, 1], "committee": [1, 2]}


@pytest.mark.parametrize(("rate", "chosen"), [(1e-3, "fine-tuned"), (0.3, "untouched")])
def test_the_figures_of_a_student_are_of_the_potential_that_goes_on(tmp_path, rate, chosen):
    """Also where no step of fine-tuning was better than the pretrained student."""
    one, given = plan("one_shot", ONCE, 3), toys(finetuning=dataclasses.replace(TRAINING, learning_rate=rate))
    run_ipip(one, tmp_path, given)
    tuned = facts(tmp_path, one, "finetune_0")
    assert tuned["chosen"] == chosen

    def error(name: str) -> float:
        of = facts(tmp_path, one, name)
        found = predict(load(tmp_path / one.folder(name) / of["best"]), given.validation)
        return float(np.abs(np.asarray(found.forces) - np.asarray(given.validation.forces)).mean())

    assert tuned["metrics"]["validation"]["forces_mae"] == pytest.approx(error("finetune_0"), rel=1e-4)
    row = timeline(tmp_path)[0]["finetuning"]
    assert row["before"] == pytest.approx(error("pretrain_0"), rel=1e-4)
    assert row["forces_mae"] == tuned["metrics"]["validation"]["forces_mae"]
    assert (row["forces_mae"] < row["before"]) == (chosen == "fine-tuned")
    assert f"forces {1000 * row['forces_mae']:.3g} meV/Å" in tuned["sentence"]


def test_energies_of_each_labeller_lose_their_own_zero():
    frames = dft(12, 5)
    shift = np.where(np.arange(12) < 7, -3.0, 40.0)
    pool = Pool.of(frames, labeller=TEACHER, origin="teacher_md", iteration=0)
    table = {name: np.array(values) for name, values in pool.table.items()}
    table["labeller"][7:] = 1
    moved = Pool(frames.with_labels(energy=np.asarray(frames.energy) + shift), table)
    found, plain = re_referenced(moved), re_referenced(Pool(frames, table))
    assert np.allclose(found.energy, plain.energy, atol=1e-6)
    for rows in (slice(0, 7), slice(7, 12)):
        assert float(np.mean(found.energy[rows])) == pytest.approx(0.0, abs=1e-6)
        spread = np.asarray(frames.energy[rows]) - np.mean(frames.energy[rows])
        assert np.allclose(found.energy[rows], spread, atol=1e-6)


def test_the_constant_of_the_energy_is_set_before_fine_tuning():
    tools = toys()
    student = tools.fresh(tools.train, 1)
    before, after = (np.asarray(predict(one, tools.train).energy) for one in (student, rezeroed(tools, student)))
    assert abs(np.mean(tools.train.energy - before)) > 1.0
    assert np.mean(tools.train.energy - after) == pytest.approx(0.0, abs=1e-4)


# ---- further signals


@pytest.fixture
def teacher() -> Potential:
    torch.manual_seed(0)
    made = build_encoder("schnet", seed=1, features=6, layers=1, cutoff=3.0, n_radial=5)
    return Potential(made, atomic_energies={1: 0.3, 8: -2.0}, scale=10.0).double()


def graph_of_frames(frames: FrameSet, potential: BasePotential):
    return collate(frames, np.arange(len(frames)), NeighbourCache(frames, potential.cutoff), potential.dtype)[0]


def state_with(potential: BasePotential, arrays) -> StepState:
    chosen = arrays.get("coordinates")
    extra = Signals(torch.from_numpy(np.array(arrays["values"])), None if chosen is None else torch.from_numpy(chosen))
    return StepState(potential, extra=extra)


def test_rows_of_a_teacher_are_those_that_a_student_differentiates(teacher):
    frames = dft(3, 7)
    arrays = signals(teacher, frames, "hessian", rows=2, seed=4)
    graph = graph_of_frames(frames, teacher)
    rows = objectives.hessian_rows(teacher, graph, torch.from_numpy(arrays["coordinates"])).detach().numpy()
    assert np.abs(rows).max() > 0.1
    assert np.allclose(arrays["values"], rows, atol=2e-3 * np.abs(rows).max())
    loss, said = objectives.HessianRows(3.0)(state_with(teacher, arrays), graph, None, None)  # type: ignore[arg-type]
    assert float(loss.detach()) < 1e-3 * np.abs(rows).max()
    # A row that the teacher could not tell weighs nothing.
    arrays["values"][:3] = np.nan
    arrays["values"][3:] += 1.0
    loss, said = objectives.HessianRows(3.0)(state_with(teacher, arrays), graph, None, None)  # type: ignore[arg-type]
    assert float(said["hessian_mae"]) == pytest.approx(1.0, abs=1e-2)
    assert float(loss.detach()) == pytest.approx(3.0, abs=3e-2)


def test_energies_of_atoms_know_no_zero_of_an_element(teacher):
    frames = dft(4, 8)
    graph = graph_of_frames(frames, teacher)
    said = teacher(graph, forces=False)
    arrays = signals(teacher, frames, "energies")
    term, numbers = objectives.AtomEnergies(2.0), np.asarray(frames.numbers)
    arrays["values"] = arrays["values"] + np.where(numbers == 8, 7.0, -1.5)
    assert float(term(state_with(teacher, arrays), graph, None, said)[0].detach()) == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]
    apart = np.where(np.arange(len(numbers)) % 2, 0.1, -0.1) * (numbers == 1)
    arrays["values"] = arrays["values"] + apart
    residual = apart - np.where(numbers == 1, apart[numbers == 1].mean(), 0.0)
    loss = float(term(state_with(teacher, arrays), graph, None, said)[0].detach())  # type: ignore[arg-type]
    assert loss == pytest.approx(2.0 * np.mean(residual**2))


def test_features_are_compared_behind_the_map_and_without_unit(teacher):
    frames = dft(2, 9)
    graph = graph_of_frames(frames, teacher)
    said = teacher(graph, forces=False, features=True)
    width = said.features.shape[1]
    teacher.auxiliary[objectives.MAP] = torch.nn.Linear(width, width, bias=False).double()
    with torch.no_grad():
        teacher.auxiliary[objectives.MAP].weight.copy_(2.0 * torch.eye(width))
    values = 2.0 * said.features.detach().numpy()
    term = objectives.Features(0.5, size=4.0)
    assert float(term(state_with(teacher, {"values": values}), graph, None, said)[0].detach()) == 0.0  # type: ignore[arg-type]
    loss = float(term(state_with(teacher, {"values": values + 3.0}), graph, None, said)[0].detach())  # type: ignore[arg-type]
    assert loss == pytest.approx(0.5 * 9.0 / 4.0)


def test_a_frame_whose_rows_the_teacher_cannot_tell_is_left_out_and_told(tmp_path):
    class Lame(LoopTools):
        """No forces for single frames of displaced atoms: those of the pool are sixty."""

        lame = staticmethod(lambda k: k == 0)

        def label(self, frames, errors=None):
            made = super().label(frames)
            if len(frames) < 60:
                return made
            forces = np.array(made.forces)
            for k in range(len(frames)):
                if self.lame(k):
                    forces[made.offsets[k] : made.offsets[k + 1]] = np.nan
                    if errors is not None:
                        errors.append("Lame: it hurts")
            return made.with_labels(forces=forces)

    given = {field.name: getattr(toys(), field.name) for field in dataclasses.fields(LoopTools)}
    one, heard = plan("hessian", dataclasses.replace(TINY, iterations=0), 0), []
    assert run_ipip(one, tmp_path / "one", Lame(**given), heard.append).state == "completed"
    text = "no answer for 1 of 60 frames with an atom displaced (Lame: it hurts); their rows are left out"
    assert any(text in getattr(event, "text", "") for event in heard)
    none = Lame(**given)
    none.lame = lambda k: True  # type: ignore[method-assign]
    with pytest.raises(RunError, match="no answer for 60 of 60 frames with an atom displaced; found Lame"):
        run_ipip(one, tmp_path / "none", none)


def test_conformations_of_molecules_turn_and_cells_stay():
    peroxide = Atoms("HOOH", [[0.0, 0.9, 0.4], [0, 0, 0], [1.45, 0, 0], [1.45, 0.9, -0.4]])
    cell = peroxide.copy()
    cell.cell, cell.pbc = [9.0] * 3, True
    frames = FrameSet.from_atoms([peroxide, cell])
    found = conformations(frames, 3, 2.0, 0)
    assert len(found) == 6
    moved = [float(np.abs(found.frame(k)["positions"] - peroxide.positions).max()) for k in range(6)]
    assert min(moved[:3]) > 0.05
    assert max(moved[3:]) == 0.0


# ---- what is damaged, moved or mended


def test_damage_between_two_attempts_is_named(once, tmp_path):
    one, folder = once
    at = without(folder, one, tmp_path / "column", "pool_1") / one.folder("pool_0")
    column = next((at / "frames").glob("forces.*.npy"))
    values = np.load(column)
    column.unlink()
    np.save(column, np.ones_like(values))
    with pytest.raises(DataError, match=r"pool_0.*is damaged; found other forces than were saved"):
        run_ipip(one, tmp_path / "column", toys())
    for name, spoil in {"torn": lambda data: data[:40], "empty": lambda data: b""}.items():
        at = without(folder, one, tmp_path / name, "pool_1") / one.folder("pool_0") / "pool.npz"
        at.write_bytes(spoil(at.read_bytes()))
        with pytest.raises(DataError, match=r"pool\.npz: no pool"):
            run_ipip(one, tmp_path / name, toys())
    at = without(folder, one, tmp_path / "table", "pool_1") / one.folder("pool_0") / "pool.npz"
    with np.load(at) as arrays:
        table = dict(arrays)
    np.savez(at, **{**table, "step": table["step"] + 1})
    with pytest.raises(DataError, match=r"pool\.npz: is damaged; expected the pool"):
        run_ipip(one, tmp_path / "table", toys())


def test_a_simulation_that_cannot_be_read_is_named_and_not_left_out(once, tmp_path):
    one, folder = once
    for name, spoil in {"missing": None, "torn": 100}.items():
        at = without(folder, one, tmp_path / name, "pool_0") / one.folder("md_0") / "replica_001" / "trajectory.traj"
        content = at.read_bytes()
        at.unlink()
        if spoil:
            at.write_bytes(content[:-spoil])
        with pytest.raises(RunError, match=r"replica_001/trajectory\.traj: a simulation cannot be read.* resume"):
            run_ipip(one, tmp_path / name, toys())


def test_a_torn_plan_is_named(once, tmp_path):
    one, folder = once
    shutil.copytree(folder, tmp_path / "torn")
    (tmp_path / "torn" / "plan.json").write_text((folder / "plan.json").read_text()[:80])
    for look in (lambda at: run_ipip(one, at, toys()), timeline,
                 lambda at: run_ipip(one, tmp_path / "new", toys(), reuse=[at])):  # fmt: skip
        with pytest.raises(RunError, match=r"plan\.json: cannot be read"):
            look(tmp_path / "torn")
    with pytest.raises(RunError, match="nowhere: no such folder"):
        timeline(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="file: no folder can be made here"):
        run_ipip(one, tmp_path / "file", toys())


def test_other_settings_and_tools_are_told_by_name(once):
    one, folder = once
    hotter = dataclasses.replace(ONCE, sampling=dataclasses.replace(SAMPLING, temperature=400.0))
    with pytest.raises(RunError, match=r"other settings; expected sampling\.temperature 300\.0; found .* 400\.0"):
        run_ipip(plan("ipip", hotter, 3), folder, toys())
    with pytest.raises(RunError, match=r"other tools; expected finetuning\.learning_rate 0\.001; found .* 0\.002"):
        run_ipip(one, folder, toys(finetuning=dataclasses.replace(TRAINING, learning_rate=2e-3)))


def test_a_teacher_that_was_mended_is_accepted_when_the_user_says_so(once, tmp_path):
    one, folder = once
    first, mended = ({"teacher": "soft water", "teacher_content": text} for text in ("as it was", "mended"))
    assert run_ipip(one, tmp_path / "a", toys(words=first), reuse=[folder]).state == "completed"
    half = without(tmp_path / "a", one, tmp_path / "half", "finetune_1")
    with pytest.raises(RunError, match=r"expected teacher_content as it was; found .* mended\. .*accept_teacher: true"):
        run_ipip(one, half, toys(words=mended))
    heard: list = []
    tools = toys(words=mended, accept_teacher=True)
    assert run_ipip(one, half, tools, heard.append).state == "completed"
    assert any("has changed since this run began" in getattr(event, "text", "") for event in heard)
    assert json.loads((half / "plan.json").read_text())["tools"]["teacher_content"] == "as it was"
    assert run_ipip(one, tmp_path / "b", tools, reuse=[tmp_path / "a"]).state == "completed"
    assert read_record(tmp_path / "b" / one.folder("md_0"))["reused"]  # type: ignore[index]
    assert run_ipip(one, tmp_path / "c", toys(words=mended), reuse=[tmp_path / "a"]).state == "completed"
    assert not read_record(tmp_path / "c" / one.folder("md_0"))["reused"]  # type: ignore[index]


# ---- plans, limits, costs


def test_a_part_that_the_loop_lacks_cannot_be_left_out():
    for arm, change in (
        ("no_relabelling", {"relabel": "off"}), ("no_unstable", {"prefer_unstable": False}),
        ("no_unstable", {"forget": 0.0}), ("no_fresh_weights", {"init": "previous_finetuned"}),
        ("no_forgetting", {"iterations": 0}), ("no_forgetting", {"forget": 0.0}),
        ("no_fresh_weights", {"init": "previous_pretrained"}), ("no_new_frames", {"iterations": 0}),
        ("no_student_md", {"iterations": 0}), ("no_student_md", {"forget": 0.0}),
        ("no_relabelling", {"md_of": "teacher", "relabel": "student_origin"}),
        ("no_unstable", {"md_of": "teacher"}), ("no_new_frames", {"forget": 0.0}),
        ("no_new_frames", {"pool": "grow", "new_share": 0.0}),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=f"{arm}: the loop lacks this part already"):
            plan(arm, dataclasses.replace(TINY, **change))
    growing = dataclasses.replace(TINY, pool="grow", new_share=0.0)
    assert plan("no_forgetting", growing)["choose_1"].options["count"] == 0, "as the loop itself"
    growing = dataclasses.replace(TINY, pool="grow", new_share=0.5, forget=0.0)
    assert plan("continual", growing)["choose_1"].options["count"]
    assert not plan("no_new_frames", growing)["choose_1"].options["count"]
    with pytest.raises(SpecError, match=r"loop\.md_of: no frame would be taken of the teacher's further MD"):
        plan("ipip", dataclasses.replace(TINY, md_of="teacher", forget=0.0))
    with pytest.raises(SpecError, match=r"loop\.forget: no iteration would forget or add a frame"):
        plan("ipip", dataclasses.replace(TINY, forget=0.005))


@pytest.mark.parametrize("name", ["sampling.temperature", "sampling.timestep", "noise", "instability.window"])
def test_numbers_that_make_no_sense_are_refused(name):
    part, _, last = name.rpartition(".")
    for value in (-1, 0, float("nan")):
        more = {last: value} if not part else {part: dataclasses.replace(getattr(TINY, part), **{last: value})}
        with pytest.raises(SpecError, match=f"{name}: out of range"):
            dataclasses.replace(TINY, **more)
    with pytest.raises(SpecError, match=r"stability\.runs: out of range"):
        Settings(stability=Stability(runs=-3))


@pytest.mark.parametrize("name", ["hot", "stretch", "force_cap"])
def test_limits_that_are_off_stay_off_in_the_plan(name):
    limits = dataclasses.replace(LIMITS, **{name: None})
    kept = plan("ipip", dataclasses.replace(TINY, instability=limits))
    again = LoopPlan.from_json(json.loads(json.dumps(kept.to_json())))
    assert Instability.from_json(again["md_1"].options["instability"]) == limits


def test_older_records_count_a_proton_that_is_handed_over_as_a_stretched_bond():
    old = {name: value for name, value in Instability().to_json().items() if name != "proton_transfer"}
    assert Instability.from_json(old).proton_transfer is False
    for allowed in (True, False):
        limits = dataclasses.replace(LIMITS, proton_transfer=allowed)
        assert ("proton_transfer" in limits.to_json()) is allowed
        assert Instability.from_json(limits.to_json()) == limits


def test_how_often_is_looked_is_kept_and_older_records_looked_every_fifth_step():
    for every, told in ((1, True), (5, False)):
        limits = dataclasses.replace(LIMITS, look_every=every)
        assert ("look_every" in limits.to_json()) is told
        assert Instability.from_json(limits.to_json()) == limits
        found = checks(limits, 50.0)
        assert found["overlap"]["every"] == every
        assert {one.every for one in found.values() if hasattr(one, "every")} == {every}
        settings = dataclasses.replace(TINY, instability=limits)
        assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
        assert ("look_every" in plan("ipip", settings)["md_1"].options["instability"]) is told


WATER = Atoms("OHHOH", [[0, 0, 0], [0.97, 0, 0], [-0.3, 0.92, 0], [2.5, 0.6, 0], [2.8, 1.5, 0]])


class Handing:
    """One atom goes along x, 2.5 Å in 100 fs; everything else stands still."""

    cutoff = 3.0
    atom = 1

    def __init__(self, potential, skin):
        pass

    def __call__(self, state):
        state.velocities[:] = 0.0
        state.velocities[self.atom, 0] = 0.025
        return Forces(torch.zeros(state.n_systems, dtype=torch.float64), torch.zeros_like(state.positions))


@pytest.mark.parametrize(
    ("steps", "allowed", "symbols", "failed"),
    [
        (30, True, "OHHOH", False), (30, False, "OHHOH", True), (140, True, "OHHOH", True), (30, True, "OHHCH", True),
        (30, True, "CHHOH", True),
    ],
    ids=["taken by another oxygen", "counted as it was", "beyond the other", "no atom to take it", "no proton"],
)  # fmt: skip
def test_a_proton_that_is_handed_over_is_no_broken_bond(tmp_path, monkeypatch, steps, allowed, symbols, failed):
    monkeypatch.setattr("mlipkit.md.PotentialForces", Handing)
    atoms = Atoms(symbols, WATER.positions)
    limits = dataclasses.replace(LIMITS, proton_transfer=allowed, hot=None, overlap=0.05, closest=0.05, stretch_fs=5.0)
    options = {"steps": steps, "timestep": 1.0, "stride": steps, "temperature": 300.0, "ensemble": "langevin",
               "friction": 0.0, "instability": limits.to_json()}  # fmt: skip
    (found,) = run_md(soft(), [atoms], options, {"velocities": 1, "thermostat": 2}, 1e9, tmp_path, lambda _: None,
                      lambda: "run")  # fmt: skip
    assert (found.failed, found.reason) == (failed, "stretched_bonds" if failed else "")


def test_a_teacher_that_fails_in_most_runs_has_its_limits_looked_at(tmp_path):
    hot = dataclasses.replace(LIMITS, hot=1.0, stretch=None)
    settings = dataclasses.replace(ONCE, instability=hot, sampling=dataclasses.replace(SAMPLING, starts=8))
    heard: list[str] = []
    with contextlib.suppress(RunError):
        run_ipip(plan("one_shot", settings, 3), tmp_path, toys(), sink=lambda event: heard.append(str(event)))
    failed = len([one for one in facts(tmp_path, plan("one_shot", settings, 3), "md_0")["runs"] if one["failed"]])
    assert failed > 4
    said = f"{failed} of 8 runs of the teacher failed and are left out ({failed} mean temperature): is it chemistry"
    assert [said in text and "See instability.hot" in text for text in heard if "runs of the teacher" in text] == [True]
    for fraction, reasons in ((0.5, {"mean_temperature": 4}), (1.0, {"finite": 8})):
        assert stages._taken_for_failure({"fraction": fraction, "reasons": reasons}) == ""


def test_heat_is_no_failure_where_it_is_not_asked_for():
    assert "mean_temperature" in checks(LIMITS, 50.0)
    assert "mean_temperature" not in checks(dataclasses.replace(LIMITS, hot=None), 50.0)
    assert dataclasses.replace(TINY, instability=dataclasses.replace(LIMITS, hot=None)).instability.hot is None
    with pytest.raises(SpecError, match=r"instability\.hot"):
        dataclasses.replace(TINY, instability=dataclasses.replace(LIMITS, hot=-1.0))
    with pytest.raises(SpecError, match="hot_fs has no effect without hot"):
        parse_spec({"kind": "ipip", "data": "a.xyz", "instability": {"hot": None, "hot_fs": 20.0}})


class Passing:
    """One atom is pushed for ten steps and flies through the place of the other within five."""

    cutoff = 3.0

    def __init__(self, potential, skin):
        pass

    def __call__(self, state):
        forces = torch.zeros_like(state.positions)
        if state.step < 10:
            forces[0, 0] = 4.15 * state.masses[0]
        return Forces(torch.zeros(state.n_systems, dtype=torch.float64), forces)


def test_a_short_contact_is_seen_by_whoever_looks_in_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr("mlipkit.md.PotentialForces", Passing)
    for every, failed in ((1, True), (20, False)):
        limits = dataclasses.replace(LIMITS, stretch=None, hot=1e9, look_every=every)
        options = {"steps": 39, "timestep": 1.0, "stride": 39, "temperature": 1e-6, "ensemble": "langevin",
                   "friction": 0.0, "instability": limits.to_json()}  # fmt: skip
        found = run_md(soft(), [Atoms("OO", [[0, 0, 0], [4.0, 0, 0]])], options, {"velocities": 1, "thermostat": 2},
                       1e9, tmp_path / str(every), lambda _: None, lambda: "run")  # fmt: skip
        assert (found[0].failed, found[0].reason == "overlap") == (failed, failed)


def test_labels_are_part_of_what_an_arm_will_take():
    free = {"teacher_md": 0.0, "student_md": 0.0, "pretrain": 0.0, "finetune": 0.0, "teacher_step": None, "atoms": 3}
    rates = Rates(**free, label=1.0)
    for arm in ("ipip", "no_unstable", "one_shot", "hessian"):
        one = plan(arm, TINY, 0)
        assert rates.seconds(one) == one.budget.teacher_labels - 60
    assert rates.seconds(plan("hessian", TINY, 0)) == 2 * 2 * 60
    assert rates.seconds(plan("scratch", TINY, 0)) == 0


def test_a_student_without_an_answer_for_a_frame_has_no_mean_error(tmp_path, monkeypatch):
    whole, heard = LoopTools.load, []

    def spoiled(self, model):
        made: Any = whole(self, model)
        forward = made.forward

        def endless(graph, **asked):
            said = forward(graph, **asked)
            said.forces[0] = float("inf")
            return said

        if model is not None:
            made.forward = endless
        return made

    monkeypatch.setattr(LoopTools, "load", spoiled)
    one = plan("scratch", dataclasses.replace(TINY, iterations=0))
    assert run_ipip(one, tmp_path, toys(), heard.append).state == "completed"
    row = json.loads((tmp_path / "evaluation.json").read_text())["rows"][1]
    assert np.isnan([row["forces_mae"], row["forces_norm"], row["validation"]["forces_mae"]]).all()
    assert any("finetune_0 has no answer (numbers that are not finite) for 1 of 10" in str(event) for event in heard)


def test_a_student_without_figure_is_not_selected():
    rows = [{"model": name, "kind": "student", "validation": {"forces_mae": value}}
            for name, value in (("broken", float("nan")), ("good", 5.0))]  # fmt: skip
    assert selected(rows) == "good"
