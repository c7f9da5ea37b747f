"""The training loop: explicit, resumable at any step, open at three places (objective terms, data source, validation).

Exact resume: the state in `last.safetensors` determines everything that follows. A training that is killed at any
moment and called again ends, on the same CPU with the same number of threads, with the same weights bit for bit as one
that was never interrupted. Two things are outside that promise: where a training ends by `time_limit_s` hangs on the
clock, and accelerators may add in another order (`TrainSettings.deterministic` asks for a fixed one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from mlipkit.errors import DataError, LabelError
from mlipkit.events import Control, Evaluated, EventSink, Message, Saved, Started, always_run, ignore
from mlipkit.training import checkpoint, parallel, preflight
from mlipkit.training.batches import Batch, Feeder, FrameSource, Order, Source
from mlipkit.training.evaluate import evaluate
from mlipkit.training.metrics import compact, monitored
from mlipkit.training.objective import EnergyForcesStress, ObjectiveTerm, StepState
from mlipkit.training.optimise import LearningRate, MovingAverage, adamw, clip
from mlipkit.training.outcome import Ending, TrainResult, final_table, in_effect
from mlipkit.training.pacing import PAUSE, SAVE, STOP, TIME, Pacer
from mlipkit.training.recording import Recorder
from mlipkit.training.state import TrainState

if TYPE_CHECKING:
    import numpy as np

    from mlipkit.data.frameset import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training.settings import TrainSettings


class Validate(Protocol):
    """Further figures of a validation: `figures` names them with their units, the call measures them."""

    @property
    def figures(self) -> Mapping[str, str]: ...
    def __call__(self, potential: BasePotential) -> Mapping[str, float]: ...


SLOW_DATA = 0.2
LOOK_AT_LEAST_S = 10.0
SAVE_AT_LEAST_S = 5.0


def train(
    potential: BasePotential,
    train: FrameSet | Source,
    validation: FrameSet,
    settings: TrainSettings,
    *,
    folder: str | Path,
    sink: EventSink = ignore,
    control: Control = always_run,
    terms: Sequence[ObjectiveTerm] | None = None,
    test: FrameSet | None = None,
    validate: Validate | None = None,
) -> TrainResult:
    """Train a potential, or go on where the folder's last checkpoint stands.

    The folder gets ``checkpoints/{last,best}.safetensors`` (+ .json), ``series/training`` (a row per step),
    ``series/validation`` (a row per evaluation; epoch 0 is before the first step) and at the end ``metrics.json`` (all
    splits, best weights).

    Args:
        potential: starting weights, changed in place; afterwards it holds the best weights.
        train: labelled frames, or another data source.
        validation: labelled frames that choose the best epoch.
        settings: every number.
        folder: output; a state found there is resumed and must belong to the same data and architecture.
        sink: gets events (Started, Progress, Evaluated, Saved, Message).
        control: asked before every step: "run", "pause" (blocks in short sleeps) or "stop" (saves, evaluates, returns).
        terms: summands of the loss; None: energies, forces and stress as the settings say.
        test: labelled frames for the final table only.
        validate: further validation figures of the evaluated weights; `settings.monitor` may name one.

    Raises:
        LabelError: a weighted label that no training frame has; test frames without any label.
        DataError: energies that do not belong to the atomic energies; no training or validation frame; fewer
            training frames than processes.
        ModelError: an element outside the potential's domain; a loss that is not finite.
        RunError: the folder's checkpoint belongs to other data or another architecture.
        SpecError: settings that contradict each other, the data or the machine.
    """
    processes = parallel.start(settings)
    with parallel.deterministic(settings.deterministic):
        loop = _Loop(potential, train, validation, settings, terms, processes, Path(folder))
        loop.test, loop.validate = test, validate
        loop.pacer = Pacer(settings, control, processes)
        loop.sink = sink if processes.first else ignore
        try:
            return loop.run()
        finally:
            loop.close()


class _Loop:
    """One call of `train`."""

    pacer: Pacer
    recorder: Recorder
    test: FrameSet | None = None
    validate: Validate | None = None
    sink: EventSink = staticmethod(ignore)

    def __init__(
        self,
        potential: BasePotential,
        train: FrameSet | Source,
        validation: FrameSet,
        settings: TrainSettings,
        terms: Sequence[ObjectiveTerm] | None,
        processes: parallel.Processes,
        folder: Path,
    ) -> None:
        from mlipkit.data.frameset import FrameSet
        from mlipkit.data.neighbours import NeighbourCache

        if len(validation) == 0:
            raise DataError("no frame", where="validation", hint="Split some off: mlipkit.data.split(frames)")
        self.settings, self.processes, self.validation = settings, processes, validation
        self.terms = tuple(terms) if terms is not None else (EnergyForcesStress.from_settings(settings),)
        self.needs = frozenset(need for term in self.terms for need in term.needs)
        self.figures = {name: unit for term in self.terms for name, unit in term.figures.items()}
        self.folder = folder
        self.best, self.last = (folder / "checkpoints" / f"{name}.safetensors" for name in ("best", "last"))

        dtype = torch.float64 if settings.precision == "float64" else torch.float32
        self.potential = potential.to(device=processes.device, dtype=dtype).train()
        processes.share(potential)
        source: Source = FrameSource(train, potential.cutoff, dtype) if isinstance(train, FrameSet) else train
        if len(source.frames) == 0:
            raise DataError("no frame", where="training frames")
        for frames in (source.frames, validation):
            potential.check_elements(list(frames.elements))
        self.validation_lists = NeighbourCache(validation, potential.cutoff)
        self.feeder = Feeder(source, processes.device)
        self.source, self.order = source, self._order(source)
        self.state = TrainState(
            potential,
            adamw(potential, settings),
            MovingAverage(potential, settings.ema_decay) if settings.ema_decay else None,
            LearningRate(settings, self.order.steps_per_epoch),
            source,
            settings,
            identity={
                "training data": source.fingerprint,
                "validation data": validation.hash,
                "objective terms": {term.name: sorted(term.figures) for term in self.terms},
            },
        )
        self.warned_slow = False
        self.looked_at = (0.0, 0.0)

    # ---- the loop

    def run(self) -> TrainResult:
        """Everything, from the first evaluation (or the checkpoint) to the final table."""
        self._begin()
        ending: Ending = ""
        while not ending:
            at = self.state.at
            if at.in_epoch == self.order.steps_per_epoch:
                self._end_epoch()
            ending = self._over()
            if ending:
                break
            first = at.in_epoch
            began, waited = self.pacer.advance(), self.feeder.waited_s
            for indices, batch in self.feeder(self.order.batches(at.epoch, first, self.processes.rank)):
                ending = self._interrupted()
                if ending:
                    break
                self._step(indices, batch)
            self._look_at_waiting(self.feeder.waited_s - waited, self.pacer.seconds - began)
        return self._finish(ending)

    def _step(self, indices: np.ndarray, batch: Batch) -> None:
        """One optimiser step on one batch."""
        state, at, processes = self.state, self.state.at, self.processes
        waited = self.feeder.waited_s
        rate = state.rate.rate(at.step)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.zero_grad(set_to_none=True)
        now = StepState(
            self.potential,
            epoch=at.epoch + 1,
            step=at.step,
            seed=self.settings.noise_seed,
            rank=processes.rank,
            extra=batch.extra,
            total=processes.total,
        )
        with processes.autocast():
            prediction = self._predict(batch) if self.needs else None
            parts = [term(now, batch.graph, batch.targets, prediction) for term in self.terms]
        loss = torch.stack([part.double() for part, _ in parts]).sum()
        # Only the weights: the loss's slope in the positions, a third of the work, serves nobody.
        loss.backward(inputs=[p for group in state.optimiser.param_groups for p in group["params"]])
        found = {name: value for _, figures in parts for name, value in figures.items()}
        row = torch.stack([loss.detach(), *(found[name].detach().double() for name in self.figures)])
        row = processes.sum_gradients(self.potential, row)
        norm = clip(self.potential, self.settings.clip_norm)
        state.optimiser.step()
        if state.average is not None:
            state.average.update()
        at.step, at.in_epoch = at.step + 1, at.in_epoch + 1
        values = torch.cat([row, norm.detach().double().reshape(1)])
        seconds = self.pacer.advance()
        self.recorder.step([at.step, at.epoch + 1, rate, seconds, waited - self.waited_before], values, indices)
        self.waited_before = waited
        self.recorder.progress(at.step, state.rate.planned, seconds)

    def _predict(self, batch: Batch):
        return self.potential(
            batch.graph,
            forces="forces" in self.needs,
            stress="stress" in self.needs,
            features="features" in self.needs,
            create_graph=True,
        )

    def _end_epoch(self) -> None:
        """Evaluate, tell the schedule, save; when training has converged, go to the data source's next stage."""
        state, at, settings = self.state, self.state.at, self.settings
        at.epoch, at.in_epoch = at.epoch + 1, 0
        better = self._evaluate()
        self.recorder.sums.clear()
        state.rate.epoch_ends(at.score)
        if better:
            at.waited = 0
        elif state.rate.at_minimum or not settings.stop_at_minimum_rate:
            at.waited += 1
        stage = self.source.advance() if self._converged() else ""
        if stage:
            self._next_stage(stage)
        if better or stage or self.processes.agree(int(self.pacer.since_save > SAVE_AT_LEAST_S)):
            self._save()

    def _next_stage(self, stage: str) -> None:
        """Keep what the stage reached, and start over: rate, schedule, best; the optimiser's moments stay."""
        state, at = self.state, self.state.at
        at.stages.append(at.stage_now())
        checkpoint.keep(self.best, f"stage_{len(at.stages)}", self.processes.first)
        if self.settings.stage_start == "best" and at.best:
            self.processes.barrier()
            checkpoint.take_weights(self.best, self.potential)
            if state.average is not None:
                state.average.take_over()
        self.sink(Message(f"Converged after epoch {at.epoch}; next stage: {stage}"))
        at.stage, at.stage_epoch, at.best, at.waited = stage, at.epoch, {}, 0
        self.order = self._order(self.source)
        state.rate.new_stage(at.step, self.order.steps_per_epoch)
        self._foresee()

    def _evaluate(self) -> bool:
        """Measure the present weights (averaged ones when there are); True when they are the best, which are saved."""
        state, at = self.state, self.state.at
        self.recorder.flush()
        begin = self.pacer.advance()
        with state.average.applied() if state.average else nullcontext():
            figures = evaluate(
                self.potential,
                self.validation,
                self.settings.evaluation_batch_size,
                cache=self.validation_lists,
                processes=self.processes,
            )
            if self.validate is not None:
                figures |= self.validate(self.potential)
        score = monitored(figures, self.settings)
        at.evaluated_step, at.figures = at.step, compact(figures)
        at.objective = score if math.isfinite(score) else None
        better = score < at.best_objective
        if better:
            at.best = {"epoch": at.epoch, "step": at.step, "objective": score}
        at.seconds, rate = self.pacer.advance(), state.rate.rate(at.step)
        at.evaluation_s += at.seconds - begin
        figures["evaluation_s"] = at.evaluation_s
        epoch = at.epoch + at.in_epoch / self.order.steps_per_epoch
        self.recorder.validation(at.step, epoch, score, rate, at.seconds, figures)
        splits = {"validation": {**at.figures, "objective": score}}
        if self.recorder.sums:
            splits["train"] = self.recorder.means()
        self.sink(Evaluated(at.epoch, at.step, splits, rate, better))
        if better and self.processes.first:
            checkpoint.save_best(self.best, self.potential, state.average, state.card())
            self.sink(Saved(str(self.best), "best checkpoint", dict(at.best)))
        return better

    def _interrupted(self) -> Ending:
        """What ends the training before this step, if anything; saves and pauses when asked to."""
        step, limit = self.state.at.step, self.settings.max_steps
        if limit is not None and step >= limit:
            return "max_steps"
        request = self.pacer.request(step)
        if request in (SAVE, PAUSE):
            self._save()
        if request == PAUSE:
            self.sink(Message(f"Paused after step {step}; everything is saved"))
            request = self.pacer.hold(step)
            self.sink(Message(f"The pause after step {step} is over"))
        return "user" if request == STOP else "time_limit" if request == TIME else ""

    def _over(self) -> Ending:
        """What ends the training between epochs, if anything."""
        at, settings = self.state.at, self.settings
        if settings.max_steps is not None and at.step >= settings.max_steps:
            return "max_steps"
        if settings.max_epochs is not None and at.epoch >= settings.max_epochs:
            return "max_epochs"
        if not self._converged():
            return ""
        return "early_stopping" if settings.converge == "patience" else "converged"

    # ---- beginning and end

    def _begin(self) -> None:
        """Resume or start; checks, opening words, evaluation before the first step."""
        first, state = self.processes.first, self.state
        resumed = self.last.is_file()
        self.processes.barrier()
        if first:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.clean(self.last.parent)
        if resumed:
            changed = state.restore(self.last, self.processes.rank)
            self.order = self._order(self.source)
            state.rate.steps_per_epoch = self.order.steps_per_epoch
            if changed:
                self.sink(Message(f"Resumed with other settings from here on: {', '.join(changed)}", "warning"))
        if self.test is not None and len(self.test):
            # After hours of training is too late to learn this.
            self.potential.check_elements(list(self.test.elements))
            if not any(preflight.coverage(self.test).values()):
                raise LabelError("no test frame has a label", where="test", hint="Leave the test set out")
        self._foresee()
        facts = preflight.check(
            self.terms, self.potential, self.source.frames, self.validation, self.settings, self.sink
        )
        preflight.warm_up(self.potential, self.source.frames, self.sink)
        at = state.at
        further = {"evaluation_s": "s", **self.validate.figures} if self.validate is not None else {}
        self.recorder = Recorder(self.folder if first else None, self.figures, self.sink, at.rows, at.sums, further)
        self.waited_before = self.feeder.waited_s
        self.pacer.restart(at.seconds)
        facts |= in_effect(self.settings, self.potential, len(self.source), self.order, self.processes)
        self.sink(Started("training", state.rate.planned, at.step, facts))
        if not resumed:
            self._evaluate()
            state.rate.epoch_ends(at.score)
            self._save()

    def _save(self) -> None:
        """Write the exact state; what is not finite never replaces what is."""
        at = self.state.at
        self.recorder.flush()
        at.seconds, at.rows, at.sums = self.pacer.advance(), self.recorder.rows, self.recorder.sums
        self.state.save(self.last, self.processes)
        self.pacer.saved(at.step)

    def _finish(self, ending: Ending) -> TrainResult:
        """Last evaluation, best weights into the potential, table of all splits."""
        at = self.state.at
        self._save()
        if at.evaluated_step != at.step:
            # Ended inside an epoch: these weights may be the best; the schedule does not hear of it, so that a
            # training that goes on later is the one that never stopped.
            self._evaluate()
            self._save()
        self.sink(Saved(str(self.last), "last checkpoint", {"epoch": at.epoch, "step": at.step}))
        # A stage that has only begun has no best yet: then the last one's is there.
        if at.best or any(stage["best"] for stage in at.stages):
            self.processes.barrier()
            checkpoint.take_weights(self.best, self.potential)
        self.potential.eval()
        metrics: Mapping[str, Mapping[str, float]] = {"validation": at.figures}
        if ending != "user":
            splits = {"train": self.source.frames, "validation": self.validation, "test": self.test}
            metrics = final_table(
                self.folder / "metrics.json", self.potential, splits, self.state, self.processes, self.sink
            )
        return TrainResult(
            state="stopped" if ending == "user" else "completed",
            ending=ending,
            epoch=at.epoch,
            step=at.step,
            best_epoch=at.best.get("epoch", -1),
            best_step=at.best.get("step", -1),
            best_objective=at.best_objective,
            metrics=metrics,
            seconds=at.seconds,
            best=self.best,
            last=self.last,
            stages=(*at.stages, at.stage_now()),
        )

    def close(self) -> None:
        """End the thread, close the files."""
        self.feeder.close()
        if hasattr(self, "recorder"):
            self.recorder.close()

    # ---- small things

    def _order(self, source: Source) -> Order:
        s = self.settings
        points = getattr(source, "epoch_points", None) or s.points_per_epoch
        return Order(len(source), s.shuffle_seed, s.batch_size, self.processes.number, points)

    def _foresee(self) -> None:
        """With stages of fixed length the end is known."""
        stages, epochs = getattr(self.source, "stage_points", None), self.settings.stage_epochs
        if epochs is None or stages is None:
            return
        orders = [replace(self.order, points=points or self.settings.points_per_epoch) for points in stages]
        self.state.rate.foresee([epochs * order.steps_per_epoch for order in orders])

    def _converged(self) -> bool:
        settings, at, rate = self.settings, self.state.at, self.state.rate
        if settings.converge == "fixed":
            assert settings.stage_epochs is not None
            return at.epoch - at.stage_epoch >= settings.stage_epochs
        if settings.converge == "at_min_lr":
            return rate.at_minimum
        if settings.converge == "patience_at_min_lr":
            return rate.exceeded_at_minimum
        return settings.patience is not None and at.waited >= settings.patience

    def _look_at_waiting(self, waited: float, seconds: float) -> None:
        # The first epoch also builds neighbour lists; one slow moment of a shared machine says nothing.
        if self.state.at.epoch == 0 or self.warned_slow:
            return
        waited, seconds = self.looked_at = (self.looked_at[0] + waited, self.looked_at[1] + seconds)
        if seconds > LOOK_AT_LEAST_S and waited > SLOW_DATA * seconds:
            self.warned_slow = True
            advice = "Keep the frames in memory or on a local disk, or take larger batches"
            self.sink(Message(f"Training waits for data {waited / seconds:.0%} of the time. {advice}", "warning"))
