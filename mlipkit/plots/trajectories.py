"""Pictures of trajectories: radial distributions, displacements, coordination, species, reactions, density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from mlipkit.plots.bonds import faint
from mlipkit.plots.runs import COLOURS, FAILURE, STOPPED, styled

SCIENTIFIC = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Span:
    """A reaction on the time axis: who (a row), from when to when in ps, what is said when pointed at."""

    label: str
    start_ps: float
    end_ps: float
    text: str
    unphysical: bool = False
    ended: bool = True


@dataclass(frozen=True)
class Fit:
    """A diffusion coefficient and its error (NaN: none) in cm²/s, from a line over lags (first, last) in ps."""

    value: float
    error: float
    first_ps: float
    last_ps: float


def radial_distributions(
    r: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    errors: Mapping[str, ArrayLike] | None = None,
    coordination: Mapping[str, ArrayLike] | None = None,
    normalised: bool = True,
) -> go.Figure:
    """Radial distribution functions, with bands of two standard errors and running coordination numbers on demand.

    Args:
        r: [B] Å. curves: pair or set -> [B] g, or neighbours per Å where not `normalised`.
        errors: pair or set -> [B] standard errors.
        coordination: pair or set -> [B] neighbours within r, dashed, on the right axis.
    """
    x = np.asarray(r, dtype=float)
    figure = make_subplots(specs=[[{"secondary_y": coordination is not None}]])
    for index, (name, values) in enumerate(curves.items()):
        colour, y = COLOURS[index % len(COLOURS)], np.asarray(values, dtype=float)
        spread = None if errors is None or name not in errors else np.asarray(errors[name], dtype=float)
        if spread is not None and np.isfinite(spread).any():
            band = np.concatenate([y + 2 * spread, np.maximum(y - 2 * spread, 0)[::-1]])
            figure.add_trace(
                go.Scatter(
                    x=np.concatenate([x, x[::-1]]), y=band, fill="toself", fillcolor=faint(colour, 0.25), mode="lines",
                    line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=name,
                )
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=x, y=y, name=name, mode="lines", line={"width": 1.8, "color": colour}, legendgroup=name)
        )
        if coordination is not None and name in coordination:
            figure.add_trace(
                go.Scatter(
                    x=x, y=np.asarray(coordination[name], dtype=float), mode="lines", name=f"{name}: neighbours",
                    line={"width": 1.2, "color": colour, "dash": "dash"}, legendgroup=name, showlegend=False,
                ),
                secondary_y=True,
            )  # fmt: skip
    if normalised:
        figure.add_hline(y=1, line={"color": STOPPED, "dash": "dot", "width": 1})
    figure.update_xaxes(title_text="r (Å)", rangemode="tozero")
    styled(figure, 340)
    title = "g(r)" if normalised else "neighbours per Å"
    if coordination is None:
        figure.update_yaxes(title_text=title, rangemode="tozero")
    else:
        figure.update_yaxes(title_text=title, rangemode="tozero", secondary_y=False)
        figure.update_yaxes(
            title_text="neighbours within r (dashed)", showgrid=False, range=[0, 12], tickmode="linear", dtick=2,
            secondary_y=True,
        )  # fmt: skip
    return figure.update_layout(legend_itemsizing="constant")


def displacements(
    lag_ps: ArrayLike, curves: Mapping[str, ArrayLike], *, fits: Mapping[str, Fit] | None = None, log: bool = False
) -> go.Figure:
    """Mean squared displacements with the lines that diffusion coefficients come from.

    Args:
        lag_ps: [L]. curves: element or set -> [L] Å².
        fits: element or set -> its fit, dashed, with D in the legend.
        log: both axes logarithmic: free flight has slope 2, diffusion 1, a cage 0.
    """
    lag = np.asarray(lag_ps, dtype=float)
    shown = lag > 0 if log else np.ones(len(lag), bool)
    figure = go.Figure()
    for index, (name, values) in enumerate(curves.items()):
        colour, y = COLOURS[index % len(COLOURS)], np.asarray(values, dtype=float)
        fit = (fits or {}).get(name)
        label = name if fit is None else f"{name}: D = {_with_error(fit.value, fit.error)} cm²/s"
        figure.add_trace(
            go.Scatter(x=lag[shown], y=y[shown], name=label, mode="lines", line={"width": 1.8, "color": colour})
        )
        if fit is not None:
            inside = (lag >= fit.first_ps) & (lag <= fit.last_ps)
            if inside.sum() > 1:
                slope, start = np.polyfit(lag[inside], y[inside], 1)
                ends = np.array([lag[inside][0], lag[inside][-1]])
                figure.add_trace(
                    go.Scatter(
                        x=ends, y=start + slope * ends, mode="lines+markers", showlegend=False, hoverinfo="skip",
                        line={"width": 1.5, "color": colour, "dash": "dash"},
                        marker={"size": 7, "symbol": "line-ns-open"},
                    )
                )  # fmt: skip
    figure.update_xaxes(title_text="lag (ps)")
    figure.update_yaxes(title_text="MSD (Å²)")
    styled(figure, 340)
    if log:
        figure.update_xaxes(type="log", dtick=1, exponentformat="power")
        figure.update_yaxes(type="log", dtick=1, exponentformat="power")
    else:
        figure.update_yaxes(rangemode="tozero")
    return figure


def coordination_series(
    time_ps: ArrayLike,
    smooth: Mapping[str, ArrayLike],
    *,
    median: Mapping[str, ArrayLike] | None = None,
    changes: Sequence[tuple[float, str]] = (),
    title: str = "coordination number",
) -> go.Figure:
    """Coordination numbers over time, thin, with their rounded rolling medians, thick, and marked changes.

    Args:
        time_ps: [T]. smooth: atom -> [T]; median: atom -> int [T].
        changes: (ps, text) of each change of the median.
    """
    time = np.asarray(time_ps, dtype=float)
    figure = go.Figure()
    for index, (name, values) in enumerate(smooth.items()):
        colour = COLOURS[index % len(COLOURS)]
        rolled = (median or {}).get(name)
        line = {"width": 1, "color": faint(colour, 0.45) if rolled is not None else colour}
        figure.add_trace(
            go.Scatter(x=time, y=np.asarray(values), name=name, mode="lines", line=line, showlegend=rolled is None,
                       legendgroup=name)
        )  # fmt: skip
        if rolled is not None:
            figure.add_trace(
                go.Scatter(
                    x=time, y=np.asarray(rolled), name=name, mode="lines", legendgroup=name,
                    line={"width": 2.5, "color": colour, "shape": "hv"},
                )
            )  # fmt: skip
    for at, text in changes:
        figure.add_vline(
            x=at, line={"dash": "dash", "color": STOPPED, "width": 1}, annotation_text=text,
            annotation_position="bottom right", annotation_yshift=6, annotation_font_color=STOPPED,
        )  # fmt: skip
    figure.update_xaxes(title_text="time (ps)")
    figure.update_yaxes(title_text=title, dtick=1)
    return styled(figure, 300)


def species_counts(time_ps: ArrayLike, counts: Mapping[str, ArrayLike]) -> go.Figure:
    """Molecules of each species over time, as steps; one panel each, as some are thousands and some are one.

    Args:
        time_ps: [T]. counts: formula -> int [T].
    """
    time, n = np.asarray(time_ps, dtype=float), max(1, len(counts))
    figure = make_subplots(rows=n, cols=1, shared_xaxes=True, vertical_spacing=0.12 / n)
    for row, (name, values) in enumerate(counts.items(), start=1):
        y = np.asarray(values)
        colour = COLOURS[(row - 1) % len(COLOURS)]
        figure.add_trace(
            go.Scatter(x=time, y=y, name=subscripted(name), mode="lines", showlegend=False,
                       line={"width": 1.8, "shape": "hv", "color": colour}),
            row=row, col=1,
        )  # fmt: skip
        low, high = int(y.min()), int(y.max())
        step = max(1, -(-(high - low) // 3))
        figure.update_yaxes(
            title_text=subscripted(name), range=[low - 0.4 * step, high + 0.4 * step], tickmode="array",
            tickvals=list(range(low, high + 1, step)), row=row, col=1,
        )  # fmt: skip
    figure.update_xaxes(title_text="time (ps)", row=n, col=1)
    styled(figure, 90 + 75 * n)
    return figure.update_layout(margin_t=16)


def reaction_timeline(spans: Sequence[Span], end_ps: float, start_ps: float = 0.0) -> go.Figure:
    """Reactions as bars from the moment that the new bond is there to its end; an arrow where the run ends first.

    Args:
        spans: in the order of the rows.
        end_ps, start_ps: of the run.
    """
    figure = go.Figure()
    for kind, unphysical in (("reaction", False), ("unphysical", True)):
        mine = [span for span in spans if span.unphysical == unphysical]
        colour = FAILURE if unphysical else COLOURS[0]
        figure.add_trace(
            go.Bar(
                x=[span.end_ps - span.start_ps for span in mine], base=[span.start_ps for span in mine],
                y=[span.label for span in mine], orientation="h", name=kind, customdata=[span.text for span in mine],
                hovertemplate="%{customdata}<extra></extra>", showlegend=any(span.unphysical for span in spans),
                marker={"color": faint(colour, 0.55), "line": {"width": 1.2, "color": colour}},
            )
        )  # fmt: skip
        still = [span for span in mine if not span.ended]
        figure.add_trace(
            go.Scatter(
                x=[span.end_ps for span in still], y=[span.label for span in still], mode="markers", showlegend=False,
                marker={"symbol": "triangle-right", "size": 11, "color": colour}, hoverinfo="skip", cliponaxis=False,
            )
        )  # fmt: skip
    order = list(dict.fromkeys(span.label for span in spans))
    figure.update_xaxes(title_text="time (ps)", range=[start_ps, end_ps])
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=order[::-1])
    styled(figure, 110 + 34 * max(1, len(order)))
    if not spans:
        figure.add_annotation(text="no reaction", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
        figure.update_yaxes(showticklabels=False)
    return figure.update_layout(barmode="overlay", bargap=0.35, hovermode="closest")


def density_by_run(values: Mapping[str, Mapping[str, ArrayLike]]) -> go.Figure:
    """Density of every frame, one column per run, one colour per set, with the mean of each run as a bar.

    Args:
        values: set -> run -> [F] g/cm³.
    """
    figure = go.Figure()
    labels, places, column = [], [], 0.0
    for index, (name, runs) in enumerate(values.items()):
        colour = COLOURS[index % len(COLOURS)]
        x, y, mean_x, mean_y = [], [], [], []
        for run, density in runs.items():
            some = np.asarray(density, dtype=float)
            some = some[np.isfinite(some)]
            # Spread evenly, so that frames of equal density stay apart without chance.
            x += list(column + np.linspace(-0.22, 0.22, len(some)) if len(some) > 1 else [column] * len(some))
            y += some.tolist()
            mean = float(some.mean()) if len(some) else np.nan
            mean_x += [column - 0.36, column + 0.36, None]
            mean_y += [mean, mean, None]
            labels.append(run)
            places.append(column)
            column += 1
        figure.add_trace(
            go.Scatter(x=x, y=y, mode="markers", name=name, legendgroup=name,
                       marker={"size": 5, "opacity": 0.65, "color": colour},
                       hovertemplate="%{y:.3f} g/cm³<extra>" + name + "</extra>")
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=mean_x, y=mean_y, mode="lines", legendgroup=name, showlegend=False, hoverinfo="skip",
                       line={"width": 3, "color": colour})
        )  # fmt: skip
        column += 0.6
    figure.update_xaxes(
        tickmode="array", tickvals=places, ticktext=labels, showgrid=False, title_text="run, its frames in order",
    )  # fmt: skip
    figure.update_yaxes(title_text="density (g/cm³)")
    return styled(figure, 320).update_layout(hovermode="closest")


def subscripted(formula: str) -> str:
    """C6H8O7 with the numbers below the line."""
    return formula.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _with_error(value: float, error: float) -> str:
    """ "2.31(12)·10⁻⁵": the value to the digits that its error leaves."""
    if not np.isfinite(value) or value == 0:
        return f"{value:.3g}"
    power = int(np.floor(np.log10(abs(value))))
    mantissa, scale = value / 10.0**power, f"·10{str(power).translate(SCIENTIFIC)}"
    if not np.isfinite(error) or error <= 0:
        return f"{mantissa:.2f}{scale}"
    spread = error / 10.0**power
    digits = int(np.clip(1 - np.floor(np.log10(spread)), 0, 4))
    if spread >= 1:
        return f"({mantissa:.1f} ± {spread:.1f}){scale}"
    return f"{mantissa:.{digits}f}({round(spread * 10**digits)}){scale}"
