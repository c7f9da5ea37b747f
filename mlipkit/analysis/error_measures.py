"""Errors of predictions, each measure under a name of its own, so that no two can be taken for each other.

========================  ==========================================================  ==========
name                      definition                                                  unit
========================  ==========================================================  ==========
``energy_mae``            mean_f \\|e_f\\|,  e_f = (Ê_f - E_f) / n_f                      eV/atom
``energy_rmse``           sqrt(mean_f e_f²)                                           eV/atom
``energy_bias``           mean_f e_f                                                  eV/atom
``energy_std``            standard deviation of e_f, its mean removed                 eV/atom
``force_component_mae``   mean over atoms and x, y, z of \\|F̂ - F\\|                    eV/Å
``force_component_rmse``  sqrt of the mean over atoms and x, y, z of (F̂ - F)²         eV/Å
``force_vector_mae``      mean over atoms of the length of the vector F̂ - F           eV/Å
``force_vector_rmse``     sqrt(mean \\|F̂ - F\\|²) = sqrt(3) force_component_rmse         eV/Å
``force_norm_mae``        mean over atoms of \\| \\|F̂\\| - \\|F\\| \\|: blind to direction     eV/Å
``force_rmse_x`` (y, z)   sqrt of the mean over atoms of one direction                eV/Å
``stress_voigt_mae``      mean over frames and xx, yy, zz, yz, xz, xy                 eV/Å³
``stress_voigt_rmse``     sqrt of the mean of squares over the same six               eV/Å³
``stress_tensor_rmse``    the same over the nine entries of the tensor                eV/Å³
========================  ==========================================================  ==========

Means over atoms run over all atoms of all frames. In mlipkit's training, ``forces_mae`` is ``force_component_mae``
and ``stress_mae`` is over nine entries. The published fine-tuning study reports energy_rmse, force_rmse_x, y, z and
stress_voigt_rmse; its equation 1 omits the division by n, which its code has. A mean of ``force_vector_mae`` is
reported as "force MAE" in one place of the IPIP paper; it lies between 1.7 and 3 times the component's (2 where
errors have no direction).

Stress components go by name. The published study sets VASP's order (xx, yy, zz, xy, yz, zx) beside ASE's (xx, yy, zz,
yz, xz, xy) by position, and so compares yz with xy; `voigt` takes the order that is stated.

Source: arXiv 2603.10159, equations 1 and 2, and its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from mlipkit.errors import DataError
from mlipkit.units import KBAR

VOIGT: Final = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Order of six components in mlipkit and ASE."""
VASP_ORDER: Final = ("xx", "yy", "zz", "xy", "yz", "zx")
"""Order in which VASP prints them."""
VASP_STRESS: Final = -KBAR
"""eV/Å³, tension positive, per kbar as VASP prints it."""


def voigt(stress: ArrayLike, order: Sequence[str] = VOIGT) -> np.ndarray:
    """Six components [F, 6] in mlipkit's order, from tensors [F,3,3] or from six components in a stated order.

    Raises:
        DataError: another shape, or an order that does not name each component once.
    """
    values = np.asarray(stress, dtype=float)
    if values.shape[-2:] == (3, 3):
        axes = [tuple("xyz".index(letter) for letter in name) for name in VOIGT]
        return np.stack([0.5 * (values[..., i, j] + values[..., j, i]) for i, j in axes], axis=-1)
    names = ["".join(sorted(name)) for name in order]
    if values.shape[-1:] != (6,) or sorted(names) != sorted(VOIGT):
        raise DataError(
            "stress components", expected=f"[F,3,3], or [F,6] with an order such as {VOIGT}",
            found=f"shape {values.shape}, order {tuple(order)}",
        )  # fmt: skip
    return values[..., [names.index(name) for name in VOIGT]]


def energy_measures(labels: ArrayLike, predicted: ArrayLike, n_atoms: ArrayLike) -> dict[str, float]:
    """energy_mae, energy_rmse, energy_bias, energy_std (eV/atom) and energy_n from total energies in eV [F].

    Frames without a label do not enter. The standard deviation is that of the frames at hand (divided by their number),
    so that rmse² = bias² + std².

    Raises:
        DataError: unequal lengths.
    """
    sizes = [np.shape(one) for one in (labels, predicted, n_atoms)]
    if len(set(sizes)) > 1:
        raise DataError("one label, one prediction and one number of atoms per frame", where="energy_measures",
                        found=sizes)  # fmt: skip
    error = (_array(predicted) - _array(labels)) / _array(n_atoms)
    error = error[np.isfinite(_array(labels))]
    if not len(error):
        return {"energy_n": 0}
    return {
        "energy_mae": float(np.abs(error).mean()), "energy_rmse": float(np.sqrt((error**2).mean())),
        "energy_bias": float(error.mean()), "energy_std": float(error.std()), "energy_n": len(error),
    }  # fmt: skip


def force_measures(labels: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """All force measures in eV/Å from forces [N,3]; atoms without a label do not enter.

    Raises:
        DataError: unequal shapes.
    """
    if np.shape(labels) != np.shape(predicted):
        raise DataError("labels and predictions of different shape", where="force_measures",
                        expected=np.shape(labels), found=np.shape(predicted))  # fmt: skip
    a, b = _array(labels).reshape(-1, 3), _array(predicted).reshape(-1, 3)
    there = np.isfinite(a).all(axis=1)
    a, b = a[there], b[there]
    if not len(a):
        return {"force_n": 0}
    error = b - a
    length = np.linalg.norm(error, axis=1)
    norm = np.abs(np.linalg.norm(b, axis=1) - np.linalg.norm(a, axis=1))
    axes = np.sqrt((error**2).mean(axis=0))
    return {
        "force_component_mae": float(np.abs(error).mean()), "force_component_rmse": float(np.sqrt((error**2).mean())),
        "force_vector_mae": float(length.mean()), "force_vector_rmse": float(np.sqrt((length**2).mean())),
        "force_norm_mae": float(norm.mean()),
        **{f"force_rmse_{axis}": float(value) for axis, value in zip("xyz", axes, strict=True)}, "force_n": len(a),
    }  # fmt: skip


def stress_measures(labels: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """All stress measures in eV/Å³ from tensors [F,3,3] or components [F,6] in mlipkit's order."""
    a, b = voigt(labels), voigt(predicted)
    there = np.isfinite(a).all(axis=1)
    error = b[there] - a[there]
    if not len(error):
        return {"stress_n": 0}
    square = error**2
    tensor = (square[:, :3].sum(axis=1) + 2 * square[:, 3:].sum(axis=1)) / 9
    each = {f"stress_rmse_{name}": float(np.sqrt(square[:, k].mean())) for k, name in enumerate(VOIGT)}
    return {
        "stress_voigt_mae": float(np.abs(error).mean()), "stress_voigt_rmse": float(np.sqrt(square.mean())),
        "stress_tensor_rmse": float(np.sqrt(tensor.mean())), **each, "stress_n": len(error),
    }  # fmt: skip


def _array(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=float)
