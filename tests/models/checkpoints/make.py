"""Write one tiny potential per encoder in the present format, and beside it what it predicts.

Run `python tests/models/checkpoints/make.py` once per format version, when the version is new. Files of an older one
are never written again: they must load for ever.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import suites  # noqa: E402

from mlipkit.data import graph_of  # noqa: E402
from mlipkit.models import ENCODERS, FORMAT_VERSION, save  # noqa: E402
from mlipkit.models.heads import MLPHead  # noqa: E402


def expected(potential) -> dict:
    """Figures of the skewed crystal of the property suite, in float64."""
    graph = graph_of(suites.skewed_crystal(), potential.cutoff, torch.float64)
    result = potential.double()(graph, stress=True, features=True)
    hidden = potential.auxiliary["hidden_type"](result.features).detach()
    return {
        "energy": result.energy.tolist(),
        "forces": result.forces.tolist(),
        "stress": result.stress.tolist(),
        "hidden_type": hidden.tolist(),
    }


if __name__ == "__main__":
    for name in sorted(ENCODERS):
        path = HERE / f"v{FORMAT_VERSION}_{name}.safetensors"
        if path.exists():
            sys.exit(f"{path.name} exists: files of a version are written once")
        potential = suites.small_potential(name, torch.float32, features=4, layers=2)
        potential.auxiliary["hidden_type"] = MLPHead([4, 4, 3])
        save(potential, path, {"purpose": "format version test"})
        path.with_suffix(".expected.json").write_text(json.dumps(expected(potential), indent=1) + "\n")
