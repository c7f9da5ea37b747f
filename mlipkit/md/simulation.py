"""The simulation loop: integrate, record, check, obey, save. It knows one folder, and nothing of runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlipkit.errors import DataError, RunError
from mlipkit.events import (
    Control,
    EventSink,
    Judged,
    Message,
    Progress,
    Saved,
    Started,
    Verdict,
    always_run,
    ignore,
)
from mlipkit.md.checkpoint import read_checkpoint, write_checkpoint
from mlipkit.md.ensembles import Ensemble, get_ensemble
from mlipkit.md.forces import ForceFunction, Restartable, evaluate
from mlipkit.md.judging import build_checks
from mlipkit.md.panel import Said
from mlipkit.md.recorder import Recorder
from mlipkit.md.start_check import cell_warning
from mlipkit.md.state import MDState

PROGRESS_EVERY_S = 0.5
SAVED_EVENT_EVERY_S = 5.0
CHECKPOINT_AT_LEAST_EVERY_S = 60.0
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
    with torch.no_grad():
        return _Simulation(
            state, forces, get_ensemble(ensemble), steps, Path(folder), timestep, dict(options or {}), stride,
            dict(checks or {}), checkpoint_every, last_steps, sink, control, replicas, checkpoint,
        ).run()  # fmt: skip


@dataclasses.dataclass(eq=False)
class _Simulation:
    state: MDState
    forces: ForceFunction
    ensemble: Ensemble
    steps: int
    folder: Path
    timestep: float
    options: dict[str, Any]
    stride: int
    checks: dict[str, Any]
    checkpoint_every: int
    last_steps: int
    sink: EventSink
    control: Control
    replicas: Sequence[int] | None
    checkpoint: str

    def __post_init__(self) -> None:
        self.ensemble.check_options(self.options)
        if self.stride < 1:
            raise DataError("a frame cannot be stored that often", where="stride", expected="1 or more steps",
                            found=self.stride)  # fmt: skip
        build_checks(self.checks)  # a wrong limit must show before any work
        self.path = self.folder / "checkpoints" / f"{self.checkpoint}.safetensors"
        self.n_replicas = self.state.n_systems
        self.members = list(range(self.n_replicas) if self.replicas is None else self.replicas)
        self.alone = self.replicas is None and self.n_replicas == 1
        self.active = list(self.members)
        self.recorder: Recorder | None = None
        self.verdicts: dict[int, Verdict] = {}  # of replicas that have failed
        self._saved_event = self._saved = self._progress = -float("inf")
        self._begin = (time.monotonic(), self.state.step)

    def run(self) -> Verdict:
        try:
            if self.path.exists():
                self._resume()
            else:
                self._start()
            while self.active and self.state.step < self.steps and self._may_go_on():
                self.ensemble.step(self.state, self.forces, self.timestep)
                self._record()
            return self._finish()
        except BaseException:
            # Whatever it was (a model that raises, no memory, Ctrl-C): the last steps are the evidence.
            if self.recorder is not None:
                if len(self.recorder.ring):
                    for index in range(len(self.active)):
                        self.recorder.write_last_steps(index)
                self.recorder.close()
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
        self._save()

    def _resume(self) -> None:
        tensors, record = read_checkpoint(self.path)
        self._compare(record, tensors)
        restored = MDState.from_tensors(_part(tensors, "state."), self.state.positions.device)
        self.state.take(restored)
        self.active = list(record["active"])
        self.verdicts = {int(key): _verdict(value) for key, value in record["verdicts"].items()}
        self._begin = (time.monotonic(), self.state.step)
        self._announce(self.state.step)
        if not self.active:
            return
        if isinstance(self.forces, Restartable):
            self.forces.restore(self.state, _part(tensors, "forces."))
        self._apply_changes(record["options"])
        kept = record["replicas"]
        self.recorder = self._make_recorder([(one["frames"], one["rows"]) for one in kept])
        self.recorder.recall(kept, [_part(tensors, f"replica.{index}.") for index in range(len(kept))], self.state)

    def _make_recorder(self, kept: Sequence[tuple[int, int]] | None) -> Recorder:
        return Recorder(
            [self.folder if self.alone else self.folder / f"replica_{replica:03d}" for replica in self.active],
            self.state, self.checks, replicas=[None if self.alone else replica for replica in self.active],
            stride=self.stride, ring_steps=self.last_steps, kept=kept,
        )  # fmt: skip

    def _compare(self, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        mine = {"ensemble": self.ensemble.name, "timestep": self.timestep, "number of replicas": self.n_replicas}
        for name, now in mine.items():
            if record[name] != now:
                raise RunError(
                    f"the checkpoint belongs to another {name}", where=str(self.path), expected=now, found=record[name],
                    hint="Give the simulation a folder of its own.",
                )  # fmt: skip
        offsets = self.state.offsets
        places = [self.members.index(replica) for replica in record["active"]]
        numbers = [self.state.numbers[offsets[r] : offsets[r + 1]].cpu() for r in places]
        if numbers and not torch.equal(torch.cat(numbers), tensors["state.numbers"]):
            raise RunError("the checkpoint belongs to another system", where=str(self.path),
                           hint="Give the simulation a folder of its own.")  # fmt: skip

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
        counts = sorted(set(self.state.n_atoms.tolist()))
        atoms = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        what = f"{self.ensemble.name} MD of {atoms} atoms"
        if self.n_replicas > 1:
            what += f", {self.n_replicas} replicas"
        facts = {"ensemble": self.ensemble.name, "timestep": self.timestep, "stride": self.stride}
        self.sink(Started(what, self.steps, step, {**facts, **self.ensemble.options, **self.options}))

    # Every step

    def _may_go_on(self) -> bool:
        """Ask the user, show progress, save when it is time; False: stop."""
        request = self.control()
        now = time.monotonic()
        if now - self._progress >= PROGRESS_EVERY_S:
            self._show_progress(now)
        if request == "pause":
            self._save()
            while (request := self.control()) == "pause":
                time.sleep(0.1)
        return request != "stop"

    def _record(self) -> None:
        assert self.recorder is not None
        step = self.state.step
        save = step % self.checkpoint_every == 0 or time.monotonic() - self._saved >= CHECKPOINT_AT_LEAST_EVERY_S
        self._hear(self.recorder.step(self.state, read=save))
        if self.verdicts:
            self._drop_failed()
        if save:
            self._save()

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
        self.active = [self.active[index] for index in stay]
        if not stay:
            self.recorder.close()
            self.recorder = None
            return
        self.recorder.select(stay)
        self.state.take(self.state.select(stay))
        # A provider that keeps something per replica may go on with the rest of it.
        select = getattr(self.forces, "select", None)
        if select is not None:
            select(self.state, stay)

    def _show_progress(self, now: float) -> None:
        self._progress = now
        elapsed, done = now - self._begin[0], self.state.step - self._begin[1]
        left = elapsed / done * (self.steps - self.state.step) if done else None
        self.sink(Progress(self.state.step, self.steps, "step", left))

    # Saving and ending

    def _save(self, final: bool = False) -> None:
        now = time.monotonic()
        tensors = {f"state.{name}": tensor for name, tensor in self.state.to_tensors().items()}
        if isinstance(self.forces, Restartable):
            tensors.update({f"forces.{name}": tensor for name, tensor in self.forces.to_tensors().items()})
        replicas = []
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
            "number of replicas": self.n_replicas,
            "options": self.options,
            "active": self.active,
            "replicas": replicas,
            "verdicts": {replica: dataclasses.asdict(verdict) for replica, verdict in self.verdicts.items()},
        }
        write_checkpoint(self.path, tensors, record)
        self._saved = now
        if final or now - self._saved_event >= SAVED_EVENT_EVERY_S:
            self._saved_event = now
            self.sink(Saved(str(self.path), "checkpoint", {"step": self.state.step}))

    def _finish(self) -> Verdict:
        if self.recorder is not None:
            self._hear(self.recorder.read())
            self._drop_failed()
        ended = [self.recorder.panel.verdict(index) for index in range(len(self.active))] if self.recorder else []
        self._save(final=True)
        self._show_progress(time.monotonic())
        if self.recorder is not None:
            self.recorder.close()
        for verdict in ended:
            self.sink(Judged(verdict, final=True))
        order = {"failed": 0, "warning": 1, "ok": 2}
        return min([*self.verdicts.values(), *ended], key=lambda verdict: (order[verdict.outcome], verdict.step))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _verdict(record: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**record, "atoms": tuple(record["atoms"])})
