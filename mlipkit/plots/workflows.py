"""Pictures of fine-tuning workflows: errors of arms beside their controls, rounds on one axis, growth, residuals.

Arms keep one colour in all of them: the order in which they are given is that of `mlipkit.plots.runs.COLOURS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.errors import DataError
from mlipkit.plots.cells import GROUND, categories
from mlipkit.plots.runs import COLOURS, FAILURE, STOPPED, styled

PANELS = {
    "rmse_e": "energy RMSE<br>meV/atom",
    "std_e": "energy, mean<br>removed<br>meV/atom",
    "rmse_f": "force RMSE<br>eV/Å",
}
"""Figures of an error picture, one panel each."""
OUTCOMES = {"labelled": "labelled", "waits": "no label yet", "failed": "labelling failed", "struck": "struck out"}
"""What became of picked frames, in the order in which bars are stacked."""
TONES = {"waits": "rgba(128,128,128,0.45)", "failed": FAILURE, "struck": "#CC79A7"}
LEGEND_ROW = 22
"""Height in px of a line of a legend; in a narrow page it holds two long names."""
BAR = 0.8
"""Share of a round's width that its bars take."""


@dataclass(frozen=True)
class ModelErrors:
    """Errors of one model of an arm on one test set.

    Attributes:
        kind: untouched, offset (the control) or finetuned.
        round: of a fine-tuned model, and of the one that an offset control belongs to.
        values: figure -> (value, low, high); ends may be None.
        n_frames: of the test set.
    """

    kind: str
    round: int
    values: Mapping[str, tuple[float | None, float | None, float | None]]
    n_frames: int = 0

    @property
    def label(self) -> str:
        return {"untouched": "untouched", "offset": "offset"}.get(self.kind, str(self.round))


@dataclass(frozen=True)
class OwnRun:
    """Residuals of energies of one model along its own simulation.

    Attributes:
        name: model, for the legend. arm: its number, for the colour; -1: a control, grey.
        time_ps: [n]. residual: [n] meV/atom, predicted less labelled.
        hidden: shown only when its name in the legend is clicked.
    """

    name: str
    arm: int
    time_ps: ArrayLike
    residual: ArrayLike
    hidden: bool = False


@dataclass(frozen=True)
class Rounds:
    """What became of an arm's frames, round by round [R].

    Attributes:
        counts: key of `OUTCOMES` -> [R] frames.
        trained: [R] frames of the round's fine-tuning, None before it is done.
        workflows: how many were added up.
    """

    counts: Mapping[str, Sequence[int]]
    trained: Sequence[int | None] = field(default_factory=list)
    workflows: int = 1


def model_places(arms: Mapping[str, Sequence[ModelErrors]]) -> list[tuple[int, str, ModelErrors]]:
    """Where each model stands on the axis of `arm_errors`: (x, arm, model)."""
    found, x = [], 0
    for arm, models in arms.items():
        for one in models:
            found.append((x, arm, one))
            x += 1
        x += 1
    return found


def arm_errors(arms: Mapping[str, Sequence[ModelErrors]], *, chosen: int | None = None, title: str = "") -> go.Figure:
    """Errors of the models of every arm with intervals: untouched, offset control, then round after round.

    Args:
        arms: arm -> its models, controls first.
        chosen: round that is marked.
        title: of the test set, small.
    """
    places = model_places(arms)
    if not places:
        raise DataError("no model to draw", where="arm_errors")
    panels = {key: name for key, name in PANELS.items() if any(_known(one, key) for _, _, one in places)}
    if not panels:
        raise DataError("no figure to draw", where="arm_errors", expected=", ".join(PANELS))
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for number, arm in enumerate(arms):
        mine = [(x, one) for x, name, one in places if name == arm]
        colour = COLOURS[number % len(COLOURS)]
        for row, key in enumerate(panels, start=1):
            for kinds, tone, symbol, name in (
                (("untouched", "offset"), STOPPED, "diamond-open", "controls"), (("finetuned",), colour, "circle", arm),
            ):  # fmt: skip
                some = [(x, one) for x, one in mine if one.kind in kinds and _known(one, key)]
                values = [one.values[key] for _, one in some]
                picked = [one.kind == "finetuned" and one.round == chosen for _, one in some]
                figure.add_trace(
                    go.Scatter(
                        x=[x for x, _ in some], y=[value for value, _, _ in values], name=name, legendgroup=name,
                        mode="markers", cliponaxis=False, showlegend=row == 1 and (name == arm or number == 0),
                        marker={"color": tone, "symbol": symbol, "opacity": 1,
                                "size": [13 if one else 8 for one in picked]},
                        error_y={
                            "type": "data", "symmetric": False, "color": tone, "thickness": 1.5, "width": 4,
                            "array": [_gap(high, value) for value, _, high in values],
                            "arrayminus": [_gap(value, low) for value, low, _ in values],
                        },
                        customdata=[[one.label, low, high, one.n_frames]
                                    for (_, one), (_, low, high) in zip(some, values, strict=True)],
                        hovertemplate="%{customdata[0]}: %{y:.3g} (%{customdata[1]:.3g} to %{customdata[2]:.3g}), "
                        "%{customdata[3]} frames<extra>" + arm + "</extra>",
                    ),
                    row=row, col=1,
                )  # fmt: skip
    styled(figure, 110 + 130 * len(panels))
    ticks = {"tickmode": "array", "tickvals": [x for x, _, _ in places],
             "ticktext": [one.label for _, _, one in places]}  # fmt: skip
    figure.update_xaxes(**ticks, showgrid=False, range=[-0.7, places[-1][0] + 0.7])
    figure.update_xaxes(title_text="fine-tuned in round" + (f" · test set: {title}" if title else ""),
                        row=len(panels), col=1)  # fmt: skip
    for row, (key, name) in enumerate(panels.items(), start=1):
        shown = [one.values[key] for _, _, one in places if _known(one, key)]
        figure.update_yaxes(title_text=name, row=row, col=1, **_axis(shown))
    for number, arm in enumerate(arms):
        mine_x = [x for x, name, _ in places if name == arm]
        figure.add_annotation(
            text=f'<span style="color:{COLOURS[number % len(COLOURS)]}">●</span> <b>{arm}</b>', showarrow=False,
            x=float(np.mean(mine_x)), y=1, yref="paper", yanchor="bottom",
        )  # fmt: skip
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.06, "x": 0}
    return figure.update_layout(hovermode="closest", legend=legend, margin_t=64)


def iteration_timeline(arms: Mapping[str, Rounds], n_rounds: int, *, chosen: int | None = None) -> go.Figure:
    """All rounds on one axis: for each arm what became of its frames, and on how many a model was trained.

    Args:
        arms: arm -> its frames; several seeds of an arm added up.
        n_rounds: rounds of the longest arm; they count from 1.
        chosen: round that is marked.
    """
    figure = go.Figure()
    width = BAR / max(1, len(arms))
    top = 1.0
    for number, (arm, one) in enumerate(arms.items()):
        colour = COLOURS[number % len(COLOURS)]
        together = f", {one.workflows} workflows" if one.workflows > 1 else ""
        height = np.zeros(n_rounds)
        x = 1 + np.arange(n_rounds) + (number - (len(arms) - 1) / 2) * width
        for kind, words in OUTCOMES.items():
            counts = _padded(one.counts.get(kind, ()), n_rounds)
            if kind != "labelled" and not counts.any():
                continue
            first = kind == "labelled" or not any(
                _padded(other.counts.get(kind, ()), n_rounds).any() for other in list(arms.values())[:number]
            )
            figure.add_trace(
                go.Bar(
                    x=x, y=counts, base=height.copy(), width=0.92 * width, showlegend=first,
                    name=f"{arm}{together}: {words}" if kind == "labelled" else words,
                    legendgroup=arm if kind == "labelled" else kind,
                    marker={"color": colour if kind == "labelled" else TONES[kind], "line": {"width": 0}},
                    hovertemplate="%{y} " + words + "<extra>" + arm + "</extra>",
                )
            )  # fmt: skip
            height += counts
        top = max(top, height.max(initial=0.0))
        done = [(place, n, high) for place, n, high in zip(x, one.trained, height, strict=False) if n is not None]
        figure.add_trace(
            go.Scatter(
                x=[place for place, _, _ in done], y=[high for _, _, high in done], mode="text",
                text=[f"▲ {n}" for _, n, _ in done], textposition="top center",
                showlegend=False, hovertemplate="trained on %{text} frames<extra>" + arm + "</extra>",
            )
        )  # fmt: skip
    styled(figure, 260)
    figure.update_layout(barmode="overlay", hovermode="closest", bargap=0, shapes=round_band(chosen))
    figure.update_xaxes(
        title_text="round (▲ frames that its model was trained on)", tickmode="array", showgrid=False,
        tickvals=list(range(1, n_rounds + 1)), range=[0.5, n_rounds + 0.5],
    )  # fmt: skip
    return figure.update_yaxes(title_text="frames", range=[0, 1.25 * top])


def round_band(chosen: int | None) -> list[dict[str, Any]]:
    """Shapes that mark a round; none without one."""
    if chosen is None:
        return []
    return [{
        "type": "rect", "x0": chosen - 0.48, "x1": chosen + 0.48, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
        "fillcolor": "rgba(128,128,128,0.16)", "line": {"width": 1, "color": STOPPED},
    }]  # fmt: skip


def growth_of_arms(
    arms: Mapping[str, tuple[ArrayLike, ArrayLike]], width: float, *, chosen: int,
    axes: tuple[str, str] = ("PC1", "PC2"),
) -> go.Figure:  # fmt: skip
    """Score space of the training sets up to a round, a panel per arm: in colour what this round found first.

    Args:
        arms: arm -> (bins [M,2] column and row of occupied bins, each once; born [M] round that found it, from 1).
        width: of the bins, units of the scores; all arms from one fit.
        chosen: the round; later ones are left out.
    """
    tables = {arm: (np.asarray(bins, dtype=np.int64).reshape(-1, 2), np.asarray(born, dtype=int))
              for arm, (bins, born) in arms.items()}  # fmt: skip
    every = [bins for bins, _ in tables.values() if len(bins)]
    if not every:
        raise DataError("no bin is occupied", where="growth_of_arms")
    low = np.concatenate(every).min(axis=0) - 1
    columns, rows = (np.concatenate(every).max(axis=0) - low + 2).tolist()
    titles = [
        f"{arm}: {int((born <= chosen).sum()):,} bins, {int((born == chosen).sum()):,} new"
        for arm, (_, born) in tables.items()
    ]
    figure = make_subplots(rows=1, cols=len(tables), shared_yaxes=True, shared_xaxes=True, subplot_titles=titles,
                           horizontal_spacing=0.03)  # fmt: skip
    xs = (low[0] + np.arange(columns + 1)) * width
    ys = (low[1] + np.arange(rows + 1)) * width
    for number, (bins, born) in enumerate(tables.values()):
        kind = np.zeros((rows, columns), dtype=np.uint8)
        for when, flag in ((born < chosen, 1), (born == chosen, 2)):
            place = bins[when] - low
            kind[place[:, 1], place[:, 0]] = flag
        palette = ["rgba(0,0,0,0)", GROUND, COLOURS[number % len(COLOURS)]]
        figure.add_trace(categories(kind, xs, ys, palette), row=1, col=number + 1)
    styled(figure, 340)
    figure.update_xaxes(title_text=axes[0], matches="x", nticks=5)
    figure.update_yaxes(matches="y")
    figure.update_yaxes(title_text=axes[1], row=1, col=1)
    figure.update_annotations(font_size=13)
    return figure.update_layout(hovermode="closest", margin_t=50)


def own_residuals(runs: Sequence[OwnRun]) -> go.Figure:
    """Residuals of energies of each model along its own simulation, its mean as a dashed line and in the legend."""
    figure, named = go.Figure(), 0
    for one in runs:
        time, values = np.asarray(one.time_ps, dtype=float), np.asarray(one.residual, dtype=float)
        known = np.isfinite(time) & np.isfinite(values)
        if not known.any():
            continue
        named += 1
        time, values = time[known], values[known]
        mean, spread = float(values.mean()), float(values.std())
        control = one.arm < 0
        colour = STOPPED if control else COLOURS[one.arm % len(COLOURS)]
        look: dict[str, Any] = {"legendgroup": one.name, "visible": "legendonly" if one.hidden else True}
        figure.add_trace(
            go.Scatter(
                x=time, y=values, mode="markers+lines", **look,
                name=f"{one.name}: mean {_short(mean, '+')}, std {_short(spread)}",
                line={"width": 1, "color": colour}, marker={
                    "size": 7, "color": colour, "symbol": "diamond-open" if control else "circle"
                },
                hovertemplate="%{x:.3g} ps: %{y:.3g} meV/atom<extra>" + one.name + "</extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[time.min(), time.max()], y=[mean, mean], mode="lines", showlegend=False, hoverinfo="skip", **look,
                line={"width": 2, "color": colour, "dash": "dash"},
            )
        )  # fmt: skip
    styled(figure, 250 + LEGEND_ROW * -(-named // 2))
    figure.update_xaxes(title_text="time of the simulation (ps)")
    figure.update_yaxes(title_text="energy residual<br>meV/atom", zeroline=True, zerolinecolor=STOPPED)
    return figure.update_layout(hovermode="closest")


def _known(one: ModelErrors, key: str) -> bool:
    value = one.values.get(key, (None,))[0]
    return value is not None and np.isfinite(value)


def _gap(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else max(0.0, high - low)


def _axis(values: Sequence[tuple[float | None, float | None, float | None]]) -> dict[str, Any]:
    """Logarithmic where errors differ by more than half a decade, with whole numbers on it; from zero otherwise."""
    middle = [value for value, _, _ in values if value]
    if not middle or min(middle) <= 0 or max(middle) < 4 * min(middle):
        return {"rangemode": "tozero"}
    ends = [end for one in values for end in one if end and end > 0]
    # An interval of two frames may reach over ten decades: errors decide what is seen.
    low = max(min(ends), min(middle) / 5)
    high = min(max(ends), 5 * max(middle))
    each = [float(f"{digit}e{power}") for power in range(-9, 8) for digit in (1, 2, 5)]
    shown = [tick for tick in each if low <= tick <= high]
    if len(shown) > 6:
        shown = [tick for tick in shown if f"{tick:e}"[0] == "1"]
    shown = shown[:: 1 + len(shown) // 7]
    a, b = float(np.log10(low)), float(np.log10(high))
    return {
        "type": "log", "tickmode": "array", "tickvals": shown, "ticktext": [f"{tick:g}" for tick in shown],
        "range": [1.06 * a - 0.06 * b, 1.06 * b - 0.06 * a],
    }  # fmt: skip


def _short(value: float, sign: str = "") -> str:
    """Three digits without a power of ten; what is far below a thousandth is zero."""
    if abs(value) < 5e-4:
        return "0"
    return f"{value:{sign}.0f}" if abs(value) >= 100 else f"{value:{sign}.3g}"


def _padded(counts: Sequence[int], n: int) -> np.ndarray:
    column = np.zeros(n, dtype=int)
    column[: len(counts)] = list(counts)[:n]
    return column
