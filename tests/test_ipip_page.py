"""The tables of the page about iterative pretraining, from invented records; what is not finished is stated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlipkit.analysis.cures import Errors, judge_cure
from mlipkit.strategies.ipip.mechanism import CHECKPOINTS
from mlipkit.strategies.ipip.plan import ARMS, LOOPS, WHOLE, Budget

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "benchmarks" / "studies"
BUDGET = Budget(12000, 2900, 40000, 120000).sentence
FACTORS = {"ipip": 0.5, "continual": 0.6, "scratch": 1.0, "one_shot": 0.8, "no_unstable": 0.5, "no_forgetting": 0.4,
           "no_relabelling": 0.6, "no_new_frames": 0.66, "hessian": 0.7, "teacher": 0.25}  # fmt: skip
PLAN = yaml.safe_load((STUDIES / "ipip_small.yaml").read_text(encoding="utf-8"))
SPECIES = {
    "element": "Mo", "lifetime": 1000.0, "runs": 20, "too_short": 2, "frames": 1000, "balanced": 990,
    "formulas": {"Mo3O9": 700, "Mo3O9S2": 300, "MoO3": 50, "Mo2O6": 40, "MoS6": 7, "MoS7": 3}, "mean_clusters": 1.1,
    "last_formulas": {"Mo3O9": 12, "Mo3O9S2": 8}, "last_clusters": 1.0, "events": {"insertion": 8, "split": 1},
    "checkpoints": dict(zip(CHECKPOINTS, (8, 3, 1, 0, 9), strict=True)),
}  # fmt: skip


@pytest.fixture
def page(study_script):
    """The script as a module."""
    return study_script("ipip_page")


def line(study: str, arm: str, seed: int, encoder: str = "painn", **more: Any) -> dict[str, Any]:
    """What is kept of an arm: its errors a factor of 40 meV/Å and 4 meV/atom, a tenth more with each seed."""
    size = FACTORS[arm] * (1 + 0.1 * seed)
    n_rounds = 4 if arm in LOOPS else 1
    rows = [{"model": "teacher", "round": 0, "forces_mae": 100.0, "forces_norm": 200.0, "energy_mae": 9.0,
             "better_than_teacher": None, "ratio_to_teacher": None}]  # fmt: skip
    for k in range(n_rounds):
        part = size * (n_rounds - k)
        rows.append({"model": f"finetune_{k}", "round": k, "forces_mae": 40 * part, "forces_norm": 80 * part,
                     "energy_mae": 4 * part, "better_than_teacher": 240, "ratio_to_teacher": 0.4 * part})  # fmt: skip
    first = {"round": 0, "pool": {"size": 2000, "teacher_share": 1.0}, "md_failed": 1, "md_runs": 20,
             "md_steps_per_s": 50.0, "validation_before": 210.0 + seed, "validation_after": 90.0}  # fmt: skip
    later = [{"round": k, "pool": {"size": 2000, "teacher_share": 0.1}, "forgotten": 200, "relabelled": 1800,
              "new": 200, "new_unstable": 150 + seed, "md_failed": 4 - k, "md_runs": 20, "md_steps_per_s": 300.0,
              "student_vs_teacher": 0.02} for k in range(1, n_rounds)]  # fmt: skip
    test = {"failed": 3 * (arm != "ipip"), "n": 20, "fraction": 0.0, "interval": [0, 1],
            "reasons": {"overlap": 1, "max force": 2} if arm != "ipip" else {},
            "times_fs": [200.0, 400.0, 1000.0] if arm != "ipip" else []}  # fmt: skip
    return {
        "study": study, "plan": "ipip_small", "encoder": encoder, "arm": arm, "seed": seed, "command": "python",
        "budget": BUDGET, "n_test": 300, "selected": rows[-1]["model"], "rows": rows,
        "rounds": [first, *later], "stability": [test], "reaction": [],
        "wall_s": 700.0, "cpu_s": 600.0, "stage_wall_s": {"pretrain": 300.0, "finetune": 180.0, "sample": 60.0},
        **more,
    }  # fmt: skip


def compared(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Part of what the comparison of arms writes, with verdicts on errors that scatter by a hundredth."""
    rng, seeds_of = np.random.default_rng(0), {}
    for one in lines:
        seeds_of.setdefault(one["arm"], []).append(one["seed"])
    hard = np.linspace(0.5, 2, 30)

    def errors(arm: str, factor: float) -> Errors:
        seeds = seeds_of[arm]
        return Errors.table(factor * hard * np.exp(0.01 * rng.normal(size=(len(seeds), 30))), seeds, range(30))

    made = {arm: errors(arm, FACTORS[arm]) for arm in seeds_of}
    told = []
    for quantity in ("forces", "energy"):
        controls = {arm: one for arm, one in made.items() if arm in ("scratch", "one_shot", "hessian")}
        teachers = {"teacher, zero-shot": errors("ipip", 2.6)}
        if "teacher" in made:
            teachers["teacher, fine-tuned"] = made["teacher"]
        asked = {"controls": ("ipip", controls, 0.2), "teacher": ("ipip", teachers, 0.8)}
        if "continual" in made:
            asked |= {"continual": ("continual", controls, 0.2), "continual, teacher": ("continual", teachers, 0.8)}
        asked |= {arm: (WHOLE[arm], {arm: one}, 0.05) for arm, one in made.items() if arm in WHOLE}
        told += [
            {"question": question, "quantity": quantity,
             **asdict(judge_cure(made[cure], some, effect=effect, n_draws=100))}
            for question, (cure, some, effect) in asked.items() if some
        ]  # fmt: skip
    rows = [{"arm": "teacher, zero-shot", "seeds": 1}, *({"arm": arm, "seeds": len(mine)}
                                                        for arm, mine in seeds_of.items())]  # fmt: skip
    return {"sentence": "Invented, works.", "rows": rows, "verdicts": told}


def write(folder: Path, study: str, lines: Sequence[Mapping[str, Any]], **record: Any) -> None:
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / f"ipip_{study}.jsonl").write_text(text, encoding="utf-8")
    if record:
        (folder / f"ipip_{study}.json").write_text(json.dumps({"study": study, **record}), encoding="utf-8")


def filled(page: Any, folder: Path, speeds: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    return page.places(page.cases(folder), speeds)


def table(text: str) -> list[list[str]]:
    """Cells of the rows below the head."""
    rows = [row for row in text.splitlines() if row.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def of(text: str, *begin: str) -> list[str]:
    """The cells behind these in the only row that begins with them."""
    (row,) = [row for row in table(text) if row[: len(begin)] == list(begin)]
    return row[len(begin) :]


def ethanol(arms: Sequence[str], seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    return [line("a_ethanol", arm, seed) for seed in seeds for arm in arms]


def test_labels_of_pools_are_pooled_over_loops(page, tmp_path):
    case = next(one for one in page.cases(tmp_path) if one.study == "c_mo_s_o")
    assert page.tables.labels([case], []) == (
        "*Not measured yet: Mo3O9 in sulfur, painn:* `python benchmarks/studies/ipip_labels.py`"
    )
    write(tmp_path, "c_mo_s_o", [line("c_mo_s_o", "ipip", seed) for seed in (0, 1)])
    (case,) = (one for one in page.cases(tmp_path) if one.study == "c_mo_s_o")
    shared = {"study": "c_mo_s_o", "plan": "ipip_small", "encoder": "painn"}
    labels = [
        {**shared, "seed": 0, "round": 0, "teacher": {"each": [600.0, 800.0]}},
        {**shared, "seed": 0, "round": 1, "teacher": {"each": [1.0]}, "student": {"each": [1.0]}},
        # Measured again: the last counts.
        {**shared, "seed": 0, "round": 1, "teacher": {"each": [900.0]}, "student": {"each": [200.0, 220.0]}},
        {**shared, "seed": 1, "round": 1, "teacher": {"each": [700.0]}, "student": {"each": [240.0]}},
        {**shared, "study": "a_ethanol", "seed": 1, "round": 1, "teacher": {"each": [7.0]}},
    ]
    text = page.tables.labels([case], labels)
    assert of(text, "Mo3O9 in sulfur", "painn", "0") == ["1", "2", "700", "", "", ""]
    assert of(text, "Mo3O9 in sulfur", "painn", "1") == ["2", "2", "800", "3", "220", "84 (80 to 88)"]
    assert len(table(text)) == 2


# ---- places and names


def test_the_page_has_a_place_for_every_table_and_a_name_for_everything_planned(page, tmp_path):
    import ipip_found

    text, filling = page.PAGE.read_text(encoding="utf-8"), filled(page, tmp_path)
    assert re.findall(r"<!-- begin: (.+?) -->", text) == re.findall(r"<!-- end: (.+?) -->", text)
    assert set(re.findall(r"<!-- begin: (.+?) -->", text)) == set(filling)
    once = page.filled(text, filling, "page")
    assert page.filled(once, filling, "page") == once
    assert set(ipip_found.STUDIES) == set(page.tables.SYSTEMS) == set(PLAN["studies"])
    assert set(ipip_found.ARMS) == set(ARMS)
    for command in re.findall(r"^python (\S+)", text, re.MULTILINE):
        assert (ROOT / command).is_file()


def planned(*studies: str) -> str:
    """What the page says of studies of which nothing is finished; all of the plan when none is named."""
    import ipip_found

    names = [name for name in ipip_found.STUDIES if not studies or name in studies]
    encoders = {name: PLAN["studies"][name].get("encoders", PLAN["encoders"]) for name in names}
    titles = [f"{ipip_found.STUDIES[name]}, {encoder}" for name in names for encoder in encoders[name]]
    return f"*Not run yet: {'; '.join(titles)}:* `python benchmarks/studies/ipip.py {' '.join(names)}`"


def wanted() -> int:
    """Arms and seeds of the plan."""
    return sum(
        len(one.get("encoders", PLAN["encoders"]))
        * len(one.get("arms", PLAN["arms"]))
        * len(one.get("seeds", PLAN["seeds"]))
        for one in PLAN["studies"].values()
    )


def test_before_anything_is_run_the_page_says_so_and_answers_nothing(page, tmp_path):
    found = filled(page, tmp_path)
    begin = f"**The studies are not run yet:** none of {wanted()} arms and seeds is finished"
    assert found["state"].startswith(begin)
    for name in ("verdicts", "claims", "errors", "rounds", "stability", "budget", "speed in the loops"):
        assert found[name].startswith(planned()), name
    for name in ("species", "species over time", "checkpoints", "reaction failures"):
        assert found[name] == planned("c_mo_s_o")
    parts = {name for name, one in PLAN["studies"].items() if set(WHOLE) & set(one.get("arms", PLAN["arms"]))}
    assert found["parts"] == planned(*parts)
    assert not [name for name, text in found.items() if table(text) and name not in ("method", "published")]


def test_what_is_not_finished_is_stated_below_its_tables(page, tmp_path):
    write(tmp_path, "a_ethanol", ethanol(["ipip", "scratch", "teacher"], [0]))
    found = filled(page, tmp_path)
    said = "*ethanol, painn: 3 of 48 arms and seeds are finished; none yet of: continual loop, one-shot, denoising, "
    for name in ("state", "errors", "rounds", "stability", "budget", "verdicts", "parts", "claims"):
        assert said in found[name], name
    assert planned(*(name for name in PLAN["studies"] if name != "a_ethanol")) in found["errors"]
    begin = f"3 of {wanted()} arms and seeds are finished. What is said below is said of these alone."
    assert found["state"].startswith(begin)
    for name in ("state", "verdicts", "parts", "claims"):
        stale = (
            "*ethanol, painn: verdicts rest on 0 arms and seeds, finished are 3:* `python benchmarks/studies/ipip.py "
        )
        assert stale + "a_ethanol --table`" in found[name], name
    assert "verdicts rest on" not in found["errors"]
    assert of(found["errors"], "ethanol", "painn", "the loop")[0] == "1 of 3"
    more = ethanol(["ipip", "scratch"])
    write(tmp_path, "a_ethanol", [*more, line("a_ethanol", "one_shot", 0)], painn=compared(more))
    found = filled(page, tmp_path)
    assert "verdicts rest on 6 arms and seeds, finished are 7" in found["verdicts"]
    assert "- ethanol, painn: Invented, works." in found["state"]


def test_of_a_study_that_is_finished_nothing_lacks(page, tmp_path):
    arms = ["ipip", "scratch", "one_shot"]
    lines = [line("b_acac", arm, seed) for arm in arms for seed in range(3)]
    write(tmp_path, "b_acac", lines, painn=compared(lines))
    found = filled(page, tmp_path)
    assert "acetylacetone, painn" not in found["errors"].split("*Not run yet")[1]
    assert "verdicts rest on" not in found["verdicts"]
    assert "acetylacetone, painn: 9 of" not in found["state"]
    assert len(table(found["errors"])) == 4


def test_the_last_line_counts_and_lines_of_other_plans_do_not(page, tmp_path):
    old, new = line("a_ethanol", "scratch", 0), line("a_ethanol", "scratch", 0)
    new["rows"][-1]["forces_mae"] = 77.0
    other = line("a_ethanol", "scratch", 1, plan="ipip_paper")
    beyond = line("a_ethanol", "scratch", 9)
    write(
        tmp_path,
        "a_ethanol",
        [old, new, other, beyond],
        plan="ipip_paper",
        painn=compared(ethanol(["ipip", "scratch"])),
    )
    found = filled(page, tmp_path)
    assert of(found["errors"], "ethanol", "painn", "scratch")[:3] == ["1 of 3", "", "77"]
    assert not table(found["verdicts"])


# ---- errors and verdicts


def test_errors_of_arms(page, tmp_path):
    lines = [*ethanol(["ipip", "scratch", "teacher"]), line("a_ethanol", "one_shot", 2)]
    lines[0]["rows"][-1]["better_than_teacher"] = 300
    write(tmp_path, "a_ethanol", lines)
    text = filled(page, tmp_path)["errors"]
    assert [row[2] for row in table(text)] == [
        "teacher, zero-shot",
        "the loop",
        "scratch",
        "one-shot",
        "teacher, fine-tuned",
    ]
    assert of(text, "ethanol", "painn", "teacher, zero-shot") == ["", "", "100", "", "", "9", "", "", ""]
    assert of(text, "ethanol", "painn", "the loop") == [
        "3 of 3", "3, 3, 3", "22 (20 to 24)", "0.50", "1.00", "2.2 (2 to 2.4)", "0.50", "1.00", "86.7 (80 to 100)",
    ]  # fmt: skip
    # One seed: its ratios are those to the same seed of the others.
    assert of(text, "ethanol", "painn", "one-shot")[:4] == ["1 of 3", "", "38.4", "0.80"]


def test_the_student_that_validation_selects_stands_for_a_loop(page, tmp_path):
    lines = ethanol(["ipip"])
    lines[1]["selected"] = "finetune_1"
    write(tmp_path, "a_ethanol", lines)
    cells = of(filled(page, tmp_path)["errors"], "ethanol", "painn", "the loop")
    # Errors fall by 20 with every round; those of the second seed are a tenth larger.
    assert cells[1:3] == ["3, 1, 3", "36.7 (20 to 66)"]


def test_verdicts_and_parts_of_the_loop(page, tmp_path):
    lines = ethanol(
        ["ipip", "scratch", "one_shot", "hessian", "no_unstable", "no_forgetting", "no_relabelling", "teacher"]
    )
    write(tmp_path, "a_ethanol", lines, painn=compared(lines))
    found = filled(page, tmp_path)
    best, ratio, interval, counts, word = of(
        found["verdicts"], "the loop against the best control", "ethanol", "painn", "forces"
    )
    low, high = map(float, interval.split(" to "))
    assert (best, counts, word) == ("Hessian", "3, 30", "works")
    assert low < float(ratio) < high < 0.75
    assert float(ratio) == pytest.approx(0.5 / 0.7, abs=0.02)
    teacher = of(found["verdicts"], "the loop against its teacher", "ethanol", "painn", "energy")
    assert (teacher[0], teacher[-1]) == ("teacher, fine-tuned", "does not work: the control is better")

    parts = {row[2]: row[4:] for row in table(found["parts"]) if row[3] == "forces"}
    assert {part: cells[2] for part, cells in parts.items()} == {
        "forgetting": "no, it does harm", "relabelling by the student": "yes",
        "preferring frames before failures": "not shown",
        "iterating at all (against one-shot)": "yes",
    }  # fmt: skip
    assert float(parts["forgetting"][0]) == pytest.approx(0.5 / 0.4, abs=0.03)
    assert float(parts["iterating at all (against one-shot)"][0]) == pytest.approx(0.5 / 0.8, abs=0.02)
    assert parts["forgetting"][3:] == ["22 (20 to 24)", "17.6 (16 to 19.2)"], "the last students"


def test_the_continual_loop_alone_is_not_called_the_published_one(page, tmp_path):
    """Of a comparison without the published loop the first questions are those of the continual one."""
    lines = ethanol(["continual", "no_new_frames"])
    both = compared([*lines, *ethanol(["ipip"])])
    rows = [row for row in both["rows"] if row["arm"] != "ipip"]
    own = [{**one, "question": "teacher"} for one in both["verdicts"] if one["question"] == "continual, teacher"]
    write(tmp_path, "a_ethanol", lines, painn={**both, "rows": rows, "verdicts": own})
    found = filled(page, tmp_path)
    assert {row[0] for row in table(found["verdicts"])} == {"continual loop against its teacher"}
    told = [row for row in table(found["claims"]) if row[0].startswith("forces more than")]
    assert [row[3].split(":")[0] for row in told] == ["continual loop"]
    assert told[0][-1].startswith("3 seeds")


def test_words_of_a_verdict(page):
    word = page.tables.word
    assert word({"answer": "does not", "lower": 0.9, "effect": 0.2}) == "does not work: a gain of 20 % is excluded"
    assert word({"answer": "undecided", "lower": 1.1, "effect": 0.2}) == "undecided"
    assert page.tables.helps({"lower": 0.4, "upper": 0.6}, 2) == "yes"
    assert page.tables.helps({"lower": 0.4, "upper": 0.6}, 1) == "undecided", "one seed says nothing"
    assert page.tables.helps({"lower": 1.0, "upper": 1.0}, 3) == "no: the same students were selected"


def test_published_claims_beside_what_is_found(page, tmp_path):
    lines = ethanol(["ipip", "continual", "scratch", "one_shot", "hessian", "teacher"])
    record = compared(lines)
    write(tmp_path, "a_ethanol", lines, painn=record)
    text = filled(page, tmp_path)["claims"]
    others = [row for row in table(text) if row[0] == "errors 20 % below other pretraining"]
    assert [row[3].split(" ")[:3] for row in others] == [
        ["the", "loop:", "forces"], ["the", "loop:", "energy"], ["continual", "loop:", "forces"],
        ["continual", "loop:", "energy"],
    ]  # fmt: skip
    assert re.fullmatch(r"the loop: forces -2[89] % \(-\d\d to -2\d\) against Hessian, the best of 2", others[0][3])
    assert others[0][4:] == ["yes", "3 seeds, 30 test frames, all counted"]
    assert re.fullmatch(r"continual loop: forces -1[45] % \(-\d\d to -1\d\) against Hessian, .*", others[2][3])
    assert others[2][4] == "no"
    zero, tuned, *continual = [row for row in table(text) if row[0].startswith("forces more than 80 %")]
    assert re.match(r"the loop: forces -8[01] % .* teacher, zero-shot", zero[3])
    assert re.match(r"the loop: forces \+(99|10\d) % .* teacher, fine-tuned", tuned[3])
    assert [row[3].split(":")[0] for row in continual] == ["continual loop"] * 2
    assert {row[2:4][1].split(":")[0] for row in table(text) if row[0].startswith("failed")} == {
        "scratch 9 of 60, the loop 0 of 60", "scratch 9 of 60, continual loop 9 of 60",
    }  # fmt: skip
    assert (zero[4], tuned[4]) == ("yes", "no")

    row = next(one for one in record["verdicts"] if (one["question"], one["quantity"]) == ("controls", "forces"))
    row["against"]["hessian"] |= {"ratio": 0.75, "lower": 0.7, "upper": 0.85}
    row = next(one for one in record["verdicts"] if (one["question"], one["quantity"]) == ("teacher", "forces"))
    row["against"]["teacher, zero-shot"] |= {"ratio": 0.5, "lower": 0.4, "upper": 0.6}
    record["rows"] = [{**one, "seeds": 1} if one["arm"] == "teacher" else one for one in record["rows"]]
    write(tmp_path, "a_ethanol", lines, painn=record)
    text = filled(page, tmp_path)["claims"]
    assert "forces -25 % (-30 to -15) against Hessian, the best of 2 | possible, not shown |" in text
    assert "forces -50 % (-60 to -40) against teacher, zero-shot | no | 3 seeds, " in text
    assert "teacher, fine-tuned | one seed tells nothing of it | 1 seed, " in text


def test_a_teacher_that_was_fine_tuned_first_is_called_so_and_is_no_general_model(page, tmp_path):
    lines = [line("a_ethanol_tuned", arm, seed) for seed in range(3) for arm in ("ipip", "one_shot", "no_relabelling")]
    write(tmp_path, "a_ethanol_tuned", lines, painn=compared(lines))
    found = filled(page, tmp_path)
    name = "ethanol, fine-tuned teacher"
    assert of(found["errors"], name, "painn", "teacher, fine-tuned")[2] == "100"
    assert of(found["verdicts"], "the loop against its teacher", name, "painn", "forces")[0] == "teacher, fine-tuned"
    assert {row[0] for row in table(found["claims"]) if row[1] == name} == {"errors 20 % below other pretraining"}
    assert of(found["method"], name, "painn")[1] == "so3lr, fine-tuned"


def test_the_published_tables_as_ratios(page, tmp_path):
    text = filled(page, tmp_path)["published"]
    assert of(text, "buckyball catcher") == ["0.55", "0.70", "0.57", "0.67", "0.06"]
    assert of(text, "median") == ["0.68", "0.77", "0.83", "0.89", ""]


# ---- rounds, simulations


def test_round_by_round(page, tmp_path):
    write(tmp_path, "a_ethanol", ethanol(["ipip", "continual", "scratch"]))
    rows = table(filled(page, tmp_path)["rounds"])
    assert [row[2] for row in rows] == ["the loop"] * 4 + ["continual loop"] * 4
    rows = [row[:2] + row[3:] for row in rows]
    assert [row[2] for row in rows] == ["0", "1", "2", "3"] * 2
    assert rows[0][3:] == [
        "3",
        "88 (80 to 96)",
        "8.8 (8 to 9.6)",
        "2000",
        "",
        "",
        "",
        "",
        "1 of 20",
        "100 %",
        "",
        "211 (210 to 212)",
        "90",
    ]
    assert rows[3][4] == "22 (20 to 24)", "the last student is that of the errors"
    assert rows[2][7:] == [
        "200", "1800", "200", "151 (150 to 152)", "6 of 60", "10 %", "20", "", "",
    ]  # fmt: skip


def test_failures_with_intervals(page, tmp_path):
    lines = ethanol(["ipip", "scratch"])
    lines[3]["stability"][0] |= {"failed": 5, "reasons": {"max force": 5}, "times_fs": [100.0] * 5}
    write(tmp_path, "a_ethanol", lines)
    found = filled(page, tmp_path)
    loop, scratch = (of(found["stability"], "ethanol", "painn", "600", "2", arm) for arm in ("the loop", "scratch"))
    assert loop == ["0 of 60", "0, 0, 0", "0 (0 to 6)", "", "", "", "", "", ""]
    assert scratch == [
        "11 of 60", "3, 5, 3", "18 (11 to 30)", "0.2 (0.1 to 1)", "-18 (-30 to -9)", "< 0.001", "", "",
        "max force 9, overlap 2",
    ]  # fmt: skip
    (claim,) = [row for row in table(found["claims"]) if row[0].startswith("failed simulations")]
    assert claim[3:] == ["scratch 11 of 60, the loop 0 of 60: -18 % (-30 to -9)", "fewer",
                         "3 seeds, runs of all seeds taken as alike, 600 K"]  # fmt: skip


def test_simulations_that_all_fail_are_told_apart_by_when(page, tmp_path):
    lines = ethanol(["ipip", "scratch", "one_shot"], [0, 1])
    for one in lines:
        # In the second seed all fail sooner: no reason to take one arm for another.
        last = {"ipip": 1900.0, "scratch": 900.0, "one_shot": 1900.0}[one["arm"]] / (1 + one["seed"])
        times = np.linspace(0.6 * last, last, 20).tolist()
        one["stability"] = [{**one["stability"][0], "failed": 20, "n": 20, "times_fs": times}]
    write(tmp_path, "a_ethanol", lines)
    found = filled(page, tmp_path)["stability"]
    told = {arm: of(found, "ethanol", "painn", "600", "2", arm)[5] for arm in ("the loop", "scratch", "one-shot")}
    assert told == {"the loop": "", "scratch": "< 0.001", "one-shot": "1"}
    assert of(found, "ethanol", "painn", "600", "2", "scratch")[4].startswith("+0")


def test_survival_of_every_arm_is_drawn_over_all_its_seeds(study_script, tmp_path, monkeypatch):
    survival = study_script("ipip_survival")
    write(tmp_path, "a_ethanol", ethanol(["ipip", "continual", "scratch"]))
    monkeypatch.setattr(survival, "RESULTS", tmp_path)
    survival.main([str(tmp_path / "survival.html"), "a_ethanol"])
    assert "continual loop" in (tmp_path / "survival.html").read_text(encoding="utf-8")
    (case,) = (one for one in survival.cases(tmp_path) if one.study == "a_ethanol")
    loop, scratch = (survival.curve(case, arm) for arm in ("ipip", "scratch"))
    assert (loop.n_failed, loop.survival.tolist(), loop.time_ps[-1]) == (0, [1.0, 1.0], 2.0)
    assert scratch.n_failed == 9
    assert scratch.at([0.3, 0.5, 2.0]).tolist() == pytest.approx([57 / 60, 54 / 60, 51 / 60])


def test_survival_of_a_study_is_of_one_encoder_and_of_what_is_finished(study_script, tmp_path, monkeypatch, capsys):
    survival = study_script("ipip_survival")
    monkeypatch.setattr(survival, "RESULTS", tmp_path)
    page = tmp_path / "survival.html"
    lines = ethanol(["scratch"])
    write(tmp_path, "a_aspirin", [{**one, "study": "a_aspirin", "encoder": "visnet"} for one in lines])
    survival.main([str(page), "a_aspirin", "--encoder", "visnet"])
    assert "scratch" in page.read_text(encoding="utf-8")
    for given, said in (
        ([str(page), "a_aspirin"], "a_aspirin, painn: no test simulation is finished"),
        ([str(page), "a_typo"], "invalid choice: 'a_typo'"),
        ([str(page), "a_aspirin", "--encoder", "schnet"], "a_aspirin has no encoder schnet: painn or visnet"),
        ([str(page), "a_aspirin", "a_ethanol"], "a_aspirin and a_ethanol differ in more than loops: data"),
        ([str(page), "b_acac_hot", "b_acac"], "b_acac_hot and b_acac differ in more than loops: sampling"),
    ):
        with pytest.raises(SystemExit):
            survival.main(given)
        assert said in capsys.readouterr().err


def test_failures_that_are_not_told_apart(page, tmp_path):
    lines = ethanol(["ipip", "scratch"], [0])
    write(tmp_path, "a_ethanol", lines)
    (claim,) = table(filled(page, tmp_path)["claims"])
    assert claim[4:] == ["not told apart", "1 seed, runs of all seeds taken as alike, 600 K"]
    lines[0]["stability"], lines[1]["stability"] = lines[1]["stability"], lines[0]["stability"]
    lines[0]["stability"][0]["failed"] = 12
    write(tmp_path, "a_ethanol", lines)
    assert table(filled(page, tmp_path)["claims"])[0][4] == "more"


def test_species_in_sulfur(page, tmp_path):
    test = {"failed": 1, "n": 20, "fraction": 0.05, "interval": [0, 1], "reasons": {"overlap": 1}, "times_fs": [7000.0]}
    lines = [line("c_mo_s_o", arm, seed, reaction=[{**test, "species": SPECIES}])
             for arm, seed in (("ipip", 0), ("ipip", 1), ("scratch", 0))]  # fmt: skip
    series = {"ipip": [{"time": 0.0, "runs": 40, "clusters": 1.0, "formulas": {"Mo3O9": 40}},
                       {"time": 10000.0, "runs": 0, "clusters": None, "formulas": {}}]}  # fmt: skip
    record = {"sentence": "", "rows": [{"arm": "ipip", "seeds": 2}, {"arm": "scratch", "seeds": 1}]}
    write(tmp_path, "c_mo_s_o", lines, painn={**record, "species_over_time": series})
    found = filled(page, tmp_path)
    assert of(found["species"], "Mo3O9 in sulfur", "painn", "the loop") == [
        "40", "1980 of 2000", "1.10", "Mo3O9 1400, Mo3O9S2 600, MoO3 100, Mo2O6 80, others 20", "1.00",
        "Mo3O9 24, Mo3O9S2 16", "36", "18", "insertion 16, split 2",
    ]  # fmt: skip
    head = found["checkpoints"].splitlines()[0]
    assert head == f"| study | encoder | arm | {' | '.join(CHECKPOINTS)} |"
    assert of(found["checkpoints"], "Mo3O9 in sulfur", "painn", "scratch") == [
        "8 of 18", "3 of 18", "1 of 18", "0 of 18", "9 of 18",
    ]  # fmt: skip
    assert [row[2:] for row in table(found["species over time"])] == [
        ["the loop", "0", "40", "1.00", "Mo3O9 40"], ["the loop", "10", "0", "", ""],
    ]  # fmt: skip
    assert (
        "3 of 15 arms and seeds are finished; none yet of: continual loop, one-shot, continual loop, no new frames:*"
        in found["species over time"]
    )
    assert of(found["reaction failures"], "Mo3O9 in sulfur", "painn", "1500", "10", "scratch")[:2] == ["1 of 20", "1"]
    # Simulations of a single temperature are no reaction.
    assert "acetylacetone" not in found["species"]


def test_runs_too_short_for_changes_tell_none(page, tmp_path):
    short = {**SPECIES, "too_short": 20, "events": {}, "checkpoints": None}
    test = {"failed": 0, "n": 20, "fraction": 0, "interval": [0, 1], "reasons": {}, "times_fs": [], "species": short}
    write(tmp_path, "c_mo_s_o", [line("c_mo_s_o", "ipip", 0, reaction=[test])])
    found = filled(page, tmp_path)
    assert of(found["species"], "Mo3O9 in sulfur", "painn", "the loop")[-3:] == ["0", "", ""]
    assert not table(found["checkpoints"])


# ---- speed, budget, method


def timed(potential: str, batch: int, times: float, command: str = "a", load: float = 2.0) -> dict[str, Any]:
    return {"command": command, "potential": potential, "dtype": "float32", "device": "cpu", "load": load, "atoms": 9,
            "batch": batch, "system_steps_per_s": 50.0 * times, "times_the_teacher": times}  # fmt: skip


def test_speed_beside_the_teacher_that_it_was_measured_with(page, tmp_path):
    speeds = [
        timed("universal:so3lr", 1, 1.0), timed("universal:so3lr", 20, 1.0), timed("painn", 1, 3.0),
        timed("painn", 1, 5.0, load=6.0), timed("painn", 20, 9.0), timed("visnet", 1, 3.0), timed("visnet", 20, 5.0),
        timed("schnet", 1, 8.0),
        *({**one, "threads": 2} for one in (timed("my.safetensors", 1, 1.0, "b"), timed("painn", 1, 2.0, "b"))),
    ]  # fmt: skip
    found = filled(page, tmp_path, speeds)
    row = of(found["speed"], "so3lr", "painn")
    assert row == ["float32", "9", "cpu, 1 thread", "250", "5.0", "20", "450", "9.0", "2 to 6"], "the last line counts"
    assert of(found["speed"], "my.safetensors", "painn")[2:5] == ["cpu, 2 threads", "100", "2.0"]
    lacking = "*Not measured yet, beside chgnet:* `python benchmarks/student_speed.py --teacher universal:chgnet`"
    assert found["speed"].endswith(lacking)
    claims = {row[2]: row[3:] for row in table(found["claims"])}
    assert set(claims) == {"painn", "visnet"}, "students of the studies, beside their teachers"
    assert claims["painn"] == [
        "5.0 x (one system), 9.0 x (20 together)",
        "yes",
        "9 atoms, cpu, 1 thread, beside so3lr, load 6",
    ]
    assert claims["visnet"][1] == "one system: no, 20 together: yes"
    assert filled(page, tmp_path)["speed"].startswith("*Not measured yet, beside so3lr:*")


def test_speed_in_the_loops(page, tmp_path):
    write(tmp_path, "a_ethanol", ethanol(["ipip"], [0, 1]))
    assert table(filled(page, tmp_path)["speed in the loops"]) == [
        ["ethanol", "painn", "so3lr", "20", "50", "300", "6.00"]
    ]


def test_what_was_spent(page, tmp_path):
    lines = ethanol(["ipip"], [0, 1])
    lines[1] |= {"wall_s": 100.0, "cpu_s": 90.0}
    write(tmp_path, "a_ethanol", lines)
    assert of(filled(page, tmp_path)["budget"], "ethanol", "painn", "the loop") == [
        "12000", "40 + 10", "2900", "40000", "120000", "8", "1", "0", "10 [1]",
    ], "the second seed was interrupted: its CPU time is that of its last stretch"  # fmt: skip
    write(tmp_path, "a_ethanol", lines[1:])
    assert of(filled(page, tmp_path)["budget"], "ethanol", "painn", "the loop")[-1] == ""


def test_how_it_was_done_is_what_the_plan_says(page, tmp_path):
    text = filled(page, tmp_path)["method"]
    assert of(text, "Mo3O9 in sulfur", "painn") == [
        "36 atoms, cell of 20 Å, GFN1-xTB", "chgnet", "100 + 40", "40", "10 x 1 ps, 1500 K, Nosé-Hoover", "500",
        "4 x (1500 + 1500), 10", "20 x 2 ps, 2500 K, Langevin", "20 x 10 ps, 1500 K, Nosé-Hoover", "5", "3",
    ]  # fmt: skip
    assert of(text, "acetylacetone", "painn")[7:] == ["100 x 10 ps, 900 K, Langevin", "", "3", "3"]
    assert of(text, "ethanol", "painn")[-2:] == ["16", "3"]
    assert "visnet 64 features, 3 layers, cutoff 5 Å. The fine-tuned teacher has 200 gradient steps" in text
