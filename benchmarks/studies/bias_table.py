"""Tables, cross-evaluation and verdicts of the fine-tuning study, from the lines of `bias.py` alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bias_data import ARMS, Told, published_name, read_set, restored, training_set

from mlipkit.analysis.bootstrap import Design, Level, bootstrap
from mlipkit.analysis.cross_evaluation import Cell, cross_evaluation, density_pairs, is_in
from mlipkit.analysis.cures import CureVerdict, Errors, judge_cure
from mlipkit.analysis.density import densities
from mlipkit.analysis.error_measures import voigt
from mlipkit.analysis.offset_control import offset_control
from mlipkit.analysis.residuals import Quantity, Residuals, table_row
from mlipkit.data import FrameSet

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE.parent / "results", HERE.parents[1] / "docs" / "finetuning_case.md"
PRINTED: dict[str, Any] = yaml.safe_load((HERE / "bias_published.yaml").read_text())
QUESTION = "Does iterative sampling beat naive sampling on energies, beyond an offset, at matched density?"
WORDS = {"naive": "naive", "iterative": "iterative", "longrun": "long run"}

DRAWS = 2000

Seeds = list[Residuals]
"""Residuals of one model on one set, one entry per training seed."""


@dataclass(frozen=True, eq=False)
class Model:
    """A fine-tuned potential, its offset control, or the untouched one.

    Attributes:
        name: as shown; published: name of the published model with the same training frames; "" for a control.
        arm, size: "" and 0 for the untouched potential.
        training: what it was fitted on; None for the untouched potential.
        seeds: labels of the trainings.
        sets: name of a set of frames -> residuals, one per seed.
        chosen: which candidate validation chose, per seed.
    """

    name: str
    published: str
    arm: str
    size: int
    training: FrameSet | None
    seeds: tuple[int, ...]
    sets: Mapping[str, Seeds]
    chosen: tuple[str, ...] = ()

    def on(self, name: str, rows: np.ndarray | None = None) -> Seeds:
        """Residuals on a set, or on some of its frames."""
        return self.sets[name] if rows is None else [part.select(rows) for part in self.sets[name]]


@cache
def told(name: str) -> Told:
    return read_set(name)


@cache
def fitted_on(arm: str, size: int) -> FrameSet:
    return training_set(arm, size)


def models_of(rows: Sequence[Mapping[str, Any]], universal: str, planned: Sequence[Sequence[Any]] = ()) -> list[Model]:
    """The untouched potential, then each fine-tuned one with its offset control before it.

    Args:
        planned: (arm, size): their offset controls need no training, and are there from the start.
    """
    mine = [row for row in rows if row["model"] == universal]
    base = next((row for row in mine if not row["arm"]), None)
    if base is None:
        return []
    untouched = Model("untouched", "U", "", 0, None, (0,), _sets([base]))
    found = [untouched]
    keys = {(row["arm"], row["size"]) for row in mine if row["arm"]} | {(arm, size) for arm, size in planned}
    for arm, size in sorted(keys, key=_order):
        own = sorted((row for row in mine if (row["arm"], row["size"]) == (arm, size)), key=lambda row: row["seed"])
        found.append(offset_model(untouched, arm, size))
        seeds, chosen = (tuple(row[key] for row in own) for key in ("seed", "chosen"))
        if own:
            frames, name = fitted_on(arm, size), published_name(arm, size)
            found.append(Model(f"{WORDS[arm]} {size}", name, arm, size, frames, seeds, _sets(own), chosen))
    return found


def offset_model(untouched: Model, arm: str, size: int, leave_out: FrameSet | None = None) -> Model:
    """The untouched potential plus the constant of an arm's training frames, or of those that are not left out."""
    frames = fitted_on(arm, size)
    frames = frames.select(~is_in(frames, leave_out))
    [before] = untouched.on(ARMS[arm], is_in(told(ARMS[arm]).frames, frames))
    control = offset_control(before)
    moved = {name: [control.remove(part) for part in parts] for name, parts in untouched.sets.items()}
    return Model(f"untouched + offset of {WORDS[arm]} {size}", "", arm, size, frames, (0,), moved)


def _order(key: tuple[str, int]) -> tuple[int, int]:
    return key[1], list(ARMS).index(key[0])


def _sets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Seeds]:
    sets = {name: [restored(row["sets"][name], told(name).frames) for row in rows] for name in rows[0]["sets"]}
    tests = told("self_md_tests")
    for family, title in {**WORDS, "": "untouched"}.items():
        mine = np.flatnonzero((tests.family == family) & ((tests.sampled_by == "U") | (family != "")))
        sets[f"self-MD of {title}"] = [part.select(mine) for part in sets["self_md_tests"]]
    return {**sets, "independent": sets["independent_test_22"], "self-MD": sets["self_md_tests"]}


# ---- rows and matrix


def table(models: Iterable[Model], name: str, printed: str) -> list[dict[str, Any]]:
    """A row per model on one set, the published figures beside it."""
    return [
        {
            "model": one.name, "published": one.published, "chosen": list(one.chosen), **table_row(one.on(name)),
            "rmse_s_as_published": table_row([_slipped(part) for part in one.on(name)]).get("rmse_s"),
            "printed": PRINTED[printed].get(one.published) if one.published else None,
        }
        for one in models
    ]  # fmt: skip


def counterparts(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Each model on the frames that its published namesake drove, beside what is printed of that one."""
    tests, found = told("self_md_tests"), []
    for one in models:
        driver = one.published or (published_name(one.arm, one.size) if one.arm else "U")
        mine = tests.sampled_by == driver
        if mine.any():
            row = table_row(one.on("self-MD", mine))
            printed = PRINTED["own_md"].get(one.published) if one.published else None
            found.append({"model": one.name, "frames_of": driver, **row, "printed": printed})
    return found


def _slipped(found: Residuals) -> Residuals:
    """The stress error as the published code forms it: yz of the prediction beside xy of the label."""
    label, stress = voigt(found.frames.stress), found.stress.copy()
    stress[:, 3] += label[:, 3] - label[:, 5]
    return replace(found, stress=stress)


def matrix(models: Iterable[Model], leave_out: FrameSet | None = None) -> list[Cell]:
    """Every model on every arm's frames and on every family of test trajectories."""
    families = [f"self-MD of {title}" for title in ("untouched", *WORDS.values())]
    sets = [*ARMS.values(), *families, "independent", "extra_not_in_training"]
    found = {one.name: {name: one.on(name) for name in sets} for one in models}
    training = {one.name: one.training for one in models if one.training is not None}
    return cross_evaluation(found, training, leave_out=leave_out)


def shared_frames() -> FrameSet:
    """The ten frames that the naive and the iterative arm have in common."""
    naive, chain = (told(ARMS[arm]).frames for arm in ("naive", "iterative"))
    return naive.select(is_in(naive, chain))


# ---- density


def training_density() -> dict[str, list[float]]:
    """Least and most density of each arm's frames, g/cm³, without those that two arms share."""
    both = shared_frames()
    return {
        arm: [float(end) for end in (density.min(), density.max())]
        for arm in ARMS
        for frames in (told(ARMS[arm]).frames,)
        for density in (densities(frames.select(~is_in(frames, both))),)
    }


def density_bins(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Test frames as dense as the iterative arm's own training frames, as the naive arm's, and in between."""
    ends = training_density()
    low, high, rows = ends["iterative"][1], ends["naive"][0], []
    for title, inside in (
        (f"at most {low:.3f}", lambda d: d <= low),
        ("between", lambda d: (d > low) & (d < high)),
        (f"at least {high:.3f}", lambda d: d >= high),
    ):
        for one in models:
            parts = [
                _joined([one.sets[name][s] for name in ("independent", "self-MD", "extra_not_in_training")])
                for s in range(len(one.seeds))
            ]
            parts = [part.select(inside(densities(part.frames))) for part in parts]
            rows.append({"density": title, "model": one.name, **table_row(parts)})
    return rows


def _joined(parts: Sequence[Residuals]) -> Residuals:
    columns = [np.concatenate([getattr(part, name) for part in parts])
               for name in ("energy", "force_squares", "n_forces", "stress")]  # fmt: skip
    return Residuals(FrameSet.concat([part.frames for part in parts]), *columns)


def paired_tests(tolerance: float = 0.01) -> np.ndarray:
    """Rows of the test trajectories that make pairs of equal density, one of a naive and one of an iterative model."""
    tests = told("self_md_tests")
    naive, chain = (np.flatnonzero(tests.family == family) for family in ("naive", "iterative"))
    i, j = density_pairs(tests.frames.select(naive), tests.frames.select(chain), tolerance)
    return np.concatenate([naive[i], chain[j]])


# ---- verdicts


def errors(model: Model, seeds: Sequence[int], name: str, rows: np.ndarray | None, quantity: Quantity) -> Errors:
    """All seeds of a model as one arm; a control has none, it is the same for each."""
    parts = model.on(name, rows)
    by_seed = dict(zip(model.seeds, parts, strict=True))
    used = [by_seed.get(seed, parts[0]).errors(quantity, seed, by_trajectory=True) for seed in seeds]
    columns = [
        None if getattr(used[0], key) is None else np.concatenate([np.asarray(getattr(one, key)) for one in used])
        for key in ("values", "seeds", "frames", "trajectories", "weights")
    ]
    return Errors(*columns)  # type: ignore[arg-type]


def judged(
    cure: Model, controls: Sequence[Model], name: str, rows: np.ndarray | None, quantity: Quantity, words: str
) -> CureVerdict:
    """Seeds that all trained models have; frames of one trajectory draw together."""
    trained = [one for one in (cure, *controls) if one.chosen]
    seeds = sorted(set.intersection(*(set(one.seeds) for one in trained)))
    return judge_cure(
        errors(cure, seeds, name, rows, quantity),
        {one.name: errors(one, seeds, name, rows, quantity) for one in controls}, quantity=words, reduce="rms",
        n_draws=DRAWS,
    )  # fmt: skip


def verdicts(models: Sequence[Model]) -> list[dict[str, Any]]:
    """Per size: iterative against naive, and each arm against its own offset control."""
    named, found = {one.name: one for one in models}, []
    pairs = paired_tests()
    places = {"independent structures": ("independent", None), "self-MD frames": ("self-MD", None),
              "self-MD frames of equal density": ("self-MD", pairs)}  # fmt: skip
    untouched = named["untouched"]
    for size in sorted({one.size for one in models if one.chosen}):
        arms = {arm: named.get(f"{title} {size}") for arm, title in WORDS.items()}
        offsets = {arm: named.get(f"untouched + offset of {title} {size}") for arm, title in WORDS.items()}
        for place, (name, rows) in places.items():
            for arm, one in arms.items():
                control = offsets[arm]
                if one is None or control is None:
                    continue
                for quantity, words in (("energy", "energy RMSE"), ("energy_centred", "energy std, mean removed")):
                    against = [control] if quantity == "energy" else [untouched]
                    one_verdict = judged(one, against, name, rows, quantity, words)
                    found.append(_line("beats its offset", one.name, size, place, quantity, one_verdict))
            chain, naive = arms["iterative"], arms["naive"]
            if chain is None or naive is None:
                continue
            offset = [one for one in (offsets["iterative"], offsets["naive"]) if one is not None]
            for quantity, words, controls in (
                ("energy", "energy RMSE", [naive, *offset, untouched]),
                ("energy_centred", "energy std, mean removed", [naive, untouched]),
                ("forces", "force RMSE", [naive, untouched]),
            ):
                one_verdict = judged(chain, controls, name, rows, quantity, words)
                found.append(_line("iterative beats naive", chain.name, size, place, quantity, one_verdict))
    return found


def _line(claim: str, model: str, size: int, place: str, quantity: str, verdict: CureVerdict) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(verdict).items() if key not in ("effect", "confidence")}
    return {"claim": claim, "model": model, "size": size, "on": place, "quantity": quantity, **facts}


def sentence(found: Sequence[Mapping[str, Any]]) -> str:
    """The answer to `QUESTION`, from the verdicts of the largest size that both arms have."""
    mine = [row for row in found if row["claim"] == "iterative beats naive"]
    if not mine:
        return f"{QUESTION} Not measured yet."
    size = max(row["size"] for row in mine)
    picked = {
        quantity: next(row for row in mine if (row["size"], row["quantity"]) == (size, quantity)
                       and row["on"] == "self-MD frames of equal density")
        for quantity in ("energy", "energy_centred")
    }  # fmt: skip
    answers = [row["answer"] for row in picked.values()]
    said = "Yes" if set(answers) == {"works"} else "No" if "does not" in answers else "Undecided"
    energy, centred = picked["energy"], picked["energy_centred"]
    n_seeds = energy["n_seeds"]
    naive, chain = (told(ARMS[arm]).frames for arm in ("naive", "iterative"))
    n_pairs = len(density_pairs(naive, chain)[0])
    reach = (
        "and no pair of training frames of the two arms has the same density, so that sampling and density cannot be "
        "told apart by these sets" if n_pairs == 0 else f"and {n_pairs} pairs of training frames have the same density"
    )  # fmt: skip
    return (
        f"{QUESTION} {said} ({n_seeds} seed{'s' if n_seeds != 1 else ''}, {size} training frames): on "
        f"{energy['n_units']} test frames paired by density the iterative model's energy RMSE is "
        f"{energy['ratio']:.2f} ({energy['lower']:.2f} to {energy['upper']:.2f}) times that of the best control "
        f"({energy['best_control']}), its standard deviation with the mean removed {centred['ratio']:.2f} "
        f"({centred['lower']:.2f} to {centred['upper']:.2f}) times that of {centred['best_control']}, {reach}."
    )


def offset_sentences(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per model, whether it learned more of energies than an offset."""
    mine = [row for row in found if (row["claim"], row["quantity"]) == ("beats its offset", "energy")]
    said = []
    for model in dict.fromkeys(row["model"] for row in mine):
        places = [
            row for row in mine if row["model"] == model and row["on"] in ("independent structures", "self-MD frames")
        ]
        better = [row["on"] for row in places if row["upper"] < 1]
        answer = (
            "it learned more than an offset" if len(better) == len(places) else
            f"more than an offset is shown on {better[0]} alone" if better else
            "it learned an offset; more is not shown"
        )  # fmt: skip
        ratios = ", ".join(
            f"{row['ratio']:.2f} ({row['lower']:.2f} to {row['upper']:.2f}) on {row['on']}" for row in places
        )
        seeds = " (one seed)" if places[0]["n_seeds"] == 1 else ""
        said.append(f"{model}: energy RMSE over that of its offset control {ratios}: {answer}{seeds}.")
    return said


def constants_sentence(models: Sequence[Model]) -> str:
    """What the constants alone make of the comparison: no potential is trained in this one."""
    sizes = [one.size for one in models if not one.chosen and one.arm == "iterative"]
    if not sizes:
        return "Not measured yet."
    untouched, size, both = models[0], max(sizes), shared_frames()

    def pair(leave_out: FrameSet | None = None) -> list[Model]:
        return [offset_model(untouched, arm, size, leave_out) for arm in ("iterative", "naive")]

    def compared(chain: Model, naive: Model, name: str) -> str:
        verdict = judge_cure(
            errors(chain, (0,), name, None, "energy"), {"naive": errors(naive, (0,), name, None, "energy")},
            reduce="rms", n_draws=DRAWS,
        )  # fmt: skip
        ours, theirs = (1000 * verdict.errors[which] for which in ("cure", "naive"))
        return (
            f"{ours:.1f} against {theirs:.1f} meV/atom, a ratio of {verdict.ratio:.2f} ({verdict.lower:.2f} to "
            f"{verdict.upper:.2f})"
        )

    def places(two: Sequence[Model]) -> str:
        return (
            f"on the frames of the test simulations {compared(*two, 'self-MD')}; on the independent structures "
            f"{compared(*two, 'independent')}"
        )

    text = (
        f"The untouched potential plus the constant of the {size} iterative frames, against the same plus that of the "
        f"{size} naive ones: {places(pair())}."
    )
    # The ten frames of the first round are all shared.
    if not is_in(fitted_on("iterative", size), both).all():
        text += f" Without the {len(both)} frames of both arms: {places(pair(both))}."
    return f"{text} Nothing was trained for this."


def hidden(models: Sequence[Model]) -> list[dict[str, Any]]:
    """Energy RMSE on independent structures over that on the frames of the published namesake's own MD, per model.

    A ratio above 1 tells of an error that frames of one's own do not show. Here no model drove its own MD.
    """
    tests, found = told("self_md_tests"), []
    for one in models:
        mine = tests.sampled_by == one.published
        if not one.chosen or not mine.any():
            continue
        sides = one.on("independent"), one.on("self-MD", mine)
        square = np.concatenate([part.energy**2 for side in sides for part in side])
        side = np.concatenate([np.full(len(part), i) for i, parts in enumerate(sides) for part in parts])
        seed = np.concatenate([np.full(len(part), s) for parts in sides for s, part in enumerate(parts)])
        frame = np.concatenate([part.frames.structure_hashes for parts in sides for part in parts])

        def log_ratio(weights: np.ndarray, square: np.ndarray = square, side: np.ndarray = side) -> np.ndarray:
            own, mean = side == 1, []
            for rows in (~own, own):
                mean.append((weights[:, rows] @ square[rows]) / weights[:, rows].sum(axis=1))
            return 0.5 * np.log(mean[0] / mean[1])

        design = Design(*([[seed]] if len(one.seeds) > 1 else []), [Level(side, drawn=False), frame])
        ends = bootstrap(log_ratio, design)
        ratio, low, high = (float(np.exp(end)) for end in (ends.value, ends.lower, ends.upper))
        found.append({"model": one.name, "ratio": [ratio, low, high], "n": [len(part[0]) for part in sides]})
    return found


def hidden_sentence(found: Sequence[Mapping[str, Any]]) -> str:
    """Does a good error on the frames of its own MD hide a poor one on independent structures?"""
    if not found:
        return "Not measured yet."
    ratios = "; ".join("{} {:.2f} ({:.2f} to {:.2f})".format(one["model"], *one["ratio"]) for one in found)
    worse = [one["model"] for one in found if one["ratio"][1] > 1]
    said = f"shown for {', '.join(worse)}" if worse else "shown for none"
    return (
        "Energy RMSE on the independent structures over that on the frames of the published namesake's own MD: "
        f"{ratios}. An error that frames of one's own hide is {said}."
    )


# ---- all of it, and the page


def summary(rows: Sequence[Mapping[str, Any]], universal: str, planned: Sequence[Sequence[Any]] = ()) -> dict[str, Any]:
    """Everything that is measured of one universal model; {} while its untouched predictions lack."""
    models = models_of(rows, universal, planned)
    if not models:
        return {}
    found, beyond = verdicts(models), hidden(models)
    return {
        "sentence": sentence(found), "offset_sentences": offset_sentences(found), "hidden": beyond,
        "constants_sentence": constants_sentence(models),
        "hidden_sentence": hidden_sentence(beyond),
        "independent": table(models, "independent", "independent"),
        "self_md": table(models, "self-MD", "own_md"),
        "counterparts": counterparts(models),
        "matrix": [cell.to_json() for cell in matrix(models)],
        "matrix_without_shared": [cell.to_json() for cell in matrix(models, shared_frames())],
        "density_bins": density_bins(models), "verdicts": found,
    }  # fmt: skip


def write(plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """`results/NAME.json`, the page, and the answers on the screen."""
    from bias_page import fill

    record: dict[str, Any] = {
        "command": f"python benchmarks/studies/bias.py --plan {plan['file']} --table",
        "planned_trainings": len(plan["seeds"]) * len(plan["jobs"]), "training_density": training_density(),
        "shared_frames": len(shared_frames()),
    }  # fmt: skip
    for universal in [*plan["models"], *plan.get("controls", ())]:
        record[universal] = summary(rows, universal, plan["jobs"])
        if record[universal]:
            print(f"{universal}: {record[universal]['sentence']}", record[universal]["constants_sentence"], sep="\n")
    (RESULTS / f"{plan['results']}.json").write_text(_lines(_short(_lean(record))) + "\n")
    if plan["file"] == "bias.yaml":
        PAGE.write_text(fill(PAGE.read_text(), record, rows))


IN_MATRIX = ("n_frames", "rmse_e", "std_e", "rmse_f")


def _lean(record: dict[str, Any]) -> dict[str, Any]:
    """Without what nobody reads in a file: of a cell of a matrix the figures that the page shows, once where equal."""

    def cell(one: dict[str, Any]) -> dict[str, Any]:
        parts = {name: one[name] and {key: one[name][key] for key in IN_MATRIX} for name in ("everything", "unseen")}
        short = {**one, **parts}
        if parts["unseen"] == parts["everything"]:
            del short["unseen"]
        return short

    found = dict(record)
    for name, value in record.items():
        if isinstance(value, dict) and "matrix" in value:
            found[name] = {
                **value, **{key: [cell(one) for one in value[key]] for key in ("matrix", "matrix_without_shared")}
            }  # fmt: skip
    return found


def _lines(record: dict[str, Any]) -> str:
    """JSON with a row of each table on a line."""
    parts = []
    for name, value in record.items():
        if not isinstance(value, dict):
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
            continue
        inner = []
        for key, rows in value.items():
            text = json.dumps(rows)
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
            inner.append(f"{json.dumps(key)}: {text}")
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(inner) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _short(value: Any) -> Any:
    """Floats with six digits."""
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
