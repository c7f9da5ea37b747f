"""The published fine-tuning study from its own data: its residuals, its training sets, what a constant leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).resolve().parent.parent / "benchmarks" / "studies"
sys.path.insert(0, str(STUDIES))

from mlipkit.analysis.cross_evaluation import is_in  # noqa: E402
from mlipkit.analysis.residuals import Residuals  # noqa: E402

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


# ---- the study: planted cases instead of trained potentials


@pytest.fixture(scope="module")
def tables(shared_data: Path):
    import bias_table

    bias_table.DRAWS = 150
    return bias_table


def line(arm: str, size: int, seed: int, mean: float, std: float, rng: np.random.Generator) -> dict:
    """What a potential with residuals of this mean and standard deviation (meV/atom) would have left behind."""
    import bias
    from bias_data import kept, read_set

    sets = {}
    for name in bias.read_plan("bias.yaml")["evaluate"]:
        frames = read_set(name).frames
        n = len(frames)
        found = Residuals(frames, (mean + rng.normal(0, std, n)) / 1000, rng.uniform(1, 2, (n, 3)),
                          np.asarray(frames.n_atoms), rng.normal(0, 0.001, (n, 6)))  # fmt: skip
        sets[name] = kept(found)
    forces = {"validation": {"forces_mae": 0.1}}
    return {
        "model": "chgnet", "arm": arm, "size": size, "seed": seed, "sets": sets, "chosen": "fine-tuned" if arm else "",
        "frame_gradients": 400, "best_epoch": 3, "epochs": 10, "training_s": 60.0,
        "shifts": {"mean_mev": 190.0, "spread_mev": 3.0}, "metrics": {"offset": forces, "best": forces},
    }  # fmt: skip


def planted(tables, naive: tuple[float, float], iterative: tuple[float, float], n_seeds: int = 3) -> list:
    rng = np.random.default_rng(7)
    rows = [line("", 0, 0, -190.0, 6.0, rng)]
    for seed in range(n_seeds):
        rows += [line("naive", 50, seed, *naive, rng), line("iterative", 50, seed, *iterative, rng)]
    return tables.models_of(rows, "chgnet")


@pytest.mark.full
def test_an_effect_that_was_planted_is_found(tables) -> None:
    models = planted(tables, (0.0, 4.0), (0.0, 1.0))
    found = tables.verdicts(models)
    assert f"{tables.QUESTION} Yes (3 seeds, 50 training frames)" in tables.sentence(found)
    assert all("it learned more than an offset" in text for text in tables.offset_sentences(found)[1:])
    rows = [row for row in found if (row["claim"], row["quantity"]) == ("iterative beats naive", "energy")]
    assert [row["on"] for row in rows] == [
        "independent structures", "self-MD frames", "self-MD frames of equal density",
    ]  # fmt: skip
    assert all(row["lower"] < 0.25 < row["upper"] for row in rows)


@pytest.mark.full
def test_no_effect_is_found_where_there_is_none(tables) -> None:
    found = tables.verdicts(planted(tables, (0.0, 5.0), (0.0, 5.0)))
    assert "Yes" not in tables.sentence(found)


@pytest.mark.full
def test_an_offset_alone_is_called_an_offset(tables) -> None:
    """Iterative frames with a better constant and nothing else: four times the naive arm, and still no gain."""
    models = planted(tables, (-20.0, 6.0), (0.0, 6.0))
    found = tables.verdicts(models)
    energy = next(row for row in found if row["claim"] == "iterative beats naive" and row["quantity"] == "energy")
    assert energy["against"]["naive 50"]["upper"] < 0.7
    assert energy["best_control"].startswith("untouched + offset of")
    assert "Yes" not in tables.sentence(found)
    assert all("it learned an offset; more is not shown" in text for text in tables.offset_sentences(found))


@pytest.mark.full
def test_one_seed_decides_nothing_and_says_so(tables) -> None:
    found = tables.verdicts(planted(tables, (0.0, 4.0), (0.0, 1.0), n_seeds=1))
    said = tables.sentence(found)
    assert "Undecided (1 seed, 50 training frames)" in said
    assert "no pair of training frames of the two arms has the same density" in said
    assert tables.sentence([]) == f"{tables.QUESTION} Not measured yet."


def test_offset_controls_are_fitted_on_the_arm_alone(tables) -> None:
    models = {one.name: one for one in planted(tables, (0.0, 4.0), (0.0, 4.0), n_seeds=1)}
    control = models["untouched + offset of iterative 50"]
    assert control.training is not None
    assert len(control.training) == 50
    [left] = control.on("periodic_50")
    assert left.energy.mean() == pytest.approx(0, abs=1e-7)
    assert 1000 * control.on("independent")[0].energy.mean() == pytest.approx(0, abs=4)


def test_constants_alone_can_make_one_arm_look_better(tables) -> None:
    rng = np.random.default_rng(3)
    models = tables.models_of([line("", 0, 0, -190.0, 6.0, rng)], "chgnet", [("naive", 50), ("iterative", 50)])
    assert [one.name for one in models] == [
        "untouched", "untouched + offset of naive 50", "untouched + offset of iterative 50",
    ]  # fmt: skip
    assert "a ratio of 1.0" in tables.constants_sentence(models) or "a ratio of 0.9" in tables.constants_sentence(
        models
    )
    assert tables.constants_sentence(models[:1]) == "Not measured yet."


def test_a_line_keeps_what_the_tables_need(tables) -> None:
    from bias_data import kept, restored

    [found] = tables.models_of([line("", 0, 0, -190.0, 6.0, np.random.default_rng(0))], "chgnet")[0].on("independent")
    again = restored(kept(found), found.frames)
    assert again.energy == pytest.approx(found.energy, rel=1e-5)
    assert again.stress == pytest.approx(found.stress, rel=1e-5)
    row, slipped = tables.table_row(found), tables.table_row(tables._slipped(found))
    assert row["rmse_s"][0] != slipped["rmse_s"][0]


def test_lines_of_another_machine_are_taken_once(tables, tmp_path, monkeypatch) -> None:
    import bias

    monkeypatch.setattr(bias, "RESULTS", tmp_path)
    plan = {"results": "here"}
    rows = [
        line("", 0, 0, -190.0, 6.0, np.random.default_rng(0)),
        line("naive", 10, 0, 0.0, 3.0, np.random.default_rng(1)),
    ]
    (tmp_path / "here.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "there.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):
        bias.take(plan, tmp_path / "there.jsonl")
    assert [bias.key(row) for row in bias.lines(plan)] == [("chgnet", "", 0, 0), ("chgnet", "naive", 10, 0)]
    assert len((tmp_path / "here.jsonl").read_text().splitlines()) == 2


@pytest.mark.full
def test_every_place_of_the_page_is_filled(tables) -> None:
    import bias_page

    page = (STUDIES.parents[1] / "docs" / "finetuning_case.md").read_text()
    models = planted(tables, (0.0, 4.0), (0.0, 1.0), n_seeds=1)
    rows = [line("", 0, 0, -190.0, 6.0, np.random.default_rng(0)),
            line("iterative", 10, 0, 0.0, 3.0, np.random.default_rng(1))]  # fmt: skip
    text = bias_page.fill(page, {"chgnet": tables.summary(rows, "chgnet")}, rows)
    assert text.count("<!-- begin:") == text.count("<!-- end:") == 14
    for place in text.split("<!-- begin: ")[1:]:
        assert len(place.split("-->", 1)[1].split("<!-- end", 1)[0].strip()) > 10, place[:30]
    assert "| untouched + offset of iterative 10 |" in text
    assert len(models) == 5
    with pytest.raises(Exception, match="no place to fill"):
        bias_page.fill(page.replace("<!-- end: matrix -->", ""), {}, [])


def test_both_plans_can_begin(shared_data: Path) -> None:
    import bias

    from mlipkit.strategies.finetuning import FinetuneRecipe
    from mlipkit.training import TrainSettings

    small, paper = bias.read_plan("bias.yaml"), bias.read_plan("bias_paper.yaml")
    for plan in (small, paper):
        TrainSettings(**plan["settings"])
        FinetuneRecipe(**plan["recipe"])
    steps = small["settings"]["points_per_epoch"] * small["settings"]["max_epochs"]
    assert steps * small["settings"]["batch_size"] == 400
    assert bias.jobs(small)[:3] == [("chgnet", "", 0, 0), ("chgnet", "naive", 10, 0), ("chgnet", "iterative", 10, 0)]
    assert bias.jobs(small)[-1] == ("sevennet-0", "", 0, 0)
    assert len(bias.jobs(small)) == 1 + 6 + 1
    assert len(bias.jobs(paper)) == 2 + 2 * 3 * 15
