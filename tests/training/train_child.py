"""A training in a process of its own, for tests that kill it or run it twice side by side.

python train_child.py FOLDER SETTINGS_JSON
"""

import json
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from emt_sets import clusters, make_potential

from mlipkit.training import TrainSettings, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    frames = clusters(18, seed=1, sizes=(5, 3, 4))
    energy = frames.energy.copy()
    energy[::5] = float("nan")
    frames = frames.with_labels(energy=energy)
    settings = TrainSettings(**json.loads(sys.argv[2]))
    torch.manual_seed(0)
    train(make_potential(frames), frames, clusters(7, seed=2), settings, folder=sys.argv[1], sink=lambda event: None)
