"""Predictions of a potential, or of a second file, beside labels, as a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.plain import plain
from mlipkit.errors import DataError, LabelError
from mlipkit.plots.parity import binned_residuals as binned_figure
from mlipkit.plots.parity import force_parity, residuals_over_time, softening_slopes
from mlipkit.plots.runs import MILLI
from mlipkit.plots.runs import parity as energy_parity
from mlipkit.runs.findings import Finding, Picture, Table, number

if TYPE_CHECKING:
    from mlipkit.analysis.parity import Parity
    from mlipkit.data import FrameSet

SAME = 1e-3
"""Å by which positions of one structure in two files may differ."""
_POINTS = 4000


def aligned(labelled: FrameSet, predicted: FrameSet) -> FrameSet:
    """Frames of `predicted` in the order of `labelled`: the same structures, atom by atom.

    Raises:
        DataError: another number of frames, or other structures.
    """
    if len(labelled) != len(predicted):
        raise DataError("other frames than the labelled ones", expected=f"{len(labelled)} frames", found=len(predicted))
    by_hash = {int(h): i for i, h in enumerate(predicted.structure_hashes)}
    rows = [by_hash.get(int(h), -1) for h in labelled.structure_hashes]
    if min(rows) >= 0 and len(set(rows)) == len(rows):
        return predicted.select(rows)
    # Written with fewer digits: the same frames in the same order.
    for i in range(len(labelled)):
        a, b = labelled.frame(i), predicted.frame(i)
        if not np.array_equal(a["numbers"], b["numbers"]) or not np.allclose(a["positions"], b["positions"], atol=SAME):
            raise DataError(
                "another structure than the labelled one", where=(predicted.sources[int(predicted.source_codes[i])],
                f"frame {i}"), expected=f"the same atoms within {SAME:g} Å, in the same order",
            )  # fmt: skip
    return predicted


def parity_finding(
    sets: Mapping[str, FrameSet], predicted: Mapping[str, FrameSet], potential: str, *, seed: int = 0,
    python: str = "", sources: Mapping[str, str] | None = None,
) -> Finding:  # fmt: skip
    """Errors of predictions by set and element, with pictures.

    Args:
        sets: name -> labelled frames. predicted: name -> the same frames with predicted labels.
        potential: what predicted, in words.

    Raises:
        LabelError: a set without labels that were predicted too.
    """
    from mlipkit.analysis.parity import binned_residuals, parity

    found: dict[str, Parity] = {}
    for name, frames in sets.items():
        other = predicted[name]
        both = {
            label: getattr(other, label)
            for label in ("energy", "forces", "stress")
            if frames.has(label).any() and (other.has(label) | ~frames.has(label)).all()
        }
        if not both:
            raise LabelError(
                "no label to compare with", where=name, expected="energy, forces or stress on labelled frames",
                found="none", hint="mlipkit data report FILE says which labels a file has",
            )  # fmt: skip
        found[name] = parity(frames, **both, seed=seed)
    parts = [_measure_table(found), *_element_tables(found), *_pictures(sets, predicted, found)]
    for name, one in found.items():
        if np.isfinite(one.residual).sum() > 1:
            bins = binned_residuals(one.energy_per_atom, one.residual)
            figure = binned_figure({name: (bins.edges, bins.mean, bins.std)})
            parts.append(Picture(f"Energy residuals over energy, {name}", figure))
    timed = {name: one for name, one in found.items() if np.isfinite(one.time).sum() > 2 and _some(one.residual)}
    if timed:
        parts.append(Picture("Energy residuals over time", residuals_over_time(
            {name: one.time / 1000.0 for name, one in timed.items()},
            {name: one.residual for name, one in timed.items()},
        )))  # fmt: skip
    values = {
        f"{key}_{name}": (value, _unit(key)) for name, one in found.items() for key, value in one.measures.items()
    }
    return Finding(
        title=f"{potential} against the labels of {', '.join(sets)}", sentences=tuple(_sentences(found, potential)),
        parts=tuple(parts), figures=values,
        data=plain({
            "schema": "mlipkit-parity-1", "predicted_by": potential,
            "sets": {
                name: {
                    "frames": len(sets[name]), "measures": dict(one.measures), "elements": one.table(),
                    "residual_eV_per_atom": one.residual, "energy_eV_per_atom": one.energy_per_atom,
                    "time_fs": one.time,
                }
                for name, one in found.items()
            },
        }),
        python=python, sources=sources or {},
    )  # fmt: skip


def _sentences(found: Mapping[str, Parity], potential: str) -> Iterator[str]:
    for name, one in found.items():
        m, parts = one.measures, []
        if "force_component_mae" in m:
            parts.append(f"forces are off by {m['force_component_mae'] * MILLI:.1f} meV/Å (MAE of components, rmse "
                         f"{m['force_component_rmse'] * MILLI:.1f})")  # fmt: skip
        if "energy_mae" in m:
            parts.append(f"energies by {m['energy_mae'] * MILLI:.2f} meV/atom (one constant of "
                         f"{m['energy_bias'] * MILLI:+.2f} and a spread of {m['energy_std'] * MILLI:.2f})")  # fmt: skip
        if "stress_voigt_mae" in m:
            parts.append(f"stress by {m['stress_voigt_mae'] * MILLI:.2f} meV/Å³")
        yield f"{potential} on {name}: {'; '.join(parts)}."
    for name, one in found.items():
        soft = [s for s in one.softening if s.element == 0]
        if soft and np.isfinite(soft[0].slope):
            s = soft[0]
            kind = "too soft" if s.high < 1 else "too stiff" if s.low > 1 else "neither too soft nor too stiff"
            yield f"{name}: predicted forces are {s.slope:.3f} times the labels ({s.low:.3f} to {s.high:.3f}): {kind}."


def _measure_table(found: Mapping[str, Parity]) -> Table:
    rows = []
    for name, one in found.items():
        for key, value in one.measures.items():
            if not key.endswith("_n"):
                unit = _unit(key)
                rows.append((name, key.replace("_", " "), number(value * MILLI, 4), f"m{unit}"))
    return Table("Errors", ("set", "measure", "value", "unit"), tuple(rows), brief=False)


def _element_tables(found: Mapping[str, Parity]) -> Iterator[Table]:
    rows = []
    for name, one in found.items():
        for row in one.table():
            rows.append((
                name, str(row["element"]), str(row["atoms"]), f"{float(row['force_component_mae']) * MILLI:.1f}",  # type: ignore
                f"{float(row['force_component_rmse']) * MILLI:.1f}", f"{float(row['force_norm_mae']) * MILLI:.1f}",  # type: ignore
                f"{row['softening_slope']:.3f} ({row['slope_low']:.3f} to {row['slope_high']:.3f})",
            ))  # fmt: skip
    if rows:
        head = ("set", "element", "atoms", "force MAE meV/Å", "RMSE", "|F| MAE", "softening slope")
        note = "Slope of predicted on labelled force components through the origin, 95 % interval over frames."
        yield Table("Forces by element", head, tuple(rows), note=note)


def _pictures(
    sets: Mapping[str, FrameSet], predicted: Mapping[str, FrameSet], found: Mapping[str, Parity]
) -> Iterator[Picture]:
    for name, one in found.items():
        if one.force_norms:
            norms = {chemical_symbols[z]: pair for z, pair in one.force_norms.items()}
            rest = [s for s in one.softening if s.element]
            figure = force_parity(
                norms, lines={chemical_symbols[s.element]: (s.norm_slope, s.norm_intercept) for s in rest},
                slopes={chemical_symbols[s.element]: s.slope for s in rest},
            )  # fmt: skip
            yield Picture(f"Forces by element, {name}", figure, "Dotted: equal. Orange: robust line.")
    slopes = {
        name: {chemical_symbols[s.element]: (s.slope, s.low, s.high) for s in one.softening if s.element}
        for name, one in found.items()
        if one.softening
    }
    if slopes:
        yield Picture("Softening by element", softening_slopes(slopes))
    for name, one in found.items():
        if _some(one.residual):
            frames, n = sets[name], np.asarray(sets[name].n_atoms)
            rows = np.flatnonzero(np.isfinite(one.residual))
            rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _POINTS)).round().astype(int)]
            figure = energy_parity(
                frames.energy[rows] / n[rows], predicted[name].energy[rows] / n[rows], quantity="energy",
                unit="eV/atom", label=name,
            )  # fmt: skip
            yield Picture(f"Energies, {name}", figure)


def _some(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _unit(key: str) -> str:
    if key.endswith("_n"):
        return ""
    return {"energy": "eV/atom", "force": "eV/Å", "stress": "eV/Å³"}[key.partition("_")[0]]
