"""A worker is killed with -9 at random moments, resumed each time, and compared with the uninterrupted run.

    python benchmarks/kills.py --kills 20

One training and one MD run, each once undisturbed and once killed `--kills` times, at steps drawn evenly over its
length (and a random fraction of a second later). After every kill all files of the run must open. Appends one JSON line
per kind of run to `results/kills.jsonl`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.io import read as ase_read
from records import keep

import mlipkit as mk
from mlipkit.data.series import Series
from mlipkit.runs.run import Run


def specs(quick: bool) -> dict[str, mk.TrainSpec | mk.MDSpec]:
    steps = 300 if quick else 1500
    return {
        "train": mk.TrainSpec(
            name="train",
            data="sample:ethanol_300K",
            n_train=200,
            model=mk.runs.ModelSpec(features=32, layers=2),
            max_steps=steps,
            max_epochs=10**4,
        ),
        "md": mk.MDSpec(
            name="md", potential="sample:ethanol_50", temperature=300, steps=4 * steps, checkpoint_every=200
        ),
    }


def readable(run: Run) -> None:
    """Open everything that the run has written so far; raises when something cannot be read."""
    run.events()
    for name in run.series_names():
        Series(run.files.series / name).read()
    if run.files.trajectory.exists() and run.files.trajectory.stat().st_size:
        ase_read(str(run.files.trajectory), ":")
    for path in run.files.checkpoints.glob("*.safetensors"):
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            list(file.keys())
    for path in run.folder.glob("*.json"):
        json.loads(path.read_text())


def steps_done(run: Run) -> int:
    """Rows of the run's series on disk."""
    name = {"train": "training", "md": "md"}[run.kind]
    return len(run.series(name)) if name in run.series_names() else 0


def outcome(run: Run) -> dict[str, str]:
    """Fingerprints of what a run gives: final weights or trajectory, and every number of its series."""
    found = {}
    if run.kind == "train":
        from safetensors.torch import load_file

        for name in ("best", "last"):
            tensors = load_file(run.files.checkpoints / f"{name}.safetensors")
            for key, value in tensors.items():
                found[f"{name}/{key}"] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        columns = [c for c in run.series("training").columns if "second" not in c and "wait" not in c]
        rows = run.series("training").read(columns)
    else:
        frames = ase_read(str(run.files.trajectory), ":")
        found["trajectory"] = hashlib.sha256(
            b"".join(f.positions.tobytes() + f.get_momenta().tobytes() for f in frames)
        ).hexdigest()
        columns = [c for c in run.series("md").columns if "second" not in c]
        rows = run.series("md").read(columns)
    found["series"] = hashlib.sha256(b"".join(np.ascontiguousarray(rows[c]).tobytes() for c in columns)).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    for kind, spec in specs(args.quick).items():
        with tempfile.TemporaryDirectory() as folder:
            begin = time.monotonic()
            whole = mk.launch(spec, root=Path(folder) / "whole").wait()
            duration = time.monotonic() - begin
            assert whole.state == "completed", (whole.state, whole.reason)
            total = spec.max_steps if isinstance(spec, mk.TrainSpec) else spec.steps
            moments = sorted(draw.randrange(1, int(0.9 * total)) for _ in range(args.kills))
            run, kills, problems, where = mk.launch(spec, root=Path(folder) / "killed"), 0, [], []
            for moment in moments:
                # The step is reached with the last row on disk; the fraction of a second after it is random too.
                while steps_done(run) < moment and run.active:
                    time.sleep(0.01)
                time.sleep(draw.uniform(0.0, 0.3))
                if not run.active:
                    break
                os.kill(run.files.read("pid.json")["pid"], signal.SIGKILL)
                kills += 1
                where.append(steps_done(run))
                while run.active:
                    time.sleep(0.02)
                try:
                    readable(run)
                except Exception as error:
                    problems.append(f"{type(error).__name__}: {error}")
                run.resume()
            run.wait()
            ours, theirs = outcome(run), outcome(whole)
            different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            line = {
                "kind": kind,
                "kills": kills,
                "at": where,
                "undisturbed_s": round(duration, 1),
                "state": run.state,
                "unreadable": problems,
                "compared": len(theirs),
                "different_from_uninterrupted": different,
                "command": "python benchmarks/kills.py " + f"--kills {args.kills} --seed {args.seed}",
            }
            keep("kills", line)


if __name__ == "__main__":
    main()
