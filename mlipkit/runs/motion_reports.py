"""Mean squared displacements, molecular species and reactions of trajectories, as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.plain import plain
from mlipkit.errors import DataError
from mlipkit.plots.trajectories import Fit, Span, displacements, reaction_timeline, species_counts, subscripted
from mlipkit.runs.findings import Finding, Picture, Table, number

if TYPE_CHECKING:
    from mlipkit.analysis.msd import MSD, Diffusion
    from mlipkit.analysis.reactions import Reactions
    from mlipkit.analysis.species import Species
    from mlipkit.data import FrameSet

PS = 1000.0
MOST_RUNS = 8
"""Runs whose curves are drawn; all are in the table."""
MOST_SPECIES = 8
MOST_EVENTS = 200
_POINTS = 2000


def timed(frames: FrameSet, spacing: float | None) -> FrameSet:
    """Frames as one run, in the order in which they stand, `spacing` fs apart; as they are when it is None."""
    if spacing is None:
        return frames
    if not spacing > 0:
        raise DataError("frames follow each other in time", where="spacing", expected="above 0 fs", found=spacing)
    return frames.with_table(time=np.arange(len(frames)) * float(spacing), trajectory=0)


def runs_of(sets: Mapping[str, FrameSet], spacing: float | None = None) -> Iterator[tuple[str, FrameSet]]:
    """(name, frames in order of time) of every run in every set."""
    from mlipkit.analysis.time_order import runs

    for name, frames in sets.items():
        found = list(runs(timed(frames, spacing)))
        for n, one in found:
            yield (name if len(found) == 1 else f"{name}, run {n}" if n >= 0 else f"{name}, no run"), one


def msd_finding(
    sets: Mapping[str, FrameSet], elements: Sequence[str] | None = None, *,
    origin: Literal["windowed", "first"] = "windowed", window: tuple[float, float] | None = None,
    spacing: float | None = None, wrapped: bool = True, python: str = "", sources: Mapping[str, str] | None = None,
) -> Finding:  # fmt: skip
    """Mean squared displacement and diffusion coefficient of each run.

    Args:
        elements: symbols; all when None.
        window: lags in fs of the fit. spacing: fs between frames that carry no time.

    Raises:
        DataError: as `mlipkit.analysis.msd`, with the name of the run.
    """
    from mlipkit.analysis.msd import diffusion, msd
    from mlipkit.analysis.pairs import element

    wanted = [element(one) for one in elements] if elements else None
    curves: dict[str, MSD] = {}
    fits: dict[tuple[str, int], Diffusion] = {}
    for name, frames in runs_of(sets, spacing):
        with_name = _Named(name, "Give the time between frames: --spacing FS" if spacing is None else "")
        with with_name:
            curves[name] = msd(frames, origin=origin, wrapped=wrapped)
            for z in wanted or [0, *curves[name].by_element]:
                fits[name, z] = diffusion(curves[name], z, window)
    pictures = []
    for z in dict.fromkeys(z for _, z in fits):
        mine = [name for name in curves if (name, z) in fits][:MOST_RUNS]
        # One axis of lags for all: curves of other spacing are drawn at its places.
        longest = max((curves[name].lag for name in mine), key=lambda lag: lag[-1])
        lag = np.linspace(0, longest[-1], min(len(longest), _POINTS))
        drawn = {
            name: np.interp(lag, curves[name].lag, _values(curves[name], z), right=np.nan) for name in mine
        }  # fmt: skip
        lines = {
            name: Fit(one.value, one.error, one.window[0] / PS, one.window[1] / PS)
            for name in mine if (one := fits[name, z]).diffusive
        }  # fmt: skip
        pictures.append(Picture(f"MSD of {_symbol(z)}", displacements(lag / PS, drawn, fits=lines)))
    rows, values = [], {}
    for (name, z), one in fits.items():
        rows.append((
            name, _symbol(z), number(one.value) if one.diffusive else f"({number(one.value)})", number(one.error, 2),
            f"{one.window[0] / PS:.2g}-{one.window[1] / PS:.2g}", f"{one.exponent:.2f}",
            number(float(_values(curves[name], z)[-1])),
        ))  # fmt: skip
        values[f"diffusion_{name}_{_symbol(z)}"] = (one.value, "cm²/s")
        values[f"exponent_{name}_{_symbol(z)}"] = (one.exponent, "")
    head = ("run", "atoms", "D cm²/s", "error", "lags ps", "exponent", "MSD at the end Å²")
    note = "In brackets: the exponent is not between 0.8 and 1.2, so that the slope is not a diffusion coefficient."
    return Finding(
        title="Mean squared displacement: " + ", ".join(sets), sentences=tuple(_msd_sentences(fits)),
        parts=(Table("Diffusion", head, tuple(rows), note=note), *pictures), figures=values,
        data=plain({
            "schema": "mlipkit-msd-1", "origin": origin,
            "runs": {
                name: {
                    "lag_fs": one.lag, "drift_A": one.drift, "drift_removed": one.drift_removed,
                    "msd_A2": {_symbol(z): _values(one, z) for z in (0, *one.by_element)},
                    "diffusion": {
                        _symbol(z): {
                            "value_cm2_s": fit.value, "error_cm2_s": fit.error, "window_fs": list(fit.window),
                            "exponent": fit.exponent, "diffusive": fit.diffusive, "blocks": fit.n_blocks,
                        }
                        for (run, z), fit in fits.items() if run == name
                    },
                }
                for name, one in curves.items()
            },
        }),
        python=python, sources=sources or {},
    )  # fmt: skip


def _msd_sentences(fits: Mapping[tuple[str, int], Diffusion]) -> Iterator[str]:
    groups: dict[tuple[str, int], list[Diffusion]] = {}
    for (name, z), one in fits.items():
        groups.setdefault((name.partition(", run ")[0], z), []).append(one)
    for (name, z), every in groups.items():
        who = f"{name}, {'all atoms' if z == 0 else _symbol(z)}"
        free = [one for one in every if one.diffusive]
        values, low, high = [one.value for one in free], min(e.exponent for e in every), max(e.exponent for e in every)
        spread = f"exponent {low:.2f}" if len(every) == 1 else f"exponents {low:.2f} to {high:.2f} in {len(every)} runs"
        if not free:
            kind = "caged" if high < 0.8 else "still in free flight" if low > 1.2 else "neither free nor diffusive"
            yield f"{who}: no diffusion coefficient, motion is {kind} ({spread}, not 1)."
        elif len(every) == 1:
            error = f" ± {number(free[0].error, 2)}" if np.isfinite(free[0].error) else ""
            yield f"{who}: D = {number(values[0])}{error} cm²/s."
        else:
            error = f" ± {number(float(np.std(values, ddof=1) / len(values) ** 0.5), 2)}" if len(values) > 1 else ""
            rest = f"; the others do not diffuse ({spread})" if len(free) < len(every) else ""
            yield f"{who}: D = {number(float(np.mean(values)))}{error} cm²/s in {len(free)} of {len(every)} runs{rest}."


def species_finding(
    sets: Mapping[str, FrameSet], *, lifetime: float = 1000.0, spacing: float | None = None, python: str = "",
    sources: Mapping[str, str] | None = None,
) -> Finding:  # fmt: skip
    """Molecular species of each set; where its frames are runs in time, also their lives and reactions.

    Args:
        lifetime: fs that a new bond, or a missing one, must last to count.
        spacing: fs between frames that carry no time.

    Raises:
        DataError: atoms change their order within a run.
    """
    from mlipkit.analysis.bond_states import bond_history
    from mlipkit.analysis.reactions import reactions
    from mlipkit.analysis.species import species, species_of_frames

    found: dict[str, Species] = {}
    events: dict[str, Reactions] = {}
    notes: dict[str, list[str]] = {}
    for name, frames in runs_of(sets, spacing):
        why, history = _no_run(frames, lifetime), None
        if not why:
            try:
                history = bond_history(frames, lifetime=lifetime)
            except DataError as error:
                why = error.what
        if history is None:
            found[name] = species_of_frames(frames)
            notes.setdefault(f"{why}, so frames are counted one by one, without reactions", []).append(name)
            continue
        found[name], events[name] = species(history), reactions(history)
        step = float(np.median(np.diff(history.time)))
        if step > lifetime:
            notes.setdefault(
                f"frames are {step / PS:g} ps apart, longer than what a change must last ({lifetime / PS:g} ps), so "
                "that a flicker caught in one frame counts as a reaction", []
            ).append(name)  # fmt: skip
    head = ("set", "species", "per frame", "least", "most", "molecules", "median life ps")
    rows = [
        (
            name, subscripted(str(row["species"])), number(row["mean"], 4), str(row["least"]), str(row["most"]),  # type: ignore
            "" if row["molecules"] is None else str(row["molecules"]),
            "" if row["median_life_fs"] is None else number(row["median_life_fs"] / PS),  # type: ignore[operator]
        )
        for name, one in found.items()
        for row in one.table()
    ]  # fmt: skip
    parts: list[Any] = [Table("Species", head, tuple(rows))]
    if any(one.events for one in events.values()):
        happened = [(name, event) for name, one in events.items() for event in one.events]
        note = f"The first {MOST_EVENTS} of {len(happened)}." if len(happened) > MOST_EVENTS else ""
        lines = tuple((name, event.text) for name, event in happened[:MOST_EVENTS])
        parts.append(Table("Reactions", ("run", "what happened"), lines, brief=len(happened) <= 20, note=note))
    for name, one in list(found.items())[:MOST_RUNS]:
        changing = [i for i in range(len(one.formulas)) if np.ptp(one.counts[:, i]) > 0][:MOST_SPECIES]
        if name in events and changing:
            thin = np.linspace(0, len(one.time) - 1, min(len(one.time), _POINTS)).round().astype(int)
            counts = {one.formulas[i]: one.counts[thin, i] for i in changing}
            parts.append(Picture(f"Species in {name}", species_counts(one.time[thin] / PS, counts)))
        if name in events and events[name].events:
            spans = [
                Span(_who(event), event.time / PS, (event.time + event.duration) / PS, event.text, event.unphysical,
                     event.ended)
                for event in events[name].events[:40]
            ]  # fmt: skip
            parts.append(Picture(f"Reactions in {name}", reaction_timeline(spans, one.time[-1] / PS, one.time[0] / PS)))
    values: dict[str, tuple[float, str]] = {}
    for name, one in found.items():
        for row in one.table()[:20]:
            values[f"{row['species']}_{name}"] = (float(row["mean"]), "per frame")  # type: ignore[arg-type]
        if name in events:
            values[f"reactions_{name}"] = (len(events[name].events), "events")
            values[f"unphysical_{name}"] = (len(events[name].unphysical), "events")
    return Finding(
        title="Species: " + ", ".join(sets), sentences=(*_species_sentences(found, events), *_grouped(notes)),
        parts=tuple(parts), figures=values,
        data=plain({
            "schema": "mlipkit-species-1", "lifetime_fs": lifetime,
            "sets": {
                name: {
                    "frames": len(one.counts), "species": one.table(),
                    "reactions": events[name].table() if name in events else None,
                }
                for name, one in found.items()
            },
        }),
        python=python, sources=sources or {}, kind="failed" if any(one.unphysical for one in events.values()) else "",
    )  # fmt: skip


def _species_sentences(found: Mapping[str, Species], events: Mapping[str, Reactions]) -> Iterator[str]:
    said: dict[str, list[str]] = {}
    for name in sorted(found, key=lambda name: -len(events[name].unphysical) if name in events else 0):
        one = found[name]
        mean = one.counts.mean(axis=0)
        usual = ", ".join(
            f"{value:.3g} {subscripted(formula)}" for formula, value in list(zip(one.formulas, mean, strict=True))[:6]
        )
        more = f" and {len(one.formulas) - 6} rarer species" if len(one.formulas) > 6 else ""
        text = f"{usual}{more} per frame"
        if name in events:
            n, broken = len(events[name].events), len(events[name].unphysical)
            text += f"; {n or 'no'} reaction{'' if n == 1 else 's'}" + (
                f", {broken} of them unphysical" if broken else ""
            )
        said.setdefault(text, []).append(name)
    yield from _grouped(said)


def _grouped(said: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Who and what, with runs of which the same is to be said in one sentence."""
    for text, names in said.items():
        who = ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} other runs"
        yield f"{who}: {text}."


def _no_run(frames: FrameSet, lifetime: float) -> str:
    """Why frames have no history in time; "" when they have."""
    time = np.asarray(frames.time)
    if len(frames) < 2:
        return "one frame only"
    if not np.isfinite(time).all():
        return "frames without a time"
    if (
        len({(int(n), tuple(np.asarray(frames.frame(i)["numbers"]).tolist())) for i, n in enumerate(frames.n_atoms)})
        > 1
    ):
        return "frames of different atoms"
    if (np.diff(time) <= 0).any():
        return "frames of several runs, or not in order of time"
    if time[-1] - time[0] + np.median(np.diff(time)) < lifetime:
        return f"the run is shorter than what a change must last ({lifetime / PS:g} ps)"
    return ""


class _Named:
    """Puts the name of a run, and the option that helps, into errors."""

    def __init__(self, name: str, cure: str = "") -> None:
        self.name, self.cure = name, cure

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DataError):
            hint = self.cure if self.cure and "without a time" in error.what else error.hint
            raise DataError(
                error.what, where=(self.name, *error.where), expected=error.expected, found=error.found, hint=hint
            ) from None


def _who(event: Any) -> str:
    return f"{chemical_symbols[event.elements[0]]}{event.atom}" if event.atom >= 0 else event.kind


def _values(curve: MSD, z: int) -> np.ndarray:
    return curve.total if z == 0 else curve.by_element[z]


def _symbol(z: int) -> str:
    return chemical_symbols[z] if z else "all"
