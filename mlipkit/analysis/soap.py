"""Smooth overlap of atomic positions: one vector per atom that rotations and permutations leave alone.

The numbers are those of dscribe's `SOAP` (GTO basis, periodic, no averaging, no normalisation). Where Numba is
installed they come from `mlipkit.analysis.power_spectrum` in two thirds of the time (15 to 17 against 23 to 25 ms of
one core for 197 atoms of seven elements), else from dscribe.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from mlipkit.analysis.descriptors import check_species, facts_hash, symbols
from mlipkit.analysis.power_spectrum import PowerSpectrum, kernels
from mlipkit.data.columns import Array
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError, nearest, require

Compression = Literal["off", "mu2", "mu1nu1", "crossover"]
Engine = Literal["auto", "compiled", "dscribe"]
COMPRESSIONS = ("off", "mu2", "mu1nu1", "crossover")


class Soap:
    """SOAP vectors of every atom, float32.

    `p = (S n_max)(S n_max + 1)/2 (l_max+1)` for S species without compression: 11,172 for seven.

    Args:
        species: atomic numbers or symbols that may occur; sorted, and part of the hash, since they decide the columns.
            Take the union over all sets that will ever be compared (`Soap.of`).
        r_cut: Å. n_max: radial functions. l_max: highest degree. sigma: width of the Gaussians, Å.
        compression: "off"; "mu2" (no elements), "mu1nu1" (linear in S), "crossover" (each species with itself).
        n_jobs: threads (with dscribe as engine: one).
        engine: "compiled" needs Numba, "dscribe" needs dscribe, "auto" takes the first that is there.

    Raises:
        DataError: settings that make no descriptor.
        MissingPackageError: neither engine is installed.

    Source: A. P. Bartók, R. Kondor, G. Csányi, Phys. Rev. B 87, 184115 (2013).
    """

    def __init__(
        self,
        species: Any,
        r_cut: float = 5.0,
        n_max: int = 8,
        l_max: int = 6,
        sigma: float = 0.375,
        compression: Compression = "off",
        n_jobs: int = 1,
        engine: Engine = "auto",
    ) -> None:
        self.species: tuple[int, ...] = tuple(sorted({_number(z) for z in species}))
        if not self.species:
            raise DataError("SOAP needs at least one species", where="species")
        if compression not in COMPRESSIONS:
            raise DataError("no such compression", where="compression", found=compression,
                            hint=nearest(str(compression), COMPRESSIONS))  # fmt: skip
        _check(r_cut, n_max, l_max, sigma, n_jobs)
        if engine not in ("auto", "compiled", "dscribe"):
            raise DataError("no such engine", where="engine", found=engine, expected="auto, compiled or dscribe")
        self.r_cut, self.n_max, self.l_max, self.sigma = float(r_cut), int(n_max), int(l_max), float(sigma)
        self.compression: Compression = compression
        self.n_jobs = int(n_jobs)
        if engine == "compiled":
            require("numba", "fast", "the compiled SOAP")
        self.engine = "dscribe" if engine == "dscribe" or kernels() is None else "compiled"
        self._spectrum = PowerSpectrum(
            len(self.species), self.r_cut, self.n_max, self.l_max, self.sigma, self.compression
        )
        self._code = np.full(max(self.species) + 1, -1)
        self._code[list(self.species)] = range(len(self.species))
        if self.engine == "dscribe":
            require("dscribe.descriptors", "analysis", "SOAP without Numba")

    @classmethod
    def of(cls, *framesets: FrameSet, **options: Any) -> Soap:
        """SOAP for all elements that occur in some sets; `options` as for `Soap`."""
        return cls({z for frames in framesets for z in frames.elements}, **options)

    @classmethod
    def from_facts(cls, facts: dict[str, Any], n_jobs: int = 1) -> Soap:
        """The inverse of `facts`."""
        return cls(**{name: value for name, value in facts.items() if name != "kind"}, n_jobs=n_jobs)

    @property
    def size(self) -> int:
        return self._spectrum.size

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "soap",
            "species": list(self.species),
            "r_cut": self.r_cut,
            "n_max": self.n_max,
            "l_max": self.l_max,
            "sigma": self.sigma,
            "compression": self.compression,
        }

    @property
    def hash(self) -> str:
        return facts_hash(self.facts())

    def __call__(self, frames: FrameSet) -> Array:
        """SOAP vectors float32 [N,p].

        Raises:
            DataError: an element that is not among the species.
        """
        check_species(self, frames)
        out = np.empty((int(frames.offsets[-1]), self.size), np.float32)
        self.fill(frames, out)
        return out

    def fill(self, frames: FrameSet, out: Array) -> None:
        numbers, positions, cell, pbc = frames.numbers, frames.positions, frames.cell, frames.pbc
        offsets = frames.offsets.tolist()

        def one(i: int) -> None:
            a, b = offsets[i], offsets[i + 1]
            self.fill_one(out[a:b], numbers[a:b], positions[a:b], cell[i], pbc[i])

        if self.n_jobs == 1 or self.engine == "dscribe":
            for i in range(len(frames)):
                one(i)
        else:
            with ThreadPoolExecutor(self.n_jobs) as pool:
                list(pool.map(one, range(len(frames))))

    def fill_one(self, out: Array, numbers: Array, positions: Array, cell: Array, pbc: Array) -> None:
        if self.engine == "dscribe":
            out[:] = self._dscribe.create_single(_wrapped(numbers, positions, cell, pbc))
        else:
            self._spectrum.fill(out, self._code[numbers], positions, cell, pbc)

    @cached_property
    def _dscribe(self) -> Any:
        module = require("dscribe.descriptors", "analysis", "SOAP without Numba")
        return module.SOAP(
            species=list(self.species), r_cut=self.r_cut, n_max=self.n_max, l_max=self.l_max, sigma=self.sigma,
            periodic=True, compression={"mode": self.compression, "species_weighting": None}, dtype="float32",
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Soap: {self.size} numbers per atom for {symbols(self.species)}, {self.engine}>"


def _check(r_cut: Any, n_max: Any, l_max: Any, sigma: Any, n_jobs: Any) -> None:
    try:
        good = 1 < r_cut < math.inf and 0 < sigma < math.inf and n_max >= 1 and 0 <= l_max <= 20 and n_jobs >= 1
        good = good and all(value == int(value) for value in (n_max, l_max, n_jobs))
    except TypeError:
        good = False
    if not good:
        raise DataError(
            "settings make no SOAP",
            expected="r_cut > 1 Å, sigma > 0 Å; whole numbers n_max >= 1, 0 <= l_max <= 20, n_jobs >= 1",
            found=f"r_cut {r_cut!r}, n_max {n_max!r}, l_max {l_max!r}, sigma {sigma!r}, n_jobs {n_jobs!r}",
        )


def _number(species: Any) -> int:
    try:
        z = chemical_symbols.index(species) if isinstance(species, str) else int(species)
    except (TypeError, ValueError):
        z = 0
    if not 0 < z < len(chemical_symbols):
        raise DataError("no such element", where="species", found=repr(species))
    return z


def _wrapped(numbers: Array, positions: Array, cell: Array, pbc: Array) -> Atoms:
    """The structure with its atoms inside the cell: dscribe repeats the cell but not what has left it."""
    periodic = bool(np.any(pbc))
    atoms = Atoms(numbers, positions, cell=cell if periodic else np.eye(3), pbc=pbc)
    if periodic:
        # An axis that is not periodic may lack its vector, which dscribe asks for.
        atoms.set_cell(atoms.cell.complete())
        atoms.wrap()
    return atoms
