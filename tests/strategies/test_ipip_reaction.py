"""Species in simulations of a student: clusters, changes that last, checkpoints of a mechanism, series on disk."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from ipip_toys import TINY, toys

from mlipkit.analysis import bond_history
from mlipkit.analysis.bond_states import BondHistory
from mlipkit.data import FrameSet
from mlipkit.errors import DataError, SpecError
from mlipkit.runs import IPIPSpec
from mlipkit.strategies.ipip import LoopPlan, Reaction, Settings, Stability, plan, run_ipip, timeline
from mlipkit.strategies.ipip.mechanism import CHECKPOINTS, blocks, checkpoints, ring_of
from mlipkit.strategies.ipip.reaction import clusters, pathway, species_of_run
from mlipkit.strategies.ipip.species_record import RunSpecies, load, over_time, save, summary, together
from mlipkit.strategies.ipip.timeline import when
from mlipkit.strategies.workflows.work import read_record


def oxide(sulfur: np.ndarray) -> FrameSet:
    """A ring of three Mo and three bridging O with six more O, and S2."""
    angles = np.arange(3) * 2 * np.pi / 3
    mo = 2.05 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    bridge = 1.3 * np.stack([np.cos(angles + np.pi / 3), np.sin(angles + np.pi / 3), 0 * angles], 1)
    ends = np.concatenate([mo + np.array([0.0, 0.0, sign * 1.7]) for sign in (1, -1)])
    numbers = [42] * 3 + [8] * 9 + [16] * 2
    positions = np.concatenate([mo, bridge, ends, sulfur])[None]
    return FrameSet.from_arrays(numbers, positions, cell=20.0 * np.eye(3), pbc=[True] * 3)


def test_oxide_and_sulfur_are_two_species_and_one_when_they_bind():
    apart = clusters(oxide(np.array([[8.0, 8, 0], [9.9, 8, 0]])), 0, "Mo")
    assert len(apart.formulas) == 2
    assert apart.tracked == ("Mo3O9",)
    assert "S2" in apart.formulas
    assert apart.bonds == {"Mo-Mo": 3, "Mo-O": 12, "S-S": 1}
    bound = clusters(oxide(np.array([[4.5, 0.0, 0], [6.4, 0, 0]])), 0, "Mo")
    assert len(bound.formulas) == 1
    assert bound.bonds["Mo-S"] == 1
    assert apart.balanced
    assert bound.balanced
    # The image beyond the wall is near as well.
    image = clusters(oxide(np.array([[4.5 + 20.0, 0.0, 0], [6.4 + 20.0, 0, 0]])), 0, "Mo")
    assert image.formulas == bound.formulas


def test_a_run_tells_when_sulfur_comes_in_and_when_the_ring_opens():
    far, near = np.array([[8.0, 8, 0], [9.9, 8, 0]]), np.array([[4.5, 0.0, 0], [6.4, 0, 0]])
    images = [oxide(far)] * 4 + [oxide(near)] * 4
    opened = np.array(oxide(near).positions)
    opened[3] = [2.6, -1.9, 0.0]  # a bridge leaves one of its ends
    last = FrameSet.from_arrays(oxide(near).numbers, opened, n_atoms=14, cell=20.0 * np.eye(3), pbc=[True] * 3)
    frames = FrameSet.concat([*images, *[last] * 4]).with_table(time=np.arange(12) * 1000.0, trajectory=0)
    found = pathway(frames, "Mo")
    assert found[0].kind == "insertion"
    assert found[0].time == 4000.0
    assert len(found) == 2
    assert (found[1].time, found[1].kind) == (8000.0, "ring opened")


# ---- changes that last

MO, BRIDGES, ENDS = (0, 1, 2), (3, 4, 5), (6, 7, 8, 9, 10, 11)
NUMBERS = np.array([42] * 3 + [8] * 9 + [16] * 20)
RING = {(0, 3), (1, 3), (1, 4), (2, 4), (2, 5), (0, 5)} | {(mo, 6 + 2 * mo + k) for mo in MO for k in (0, 1)}
S2 = {(a, a + 1) for a in range(12, 32, 2)}


def history_of(states: list[set[tuple[int, int]]], spacing: float = 500.0, lifetime: float = 0.0) -> BondHistory:
    """A history with these bonds in its frames."""
    rows = []
    for pair in sorted(set().union(*states)):
        there = [pair in one for one in states]
        edges = np.flatnonzero(np.diff([False, *there, False]))
        rows += [(*pair, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    table = np.array(rows)
    time = np.arange(len(states)) * spacing
    whole = BondHistory(NUMBERS, time, table[:, :2], table[:, 2], table[:, 3], 0.0, 0)
    return whole.lasting(lifetime) if lifetime else whole


def test_a_history_without_its_flickers_is_that_which_never_counted_them():
    rng = np.random.default_rng(0)
    positions = np.zeros((60, 4, 3))
    positions[:, :, 0] = np.array([0.0, 1.7, 3.4, 5.1]) + rng.normal(0, 0.13, (60, 4))
    frames = FrameSet.from_arrays([8] * 4, positions).with_table(time=np.arange(60) * 100.0, trajectory=0)
    every, wanted = bond_history(frames, lifetime=0.0), bond_history(frames, lifetime=500.0)
    found = every.lasting(500.0)
    assert len(every.pairs) > len(wanted.pairs) > 0
    assert wanted.flickers == found.flickers > 0
    for name in ("pairs", "start", "end"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    with pytest.raises(DataError, match="shorter than what a change must last"):
        every.lasting(1e6)


def test_states_between_two_changes_that_do_not_last_are_no_events():
    away = {(12, 13)}
    between, after = RING | away | {(0, 12)}, RING | away | {(0, 12), (0, 13)}
    # Each bond lasts; the cluster with the first one alone does not.
    loose = history_of([RING | away] * 4 + [between] + [after] * 6, lifetime=1000.0)
    kinds = [(one.time, one.kind) for one in pathway(loose, "Mo")]
    assert kinds == [(2500.0, "insertion")], "what was there for 500 fs is no state"
    # Whoever comes and goes within a picosecond has never been there.
    visit = history_of([RING | away] * 4 + [between] + [RING | away] * 6, lifetime=1000.0)
    assert pathway(visit, "Mo") == []


# ---- the mechanism


def test_a_ring_goes_through_three_metal_atoms_and_contacts_between_them_are_none():
    assert ring_of(NUMBERS, np.array(sorted(RING)), "Mo") == {*MO, *BRIDGES}
    opened = RING - {(0, 5)}
    assert ring_of(NUMBERS, np.array(sorted(opened)), "Mo") == set()
    assert ring_of(NUMBERS, np.array(sorted(opened | {(0, 2), (0, 1), (1, 2)})), "Mo") == set()
    # Two bridges between neighbours are a chain of small rings.
    chain = {(0, 3), (1, 3), (0, 5), (1, 5), (1, 4), (2, 4), (1, 8), (2, 8)}
    assert ring_of(NUMBERS, np.array(sorted(chain)), "Mo") == set()
    side_on = RING | {(0, 12), (0, 13), (12, 13)}
    assert ring_of(NUMBERS, np.array(sorted(side_on)), "Mo") == {*MO, *BRIDGES}


def test_blocks_are_those_of_a_search_by_removal():
    rng = np.random.default_rng(1)
    for _ in range(30):
        pairs = {tuple(sorted(pair)) for pair in rng.integers(0, 9, (11, 2)).tolist() if pair[0] != pair[1]}
        found = blocks(9, np.array(sorted(pairs)).reshape(-1, 2))
        # Every bond lies in one block, two blocks share one atom at most, and no atom alone cuts a block.
        held = Counter(pair for pair in pairs for block in found if set(pair) <= block)
        assert set(held.values()) == {1}
        assert all(len(a & b) <= 1 for k, a in enumerate(found) for b in found[:k])
        for block in found:
            inside = [pair for pair in pairs if set(pair) <= block]
            for out in block:
                left = [pair for pair in inside if out not in pair]
                seen = {next(iter(block - {out}))}
                while more := {b for pair in left for a, b in (pair, pair[::-1]) if a in seen} - seen:
                    seen |= more
                assert seen == block - {out}


def test_checkpoints_of_the_claimed_mechanism_in_their_order():
    inserted = RING - {(1, 3)} | S2 | {(0, 12), (1, 13)}
    opened = inserted - {(1, 4)}
    split = opened - {(2, 5), (0, 12)}
    last = {(0, a) for a in range(12, 18)} | S2 | {(3, 20)}
    run = history_of([RING | S2] * 4 + [inserted] * 4 + [opened] * 4 + [split] * 4 + [last] * 4, lifetime=1000.0)
    found = checkpoints(run)
    assert list(found) == list(CHECKPOINTS)
    assert list(found.values()) == [2000.0, 4000.0, 6000.0, 8000.0, 8000.0]
    assert [one.kind for one in pathway(run, "Mo")][:3] == ["insertion", "ring opened", "split"]
    nothing = checkpoints(history_of([RING | S2] * 4, lifetime=1000.0))
    assert set(nothing.values()) == {None}


# ---- series


def molybdenum_run(spacing: float = 200.0) -> FrameSet:
    far, near = np.array([[8.0, 8, 0], [9.9, 8, 0]]), np.array([[4.5, 0.0, 0], [6.4, 0, 0]])
    images = [oxide(far)] * 10 + [oxide(near)] * 10
    return FrameSet.concat(images).with_table(time=np.arange(20) * spacing, trajectory=0)


def test_species_over_time_hold_every_atom_in_every_frame_and_come_back_from_disk(tmp_path):
    run = species_of_run(molybdenum_run(), "Mo", 1000.0)
    assert set(run.formulas) == {"Mo3O9", "S2", "Mo3S2O9"}
    assert run.count("Mo3O9").tolist() == [1] * 10 + [0] * 10
    assert run.bonds["S-S"].tolist() == [1] * 20
    assert run.bonds["Mo-S"].tolist() == [0] * 10 + [1] * 10
    assert run.balanced.all()
    assert run.changes is not None
    assert [(one["time"], one["kind"], one["after"]) for one in run.changes] == [(2000.0, "insertion", ["Mo3S2O9"])]
    short = species_of_run(molybdenum_run(10.0), "Mo", 1000.0)
    assert short.changes is None, "shorter than what a change must last"
    assert short.count("Mo3O9").tolist() == run.count("Mo3O9").tolist()
    alone = species_of_run(molybdenum_run()[:1], "Mo", 1000.0)
    assert alone.counts.sum() == 2
    save(tmp_path, [run, short, alone])
    for one, again in zip([run, short, alone], load(tmp_path) or [], strict=True):
        assert again.formulas == one.formulas
        assert np.array_equal(again.counts, one.counts)
        assert np.array_equal(again.time, one.time)
        assert {name: values.tolist() for name, values in again.bonds.items()} == {
            name: values.tolist() for name, values in one.bonds.items()}  # fmt: skip
        assert (again.changes, again.checkpoints) == (one.changes, one.checkpoints)
    assert load(tmp_path / "nowhere") is None


def test_an_atom_that_is_missing_is_seen():
    run = species_of_run(molybdenum_run(), "Mo", 1000.0)
    spoiled = dataclasses.replace(run, counts=run.counts * (np.arange(20) != 3)[:, None])
    found = RunSpecies(spoiled.time, spoiled.formulas, spoiled.counts, spoiled.bonds, spoiled.totals)
    assert found.balanced.tolist() == [k != 3 for k in range(20)]


def test_facts_of_several_runs_and_of_several_seeds_add_up():
    runs = [species_of_run(molybdenum_run(), "Mo", 1000.0), species_of_run(molybdenum_run(10.0), "Mo", 1000.0)]
    found = summary(runs, "Mo", 1000.0)
    assert json.loads(json.dumps(found)) == found
    assert found["frames"] == found["balanced"] == 40
    assert found["formulas"] == {"Mo3O9": 20, "Mo3S2O9": 20}
    assert (found["mean_clusters"], found["last_clusters"]) == (1.0, 1.0)
    assert found["last_formulas"] == {"Mo3S2O9": 2}
    assert found["events"] == {"insertion": 1}
    assert (found["runs"], found["too_short"]) == (2, 1)
    both = together([found, found])
    assert (both["frames"], both["events"], both["runs"], both["mean_clusters"]) == (80, {"insertion": 2}, 4, 1.0)


def test_times_of_failures_are_told():
    assert when({"times_fs": []}) == ""
    assert when({"times_fs": [120.0]}) == "after 120 fs"
    assert when({"times_fs": [900.0, 120.0, 300.0]}) == "after 120 to 900 fs, half of them by 300 fs"


def test_species_at_moments_of_several_runs():
    counts = np.array([[1, 0, 5], [1, 0, 5], [0, 2, 5]])
    whole = RunSpecies(np.array([0.0, 100.0, 200.0]), ("Mo2O6", "MoO3", "S2"), counts, {}, {})
    ended = RunSpecies(np.array([0.0, 100.0]), ("Mo2O6",), np.array([[1], [1]]), {}, {})
    never = RunSpecies(np.zeros(0), (), np.zeros((0, 0), int), {}, {})
    found = over_time([whole, ended, never], "Mo", [0.0, 150.0, 200.0, 300.0])
    assert [one["time"] for one in found] == [0.0, 150.0, 200.0, 300.0]
    assert [one["runs"] for one in found] == [2, 1, 1, 0], "a run that has failed is no longer counted"
    assert [one["clusters"] for one in found] == [1.0, 1.0, 2.0, None]
    assert [one["formulas"] for one in found] == [{"Mo2O6": 2}, {"Mo2O6": 1}, {"MoO3": 2}, {}]
    assert over_time([whole], "", [200.0])[0]["formulas"] == {"S2": 5, "MoO3": 2}
    assert over_time([whole], "Mo", [0.1 + 0.2 + 199.7 + 1e-8])[0]["runs"] == 1, "rounding ends no run"


# ---- the test as a stage

WATCHED = dataclasses.replace(
    TINY, stability=Stability(runs=2, steps=20, temperature=300.0, relax_steps=0, stride=5),
    reaction=Reaction(runs=3, steps=40, stride=4, temperature=150.0, relax_steps=2, track="O", lifetime=20.0),
)  # fmt: skip


def test_failures_at_one_temperature_and_species_at_another_in_one_arm(tmp_path):
    one = plan("scratch", WATCHED, 0)
    assert [stage.name for stage in one.stages][-2:] == ["stability_0", "reaction_0"]
    assert one["reaction_0"].options["temperature"] == 150.0
    assert one["reaction_0"].options["ensemble"] == "nose_hoover"
    assert "3 runs at 150 K, species of O" in one.table()
    assert run_ipip(one, tmp_path, toys()).state == "completed"
    row = timeline(tmp_path)[0]
    assert row["stability"]["n"] == 2
    found = row["reaction"]
    assert found["n"] == 3
    species = found["species"]
    assert species["balanced"] == species["frames"] > 0
    assert species["formulas"]["H2O"] > 0
    runs = load(tmp_path / one.folder("reaction_0"))
    assert runs is not None
    assert len(runs) == 3
    record = read_record(tmp_path / one.folder("reaction_0"))
    assert record is not None
    ended = record["facts"]["runs"]
    for run, end in zip(runs, ended, strict=True):
        assert run.time[0] == 0.0
        assert run.time[-1] <= end["step"] * 1.0
        if not end["failed"]:
            assert run.time.tolist() == [4.0 * k for k in range(11)]
    # A seed of its own: other velocities than those of the stability test.
    assert one["reaction_0"].seeds != one["stability_0"].seeds


def test_what_was_made_before_there_was_such_a_test_still_opens_and_goes_on(tmp_path):
    old = dataclasses.replace(TINY, stability=Stability(runs=2, steps=20, temperature=300.0, relax_steps=0, stride=5))
    one = plan("scratch", old, 0)
    record = one.to_json()
    assert "reaction" not in record["settings"]
    assert set(one["stability_0"].options) == {
        "runs", "steps", "timestep", "temperature", "friction", "relax_steps", "fmax", "track", "stride", "instability",
    }  # fmt: skip
    again = LoopPlan.from_json(json.loads(json.dumps(record)))
    assert isinstance(again, LoopPlan)
    assert again.loop == old
    assert Settings.from_json(WATCHED.to_json()) == WATCHED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reaction": {"runs": 2, "track": "Mx"}}, "no element"),
        ({"stability": {"track": "molybdenum"}}, "no element"),
        ({"reaction": {"runs": 2, "steps": 500, "track": "Mo"}}, "no change could count"),
        ({"reaction": {"runs": 2, "friction": 0.01}}, "no effect with ensemble 'nose_hoover'"),
    ],
)
def test_a_test_that_could_tell_nothing_is_refused(fields, said):
    with pytest.raises(SpecError, match=said):
        IPIPSpec(data="x", **fields)  # type: ignore[arg-type]


def test_a_specification_carries_both_tests():
    spec = IPIPSpec(data="x", stability={"temperature": 2500.0}, reaction={"runs": 4, "track": "Mo"})  # type: ignore[arg-type]
    assert IPIPSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert spec.settings.reaction.temperature == 1500.0
    assert spec.plan["reaction"].options["track"] == "Mo"
    assert spec.plan["stability"].options["temperature"] == 2500.0
    every = spec.changed(reaction={"runs": 4, "track": "Mo", "models": "all"}).plan
    assert [stage.name for stage in every.stages if stage.does == "reaction"] == [f"reaction_{k}" for k in range(4)]
    last = spec.changed(reaction={"runs": 4, "track": "Mo", "models": "last"}).plan
    assert [stage.name for stage in last.stages if stage.does == "reaction"] == ["reaction_3"]
    # An arm with one student has no choice.
    assert spec.changed(arm="scratch").plan["stability_0"].inputs["model"] == ("finetune_0",)
