"""The arms: how each turns the same budget of labels and MD time into stages. Pure functions of settings and seed.

==============  ==============================================================================================
arm             data flow
==============  ==============================================================================================
naive           several starts, all runs with the untouched model U; one fine-tuning per size, on nested draws
iterative       one start, U; then each run with the model fine-tuned on all frames so far, from the last frame
longrun         one start, one run with U as long as all others together; sizes are its first labelled frames
hybrid          several starts side by side, fine-tuned together after each round
packmol_first   relaxed packings are labelled first; the model tuned on them runs MD; tuned again on both
high_force      rattled and strained structures and hot MD frames
==============  ==============================================================================================

Source: arXiv 2603.10159, where the iterative arm is called "periodic" and the long run "nonperiodic".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlipkit.errors import SpecError, nearest
from mlipkit.strategies.workflows.picking import pick_rows
from mlipkit.strategies.workflows.plan import UNTOUCHED, Plan, Stage
from mlipkit.strategies.workflows.settings import Settings


def plan(arm: str, settings: Settings | None = None, seed: int = 0) -> Plan:
    """The plan of an arm.

    Raises:
        SpecError: unknown arm; settings that it cannot be made from.
    """
    if arm not in ARMS:
        raise SpecError(f"unknown arm '{arm}'", where="workflow", hint=nearest(arm, ARMS))
    settings = settings or Settings()
    draft = _Draft(arm, settings, seed)
    ARMS[arm](draft)
    _evaluation(draft)
    made = Plan(arm, seed, tuple(draft.stages), settings.to_json())
    for stage in made.of("finetune"):
        if made.trained_on(stage) < 2:
            raise SpecError("one frame to train on and none to validate with", where=stage.name,
                            expected="at least 2 labelled frames", hint="Raise frames (per run) or sizes")  # fmt: skip
    return made


class _Draft:
    """Stages so far, and the models that were fine-tuned."""

    def __init__(self, arm: str, settings: Settings, seed: int) -> None:
        self.arm, self.settings, self.seed = arm, settings, seed
        self.stages: list[Stage] = []
        self.models: list[str] = []

    def seed_of(self, purpose: str, name: str, shared: bool = False) -> int:
        """A seed of its own for every purpose of every stage; shared ones are the same in all arms."""
        words = [self.seed, zlib.crc32((purpose if shared else f"{self.arm} {purpose}").encode()),
                 zlib.crc32(name.encode())]  # fmt: skip
        return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])

    def add(self, name: str, does: Any, **more: Any) -> str:
        more["inputs"] = {role: (one,) if isinstance(one, str) else tuple(one)
                          for role, one in more.get("inputs", {}).items()}  # fmt: skip
        self.stages.append(Stage(name, does, **more))
        return name

    # The steps that arms are made of

    def structures(self, name: str, count: int, shared: bool = False, **more: Any) -> str:
        more.setdefault("seeds", {"packing": self.seed_of("packing", name, shared)})
        return self.add(name, "structures", options={"count": count}, **more)

    def starts(self, name: str, count: int, shared: bool = False, **more: Any) -> str:
        """Structures that MD begins with: as they were made, or relaxed."""
        made = self.structures(name, count, shared, **more)
        if not self.settings.relax_starts:
            return made
        more.pop("seeds", None)
        return self.add(f"relax_{name}", "relax", inputs={"frames": made, "model": UNTOUCHED}, **more)

    def simulate(
        self, name: str, model: str, start: str, index: int = 0, *, steps: int | None = None,
        temperature: float | None = None, shared: bool = False, round: int = 0, **more: Any,
    ) -> str:  # fmt: skip
        one = self.settings
        options = {
            "steps": steps or one.steps, "timestep": one.timestep, "stride": one.stride,
            "temperature": one.temperature if temperature is None else temperature, "index": index,
            "density": list(one.density), "failure": one.failure, **dict(one.md), **more.pop("options", {}),
        }  # fmt: skip
        seeds = more.pop("seeds", None) or {
            purpose: self.seed_of(purpose, name, shared) for purpose in ("velocities", "thermostat")
        }
        inputs = {"model": model, "start": start}
        return self.add(name, "simulate", inputs=inputs, options=options, seeds=seeds, round=round, **more)

    def label(self, name: str, source: str, rows: Sequence[int] | None, count: int, round: int = 0, **more: Any) -> str:
        """Pick frames of `source`, let the user look at them when asked to, label them."""
        role = "frames" if rows is None else "trajectory"
        options: dict[str, Any] = {"count": count} | ({} if rows is None else {"rows": list(rows)})
        chosen = self.add(f"pick_{name}", "pick", inputs={role: source}, options=options, round=round, **more)
        if self.settings.review and more.get("purpose") != "evaluation":
            chosen = self.add(f"review_{name}", "review", inputs={"frames": chosen}, round=round)
        return self.add(f"label_{name}", "label", inputs={"frames": chosen}, round=round, **more)

    def finetune(self, data: Sequence[str], round: int, **options: Any) -> str:
        name = f"finetune_{round}"
        base = self.models[-1] if self.models and self.settings.base == "previous" else UNTOUCHED
        seeds = {purpose: self.seed_of(purpose, name) for purpose in ("split", "shuffle")}
        if options.get("choose") == "draw":
            # One permutation for all sizes: draws are nested.
            seeds["draw"] = self.seed_of("draw", "all")
        self.add(name, "finetune", inputs={"model": base, "data": data}, seeds=seeds, round=round,
                 options={**dict(self.settings.train), **options})  # fmt: skip
        self.models.append(name)
        return name

    def rows(self, count: int | None = None) -> list[int]:
        one = self.settings
        return pick_rows(one.rows, equilibration=one.equilibration, count=count or one.frames, spacing=one.spacing)

    def sizes(self) -> list[int]:
        one = self.settings
        sizes = list(one.sizes or [(k + 1) * one.frames for k in range(one.runs)])
        if sizes[-1] > one.labels:
            raise SpecError("more frames than are labelled", where="sizes", expected=f"at most {one.labels}",
                            found=sizes[-1])  # fmt: skip
        return sizes


def _naive(draft: _Draft) -> None:
    one = draft.settings
    shared = one.share_first_run
    starts = [draft.starts("start", 1, shared)]
    if one.runs > 1:
        starts.append(draft.starts("more_starts", one.runs - 1))
    labels = []
    for k in range(one.runs):
        start, index = (starts[0], 0) if k == 0 else (starts[1], k - 1)
        md = draft.simulate(f"md_{k + 1}", UNTOUCHED, start, index, shared=shared and k == 0, round=0)
        labels.append(draft.label(str(k + 1), md, draft.rows(), one.frames))
    for k, size in enumerate(draft.sizes(), 1):
        if one.run_by_run:
            draft.finetune(labels[: -(-size // one.frames)], k, choose="first", size=size)
        else:
            draft.finetune(labels, k, choose="draw", size=size)


def _iterative(draft: _Draft) -> None:
    one = draft.settings
    if one.sizes is not None:
        raise SpecError("the iterative arm has the sizes of its rounds", where="sizes", hint="Leave out sizes")
    model, start, labels = UNTOUCHED, draft.starts("start", 1, one.share_first_run), []
    for k in range(1, one.runs + 1):
        start = draft.simulate(f"md_{k}", model, start, shared=one.share_first_run and k == 1, round=k - 1)
        labels.append(draft.label(str(k), start, draft.rows(), one.frames, k - 1))
        model = draft.finetune(labels, k)


def _longrun(draft: _Draft) -> None:
    one = draft.settings
    start = draft.starts("start", 1, one.share_first_run)
    if one.longrun_as_published:
        first, *others = draft.rows()
        spacing = others[0] - first if others else one.rows - 1
        rows = [first + spacing * k for k in range(one.labels)]
        steps = rows[-1] * one.stride
    else:
        steps = one.runs * one.steps
        # As long an equilibration as the others have.
        share = one.equilibration / one.runs
        rows = pick_rows(steps // one.stride + 1, equilibration=share, count=one.labels)
    md = draft.simulate("md_1", UNTOUCHED, start, steps=steps, shared=one.share_first_run and one.runs == 1)
    labels = [draft.label("1", md, rows, one.labels)]
    for k, size in enumerate(draft.sizes(), 1):
        draft.finetune(labels, k, choose="first", size=size)


def _hybrid(draft: _Draft) -> None:
    one = draft.settings
    rounds, rest = divmod(one.runs, one.starts)
    if rest or rounds < 2:
        raise SpecError(
            "starts side by side need at least two full rounds", where=("runs", "starts"),
            expected=f"runs = starts * rounds, rounds >= 2 (such as {2 * one.starts})", found=one.runs,
        )  # fmt: skip
    model, labels = UNTOUCHED, []
    at = [(draft.starts("start", 1, one.share_first_run), 0)]
    if one.starts > 1:
        more = draft.starts("more_starts", one.starts - 1)
        at += [(more, p) for p in range(one.starts - 1)]
    for k in range(1, rounds + 1):
        for p in range(one.starts):
            shared = one.share_first_run and k == 1 and p == 0
            name = "md_1" if shared else f"md_{k}_{p + 1}"
            md = draft.simulate(name, model, at[p][0], at[p][1], shared=shared, round=k - 1)
            labels.append(draft.label(f"{k}_{p + 1}", md, draft.rows(), one.frames, k - 1))
            at[p] = (md, 0)
        model = draft.finetune(labels, k)


def _packmol_first(draft: _Draft) -> None:
    one = draft.settings
    if one.runs < 2:
        raise SpecError("needs labels for packings and for MD", where="runs", expected="at least 2", found=one.runs)
    packed = draft.structures("packings", one.frames)
    relaxed = draft.add("relax_packings", "relax", inputs={"frames": packed, "model": UNTOUCHED})
    labels = [draft.label("packings", relaxed, None, one.frames)]
    model = draft.finetune(labels, 1)
    # The first `frames` labels went to packings: the others are shared by all runs, so that both budgets are kept.
    left = one.labels - one.frames
    for k in range(one.runs):
        count = left // one.runs + (k < left % one.runs)
        start = relaxed if one.relax_starts else packed
        md = draft.simulate(f"md_{k + 1}", model, start, k % one.frames, round=1)
        if count:
            labels.append(draft.label(str(k + 1), md, draft.rows(count), count, 1))
    draft.finetune(labels, 2)


def _high_force(draft: _Draft) -> None:
    one = draft.settings
    starts = draft.structures("starts", one.runs)
    relaxed = draft.add("relax_starts", "relax", inputs={"frames": starts, "model": UNTOUCHED})
    hot = one.labels - 2 * (one.labels // 3)
    labels = []
    for how, amount in (("rattled", one.rattle), ("strained", one.strain)):
        count = one.labels // 3
        if count:
            moved = draft.add(
                how, "perturb", inputs={"frames": relaxed}, seeds={"rattle": draft.seed_of("rattle", how)},
                options={"count": count, "how": how, "amount": amount},
            )  # fmt: skip
            labels.append(draft.label(how, moved, None, count))
    for k in range(one.runs):
        count = hot // one.runs + (k < hot % one.runs)
        start = relaxed if one.relax_starts else starts
        md = draft.simulate(f"hot_{k + 1}", UNTOUCHED, start, k, temperature=one.hot)
        if count:
            labels.append(draft.label(f"hot_{k + 1}", md, draft.rows(count), count))
    draft.finetune(labels, 1)


ARMS: dict[str, Callable[[_Draft], None]] = {
    "naive": _naive, "iterative": _iterative, "longrun": _longrun, "hybrid": _hybrid,
    "packmol_first": _packmol_first, "high_force": _high_force,
}  # fmt: skip


def _evaluation(draft: _Draft) -> None:
    """Test sets: relaxed packings, and MD of each model from one start that no arm has seen; then all on all."""
    one, test = draft.settings, draft.settings.evaluation
    more: dict[str, Any] = {"purpose": "evaluation"}

    def seeds(what: str, *purposes: str) -> dict[str, int]:
        """Of the evaluation alone: the same in every arm and for every seed of it."""
        words = {purpose: f"evaluation {what} {purpose}".encode() for purpose in purposes}
        return {
            purpose: int(np.random.SeedSequence([test.seed, zlib.crc32(text)]).generate_state(1, np.uint32)[0])
            for purpose, text in words.items()
        }

    sets = []
    if test.independent:
        packed = draft.structures("test_packings", test.independent, seeds=seeds("independent set", "packing"), **more)
        relaxed = draft.add("relax_test", "relax", inputs={"frames": packed, "model": UNTOUCHED}, **more)
        sets.append(draft.label("independent", relaxed, None, test.independent, **more))
    if test.self_md != "none":
        start = draft.starts("test_start", 1, seeds=seeds("common start", "packing"), **more)
        models = draft.models if test.self_md == "all" else draft.models[-1:]
        steps = test.steps or one.steps
        rows = pick_rows(steps // one.stride + 1, equilibration=one.equilibration, count=test.frames)
        for model in (UNTOUCHED, *models):
            number = 0 if model == UNTOUCHED else draft.models.index(model) + 1
            md = draft.simulate(
                f"test_md_{number}", model, start, steps=steps, round=number, options={"failure": "keep"},
                seeds=seeds("self MD", "velocities", "thermostat"), **more,
            )  # fmt: skip
            sets.append(draft.label(f"test_md_{number}", md, rows, test.frames, number, **more))
    if sets:
        draft.add("evaluate", "evaluate", inputs={"models": (UNTOUCHED, *draft.models), "sets": sets},
                  round=len(draft.models), **more)  # fmt: skip
