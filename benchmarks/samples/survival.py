"""How long the ready potentials last in MD: 20 seeds each at 300, 600 and 900 K, written into their model cards.

The control runs the same dynamics on the labels' own engine (GFN2-xTB): what fails there is not the potential's fault.

    python benchmarks/samples/survival.py ethanol_50 ethanol_1000
    python benchmarks/samples/survival.py GFN2-xTB        (the control, 900 K; before the others)
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import common
import numpy as np
import torch

from mlipkit.data import samples
from mlipkit.events import Event, Judged, Verdict
from mlipkit.md import CalculatorForces, PotentialForces, maxwell_boltzmann, simulate, state_from_atoms
from mlipkit.models import load
from mlipkit.runs.build import THERMOSTAT_SEEDS

CONTROL = "GFN2-xTB"
TEMPERATURES = (300.0, 600.0, 900.0)
SEEDS = 20
STEPS, TIMESTEP, FRICTION = 10_000, 0.5, 0.01
START = ("ethanol_300K", 0)
WORK = common.WORK / "survival"


def survival(name: str, temperature: float) -> dict[str, Any]:
    """Verdicts of 20 replicas; kept on disk under the hash of the weights."""
    key = name if name == CONTROL else f"{name}-{common.sha256(samples.potential_path(name))[:12]}"
    kept = WORK / f"{key}-{temperature:g}K.json"
    if kept.exists():
        return json.loads(kept.read_text())
    atoms = samples.load(START[0])[START[1]]
    atoms.calc = None
    # The seeds of a run with replicas=20 and seed=0.
    state = state_from_atoms(atoms, seed=THERMOSTAT_SEEDS, replicas=SEEDS)
    maxwell_boltzmann(state, temperature, seed=0)
    forces = CalculatorForces(common.xtb(CONTROL)) if name == CONTROL else PotentialForces(load(f"sample:{name}"))
    verdicts: list[Verdict] = []

    def sink(event: Event) -> None:
        if isinstance(event, Judged) and event.final:
            verdicts.append(event.verdict)

    folder = kept.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.perf_counter(), time.process_time()
    simulate(
        state, forces, "langevin", steps=STEPS, timestep=TIMESTEP, folder=folder, stride=100, sink=sink,
        options={"temperature": temperature, "friction": FRICTION},
    )  # fmt: skip
    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    assert len(verdicts) == SEEDS
    record = {
        "failed": len(failed),
        "of": SEEDS,
        "times_to_failure_ps": sorted(round(verdict.time / 1000, 3) for verdict in failed),
        "checks": {check: sum(v.check == check for v in failed) for check in sorted({v.check for v in failed})},
        "wall_s": round(time.perf_counter() - begin[0], 1),
        "cpu_s": round(time.process_time() - begin[1], 1),
    }
    shutil.rmtree(folder)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(record))
    median = np.median([v.time / 1000 for v in failed]) if failed else float("nan")
    print(f"{name} {temperature:g} K: {len(failed)} of {SEEDS} failed, median {median:.2f} ps, {record}", flush=True)
    return record


def main(name: str) -> None:
    if name == CONTROL:
        survival(name, TEMPERATURES[-1])
        return
    table = {f"{temperature:g} K": survival(name, temperature) for temperature in TEMPERATURES}
    control = WORK / f"{CONTROL}-{TEMPERATURES[-1]:g}K.json"
    path = samples.potential_path(name).with_suffix(".json")
    card = json.loads(path.read_text("utf-8"))
    card["survival"] = {
        "dynamics": {"ensemble": "langevin", "friction_per_fs": FRICTION, "timestep_fs": TIMESTEP, "steps": STEPS},
        "length_ps": STEPS * TIMESTEP / 1000,
        "start": f"sample:{START[0]}@{START[1]}, Maxwell-Boltzmann velocities at the temperature of the run",
        "seeds": list(range(SEEDS)),
        "checks": "defaults of mlipkit.md.simulate",
        "results": table,
        "control": {f"{CONTROL} {TEMPERATURES[-1]:g} K": json.loads(control.read_text()) if control.exists() else None},
        "command": f"python benchmarks/samples/survival.py {name}",
    }
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for wanted in sys.argv[1:]:
        main(wanted)
