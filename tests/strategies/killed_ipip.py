"""A loop in a process of its own that may be killed (``python killed_ipip.py FOLDER``)."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from ipip_toys import TINY, TRAINING, toys

from mlipkit.strategies.ipip import plan, run_ipip

SETTINGS = dataclasses.replace(
    TINY, pretrain_steps=40, finetune_steps=40,
    sampling=dataclasses.replace(TINY.sampling, steps=240),
)  # fmt: skip
PLAN = plan("ipip", SETTINGS, 0)


def main(folder: Path) -> str:
    training = dataclasses.replace(TRAINING, checkpoint_steps=3)
    return run_ipip(PLAN, folder, toys(pretraining=training, finetuning=training)).state


if __name__ == "__main__":
    assert main(Path(sys.argv[1])) == "completed"
