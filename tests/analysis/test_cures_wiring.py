"""What each number of a verdict is made of: seeds, controls, trajectories, confidence. One test per wire."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student_t

from mlipkit.analysis.cures import CureVerdict, Errors, judge_cure

RNG = np.random.default_rng(11)
CURE, CONTROL = (np.exp(0.1 * RNG.normal(size=(3, 30))) for _ in range(2))


def table(values: np.ndarray, **labels) -> Errors:
    return Errors.table(values, **labels)


def verdict(*controls: np.ndarray, cure: np.ndarray = CURE, **more) -> CureVerdict:
    named = {f"control {i}": table(one) for i, one in enumerate(controls)}
    return judge_cure(table(cure), named, n_draws=400, **more)


def width(one: CureVerdict) -> float:
    return float(np.log(one.upper / one.lower))


def test_the_arm_with_fewest_seeds_says_how_many_there_are() -> None:
    found = verdict(CONTROL[:1], cure=0.1 * np.concatenate([CURE, CURE[:2]]))
    assert (found.n_seeds, found.answer) == (1, "undecided")


def test_units_are_frames_of_a_trajectory_not_their_numbers() -> None:
    labels = {"frames": [0, 1, 2, 0, 1, 2], "trajectories": [0, 0, 0, 1, 1, 1]}
    found = judge_cure(table(CURE[:, :6], **labels), {"off": table(CONTROL[:, :6], **labels)})
    assert found.n_units == 6
    assert "6 frames" in found.sentence


def test_rows_of_a_table_keep_their_trajectory_under_every_seed() -> None:
    assert np.asarray(table(np.ones((2, 3)), trajectories=[0, 0, 1]).trajectories).tolist() == [0, 0, 1, 0, 0, 1]


def runs_alike(seeds: int, runs: int, each: int) -> tuple[np.ndarray, list[int]]:
    """Errors [S,F] that are those of their run, beside a hundredth of noise; the run of each frame."""
    rng, of = np.random.default_rng(2), np.repeat(np.arange(runs), each)
    return np.exp(rng.normal(0, 0.2, runs)[of] + 0.01 * rng.normal(size=(seeds, runs * each))), of.tolist()


def test_frames_of_one_run_are_no_independent_witnesses_where_all_seeds_saw_them() -> None:
    cure, runs = runs_alike(3, 4, 10)
    ones = np.ones_like(cure)
    apart, known = (
        judge_cure(table(cure, **labels), {"off": table(ones, **labels)}) for labels in ({}, {"trajectories": runs})
    )
    assert (known.design, apart.design) == ("crossed", "crossed")
    assert width(known) > 1.5 * width(apart)


def test_frames_of_one_run_are_no_independent_witnesses_where_each_seed_has_its_own() -> None:
    cure, runs = runs_alike(1, 24, 10)
    seeds, values, frames = np.repeat(np.arange(6), 40), cure.reshape(-1), np.arange(240)

    def found(trajectories: list[int] | None) -> CureVerdict:
        own = Errors(values, seeds, frames, trajectories)
        return judge_cure(own, {"off": Errors(np.ones(240), seeds, frames, trajectories)})

    apart, known = found(None), found(runs)
    assert (known.design, apart.design) == ("nested", "nested")
    assert width(known) > 1.1 * width(apart)


def test_few_seeds_have_the_interval_of_students_t() -> None:
    """Not that of the bootstrap, which divides by n: with three seeds it would be 18 % too narrow."""
    logs = np.array([-0.02, 0.0, 0.03])
    found = judge_cure(table(np.exp(logs)[:, None]), {"off": table(np.ones((3, 1)))}, n_draws=20_000)
    half = float(student_t.ppf(0.975, 2)) * logs.std(ddof=1) / np.sqrt(3)
    assert width(found) / 2 == pytest.approx(half, rel=0.04)


def test_worse_than_one_of_many_needs_more_than_worse_than_one() -> None:
    one, three = verdict(CONTROL), verdict(CONTROL, CONTROL, CONTROL)
    assert np.log(three.ratio / three.lower) > 1.15 * np.log(one.ratio / one.lower)
    assert three.upper == pytest.approx(one.upper, rel=1e-3), "better than all of many needs no more"


def test_confidence_and_effect_are_those_that_were_asked_for() -> None:
    half, most = (verdict(CONTROL, confidence=share) for share in (0.5, 0.95))
    assert (half.confidence, most.confidence) == (0.5, 0.95)
    assert half.upper < most.upper
    assert half.against["control 0"].upper < most.against["control 0"].upper
    gap = 1 - most.lower
    assert most.lower < 1 < most.upper
    answers = [verdict(CONTROL, effect=effect).answer for effect in (0.5 * gap, 2 * gap)]
    assert answers == ["undecided", "does not"]


def test_each_control_has_an_interval_of_its_own() -> None:
    wide = np.exp(0.2 * np.random.default_rng(3).normal(size=(3, 1))) * CONTROL
    both = verdict(CONTROL, wide).against
    for name, alone in (("control 0", verdict(CONTROL)), ("control 1", verdict(wide))):
        (only,) = alone.against.values()
        assert both[name].ratio == pytest.approx(only.ratio)
        assert np.log(both[name].upper / only.upper) == pytest.approx(0, abs=0.1 * np.log(only.upper / only.lower))
    assert both["control 1"].upper / both["control 1"].lower > 1.5 * both["control 0"].upper / both["control 0"].lower


def test_the_binding_control_is_the_one_that_is_not_beaten_yet() -> None:
    """Not the best one: a worse control that is known less well can be harder to beat."""
    noise = np.array([[-0.4], [0.0], [0.4]])
    found = verdict(1.3 * CURE, 1.4 * np.exp(noise) * CURE)
    assert (found.best_control, found.binding_control) == ("control 0", "control 1")
