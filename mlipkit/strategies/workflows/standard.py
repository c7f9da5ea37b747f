"""Tools of real workflows: any potential, this package's MD and relaxation, a label maker, the fine-tuning core."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import SpecError, nearest
from mlipkit.events import Control, EventSink, Verdict, always_run, ignore
from mlipkit.strategies.workflows.guard import NAME as GUARD
from mlipkit.strategies.workflows.guard import DensityGuard
from mlipkit.strategies.workflows.tools import CONTENT, SEEDS, Labelled, Model, Rates, Stopped, Tuned

if TYPE_CHECKING:
    from ase import Atoms

    from mlipkit.data import FrameSet
    from mlipkit.labelling import Children, LabelMaker, Recipe
    from mlipkit.models import BasePotential
    from mlipkit.strategies.finetuning import FinetuneRecipe
    from mlipkit.training import TrainSettings

MOST_SEED = 2_000_000_000
OWN = ("steps", "stride", "timestep", "temperature", "index", "density", "failure", "ensemble", "checks")
"""Options of a simulation that are not the ensemble's."""
FROM_PLAN = ("validation", "epochs", "gradients", "size", "choose")
"""Options of a fine-tuning that the plan uses itself; the others are fields of `TrainSettings`."""

WHERE_AND_WHEN = ("device", "num_processes", "checkpoint_s", "checkpoint_steps", "evaluation_batch_size")
"""Settings of a fine-tuning that may differ between two attempts at it."""


@dataclass
class StandardTools:
    """Tools made of plain parts.

    Attributes:
        universal: the untouched model, in the precision in which it predicts and simulates.
        make_start: seed -> one start structure.
        given: start structures instead of made ones; drawn without repetition as long as there are enough.
        maker: engine of the labels, as `mlipkit.labelling.label_frames` takes it.
        words: what tells these tools from others (names of model, label maker, start structures), for plan.json;
            what is in the model (`CONTENT`) is told by its weights where it does not stand here.
        settings, recipe: of every fine-tuning; epochs and seeds come from the plan. None: defaults.
        fmax, relax_steps, relax_cell: of relaxations.
        timeout, processes: of the labelling, s per frame and engines at once.
        replay, retention: general frames, as `mlipkit.strategies.finetuning.finetune` takes them.
        skin: Å, of the neighbour lists in MD.
        checkpoint_every: steps between checkpoints of MD.
    """

    universal: BasePotential
    make_start: Callable[[int], Atoms]
    maker: LabelMaker | Recipe
    given: Sequence[Atoms] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    settings: TrainSettings | None = None
    recipe: FinetuneRecipe | None = None
    fmax: float = 0.05
    relax_steps: int = 200
    relax_cell: bool = False
    timeout: float | None = None
    processes: int = 1
    replay: FrameSet | None = None
    retention: FrameSet | None = None
    skin: float = 0.5
    checkpoint_every: int = 1000
    _kept: Children | None = field(default=None, init=False, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        from mlipkit.strategies.finetuning.record import digest

        recipe = self.recipe.to_json() if self.recipe is not None else {}
        settings = {} if self.settings is None else self.settings.to_json()
        return {
            CONTENT: digest(self.universal), **self.words, "recipe": recipe,
            "replay": None if self.replay is None else self.replay.hash,
            "settings": {key: value for key, value in settings.items() if key not in WHERE_AND_WHEN + SEEDS},
            "fmax": self.fmax, "relax_steps": self.relax_steps, "relax_cell": self.relax_cell,
        }  # fmt: skip

    def load(self, model: Model) -> BasePotential:
        """The untouched potential, or a fine-tuned one on its device and in its precision."""
        if model is None:
            return self.universal
        from mlipkit.models import load

        return load(model).to(device=self.universal.device).to(self.universal.dtype).eval()

    def structures(self, count: int, seed: int, folder: Path, apart: Sequence[tuple[int, int]] = ()) -> FrameSet:
        """Start structures, made or given.

        Args:
            apart: counts and seeds of other draws, whose structures are not given here where enough others are left.
        """
        from mlipkit.data import FrameSet

        if self.given:
            taken = {row for draw in apart for row in self._order(draw[1])[: draw[0]]}
            order = self._order(seed)
            others = [row for row in order if row not in taken]
            if len(others) >= count:
                order = others
            images = [_bare(self.given[order[k % len(order)]].copy()) for k in range(count)]
            return FrameSet.from_atoms(images, source="start structure")
        # Packmol's seeds are signed 32-bit integers.
        seeds = np.random.SeedSequence(seed).generate_state(count, np.uint32) % MOST_SEED
        return FrameSet.from_atoms([self.make_start(int(one)) for one in seeds], source="start structure")

    def _order(self, seed: int) -> list[int]:
        return np.random.default_rng(seed).permutation(len(self.given)).tolist()

    def relax(self, model: Model, frames: FrameSet, folder: Path, sink: EventSink, control: Control) -> FrameSet:
        from ase.io import read

        from mlipkit.data import FrameSet
        from mlipkit.md import PotentialForces, relax, state_from_atoms

        images = [_bare(frames.atoms(i)) for i in range(len(frames))]
        potential = self.load(model)
        cell = self.relax_cell and bool(frames.pbc.all())
        verdicts = relax(
            state_from_atoms(images, device=potential.device), PotentialForces(potential, skin=self.skin, stress=cell),
            folder=folder, fmax=self.fmax, steps=self.relax_steps, cell=cell, stride=self.relax_steps, sink=sink,
            control=control,
        )  # fmt: skip
        if len(verdicts) < len(images):
            raise Stopped
        places = [folder] if len(images) == 1 else [folder / f"replica_{i:03d}" for i in range(len(images))]
        last: list[Any] = [read(place / "trajectory.traj", -1) for place in places]
        return FrameSet.from_atoms([_bare(atoms) for atoms in last], source="relaxed")

    def simulate(
        self, model: Model, start: Atoms, options: Mapping[str, Any], seeds: Mapping[str, int], folder: Path,
        sink: EventSink, control: Control,
    ) -> Verdict:  # fmt: skip
        from mlipkit.md import PotentialForces, get_ensemble, maxwell_boltzmann, simulate, state_from_atoms

        name = options.get("ensemble", "langevin")
        known = get_ensemble(name).options
        for option in options:
            if option not in OWN and option not in known:
                raise SpecError("unknown option of a simulation", where=("md", option), hint=nearest(option, known))
        chosen = {key: options[key] for key in known if key in options}
        low, high = options["density"]
        potential = self.load(model)
        state = state_from_atoms(start, seed=seeds["thermostat"], device=potential.device)
        maxwell_boltzmann(state, options["temperature"], [seeds["velocities"]])
        guard = DensityGuard(fail=high, low=low)
        verdict = simulate(
            state, PotentialForces(potential, skin=self.skin, stress=name == "npt"), name, steps=options["steps"],
            folder=folder, timestep=options["timestep"], options=chosen, stride=options["stride"],
            # Change against the start is what an expanding box does: the guard has limits of its own.
            checks={"density": False, **dict(options.get("checks", {})), GUARD: guard},
            checkpoint_every=self.checkpoint_every, sink=sink, control=control,
        )  # fmt: skip
        if verdict.outcome != "failed" and state.step < options["steps"]:
            raise Stopped
        return verdict

    def label(self, frames: FrameSet, folder: Path, sink: EventSink, control: Control) -> Labelled:
        from mlipkit.labelling import label_frames

        found: Any = label_frames(
            frames, self.maker, folder, timeout=self.timeout, processes=self.processes, sink=sink, control=control,
            kept=self._engines(),
        )  # fmt: skip
        if len(found.frames) + len(found.failed) < found.n_asked:
            raise Stopped
        return found

    def _engines(self) -> Children:
        from mlipkit.labelling import Children

        if self._kept is None:
            self._kept = Children()
        return self._kept

    def close(self) -> None:
        """End the engines that were kept between labellings."""
        if self._kept is not None:
            self._kept.close()

    def finetune(
        self, model: Model, train: FrameSet, validation: FrameSet, options: Mapping[str, Any], seeds: Mapping[str, int],
        folder: Path, sink: EventSink, control: Control,
    ) -> Tuned:  # fmt: skip
        from mlipkit.strategies.finetuning import finetune

        done = finetune(
            self.load(model), train, validation, self.training(options, seeds), self.recipe, folder=folder, sink=sink,
            control=control, replay=self.replay, retention=self.retention,
        )  # fmt: skip
        if done.result.state == "stopped":
            raise Stopped
        return Tuned(done.best, {
            "sentence": done.sentence, "chosen": done.chosen, "best_epoch": done.best_epoch,
            "worse_than_start": done.worse_than_start, "frame_gradients": done.frame_gradients,
            "shifts": done.shifts.to_json(), "metrics": {name: dict(one) for name, one in done.metrics.items()},
        })  # fmt: skip

    def training(self, options: Mapping[str, Any], seeds: Mapping[str, int]) -> TrainSettings:
        """Settings of a fine-tuning: those of the tools, with what the plan says."""
        from mlipkit.training import TrainSettings

        known = [one.name for one in dataclasses.fields(TrainSettings)]
        more = {key: value for key, value in options.items() if key not in FROM_PLAN}
        for key in more:
            if key not in known:
                raise SpecError("unknown option of a fine-tuning", where=("train", key), hint=nearest(key, known))
        own = dict.fromkeys(SEEDS, seeds["shuffle"])
        return dataclasses.replace(self.settings or TrainSettings(), **more, max_epochs=options["epochs"], **own)

    def predict(self, model: Model, frames: FrameSet) -> FrameSet:
        from mlipkit.models import predict

        return predict(self.load(model), frames, batch_size=8, stress=bool(frames.pbc.all()))

    def measure(self, folder: Path) -> Rates:
        """Time a step of MD, a label, a frame-gradient and a prediction of one start structure, s."""
        import torch

        from mlipkit.data import FrameSet, collate
        from mlipkit.data.neighbours import NeighbourCache
        from mlipkit.md import PotentialForces, simulate, state_from_atoms

        atoms = self.structures(1, 0, folder).atoms(0)
        frames = FrameSet.from_atoms([atoms])
        potential, rates = self.universal, {}
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            state, steps = state_from_atoms(atoms, device=potential.device), 5
            provider = PotentialForces(potential, skin=self.skin)
            provider(state)
            begin = time.perf_counter()
            simulate(state, provider, "nve", steps=steps, folder=Path(scratch) / "md", timestep=0.1,
                     checks={"max_force": False, "overlap": False, "temperature": False})  # fmt: skip
            rates["md_step"] = (time.perf_counter() - begin) / max(state.step, 1)
            begin = time.perf_counter()
            found = self.label(frames, Path(scratch) / "label", ignore, always_run)
            rates["label"] = float(found.seconds) or time.perf_counter() - begin
        graph, _ = collate(frames, [0], NeighbourCache(frames, potential.cutoff), torch.float64)
        graph = graph.to(device=potential.device)
        begin = time.perf_counter()
        predicted = potential(graph, create_graph=True)
        free = [one for one in potential.parameters() if one.requires_grad]
        if free:
            torch.autograd.grad(predicted.energy.sum() + predicted.forces.square().sum(), free, allow_unused=True)
        rates["gradient"] = time.perf_counter() - begin
        begin = time.perf_counter()
        self.predict(None, frames)
        return Rates(**rates, prediction=time.perf_counter() - begin, atoms=len(atoms))


def _bare(atoms: Atoms) -> Atoms:
    """Positions and cell alone."""
    atoms.calc = None
    atoms.arrays.pop("momenta", None)
    return atoms
