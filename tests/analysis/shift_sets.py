"""Small sets in score space, shared by the tests of coverage, growth and trends."""

from __future__ import annotations

import numpy as np

from mlipkit.analysis.coverage import Points


def cloud(n_frames: int, *, centre: float = 0.0, seed: int = 0, per_frame: int = 12, width: float = 1.0) -> Points:
    """Frames of hydrogen and oxygen (2:1), three components, Gaussian; oxygen sits five to the right."""
    rng = np.random.default_rng(seed)
    numbers = np.tile([1, 1, 8], n_frames * per_frame // 3)
    scores = rng.normal(centre, width, (len(numbers), 3))
    scores[:, 0] += np.where(numbers == 8, 5.0, 0.0)
    return Points.of(scores, numbers, np.arange(n_frames + 1) * per_frame)
