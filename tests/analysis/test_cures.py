"""When a cure works: planted and null studies, the rate of false claims, and which arms are paired."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from mlipkit.analysis.bootstrap import Design, Level, bootstrap
from mlipkit.analysis.cures import CureVerdict, Errors, judge_cure, three_digits
from mlipkit.errors import DataError

FRAMES = 20


def study(rng: np.random.Generator, n_seeds: int, ratios: list[float], *, spread: float = 0.05) -> list[np.ndarray]:
    """Errors [S, F] of a cure and its controls: hard frames are hard for all, seeds differ, log-normal."""
    frame, seed = rng.normal(0, 0.5, FRAMES), rng.normal(0, spread, (n_seeds, 1))
    arms = []
    for ratio in ratios:
        own = rng.normal(0, spread, (n_seeds, 1)) + rng.normal(0, 0.1, FRAMES) + rng.normal(0, 0.1, (n_seeds, FRAMES))
        arms.append(ratio * np.exp(frame + seed + own))
    return arms


def judged(arms: list[np.ndarray], **options) -> CureVerdict:
    errors = [Errors.table(one) for one in arms]
    return judge_cure(errors[0], {f"control {i}": one for i, one in enumerate(errors[1:])}, **options)


def at_most(trials: int, rate: float) -> float:
    """Count that a rate exceeds by chance in one test of a thousand."""
    return trials * rate + 3.1 * np.sqrt(trials * rate * (1 - rate))


@pytest.mark.full
@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("n_controls", [1, 2, 3])
def test_a_cure_without_effect_is_called_different_in_at_most_one_study_of_twenty(
    n_seeds: int, n_controls: int
) -> None:
    rng, better, different = np.random.default_rng(10 * n_seeds + n_controls), 0, 0
    for trial in range(1000):
        found = judged(study(rng, n_seeds, [1.0] * (n_controls + 1), spread=0.1), n_draws=150, seed=trial)
        better += found.upper < 1
        different += found.upper < 1 or found.lower > 1
    assert different <= at_most(1000, 0.05)
    assert better <= at_most(1000, 0.025)


@pytest.mark.full
def test_only_the_best_control_decides() -> None:
    """Equal to one control and twice as good as two others: beating the weak ones proves nothing."""
    rng = np.random.default_rng(3)
    works = sum(
        judged(study(rng, 3, [1.0, 1.0, 2.0, 2.0], spread=0.1), n_draws=150, seed=i).upper < 1 for i in range(1000)
    )
    assert works <= at_most(1000, 0.025)
    assert works > 0, "and the level is used"


@pytest.mark.full
@pytest.mark.parametrize(("n_seeds", "spread", "least"), [(3, 0.02, 0.8), (5, 0.05, 0.9)])
def test_a_fifth_off_the_error_is_found(n_seeds: int, spread: float, least: float) -> None:
    rng = np.random.default_rng(7)
    found = [judged(study(rng, n_seeds, [0.8, 1.0, 1.0], spread=spread), n_draws=150, seed=i) for i in range(300)]
    assert np.mean([one.answer == "works" for one in found]) > least
    assert np.mean([one.lower <= 0.8 <= one.upper for one in found]) > 0.95
    assert np.median([one.ratio for one in found]) == pytest.approx(0.82, abs=0.03), (
        "the luckier of two controls counts"
    )


@pytest.mark.full
def test_quantiles_of_the_draws_would_claim_too_much() -> None:
    """Why the interval is a t interval: the same null studies, hierarchical bootstrap, percentile ends."""
    rng, wrong = np.random.default_rng(13), 0
    seed, frame = np.repeat(np.arange(3), FRAMES), np.tile(np.arange(FRAMES), 3)
    for trial in range(400):
        cure, control = (arm.reshape(-1) for arm in study(rng, 3, [1.0, 1.0], spread=0.1))

        def log_ratio(weights: np.ndarray, cure: np.ndarray = cure, control: np.ndarray = control) -> np.ndarray:
            return np.log((weights @ cure) / (weights @ control))

        found = bootstrap(log_ratio, Design([seed], [frame]), method="percentile", n_draws=300, seed=trial)
        wrong += not found.lower <= 0 <= found.upper
    assert wrong > 1.3 * at_most(400, 0.05)


def test_works() -> None:
    found = judged(study(np.random.default_rng(1), 5, [0.6, 1.0, 1.1]), quantity="force MAE")
    assert (found.answer, found.best_control, found.design) == ("works", "control 0", "crossed")
    assert found.lower < found.ratio < found.upper < 1
    assert found.half_width == pytest.approx((found.upper - found.lower) / 2)
    assert found.ratio == pytest.approx(
        found.errors["cure"] / min(found.errors["control 0"], found.errors["control 1"])
    )
    assert found.sentence.startswith("Works: force MAE is ")
    for part in ("control 0", "95% interval", "half-width", "5 seeds, 20 frames"):
        assert part in found.sentence


def test_worse_than_a_control_does_not_work() -> None:
    found = judged(study(np.random.default_rng(1), 5, [1.0, 0.6, 3.0]))
    assert found.answer == "does not"
    assert found.sentence.startswith("Does not work: ")
    assert found.lower > 1
    assert found.against["control 1"].upper < 1, "though it beats the other"


def test_no_gain_and_too_few_seeds_to_tell_are_two_answers() -> None:
    tight = judged(study(np.random.default_rng(2), 5, [1.0, 1.0], spread=0.005), effect=0.2)
    assert tight.lower < 1 < tight.upper
    assert (tight.answer, "20% is excluded" in tight.sentence) == ("does not", True)
    wide = judged(study(np.random.default_rng(2), 3, [1.0, 1.0], spread=0.3), effect=0.2)
    assert wide.answer == "undecided"
    assert wide.half_width > 0.2
    assert wide.sentence.startswith("Undecided: ")
    lone = judged(study(np.random.default_rng(2), 1, [0.5, 1.0]))
    assert (lone.answer, lone.n_seeds) == ("undecided", 1)
    assert "one seed" in lone.sentence


def test_sharing_frames_and_seeds_is_used() -> None:
    """The same numbers, once with their labels and once without: pairing takes out what all arms share."""
    rng = np.random.default_rng(4)
    split = np.exp(rng.normal(0, 0.3, (5, 1)))
    arms = [split * one for one in study(rng, 5, [0.7, 1.0])]
    paired = judged(arms)
    apart = judge_cure(
        Errors(arms[0].reshape(-1), np.repeat(np.arange(5), FRAMES)),
        {"control": Errors(arms[1].reshape(-1), np.repeat(np.arange(5, 10), FRAMES))},
    )
    assert (paired.paired_seeds, paired.paired_frames, paired.design) == (True, True, "crossed")
    assert (apart.paired_seeds, apart.paired_frames, apart.design) == (False, False, "nested")
    assert apart.ratio == pytest.approx(paired.ratio)
    assert apart.half_width > 2 * paired.half_width


def test_a_missing_row_changes_little() -> None:
    """One frame of one seed of one arm has no error: seeds and frames stay crossed, the interval stays what it was."""
    arms = [Errors.table(one) for one in study(np.random.default_rng(12), 5, [0.9, 1.0])]
    whole = judge_cure(arms[0], {"control": arms[1]})
    keep = np.arange(len(np.asarray(arms[0].values))) != 37
    part = Errors(*(np.asarray(column)[keep] for column in (arms[0].values, arms[0].seeds, arms[0].frames)))
    found = judge_cure(part, {"control": arms[1]})
    assert (found.design, found.paired_seeds, found.paired_frames) == ("crossed", True, True)
    assert found.half_width == pytest.approx(whole.half_width, rel=0.15)


def test_other_frames_in_each_arm_draw_apart() -> None:
    arms = [Errors.table(one) for one in study(np.random.default_rng(12), 5, [0.9, 1.0])]
    moved = Errors(arms[1].values, arms[1].seeds, np.asarray(arms[1].frames) + 1000)
    found = judge_cure(arms[0], {"control": moved})
    assert (found.design, found.paired_frames) == ("crossed", False)
    assert found.half_width > 1.5 * judge_cure(arms[0], {"control": arms[1]}).half_width


def test_own_trajectories_of_each_seed_are_nested() -> None:
    """Each seed ran its own MD: frames of one trajectory are alike, so ten times the frames say hardly more."""
    rng = np.random.default_rng(5)

    def arm(scale: float, per_run: int) -> Errors:
        runs = scale * np.exp(rng.normal(0, 0.1, (4, 3, 1)) + np.zeros(per_run))
        seed, run = np.repeat(np.arange(4), 3 * per_run), np.repeat(np.arange(12), per_run)
        return Errors(runs.reshape(-1), seed, trajectories=run)

    found = judge_cure(arm(0.7, 50), {"control": arm(1.0, 50)})
    assert found.design == "nested"
    assert found.answer == "works"
    few = judge_cure(arm(0.7, 2), {"control": arm(1.0, 2)})
    assert 0.3 < found.half_width / few.half_width < 3


def test_root_mean_square_and_weights() -> None:
    values, weights = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 4.0]]), np.tile([1.0, 1.0, 4.0], 2)
    base = Errors.table(values)
    cure = Errors(base.values, base.seeds, base.frames, None, weights)
    control = Errors(2 * values.reshape(-1), base.seeds, base.frames, None, weights)
    found = judge_cure(cure, {"control": control}, reduce="rms")
    assert found.errors["cure"] == pytest.approx(np.sqrt((weights * values.reshape(-1) ** 2).sum() / weights.sum()))
    assert (found.ratio, found.half_width) == (pytest.approx(0.5), pytest.approx(0, abs=1e-9))


def test_the_unit_of_the_error_and_the_order_of_rows_do_not_matter() -> None:
    arms = study(np.random.default_rng(6), 4, [0.9, 1.0, 1.1])
    first, scaled = judged(arms), judged([1000 * one for one in arms])
    assert (first.lower, first.upper, first.answer) == (
        pytest.approx(scaled.lower),
        pytest.approx(scaled.upper),
        scaled.answer,
    )
    shuffled = []
    for one in arms:
        table, order = Errors.table(one), np.random.default_rng(0).permutation(one.size)
        shuffled.append(Errors(*(np.asarray(column)[order] for column in (table.values, table.seeds, table.frames))))
    mixed = judge_cure(shuffled[0], {f"control {i}": one for i, one in enumerate(shuffled[1:])})
    assert (mixed.lower, mixed.upper) == (pytest.approx(first.lower, rel=1e-9), pytest.approx(first.upper, rel=1e-9))


def test_unequal_arms_are_strata() -> None:
    """Arms of different seeds draw apart: the variance of the ratio is the sum of both (Welch)."""
    rng = np.random.default_rng(9)
    arms = [np.exp(rng.normal(0, s, (n, 1)) + np.zeros(3)) for s, n in ((0.01, 3), (0.3, 6))]
    rows = [Errors(one.reshape(-1), np.repeat(np.arange(len(one)) + 100 * i, 3)) for i, one in enumerate(arms)]
    found = judge_cure(rows[0], {"control": rows[1]}, n_draws=20_000)
    log = np.log(arms[1][:, 0])
    error = log.std(ddof=1) / np.sqrt(6)
    assert (np.log(found.upper) - np.log(found.lower)) / 2 == pytest.approx(2.571 * error, rel=0.15)
    parts = Design([Level(np.repeat([0, 1], [3, 6]), drawn=False), np.arange(9)]).components()
    assert [(part.groups, part.parents, part.stratum) for part in parts] == [(3, 1, 0), (6, 1, 1)]


def test_what_cannot_be_judged_is_said() -> None:
    good = Errors.table(np.ones((3, 4)))
    with pytest.raises(DataError, match="against a control"):
        judge_cure(good, {})
    with pytest.raises(DataError, match=r"control 'frozen'.*finite and positive.*nan"):
        judge_cure(good, {"frozen": Errors.table(np.full((3, 4), np.nan))})
    with pytest.raises(DataError, match="one seed per value"):
        judge_cure(Errors(np.ones(4), np.arange(3)), {"control": good})
    with pytest.raises(DataError, match="one row per arm"):
        judge_cure(Errors([1.0], [0]), {"control": Errors([2.0], [0])})


@pytest.mark.parametrize("weights", [[0, 0, 0, 0], [-1, 1, 1, 1], [np.nan, 1, 1, 1]])
def test_weights_that_are_no_shares_are_refused(weights: list) -> None:
    labels = [0, 0, 1, 1], [0, 1, 0, 1]
    with pytest.raises(DataError, match="control 'off': weights"):
        judge_cure(Errors(np.ones(4), *labels), {"off": Errors(np.ones(4), *labels, weights=weights)})


def test_a_misspelt_reduction_is_not_the_mean() -> None:
    table = Errors.table(np.ones((3, 4)))
    with pytest.raises(DataError, match=r"reduce: no such choice.*'rmse'.*did you mean 'rms'"):
        judge_cure(table, {"off": table}, reduce="rmse")  # type: ignore[arg-type]


def test_an_arm_that_lacks_a_frame_has_an_interval_all_the_same():
    """Some draws hold none of the frames that it has: they do not count, and the others say how wide."""
    rng = np.random.default_rng(3)
    cure = Errors.table(rng.uniform(0.4, 0.6, (3, 3)), frames=["a", "b", "c"])
    control = Errors.table(rng.uniform(0.9, 1.1, (3, 1)), frames=["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge_cure(cure, {"untouched": control})
    assert np.isfinite([verdict.lower, verdict.upper]).all()
    assert verdict.lower < verdict.ratio < verdict.upper
    whole = judge_cure(cure, {"untouched": Errors.table(rng.uniform(0.9, 1.1, (3, 3)), frames=["a", "b", "c"])})
    assert verdict.half_width > whole.half_width / 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0, "1.00"),
        (0.99996, "1.00"),
        (0.9954, "0.995"),
        (1.2, "1.20"),
        (12.0, "12.0"),
        (99.97, "100"),
        (123.4, "123"),
        (0.1, "0.100"),
    ],
)
def test_ratios_keep_their_digits(value: float, said: str) -> None:
    assert three_digits(value) == said


def test_a_sentence_tells_a_ratio_of_one_from_a_rounded_number() -> None:
    arms = study(np.random.default_rng(2), 5, [1.0], spread=0.005)
    assert "error is 1.00 times that of the best control" in judged([arms[0], arms[0]]).sentence
    assert "95% interval 1.00 to 1.00" in judged([arms[0], arms[0]]).sentence
