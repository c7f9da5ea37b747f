"""Run folders with TAIP in them, made by the real writers without a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from recorded import TIMESTEP, RecordedMD, log
from run_folders import Acted, folder_of

from mlipkit.data.series import SeriesWriter
from mlipkit.events import Evaluated, Event, Finished, Message, Progress, Started, to_json
from mlipkit.runs import MDSpec, Run, TaipSpec, TrainSpec
from mlipkit.strategies.taip.maps import feature_maps, keep_maps
from mlipkit.strategies.taip.measuring import Measured
from mlipkit.strategies.taip.options import TASKS as NAMES
from mlipkit.strategies.taip.study import Study, judged

TASKS = ("loss_noise", "loss_types", "loss_pseudo_forces")
COLUMNS: dict[str, str] = dict.fromkeys(
    ("step", "self_supervised", *TASKS, "gradient", "change", "drift", "adapted", "threshold"), ""
)  # fmt: skip


class RecordedAdaptation(RecordedMD):
    """Ethanol that vibrates, with a potential that adapts. Grows by `advance`.

    Args:
        tasks: those that the potential knows.
        **how: fields of the adaptation.
    """

    def __init__(self, path: Path, *, steps: int = 2000, tasks: tuple[str, ...] = TASKS, **how: Any) -> None:
        super().__init__(path, steps=steps)
        self.spec = MDSpec(
            potential="sample:ethanol_1000", start="sample:ethanol_300K@0", steps=steps, timestep=TIMESTEP,
            adaptation=how,  # type: ignore[arg-type]
        )  # fmt: skip
        self.files.spec.write_text(self.spec.to_yaml())
        self.tasks, self.drift = tasks, 0.0
        self.adaptation = SeriesWriter(self.files.series / "adaptation", COLUMNS)

    def loss(self, step: int) -> float:
        """3 to 5, above 4.8 in about a fifth of all steps."""
        return 4.0 + float(np.sin(0.05 * step))

    def advance(self, steps: int) -> None:
        first = self.step + (self.step > 0)
        super().advance(steps)
        how, rows = self.spec.adaptation, []
        for step in range(first, self.step + 1):
            due = {
                "save_every_k": step % how.every == 0, "threshold": self.loss(step) > (how.threshold or 0.0)
            }.get(how.strategy, True)  # fmt: skip
            seen = due or how.strategy == "threshold"
            change = 1e-3 if due else 0.0
            self.drift += change if how.strategy != "nonsaving" else 0.0
            parts = [self.loss(step) / len(self.tasks) if seen and one in self.tasks else np.nan for one in TASKS]
            rows.append([
                step, self.loss(step) if seen else np.nan, *parts, 7.0 if due else np.nan, change, self.drift,
                float(due), np.nan if how.threshold is None else how.threshold,
            ])  # fmt: skip
        self.adaptation.append(np.array(rows))
        self.adaptation.flush()

    def close(self) -> None:
        super().close()
        self.adaptation.close()


def recorded_tasks(path: Path, tasks: tuple[str, ...] = TASKS, epochs: int = 5, per_epoch: int = 20) -> Run:
    """A finished training with self-supervised tasks."""
    fields = {name.removeprefix("loss_"): 0.0 for name in TASKS if name not in tasks}
    files = folder_of(path, TrainSpec(data="sample:ethanol_300K", taip={"enabled": True, **fields}))  # type: ignore[arg-type]
    hit = ("noise_recognised",) if "loss_noise" in tasks else ()
    named = (*tasks, *hit)
    training = SeriesWriter(files.series / "training", dict.fromkeys(("step", "epoch", "loss", *named), ""))
    columns = ("step", "epoch", "objective", "energy_mae", "forces_mae", "train_loss", *(f"train_{n}" for n in named))
    validation = SeriesWriter(files.series / "validation", dict.fromkeys(columns, ""))
    said: list[Event] = [Started("training painn", epochs * per_epoch)]
    for epoch in range(epochs + 1):
        at, size = epoch * per_epoch, 0.8**epoch
        values = [*(3.0 * size / (k + 1) for k in range(len(tasks))), *(1 - 0.9 * size for _ in hit)]
        means = values if epoch else [np.nan] * len(named)
        validation.append(np.array([at, epoch, size, 0.02 * size, 0.5 * size, size if epoch else np.nan, *means]))
        figures = {"energy_mae": 0.02 * size, "forces_mae": 0.5 * size}
        said.append(Evaluated(epoch, at, {"validation": figures}, 1e-3, True))
        if epoch < epochs:
            steps = np.arange(at + 1, at + per_epoch + 1)
            rows = [steps, np.full(per_epoch, epoch + 1), np.full(per_epoch, size)]
            training.append(np.stack([*rows, *(np.full(per_epoch, value) for value in values)], axis=1))
    training.close()
    validation.close()
    log(files, *said, Finished("completed", "", {"seconds": 30.0}))
    return Run(path)


SEEDS, TEST_SETS = (0, 1, 2), ("in distribution", "hot", "ice")


class RecordedEvaluation(Acted):
    """An evaluation of TAIP whose errors are drawn: noise augmentation a tenth better than labels alone, adaptation as
    `gain` says.

    Args:
        gain: factor on the errors of the potential with the tasks that adaptation brings.
        maps: whether features were measured and mapped.
    """

    def __init__(self, path: Path, gain: float = 1.0, maps: bool = False, ablate: bool = True) -> None:
        self.spec = TaipSpec(data="sample:ethanol_300K", shifted=["hot.xyz", "ice.xyz"], features=maps, ablate=ablate)
        self.files = folder_of(path, self.spec)
        self.gain, self.maps, self.ablate = gain, maps, ablate
        self.random = np.random.default_rng(3)
        log(self.files, Started("training", 40))

    def train(self, seed: int, arm: str, epochs: int = 4) -> None:
        """A training that has ended."""
        writer = SeriesWriter(
            self.files.path / f"seed_{seed}" / arm / "series" / "validation", {"step": "", "forces_mae": "eV/Å"}
        )
        writer.append(np.stack([10.0 * np.arange(epochs + 1), 0.4 * 0.8 ** np.arange(epochs + 1)], axis=1))
        writer.close()
        log(self.files, Message(f"{arm}, seed {seed}: trained in 12 s, 40 steps"))
        self.files.write("progress.json", to_json(Progress(20, 40, "step", 3.0)))

    def finish(self) -> None:
        """Errors, verdicts and the last word."""
        measured = [self._measured(seed) for seed in SEEDS]
        study = Study(features=self.maps, ablate=self.ablate, repeats=2)
        record = judged(study, measured, ["hot", "ice"])
        if self.maps:
            keep_maps(feature_maps(measured[0].features["all"]), self.files.path)
        (self.files.path / "taip.json").write_text(json.dumps(record))
        facts = {"sentence": record["sentence"], "answer": record["verdicts"][0]["answer"]}
        log(self.files, Finished("completed", record["sentence"], facts))

    def _measured(self, seed: int) -> Measured:
        columns = {"baseline": 1.0, "noise": 0.9, "off": 0.85, "adapted": 0.85 * self.gain, "random": 0.85}
        if self.ablate:
            columns |= {f"{kind}_{task}": 0.86 for kind in ("only", "without") for task in NAMES}
        errors, uids, rng = {}, {}, self.random
        for number, test in enumerate(TEST_SETS):
            frame = (number + 1) * 0.03 * np.exp(0.3 * rng.normal(size=30))
            errors[test] = {
                name: {
                    "forces": factor * frame * np.exp(0.01 * rng.normal(size=30)),
                    "energy": factor * 0.1 * frame * np.exp(0.05 * rng.normal(size=30)),
                }
                for name, factor in columns.items()
            }  # fmt: skip
            uids[test] = list(range(100 * number, 100 * number + 30))
        scan = {"forces": {0.0: 0.03, 1e-6: 0.0299, 1e-5: 0.0295, 1e-4: 0.04},
                "energy": {0.0: 0.003, 1e-6: 0.0029, 1e-5: 0.003, 1e-4: 0.004}}  # fmt: skip
        numbers = dict.fromkeys(TEST_SETS, 0.1)
        found = Measured(
            seed, {"adapted": {"forces": 1e-5, "energy": 1e-6}}, scan, errors, uids, uids,
            scan_tests=dict.fromkeys(TEST_SETS, scan), correlation={name: {"all": 0.1} for name in TEST_SETS},
            repeat=numbers, change=numbers, seconds={"off": 0.01, "adapted": 0.05},
            training_s={"baseline": 10.0, "noise": 20.0, "taip": 30.0}, steps={"taip": 40}, noise_sigma=0.005,
        )  # fmt: skip
        if self.maps:
            kinds = ("baseline", "off", "adapted")
            # Of the elements one is in three training frames only.
            for atoms, n_train in {"all": 60, "H": 60, "Zn": 3}.items():
                found.features[atoms] = {
                    name: {kind: shift + rng.normal(size=(n_train if name == "train" else 30, 8)) for kind in kinds}
                    for name, shift in zip(("train", *TEST_SETS), (0.0, 0.0, 1.0, 3.0), strict=True)
                }
                found.feature_groups[atoms] = {
                    name: np.arange(len(kinds["off"])) for name, kinds in found.features[atoms].items()
                }
        return found
