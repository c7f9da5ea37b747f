"""Arms side by side: what every model got wrong, and whether an arm beats its controls.

The verdict is that of `mlipkit.analysis.cures.judge_cure`, over training seeds and frames: the last model of an arm
against the untouched model, against its own offset control, and against the last model of the naive arm.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.data.whole import read_json
from mlipkit.errors import RunError
from mlipkit.strategies.workflows import provenance
from mlipkit.strategies.workflows.differences import differing, one_experiment, told
from mlipkit.strategies.workflows.evaluating import INDEPENDENT, OFFSET, Evaluated, left_out_said
from mlipkit.strategies.workflows.plan import UNTOUCHED, Budget, equal_budgets
from mlipkit.strategies.workflows.settings import Settings, acting
from mlipkit.strategies.workflows.tools import CONTENT
from mlipkit.strategies.workflows.work import as_told, tools_told

if TYPE_CHECKING:
    from mlipkit.analysis.cures import CureVerdict, Errors
    from mlipkit.analysis.residuals import Residuals

NAIVE = "naive"
SELF_MD = "self_md"
"""Every model on the frames of its own simulation."""
QUANTITIES = {"energy": "energy RMSE", "energy_centred": "energy RMSE with the mean removed", "forces": "force RMSE"}
FIGURES = ("rmse_e", "mean_e", "std_e", "rmse_f", "rmse_s")


@dataclass(frozen=True)
class Comparison:
    """What the pictures and the tables are drawn from.

    Attributes:
        rows: one per arm, seed, model and test set: arm, seed, round, kind (untouched, offset, finetuned), test_set,
            own (the model's own simulation), n_training, n_frames, density_g_cm3, and figures as [value, low, high]
            (`mlipkit.analysis.residuals.UNITS`).
        pooled: the same over all seeds of an arm, with intervals over seeds and frames.
        verdicts: (arm, test set, quantity) -> verdict of the arm's last model; quantities are those of `QUANTITIES`,
            test sets "independent" and "self_md".
        sentence: the answer in one sentence.
        budgets: one line on the budgets.
        notes: what a reader must know beside the figures: frames that arms share, densities, lost frames, failures.
    """

    rows: list[dict[str, Any]]
    pooled: list[dict[str, Any]]
    verdicts: Mapping[tuple[str, str, str], CureVerdict]
    sentence: str
    budgets: str
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        import dataclasses

        return {
            "sentence": self.sentence, "budgets": self.budgets, "notes": self.notes, "rows": self.rows,
            "pooled": self.pooled,
            "verdicts": [
                {"arm": arm, "test_set": test_set, "quantity": quantity, **dataclasses.asdict(verdict)}
                for (arm, test_set, quantity), verdict in self.verdicts.items()
            ],
        }  # fmt: skip

    def table(self) -> str:
        """The pooled rows as aligned text."""
        head = ("arm", "model", "test set", "n", "E meV/atom", "mean", "std", "F eV/Å", "density")
        lines: list[tuple[str, ...]] = [head]
        for row in self.pooled:
            name = row["kind"] if row["kind"] == UNTOUCHED else f"{row['kind']} {row['round']}"
            figures = [_figure(row.get(key)) for key in ("rmse_e", "mean_e", "std_e", "rmse_f")]
            density = row["density_g_cm3"]
            lines.append((row["arm"], name, row["test_set"], str(row["n_frames"]), *figures,
                          "" if density is None else f"{density:.3g}"))  # fmt: skip
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def compare_arms(
    workflows: Sequence[Any], *, unequal: bool = False, effect: float = 0.1, n_draws: int = 2000
) -> Comparison:
    """Set workflows side by side that have been evaluated.

    Args:
        workflows: their folders, or runs (whatever has a `folder`).
        unequal: compare although budgets differ; the budgets are then named in `notes`.
        effect: smallest gain worth having, see `judge_cure`.

    Raises:
        RunError: a workflow that has not been evaluated, other models, label makers or test frames; seeds of an arm
            with other settings, a seed given twice.
        SpecError: unequal budgets, with the difference.
    """
    found = [_evaluated(one) for one in workflows]
    if not found:
        raise RunError("no workflow to compare", where="compare_arms")
    _same_tools(found)
    _same_tests(found)
    notes: list[str] = []
    plans = [one.plan for one in found]
    if unequal:
        budgets = "Unequal budgets: " + "; ".join(f"{plan.arm} {plan.seed}: {plan.budget.sentence}" for plan in plans)
        notes.append(budgets)
    else:
        budgets = equal_budgets(plans)
    rows = [{"arm": one.plan.arm, "seed": one.plan.seed, **row} for one in found for row in one.rows]
    arms = list(dict.fromkeys(one.plan.arm for one in found))
    for arm in arms:
        one_experiment([one for one in found if one.plan.arm == arm], _settings)
    pooled = _pooled(found, arms, n_draws)
    verdicts = _verdicts(found, arms, effect, n_draws)
    if n := len(found[0].left_out(INDEPENDENT)):
        notes.append(f"{left_out_said(n, n + found[0].record['sets'][INDEPENDENT]['frames'])}.")
    notes += _spent(found) + _shared_frames(found) + _densities(found) + _losses(found)
    return Comparison(rows, pooled, verdicts, _sentence(arms, verdicts), budgets, notes)


def _evaluated(one: Any) -> Evaluated:
    folder = Path(getattr(one, "folder", one))
    found = Evaluated.read(folder)
    if found is None:
        raise RunError("not evaluated yet", where=str(folder), hint="Let it run to its end, or resume it")
    return found


def _same_tools(found: Sequence[Evaluated]) -> None:
    words = [tools_told(read_json(one.folder / "plan.json")) for one in found]
    # The first that tells what is in its model: older ones know its name alone, and agree with any of that name.
    first = next((said for said in words if isinstance(said, dict) and CONTENT in said), words[0])
    for one, said in zip(found, words, strict=True):
        theirs, mine = as_told(first, said), as_told(said, first)
        names = differing(theirs, mine)
        if names:
            raise RunError("arms that differ in more than their frames", where=str(one.folder),
                           expected=told(theirs, names), found=told(mine, names))  # fmt: skip


def _settings(one: Evaluated) -> dict[str, Any]:
    """What a plan was made from; numbers that it does not tell, as older ones may not, are the defaults."""
    usual, told = Settings().to_json(), dict(one.plan.settings)
    whole = {**usual, **told, "evaluation": {**usual["evaluation"], **told.get("evaluation", {})}}
    whole["train"] = acting(whole["train"])
    # Through JSON the one and the other are of the same kind: lists, not tuples.
    return json.loads(json.dumps(whole))


def _same_tests(found: Sequence[Evaluated]) -> None:
    """Frames on which all models are tried are made alike: those of the untouched model's simulation among them."""
    for name in (f"label_{INDEPENDENT}", "label_test_md_0"):
        keys = [one.plan.key(name) if any(s.name == name for s in one.plan.stages) else None for one in found]
        for one, key in zip(found, keys, strict=True):
            if key != keys[0]:
                raise RunError(
                    f"arms with other test frames ({name} differs)", where=str(one.folder),
                    expected=f"as in {found[0].folder.name}", hint="Give all of them the same evaluation and sampling",
                )  # fmt: skip
    first = sorted(found[0].left_out(INDEPENDENT))
    for one in found:
        if sorted(one.left_out(INDEPENDENT)) != first:
            raise RunError(
                "arms with other test frames (those that training starts from are left out)", where=str(one.folder),
                expected=f"{len(first)} left out, as in {found[0].folder.name}",
                found=f"{len(one.left_out(INDEPENDENT))} left out",
                hint="Give more start structures than training and evaluation draw together",
            )  # fmt: skip


def _select(one: Evaluated, kind: str, round: int, test_set: str) -> dict[str, Any] | None:
    for row in one.rows:
        if row["kind"] != kind or (kind != UNTOUCHED and row["round"] != round):
            continue
        if test_set == SELF_MD:
            # The offset moves no atom: its own simulation is that of the untouched model.
            if row["test_set"] == ("test_md_0" if kind in (UNTOUCHED, OFFSET) else f"test_md_{round}"):
                return row
        elif row["test_set"] == test_set:
            return row
    return None


def _last(one: Evaluated) -> int:
    return max((row["round"] for row in one.rows if row["kind"] == "finetuned"), default=0)


def _pooled(found: Sequence[Evaluated], arms: Sequence[str], n_draws: int) -> list[dict[str, Any]]:
    from mlipkit.analysis.residuals import table_row

    pooled = []
    for arm in arms:
        mine = [one for one in found if one.plan.arm == arm]
        keys = dict.fromkeys(
            (row["kind"], row["round"], row["test_set"]) for one in mine for row in one.rows
        )  # fmt: skip
        for kind, round, test_set in keys:
            parts: list[Residuals] = []
            for one in mine:
                row = _select(one, kind, round, test_set)
                if row is not None:
                    parts.append(one.residuals(row))
            row = next(r for one in mine for r in one.rows if (r["kind"], r["round"], r["test_set"]) == (
                kind, round, test_set))  # fmt: skip
            # Models without weights of their own, and simulations of one, are the same for every seed.
            some = parts[:1] if kind == UNTOUCHED else parts
            pooled.append({
                "arm": arm, "kind": kind, "round": round, "test_set": test_set, "own": row["own"],
                **table_row(some if len(some) > 1 else some[0], n_draws=n_draws),
            })  # fmt: skip
    return pooled


def _errors(found: Sequence[Evaluated], kind: str, test_set: str, quantity: Any) -> Errors | None:
    """Errors of an arm's last model (or a control of it) of all seeds, frame by frame."""
    from mlipkit.analysis.cures import Errors

    parts = []
    for one in found:
        row = _select(one, kind, _last(one), test_set)
        if row is None:
            return None
        parts.append(one.residuals(row).errors(quantity, one.plan.seed))
    if not parts:
        return None

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if any(value is None for value in values):
            return None
        column = np.concatenate([np.asarray(value) for value in values])
        # Simulations of two models have no frame in common, also where a control repeats one: drawn apart, no arm is
        # ever without a frame.
        return (
            [f"{found[0].plan.arm} {kind} {one}" for one in column]
            if name == "frames" and test_set == SELF_MD
            else column
        )

    return Errors(*(joined(name) for name in ("values", "seeds", "frames", "trajectories", "weights")))


def _verdicts(
    found: Sequence[Evaluated], arms: Sequence[str], effect: float, n_draws: int
) -> dict[tuple[str, str, str], CureVerdict]:
    from mlipkit.analysis.cures import judge_cure

    verdicts = {}
    by_arm = {arm: [one for one in found if one.plan.arm == arm] for arm in arms}
    for arm, test_set, quantity in itertools.product(arms, (INDEPENDENT, SELF_MD), QUANTITIES):
        cure = _errors(by_arm[arm], "finetuned", test_set, quantity)
        if cure is None:
            continue
        controls: dict[str, Errors] = {}
        for kind, name in ((UNTOUCHED, UNTOUCHED), (OFFSET, "offset control")):
            control = _errors(by_arm[arm], kind, test_set, quantity)
            # Without its mean, or in forces, the offset control is the untouched model once more.
            if control is not None and not (kind == OFFSET and quantity != "energy"):
                controls[name] = control
        if arm != NAIVE and NAIVE in by_arm:
            naive = _errors(by_arm[NAIVE], "finetuned", test_set, quantity)
            if naive is not None:
                controls[f"{NAIVE} arm"] = naive
        # One frame (or one frame several times) with one seed says nothing of chance.
        if len(set(map(str, np.asarray(cure.frames)))) * len(by_arm[arm]) > 1:
            verdicts[arm, test_set, quantity] = judge_cure(
                cure, controls, quantity=QUANTITIES[quantity], reduce="rms", effect=effect, n_draws=n_draws
            )
    return verdicts


def _sentence(arms: Sequence[str], verdicts: Mapping[tuple[str, str, str], CureVerdict]) -> str:
    """Of the iterative arm, or the first that is not naive: on independent frames where there are some."""
    order = sorted(arms, key=lambda arm: (arm == NAIVE, arm != "iterative"))
    for arm, test_set in itertools.product(order, (INDEPENDENT, SELF_MD)):
        verdict = verdicts.get((arm, test_set, "energy"))
        if verdict is not None:
            where = "independent frames" if test_set == INDEPENDENT else "frames of each model's own simulation"
            text = f"{arm.capitalize()} sampling, energies on {where}: {verdict.sentence}"
            offset = verdict.against.get("offset control")
            if offset is not None and offset.ratio >= 1:
                text += " It does not beat its offset control: it has learned an offset."
            return text
    return "No arm has been evaluated on a test set."


def _spent(found: Sequence[Evaluated]) -> list[str]:
    """Where it is not what was planned: labels less those struck out, epochs less those that were not needed."""
    parts = []
    for one in found:
        # Older evaluations did not keep it.
        planned = one.plan.budget
        spent = Budget(**one.record["spent"]) if "spent" in one.record else planned
        if (spent.labels, spent.md_ps, spent.gradients) != (planned.labels, planned.md_ps, planned.gradients):
            parts.append(f"{one.plan.arm} {one.plan.seed} {spent.of(planned)}")
    return [f"The budget spent differs from the plan: {'; '.join(parts)}."] if parts else []


def _shared_frames(found: Sequence[Evaluated]) -> list[str]:
    notes = []
    own = [
        {row["uid"] for row in provenance.read(one.folder) if row["purpose"] == "training" and row["entered"]}
        for one in found
    ]
    for (i, a), (j, b) in itertools.combinations(enumerate(found), 2):
        shared = len(own[i] & own[j])
        if shared:
            notes.append(f"{a.plan.arm} {a.plan.seed} and {b.plan.arm} {b.plan.seed} share {shared} training frames.")
    return notes


def _densities(found: Sequence[Evaluated]) -> list[str]:
    """Mean density of the training frames of each workflow: a shift of the sampled volume is no shift of chemistry."""
    parts = []
    for one in found:
        rows = [row for row in provenance.read(one.folder) if row["purpose"] == "training" and row["density"]]
        if rows:
            values = [row["density"] for row in rows]
            parts.append(f"{one.plan.arm} {one.plan.seed}: {np.mean(values):.3g} ± {np.std(values):.2g}")
    return [f"Density of the training frames, g/cm³: {'; '.join(parts)}."] if parts else []


def _losses(found: Sequence[Evaluated]) -> list[str]:
    notes = []
    for one in found:
        rows = provenance.read(one.folder)
        name = f"{one.plan.arm} {one.plan.seed}"
        lost = [row for row in rows if row["outcome"].startswith("failed") or row["outcome"].startswith("struck")]
        if lost:
            notes.append(f"{name}: {len(lost)} of {len(rows)} frames lost, the first: {lost[0]['outcome']}.")
        for run, facts in one.record["simulations"].items():
            if facts["outcome"] == "failed":
                reached = f"after {facts['rows']} of {facts['planned_rows']} rows"
                notes.append(f"{name}: {run} failed {reached}: {facts['sentence']}")
    return notes


def _figure(value: Sequence[float | None] | None) -> str:
    if value is None or value[0] is None:
        return ""
    centre, low, high = value
    return f"{centre:.3g}" + ("" if low is None or high is None else f" [{low:.3g}, {high:.3g}]")
