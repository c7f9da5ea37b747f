"""What a fine-tuning came to: which candidate is the best, its figures, and the sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.training.batches import Order
from mlipkit.training.checkpoint import read_header

if TYPE_CHECKING:
    from mlipkit.models import BasePotential
    from mlipkit.strategies.finetuning.recipe import FinetuneRecipe
    from mlipkit.strategies.finetuning.shifts import EnergyShifts
    from mlipkit.training import TrainResult, TrainSettings

CHOSEN = "chosen.safetensors"
UNTOUCHED, OFFSET, TUNED = "untouched", "offset", "fine-tuned"


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning gave.

    Attributes:
        potential: the best candidate: a fine-tuned one, the untouched one with its energies moved, or untouched.
        best: its file; opens with `mlipkit.models.load`.
        chosen: "fine-tuned", "offset" or "untouched".
        best_epoch: 0 when no epoch was better than the start; an unfinished first epoch counts as 1.
        worse_than_start: no step of the training was better than the better of the two starts.
        sentence: the result for people.
        shifts: the reference step.
        metrics: figures of "untouched", "offset" (untouched and moved) and "best" (of `potential`) per split.
        frame_gradients: how many frames were differentiated in the training, replay frames and copies included.
        result: what the training loop says.
    """

    potential: BasePotential
    best: Path
    chosen: str
    best_epoch: int
    worse_than_start: bool
    sentence: str
    shifts: EnergyShifts
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    frame_gradients: int
    result: TrainResult


def judged(
    start: BasePotential, body: BasePotential, result: TrainResult, metrics: dict[str, Any],
    score: Mapping[str, float], shifts: EnergyShifts, recipe: FinetuneRecipe, settings: TrainSettings, n_points: int,
) -> Finetuned:  # fmt: skip
    """Choose among the three candidates by the validation, and write the one that is returned.

    Args:
        start, body: the untouched potential; the one that was trained, with its best weights.
        score: of "untouched" and "offset", as `monitored` gives it.
        n_points: frames that the loop drew from.
    """
    from mlipkit.models import save

    # By steps: a training may end inside its first epoch.
    worse = result.best_step <= 0 or result.best_objective >= score[UNTOUCHED]
    chosen = TUNED if not worse else OFFSET if score[OFFSET] < score[UNTOUCHED] else UNTOUCHED
    if not settings.max_epochs:
        chosen = UNTOUCHED
    best_epoch = 0 if worse else max(1, result.best_epoch)
    best = dict(result.metrics) if result.state == "completed" else _measured(result.best)
    if chosen != TUNED:
        # Of the training frames only the best checkpoint was measured, which is the offset where nothing was better.
        whole = {"train": best["train"]} if chosen == OFFSET and result.best_step == 0 and "train" in best else {}
        best = {**whole, **metrics[chosen]}
    table = {UNTOUCHED: metrics[UNTOUCHED], OFFSET: metrics[OFFSET], "best": best}
    tuned: BasePotential = start if chosen == UNTOUCHED else body.eval()
    file = save(tuned, result.best.with_name(CHOSEN), {"chosen": chosen, "best": best, "epoch": best_epoch})
    return Finetuned(
        potential=tuned, best=file, chosen=chosen, best_epoch=best_epoch,
        worse_than_start=bool(worse and result.step), shifts=shifts, metrics=table, result=result,
        sentence=_sentence(table, chosen, result, settings),
        frame_gradients=_differentiated(result.step, n_points, recipe, settings),
    )  # fmt: skip


def _measured(best: Path) -> dict[str, Any]:
    """What the card of a checkpoint says of its weights: a training that was stopped measures nothing more."""
    return dict(read_header(best)["card"]["metrics"]) if best.is_file() else {}


def _differentiated(step: int, n_points: int, recipe: FinetuneRecipe, settings: TrainSettings) -> int:
    """Frames that so many steps differentiated; the last batch of an epoch may be short."""
    order = Order(n_points, 0, settings.batch_size, settings.num_processes, settings.points_per_epoch)
    width = settings.batch_size * settings.num_processes
    epochs, rest = divmod(step, order.steps_per_epoch)
    new = epochs * min(order.per_epoch, order.steps_per_epoch * width) + min(rest * width, order.per_epoch)
    return new + (step * recipe.replay_batch * settings.num_processes if recipe.mix == "loss10" else 0)


def _sentence(table: Mapping[str, Any], chosen: str, result: TrainResult, settings: TrainSettings) -> str:
    if not settings.max_epochs:
        return "Zero epochs: the potential is returned as it is."
    if not result.step:
        return "Stopped before the first step: nothing was trained."
    stopped = result.state == "stopped"
    before, offset = table[UNTOUCHED]["validation"], table[OFFSET]["validation"]
    if chosen != TUNED:
        what = "the untouched potential" if chosen == UNTOUCHED else "the untouched potential with shifted energies"
        made = f"{result.epoch} epochs" if result.epoch else f"{result.step} steps"
        return (
            f"{'Stopped; until then worse' if stopped else 'Worse'} than the start: none of {made} was better on "
            f"validation ({words(table[chosen]['validation'])}); {what} is returned."
        )
    after = table["best"]["validation"]
    parts = []
    if "forces_mae" in after:
        parts.append(f"forces {1000 * before['forces_mae']:.1f} -> {1000 * after['forces_mae']:.1f} meV/Å")
    if "energy_mae" in after:
        alone = f"the offset alone gives {1000 * offset['energy_mae']:.2f}"
        learned = "" if after["energy_mae"] < offset["energy_mae"] else ": nothing beyond it was learned about energies"
        energies = f"energies {1000 * before['energy_mae']:.2f} -> {1000 * after['energy_mae']:.2f} meV/atom"
        parts.append(f"{energies} ({alone}{learned})")
    if not parts and "stress_mae" in after:
        parts.append(f"stress {1000 * before['stress_mae']:.3g} -> {1000 * after['stress_mae']:.3g} meV/Å³")
    best = f"step {result.best_step} of {result.step}"
    if result.best_epoch:
        best = f"epoch {result.best_epoch} of {result.epoch}"
    return f"{'Stopped; best' if stopped else 'Best'} {best} on validation: {', '.join(parts)}."


def words(figures: Mapping[str, float]) -> str:
    """Errors of one split, short."""
    units = {"energy_mae": "meV/atom", "forces_mae": "meV/Å"}
    known = ((name.split("_")[0], figures[name], unit) for name, unit in units.items() if name in figures)
    return ", ".join(f"{label} {1000 * value:.3g} {unit}" for label, value, unit in known)
