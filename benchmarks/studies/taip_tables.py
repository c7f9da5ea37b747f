"""Tables of ``docs/taip_case.md`` about evaluations: records in, Markdown out, put in their places by `taip_page.py`.

A record is what `mlipkit.strategies.taip.study` writes; `cases` are those of ``results/taip.json`` by ``case:encoder``.
Records of before there was a step for each quantity lack the scan of energies and correlations of mean losses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages import markdown

from mlipkit.units import KCAL_PER_MOL

Record = Mapping[str, Any]
CASES = {
    "a_acac": "acetylacetone",
    "c_liquid_ice": "liquid water",
    "d_ethanol": "ethanol, MD17",
    "d_aspirin": "aspirin, rMD17",
    "b_nacl": "1 NaCl in 62 water",
    "f_acac_50": "acetylacetone, 50 frames",
    "f_acac_150": "acetylacetone, 150 frames",
    "g_ethanol_authors": "ethanol, hidden forces as in the published code",
    "h_acac_heavier": "acetylacetone, tasks of thirty times the weight",
    "i_acac_near": "acetylacetone, noise up to 1 Å, equivariant decoder",
    "j_acac_gradient": "acetylacetone, plain gradient steps",
    "k_acac_together": "acetylacetone, five frames share a step",
}
"""Case -> its name on the page."""
IN_DISTRIBUTION = "in distribution"
TESTS = {
    IN_DISTRIBUTION: IN_DISTRIBUTION,
    "acac_test_MD_600K": "600 K",
    "acac_test_dihedral_energy_only": "turned dihedral",
    "acac_test_H_transfer_energy_only": "proton transfer",
    "ice_ih": "ice Ih",
    "nacl2_w60": "2 NaCl",
    "nacl4_w56": "4 NaCl",
    "nacl6_w52": "6 NaCl",
}
"""Test set -> its name on the page."""
OTHER_COMPOSITION = {"nacl2_w60", "nacl4_w56", "nacl6_w52"}
"""Their energies hang on constants that training frames of one composition leave open: forces alone judge them."""
SIZES = {"f_acac_50": 50, "f_acac_150": 150, "a_acac": 450}
"""Case -> training frames: 50 of the 500 frames of the last one are for validation."""
TRIALS = {"d_ethanol": "400 frames, 1e-4 halved", "d_ethanol_cosine": "800 frames, 5e-4 along a cosine"}
"""Case of the plan `taip_trial.yaml` -> what tells its trainings apart on the page."""
ARMS = {
    "baseline": "baseline",
    "noise": "noise augmentation",
    "off": "with the tasks, adaptation off",
    "adapted": "adapted",
    "random": "random step",
}
"""Column of the errors -> its name on the page."""
ALONE = {"only_noise": "noise alone", "only_types": "types alone", "only_pseudo_forces": "pseudo-forces alone"}
SIGNALS = {
    "all": "rank correlation (seeds)", "noise": "of the noise loss", "types": "of the types loss",
    "pseudo_forces": "of the pseudo-forces loss", "one draw": "of a single draw",
}  # fmt: skip
"""Key of a correlation -> its title."""
UNITS = {"forces": ("meV/Å", 1e3), "energy": ("meV/atom", 1e3)}
QUESTIONS = {"adaptation": "adaptation", "joint_training": "training with the tasks", "placebo": "random step"}
WORDS = {"works": "works", "does not": "does not work", "undecided": "undecided"}
PUBLISHED = {
    ("d_ethanol", IN_DISTRIBUTION): {
        "schnet": {"forces": (0.371, 0.272), "energy": (0.122, 0.057)},
        "painn": {"forces": (0.191, 0.180), "energy": (0.114, 0.061)},
    },
    ("d_aspirin", IN_DISTRIBUTION): {
        "schnet": {"forces": (1.017, 0.853), "energy": (0.425, 0.322)},
        "painn": {"forces": (0.347, 0.330), "energy": (0.244, 0.144)},
    },
    ("c_liquid_ice", IN_DISTRIBUTION): {
        "schnet": {"forces": (0.076, 0.066), "energy": (0.283, 0.236)},
        "painn": {"forces": (0.027, 0.021), "energy": (0.216, 0.090)},
    },
    ("c_liquid_ice", "ice_ih"): {
        "schnet": {"forces": (0.083, 0.055), "energy": (1.193, 0.423)},
        "painn": {"forces": (0.023, 0.018), "energy": (0.585, 0.042)},
    },
}
"""Errors of baseline and adapted potential in tables 1 and 2 of doi 10.1038/s41467-025-57101-4, for sets of the kind:
molecules kcal/mol and kcal/mol/Å, water eV and eV/Å."""
ETHANOL_ATOMS = 9


def ranged(row: Record, digits: int = 3) -> str:
    """Ratio and its interval."""
    return f"{row['ratio']:.{digits}f} ({row['lower']:.{digits}f} to {row['upper']:.{digits}f})"


def each(cases: Mapping[str, Record]) -> Iterator[tuple[str, str, Record]]:
    """(case, encoder, record) in the order of the page."""
    for case in CASES:
        for key, record in cases.items():
            if key.partition(":")[0] == case:
                told = {name: [one for one in record[name] if not _open(one)] for name in ("ratios", "verdicts")}
                yield case, key.partition(":")[2], {**record, **told}


def _open(row: Record) -> bool:
    return row["test"] in OTHER_COMPOSITION and row["quantity"] == "energy"


def ratio_rows(record: Record) -> dict[tuple[str, str], dict[str, Record]]:
    """(test, quantity) -> column -> ratio to the baseline."""
    found: dict[tuple[str, str], dict[str, Record]] = {}
    for row in record["ratios"]:
        found.setdefault((row["test"], row["quantity"]), {})[row["column"]] = row
    return found


def summary(cases: Mapping[str, Record]) -> str:
    """How often each question was answered how."""
    every = [(one["test"] != IN_DISTRIBUTION, one) for _, _, record in each(cases) for one in record["verdicts"]]
    lines = []
    for question, title in QUESTIONS.items():
        for shifted in (False, True):
            for quantity in UNITS:
                wanted = (shifted, question, quantity)
                mine = [one for out, one in every if (out, one["question"], one["quantity"]) == wanted]
                if not mine:
                    continue
                answers, ratios = [one["answer"] for one in mine], [one["ratio"] for one in mine]
                lines.append((
                    title, "out of distribution" if shifted else IN_DISTRIBUTION, quantity,
                    *(answers.count(word) for word in WORDS), f"{min(ratios):.3f} to {max(ratios):.3f}",
                    f"{sum(one['lower'] > 0.9 for one in mine)} of {len(mine)}",
                ))  # fmt: skip
    head = ("question", "test frames", "errors of", *WORDS.values(), "ratios to the best control", "10 % excluded")
    return markdown(head, lines)


def counted(cases: Mapping[str, Record]) -> str:
    """The answer in numbers: a line for adapting, one for training with the tasks."""
    every = [one for _, _, record in each(cases) for one in record["verdicts"]]
    lines = []
    for question in ("adaptation", "joint_training"):
        mine = [one for one in every if one["question"] == question]
        excluded = {
            kind: [one["lower"] > 0.9 for one in mine if one["quantity"] == kind] for kind in UNITS
        }  # fmt: skip
        works = sum(one["answer"] == "works" for one in mine)
        share = " and in ".join(f"{sum(some)} of {len(some)} for {kind}" for kind, some in excluded.items())
        lines.append(
            f"- *{QUESTIONS[question].capitalize()}* beats the best of its controls in {works} of {len(mine)} "
            f"comparisons. A gain of 10 % is excluded in {share}; in {sum(one['lower'] > 1 for one in mine)} the best "
            "control is certainly better."
        )
    return "\n".join(lines)


def against_baseline(cases: Mapping[str, Record], quantity: str) -> str:
    """Error of every arm over that of the baseline."""
    unit, scale = UNITS[quantity]
    lines = []
    for case, encoder, record in each(cases):
        for (test, kind), columns in ratio_rows(record).items():
            if kind == quantity:
                lines.append((
                    CASES[case], encoder, TESTS[test], f"{scale * columns['off']['baseline']:.3g}",
                    *(ranged(columns[arm]) for arm in ("off", "adapted", "random", "noise")),
                    published_ratio(case, test, encoder, quantity),
                ))  # fmt: skip
    head = ("trained on", "encoder", "test frames", f"baseline, {unit}", *(ARMS[arm] for arm in
            ("off", "adapted", "random", "noise")), "published")  # fmt: skip
    return markdown(head, lines)


def published_ratio(case: str, test: str, encoder: str, quantity: str) -> str:
    """Of the paper's table; empty where it has no set of this kind."""
    found = PUBLISHED.get((case, test), {}).get(encoder)
    return "" if found is None else f"{found[quantity][1] / found[quantity][0]:.2f}"


def verdicts(cases: Mapping[str, Record]) -> str:
    return markdown(
        ("trained on", "encoder", "test frames", "errors of", "question", "best control", "ratio",
         "95 % interval", "seeds, frames", "verdict"),
        [
            (CASES[case], encoder, TESTS[one["test"]], one["quantity"], QUESTIONS[one["question"]],
             ARMS[one["best_control"]], f"{one['ratio']:.3f}", f"{one['lower']:.3f} to {one['upper']:.3f}",
             f"{one['n_seeds']}, {one['n_units']}", WORDS[one["answer"]])
            for case, encoder, record in each(cases) for one in record["verdicts"] if one["question"] != "placebo"
        ],
    )  # fmt: skip


def short(step: float | str) -> str:
    """1e-05 as 1e-5."""
    return f"{float(step):.0e}".replace("e-0", "e-")


def over_off(scans: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Step -> error over that of adaptation off, mean over seeds."""
    steps = [step for step in scans[0] if float(step) > 0]
    return {step: float(np.mean([one[step] / one["0"] for one in scans])) for step in steps}


def steps_on_validation(cases: Mapping[str, Record]) -> str:
    """The scan that chooses, and what choosing on the test frames would have gained."""
    lines, steps = [], step_names(cases)
    for case, encoder, record in each(cases):
        seeds = record["seeds"]
        for quantity in seeds[0]["scan"]:
            found = over_off([one["scan"][quantity] for one in seeds])
            lines.append((
                CASES[case], encoder, quantity, *(f"{found[step]:.4f}" if step in found else "" for step in steps),
                ", ".join(short(one["rates"]["adapted"][quantity]) for one in seeds),
                f"{min(oracles(record, quantity).values()):.4f}",
            ))  # fmt: skip
    head = ("trained on", "encoder", "errors of", *map(short, steps), "chosen, by seed", "best on any test set")
    return markdown(head, lines)


def oracles(record: Record, quantity: str) -> dict[str, float]:
    """Test set -> error over that of adaptation off at the step of each seed, adaptation off among them, that is best
    on these frames themselves; mean over seeds."""
    scans = {test: [one["scan_tests"][test].get(quantity) for one in record["seeds"]] for test in tests_of(record)}
    return {
        test: float(np.mean([min(filter(None, one.values())) / one["0"] for one in found]))
        for test, found in scans.items()
        if found[0] and not (quantity == "energy" and test in OTHER_COMPOSITION)
    }


def tests_of(record: Record) -> list[str]:
    return list(record["seeds"][0]["scan_tests"])


def steps_on_tests(cases: Mapping[str, Record]) -> str:
    lines, steps = [], step_names(cases)
    for case, encoder, record in each(cases):
        for test, quantity in ratio_rows(record):
            scans = [one["scan_tests"][test].get(quantity) for one in record["seeds"]]
            if None in scans:
                continue
            found = over_off([one for one in scans if one is not None])
            lines.append((
                CASES[case], encoder, TESTS[test], quantity,
                *(f"{found[step]:.4f}" if step in found else "" for step in steps),
            ))  # fmt: skip
    return markdown(("trained on", "encoder", "test frames", "errors of", *map(short, steps)), lines)


def step_names(cases: Mapping[str, Record]) -> list[str]:
    """All adaptation steps that were tried, the smallest first."""
    scans = [scan for record in cases.values() for scan in record["seeds"][0]["scan"].values()]
    tried = {step for scan in scans for step in scan if float(step) > 0}
    return sorted(tried, key=float)


def losses_alone(cases: Mapping[str, Record]) -> str:
    """Error after adaptation with each loss alone over that of adaptation off."""
    lines = []
    for case, encoder, record in each(cases):
        for (test, quantity), columns in ratio_rows(record).items():
            off = columns["off"]["error"]
            lines.append((
                CASES[case], encoder, TESTS[test], quantity,
                *(f"{columns[name]['error'] / off:.4f}" if name in columns else "" for name in ("adapted", *ALONE)),
            ))  # fmt: skip
    return markdown(("trained on", "encoder", "test frames", "errors of", "all three", *ALONE.values()), lines)


def signals(cases: Mapping[str, Record]) -> str:
    """Does the self-supervised loss know the error, and does a step repeat?"""
    lines = []
    for case, encoder, record in each(cases):
        seeds = record["seeds"]
        for test in tests_of(record):
            lines.append((
                CASES[case], encoder, TESTS[test],
                *(_over_seeds([one["correlation"][test].get(name) for one in seeds]) for name in SIGNALS),
                f"{100 * np.mean([one['repeat'][test] for one in seeds]):.2g} %",
                f"{np.mean([one['change'][test] for one in seeds]):.2g}",
            ))  # fmt: skip
    head = ("trained on", "encoder", "test frames", *SIGNALS.values(), "spread over draws", "length of step")
    return markdown(head, lines)


def _over_seeds(ranks: Sequence[float | None]) -> str:
    known = [rank for rank in ranks if rank is not None]
    return f"{np.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})" if known else ""


def cost(cases: Mapping[str, Record]) -> str:
    """Times of a prediction and of a training, over those without."""
    lines = []
    for case, encoder, record in each(cases):
        seeds = record["seeds"]
        plain, adapted = (1e3 * np.mean([one["seconds"][name] for one in seeds]) for name in ("off", "adapted"))
        training = [one["training_s"]["taip"] / one["training_s"]["baseline"] for one in seeds]
        lines.append((
            CASES[case], encoder, f"{plain:.2f}", f"{adapted:.2f}", f"{adapted / plain:.1f}",
            f"{np.mean(training):.1f}",
        ))  # fmt: skip
    return markdown(
        ("trained on", "encoder", "plain, ms per frame", "adapted, ms per frame", "times", "training, times"), lines
    )


def sizes(cases: Mapping[str, Record]) -> str:
    """Training sets of acetylacetone: does the gain hang on their size?"""
    lines = []
    for encoder in ("schnet", "painn"):
        for test in (IN_DISTRIBUTION, "acac_test_MD_600K"):
            for case, frames in SIZES.items():
                record = cases.get(f"{case}:{encoder}")
                if record is None:
                    continue
                columns = ratio_rows(record)[test, "forces"]
                answers = {one["question"]: WORDS[one["answer"]] for one in record["verdicts"]
                           if (one["test"], one["quantity"]) == (test, "forces")}  # fmt: skip
                lines.append((
                    encoder, TESTS[test], frames, f"{1e3 * columns['off']['baseline']:.1f}", ranged(columns["off"]),
                    ranged(columns["adapted"]), answers["joint_training"], answers["adaptation"],
                ))  # fmt: skip
    return markdown(
        ("encoder", "test frames", "training frames", "baseline, meV/Å", ARMS["off"], ARMS["adapted"],
         "training with the tasks", "adaptation"), lines,
    )  # fmt: skip


def shifts(cases: Mapping[str, Record]) -> str:
    """How far features of test frames lie from those of training frames, first seed."""
    return markdown(
        ("trained on", "encoder", "test frames", "features", "MMD² (95 %)", "Fréchet", "AUC"),
        [
            (CASES[case], encoder, TESTS[test], ARMS[kind],
             f"{one['mmd2']:.3f} ({one['mmd2_lower']:.3f} to {one['mmd2_upper']:.3f})", f"{one['frechet']:.3g}",
             f"{one['auc']:.3f} ± {one['auc_std']:.3f}")
            for case, encoder, record in each(cases) for test, kinds in record["shifts"].items()
            for kind, one in kinds.items()
        ],
    )  # fmt: skip


def trial(cases: Mapping[str, Record]) -> str:
    """Ethanol in the paper's setting beside the paper's table, in its units and in ours."""
    lines = []
    for name, encoder in product(TRIALS, ("schnet", "painn")):
        record = cases.get(f"{name}:{encoder}")
        if record is None:
            continue
        columns_of = ratio_rows(record)
        for quantity, units in {"forces": ("kcal/mol/Å", "eV/Å"), "energy": ("kcal/mol", "eV")}.items():
            columns = columns_of[IN_DISTRIBUTION, quantity]
            there = PUBLISHED["d_ethanol", IN_DISTRIBUTION][encoder][quantity]
            # Published energies are those of the molecule.
            scale = ETHANOL_ATOMS if quantity == "energy" else 1
            here = [scale * one for one in
                    (columns["off"]["baseline"], columns["off"]["error"], columns["adapted"]["error"])]  # fmt: skip
            for unit, ours, theirs in ((units[0], 1 / KCAL_PER_MOL, 1.0), (units[1], 1.0, KCAL_PER_MOL)):
                lines.append((
                    TRIALS[name], encoder, quantity, unit, *(f"{theirs * one:.3g}" for one in there),
                    f"{there[1] / there[0]:.2f}", *(f"{ours * one:.3g}" for one in here), ranged(columns["off"]),
                    ranged(columns["adapted"]),
                ))  # fmt: skip
    return markdown(
        ("trained", "encoder", "errors of", "unit", "published: baseline", "adapted", "ratio", "here: baseline",
         "adaptation off", "adapted", "ratio off (95 %)", "ratio adapted (95 %)"), lines,
    )  # fmt: skip
