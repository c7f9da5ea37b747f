"""Errors and time of PaiNN and SchNet beside SchNetPack, ViSNet beside PyG: same split, sizes, loss, number of steps.

    python benchmarks/accuracy.py --peer-python peer/bin/python --steps 6000 --seeds 0 1 2

needs the real data sets in MLIPKIT_DATA. Prints one JSON line per engine, model, data set and seed, and appends them to
`results/accuracy.jsonl`; lines that are there already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from records import RESULTS, keep

HERE = Path(__file__).resolve().parent
# (training, validation, test): where each part of a data set comes from. MD17's thousand frames are in random order;
# acetylacetone brings a test set of its own.
SETS = {
    "md17_ethanol": (
        ("md17_ethanol/ethanol_random_1000.extxyz.gz", slice(0, 900)),
        ("md17_ethanol/ethanol_random_1000.extxyz.gz", slice(900, 950)),
        ("md17_ethanol/ethanol_random_1000.extxyz.gz", slice(950, 1000)),
    ),
    "acac_300K": (
        ("acac/acac_train_300K.extxyz.gz", slice(0, 450)),
        ("acac/acac_train_300K.extxyz.gz", slice(450, 500)),
        ("acac/acac_test_MD_300K.extxyz.gz", slice(0, 650)),
    ),
}
MODELS = {"painn": {"n_radial": 20}, "schnet": {"n_radial": 50}, "visnet": {"n_radial": 32}}
PEERS = {"painn": "schnetpack", "schnet": "schnetpack", "visnet": "pyg"}
SHARED = {"features": 64, "layers": 3, "cutoff": 5.0, "batch_size": 10, "learning_rate": 1e-3}


def arrays(name: str, folder: Path) -> list[Path]:
    """The three parts of a data set as npz, the only thing that both engines read."""
    from mlipkit.data import read

    data = Path(os.environ["MLIPKIT_DATA"])
    paths = []
    for part, (file, rows) in zip(("train", "validation", "test"), SETS[name], strict=True):
        frames = read(data / file)[rows]
        n = int(frames.n_atoms[0])
        paths.append(folder / f"{name}-{part}.npz")
        np.savez(
            paths[-1],
            numbers=frames.numbers[:n],
            positions=frames.positions.reshape(-1, n, 3),
            energy=frames.energy,
            forces=frames.forces.reshape(-1, n, 3),
        )
    return paths


def ours(model: str, parts: list[Path], steps: int, seed: int, threads: int) -> dict:
    """Train here; runs in a child process of its own, so that peak memory is that of one training."""
    import torch

    from mlipkit.data import FrameSet, fit_atomic_energies
    from mlipkit.models import Potential, build_encoder, load
    from mlipkit.training import TrainSettings, evaluate, train

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    sets = []
    for path in parts:
        data = np.load(path)
        count, n = data["positions"].shape[:2]
        sets.append(
            FrameSet.from_arrays(
                np.tile(data["numbers"], count),
                data["positions"].reshape(-1, 3),
                np.full(count, n),
                energy=data["energy"],
                forces=data["forces"].reshape(-1, 3),
                source=path.name,
            )
        )
    training, validation, test = sets
    torch.manual_seed(seed)
    encoder = build_encoder(
        model,
        features=SHARED["features"],
        layers=SHARED["layers"],
        cutoff=SHARED["cutoff"],
        n_radial=MODELS[model]["n_radial"],
    )
    potential = Potential(
        encoder, atomic_energies=fit_atomic_energies(training), elements=training.elements,
        head="gated" if model == "visnet" else "per_atom",
    )  # fmt: skip
    settings = TrainSettings(
        batch_size=SHARED["batch_size"],
        max_epochs=10**6,
        max_steps=steps,
        learning_rate=SHARED["learning_rate"],
        schedule="cosine",
        warmup_steps=100,
        energy_weight=1.0,
        forces_weight=10.0,
        ema_decay=0.99,
        clip_norm=10.0,
        monitor="forces_mae",
        shuffle_seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        train(potential, training, validation, settings, folder=Path(folder))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        best = load(Path(folder) / "checkpoints" / "best.safetensors")
    figures = {name: flat(evaluate(best, frames)) for name, frames in (("validation", validation), ("test", test))}
    return {
        "engine": "mlipkit",
        "model": model,
        "parameters": sum(p.numel() for p in best.parameters()),
        "steps": steps,
        "train_cpu_s": cpu,
        "wall_s": wall,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **figures,
        "settings": {**SHARED, **MODELS[model], "seed": seed, "threads": threads},
    }


def flat(metrics: dict) -> dict[str, float]:
    """The figures that both engines report."""
    return {k: metrics[k] for k in ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")}


def peer(python: str, model: str, parts: list[Path], steps: int, seed: int, threads: int) -> dict:
    """The model's peer in its environment, with the same process settings (flush-to-zero) as ours."""
    command = [python, str(HERE / "peers" / f"{PEERS[model]}_train.py"), "--model", model, "--flush-denormal"]
    for part, path in zip(("train", "validation", "test"), parts, strict=True):
        command += [f"--{part}", str(path)]
    options = {**SHARED, **MODELS[model], "steps": steps, "seed": seed, "threads": threads}
    for key, value in options.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of SchNetPack's environment; left out: ours only")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--one", nargs=5, metavar=("MODEL", "TRAIN", "VALIDATION", "TEST", "SEED"), help="internal")
    args = parser.parse_args()
    if args.one:
        model, *paths, seed = args.one
        print(json.dumps(ours(model, [Path(p) for p in paths], args.steps, int(seed), args.threads)))
        return
    done = set()
    before = RESULTS / "accuracy.jsonl"
    if before.exists():
        records = [json.loads(line) for line in before.read_text().splitlines()]
        done = {
            (r["engine"].split()[0], r["model"], r["data"], r["settings"]["seed"], r["steps"], r["settings"]["threads"])
            for r in records
        }
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for name in args.sets:
                parts = arrays(name, Path(folder))
                for model in args.models:
                    # PyG lives in our own environment.
                    python = sys.executable if PEERS[model] == "pyg" else args.peer_python
                    for engine in ["mlipkit", *([PEERS[model]] if python else [])]:
                        if (engine, model, name, seed, args.steps, args.threads) in done:
                            continue
                        if engine == "mlipkit":
                            command = [sys.executable, __file__, "--steps", str(args.steps)]
                            command += ["--threads", str(args.threads), "--one", model, *map(str, parts), str(seed)]
                            out = subprocess.run(command, capture_output=True, text=True, check=False)
                            if out.returncode:
                                raise SystemExit(out.stderr)
                            record = json.loads(out.stdout.strip().splitlines()[-1])
                        else:
                            record = peer(python, model, parts, args.steps, seed, args.threads)
                        keep("accuracy", {"data": name, **record})


if __name__ == "__main__":
    main()
