"""What labelling costs beside the engine: per frame in the engine, in this process and in all; start and end.

    python benchmarks/labelling.py

Appends a JSON line per engine and number of processes to `results/labelling.jsonl`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from records import keep

from mlipkit.data import samples
from mlipkit.events import Event, Progress, Started
from mlipkit.labelling import label_frames, recipe_of

JOBS = (
    ("gfn1-xtb", {}, "ethanol_300K", 500, 1),
    ("gfn1-xtb", {}, "ethanol_300K", 500, 2),
    ("gfn2-xtb", {}, "ethanol_300K", 500, 1),
    ("gfn1-xtb", {}, "water_liquid", 5, 1),
    ("universal:so3lr", {}, "ethanol_300K", 50, 1),
    ("pyscf", {"functional": "pbe", "basis": "def2-svp"}, "ethanol_300K", 1, 1),
    ("recorded:sample:ethanol_300K", {}, "ethanol_300K", 500, 1),
)


def main() -> None:
    for maker, options, data, n_frames, processes in JOBS:
        frames, when = samples.load(data)[:n_frames], []

        def sink(event: Event, when: list[float] = when) -> None:
            if isinstance(event, Started | Progress):
                when.append(time.monotonic())

        with tempfile.TemporaryDirectory() as folder:
            begin, cpu = time.monotonic(), time.process_time()
            found = label_frames(frames, recipe_of(maker, **options), folder, processes=processes, sink=sink)
            end, cpu = time.monotonic(), time.process_time() - cpu
            n_bytes = Path(folder, "labels.jsonl").stat().st_size
        assert not found.failed, found.sentence
        line = {
            "maker": found.maker["name"], "options": options, "data": data, "atoms": int(frames.n_atoms[0]),
            "frames": n_frames, "processes": processes, "engine_ms": round(1000 * found.seconds / n_frames, 3),
            "engine_cpu_ms": round(1000 * found.cpu_seconds / n_frames, 3),
            "own_cpu_ms": round(1000 * cpu / n_frames, 3),
            "wall_ms": round(1000 * (when[-1] - when[0]) / n_frames, 3),
            "start_s": round(when[0] - begin, 2), "end_s": round(end - when[-1], 2),
            "bytes_per_frame": round(n_bytes / n_frames),
            "command": "python benchmarks/labelling.py",
        }  # fmt: skip
        keep("labelling", line)


if __name__ == "__main__":
    main()
