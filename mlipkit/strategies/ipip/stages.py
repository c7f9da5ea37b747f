"""What each kind of stage does. All write into the stage's folder and return JSON-ready facts.

===========  ======================================================================================================
deed         facts, beside "sentence" and "spent" (parts of `plan.Budget`)
===========  ======================================================================================================
starts       rows (of the DFT training frames)
sample       runs [{start, step, failed, reason}], failed, fraction, interval (Wilson, 95 %), reasons {check: n},
             force_cap eV/Å, steps_per_s (all runs, this attempt), seconds, teacher_error (the first, where it raised)
pool, renew  composition (`Pool.composition`), dropped; renew: forgotten, relabelled, refused (by the gate), new,
             student_vs_teacher (force MAE eV/Å of the student on frames that the teacher had labelled), label_change
choose       asked, chosen, unstable, labelled, probed, dropped {reason: n}, teacher_error (the first, where it raised)
pretrain     steps, best_step, seconds, metrics, frames, pool (hash), best (file)
finetune     the same, and chosen
stability    runs, n, failed, fraction, interval, reasons, times_fs, species (`species_record.summary`, where an element
             is tracked; the series lie in species.npz)
reaction     the same at a temperature of its own; species always
===========  ======================================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data import FrameSet
from mlipkit.data.whole import read_json, write_whole
from mlipkit.errors import DataError, RunError
from mlipkit.events import Message
from mlipkit.strategies.ipip import fitting
from mlipkit.strategies.ipip.choosing import HELD_OUT
from mlipkit.strategies.ipip.choosing import choose as choose_frames
from mlipkit.strategies.ipip.evaluating import evaluate
from mlipkit.strategies.ipip.instability import force_cap
from mlipkit.strategies.ipip.plan import TEACHER_MODEL, LoopPlan
from mlipkit.strategies.ipip.pools import TEACHER, Pool, forgotten, gate
from mlipkit.strategies.ipip.sampling import ended, run_md, runs_of
from mlipkit.strategies.ipip.settings import Instability
from mlipkit.strategies.ipip.spread import spread
from mlipkit.strategies.ipip.tolerant import Tolerant
from mlipkit.strategies.ipip.tools import CONTENT, LoopTools, as_told, structures
from mlipkit.strategies.workflows.plan import Stage
from mlipkit.strategies.workflows.work import Work

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.models import BasePotential

DEFAULT_CAP = 50.0
"""eV/Å, of the teacher's own first MD where the cap is to come from its pool."""


class LoopWork(Work):
    """A plan of the loop, its folder, and what of it is done."""

    plan: LoopPlan
    tools: LoopTools

    def claim(self) -> None:
        """As `Work.claim`; folders from before it was told what is in a teacher go on, and, where it is accepted, those
        of which the teacher has changed."""
        path = self.folder / "plan.json"
        if path.is_file():
            theirs = read_json(path).get("tools") or {}
            self.words = as_told(self.words, theirs)
            if self.tools.accept_teacher and theirs.get(CONTENT) != self.words.get(CONTENT):
                said = "The teacher has changed since this run began: labels of this run come from both versions"
                self.sink(Message(said, "warning"))
                self.words = {**self.words, CONTENT: theirs[CONTENT]}
        super().claim()

    def otherwise(self, names: Sequence[str]) -> str:
        if list(names) != [CONTENT]:
            return super().otherwise(names)
        return (
            "The teacher's weights or code have changed since. Bring back the former ones, or, where its labels stay "
            "valid (it answers for more frames now), go on with accept_teacher: true"
        )

    def unlike(self, theirs: Any) -> list[str]:
        return [name for name in super().unlike(theirs) if not (self.tools.accept_teacher and name == CONTENT)]

    def note(self, stage: Stage) -> None:
        """Everything that is told of the whole is in the facts of its stages."""

    def pool(self, name: str) -> Pool:
        return Pool.open(self.folder_of(name))

    def potential(self, name: str) -> BasePotential:
        """A student, or the teacher."""
        return self.tools.load(self.weights(name))

    def starts(self, name: str, count: int | None = None) -> list[Atoms]:
        """Start structures, repeated where there are fewer."""
        frames = FrameSet.open(self.folder_of(name) / "frames")
        return [_bare(frames.atoms(k % len(frames))) for k in range(len(frames) if count is None else count)]

    def cap(self, options: Mapping[str, Any], stage: Stage) -> float:
        """eV/Å: as given, else from the first pool."""
        given = options["force_cap"]
        if given is not None:
            return float(given)
        first = next((name for name in stage.inputs.get("pool", ()) if name in self.records), None)
        return DEFAULT_CAP if first is None else force_cap(self.pool("pool_0").frames)

    def figures(self) -> dict[str, Any]:
        seconds: dict[str, float] = {}
        for stage in self.plan.stages:
            if stage.name in self.records:
                seconds[stage.does] = round(seconds.get(stage.does, 0.0) + self.seconds[stage.name], 3)
        spent = self.plan.spent(self.records)
        return {"stages": len(self.records), "of": len(self.plan.stages), "seconds": seconds,
                "gradient_steps": spent.steps, "teacher_labels": spent.teacher_labels}  # fmt: skip


def starts(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    """From the training frames only: what is tested on shall not be where simulations begin."""
    frames = work.tools.train
    rows = structures(frames, stage.options["count"], stage.seeds["draw"])
    frames.select(rows).without_labels(velocities=False).save(folder / "frames")
    return {"sentence": f"{len(rows)} starts from {len(set(rows))} training frames", "rows": list(rows)}


def sample(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.md import endings

    teacher = stage.inputs["model"][0] == TEACHER_MODEL
    cap = work.cap(stage.options["instability"], stage)
    potential, errors = work.potential(stage.inputs["model"][0]), folder / "teacher_error.txt"
    if teacher:
        potential = Tolerant(potential, lambda text: _keep_first(errors, text))
    before, begin = sum(one.step for one in endings(folder)), time.monotonic()
    found = run_md(potential, work.starts(stage.inputs["starts"][0]), stage.options, stage.seeds, cap, folder,
                   work.heard, work.control, work.tools.skin)  # fmt: skip
    seconds, made = time.monotonic() - begin, sum(one.step for one in found)
    facts = ended(found)
    facts |= {
        "force_cap": cap, "seconds": round(seconds, 3),
        "steps_per_s": round((made - before) / seconds, 3) if made > before else None,
        "model": stage.inputs["model"][0], "spent": {"teacher_md" if teacher else "student_md": made},
    }  # fmt: skip
    if errors.is_file():
        facts["teacher_error"] = errors.read_text(encoding="utf-8")
    if teacher and facts["failed"]:
        why = f"; it raised {facts['teacher_error']}" if "teacher_error" in facts else ""
        text = f"{facts['failed']} of {len(found)} runs of the teacher failed and are left out{why}"
        work.sink(Message(f"{stage.name}: {text}{_taken_for_failure(facts)}", "warning"))
    return facts


def _taken_for_failure(facts: Mapping[str, Any]) -> str:
    """Which limits to look at where most runs of a teacher fail: chemistry may be what breaks them."""
    limits = [LIMIT_OF[name] for name in facts["reasons"] if name in LIMIT_OF]
    if facts["fraction"] <= 0.5 or not limits:
        return ""
    counted = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in facts["reasons"].items())
    return f" ({counted}): is it chemistry that breaks a limit? See instability.{', instability.'.join(limits)}"


LIMIT_OF = {"mean_temperature": "hot", "stretched_bonds": "stretch", "overlap": "overlap", "max_force": "force_cap"}


def _keep_first(path: Path, text: str) -> None:
    """In the stage's folder, where an attempt after a kill finds it."""
    if not path.exists():
        write_whole(path, text.encode())


def pool(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    """The first pool: stored frames of the teacher's runs with its own labels; runs that failed are left out."""
    source = stage.inputs["runs"][0]
    _some_held(work, source)
    limits = Instability.from_json(work.plan[source].options["instability"])
    runs = [run for run in runs_of(work.folder_of(source), work.records[source]["runs"], limits) if run.failed is None]
    parts = [
        Pool.of(run.stored, labeller=TEACHER, origin="teacher_md", iteration=0, start=run.start, step=run.steps)
        for run in runs
        if len(run.stored)
    ]
    whole, doubles = parts[0], 0
    for one in parts[1:]:
        whole, more = whole.add(one)
        doubles += more
    whole, known = whole.without(work.tools.held_out)
    whole.save(folder)
    return {"sentence": f"{len(whole)} frames with the teacher's labels", "composition": whole.composition(),
            "dropped": {"double": doubles, HELD_OUT: known},
            "spent": {"teacher_labels": len(whole)}}  # fmt: skip


def _some_held(work: LoopWork, md: str) -> None:
    """Of the teacher's runs.

    Raises:
        RunError: none did.
    """
    facts = work.records[md]
    if all(one["failed"] for one in facts["runs"]):
        raise RunError(
            "no run of the teacher reached its end", where=md, found=facts.get("teacher_error") or facts["sentence"],
            hint="Shorter steps, a lower temperature, or another teacher",
        )  # fmt: skip


def choose(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    source, before = stage.inputs["runs"][0], stage.inputs["pool"][0]
    options = stage.options
    limits = Instability.from_json(options["instability"])
    teacher = work.plan[source].inputs["model"][0] == TEACHER_MODEL
    if teacher:
        _some_held(work, source)
    runs = runs_of(work.folder_of(source), work.records[source]["runs"], limits)
    # The plan counts on runs that all reach their end; what comes is a share of a pool as it is: of the one of which
    # as much is forgotten, or, where pools grow, of the first.
    of, share = before, options["forget"]
    if options["grow"]:
        of, share = "pool_0", options["count"] / work.plan.frames_of("pool_0")
    count = forgotten(work.records[of]["composition"]["size"], share)
    errors: list[str] = []
    found, facts = choose_frames(
        runs, count, partial(work.tools.label, errors=errors), limits, work.records[source]["force_cap"],
        student=TEACHER if teacher else work.plan[source].round - 1, iteration=stage.round,
        prefer_unstable=options["prefer_unstable"], seed=stage.seeds["choose"], pool=work.pool(before).frames,
        held_out=work.tools.held_out,
    )  # fmt: skip
    if found is not None:
        found.save(folder)
        facts["composition"] = found.composition()
    lost = {why: n for why, n in facts["dropped"].items() if n}
    if errors:
        facts["teacher_error"] = errors[0]
    if 0 < facts["labelled"] == lost.get("teacher fails"):
        raise RunError(
            f"the teacher could label none of {facts['labelled']} new frames", where=stage.name,
            found=errors[0] if errors else "energies or forces that are not finite numbers",
            hint="Try it on a training frame (mlipkit label), set right what it lacks, and resume",
        )  # fmt: skip
    text = f"{facts['chosen']} of {count} new frames, {facts['unstable']} of them from before failures"
    if facts["chosen"] < count or errors:
        why = [f"{n} dropped: {name}" for name, n in lost.items()] + [f"the teacher raised {one}" for one in errors[:1]]
        work.sink(Message(f"{stage.name}: {'; '.join([text, *why])}", "warning"))
    return {**facts, "sentence": text, "spent": {"teacher_labels": facts["labelled"] + facts["probed"]}}


def renew(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    """Forget, relabel what remains with the student, add what came new."""
    options, before = stage.options, stage.inputs["pool"][0]
    old = work.pool(before)
    student = work.plan[stage.inputs["model"][0]].round
    left, lost = old.forget(options["forget"], stage.seeds["forget"])
    rows, refused, versus, change = left.candidates(options["relabel"]), 0, None, None
    if len(rows):
        potential = work.potential(stage.inputs["model"][0])
        some = left.frames.select(rows)
        said = work.tools.predict(potential, some)
        may = (said.has("energy") & said.has("forces")) if options["gate"] == "off" else _gated(work, stage, said)
        refused = int((~may).sum())
        apart = np.add.reduceat(np.abs(said.forces - some.forces).mean(1), some.offsets[:-1]) / some.n_atoms
        taught = (left.table["labeller"][rows] == TEACHER) & np.isfinite(apart)
        versus = float(np.mean(apart[taught])) if taught.any() else None
        change = float(np.mean(apart[may])) if may.any() else None
        keep = np.flatnonzero(may)
        left = left.relabel(rows[keep], said.select(keep), student, stage.round)
        rows = rows[keep]
    source, came = stage.inputs["new"][0], 0
    if "composition" in work.records[source]:
        size = len(left)
        left, _ = left.add(work.pool(source))
        came = len(left) - size
    if not len(left):
        raise DataError("the pool is empty", where=stage.name, hint="Forget less, or take new frames")
    left.save(folder, previous=work.folder_of(before))
    found = left.composition()
    return {
        "sentence": f"{lost} forgotten, {len(rows)} relabelled, {came} new: {found['size']} frames, "
        f"{found['teacher_share']:.0%} with the teacher's labels",
        "forgotten": lost, "relabelled": len(rows), "refused": refused, "new": came,
        "student_vs_teacher": versus, "label_change": change, "composition": found,
    }  # fmt: skip


def _gated(work: LoopWork, stage: Stage, said: FrameSet) -> np.ndarray:
    options = stage.options
    names = stage.inputs["models"] if options["gate"] == "committee" else stage.inputs["model"]
    students = [work.potential(name) for name in names]
    apart = spread(students, said, options["noise"], stage.seeds["spread"], work.tools.batch_size)
    cap = work.cap(options, stage)
    return gate(np.asarray(said.forces), apart, np.asarray(said.n_atoms), cap) & said.has("energy") & said.has("forces")


def pretrain(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    previous = stage.inputs.get("model")
    start = None if not previous else work.potential(previous[0])
    return fitting.pretrain(work.tools, work.pool(stage.inputs["pool"][0]), stage.options, stage.seeds, start, folder,
                            work.heard, work.control)  # fmt: skip


def finetune(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    name = stage.inputs.get("model", ("",))[0]
    return fitting.finetune(
        work.tools, work.potential(name) if name else None, stage.options["steps"], stage.seeds, folder, work.heard,
        work.control, universal=name == TEACHER_MODEL,
    )  # fmt: skip


def stability(work: LoopWork, stage: Stage, folder: Path) -> dict[str, Any]:
    from mlipkit.strategies.ipip.stability import stability_test

    name = work.records["evaluate"]["selected"] if "evaluation" in stage.inputs else stage.inputs["model"][0]
    facts = stability_test(
        work.potential(name), work.starts(stage.inputs["starts"][0], stage.options["runs"]),
        stage.options, stage.seeds, work.cap(stage.options["instability"], stage), folder, work.heard, work.control,
        work.tools.skin,
    )  # fmt: skip
    return {**facts, "model": name}


DO: dict[str, Callable[[Any, Stage, Path], dict[str, Any]]] = {
    "starts": starts, "sample": sample, "pool": pool, "choose": choose, "renew": renew, "pretrain": pretrain,
    "finetune": finetune, "evaluate": evaluate, "stability": stability, "reaction": stability,
}  # fmt: skip


def _bare(atoms: Atoms) -> Atoms:
    """Positions and cell alone."""
    atoms.calc = None
    atoms.arrays.pop("momenta", None)
    atoms.info.clear()
    return atoms
