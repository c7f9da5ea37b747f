"""ethanol_50 and ethanol_1000: train the ready potentials from their specifications and ship them with a model card.

    python benchmarks/samples/potentials.py ethanol_50 ethanol_1000

The runs are kept under ``build/samples/runs``: an interrupted training goes on, a finished one is only read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import common
import numpy as np

import mlipkit as mk
from mlipkit.data import read_source, samples
from mlipkit.models import load, save
from mlipkit.models.io import card_of
from mlipkit.runs.spec import TrainSpec, load_spec
from mlipkit.training import evaluate

HERE = Path(__file__).parent
SHOWN = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")


def main(name: str) -> None:
    spec = load_spec(HERE / f"{name}.yaml")
    assert isinstance(spec, TrainSpec)
    assert spec.validation is not None
    assert spec.test is not None
    run = mk.launch(spec, root=common.WORK / "runs").wait()
    if run.state != "completed":
        raise SystemExit(f"{name}: {run.sentence}")
    potential = load(run.folder)
    sets = {
        "train": spec.data,
        "validation": spec.validation,
        "test": spec.test,
        "ethanol_600K": "sample:ethanol_600K",
    }
    errors = {}
    for part, place in sets.items():
        assert isinstance(place, str)
        frames = read_source(place)
        figures = evaluate(potential, frames)
        errors[part] = {"frames": len(frames), **{key: round(figures[key], 6) for key in SHOWN}}
    reference = np.concatenate([np.ravel(read_source("sample:ethanol_600K").forces)])
    facts = run.facts()
    path = common.FILES / f"{name}.safetensors"
    survival = card_of(path).get("survival") if path.exists() and unchanged(path, run.folder) else None
    card = {
        "name": name,
        "title": f"PaiNN, {errors['train']['frames']} frames of ethanol at 300 K",
        "description": "For learning and for first runs: gas-phase ethanol only, and only near 300 K.",
        "elements": ["H", "C", "O"],
        "licence": "CC0-1.0",
        "level_of_theory": samples.card("ethanol_300K")["level_of_theory"],
        "model": potential.describe(),
        "errors": errors,
        "error_units": {"energy": "eV/atom", "forces": "eV/Å"},
        "force_rms_of_ethanol_600K_eV_per_A": round(float(np.sqrt((reference**2).mean())), 4),
        "training": {
            "specification": spec.model_dump(mode="json", exclude_none=True),
            "steps": facts.get("step"),
            "best_epoch": facts.get("best_epoch"),
            "seconds": facts.get("training_s"),
        },
        "data_sha256": {key: samples.card(key)["sha256"] for key in ("ethanol_300K", "ethanol_nve", "ethanol_600K")},
        "versions": common.versions("torch", "mlipkit", "vesin"),
        "command": f"python benchmarks/samples/potentials.py {name}",
        "recipe": f"benchmarks/samples/{name}.yaml",
        "survival": survival,
    }
    save(potential, path, card)
    print(name, path.stat().st_size, "bytes", errors, flush=True)


def unchanged(path: Path, folder: Path) -> bool:
    """Whether the shipped weights are those of the run, so that measured survival still belongs to them."""
    shipped, trained = load(path).state_dict(), load(folder).state_dict()
    return shipped.keys() == trained.keys() and all((shipped[key] == trained[key]).all() for key in shipped)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        main(wanted)
