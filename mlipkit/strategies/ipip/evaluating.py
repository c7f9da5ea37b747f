"""Errors of every student of an arm, and of the teacher, on the same test frames: all of them, none left out.

``evaluation.json``: {"rows": [...], "n_frames", "compared", "uids", "selected"}; a row per model: model, kind (student,
teacher), round, energy_mae (meV/atom, after the teacher's constant), forces_mae, forces_rmse (meV/Å, components),
forces_norm (meV/Å, mean length of the error of an atom), validation (the same of the DFT validation frames),
better_than_teacher (frames on which the mean force error is smaller), ratio_to_teacher; these two over the frames that
are compared: those for which the teacher has an answer. ``errors.npz``: per model, [F], eV, NaN where the teacher has
none; n_atoms, and trajectory of each frame (`trajectories`).
``checkpoints/chosen.safetensors``: the student that is selected, for whoever simulates with the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import read_json, write_whole
from mlipkit.errors import RunError
from mlipkit.events import Message
from mlipkit.strategies.ipip.plan import TEACHER_MODEL
from mlipkit.strategies.workflows.plan import Stage

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

NAME, ERRORS = "evaluation.json", "errors.npz"


def frame_errors(said: FrameSet, true: FrameSet) -> dict[str, np.ndarray]:
    """Per frame [F]: energy (|ΔE|/n, eV/atom), forces (mean |ΔF| of components, eV/Å), squares (mean ΔF²), norms.

    A norm is the length of the error of an atom: for one of (3, 4, 0) it is 5, where the mean of the components is 7/3.
    """
    starts, n = true.offsets[:-1], np.asarray(true.n_atoms)
    apart = np.asarray(said.forces) - np.asarray(true.forces)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts) / n

    return {
        "energy": np.abs(np.asarray(said.energy) - np.asarray(true.energy)) / n, "forces": mean(np.abs(apart).mean(1)),
        "squares": mean(np.square(apart).mean(1)), "norms": mean(np.linalg.norm(apart, axis=1)),
    }  # fmt: skip


def figures(errors: Mapping[str, np.ndarray], n_atoms: np.ndarray, rows: np.ndarray | None = None) -> dict[str, float]:
    """Figures over frames: energies weighted alike, forces by atoms; NaN where one of them has no error.

    Args:
        rows: bool [F], frames that count; None: all.
    """
    rows = np.ones(len(n_atoms), bool) if rows is None else rows
    share = n_atoms[rows] / n_atoms[rows].sum()
    energy, forces, squares, norms = (errors[name][rows] for name in ("energy", "forces", "squares", "norms"))
    return {
        "energy_mae": 1000 * float(energy.mean()), "forces_mae": 1000 * float(forces @ share),
        "forces_rmse": 1000 * float(np.sqrt(squares @ share)), "forces_norm": 1000 * float(norms @ share),
    }  # fmt: skip


def answered(errors: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool [F]: frames for which there is an answer."""
    return np.isfinite(errors["energy"]) & np.isfinite(errors["forces"])


def trajectories(frames: FrameSet) -> np.ndarray:
    """int64 [F]: trajectory of each frame; frames outside trajectories are each their own."""
    found = np.asarray(frames.trajectory, np.int64)
    return np.where(found < 0, found.max(initial=0) + 1 + np.arange(len(found)), found)


def evaluate(work: Any, stage: Stage, folder: Path) -> dict[str, Any]:
    """Predict the test frames with the teacher (its energies moved to the DFT zero) and with every student."""
    from mlipkit.data import fit_atomic_energies
    from mlipkit.strategies.finetuning.shifts import moved

    test, validation, tools = work.tools.test, work.tools.validation, work.tools
    n_atoms, rows, arrays = np.asarray(test.n_atoms), [], {}
    base: dict[str, np.ndarray] | None = None
    known = np.ones(len(test), bool)
    for name in stage.inputs["models"]:
        teacher = name == TEACHER_MODEL
        if teacher:
            own, held, said = _teachers(work, stage)
            shifts = fit_atomic_energies(tools.train.with_labels(energy=tools.train.energy - own.energy))
            said, held = moved(said, shifts), moved(held, shifts)
        else:
            potential = work.potential(name)
            said, held = tools.predict(potential, test), tools.predict(potential, validation)
        errors, others = frame_errors(said, test), frame_errors(held, validation)
        # The teacher is told apart where it has no answer; a student without one must not seem better for it.
        known = answered(errors) if teacher else known
        row: dict[str, Any] = {
            "model": "teacher" if teacher else name, "kind": "teacher" if teacher else "student",
            "round": 0 if teacher else work.plan[name].round,
            **figures(errors, n_atoms, known if teacher else None),
            "validation": figures(others, np.asarray(validation.n_atoms), answered(others) if teacher else None),
        }  # fmt: skip
        if teacher:
            base = errors
        elif base is not None:
            row["better_than_teacher"] = int((errors["forces"] < base["forces"])[known].sum())
            least = rows[0]["forces_mae"]
            row["ratio_to_teacher"] = figures(errors, n_atoms, known)["forces_mae"] / least if least else None
        if not teacher and (lost := int((~answered(errors)).sum())):
            text = f"{name} has no answer (numbers that are not finite) for {lost} of {len(test)} test frames"
            work.sink(Message(f"{stage.name}: {text}: it has no mean error", "warning"))
        rows.append(row)
        arrays |= {f"{row['model']}/{key}": value for key, value in errors.items()}
    partial = work.folder / f".{ERRORS}.part.npz"
    np.savez_compressed(partial, n_atoms=n_atoms, trajectory=trajectories(test), **arrays)
    os.replace(partial, work.folder / ERRORS)
    uids = [test.uid(i) for i in range(len(test))]
    record = {
        "rows": rows, "n_frames": len(test), "compared": int(known.sum()), "uids": uids, "selected": selected(rows),
    }  # fmt: skip
    write_whole(work.folder / NAME, json.dumps(record, indent=1).encode())
    _hand_out(work.weights(record["selected"]), work.folder / "checkpoints")
    row = selected_row(record)
    text = f"{row['model']}: forces {row['forces_mae']:.3g} meV/Å, energies {row['energy_mae']:.3g} meV/atom"
    if base is not None:
        text += (
            f"; smaller force error than the zero-shot teacher ({rows[0]['forces_mae']:.3g} meV/Å) on "
            f"{row['better_than_teacher']} of {record['compared']} frames"
        )
    return {"sentence": text, "rows": rows, "selected": record["selected"]}


def _teachers(work: Any, stage: Stage) -> list[FrameSet]:
    """What the teacher says of training, validation and test frames; NaN, and told, where it has no answer."""
    tools, found = work.tools, []
    for name in ("train", "validation", "test"):
        frames: FrameSet = getattr(tools, name)
        errors: list[str] = []
        said = tools.label(frames, errors)
        lost = int((~(said.has("energy") & said.has("forces"))).sum())
        why = errors[0] if errors else "energies or forces that are not finite numbers"
        if lost == len(frames):
            raise RunError(
                f"the teacher has no answer for any of {lost} {name} frames", where=stage.name, found=why,
                hint="Try it on one of them (mlipkit label), set right what it lacks, and resume",
            )  # fmt: skip
        if lost:
            text = f"{stage.name}: the teacher has no answer for {lost} of {len(frames)} {name} frames ({why})"
            work.sink(Message(f"{text}; it is compared on the others", "warning"))
        found.append(said)
    return found


def evaluation_in(folder: Path) -> dict[str, Any] | None:
    """What ``evaluation.json`` in a folder says, None before there is one.

    Raises:
        RunError: it is damaged.
    """
    try:
        record = read_json(folder / NAME)
    except FileNotFoundError:
        return None
    if record.get("selected") not in [row.get("model") for row in record.get("rows", ())]:
        raise RunError("cannot be read", where=str(folder / NAME), expected="the errors of every model, one selected")
    return record


def compared(record: Mapping[str, Any]) -> int:
    """Test frames on which students and teacher are compared; all of them in records from before it was told."""
    return record.get("compared", record["n_frames"])


def _hand_out(best: Path, folder: Path) -> None:
    """Weights and their card, under the name by which the potential of a run is found."""
    folder.mkdir(exist_ok=True)
    for path in (best.with_suffix(".json"), best):
        if path.is_file():
            write_whole(folder / f"chosen{path.suffix}", path.read_bytes())


def selected_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of the student that stands for an arm: the validation frames select it, the test frames have no say."""
    return next(row for row in record["rows"] if row["model"] == record["selected"])


def selected(rows: list[dict[str, Any]]) -> str:
    """The student with the smallest force error on the DFT validation frames."""
    students = [row for row in rows if row["kind"] == "student"]
    # A figure that is no number is the smallest of all to `min`.
    return min(students, key=lambda row: np.nan_to_num(row["validation"]["forces_mae"], nan=np.inf))["model"]
