"""One labelling spread over several runs, on this machine or on whatever an executor reaches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlipkit.errors import RunError, SpecError
from mlipkit.runs.run import Run
from mlipkit.runs.spec_label import LabelSpec

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.runs.executors import Executor


def label_in_parts(
    spec: LabelSpec, parts: int, *, root: str | os.PathLike[str] = "runs", executor: Executor | None = None,
    resume: bool = False,
) -> list[Run]:  # fmt: skip
    """Launch a labelling as `parts` runs, each with its share of the frames; returns at once.

    Launched again with the same specification they are re-opened, as `launch` does. ``NAME_2of4`` is the second.

    Raises:
        SpecError: `spec` is a part itself, or as `launch`.
    """
    from mlipkit.runs.launching import launch

    if spec.part is not None:
        raise SpecError("is a part already", where="part", found=spec.part)
    if parts < 1:
        raise SpecError("nothing to launch", where="parts", expected="1 or more", found=parts)
    name = spec.name or spec.default_name
    specs = [spec.changed(part=f"{k}/{parts}", name=f"{name}_{k}of{parts}") for k in range(1, parts + 1)]
    return [launch(one, root=root, executor=executor, resume=resume) for one in specs]


def gather_parts(runs: Sequence[Run]) -> FrameSet:
    """The labelled frames of several runs as one set, in the order of the parts; trajectories keep their numbers.

    Raises:
        RunError: a part has not completed, or none of them labelled a frame.
    """
    from mlipkit.data import FrameSet, read
    from mlipkit.labelling import LABELLED

    found = []
    for run in sorted(runs, key=_number):
        state = run.state
        if state not in ("completed", "failed"):
            hint = "Wait for it" if run.active else "Resume it"
            raise RunError(f"this part is {state}", where=run.name, found=run.reason or None, hint=hint)
        if (run.folder / LABELLED).is_file():
            found.append(read(run.folder / LABELLED))
    if not found:
        raise RunError("no part has labelled a frame", where=", ".join(run.name for run in runs))
    return FrameSet.concat(found).with_table(trajectory=np.concatenate([one.trajectory for one in found]))


def _number(run: Run) -> int:
    part = getattr(run.spec, "part", None)
    return int(part.partition("/")[0]) if part else 0
