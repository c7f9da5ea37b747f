"""Residuals of energies along simulations that a model made itself: from the evaluation, and before it from labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.plots.workflows import OwnRun
from mlipkit.strategies.workflows import UNTOUCHED
from mlipkit.strategies.workflows.evaluating import OFFSET

from .workflow_folder import WorkflowFolder

if TYPE_CHECKING:
    from mlipkit.analysis import Residuals
    from mlipkit.strategies.workflows.plan import Stage

FS_PER_PS = 1000.0
Line = tuple[np.ndarray, np.ndarray]
"""Times (ps) and residuals (meV/atom), both [F]."""


class OwnRuns:
    """What is known of each model along its own simulation. Reads what has changed only."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Line] = {}

    def of(self, arms: Mapping[str, Sequence[WorkflowFolder]], chosen: int) -> list[OwnRun]:
        """For each workflow those of the model of a round, or of the last model before that has a simulation.

        Of an evaluated workflow from the evaluation, with the controls. Where that has no simulations, or is still to
        come, from the frames labelled so far: the energy that a model stored when it sampled a frame, less the label.
        """
        runs, controls, seen = [], [], set()
        for number, (arm, some) in enumerate(arms.items()):
            for one in some:
                rows = [row for row in one.evaluated.rows if row["own"]] if one.evaluated is not None else []
                if one.evaluated is None or not rows:
                    runs += self._sampled(one, number, chosen)
                    continue
                rounds = [row["round"] for row in rows if row["kind"] == "finetuned"]
                if rounds:
                    round = chosen if chosen in rounds else max(rounds)
                    row = next(row for row in rows if row["kind"] == "finetuned" and row["round"] == round)
                    runs.append(OwnRun(f"{one.name}, model {round}", number, *self._along(one, row)))
                if arm in seen:
                    continue
                seen.add(arm)
                start = next((row for row in rows if row["kind"] == UNTOUCHED), None)
                round = chosen if any(_is_control(row, chosen) for row in one.evaluated.rows) else one.n_rounds
                offset = next((row for row in one.evaluated.rows if _is_control(row, round)), None)
                if start is None or offset is None:
                    continue
                time, untouched = self._along(one, start)
                _, left = self._along(one, offset)
                controls.append(OwnRun(f"offset control of {one.name}", -1, time, left))
                if len(seen) == 1:
                    controls.append(OwnRun("untouched", -1, time, untouched, hidden=True))
        return [*runs, *controls]

    def _along(self, one: WorkflowFolder, row: Mapping[str, Any]) -> Line:
        """Residuals of a row of the evaluation."""
        key = (one.folder, row["per_frame"], one.revision)
        if key not in self._known:
            assert one.evaluated is not None
            found: Residuals = one.evaluated.residuals(dict(row))
            self._known[key] = np.asarray(found.frames.time) / FS_PER_PS, 1000 * found.energy
        return self._known[key]

    def _sampled(self, one: WorkflowFolder, number: int, chosen: int) -> list[OwnRun]:
        """Without an evaluation: the model of the chosen round or of the latest before it."""
        if one.plan is None:
            return []
        found: dict[int, tuple[Stage, Stage]] = {}
        for stage in one.plan.stages:
            if stage.does != "label" or not one.records.get(stage.name, {}).get("labelled"):
                continue
            simulation = _simulation(one, stage)
            # What the untouched model is off by is mostly another zero of energy: it would hide all others.
            if simulation is not None and (model := simulation.inputs["model"][0]) != UNTOUCHED:
                # The run of the evaluation comes later in the plan, and takes the place of the one for training.
                found[one.plan[model].round] = stage, simulation
        rounds = [round for round in found if round <= chosen]
        if not rounds:
            return []
        stage, simulation = found[max(rounds)]
        key = (one.folder, stage.name)
        if key not in self._known:
            self._known[key] = self._line(one, stage, simulation)
        time, left = self._known[key]
        name = f"{one.name}, model {max(rounds)} in {simulation.name}"
        return [OwnRun(name, number, time, left)] if len(time) else []

    def _line(self, one: WorkflowFolder, stage: Stage, simulation: Stage) -> Line:
        from ase.io.trajectory import TrajectoryReader

        assert one.plan is not None
        frames = one.frames_of(stage.name)
        path = one.folder / one.plan.folder(simulation.name) / "trajectory.traj"
        times, left = [], []
        if frames is not None and path.is_file():
            rows = {row["uid"]: row for row in one.rows if row["trajectory"] == simulation.name}
            with TrajectoryReader(str(path)) as trajectory:
                for i in range(len(frames)):
                    row = rows.get(frames.uid(i))
                    if row is None or row["time_fs"] is None or row["row"] >= len(trajectory):
                        continue
                    stored: Any = trajectory[row["row"]]
                    label = frames.atoms(i).get_potential_energy()
                    times.append(row["time_fs"] / FS_PER_PS)
                    left.append(1000 * (stored.get_potential_energy() - label) / len(stored))
        return np.array(times), np.array(left)


def _simulation(one: WorkflowFolder, stage: Stage) -> Stage | None:
    """The simulation whose frames a labelling took, directly or by way of the user's approval."""
    assert one.plan is not None
    while stage.does in ("label", "review"):
        stage = one.plan[stage.inputs["frames"][0]]
    return one.plan[stage.inputs["trajectory"][0]] if "trajectory" in stage.inputs else None


def _is_control(row: Mapping[str, Any], round: int) -> bool:
    return row["kind"] == OFFSET and row["round"] == round and row["test_set"] == "test_md_0"
