"""A workflow in a process of its own that may be killed (``python killed_workflow.py FOLDER``); labels are logged."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from mlipkit.strategies.workflows import Evaluation, Settings, plan, run_workflow
from mlipkit.strategies.workflows.synthetic import ReferenceLabels, synthetic_tools

SETTINGS = Settings(
    runs=2, steps=60, stride=3, timestep=1.0, frames=4, temperature=300.0, md={"friction": 0.05},
    train={"validation": 0.25, "epochs": 3}, evaluation=Evaluation(independent=2, self_md="last", frames=2),
)  # fmt: skip
PLAN = plan("iterative", SETTINGS, 0)


class SlowLabels(ReferenceLabels):
    """Takes its time, and notes each frame that it has begun."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def label(self, atoms: Any) -> Any:
        with self.log.open("a") as file:
            file.write(f"{len(atoms)}\n")
        time.sleep(0.15)
        return super().label(atoms)


def main(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    tools = synthetic_tools(n=4, density=0.4, maker=SlowLabels(folder / "begun.txt"), relax_steps=3)
    tools.checkpoint_every = 10
    return run_workflow(PLAN, folder, tools).state


if __name__ == "__main__":
    assert main(Path(sys.argv[1])) == "completed"
