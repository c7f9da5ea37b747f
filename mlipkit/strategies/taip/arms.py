"""The potentials that adaptation is judged with: same frames, same start, same steps; one loss more, or none.

==========  ===========================================================================
arm         trained on
==========  ===========================================================================
baseline    labels
noise       labels, and the same labels on displaced structures (`NoisyLabels`)
taip        labels and the self-supervised tasks
without X   as taip, without the task X (ablation in training)
==========  ===========================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.data.whole import read_json, write_whole
from mlipkit.errors import RunError
from mlipkit.events import Control, EventSink, Message, always_run, ignore
from mlipkit.models import Potential, load
from mlipkit.strategies.taip.options import TASKS, TaipOptions, attach
from mlipkit.strategies.taip.term import NoisyLabels, SelfSupervised
from mlipkit.strategies.workflows.differences import differing, told
from mlipkit.training import EnergyForcesStress, ObjectiveTerm, train

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.training import TrainSettings

RECORD = "arm.json"
"""What the training in a folder is."""
ANYWHERE = ("device", "num_processes", "checkpoint_s", "checkpoint_steps", "evaluation_batch_size")
"""Settings that a training may go on with otherwise."""
BASELINE, NOISE, TAIP = "baseline", "noise", "taip"
ABLATIONS = {f"without_{task}": task for task in TASKS}


@dataclass(frozen=True)
class Arm:
    """A trained potential.

    Attributes:
        name: see the module. seed: of weights, order and noise.
        training_s: seconds of its training. steps: optimiser steps. best_epoch: of the weights that were chosen.
        noise_sigma: Å, of the arm "noise".
    """

    name: str
    seed: int
    potential: Potential
    training_s: float
    steps: int
    best_epoch: int
    noise_sigma: float | None = None


def train_arm(
    name: str, seed: int, make: Callable[[int], Potential], frames: FrameSet, validation: FrameSet,
    settings: TrainSettings, options: TaipOptions, *, folder: Path, noise_sigma: float = 0.005,
    sink: EventSink = ignore, control: Control = always_run,
) -> Arm | None:  # fmt: skip
    """Train one arm, or go on where its folder stands.

    Args:
        name: "baseline", "noise", "taip" or a name in `ABLATIONS`.
        make: seed -> potential with fresh weights.
        settings: seeds are replaced by `seed`.
        options: of the tasks.
        noise_sigma: Å, of the arm "noise".

    Returns:
        None when the user stopped it.
    """
    settings = replace(settings, shuffle_seed=seed, noise_seed=seed)
    supervised = EnergyForcesStress.from_settings(settings)
    terms: list[ObjectiveTerm] = [supervised]
    potential = make(seed)
    if name == NOISE:
        terms.append(NoisyLabels(supervised, noise_sigma))
    elif name != BASELINE:
        if name in ABLATIONS:
            options = replace(options, **{ABLATIONS[name]: 0.0})
        attach(potential, options, periodic=bool(frames.pbc.any()), seed=seed)
        terms.append(SelfSupervised(options))
    sigma = noise_sigma if name == NOISE else None
    _keep_to(folder, {"arm": name, "seed": seed, "noise_sigma": sigma, "settings": settings.to_json()})
    result = train(potential, frames, validation, settings, folder=folder, sink=sink, control=control, terms=terms)
    if result.state == "stopped":
        return None
    found = load(result.best, device=potential.device)
    assert isinstance(found, Potential)
    sink(Message(f"{name}, seed {seed}: trained in {result.seconds:.0f} s, {result.step} steps"))
    return Arm(name, seed, found.eval(), result.seconds, result.step, result.best_epoch, sigma)


def _keep_to(folder: Path, known: Mapping[str, Any]) -> None:
    """Write down what a folder trains; refuse one that trains something else.

    Raises:
        RunError: another arm, seed, width of noise or other settings.
    """
    path, mine = folder / RECORD, json.loads(json.dumps(known))
    mine["settings"] = {name: value for name, value in mine["settings"].items() if name not in ANYWHERE}
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(mine, indent=1) + "\n").encode())
        return
    before = read_json(path)
    names = [name for name in differing(before, mine) if name.rpartition(".")[2] not in ANYWHERE]
    if names:
        raise RunError("this is the training of something else", where=str(path), expected=told(mine, names),
                       found=told(before, names), hint="Delete this folder: it is trained again")  # fmt: skip


def check_steps(arms: Mapping[str, Arm]) -> None:
    """Refuse arms that were trained for different numbers of steps: the longer one would be compared, not the cure.

    Raises:
        RunError: names the steps.
    """
    if len({one.steps for one in arms.values()}) > 1:
        found = ", ".join(f"{name} {one.steps}" for name, one in arms.items())
        raise RunError("arms of unequal optimiser steps", where="training", found=found,
                       hint="End trainings by max_epochs or max_steps, without patience or a time limit")  # fmt: skip


def arm_folder(seed: Path, name: str, sigma: float | None = None) -> Path:
    """Where the training of an arm lies.

    Args:
        seed: folder of its seed. sigma: Å, where several widths of noise were tried.
    """
    return seed / (name if sigma is None else f"{name}_{sigma:g}")


def arm_names(options: TaipOptions, ablate: bool) -> list[str]:
    """Arms of a study, the cure last but for its ablations."""
    active: Iterable[str] = (f"without_{task}" for task in TASKS if options.weights[task])
    several = sum(weight > 0 for weight in options.weights.values()) > 1
    return [BASELINE, NOISE, TAIP, *(active if ablate and several else ())]
