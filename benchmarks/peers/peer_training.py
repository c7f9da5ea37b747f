"""The training loop of every peer in `accuracy.py`: loss, optimiser, schedule, batch order, moving average as ours.

Knows nothing of mlipkit. Batches are built from frames made once, so that data loading does not count against a peer.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Engine:
    """What a peer brings.

    Attributes:
        name: with its version.
        frames: arrays of a file, cutoff (Å) and energy per atom to take off -> what `collate` takes.
        collate: some frames -> (input, energy [S], forces [N,3], atoms per structure [S]).
        model: settings -> fresh model.
        predict: model, input -> energy [S], forces [N,3]; for a model in training with the graph for a second backward.
    """

    name: str
    frames: Callable[[Any, float, float], list]
    collate: Callable[[Sequence], tuple[Any, Tensor, Tensor, Tensor]]
    model: Callable[[argparse.Namespace], torch.nn.Module]
    predict: Callable[[torch.nn.Module, Any], tuple[Tensor, Tensor]]


def arguments(models: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("train", "validation", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", choices=models, required=True)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--n-radial", type=int, default=20)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--energy-weight", type=float, default=1.0)
    parser.add_argument("--forces-weight", type=float, default=10.0)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--clip", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flush-denormal", action="store_true")
    return parser.parse_args()


def errors(engine: Engine, model: torch.nn.Module, frames: list, batch_size: int) -> dict[str, float]:
    energy, forces = [], []
    for start in range(0, len(frames), batch_size):
        inputs, true_energy, true_forces, n = engine.collate(frames[start : start + batch_size])
        said = engine.predict(model, inputs)
        energy.append((said[0].detach() - true_energy) / n)
        forces.append((said[1].detach() - true_forces).flatten())
    e, f = torch.cat(energy).double(), torch.cat(forces).double()
    return {
        "energy_mae": e.abs().mean().item(),
        "energy_rmse": e.square().mean().sqrt().item(),
        "forces_mae": f.abs().mean().item(),
        "forces_rmse": f.square().mean().sqrt().item(),
    }


def run(engine: Engine, models: Sequence[str]) -> None:
    """Train as the command line says and print one JSON line."""
    args = arguments(models)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(args.flush_denormal)
    torch.manual_seed(args.seed)

    data = [np.load(path) for path in (args.train, args.validation, args.test)]
    mean = float(np.mean(data[0]["energy"]) / data[0]["numbers"].shape[0])
    frames, validation, test = (engine.frames(part, args.cutoff, mean) for part in data)
    model = engine.model(args)
    engine.predict(model, engine.collate(frames[:2])[0])  # initialises lazily built parts
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(args.ema)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.0)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0 / max(args.warmup, 1), total_iters=args.warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.steps - args.warmup, eta_min=1e-6)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [warm, cosine], [args.warmup])
    shuffle = torch.Generator().manual_seed(args.seed)
    steps, best, wall, cpu = 0, None, time.perf_counter(), time.process_time()
    per_epoch = max(len(frames) // args.batch_size, 1)
    evaluation = 0.0
    while steps < args.steps:
        order = torch.randperm(len(frames), generator=shuffle).tolist()
        for k in range(per_epoch):
            chosen = order[k * args.batch_size : (k + 1) * args.batch_size]
            inputs, energy, forces, n = engine.collate([frames[i] for i in chosen])
            said = engine.predict(model, inputs)
            loss = args.energy_weight * ((said[0] - energy) / n).square().mean()
            loss = loss + args.forces_weight * (said[1] - forces).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            steps += 1
            if steps >= args.steps:
                break
        begin = time.process_time()
        figures = errors(engine, average.module, validation, 50)
        if best is None or figures["forces_mae"] < best[0]:
            best = (figures["forces_mae"], {k: v.clone() for k, v in average.module.state_dict().items()}, steps)
        evaluation += time.process_time() - begin
    assert best is not None
    train_cpu = time.process_time() - cpu - evaluation
    wall = time.perf_counter() - wall
    model.load_state_dict(best[1])
    print(
        json.dumps(
            {
                "engine": engine.name,
                "model": args.model,
                "parameters": sum(p.numel() for p in model.parameters()),
                "steps": steps,
                "best_step": best[2],
                "train_cpu_s": train_cpu,
                "wall_s": wall,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "validation": errors(engine, model, validation, 50),
                "test": errors(engine, model, test, 50),
                "settings": {k: v for k, v in vars(args).items() if k not in ("train", "validation", "test")},
            }
        )
    )
