"""`frames.report()`: what a data set holds and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from mlipkit.data.atomic_energies import (
    choose_atomic_energies,
    fit_atomic_energies,
    isolated_atom_energies,
    residual_per_atom,
)
from mlipkit.data.frameset import FrameSet
from mlipkit.data.report_structure import (
    closest_ratio,
    compositions,
    densities,
    duplicate_findings,
    label_findings,
    overlap_finding,
    pbc_patterns,
)
from mlipkit.data.report_units import Finding, trajectory_slices, unit_findings
from mlipkit.errors import DataError
from mlipkit.labels import LABELS, UNITS

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MARKS = {"ok": "✓", "info": "·", "warning": "!", "problem": "✗"}
_SHOWN = 8


@dataclass(frozen=True)
class Histogram:
    """`counts` [n] between `edges` [n+1]; `unit` of the edges ("" for a pure number)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    unit: str


@dataclass(frozen=True)
class DataReport:
    """What `frames.report()` found.

    Attributes:
        n_frames, n_atoms: sizes; atoms_range: smallest and largest frame.
        coverage: label -> number of frames that have it.
        elements: symbol -> atoms in all.
        compositions: (formula, frames), most frequent first (at most 20).
        pbc: pattern -> frames (``TTT`` = periodic along a, b, c).
        sources, tags: name -> frames (at most 20).
        trajectories: number of trajectories; time_step: fs of the longest one, None when unknown.
        statistics: name -> value; the unit is in the name.
        atomic_energies: symbol -> eV, suggested for training; atomic_energies_from: how they were found.
        histograms: name -> distribution, for the pictures.
        findings: what was checked, problems first.
    """

    n_frames: int
    n_atoms: int
    atoms_range: tuple[int, int]
    coverage: Mapping[str, int]
    elements: Mapping[str, int]
    compositions: tuple[tuple[str, int], ...]
    pbc: Mapping[str, int]
    sources: Mapping[str, int]
    tags: Mapping[str, int]
    trajectories: int
    time_step: float | None
    statistics: Mapping[str, float]
    atomic_energies: Mapping[str, float]
    atomic_energies_from: str
    histograms: Mapping[str, Histogram]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings of level "problem" and "warning"."""
        return tuple(one for one in self.findings if one.level in ("problem", "warning"))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON; NaN never occurs in it."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) pairs of the table."""
        low, high = self.atoms_range
        rows = [("frames", f"{self.n_frames} of {low if low == high else f'{low} to {high}'} atoms")]
        rows.append(("elements", ", ".join(f"{symbol} {count}" for symbol, count in self.elements.items())))
        rows.append(("compositions", _listed(dict(self.compositions))))
        rows.append(("periodicity", _listed(self.pbc)))
        for label, count in self.coverage.items():
            rows.append((label, f"{count}/{self.n_frames}" + (f" ({UNITS[label]})" if count else "")))  # type: ignore[index]
        step = f", {self.time_step:g} fs apart" if self.time_step is not None else ""
        rows.append(("trajectories", f"{self.trajectories}{step}"))
        rows.append(("sources", _listed(self.sources)))
        if set(self.tags) - {""}:
            rows.append(("tags", _listed({tag or "(none)": count for tag, count in self.tags.items()})))
        rows.extend((name, f"{value:.4g}") for name, value in self.statistics.items())
        if self.atomic_energies:
            shown = ", ".join(f"{symbol} {energy:.4f}" for symbol, energy in self.atomic_energies.items())
            rows.append(("atomic energies (eV)", f"{shown} ({self.atomic_energies_from})"))
        return rows

    def table(self) -> str:
        """The report as text."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        lines += ["", *(f"{_MARKS[one.level]} {one.topic}: {one.text}" for one in self.findings)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        count = len(self.problems)
        return f"<DataReport: {self.n_frames} frames, {count} thing{'s' if count != 1 else ''} to look at>"

    def _repr_html_(self) -> str:
        """A small table; colours come from the theme, marks tell levels apart without colour."""
        body = "".join(
            f"<tr><td style='text-align:left'><b>{html.escape(name)}</b></td>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        colours = {"ok": "#2e7d32", "info": "inherit", "warning": "#b26a00", "problem": "#c62828"}
        items = "".join(
            f"<li style='list-style:none'><span style='color:{colours[one.level]}'><b>{_MARKS[one.level]}</b></span> "
            f"{html.escape(one.topic)}: {html.escape(one.text)}</li>"
            for one in self.findings
        )
        return f"<table>{body}</table><ul style='padding-left:0'>{items}</ul>"

    def figures(self) -> dict[str, go.Figure]:
        """Pictures by name: composition, and the distributions that the data allow (see `mlipkit.plots.data`)."""
        from mlipkit.plots import data as plots

        return plots.report_figures(self.elements, {name: asdict(one) for name, one in self.histograms.items()})


def report(frames: FrameSet) -> DataReport:
    """Examine a data set; a set of 1,000,000 frames is examined in flat arrays, distances on an even sample.

    Raises:
        DataError: there are no frames.
    """
    if not len(frames):
        raise DataError("no frames to report on")
    energies, origin, notes = _atomic_energies(frames)
    residual = residual_per_atom(frames, energies) if energies else np.full(len(frames), np.nan)
    norms = np.linalg.norm(frames.forces, axis=1) if frames.has("forces").any() else None
    largest = np.full(len(frames), np.nan)
    if norms is not None:
        largest = np.maximum.reduceat(norms, frames.offsets[:-1])
    searched, ratios, pairs = closest_ratio(frames)
    density = densities(frames)
    findings = [
        *notes,
        *unit_findings(frames),
        *label_findings(frames, residual, largest),
        overlap_finding(frames, len(searched), pairs),
        *duplicate_findings(frames),
        *_periodicity(frames),
    ]
    order = {"problem": 0, "warning": 1, "info": 2, "ok": 3}
    statistics = {
        "energy per atom, mean (eV)": _mean(frames.energy / frames.n_atoms),
        "energy per atom beyond atomic energies, standard deviation (meV)": 1000 * _std(residual),
        "force, root mean square (eV/Å)": _mean(norms**2 / 3) ** 0.5 if norms is not None else np.nan,
        "force, largest (eV/Å)": float(np.nanmax(largest)) if np.isfinite(largest).any() else np.nan,
        "density, mean (g/cm³)": _mean(density),
        "closest pair / covalent radii": float(np.nanmin(ratios)) if np.isfinite(ratios).any() else np.nan,
    }
    distributions = {
        "energy": _histogram(1000 * (residual - np.nanmedian(residual)) if energies else residual, "meV/atom"),
        "force": _histogram(norms if norms is not None else np.empty(0), "eV/Å"),
        "distance": _histogram(ratios, ""),
        "density": _histogram(density, "g/cm³"),
    }
    steps = [step for _, step in trajectory_slices(frames)]
    atoms = np.bincount(frames.numbers, minlength=120)
    formulas = compositions(frames)
    return DataReport(
        n_frames=len(frames),
        n_atoms=int(frames.offsets[-1]),
        atoms_range=(int(frames.n_atoms.min()), int(frames.n_atoms.max())),
        coverage={label: int(frames.has(label).sum()) for label in LABELS},
        elements={chemical_symbols[z]: int(atoms[z]) for z in frames.elements},
        compositions=tuple(formulas[:20]),
        pbc=pbc_patterns(frames),
        sources=_counted(frames.sources, frames.source_codes),
        tags=_counted(frames.tags, frames.tag_codes),
        trajectories=len(np.unique(frames.trajectory[frames.trajectory >= 0])),
        time_step=steps[0] if steps and np.isfinite(steps[0]) else None,
        statistics={name: float(value) for name, value in statistics.items() if np.isfinite(value)},
        atomic_energies={chemical_symbols[z]: energy for z, energy in energies.items()},
        atomic_energies_from=origin if len(formulas) >= len(energies) else f"{origin}; only their sum has a meaning",
        histograms={name: one for name, one in distributions.items() if one is not None},
        findings=tuple(sorted(findings, key=lambda one: order[one.level])),
    )


def _atomic_energies(frames: FrameSet) -> tuple[dict[int, float], str, list[Finding]]:
    if not frames.has("energy").any():
        return {}, "", [Finding("info", "atomic energies", "no energies, so none can be suggested")]
    try:
        chosen = choose_atomic_energies(frames)
        return dict(chosen), chosen.origin, []
    except DataError as error:
        # The residuals still have to be looked at, so the best fit is used for them.
        notes = [Finding("problem", "atomic energies", str(error))]
        if set(frames.elements) <= set(isolated_atom_energies(frames)):
            notes.append(Finding("info", "atomic energies", "those of the isolated atoms do not fit: least squares"))
        fitted = fit_atomic_energies(frames)
        return dict(fitted), f"{fitted.origin}, not to be trusted", notes


def _periodicity(frames: FrameSet) -> list[Finding]:
    patterns = pbc_patterns(frames)
    if len(patterns) < 2:
        return []
    return [Finding("info", "periodicity", f"mixed: {_listed(patterns)}; stress is used where all axes are periodic")]


def _counted(names: tuple[str, ...], codes: np.ndarray) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:20]
    return {names[int(code)]: int(counts[code]) for code in order if counts[code]}


def _listed(counts: Mapping[str, int]) -> str:
    shown = list(counts.items())[:_SHOWN]
    more = f", {len(counts) - len(shown)} more" if len(counts) > len(shown) else ""
    return ", ".join(f"{name} {count}" for name, count in shown) + more


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _std(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std()) if len(known) else float("nan")


def _histogram(values: np.ndarray, unit: str, bins: int = 60) -> Histogram | None:
    """None without values. The range covers 99.8 % of them and the last bins hold the rest: one outlier must not
    squeeze everything else into a single bar."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.001, 0.999])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(known, low, high), bins=bins, range=(low, high))
    return Histogram(tuple(edges.tolist()), tuple(int(count) for count in counts), unit)
