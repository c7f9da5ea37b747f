"""What MD and relaxation share: structures that leave the batch one by one, a user who is asked, one checkpoint."""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlipkit.errors import RunError
from mlipkit.events import Control, EventSink, Progress, Started, Verdict
from mlipkit.md.checkpoint import part, write_checkpoint
from mlipkit.md.forces import ForceFunction, Restartable
from mlipkit.md.state import MDState

PROGRESS_EVERY_S, SAVE_EVERY_S, PAUSE_S = 0.5, 60.0, 0.1


@dataclasses.dataclass(eq=False)
class Loop(ABC):
    """One batch of structures on its way.

    Attributes:
        state: of the structures that go on; changed in place.
        steps: in all, not what is added.
        checkpoint: name of the checkpoint in ``folder/checkpoints``.
        checkpoint_every: steps between checkpoints; slow models get one every minute at least.
        members: numbers of the batch's structures among all that share the folder.
        alone: whether `folder` itself belongs to the only structure.
        active: numbers of the structures that go on, in the order of `state`.
        verdicts: the last word on structures that have ended.
    """

    state: MDState
    forces: ForceFunction
    steps: int
    folder: Path
    checkpoint: str
    checkpoint_every: int
    members: list[int]
    alone: bool
    sink: EventSink
    control: Control

    def __post_init__(self) -> None:
        self.path = self.folder / "checkpoints" / f"{self.checkpoint}.safetensors"
        self.active = list(self.members)
        self.verdicts: dict[int, Verdict] = {}
        self._saved = self._shown = -math.inf

    @abstractmethod
    def progress(self) -> Progress:
        """How far the batch is."""

    @abstractmethod
    def save(self) -> None:
        """Write the checkpoint (`write`) after everything that it counts."""

    def folder_of(self, number: int) -> Path:
        return self.folder if self.alone else self.folder / f"replica_{number:03d}"

    def announce(self, what: str, plural: str, resumed_at: int, facts: Mapping[str, Any]) -> None:
        """Say what begins: `what`, with the numbers of atoms in its braces, and how many of them."""
        counts = sorted(set(self.state.n_atoms.tolist()))
        atoms = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        many = f", {len(self.members)} {plural}" if len(self.members) > 1 else ""
        self.sink(Started(what.format(atoms) + many, self.steps, resumed_at, facts))

    # Every step

    def may_go_on(self) -> bool:
        """Ask the user, show progress, save before a pause; False: stop."""
        request = self.control()
        if time.monotonic() - self._shown >= PROGRESS_EVERY_S:
            self.show_progress()
        if request == "pause":
            self.save()
            while (request := self.control()) == "pause":
                time.sleep(PAUSE_S)
        return request != "stop"

    def show_progress(self) -> None:
        self._shown = time.monotonic()
        self.sink(self.progress())

    def time_to_save(self) -> bool:
        return self.state.step % self.checkpoint_every == 0 or time.monotonic() - self._saved >= SAVE_EVERY_S

    def go_on_with(self, stay: Sequence[int]) -> None:
        """Let the others leave; `stay` are places in `state`. With none left the state stays as it is."""
        self.active = [self.active[index] for index in stay]
        if not stay:
            return
        self.state.take(self.state.select(stay))
        # A provider that keeps something per structure may go on with the rest of it.
        select = getattr(self.forces, "select", None)
        if select is not None:
            select(self.state, stay)

    # The checkpoint

    def write(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write what every loop needs to go on, and what this one adds."""
        kept = {f"state.{name}": tensor for name, tensor in self.state.to_tensors().items()}
        if isinstance(self.forces, Restartable) and self.active:
            kept.update({f"forces.{name}": tensor for name, tensor in self.forces.to_tensors().items()})
        verdicts = {number: dataclasses.asdict(verdict) for number, verdict in self.verdicts.items()}
        write_checkpoint(self.path, {**kept, **tensors}, {**record, "active": self.active, "verdicts": verdicts})
        self._saved = time.monotonic()

    def take_over(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any], what: str) -> None:
        """Stand where a checkpoint stands; `restore_forces` is still to come.

        Raises:
            RunError: it is of other atoms, so of another `what`.
        """
        offsets = self.state.offsets
        places = [self.members.index(number) for number in record["active"]]
        numbers = [self.state.numbers[offsets[place] : offsets[place + 1]].cpu() for place in places]
        if numbers and not torch.equal(torch.cat(numbers), tensors["state.numbers"]):
            raise self.another(what)
        self.state.take(MDState.from_tensors(part(tensors, "state."), self.state.positions.device))
        self.active = list(record["active"])
        # Who had done all its steps and now has more is judged anew.
        self.verdicts = {
            int(key): Verdict.from_record(value)
            for key, value in record["verdicts"].items()
            if int(key) not in self.active
        }

    def restore_forces(self, tensors: Mapping[str, Tensor]) -> None:
        if isinstance(self.forces, Restartable):
            self.forces.restore(self.state, part(tensors, "forces."))

    def another(self, what: str, **more: Any) -> RunError:
        """The error of a checkpoint that belongs to another `what`."""
        return RunError(
            f"the checkpoint belongs to another {what}", where=str(self.path), **more,
            hint="Give it a folder of its own.",
        )  # fmt: skip
