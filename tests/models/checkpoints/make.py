"""Write the small potentials of the property suite in the present format, and beside it what it predicts.

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
from mlipkit.models import FORMAT_VERSION, Potential, save  # noqa: E402
from mlipkit.models.heads import MLPHead  # noqa: E402


def expected(potential) -> dict:
    """Figures of the skewed crystal of the property suite, in float64."""
    graph = graph_of(suites.skewed_crystal(), potential.cutoff, torch.float64)
    result = potential.double()(graph, stress=True, features=True)
    found = {name: getattr(result, name).tolist() for name in ("energy", "forces", "stress")}
    if isinstance(potential, Potential):
        found["hidden_type"] = potential.auxiliary["hidden_type"](result.features).detach().tolist()
    return found


if __name__ == "__main__":
    for name, build in suites.MODELS.items():
        path = HERE / f"v{FORMAT_VERSION}_{name}.safetensors"
        if path.exists():
            continue  # files of a version are written once
        potential = build(torch.float32)
        if isinstance(potential, Potential):
            potential.auxiliary["hidden_type"] = MLPHead([potential.encoder.width, 4, 3])
        save(potential, path, {"purpose": "format version test"})
        path.with_suffix(".expected.json").write_text(json.dumps(expected(potential), indent=1) + "\n")
