"""Relaxation of many structures together: FIRE until each has converged, recorded, resumable, in one folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlipkit import units
from mlipkit.data.series import Series, SeriesWriter
from mlipkit.errors import DataError, RunError
from mlipkit.events import (
    Control,
    EventSink,
    Judged,
    Progress,
    Saved,
    Started,
    Verdict,
    always_run,
    ignore,
)
from mlipkit.md.batches import go_through, planned
from mlipkit.md.checkpoint import read_checkpoint, write_checkpoint
from mlipkit.md.fire import Fire, cell_forces, fire_step
from mlipkit.md.forces import ForceFunction, Restartable, evaluate
from mlipkit.md.looks import new_look
from mlipkit.md.state import MDState
from mlipkit.md.structure_checks import OverlapCheck
from mlipkit.md.trajectory import TrajectoryWriter

COLUMNS = {"step": "", "energy": "eV", "max_force": "eV/Å", "max_stress": "GPa", "volume": "Å³"}
PROGRESS_EVERY_S, SAVE_EVERY_S = 0.5, 60.0
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
    settings = _Settings(folder, fmax, steps, cell, hydrostatic, pressure * units.GPA, smax, stride, checkpoint_every)

    def run(
        part: MDState, forces: ForceFunction, members: Sequence[int], name: str, heard: EventSink, of_batch: bool
    ) -> bool:
        alone = not of_batch and part.n_systems == 1
        work = _Relaxation(part.select(range(part.n_systems)), forces, settings, list(members), alone, name,
                           heard, control)  # fmt: skip
        with torch.no_grad():
            verdicts.update(work.run())
        return not work.active or work.state.step >= steps

    verdicts: dict[int, Verdict] = {}
    go_through(state, forces, planned(folder, state, forces, batch, NAME), NAME, steps, run, sink)
    return [verdicts[index] for index in sorted(verdicts)]


@dataclasses.dataclass(frozen=True)
class _Settings:
    folder: Path
    fmax: float
    steps: int
    cell: bool
    hydrostatic: bool
    pressure: float  # eV/Å³
    smax: float
    stride: int
    checkpoint_every: int


class _Files:
    """Trajectory and series of one structure."""

    def __init__(self, folder: Path, state: MDState, index: int, kept: tuple[int, int] | None) -> None:
        self.arrays = state.replica(index)
        frames, rows = kept or (None, None)
        self.trajectory = TrajectoryWriter(
            folder / "trajectory.traj", self.arrays["numbers"].copy(), self.arrays["masses"].copy(),
            self.arrays["pbc"].copy(), keep=frames,
        )  # fmt: skip
        self.series = SeriesWriter(folder / "series" / NAME, COLUMNS, resume_rows=rows)

    def close(self) -> None:
        self.series.close()
        self.trajectory.close()


class _Relaxation:
    def __init__(
        self, state: MDState, forces: ForceFunction, settings: _Settings, members: list[int], alone: bool, name: str,
        sink: EventSink, control: Control,
    ) -> None:  # fmt: skip
        self.state, self.forces, self.settings = state, forces, settings
        self.members, self.alone, self.sink, self.control = members, alone, sink, control
        self.path = settings.folder / "checkpoints" / f"{name}.safetensors"
        self.active, self.verdicts = list(members), dict[int, Verdict]()
        self.files: list[_Files] = []
        self.fire = Fire.start(state)
        self._progress = self._saved = -float("inf")
        self._stored = -1  # step at which the last frames were stored off the stride

    def run(self) -> dict[int, Verdict]:
        try:
            if self.path.exists():
                self._resume()
            else:
                self._start()
            self._begin = (time.monotonic(), self.state.step)
            if self.active:
                self._judge()
            while self.active and self.state.step < self.settings.steps and self._may_go_on():
                fire_step(self.state, self.fire, self._on_strain)
                self.state.step += 1
                evaluate(self.state, self.forces)
                self._record()
                self._judge()
                step = self.state.step
                if step % self.settings.checkpoint_every == 0 or time.monotonic() - self._saved > SAVE_EVERY_S:
                    self._save()
            if self.state.step >= self.settings.steps:
                self._give_up()
            self._save()
            self._show_progress(time.monotonic())
        finally:
            for files in self.files:
                files.close()
        return self.verdicts

    def _start(self) -> None:
        self._announce()
        evaluate(self.state, self.forces)
        if self.settings.cell and self.state.stress is None:
            raise DataError("relaxing the cell needs the stress", where="relax",
                            hint="Build the forces with stress=True.")  # fmt: skip
        self.files = [self._files(index, None) for index in range(len(self.active))]
        self._record()
        self._save()

    def _resume(self) -> None:
        tensors, record = read_checkpoint(self.path)
        places = [self.members.index(one) for one in record["active"] if one in self.members]
        mine = {"cell": self.settings.cell, "members": self.members}
        offsets = self.state.offsets
        numbers = [self.state.numbers[offsets[place] : offsets[place + 1]].cpu() for place in places]
        if {name: record[name] for name in mine} != mine or (
            numbers and not torch.equal(torch.cat(numbers), tensors["state.numbers"])
        ):
            raise RunError("the checkpoint belongs to another relaxation", where=str(self.path),
                           hint="Give it a folder of its own.")  # fmt: skip
        device = self.state.positions.device
        self.state.take(MDState.from_tensors(_part(tensors, "state."), device))
        self.fire = Fire(**{name: value.to(device) for name, value in _part(tensors, "fire.").items()})
        self.active, self._stored = list(record["active"]), record["stored"]
        # Who had not converged within fewer steps goes on and is judged anew.
        self.verdicts = {
            int(key): Verdict(**{**value, "atoms": tuple(value["atoms"])})
            for key, value in record["verdicts"].items()
            if int(key) not in self.active
        }
        self._refuse_tighter()
        self._announce()
        if not self.active:
            return
        if isinstance(self.forces, Restartable):
            self.forces.restore(self.state, _part(tensors, "forces."))
        self.files = [self._files(index, tuple(kept)) for index, kept in enumerate(record["kept"])]
        self._measure()

    def _refuse_tighter(self) -> None:
        """Who has converged has left, with the step and velocities of its own that it would need to go on."""
        for number, verdict in self.verdicts.items():
            if verdict.outcome != "ok":
                continue
            row = Series(self._folder(number) / "series" / NAME).read()
            for name, column, limit, unit in (("fmax", "max_force", self.settings.fmax, "eV/Å"),
                                              ("smax", "max_stress", self.settings.smax, "GPa")):  # fmt: skip
                value = float(row[column][-1])
                if value > limit:  # not the stress of a cell that stays, a NaN
                    who = "the structure" if self.alone else f"structure {number}"
                    raise RunError(
                        f"{who} has already converged to a looser {name}", where=str(self._folder(number)),
                        expected=f"{value:.3g} {unit} or more", found=f"{limit:g} {unit}",
                        hint=f"Relax the last frames in a new run with this {name}.",
                    )  # fmt: skip

    def _folder(self, number: int) -> Path:
        return self.settings.folder if self.alone else self.settings.folder / f"replica_{number:03d}"

    def _files(self, index: int, kept: tuple[int, int] | None) -> _Files:
        return _Files(self._folder(self.active[index]), self.state, index, kept)

    def _announce(self) -> None:
        counts = sorted(set(self.state.n_atoms.tolist()))
        atoms = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        many = f", {len(self.members)} structures" if len(self.members) > 1 else ""
        what = f"relaxation of {atoms} atoms{' and cell' if self.settings.cell else ''}{many}"
        facts = {"fmax": self.settings.fmax, "steps": self.settings.steps}
        self.sink(Started(what, self.settings.steps, self.state.step, facts))

    # Every step

    def _measure(self) -> None:
        """Figures of the present forces, [S,columns] on the host, and the force on the strain."""
        state, settings = self.state, self.settings
        self._on_strain, largest = None, torch.full_like(state.energy, torch.nan)
        if settings.cell:
            self._on_strain, stress = cell_forces(state, self.fire, settings.pressure, settings.hydrostatic)
            largest = stress.abs().amax((1, 2)) / units.GPA
        volume = torch.linalg.det(state.cell).abs()
        rows = [torch.full_like(state.energy, state.step), state.energy, state.max_force(), largest, volume]
        self.rows = torch.stack(rows, 1).cpu().numpy()

    def _record(self) -> None:
        self._measure()
        for index, files in enumerate(self.files):
            files.series.append(self.rows[index])
            if self.state.step % self.settings.stride == 0:
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
        settings, ended = self.settings, {}
        for index, row in enumerate(self.rows.tolist()):
            _, energy, force, stress, volume = row
            stressed = settings.cell and not stress <= settings.smax
            if not (np.isfinite(energy) and np.isfinite(force) and np.isfinite(volume)):
                ended[index] = self._verdict(index, "failed", "finite", "energy or forces are not finite numbers")
            elif force <= settings.fmax and not stressed:
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
        offsets = self.state.offsets
        spans = [torch.arange(offsets[index], offsets[index + 1]) for index in stay]
        self.active, self.files = [self.active[index] for index in stay], [self.files[index] for index in stay]
        if stay:
            atoms = torch.cat(spans).to(self.state.positions.device)
            self.fire = self.fire.select(stay, atoms)
            self._on_strain = None if self._on_strain is None else self._on_strain[stay]
            self.rows = self.rows[stay]
            self.state.take(self.state.select(stay))
            select = getattr(self.forces, "select", None)
            if select is not None:
                select(self.state, stay)

    def _give_up(self) -> None:
        """Say of the rest that they have not converged; more steps let them go on."""
        settings = self.settings
        if not self.active:
            return
        for index, (_, _, force, stress, _) in enumerate(self.rows.tolist()):
            stressed = settings.cell and not stress <= settings.smax
            value, limit, unit = (stress, settings.smax, "GPa") if stressed else (force, settings.fmax, "eV/Å")
            what = f"not converged within {self.state.step} steps"
            verdict = self._verdict(index, "warning", "convergence", what, value, limit, unit)
            self._store_last(index)
            self.verdicts[self.active[index]] = verdict
            self.sink(Judged(verdict, final=True))
        self._stored = self.state.step

    def _store_last(self, index: int) -> None:
        if self.state.step % self.settings.stride and self._stored != self.state.step:
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
        if self.settings.cell:
            what += f" with a stress of {stress:.3g} GPa"
        return self._verdict(index, "ok", "", what, force, self.settings.fmax, "eV/Å")

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

    def _may_go_on(self) -> bool:
        request, now = self.control(), time.monotonic()
        if now - self._progress >= PROGRESS_EVERY_S:
            self._show_progress(now)
        if request == "pause":
            self._save()
            while (request := self.control()) == "pause":
                time.sleep(0.1)
        return request != "stop"

    def _show_progress(self, now: float) -> None:
        self._progress = now
        # All are done when the last one has converged; until then only the most it can take is known.
        total = self.settings.steps if self.active else self.state.step
        self.sink(Progress(min(self.state.step, total), total, "step", None))

    def _save(self) -> None:
        for files in self.files:
            files.series.flush(sync=True)
            files.trajectory.flush()
        tensors = {f"state.{name}": tensor for name, tensor in self.state.to_tensors().items()}
        tensors.update(
            {f"fire.{f.name}": getattr(self.fire, f.name).cpu().clone() for f in dataclasses.fields(self.fire)}
        )
        if isinstance(self.forces, Restartable) and self.active:
            tensors.update({f"forces.{name}": tensor for name, tensor in self.forces.to_tensors().items()})
        record = {
            "cell": self.settings.cell,
            "members": self.members,
            "active": self.active,
            "stored": self._stored,
            "kept": [(files.trajectory.n_frames, files.series.n_rows) for files in self.files],
            "verdicts": {number: dataclasses.asdict(verdict) for number, verdict in self.verdicts.items()},
        }
        write_checkpoint(self.path, tensors, record)
        self._saved = time.monotonic()
        self.sink(Saved(str(self.path), "checkpoint", {"step": self.state.step}))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
