"""What a seed of an evaluation leaves on disk: errors of all frames as arrays, everything else as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from mlipkit.data.whole import read_json, write_whole
from mlipkit.errors import RunError
from mlipkit.strategies.taip.measuring import Measured

if TYPE_CHECKING:
    from mlipkit.data import FrameSet

ARRAYS, RECORD = "measured.npz", "measured.json"
OF = "evaluation"
"""Key of the evaluation that figures belong to."""
FIGURES = (
    "rates", "scan", "scan_tests", "correlation", "repeat", "change", "seconds", "training_s", "steps",
)  # fmt: skip
"""Attributes of `Measured` that are figures by name."""


def facts_of(one: Measured) -> dict[str, Any]:
    """What is known of a seed beside the errors of its frames, JSON-ready."""
    figures = {name: _numbers(getattr(one, name)) for name in FIGURES}
    return {"seed": one.seed, **figures, "noise_sigma": one.noise_sigma}


def _numbers(found: Any) -> Any:
    """JSON-ready; what is no number, such as the rank of one frame, is none."""
    if isinstance(found, Mapping):
        return {key if isinstance(key, str) else f"{key:g}": _numbers(value) for key, value in found.items()}
    return found if np.isfinite(found) else None


def keep(found: Measured, folder: Path, identity: Mapping[str, Any]) -> None:
    """Write the errors of a seed.

    Args:
        identity: of the evaluation that they belong to, JSON-ready.
    """
    arrays: dict[str, np.ndarray] = {}
    for test, columns in found.errors.items():
        arrays[f"uid/{test}"] = np.asarray(found.uids[test], np.uint64)
        arrays[f"group/{test}"] = np.asarray(found.groups[test], np.int64)
        for column, quantities in columns.items():
            for quantity, values in quantities.items():
                arrays[f"error/{test}/{column}/{quantity}"] = values
    for atoms, tests in found.features.items():
        for test, sets in tests.items():
            arrays |= {f"feature/{atoms}/{test}/{name}": values for name, values in sets.items()}
            arrays[f"feature_group/{atoms}/{test}"] = found.feature_groups[atoms][test]
    partial = folder / f".{ARRAYS}.part.npz"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(folder / ARRAYS)
    # Last: where it stands, the arrays do too.
    write_whole(folder / RECORD, json.dumps({**facts_of(found), OF: _digest(identity)}).encode())


def recall(folder: Path) -> Measured | None:
    """The errors of a seed, None where they are not all there.

    Raises:
        RunError: they are damaged.
    """
    if not (folder / RECORD).is_file() or not (folder / ARRAYS).is_file():
        return None
    try:
        return _recalled(folder, read_json(folder / RECORD))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise RunError(
            f"what was measured cannot be read: {type(error).__name__}: {error}", where=str(folder),
            hint=f"Delete {RECORD} there: it is measured again from the trained potentials",
        ) from None  # fmt: skip


def check_recalled(
    found: Measured, folder: Path, seed: int, identity: Mapping[str, Any], tests: Mapping[str, FrameSet]
) -> None:
    """Refuse errors that are of another seed, evaluation or of other test frames.

    Raises:
        RunError: they are.
    """
    # Records from before it was told name no evaluation.
    told = read_json(folder / RECORD).get(OF, _digest(identity))
    frames = {name: [int(uid) for uid in one.uids] for name, one in tests.items()}
    if told != _digest(identity) or found.seed != seed or found.uids != frames:
        raise RunError(
            "was measured for another evaluation or seed", where=str(folder / RECORD),
            expected=f"seed {seed} on {', '.join(tests)}", found=f"seed {found.seed} on {', '.join(found.uids)}",
            hint="Give this evaluation a folder of its own",
        )  # fmt: skip


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()


def _recalled(folder: Path, facts: Mapping[str, Any]) -> Measured:
    errors: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    features: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    feature_groups: dict[str, dict[str, np.ndarray]] = {}
    labels: dict[str, dict[str, list[int]]] = {"uid": {}, "group": {}}
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, *rest = key.split("/")
            if kind == "error":
                test, column, quantity = rest
                errors.setdefault(test, {}).setdefault(column, {})[quantity] = arrays[key]
            elif kind in labels:
                labels[kind][rest[0]] = arrays[key].tolist()
            elif kind == "feature_group":
                feature_groups.setdefault(rest[0], {})[rest[1]] = arrays[key]
            else:
                atoms, test, name = rest
                features.setdefault(atoms, {}).setdefault(test, {})[name] = arrays[key]

    numbers = {name: _known(facts[name]) for name in FIGURES}
    numbers["scan"] = _by_step(numbers["scan"])
    numbers["scan_tests"] = {test: _by_step(scans) for test, scans in numbers["scan_tests"].items()}
    return Measured(
        seed=facts["seed"], noise_sigma=facts["noise_sigma"], errors=errors, uids=labels["uid"], groups=labels["group"],
        features=features, feature_groups=feature_groups, **numbers,
    )  # fmt: skip


def _known(found: Mapping[str, Any]) -> dict[Any, Any]:
    return {
        name: _known(value) if isinstance(value, Mapping) else np.nan if value is None else value
        for name, value in found.items()
    }


def _by_step(scans: Mapping[str, Mapping[str, float]]) -> dict[str, dict[float, float]]:
    return {name: {float(rate): error for rate, error in found.items()} for name, found in scans.items()}
