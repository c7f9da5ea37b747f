"""What an arm will take: one unit of each deed timed, times what the plan says."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlipkit.strategies.ipip.plan import TEACHER_MODEL, LoopPlan

if TYPE_CHECKING:
    from mlipkit.models import BasePotential
    from mlipkit.strategies.ipip.tools import LoopTools
    from mlipkit.training import TrainSettings

STEPS = 5


@dataclass(frozen=True)
class Rates:
    """Measured, s: an MD step of all starts together, a gradient step, a label of the teacher."""

    teacher_md: float
    student_md: float
    pretrain: float
    finetune: float
    teacher_step: float | None
    label: float
    atoms: int

    def seconds(self, plan: LoopPlan) -> float:
        """Of a plan: simulations to their end, all gradient steps, the labels of new frames; tests included."""
        total = 0.0
        for stage in plan.stages:
            if stage.does == "sample":
                teacher = stage.inputs["model"][0] == TEACHER_MODEL
                total += stage.options["steps"] * (self.teacher_md if teacher else self.student_md)
            elif stage.does in ("stability", "reaction"):
                share = stage.options["runs"] / max(plan.loop.sampling.starts, 1)
                each = self.student_md if plan.arm != "teacher" else self.teacher_md
                total += (stage.options["steps"] + stage.options["relax_steps"]) * share * each
            elif stage.does == "pretrain":
                total += stage.options["steps"] * self.pretrain
            elif stage.does == "finetune":
                teacher = stage.inputs.get("model", ("",))[0] == TEACHER_MODEL
                step = self.teacher_step if teacher and self.teacher_step is not None else self.finetune
                total += stage.options["steps"] * step
        # Frames of the first pool have the labels of the simulation that they come from.
        with_md = sum(stage.options["count"] for stage in plan.of("pool"))
        return total + (plan.budget.teacher_labels - with_md) * self.label


def measure(tools: LoopTools, plan: LoopPlan) -> Rates:
    """Time the units of a plan; blocks for seconds."""
    frames = tools.train
    starts = [frames.atoms(k % len(frames)) for k in range(plan.loop.sampling.starts)]
    student = tools.fresh(frames, 0)
    rates = {who: _md(potential, starts) for who, potential in (("teacher", tools.teacher), ("student", student))}
    begin = time.perf_counter()
    tools.label(frames[:1])
    label = time.perf_counter() - begin
    teacher_step = None
    if plan.arm == "teacher":
        teacher_step = _gradient(tools, tools.teacher, tools.settings("teacher_tuning", 1))
    return Rates(
        rates["teacher"], rates["student"], _gradient(tools, student, tools.settings("pretraining", 1)),
        _gradient(tools, student, tools.settings("finetuning", 1)), teacher_step, label, int(frames.n_atoms.max()),
    )  # fmt: skip


def _md(potential: BasePotential, starts: list) -> float:
    from mlipkit.md import PotentialForces, simulate_batches, state_from_atoms

    for atoms in starts:
        atoms.calc = None
    quiet = dict.fromkeys(("max_force", "overlap", "temperature", "broken_bonds", "lone_atoms"), False)
    provider = PotentialForces(potential)
    state = state_from_atoms(starts, device=potential.device)
    provider(state)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        simulate_batches(state, provider, "nve", steps=STEPS, folder=Path(folder), timestep=0.1, checks=quiet)
        return (time.perf_counter() - begin) / STEPS


def _gradient(tools: LoopTools, potential: BasePotential, settings: TrainSettings) -> float:
    import torch

    from mlipkit.data import collate
    from mlipkit.data.neighbours import NeighbourCache

    frames = tools.train
    rows = np.arange(settings.batch_size) % len(frames)
    graph, _ = collate(frames, rows, NeighbourCache(frames, potential.cutoff), potential.dtype)
    graph = graph.to(device=potential.device)
    free = [one for one in potential.parameters() if one.requires_grad]
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        said = potential(graph, create_graph=True)
        if free:
            torch.autograd.grad(said.energy.sum() + said.forces.square().sum(), free, allow_unused=True)
        times.append(time.perf_counter() - begin)
    # The first one compiles and caches.
    return min(times)
