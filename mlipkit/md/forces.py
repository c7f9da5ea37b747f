"""Where MD gets its forces from: a Potential with skin lists, or any ASE calculator.

An integrator knows a provider only as a function state -> `Forces`. What changes predictions on the way (adaptation at
test time, a committee) wraps a provider and stays one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from torch import Tensor

from mlipkit.data.graph import Graph
from mlipkit.data.skin_lists import SkinLists
from mlipkit.errors import DataError, RunError
from mlipkit.md.state import MDState
from mlipkit.models.universal.calculator import ask

if TYPE_CHECKING:
    from mlipkit.models import BasePotential


class Forces(NamedTuple):
    """Energy float64 [S] in eV, forces float64 [N,3] in eV/Å, stress float64 [S,3,3] in eV/Å³ or None."""

    energy: Tensor
    forces: Tensor
    stress: Tensor | None = None


class ForceFunction(Protocol):
    def __call__(self, state: MDState) -> Forces: ...


@runtime_checkable
class Restartable(Protocol):
    """A provider whose next answer depends on its past, to the last bit (skin lists, adapted weights)."""

    def to_tensors(self) -> dict[str, Tensor]: ...

    def restore(self, state: MDState, tensors: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class Recording(Protocol):
    """A provider that writes a series of its own: flushed wherever a simulation ends, be it by an exception."""

    def flush(self) -> None: ...


def evaluate(state: MDState, forces: ForceFunction) -> None:
    """Energy, forces and stress of the present positions, in place."""
    state.energy, state.forces, state.stress = forces(state)


def advance(state: MDState, forces: ForceFunction, timestep: float) -> None:
    """Count the step whose positions have just been reached, then `evaluate`: forces of step n carry the number n."""
    state.step += 1
    state.time += timestep
    evaluate(state, forces)


class PotentialForces:
    """Forces of a potential for all replicas in one call.

    Neighbour lists carry a skin and are rebuilt, replica by replica, only when an atom has moved by half of it. Pairs
    between cutoff and cutoff + skin cost as much as others in the model, so long lists are cut to the pairs within the
    cutoff before each call.

    Args:
        potential: any `BasePotential`; its device and dtype are used, positions stay float64.
        skin: Å.
        stress: also give the stress (NaN for replicas that are not periodic along all three axes).

    Raises:
        ModelError: an element outside the potential's domain.
    """

    CUT_ABOVE: Final = 600
    """Edges from which cutting the list is cheaper than carrying the skin through the model."""
    CUT_FROM: Final = 0.05
    """Share of pairs beyond the cutoff from which it is; in a molecule smaller than the cutoff there are none."""

    def __init__(self, potential: BasePotential, *, skin: float = 0.5, stress: bool = False) -> None:
        self.potential = potential
        self.skin = skin
        self.stress = stress
        self._numbers: Tensor | None = None
        self._lists: SkinLists | None = None
        self._last: Graph | None = None

    @property
    def cutoff(self) -> float:
        return self.potential.cutoff

    @property
    def n_rebuilds(self) -> int:
        """How often a neighbour list was rebuilt, all replicas together."""
        return self._lists.n_rebuilds if self._lists is not None else 0

    def __call__(self, state: MDState) -> Forces:
        graph = self.graph(state)
        prediction = self.potential(graph, forces=True, stress=self.stress)
        device = state.positions.device
        return Forces(
            prediction.energy.to(device, torch.float64),
            prediction.forces.to(device, torch.float64),
            prediction.stress.to(device, torch.float64) if self.stress else None,
        )

    def graph(self, state: MDState) -> Graph:
        """The batch that the potential gets for this state."""
        if self._numbers is not state.numbers:
            self._start(state)
        lists = self._lists
        assert lists is not None
        lists.update(state.positions, state.cell)
        edge_index, shift = lists.edge_index, lists.shift
        positions, cell = state.positions.to(lists.device), state.cell.to(lists.device)
        # How many pairs stay is a number that a GPU would have to be waited for.
        if edge_index.shape[1] > self.CUT_ABOVE and lists.beyond > self.CUT_FROM and lists.device.type == "cpu":
            vectors = positions[edge_index[0]] - positions[edge_index[1]] + lists.shift_vectors
            near = ((vectors * vectors).sum(1) < self.cutoff**2).nonzero().squeeze(1)
            edge_index, shift = edge_index[:, near], shift[near]
        elif self._last is not None and self._last.edge_index is edge_index:
            return self._last.moved(positions, cell)
        graph = Graph(positions=positions, edge_index=edge_index, shift=shift, cell=cell, **self._static)
        self._last = graph
        return graph

    def pairs(self, state: MDState) -> list[int]:
        """Pairs of each replica, those of the skin included."""
        self._start(state)
        assert self._lists is not None
        self._lists.update(state.positions, state.cell)
        return self._lists.n_pairs

    def select(self, state: MDState, replicas: Sequence[int]) -> None:
        """Go on with `state`, which holds these replicas of the one before; their lists stay."""
        if self._lists is not None:
            self._lists.select(replicas)
            self._hold(state)

    def to_tensors(self) -> dict[str, Tensor]:
        """What decides the order of sums in the next call: the structures of which the lists were made."""
        tensors = {}
        for index in range(len(self._static["n_atoms"]) if self._lists is not None else 0):
            reference = self._lists.reference(index)  # type: ignore[union-attr]
            if reference is not None:
                tensors[f"{index}.positions"], tensors[f"{index}.cell"] = map(torch.tensor, reference)
        return tensors

    def restore(self, state: MDState, tensors: Mapping[str, Tensor]) -> None:
        """Make the lists of `to_tensors` again, for the restored `state`.

        Raises:
            RunError: the checkpoint holds what another kind of forces kept, such as adapted weights.
        """
        other = sorted({name.partition(".")[0] for name in tensors if not name.partition(".")[0].isdigit()})
        if other:
            raise RunError(
                "the checkpoint is of a simulation with other forces", where="forces",
                expected="none but neighbour lists", found=", ".join(other),
                hint="Go on with the same forces, or give this one a folder of its own",
            )  # fmt: skip
        self._start(state)
        assert self._lists is not None
        for index in range(state.n_systems):
            if f"{index}.positions" in tensors:
                self._lists.restore(index, tensors[f"{index}.positions"].numpy(), tensors[f"{index}.cell"].numpy())

    def _start(self, state: MDState) -> None:
        self.potential.check_elements(state.numbers)
        device = self.potential.device
        # On a GPU the checks see broken positions some steps late; until then they must not stop the other replicas.
        self._lists = SkinLists(self.cutoff, self.skin, state.n_atoms.tolist(), state.pbc.cpu().numpy(), device,
                                lenient=device.type != "cpu")  # fmt: skip
        self._hold(state)

    def _hold(self, state: MDState) -> None:
        static = {"numbers": state.numbers, "pbc": state.pbc, "system": state.system, "n_atoms": state.n_atoms}
        self._static = {name: value.to(self.potential.device) for name, value in static.items()}
        self._numbers = state.numbers
        self._last = None


class CalculatorForces:
    """Forces of ASE calculators: one for all replicas, or one for each.

    Args:
        calculator: any ASE calculator; several replicas go through it one after the other.
        stress: also ask for the stress (needed by NPT).

    Restart is exact to the last bit only for calculators whose answer depends on the structure alone.
    """

    def __init__(self, calculator: BaseCalculator | Sequence[BaseCalculator], *, stress: bool = False) -> None:
        self.calculators = list(calculator) if isinstance(calculator, Sequence) else [calculator]
        self.stress = stress
        self.cutoff: float | None = None
        self._images: list[Atoms] = []
        self._numbers: Tensor | None = None

    def __call__(self, state: MDState) -> Forces:
        if self._numbers is not state.numbers:
            self._make_images(state)
        positions, cells = state.positions.cpu().numpy(), state.cell.cpu().numpy()
        answers = []
        for index, image in enumerate(self._images):
            image.positions = positions[state.offsets[index] : state.offsets[index + 1]]
            image.set_cell(cells[index])
            answers.append(ask(image, self.stress))
        device = state.positions.device
        return Forces(
            torch.tensor([answer.energy for answer in answers], dtype=torch.float64, device=device),
            torch.cat([torch.from_numpy(answer.forces) for answer in answers]).to(device),
            torch.stack([torch.tensor(answer.stress) for answer in answers]).to(device, torch.float64)
            if self.stress
            else None,
        )

    def part(self, replicas: Sequence[int]) -> CalculatorForces:
        """Forces for these replicas alone, each with its own calculator."""
        calculators = self.calculators
        if len(calculators) > 1:
            calculators = [calculators[index] for index in replicas]
        return CalculatorForces(calculators, stress=self.stress)

    def select(self, state: MDState, replicas: Sequence[int]) -> None:
        """Go on with `state`, which holds these replicas of the one before, each with its own calculator."""
        if len(self.calculators) > 1:
            self.calculators = [self.calculators[index] for index in replicas]

    def check_number(self, state: MDState) -> None:
        """Raise `DataError` unless there is one calculator, or one for each replica."""
        given = len(self.calculators)
        if given not in (1, state.n_systems):
            raise DataError("one calculator for all replicas or one for each", expected=state.n_systems, found=given)

    def _make_images(self, state: MDState) -> None:
        self.check_number(state)
        self._images = []
        for index in range(state.n_systems):
            image = state.atoms(index)
            image.calc = self.calculators[index % len(self.calculators)]
            self._images.append(image)
        self._numbers = state.numbers
