"""Python that does what the NEXT button does, and that opens what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlipkit.errors import MlipkitError
from mlipkit.runs.places import short_place

if TYPE_CHECKING:
    from .workbench import Workbench


def code_of(bench: Workbench) -> str:
    """The next step, the open run and the Workbench itself as code."""
    parts = [f"# next: {bench.step.words}", _step(bench).strip()]
    if bench.run is not None:
        parts += ["", "# the run that is open", f"mk.open({short_place(bench.run.folder)!r})"]
    tray = short_place(bench.tray.tray.folder)
    parts += [
        "", "# the same view", "from mlipkit_widgets import Workbench",
        f"Workbench({short_place(bench.root)!r}, tray={tray!r})",
    ]  # fmt: skip
    return "\n".join(parts)


def _step(bench: Workbench) -> str:
    step, tray = bench.step, short_place(bench.tray.tray.folder)
    place = f"mk.open({short_place(step.run.folder)!r})" if step.run is not None else ""
    if step.action == "select":
        return (
            "import mlipkit as mk\nfrom mlipkit.data import Tray\nfrom mlipkit.data.tray_frames import TrayFrames\n\n"
            f"picked = mk.before_failure({place}, most={bench.next.most.value})\n"
            f"TrayFrames({tray!r}).add(picked.frames)\nTray({tray!r}).add(picked.selection)"
        )
    if bench.actions.own.wanted:
        return bench.actions.own.code()
    if step.action == "add" and step.jobs is not None:
        place, target = short_place(step.jobs.folder), short_place(bench.actions.own.target(step.jobs))
        return (
            "from mlipkit.data import write\nfrom mlipkit.labelling import collect\n\n"
            f"write({target!r}, collect({place!r}).frames)"
        )
    if step.action == "label":
        try:
            spec = bench.actions.spec
        except MlipkitError as error:
            return f"import mlipkit as mk\n\n# {error}"
        if spec is None:
            return "import mlipkit as mk\n\n# the frames are being written"
        (path, _) = bench.actions.exported or ("", None)
        return (
            "import mlipkit as mk\nfrom mlipkit.data import Tray\nfrom mlipkit.data.tray_frames import TrayFrames\n\n"
            f"Tray({tray!r}).selection.export({short_place(path)!r}, TrayFrames({tray!r}).sets())\n"  # type: ignore[arg-type]
            + spec.code().removeprefix("import mlipkit as mk\n\n")
        )
    if step.action == "go_to_failure":
        return (
            "import mlipkit as mk\nfrom mlipkit_widgets import MDView\n\n"
            f"view = MDView({place})\nview.go_to_failure()\nview"
        )
    return step.code or f"import mlipkit as mk\n\n{place}"
