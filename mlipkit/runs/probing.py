"""Quick real measurements for `what_applies`: one call, one gradient, one label, in child processes with a deadline.

``python -m mlipkit.runs.probing WHAT PLACE BASE`` loads what it needs, reads one frame as a line of JSON, and says
every figure as a line of JSON as soon as it is known: what was said before the deadline counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.errors import MlipkitError
from mlipkit.runs.executors import worker_environment

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential

LATE = "did not fit in the time"
WORTH_S = 1.0
"""A batch that would take longer is not measured; a smaller one then says what a frame adds."""


class Probe:
    """A child process that measures while its parent goes on.

    Args:
        what: "potential" (a new model, and the potential of `place` unless that is "") or "label" (a label maker).
        place: as a specification names it.
        base: folder that relative paths are meant against.
    """

    def __init__(self, what: str, place: str, base: Path) -> None:
        self.place, self.said = place, dict[str, Any]()
        environment = {**os.environ, **worker_environment(1)}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "mlipkit.runs.probing", what, place, str(base)], cwd=base, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def frame(self, atoms: Any) -> None:
        """Hand over the frame to measure on."""
        record = {
            "numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(), "pbc": atoms.pbc.tolist(),
        }  # fmt: skip
        with contextlib.suppress(OSError):  # it has ended already, and has said why
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps(record) + "\n")
            self._child.stdin.close()

    def until(self, deadline: float) -> dict[str, Any]:
        """What it has said when it ended, or at the deadline (`time.monotonic`); then it is killed."""
        self._reader.join(max(deadline - time.monotonic(), 0.0))
        self.close()
        said = dict(self.said)
        if not said.pop("end", False):
            said.setdefault("error", LATE)
        return said

    def close(self) -> None:
        """End it."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # a line that it did not live to read
            self._child.stdin.close()
        self._reader.join(1.0)

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            try:
                record = json.loads(line)
            except ValueError:  # a package that prints
                continue
            if isinstance(record, dict):
                self.said.update(record)
        self._child.stdout.close()


def measure_model(
    potential: BasePotential, frames: FrameSet, batch: int, say: Callable[..., None], prefix: str
) -> None:
    """Time a call and a gradient of one frame, then of a batch of it where that fits; its memory grows with them.

    Says ``{prefix}_call``, ``{prefix}_gradient`` (s per frame), ``{prefix}_bytes`` (of a whole batch, extrapolated).
    """
    from mlipkit.data import collate
    from mlipkit.data.neighbours import NeighbourCache
    from mlipkit.runs import process

    cache = NeighbourCache(frames, potential.cutoff)
    graph, _ = collate(frames, [0], cache, potential.dtype)
    graph = graph.to(device=potential.device)
    potential(graph)  # what is made on first use does not count
    say(**{f"{prefix}_call": _seconds(lambda: potential(graph))})
    _gradient(potential, graph)
    one = _seconds(lambda: _gradient(potential, graph))
    low = process.peak_memory()
    say(**{f"{prefix}_gradient": one, f"{prefix}_list": int(sum(array.nbytes for array in cache.get(0)))})
    count = max(2, min(batch, int(WORTH_S / max(one, 1e-4))))
    if count * one > 2 * WORTH_S:
        return
    graph, _ = collate(frames, [0] * count, cache, potential.dtype)
    graph = graph.to(device=potential.device)
    several = _seconds(lambda: _gradient(potential, graph))
    high = process.peak_memory()
    grown = high + (batch - count) * (high - low) / (count - 1)
    say(**{f"{prefix}_gradient": several / count, f"{prefix}_bytes": int(grown)})


def _gradient(potential: BasePotential, graph: Any) -> None:
    import torch

    found = potential(graph, create_graph=True)
    free = [one for one in potential.parameters() if one.requires_grad]
    if free:
        torch.autograd.grad(found.energy.sum() + found.forces.square().sum(), free, allow_unused=True)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _probe_potential(place: str, base: Path, frame: Callable[[], FrameSet], say: Callable[..., None]) -> None:
    import torch

    from mlipkit.strategies.applies.fitting import TRAIN_BATCH, TUNE_BATCH

    torch.set_num_threads(1)
    frames = frame()
    from mlipkit.runs.building_train import build_potential
    from mlipkit.runs.spec import TrainSpec

    measure_model(build_potential(TrainSpec(data="."), frames), frames, TRAIN_BATCH, say, "new")
    if not place:
        return
    from mlipkit.models import BasePotential, load
    from mlipkit.runs.building_forces import source_of
    from mlipkit.runs.places import factory_of, load_factory

    made: Any = load(source_of(place, base)) if factory_of(place) is None else load_factory(place, base)()
    if isinstance(made, BasePotential):
        free = sum(one.numel() for one in made.parameters() if one.requires_grad)
        say(trainable=free > 0, parameters=free, elements=list(made.elements))
        measure_model(made, frames, TUNE_BATCH, say, "potential")
    elif hasattr(made, "get_property"):
        say(trainable=False)
        atoms = frames.atoms(0)
        atoms.calc = made
        atoms.get_forces()
        atoms.positions += 1e-6
        say(potential_call=_seconds(atoms.get_forces))
    else:
        say(error=f"the factory gives no potential, but a {type(made).__name__}", wrong=True)


def _probe_label(place: str, _base: Path, frame: Callable[[], FrameSet], say: Callable[..., None]) -> None:
    # Not from `building_label`, which brings torch.
    from mlipkit.labelling import LabelMakerError, build, recipe_of
    from mlipkit.runs import process

    maker = build(recipe_of(place))
    atoms = frame().atoms(0)
    try:
        say(label=_seconds(lambda: maker.label(atoms)), label_bytes=process.peak_memory())
    except LabelMakerError as error:
        say(error=str(error))


def main(arguments: list[str]) -> None:
    """Child process."""
    what, place, base = arguments
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print goes elsewhere

    def say(**figures: Any) -> None:
        out.write(json.dumps(figures) + "\n")
        out.flush()

    def frame() -> FrameSet:
        from ase import Atoms

        from mlipkit.data import FrameSet

        return FrameSet.from_atoms([Atoms(**json.loads(sys.stdin.readline()))])

    try:
        (_probe_potential if what == "potential" else _probe_label)(place, Path(base), frame, say)
    except MlipkitError as error:
        say(error=str(error))
    except Exception as error:
        say(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    say(end=True)


if __name__ == "__main__":
    main(sys.argv[1:])
