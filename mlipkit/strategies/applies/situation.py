"""What a strategy may know when it is asked: frames, potential, label maker, machine, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ase.data import atomic_numbers, chemical_symbols

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

Periodic = Literal["none", "all", "partly"]


@dataclass(frozen=True)
class Frames:
    """Frames in a few numbers.

    Attributes:
        place: text by which a specification names them; "" when they lie in memory alone.
        n: frames. n_atoms, most_atoms: median and largest number of atoms of a frame.
        elements: atomic numbers, ascending.
        energy, forces, stress: frames that have the label.
        periodic: of all frames: along no axis, all three, or anything else.
        time_ordered: frames that belong to trajectories.
        follows: correlation of the steps of atoms with the ones before, in a stretch of the first trajectory: near 1
            where every step of its simulation is there, near 0 where most were left out; None: not known.
        simulation: how the MD run that they come from ended ("failed", "held", ...); "" when they come from none.
    """

    place: str = ""
    n: int = 0
    n_atoms: int = 0
    most_atoms: int = 0
    elements: tuple[int, ...] = ()
    energy: int = 0
    forces: int = 0
    stress: int = 0
    periodic: Periodic = "none"
    time_ordered: int = 0
    follows: float | None = None
    simulation: str = ""

    @classmethod
    def of(cls, frames: FrameSet, place: str = "", simulation: str = "") -> Frames:
        """Count a frame set."""
        import numpy as np

        n = len(frames)
        if not n:
            return cls(place=place, simulation=simulation)
        axes = np.asarray(frames.pbc)
        periodic: Periodic = "none" if not axes.any() else "all" if axes.all() else "partly"
        atoms = np.asarray(frames.n_atoms)
        has = {name: int(frames.has(name).sum()) for name in ("energy", "forces", "stress")}
        # A lone atom has no forces to learn, as in `mlipkit.data.read`.
        has["forces"] += int((~frames.has("forces") & (atoms == 1)).sum()) if has["forces"] else 0
        return cls(
            place=place, n=n, n_atoms=int(np.median(atoms)), most_atoms=int(atoms.max()), periodic=periodic, **has,
            elements=tuple(int(z) for z in frames.elements), simulation=simulation,
            time_ordered=int((np.asarray(frames.trajectory) >= 0).sum()), follows=_follows(frames),
        )  # fmt: skip

    @property
    def labelled(self) -> int:
        """Frames that have an energy or forces, whichever more have."""
        return max(self.energy, self.forces)


def _follows(frames: FrameSet, most: int = 40) -> float | None:
    """Correlation of successive steps of atoms, steps across the faces of a cell taken back."""
    import numpy as np

    trajectory = np.asarray(frames.trajectory)
    rows = np.flatnonzero(trajectory == trajectory[trajectory >= 0].min()) if (trajectory >= 0).any() else []
    rows = np.asarray(rows, dtype=np.int64)[:most]
    atoms = np.asarray(frames.n_atoms)[rows]
    if len(rows) < 3 or (atoms != atoms[0]).any():
        return None
    time = np.asarray(frames.time)[rows]
    rows = rows[np.argsort(time, kind="stable")] if np.isfinite(time).all() else rows
    part = frames.select(rows)
    steps = np.diff(np.asarray(part.positions, float).reshape(len(rows), -1, 3), axis=0)
    cells = np.where(np.asarray(part.pbc)[1:, :, None], np.asarray(part.cell, float)[1:], np.eye(3))
    images = np.round(np.einsum("fnk,fkl->fnl", steps, np.linalg.inv(cells)))
    steps = steps - np.einsum("fnk,fkl->fnl", np.where(np.asarray(part.pbc)[1:, None], images, 0.0), cells)
    ahead, behind = steps[1:].ravel(), steps[:-1].ravel()
    size = float(np.sqrt((ahead @ ahead) * (behind @ behind)))
    return float(ahead @ behind) / size if size else None


@dataclass(frozen=True)
class Model:
    """A potential in a few words, as far as it is known without loading it.

    Attributes:
        place: text by which a specification names it; "" for an object in memory.
        title: for people.
        elements: atomic numbers in its domain; None: not known, so nothing is refused.
        trainable: whether it has weights that training can move; None: not known.
        parameters: number of weights, or None.
        heads: its self-supervised heads.
        universal: it knows many elements without training of ours.
        missing: what must be there before it can be used, such as a package with its extra; "" for nothing.
        wrong: why it can never be used here; "" for nothing.
    """

    place: str = ""
    title: str = ""
    elements: tuple[int, ...] | None = None
    trainable: bool | None = None
    parameters: int | None = None
    heads: tuple[str, ...] = ()
    universal: bool = False
    missing: str = ""
    wrong: str = ""

    def strangers(self, frames: Frames) -> str:
        """Elements of the frames outside its domain: ``"Cu, Zn"``."""
        return "" if self.elements is None else symbols(set(frames.elements) - set(self.elements))


@dataclass(frozen=True)
class Maker:
    """A label maker in a few words.

    Attributes:
        place: text by which a specification names it. title: for people.
        elements: atomic numbers it covers; None: not known, so nothing is refused.
        periodic: what it takes; None: anything.
        missing: what must be there before it can be used; "" for nothing.
    """

    place: str
    title: str
    elements: tuple[int, ...] | None = None
    periodic: tuple[Periodic, ...] | None = None
    missing: str = ""

    def against(self, frames: Frames) -> str:
        """What is needed instead of it or beside it, as a noun phrase; "" when it fits."""
        strange = "" if self.elements is None else symbols(set(frames.elements) - set(self.elements))
        if strange:
            return f"a label maker covering element{'s' * (', ' in strange)} {strange}, which {self.title} does not"
        if self.periodic is not None and frames.periodic not in self.periodic:
            takes = {"none": "molecules", "all": "full cells", "partly": "slabs and wires"}
            kinds = {"none": "molecules", "all": "cells", "partly": "structures with mixed or partly periodic axes"}
            return (
                f"a label maker that takes {kinds[frames.periodic]}: {self.title} takes "
                f"{' and '.join(takes[one] for one in self.periodic)}"
            )
        return self.missing


@dataclass(frozen=True)
class Rates:
    """Measured on one frame of middle size, s and bytes; None: unknown.

    Attributes:
        new_gradient: energy, forces and the slope of both in the weights, of a new model with default settings.
        call, gradient: energy and forces of the given potential; with the slope in its weights.
        label: of one frame by the label maker.
        new_bytes, potential_bytes: largest memory of a process that trains in batches of the default size.
        label_bytes: largest memory of the process that labels.
        list_bytes: of the frame's neighbour list, which training keeps.
        why: what -> why it is unknown.
    """

    new_gradient: float | None = None
    call: float | None = None
    gradient: float | None = None
    label: float | None = None
    new_bytes: int | None = None
    potential_bytes: int | None = None
    label_bytes: int | None = None
    list_bytes: int | None = None
    why: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Room:
    """This machine: memory in bytes that may be used (None: not known), cores, whether torch can be imported."""

    memory: int | None = None
    cores: int = 1
    torch: bool = True


@dataclass(frozen=True)
class Situation:
    """All that a strategy is asked about. `universals`: places of universal potentials that are installed here."""

    frames: Frames
    potential: Model | None = None
    maker: Maker | None = None
    rates: Rates = field(default_factory=Rates)
    room: Room = field(default_factory=Room)
    universals: tuple[str, ...] = ()

    # Common needs, as noun phrases; "" when they are met.

    def torch(self) -> str:
        """The package that computes."""
        return "" if self.room.torch else 'the package torch: pip install "mlipkit[compute]"'

    def some_frames(self, least: int = 1) -> str:
        """So many frames."""
        if self.frames.n >= least:
            return ""
        return f"at least {least} frame{'s' * (least > 1)}, there {'are' if self.frames.n != 1 else 'is'} " + (
            str(self.frames.n) if self.frames.n else "none"
        )

    def labels(self, least: int = 1) -> str:
        """Labels on at least so many frames; says what could make them."""
        frames = self.frames
        if frames.n < least or frames.labelled >= least:
            return self.some_frames(least)
        some = f"only {frames.labelled} of {frames.n} frames have" if frames.labelled else "no frame has"
        what = f"labels on at least {least} frames: {some} energy or forces"
        if self.maker is None:
            return what
        against = self.maker.against(frames)
        return f"{what}, and {against}" if against else f"{what} ({self.maker.title} can make them)"

    def label_maker(self) -> str:
        """A label maker that fits the frames."""
        if self.maker is None:
            return "a label maker"
        return self.maker.against(self.frames)

    def a_potential(self) -> str:
        """A potential, with its package."""
        if self.potential is None:
            offer = f", such as {self.universals[0]}" if self.universals else ""
            return f"a potential{offer}"
        return self.potential.missing

    def weights(self) -> str:
        """Weights, of a potential that only tells whether it has some when its factory was called."""
        one = self.potential
        if one is None or one.missing or one.trainable is not None:
            return ""
        return f"a potential with weights: what {one.title} makes could not be seen in this time"

    def cell(self) -> str:
        """A cell that is periodic along all axes."""
        return "" if self.frames.periodic == "all" else "a cell: not all frames are periodic along all three axes"

    def time_order(self, least: int = 2) -> str:
        """Frames that follow each other in time."""
        there = self.frames.time_ordered
        if there >= least:
            return ""
        return f"time-ordered frames: {there if there else 'none'} of {self.frames.n} belong to a trajectory"

    def memory(self, peak_bytes: int | None) -> str:
        """Memory for what is expected."""
        if peak_bytes is None or self.room.memory is None or peak_bytes <= self.room.memory:
            return ""
        return f"about {peak_bytes / 1e9:.1f} GB of memory, of which {self.room.memory / 1e9:.1f} GB may be used here"

    def untrainable(self) -> str:
        """Why no training can change the potential, as a clause; "" when it can."""
        one = self.potential
        if one is None:
            return ""
        if one.wrong:
            return one.wrong
        if one.trainable is False:
            return f"{one.title} has no trainable weights"
        strange = one.strangers(self.frames)
        return f"{one.title} does not know {strange}" if strange else ""


def symbols(numbers: Sequence[int] | set[int]) -> str:
    """Chemical symbols of atomic numbers: ``"Cu, Zn"``."""
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


def numbers_of(names: str) -> tuple[int, ...]:
    """Atomic numbers of symbols: ``"H C N"``."""
    return tuple(sorted(atomic_numbers[name] for name in names.split()))
