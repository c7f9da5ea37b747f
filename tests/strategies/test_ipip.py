"""The loop: fixed points, reproduction, energies without gradient, instabilities, choice of frames, clusters."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ipip_toys import LIMITS, SAMPLING, TINY, TRAINING, dft, toys, water

from mlipkit.data import FrameSet, collate
from mlipkit.data.graph import graph_of
from mlipkit.data.neighbours import NeighbourCache
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.md import endings
from mlipkit.models import UNIVERSAL, CalculatorPotential, Potential, build_encoder, load
from mlipkit.strategies.ipip import (
    ARMS,
    LoopPlan,
    LoopTools,
    Pool,
    Sampling,
    Stability,
    equal_steps,
    objectives,
    plan,
    run_ipip,
    timeline,
)
from mlipkit.strategies.ipip.choosing import by_preference, choose, spread_out
from mlipkit.strategies.ipip.comparing import compare
from mlipkit.strategies.ipip.evaluating import frame_errors
from mlipkit.strategies.ipip.instability import force_cap, largest_forces, too_close
from mlipkit.strategies.ipip.pools import ORIGINS, TEACHER, forgotten
from mlipkit.strategies.ipip.sampling import Run, run_md, runs_of
from mlipkit.strategies.ipip.tools import structures
from mlipkit.strategies.ipip.torsions import rotatable, rotated
from mlipkit.strategies.workflows.synthetic import soft
from mlipkit.strategies.workflows.work import read_record
from mlipkit.training.objective import EnergyForcesStress, StepState

LOOP = plan("ipip", TINY, 3)
FREE = dataclasses.replace(LIMITS, stretch=None, hot=1e6, overlap=0.01, closest=0.01)
"""Atoms may go where they like."""


def facts(folder: Path, one, name: str) -> dict:
    found = read_record(folder / one.folder(name))
    assert found is not None
    return found["facts"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    assert run_ipip(LOOP, folder, toys()).state == "completed"
    return folder


# ---- 1: counts and provenance


def test_counts_and_provenance_of_every_iteration(done):
    size = 60
    for k in (1, 2):
        found, pool = facts(done, LOOP, f"pool_{k}"), Pool.open(done / LOOP.folder(f"pool_{k}"))
        assert found["forgotten"] == forgotten(size, 0.1) == found["new"]
        assert found["relabelled"] == size - found["forgotten"]
        assert len(pool) == size - found["forgotten"] + found["new"]
        table = pool.table
        assert (table["labeller"][: found["relabelled"]] == k - 1).all()
        assert (table["labeller"][found["relabelled"] :] == TEACHER).all()
        assert (table["relabelled"][: found["relabelled"]] == k).all()
        new = table["iteration"] == k
        assert new.sum() == found["new"]
        assert (table["origin"][new] == ORIGINS.index("student_md")).all()
        assert (table["maker"][new] == k - 1).all()
        assert (table["step"] > 0).all()
        assert len(np.unique(pool.frames.structure_hashes)) == len(pool)
        assert found["composition"]["teacher_share"] == pytest.approx(found["new"] / len(pool), abs=1e-6)
        size = len(pool)


def test_no_frame_is_in_both_test_and_pool(tmp_path):
    one = plan("one_shot", TINY, 0)
    assert run_ipip(one, tmp_path / "first", toys()).state == "completed"
    pool = Pool.open(tmp_path / "first" / one.folder("pool_0"))
    # Frames that the same MD will make again are the test frames now.
    tools = toys(test=pool.frames.select([3, 4, 5]))
    assert run_ipip(one, tmp_path / "again", tools).state == "completed"
    again = Pool.open(tmp_path / "again" / one.folder("pool_0"))
    assert len(again) == len(pool) - 3
    assert facts(tmp_path / "again", one, "pool_0")["dropped"]["among test or validation frames"] == 3
    assert not set(again.frames.structure_hashes) & set(tools.test.structure_hashes)
    train, validation = toys().train, toys().validation
    for wrong, said in (
        ({"test": train}, "test: 8 of 8 frames are among the training frames"),
        ({"test": validation}, "test: 4 of 4 frames are among the validation frames"),
        ({"validation": FrameSet.concat([validation, train[:3]])}, "validation: 3 of 7 frames"),
    ):
        with pytest.raises(DataError, match=said):
            toys(**wrong)


def test_starts_are_training_frames(done):
    starts = FrameSet.open(done / LOOP.folder("starts") / "frames")
    assert set(starts.structure_hashes) <= set(toys().train.structure_hashes)


# ---- 2: a perfect student is a fixed point


class Perfect(LoopTools):
    """The student is the teacher, whatever was trained."""

    def load(self, model):
        return self.teacher.eval()


def test_with_a_perfect_student_labels_stay(tmp_path):
    given = toys()
    tools = Perfect(**{field.name: getattr(given, field.name) for field in dataclasses.fields(LoopTools)})
    settings = dataclasses.replace(TINY, forget=0.0, new_share=0.0)
    one = plan("ipip", settings, 0)
    assert run_ipip(one, tmp_path, tools).state == "completed"
    pools = [Pool.open(tmp_path / one.folder(f"pool_{k}")) for k in (0, 1, 2)]
    for pool in pools[1:]:
        assert np.allclose(pool.frames.energy, pools[0].frames.energy, atol=1e-6)
        assert np.allclose(pool.frames.forces, pools[0].frames.forces, atol=1e-6)
        assert np.array_equal(pool.frames.positions, pools[0].frames.positions)
    assert facts(tmp_path, one, "pool_1")["student_vs_teacher"] < 1e-6
    # What was not changed is one file on the disk.
    files = [next((tmp_path / one.folder(f"pool_{k}") / "frames").glob("positions.*.npy")) for k in (0, 2)]
    assert files[0].stat().st_ino == files[1].stat().st_ino


# ---- 3: nothing forgotten, relabelled or new


def test_a_loop_that_changes_nothing_repeats_itself_bit_by_bit(tmp_path):
    one = plan("ipip", dataclasses.replace(TINY, forget=0.0, relabel="off", new_share=0.0), 0)
    assert run_ipip(one, tmp_path, toys()).state == "completed"
    hashes = [Pool.open(tmp_path / one.folder(f"pool_{k}")).hash for k in (0, 1, 2)]
    assert len(set(hashes)) == 1
    for stage in ("pretrain", "finetune"):
        states = [
            load(tmp_path / one.folder(f"{stage}_{k}") / facts(tmp_path, one, f"{stage}_{k}")["best"]).state_dict()
            for k in (0, 1, 2)
        ]
        for other in states[1:]:
            assert all(torch.allclose(states[0][key], other[key], rtol=0, atol=0, equal_nan=True) for key in other)


# ---- 4 and 5: what pretraining learns of energies


def gradients(weight: float) -> dict[str, torch.Tensor | None]:
    frames, student = dft(4, 0), toys().fresh(dft(4, 0), 0)
    graph, targets = collate(frames, [0, 1, 2, 3], NeighbourCache(frames, student.cutoff))
    term = EnergyForcesStress({"forces": 100.0} | ({"energy": weight} if weight else {}), "l1")
    prediction = student(graph, forces=True, create_graph=True)
    loss, _ = term(StepState(student), graph, targets, prediction)
    loss.backward()
    return {name: parameter.grad for name, parameter in student.named_parameters()}


def test_the_constant_of_the_energy_has_no_gradient_in_pretraining():
    free, held = gradients(4.0), gradients(0.0)
    last = [name for name in free if name.startswith("head") and name.endswith("bias")][-1]
    assert free[last] is not None
    assert float(free[last].abs().sum()) > 0
    assert held[last] is None or float(held[last].abs().sum()) == 0.0


def test_pretraining_leaves_energies_out_and_fine_tuning_takes_them(done):
    assert "energy_mae" not in facts(done, LOOP, "pretrain_0")["metrics"]["validation"]
    assert "energy_mae" in facts(done, LOOP, "finetune_0")["metrics"]["validation"]


# ---- 6: instability


def test_two_atoms_at_a_third_of_an_angstrom_fail_at_step_0_and_harmonic_water_never(tmp_path):
    # Long enough for every window of every check to fill.
    options = {"steps": 240, "timestep": 0.5, "stride": 24, "temperature": 300.0, "ensemble": "langevin",
               "friction": 0.02, "instability": dataclasses.asdict(LIMITS)}  # fmt: skip
    broken = water(1, 0)[0]
    broken.positions[2] = broken.positions[1] + [0.3, 0, 0]
    seeds = {"velocities": 1, "thermostat": 2}
    found = run_md(soft(), [broken, *water(3, 5)], options, seeds, 1000.0, tmp_path, lambda _: None, lambda: "run")
    assert [one.failed for one in found] == [True, False, False, False]
    assert (found[0].step, found[0].reason) == (0, "overlap")
    runs = runs_of(tmp_path, [dataclasses.asdict(one) for one in found], LIMITS)
    assert [len(run.stored) for run in runs] == [0, 10, 10, 10]
    # The checks do look: with a limit at the temperature of the thermostat the same runs are too hot.
    options["instability"] |= {"hot": 1.001}
    hot = run_md(soft(), water(3, 5), options, seeds, 1000.0, tmp_path / "hot", lambda _: None, lambda: "run")
    assert {one.reason for one in hot if one.failed} == {"mean_temperature"}
    assert all(one.time >= LIMITS.hot_fs for one in hot if one.failed)


def free_atoms(spoil: str, at: int = 5) -> type:
    """Forces of atoms that nothing holds, and one trouble."""
    from mlipkit.md import Forces

    class Spoiled:
        def __init__(self, potential, skin):
            self.cutoff = 3.0

        def __call__(self, state):
            forces = torch.zeros_like(state.positions)
            if spoil == "kick":
                forces[:, 0] = 0.1 * state.masses  # as a whole: no bond notices
            elif spoil == "pull":
                forces[2] = state.positions[2] - state.positions[0]
            elif spoil == "wild" and state.step >= at:
                forces[0, 0] = 60.0
            elif spoil == "nan" and state.step >= at:
                forces[0, 0] = float("nan")
            return Forces(torch.zeros(state.n_systems, dtype=torch.float64), forces)

    return Spoiled


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [("kick", "mean_temperature"), ("pull", "stretched_bonds"), ("wild", "max_force"), ("nan", "finite")],
)
def test_every_reason_is_named(tmp_path, monkeypatch, spoil, reason):
    options = {"steps": 400, "timestep": 1.0, "stride": 10, "temperature": 300.0, "ensemble": "langevin",
               "friction": 0.0, "instability": dataclasses.asdict(LIMITS)}  # fmt: skip
    monkeypatch.setattr("mlipkit.md.PotentialForces", free_atoms(spoil))
    found = run_md(soft(), water(1, 3), options, {"velocities": 1, "thermostat": 2}, 50.0, tmp_path, lambda _: None,
                   lambda: "run")  # fmt: skip
    assert found[0].failed
    assert found[0].reason == reason


@pytest.mark.parametrize(
    ("at", "tail", "stored"), [(300, [280, 285, 290, 295], 29), (12, [4, 9], 0), (3, [2], 0)], ids=str
)
def test_late_and_early_failures_leave_candidates(tmp_path, monkeypatch, at, tail, stored):
    """What is skipped is a share of the window, not of a run that may have lasted for a million steps."""
    limits = dataclasses.replace(FREE, window=4, every=5, skip=0.25)
    options = {"steps": 400, "timestep": 0.1, "stride": 10, "temperature": 300.0, "ensemble": "langevin",
               "friction": 0.0, "instability": dataclasses.asdict(limits)}  # fmt: skip
    monkeypatch.setattr("mlipkit.md.PotentialForces", free_atoms("nan", at))
    found = run_md(soft(), water(1, 3), options, {"velocities": 1, "thermostat": 2}, 50.0, tmp_path, lambda _: None,
                   lambda: "run")  # fmt: skip
    assert found[0].step == at
    run = runs_of(tmp_path, [dataclasses.asdict(found[0])], limits)[0]
    assert run.tail_steps.tolist() == tail
    assert len(run.steps) == stored


# ---- 7: the choice of frames


def run_of(start: int, frames: FrameSet, failed: int | None, tail: int = 0) -> Run:
    steps = np.arange(1, len(frames) + 1) * 10
    some = frames.select(np.arange(tail)) if tail else frames[:0]
    return Run(start, failed, "overlap" if failed else "", frames, steps, some, np.arange(tail) + 1)


def test_chosen_frames_respect_the_caps_and_come_from_failures_first():
    calm, wild = dft(40, 1), dft(30, 2)
    tight = np.array(wild.positions)
    tight[2] = tight[1] + [0.2, 0.0, 0.0]  # the first frame: a pair too close
    wild = FrameSet.from_arrays(wild.numbers, tight, n_atoms=3, energy=wild.energy, forces=wild.forces)
    runs = [run_of(0, calm, None), run_of(1, wild, 300, tail=12), run_of(2, dft(25, 3), 250, tail=9)]
    cap = 12.0

    def label(frames: FrameSet) -> FrameSet:
        forces = np.zeros(frames.positions.shape)
        energy = np.zeros(len(frames))
        if len(frames) > 2:
            forces[0] = [20.0, 0, 0]  # beyond the cap
            energy[1] = np.nan  # the teacher fails
        return frames.with_labels(energy=energy, forces=forces)

    pool, said = choose(runs, 18, label, LIMITS, cap, student=0, iteration=1)
    assert pool is not None
    assert len(pool) == said["chosen"] == 18
    assert (largest_forces(pool.frames) <= cap).all()
    assert not too_close(pool.frames, LIMITS).any()
    assert said["dropped"]["too close"] == 1
    assert said["dropped"]["teacher fails"] > 0
    assert said["dropped"]["force above the cap"] > 0
    assert said["unstable"] == int(pool.table["unstable"].sum()) > 12
    unstable = pool.table["unstable"]
    assert (pool.table["before_failure"][unstable] > 0).all()
    assert (pool.table["before_failure"][~unstable] == -1).all()
    # Frames that the teacher refuses are missing for good when there are no others.
    few, told = choose(runs[1:2], 200, label, LIMITS, cap, student=0, iteration=1)
    assert few is not None
    assert told["chosen"] < 200


def test_failed_simulations_of_the_teacher_give_no_frames():
    runs = [run_of(0, dft(40, 1), None), run_of(1, dft(30, 2), 300, tail=12)]

    def label(some: FrameSet) -> FrameSet:
        return some.with_labels(energy=np.zeros(len(some)), forces=np.zeros(some.positions.shape))

    for who, origin, starts in ((TEACHER, "teacher_md", {0}), (0, "student_md", {0, 1})):
        pool, said = choose(runs, 36, label, LIMITS, 50.0, student=who, iteration=1, prefer_unstable=False)
        assert pool is not None
        assert said["chosen"] == 36
        assert set(pool.table["start"].tolist()) == starts
        assert set(pool.table["origin"].tolist()) == {ORIGINS.index(origin)}
        assert set(pool.table["maker"].tolist()) == {who}


def test_where_all_later_simulations_of_the_teacher_fail_the_loop_stops_and_says_so(tmp_path):
    """Going on would be the loop without new frames under another name."""
    made = plan("no_student_md", TINY, 0)
    assert run_ipip(made, tmp_path, toys()).state == "completed"
    shutil.rmtree(tmp_path / made.folder("choose_1"))
    path = tmp_path / made.folder("md_1") / "stage.json"
    record = json.loads(path.read_text())
    for one in record["facts"]["runs"]:
        one["failed"] = True
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"md_1: no run of the teacher reached its end"):
        run_ipip(made, tmp_path, toys())


def test_a_stage_record_without_facts_is_named_wherever_it_is_read(tmp_path):
    made = plan("scratch", TINY, 0)
    assert run_ipip(made, tmp_path, toys()).state == "completed"
    path = tmp_path / made.folder("evaluate") / "stage.json"
    whole = json.loads(path.read_text())
    for lost in ({key: one for key, one in whole.items() if key != "facts"}, {**whole, "facts": None}):
        path.write_text(json.dumps(lost))
        for read in (timeline, compare, lambda folder: run_ipip(made, folder, toys())):
            with pytest.raises(RunError, match=r"stage\.json: the record of a stage without its facts"):
                read(tmp_path)


def test_unstable_runs_have_equal_shares():
    runs = [run_of(k, dft(20, k), 100, tail=n) for k, n in enumerate((20, 3, 20))] + [run_of(3, dft(20, 9), None)]
    first = by_preference(runs, 12)[:12]
    assert all(one.tail for one in first)
    assert [sum(one.run == k for one in first) for k in (0, 1, 2)] == [5, 3, 4]


def test_stable_runs_give_what_is_missing_evenly_over_their_length():
    runs = [run_of(0, dft(40, 0), 400, tail=8), *(run_of(k, dft(40, k), None) for k in (1, 2))]
    order = by_preference(runs, 16)
    assert [one.tail for one in order[:16]] == [True] * 8 + [False] * 8
    for k in (1, 2):
        assert sorted(one.row for one in order[:16] if one.run == k) == [5, 15, 25, 35]
    assert len(set(order)) == len(order) == 8 + 3 * 40
    assert sorted(spread_out(10, 4)[:4]) == [1, 3, 6, 8]
    assert spread_out(0, 3) == []
    # Wherever one stops, neither the beginning nor the end of a run is preferred.
    for n, count in ((100, 1), (100, 7), (37, 20), (64, 64)):
        rows = np.array(spread_out(n, count))
        assert sorted(rows) == list(range(n))
        for stop in range(1, n):
            assert abs(rows[:stop].mean() - (n - 1) / 2) <= n / (2 * stop) ** 0.5 / 2


def test_frames_that_are_known_or_held_out_are_replaced_by_others():
    frames = dft(40, 1)
    held, there = frames.select(range(0, 40, 4)), frames.select(range(1, 40, 4))
    asked: list[int] = []

    def label(some: FrameSet) -> FrameSet:
        asked.extend(some.structure_hashes.tolist())
        return some.with_labels(energy=np.zeros(len(some)), forces=np.zeros(some.positions.shape))

    # The tail holds frames that the run has stored as well.
    runs = [run_of(0, frames, 400, tail=10)]
    pool, said = choose(runs, 20, label, LIMITS, 50.0, student=0, iteration=1, pool=there, held_out=held)
    assert pool is not None
    assert said["chosen"] == len(pool) == len(asked) == 20 == len(set(pool.frames.structure_hashes))
    assert said["dropped"]["among test or validation frames"] >= 10
    assert said["dropped"]["double"] >= 10
    assert not set(asked) & {*held.structure_hashes.tolist(), *there.structure_hashes.tolist()}


def test_without_failures_it_goes_where_student_and_teacher_differ():
    frames = dft(60, 4)
    frames = frames.with_labels(forces=np.zeros_like(frames.forces))
    asked: list[int] = []

    def label(some: FrameSet) -> FrameSet:
        asked.append(len(some))
        where = np.isin(some.structure_hashes, frames.structure_hashes[20:40])
        forces = np.repeat(where, 3)[:, None] * np.ones((1, 3)) * 0.5
        return some.with_labels(energy=np.zeros(len(some)), forces=forces)

    pool, said = choose([run_of(0, frames, None)], 15, label, LIMITS, 50.0, student=1, iteration=2)
    assert pool is not None
    assert said["probed"] == 3
    assert said["unstable"] == 0
    assert set(pool.frames.structure_hashes) <= set(frames.structure_hashes[20:40])


def test_the_tail_is_before_the_failure_without_its_last_steps(done):
    for k in (1, 2):
        found = facts(done, LOOP, f"md_{k}")
        for run in runs_of(done / LOOP.folder(f"md_{k}"), found["runs"], LIMITS):
            if run.failed is not None:
                assert (run.tail_steps < run.failed).all()
                assert len(run.tail) <= LIMITS.window
                assert (np.diff(run.tail_steps) == LIMITS.every).all()
                assert (run.steps < run.failed).all()


def test_the_cap_may_come_from_the_pool():
    frames = dft(50, 0)
    assert force_cap(frames) == pytest.approx(10 * np.quantile(np.linalg.norm(frames.forces, axis=1), 0.999))


# ---- 9: norms of errors


def test_the_norm_of_an_error_is_not_the_mean_of_its_components():
    one = FrameSet.from_arrays([1], np.zeros((1, 1, 3)), energy=[1.0], forces=np.zeros((1, 1, 3)))
    said = one.with_labels(forces=np.array([[3.0, 4.0, 0.0]]), energy=np.array([1.5]))
    found = frame_errors(said, one)
    assert found["norms"][0] == 5.0
    assert found["forces"][0] == pytest.approx(7 / 3)
    assert found["squares"][0] == pytest.approx(25 / 3)
    assert found["energy"][0] == 0.5


# ---- arms and their budgets


def test_all_arms_spend_as_many_gradient_steps_and_the_teacher_is_named_apart():
    plans = [plan(arm, TINY, 0) for arm in ARMS]
    said = equal_steps(plans)
    assert "36 gradient steps" in said
    assert {one.budget.steps for one in plans} == {TINY.total_steps}
    short = plan("teacher", dataclasses.replace(TINY, teacher_steps=5), 0)
    assert "5 of the (far dearer) teacher" in equal_steps([plans[0], short])
    with pytest.raises(SpecError, match="unequal"):
        equal_steps([plans[0], plan("scratch", dataclasses.replace(TINY, finetune_steps=7), 0)])


def test_labels_that_only_rank_new_frames_are_in_the_budget():
    """Where no run fails, every twentieth stored frame of each is labelled to find out where to go."""
    sampling = dataclasses.replace(SAMPLING, starts=4, steps=150, stride=3)
    settings = dataclasses.replace(TINY, iterations=1, sampling=sampling)
    loop = plan("ipip", settings, 0)
    stored = [run_of(k, dft(50, k), None) for k in range(4)]

    def label(some: FrameSet) -> FrameSet:
        return some.with_labels(energy=np.zeros(len(some)), forces=np.zeros(some.positions.shape))

    pool, said = choose(stored, 20, label, LIMITS, 50.0, student=0, iteration=1)
    assert pool is not None
    assert (said["chosen"], said["probed"]) == (20, 8)
    spent = loop.spent({"pool_0": {"spent": {"teacher_labels": 200}},
                        "choose_1": {"spent": {"teacher_labels": said["labelled"] + said["probed"]}}})  # fmt: skip
    assert spent.teacher_labels == loop.budget.teacher_labels == 228
    # Frames that are taken at random need no ranking.
    assert plan("no_unstable", settings, 0).budget.teacher_labels == 220
    # With runs of few frames the first of each is enough.
    few = dataclasses.replace(settings, sampling=dataclasses.replace(sampling, steps=12))
    assert plan("ipip", few, 0).budget.teacher_labels == 16 + forgotten(16, 0.1) + 4


def test_rows_of_the_hessian_are_labels_that_are_told(tmp_path):
    one = plan("hessian", dataclasses.replace(TINY, hessian_rows=3), 0)
    # 60 frames of its MD, then each with three coordinates moved forth and back.
    assert one.budget.teacher_labels == 60 + 2 * 3 * 60
    assert "one_shot 60, hessian 420 (360 of them force calls for rows of the Hessian)" in equal_steps(
        [plan("one_shot", TINY, 0), one]
    )
    assert run_ipip(one, tmp_path, toys()).facts["teacher_labels"] == 420


def test_without_fresh_weights_each_pretraining_goes_on_from_the_student_before():
    fresh, going_on = plan("ipip", TINY, 0), plan("no_fresh_weights", TINY, 0)
    for k in range(1, TINY.iterations + 1):
        assert "model" not in fresh[f"pretrain_{k}"].inputs
        assert going_on[f"pretrain_{k}"].inputs["model"] == (f"finetune_{k - 1}",)
    assert going_on.key("finetune_0") == fresh.key("finetune_0")
    assert going_on.budget == fresh.budget


def test_the_continual_loop_goes_on_from_pretrained_weights_with_labels_of_the_teacher():
    loop, continual = plan("ipip", TINY, 0), plan("continual", TINY, 0)
    for k in range(1, TINY.iterations + 1):
        assert continual[f"pretrain_{k}"].inputs["model"] == (f"pretrain_{k - 1}",)
        assert continual[f"pool_{k}"].options["relabel"] == continual[f"pool_{k}"].options["gate"] == "off"
    assert continual.key("finetune_0") == loop.key("finetune_0")
    assert continual.budget.steps == loop.budget.steps
    assert continual.budget.teacher_labels == loop.budget.teacher_labels
    chosen = dataclasses.replace(TINY, init="previous_pretrained", relabel="off", gate="off")
    assert plan("ipip", chosen, 0).stages == continual.stages
    assert plan("continual", chosen, 0).stages == continual.stages


def test_the_continual_loop_without_new_frames_has_its_trainings_and_the_first_pool(tmp_path):
    continual, still = plan("continual", TINY, 0), plan("no_new_frames", TINY, 0)
    assert still.budget.steps == continual.budget.steps
    assert still.budget.student_md == continual.budget.student_md
    assert still.budget.teacher_labels < continual.budget.teacher_labels
    assert run_ipip(still, tmp_path, toys()).state == "completed"
    pools = [row["pool"] for row in timeline(tmp_path)]
    assert [(one["size"], one["teacher_share"]) for one in pools] == [(pools[0]["size"], 1.0)] * len(pools)
    first, last = (Pool.open(tmp_path / still.folder(name)) for name in ("pool_0", f"pool_{TINY.iterations}"))
    assert last.hash == first.hash
    with pytest.raises(SpecError, match="no_new_frames: the loop lacks this part already"):
        plan("no_new_frames", dataclasses.replace(TINY, forget=0.0))


def test_the_continual_loop_without_md_of_students_takes_as_many_frames_of_the_teachers(tmp_path):
    continual, taught = plan("continual", TINY, 0), plan("no_student_md", TINY, 0)
    assert taught.budget.steps == continual.budget.steps
    assert taught.budget.student_md == 0
    assert taught.budget.teacher_md > continual.budget.teacher_md
    assert f"no_student_md 72 (and {taught.budget.teacher_md} MD steps of it)" in equal_steps([continual, taught])
    assert taught.key("finetune_0") == continual.key("finetune_0")
    assert len({taught[f"md_{k}"].seeds["velocities"] for k in range(TINY.iterations + 1)}) == TINY.iterations + 1
    assert run_ipip(taught, tmp_path / "taught", toys()).state == "completed"
    assert run_ipip(continual, tmp_path / "own", toys()).state == "completed"
    ours, theirs = (
        Pool.open(tmp_path / name / one.folder(f"pool_{TINY.iterations}"))
        for name, one in (("own", continual), ("taught", taught))
    )
    assert (ours.table["iteration"] == theirs.table["iteration"]).all(), "as many new ones, the same are forgotten"
    made = ORIGINS.index("teacher_md")
    assert (theirs.table["origin"] == made).all()
    assert (theirs.table["maker"] == -1).all()
    assert not (ours.table["origin"] == made).all()
    assert {row["md_by"] for row in timeline(tmp_path / "taught")} == {"teacher"}
    assert LoopPlan.from_json(taught.to_json()).to_json() == taught.to_json()
    assert "md_of" not in continual.to_json()["settings"], "as in plans from before there was a choice"
    with pytest.raises(SpecError, match="no_student_md: the loop lacks this part already"):
        plan("no_student_md", dataclasses.replace(TINY, md_of="teacher"))


def test_seeds_share_the_first_pool_and_arms_too():
    keys = {plan(arm, TINY, seed).key("pool_0") for arm in ("ipip", "one_shot", "n2n") for seed in (0, 1)}
    assert len(keys) == 1
    assert len({plan("ipip", TINY, seed).key("pretrain_0") for seed in (0, 1)}) == 2


def test_simulations_of_later_rounds_have_the_seeds_of_the_first_or_fresh_ones():
    same, fresh = plan("ipip", TINY, 0), plan("ipip", dataclasses.replace(TINY, md_seeds="fresh"), 0)
    rounds = [f"md_{k}" for k in range(TINY.iterations + 1)]
    for name in ("velocities", "thermostat"):
        assert len({same[one].seeds[name] for one in rounds}) == 1
        assert len({fresh[one].seeds[name] for one in rounds}) == len(rounds)
    assert fresh.key("pool_0") == same.key("pool_0"), "the teacher's simulation is shared as before"
    assert "md_seeds" not in same.to_json()["settings"], "as in plans from before there was a choice"
    assert LoopPlan.from_json(fresh.to_json()).to_json() == fresh.to_json()


def test_limits_that_would_never_be_looked_at_are_refused():
    rare = dataclasses.replace(TINY.instability, look_every=SAMPLING.steps + 1)
    with pytest.raises(SpecError, match=rf"look_every: .*never be looked at; expected at most {SAMPLING.steps}, the s"):
        dataclasses.replace(TINY, instability=rare)


@pytest.mark.full
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in ("ipip", "n2n")])
def test_every_arm_runs_to_its_evaluation(arm, tmp_path):
    one = plan(arm, TINY, 0)
    outcome = run_ipip(one, tmp_path, toys())
    assert outcome.state == "completed"
    assert outcome.facts["gradient_steps"] == TINY.total_steps
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["rows"][0]["model"] == "teacher"
    assert found["selected"].startswith("finetune_")
    assert all(np.isfinite(row["forces_mae"]) for row in found["rows"])


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in UNIVERSAL if name != "mace"])
def test_universal_potentials_teach(name, tmp_path):
    pytest.importorskip(UNIVERSAL[name].MODULE)
    one = plan("ipip", dataclasses.replace(TINY, iterations=1, sampling=Sampling(starts=2, steps=6, stride=2)), 0)
    outcome = run_ipip(one, tmp_path, toys(teacher=load(f"universal:{name}"), words={"teacher": name}))
    assert outcome.state == "completed"
    assert timeline(tmp_path)[0]["pool"]["labellers"] == {"teacher": 6}
    pool = Pool.open(tmp_path / one.folder("pool_0"))
    assert np.isfinite(pool.frames.forces).all()
    assert np.abs(pool.frames.forces).max() > 0.1, "shaken water is not at rest, and a teacher must say so"


def test_features_of_a_teacher_that_has_some_are_learned_through_a_map(tmp_path):
    teacher = Potential(
        build_encoder("schnet", seed=1, features=6, layers=1, cutoff=3.0, n_radial=5),
        atomic_energies={1: 0.0, 8: 0.0}, scale=0.1,
    )  # fmt: skip
    sampling = dataclasses.replace(SAMPLING, steps=30)
    # Nothing holds its atoms together; what matters here is that it has features.
    one = plan("n2n", dataclasses.replace(TINY, sampling=sampling, instability=FREE), 0)
    assert run_ipip(one, tmp_path, toys(teacher=teacher)).state == "completed"
    rows = facts(tmp_path, one, "pretrain_0")
    assert rows["steps"] == 18
    student = load(tmp_path / one.folder("pretrain_0") / rows["best"])
    assert not student.auxiliary
    with pytest.raises(Exception, match="no features"):
        run_ipip(plan("n2n", TINY, 0), tmp_path / "soft", toys())


def test_any_calculator_is_a_teacher(tmp_path):
    teacher = CalculatorPotential(LennardJones(sigma=0.85, epsilon=0.5, rc=3.0), elements=[1, 8])
    one = plan("ipip", dataclasses.replace(TINY, iterations=1, instability=FREE), 0)
    assert run_ipip(one, tmp_path, toys(teacher=teacher)).state == "completed"
    assert len(timeline(tmp_path)) == 2


class Moody(LennardJones):
    """Raises for structures that are elsewhere, unless they are at home there."""

    homes: frozenset[float] = frozenset()

    class Sulk(Exception):
        """None of those that anybody would expect."""

    def calculate(self, atoms=None, properties=None, system_changes=()):
        if atoms is not None and atoms.positions[0, 0] > 25.0 and float(atoms.positions[0, 0]) not in self.homes:
            raise Moody.Sulk("no\n convergence")
        super().calculate(atoms, properties, system_changes)


def moody() -> CalculatorPotential:
    return CalculatorPotential(Moody(sigma=0.85, epsilon=0.5, rc=3.0), elements=[1, 8])


def elsewhere(frames: FrameSet) -> FrameSet:
    return FrameSet.from_arrays(frames.numbers, frames.positions + np.array([50.0, 0, 0]), n_atoms=frames.n_atoms,
                                energy=frames.energy, forces=frames.forces)  # fmt: skip


def test_an_error_of_the_teacher_costs_its_frame_and_is_told():
    tools, errors = toys(teacher=moody()), []
    frames = FrameSet.concat([dft(2, 1), elsewhere(dft(2, 2)), dft(1, 3)])
    found = tools.label(frames, errors)
    assert (found.has("energy") & found.has("forces")).tolist() == [True, True, False, False, True]
    assert errors == ["Sulk: no convergence"] * 2

    class Stop(LennardJones):
        def calculate(self, *_, **__):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toys(teacher=CalculatorPotential(Stop())).label(frames)


def test_where_the_teacher_raises_in_md_this_run_fails_and_the_others_go_on(tmp_path):
    tools = toys(teacher=moody())
    one = plan("one_shot", dataclasses.replace(TINY, iterations=0, instability=FREE), 0)
    first = structures(tools.train, SAMPLING.starts, one["starts"].seeds["draw"])[0]
    parts = [elsewhere(tools.train[k : k + 1]) if k == first else tools.train[k : k + 1] for k in range(8)]
    heard: list = []
    some = toys(teacher=moody(), train=FrameSet.concat(parts))
    some.teacher.calculator.homes = frozenset(some.train.positions[:, 0].tolist())  # type: ignore[attr-defined]
    assert run_ipip(one, tmp_path, some, heard.append).state == "completed"
    found = facts(tmp_path, one, "md_0")
    assert [run["failed"] for run in found["runs"]] == [True, False, False]
    assert (found["runs"][0]["step"], found["reasons"]) == (1, {"finite": 1})
    assert found["teacher_error"] == "Sulk: no convergence"
    assert facts(tmp_path, one, "pool_0")["composition"]["size"] == 40
    assert any("1 of 3 runs of the teacher failed and are left out; it raised Sulk" in getattr(event, "text", "")
               for event in heard)  # fmt: skip
    with pytest.raises(RunError, match="no run of the teacher reached its end; found Sulk: no convergence"):
        run_ipip(one, tmp_path / "all", toys(teacher=moody(), train=elsewhere(tools.train)))


def test_a_loop_that_forgets_nothing_gets_as_many_new_frames_also_where_runs_of_the_teacher_fail(tmp_path):
    tools, asked = toys(teacher=moody()), {}
    for arm in ("ipip", "no_forgetting"):
        one = plan(arm, dataclasses.replace(TINY, iterations=1, instability=FREE), 0)
        first = structures(tools.train, SAMPLING.starts, one["starts"].seeds["draw"])[0]
        parts = [elsewhere(tools.train[k : k + 1]) if k == first else tools.train[k : k + 1] for k in range(8)]
        some = toys(teacher=moody(), train=FrameSet.concat(parts))
        some.teacher.calculator.homes = frozenset(some.train.positions[:, 0].tolist())  # type: ignore[attr-defined]
        assert run_ipip(one, tmp_path / arm, some).state == "completed"
        assert facts(tmp_path / arm, one, "pool_0")["composition"]["size"] == 40
        assert one["choose_1"].options["count"] == 6, "planned for 60 frames"
        asked[arm] = facts(tmp_path / arm, one, "choose_1")["asked"]
    assert asked == {"ipip": 4, "no_forgetting": 4}


def test_frames_for_which_the_teacher_has_no_answer_are_told_and_students_are_compared_on_the_others(tmp_path):
    one, heard = plan("scratch", dataclasses.replace(TINY, iterations=0), 0), []
    test = FrameSet.concat([dft(7, 300), elsewhere(dft(3, 400))])
    assert run_ipip(one, tmp_path, toys(teacher=moody(), test=test), heard.append).state == "completed"
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert (found["n_frames"], found["compared"], timeline(tmp_path)[0]["compared"]) == (10, 7, 7)
    with np.load(tmp_path / "errors.npz") as arrays:
        teacher, student = (arrays[f"{name}/forces"] for name in ("teacher", found["selected"]))
    assert np.isfinite(student).all()
    assert np.isnan(teacher).tolist() == [False] * 7 + [True] * 3
    row = found["rows"][1]
    assert row["better_than_teacher"] == (student[:7] < teacher[:7]).sum()
    assert row["ratio_to_teacher"] == pytest.approx(student[:7].mean() / teacher[:7].mean())
    assert row["forces_mae"] == pytest.approx(1000 * student.mean())
    text = "no answer for 3 of 10 test frames (Sulk: no convergence); it is compared on the others"
    assert any(text in getattr(event, "text", "") for event in heard)
    both = [run_to(tmp_path / f"{arm}_{seed}", arm, seed, test) for arm in ("ipip", "scratch") for seed in (0, 1)]
    verdict = compare(both)
    assert verdict.verdicts["teacher", "forces"].n_units == 7
    assert verdict.verdicts["controls", "forces"].n_units == 10
    assert any("no answer for 3 further frames" in note for note in verdict.notes)
    with pytest.raises(RunError, match="evaluate: the teacher has no answer for any of 10 test frames; found Sulk"):
        run_ipip(one, tmp_path / "none", toys(teacher=moody(), test=elsewhere(dft(10, 300))))


def run_to(folder, arm: str, seed: int, test: FrameSet):
    """An arm without rounds, with a teacher that has no answer for some test frames."""
    run_ipip(plan(arm, dataclasses.replace(TINY, iterations=0, instability=FREE), seed), folder,
             toys(teacher=moody(), test=test))  # fmt: skip
    return folder


def test_speed_counts_what_this_attempt_did(tmp_path, monkeypatch):
    one = plan("one_shot", dataclasses.replace(TINY, iterations=0), 0)
    asked = iter(["run"] * 40 + ["stop"] * 10)
    stopped = run_ipip(one, tmp_path, toys(), control=lambda: next(asked))
    assert (stopped.state, stopped.stage) == ("stopped", "md_0")
    clock = iter(np.arange(1e5) * 0.5)
    monkeypatch.setattr("mlipkit.strategies.ipip.stages.time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    done = sum(one.step for one in endings(tmp_path / one.folder("md_0")))
    assert 0 < done < 180
    assert run_ipip(one, tmp_path, toys()).state == "completed"
    found = facts(tmp_path, one, "md_0")
    assert found["spent"] == {"teacher_md": 180}
    assert found["steps_per_s"] == (180 - done) / 0.5


class Tired(LoopTools):
    """The teacher has had enough behind its first pool: of every frame, or of all but one in three."""

    fails = staticmethod(lambda k: True)

    def label(self, frames, errors=None):
        made = super().label(frames)
        energy = np.array(made.energy)
        for k in range(len(frames)):
            if self.fails(k):
                errors.append(f"Tired: frame {k}")
                energy[k] = np.nan
        return made.with_labels(energy=energy)


def test_a_teacher_that_labels_no_new_frame_ends_the_run_with_its_words(tmp_path):
    settings = dataclasses.replace(TINY, iterations=1, instability=FREE)
    tools, one = toys(), plan("ipip", settings, 0)
    given = {field.name: getattr(tools, field.name) for field in dataclasses.fields(LoopTools)}
    with pytest.raises(RunError, match=r"choose_1: the teacher could label none of .* found Tired: frame 0.* resume"):
        run_ipip(one, tmp_path, Tired(**given))
    heard: list = []
    some = Tired(**given)
    some.fails = lambda k: k > 0  # type: ignore[method-assign]
    assert run_ipip(one, tmp_path, some, heard.append).state == "completed"
    found = facts(tmp_path, one, "choose_1")
    assert found["teacher_error"].startswith("Tired: frame")
    assert found["dropped"]["teacher fails"] > 0
    warned = [event.text for event in heard if getattr(event, "level", "") == "warning" and "choose_1" in event.text]
    assert any("dropped: teacher fails" in text and "the teacher raised Tired" in text for text in warned)


@pytest.mark.full
@pytest.mark.parametrize(
    "change",
    [
        {"init": "previous_pretrained"}, {"init": "previous_finetuned"}, {"pool": "grow", "new_share": 0.2},
        {"relabel": "student_origin"}, {"gate": "noise"}, {"gate": "committee"}, {"pretrain_energy": "refit"},
        {"prefer_unstable": False},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_of_the_loop_acts(change, tmp_path, done):
    one = plan("ipip", dataclasses.replace(TINY, **change), 3)
    assert run_ipip(one, tmp_path, toys()).state == "completed"
    rows, before = timeless(timeline(tmp_path)), timeless(timeline(done))
    assert rows != before
    match change:
        case {"pool": "grow"}:
            assert [row["pool"]["size"] for row in rows] == [60, 60 - 6 + 12, 66 - 7 + 12]
        case {"relabel": "student_origin"}:
            assert rows[1]["relabelled"] == 0
            assert rows[2]["pool"]["labellers"]["student_1"] == rows[2]["relabelled"] > 0
        case {"gate": _}:
            assert rows[1]["refused"] >= 10
            assert rows[1]["pool"]["teacher_share"] > 0.1
        case {"pretrain_energy": "refit"}:
            assert "energy_mae" in rows[0]["pretraining"]


def timeless(rows: list[dict]) -> list[dict]:
    """What a repetition gives again: all but speed and duration."""
    kept = [{key: value for key, value in row.items() if key != "md_steps_per_s"} for row in rows]
    for row in kept:
        for name in ("pretraining", "finetuning"):
            row[name] = {key: value for key, value in row[name].items() if key != "seconds"}
    return kept


def test_a_repetition_gives_the_same_rows(tmp_path, done):
    assert run_ipip(LOOP, tmp_path, toys()).state == "completed"
    assert timeless(timeline(tmp_path)) == timeless(timeline(done))


def test_encoders_of_students(tmp_path):
    for encoder, options in {
        "schnet": {"features": 8, "layers": 1, "cutoff": 3.0, "n_radial": 6},
        "egnn": {"features": 8, "layers": 1, "cutoff": 3.0, "n_fourier": 8},
        "visnet": {"features": 8, "layers": 1, "cutoff": 3.0, "heads": 2},
    }.items():
        one = plan("one_shot", dataclasses.replace(TINY, iterations=0), 0)
        tools = toys(encoder=encoder, options=options)
        assert run_ipip(one, tmp_path / encoder, tools).state == "completed"


# ---- signals and noise


@pytest.mark.parametrize("encoder", ["painn", "schnet", "visnet", "egnn"])
def test_rows_of_the_hessian_and_their_slopes_in_the_weights(encoder):
    options = {"visnet": {"heads": 2}, "egnn": {"elements": [1, 8], "n_fourier": 8, "sigma": 1.0}}.get(encoder, {})
    made = build_encoder(encoder, seed=0, features=8, layers=2, cutoff=3.0, **options)
    potential = Potential(made, atomic_energies={1: 0.0, 8: 0.0}).double()
    graph = graph_of(water(1, 0)[0], 3.0, torch.float64)
    chosen = torch.tensor([[1, 7]])
    rows = objectives.hessian_rows(potential, graph, chosen).detach()
    for k, x in enumerate(chosen[0].tolist()):
        ends = []
        for sign in (1, -1):
            moved = graph.positions.clone()
            moved[x // 3, x % 3] += sign * 1e-5
            ends.append(potential(graph.moved(moved, graph.cell)).forces)
        assert torch.allclose(rows[:, k], (ends[0] - ends[1]) / 2e-5, atol=1e-5)
    weights = [p for p in potential.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(
        objectives.hessian_rows(potential, graph, chosen).square().sum(), weights, allow_unused=True
    )
    torch.manual_seed(0)
    way = [torch.randn_like(p) for p in weights]
    expected = sum(float((a * b).sum()) for a, b in zip(slopes, way, strict=True) if a is not None)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, w in zip(weights, way, strict=True):
                p += sign * 1e-6 * w
        sides.append(float(objectives.hessian_rows(potential, graph, chosen).detach().square().sum()))
        with torch.no_grad():
            for p, w in zip(weights, way, strict=True):
                p -= sign * 1e-6 * w
    assert expected == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4)


def test_torsions_turn_and_keep_bonds():
    from ase.build import molecule

    butane = molecule("trans-butane")
    bonds = rotatable(butane.numbers, butane.positions)
    assert len(bonds) == 3
    moved = rotated(butane.numbers, butane.positions.copy(), 2.0, np.random.default_rng(0))
    for i, j, _ in bonds:
        before = np.linalg.norm(butane.positions[i] - butane.positions[j])
        assert np.linalg.norm(moved[i] - moved[j]) == pytest.approx(before)
    ends = [k for k in range(len(butane)) if butane.numbers[k] == 1]
    assert np.abs(moved[ends] - butane.positions[ends]).max() > 0.5
    assert rotatable(molecule("C6H6").numbers, molecule("C6H6").positions) == []


def test_denoising_a_perfect_spring_is_exact():
    class Spring(torch.nn.Module):
        """Forces -k r with the k that undoes the noise."""

        def forward(self, graph, forces=True, create_graph=False):
            from mlipkit.models import Prediction

            k = objectives.KT / 0.05**2
            zero = torch.zeros(1, dtype=torch.float64)
            return Prediction(zero, -k * (graph.positions - centre), None, None, zero)

    graph = graph_of(water(1, 0)[0], 3.0, torch.float64)
    centre = graph.positions.clone()
    term = objectives.Denoise(0.05)
    loss, figures = term(StepState(Spring(), seed=1), graph, None, None)  # type: ignore[arg-type]
    assert float(loss) < 1e-20
    assert float(figures["noise_mae"]) < 1e-12
    double = objectives.predicted_noise(Spring(), graph, torch.full_like(centre, 0.1), 0.05)  # type: ignore[arg-type]
    assert torch.allclose(double, torch.full_like(centre, 0.1))


# ---- folders


def test_a_folder_belongs_to_one_plan_and_one_set_of_tools(done):
    with pytest.raises(RunError, match="other seed"):
        run_ipip(plan("ipip", TINY, 4), done, toys())
    with pytest.raises(RunError, match="other tools"):
        run_ipip(LOOP, done, toys(pretraining=dataclasses.replace(TRAINING, learning_rate=2e-3)))
    assert run_ipip(LOOP, done, toys()).state == "completed"


def test_equal_stages_are_taken_over(done, tmp_path):
    one = plan("one_shot", TINY, 3)
    assert run_ipip(one, tmp_path, toys(), reuse=[done]).state == "completed"
    taken = {stage.name for stage in one.stages if (read_record(tmp_path / one.folder(stage.name)) or {})["reused"]}
    assert taken == {"starts", "md_0", "pool_0"}
    assert Pool.open(tmp_path / one.folder("pool_0")).hash == Pool.open(done / LOOP.folder("pool_0")).hash


@pytest.mark.full
def test_stability_counts_failures_with_their_interval(tmp_path):
    test = Stability(runs=4, steps=30, stride=5, temperature=300.0, relax_steps=3, track="O")
    one = plan("scratch", dataclasses.replace(TINY, stability=test), 0)
    assert run_ipip(one, tmp_path, toys()).state == "completed"
    found = facts(tmp_path, one, "stability_0")
    low, high = found["interval"]
    assert low <= found["fraction"] <= high
    assert found["n"] == 4
    assert len(found["times_fs"]) == found["failed"] == sum(found["reasons"].values())
    assert found["species"]["balanced"] == found["species"]["frames"]


def test_one_atom_has_no_bonds_to_stretch(tmp_path):
    options = {"steps": 10, "timestep": 1.0, "stride": 2, "temperature": 300.0, "ensemble": "nose_hoover",
               "relaxation_time": 50.0, "instability": dataclasses.asdict(LIMITS)}  # fmt: skip
    teacher = CalculatorPotential(LennardJones(), elements=[8])
    found = run_md(teacher, [Atoms("O2", [[0, 0, 0], [0, 0, 3.0]])], options, {"velocities": 0, "thermostat": 0}, 50.0,
                   tmp_path, lambda _: None, lambda: "run")  # fmt: skip
    assert not found[0].failed
