"""The arms as stages: the loop, what it is compared with, and itself without one of its parts. Pure functions.

====================  ==========================================================================================
arm                   what it does with the same DFT frames and the same number of gradient steps
====================  ==========================================================================================
ipip                  P_0 of the teacher, pretrain, fine-tune; then K times: MD of the student, forget, relabel, new
                      frames of unstable runs, pretrain, fine-tune
continual             the loop as continual pretraining: weights of each pretraining go on to the next, the teacher
                      labels everything
no_new_frames         the continual loop, the first pool as it is: the same trainings without what students ran into
no_student_md         the continual loop, as many new frames, of more MD of the teacher at the same temperature
no_forgetting         the loop, nothing forgotten (as many new frames, so that the pool grows)
no_relabelling        the loop, the teacher labels everything
no_unstable           the loop, new frames uniformly from all runs
no_fresh_weights      the loop, each pretraining goes on from the student before
scratch               the DFT frames alone
one_shot              P_0 (forces of the teacher), then the DFT frames
denoising             predict Gaussian noise on P_0, then the DFT frames
denoising_fractional  the same after rotating torsions
distillation          energies and forces of the teacher on P_0
n2n                   forces, and the teacher's features from a linear map of the student's
a2a                   forces, and the teacher's energies of atoms less one shift per element (our reading)
hessian               forces, and random rows of the teacher's Hessian
teacher               the teacher itself fine-tuned on the DFT frames
====================  ==========================================================================================

Source: arXiv 2507.20118; the comparison methods are defined by us where the paper only names them, and `continual` is
ours: what was left of the loop when each part that made errors larger was taken out (docs/ipip_case.md).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mlipkit.errors import SpecError, nearest
from mlipkit.strategies.ipip.pools import forgotten, probe
from mlipkit.strategies.ipip.settings import Settings
from mlipkit.strategies.workflows.plan import UNTOUCHED, Plan, Stage

CURES = ("ipip", "continual")
"""Loops that are proposed, each to be judged by the best control."""
PARTS = {
    "ipip": {
        "no_forgetting": "forgetting", "no_relabelling": "relabelling", "no_unstable": "preferring unstable runs",
        "no_fresh_weights": "starting from fresh weights",
    },
    "continual": {"no_new_frames": "adding new frames", "no_student_md": "MD of the students"},
}  # fmt: skip
"""Loop -> arm that is this loop without one of its parts -> the part in words."""
WHOLE = {part: loop for loop, parts in PARTS.items() for part in parts}
"""Arm without a part -> the loop that has it."""
LOOPS = (*CURES, *WHOLE)
CARRIED_OVER = {"init": "previous_pretrained", "relabel": "off", "gate": "off"}
"""Settings that make the continual loop of any."""
PRETRAINED = ("one_shot", "denoising", "denoising_fractional", "distillation", "n2n", "a2a", "hessian")
ARMS = (*LOOPS, "scratch", *PRETRAINED, "teacher")
TEACHER_MODEL = UNTOUCHED
"""Name of the teacher as it was given, where a stage names a model."""


@dataclass(frozen=True)
class Budget:
    """What an arm spends.

    Attributes:
        steps: gradient steps of all trainings.
        teacher_labels: frames that the teacher labels, those of its own MD and those that only rank new frames
            included, and its force calls for rows of the Hessian; planned as if no run failed. What it labels and a
            limit then drops comes on top.
        teacher_md, student_md: MD steps times runs.
    """

    steps: int = 0
    teacher_labels: int = 0
    teacher_md: int = 0
    student_md: int = 0

    @property
    def sentence(self) -> str:
        """``12000 gradient steps, 2600 labels of the teacher, 40000 MD steps of it, 120000 of students``."""
        return (
            f"{self.steps} gradient steps, {self.teacher_labels} labels of the teacher, {self.teacher_md} MD steps "
            f"of it, {self.student_md} of students"
        )

    def of(self, planned: Budget) -> str:
        """What was spent of a plan."""
        return (
            f"{self.steps} of {planned.steps} gradient steps, {self.teacher_labels} of {planned.teacher_labels} labels "
            f"of the teacher, {self.teacher_md} of {planned.teacher_md} MD steps of it, {self.student_md} of "
            f"{planned.student_md} of students"
        )


class LoopPlan(Plan):
    """A plan whose deeds are those of the loop."""

    KNOWN: ClassVar[tuple[str, ...]] = (
        "starts", "sample", "pool", "choose", "renew", "pretrain", "finetune", "evaluate", "stability", "reaction",
    )  # fmt: skip

    @property
    def loop(self) -> Settings:
        """The numbers it was made from."""
        return Settings.from_json(dict(self.settings))

    def frames_of(self, name: str) -> int:
        stage = self[name]
        return int(stage.options.get("count", 0))

    @property
    def budget(self) -> Budget:
        spent = dict.fromkeys(("steps", "teacher_labels", "teacher_md", "student_md"), 0)
        for stage in self.stages:
            if stage.does == "sample":
                who = "teacher_md" if stage.inputs["model"][0] == TEACHER_MODEL else "student_md"
                spent[who] += stage.options["steps"] * self.frames_of(stage.inputs["starts"][0])
            elif stage.does in ("pretrain", "finetune"):
                spent["steps"] += stage.options["steps"]
                spent["teacher_labels"] += self._calls(stage)
            elif stage.does in ("pool", "choose"):
                spent["teacher_labels"] += stage.options["count"]
                if stage.options.get("prefer_unstable") and stage.options["count"]:
                    spent["teacher_labels"] += self._probed(self[stage.inputs["runs"][0]])
        return Budget(**spent)

    @property
    def hessian_calls(self) -> int:
        """Labels of the teacher that are force calls for rows of its Hessian."""
        return sum(self._calls(stage) for stage in self.stages if stage.does == "pretrain")

    def _calls(self, stage: Stage) -> int:
        rows = stage.options.get("rows", 0)
        return force_calls(rows, self.frames_of(stage.inputs["pool"][0])) if rows else 0

    def _probed(self, md: Stage) -> int:
        """Frames that are labelled to rank those of simulations of which none fails."""
        stored = md.options["steps"] // md.options["stride"]
        return self.frames_of(md.inputs["starts"][0]) * len(probe(stored))

    def spent(self, records: Mapping[str, Mapping[str, Any]]) -> Budget:
        spent = dict.fromkeys(("steps", "teacher_labels", "teacher_md", "student_md"), 0)
        for stage in self.stages:
            for name, value in (records.get(stage.name, {}).get("spent") or {}).items():
                spent[name] += int(value)
        return Budget(**spent)

    def words(self, stage: Stage) -> str:
        options = stage.options
        if stage.does == "sample":
            who = "teacher" if stage.inputs["model"][0] == TEACHER_MODEL else "student"
            length = options["steps"] * options["timestep"] / 1000
            return f"{length:g} ps of MD of the {who} at {options['temperature']:g} K"
        if stage.does in ("pretrain", "finetune"):
            what = f" on {options['objective'].replace('_', ' ')}" if stage.does == "pretrain" else ""
            return f"{options['steps']} steps{what}"
        if stage.does in ("starts", "pool", "choose"):
            noun = {"starts": "start structures", "pool": "frames of the teacher", "choose": "new frames"}[stage.does]
            return f"{options['count']} {noun}"
        if stage.does == "renew":
            return f"forget {options['forget']:.0%}, relabel {options['relabel']}"
        if stage.does == "stability":
            return f"{options['runs']} runs at {options['temperature']:g} K"
        if stage.does == "reaction":
            who = f" of {options['track']}" if options["track"] else ""
            return f"{options['runs']} runs at {options['temperature']:g} K, species{who}"
        return stage.does


def force_calls(rows: int, frames: int) -> int:
    """Of central differences for so many rows of the Hessian of each frame: one on either side."""
    return 2 * rows * frames


def plan(arm: str, settings: Settings | None = None, seed: int = 0) -> LoopPlan:
    """The plan of an arm.

    Raises:
        SpecError: unknown arm; one that leaves out what the loop does not have; a loop whose pool cannot change as
            it is asked to.
    """
    if arm not in ARMS:
        raise SpecError(f"unknown arm '{arm}'", where="ipip", hint=nearest(arm, ARMS))
    given = settings or Settings()
    draft = _Draft(without(arm, given), seed)
    if arm in LOOPS:
        draft.loop()
    elif arm == "scratch":
        draft.finetune(None, draft.settings.total_steps, 0)
    elif arm == "teacher":
        steps = draft.settings.teacher_steps
        draft.finetune(TEACHER_MODEL, draft.settings.total_steps if steps is None else steps, 0)
    else:
        rounds = draft.settings.iterations + 1
        pool = draft.first_pool()
        made = draft.pretrain(pool, arm, rounds * draft.settings.pretrain_steps, 0)
        draft.finetune(made, rounds * draft.settings.finetune_steps, 0)
    draft.evaluation()
    made = LoopPlan(arm, seed, tuple(draft.stages), draft.settings.to_json())
    if arm in WHOLE:
        _check_part(made, plan(WHOLE[arm], given, seed))
    if arm in LOOPS:
        _check_loop(made)
    return made


def _check_loop(made: LoopPlan) -> None:
    """Refuse a loop that would never change its pool although it is asked to."""
    one = made.loop
    if one.iterations and one.forget and one.pool == "replace" and not forgotten(one.pool_frames, one.forget):
        raise SpecError("no iteration would forget or add a frame", where="loop.forget",
                        found=f"{one.forget:g} of {one.pool_frames} frames",
                        expected=f"0, or at least {0.5 / one.pool_frames:.2g}")  # fmt: skip
    if one.md_of == "teacher" and not _takes_new(made):
        raise SpecError("no frame would be taken of the teacher's further MD", where="loop.md_of",
                        hint="Forget some, or let the pool grow; or leave the MD to the students")  # fmt: skip


def _check_part(made: LoopPlan, whole: LoopPlan) -> None:
    """Refuse to leave out what the loop lacks."""
    one, nothing_new = whole.loop, not _takes_new(whole)
    relabels = one.relabel == "all" or (one.relabel == "student_origin" and one.md_of == "student")
    idle = {
        "no_forgetting": not one.forget, "no_unstable": nothing_new, "no_new_frames": nothing_new,
        "no_student_md": nothing_new, "no_relabelling": not relabels, "no_fresh_weights": one.init != "fresh",
    }  # fmt: skip
    if idle.get(made.arm) or made.stages == whole.stages:
        raise SpecError(
            "the loop lacks this part already, so that nothing is left out", where=("arm", made.arm),
            hint="Compare it with a loop that has the part",
        )  # fmt: skip


def _takes_new(made: LoopPlan) -> bool:
    return any(one.options["count"] for one in made.of("choose"))


def without(arm: str, settings: Settings) -> Settings:
    """The loop less the part that an arm leaves out, or with the changes that make it another loop."""
    # As many new frames as the loop itself takes.
    share = settings.forget if settings.pool == "replace" else settings.new_share
    changes: dict[str, Any] = {
        "continual": CARRIED_OVER,
        "no_new_frames": {**CARRIED_OVER, "forget": 0.0, "new_share": 0.0, "pool": "replace"},
        "no_student_md": {**CARRIED_OVER, "md_of": "teacher", "md_seeds": "same", "prefer_unstable": False},
        "no_forgetting": {"forget": 0.0, "new_share": share, "pool": "grow"},
        "no_relabelling": {"relabel": "off", "gate": "off"},
        "no_unstable": {"prefer_unstable": False},
        "no_fresh_weights": {"init": "previous_finetuned"},
    }.get(arm, {})
    return dataclasses.replace(settings, **changes)


class _Draft:
    """Stages so far, and the students that were fine-tuned."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.stages: list[Stage] = []
        self.students: list[str] = []

    def seed_of(self, *words: str, base: int | None = None) -> int:
        """A seed of its own for every purpose; the same in all arms and, for trainings, in all iterations."""
        keys = [self.seed if base is None else base, *(zlib.crc32(word.encode()) for word in words)]
        return int(np.random.SeedSequence(keys).generate_state(1, np.uint32)[0])

    def add(self, name: str, does: str, **more: Any) -> str:
        more["inputs"] = {role: (one,) if isinstance(one, str) else tuple(one)
                          for role, one in more.get("inputs", {}).items()}  # fmt: skip
        self.stages.append(Stage(name, does, **more))
        return name

    # The steps that arms are made of

    def first_pool(self) -> str:
        one = self.settings.sampling
        self.add("starts", "starts", options={"count": one.starts},
                 seeds={"draw": self.seed_of("starts", base=self.settings.pool_seed)})  # fmt: skip
        md = self.sample(TEACHER_MODEL, 0)
        return self.add("pool_0", "pool", inputs={"runs": md}, options={"count": self.settings.pool_frames})

    def sample(self, model: str, iteration: int) -> str:
        """Starts, thermostat, length and, unless fresh ones are asked for, seeds are those of the teacher's first; its
        later ones would be that one again."""
        one = dataclasses.asdict(self.settings.sampling)
        one.pop("starts")
        batch = one.pop("batch")
        options = {**one, "instability": self.settings.instability.to_json()}
        if batch is not None:
            options["batch"] = batch
        fresh = self.settings.md_seeds == "fresh" or model == TEACHER_MODEL
        apart = [str(iteration)] if iteration and fresh else []
        seeds = {name: self.seed_of(name, *apart, base=self.settings.pool_seed)
                 for name in ("velocities", "thermostat")}  # fmt: skip
        inputs = {"model": model, "starts": "starts"}
        if iteration:
            inputs["pool"] = "pool_0"
        return self.add(f"md_{iteration}", "sample", inputs=inputs, options=options, seeds=seeds, round=iteration)

    def pretrain(self, pool: str, objective: str, steps: int, iteration: int, previous: str | None = None) -> str:
        one = self.settings
        options: dict[str, Any] = {
            "objective": objective, "steps": steps, "energy": one.pretrain_energy, "split": one.pool_split,
        }  # fmt: skip
        if objective.startswith("denoising"):
            options |= {"noise": one.noise}
        if objective == "denoising_fractional":
            options |= {"torsion": one.torsion, "copies": one.copies}
        if objective in ("n2n", "a2a", "hessian"):
            options |= {"signal": one.signal}
        if objective == "hessian":
            options |= {"rows": one.hessian_rows}
        # The same in every iteration: where the pool has not changed, neither do the weights.
        seeds = {name: self.seed_of(f"pretrain {name}") for name in ("init", "shuffle", "noise")}
        inputs: dict[str, Any] = {"pool": pool} | ({"model": previous} if previous else {})
        return self.add(f"pretrain_{iteration}", "pretrain", inputs=inputs, options=options,
                        seeds={**seeds, "split": one.split_seed}, round=iteration)  # fmt: skip

    def finetune(self, model: str | None, steps: int, iteration: int) -> str:
        seeds = {name: self.seed_of(f"{'finetune' if name != 'init' else 'pretrain'} {name}")
                 for name in ("init", "shuffle")}  # fmt: skip
        inputs = {} if model is None else {"model": model}
        name = self.add(f"finetune_{iteration}", "finetune", inputs=inputs, options={"steps": steps}, seeds=seeds,
                        round=iteration)  # fmt: skip
        self.students.append(name)
        return name

    def loop(self) -> None:
        one = self.settings
        pool = self.first_pool()
        made = self.pretrain(pool, "one_shot", one.pretrain_steps, 0)
        student = self.finetune(made, one.finetune_steps, 0)
        size = one.pool_frames
        for k in range(1, one.iterations + 1):
            md = self.sample(student if one.md_of == "student" else TEACHER_MODEL, k)
            lost = forgotten(size, one.forget)
            count = lost if one.pool == "replace" else forgotten(one.pool_frames, one.new_share)
            self.add(f"choose_{k}", "choose", inputs={"runs": md, "pool": pool}, round=k,
                     options={"count": count, "prefer_unstable": one.prefer_unstable and one.md_of == "student",
                              "grow": one.pool == "grow", "forget": one.forget,
                              "instability": one.instability.to_json()},
                     seeds={"choose": self.seed_of("choose", str(k))})  # fmt: skip
            pool = self.add(
                f"pool_{k}", "renew", round=k,
                inputs={"pool": pool, "new": f"choose_{k}", "model": student, "models": self.students[:k]},
                options={"forget": one.forget, "relabel": one.relabel, "gate": one.gate, "noise": one.noise,
                         "force_cap": one.instability.force_cap},
                seeds={"forget": self.seed_of("forget", str(k)), "spread": self.seed_of("spread", str(k))},
            )  # fmt: skip
            size += count - lost
            previous = {"fresh": None, "previous_pretrained": made, "previous_finetuned": student}[one.init]
            made = self.pretrain(pool, "one_shot", one.pretrain_steps, k, previous)
            student = self.finetune(made, one.finetune_steps, k)

    def evaluation(self) -> None:
        models = [TEACHER_MODEL, *self.students]
        last = len(self.students) - 1
        self.add("evaluate", "evaluate", inputs={"models": models}, purpose="evaluation", round=last)
        for deed, test in (("stability", self.settings.stability), ("reaction", self.settings.reaction)):
            if test.runs:
                self.simulations(deed, dataclasses.asdict(test))

    def simulations(self, deed: str, options: dict[str, Any]) -> None:
        """A test by MD of the student that validation selects, of the last, or of all."""
        if not any(stage.name == "starts" for stage in self.stages):
            self.add("starts", "starts", options={"count": self.settings.sampling.starts}, purpose="evaluation",
                     seeds={"draw": self.seed_of("starts", base=self.settings.pool_seed)})  # fmt: skip
        models = options.pop("models")
        seeds = {name: self.seed_of(deed, name, base=self.settings.pool_seed)
                 for name in ("velocities", "thermostat")}  # fmt: skip
        options |= {"instability": self.settings.instability.to_json()}
        if models == "selected" and len(self.students) > 1:
            self.add(deed, deed, purpose="evaluation", seeds=seeds, round=len(self.students) - 1, options=options,
                     inputs={"models": self.students, "evaluation": "evaluate", "starts": "starts"})  # fmt: skip
            return
        chosen = self.students if models == "all" else self.students[-1:]
        for name in chosen:
            self.add(f"{deed}_{name.rpartition('_')[2]}", deed, purpose="evaluation", seeds=seeds,
                     inputs={"model": name, "starts": "starts"}, round=self.students.index(name),
                     options=options)  # fmt: skip


def equal_steps(plans: Iterable[LoopPlan]) -> str:
    """Refuse to set arms side by side that differ in gradient steps; the fine-tuned teacher is named apart.

    Raises:
        SpecError: names the first two that differ.
    """
    chosen = list(plans)
    students = [one for one in chosen if one.arm != "teacher"]
    for other in students[1:]:
        if other.budget.steps != students[0].budget.steps:
            raise SpecError(
                "unequal budgets, so a comparison would be meaningless", where=f"{students[0].arm} and {other.arm}",
                expected=f"{students[0].budget.steps} gradient steps", found=other.budget.steps,
            )  # fmt: skip
    labels = {one.arm: f"{one.budget.teacher_labels}" for one in chosen}
    extra = {one.arm: one.budget.teacher_md for one in chosen if one.loop.md_of == "teacher" and one.arm in LOOPS}
    labels |= {arm: f"{labels[arm]} (and {steps} MD steps of it)" for arm, steps in extra.items()}
    labels |= {one.arm: f"{labels[one.arm]} ({one.hessian_calls} of them force calls for rows of the Hessian)"
               for one in chosen if one.hessian_calls}  # fmt: skip
    text = f"Equal budgets: {students[0].budget.steps} gradient steps in every student's arm" if students else ""
    teachers = sorted({one.budget.steps for one in chosen if one.arm == "teacher"})
    text += f", {'/'.join(map(str, teachers))} of the (far dearer) teacher" if teachers else ""
    return f"{text}; labels of the teacher: {', '.join(f'{arm} {n}' for arm, n in labels.items())}."
