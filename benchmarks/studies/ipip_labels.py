"""How far are the labels of a loop's pools from the target? Some frames of every pool, labelled by the target itself.

    python benchmarks/studies/ipip_labels.py               # loops of c_mo_s_o that are finished: GFN1-xTB
    python benchmarks/studies/ipip_labels.py --frames 4

Only where the target is a method that runs here: of public DFT sets there is nothing to label with. Teacher and
students are drawn apart, so that the few frames with the teacher's labels count as well. A frame on which the target
does not converge is left out and counted. One line per loop and round goes to `results/ipip_labels.jsonl`; labels lie
under `build/studies/ipip/labels`, so that it can be killed and called again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ipip import ROOT, Study
from records import command, keep

from mlipkit.data.whole import read_json
from mlipkit.labelling import label_frames, label_maker
from mlipkit.strategies.ipip import LoopPlan, Pool
from mlipkit.strategies.ipip.evaluating import frame_errors
from mlipkit.strategies.ipip.pools import TEACHER

PLAN, LOOP = "ipip_small.yaml", "ipip"
TARGETS = {"c_mo_s_o": "gfn1-xtb"}
"""Study -> what has labelled its frames."""
FRAMES = 12


def drawn(pool: Pool, count: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of so many frames with labels of the teacher, and of students."""
    rng, by = np.random.default_rng(seed), pool.table["labeller"]
    rows = {"teacher": np.flatnonzero(by == TEACHER), "student": np.flatnonzero(by >= 0)}
    return {who: np.sort(rng.permutation(some)[:count]) for who, some in rows.items() if len(some)}


def measured(pool: Pool, target: str, count: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Who labelled -> frames, failed, and the force error of the labels (meV/Å), mean and frame by frame."""
    found = {}
    for who, rows in drawn(pool, count, 0).items():
        some = pool.frames.select(rows)
        bare = some.without_labels(velocities=False)
        made = label_frames(bare, label_maker(target), folder / who, timeout=3600.0, retries=1)
        lost = {one.index for one in made.failed}
        said = some.select([k for k in range(len(some)) if k not in lost])
        errors = 1000 * frame_errors(said, made.frames)["forces"]
        found[who] = {
            "frames": len(said), "failed": len(lost), "forces_mae": float(errors.mean()),
            "each": [round(float(one), 2) for one in errors],
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each pool and labeller")
    given = parser.parse_args()
    for name, target in TARGETS.items():
        study = Study(PLAN, name)
        for encoder, arm, seed in study.arms_and_seeds():
            folder = study.folder(encoder, arm, seed)
            if arm != LOOP or not (folder / "facts.json").is_file():
                continue
            plan: Any = LoopPlan.from_json(read_json(folder / "plan.json"))
            for stage in (*plan.of("pool"), *plan.of("renew")):
                place = ROOT / "labels" / name / encoder / f"{seed}_{stage.name}_{given.frames}"
                # All seeds share the first pool.
                if (place / "done").is_file() or (not stage.round and seed != study.seeds[0]):
                    continue
                found = measured(Pool.open(folder / plan.folder(stage.name)), target, given.frames, place)
                keep("ipip_labels", {
                    "study": name, "plan": Path(PLAN).stem, "encoder": encoder, "seed": seed, "round": stage.round,
                    "target": target, "command": command(), **found,
                })  # fmt: skip
                (place / "done").touch()


if __name__ == "__main__":
    main()
