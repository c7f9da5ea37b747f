"""What the parts of dynamic training get from each other, what they refuse, and what comparisons are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mlipkit.data import FrameSet, fit_atomic_energies, samples
from mlipkit.data.graph import collate
from mlipkit.data.neighbours import NeighbourCache
from mlipkit.data.series import Series
from mlipkit.errors import DataError, RunError, SpecError
from mlipkit.models import BasePotential, Potential, build_encoder, load
from mlipkit.runs.building_dynamic import keep_rollouts, read_rollouts
from mlipkit.strategies.dynamic import (
    AIMDRuns,
    DynamicRecipe,
    RolloutLoss,
    Rollouts,
    RolloutSettings,
    SequenceSource,
    aimd_runs,
    dynamic_training,
    edge_overlap,
    nve_rollouts,
    roll_out,
    training,
    validation_starts,
)  # fmt: skip
from mlipkit.strategies.dynamic.comparing import arm_row, common_starts, error_curve, judge_rollouts
from mlipkit.strategies.dynamic.losses import Sequences, species_error, step_error
from mlipkit.strategies.dynamic.source import made as evaluations_made
from mlipkit.strategies.dynamic.validation import MEPA
from mlipkit.training import TrainSettings, train
from mlipkit.training.objective import StepState


class Springs(BasePotential):
    """Every atom on a spring to the origin: E = ½ k R², with one weight, k."""

    cutoff = 3.0  # type: ignore[assignment]

    def __init__(self, k: float = 0.5) -> None:
        super().__init__([1, 6, 8])
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def evaluate(self, graph, positions, cell):
        return 0.5 * self.k * (positions * positions).sum(1), None


def painn() -> Potential:
    torch.manual_seed(0)
    encoder = build_encoder("painn", features=8, layers=1, cutoff=4.0, n_radial=6)
    return Potential(encoder, atomic_energies=fit_atomic_energies(samples.load("ethanol_nve"))).double()


def run_of(number: int) -> FrameSet:
    frames = samples.load("ethanol_nve")
    return frames.select(np.flatnonzero(frames.trajectory == number)[:40])


@pytest.fixture(scope="module")
def parts() -> tuple[FrameSet, FrameSet]:
    """Two runs of forty frames to train on, another one to validate with."""
    return FrameSet.concat([run_of(0), run_of(1)]), run_of(2)


@pytest.fixture(scope="module")
def ethanol(parts) -> AIMDRuns:
    return aimd_runs(parts[0])


FIXED = TrainSettings(
    batch_size=4, precision="float64", converge="fixed", stage_epochs=2, schedule="plateau", schedule_patience=3,
    schedule_factor=0.33, minimum_rate=2e-6, stage_learning_rate=1e-4, ema_decay=None, clip_norm=1.0,
)  # fmt: skip
SMALL = {"n_structures": (1, 2), "evaluations_per_epoch": 8, "validation_structures": 6, "validation_points": 2}


# ---- velocities by differences


def test_velocities_by_difference_end_at_the_ends_of_runs(parts):
    """A difference across two runs would be as fast as their distance."""
    runs = aimd_runs(parts[0], "difference", "training")
    for frame in (0, 39, 40, 79):
        with pytest.raises(DataError, match=f"training: frame {frame}: velocities are differences.*middle of the run"):
            runs.velocities(frame)
        with pytest.raises(DataError, match="a neighbour is missing"):
            nve_rollouts(Springs(), runs, [5, frame], 1)
    for frame in (1, 38, 41, 78):
        assert np.abs(runs.velocities(frame)).max() < 0.1
    assert len(nve_rollouts(Springs(), runs, [1, 41], 3).mepa()) == 2
    from_file = aimd_runs(parts[0])
    assert np.isfinite(from_file.velocities(0)).all(), "velocities of the file have no neighbours"
    assert len(nve_rollouts(Springs(), from_file, [0, 40], 3).mepa()) == 2


# ---- what roll-outs refuse


@pytest.mark.parametrize(
    ("starts", "options", "match"),
    [
        ([-30], {}, r"starts: no such frame; expected 0 to 79; found \[-30\]"),
        ([5, -1], {}, r"no such frame.*found \[-1\]"),
        ([1000], {}, r"no such frame.*found \[1000\]"),
        ([], {}, "starts: no starts; expected numbers of frames"),
        (np.zeros(0, int), {}, "starts: no starts; expected numbers of frames"),
        ([1.5], {}, r"starts: no starts.*found \[1\.5\]"),
        ([5], {"batch": 0}, "batch: out of range; expected at least 1; found 0"),
        ([5], {"structures": 0}, "structures: out of range; expected at least 1; found 0"),
        ([5], {"frozen": np.zeros(5, bool)}, r"frozen: not a mask.*each of 9 atoms; found bool of shape \(5,\)"),
        ([5], {"frozen": [0, 1, 8]}, "frozen: not a mask"),
        ([5], {"frozen": np.arange(9)}, r"frozen: not a mask.*found int64 of shape \(9,\)"),
        ([5], {"frozen": np.ones(9, bool)}, "frozen: every atom is frozen"),
    ],
)
def test_roll_outs_of_nonsense_are_refused_in_words(ethanol, starts, options, match: str):
    with pytest.raises(DataError, match=match):
        nve_rollouts(Springs(), ethanol, starts, **{"structures": 3, **options})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DynamicRecipe(apart_limit=-1.0), "apart_limit: out of range"),
        (lambda: DynamicRecipe(apart_limit=float("nan")), "apart_limit: out of range"),
        (lambda: DynamicRecipe(first_weight=float("inf")), "first_weight: out of range"),
        (lambda: DynamicRecipe(energy_weight_dyn=float("nan")), "energy_weight_dyn: out of range"),
        (lambda: DynamicRecipe(refresh=0), "refresh: out of range"),
        (lambda: RolloutSettings(recompute_above=-1), "recompute_above: out of range"),
        (lambda: RolloutLoss(first_weight=-3.0), "first_weight: out of range"),
        (lambda: RolloutLoss(energy_weight_rolled=float("inf")), "energy_weight_rolled: out of range"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, match: str):
    with pytest.raises(SpecError, match=match):
        make()


def test_settings_at_the_edge_of_what_can_be_are_taken():
    assert DynamicRecipe(apart_limit=None, refresh=None, first_weight=0.0).refresh is None
    assert RolloutSettings(recompute_above=0).recompute_above == 0


@pytest.mark.parametrize("lags", [(-1,), (1, 0), (1.5,)])
def test_lists_are_compared_with_later_frames_only(ethanol, lags):
    with pytest.raises(SpecError, match="lags: out of range"):
        edge_overlap(ethanol, 4.0, lags)


def test_sets_that_share_frames_are_refused(parts, tmp_path: Path):
    train_part, validation = parts
    recipe = DynamicRecipe(**SMALL)
    shared = FrameSet.concat([validation, run_of(0)])
    for held, test, match in (
        (train_part, None, "validation: 80 frames are also training frames"),
        (shared, None, "validation: 40 frames are also training frames"),
        (validation, validation.select(range(20)), "test: 20 frames are also validation frames"),
    ):
        with pytest.raises(DataError, match=match):
            dynamic_training(painn(), train_part, held, FIXED, recipe, folder=tmp_path, test=test)
    assert not list(tmp_path.iterdir())


# ---- equal work


@pytest.mark.parametrize(
    ("structures", "evaluations", "take"),
    [((1, 2, 4), 10, r"10, which is 10 with 1, 10 with 2, 8 with 4\. Take 8 or 12"),
     ((2, 8), 2, r"2, which is 2 with 2, 8 with 8\. Take 8")],
)  # fmt: skip
def test_work_that_stages_cannot_make_equal_is_refused_with_numbers_that_can_be(structures, evaluations, take: str):
    with pytest.raises(SpecError, match=take):
        DynamicRecipe(n_structures=structures, evaluations_per_epoch=evaluations)


@pytest.mark.parametrize(
    ("structures", "evaluations"), [((1, 2, 4, 8), 512), ((2, 4, 8), 600), ((2, 4, 8), 200), ((2, 5, 11), 2400)]
)
def test_work_of_the_published_comparisons_is_equal_to_a_tenth_of_a_percent(structures, evaluations):
    DynamicRecipe(n_structures=structures, evaluations_per_epoch=evaluations)
    work = [evaluations_made(evaluations, length) for length in structures]
    assert work == pytest.approx([evaluations] * len(work), rel=1e-3)


def test_work_that_is_equal_nearly_is_said_to_be_nearly_equal(parts, tmp_path: Path):
    recipe = DynamicRecipe(n_structures=(2, 7), evaluations_per_epoch=202, validation_structures=6)
    how = dataclasses.replace(FIXED, max_steps=1)
    said: list = []
    dynamic_training(painn(), parts[0], parts[1], how, recipe, folder=tmp_path, sink=said.append)
    assert any("of 202 to 203 force evaluations" in getattr(one, "text", "") for one in said)


# ---- going on


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"loss": "mae"}, r"expected loss mepa; found loss mae\."),
        ({"first_weight": 3.0}, r"expected first_weight 50\.0; found first_weight 3\.0"),
        ({"rollout": RolloutSettings(bptt=False, recompute_above=8)}, r"expected rollout\.bptt True; found .* False"),
        ({"frozen": (0,), "validation_structures": 5}, r"expected validation_structures 6, frozen \[\]"),
        ({"refresh": None}, "expected refresh 1; found refresh None"),
    ],
)
def test_a_folder_goes_on_with_its_own_recipe_only(parts, tmp_path: Path, change, match: str):
    def go(steps: int, **changes):
        recipe = DynamicRecipe(**{**SMALL, **changes})
        dynamic_training(
            painn(), parts[0], parts[1], dataclasses.replace(FIXED, max_steps=steps), recipe, folder=tmp_path
        )  # fmt: skip

    go(1)
    chosen = (tmp_path / "checkpoints" / "chosen.safetensors").read_bytes()
    with pytest.raises(RunError, match=f"the recipe is not the one.*{match}"):
        go(2, **change)
    assert (tmp_path / "checkpoints" / "chosen.safetensors").read_bytes() == chosen, "what there was is left"
    go(2, rollout=RolloutSettings(recompute=True))


def test_a_folder_that_does_not_tell_its_recipe_goes_on(parts, tmp_path: Path, monkeypatch):
    kept = SequenceSource.state
    monkeypatch.setattr(SequenceSource, "state", lambda self: {**kept(self), "recipe": {}})
    recipe = DynamicRecipe(**SMALL)
    for steps, one in ((1, recipe), (2, dataclasses.replace(recipe, first_weight=3.0))):
        found = dynamic_training(
            painn(), parts[0], parts[1], dataclasses.replace(FIXED, max_steps=steps), one, folder=tmp_path
        )  # fmt: skip
        assert found.result.step == steps


@pytest.mark.parametrize("change", [{"structures": [1, 3]}, {"refresh": None}, {"evaluations": 4}])
def test_a_source_goes_on_with_its_own_roll_outs_only(ethanol, parts, tmp_path: Path, change):
    # One set of start points: else their number alone would tell.
    usual = {"structures": [2, 3], "refresh": 1, "evaluations": 8}

    def go(**how):
        source = SequenceSource(ethanol, 4.0, torch.float64, how.pop("structures"), **how)
        one = TrainSettings(batch_size=2, max_steps=2, precision="float64", ema_decay=None, schedule="constant")
        train(painn(), source, parts[1].select([0]), one, folder=tmp_path, terms=[RolloutLoss()])

    go(**usual)
    go(**usual)
    with pytest.raises(RunError, match="training data: not what this training began with"):
        go(**{**usual, **change})


# ---- the recipe arrives


def test_the_term_is_what_the_recipe_says():
    how = RolloutSettings(bptt=False)
    term = DynamicRecipe(
        rollout=how, first_weight=3.0, loss="mse", energy_weight=0.5, energy_weight_dyn=0.25
    ).term  # fmt: skip
    assert term == RolloutLoss("mse", 3.0, 0.5, 0.25, how)
    assert (term.settings, term.first_weight) == (how, 3.0)


def test_the_source_is_what_the_recipe_says(parts, tmp_path: Path, monkeypatch):
    class SeenError(Exception):
        pass

    def look(*arguments, **named):
        raise SeenError(arguments[3], named)

    monkeypatch.setattr(training, "SequenceSource", look)
    recipe = DynamicRecipe(**SMALL, refresh=3, frozen=(0, 4), apart_limit=0.7)
    with pytest.raises(SeenError) as caught:
        dynamic_training(painn(), parts[0], parts[1], FIXED, recipe, folder=tmp_path)
    structures, named = caught.value.args
    assert structures == (1, 2)
    assert (named["refresh"], named["apart_limit"], named["evaluations"]) == (3, 0.7, 8)
    assert named["equal_stages"] is True
    assert np.flatnonzero(named["frozen"]).tolist() == [0, 4]


def test_the_best_epoch_is_that_of_the_roll_outs(parts, tmp_path: Path):
    recipe = DynamicRecipe(**{**SMALL, "n_structures": (1,)})
    assert training._settled(FIXED, recipe).monitor == MEPA
    how = dataclasses.replace(FIXED, stage_epochs=4, learning_rate=1e-2)
    found = dynamic_training(painn(), parts[0], parts[1], how, recipe, folder=tmp_path)
    series = Series(tmp_path / "series" / "validation").read()
    best = int(np.argmin(series["rollout_mepa"]))
    assert found.stages[0].best_epoch == int(series["epoch"][best])
    assert found.stages[0].rollout_mepa == pytest.approx(float(series["rollout_mepa"][best]))


def test_atoms_that_are_frozen_in_training_are_frozen_in_its_validation(parts, tmp_path: Path):
    train_part, validation = parts
    recipe = DynamicRecipe(**{**SMALL, "n_structures": (2,)}, frozen=(0, 1, 8), refit_energy=False)
    found = dynamic_training(painn(), train_part, validation, FIXED, recipe, folder=tmp_path)
    runs, mask = aimd_runs(validation), np.isin(np.arange(9), (0, 1, 8))
    starts = validation_starts(runs, 6, 2)
    rolled, free = (nve_rollouts(load(tmp_path), runs, starts, 6, frozen=one).mepa().mean() for one in (mask, None))
    assert found.stages[0].rollout_mepa == pytest.approx(rolled, rel=1e-6)
    assert abs(rolled - free) > 1e-3 * free


# ---- the source


def test_roll_outs_that_went_astray_stay_short_after_an_interruption_too(ethanol):
    def source() -> SequenceSource:
        return SequenceSource(ethanol, 3.0, torch.float64, [1, 2, 4], equal_stages=True)

    one, other = source(), source()
    one.apart = 0.3
    one.advance()
    other.restore(one.state())
    assert (one.n_structures, one.stage, one.held) == (1, 1, 1)
    assert (other.n_structures, other.stage, other.held) == (1, 1, 1)
    other.advance()
    assert other.n_structures == 1


def test_every_step_has_the_forces_of_its_own_frame_whatever_the_lists(ethanol):
    fresh, once = (
        SequenceSource(ethanol, 3.0, torch.float64, [5], refresh=refresh).batch(np.array([2, 40])).extra.forces
        for refresh in (1, None)
    )
    assert torch.equal(fresh, once)
    assert not torch.equal(fresh[0], fresh[1])


# ---- gradients through windows


def reaches_start(ethanol: AIMDRuns, structures: int, **settings) -> list[bool]:
    """Whether forces of each step depend on the start through time."""
    extra: Sequences = SequenceSource(ethanol, 3.0, torch.float64, [structures]).batch(np.arange(1)).extra
    start = extra.graphs[0].positions.clone().requires_grad_()
    graphs = [extra.graphs[0].moved(start, extra.graphs[0].cell), *extra.graphs[1:]]
    steps = roll_out(
        Springs(), graphs, extra.displacement, extra.masses, extra.timestep, RolloutSettings(**settings)
    )  # fmt: skip
    slopes = [torch.autograd.grad(one.forces.sum(), start, allow_unused=True, retain_graph=True)[0] for one in steps]
    return [slope is not None and float(slope.abs().max()) > 0 for slope in slopes]


def test_a_window_cuts_the_chain_after_so_many_steps_and_its_velocities_too(ethanol):
    assert reaches_start(ethanol, 6, window=3) == [True] * 3 + [False] * 3
    assert reaches_start(ethanol, 6) == [True] * 6


# ---- losses


def graph_of(rows: int):
    frames = FrameSet.from_arrays([6, 6], np.arange(6.0).reshape(1, 2, 3).repeat(rows, axis=0))
    return collate(frames, list(range(rows)), NeighbourCache(frames, 1.0), torch.float64)[0]


def test_absolute_and_squared_errors_are_what_they_are_called():
    residual = torch.tensor([[0.3, 0.0, 0.0], [0.0, -0.6, 0.0]], dtype=torch.float64)
    graph = graph_of(1)
    assert step_error(residual, graph, "mae").item() == pytest.approx(0.15)
    assert step_error(residual, graph, "mse").item() == pytest.approx(0.075)
    assert step_error(residual, graph, "mepa").item() == species_error(residual, graph).item()


@pytest.mark.parametrize("kind", ["mepa", "mae", "mse"])
def test_the_loss_of_a_batch_is_the_mean_of_its_roll_outs(ethanol, kind):
    source = SequenceSource(ethanol, 3.0, torch.float64, [3])

    def loss(*rows: int) -> tuple[float, ...]:
        batch = source.batch(np.array(rows))
        term = RolloutLoss(kind)
        found, figures = term(StepState(Springs(), extra=batch.extra), batch.graph, batch.targets, None)
        return found.item(), float(figures["loss_forces"]), float(figures["apart"])

    alone = np.array([loss(0), loss(9)])
    assert not np.allclose(*alone, rtol=1e-3)
    assert loss(0, 9) == pytest.approx(alone.mean(axis=0))


# ---- evaluation


def rollouts(error=None, *, apart=None, energy=None, on_reference=None, **changes) -> Rollouts:
    """Twelve roll-outs of five structures with two elements and nine atoms, three from each of four runs."""
    error = np.ones((12, 5, 2)) if error is None else error
    n, steps = error.shape[:2]
    found = Rollouts(
        (1, 6), error, error if on_reference is None else on_reference,
        np.full((n, steps, 2), 0.01) if apart is None else apart, np.zeros((n, steps)) if energy is None else energy,
        np.full(n, 0.5), np.arange(n) // 3, np.arange(n), np.full(n, 9),
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def noisy(scale: float, seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).uniform(0.9, 1.1, (12, 5, 2))


def test_drift_is_in_milli_electronvolt_per_atom_and_picosecond():
    """9 atoms at 9e-6 eV per fs together are 1 meV per atom and ps each."""
    energy = np.tile(9e-6 * 0.5 * np.arange(5), (12, 1)) * np.where(np.arange(12) % 2, 1, -1)[:, None]
    np.testing.assert_allclose(rollouts(energy=energy).drift(), np.where(np.arange(12) % 2, 1.0, -1.0))


def test_one_atom_far_away_is_enough_to_have_parted():
    apart = np.full((12, 5, 2), 0.01)
    apart[3, 2:, 1] = 0.6
    times = rollouts(apart=apart).divergence_time()
    assert times[3] == 1.0
    assert np.isinf(np.delete(times, 3)).all()


def test_neighbour_lists_of_two_runs_are_not_compared():
    """Atoms bound in one run and apart in the other: neither run's lists ever change."""
    positions = np.zeros((6, 2, 3))
    positions[:3, 1, 0], positions[3:, 1, 0] = 1.0, 5.0
    runs = AIMDRuns(FrameSet.from_arrays([1, 1], positions), np.array([0, 3, 6]), np.ones(2), True)
    assert edge_overlap(runs, 2.0, (1,))["H"].tolist() == [1.0]
    assert np.isnan(edge_overlap(runs, 2.0, (3,))["H"]).all()


# ---- comparing


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"start": np.arange(12) + 1}, "seed 0: not the same starts"),
        ({"elements": (1, 8)}, r"other elements; expected \[1, 6\]; found \[1, 8\]"),
        ({"timestep": np.full(12, 1.0)}, r"other time steps, fs; expected \[0\.5\]; found \[1\.0\]"),
        ({"n_atoms": np.full(12, 10)}, r"other numbers of atoms; expected \[9\]; found \[10\]"),
        ({"run": np.arange(12) // 4}, "other runs of the starts"),
        ({"data": "b"}, "control: seed 0: not the same AIMD runs: other frames; expected a; found b"),
    ],
)
def test_only_roll_outs_of_the_same_runs_are_compared(change, match: str):
    cure = {0: rollouts(noisy(0.5), data="a")}
    assert len(common_starts({"cure": cure, "control": {0: rollouts(noisy(1.0))}})) == 12, "earlier ones tell no data"
    with pytest.raises(DataError, match=match):
        judge_rollouts(cure, {"control": {0: rollouts(noisy(1.0), **change)}})
    longer = rollouts(np.ones((12, 6, 2)))
    with pytest.raises(DataError, match="not the same starts and structures"):
        common_starts({"cure": cure, "control": {0: longer}})


def test_roll_outs_say_which_data_they_are_of(parts, tmp_path: Path):
    one, other = (nve_rollouts(Springs(), aimd_runs(part), [2, 5], 3) for part in (run_of(0), parts[1]))
    stiff = nve_rollouts(Springs(1.0), aimd_runs(run_of(0)), [2, 5], 3)
    assert one.data == stiff.data != other.data
    with pytest.raises(DataError, match="not the same AIMD runs: other frames"):
        common_starts({"one": {0: one}, "other": {0: other}})
    keep_rollouts(one, tmp_path / "one.npz")
    assert read_rollouts(tmp_path / "one.npz").data == one.data
    with np.load(tmp_path / "one.npz") as arrays:
        np.savez(tmp_path / "earlier.npz", **{name: arrays[name] for name in arrays if name != "data"})
    assert read_rollouts(tmp_path / "earlier.npz").data == ""


@pytest.mark.parametrize("structures", [1000, 6, 0, -2])
def test_no_more_structures_are_judged_than_there_are(structures: int):
    with pytest.raises(DataError, match=f"structures: out of range; expected 1 to 5, or None; found {structures}"):
        judge_rollouts({0: rollouts()}, {"control": {0: rollouts()}}, structures=structures)


def test_starts_of_one_run_are_no_independent_evidence():
    """What all starts of a run have in common does not average out over them."""
    shared = np.exp(np.where(np.arange(12) // 3 % 2, 0.5, -0.5))[:, None, None]
    cure = {seed: rollouts(noisy(0.8, seed) * shared) for seed in range(3)}
    control = {seed: rollouts(noisy(1.0, 7 + seed)) for seed in range(3)}
    verdict = judge_rollouts(cure, {"control": control})

    def alone(arm):
        return {seed: dataclasses.replace(one, run=one.start) for seed, one in arm.items()}

    free = judge_rollouts(alone(cure), {"control": alone(control)})
    assert verdict.ratio == pytest.approx(free.ratio)
    assert verdict.half_width > 1.3 * free.half_width


def test_arms_are_paired_by_the_seeds_of_their_trainings():
    def arm(scale: float, seeds) -> dict[int, Rollouts]:
        return {seed: rollouts(noisy(scale, seed)) for seed in seeds}

    assert not judge_rollouts(arm(0.5, (3, 5)), {"control": arm(1.0, (7, 9))}).paired_seeds
    assert judge_rollouts(arm(0.5, (3, 5)), {"control": arm(1.0, (3, 5))}).paired_seeds


def test_what_is_judged_is_the_first_structures_only():
    control = {seed: rollouts(noisy(1.0, seed)) for seed in range(3)}
    worse = np.where(np.arange(5) < 2, 1.0, 5.0)[:, None]
    cure = {seed: rollouts(one.error * worse) for seed, one in control.items()}
    assert judge_rollouts(cure, {"control": control}, structures=2).ratio == pytest.approx(1.0)
    assert judge_rollouts(cure, {"control": control}).ratio > 3


def test_the_smallest_gain_worth_having_is_passed_on():
    control = {seed: rollouts(noisy(1.0, seed)) for seed in range(3)}
    for effect in (0.05, 0.3):
        assert judge_rollouts(control, {"control": control}, effect=effect).effect == effect


def test_a_row_of_the_table_is_made_of_what_it_says():
    sign = np.where(np.arange(12) % 2, 1.0, -1.0)[:, None]
    energy = 9e-6 * 0.5 * np.arange(5) * sign
    apart = np.full((12, 5, 2), 0.01)
    apart[:7, 3:, 1] = 0.6
    arm = {
        seed: rollouts(scale * np.ones((12, 5, 2)) * [1.0, 3.0], on_reference=scale * np.ones((12, 5, 2)) * [0.5, 1.5],
                       energy=energy, apart=apart)
        for seed, scale in ((4, 1.0), (6, 2.0), (8, 4.5))
    }  # fmt: skip
    row = arm_row("arm", arm)
    assert (row.name, row.seeds) == ("arm", (4, 6, 8))
    assert row.mepa == pytest.approx(10.0)
    assert row.spread == pytest.approx(np.std([4.0, 8.0, 18.0], ddof=1))
    assert row.equal_frames == pytest.approx(row.mepa / 2)
    assert row.per_element == pytest.approx({"H": 2.5, "C": 7.5})
    assert row.drift == pytest.approx(1.0), "drifts up and down do not cancel"
    assert (row.diverged, row.rollouts, row.divergence_fs, row.lost) == (21, 36, 1.5, 0)
    assert error_curve(arm) == pytest.approx(np.full(5, 10.0))
    few = {seed: dataclasses.replace(one, apart=np.where(np.arange(12)[:, None, None] < 1, apart, 0.01))
           for seed, one in list(arm.items())[:2]}  # fmt: skip
    row = arm_row("few", few)
    assert (row.diverged, row.divergence_fs) == (2, np.inf)
    assert np.isnan(arm_row("one", {4: arm[4]}).spread)


def test_the_error_curve_has_the_mean_of_the_table():
    rising = np.linspace(1.0, 2.0, 5)[:, None]
    arm = {seed: rollouts(noisy(1.0, seed) * rising) for seed in range(3)}
    curve = error_curve(arm)
    assert curve.shape == (5,)
    assert curve.mean() == pytest.approx(arm_row("arm", arm).mepa)
    assert (np.diff(curve) > 0).all()
    some = np.array([1, 4])
    assert error_curve(arm, some).mean() == pytest.approx(arm_row("arm", arm, some).mepa)
