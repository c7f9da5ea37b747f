"""What each kind of stage does. All write into the stage's folder and return JSON-ready facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import write_whole
from mlipkit.errors import RunError
from mlipkit.strategies.workflows import review as reviewing
from mlipkit.strategies.workflows.evaluating import evaluate_models
from mlipkit.strategies.workflows.picking import density, rattled, strained
from mlipkit.strategies.workflows.plan import Stage, parts_of, planned_epochs
from mlipkit.strategies.workflows.work import FRAMES, LABELLED, Flagged, Waits, Work, trained_before, training_frames

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.data import FrameSet


def structures(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.data import write

    more = {}
    # Drawn from the same given structures: those that test do not start a training run as long as there are enough.
    if stage.purpose == "training" and getattr(work.tools, "given", None):
        tests = work.plan.of("structures", "evaluation")
        more["apart"] = [(one.options["count"], one.seeds["packing"]) for one in tests]
    made = work.tools.structures(stage.options["count"], stage.seeds["packing"], folder, **more)
    if len(made) != stage.options["count"]:
        raise RunError("wrong number of start structures", where=stage.name, expected=stage.options["count"],
                       found=len(made))  # fmt: skip
    write(folder / FRAMES, made.without_labels(velocities=False))
    return {"sentence": made.describe(), "density": _densities(made)}


def relax(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.data import write

    frames = work.frames(stage.inputs["frames"][0])
    relaxed = work.tools.relax(work.model(stage), frames, folder, work.heard, work.control)
    write(folder / FRAMES, relaxed.without_labels(velocities=False))
    return {"sentence": f"{len(relaxed)} structures relaxed", "density": _densities(relaxed)}


def perturb(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.data import FrameSet, write

    frames, options = work.frames(stage.inputs["frames"][0]), stage.options
    move = {"rattled": rattled, "strained": strained}[options["how"]]
    seeds = np.random.SeedSequence(stage.seeds["rattle"]).generate_state(options["count"], np.uint64)
    moved = [move(frames.atoms(k % len(frames)), options["amount"], int(one)) for k, one in enumerate(seeds)]
    for atoms in moved:
        atoms.calc = None
    write(folder / FRAMES, FrameSet.from_atoms(moved, source=stage.name))
    return {"sentence": f"{len(moved)} frames {options['how']} by {options['amount']:g}"}


def simulate(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    start = start_of(work, stage)
    verdict = work.tools.simulate(
        work.model(stage), start, stage.options, stage.seeds, folder, work.heard, work.control
    )  # fmt: skip
    stride, last = stage.options["stride"], stage.options["steps"] // stage.options["stride"]
    rows = last + 1
    if verdict.outcome == "failed":
        if stage.options["failure"] != "keep":
            raise Flagged(
                f"{stage.name}: {verdict.sentence} Nothing is built on this run; the workflow stops here "
                "(failure: keep goes on with the rows before)"
            )  # fmt: skip
        rows = max(verdict.last_good, 0) // stride + 1
    final = _row(folder, rows - 1)
    return {
        "rows": rows, "planned_rows": last + 1, "outcome": verdict.outcome,
        "sentence": verdict.sentence or "no finding", "sampled_by": stage.inputs["model"][0],
        "density_first": density(start), "density_last": density(final), "density_mean": _mean_density(folder, rows),
    }  # fmt: skip


def start_of(work: Work, stage: Stage) -> Atoms:
    """The first structure of a simulation: a start structure, or the last row of an earlier one, bit for bit."""
    source = work.plan[stage.inputs["start"][0]]
    if source.does == "simulate":
        atoms = _row(work.folder_of(source.name), work.records[source.name]["rows"] - 1)
    else:
        frames = work.frames(source.name)
        atoms = frames.atoms(stage.options["index"] % len(frames))
    atoms.calc = None
    atoms.arrays.pop("momenta", None)
    atoms.info.clear()
    return atoms


def pick(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    """Frames of a simulation at the planned rows, or all of a set of structures; a row never reached is lost."""
    from mlipkit.data import FrameSet, read, write

    lost: list[int] = []
    if "trajectory" in stage.inputs:
        source = work.plan[stage.inputs["trajectory"][0]]
        facts, place = work.records[source.name], work.folder_of(source.name)
        rows = [row for row in stage.options["rows"] if row < facts["rows"]]
        lost = [row for row in stage.options["rows"] if row >= facts["rows"]]
        images = [_row(place, row) for row in rows]
        by, step = facts["sampled_by"], source.options["stride"] * source.options["timestep"]
        times = [row * step for row in rows]
    else:
        source = work.plan[stage.inputs["frames"][0]]
        images = list(work.frames(source.name))[: stage.options["count"]]
        rows, by, times = list(range(len(images))), source.does, [float("nan")] * len(images)
    if not images:
        return {"sentence": "no frame was reached", "frames": [], "lost_rows": lost, "structures": source.name}
    for atoms in images:
        atoms.calc = None
        atoms.arrays.pop("momenta", None)
        atoms.info.clear()
    frames = FrameSet.from_atoms(images, source=f"{work.plan.arm}/{work.plan.seed}/{source.name}")
    write(folder / FRAMES, frames.with_table(time=np.array(times), tag=by))
    frames = read(folder / FRAMES)
    table = [
        {
            "uid": frames.uid(i), "trajectory": source.name, "row": row, "time_fs": None if np.isnan(time) else time,
            "sampled_by": by, "density": _round(density(image)),
        }
        for i, (row, time, image) in enumerate(zip(rows, times, images, strict=True))
    ]  # fmt: skip
    said = f"{len(images)} frames picked" + (f", {len(lost)} rows never reached" if lost else "")
    return {"sentence": said, "frames": table, "lost_rows": lost, "structures": source.name}


def review(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.data import write

    if not (work.folder_of(stage.inputs["frames"][0]) / FRAMES).is_file():
        return {"sentence": "no frame to approve", "struck": []}
    number = f"{work.plan.of('review').index(stage) + 1:02d}"
    frames = work.frames(stage.inputs["frames"][0])
    path = work.folder / "candidates" / f"{number}.extxyz"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write(path, frames)
    answer = reviewing.decisions(work.folder).get(number)
    if answer is None:
        raise Waits(
            f"{len(frames)} frames in candidates/{number}.extxyz wait for approval: approve(folder, {int(number)}, "
            "strike=[uids]), then resume"
        )  # fmt: skip
    struck = list(answer["struck"])
    stay = [i for i in range(len(frames)) if frames.uid(i) not in struck]
    write(folder / FRAMES, frames.select(stay))
    return {"sentence": f"{len(stay)} frames approved, {len(struck)} {reviewing.STRUCK}", "struck": struck}


def label(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.data import write

    source = stage.inputs["frames"][0]
    asked = work.frames(source) if (work.folder_of(source) / FRAMES).is_file() else None
    if asked is None:
        return {"sentence": "no frame to label", "asked": 0, "failed": [], "labelled": [], "engine_s": 0.0}
    result = work.tools.label(asked.without_labels(velocities=False), folder, work.heard, work.control)
    got = result.frames
    failed = [{"uid": _uid(one.uid), "reason": one.reason} for one in result.failed]
    labelled = [] if got is None or not len(got) else [got.uid(i) for i in range(len(got))]
    if got is not None and labelled:
        write(folder / LABELLED, got)
    write_whole(folder / "failed.json", json.dumps(failed, indent=1).encode())
    text = f"{len(labelled)} of {len(asked)} frames labelled"
    if failed:
        text += f", {len(failed)} failed, the first: {failed[0]['reason']}"
    return {
        "sentence": text, "asked": len(asked), "failed": failed, "labelled": labelled,
        "engine_s": round(float(result.seconds), 3),
    }  # fmt: skip


def finetune(work: Work, stage: Stage, folder: Path) -> dict[str, Any]:
    chosen, uids = training_frames(work, stage)
    before = trained_before(work, stage)
    train, validation = split_frames(
        chosen.structure_hashes.tolist(), stage.options["validation"], stage.seeds["split"],
        [i for i, uid in enumerate(uids) if tuple(uid) in before],
    )  # fmt: skip
    options = {**stage.options, "epochs": planned_epochs(len(train), stage.options)}
    tuned = work.tools.finetune(
        work.model(stage), chosen.select(train), chosen.select(validation), options, stage.seeds, folder, work.heard,
        work.control,
    )  # fmt: skip
    facts = dict(tuned.facts)
    facts.setdefault("sentence", f"fine-tuned on {len(train)} frames")
    return {
        **facts, "best": str(tuned.best.relative_to(folder)), "base": stage.inputs["model"][0],
        "train": [uids[i] for i in train], "validation": [uids[i] for i in validation], "epochs": options["epochs"],
    }  # fmt: skip


def split_frames(
    structures: Sequence[int], validation: float, seed: int, trained: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """Rows for training and validation, drawn at random.

    A frame that the model has been trained on would favour the model as it is, and so would a copy of one: such rows
    are not drawn for validation, and copies of a structure go to one part, as far as there are other rows.

    Args:
        structures: hash of each row's structure.
        trained: rows that the model was trained on in earlier rounds.
    """
    n = len(structures)
    n_train, n_held = parts_of(n, validation)
    order = np.random.default_rng(seed).permutation(n).tolist()
    copies: dict[int, list[int]] = {}
    for row in order:
        copies.setdefault(structures[row], []).append(row)
    known, held = {structures[row] for row in trained}, set()
    for row in reversed(order):
        alike = copies[structures[row]]
        if structures[row] not in known and row not in held and len(held) + len(alike) <= n_held:
            held.update(alike)
    held = held or set(order[n_train:])
    return sorted(set(order) - held), sorted(held)


DO: dict[str, Callable[[Work, Stage, Path], dict[str, Any]]] = {
    "structures": structures, "relax": relax, "perturb": perturb, "simulate": simulate, "pick": pick, "review": review,
    "label": label, "finetune": finetune, "evaluate": evaluate_models,
}  # fmt: skip


def _row(folder: Path, row: int) -> Any:
    """A frame of a trajectory, exactly as it was stored."""
    from ase.io.trajectory import TrajectoryReader

    with TrajectoryReader(str(folder / "trajectory.traj")) as trajectory:
        return trajectory[row]


def _mean_density(folder: Path, rows: int) -> float | None:
    """Mean over the second half of a simulation, g/cm³."""
    chosen = np.unique(np.linspace(rows // 2, rows - 1, min(50, rows - rows // 2)).astype(int))
    values = [density(_row(folder, int(row))) for row in chosen]
    known = [value for value in values if value is not None]
    return _round(float(np.mean(known))) if known else None


def _densities(frames: FrameSet) -> list[float | None]:
    return [_round(density(frames.atoms(i))) for i in range(len(frames))]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _uid(uid: Any) -> str:
    return uid if isinstance(uid, str) else f"{int(uid):016x}"
