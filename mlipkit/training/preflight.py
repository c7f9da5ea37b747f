"""What is checked before the first step, so that a training does not run for hours on a misunderstanding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlipkit.errors import LabelError, ModelError
from mlipkit.events import EventSink, Message

if TYPE_CHECKING:
    from mlipkit.data.frameset import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.training.objective import ObjectiveTerm
    from mlipkit.training.settings import TrainSettings

KINDS = ("energy", "forces", "stress")
WORTH_SAYING_S = 2.0


def check(
    terms: Sequence[ObjectiveTerm],
    potential: BasePotential,
    train: FrameSet,
    validation: FrameSet,
    settings: TrainSettings,
    sink: EventSink,
) -> dict[str, Any]:
    """All checks; returns the facts they found, for the head of a report.

    Raises:
        LabelError, DataError: see `check_labels`, `check_plausible`.
    """
    check_pooled(potential, train, sink)
    counts = check_labels(terms, train, validation, sink)
    matters = any(term.labels.get("energy", 0) > 0 for term in terms)
    return {
        "training_frames": len(train),
        "validation_frames": len(validation),
        "labels": counts,
        "objective": {term.name: dict(term.labels) for term in terms},
        "energy_beside_atoms": check_plausible(potential, train, settings.plausibility_ev, matters),
    }


def check_pooled(potential: BasePotential, frames: FrameSet, sink: EventSink) -> None:
    """Warn where a head of one energy per structure is to learn several compositions."""
    from mlipkit.data.report_structure import compositions
    from mlipkit.models import Potential
    from mlipkit.models.heads import PooledHead

    # Also inside a sum or a committee.
    heads = [
        part.head_name
        for part in potential.modules()
        if isinstance(part, Potential) and isinstance(part.head, PooledHead)
    ]
    if not heads:
        return
    found = [formula for formula, _ in compositions(frames)]
    if len(found) > 1:
        named = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        sink(
            Message(
                f"The head '{heads[0]}' is not extensive and fits one composition only; the training frames "
                f"have {len(found)}: {named}. The head 'per_atom' fits them all",
                "warning",
            )
        )


def coverage(frames: FrameSet) -> dict[str, int]:
    """Frames with a usable label, per label kind: complete, or at least one value of it."""
    counts = {}
    for name in KINDS:
        complete = frames.has(name)
        if name != "energy" and not complete.all():
            values = np.isfinite(getattr(frames, name))
            if name == "forces" and len(frames):
                values = np.add.reduceat(values.any(1), frames.offsets[:-1])
            complete = values.reshape(len(frames), -1).any(1)
        counts[name] = int(complete.sum())
    return counts


def check_labels(
    terms: Sequence[ObjectiveTerm], train: FrameSet, validation: FrameSet, sink: EventSink
) -> dict[str, int]:
    """Refuse a weighted label that no training frame has; say where labels are missing. Returns the coverage.

    Raises:
        LabelError: names the label and what the frames do have.
    """
    counts, held = coverage(train), coverage(validation)
    listed = ", ".join(f"{name} {count}/{len(train)}" for name, count in counts.items())
    for term in terms:
        for name, weight in term.labels.items():
            if weight > 0 and counts.get(name, 0) == 0:
                raise LabelError(
                    f"no training frame has the label '{name}', yet its weight is {weight:g}",
                    where=("objective", term.name),
                    expected=f"'{name}' on at least one of {len(train)} frames",
                    found=listed,
                    hint=f"Set its weight to 0, or name the key that holds it: keys={{'{name}': ...}}",
                )
            if counts.get(name, 0) < len(train):
                sink(
                    Message(
                        f"Missing labels are left out of the loss. Training frames with labels: {listed}", "warning"
                    )
                )
            if held.get(name, 0) == 0:
                sink(
                    Message(
                        f"No validation frame has the label '{name}': it has no say in which epoch is the best",
                        "warning",
                    )
                )
    return counts


def check_plausible(potential: BasePotential, frames: FrameSet, limit: float, matters: bool = True) -> float:
    """Energy per atom that is left after the potential's atomic energies must be of the size of a bond.

    Args:
        potential: brings the atomic energies.
        frames: training frames.
        limit: eV per atom.
        matters: energies are trained on; False only measures.

    Returns:
        The median of |E - Σ E0| / n over the labelled frames, eV/atom (NaN without energies, and for potentials of
        others, which do not tell their atomic energies).

    Raises:
        DataError: it is larger than `limit`; names the suspected cause (units, another method, another zero).
    """
    from mlipkit.data.atomic_energies import choose_atomic_energies, residual_per_atom

    try:
        table = getattr(potential, "atomic_energies", None)
    except ModelError:  # a sum of which one part has none
        table = None
    if table is None:
        return float("nan")
    energies = {z: float(table[z]) for z in frames.elements}
    if matters and frames.has("energy").any():
        choose_atomic_energies(frames, energies, max_binding=limit)
    residual = np.abs(residual_per_atom(frames, energies))
    return float(np.nanmedian(residual)) if np.isfinite(residual).any() else float("nan")


def warm_up(potential: BasePotential, frames: FrameSet, sink: EventSink) -> None:
    """Predict and differentiate one frame, and forget it: what is compiled on first use is not training time."""
    from mlipkit.data.graph import graph_of

    if not len(frames):
        return
    begin = time.perf_counter()
    graph = graph_of(frames[0], potential.cutoff, potential.dtype).to(device=potential.device)
    potential(graph)
    prediction = potential(graph, create_graph=True)
    assert prediction.forces is not None
    weights = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    torch.autograd.grad(prediction.energy.sum() + prediction.forces.square().sum(), weights, allow_unused=True)
    seconds = time.perf_counter() - begin
    if seconds > WORTH_SAYING_S:
        sink(Message(f"Loops compiled for this processor in {seconds:.0f} s; that is needed once per installation"))
