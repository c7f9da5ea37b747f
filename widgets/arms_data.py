"""Workflows of several arms and seeds as the numbers that are drawn: errors, rounds, budgets, maps, bonds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import SpecError
from mlipkit.plots.workflows import PANELS, ModelErrors, OwnRun, Rounds
from mlipkit.strategies.workflows import ARMS, UNTOUCHED, Comparison, compare_arms, equal_budgets
from mlipkit.strategies.workflows.comparing import SELF_MD
from mlipkit.strategies.workflows.evaluating import INDEPENDENT, OFFSET

from .own_runs import OwnRuns
from .staged_arms import StagedArms
from .workflow_folder import WorkflowFolder

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

MOST_FRAMES = 400
"""Frames of an arm on its map; of more, every second, third ... is taken."""
SOAP = {"n_max": 6, "l_max": 4}
CELLS = 40
"""Bins along the wider axis of a map."""
BUDGETS = {"labels": "labels", "md_ps": "ps of MD", "gradients": "frame-gradients"}


@dataclass(frozen=True)
class Maps:
    """Occupied bins of the training sets of all arms, from one fit: arm -> (bins [M,2], round that found each [M])."""

    arms: dict[str, tuple[np.ndarray, np.ndarray]]
    width: float
    axes: tuple[str, str]


@dataclass(frozen=True)
class Bonds:
    """Lengths in Å: pair -> arm -> (lengths, round of each); test set -> pair -> lengths."""

    arms: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
    test: dict[str, dict[str, np.ndarray]]


class ArmsData(StagedArms[WorkflowFolder]):
    """What several workflows give to draw. Reads folders only; whatever takes longer is a method of its own."""

    ORDER = tuple(ARMS)

    def __init__(self, workflows: Sequence[WorkflowFolder]) -> None:
        super().__init__(workflows)
        self._own = OwnRuns()

    @property
    def n_rounds(self) -> int:
        return max((one.n_rounds for one in self.workflows), default=0)

    # Quick

    def rounds(self) -> dict[str, Rounds]:
        """Frames of each arm by round, seeds added up."""
        found = {}
        for arm, some in self.arms.items():
            some = [one for one in some if one.plan is not None]
            if not some:
                continue
            n = max(one.n_rounds for one in some)
            counts: dict[str, np.ndarray] = {}
            trained: list[int | None] = [None] * n
            for one in some:
                for kind, column in one.counts().items():
                    total = counts.setdefault(kind, np.zeros(n, int))
                    total[: len(column)] += column
                for k, count in enumerate(one.trained()):
                    if count is not None:
                        trained[k] = (trained[k] or 0) + count
            found[arm] = Rounds({kind: column.tolist() for kind, column in counts.items()}, trained, len(some))
        return found

    def budgets(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Workflow -> kind of cost -> (spent, planned)."""
        found = {}
        for one in (one for some in self.arms.values() for one in some):
            if one.plan is not None:
                spent, planned = one.spent(), one.plan.budget
                found[self.label(one)] = {key: (spent[key], float(getattr(planned, key))) for key in BUDGETS}
        return found

    def unequal(self) -> str:
        """How budgets differ, "" when they are equal or there is nothing to compare."""
        plans = [one.plan for one in self.workflows if one.plan is not None]
        if len(plans) < 2:
            return ""
        try:
            equal_budgets(plans)
        except SpecError as error:
            return str(error)
        return ""

    def test_sets(self) -> dict[str, str]:
        """Words -> key of a test set; the models of all arms are on each."""
        evaluated = [one.evaluated for one in self.workflows if one.evaluated is not None]
        names = dict.fromkeys(row["test_set"] for one in evaluated for row in one.rows)
        found = {"independent frames": INDEPENDENT} if INDEPENDENT in names else {}
        if any(row["own"] for one in evaluated for row in one.rows):
            found["own simulation of each model"] = SELF_MD
        for name in names:
            number = name.removeprefix("test_md_")
            if number.isdigit():
                what = "the untouched model" if number == "0" else f"model {number} of the arm"
                found[f"simulation with {what}"] = name
        return found

    def errors(self, compared: Comparison, test_set: str, chosen: int | None) -> dict[str, list[ModelErrors]]:
        """Arm -> untouched, the offset control of the chosen round (else the last), models round by round."""
        found: dict[str, list[ModelErrors]] = {}
        for arm in dict.fromkeys(row["arm"] for row in compared.pooled):
            mine = [row for row in compared.pooled if row["arm"] == arm and _belongs(row, test_set)]
            rounds = sorted({row["round"] for row in mine if row["kind"] == "finetuned"})
            control = chosen if chosen in rounds else (rounds[-1] if rounds else None)
            models = [row for row in mine if row["kind"] == UNTOUCHED]
            models += [row for row in mine if row["kind"] == OFFSET and row["round"] == control]
            models += sorted((row for row in mine if row["kind"] == "finetuned"), key=lambda row: row["round"])
            if models:
                found[arm] = [
                    ModelErrors(
                        row["kind"], row["round"], {key: tuple(row[key]) for key in PANELS if row.get(key)},  # type: ignore[misc]
                        row["n_frames"],
                    )
                    for row in models
                ]  # fmt: skip
        return found

    def own_runs(self, chosen: int) -> list[OwnRun]:
        """Residuals along each workflow's simulation with the model of a round (or the last one that has one)."""
        return self._own.of(self.arms, chosen)

    def own_key(self) -> tuple[object, ...]:
        """Grows with what `own_runs` is made from."""
        labels = [sum(bool(facts.get("labelled")) for facts in one.records.values()) for one in self.workflows]
        return (self.compared_key(), tuple(labels))

    # What takes longer

    def compared_key(self) -> tuple[object, ...]:
        return tuple((one.name, one.stamp("evaluation.json")) for one in self.workflows if one.evaluated is not None)

    def compare(self) -> Comparison | None:
        """The comparison of the workflows that are evaluated; None when there is none."""
        ready = [one.folder for some in self.arms.values() for one in some if one.evaluated is not None]
        if not ready:
            return None
        try:
            return compare_arms(ready)
        except SpecError:
            return compare_arms(ready, unequal=True)

    def frames_key(self) -> tuple[object, ...]:
        found = []
        for one in self.workflows:
            labelled = [name for name, facts in one.records.items() if facts.get("labelled")]
            found.append((one.name, tuple(labelled), tuple(one.trained())))
        return tuple(found) if any(labelled for _, labelled, _ in found) else ()

    def map_key(self) -> tuple[object, ...]:
        """As `frames_key`, with the frames that have no label yet."""
        waits = tuple(one.n_waiting for one in self.workflows)
        return (self.frames_key(), waits) if self.frames_key() or any(waits) else ()

    def unlabelled(self, round: int) -> int:
        """Frames of a round that were picked and have no label yet."""
        every = [one.counts()["waits"] for one in self.workflows if one.plan is not None]
        return sum(counts[round - 1] for counts in every if 0 < round <= len(counts))

    def _training(self, picked: bool = False) -> dict[str, tuple[FrameSet, np.ndarray]]:
        """Arm -> labelled training frames of all seeds and the round of each.

        Args:
            picked: also those that have no label yet; all come without labels then.
        """
        from mlipkit.data import FrameSet

        found = {}
        for arm, some in self.arms.items():
            parts = [part for part in (one.training_frames() for one in some) if part is not None]
            if picked:
                parts += [part for part in (one.picked_frames() for one in some) if part is not None]
                parts = [(frames.without_labels(velocities=False), rounds) for frames, rounds in parts]
            if parts:
                frames = FrameSet.concat([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
                found[arm] = (frames, np.concatenate([part[1] for part in parts]).astype(int))
        return found

    def maps(self) -> Maps | None:
        """SOAP, one PCA over all arms, and the bins that each round found first."""
        from mlipkit.analysis import Points, Soap, fit_pca, growth
        from mlipkit.analysis.descriptors import Rows
        from mlipkit.data import FrameSet

        training = {arm: _thinned(*one) for arm, one in self._training(picked=True).items()}
        if not training:
            return None
        sets = [frames for frames, _ in training.values()]
        together = FrameSet.concat(sets) if len(sets) > 1 else sets[0]
        soap = Soap.of(together, **SOAP)
        pca = fit_pca(Rows(soap, together), k=2)
        scores = {arm: pca.transform(soap(frames))[:, :2] for arm, (frames, _) in training.items()}
        every = np.concatenate(list(scores.values()))
        width = _round_width(float(np.ptp(every, axis=0).max()) / CELLS)
        arms = {}
        for arm, (frames, rounds) in training.items():
            points = Points.of(scores[arm], frames.numbers, frames.offsets)
            order = sorted(set(rounds.tolist()))
            found = growth(points, rounds, order=order, width=width)
            # Bins of several elements may share a place: it is as old as the oldest.
            places, index = np.unique(found.bins[:, 1:], axis=0, return_inverse=True)
            born = np.full(len(places), 10**6)
            np.minimum.at(born, index.reshape(-1), np.array(order)[found.born])
            arms[arm] = places, born
        share = [f"PC{k + 1} ({100 * value:.0f} %)" for k, value in enumerate(pca.explained[:2])]
        return Maps(arms, width, (share[0], share[1]))

    def bonds(self) -> Bonds | None:
        """Bond lengths of every pair of elements that is bonded somewhere."""
        from ase.data import chemical_symbols

        from mlipkit.analysis import bond_lengths

        training = self._training()
        if not training:
            return None
        tests = self._tests()
        elements = sorted({z for frames, _ in training.values() for z in frames.elements})
        arms: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        tested: dict[str, dict[str, np.ndarray]] = {name: {} for name in tests}
        shortest: dict[str, float] = {}
        for i, a in enumerate(elements):
            for b in elements[i:]:
                pair = f"{chemical_symbols[b]}-{chemical_symbols[a]}"
                found = {}
                for arm, (frames, rounds) in training.items():
                    one = bond_lengths(frames, pair)
                    if len(one.lengths):
                        found[arm] = one.lengths, rounds[one.frame]
                if not found:
                    continue
                arms[pair] = found
                shortest[pair] = min(float(np.median(lengths)) for lengths, _ in found.values())
                for name, frames in tests.items():
                    if len(lengths := bond_lengths(frames, pair).lengths):
                        tested[name][pair] = lengths
        order = sorted(arms, key=shortest.__getitem__)
        return Bonds({pair: arms[pair] for pair in order}, tested) if order else None

    def _tests(self) -> dict[str, FrameSet]:
        """Labelled frames of each test set; for own simulations those of the last model of every workflow."""
        from mlipkit.data import FrameSet

        found: dict[str, list[FrameSet]] = {}
        for one in self.workflows:
            numbers = [name.removeprefix("label_") for name in one.records if name.startswith("label_test_md_")]
            for name in (INDEPENDENT, *numbers):
                if f"label_{name}" not in one.records or (frames := one.frames_of(f"label_{name}")) is None:
                    continue
                # Of the untouched model and of packings there is one set, whatever the arm.
                if name not in found or name not in (INDEPENDENT, "test_md_0"):
                    found.setdefault(name, []).append(frames)
                if name == f"test_md_{one.n_rounds}":
                    found.setdefault(SELF_MD, []).append(frames)
        return {name: FrameSet.concat(parts) if len(parts) > 1 else parts[0] for name, parts in found.items()}

    # Words

    def sentence(self, compared: Comparison | None) -> str:
        """The verdict, or why there is none yet."""
        if compared is not None:
            return compared.sentence
        n = len(self.workflows)
        ready = sum(one.evaluated is not None for one in self.workflows)
        return f"No verdict yet: {ready} of {n} workflow{'s' * (n != 1)} evaluated."

    def warnings(self, compared: Comparison | None) -> list[str]:
        """What a reader must know beside the verdict."""
        found = [self.unequal()] if self.unequal() else []
        if compared is not None:
            found += [note for note in compared.notes if not note.startswith("Unequal budgets")]
            missing = [one.name for one in self.workflows if one.evaluated is None]
            if missing:
                found.append(f"Not in the verdict, as not evaluated yet: {', '.join(missing)}.")
        return found


def _belongs(row: Mapping[str, Any], test_set: str) -> bool:
    if test_set != SELF_MD:
        return row["test_set"] == test_set
    # The offset moves no atom: its own simulation is that of the untouched model.
    return row["own"] if row["kind"] == "finetuned" else row["test_set"] == "test_md_0"


def _thinned(frames: FrameSet, rounds: np.ndarray) -> tuple[FrameSet, np.ndarray]:
    if len(frames) <= MOST_FRAMES:
        return frames, rounds
    rows = np.arange(0, len(frames), -(-len(frames) // MOST_FRAMES))
    return frames.select(rows.tolist()), rounds[rows]


def _round_width(width: float) -> float:
    """1, 2 or 5 of a power of ten, just above."""
    power = 10.0 ** np.floor(np.log10(max(width, 1e-12)))
    return float(next(digit * power for digit in (1, 2, 5, 10) if digit * power >= 0.999 * width))
