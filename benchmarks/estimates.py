"""What the Launcher says a run will take, against what it took: time, peak memory and disk of three jobs.

    python benchmarks/estimates.py

Appends a JSON line per job to `results/estimates.jsonl`; every ratio should lie within 1.5 either way.
"""

from __future__ import annotations

import tempfile

from records import keep

import mlipkit as mk

JOBS = {
    "training, 400 frames of ethanol, 30 epochs": mk.TrainSpec(
        data="sample:ethanol_300K", n_train=400, max_epochs=30, model=mk.runs.ModelSpec(features=32, layers=2)
    ),
    "MD, ethanol, 15,000 steps": mk.MDSpec(potential="sample:ethanol_1000", temperature=300, steps=15_000),
    "training on water, 96 atoms with stress, 4 epochs": mk.TrainSpec(
        data="sample:water_liquid",
        batch_size=4,
        max_epochs=4,
        model=mk.runs.ModelSpec(features=32, layers=2, cutoff=4.0),
        loss=mk.runs.LossSpec(stress=1.0),
    ),
}


def main() -> None:
    for name, spec in JOBS.items():
        with tempfile.TemporaryDirectory() as folder:
            said = mk.runs.estimate(spec)
            run = mk.launch(spec, root=folder).wait()
            assert run.state == "completed", (run.state, run.reason)
            facts = run.facts()
            disk = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
        line = {
            "job": name,
            "said_s": round(said.seconds, 1),
            "took_s": round(facts["seconds"], 1),
            "time_ratio": round(said.seconds / facts["seconds"], 2),
            "memory_ratio": round(said.peak_bytes / facts["peak_bytes"], 2),
            "disk_ratio": round(said.disk_bytes / disk, 2),
            "command": "python benchmarks/estimates.py",
        }
        keep("estimates", line)


if __name__ == "__main__":
    main()
