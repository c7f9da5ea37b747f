"""The simulation loop: integrate, record, check, obey, save. It knows one folder, and nothing of runs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mlipkit.errors import DataError, RunError
from mlipkit.events import Control, EventSink, Judged, Message, Progress, Saved, Verdict, always_run, ignore
from mlipkit.md.checkpoint import part, read_checkpoint
from mlipkit.md.ensembles import Ensemble, get_ensemble
from mlipkit.md.forces import ForceFunction, Recording, evaluate
from mlipkit.md.judging import build_checks
from mlipkit.md.loop import Loop
from mlipkit.md.panel import Said
from mlipkit.md.recorder import Recorder
from mlipkit.md.start_check import cell_warning
from mlipkit.md.state import MDState

SAVED_EVENT_EVERY_S = 5.0
CHANGEABLE = ("temperature", "friction", "relaxation_time", "pressure", "pressure_relaxation_time")
"""Options of an ensemble that a resumed simulation may be given new values of."""


def simulate(
    state: MDState,
    forces: ForceFunction,
    ensemble: str | Ensemble = "langevin",
    *,
    steps: int,
    folder: Path | str,
    timestep: float = 0.5,
    options: Mapping[str, Any] | None = None,
    stride: int = 20,
    checks: Mapping[str, Any] | None = None,
    checkpoint_every: int = 1000,
    last_steps: int = 200,
    sink: EventSink = ignore,
    control: Control = always_run,
    replicas: Sequence[int] | None = None,
    checkpoint: str = "md",
) -> Verdict:
    """Run molecular dynamics until `steps` steps are done, a check fails, or the user stops it.

    Called again on the same folder it goes on from the last checkpoint, bit for bit as if it had never stopped (on a
    CPU, with a provider that depends on nothing but the state or is `Restartable`). `steps` is the total, not what is
    added. `options`, `checks`, `steps` and `stride` may differ from before; a changed option is announced.

    Each replica has in its folder (`folder` itself, or ``folder/replica_000`` and so on when there are several):
    ``trajectory.traj`` (every `stride` steps, opened by ASE), ``series/md`` (every step), and after a failure or an
    exception ``last_steps.traj``. ``folder/checkpoints/md.safetensors`` holds what going on needs. A replica that fails
    stops alone.

    Args:
        state: start, with velocities; it is changed in place (taken over from the checkpoint when there is one).
        forces: energy and forces of a state (`mlipkit.md.forces`).
        ensemble: name in `ENSEMBLES`.
        steps: number of steps in all.
        timestep: fs.
        options: keyword arguments of the ensemble's `init`: temperature (K), friction (1/fs), relaxation_time (fs), ...
        stride: steps between stored frames.
        checks: changes of limits, as in `build_checks`.
        checkpoint_every: steps between checkpoints; slow models get one every minute at least.
        last_steps: steps kept in memory.
        control: asked before every step: "run", "pause" or "stop".
        replicas: numbers of the replicas of this state among all that share the folder; all when None.
        checkpoint: name of the checkpoint in ``folder/checkpoints``.

    Returns:
        The verdict: of the only replica, or the worst of several. Without a failure, ``state.step < steps`` means that
        the user stopped it.

    Raises:
        DataError: a stride below one; targets that are no temperature.
        RunError: a checkpoint of another system, ensemble or time step.
        SpecError: unknown ensemble, option or check.
    """
    members = list(range(state.n_systems) if replicas is None else replicas)
    alone = replicas is None and state.n_systems == 1
    with torch.no_grad():
        return _Simulation(
            state, forces, steps, Path(folder), checkpoint, checkpoint_every, members, alone, sink, control,
            get_ensemble(ensemble), timestep, dict(options or {}), stride, dict(checks or {}), last_steps,
        ).run()  # fmt: skip


@dataclasses.dataclass(eq=False)
class _Simulation(Loop):
    """`verdicts` are those of replicas that have failed."""

    ensemble: Ensemble
    timestep: float
    options: dict[str, Any]
    stride: int
    checks: dict[str, Any]
    last_steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ensemble.check_options(self.options)
        if self.stride < 1:
            raise DataError("a frame cannot be stored that often", where="stride", expected="1 or more steps",
                            found=self.stride)  # fmt: skip
        build_checks(self.checks)  # a wrong limit must show before any work
        self.recorder: Recorder | None = None
        self._said_saved = -math.inf
        self._begin = (time.monotonic(), self.state.step)

    def run(self) -> Verdict:
        try:
            if self.path.exists():
                self._resume()
            else:
                self._start()
            while self.active and self.state.step < self.steps and self.may_go_on():
                self.ensemble.step(self.state, self.forces, self.timestep)
                self._record()
            return self._finish()
        except BaseException:
            # Whatever it was (a model that raises, no memory, Ctrl-C): the last steps are the evidence.
            if self.recorder is not None:
                if len(self.recorder.ring):
                    for index in range(len(self.active)):
                        self.recorder.write_last_steps(index)
                self._close()
            raise

    # Beginning

    def _start(self) -> None:
        self._announce(0)
        self.ensemble.init(self.state, **self.options)
        if not self.state.evaluated:
            evaluate(self.state, self.forces)
        self.recorder = self._make_recorder(None)
        self._hear(self.recorder.begin(self.state))
        cutoff = getattr(self.forces, "cutoff", None)
        for look in self.recorder.panel.looks.each:
            if verdict := cell_warning(look, cutoff):
                self.sink(Judged(verdict))
                break
        self._drop_failed()
        self.save()

    def _resume(self) -> None:
        tensors, record = read_checkpoint(self.path)
        mine = {"ensemble": self.ensemble.name, "timestep": self.timestep, "number of replicas": len(self.members)}
        for name, now in mine.items():
            if record[name] != now:
                raise self.another(name, expected=now, found=record[name])
        self.take_over(tensors, record, "system")
        self._begin = (time.monotonic(), self.state.step)
        self._announce(self.state.step)
        if not self.active:
            return
        self.restore_forces(tensors)
        self._apply_changes(record["options"])
        kept = record["replicas"]
        self.recorder = self._make_recorder([(one["frames"], one["rows"]) for one in kept])
        self.recorder.recall(kept, [part(tensors, f"replica.{index}.") for index in range(len(kept))], self.state)

    def _make_recorder(self, kept: Sequence[tuple[int, int]] | None) -> Recorder:
        return Recorder(
            [self.folder_of(replica) for replica in self.active],
            self.state, self.checks, replicas=[None if self.alone else replica for replica in self.active],
            stride=self.stride, ring_steps=self.last_steps, kept=kept,
        )  # fmt: skip

    def _apply_changes(self, before: Mapping[str, Any]) -> None:
        """Options other than before take effect now."""
        defaults = self.ensemble.options
        for name in defaults:
            old, new = before.get(name, defaults[name]), self.options.get(name, defaults[name])
            if old == new or (isinstance(new, Sequence) and list(new) == old):
                continue
            if name not in CHANGEABLE:
                raise RunError(f"{name} cannot change on the way", where=str(self.path), expected=old, found=new)
            value = [new[self.members.index(replica)] for replica in self.active] if isinstance(new, Sequence) else new
            # Through `init` on a copy, so that units are converted in one place.
            fresh = self.state.select(range(self.state.n_systems))
            self.ensemble.init(fresh, **{name: value})
            self.state.thermostat[name] = fresh.thermostat[name]
            self.sink(Message(f"{name} changes from {old} to {new} at step {self.state.step}"))

    def _announce(self, step: int) -> None:
        facts = {"ensemble": self.ensemble.name, "timestep": self.timestep, "stride": self.stride}
        facts |= {**self.ensemble.options, **self.options}
        self.announce(f"{self.ensemble.name} MD of {{}} atoms", "replicas", step, facts)

    # Every step

    def _record(self) -> None:
        assert self.recorder is not None
        save = self.time_to_save()
        self._hear(self.recorder.step(self.state, read=save))
        if self.verdicts:
            self._drop_failed()
        if save:
            self.save()

    def _hear(self, said: Said) -> None:
        for index, verdicts in said.items():
            for verdict in verdicts:
                if verdict.outcome == "failed":
                    self.verdicts[self.active[index]] = verdict
                else:
                    self.sink(Judged(verdict))

    def _drop_failed(self) -> None:
        """Close the replicas that have failed; the others go on without them."""
        lost = [index for index, replica in enumerate(self.active) if replica in self.verdicts]
        if not lost or self.recorder is None:
            return
        for index in lost:
            self.recorder.write_last_steps(index)
            self.sink(Judged(self.verdicts[self.active[index]], final=True))
        stay = [index for index in range(len(self.active)) if index not in lost]
        if stay:
            self.recorder.select(stay)
        else:
            self._close()
        self.go_on_with(stay)

    def _close(self) -> None:
        """Every step that was done is in the files."""
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None
        if isinstance(self.forces, Recording):
            self.forces.flush()

    def progress(self) -> Progress:
        elapsed, done = time.monotonic() - self._begin[0], self.state.step - self._begin[1]
        left = elapsed / done * (self.steps - self.state.step) if done else None
        return Progress(self.state.step, self.steps, "step", left)

    # Saving and ending

    def save(self, final: bool = False) -> None:
        tensors, replicas = {}, []
        if self.recorder is not None:
            # What the checkpoint counts must be on the disk before the checkpoint is.
            self.recorder.flush(durable=True)
        for index in range(len(self.active)):
            assert self.recorder is not None
            record, memory = self.recorder.memory(index)
            replicas.append(record)
            tensors.update({f"replica.{index}.{name}": tensor for name, tensor in memory.items()})
        record = {
            "ensemble": self.ensemble.name,
            "timestep": self.timestep,
            "number of replicas": len(self.members),
            "options": self.options,
            "replicas": replicas,
        }
        self.write(tensors, record)
        now = time.monotonic()
        if final or now - self._said_saved >= SAVED_EVENT_EVERY_S:
            self._said_saved = now
            self.sink(Saved(str(self.path), "checkpoint", {"step": self.state.step}))

    def _finish(self) -> Verdict:
        if self.recorder is not None:
            self._hear(self.recorder.read())
            self._drop_failed()
        ended = [self.recorder.panel.verdict(index) for index in range(len(self.active))] if self.recorder else []
        self.save(final=True)
        self.show_progress()
        self._close()
        for verdict in ended:
            self.sink(Judged(verdict, final=True))
        order = {"failed": 0, "warning": 1, "ok": 2}
        return min([*self.verdicts.values(), *ended], key=lambda verdict: (order[verdict.outcome], verdict.step))
