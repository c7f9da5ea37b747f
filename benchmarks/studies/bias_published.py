"""Energy residuals of the published fine-tuning study, from its own MD logs, and what one constant leaves of them.

    python benchmarks/studies/bias_published.py

needs the real data sets in MLIPKIT_DATA; takes seconds. Writes `results/bias_published.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bias_data import Told, arm, read_set

from mlipkit.analysis.cross_evaluation import density_pairs
from mlipkit.analysis.offset_control import offset_control
from mlipkit.analysis.residuals import Residuals, residuals, table_row

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent / "results" / "bias_published.json"
PRINTED: dict[str, Any] = yaml.safe_load((HERE / "bias_published.yaml").read_text())


def driven(told: Told, model: str | None = None) -> Residuals:
    """Residuals of the energies that the driving model printed, of the frames that `model` drove."""
    rows = np.flatnonzero(np.isfinite(told.driven_energy) & ((told.sampled_by == model) if model else True))
    part = told.select(rows)
    return residuals(part.frames.with_labels(energy=part.driven_energy, forces=np.nan, stress=np.nan), part.frames)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Figures with digits that mean something."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(one) for one in value]
        return round(value, 4) if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}


def own_md(tests: Told) -> dict[str, Any]:
    """Each model on the frames that it drove itself: all of the error, its mean, and what one constant leaves of it."""
    return {
        model: {**rounded(table_row(driven(tests, model))), "printed": PRINTED["own_md"].get(model)}
        for model in dict.fromkeys(tests.sampled_by)
    }


def training_runs() -> dict[str, Any]:
    """Each model on the training frames that it sampled."""
    found = {f"{name}: U": rounded(table_row(driven(arm(name), "U"))) for name in ("naive", "iterative", "longrun")}
    chain = arm("iterative")
    return found | {f"iterative: {x}": rounded(table_row(driven(chain, x))) for x in ("FT1", "FT2", "FT3", "FT4")}


def offsets(tests: Told) -> list[dict[str, Any]]:
    """One constant, fitted where a model sampled training frames, taken off on the test frames that it drove."""
    pairs = [(name, "U") for name in ("naive", "iterative", "longrun")]
    pairs += [("iterative", model) for model in ("FT1", "FT2", "FT3", "FT4")]
    rows = []
    for name, model in pairs:
        control = offset_control(driven(arm(name), model))
        test = driven(tests, model)
        rows.append({
            "model": model, "fitted_on": name, "n_fitted_on": control.n_frames,
            "constant_mev": round(1000 * float(control.per_atom(test.frames)[0]), 4),
            "left_there_std_mev": round(1000 * control.residual_std, 4),
            "before": rounded(table_row(test)), "after": rounded(table_row(control.remove(test))),
        })  # fmt: skip
    return rows


def matched_density(tests: Told, tolerance: float = 0.01) -> dict[str, Any]:
    """Naive and iterative models on their own frames, of pairs of frames of equal density alone."""
    naive, chain = (tests.select(np.flatnonzero(tests.family == family)) for family in ("naive", "iterative"))
    i, j = density_pairs(naive.frames, chain.frames, tolerance)
    found: dict[str, Any] = {"tolerance": tolerance, "pairs": len(i)}
    for name, told, rows in (("naive", naive, i), ("iterative", chain, j)):
        part = told.select(rows)
        found[name] = {
            "models": {str(x): int((part.sampled_by == x).sum()) for x in dict.fromkeys(part.sampled_by)},
            **rounded(table_row(driven(part))),
        }  # fmt: skip
    training = [arm(name).frames for name in ("naive", "iterative")]
    found["pairs_of_training_frames"] = len(density_pairs(*training, tolerance)[0])
    return found


def main() -> None:
    tests = read_set("self_md_tests")
    record = {
        "command": "python benchmarks/studies/bias_published.py", "own_md": own_md(tests),
        "training_runs": training_runs(), "offsets": offsets(tests), "matched_density": matched_density(tests),
    }  # fmt: skip
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    for model, row in record["own_md"].items():
        print(f"{model:6}", *(f"{name} {row[name][0]:7.2f} ({row[name][1]:.2f} to {row[name][2]:.2f})"
                              for name in ("rmse_e", "mean_e", "std_e")), f"n {row['n_frames']}")  # fmt: skip
    for row in record["offsets"]:
        print(f"{row['model']} less the constant of {row['n_fitted_on']} {row['fitted_on']} frames "
              f"({row['constant_mev']:.2f}): {row['before']['rmse_e'][0]:.2f} -> {row['after']['rmse_e']}")  # fmt: skip
    print(record["matched_density"])


if __name__ == "__main__":
    main()
