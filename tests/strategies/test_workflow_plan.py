"""Plans as pure data: nesting, equal budgets, seeds, rows, keys."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import pytest
from ase import Atoms

from mlipkit.errors import SpecError
from mlipkit.strategies.workflows import ARMS, UNTOUCHED, Evaluation, Plan, Settings, Stage, equal_budgets, plan
from mlipkit.strategies.workflows.picking import density, nested_draw, pick_rows, rattled, strained
from mlipkit.strategies.workflows.stages import split_frames

FOUR = Settings(runs=4)


def test_published_rows_are_eleven_from_1000_to_2000():
    assert Settings().rows == 2001
    assert pick_rows(2001) == list(range(1000, 2001, 100))
    assert plan("iterative").of("pick")[0].options["rows"] == list(range(1000, 2001, 100))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n_rows": 101, "count": 3}, [50, 75, 100]),
        ({"n_rows": 101, "count": 4}, [52, 68, 84, 100]),  # the remainder is left out before, not at the end
        ({"n_rows": 101, "count": 1}, [100]),
        ({"n_rows": 101, "count": None, "spacing": 20}, [50, 70, 90]),
        ({"n_rows": 101, "count": 2, "spacing": 20}, [50, 70]),
        ({"n_rows": 101, "count": 3, "equilibration": 0.0}, [0, 50, 100]),
    ],
)
def test_rows_are_even_and_end_with_the_last(options, expected):
    assert pick_rows(**options) == expected


def test_more_frames_than_rows_are_refused():
    with pytest.raises(SpecError, match="fewer rows than frames"):
        pick_rows(11, count=7)
    with pytest.raises(SpecError, match="fewer rows"):
        pick_rows(101, count=4, spacing=20)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_the_same_budget_of_labels_and_md(arm):
    budget = plan(arm, FOUR).budget
    assert (budget.labels, budget.md_ps) == (44, 4000.0)


def test_equal_budgets_are_printed_and_unequal_ones_refused_by_name():
    said = equal_budgets([plan(arm, FOUR, seed) for arm in ("naive", "iterative") for seed in (0, 1)])
    assert "44 labels and 4000 ps of MD in each of 4 workflows" in said
    published = plan("longrun", dataclasses.replace(FOUR, longrun_as_published=True))
    with pytest.raises(SpecError, match=r"MD time differ by -\d+ ps.*expected 4000 ps as naive"):
        equal_budgets([plan("naive", FOUR), published])
    fewer = plan("iterative", dataclasses.replace(FOUR, frames=10))
    with pytest.raises(SpecError, match="labels differ by -4 labels"):
        equal_budgets([plan("naive", FOUR), fewer])


def test_the_published_long_run_takes_its_time_in_rows():
    one = plan("longrun", Settings(longrun_as_published=True, frames=11))
    rows = one.of("pick")[0].options["rows"]
    assert (rows[0], rows[1], len(rows)) == (1000, 1100, 55)
    # The published 6200 rows are 3.1 ns at 0.5 fs; here up to the 55th frame.
    assert one.budget.md_ps == rows[-1] * 1000 * 0.5 / 1000


def test_iterative_sets_are_cumulative_and_each_run_starts_where_the_last_ended():
    one = plan("iterative", FOUR)
    data = [set(stage.inputs["data"]) for stage in one.of("finetune")]
    assert [len(names) for names in data] == [1, 2, 3, 4]
    assert all(a < b for a, b in pairwise(data))
    runs = one.of("simulate", "training")
    assert [run.inputs["model"][0] for run in runs] == [UNTOUCHED, "finetune_1", "finetune_2", "finetune_3"]
    assert [run.inputs["start"][0] for run in runs] == ["start", "md_1", "md_2", "md_3"]
    assert len({run.seeds["velocities"] for run in runs}) == 4
    assert {stage.inputs["model"] for stage in one.of("finetune")} == {(UNTOUCHED,)}
    chained = plan("iterative", dataclasses.replace(FOUR, base="previous"))
    assert [stage.inputs["model"][0] for stage in chained.of("finetune")] == [
        UNTOUCHED, "finetune_1", "finetune_2", "finetune_3",
    ]  # fmt: skip


def test_naive_runs_all_use_the_untouched_model_and_draws_are_nested_by_seed():
    one = plan("naive", FOUR)
    assert {run.inputs["model"] for run in one.of("simulate", "training")} == {(UNTOUCHED,)}
    tuned = one.of("finetune")
    assert [stage.options["size"] for stage in tuned] == [11, 22, 33, 44]
    assert len({stage.seeds["draw"] for stage in tuned}) == 1  # one permutation for all sizes
    draws = [nested_draw(44, stage.options["size"], stage.seeds["draw"]) for stage in tuned]
    assert all(set(a) < set(b) for a, b in pairwise(draws))
    assert tuned[0].seeds["draw"] == plan("naive", FOUR).of("finetune")[0].seeds["draw"]
    assert tuned[0].seeds["draw"] != plan("naive", FOUR, 1).of("finetune")[0].seeds["draw"]
    by_run = plan("naive", dataclasses.replace(FOUR, run_by_run=True)).of("finetune")
    assert [len(stage.inputs["data"]) for stage in by_run] == [1, 2, 3, 4]


def test_sizes_may_be_the_published_ones():
    one = plan("naive", Settings(sizes=(10, 21, 31, 40, 50)))
    assert [stage.options["size"] for stage in one.of("finetune")] == [10, 21, 31, 40, 50]
    with pytest.raises(SpecError, match="more frames than are labelled"):
        plan("naive", Settings(sizes=(56,)))
    with pytest.raises(SpecError, match="sizes of its rounds"):
        plan("iterative", Settings(sizes=(10,)))


def test_hybrid_needs_two_rounds():
    assert len(plan("hybrid", FOUR).of("finetune")) == 2
    with pytest.raises(SpecError, match="two full rounds"):
        plan("hybrid", Settings(runs=3, starts=2))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("relaxed", [True, False])
def test_starts_are_relaxed_in_every_arm_alike(arm, relaxed):
    one = plan(arm, dataclasses.replace(FOUR, relax_starts=relaxed))
    first = [one[run.inputs["start"][0]].does for run in one.of("simulate")]
    assert set(first) - {"simulate"} == {"relax" if relaxed else "structures"}


def test_arms_share_no_seed_unless_asked_to():
    apart, shared = FOUR, dataclasses.replace(FOUR, share_first_run=True)

    def keys(settings):
        plans = [plan(arm, settings) for arm in ("naive", "iterative", "hybrid")]
        return [{one.key(stage.name) for stage in one.of("simulate", "training")} for one in plans]

    naive, iterative, hybrid = keys(apart)
    assert not naive & iterative
    assert not naive & hybrid
    naive, iterative, hybrid = keys(shared)
    assert len(naive & iterative) == len(naive & hybrid) == 1


def test_the_evaluation_is_the_same_in_every_arm_and_seed():
    plans = [plan(arm, FOUR, seed) for arm in ("naive", "iterative") for seed in (0, 1)]
    for name in ("label_independent", "label_test_md_0"):
        assert len({one.key(name) for one in plans}) == 1
    other = plan("naive", dataclasses.replace(FOUR, evaluation=Evaluation(seed=1)))
    assert other.key("label_independent") != plans[0].key("label_independent")
    assert plans[0].key("label_1") != plans[1].key("label_1")


def test_review_stands_before_every_training_label_only():
    one = plan("iterative", dataclasses.replace(FOUR, review=True))
    assert len(one.of("review")) == 4
    assert all(stage.inputs["frames"][0].startswith("review") for stage in one.of("label", "training"))
    assert all(stage.inputs["frames"][0].startswith("pick") for stage in one.of("label", "evaluation"))


@pytest.mark.parametrize("arm", ARMS)
def test_a_plan_survives_its_json(arm):
    one = plan(arm, FOUR, 3)
    other = Plan.from_json(json.loads(json.dumps(one.to_json())))
    assert [stage.to_json() for stage in other.stages] == [stage.to_json() for stage in one.stages]
    assert other.key(one.stages[-1].name) == one.key(one.stages[-1].name)


def test_gradients_may_be_fixed_instead_of_epochs():
    one = plan("iterative", dataclasses.replace(FOUR, train={"validation": 0.2, "gradients": 400}))
    each = [one.budget.gradients / 4]
    assert each[0] == pytest.approx(400, rel=0.05)


def test_wrong_plans_are_refused():
    with pytest.raises(SpecError, match="names no earlier stage"):
        Plan("naive", 0, (Stage("a", "label", {"frames": ("b",)}),))
    with pytest.raises(SpecError, match="two stages of one name"):
        Plan("naive", 0, (Stage("a", "structures"), Stage("a", "structures")))
    with pytest.raises(SpecError, match="did you mean 'iterative'"):
        plan("iterativ")
    with pytest.raises(SpecError, match="steps divisible by 1000"):
        Settings(steps=1500)


def test_split_is_80_20_by_seed_and_keeps_one_of_each():
    train, validation = split_frames(range(10), 0.2, 5)
    assert (len(train), len(validation)) == (8, 2)
    assert sorted(train + validation) == list(range(10))
    assert split_frames(range(10), 0.2, 5) == (train, validation)
    assert split_frames(range(10), 0.2, 6) != (train, validation)
    assert [len(part) for part in split_frames(range(2), 0.2, 0)] == [1, 1]


def test_copies_of_a_structure_are_on_one_side_of_a_split():
    structures = [7, 7, 7, 1, 2, 3, 4, 4, 5, 6]
    for seed in range(20):
        train, validation = split_frames(structures, 0.4, seed)
        assert sorted(train + validation) == list(range(10))
        assert len(validation) in (3, 4), "three copies may not fit beside the others"
        assert not {structures[i] for i in train} & {structures[i] for i in validation}
    assert [len(part) for part in split_frames([7, 7, 7, 7, 7], 0.2, 0)] == [4, 1], "where there is nothing else"


def test_what_a_model_was_trained_on_is_not_its_validation():
    for seed in range(20):
        train, validation = split_frames([*range(8), 0, 9], 0.2, seed, trained=[0, 1, 2, 3, 4])
        assert len(validation) == 2
        assert not {0, 1, 2, 3, 4, 8} & set(validation), "row 8 is a copy of row 0"
        assert {0, 1, 2, 3, 4, 8} <= set(train)
    assert len(split_frames(range(5), 0.2, 0, trained=range(5))[1]) == 1, "where there is nothing else"


def test_rattling_and_straining_repeat_by_seed():
    atoms = Atoms("Ar2", [[0, 0, 0], [3, 0, 0]], cell=[10, 10, 10], pbc=True)
    assert (rattled(atoms, 0.1, 1).positions == rattled(atoms, 0.1, 1).positions).all()
    assert (rattled(atoms, 0.1, 1).positions != rattled(atoms, 0.1, 2).positions).any()
    moved = strained(atoms, 0.05, 1)
    assert abs(moved.cell.array / 10 - [[1, 0, 0], [0, 1, 0], [0, 0, 1]]).max() <= 0.05
    assert moved.get_scaled_positions() == pytest.approx(atoms.get_scaled_positions())
    assert density(atoms) == pytest.approx(2 * 39.948 / 1000 * 1.66053906660)
    assert density(Atoms("Ar")) is None
