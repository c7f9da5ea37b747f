"""Numbers of a training on their way to the disk: one row per step, one per evaluation, progress twice a second."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mlipkit.errors import ModelError
from mlipkit.events import EventSink, Progress

if TYPE_CHECKING:
    from mlipkit.data.series import SeriesWriter

STEP = {"step": "", "epoch": "", "loss": ""}
AFTER = {"learning_rate": "", "grad_norm": "", "seconds": "s", "data_wait": "s"}
EVALUATED = {
    "energy_mae": "eV/atom",
    "energy_rmse": "eV/atom",
    "forces_mae": "eV/Å",
    "forces_rmse": "eV/Å",
    "stress_mae": "eV/Å³",
    "stress_rmse": "eV/Å³",
}
PROGRESS_S = 0.5
LARGEST_BLOCK = 256


class Recorder:
    """Series `training` and `validation` of a run folder, and the means over the present epoch.

    Rows stay on the device until a block of them is fetched at once, so that an accelerator never waits for a number.
    Every fetch looks for losses that are not finite.

    Args:
        folder: the run folder; None in processes that write nothing.
        figures: unit per figure of the objective terms.
        sink: gets `Progress`.
        rows: rows of the two series that belong to the state resumed from; later ones are cut off. Empty:
            new series.
        sums: running sums of the epoch resumed into.
        further: unit per further figure of the validation.
    """

    def __init__(
        self,
        folder: Path | None,
        figures: Mapping[str, str],
        sink: EventSink,
        rows: Mapping[str, int],
        sums: Mapping[str, list[float]],
        further: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.figures = tuple(figures)
        columns = {
            "training": {**STEP, **figures, **AFTER},
            "validation": {
                "step": "", "epoch": "", "objective": "", "learning_rate": "", "seconds": "s", **EVALUATED, **further,
                **{f"train_{name}": unit for name, unit in {"loss": "", **figures}.items()},
            },
        }  # fmt: skip
        self.columns = columns
        self._sink = sink
        self._series: dict[str, SeriesWriter] = {}
        if folder is not None:
            from mlipkit.data.series import SeriesWriter

            for name in columns:
                place = folder / "series" / name
                self._series[name] = SeriesWriter(place, columns[name], resume_rows=rows.get(name))
        self._waiting: list[tuple[Sequence[float], Tensor, np.ndarray]] = []
        self._next_progress = 0.0
        self._rate = (0, 0.0)
        self.sums = {name: list(pair) for name, pair in sums.items()}

    @property
    def rows(self) -> dict[str, int]:
        """Rows written, per series."""
        return {name: writer.n_rows for name, writer in self._series.items()}

    def step(self, plain: Sequence[float], values: Tensor, indices: np.ndarray) -> None:
        """One step.

        Args:
            plain: step, epoch, learning rate, seconds, seconds waited for data.
            values: loss, figures, gradient norm; on the device.
            indices: the training points.
        """
        self._waiting.append((plain, values, indices))
        if len(self._waiting) >= LARGEST_BLOCK or time.monotonic() >= self._next_progress:
            self.flush()

    def flush(self) -> None:
        """Fetch the waiting rows, check them, write them.

        Raises:
            ModelError: a loss or gradient is not finite; names step and frames.
        """
        if not self._waiting:
            return
        fetched = torch.stack([values for _, values, _ in self._waiting]).cpu().numpy()
        host = np.array([plain for plain, _, _ in self._waiting])
        step, epoch, rate, seconds, waited = host.T
        loss, figures, norm = fetched[:, 0], fetched[:, 1:-1], fetched[:, -1]
        bad = ~(np.isfinite(loss) & np.isfinite(norm))
        if bad.any():
            first = int(np.argmax(bad))
            chosen = ", ".join(map(str, self._waiting[first][2][:8]))
            raise ModelError(
                "loss or gradient is not finite",
                where=("training", f"step {int(step[first])}"),
                found=f"loss {loss[first]:g}, gradient norm {norm[first]:g} on training frames {chosen}",
                hint="Lower the learning rate or clip_norm, or look at these frames (overlapping atoms, wrong labels)",
            )
        rows = np.column_stack([step, epoch, loss, figures, rate, norm, seconds, waited])
        self._waiting.clear()
        for name, values in zip(("loss", *self.figures), [loss, *figures.T], strict=True):
            total = self.sums.setdefault(name, [0.0, 0])
            # One addition per step, in order: the sums do not depend on where the blocks were cut.
            for value in values[~np.isnan(values)].tolist():
                total[0] += value
                total[1] += 1
        if "training" in self._series:
            self._series["training"].append(rows)
            self._series["training"].flush()

    def means(self) -> dict[str, float]:
        """Mean over the steps of the present epoch, of the loss and every figure."""
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def validation(
        self, step: int, epoch: float, objective: float, rate: float, seconds: float, figures: Mapping[str, float]
    ) -> None:
        """One evaluation, with the means over the epoch that it ends."""
        values: dict[str, Any] = {"step": step, "epoch": epoch, "objective": objective}
        values |= {"learning_rate": rate, "seconds": seconds, **figures}
        values |= {f"train_{name}": value for name, value in self.means().items()}
        if "validation" in self._series:
            row = [float(values.get(name, math.nan)) for name in self.columns["validation"]]
            self._series["validation"].append(np.array(row))
            self._series["validation"].flush()

    def progress(self, step: int, planned: int, seconds: float) -> None:
        """Emit `Progress`, at most twice a second; what remains is estimated from the pace since the last start."""
        if self._rate == (0, 0.0):
            self._rate = (step, seconds)
        now = time.monotonic()
        if now < self._next_progress and step != planned:
            return
        self._next_progress = now + PROGRESS_S
        steps, spent = step - self._rate[0], seconds - self._rate[1]
        remaining = (planned - step) * spent / steps if steps and planned else None
        self._sink(Progress(step, planned, "step", remaining))

    def close(self) -> None:
        """Close the series."""
        for writer in self._series.values():
            writer.close()
