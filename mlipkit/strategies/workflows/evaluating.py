"""Every model of an arm on every test set, beside the untouched model and the offset control.

The offset control is the untouched model plus one constant per composition, fitted on the frames that a fine-tuned
model was trained on (`mlipkit.analysis.offset_control`). One that does not beat it has learned an offset.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import read_json, write_whole
from mlipkit.events import Message
from mlipkit.strategies.workflows.plan import UNTOUCHED, Plan, Stage
from mlipkit.strategies.workflows.work import LABELLED, Work, training_frames

if TYPE_CHECKING:
    from mlipkit.analysis.residuals import Residuals
    from mlipkit.data import FrameSet

NAME = "evaluation.json"
OFFSET = "offset"
INDEPENDENT = "independent"


def set_name(label_stage: str) -> str:
    """``independent`` of the stage ``label_independent``."""
    return label_stage.removeprefix("label_")


def evaluate_models(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    """Rows of ``evaluation.json``; residuals frame by frame lie in ``residuals/SET__MODEL.npz``."""
    from mlipkit.analysis.offset_control import offset_control
    from mlipkit.analysis.residuals import residuals, table_row

    (folder / "residuals").mkdir(exist_ok=True)
    sets = {set_name(name): work.frames(name) for name in stage.inputs["sets"] if work.records[name]["labelled"]}
    starts = _training_starts(work)
    stay = {name: [i for i in range(len(frames)) if frames.uid(i) not in starts] if name == INDEPENDENT
            else list(range(len(frames))) for name, frames in sets.items()}  # fmt: skip
    left_out = {name: [sets[name].uid(i) for i in range(len(sets[name])) if i not in stay[name]] for name in sets}
    if n := len(left_out.get(INDEPENDENT, [])):
        work.sink(Message(left_out_said(n, len(sets[INDEPENDENT])), "warning"))
    every, sets = sets, {name: frames.select(stay[name]) for name, frames in sets.items() if stay[name]}
    rows: list[dict[str, Any]] = []
    offsets: dict[str, Any] = {}

    def keep(name: str, kind: str, round: int, of: str, test_set: str, found: Residuals, more: dict[str, Any]) -> None:
        path = folder / "residuals" / f"{test_set}__{name}.npz"
        write_residuals(path, found)
        rows.append({
            "model": name, "kind": kind, "round": round, "of": of, "test_set": test_set,
            "own": test_set == f"test_md_{round}", **more, "per_frame": str(path.relative_to(work.folder)),
            **table_row(found),
        })  # fmt: skip

    found: dict[tuple[str, str], Residuals] = {}
    for model in stage.inputs["models"]:
        for name, frames in sets.items():
            predicted = _predicted(work, folder, model, name, every[name])
            found[model, name] = residuals(predicted.select(stay[name]), frames)
    for name in sets:
        keep(UNTOUCHED, UNTOUCHED, 0, UNTOUCHED, name, found[UNTOUCHED, name], {"n_training": 0})
    tuned = [model for model in stage.inputs["models"] if model != UNTOUCHED]
    for model in tuned:
        trained, _ = training_frames(work, work.plan[model])
        number = work.plan[model].round
        control = offset_control(residuals(_predicted(work, folder, UNTOUCHED, f"data_{model}", trained), trained))
        offsets[model] = {
            "constants_eV": {str(z): value for z, value in control.per_element.items()}, "n_frames": control.n_frames,
            "left_mev_per_atom": 1000 * control.residual_std,
        }  # fmt: skip
        for name in sets:
            more = {"n_training": len(trained)}
            if control.determines(sets[name]).all():
                keep(f"{OFFSET}_{number}", OFFSET, number, model, name, control.remove(found[UNTOUCHED, name]), more)
            keep(model, "finetuned", number, model, name, found[model, name], more)
    said = sentences(rows)
    record = {
        "arm": work.plan.arm, "seed": work.plan.seed, "rows": rows, "offsets": offsets, "sentences": said,
        "spent": dataclasses.asdict(work.plan.spent(work.records)),
        "sets": {
            name: {"frames": len(stay[name]), "labels": f"{_place(work, name)}", "left_out": left_out[name]}
            for name in every
        },
        "simulations": {
            one.name: {key: work.records[one.name][key] for key in
                       ("sampled_by", "rows", "planned_rows", "outcome", "sentence", "density_first", "density_last",
                        "density_mean")}
            for one in work.plan.of("simulate")
        },
    }  # fmt: skip
    write_whole(work.folder / NAME, json.dumps(record, indent=1).encode())
    return {"sentence": said[-1] if said else f"{len(rows)} rows", "rows": len(rows)}


def left_out_said(n: int, of: int) -> str:
    """Why an independent set has fewer frames than were labelled."""
    return (
        f"{n} of {of} independent test frames are left out: training starts from the same structures. Give more start "
        "structures than training and evaluation draw together"
    )


def _training_starts(work: Work) -> set[str]:
    """Uids of independent test frames that were made from a structure with which training began."""
    plan = work.plan
    picks = [one for one in plan.of("pick", "evaluation") if "frames" in one.inputs]
    starts = [one.name for one in plan.of("structures", "training") if one.name in work.records]
    if not picks or not starts:
        return set()
    known = {uid for name in starts for uid in work.frames(name).structure_hashes.tolist()}
    found: set[str] = set()
    for pick in picks:
        # The relaxed structures are in the order of those that were made.
        origin = plan[pick.inputs["frames"][0]]
        while origin.does == "relax":
            origin = plan[origin.inputs["frames"][0]]
        made = work.frames(origin.name).structure_hashes.tolist()
        found |= {one["uid"] for one in work.records[pick.name]["frames"] if made[one["row"]] in known}
    return found


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    """Of each fine-tuned model and test set, whether it has learned more of energies than an offset."""
    said = []
    for row in rows:
        if row["kind"] != "finetuned" or "rmse_e" not in row:
            continue
        control = next(
            (
                one for one in rows
                if one["kind"] == OFFSET and one["of"] == row["model"] and one["test_set"] == row["test_set"]
            ), None,
        )  # fmt: skip
        ours = row["rmse_e"][0]
        figures = (
            f"RMSE of energies {ours:.3g} meV/atom (mean {row['mean_e'][0]:+.3g}, standard deviation "
            f"{row['std_e'][0]:.3g}), "
        )
        if control is None:
            said.append(
                f"{row['model']} on {row['test_set']} has no offset control, as it was not trained on all compositions "
                f"there ({figures}{row['n_frames']} frames)."
            )
            continue
        theirs = control["rmse_e"][0]
        figures += f"offset control {theirs:.3g}, {row['n_frames']} frames"
        what = "has learned no more than an offset: it does not beat its control"
        if ours < theirs:
            what = "has learned more than an offset"
        said.append(f"{row['model']} on {row['test_set']} {what} ({figures}).")
    return said


def write_residuals(path: Path, found: Residuals) -> None:
    """Keep residuals without their frames."""
    import io

    buffer = io.BytesIO()
    np.savez(
        buffer, energy=found.energy, force_squares=found.force_squares, n_forces=found.n_forces, stress=found.stress
    )
    write_whole(path, buffer.getvalue())


@dataclass(frozen=True)
class Evaluated:
    """What ``evaluation.json`` of a workflow says, with the way to its residuals."""

    folder: Path
    plan: Plan
    record: dict[str, Any]
    _frames: dict[str, FrameSet] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, folder: Path | str) -> Evaluated | None:
        """None before the workflow has been evaluated."""
        folder = Path(folder)
        if not (folder / NAME).is_file():
            return None
        return cls(folder, Plan.from_json(read_json(folder / "plan.json")), read_json(folder / NAME))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.record["rows"]

    def left_out(self, test_set: str) -> list[str]:
        """Uids of labelled test frames that judge nothing, as training has begun with them."""
        return self.record["sets"].get(test_set, {}).get("left_out", [])

    def residuals(self, row: dict[str, Any]) -> Residuals:
        """Residuals of a row, frame by frame."""
        from mlipkit.analysis.residuals import Residuals
        from mlipkit.data import read

        place = self.record["sets"][row["test_set"]]["labels"]
        # Every model has a row on the same frames.
        if place not in self._frames:
            whole, out = read(self.folder / place), set(self.left_out(row["test_set"]))
            self._frames[place] = whole.select([i for i in range(len(whole)) if whole.uid(i) not in out])
        frames = self._frames[place]
        with np.load(self.folder / row["per_frame"]) as arrays:
            return Residuals(frames, *(arrays[name] for name in ("energy", "force_squares", "n_forces", "stress")))


def _place(work: Work, name: str) -> Path:
    return Path(work.plan.folder(f"label_{name}")) / LABELLED


def _predicted(work: Work, folder: Path, model: str, name: str, frames: FrameSet) -> FrameSet:
    """Predictions, made once: an evaluation that is interrupted goes on behind the last set."""
    path = folder / "residuals" / f".predicted_{name}__{model}.npz"
    if not path.is_file():
        import io

        found = work.tools.predict(work.weights(model), frames.without_labels(velocities=False))
        buffer = io.BytesIO()
        np.savez(buffer, energy=found.energy, forces=found.forces, stress=found.stress)
        write_whole(path, buffer.getvalue())
    with np.load(path) as arrays:
        return frames.with_labels(energy=arrays["energy"], forces=arrays["forces"], stress=arrays["stress"])
