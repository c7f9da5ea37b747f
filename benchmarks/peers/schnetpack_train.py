"""Train a SchNetPack model on arrays given as npz; runs in SchNetPack's own environment and knows nothing of mlipkit.

SchNetPack's representation, output modules and neighbour transform, a plain loop with the same loss, optimiser,
schedule, batch order and exponential moving average as the other side. Batches are built once, so that data loading,
where SchNetPack is slow on small molecules, does not count against it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import schnetpack as spk
import schnetpack.transform as trn
import torch
from ase import Atoms
from schnetpack import properties
from schnetpack.data.loader import _atoms_collate_fn


def build_model(args: argparse.Namespace) -> torch.nn.Module:
    cutoff = spk.nn.CosineCutoff(args.cutoff)
    if args.model == "painn":
        radial = spk.nn.BesselRBF(n_rbf=args.n_radial, cutoff=args.cutoff)
        encoder = spk.representation.PaiNN(args.features, args.layers, radial_basis=radial, cutoff_fn=cutoff)
    else:
        radial = spk.nn.GaussianRBF(n_rbf=args.n_radial, cutoff=args.cutoff)
        encoder = spk.representation.SchNet(args.features, args.layers, radial_basis=radial, cutoff_fn=cutoff)
    return spk.model.NeuralNetworkPotential(
        representation=encoder,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=args.features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )


def load(path: str, cutoff: float, mean_per_atom: float | None = None):
    data = np.load(path)
    frames, neighbours = [], trn.ASENeighborList(cutoff=cutoff)
    if mean_per_atom is None:
        mean_per_atom = float(np.mean(data["energy"]) / data["numbers"].shape[0])
    for index, (positions, energy, forces) in enumerate(
        zip(data["positions"], data["energy"], data["forces"], strict=True)
    ):
        atoms = Atoms(data["numbers"], positions)
        inputs = {
            properties.idx: torch.tensor([index]),
            properties.n_atoms: torch.tensor([len(atoms)]),
            properties.Z: torch.tensor(atoms.numbers, dtype=torch.long),
            properties.R: torch.tensor(positions),
            properties.cell: torch.zeros(1, 3, 3, dtype=torch.float64),
            properties.pbc: torch.zeros(3, dtype=torch.bool),
            "energy": torch.tensor([energy - mean_per_atom * len(atoms)]),
            "forces": torch.tensor(forces),
        }
        inputs = neighbours(inputs)
        frames.append({k: v.float() if v.is_floating_point() else v for k, v in inputs.items()})
    return frames, mean_per_atom


def errors(model, frames, batch_size: int) -> dict[str, float]:
    energy, forces = [], []
    for start in range(0, len(frames), batch_size):
        batch = _atoms_collate_fn(frames[start : start + batch_size])
        truth = batch["energy"].clone(), batch["forces"].clone()
        out = model(dict(batch))
        energy.append((out["energy"].detach() - truth[0]) / batch[properties.n_atoms])
        forces.append((out["forces"].detach() - truth[1]).flatten())
    e, f = torch.cat(energy).double(), torch.cat(forces).double()
    return {
        "energy_mae": e.abs().mean().item(),
        "energy_rmse": e.square().mean().sqrt().item(),
        "forces_mae": f.abs().mean().item(),
        "forces_rmse": f.square().mean().sqrt().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "validation", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", choices=["painn", "schnet"], required=True)
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
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(args.flush_denormal)
    torch.manual_seed(args.seed)

    frames, mean = load(args.train, args.cutoff)
    validation, _ = load(args.validation, args.cutoff, mean)
    test, _ = load(args.test, args.cutoff, mean)
    model = build_model(args)
    model(dict(_atoms_collate_fn(frames[:2])))  # initialises lazily built parts
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
            batch = _atoms_collate_fn([frames[i] for i in order[k * args.batch_size : (k + 1) * args.batch_size]])
            energy, forces, n = batch["energy"].clone(), batch["forces"].clone(), batch[properties.n_atoms]
            out = model(dict(batch))
            loss = args.energy_weight * ((out["energy"] - energy) / n).square().mean()
            loss = loss + args.forces_weight * (out["forces"] - forces).square().mean()
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
        figures = errors(average.module, validation, 50)
        if best is None or figures["forces_mae"] < best[0]:
            best = (figures["forces_mae"], {k: v.clone() for k, v in average.module.state_dict().items()}, steps)
        evaluation += time.process_time() - begin
    assert best is not None
    model.load_state_dict(best[1])
    print(
        json.dumps(
            {
                "engine": f"schnetpack {spk.__version__ if hasattr(spk, '__version__') else '2.2.0'}",
                "model": args.model,
                "parameters": sum(p.numel() for p in model.parameters()),
                "steps": steps,
                "best_step": best[2],
                "train_cpu_s": time.process_time() - cpu - evaluation,
                "wall_s": time.perf_counter() - wall,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "validation": errors(model, validation, 50),
                "test": errors(model, test, 50),
                "settings": {k: v for k, v in vars(args).items() if k not in ("train", "validation", "test")},
            }
        )
    )


if __name__ == "__main__":
    main()
