"""More replicas than fit together: batch after batch in one folder, with one progress and one way to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mlipkit.errors import DataError, RunError
from mlipkit.events import Control, Ending, Event, EventSink, Progress, Started, Verdict, always_run, ignore
from mlipkit.md.checkpoint import read_checkpoint
from mlipkit.md.ensembles import Ensemble
from mlipkit.md.forces import CalculatorForces, ForceFunction
from mlipkit.md.memory import batches_of
from mlipkit.md.simulation import simulate
from mlipkit.md.state import MDState

PLAN = "batches.json"


@runtime_checkable
class _Parted(Protocol):
    def part(self, replicas: Sequence[int]) -> ForceFunction: ...


def simulate_batches(
    state: MDState,
    forces: ForceFunction,
    ensemble: str | Ensemble = "langevin",
    *,
    steps: int,
    folder: Path | str,
    batch: int | None = None,
    options: Mapping[str, Any] | None = None,
    sink: EventSink = ignore,
    control: Control = always_run,
    **more: Any,
) -> list[Ending]:
    """`simulate` for any number of replicas: some go together, to their end, then the next.

    What goes together is decided at the first call and kept in ``checkpoints/batches.json``; called again on the same
    folder it goes on where it stands. Folders are those of `simulate`, whatever the batches. With all replicas in one
    batch this is `simulate`.

    Args:
        state: start of all replicas; left as it is unless all go together.
        batch: replicas that go together; None: as many as memory allows (`mlipkit.md.memory`).
        options: as in `simulate`; a list has a value for every replica.
        more: further arguments of `simulate`.

    Returns:
        How each replica ended (`endings`).

    Raises:
        DataError: a list of another length, a batch of none; or as `simulate`.
    """
    folder = Path(folder)
    for key, value in (options or {}).items():
        if _per_replica(value) and len(value) != state.n_systems:
            raise DataError(
                f"{key}: one value for all or one for each replica", where="options", expected=state.n_systems,
                found=len(value),
            )  # fmt: skip
    plan = planned(folder, state, forces, batch)

    def run(
        part: MDState, forces: ForceFunction, members: Sequence[int], name: str, heard: EventSink, of_batch: bool
    ) -> bool:
        mine = {
            key: [value[member] for member in members] if _per_replica(value) else value
            for key, value in (options or {}).items()
        }
        simulate(
            part, forces, ensemble, steps=steps, folder=folder, options=mine, sink=heard, control=control,
            replicas=members if of_batch else None, checkpoint=name, **more,
        )  # fmt: skip
        # A failed batch has no replica left to wait for; one that the user stopped has.
        return part.step >= steps or all(one.failed for one in endings(folder, name))

    go_through(state, forces, plan, "md", steps, run, sink)
    return endings(folder)


def go_through(
    state: MDState,
    forces: ForceFunction,
    plan: Sequence[Sequence[int]],
    name: str,
    steps: int,
    run: Callable[[MDState, ForceFunction, Sequence[int], str, EventSink, bool], bool],
    sink: EventSink,
) -> None:
    """Run batch after batch until one is stopped.

    Args:
        run: (state, its forces, numbers of its replicas, name of its checkpoint, sink, whether there are other
            batches) -> whether it came to its end.
    """
    if len(plan) == 1:
        run(state, forces, plan[0], name, sink, False)
        return
    if isinstance(forces, CalculatorForces):
        forces.check_number(state)
    for number, members in enumerate(plan):
        heard = _share_of(sink, number, len(plan), steps)
        # A provider that keeps something for each replica has to know which ones it is given.
        mine = forces.part(members) if isinstance(forces, _Parted) else forces
        if not run(state.select(members), mine, members, f"{name}_{number:03d}", heard, True):
            return


def planned(
    folder: Path, state: MDState, forces: ForceFunction, batch: int | None, name: str = "md"
) -> list[list[int]]:
    """The batches of a folder: those it has, or new ones, which are then kept.

    Raises:
        DataError: a batch of none.
        RunError: the folder was begun with another number of replicas.
    """
    if batch is not None and batch < 1:
        raise DataError("a batch needs a replica", where="batch", expected="1 or more", found=batch)
    path = folder / "checkpoints" / PLAN
    everything = list(range(state.n_systems))
    if path.is_file():
        plan = json.loads(path.read_text(encoding="utf-8"))["batches"]
        if sorted(member for members in plan for member in members) != everything:
            raise RunError("the checkpoint belongs to another number of replicas", where=str(path),
                           expected=state.n_systems, found=sum(map(len, plan)))  # fmt: skip
        return plan
    if (folder / "checkpoints" / f"{name}.safetensors").is_file():
        return [everything]
    plan = batches_of(state, forces, batch)
    if len(plan) > 1:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps({"batches": plan}), encoding="utf-8")
        partial.replace(path)
    return plan


def endings(folder: Path | str, checkpoint: str | None = None) -> list[Ending]:
    """How far the replicas of a folder got by its checkpoints, in order; those that have not begun are left out.

    Args:
        checkpoint: only those of this one.

    Raises:
        RunError: a checkpoint that cannot be read.
    """
    found = {}
    for path in sorted((Path(folder) / "checkpoints").glob(f"{checkpoint or 'md*'}.safetensors")):
        tensors, record = read_checkpoint(path)
        step, time = int(tensors["state.step"]), float(tensors["state.time"])
        for replica in record["active"]:
            found[replica] = Ending(replica, step, time, False, "")
        for key, value in record["verdicts"].items():
            verdict = Verdict.from_record(value)
            found[int(key)] = Ending(int(key), verdict.step, verdict.time, True, verdict.check)
    return [found[replica] for replica in sorted(found)]


def _share_of(sink: EventSink, number: int, n_batches: int, steps: int) -> EventSink:
    """Events of one batch as those of the whole: steps are the average over all batches."""

    def heard(event: Event) -> None:
        if isinstance(event, Progress):
            # A batch that ends early has done its share.
            done, left = steps if event.done >= event.total else event.done, event.remaining_s
            if left is not None:
                left = left + (n_batches - 1 - number) * left * steps / (steps - done) if done < steps else None
            event = Progress((number * steps + done) // n_batches, steps, event.unit, left)
        elif isinstance(event, Started):
            event = Started(f"{event.what}, batch {number + 1} of {n_batches}", event.total,
                            (number * steps + event.resumed_at) // n_batches, event.facts)  # fmt: skip
        sink(event)

    return heard


def _per_replica(value: Any) -> bool:
    return np.ndim(value) > 0 and len(value) > 1
