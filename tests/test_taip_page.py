"""The tables of the page about adaptation at test time, from records that the study itself made of made-up errors."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlipkit.analysis.feature_shift import FeatureShift
from mlipkit.strategies.taip.measuring import QUANTITIES, Measured
from mlipkit.strategies.taip.study import Study, judged

STUDIES = Path(__file__).resolve().parents[1] / "benchmarks" / "studies"
SCALES = {"baseline": 1.0, "noise": 1.1, "off": 0.9, "adapted": 0.5, "random": 0.9, "only_noise": 0.45,
          "only_types": 0.9, "only_pseudo_forces": 1.8}  # fmt: skip
COMMAND = "python benchmarks/studies/taip.py"


@pytest.fixture
def page(study_script):
    """The script as a module."""
    return study_script("taip_page")


def evaluated(*tests: str, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """A record in which adaptation halves every error of 0.04 eV/Å and 0.004 eV/atom, and training takes a tenth."""
    rng, measured = np.random.default_rng(0), []
    sizes = {"forces": 0.04, "energy": 0.004}
    frames = {quantity: sizes[quantity] * np.exp(rng.normal(0, 0.2, 6)) for quantity in QUANTITIES}
    for quantity in frames:
        frames[quantity] *= sizes[quantity] / frames[quantity].mean()
    for seed in seeds:
        errors = {
            test: {
                column: {quantity: scale * values for quantity, values in frames.items()}
                for column, scale in SCALES.items()
            }
            for test in tests
        }
        scan = {0.0: 0.04, 1e-7: 0.04, 1e-5: 0.02 * (1 + 0.1 * seed), 1e-3: 0.16}
        scans = {"forces": scan, "energy": {**scan, 1e-7: 0.01}}
        rows = {test: list(range(6)) for test in tests}
        signals = {"all": 0.1 * seed, "noise": 0.5, "types": 0.3, "pseudo_forces": 0.4, "one draw": 0.0}
        measured.append(
            Measured(
                seed, {"adapted": {"forces": 1e-5, "energy": 1e-7}}, scans, errors, rows, rows,
                scan_tests=dict.fromkeys(tests, scans), correlation=dict.fromkeys(tests, signals),
                repeat=dict.fromkeys(tests, 0.002), change=dict.fromkeys(tests, 0.003),
                seconds={"off": 0.002, "adapted": 0.016},
                training_s={"baseline": 10.0, "noise": 20.0, "taip": 30.0},
            )
        )  # fmt: skip
    # Through the file, as the page gets it.
    return json.loads(json.dumps(judged(Study(seeds=seeds), measured, [name for name in tests if " " not in name])))


def lines(text: str) -> list[list[str]]:
    """Cells of the rows below the head."""
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_every_case_and_test_set_of_the_plan_has_a_name(page):
    plan = yaml.safe_load((STUDIES / "taip_small.yaml").read_text())
    assert set(page.tables.CASES) == set(plan["cases"])
    for case, fields in plan["cases"].items():
        shifted = fields.get("shifted", [])
        for place in [shifted] if isinstance(shifted, str) else shifted:
            assert place.rpartition("/")[2].rpartition(":")[2].partition(".")[0] in page.tables.TESTS, case
        if case in page.tables.SIZES and "n_train" in fields:
            assert page.tables.SIZES[case] == fields["n_train"]
    assert {case for case in plan["cases"] if case.startswith("f_")} < set(page.tables.SIZES)


def test_what_is_not_measured_says_how_to(page):
    found = page.places({})
    assert found["state"] == f"0 of {2 * len(page.tables.CASES)} evaluations are finished. Not yet: `{COMMAND}`"
    assert found["verdicts"] == f"*Not measured yet:* `{COMMAND}`"
    assert found["sizes"].startswith(f"*Not measured yet:* `{COMMAND} --only f_acac_50:schnet,")
    assert found["trial"] == f"*Not measured yet:* `{COMMAND} --plan taip_trial.yaml`"
    for name, (file, _) in page.OTHERS.items():
        assert found[name] == f"*Not measured yet:* `{page.COMMANDS[file]}`"
    for command in page.COMMANDS.values():
        assert (STUDIES.parents[1] / command.split()[1]).is_file()


def test_the_page_has_a_place_for_every_table(page):
    text = page.PAGE.read_text(encoding="utf-8")
    filling = page.places({})
    assert set(re.findall(r"<!-- begin: (.+?) -->", text)) == set(filling)
    assert page.filled(page.filled(text, filling, "page"), filling, "page") == page.filled(text, filling, "page")


def test_tables_of_an_evaluation(page):
    cases = {
        "d_ethanol:schnet": evaluated("in distribution"),
        "c_liquid_ice:painn": evaluated("in distribution", "ice_ih"),
    }
    found = page.places({"taip.json": {"cases": cases}})
    said = f"2 of {2 * len(page.tables.CASES)} evaluations are finished. Not yet: `{COMMAND} --only a_acac:schnet,"
    assert found["state"].startswith(said)
    assert "c_liquid_ice:painn" not in found["state"]

    forces = lines(found["forces"])
    assert [row[:4] for row in forces] == [
        ["liquid water", "painn", "in distribution", "40"],
        ["liquid water", "painn", "ice Ih", "40"],
        ["ethanol, MD17", "schnet", "in distribution", "40"],
    ], "cases in the order of the page"
    assert [cell[:5] for cell in forces[1][4:8]] == ["0.900", "0.500", "0.900", "1.100"]
    assert [row[8] for row in forces] == ["0.78", "0.78", "0.73"]
    assert lines(found["energies"])[0][3:5] == ["4", "0.900 (0.900 to 0.900)"]
    assert lines(found["energies"])[1][8] == "0.07"

    adapting, training = found["counted"].splitlines()
    assert adapting == (
        "- *Adaptation* beats the best of its controls in 6 of 6 comparisons. A gain of 10 % is excluded in 0 of 3 for "
        "forces and in 0 of 3 for energy; in 0 the best control is certainly better."
    )
    assert training.startswith("- *Training with the tasks* beats the best of its controls in ")
    summary = {(row[0], row[1], row[2]): row[3:] for row in lines(found["summary"])}
    assert summary["adaptation", "out of distribution", "forces"][:3] == ["1", "0", "0"]
    assert summary["adaptation", "in distribution", "forces"] == ["2", "0", "0", "0.556 to 0.556", "0 of 2"]
    assert summary["random step", "in distribution", "energy"][3:] == ["1.000 to 1.000", "2 of 2"]
    verdict = next(row for row in lines(found["verdicts"]) if row[2:5] == ["ice Ih", "energy", "adaptation"])
    assert verdict[6:] == ["0.556", "0.556 to 0.556", "3, 6", "works"]

    head, *_ = found["steps"].splitlines()
    assert "| 1e-7 | 1e-5 | 1e-3 |" in head
    steps = lines(found["steps"])
    assert steps[0][2:] == ["forces", "1.0000", "0.5500", "4.0000", "1e-5, 1e-5, 1e-5", "0.5500"]
    assert steps[1][2:] == ["energy", "0.2500", "0.5500", "4.0000", "1e-7, 1e-7, 1e-7", "0.2500"]
    assert lines(found["steps on tests"])[2][2:] == ["ice Ih", "forces", "1.0000", "0.5500", "4.0000"]
    assert lines(found["losses alone"])[0][4:] == ["0.5556", "0.5000", "1.0000", "2.0000"]
    ranks = [f"{one} ({one} to {one})" for one in ("0.50", "0.30", "0.40", "0.00")]
    assert lines(found["signals"])[0][3:] == ["0.10 (0.00 to 0.20)", *ranks, "0.2 %", "0.003"]
    assert lines(found["cost"])[0][2:] == ["2.00", "16.00", "8.0", "3.0"]


def test_energies_of_other_compositions_are_in_no_table(page):
    cases = {"b_nacl:painn": evaluated("in distribution", "nacl2_w60")}
    assert len(lines(page.tables.against_baseline(cases, "forces"))) == 2
    for table in (page.tables.against_baseline(cases, "energy"), page.tables.verdicts(cases)):
        assert not [row for row in lines(table) if "2 NaCl" in row and "energy" in row]
    assert [row[2] for row in lines(page.tables.against_baseline(cases, "energy"))] == ["in distribution"]


def test_the_size_of_the_training_set(page):
    cases = {f"{case}:painn": evaluated("in distribution", "acac_test_MD_600K") for case in ("a_acac", "f_acac_50")}
    rows = lines(page.places({"taip.json": {"cases": cases}})["sizes"])
    assert [row[:3] for row in rows] == [
        ["painn", "in distribution", "50"], ["painn", "in distribution", "450"],
        ["painn", "600 K", "50"], ["painn", "600 K", "450"],
    ]  # fmt: skip
    assert rows[0][6:] == ["works", "works"]


def test_features_that_shift(page):
    shift = FeatureShift(0.1, 0.05, 0.2, 0.01, 1.0, 12.5, 0.75, 0.02, 40, 40, 40, 40, 40)
    record = evaluated("in distribution", "acac_test_MD_600K")
    record["shifts"] = {"acac_test_MD_600K": {kind: asdict(shift) for kind in ("baseline", "off", "adapted")}}
    rows = lines(page.places({"taip.json": {"cases": {"a_acac:schnet": record}}})["shifts"])
    assert len(rows) == 3
    assert rows[2][2:] == ["600 K", "adapted", "0.100 (0.050 to 0.200)", "12.5", "0.750 ± 0.020"]


def test_the_trial_stands_beside_the_published_table_in_both_units(page):
    record = evaluated("in distribution")
    found = page.places({"taip_trial.json": {"cases": {"d_ethanol:schnet": record, "d_ethanol_cosine:painn": record}}})
    assert [row[:2] for row in lines(found["trial"])[3:5]] == [
        ["400 frames, 1e-4 halved", "schnet"], ["800 frames, 5e-4 along a cosine", "painn"]
    ]  # fmt: skip
    rows = {(row[2], row[3]): row[4:] for row in lines(found["trial"]) if row[1] == "schnet"}
    assert rows["forces", "kcal/mol/Å"][:6] == ["0.371", "0.272", "0.73", "0.922", "0.83", "0.461"]
    assert rows["forces", "eV/Å"][:6] == ["0.0161", "0.0118", "0.73", "0.04", "0.036", "0.02"]
    assert rows["energy", "eV"][3:6] == ["0.036", "0.0324", "0.018"], "of the molecule, not per atom"
    assert rows["energy", "kcal/mol"][7] == "0.500 (0.500 to 0.500)"


def test_simulations(page):
    import taip_survival

    ends = [(10000.0, "", np.inf)] * 3 + [(2000.0, "max force", np.inf)]
    curve = taip_survival.curve_of(ends)
    row = taip_survival.summary(curve, 10000.0, {"baseline": curve, "nonsaving_random": curve})
    row["without_energy"] = {**row, "failed": 0, "mean_ps": 10.0}
    found = {"half_fail_at_K": 800.0, "temperatures": {"300": {"nonsaving": row}, "800": {"baseline": row}}}
    never = {"half_fail_at_K": None, "temperatures": {}}
    record = json.loads(json.dumps({"encoders": {"painn": found, "schnet": never}}))
    told, _, table = page.places({"taip_survival.json": record})["survival"].partition("\n\n")
    assert told.startswith("painn: half of the simulations of the potential without tasks fail from 800 K on. ")
    assert (
        "*Not measured yet for painn at 800 K: never adapts, nonsaving, save_every, save_every_k, threshold, "
        "trained without tasks, other velocities, never adapts, other velocities, nonsaving, other velocities, "
        "nonsaving with random steps, nonsaving with random steps, other velocities.*" in told
    )
    assert "at 300 K: trained without tasks, never adapts, save_every, " in told
    assert "at no temperature of the ladder" in told
    rows = lines(table)
    assert rows[0][:4] == ["painn", "300", "nonsaving", "1 of 4"]
    assert rows[0][5:11] == ["8.00", "not reached", "1.000", "", "1.000", "max force 1"]
    assert rows[0][11:] == ["0 of 4", "10.00", "", "1.000"]
    assert rows[1][2] == "trained without tasks"


def test_profiles_and_cost(page):
    import taip_profiles

    reference = np.array([0.0, 0.1, 0.5])
    figures = [taip_profiles.profile_figures(scale * reference, reference) for scale in (0.9, 1.1)]
    arms = {"adapted": taip_profiles.over_seeds(figures)}
    profile = {"frames": 3, "barrier_of_labels": 500.0, "arms": arms, "curves_meV": {}}
    record = {"encoders": {"painn": {"profiles": {"proton_transfer": profile}}}}
    steps = [
        {"what": "md", "encoder": "painn", "features": 64, "layers": 2, "system": "water", "replicas": 1,
         "strategy": strategy, "times_plain": times}
        for strategy, times in (("none", 1.0), ("nonsaving", 99.0), ("nonsaving", 7.5), ("nonsaving, hold 5", 2.25))
    ]  # fmt: skip
    together = [
        {"what": "at_once", "encoder": "painn", "features": 64, "layers": 2, "structures": size, "times_loop": times}
        for size, times in ((8, 9.0), (8, 3.25), (32, 5.5))
    ]
    hold = {"encoder": "schnet", "rms_force_deviation_meV_per_A": {"plain": 3.8, "hold_5": 4.8},
            "times_plain": {"plain": 1.0, "hold_5": 2.8, "every": 8.1}}  # fmt: skip
    found = page.places({
        "taip_profiles.json": record, "taip_cost.jsonl": [*steps, {"what": "products"}, *together],
        "taip_hold.jsonl": [hold],
    })  # fmt: skip
    assert lines(found["profiles"]) == [
        ["proton transfer", "painn", "adapted", "500 (450 to 550)", "500", "0 (-50 to 50)", "17 (17 to 17)"]
    ]
    assert found["simulation cost"].startswith(
        "| encoder | features, layers | system | replicas | nonsaving | hold 5 |"
    )
    assert lines(found["simulation cost"]) == [["painn", "64, 2", "water", "1", "7.5", "2.2"]], "the last line counts"
    assert lines(found["at once"]) == [["painn", "64, 2", "3.2", "5.5"]]
    assert lines(found["held"])[1] == ["schnet", "held for 5 steps", "4.80", "2.8"]


def test_results_are_read_from_their_files(page, tmp_path: Path):
    (tmp_path / "taip.json").write_text('{"cases": {}}')
    (tmp_path / "taip_cost.jsonl").write_text('{"what": "md"}\n{"what": "products"}\n')
    found = page.results(tmp_path)
    assert found == {"taip.json": {"cases": {}}, "taip_cost.jsonl": [{"what": "md"}, {"what": "products"}]}
