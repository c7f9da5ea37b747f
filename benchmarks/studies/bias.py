"""Fine-tuning on naive, iterative and long-run frames, on the published DFT data: which sampling gives what.

    python benchmarks/studies/bias.py                          # train what lacks, evaluate, one line per potential
    python benchmarks/studies/bias.py --only naive:10:0        # one job: arm, size, seed
    python benchmarks/studies/bias.py --table                  # tables, matrix and verdict from the lines alone
    python benchmarks/studies/bias.py --take FILE --table      # first take lines that another machine has measured
    python benchmarks/studies/bias.py --plan bias_paper.yaml   # the published scale

needs the real data sets in MLIPKIT_DATA. It can be interrupted at any moment and called again: a training goes on at
its last checkpoint, predictions are kept set by set, under ``build/studies/bias``; lines stand in `results/bias.jsonl`
and hold the residuals of every frame, so that tables need no model. `--table` writes `results/bias.json` and fills the
tables of ``docs/finetuning_case.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bias_data import kept, published_name, read_set, training_set
from records import RESULTS, keep

from mlipkit.analysis.residuals import Residuals, residuals
from mlipkit.data import split
from mlipkit.events import Evaluated, Event, Message

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / "build" / "studies"


def read_plan(name: str) -> dict[str, Any]:
    return {**yaml.safe_load((HERE / name).read_text()), "file": name}


def jobs(plan: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """(model, arm, size, seed), the untouched model first as ("", 0, 0): all of one seed before the next."""
    found = [(model, "", 0, 0) for model in plan["models"]]
    for model in plan["models"]:
        found += [(model, arm, size, seed) for seed in plan["seeds"] for arm, size in plan["jobs"]]
    return found + [(model, "", 0, 0) for model in plan.get("controls", ())]


def lines(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured, the newest line of every job."""
    file = RESULTS / f"{plan['results']}.jsonl"
    rows = [json.loads(text) for text in file.read_text().splitlines() if text.strip()] if file.exists() else []
    return list({key(row): row for row in rows}.values())


def key(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["model"], row["arm"], row["size"], row["seed"]


def take(plan: dict[str, Any], file: Path) -> None:
    """Lines of another file whose jobs are not done here."""
    done = {key(row) for row in lines(plan)}
    texts = [text for text in file.read_text().splitlines() if text.strip()]
    new = {key(json.loads(text)): text for text in texts}
    with (RESULTS / f"{plan['results']}.jsonl").open("a") as stream:
        stream.writelines(text + "\n" for job, text in new.items() if job not in done)


def log(event: Event) -> None:
    now = time.strftime("%H:%M:%S")
    if isinstance(event, Message):
        print(now, event.text, flush=True)
    elif isinstance(event, Evaluated):
        figures = event.metrics["validation"]
        shown = {name: round(1000 * figures[name], 2) for name in ("energy_mae", "forces_mae") if name in figures}
        print(now, f"epoch {event.epoch} step {event.step}", shown, "best" if event.best else "", flush=True)


def predictions(potential: Any, folder: Path, plan: dict[str, Any]) -> dict[str, Residuals]:
    """Residuals on every set; predictions are kept in `folder` as long as weights and frames are the same."""
    from mlipkit.models import predict

    state = hashlib.blake2b(digest_size=16)
    for name, value in potential.state_dict().items():
        state.update(name.encode() + value.detach().cpu().numpy().tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in plan["evaluate"]:
        frames, file = read_set(name).frames, folder / f"{name}.npz"
        identity = f"{state.hexdigest()} {frames.hash}"
        if file.is_file():
            with np.load(file) as old:
                if str(old["identity"]) == identity:
                    labels = {label: old[label] for label in ("energy", "forces", "stress")}
                    found[name] = residuals(frames.with_labels(**labels), frames)
                    continue
        began = time.process_time()
        predicted = predict(potential, frames, plan["predict_batch"], stress=True)
        draft = file.with_suffix(".part")
        with draft.open("wb") as stream:
            np.savez(stream, identity=np.array(identity), energy=predicted.energy, forces=predicted.forces,
                     stress=predicted.stress)  # fmt: skip
        draft.replace(file)
        found[name] = residuals(predicted, frames)
        print(time.strftime("%H:%M:%S"), f"{name}: {time.process_time() - began:.0f} CPU s", flush=True)
    return found


def run(plan: dict[str, Any], model: str, arm: str, size: int, seed: int) -> None:
    """One job: train (or go on), predict every set, write the line."""
    import torch

    from mlipkit.models import load

    torch.set_num_threads(plan["threads"])
    torch.set_flush_denormal(True)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if plan["device"] == "auto" else plan["device"]
    began = time.process_time()
    folder = ROOT / plan["results"] / model / (f"{arm}_{size}_{seed}" if arm else "untouched")
    potential, facts = load(f"universal:{model}").to(device), {}
    if arm:
        potential, facts = tuned(plan, potential, arm, size, seed, folder, device)
    found = predictions(potential, folder / "predictions", plan)
    packages = {name: metadata.version(name) for name in ("torch", {"chgnet": "chgnet", "sevennet-0": "sevenn"}[model])}
    keep(plan["results"], {
        "model": model, "arm": arm, "size": size, "seed": seed, "published": published_name(arm, size) if arm else "U",
        "command": " ".join(["python benchmarks/studies/bias.py", *sys.argv[1:]]), "plan": plan["file"], **facts,
        "device": device, "processor": platform.machine(), "packages": packages,
        "cpu_s_of_this_call": round(time.process_time() - began, 1),
        "sets": {name: kept(one) for name, one in found.items()},
    })  # fmt: skip


def tuned(
    plan: dict[str, Any], potential: Any, arm: str, size: int, seed: int, folder: Path, device: str
) -> tuple[Any, dict[str, Any]]:
    """The fine-tuned potential, and what its line says of the training."""
    from mlipkit.strategies.finetuning import FinetuneRecipe, finetune
    from mlipkit.training import TrainSettings

    frames = training_set(arm, size)
    parts = split(frames, validation=plan["validation"], test=0, by="random", seed=seed)
    settings = TrainSettings(**plan["settings"], device=device, shuffle_seed=seed, noise_seed=seed)
    recipe = FinetuneRecipe(**plan["recipe"])
    print(time.strftime("%H:%M:%S"), f"{arm} {size}, seed {seed}: {parts.how}", flush=True)
    done = finetune(potential, parts.train, parts.validation, settings, recipe, folder=folder, sink=log)
    if done.result.state != "completed":
        raise SystemExit(f"{folder.name}: stopped, {done.sentence}")
    parts_of_row = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "stress_mae", "stress_rmse")
    return done.potential.to(device), {
        "chosen": done.chosen, "best_epoch": done.best_epoch, "epochs": done.result.epoch, "steps": done.result.step,
        "frame_gradients": done.frame_gradients, "worse_than_start": done.worse_than_start, "sentence": done.sentence,
        "shifts": {"mean_mev": done.shifts.mean, "spread_mev": done.shifts.spread, "rank": done.shifts.rank},
        "training_s": round(done.result.seconds, 1), "settings": plan["settings"], "recipe": asdict(recipe),
        "split": {"seed": seed, "train": [parts.train.uid(i) for i in range(len(parts.train))],
                  "validation": [parts.validation.uid(i) for i in range(len(parts.validation))]},
        "metrics": {
            which: {part: {name: row[name] for name in parts_of_row if name in row} for part, row in table.items()}
            for which, table in done.metrics.items()
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="bias.yaml")
    parser.add_argument("--only", nargs="*", help="arm:size:seed, or 'untouched'")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of the plan's")
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="files of lines from elsewhere")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    if args.seeds is not None:
        plan["seeds"] = args.seeds
    for file in args.take:
        take(plan, file)
    if args.table:
        from bias_table import write

        write(plan, lines(plan))
    if args.table or args.take:
        return
    wanted = None if args.only is None else {":".join(["", "0", "0"]) if x == "untouched" else x for x in args.only}
    done = {key(row) for row in lines(plan)}
    for job in jobs(plan):
        if job not in done and (wanted is None or ":".join(map(str, job[1:])) in wanted):
            run(plan, *job)


if __name__ == "__main__":
    main()
