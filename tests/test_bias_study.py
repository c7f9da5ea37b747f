"""The published fine-tuning study from its own data: its residuals, its training sets, what a constant leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).resolve().parent.parent / "benchmarks" / "studies"
sys.path.insert(0, str(STUDIES))

from mlipkit.analysis.cross_evaluation import is_in  # noqa: E402

# RMSE, mean and standard deviation in meV/atom of each model on its own MD, and the number of frames.
OWN = {
    "U": (16.28, -16.22, 1.45, 9), "N-10": (10.24, -10.03, 2.11, 8), "N-21": (12.87, -12.77, 1.61, 6),
    "N-31": (18.14, -18.13, 0.40, 3), "N-40": (9.85, -9.73, 1.52, 6), "N-50": (10.70, -10.68, 0.59, 5),
    "FT1": (14.74, -14.66, 1.61, 7), "FT2": (9.12, -8.92, 1.89, 5), "FT3": (4.26, -4.07, 1.27, 11),
    "FT4": (3.98, -3.85, 1.03, 8), "FT5": (4.87, -4.79, 0.90, 7),
}  # fmt: skip
OWN_LONG = {
    "NP-10": (21.05, -20.90, 8), "NP-21": (6.56, -6.34, 9), "NP-31": (5.59, -5.51, 11), "NP-40": (3.64, -3.03, 10),
    "NP-50": (3.37, -3.22, 11),
}  # fmt: skip


@pytest.fixture(scope="module")
def study(shared_data: Path):
    import bias_published

    return bias_published


@pytest.fixture(scope="module")
def tests(study):
    return study.read_set("self_md_tests")


def test_residuals_of_the_published_models_on_their_own_md(study, tests) -> None:
    found = study.own_md(tests)
    for model, (rmse, mean, std, n) in OWN.items():
        row = found[model]
        assert (row["rmse_e"][0], row["mean_e"][0], row["std_e"][0]) == pytest.approx((rmse, mean, std), abs=0.011), (
            model
        )
        assert row["n_frames"] == n
        assert row["mean_e"][1] < row["mean_e"][0] < row["mean_e"][2]
    for model, (rmse, mean, n) in OWN_LONG.items():
        row = found[model]
        assert (row["rmse_e"][0], row["mean_e"][0], row["n_frames"]) == (
            pytest.approx(rmse, abs=0.011), pytest.approx(mean, abs=0.011), n
        )  # fmt: skip
    for model in found:
        assert found[model]["printed"] is None or found[model]["rmse_e"][0] == pytest.approx(
            found[model]["printed"]["rmse_e"], abs=0.01 if model != "FT2" else 0.08
        )


def test_residuals_of_the_runs_that_gave_the_training_frames(study) -> None:
    found = {name: row["rmse_e"][0] for name, row in study.training_runs().items()}
    printed = {"iterative: U": 22.0, "iterative: FT1": 10.6, "iterative: FT2": 3.5, "iterative: FT3": 2.4,
               "iterative: FT4": 2.6}  # fmt: skip
    for name, value in printed.items():
        assert found[name] == pytest.approx(value, abs=0.05), name
    naive = study.training_runs()["naive: U"]
    assert (naive["mean_e"][0], naive["std_e"][0]) == pytest.approx((-18.7, 2.9), abs=0.05)


def test_one_constant_takes_the_untouched_model_below_every_fine_tuned_one(study, tests) -> None:
    rows = {(row["model"], row["fitted_on"]): row for row in study.offsets(tests)}
    row = rows["U", "naive"]
    assert (row["before"]["rmse_e"][0], row["after"]["rmse_e"][0]) == pytest.approx((16.28, 2.88), abs=0.01)
    own = study.own_md(tests)
    assert row["after"]["rmse_e"][2] < min(own[model]["rmse_e"][0] for model in ("N-50", "FT5"))
    # Most of what the chain gains over its own earlier constant is that constant moving on.
    assert rows["FT3", "iterative"]["after"]["rmse_e"][0] < rows["FT3", "iterative"]["before"]["rmse_e"][0]


def test_no_training_frames_of_equal_density(study, tests) -> None:
    found = study.matched_density(tests)
    assert found["pairs_of_training_frames"] == 0, "the two arms differ in density before they differ in anything else"
    assert found["pairs"] == 13
    assert abs(found["naive"]["density_g_cm3"] - found["iterative"]["density_g_cm3"]) < 0.01


def test_training_sets(study) -> None:
    from bias_data import ARMS, SIZES, arm, published_name, training_set

    sets = {(name, size): training_set(name, size) for name in ARMS for size in SIZES}
    assert [len(frames) for frames in sets.values()] == list(SIZES) * 3
    for name in ("iterative", "longrun"):
        for small, large in zip(list(SIZES)[:-1], list(SIZES)[1:], strict=True):
            assert is_in(sets[name, small], sets[name, large]).all(), f"{name}: cumulative"
    assert np.bincount(sets["naive", 10].trajectory, minlength=6)[1:].tolist() == [3, 2, 3, 2, 0], "as published"
    assert (sets["longrun", 10].time == arm("longrun").frames.time[:10]).all()
    assert int(is_in(sets["naive", 50], sets["iterative", 50]).sum()) == 10
    assert is_in(sets["iterative", 10], sets["naive", 50]).all(), "the shared ten are the first round"
    assert [published_name(*key) for key in (("naive", 50), ("iterative", 10), ("longrun", 10))] == [
        "N-50",
        "FT1",
        "NP-10",
    ]
