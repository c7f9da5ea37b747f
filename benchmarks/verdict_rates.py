"""How often "when a cure works" claims an effect that is not there, and finds one that is: simulated studies.

    python benchmarks/verdict_rates.py --studies 2000

Each study has `seeds` training seeds and 20 frames that every arm and seed saw. Log errors are the sum of the frame's
difficulty (standard deviation 0.5), the seed (0.1, shared by all arms), arm and seed (0.1), arm and frame (0.1), and
noise (0.1). `interval` compares percentile, BCa and t intervals of one error ratio; `verdict` is `judge_cure` with one
to three controls, all as good as the cure (ratio 1) or all worse (ratio 0.8). Prints one JSON line per case and writes
them to `results/verdict_rates.jsonl`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mlipkit.analysis.bootstrap import Design, bootstrap
from mlipkit.analysis.cures import Errors, judge_cure

RESULTS = Path(__file__).resolve().parent / "results" / "verdict_rates.jsonl"
FRAMES = 20


def study(rng: np.random.Generator, n_seeds: int, ratios: list[float], spread: float) -> list[np.ndarray]:
    """Errors [S, F] of the cure and its controls."""
    frame, seed = rng.normal(0, 0.5, FRAMES), rng.normal(0, 0.1, (n_seeds, 1))
    return [
        ratio
        * np.exp(
            frame
            + seed
            + rng.normal(0, spread, (n_seeds, 1))
            + rng.normal(0, 0.1, FRAMES)
            + rng.normal(0, 0.1, (n_seeds, FRAMES))
        )
        for ratio in ratios
    ]


def interval(method: str, n_seeds: int, studies: int, draws: int) -> dict:
    """Share of null studies whose interval of the log ratio excludes 0."""
    rng, wrong = np.random.default_rng(n_seeds), 0
    design = Design([np.repeat(np.arange(n_seeds), FRAMES)], [np.tile(np.arange(FRAMES), n_seeds)])
    for trial in range(studies):
        cure, control = (arm.reshape(-1) for arm in study(rng, n_seeds, [1.0, 1.0], 0.1))

        def log_ratio(weights: np.ndarray, cure: np.ndarray = cure, control: np.ndarray = control) -> np.ndarray:
            return np.log((weights @ cure) / (weights @ control))

        found = bootstrap(log_ratio, design, method=method, n_draws=draws, seed=trial)  # type: ignore[arg-type]
        wrong += not found.lower <= 0 <= found.upper
    return {"what": "interval", "method": method, "seeds": n_seeds, "excludes_1": wrong / studies}


def verdict(n_seeds: int, n_controls: int, ratio: float, spread: float, studies: int, draws: int) -> dict:
    """Shares of the answers."""
    rng, below, above, widths = np.random.default_rng(n_seeds + 10 * n_controls), 0, 0, []
    for trial in range(studies):
        arms = [Errors.table(one) for one in study(rng, n_seeds, [ratio] + [1.0] * n_controls, spread)]
        found = judge_cure(arms[0], {f"control {i}": one for i, one in enumerate(arms[1:])}, n_draws=draws, seed=trial)
        below, above = below + (found.upper < 1), above + (found.lower > 1)
        widths.append(found.half_width)
    return {
        "what": "verdict", "seeds": n_seeds, "controls": n_controls, "ratio": ratio, "seed_spread": spread,
        "works": below / studies, "worse": above / studies, "median_half_width": round(float(np.median(widths)), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=300)
    args = parser.parse_args()
    shared = {"studies": args.studies, "draws": args.draws}
    records = [interval(method, n_seeds, **shared) for method in ("percentile", "bca", "t") for n_seeds in (3, 5, 10)]
    records += [
        verdict(n_seeds, n_controls, ratio, spread, **shared)
        for ratio, spread in ((1.0, 0.1), (0.8, 0.1), (0.8, 0.05), (0.8, 0.02))
        for n_seeds in (3, 5)
        for n_controls in (1, 2, 3)
    ]
    RESULTS.write_text("".join(json.dumps({**record, **shared}) + "\n" for record in records))
    print(RESULTS.read_text(), end="")


if __name__ == "__main__":
    main()
