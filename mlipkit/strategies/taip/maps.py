"""t-SNE maps of the features of an evaluation: training against test frames, for each of the potentials.

To be looked at beside the measures of the shift (`mlipkit.analysis.feature_shift`), which may be compared; the maps may
not. Kept in a file of their own, so that views draw them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

MAPS = "taip_maps.npz"
MOST = 500
"""Frames of each set on a map."""


def feature_maps(
    features: Mapping[str, Mapping[str, np.ndarray]], *, most: int = MOST, seed: int = 0
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """One joint map of training and test frames for each test set and kind of features.

    Scaled by the training frames, their fifty principal axes at most, perplexity 30, 1000 iterations, PCA start.

    Args:
        features: test set, and "train" -> kind ("baseline", "off", "adapted") -> [F,D].
        most: frames of each set, evenly taken.

    Returns:
        Test set -> kind -> (points of training frames [n,2], of test frames [m,2]); none where there are too few.
    """
    from mlipkit.analysis.embedding import standardised, tsne

    train = {kind: _some(rows, most) for kind, rows in features.get("train", {}).items()}
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for test, kinds in features.items():
        for kind, rows in kinds.items():
            if test == "train" or kind not in train:
                continue
            ours, theirs = standardised(train[kind], _some(rows, most))
            if len(ours) + len(theirs) < 8 or ours.shape[1] < 2:
                continue
            points = tsne(np.concatenate([ours, theirs]), seed=seed).points.astype(np.float32)
            found.setdefault(test, {})[kind] = points[: len(ours)], points[len(ours) :]
    return found


def keep_maps(found: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], folder: Path) -> None:
    """Write them beside the verdicts."""
    arrays = {
        f"{side}/{test}/{kind}": points
        for test, kinds in found.items()
        for kind, pair in kinds.items()
        for side, points in zip(("train", "test"), pair, strict=True)
    }
    partial = folder / f".{MAPS}.part.npz"
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(folder / MAPS)


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))]
