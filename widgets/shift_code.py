"""Python that makes what the shift explorer shows: the view itself, the numbers, the picture, the selection."""

from __future__ import annotations

import pprint
from typing import TYPE_CHECKING

from mlipkit.data import FrameSet

from .base import short_path
from .shift_sets import place_of

if TYPE_CHECKING:
    from .shift_explorer import ShiftExplorer

INDEX = {"PC1, PC2": (0, 1), "PC3, PC4": (2, 3)}


def code_of(view: ShiftExplorer) -> str:
    """A script for the picture on show."""
    picks, data = view.picks, view.data
    places = {one.name: place_of(one) for one in data.sets}
    fit_on = view.computing.fit_on
    tray = short_path(view.tray.tray.folder)
    lines = [
        "import numpy as np", "import mlipkit as mk", "from mlipkit.analysis import OODModel",
        "from mlipkit.data import FrameSet, Tray, read_source", "from mlipkit.plots import explorer as plots", "",
    ]  # fmt: skip
    lines += ["sets = {"]
    for one in data.sets:
        if isinstance(one.frames, FrameSet):
            lines.append(f"    {one.name!r}: read_source({places[one.name]!r}),")
        else:
            lines.append(f"    {one.name!r}: FrameSet.from_atoms(list(mk.open({places[one.name]!r}).trajectory({one.replica}))),")
    lines += ["}", f"shown = {[name for name in picks.sets]!r}"]
    if fit_on:
        fitted = f"sets[{fit_on[0]!r}]" if len(fit_on) == 1 else f"FrameSet.concat([sets[n] for n in {fit_on!r}])"
        species = "" if len(data.sets) == 1 else ", Soap.of(*sets.values())"
        lines[2] += "\nfrom mlipkit.analysis.soap import Soap" if species else ""
        lines.append(f"model = OODModel.fit({fitted}{species})   # the fit-on set")
    else:
        lines.append(f"model = OODModel.load({str(view.computing.facts.get('fit_on', 'model.npz'))!r})")
    lines += ["scores = {name: model.score(sets[name]) for name in shown}", ""]
    lines += ["numbers = np.concatenate([scores[name].numbers for name in shown])"]
    lines += [f"mine = np.isin(numbers, {list(picks.elements)!r})"]
    if picks.map in INDEX:
        a, b = INDEX[picks.map]
        lines += ["z = np.concatenate([scores[name].projections for name in shown])", f"x, y = z[:, {a}], z[:, {b}]"]
    elif picks.map == "T², Q":
        lines += [
            "x = np.log10(np.concatenate([scores[name].t2 for name in shown]))",
            "y = np.log10(np.concatenate([scores[name].q for name in shown]))",
        ]
    else:
        lines += ["# t-SNE: mlipkit.analysis.embedding.embed, of 30 principal components"]
    lines += _colour(picks.colour, data.names)
    lines += [f"figure = plots.score_map(x[mine], y[mine], colour, axes={data.axes(picks.map)!r})", "figure.show()", ""]
    lines += [f"selected = Tray({tray!r}).selection          # what lies in the tray"]
    lines += ["frames = selected.frames([sets[name] for name in sets])", ""]
    arguments = pprint.pformat(places, width=100, sort_dicts=False)
    lines += ["# the same view:", "from mlipkit_widgets import ShiftExplorer", f"ShiftExplorer({arguments})"]
    return "\n".join(lines)


def _colour(kind: str, names: list[str]) -> list[str]:
    if kind == "element":
        return ["colour = plots.by_element(numbers[mine])"]
    if kind == "set":
        return [
            "codes = np.repeat(np.arange(len(shown)), [len(scores[name].q) for name in shown])[mine]",
            "colour = plots.Groups(codes, tuple(shown), plots.COLOURS)",
        ]
    if kind == "Q / limit":
        return [
            "limit = np.array([model.limits[int(z)] for z in numbers])",
            "q = np.concatenate([scores[name].q for name in shown])",
            'colour = plots.Values((q / limit)[mine], 0.0, 2.0, "Q / limit")',
        ]
    if kind == "time":
        return [
            "time = np.concatenate([np.repeat(sets[n].time, sets[n].n_atoms) for n in shown]) / 1000",
            'colour = plots.Values(time[mine], np.nanmin(time), np.nanmax(time), "time (ps)")',
        ]
    return [
        "# force error: np.linalg.norm(mk.models.predict(potential, sets[name]).forces - sets[name].forces, axis=1)",
        "colour = plots.by_element(numbers[mine])",
    ]
