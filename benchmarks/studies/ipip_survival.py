"""Survival of the test simulations of each arm of a study as a page: a picture in `docs/ipip_case.md`.

    python benchmarks/studies/ipip_survival.py survival.html b_acac_hot b_acac_frames
    python benchmarks/studies/ipip_survival.py survival.html a_aspirin --encoder visnet

Drawn from `results/ipip_STUDY.jsonl`: when each simulation failed; all others ran to the end. Seeds are pooled. Of
several studies of the same frames, teacher, pool and test, each arm is that of the first that has it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ipip_found import ARMS, STUDIES, Case, cases
from ipip_tables_runs import lives
from records import RESULTS

from mlipkit.analysis.survival import kaplan_meier
from mlipkit.plots.survival import Curve, survival_curves
from mlipkit.runs.replicas import curve_of

ORDER = ("continual", "no_student_md", "no_new_frames", "one_shot", "ipip", "scratch")
ALIKE = ("teacher", "data", "split", "n_train", "sampling", "instability", "stability")
"""Parts of specifications that studies in one picture share."""


def curve(case: Case, arm: str) -> Curve:
    """Of all seeds together."""
    length = case.spec.stability.steps * case.spec.stability.timestep
    runs = [lives(line, "stability", length) for line in case.of(arm)]
    ended, failed = (np.concatenate([getattr(one, name) for one in runs]) for name in ("ended", "failed"))
    return curve_of(kaplan_meier(ended, failed))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--encoder", default="painn")
    given = parser.parse_args(arguments)
    found = {(one.study, one.encoder): one for one in cases(RESULTS)}
    for study in given.studies:
        there = [encoder for name, encoder in found if name == study]
        if given.encoder not in there:
            parser.error(f"{study} has no encoder {given.encoder}: {' or '.join(there)}")
    some = [found[study, given.encoder] for study in given.studies]
    for other in some[1:]:
        if unlike := [name for name in ALIKE if getattr(other.spec, name) != getattr(some[0].spec, name)]:
            parser.error(f"{some[0].study} and {other.study} differ in more than loops: {', '.join(unlike)}")
    having = {arm: next((case for case in some if case.of(arm)), None) for arm in ORDER}
    arms = {ARMS[arm]: curve(case, arm) for arm, case in having.items() if case}
    if not arms:
        parser.error(f"{', '.join(given.studies)}, {given.encoder}: no test simulation is finished")
    figure = survival_curves(arms, end_ps=(test := some[0].spec.stability).steps * test.timestep / 1000)
    figure.update_layout(width=900, template="plotly_white")
    figure.write_html(given.page, config={"displayModeBar": False})


if __name__ == "__main__":
    main()
