"""The SOAP power spectrum in the Gaussian-type radial basis of dscribe, number for number, in two thirds of its time.

The density of species Z around atom i, Gaussians of width σ at its neighbours and at itself, is expanded in radial
functions and real spherical harmonics; the descriptor holds the products that rotations leave alone:

    c_i[Z,n,l,m] = π^(3/2) Σ_j R_nl(r_ij) r_ij^l Y_lm(r_ij)        R_nl(r) = Σ_k B_l[n,k] exp(-a_lk r²)
    p_i[Z,Z',l,n,n'] = π sqrt(8/(2l+1)) Σ_m c_i[Z,n,l,m] c_i[Z',n',l,m]

==========  ===================================================================================================
symbol      meaning
==========  ===================================================================================================
``a_lk``    α_lk / (1 + 2σ² α_lk); α_lk lets the k-th primitive fall to 1e-3 between 1 Å and r_cut
``B_l``     (2σ²)^(3/2) β_l[n,k] (1 + 2σ² α_lk)^(-l-3/2), β_l = S_l^(-1/2) of the primitives' overlap S_l (Löwdin)
==========  ===================================================================================================

The expansion is a compiled loop in float64 (the β_l are large and of both signs), the products are matrix products in
float32. Needs Numba; `mlipkit.analysis.soap` asks dscribe where there is none, and a test holds the two together.

Sources: A. P. Bartók, R. Kondor, G. Csányi, Phys. Rev. B 87, 184115 (2013); L. Himanen et al., Comput. Phys. Commun.
247, 106949 (2020) for basis, prefactors and order of features; J. P. Darby, J. R. Kermode, G. Csányi, npj Comput.
Mater. 8, 166 (2022) for the compressions; T. Helgaker, P. Jørgensen, J. Olsen, Molecular Electronic-Structure Theory
(2000), section 6.4, for the recursion of r^l Y_lm.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from functools import cache
from types import ModuleType
from typing import Final

import numpy as np
from scipy.special import gamma

from mlipkit.data.columns import Array
from mlipkit.errors import DataError

DECAYED: Final = 1e-3
"""What counts as nothing: primitives at their reach, and Gaussians at the distance from which they are left out."""
_CENTRES: Final = 32
"""Atoms whose products are made together: they fit the processor's cache."""


@cache
def kernels() -> ModuleType | None:
    """The compiled loop's module, or None where Numba is missing or does not fit the installed NumPy."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        return importlib.import_module("mlipkit.analysis.soap_kernels")
    except (ImportError, OSError):
        return None


class PowerSpectrum:
    """Basis, and order of features, for a number of species.

    Args:
        n_species: number S of species.
        r_cut: Å. n_max: radial functions. l_max: highest degree. sigma: width of the Gaussians, Å.
        compression: "off" for all pairs of species; "mu2" for one density of all species, "mu1nu1" for each species
            with the density of all, "crossover" for each species with itself.

    Attributes:
        size: number of features p; "off" has S n_max (S n_max + 1) / 2 (l_max + 1).
        reach: distance up to which neighbours count, Å: a Gaussian centred further off is below 1e-3 at r_cut.
    """

    def __init__(
        self, n_species: int, r_cut: float, n_max: int, l_max: int, sigma: float, compression: str = "off"
    ) -> None:
        self._n_max, self._l_max, self._compression = n_max, l_max, compression
        self._n_kinds = 1 if compression == "mu2" else n_species
        self.reach = r_cut + sigma * math.sqrt(-2.0 * math.log(DECAYED))
        decay, mix = radial_basis(r_cut, n_max, l_max, sigma)
        scale = [math.pi**1.5 * math.sqrt(math.pi * math.sqrt(8.0 / (2 * deg + 1))) for deg in range(l_max + 1)]
        self._decay = decay.reshape(-1)
        self._mix = np.ascontiguousarray((mix * np.array(scale)[:, None, None]).swapaxes(1, 2))
        self._own = self._mix[0].sum(axis=0) / math.sqrt(4.0 * math.pi)
        self._up, self._down, self._norm = _recursion(l_max)
        self._left = self._n_kinds * n_max
        self._right = n_max if compression == "mu1nu1" else self._left
        self._pick = self._order()
        self.size = len(self._pick)

    def _order(self) -> Array:
        """Where each feature lies among the products of all degrees, in dscribe's order."""
        n, kinds = self._n_max, self._n_kinds
        at = np.arange((self._l_max + 1) * self._left * self._right, dtype=np.int32)
        at = at.reshape(-1, self._left, self._right)
        pieces = []
        for j in range(kinds):
            if self._compression == "mu1nu1":
                pieces.append(at[:, j * n : (j + 1) * n])
                continue
            for other in range(j, kinds) if self._compression == "off" else [j]:
                block = at[:, j * n : (j + 1) * n, other * n : (other + 1) * n]
                pieces.append(block[:, *np.triu_indices(n)] if other == j else block)
        return np.concatenate([piece.reshape(-1) for piece in pieces])

    def fill(self, out: Array, species: Array, positions: Array, cell: Array, pbc: Array) -> None:
        """Write the power spectrum of every atom of one structure.

        Args:
            out: float32 [n,p].
            species: int [n], 0..S-1. positions: [n,3] Å. cell: [3,3] Å. pbc: bool [3].

        Raises:
            DataError: positions or cell that cannot have neighbours.
        """
        # Brings torch, which reading a model and its scores does without.
        from mlipkit.data.neighbours import neighbour_list

        module = kernels()
        assert module is not None, "asked without Numba"
        expand = module.expansion(self._l_max, self._n_max)
        edges, _, vectors = neighbour_list(positions, cell, pbc, self.reach, coincident=True)
        kinds = np.zeros(len(species), np.int64) if self._compression == "mu2" else species.astype(np.int64)
        starts = np.searchsorted(edges[1], np.arange(len(species) + 1))
        n_angular = (self._l_max + 1) ** 2
        sums, harmonics = np.empty((self._n_kinds, n_angular, self._n_max)), np.empty(n_angular)
        for first in range(0, len(species), _CENTRES):
            last = min(first + _CENTRES, len(species))
            pairs = slice(starts[first], starts[last])
            near = vectors[pairs]
            primitives = np.exp(np.einsum("pk,pk->p", near, near)[:, None] * self._decay)
            density = np.empty((last - first, n_angular, self._n_kinds, self._n_max), np.float32)
            expand(
                starts[first : last + 1] - starts[first], kinds[edges[0, pairs]], near, primitives, kinds[first:last],
                self._own, self._mix, self._up, self._down, self._norm, sums, harmonics, density,
            )  # fmt: skip
            self._multiply(density, out[first:last])

    def _multiply(self, density: Array, out: Array) -> None:
        """Features [c,p] from coefficients [c,(l_max+1)²,S,n_max]."""
        c = len(density)
        left = density.reshape(c, density.shape[1], self._left)
        right = density.sum(axis=2) if self._compression == "mu1nu1" else left
        products = np.empty((c, self._l_max + 1, self._left, self._right), np.float32)
        for deg in range(self._l_max + 1):
            rows = slice(deg * deg, (deg + 1) ** 2)
            np.matmul(left[:, rows].swapaxes(1, 2), right[:, rows], out=products[:, deg])
        # "clip" only spares the copy that the default makes to be able to fail.
        np.take(products.reshape(c, -1), self._pick, axis=1, out=out, mode="clip")


def radial_basis(r_cut: float, n_max: int, l_max: int, sigma: float) -> tuple[Array, Array]:
    """Decay -a_lk [l_max+1, n_max] in 1/Å² and mixing B_l [l_max+1, n_max, n_max] of the smeared radial functions.

    Raises:
        DataError: so many primitives that double precision cannot tell them apart.
    """
    reach = np.linspace(1.0, r_cut, n_max)
    decay, mix = np.empty((l_max + 1, n_max)), np.empty((l_max + 1, n_max, n_max))
    for deg in range(l_max + 1):
        alpha = -np.log(DECAYED / reach**deg) / reach**2
        overlap = 0.5 * gamma(deg + 1.5) * (alpha[:, None] + alpha) ** (-deg - 1.5)
        values, vectors = np.linalg.eigh(overlap)
        if values[0] <= np.finfo(float).eps * values[-1]:
            raise DataError(
                f"{n_max} radial functions of degree {deg} between 1 and {r_cut:g} Å are too alike for a basis",
                where="n_max", hint="Fewer radial functions, a lower l_max or a larger r_cut",
            )  # fmt: skip
        beta = (vectors / np.sqrt(values)) @ vectors.T
        smeared = 1.0 / (1.0 + 2.0 * sigma**2 * alpha)
        decay[deg] = -alpha * smeared
        mix[deg] = (2.0 * sigma**2) ** 1.5 * beta * smeared ** (deg + 1.5)
    return decay, mix


def _recursion(l_max: int) -> tuple[Array, Array, Array]:
    """Factors [l_max+1, l_max+1] of `P_{l+1,m} = up z P_{l,m} - down r² P_{l-1,m}`, and what makes r^l Y_lm of P_lm."""
    up, down, norm = (np.zeros((l_max + 1, l_max + 1)) for _ in range(3))
    for m in range(l_max + 1):
        diagonal = math.prod(range(1, 2 * m, 2))
        for deg in range(m, l_max + 1):
            up[deg, m], down[deg, m] = (2 * deg + 1) / (deg + 1 - m), (deg + m) / (deg + 1 - m)
            square = (2 * deg + 1) / (4 * math.pi) * math.factorial(deg - m) / math.factorial(deg + m)
            norm[deg, m] = diagonal * math.sqrt(square * (2 if m else 1))
    return up, down, norm
