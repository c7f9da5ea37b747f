"""Fills the places of ``docs/finetuning_case.md`` with what was measured; nothing is written where nothing was."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages import filled, markdown

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "bias_published.json"
NOT_YET = "*Not measured yet.*"
ARMS = {"naive_50": "naive", "periodic_50": "iterative", "nonperiodic_50": "long run"}
LABELS = {
    "chosen": "what validation chose",
    "energy": "energy RMSE",
    "energy_centred": "energy std",
    "forces": "forces",
}


def fill(text: str, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page with every place ``<!-- begin: NAME -->`` to ``<!-- end: NAME -->`` written anew.

    Raises:
        DataError: a place without its end, or one that nothing fills.
    """
    return filled(text, {**published(), **ours(record, rows)}, "finetuning_case.md")


def published() -> dict[str, str]:
    """Places about the published models' own logs."""
    found = json.loads(PUBLISHED.read_text())
    own = markdown(
        ("model", "frames", "density g/cm³", "RMSE meV/atom", "mean", "std, mean removed", "printed"),
        [
            (model, row["n_frames"], f"{row['density_g_cm3']:.3f}", ranged(row["rmse_e"]), ranged(row["mean_e"]),
             ranged(row["std_e"]), row["printed"]["rmse_e"] if row["printed"] else "")
            for model, row in found["own_md"].items()
        ],
    )  # fmt: skip
    offsets = markdown(
        ("model", "constant fitted on", "meV/atom", "RMSE before", "after", "std, mean removed"),
        [
            (row["model"], f"{row['n_fitted_on']} {row['fitted_on']} frames".replace("longrun", "long-run"),
             f"{row['constant_mev']:.2f}", ranged(row["before"]["rmse_e"]), ranged(row["after"]["rmse_e"]),
             ranged(row["before"]["std_e"]))
            for row in found["offsets"]
        ],
    )  # fmt: skip
    return {"published residuals": own, "published offsets": offsets}


def ours(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Places about the potentials fine-tuned here."""
    found, other = record.get("chgnet") or {}, record.get("sevennet-0") or {}
    names = (
        "answer",
        "independent",
        "counterparts",
        "self-md",
        "matrix",
        "matrix without shared",
        "density",
        "verdicts",
    )
    if not found:
        return {**dict.fromkeys(names, NOT_YET), "trainings": NOT_YET}
    return {
        "answer": f"> {found['sentence']}",
        "hidden": found["hidden_sentence"],
        "constants": constants(found, other),
        "offsets": "\n".join(f"- {one}" for one in found["offset_sentences"]) or NOT_YET,
        "independent": error_table(found["independent"]),
        "self-md": error_table(found["self_md"], printed=False),
        "counterparts": counterpart_table(found["counterparts"]),
        "matrix": matrix_table(found["matrix"]),
        "matrix without shared": matrix_table([x for x in found["matrix_without_shared"] if x["test_set"] in ARMS]),
        "density": density_table(largest(found["density_bins"])),
        "verdicts": verdict_table([row for row in found["verdicts"] if row["claim"] == "iterative beats naive"]),
        "trainings": training_table(rows, record.get("planned_trainings", 0)),
    }


def constants(found: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What the constants alone do, for both universal potentials."""
    told = [("CHGNet", found), ("SevenNet-0", other)]
    return "\n".join(f"- {name}. {one['constants_sentence']}" for name, one in told if one)


def largest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The untouched potential, and those of the largest size alone."""
    sizes = {row["model"]: row["model"].rpartition(" ")[2] for row in rows}
    most = max((int(size) for size in sizes.values() if size.isdigit()), default=0)
    return [row for row in rows if sizes[row["model"]] in (str(most), "untouched")]


def error_table(rows: Sequence[Mapping[str, Any]], printed: bool = True) -> str:
    """A published table beside ours."""
    head = ("model", "density", "RMSE E", "mean", "std", "RMSE F", "Fx / Fy / Fz", "RMSE S")
    extra = ("S as published", "published model", "printed E", "printed Fx / Fy / Fz", "printed S") if printed else ()
    lines = []
    for row in rows:
        line = [
            row["model"], f"{row['density_g_cm3']:.3f}", ranged(row["rmse_e"]), ranged(row["mean_e"]),
            ranged(row["std_e"]), ranged(row["rmse_f"], 3),
            " / ".join(f"{row[name][0]:.3f}" for name in ("rmse_fx", "rmse_fy", "rmse_fz")), ranged(row["rmse_s"], 4),
        ]  # fmt: skip
        if printed:
            there = row["printed"] or {}
            forces = [f"{there[name]:.3f}" for name in ("rmse_fx", "rmse_fy", "rmse_fz") if name in there]
            line += [f"{row['rmse_s_as_published'][0]:.4f}", row["published"], there.get("rmse_e", ""),
                     " / ".join(forces), there.get("rmse_s", "")]  # fmt: skip
        lines.append(line)
    return markdown((*head, *extra), lines)


def counterpart_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return markdown(
        ("model", "frames of", "n", "density", "RMSE E", "mean", "std", "RMSE F", "printed E"),
        [
            (row["model"], row["frames_of"], row["n_frames"], f"{row['density_g_cm3']:.3f}", ranged(row["rmse_e"]),
             ranged(row["mean_e"]), ranged(row["std_e"]), ranged(row["rmse_f"], 3),
             (row["printed"] or {}).get("rmse_e", ""))
            for row in rows
        ],
    )  # fmt: skip


def matrix_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """RMSE E (std) of each model on each set; in brackets of how many frames it was fitted on, then without those."""
    sets = list(dict.fromkeys(cell["test_set"] for cell in cells))
    lines = []
    for model in dict.fromkeys(cell["model"] for cell in cells):
        mine = {cell["test_set"]: cell for cell in cells if cell["model"] == model}
        lines.append((model, *(_cell(mine[name]) for name in sets)))
    titles = [f"{ARMS[name]}: 50 frames" if name in ARMS else name.replace("_", " ") for name in sets]
    return markdown(("model", *titles), lines)


def _cell(cell: Mapping[str, Any]) -> str:
    def short(row: Mapping[str, Any] | None) -> str:
        return f"{row['rmse_e'][0]:.1f} ({row['std_e'][0]:.1f})" if row else "-"

    text = short(cell["everything"])
    return f"{text} [{cell['n_seen']} seen; others {short(cell['unseen'])}]" if cell["n_seen"] else text


def density_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return markdown(
        ("density g/cm³", "model", "n", "RMSE E", "mean", "std", "RMSE F"),
        [
            (row["density"], row["model"], row["n_frames"], ranged(row["rmse_e"]), ranged(row["mean_e"]),
             ranged(row["std_e"]), ranged(row["rmse_f"], 3))
            for row in rows
        ],
    )  # fmt: skip


def verdict_table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return NOT_YET
    return markdown(
        ("model", "on", "of", "ratio to the best control", "best control", "answer"),
        [
            (row["model"], row["on"], LABELS[row["quantity"]],
             f"{row['ratio']:.2f} ({row['lower']:.2f} to {row['upper']:.2f})", row["best_control"],
             row["answer"] + (", one seed" if row["n_seeds"] == 1 else ""))
            for row in rows
        ],
    )  # fmt: skip


def training_table(rows: Sequence[Mapping[str, Any]], planned: int) -> str:
    head = ("arm", "frames", "seed", "frame-gradients", "best epoch", "chosen", "offset meV/atom", "spread it leaves",
            "minutes", "forces MAE meV/Å on validation, before and after")  # fmt: skip
    lines = []
    for row in rows:
        if row["arm"]:
            forces = [row["metrics"][which]["validation"]["forces_mae"] for which in ("offset", "best")]
            lines.append((
                row["arm"].replace("longrun", "long run"), row["size"], row["seed"], row["frame_gradients"],
                f"{row['best_epoch']} of {row['epochs']}", row["chosen"], f"{row['shifts']['mean_mev']:.1f}",
                f"{row['shifts']['spread_mev']:.2f}", f"{row['training_s'] / 60:.0f}",
                " / ".join(f"{1000 * one:.0f}" for one in forces),
            ))  # fmt: skip
    return f"{len(lines)} trainings; the plan has {planned}.\n\n{markdown(head, lines)}" if lines else NOT_YET


def ranged(figure: Sequence[float | None] | None, digits: int = 2) -> str:
    """Value and interval."""
    if figure is None or figure[0] is None:
        return ""
    value, low, high = figure
    ends = "" if low is None or high is None else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{ends}"
