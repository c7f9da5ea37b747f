"""Fills places of ``docs/dynamic_case.md`` from what was measured: ``python benchmarks/studies/dynamic_page.py``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages import filled, markdown
from records import RESULTS

from mlipkit.data.whole import write_whole

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dynamic_case.md"
STUDIES = {
    "ethanol_nve": "ethanol, NVE",
    "ethanol_nve_converged": "ethanol, NVE, converged start",
    "h2_pd6_nve": "H2 on Pd6, NVE",
    "h2_pd6_nve_converged": "H2 on Pd6, NVE, converged start",
    "ch4_nve_aimd": "CH4, NVE, DFT",
    "md17_ethanol": "ethanol, MD17, DFT",
    "ec_aimd": "liquid EC, DFT",
    "ligeps_aimd": "LiGePS, DFT",
}
"""Study -> its name on the page."""
ARMS = {
    "first_mepa": "start: single frames",
    "dt": "roll-outs",
    "dt_no_bptt": "roll-outs, no gradients through time",
    "dt_steps": "roll-outs, as many optimiser steps",
    "single": "single frames, MEPA loss",
    "single_mae": "single frames, MAE loss",
    "single_mse": "single frames, MSE loss",
    "dt_refresh5": "roll-outs, lists every 5 steps",
    "dt_refresh_inf": "roll-outs, lists of the start",
}
"""Arm -> its name on the page."""
STEPS = (1, 10, 20, 40, 60, 120)
WORDS = {"works": "works", "does not": "does not work", "undecided": "undecided"}


def places(results: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name of a place -> its table, of the studies that there are.

    Args:
        results: study -> what `dynamic.py --table` has written.
    """
    return {
        "verdicts": markdown(
            ("study", "encoder", "question", "ratio", "95 % interval", "seeds, starts", "verdict"),
            [
                (STUDIES[study], encoder, title, f"{v['ratio']:.2f}", f"{v['lower']:.2f} to {v['upper']:.2f}",
                 f"{v['n_seeds']}, {v['n_units']}", _word(title, v))
                for study, encoder, found in _each(results) for title, v in found["verdicts"].items()
            ],
        ),
        "errors": markdown(
            ("study", "encoder", "arm", "along roll-outs", "at equal frames", "parted", "by element"),
            [
                (STUDIES[study], encoder, ARMS[row["name"]], f"{row['mepa']:.3f} ± {row['spread']:.3f}",
                 f"{row['equal_frames']:.3f}", f"{row['diverged']} of {row['rollouts']}",
                 ", ".join(f"{element} {value:.3f}" for element, value in row["per_element"].items()))
                for study, encoder, found in _each(results) for row in found["arms"]
            ],
        ),
        "curves": markdown(
            ("study", "encoder", "arm", *(f"step {step}" for step in STEPS)),
            [
                (STUDIES[study], encoder, ARMS[arm],
                 *(f"{curve[step - 1]:.3f}" if step <= len(curve) else "" for step in STEPS))
                for study, encoder, found in _each(results) for arm, curve in found["error_curves"].items()
                if arm in ("dt", "single", "single_mae")
            ],
        ),
    }  # fmt: skip


def _word(title: str, verdict: Mapping[str, Any]) -> str:
    """Shorter lists need not be better, only as good."""
    if title.startswith("lists"):
        return "the same within 10 %" if verdict["lower"] > 0.9 and verdict["upper"] < 1.1 else "undecided"
    return WORDS[verdict["answer"]]


def _each(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for study in STUDIES:
        for encoder, found in results.get(study, {}).get("encoders", {}).items():
            yield study, encoder, found


def main() -> None:
    files = {study: RESULTS / f"dynamic_{study}.json" for study in STUDIES}
    results = {study: json.loads(file.read_text()) for study, file in files.items() if file.is_file()}
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), places(results), PAGE.name).encode())


if __name__ == "__main__":
    main()
