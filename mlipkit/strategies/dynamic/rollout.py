"""A potential integrates some steps itself, and every force it made stays differentiable.

    R(s+1) = R(s) + V(s) Δt + ½ a(F_s) Δt²,   V(s+1) = V(s) + ½ (a(F_s) + a(F_{s+1})) Δt

is the velocity Verlet step of MD (`mlipkit.md.verlet`). Velocities are carried as displacements per step, u = V Δt, so
that structures of one batch may have time steps of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd import Function

from mlipkit.data.graph import Graph
from mlipkit.errors import SpecError, check_choice
from mlipkit.md.verlet import drift, kick
from mlipkit.models import BasePotential

Update = Literal["verlet", "euler"]


@dataclass(frozen=True)
class RolloutSettings:
    """How gradients and positions go from step to step.

    Attributes:
        bptt: gradients run through the positions, back through time; False: each step's positions are taken as given
            (the published code).
        window: with bptt, steps after which the chain is cut; None: never.
        recompute: keep no intermediate result of a force evaluation; each is computed again in the backward pass.
        recompute_above: do that in roll-outs of more structures than this; None: in none of them.
        update: "euler" leaves ½ a Δt² out (the published text); it is not time reversible.
    """

    bptt: bool = True
    window: int | None = None
    recompute: bool = False
    recompute_above: int | None = None
    update: Update = "verlet"

    def __post_init__(self) -> None:
        check_choice(self.update, get_args(Update), "update")
        if self.window is not None and self.window < 1:
            raise SpecError("out of range", where="window", expected="at least 1, or None", found=self.window)
        above = self.recompute_above
        if above is not None and above < 0:
            raise SpecError("out of range", where="recompute_above", expected="0 or more, or None", found=above)
        if self.window is not None and not self.bptt:
            raise SpecError("has no effect without bptt", where="window", hint="Leave it out, or set bptt=True")


@dataclass(frozen=True)
class RolledStep:
    """One structure of each roll-out: positions and displacement per step [N,3] Å, forces [N,3] eV/Å, energy [S] eV."""

    positions: Tensor
    displacement: Tensor
    forces: Tensor
    energy: Tensor


def roll_out(
    potential: BasePotential,
    graphs: Sequence[Graph],
    displacement: Tensor,
    masses: Tensor,
    timestep: Tensor,
    settings: RolloutSettings = RolloutSettings(),
    *,
    frozen: Tensor | None = None,
    create_graph: bool = True,
) -> Iterator[RolledStep]:
    """The start and the steps after it, one for each graph.

    Args:
        graphs: of step s: its edges, cells; the positions of the first are the start.
        displacement: velocity times time step at the start [N,3], Å.
        masses: [N], u.
        timestep: of each atom's structure [N], fs.
        frozen: bool [N], atoms that do not move.
        create_graph: keep what gradients of forces need.
    """
    above = settings.recompute_above
    recompute = settings.recompute or (above is not None and len(graphs) > above)
    # Acceleration times Δt² for a unit of time: c F / (m / Δt²).
    heaviness = masses / (timestep * timestep)
    still = None if frozen is None else (~frozen).unsqueeze(1)
    positions = graphs[0].positions
    if still is not None:
        displacement = displacement * still
    forces: Tensor | None = None
    for step, graph in enumerate(graphs):
        if forces is not None:
            half = kick(displacement, forces, heaviness, 0.5)
            positions = drift(positions, displacement if settings.update == "euler" else half, 1.0)
            if still is not None:
                positions = torch.where(still, positions, graphs[0].positions)
            if not settings.bptt:
                positions = positions.detach()
            elif settings.window is not None and step % settings.window == 0:
                positions, half = positions.detach(), half.detach()
        else:
            half = displacement
        energy, new = _evaluated(potential, graph.moved(positions, graph.cell), recompute, create_graph)
        displacement = half if forces is None else kick(half, new, heaviness, 0.5)
        if still is not None:
            displacement = displacement * still
        forces = new
        yield RolledStep(positions, displacement, forces, energy)


def _evaluated(potential: BasePotential, graph: Graph, recompute: bool, create_graph: bool) -> tuple[Tensor, Tensor]:
    if not (recompute and create_graph):
        said = potential(graph, create_graph=create_graph)
        assert said.forces is not None
        return said.energy, said.forces
    weights = [p for p in potential.parameters() if p.requires_grad]
    return _Recomputed.apply(graph.positions, (potential, graph), *weights)


class _Recomputed(Function):
    """Energy and forces of a batch whose graph is made again when gradients are asked for."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, what: tuple[BasePotential, Graph], *weights: Tensor) -> Any:
        potential, graph = what
        ctx.save_for_backward(positions)
        ctx.what, ctx.weights = what, weights
        with torch.enable_grad():
            said = potential(graph.moved(positions.detach(), graph.cell))
        return said.energy, said.forces

    @staticmethod
    def backward(ctx: Any, energy_slope: Tensor, forces_slope: Tensor) -> Any:
        potential, graph = ctx.what
        (positions,) = ctx.saved_tensors
        with torch.enable_grad():
            placed = positions.detach().requires_grad_()
            said = potential(graph.moved(placed, graph.cell), create_graph=True)
            found = torch.autograd.grad(
                [said.energy, said.forces], [placed, *ctx.weights], [energy_slope, forces_slope], allow_unused=True
            )
        return found[0], None, *found[1:]
