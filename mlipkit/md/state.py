"""The state of a simulation as plain tensors: one system is a batch of one.

Shapes: N atoms of all replicas together, S replicas. Integrators (`mlipkit.md.ensembles`) change a state in place and
keep everything they need in it, so that a state written to disk and read back goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses
from torch import Tensor

from mlipkit import units
from mlipkit.data.constraints import refuse_constraints
from mlipkit.errors import DataError
from mlipkit.md.noise import Draws

_PER_SYSTEM = ("energy", "stress", "cell", "pbc", "dof", "heat")
_PER_ATOM = ("numbers", "masses", "positions", "velocities", "forces")
_Made = TypeVar("_Made")


@dataclass(eq=False)
class MDState:
    """Everything that decides how a simulation goes on.

    | field | shape | unit |
    |---|---|---|
    | numbers, system | int64 [N] | atomic number; replica of each atom, ascending |
    | masses | [N] | u |
    | positions | [N,3] | Å, never wrapped back into the cell |
    | velocities | [N,3] | Å/fs |
    | forces | [N,3] | eV/Å, of `positions`; NaN before the first evaluation |
    | energy | [S] | eV, potential |
    | stress | [S,3,3] or None | eV/Å³, tension positive |
    | cell, pbc | [S,3,3], bool [S,3] | Å, rows are vectors |
    | step, time | | steps done; fs |
    | dof | [S] | degrees of freedom that carry kinetic energy |
    | heat | [S] | eV given to the system by its thermostat since the start |
    | thermostat | name -> [S, ...] | settings and variables of the ensemble |
    | rng | S generators | one per replica, so that a replica does not depend on its neighbours |
    | draws | | random numbers drawn ahead (`mlipkit.md.noise`) |

    Floating tensors are float64. Those of a step are never written to: the next step has tensors of its own.
    """

    numbers: Tensor
    masses: Tensor
    positions: Tensor
    velocities: Tensor
    forces: Tensor
    energy: Tensor
    system: Tensor
    cell: Tensor
    pbc: Tensor
    dof: Tensor
    heat: Tensor
    stress: Tensor | None = None
    step: int = 0
    time: float = 0.0
    thermostat: dict[str, Tensor] = field(default_factory=dict)
    rng: list[torch.Generator] = field(default_factory=list)
    draws: Draws = field(default_factory=Draws)
    _dof_counted: Tensor | None = field(default=None, init=False, repr=False)
    _dof_counts: list[int] = field(default_factory=list, init=False, repr=False)
    _derived: dict[str, tuple] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_systems(self) -> int:
        return self.energy.shape[0]

    @cached_property
    def n_atoms(self) -> Tensor:
        """Atoms per replica, int64 [S]."""
        return torch.bincount(self.system, minlength=self.n_systems)

    @cached_property
    def offsets(self) -> list[int]:
        """First atom of each replica, and N at the end."""
        return [0, *torch.cumsum(self.n_atoms, 0).tolist()]

    @cached_property
    def _counts(self) -> list[int]:
        return self.n_atoms.tolist()

    @cached_property
    def _components(self) -> list[int]:
        return [3 * n for n in self._counts]

    @property
    def evaluated(self) -> bool:
        """Whether energy and forces belong to the present positions (NaN from a broken potential counts as yes)."""
        return self.step > 0 or not bool(torch.isnan(self.energy).all())

    @cached_property
    def _even(self) -> bool:
        """Whether all replicas have as many atoms, so that values of atoms can be seen as rows of replicas."""
        return len(set(self._counts)) == 1

    def per_system(self, values: Tensor) -> Tensor:
        """Sum of values [N] or [N,k] over the atoms of each replica -> [S]."""
        if self._even:
            return values.reshape(self.n_systems, -1).sum(1)
        if values.ndim > 1:
            values = values.sum(1)
        return values.new_zeros(self.n_systems).index_add_(0, self.system, values)

    def per_atom(self, values: Tensor) -> Tensor:
        """A value per replica [S] as a column that multiplies [N,3]."""
        if self.n_systems == 1:
            return values.unsqueeze(1)
        return values[self.system].unsqueeze(1)

    def normal(self) -> Tensor:
        """Standard normal numbers [N,3], each replica from its own generator."""
        return self.draws.next("atoms", self.rng, self._components).view(-1, 3)

    def squares(self) -> tuple[Tensor, Tensor]:
        """Of as many standard normal numbers as there are degrees of freedom: the first, the sum of squares; [S]."""
        if self._dof_counted is not self.dof:
            # Once per tensor, as a GPU would have to be waited for.
            self._dof_counted, self._dof_counts = self.dof, [int(n) for n in self.dof.tolist()]
        pair = self.draws.next("squares", self.rng, self._dof_counts)
        return pair[:, 0], pair[:, 1]

    def derived(self, name: str, sources: tuple[Tensor, ...], make: Callable[[], _Made]) -> _Made:
        """What `make` gives; asked again only when one of `sources` is another tensor or has been written to."""
        made, of, versions = self._derived.get(name, (None, (), ()))
        if len(of) != len(sources) or any(
            old is not new or version != new._version for old, version, new in zip(of, versions, sources, strict=True)
        ):
            made = make()
            self._derived[name] = made, sources, tuple(source._version for source in sources)
        return made  # type: ignore[return-value]

    def kinetic_energy(self, squares: Tensor | None = None) -> Tensor:
        """Kinetic energy of each replica, eV [S], of the present velocities or of `squares` of others, Å²/fs² [N,3]."""
        if squares is None:
            squares = self.velocities * self.velocities
        return self.per_system(squares * self.masses.unsqueeze(1)) * (0.5 / units.FORCE_TO_ACCELERATION)

    def temperature(self, kinetic_energy: Tensor | None = None) -> Tensor:
        """Instantaneous temperature 2 E_kin / (dof k_B), K [S]."""
        kinetic = self.kinetic_energy() if kinetic_energy is None else kinetic_energy
        return kinetic * (2 / units.BOLTZMANN) / self.dof

    def force_norms(self) -> Tensor:
        """Norm of the force on every atom, eV/Å [N]."""
        return torch.linalg.vector_norm(self.forces, dim=1)

    def max_force(self, norms: Tensor | None = None) -> Tensor:
        """Largest norm of a force on an atom, eV/Å [S]; NaN when any is. Of `norms` [N] where they are at hand."""
        norms = self.force_norms() if norms is None else norms
        if self._even:
            return norms.view(self.n_systems, -1).amax(1)
        return norms.new_zeros(self.n_systems).scatter_reduce_(0, self.system, norms, "amax", include_self=False)

    def mean_force(self, norms: Tensor | None = None) -> Tensor:
        """Mean norm of the forces on atoms, eV/Å [S]. Of `norms` [N] where they are at hand."""
        norms = self.force_norms() if norms is None else norms
        if self._even:
            return norms.view(self.n_systems, -1).mean(1)
        return norms.new_zeros(self.n_systems).scatter_reduce_(0, self.system, norms, "mean", include_self=False)

    def velocity_of_mass_centre(self) -> Tensor:
        """Å/fs [S,3]."""
        momentum = self.masses.unsqueeze(1) * self.velocities
        total = momentum.new_zeros(self.n_systems, 3).index_add_(0, self.system, momentum)
        return total / self.per_system(self.masses).unsqueeze(1)

    def replica(self, index: int) -> dict[str, np.ndarray]:
        """Arrays of one replica (views where the tensors are on the CPU): numbers, masses, positions, ... cell, pbc."""
        atoms = slice(self.offsets[index], self.offsets[index + 1])
        arrays = {name: getattr(self, name)[atoms].cpu().numpy() for name in _PER_ATOM}
        return {**arrays, "cell": self.cell[index].cpu().numpy(), "pbc": self.pbc[index].cpu().numpy()}

    def atoms(self, index: int = 0) -> Atoms:
        """One replica as fresh ASE Atoms with its results; `info` holds step and time_fs."""
        arrays = {name: values.copy() for name, values in self.replica(index).items()}
        atoms = Atoms(arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=arrays["pbc"])
        if not np.allclose(arrays["masses"], atoms.get_masses(), rtol=1e-12, atol=0):
            atoms.set_array("masses", arrays["masses"], float, ())
        atoms.set_velocities(units.velocities_to_ase(arrays["velocities"]))
        atoms.info.update(step=self.step, time_fs=self.time)
        if self.evaluated:
            results = {"energy": float(self.energy[index]), "forces": arrays["forces"]}
            if self.stress is not None:
                results["stress"] = voigt(self.stress[index].cpu().numpy())
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    def select(self, replicas: Sequence[int]) -> MDState:
        """A state of some of the replicas, in the order given; generators and settings go with them."""
        chosen = torch.as_tensor(list(replicas), dtype=torch.int64, device=self.system.device)
        spans = [torch.arange(self.offsets[r], self.offsets[r + 1], device=self.system.device) for r in replicas]
        atoms = torch.cat(spans) if spans else chosen
        values = {name: getattr(self, name)[atoms].clone() for name in _PER_ATOM}
        for name in _PER_SYSTEM:
            value = getattr(self, name)
            values[name] = None if value is None else value[chosen].clone()
        system = torch.repeat_interleave(torch.arange(len(chosen), device=chosen.device), self.n_atoms[chosen])
        return MDState(
            **values,
            system=system,
            step=self.step,
            time=self.time,
            thermostat={name: value[chosen].clone() for name, value in self.thermostat.items()},
            rng=[self.rng[r] for r in replicas],
            draws=self.draws.select(replicas, self._counts),
        )

    def take(self, other: MDState) -> None:
        """Become `other`, so that whoever holds this state sees it."""
        values = dict(vars(other))
        vars(self).clear()
        vars(self).update(values)

    def to_tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors, for a checkpoint."""
        tensors = {name: getattr(self, name) for name in (*_PER_ATOM, *_PER_SYSTEM, "system")}
        tensors = {name: value for name, value in tensors.items() if value is not None}
        tensors["step"] = torch.tensor(self.step)
        tensors["time"] = torch.tensor(self.time, dtype=torch.float64)
        tensors.update({f"thermostat.{name}": value for name, value in self.thermostat.items()})
        tensors["draws"] = torch.tensor(self.draws.used)
        tensors.update({f"rng.{index}": start for index, start in enumerate(self.draws.starts(self.rng))})
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: str | torch.device = "cpu") -> MDState:
        """Rebuild what `to_tensors` wrote. The tensors are copied."""
        values = {
            name: tensors[name].clone().to(device) for name in (*_PER_ATOM, *_PER_SYSTEM, "system") if name in tensors
        }
        rng = []
        for index in range(len(tensors["energy"])):
            generator = torch.Generator(device)
            generator.set_state(tensors[f"rng.{index}"].clone())
            rng.append(generator)
        return cls(
            **values,
            step=int(tensors["step"]),
            time=float(tensors["time"]),
            thermostat={
                name.removeprefix("thermostat."): value.clone().to(device)
                for name, value in tensors.items()
                if name.startswith("thermostat.")
            },
            rng=rng,
            # Checkpoints of old have no numbers drawn ahead.
            draws=Draws(int(tensors["draws"]) if "draws" in tensors else 0),
        )


def state_from_atoms(
    atoms: Atoms | Sequence[Atoms],
    *,
    seed: int | Sequence[int] = 0,
    replicas: int = 1,
    device: str | torch.device = "cpu",
) -> MDState:
    """Start state of one or several replicas, with the velocities that the structures carry (zero if none).

    Args:
        atoms: one structure, or one for each replica.
        seed: thermostat seed of each replica; one number n means n, n+1, n+2, ...
        replicas: number of copies when `atoms` is a single structure.

    Raises:
        DataError: no atoms, positions that are not finite, constraints, or a periodic axis without a cell vector.
    """
    images = [atoms] * replicas if isinstance(atoms, Atoms) else list(atoms)
    if not images:
        raise DataError("no start structure")
    seeds = [seed + index for index in range(len(images))] if isinstance(seed, int) else list(seed)
    if len(seeds) != len(images):
        raise DataError("one seed is needed for each replica", expected=len(images), found=len(seeds))
    for index, image in enumerate(images):
        _validate(image, f"start structure {index}" if len(images) > 1 else "start structure")
    counts = torch.tensor([len(image) for image in images])
    masses = [image.get_masses() if image.has("masses") else atomic_masses[image.numbers] for image in images]

    def flat(parts: Sequence[np.ndarray]) -> Tensor:
        return torch.tensor(np.concatenate(parts), dtype=torch.float64, device=device)

    n = int(counts.sum())
    dof = (3 * counts).to(torch.float64).to(device)
    return MDState(
        numbers=torch.tensor(np.concatenate([image.numbers for image in images]), dtype=torch.int64, device=device),
        masses=flat(masses),
        positions=flat([image.positions for image in images]),
        velocities=flat([units.velocities_from_ase(image.get_velocities()) for image in images]),
        forces=torch.full((n, 3), torch.nan, dtype=torch.float64, device=device),
        energy=torch.full((len(images),), torch.nan, dtype=torch.float64, device=device),
        system=torch.repeat_interleave(torch.arange(len(images)), counts).to(device),
        cell=torch.tensor(np.array([image.cell.array for image in images]), dtype=torch.float64, device=device),
        pbc=torch.tensor(np.array([image.pbc for image in images]), device=device),
        dof=dof,
        heat=torch.zeros_like(dof),
        rng=[torch.Generator(device).manual_seed(value) for value in seeds],
    )


def _validate(atoms: Atoms, where: str) -> None:
    if len(atoms) == 0:
        raise DataError("no atoms", where=where)
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.get_velocities()).all():
        raise DataError("positions or velocities are not finite", where=where)
    refuse_constraints([atoms], where)
    # A periodic axis needs a cell vector that spans something new.
    vectors = atoms.cell.array[atoms.pbc]
    if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-6) < len(vectors):
        raise DataError("periodic axes without a cell", where=where, found=f"cell {atoms.cell.array.tolist()}")


def voigt(stress: np.ndarray) -> np.ndarray:
    """Stress [3,3] -> [6] in ASE's order xx, yy, zz, yz, xz, xy."""
    return np.array([stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]])
