"""Run folders made by the real writers, without a process: for tests of views in every state."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
from ase.build import molecule
from run_folders import Acted, folder_of

from mlipkit.data.series import SeriesWriter
from mlipkit.events import Evaluated, Event, Finished, Judged, Progress, Started, Verdict, to_json
from mlipkit.md.trajectory import TrajectoryWriter
from mlipkit.runs import DynamicSpec, MDSpec, Run, TrainSpec
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import EventLog

MD_COLUMNS = {
    "step": "", "time_fs": "fs", "temperature": "K", "potential_energy": "eV", "kinetic_energy": "eV",
    "total_energy": "eV", "conserved_energy": "eV", "max_force": "eV/Å",
}  # fmt: skip
TIMESTEP, STRIDE = 0.5, 20


def log(files: RunFolder, *said: Event) -> None:
    """Append events."""
    writer = EventLog(files.events)
    for event in said:
        writer(event)
    writer.close()


def lose(files: RunFolder) -> None:
    """Claim that a process computed this run that is no more."""
    from mlipkit.runs import process

    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    files.write("pid.json", {**process.describe(), "pid": child, "phase": "running", "after_seq": 0})


class RecordedMD(Acted):
    """Ethanol that vibrates, and from `fails_at` on throws one atom away. Grows by `advance`."""

    def __init__(self, path: Path, *, steps: int = 4000, fails_at: int | None = None) -> None:
        self.spec = MDSpec(potential="sample:ethanol_1000", start="sample:ethanol_300K@0", steps=steps)
        self.files = folder_of(path, self.spec)
        self.fails_at, self.steps, self.step = fails_at, steps, 0
        self.spike: int | None = None
        self.atoms = molecule("CH3CH2OH")
        self.series = SeriesWriter(self.files.series / "md", MD_COLUMNS)
        self.frames = self._writer("trajectory.traj")
        self.random = np.random.default_rng(0)
        log(self.files, Started("langevin MD of 9 atoms", steps))

    def _writer(self, name: str) -> TrajectoryWriter:
        atoms = self.atoms
        return TrajectoryWriter(self.files.path / name, atoms.numbers, atoms.get_masses(), atoms.pbc)

    def _state(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        wave = 0.04 * np.sin(0.11 * step + np.arange(27).reshape(9, 3))
        positions, forces = self.atoms.positions + wave, -20.0 * wave
        if self.fails_at is not None and step > self.fails_at - 30:
            away = (step - self.fails_at + 30) / 30
            positions[3] += [0.0, 0.0, 2.5 * away**2]
            forces[3] += [0.0, 0.0, 60.0 * away**3]
        return positions, forces

    def _frame(self, writer: TrajectoryWriter, step: int) -> None:
        positions, forces = self._state(step)
        writer.append(positions, np.zeros((9, 3)), np.zeros((3, 3)), energy=-300.0, forces=forces,
                      info={"step": step, "time_fs": step * TIMESTEP})  # fmt: skip

    def advance(self, steps: int) -> None:
        """So many steps more, as far as the whole or the failure allows."""
        end = min(self.step + steps, self.steps, self.fails_at if self.fails_at is not None else self.steps)
        rows = []
        for step in range(self.step, end + 1):
            if step == self.step and step > 0:
                continue
            _, forces = self._state(step)
            kick = self.random.normal()
            rows.append([step, step * TIMESTEP, 300 + 40 * kick, -300 + 0.05 * kick, 0.3, -299.7, -299.7 + 1e-5 * step,
                         777.0 if step == self.spike else np.linalg.norm(forces, axis=1).max()])  # fmt: skip
            if step % STRIDE == 0:
                self._frame(self.frames, step)
        self.series.append(np.array(rows))
        self.series.flush()
        self.step = end
        self.files.write("progress.json", to_json(Progress(end, self.steps, "step", (self.steps - end) * 0.005)))
        self.files.beat()

    def warn(self, step: int) -> None:
        """Say a warning."""
        log(self.files, Judged(Verdict(
            "warning", "max_force", step, step * TIMESTEP, 31.0, 30.0, "eV/Å",
            sentence=f"Warning at step {step} ({step * TIMESTEP / 1000:.3f} ps): force 31 eV/Å above 30 eV/Å.",
        )))  # fmt: skip

    def fail(self) -> Verdict:
        """End as a failed simulation: last steps, verdict, last word."""
        assert self.fails_at is not None
        self.advance(self.steps)
        last = self._writer("last_steps.traj")
        for step in range(max(0, self.fails_at - 199), self.fails_at + 1):
            self._frame(last, step)
        last.close()
        time = self.fails_at * TIMESTEP
        verdict = Verdict(
            "failed", "broken_bonds", self.fails_at, time, 3.1, 2.2, "Å", (3, 2), first_warning=self.fails_at - 15,
            last_good=self.fails_at - 40,
            sentence=f"Failed at step {self.fails_at} ({time / 1000:.4f} ps): bond H3-O2 broke (3.1 Å, limit 2.2 Å); "
            f"first warning at step {self.fails_at - 15}.",
        )  # fmt: skip
        log(self.files, Judged(verdict, final=True), Finished("failed", verdict.sentence))
        self.close()
        return verdict

    def lost(self) -> None:
        """Claim that a process computed it that is no more."""
        lose(self.files)

    def close(self) -> None:
        self.series.close()
        self.frames.close()


class RecordedReplicas(Acted):
    """Several simulations of one run: ethanol that vibrates, and in those of `fails` throws an atom away.

    Args:
        fails: replica -> step of its failure.
        temperatures: of each, K; one run at 900 K when omitted.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        fails: dict[int, int],
        *,
        steps: int = 1000,
        temperatures: list[float] | None = None,
    ) -> None:
        self.files = folder_of(
            path, MDSpec(replicas=count, steps=steps, temperature=900, start="sample:ethanol_300K@0")
        )
        self.fails, self.steps, self.count, self.step = fails, steps, count, 0
        if temperatures is not None:
            table = [
                {"index": i, "start": "sample:ethanol_300K@0", "temperature": temperature, "folder": f"replica_{i:03d}"}
                for i, temperature in enumerate(temperatures)
            ]
            self.files.write("replicas.json", {"replicas": table})
        log(self.files, Started(f"langevin MD of 9 atoms, {count} replicas", steps))
        self.parts: dict[int, RecordedMD] = {}

    def advance(self, to: int) -> None:
        """Bring all that have not failed to a step; those whose failure lies on the way fail."""
        for number in range(self.count):
            end = self.fails.get(number)
            if end is not None and end <= self.step:
                continue
            if number not in self.parts:
                part = RecordedMD(self.files.path / f"replica_{number:03d}", steps=self.steps, fails_at=end)
                for name in ("spec.yaml", "events.jsonl"):
                    (part.files.path / name).unlink()
                self.parts[number] = part
            part = self.parts[number]
            if end is not None and end <= to:
                self._fail(number, part, end)
            else:
                part.advance(to - part.step)
        self.step = to
        remaining = (self.steps - to) * 0.005
        self.files.write("progress.json", to_json(Progress(to, self.steps, "step", remaining)))
        self.files.beat()

    def _fail(self, number: int, part: RecordedMD, end: int) -> None:
        verdict = dataclasses.replace(part.fail(), replica=number, check=("broken_bonds", "overlap")[number % 2])
        (part.files.path / "events.jsonl").unlink()
        log(self.files, Judged(verdict, final=True))

    def finish(self) -> None:
        """To the end, with the last word."""
        self.advance(self.steps)
        for number, part in self.parts.items():
            if number not in self.fails:
                part.close()
                log(self.files, Judged(Verdict("ok", step=self.steps, replica=number), final=True))
        if self.fails:
            reason = f"{len(self.fails)} of {self.count} replicas failed; the first: Failed."
            log(self.files, Finished("failed", reason, {"failed_replicas": len(self.fails)}))
        else:
            log(self.files, Finished("completed", f"all {self.steps} steps done"))


def recorded_training(path: Path, epochs: int = 12, steps_per_epoch: int = 50) -> Run:
    """A finished training with curves, best epoch and errors."""
    files = folder_of(path, TrainSpec(data="sample:ethanol_300K", max_epochs=epochs))
    training = SeriesWriter(files.series / "training", {"step": "", "epoch": "", "loss": "", "learning_rate": ""})
    columns = {
        "step": "",
        "epoch": "",
        "objective": "",
        "energy_mae": "eV/atom",
        "forces_mae": "eV/Å",
        "train_loss": "",
    }
    validation = SeriesWriter(files.series / "validation", columns)
    random = np.random.default_rng(1)
    said: list[Event] = [Started("training painn", epochs * steps_per_epoch)]
    for epoch in range(epochs + 1):
        at = epoch * steps_per_epoch
        worse = 1.3 if epoch > epochs - 3 else 1.0
        figures = {"energy_mae": 0.02 * np.exp(-epoch / 4), "forces_mae": 0.5 * worse * np.exp(-epoch / 4)}
        objective = 0.3 * worse * np.exp(-epoch / 3)
        validation.append(np.array([at, epoch, objective, *figures.values(), np.nan if not epoch else objective * 0.8]))
        said.append(Evaluated(epoch, at, {"validation": figures}, 1e-3, epoch <= epochs - 3))
        if epoch < epochs:
            steps = np.arange(at + 1, at + steps_per_epoch + 1)
            loss = 0.4 * np.exp(-steps / 150) * np.exp(0.2 * random.normal(size=len(steps)))
            training.append(np.stack([steps, np.full(len(steps), epoch + 1), loss, np.full(len(steps), 1e-3)], 1))
    training.close()
    validation.close()
    log(files, *said, Finished("completed", "", {"seconds": 95.0}))
    return Run(path)


class RecordedDynamic(Acted):
    """A dynamic training with stages of 1, 2 and 4 roll-out steps, four epochs each. Grows by `advance`."""

    LENGTHS, EPOCHS, STEPS, VALIDATED = (1, 2, 4), 4, 10, 20

    def __init__(self, path: Path) -> None:
        spec = DynamicSpec(
            data="sample:ethanol_nve",
            curriculum={"n_structures": list(self.LENGTHS), "converge": "fixed", "stage_epochs": self.EPOCHS},
            rollout_validation={"n_structures": self.VALIDATED, "n_points": 4},
        )  # fmt: skip
        self.files = folder_of(path, spec)
        self.training = SeriesWriter(
            self.files.series / "training", {"step": "", "epoch": "", "loss": "", "loss_forces": ""}
        )
        columns = dict.fromkeys(("step", "epoch", "objective", "energy_mae", "forces_mae", "train_loss"), "")
        columns |= dict.fromkeys(("rollout_mepa", *(f"rollout_mepa/element={s}" for s in "HCO")), "eV/Å")
        columns |= {"rollout_first": "eV/Å", "rollout_apart": "Å", "n_structures": "", "stage": ""}
        self.validation = SeriesWriter(self.files.series / "validation", columns)
        self.epoch = -1
        log(self.files, Started("training", self.total * self.STEPS))

    @property
    def total(self) -> int:
        return len(self.LENGTHS) * self.EPOCHS

    def advance(self, epochs: int) -> None:
        """Go on for so many epochs; the row before the first counts as one."""
        kept = self.files.path / "rollouts.json"
        record = json.loads(kept.read_text()) if kept.is_file() else {"timestep": 0.5}
        for _ in range(epochs):
            self.epoch += 1
            stage = max(0, self.epoch - 1) // self.EPOCHS
            at, mepa = self.epoch * self.STEPS, 0.6 * 0.9**self.epoch
            parts = [mepa * share for share in (0.2, 0.5, 0.3)]
            loss = np.nan if not self.epoch else mepa
            self.validation.append(np.array([
                at, self.epoch, mepa, 0.01, mepa / 5, loss, mepa, *parts, mepa / 2, 0.05, self.LENGTHS[stage],
                stage + 1,
            ]))  # fmt: skip
            figures = {"forces_mae": mepa / 5, "energy_mae": 0.01, "rollout_mepa": mepa}
            log(self.files, Evaluated(self.epoch, at, {"validation": figures}, 1e-3, True))
            curve = (mepa / 2 * np.linspace(1, 3, self.VALIDATED)).tolist()
            row = {"n_structures": self.LENGTHS[stage], "error": curve, "apart": curve, "rollout_mepa": mepa}
            record[str(stage + 1)] = {"last": row, "best": row}
            if self.epoch:
                steps = np.arange(at - self.STEPS + 1, at + 1)
                rows = [steps, *(np.full(self.STEPS, value) for value in (self.epoch, 50 * mepa, mepa))]
                self.training.append(np.stack(rows, 1))
        self.training.flush()
        self.validation.flush()
        self.files.write("rollouts.json", record)

    def finish(self) -> None:
        """Make the epochs that are left, and end."""
        self.advance(self.total - self.epoch)
        facts = {
            "seconds": 95.0, "chosen": 3, "sentence": "Best with roll-outs of 4", "test_rollouts": {"mepa": 0.345},
        }  # fmt: skip
        log(self.files, Finished("completed", "every stage is over. Best with roll-outs of 4", facts))
