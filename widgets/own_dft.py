"""The steps of a Workbench where the user computes the labels: export jobs, collect what came of them, add to data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlipkit.data import FrameSet
from mlipkit.errors import MlipkitError
from mlipkit.labelling.collected import Collected
from mlipkit.runs import OwnJobs
from mlipkit.runs.places import file_name, short_place

from .jobs_pane import JobsPane

if TYPE_CHECKING:
    from mlipkit.data.jobs import Exported

    from .next_actions import NextActions


class OwnDFT:
    """What the steps "label" (by one's own means), "collect" and "add" do.

    Attributes:
        pane: asks for the template, and shows what has become of the jobs.
    """

    def __init__(self, actions: NextActions) -> None:
        self.actions, self.bench = actions, actions.bench
        self.pane = JobsPane(self._frames, self.collect, self.forget)

    @property
    def wanted(self) -> bool:
        """The frames in the tray are to be exported."""
        return self.actions.step.action == "label" and self.bench.next.own.value

    @property
    def words(self) -> str:
        """What stands on the button; "" for the step's own words."""
        n = len(self.bench.tray.selection)
        return f"Export {n} job{'s' * (n != 1)}" if self.wanted else ""

    def draw(self) -> None:
        """Show what belongs to the step."""
        name = ""
        if self.wanted:
            chosen, run = self.bench.tray.selection, self.actions.step.run
            folder = file_name(chosen.tag or (run.name if run is not None else "jobs"))
            name = short_place(self.bench.root.parent / "jobs" / folder)
        self.pane.show_state(self.wanted, self.actions.step.jobs, name)

    def export(self) -> None:
        """Write a folder per frame of the tray with the user's inputs."""
        bench, run = self.bench, self.actions.step.run
        try:
            (template, folder), box, frames = self.pane.places, self.pane.edge, self._frames()
        except MlipkitError as error:
            bench.next.say(str(error))
            return
        chosen, place = bench.tray.selection, Path(folder).expanduser().resolve()

        def write() -> Exported:
            from mlipkit.data import export_jobs

            return export_jobs(frames, place, template, box=box)

        def written(done: Exported) -> None:
            known = next((one for one in bench.memory.jobs if one.folder == place), OwnJobs(place))
            # What was added of an earlier export is not offered again as though it were new.
            bench.memory.keep_jobs(replace(known, run=run.name if run is not None else "", added=""))
            self.pane.tell([f"{done.sentence}.", *done.warnings])
            self.pane.folder.value = ""
            if bench.tray.selection == chosen:
                bench.tray.clear()

        self.actions.work("Writing the jobs …", write, written)

    def collect(self) -> None:
        """Look what has become of the jobs."""
        jobs = self.actions.step.jobs
        if jobs is None or self.bench.next.busy:
            return
        self.bench.next.say("")

        def read(found: Collected) -> None:
            self.pane.tell(found.notes)

        self.actions.work("Collecting …", jobs.collect, read)

    def add(self) -> None:
        """Keep the labels that are done as a data set, which the next training takes."""
        jobs = self.actions.step.jobs
        if jobs is None:
            return

        def added(place: str) -> None:
            self.bench.memory.keep_jobs(replace(jobs, added=place, n_added=jobs.done))

        self.actions.work("Adding …", lambda: jobs.add(self.target(jobs)), added)

    def forget(self) -> None:
        """Offer these jobs no more."""
        jobs = self.actions.step.jobs
        if jobs is not None and not self.bench.next.busy:
            self.bench.memory.forget_jobs(jobs)
            self.pane.tell([])
            self.bench.refresh()

    def target(self, jobs: OwnJobs) -> Path:
        """File of the labels in the data."""
        return self.bench.tray.tray.folder.parent / f"dft_{file_name(jobs.folder.name)}.extxyz"

    def code(self) -> str:
        """Python of the export."""
        template, folder = self.pane.template.value.strip(), self.pane.folder.value.strip()
        tray = short_place(self.bench.tray.tray.folder)
        box = self.pane.box.value.strip()
        more = f", box={box}" if box else ""
        return (
            "from mlipkit.data import Tray\nfrom mlipkit.data.tray_frames import TrayFrames\n\n"
            f"Tray({tray!r}).selection.export_jobs(\n    {folder!r}, TrayFrames({tray!r}).sets(), "
            f"template={template or 'inputs'!r}{more}\n)"
        )

    def _frames(self) -> FrameSet:
        return self.bench.tray.selection.frames(self.actions.sets())

    def close(self) -> None:
        """End what is being looked at."""
        self.pane.close()
