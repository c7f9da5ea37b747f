"""What a report says of an evaluation of TAIP: the verdicts, errors beside the controls, the scan of the step."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import read_json
from mlipkit.errors import RunError
from mlipkit.runs.page import table

if TYPE_CHECKING:
    from mlipkit.runs.run import Run

NAME, MAPS = "taip.json", "taip_maps.npz"
WORDS = {
    "off": "trained with the tasks, not adapted", "adapted": "adapted", "random": "random step of equal length",
    "noise": "noise augmentation", "only_noise": "adapted, noise task alone", "only_types": "adapted, types alone",
    "only_pseudo_forces": "adapted, pseudo-forces alone", "without_noise": "without noise task, adapted",
    "without_types": "without types, adapted", "without_pseudo_forces": "without pseudo-forces, adapted",
}  # fmt: skip
QUESTIONS = {"adaptation": "Adaptation", "joint_training": "Training with the tasks", "placebo": "Random step"}
MILLI = 1000.0


KEYS = ("sentence", "shifted", "verdicts", "ratios", "seeds")
"""What every record of an evaluation has."""


def taip_record(run: Run) -> Mapping[str, Any]:
    """What the evaluation wrote at its end; empty before.

    Raises:
        RunError: it is damaged.
    """
    path = run.folder / NAME
    if not path.is_file():
        return {}
    found = read_json(path)
    if lacks := [key for key in KEYS if key not in found]:
        raise RunError("cannot be read", where=str(path), found=f"no {', '.join(lacks)}",
                       hint=f"Delete {NAME} and resume: what was trained and measured is judged again")  # fmt: skip
    return upgraded(found)


def upgraded(record: dict[str, Any]) -> Mapping[str, Any]:
    """A record as it is written now; before, forces (or energies, without them) chose one step for both."""
    led = {one["test"]: one["quantity"] for one in reversed(record["verdicts"])}
    for seed in (one for one in record["seeds"] if "rate" in one):
        rate = seed.pop("rate")
        seed["rates"] = {"adapted": {"forces": rate, "energy": rate}}
        seed["scan"] = {"forces" if "forces" in led.values() else "energy": seed["scan"]}
        seed["scan_tests"] = {test: {led.get(test, "forces"): scan} for test, scan in seed["scan_tests"].items()}
        seed["correlation"] = {test: {"all": None, "one draw": rank} for test, rank in seed["correlation"].items()}
    return record


def taip_maps(run: Run) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Maps of features: test set -> kind of features -> points [n,2] of training and of test frames."""
    path = run.folder / MAPS
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    if not path.is_file():
        return found
    with np.load(path, allow_pickle=False) as kept:
        for key in kept.files:
            side, test, kind = key.split("/")
            if side == "train":
                found.setdefault(test, {})[kind] = kept[key], kept[f"test/{test}/{kind}"]
    return found


def taip_table(run: Run, quantity: str = "forces") -> str:
    """Answers of an evaluation as text: a line for each question and test set out of distribution; "" before its end.

    Each has the error ratio of cure to best control, its 95 % interval, and which control that was.
    """
    found = taip_record(run)
    if not found:
        return ""
    steps = ", ".join(f"{one['rates']['adapted'][quantity]:g}" for one in found["seeds"])
    lines = [f"{run.name}: adaptation step {steps} (by seed, chosen on validation frames)"]
    for one in found["verdicts"]:
        if one["quantity"] == quantity and one["test"] in found["shifted"]:
            interval = f"{one['lower']:.3f} to {one['upper']:.3f}"
            lines.append(
                f"  {one['test']:14s}{QUESTIONS[one['question']]:25s}{one['answer']:11s}"
                f"error ratio {one['ratio']:.3f} ({interval}) to '{one['best_control']}'"
            )
    return "\n".join(lines)


def taip_html(run: Run) -> str:
    """The part of a run's page that only an evaluation of TAIP has; "" before its end."""
    found = taip_record(run)
    if not found:
        return ""
    kind = {"works": "completed", "does not": "failed"}
    parts = []
    for one in found["verdicts"]:
        if one["question"] != "placebo":
            said = f"{QUESTIONS[one['question']]}: {one['sentence']}"
            parts.append(f'<p class="verdict {kind.get(one["answer"], "warning")}">{html.escape(said)}</p>')
    parts += ["<h3>Errors over those of the baseline</h3>", table(_ratios(found["ratios"]), HEAD)]
    placebo = [[one["test"], one["quantity"], one["answer"], one["sentence"]] for one in found["verdicts"]
               if one["question"] == "placebo"]  # fmt: skip
    parts += ["<h3>Would a random step have been called a cure?</h3>", table(placebo)]
    parts += ["<h3>Adaptation step, chosen on validation frames</h3>", table(*_scan(found["seeds"]))]
    parts += ["<h3>What adaptation costs and how far it repeats</h3>", table(*cost_of(found["seeds"]))]
    if found["shifts"]:
        rows = [
            [test, WORDS.get(name, name), atoms, f"{one['mmd2']:.3g}", f"{one['frechet']:.3g}", f"{one['auc']:.3f}"]
            for test in found["shifts"]
            for atoms, sets in shifts_of(found, test).items()
            for name, one in sets.items()
        ]
        head = ("test", "model", "atoms", "MMD²", "Fréchet", "AUC")
        parts += ["<h3>Features, training against test frames</h3>", table(rows, head)]
    return "\n".join(parts)


def shifts_of(record: Mapping[str, Any], test: str) -> dict[str, Mapping[str, Any]]:
    """Shifts of a test set's features: "all" atoms, then each element -> kind of features -> measures."""
    elements = {symbol: tests[test] for symbol, tests in record.get("shifts_of", {}).items() if test in tests}
    return {"all": record["shifts"][test], **elements} if test in record.get("shifts", {}) else {}


HEAD = ("test frames", "quantity", "potential", "ratio", "95 % interval", "error", "baseline")
UNITS = {"forces": "meV/Å", "energy": "meV/atom"}


def _ratios(found: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            one["test"], one["quantity"], str(WORDS.get(one["column"], one["column"])), f"{one['ratio']:.3f}",
            f"{one['lower']:.3f} to {one['upper']:.3f}", f"{one['error'] * MILLI:.4g} {UNITS[one['quantity']]}",
            f"{one['baseline'] * MILLI:.4g}",
        ]
        for one in sorted(found, key=lambda one: (one["test"], one["quantity"]))
    ]  # fmt: skip


def _said(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _scan(seeds: Iterable[Mapping[str, Any]]) -> tuple[list[list[str]], list[str]]:
    rows, head = [], ["seed", "frames", "errors of"]
    for seed in seeds:
        for name, quantities in {"validation": seed["scan"], **seed["scan_tests"]}.items():
            chooses = name == "validation"
            for quantity, scan in quantities.items():
                head = [*head[:3], *scan]
                mark = f"{seed['rates']['adapted'][quantity]:g}" if chooses else ""
                cells = [f"{_said(one, '.5g')}{' ← chosen' if rate == mark else ''}" for rate, one in scan.items()]
                frames = name if chooses else f"{name} (an oracle's, not used)"
                rows.append([str(seed["seed"]), frames, quantity, *cells])
    return rows, head


def cost_of(seeds: Iterable[Mapping[str, Any]]) -> tuple[list[list[str]], list[str]]:
    """Rows and head of a table: time, repeatability, correlation and weight change, by seed and test set."""
    rows = []
    for seed in seeds:
        cost = seed["seconds"]
        for test, share in seed["repeat"].items():
            rows.append([
                str(seed["seed"]), test, f"{cost['adapted'] / max(cost['off'], 1e-12):.1f}", _said(share, ".2%"),
                _said(seed["correlation"][test]["all"], ".2f"), _said(seed["change"][test], ".3g"),
                ", ".join(f"{name} {value:.0f}" for name, value in seed["training_s"].items()),
            ])  # fmt: skip
    head = [
        "seed", "test", "time over plain", "spread over noise seeds", "rank correlation of loss and error",
        "weight change", "training s",
    ]  # fmt: skip
    return rows, head
