"""What a seed of an evaluation leaves on disk: errors of all frames as arrays, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data.whole import write_whole
from mlipkit.strategies.taip.measuring import Measured

ARRAYS, RECORD = "measured.npz", "measured.json"
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


def keep(found: Measured, folder: Path) -> None:
    """Write the errors of a seed."""
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
    write_whole(folder / RECORD, json.dumps(facts_of(found)).encode())


def recall(folder: Path) -> Measured | None:
    """The errors of a seed, None where they are not all there."""
    if not (folder / RECORD).is_file() or not (folder / ARRAYS).is_file():
        return None
    facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
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
