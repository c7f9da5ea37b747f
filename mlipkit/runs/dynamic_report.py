"""What a report says of a dynamic training: the sentence, its stages, errors along roll-outs, what the control is."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

import numpy as np

from mlipkit.plots.dynamic import curriculum_figure, rollout_error_figure
from mlipkit.runs.page import figure_html, table

if TYPE_CHECKING:
    from mlipkit.runs.run import Run

CONTROL = (
    "Whether longer roll-outs gained anything shows only beside the control of equal compute: the same specification "
    "with curriculum.n_structures all 1, and several seeds of both (mlipkit analyse rollouts)."
)


def dynamic_html(run: Run) -> str:
    """The part of a run's page that only dynamic training has."""
    facts, parts = run.facts(), []
    if "sentence" in facts:
        parts += [
            f'<p class="verdict completed">{html.escape(facts["sentence"])}</p>',
            f"<p>{html.escape(CONTROL)}</p>",
        ]
    if "validation" in run.series_names():
        rows = run.series("validation").read()
        if len(rows["epoch"]):
            figure = curriculum_figure(rows["epoch"], rows["rollout_mepa"], rows["n_structures"], rows["stage"])
            parts += ["<h3>Error of validation roll-outs</h3>", figure_html(figure)]
    curves = run.folder / "rollouts.json"
    if curves.is_file():
        record = json.loads(curves.read_text(encoding="utf-8"))
        timestep = record.pop("timestep")
        named = {f"stage {key}, {one['best']['n_structures']} structures": one["best"]["error"]
                 for key, one in record.items() if "best" in one}  # fmt: skip
        times = timestep * np.arange(max(map(len, named.values())))
        parts += ["<h3>Along the roll-outs of the validation</h3>", figure_html(rollout_error_figure(times, named))]
    if "stages" in facts:
        parts.append(_stages(facts))
    if "test_rollouts" in facts:
        parts.append(_test(facts["test_rollouts"]))
    return "\n".join(parts)


def _stages(facts: dict) -> str:
    head = ("stage", "structures", "epochs", "steps", "force evaluations", "training s", "validation s", "best epoch",
            "error per atom type and step, eV/Å", "by element", "chosen")  # fmt: skip
    rows = []
    for one in facts["stages"]:
        mepa = one["rollout_mepa"]
        by_element = ", ".join(f"{name} {value:.3g}" for name, value in one["per_element"].items())
        rows.append([
            one["number"], one["n_structures"], one["epochs"], one["steps"], one["evaluations"],
            f"{one['training_s']:.1f}", f"{one['validation_s']:.1f}", "" if one["best_epoch"] is None else
            one["best_epoch"], "" if mepa is None else f"{mepa:.4g}", by_element,
            "✓" if one["number"] == facts["chosen"] else "",
        ])  # fmt: skip
    moved = f"<p>Energy zero moved by {facts['energy_shift']:+.3g} eV per atom.</p>" if facts["energy_shift"] else ""
    return f"<h3>Stages</h3>{table([[str(cell) for cell in row] for row in rows], head)}{moved}"


def _test(found: dict) -> str:
    def shown(value: float | None, form: str = ".4g") -> str:
        return "none" if value is None else format(value, form)

    time = found["timestep"] * (found["structures"] - 1)
    rows = [
        ["error per atom type and step, on the potential's own path", f"{shown(found['mepa'])} eV/Å"],
        ["the same at equal frames (on the reference's positions)", f"{shown(found['equal_frames'])} eV/Å"],
        *[[f"of {name}, on its own path", f"{value:.4g} eV/Å"] for name, value in found["per_element"].items()],
        ["drift of the total energy, median of sizes", f"{shown(found['drift'], '.3g')} meV per atom and ps"],
        [f"parted from the reference ({found['divergence_limit']:g} Å)", f"{found['diverged']} of {found['starts']}"],
        ["time to that, median", "not reached" if found["divergence_fs"] is None else f"{found['divergence_fs']:g} fs"],
    ]
    head = f"<h3>Roll-outs of the test part: {found['starts']} starts, {time:g} fs</h3>"
    return head + table(rows)
