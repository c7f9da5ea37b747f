"""Does the step that stands on the NEXT button: looks, launches, picks frames; one at a time, never twice.

Everything that takes longer than a blink goes on beside the notebook. Whatever goes wrong is one line below the
button, and all is as it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlipkit.data import FrameSet, Selection
from mlipkit.errors import DataError, MlipkitError
from mlipkit.runs import LabelSpec, NextStep, Run, before_failure, label_step, launch, survival_change
from mlipkit.runs.family import duplicate
from mlipkit.runs.launching import existing
from mlipkit.runs.loop import maker_of
from mlipkit.runs.places import file_name, short_place
from mlipkit.runs.spec import AnySpec, MDSpec

from .measuring import Measuring
from .own_dft import OwnDFT
from .states import duration
from .ticker import after, in_background

if TYPE_CHECKING:
    from .workbench import Workbench

QUIET_S = 0.8
"""Pause before what a step will take is measured."""
UNITS = ("label", "train_on", "simulate", "hotter")
"""Steps whose time is measured beforehand."""


class NextActions:
    """The steps of one Workbench.

    Attributes:
        step: the step on the button.
        exported: file with the frames of the tray, and the selection that lies in it.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.step = NextStep("begin", "")
        self.exported: tuple[Path, Selection] | None = None
        self._measuring = Measuring(self._measured)
        self._offered: Path | None = None
        self._turn = 0
        self.own = OwnDFT(self)

    # What stands on the button

    def show(self, step: NextStep) -> None:
        """Put a step on the button, and find out beside the notebook what it will take."""
        if step != self.step or step.action == "watch":
            fresh = step != self.step
            self.step = step
            if fresh:
                self._measuring.cancel()
                self._prepare()
        self.draw()

    def draw(self) -> None:
        """The button as it is now."""
        bench, step = self.bench, self.step
        words = self.own.words
        if step.action == "watch" and step.run is not None and bench.run == step.run:
            words = f"{step.run.name} is {bench.data.states.get(step.run.folder) or step.run.state}"
        if step.action == "watch" and not words:
            words = f"Watch {step.run.name}" if step.run is not None else ""
        bench.next.show_step(step, self.time, words)
        bench.next.refresh_panel()
        self.own.draw()

    @property
    def time(self) -> str:
        """What the step will take: ``about 40 s``."""
        found = None if self.own.wanted else self._measuring.estimate
        return f"about {duration(found.seconds)}" if found is not None else ""

    @property
    def spec(self) -> AnySpec | None:
        """What the step launches; of labelling as soon as the frames are on disk."""
        if self.own.wanted:
            return None
        if self.step.action == "label" and self.step.run is not None:
            if self.exported is None or self.exported[1] != self.bench.tray.selection:
                return None
            return self.label_spec(self.exported[0])
        return self.step.spec

    def label_spec(self, path: Path) -> LabelSpec:
        """Label the frames of a file with the chosen maker.

        Raises:
            SpecError: no such label maker.
        """
        assert self.step.run is not None
        spec = label_step(self.step.run, path, self.bench.next.maker.value.strip())
        number = spec.name.removeprefix("label_")
        return spec.changed(name=f"label_{number}"[:80])

    def choice_changed(self) -> None:
        """The user chose another label maker, their own DFT, or another number of frames."""
        if self.step.action == "label":
            self._measuring.cancel()
            self.bench.next.say("")
            self._later()
            self.draw()

    def _prepare(self) -> None:
        """What a step needs before it can be measured."""
        step = self.step
        if step.action == "label" and isinstance(step.run, Run) and isinstance(step.run.spec, MDSpec):
            if self._offered != step.run.folder:
                self._offered = step.run.folder
                potentials = [short_place(one.folder) for one in self.bench.data.runs if trained(one)]
                self.bench.next.offer_makers(maker_of(step.run.spec.potential), potentials)
            self._export(lambda _path: self._later(), quiet=True)
        elif step.action in UNITS:
            self._later()

    def _later(self) -> None:
        """Measure after a pause, unless the step has changed by then."""
        self._turn += 1
        mine = self._turn
        after(QUIET_S, lambda: self._measure() if mine == self._turn else None)

    def _measure(self) -> None:
        try:
            spec = self.spec if self.step.action in UNITS else None
        except MlipkitError as error:
            self.bench.next.say(str(error))
            return
        if spec is not None and not self.bench.next.busy and not self.bench.closed:
            self._measuring.start(spec)

    def _measured(self) -> None:
        if not self.bench.closed:
            self.draw()
            if self._measuring.breaks_the_run:
                self.bench.next.say(str(self._measuring.error))

    def close(self) -> None:
        """End what is being measured."""
        self._turn += 1
        self._measuring.cancel()
        self.own.close()

    # Doing it

    def act(self) -> None:
        """Do the step on the button; nothing happens while one is being done."""
        bench, step = self.bench, self.step
        if bench.next.busy:
            return
        bench.next.say("")
        run = step.run
        if step.spec is not None:
            self.launch(step.spec)
        elif run is None:
            bench.next.say("There is nothing to do.")
        elif step.action == "resume":
            self.work("Going on …", run.resume, bench.watch)
        elif step.action in ("watch", "look"):
            bench.watch(run)
        elif step.action == "go_to_failure":
            bench.go_to_failure(run)
        elif step.action == "select":
            self.select(run, bench.next.most.value)
        elif self.own.wanted:
            self.own.export()
        elif step.action == "label":
            self.label()
        elif step.action == "collect":
            self.own.collect()
        elif step.action == "add":
            self.own.add()
        elif step.action == "compare" and step.other is not None:
            self.compare(step.other, run)

    def launch(self, spec: AnySpec) -> None:
        """Start a run and open it. One that goes on already is opened; one that has ended gets a numbered copy."""

        def start() -> Run:
            there = existing(spec, self.bench.root)
            return launch(spec, root=self.bench.root, again=there is not None and not there.active)

        self._measuring.cancel()
        self.work("Starting …", start, self.bench.watch)

    def select(self, run: Run, most: int) -> None:
        """Put frames from before the failures of a run into the tray."""

        def done(picked: object) -> None:
            self.bench.tray.add(picked.frames, picked.selection)  # type: ignore[attr-defined]

        self.work("Selecting frames …", lambda: before_failure(run, most), done)

    def label(self) -> None:
        """Write the frames of the tray and label them in a run of their own."""
        tray = self.bench.tray

        def start(path: Path | None) -> None:
            if path is None:
                return
            try:
                spec = self.label_spec(path)
            except MlipkitError as error:
                self.bench.next.say(str(error))
                return
            chosen = tray.selection

            def opened(run: object) -> None:
                # Labelled frames left in the tray would be labelled again next time; Undo brings them back.
                if tray.selection == chosen:
                    tray.clear()
                self.bench.watch(run)  # type: ignore[arg-type]

            self.work("Starting …", lambda: launch(spec, root=self.bench.root), opened)

        self._export(start)

    def compare(self, before: Run, after_: Run) -> None:
        """Set survival before and after side by side."""

        def done(change: object) -> None:
            self.bench.show_change(before, after_, change)  # type: ignore[arg-type]

        self.work("Comparing …", lambda: survival_change(before, after_), done)

    def duplicate(self, run: Run) -> None:
        """Launch a run once more."""
        self.work("Starting …", lambda: duplicate(run), self.bench.watch)

    def sets(self) -> list[FrameSet]:
        """Where the frames of the tray are; the latest simulation may hold some that another view has picked."""
        sets = self.bench.tray.kept.sets()
        return [*sets, *_missing(self.bench.tray.selection, sets, self.step.run)]

    def _export(self, then: Callable[[Path | None], object], quiet: bool = False) -> None:
        """Write the frames of the tray under the name of the simulation that they are of."""
        bench, run = self.bench, self.step.run
        chosen = bench.tray.selection
        if self.exported is not None and self.exported[1] == chosen and self.exported[0].is_file():
            then(self.exported[0])
            return
        path = bench.tray.tray.folder.parent / f"{file_name(chosen.tag or (run.name if run else 'frames'))}.extxyz"

        def write() -> Path:
            return replace(chosen).export(path, self.sets())

        def written(result: object) -> None:
            assert isinstance(result, Path)
            self.exported = result, chosen
            then(result)

        if quiet:
            in_background(write, lambda result, error: written(result) if error is None else None)
        else:
            self.work("Writing the frames …", write, written)

    def work(self, words: str, work: Callable[[], object], done: Callable[..., object]) -> None:
        """Do something beside the notebook while the button says so; then go on with its result."""
        bench = self.bench
        bench.next.work(words)

        def finished(result: object, error: BaseException | None) -> None:
            if bench.closed:
                return
            bench.next.work("")
            if error is not None:
                bench.next.say(str(error) if isinstance(error, MlipkitError) else f"{type(error).__name__}: {error}")
            else:
                done(result)
            bench.refresh()

        in_background(work, finished)


def trained(run: Run) -> bool:
    """Whether the run holds a potential."""
    return (run.files.checkpoints / "best.safetensors").is_file()


def _missing(chosen: Selection, sets: list[FrameSet], run: Run | None) -> list[FrameSet]:
    """Frames of the simulations of a run, where the tray keeps not all of the selected ones."""
    known = {int(uid) for one in sets for uid in one.uids}
    if run is None or run.kind != "md" or all(uid in known for uid in chosen.uids):
        return []
    from mlipkit.runs.frames import RunFrames

    found = []
    for one in run.replicas:
        frames = RunFrames(one.folder)
        try:
            frames.refresh()
            if len(frames):
                found.append(FrameSet.from_atoms(list(frames), source=run.name).without_labels())
        except DataError:  # positions that are no numbers
            continue
        finally:
            frames.close()
    return found
