"""One HTML file that tells all about runs: verdict, figures, numbers, specification, versions. It opens offline."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlipkit import __version__, events
from mlipkit.errors import MlipkitError
from mlipkit.plots import runs as plots
from mlipkit.plots.survival import Curve, failure_reasons, survival_curves
from mlipkit.runs.console import MILLI, figures_of, shown
from mlipkit.runs.dynamic_report import dynamic_html
from mlipkit.runs.finetune_report import finetune_html
from mlipkit.runs.folder import write_text
from mlipkit.runs.ipip_report import ipip_html
from mlipkit.runs.label_report import label_html
from mlipkit.runs.page import details, figure_html, page, table
from mlipkit.runs.parity_file import parity_pairs
from mlipkit.runs.places import universal_of
from mlipkit.runs.replicas import Replicas, curve_of
from mlipkit.runs.run import Run
from mlipkit.runs.spec import (
    DynamicSpec,
    FinetuneSpec,
    FittingSpec,
    IPIPSpec,
    LabelSpec,
    MDSpec,
    RelaxSpec,
    TaipSpec,
    TrainSpec,
    WorkflowSpec,
)  # fmt: skip
from mlipkit.runs.taip_report import taip_html
from mlipkit.runs.workflow_report import workflow_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mlipkit.data import DataReport

MAX_POINTS = 2000
MOST_PICTURES = 4
"""Simulations of one run whose curves are drawn; those that failed first come first."""
FS_PER_PS = 1000.0
REFERENCES = {
    "painn": "K. T. Schütt, O. T. Unke, M. Gastegger, Equivariant message passing for the prediction of tensorial "
    "properties and molecular spectra, ICML 2021 (PaiNN).",
    "schnet": "K. T. Schütt et al., SchNet: a continuous-filter convolutional neural network for modeling quantum "
    "interactions, NeurIPS 30, 2017.",
    "visnet": "Y. Wang et al., Enhancing geometric representations for molecules with equivariant vector-scalar "
    "interactive message passing, Nat. Commun. 15, 313 (2024) (ViSNet).",
    "egnn": "M. Tancik et al., Fourier features let networks learn high frequency functions in low dimensional "
    "domains, NeurIPS 33, 2020.",
    "universal:so3lr": "Kabylda et al., Molecular simulations with a pretrained neural network and universal pairwise "
    "force fields, J. Am. Chem. Soc. 2025, doi 10.1021/jacs.5c09558",
    "universal:sevennet-0": "Park et al., Scalable parallel algorithm for graph neural network interatomic potentials "
    "in molecular dynamics simulations, J. Chem. Theory Comput. 2024, doi 10.1021/acs.jctc.4c00190",
    "universal:chgnet": "Deng et al., CHGNet as a pretrained universal neural network potential for charge-informed "
    "atomistic modelling, Nat. Mach. Intell. 2023, doi 10.1038/s42256-023-00716-3",
    "universal:mace": "Batatia et al., MACE: higher order equivariant message passing neural networks for fast and "
    "accurate force fields, NeurIPS 2022",
    "gfn1-xtb": "S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017) (GFN1-xTB), and tblite.",
    "gfn2-xtb": "C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019) (GFN2-xTB), and tblite.",
    "pyscf": "Q. Sun et al., J. Chem. Phys. 153, 024109 (2020) (PySCF).",
    "ipip": "Iterative Pretraining Framework for Interatomic Potentials, arXiv 2507.20118 (the loop, its options).",
    "langevin": "B. Leimkuhler, C. Matthews, J. Chem. Phys. 138, 174102 (2013) (BAOAB Langevin dynamics).",
    "bussi": "G. Bussi, D. Donadio, M. Parrinello, J. Chem. Phys. 126, 014101 (2007).",
    "berendsen": "H. J. C. Berendsen et al., J. Chem. Phys. 81, 3684 (1984).",
    "nose_hoover": "G. J. Martyna, M. L. Klein, M. Tuckerman, J. Chem. Phys. 97, 2635 (1992).",
    "fire": "E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006) (FIRE).",
    "dynamic": "Dynamic Training Enhances Machine Learning Potentials for Long-Lasting Molecular Dynamics, data doi "
    "10.6084/m9.figshare.28498778.",
    "taip": "Online test-time adaptation for better generalization of interatomic potentials to out-of-distribution "
    "data, Nat. Commun. 2025, doi 10.1038/s41467-025-57101-4 (TAIP).",
    "workflow": "arXiv 2603.10159 (naive and iterative fine-tuning of universal potentials).",
    "ase": "A. Hjorth Larsen et al., The Atomic Simulation Environment, J. Phys.: Condens. Matter 29, 273002 (2017).",
}


def write_report(runs: Run | Sequence[Run], path: Path, title: str = "", before: str = "") -> Path:
    """Write the report of one run, or of several on one page.

    Args:
        path: the HTML file; replaced as a whole.
        title: heading; the name of the run when empty.
        before: HTML that comes ahead of the runs (a data report).
    """
    chosen = [runs] if isinstance(runs, Run) else list(runs)
    title = title or (chosen[0].name if len(chosen) == 1 else "mlipkit report")
    body = [f"<h1>{html.escape(title)}</h1>", before]
    for run in chosen:
        body.append(_section(run, heading=len(chosen) > 1))
    if chosen:
        body.append(_citations(chosen))
    body.append(f"<p><small>mlipkit {__version__}, {time.strftime('%Y-%m-%d %H:%M')}</small></p>")
    write_text(path, page(title, "\n".join(body)))
    return path


def data_html(found: DataReport) -> str:
    """A data report as a piece of the page: findings, table, pictures."""
    pictures = (f"<h3>{html.escape(name)}</h3>{figure_html(figure)}" for name, figure in found.figures().items())
    return f"<pre>{html.escape(str(found))}</pre>{''.join(pictures)}"


def figures(run: Run) -> dict[str, go.Figure]:
    """The pictures of a run that its files allow: heading -> figure."""
    if isinstance(run.spec, RelaxSpec | LabelSpec | WorkflowSpec | IPIPSpec | TaipSpec):
        return {}
    return dict(training_figures(run) if isinstance(run.spec, FittingSpec) else md_figures(run))


def training_figures(run: Run) -> Iterable[tuple[str, go.Figure]]:
    """Loss curves, validation errors, parity."""
    names = run.series_names()
    if "training" in names:
        series = run.series("training")
        curves = series.overview(["loss", "learning_rate"], max_points=MAX_POINTS)
        (x, loss), (_, rate) = curves["loss"], curves["learning_rate"]
        if len(x):
            yield "Training", plots.training_curves(np.asarray(x) + 1, {"loss": loss}, rate)
    if "validation" in names:
        table = run.series("validation").read()
        if len(table["epoch"]):
            errors = {"validation": {key: table[key] for key in ("energy_mae", "forces_mae")}}
            if "retention_forces_mae" in table:
                kept = {key: table[f"retention_{key}"] for key in ("energy_mae", "forces_mae")}
                errors["deviation from the original potential"] = kept
            best = run.facts().get("best_epoch")
            yield "Validation errors", plots.validation_errors(table["epoch"], errors, best)
    for quantity, unit, split, *pair in parity_pairs(run.files.parity):
        yield f"Parity, {quantity}", plots.parity(*pair, quantity=quantity, unit=unit, label=f"{split} frames")


def md_figures(run: Run) -> Iterable[tuple[str, go.Figure]]:
    """Survival of several simulations; of single ones temperature, energy and largest force on one time axis."""
    assert isinstance(run.spec, MDSpec)
    replicas = run.replicas
    if len(replicas) > 1:
        yield from survival_figures(replicas)
    shown_ones = sorted(replicas, key=lambda one: (not one.failed, one.time if one.failed else 0.0, one.index))
    for one in sorted(shown_ones[:MOST_PICTURES], key=lambda one: one.index):
        if "md" not in run.series_names(one.index):
            continue
        series = run.series("md", one.index)
        if not len(series):
            continue
        columns = ["temperature", "potential_energy", "conserved_energy", "max_force"]
        curves = series.overview(columns, max_points=MAX_POINTS)
        dt = run.spec.timestep / FS_PER_PS
        figure = plots.md_curves(
            np.asarray(curves["temperature"][0]) * dt,
            temperature=curves["temperature"][1],
            energies={"potential": curves["potential_energy"][1], "conserved": curves["conserved_energy"][1]},
            max_force=curves["max_force"][1],
            target_temperature=None if run.spec.ensemble == "nve" else one.temperature,
            marks=marks(run, one.index),
        )
        end = " (failed)" if one.failed else ""
        yield "Simulation" if len(replicas) == 1 else f"Replica {one.index}, {one.temperature:g} K{end}", figure


def survival_figures(replicas: Replicas) -> Iterable[tuple[str, go.Figure]]:
    """Survival per start and temperature, and what failed."""
    found = replicas.survival()
    if not found:
        return
    curves = {name: curve_of(found[name]) if name in found else Curve.empty() for name in replicas.groups()}
    yield "Survival", survival_curves(curves, end_ps=replicas.end / FS_PER_PS)
    if replicas.n_failed:
        reasons = {name: found[name].reasons if name in found else {} for name in curves}
        yield "What failed", failure_reasons(reasons)


def survival_table(replicas: Replicas) -> str:
    """Per start and temperature: failed of how many, share that holds with its interval, time by which half failed."""
    rows = []
    for name, curve in replicas.survival().items():
        share, low, high = curve.at(curve.longest)
        ends = [f"{time / FS_PER_PS:.3g}" if np.isfinite(time) else "∞" for time in curve.median_interval]
        half = "not reached"
        if np.isfinite(curve.median):
            half = f"{curve.median / FS_PER_PS:.3g} ({ends[0]} to {ends[1]})"
        rows.append([
            name, f"{curve.n_failed} of {curve.n}", f"{curve.longest / FS_PER_PS:.3g}",
            f"{share:.0%} ({low:.0%} to {high:.0%})", half,
        ])  # fmt: skip
    head = ("simulations", "failed", "followed to, ps", "still holding (95% interval)", "median time to failure, ps")
    return table(rows, head)


def marks(run: Run, replica: int = 0) -> list[plots.Mark]:
    """First warning, failure and user's stop of a simulation, as marks on the time axis."""
    found: dict[str, plots.Mark] = {}
    for event in run.events():
        if isinstance(event, events.Judged) and event.verdict.replica == replica:
            verdict = event.verdict
            time_ps = verdict.time / FS_PER_PS
            if verdict.outcome == "warning":
                found.setdefault("warning", plots.Mark(time_ps, "warning", verdict.sentence))
            elif verdict.outcome == "failed":
                found["failure"] = plots.Mark(time_ps, "failure", verdict.sentence)
    progress = run.progress
    if run.state == "stopped" and progress is not None and isinstance(run.spec, MDSpec):
        time_ps = progress.done * run.spec.timestep / FS_PER_PS
        found["stopped"] = plots.Mark(time_ps, "stopped", run.reason)
    return list(found.values())


def metrics_table(run: Run) -> list[tuple[str, list[str]]]:
    """Errors per split: the same figures for every split, in meV."""
    rows = []
    metrics, order = run.metrics(), ("train", "validation", "test")
    for split, values in sorted(metrics.items(), key=lambda item: order.index(item[0]) if item[0] in order else 3):
        cells = []
        for name in ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse"):
            value = values.get(name)
            cells.append("" if value is None else f"{value * MILLI:.3g}")
        rows.append((split, cells))
    return rows


def _section(run: Run, heading: bool) -> str:
    parts = [f"<h2>{html.escape(run.name)}</h2>" if heading else ""]
    verdict, state = run.verdict, run.state
    said = verdict.sentence if verdict is not None and verdict.sentence else ""
    kind = "warning" if state == "completed" and verdict is not None and verdict.outcome == "warning" else state
    several = run.replicas if isinstance(run.spec, MDSpec) and run.spec.n_simulations > 1 else None
    if several is not None:
        said = several.sentence
        text = f"{state}: {said}" if state in ("completed", "failed", "running") else f"{run.sentence}. {said}"
    else:
        text = run.sentence if not said or said in run.sentence else f"{run.sentence}. {said}"
    parts.append(f'<p class="verdict {kind}">{html.escape(text)}</p>')
    if several is not None:
        parts.append(survival_table(several))
        if len(several) > MOST_PICTURES:
            parts.append(f"<p>Curves of {MOST_PICTURES} of {len(several)} simulations follow, failed ones first.</p>")
    try:
        for title, figure in figures(run).items():
            parts.append(f"<h3>{html.escape(title)}</h3>{figure_html(figure)}")
    except MlipkitError as error:
        parts.append(f'<p class="verdict warning">A picture could not be drawn: {html.escape(str(error))}</p>')
    if isinstance(run.spec, DynamicSpec):
        parts.append(dynamic_html(run))
    if isinstance(run.spec, FinetuneSpec):
        parts.append(finetune_html(run))
    elif isinstance(run.spec, LabelSpec):
        parts.append(label_html(run))
    elif isinstance(run.spec, WorkflowSpec):
        parts.append(workflow_html(run))
    elif isinstance(run.spec, IPIPSpec):
        parts.append(ipip_html(run))
    elif isinstance(run.spec, TaipSpec):
        parts.append(taip_html(run))
    elif isinstance(run.spec, FittingSpec) and run.metrics():
        head = ("split", "energy MAE meV/atom", "energy RMSE meV/atom", "force MAE meV/Å", "force RMSE meV/Å")
        rows = [[split, *cells] for split, cells in metrics_table(run)]
        parts.append(f"<h3>Errors of the best weights</h3>{table(rows, head)}")
    numbers = [
        [name.replace("_", " "), shown(figure)]
        for name, figure in figures_of(run).items()
        if not name.endswith(("mae", "rmse"))
    ]
    parts.append(f"<h3>Numbers</h3>{table(numbers)}" if numbers else "")
    versions = run.files.read("versions.json")
    machine = [[key, str(value)] for key, value in versions.items() if key != "packages"]
    machine += [[key, value] for key, value in versions.get("packages", {}).items()]
    changes = run.changes
    parts.append(details("Specification", run.yaml() + (f"# changed later: {changes}\n" if changes else "")))
    parts.append(details("Python", run.code()))
    parts.append(f"<details><summary>Versions and machine</summary>{table(machine)}</details>" if machine else "")
    parts.append(f"<p><small>{html.escape(str(run.folder))}</small></p>")
    return "\n".join(filter(None, parts))


def _citations(runs: Sequence[Run]) -> str:
    keys: dict[str, None] = {"ase": None}
    for run in runs:
        spec = run.spec
        if isinstance(spec, LabelSpec):
            keys[spec.maker] = None
        elif isinstance(spec, WorkflowSpec):
            keys |= dict.fromkeys(("workflow", spec.sampling.ensemble, "fire", spec.label.maker))
        elif isinstance(spec, IPIPSpec):
            keys |= dict.fromkeys(("ipip", spec.model.encoder, spec.sampling.ensemble, spec.teacher))
        elif isinstance(spec, TrainSpec | DynamicSpec | TaipSpec):
            keys |= {"taip": None} if getattr(getattr(spec, "taip", None), "enabled", False) else {}
            keys |= {"dynamic": None} if isinstance(spec, DynamicSpec) else {}
            keys |= {} if getattr(spec, "potential", None) else {spec.model.encoder: None}
        else:
            keys[getattr(spec, "ensemble", "fire")] = None
        universal = universal_of(getattr(spec, "potential", getattr(spec, "maker", "")) or "")
        keys |= {f"universal:{universal[0]}": None} if universal else {}
    items = "".join(f"<li>{html.escape(REFERENCES[key])}</li>" for key in keys if key in REFERENCES)
    return f"<h2>Please cite</h2><ul><li>mlipkit {__version__} (CITATION.cff)</li>{items}</ul>"
