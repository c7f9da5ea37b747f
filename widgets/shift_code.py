"""Python that makes what the shift explorer shows: the view itself, the numbers, the picture, the selection."""

from __future__ import annotations

import pprint
from typing import TYPE_CHECKING

from mlipkit.data import FrameSet
from mlipkit.runs.places import short_place

from .shift_sets import place_of

if TYPE_CHECKING:
    from .shift_explorer import ShiftExplorer

INDEX = {"PC1, PC2": (0, 1), "PC3, PC4": (2, 3)}


def code_of(view: ShiftExplorer) -> str:
    """A script for the picture on show."""
    picks, data = view.picks, view.data
    places = {one.name: place_of(one) for one in data.sets}
    lines = [
        "import numpy as np", "import mlipkit as mk", "from mlipkit.analysis.ood import OODModel",
        "from mlipkit.analysis.soap import Soap", "from mlipkit.data import FrameSet, Tray, read_source",
        "from mlipkit.plots import explorer as plots", "", "sets = {",
    ]  # fmt: skip
    for one in data.sets:
        read = f"read_source({places[one.name]!r})"
        if not isinstance(one.frames, FrameSet):
            read = f"FrameSet.from_atoms(list(mk.open({places[one.name]!r}).trajectory({one.replica})))"
        lines.append(f"    {one.name!r}: {read},")
    lines += ["}", f"shown = {list(picks.sets)!r}", *_model(view)]
    lines += [
        "scores = {name: model.score(sets[name]) for name in shown}",
        "numbers = np.concatenate([scores[name].numbers for name in shown])",
        f"mine = np.isin(numbers, {list(picks.elements)!r})",
        *_coordinates(picks.map), *_colour(picks.colour),
        f"figure = plots.score_map(x[mine], y[mine], colour, axes={data.axes(picks.map)!r})", "figure.show()", "",
        f"selected = Tray({short_place(view.tray.tray.folder)!r}).selection   # what lies in the tray",
    ]  # fmt: skip
    if len(view.selection):
        lines.append("frames = selected.frames(sets)")
    arguments = pprint.pformat(places, width=100, sort_dicts=False)
    lines += ["", "# the same view:", "from mlipkit_widgets import ShiftExplorer", f"ShiftExplorer({arguments})"]
    return "\n".join(lines)


def _model(view: ShiftExplorer) -> list[str]:
    fit_on = view.computing.fit_on
    if not fit_on:
        return [f"model = OODModel.load({str(view.computing.facts.get('fit_on', 'model.safetensors'))!r})"]
    fitted = f"sets[{fit_on[0]!r}]" if len(fit_on) == 1 else f"FrameSet.concat([sets[name] for name in {fit_on!r}])"
    options = "".join(f", {name}={value!r}" for name, value in view.computing.options.items())
    return [
        f"soap = Soap.of(*sets.values(){options})",
        f"model = OODModel.fit({fitted}, soap, components={view.computing.components})   # the fit-on set",
    ]


def _coordinates(name: str) -> list[str]:
    if name in INDEX:
        a, b = INDEX[name]
        return ["z = np.concatenate([scores[name].projections for name in shown])", f"x, y = z[:, {a}], z[:, {b}]"]
    if name == "T², Q":
        return [f"{axis} = np.log10(np.concatenate([scores[name].{what} for name in shown]))"
                for axis, what in (("x", "t2"), ("y", "q"))]  # fmt: skip
    return [
        "from mlipkit.analysis.embedding import tsne", "from mlipkit.analysis.pca import fit_pca",
        "rows = np.concatenate([model.descriptor(sets[name]) for name in shown])   # the view: at most 4000 atoms",
        "x, y = tsne(fit_pca([rows.copy()], k=30).transform(rows)).points.T",
    ]  # fmt: skip


def _colour(kind: str) -> list[str]:
    if kind == "element":
        return ["colour = plots.by_element(numbers[mine])"]
    if kind == "set":
        return [
            "codes = np.repeat(np.arange(len(shown)), [len(scores[name].q) for name in shown])[mine]",
            "colour = plots.Groups(codes, tuple(shown), plots.COLOURS[: len(shown)])",
        ]
    if kind == "Q / limit":
        return [
            "ratio = np.concatenate([scores[name].ratio for name in shown])",
            'colour = plots.Values(ratio[mine], 0.0, 2.0, "Q / limit")',
        ]
    if kind == "time":
        return [
            "time = np.concatenate([np.repeat(sets[name].time, sets[name].n_atoms) for name in shown]) / 1000",
            'colour = plots.Values(time[mine], np.nanmin(time), np.nanmax(time), "time (ps)")',
        ]
    return [
        "# force error: np.linalg.norm(mk.models.predict(potential, sets[name]).forces - sets[name].forces, axis=1)",
        "colour = plots.by_element(numbers[mine])",
    ]
