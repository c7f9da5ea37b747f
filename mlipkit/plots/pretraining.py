"""Pictures of iterative pretraining: iterations on one axis, arms beside their controls, test simulations that failed.

Everything is drawn from plain numbers; what is not known yet is None and leaves a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mlipkit.errors import DataError
from mlipkit.plots.runs import COLOURS, FAILURE, STOPPED, styled
from mlipkit.plots.workflows import round_band

Range = tuple[float, float, float]
"""Value, low, high."""
POOL = {
    "first": ("first pool of the teacher", COLOURS[2]),
    "kept": ("kept with the label they had", COLOURS[5]),
    "relabelled": ("kept, relabelled by the student", COLOURS[0]),
    "new": ("new, from runs that held", COLOURS[4]),
    "unstable": ("new, from before failures", COLOURS[1]),
}  # fmt: skip
"""Parts of a pool in the order in which bars are stacked: name and colour."""
PANELS = {
    "pool": ("pool<br>frames", 1.5), "errors": ("force MAE<br>meV/Å", 1.5), "failed": ("failed<br>runs %", 1.0),
    "teacher": ("labels by<br>teacher %", 0.9), "speed": ("speed,<br>student /<br>teacher", 0.9),
}  # fmt: skip
"""Panels of the timeline: title of the axis and share of the height."""
PANEL = 108


@dataclass(frozen=True)
class Iteration:
    """One iteration of an arm; 0 is the one-shot round, before any student has simulated.

    Attributes:
        number: from 0.
        pool: key of `POOL` -> frames, a partition of the pool; empty where there is none yet.
        forgotten: frames that were dropped to get there.
        validation, test: force MAE of its student, meV/Å.
        pretrained: force MAE on the validation frames before they and the DFT frames had a say: of the student that is
            pretrained and not yet fine-tuned, meV/Å.
        failed: failed fraction of the MD that this pool was made from, with its 95 % interval; n_failed of n_runs.
        sampler: who simulated: "teacher" or "student 0".
        tested: failed fraction of the test simulations of its student, likewise; n_tested_failed of n_tested.
        teacher_share: of the labels of the pool, 0 to 1.
        speed: MD steps per second of the sampler over those of the teacher, same starts together, same machine.
    """

    number: int
    pool: Mapping[str, int]
    forgotten: int = 0
    validation: float | None = None
    test: float | None = None
    failed: Range | None = None
    n_failed: int = 0
    n_runs: int = 0
    sampler: str = ""
    tested: Range | None = None
    n_tested_failed: int = 0
    n_tested: int = 0
    teacher_share: float | None = None
    speed: float | None = None
    pretrained: float | None = None


def loop_timeline(
    iterations: Sequence[Iteration], controls: Mapping[str, float] | None = None, *, chosen: int | None = None
) -> go.Figure:
    """All iterations on one axis: pool, errors beside controls, failed runs, the teacher's share, and speed.

    Args:
        controls: name -> force MAE on the test frames, meV/Å: lines in the panel of errors.
        chosen: iteration that is marked.
    """
    if not iterations:
        raise DataError("no iteration to draw", where="loop_timeline")
    drawn = [key for key, there in _there(iterations).items() if there]
    if not drawn:
        raise DataError("nothing is known of any iteration yet", where="loop_timeline")
    heights = [PANELS[key][1] for key in drawn]
    figure = make_subplots(rows=len(drawn), cols=1, shared_xaxes=True, vertical_spacing=0.035, row_heights=heights)
    last = max(one.number for one in iterations)
    add = {"pool": _pool, "errors": _errors, "failed": _failed, "teacher": _teacher, "speed": _speed}
    for row, key in enumerate(drawn, start=1):
        more = {"controls": controls or {}, "last": last} if key == "errors" else {}
        add[key](figure, row, iterations, **more)
        figure.update_yaxes(title_text=PANELS[key][0], row=row, col=1)
    styled(figure, int(PANEL * sum(heights)) + 120)
    figure.update_xaxes(
        tickmode="array", tickvals=[one.number for one in iterations], range=[-0.5, last + 0.5], showgrid=False
    )
    figure.update_xaxes(title_text="iteration (0: one shot)", row=len(drawn), col=1)
    # Many names: when a page becomes wider they take fewer lines, and must not come down upon the bars.
    figure.update_layout(legend={"yref": "container", "yanchor": "top", "y": 1}, margin_t=100)
    return figure.update_layout(barmode="stack", hovermode="closest", bargap=0.45, shapes=round_band(chosen))


def something_known(iterations: Sequence[Iteration]) -> bool:
    """Whether `loop_timeline` has something to draw."""
    return any(_there(iterations).values())


def arms_beside(rows: Sequence[Mapping[str, Any]], cures: Sequence[str] = ("ipip", "continual")) -> go.Figure:
    """Test errors of every arm: mean over seeds, with the least and most of them.

    Args:
        rows: name, forces_mae and energy_mae as (mean, least, most) in meV/Å and meV/atom, seeds.
        cures: names that are drawn in colour. Names with ``no_`` are loops without a part, and judge none of them;
            all others are controls, in grey.
    """
    if not rows:
        raise DataError("no arm to draw", where="arms_beside")
    panels = {"forces_mae": "force MAE<br>meV/Å", "energy_mae": "energy MAE<br>meV/atom"}
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    told = "the loop" if sum(row["name"] in cures for row in rows) == 1 else "loops"
    groups = (
        (told, COLOURS[0], "circle"), ("without a part", COLOURS[0], "circle-open"),
        ("controls", STOPPED, "diamond-open"),
    )  # fmt: skip
    kinds = [_kind(str(row["name"]), cures) for row in rows]
    for line, key in enumerate(panels, start=1):
        for kind, (name, tone, symbol) in enumerate(groups):
            mine = [(x, row) for x, row in enumerate(rows) if kinds[x] == kind]
            if not mine:
                continue
            values = [row[key] for _, row in mine]
            figure.add_trace(
                go.Scatter(
                    x=[x for x, _ in mine], y=[mean for mean, _, _ in values], name=name, legendgroup=name,
                    showlegend=line == 1, mode="markers+text", cliponaxis=False, textposition="middle right",
                    text=[f"  {mean:.3g}" for mean, _, _ in values],
                    marker={"color": tone, "symbol": symbol, "size": 9 if kind == 2 else 11},
                    error_y={
                        "type": "data", "symmetric": False, "color": tone, "thickness": 1.5, "width": 4,
                        "array": [most - mean for mean, _, most in values],
                        "arrayminus": [mean - least for mean, least, _ in values],
                    },
                    customdata=[[row["name"], row["seeds"], *row[key][1:]] for _, row in mine],
                    hovertemplate="%{y:.4g} (%{customdata[2]:.4g} to %{customdata[3]:.4g}, seeds: %{customdata[1]})"
                    "<extra>%{customdata[0]}</extra>",
                ),
                row=line, col=1,
            )  # fmt: skip
        figure.update_yaxes(title_text=panels[key], rangemode="tozero", row=line, col=1)
    styled(figure, 380)
    names = [_wrapped(str(row["name"])) for row in rows]
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(rows))), ticktext=names, tickangle=0,
                        showgrid=False, range=[-0.6, len(rows) - 0.2])  # fmt: skip
    return figure.update_layout(hovermode="closest")


def failed_tests(
    tests: Mapping[str, tuple[int, int, float, float]], cures: Sequence[str] = ("ipip", "continual")
) -> go.Figure:
    """Test simulations that failed of each arm, in percent with 95 % intervals (Wilson).

    Args:
        tests: arm -> failed, runs, low, high (shares).
        cures: as of `arms_beside`; loops without a part are paler.
    """
    if not tests:
        raise DataError("no test simulation to draw", where="failed_tests")
    shares = [100 * failed / runs for failed, runs, _, _ in tests.values()]
    counts = [f"{failed} of {runs}" for failed, runs, _, _ in tests.values()]
    kinds = [_kind(name, cures) for name in tests]
    figure = go.Figure(
        go.Bar(
            x=list(range(len(tests))), y=shares, width=0.5, showlegend=False, customdata=list(tests),
            marker={"color": [(COLOURS[0], COLOURS[0], STOPPED)[kind] for kind in kinds],
                    "opacity": [(0.75, 0.35, 0.75)[kind] for kind in kinds]},
            error_y={
                "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": "rgba(128,128,128,1)",
                "array": [100 * high - share for share, (_, _, _, high) in zip(shares, tests.values(), strict=True)],
                "arrayminus": [share - 100 * low for share, (_, _, low, _) in zip(shares, tests.values(), strict=True)],
            },
            text=counts, textposition="none", hovertemplate="%{text} failed<extra>%{customdata}</extra>",
        )
    )  # fmt: skip
    styled(figure, 230)
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(tests))), tickangle=0, showgrid=False,
                        ticktext=[f"{_wrapped(name)}<br><b>{count}</b>" for name, count in zip(tests, counts,
                                                                                           strict=True)])  # fmt: skip
    return figure.update_yaxes(title_text="test simulations<br>that failed %", range=[0, 104], dtick=25)


def _kind(name: str, cures: Sequence[str]) -> int:
    """0: a cure, 1: a loop without a part, 2: a control."""
    return 0 if name in cures else 1 if name.startswith("no_") else 2


def _wrapped(name: str) -> str:
    """Long names over several lines."""
    name = name.replace(", ", "<br>")
    return name.replace("_", "<br>") if len(name) > 12 and "<br>" not in name else name


def _there(iterations: Sequence[Iteration]) -> dict[str, bool]:
    """Panels that have something to show."""
    return {
        "pool": any(one.pool for one in iterations),
        "errors": any(one.validation is not None or one.test is not None for one in iterations),
        "failed": any(one.failed is not None or one.tested is not None for one in iterations),
        "teacher": any(one.teacher_share is not None for one in iterations),
        "speed": any(one.speed is not None for one in iterations if one.number),
    }


def _pool(figure: go.Figure, row: int, iterations: Sequence[Iteration]) -> None:
    x = [one.number for one in iterations]
    for key, (name, tone) in POOL.items():
        counts = [one.pool.get(key, 0) for one in iterations]
        if any(counts):
            figure.add_trace(go.Bar(x=x, y=counts, name=name, legendgroup=key, marker={"color": tone},
                                    hovertemplate="%{y} " + name + "<extra></extra>"), row=row, col=1)  # fmt: skip
    lost = [one.forgotten for one in iterations]
    if any(lost):
        figure.add_trace(
            go.Bar(x=x, y=lost, name="forgotten", legendgroup="forgotten",
                   marker={"color": "rgba(0,0,0,0)", "line": {"width": 1, "color": STOPPED},
                           "pattern": {"shape": "/", "fgcolor": STOPPED, "size": 6}},
                   hovertemplate="%{y} forgotten<extra></extra>"), row=row, col=1)  # fmt: skip


def _errors(
    figure: go.Figure, row: int, iterations: Sequence[Iteration], controls: Mapping[str, float], last: int
) -> None:
    x = [one.number for one in iterations]
    for name, values, tone, symbol in (
        ("test", [one.test for one in iterations], COLOURS[0], "circle"),
        ("validation", [one.validation for one in iterations], COLOURS[3], "square-open"),
        ("validation, before fine-tuning", [one.pretrained for one in iterations], COLOURS[4], "triangle-down-open"),
    ):
        if any(value is not None for value in values):
            figure.add_trace(
                go.Scatter(x=x, y=values, name=f"force MAE, {name}", mode="lines+markers",
                           line={"color": tone, "width": 1.5, "dash": "solid" if name == "test" else "dot"},
                           marker={"symbol": symbol, "size": 9}, hovertemplate="%{y:.4g} meV/Å<extra>" + name +
                           "</extra>"), row=row, col=1)  # fmt: skip
    dashes = ("dash", "dot", "dashdot", "longdash")
    for number, (name, value) in enumerate(controls.items()):
        figure.add_trace(
            go.Scatter(x=[-0.5, last + 0.5], y=[value, value], name=f"{name} (test): {value:.3g}", mode="lines",
                       line={"color": STOPPED, "width": 1.5, "dash": dashes[number % len(dashes)]},
                       hovertemplate="%{y:.4g} meV/Å<extra>" + name + "</extra>"), row=row, col=1)  # fmt: skip
    figure.update_yaxes(rangemode="tozero", row=row, col=1)


def _failed(figure: go.Figure, row: int, iterations: Sequence[Iteration]) -> None:
    kinds = (
        ("MD that made the pool", -0.06, FAILURE, "circle", [(one, one.failed, one.n_failed, one.n_runs, one.sampler)
                                                             for one in iterations]),
        ("test simulations of the student", 0.06, COLOURS[0], "diamond",
         [(one, one.tested, one.n_tested_failed, one.n_tested, f"student {one.number}") for one in iterations]),
    )  # fmt: skip
    for name, aside, tone, symbol, every in kinds:
        some = [(one.number + aside, share, n, of, who) for one, share, n, of, who in every if share is not None]
        if not some:
            continue
        figure.add_trace(
            go.Scatter(
                x=[x for x, *_ in some], y=[100 * share[0] for _, share, *_ in some], name=name, mode="markers",
                cliponaxis=False, marker={"color": tone, "symbol": symbol, "size": 9},
                error_y={"type": "data", "symmetric": False, "color": tone, "thickness": 1.5, "width": 4,
                         "array": [100 * (share[2] - share[0]) for _, share, *_ in some],
                         "arrayminus": [100 * (share[0] - share[1]) for _, share, *_ in some]},
                customdata=[[n, of, 100 * share[1], 100 * share[2], who] for _, share, n, of, who in some],
                hovertemplate="%{customdata[0]} of %{customdata[1]} failed (%{customdata[2]:.0f} to "
                "%{customdata[3]:.0f} %)<extra>%{customdata[4]}</extra>",
            ), row=row, col=1,
        )  # fmt: skip
    figure.update_yaxes(range=[-4, 104], dtick=50, row=row, col=1)


def _teacher(figure: go.Figure, row: int, iterations: Sequence[Iteration]) -> None:
    known = [one for one in iterations if one.teacher_share is not None]
    values = [100 * float(one.teacher_share or 0) for one in known]
    figure.add_trace(
        go.Bar(x=[one.number for one in known], y=values, showlegend=False, marker={"color": COLOURS[2]},
               text=[f"{value:.0f}" for value in values], textposition="outside", cliponaxis=False,
               hovertemplate="%{y:.1f} % of the labels are the teacher's<extra></extra>"), row=row, col=1)  # fmt: skip
    figure.update_yaxes(range=[0, 128], dtick=50, row=row, col=1)


def _speed(figure: go.Figure, row: int, iterations: Sequence[Iteration]) -> None:
    known = [one for one in iterations if one.speed is not None]
    values = [float(one.speed or 0) for one in known]
    figure.add_trace(
        go.Scatter(x=[one.number for one in known], y=values, showlegend=False, mode="markers+text",
                   marker={"color": COLOURS[2], "symbol": "square", "size": 8}, cliponaxis=False,
                   text=[f"  {value:.2g}x" for value in values], textposition="middle right",
                   customdata=[one.sampler for one in known],
                   hovertemplate="%{y:.3g} times the teacher's steps per second<extra>%{customdata}</extra>"),
        row=row, col=1,
    )  # fmt: skip
    figure.update_yaxes(range=[0, 1.35 * float(np.max(values, initial=1.0))], nticks=4, row=row, col=1)
