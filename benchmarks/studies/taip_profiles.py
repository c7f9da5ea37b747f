"""Energy profiles of acetylacetone with every control: turning the dihedral angle, and proton transfer.

    python benchmarks/studies/taip_profiles.py                       # potentials that studies/taip.py trained
    python benchmarks/studies/taip_profiles.py --encoder schnet --plan taip_paper.yaml

reads potentials, and the adaptation step that validation chose, of the case `a_acac` under ``build/studies`` and writes
``results/taip_profiles.json``: per profile, encoder and arm the barrier height (energy of the frame that is highest in
DFT above the one that is lowest), its error, and the mean absolute error of the profile about its best constant, each
as mean and range over seeds. Seeds that are not finished are left out and named. MLIPKIT_DATA names the data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from records import RESULTS, command

from mlipkit.data import FrameSet, read_source
from mlipkit.errors import RunError
from mlipkit.models import Potential, load, predict
from mlipkit.runs.folder import write_text
from mlipkit.strategies.taip import AdaptSettings, predict_adapted
from mlipkit.strategies.taip.arms import BASELINE, NOISE, TAIP, arm_folder
from mlipkit.strategies.taip.kept import recall
from mlipkit.strategies.taip.measuring import ADAPTED, OFF, RANDOM

HERE = Path(__file__).resolve().parent
PROFILES = {
    "dihedral": "acac_test_dihedral_energy_only.extxyz",
    "proton_transfer": "acac_test_H_transfer_energy_only.extxyz",
}
MEV = 1e3


def profile_figures(predicted: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Barrier, its error, and the error of the profile, meV; of energies [F] in eV along a path."""
    low, high = int(np.argmin(reference)), int(np.argmax(reference))
    barrier, true = predicted[high] - predicted[low], reference[high] - reference[low]
    gap = predicted - reference
    # The constant that suits absolute deviations best is their median.
    return {
        "barrier": MEV * float(barrier), "barrier_error": MEV * float(barrier - true),
        "profile_error": MEV * float(np.abs(gap - np.median(gap)).mean()),
        "highest_above_lowest": MEV * float(np.ptp(predicted)),
    }  # fmt: skip


def over_seeds(each: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and range of every figure."""
    return {
        name: {
            "mean": round(float(np.mean([one[name] for one in each])), 3),
            "lowest": round(min(one[name] for one in each), 3), "highest": round(max(one[name] for one in each), 3),
        }
        for name in each[0]
    }  # fmt: skip


def trained(place: Path, arm: str, sigma: float | None) -> Path:
    """Folder of a training, of several widths of noise that of the width in Å."""
    return next(one for one in (arm_folder(place, arm), arm_folder(place, arm, sigma)) if one.is_dir())


def energies(place: Path, rate: float, sigma: float | None, frames: FrameSet) -> dict[str, np.ndarray]:
    """Energies [F], eV, of every arm of one seed.

    Args:
        rate: step that validation chose. sigma: Å, the width of the noise that it chose.
    """

    def saved(arm: str) -> Potential:
        found = load(trained(place, arm, sigma) / "checkpoints" / "best.safetensors")
        assert isinstance(found, Potential)
        return found.eval()

    taip, settings = saved(TAIP), AdaptSettings(rate)
    found = {arm: predict(saved(arm), frames) for arm in (BASELINE, NOISE)}
    found[OFF] = predict(taip, frames)
    found[ADAPTED] = predict_adapted(taip, frames, settings).frames
    found[RANDOM] = predict_adapted(taip, frames, replace(settings, direction="random")).frames
    return {arm: np.asarray(one.energy) for arm, one in found.items()}


def measured(folder: Path, seeds: Sequence[int], tests: Mapping[str, FrameSet]) -> dict[str, Any] | None:
    """Profiles of one encoder; None where no seed is finished."""
    done = {seed: recall(folder / f"seed_{seed}") for seed in seeds}
    # Profiles are of energies, and so is the step that was chosen for them.
    chosen = {
        seed: (one.rates[ADAPTED]["energy"], one.noise_sigma) for seed, one in done.items() if one is not None
    }  # fmt: skip
    if not chosen:
        return None
    record: dict[str, Any] = {"seeds": list(chosen), "missing": [s for s in seeds if s not in chosen], "profiles": {}}
    for name, frames in tests.items():
        reference = np.asarray(frames.energy)
        found = [energies(folder / f"seed_{seed}", *each, frames) for seed, each in chosen.items()]
        record["profiles"][name] = {
            "frames": len(frames), "barrier_of_labels": round(MEV * float(np.ptp(reference)), 3),
            "arms": {
                arm: over_seeds([profile_figures(one[arm], reference) for one in found]) for arm in found[0]
            },
            # Relative to the frame that is lowest in DFT, first seed: what a figure draws.
            "curves_meV": {
                arm: (MEV * (values - values[np.argmin(reference)])).round(2).tolist()
                for arm, values in {"labels": reference, **found[0]}.items()
            },
        }  # fmt: skip
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", default="taip_small.yaml", help="file of the study, beside this script")
    parser.add_argument("--case", default="a_acac")
    parser.add_argument("--encoder", help="one of them")
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / given.plan).read_text())
    root = HERE.parents[1] / "build" / "studies" / Path(given.plan).stem
    if not (data := os.environ.get("MLIPKIT_DATA", "")):
        raise RunError("needs the folder of data sets", where="MLIPKIT_DATA")
    tests = {name: read_source(str(Path(data) / "acac" / file)) for name, file in PROFILES.items()}
    record: dict[str, Any] = {"command": command(), "encoders": {}}
    for encoder in [given.encoder] if given.encoder else plan["encoders"]:
        found = measured(root / f"{given.case}_{encoder}", plan["template"]["seeds"], tests)
        if found is None:
            continue
        record["encoders"][encoder] = found
        for name, profile in found["profiles"].items():
            print(f"\n{encoder} {name}: barrier of the labels {profile['barrier_of_labels']:.0f} meV")
            for arm, row in profile["arms"].items():
                said = ", ".join(f"{key} {value['mean']:.1f}" for key, value in row.items())
                print(f"  {arm:10} {said}")
    if not record["encoders"]:
        raise RunError("no seed is finished yet", where=str(root), hint="python benchmarks/studies/taip.py")
    write_text(RESULTS / "taip_profiles.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
