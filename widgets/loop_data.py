"""Arms and seeds of iterative pretraining as what is drawn and said: verdict, controls, iterations, tests, budgets."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlipkit.errors import SpecError
from mlipkit.strategies.ipip import ARMS, LOOPS, PARTS, equal_steps
from mlipkit.strategies.ipip.comparing import TITLES, Comparison, compare
from mlipkit.strategies.ipip.evaluating import selected_row

from .loop_folder import LoopFolder
from .staged_arms import StagedArms

TEACHER = "teacher, zero-shot"
QUESTIONS = {
    ("controls", "forces"): "Against the best control, forces",
    ("controls", "energy"): "Against the best control, energies",
    ("teacher", "forces"): "Against the teacher, forces",
    ("continual", "energy"): "Continual pretraining against the best control, energies",
    ("continual, teacher", "forces"): "Continual pretraining against the teacher, forces",
}
"""Verdicts in words, in the order in which they stand; those of the parts follow."""
BUDGETS = {
    "steps": "gradient steps", "teacher_labels": "labels of the teacher, with those that rank new frames",
    "teacher_md": "MD steps of the teacher", "student_md": "MD steps of students",
}  # fmt: skip


class LoopData(StagedArms[LoopFolder]):
    """What several runs of iterative pretraining give to draw. Reads folders only; `compare` takes a moment."""

    ORDER = tuple(ARMS)

    @property
    def sorted(self) -> list[LoopFolder]:
        return [one for some in self.arms.values() for one in some]

    def unequal(self) -> str:
        """How gradient steps differ, "" when they are equal."""
        try:
            equal_steps([one.plan for one in self.workflows if one.plan is not None])
        except SpecError as error:
            return str(error)
        return ""

    def controls(self) -> dict[str, float]:
        """Name -> force MAE on the test frames, meV/Å, of each control, mean over seeds."""
        found: dict[str, float] = {}
        for arm, some in self.arms.items():
            done = [one.evaluation for one in some if one.evaluation]
            if done and TEACHER not in found:
                found[TEACHER] = done[0]["rows"][0]["forces_mae"]
            if done and arm not in LOOPS:
                found[arm] = float(np.mean([selected_row(record)["forces_mae"] for record in done]))
        return found

    def budgets(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Run -> kind of cost -> (spent, planned)."""
        found = {}
        for one in self.sorted:
            if one.plan is not None:
                spent, planned = one.spent, one.plan.budget
                found[self.label(one)] = {
                    key: (float(getattr(spent, key)), float(getattr(planned, key))) for key in BUDGETS
                }
        return found

    # What takes longer

    def compared_key(self) -> tuple[object, ...]:
        return tuple((one.name, one.stamp("evaluation.json"), len(one.records)) for one in self.workflows
                     if one.evaluation is not None)  # fmt: skip

    def compare(self) -> Comparison | None:
        """The comparison of what is evaluated; None when there is nothing."""
        ready = [one.folder for one in self.sorted if one.evaluation is not None]
        return compare(ready) if ready else None

    # Words

    def sentence(self, compared: Comparison | None) -> str:
        """The verdict, or why there is none yet."""
        n, ready = len(self.workflows), sum(one.evaluation is not None for one in self.workflows)
        if compared is None:
            return f"No verdict yet: {ready} of {n} run{'s' * (n != 1)} evaluated."
        if len(self.arms) == 1 and n == 1:
            return "One arm alone is no verdict: set it beside scratch and one_shot at equal gradient steps."
        return compared.sentence

    def answers(self, compared: Comparison | None) -> list[tuple[str, str]]:
        """(question, answer) of the verdicts beside the first."""
        if compared is None:
            return []
        asked = {**QUESTIONS, **{(arm, "forces"): f"{TITLES[whole]} against itself without {part}, forces"
                                 for whole, parts in PARTS.items() for arm, part in parts.items()}}  # fmt: skip
        return [(words, compared.verdicts[key].sentence) for key, words in asked.items()
                if key in compared.verdicts and key != ("controls", "forces")]  # fmt: skip

    def tone(self, compared: Comparison | None) -> str:
        """Colour of the verdict: grey without one, green, blue for undecided, orange."""
        found: Any = compared.verdicts.get(("controls", "forces")) if compared is not None else None
        if found is None:
            return "#6b7280"
        return {"works": "#007a5a", "undecided": "#0072b2"}.get(found.answer, "#c04f00")

    def warnings(self, compared: Comparison | None) -> list[str]:
        """What a reader must know beside the verdict."""
        found = [self.unequal()] if self.unequal() else []
        if compared is not None:
            # How often a seed beats its teacher stands in the table.
            found += [note for note in compared.notes if not note.startswith("Seed ")]
            missing = [one.name for one in self.workflows if one.evaluation is None]
            if missing:
                found.append(f"Not in the verdict, as not evaluated yet: {', '.join(missing)}.")
        return found
