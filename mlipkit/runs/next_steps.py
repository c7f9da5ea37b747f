"""The one obvious next step of a folder of runs: what to do with the latest thing that happened there.

The latest run decides: a trained potential is simulated, a failure is looked at, its frames are picked, labelled and
trained on, and the simulation is repeated; a stable simulation goes hotter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlipkit.data import Selection
from mlipkit.errors import MlipkitError
from mlipkit.runs.loop import hotter_step, other_level, simulate_step, stem, train_step, trained_on
from mlipkit.runs.own_jobs import OwnJobs
from mlipkit.runs.places import file_name, short_place
from mlipkit.runs.replicas import Replicas
from mlipkit.runs.run import ACTIVE, Run
from mlipkit.runs.spec import AnySpec, FittingSpec, LabelSpec, MDSpec, TaipSpec, TrainSpec
from mlipkit.runs.spec_md import listed

Action = Literal[
    "begin", "watch", "resume", "look", "go_to_failure", "select", "label", "collect", "add", "train_on", "simulate",
    "compare", "hotter",
]  # fmt: skip
SAMPLE = "sample:ethanol_300K"
LABELS = "selections/dft_"
"""Beginning of the file that labels of the user's own calculations are added to the data by."""


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        action: what a view does when the step is taken.
        words: what stands on the button.
        why: what led to it, in one sentence.
        run: the run that it is about, or None.
        other: with compare the earlier simulation.
        spec: what is launched, for steps that launch something and need nothing else.
        jobs: with collect and add the calculations of the user.
    """

    action: Action
    words: str
    why: str = ""
    run: Run | None = None
    other: Run | None = None
    spec: AnySpec | None = None
    jobs: OwnJobs | None = None

    @property
    def code(self) -> str:
        """Python that does it; "" for steps that only look."""
        if self.spec is not None:
            return self.spec.code()
        place = f"mk.open({str(self.run.folder)!r})" if self.run is not None else ""
        match self.action:
            case "resume":
                return f"import mlipkit as mk\n\n{place}.resume()\n"
            case "select":
                return f"import mlipkit as mk\n\npicked = mk.before_failure({place})\n"
            case "collect" | "add" if self.jobs is not None:
                read = f"from mlipkit.labelling import collect\n\nfound = collect({short_place(self.jobs.folder)!r})\n"
                if self.action == "collect":
                    return f"{read}print(found)\n"
                target = short_place(f"{LABELS}{file_name(self.jobs.folder.name)}.extxyz")
                return f"from mlipkit.data import write\n{read}write({target!r}, found.frames)\n"
            case "compare" if self.other is not None:
                return (
                    "import mlipkit as mk\n\n"
                    f"mk.survival_change(mk.open({str(self.other.folder)!r}), {place}).sentence\n"
                )
        return ""


def next_step(
    runs: Sequence[Run],
    selection: Selection | None = None,
    seen: Collection[Path] = (),
    compared: Collection[Path] = (),
    jobs: Sequence[OwnJobs] = (),
) -> NextStep:
    """The one next step.

    Args:
        runs: in the order of their launch (`runs_in`).
        selection: frames that lie in the tray.
        seen: folders of simulations whose failure is on show, or was.
        compared: folders of simulations whose survival was compared with an earlier one.
        jobs: calculations of the user for frames of simulations, in the order of their export.
    """
    if not runs:
        return NextStep(
            "begin", "Use sample", "No run yet: a first potential, trained for a minute on sample data.",
            spec=TrainSpec(data=SAMPLE, time_limit_s=60.0, max_epochs=10000, name="first_potential"),
        )  # fmt: skip
    latest = runs[-1]
    if latest.state == "paused":
        return NextStep("resume", f"Resume {latest.name}", "You paused it.", latest)
    if latest.state in ACTIVE:
        why = f"It is {latest.state}; the next step comes when it has ended."
        return NextStep("watch", f"Watch {latest.name}", why, latest)
    if latest.state in ("crashed", "lost"):
        return NextStep("resume", f"Resume {latest.name}", _sentence(latest.reason), latest)
    if isinstance(latest.spec, MDSpec):
        return _of_simulation(latest, runs, selection, seen, compared, jobs)
    if isinstance(latest.spec, LabelSpec):
        return _of_labels(latest, runs)
    if isinstance(latest.spec, FittingSpec) and not isinstance(latest.spec, TaipSpec):
        return _of_potential(latest, runs)
    return NextStep("look", f"Look at {latest.name}", latest.reason, latest)


def _of_simulation(
    run: Run, runs: Sequence[Run], selection: Selection | None, seen: Collection[Path], compared: Collection[Path],
    jobs: Sequence[OwnJobs],
) -> NextStep:  # fmt: skip
    replicas = Replicas(run)
    earlier = _same_simulation(run, runs)
    if earlier is not None and run.folder not in compared:
        why = f"{earlier.name} is the same simulation with another potential."
        return NextStep("compare", "Compare survival", why, run, earlier)
    if selection:
        words = f"Label {len(selection)} frame{'s' * (len(selection) != 1)}"
        return NextStep("label", words, _sentence(selection.sentence), run)
    own = [one for one in jobs if one.run == run.name and one.n]
    if own:
        return _of_jobs(own[-1], run)
    if replicas.n_failed:
        if run.folder in seen:
            return NextStep("select", "Select frames", "At most ten sound ones from before the failure.", run)
        return NextStep("go_to_failure", "Go to failure", _sentence(replicas.sentence), run)
    if run.state == "stopped":
        return NextStep("resume", f"Resume {run.name}", "You stopped it.", run)
    spec = hotter_step(run)
    kelvin = ", ".join(f"{one:g}" for one in listed(spec.temperature))
    return NextStep("hotter", f"Raise temperature to {kelvin} K", "Nothing failed.", run, spec=spec)


def _of_jobs(jobs: OwnJobs, run: Run) -> NextStep:
    if jobs.done > jobs.n_added:
        words = f"Add {jobs.done} label{'s' * (jobs.done != 1)} to data"
        return NextStep("add", words, _sentence(jobs.sentence), run, jobs=jobs)
    if not jobs.added:
        return NextStep("collect", "Collect labels", _sentence(jobs.sentence), run, jobs=jobs)
    try:
        spec = train_step(run, jobs.added, jobs.level)
    except MlipkitError as error:
        return NextStep("collect", "Collect labels", str(error), run, jobs=jobs)
    other = other_level(spec.potential, jobs.level)
    why = f"The {jobs.n_added} labels of {jobs.added} are added to its old training set."
    if other:
        why = (
            f"It is trained on your {jobs.n_added} labels alone ({jobs.level}), with the energy zero fitted to them: "
            f"its old training set is at another level of theory ({other.partition(',')[0]}), and the two must "
            "not be mixed."
        )
    return NextStep("train_on", f"Train {stem(spec.potential)} on", why, run, spec=spec, jobs=jobs)


def _of_labels(run: Run, runs: Sequence[Run]) -> NextStep:
    simulation = _latest_simulation(runs)
    if simulation is None:
        return NextStep("look", f"Look at {run.name}", "Labelled frames; no simulation here uses a potential.", run)
    try:
        spec = train_step(simulation, run)
    except MlipkitError as error:
        return NextStep("look", f"Look at {run.name}", str(error), run)
    potential = stem(spec.potential)
    old = len(trained_on(spec.potential))
    why = "The new labels are added to its old training set."
    if not old:
        why = "It is trained on the new labels alone: its old training set is not known."
    return NextStep("train_on", f"Train {potential} on", why, simulation, spec=spec)


def _of_potential(run: Run, runs: Sequence[Run]) -> NextStep:
    if run.state == "stopped" and not (run.files.checkpoints / "best.safetensors").is_file():
        return NextStep("resume", f"Resume {run.name}", "You stopped it before its errors were first evaluated.", run)
    simulation = _latest_simulation(runs)
    if simulation is not None:
        return NextStep(
            "simulate", "Run again", f"{simulation.name} with the new potential.", run,
            spec=simulate_step(simulation, run),
        )  # fmt: skip
    assert isinstance(run.spec, FittingSpec)
    place = listed(run.spec.data)[0].partition("@")[0]
    spec = MDSpec(potential=short_place(run.folder), start=f"{place}@0", name=f"md_{run.name}"[:80], time_ps=5.0)
    return NextStep("simulate", "Run MD", "Errors on a test set say little about a simulation.", run, spec=spec)


def _latest_simulation(runs: Sequence[Run]) -> Run | None:
    return next((run for run in reversed(runs) if isinstance(run.spec, MDSpec)), None)


def _same_simulation(run: Run, runs: Sequence[Run]) -> Run | None:
    """The latest earlier simulation that differs in nothing but the potential, when this one's came out of it."""
    blank = {"potential": "", "name": ""}
    mine = run.current_spec.model_dump(mode="json") | blank
    before = runs[: runs.index(run)]
    for other in reversed(before):
        if not isinstance(other.spec, MDSpec) or other.current_spec.model_dump(mode="json") | blank != mine:
            continue
        if other.spec.potential != run.spec.potential and other.verdict is not None:  # type: ignore[union-attr]
            return other
    return None


def _sentence(text: str) -> str:
    """With a capital letter in front and a full stop behind."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
