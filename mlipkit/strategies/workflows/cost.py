"""The dry run: the plan, its budget, and on request what it will take, measured on one unit of each deed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlipkit.strategies.workflows.plan import Plan, parts_of, planned_epochs
from mlipkit.strategies.workflows.tools import Rates, Tools


@dataclass(frozen=True)
class Cost:
    """What a plan will cost.

    Attributes:
        plan: what was asked.
        md_steps: of all simulations, those of the evaluation included.
        labels, gradients, relaxations, predictions: counts of the whole plan.
        rates: measured, or None.
    """

    plan: Plan
    md_steps: int
    labels: int
    gradients: int
    relaxations: int
    predictions: int
    rates: Rates | None = None
    relax_steps: int = 0

    @property
    def stored_frames(self) -> int:
        """Rows of all trajectories."""
        return sum(stage.options["steps"] // stage.options["stride"] + 1 for stage in self.plan.of("simulate"))

    @property
    def seconds(self) -> float | None:
        """Expected time on this machine; None where nothing was measured."""
        if self.rates is None:
            return None
        one = self.rates
        steps = self.md_steps + self.relaxations * self.relax_steps
        return (
            steps * (one.md_step or 0.0) + self.labels * (one.label or 0.0) + self.gradients * (one.gradient or 0.0)
            + self.predictions * (one.prediction or 0.0)
        )  # fmt: skip

    def table(self) -> str:
        """For people: every stage, the budget, and the time when it was measured."""
        lines = [
            self.plan.table(),
            f"In all: {self.md_steps} MD steps, {self.labels} labels, {self.gradients} frame-gradients, "
            f"{self.relaxations} relaxations, {self.predictions} predictions",
        ]
        if self.rates is not None and self.seconds is not None:
            one = self.rates
            lines.append(
                f"About {_duration(self.seconds)}: MD step {_ms(one.md_step)}, label {_ms(one.label)}, frame-gradient "
                f"{_ms(one.gradient)}; relaxations at most {self.relax_steps} steps each"
            )
        return "\n".join(lines)


def dry_run(plan: Plan, tools: Tools | None = None, folder: Path | str | None = None, relax_steps: int = 200) -> Cost:
    """Cost of a plan. Nothing of it is started; with `tools` one unit of each deed is timed in `folder`."""
    steps = sum(stage.options["steps"] for stage in plan.of("simulate"))
    labels = sum(plan.frames_of(stage.name) for stage in plan.of("label"))
    relaxations = sum(plan.frames_of(stage.name) for stage in plan.of("relax"))
    gradients = predictions = 0
    for stage in plan.of("finetune"):
        n_train, held = parts_of(plan.trained_on(stage), stage.options["validation"])
        epochs = planned_epochs(n_train, stage.options)
        gradients += n_train * epochs
        predictions += held * epochs
    for stage in plan.of("evaluate"):
        predictions += len(stage.inputs["models"]) * sum(plan.frames_of(name) for name in stage.inputs["sets"])
    rates = None
    if tools is not None:
        try:
            rates = tools.measure(Path(folder or "."))
        finally:
            tools.close()
    return Cost(plan, steps, labels, gradients, relaxations, predictions, rates, relax_steps)


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{1000 * seconds:.3g} ms"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
