"""`mlipkit analyse shift`: how sets of structures differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlipkit.cli.analysing import Page, Seed, Sets, analyse, call_of, frames_of, refuse, show, sources_of
from mlipkit.cli.command import Record, command, console, from_options
from mlipkit.errors import nearest


@command(analyse, "shift")
def shift(
    record: Record,
    sets: Sets,
    components: Annotated[float, typer.Option(help="axes to fit; below 1: share of the variance")] = 5,
    fit_on: Annotated[
        list[str] | None, typer.Option("--fit-on", metavar="PLACE", help="fit on this set alone; may be repeated")
    ] = None,
    per_element: Annotated[bool, typer.Option("--per-element", help="axes for each element")] = False,
    rule: Annotated[
        str, typer.Option(help="limits from runs left out of the fit (leave_one_run_out), or as published (trajectory)")
    ] = "leave_one_run_out",
    r_cut: Annotated[float, typer.Option(help="SOAP: cutoff, Å")] = 5.0,
    n_max: Annotated[int, typer.Option(help="SOAP: radial functions")] = 8,
    l_max: Annotated[int, typer.Option(help="SOAP: highest degree")] = 6,
    sigma: Annotated[float, typer.Option(help="SOAP: width of the Gaussians, Å")] = 0.375,
    compression: Annotated[str, typer.Option(help="SOAP: off, mu2, mu1nu1 or crossover")] = "off",
    matched: Annotated[bool, typer.Option(help="compare again at equal density")] = True,
    fit_frames: Annotated[int, typer.Option(help="frames to fit on at most")] = 300,
    jobs: Annotated[int, typer.Option(help="threads")] = 1,
    seed: Seed = 0,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="keep axes and limits (safetensors)")] = None,
    page: Page = None,
) -> None:
    """Compare sets by their surroundings: SOAP, PCA, Q and T², coverage, density."""
    from mlipkit.analysis.shift import analyse_shift
    from mlipkit.analysis.soap import Soap
    from mlipkit.analysis.thresholds import RULES
    from mlipkit.runs.findings import check_writable, names_of
    from mlipkit.runs.shift_report import shift_finding

    rule = rule.replace("-", "_")
    if rule not in RULES:
        from_options(refuse, "no such rule", where="--rule", found=rule, hint=nearest(rule, RULES))
    k = int(components) if components >= 1 and components == int(components) else components
    if not (isinstance(k, int) or 0 < k < 1):
        from_options(refuse, "a number of axes, or a share below 1", where="--components", found=components)
    if fit_frames < 2:
        from_options(refuse, "at least two frames are fitted", where="--fit-frames", found=fit_frames)
    if save is not None:
        check_writable(save)
    places = [*sets]
    # A set to fit on may be named as a place, or by the short name of one of the sets.
    known = dict(zip(names_of(places), places, strict=True))
    places = [*(one for one in fit_on or () if one not in places and one not in known), *places]
    frames = frames_of(places, page)
    names = dict(zip(places, frames, strict=False))
    fitted = [one if one in frames else names[one] for one in fit_on] if fit_on else None
    options = {"r_cut": r_cut, "n_max": n_max, "l_max": l_max, "sigma": sigma, "compression": compression}
    with console.status("comparing"):
        descriptor = Soap.of(*frames.values(), **options, n_jobs=jobs)
        found = analyse_shift(
            frames, fitted, components=k, descriptor=descriptor, per_element=per_element, rule=rule,  # type: ignore
            matched=matched, fit_frames=fit_frames, seed=seed,
        )  # fmt: skip
        changed = {name: value for name, value in options.items() if value != _SOAP[name]}
        lines = [
            "from mlipkit.analysis.shift import analyse_shift",
            *(["from mlipkit.analysis.soap import Soap"] if changed else []),
            "from mlipkit.runs.findings import read_sets",
            "",
            f"sets = read_sets({places!r})",
            call_of("shift = analyse_shift(sets", ")", {
                "fit_on": (fitted, None), "components": (k, 5), "per_element": (per_element, False),
                "rule": (rule, "leave_one_run_out"), "matched": (matched, True), "fit_frames": (fit_frames, 300),
                "seed": (seed, 0),
            }, f", descriptor=Soap.of(*sets.values(){''.join(f', {n}={v!r}' for n, v in changed.items())})"
                if changed else ""),
            "print(*shift.sentences(), sep='\\n')",
        ]  # fmt: skip
        finding = shift_finding(found, "\n".join(lines), sources_of(places))
    if save is not None:
        record.paths["model"] = str(found.model.save(save.resolve()))
    show(record, finding, page, "shift")


_SOAP = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.375, "compression": "off"}
