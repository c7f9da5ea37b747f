"""Tools for tests of workflows: real MD of a few flexible molecules, labels in the same process, tuning in one step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlipkit.data import FrameSet
from mlipkit.models import predict, save
from mlipkit.strategies.workflows import Evaluation, Settings, Stopped, Tuned
from mlipkit.strategies.workflows.standard import StandardTools
from mlipkit.strategies.workflows.synthetic import ATOMIC, MolecularPotential, ReferenceLabels, box, reference, soft

TINY = Settings(
    runs=3, steps=20, stride=2, timestep=1.0, frames=3, temperature=300.0, md={"friction": 0.05}, relax_starts=False,
    train={"validation": 0.2, "epochs": 2}, evaluation=Evaluation(independent=2, self_md="last", frames=2),
)  # fmt: skip


@dataclass
class Failed:
    index: int
    uid: str
    reason: str
    seconds: float = 0.0


@dataclass
class Labels:
    frames: FrameSet
    failed: list[Failed]
    seconds: float
    n_asked: int


@dataclass
class ToyTools(StandardTools):
    """`calls` notes what was done; frames whose row in a labelling is in `breaks[folder name]` fail."""

    calls: list[str] = field(default_factory=list)
    breaks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    stop_in: str = ""

    def label(self, frames: FrameSet, folder: Path, sink: Any, control: Any) -> Any:
        self.calls.append(f"label {folder.name[3:]} {len(frames)}")
        if self.stop_in and self.stop_in in folder.name:
            raise Stopped
        lost = self.breaks.get(folder.name[3:], ())
        stay = [i for i in range(len(frames)) if i not in lost]
        failed = [Failed(i, frames.uid(i), "SCF did not converge") for i in lost]
        done = predict(reference(), frames.select(stay), stress=True) if stay else frames.select(stay)
        return Labels(done, failed, 0.1 * len(frames), len(frames))

    def finetune(self, model, train, validation, options, seeds, folder, sink, control) -> Tuned:
        self.calls.append(f"finetune {folder.name[3:]} {len(train)}+{len(validation)}")
        # The first frames are not enough for all of the way.
        scale = min(1.0, 0.8 + 0.05 * len(train))
        save(MolecularPotential((scale,) * 3, {z: 0.5 * e for z, e in ATOMIC.items()}), folder / "best.safetensors")
        (folder / "seeds.json").write_text(json.dumps(dict(seeds)))
        return Tuned(folder / "best.safetensors", {"frame_gradients": len(train) * options["epochs"]})

    def simulate(self, model, start, options, seeds, folder, sink, control):
        self.calls.append(f"simulate {folder.name[3:]}")
        return super().simulate(model, start, options, seeds, folder, sink, control)


def counted_labels(log: str) -> ReferenceLabels:
    """The reference as an engine that is built in child processes; each time is noted."""
    with Path(log).open("a") as file:
        file.write("built\n")
    return ReferenceLabels()


def toys(n: int = 4, density: float = 0.4, **more: Any) -> ToyTools:
    given: dict[str, Any] = {
        "universal": soft(), "make_start": lambda seed: box(seed, n, density), "maker": None, "words": {"model": "toy"},
        "relax_steps": 3,
    }  # fmt: skip
    return ToyTools(**{**given, **more})
