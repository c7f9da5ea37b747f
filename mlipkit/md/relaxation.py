"""Relaxation of many structures together: FIRE until each has converged, recorded, resumable, in one folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlipkit import units
from mlipkit.data.series import Series
from mlipkit.errors import DataError, RunError
from mlipkit.events import Control, EventSink, Judged, Progress, Saved, Verdict, always_run, ignore
from mlipkit.md.batches import go_through, planned
from mlipkit.md.checkpoint import part, read_checkpoint
from mlipkit.md.files import Files
from mlipkit.md.fire import Fire, cell_forces, fire_step
from mlipkit.md.forces import ForceFunction, evaluate
from mlipkit.md.looks import new_look
from mlipkit.md.loop import Loop
from mlipkit.md.state import MDState
from mlipkit.md.structure_checks import OverlapCheck

COLUMNS = {"step": "", "energy": "eV", "max_force": "eV/Å", "max_stress": "GPa", "volume": "Å³"}
NAME = "relax"


def relax(
    state: MDState,
    forces: ForceFunction,
    *,
    folder: Path | str,
    fmax: float = 0.05,
    steps: int = 500,
    cell: bool = False,
    hydrostatic: bool = False,
    pressure: float = 0.0,
    smax: float = 0.1,
    stride: int = 10,
    batch: int | None = None,
    checkpoint_every: int = 100,
    sink: EventSink = ignore,
    control: Control = always_run,
) -> list[Verdict]:
    """Relax every structure of `state` to the nearest minimum (`mlipkit.md.fire`).

    A structure that has converged leaves the batch. Called again on the same folder it goes on from the last
    checkpoint, bit for bit as if it had never stopped (under the conditions of `mlipkit.md.simulate`). `steps`, `fmax`
    and `smax` may differ from before: with more steps those go on that had not converged. Limits below what a structure
    had when it left the batch are refused.

    Each structure has in its folder (`folder` itself, or ``folder/replica_000`` and so on) ``trajectory.traj`` (every
    `stride` steps and the last one) and ``series/relax`` (every step). Who has converged is asked at every step, for
    which the host waits for a GPU once.

    Args:
        state: start; velocities are ignored. Left as it is.
        fmax: eV/Å; converged when no force on an atom is larger.
        steps: steps at most.
        cell: relax the cells too. The forces must then come with the stress.
        hydrostatic: their size only.
        pressure: GPa.
        smax: GPa; converged when no component of the stress (with the pressure) is larger either.
        batch: structures that go together; None: as many as memory allows.

    Returns:
        Verdicts in order, of those that have ended: ok (converged), warning (not converged within `steps`), failed.

    Raises:
        DataError: a cell that shall relax without three periodic axes, or without a stress.
        RunError: a checkpoint of something else, or of structures that have converged to looser limits.
    """
    folder = Path(folder)
    if stride < 1:
        raise DataError("a frame cannot be stored that often", where="stride", expected="1 or more steps", found=stride)
    if cell and not bool(state.pbc.all()):
        raise DataError("relaxing the cell needs three periodic axes", where="relax", found=state.pbc.tolist())

    def run(
        start: MDState, forces: ForceFunction, members: Sequence[int], name: str, heard: EventSink, of_batch: bool
    ) -> bool:
        alone = not of_batch and start.n_systems == 1
        work = _Relaxation(
            start.select(range(start.n_systems)), forces, steps, folder, name, checkpoint_every, list(members), alone,
            heard, control, fmax, cell, hydrostatic, pressure * units.GPA, smax, stride,
        )  # fmt: skip
        with torch.no_grad():
            verdicts.update(work.run())
        return not work.active or work.state.step >= steps

    verdicts: dict[int, Verdict] = {}
    go_through(state, forces, planned(folder, state, forces, batch, NAME), NAME, steps, run, sink)
    return [verdicts[index] for index in sorted(verdicts)]


@dataclasses.dataclass(eq=False)
class _Relaxation(Loop):
    fmax: float
    cell: bool
    hydrostatic: bool
    pressure: float  # eV/Å³
    smax: float
    stride: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.files: list[Files] = []
        self.fire = Fire.start(self.state)
        self._stored = -1  # step at which the last frames were stored off the stride

    def run(self) -> dict[int, Verdict]:
        try:
            if self.path.exists():
                self._resume()
            else:
                self._start()
            if self.active:
                self._judge()
            while self.active and self.state.step < self.steps and self.may_go_on():
                fire_step(self.state, self.fire, self._on_strain)
                self.state.step += 1
                evaluate(self.state, self.forces)
                self._record()
                self._judge()
                if self.time_to_save():
                    self.save()
            if self.state.step >= self.steps:
                self._give_up()
            self.save()
            self.show_progress()
        finally:
            for files in self.files:
                files.close()
        return self.verdicts

    def _start(self) -> None:
        self._announce()
        evaluate(self.state, self.forces)
        if self.cell and self.state.stress is None:
            raise DataError("relaxing the cell needs the stress", where="relax",
                            hint="Build the forces with stress=True.")  # fmt: skip
        self._open(None)
        self._record()
        self.save()

    def _resume(self) -> None:
        tensors, record = read_checkpoint(self.path)
        if (record["cell"], record["members"]) != (self.cell, self.members):
            raise self.another("relaxation")
        self.take_over(tensors, record, "relaxation")
        device = self.state.positions.device
        self.fire = Fire(**{name: value.to(device) for name, value in part(tensors, "fire.").items()})
        self._stored = record["stored"]
        self._refuse_tighter()
        self._announce()
        if not self.active:
            return
        self.restore_forces(tensors)
        self._open(record["kept"])
        self._measure()

    def _refuse_tighter(self) -> None:
        """Who has converged has left, with the step and velocities of its own that it would need to go on."""
        for number, verdict in self.verdicts.items():
            if verdict.outcome != "ok":
                continue
            row = Series(self.folder_of(number) / "series" / NAME).read()
            for name, column, limit, unit in (("fmax", "max_force", self.fmax, "eV/Å"),
                                              ("smax", "max_stress", self.smax, "GPa")):  # fmt: skip
                value = float(row[column][-1])
                if value > limit:  # not the stress of a cell that stays, a NaN
                    who = "the structure" if self.alone else f"structure {number}"
                    raise RunError(
                        f"{who} has already converged to a looser {name}", where=str(self.folder_of(number)),
                        expected=f"{value:.3g} {unit} or more", found=f"{limit:g} {unit}",
                        hint=f"Relax the last frames in a new run with this {name}.",
                    )  # fmt: skip

    def _open(self, kept: Sequence[tuple[int, int]] | None) -> None:
        self.files = [
            Files(self.folder_of(number), NAME, COLUMNS, self.state, index, kept[index] if kept else None)
            for index, number in enumerate(self.active)
        ]

    def _announce(self) -> None:
        what = f"relaxation of {{}} atoms{' and cell' if self.cell else ''}"
        self.announce(what, "structures", self.state.step, {"fmax": self.fmax, "steps": self.steps})

    # Every step

    def _measure(self) -> None:
        """Figures of the present forces, [S,columns] on the host, and the force on the strain."""
        state = self.state
        self._on_strain, largest = None, torch.full_like(state.energy, torch.nan)
        if self.cell:
            self._on_strain, stress = cell_forces(state, self.fire, self.pressure, self.hydrostatic)
            largest = stress.abs().amax((1, 2)) / units.GPA
        volume = torch.linalg.det(state.cell).abs()
        rows = [torch.full_like(state.energy, state.step), state.energy, state.max_force(), largest, volume]
        self.rows = torch.stack(rows, 1).cpu().numpy()

    def _record(self) -> None:
        self._measure()
        for index, files in enumerate(self.files):
            files.series.append(self.rows[index])
            if self.state.step % self.stride == 0:
                self._store(index)

    def _store(self, index: int) -> None:
        """A frame of one structure. Results that are no numbers are left out; positions that are none make no frame."""
        arrays, (step, energy, force) = self.state.replica(index), self.rows[index, :3].tolist()
        if not (np.isfinite(arrays["positions"]).all() and np.isfinite(arrays["cell"]).all()):
            return
        fine = np.isfinite(energy) and np.isfinite(force)
        stress = None if self.state.stress is None else self.state.stress[index].cpu().numpy()
        self.files[index].trajectory.append(
            arrays["positions"], np.zeros_like(arrays["positions"]), arrays["cell"], energy=energy if fine else None,
            forces=arrays["forces"], stress=stress if stress is not None and np.isfinite(stress).all() else None,
            info={"step": int(step)},
        )  # fmt: skip

    def _judge(self) -> None:
        """Let those leave that have converged, failed, or done all their steps."""
        ended = {}
        for index, row in enumerate(self.rows.tolist()):
            _, energy, force, stress, volume = row
            stressed = self.cell and not stress <= self.smax
            if not (np.isfinite(energy) and np.isfinite(force) and np.isfinite(volume)):
                ended[index] = self._verdict(index, "failed", "finite", "energy or forces are not finite numbers")
            elif force <= self.fmax and not stressed:
                ended[index] = self._converged(index, force, stress)
        if not ended:
            return
        for index, verdict in ended.items():
            self._store_last(index)
            self.verdicts[self.active[index]] = verdict
            # On the disk before the checkpoint that says it has ended.
            self.files[index].trajectory.flush()
            self.files[index].close()
            self.sink(Judged(verdict, final=True))
        stay = [index for index in range(len(self.active)) if index not in ended]
        self.files = [self.files[index] for index in stay]
        if stay:
            offsets = self.state.offsets
            atoms = torch.cat([torch.arange(offsets[index], offsets[index + 1]) for index in stay])
            self.fire = self.fire.select(stay, atoms.to(self.state.positions.device))
            self._on_strain = None if self._on_strain is None else self._on_strain[stay]
            self.rows = self.rows[stay]
        self.go_on_with(stay)

    def _give_up(self) -> None:
        """Say of the rest that they have not converged; more steps let them go on."""
        if not self.active:
            return
        for index, (_, _, force, stress, _) in enumerate(self.rows.tolist()):
            stressed = self.cell and not stress <= self.smax
            value, limit, unit = (stress, self.smax, "GPa") if stressed else (force, self.fmax, "eV/Å")
            what = f"not converged within {self.state.step} steps"
            verdict = self._verdict(index, "warning", "convergence", what, value, limit, unit)
            self._store_last(index)
            self.verdicts[self.active[index]] = verdict
            self.sink(Judged(verdict, final=True))
        self._stored = self.state.step

    def _store_last(self, index: int) -> None:
        if self.state.step % self.stride and self._stored != self.state.step:
            self._store(index)

    def _converged(self, index: int, force: float, stress: float) -> Verdict:
        """Converged, unless it is to a heap of atoms on one point, as potentials with holes make."""
        look = new_look(self.state, index)
        arrays = self.state.replica(index)
        look.positions, look.cell = arrays["positions"], arrays["cell"]
        finding = OverlapCheck(warn=None).look(look)
        if finding is not None:
            return dataclasses.replace(
                self._verdict(index, "failed", "overlap", finding.what, finding.value, finding.limit, finding.unit),
                atoms=finding.atoms,
            )
        what = f"converged after {self.state.step} steps"
        if self.cell:
            what += f" with a stress of {stress:.3g} GPa"
        return self._verdict(index, "ok", "", what, force, self.fmax, "eV/Å")

    def _verdict(
        self, index: int, outcome: Any, check: str, what: str, value: float = 0.0, limit: float = 0.0, unit: str = ""
    ) -> Verdict:
        number = self.active[index]
        sentence = what if self.alone else f"structure {number} {what}"
        if unit and check != "overlap":
            name = "stress" if unit == "GPa" else "force"
            sentence += f": largest {name} {value:.3g} {unit}, limit {limit:.3g} {unit}"
        elif unit:
            sentence += f": {value:.3g} {unit}, limit {limit:.3g} {unit}"
        elif outcome == "failed":
            sentence += f" at step {self.state.step}"
        return Verdict(
            outcome, check, step=self.state.step, value=value, limit=limit, unit=unit,
            replica=0 if self.alone else number,
            last_good=self.state.step if outcome == "ok" else -1, sentence=sentence[0].upper() + sentence[1:] + ".",
        )  # fmt: skip

    def progress(self) -> Progress:
        # All are done when the last one has converged; until then only the most it can take is known.
        total = self.steps if self.active else self.state.step
        return Progress(min(self.state.step, total), total, "step", None)

    def save(self) -> None:
        for files in self.files:
            files.series.flush(sync=True)
            files.trajectory.flush()
        fire = {
            f"fire.{field.name}": getattr(self.fire, field.name).cpu().clone()
            for field in dataclasses.fields(self.fire)
        }
        record = {
            "cell": self.cell,
            "members": self.members,
            "stored": self._stored,
            "kept": [(files.trajectory.n_frames, files.series.n_rows) for files in self.files],
        }
        self.write(fire, record)
        self.sink(Saved(str(self.path), "checkpoint", {"step": self.state.step}))
