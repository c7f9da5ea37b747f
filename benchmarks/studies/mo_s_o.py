"""Frames of one Mo3O9 and 12 S2 in a cell of 20 Å, labelled with GFN1-xTB: a reactive case of `ipip_small.yaml`.

    python benchmarks/studies/mo_s_o.py                    # all frames; killed and called again it goes on
    python benchmarks/studies/mo_s_o.py --frames 6 --steps 60 --root /somewhere/else
    python benchmarks/studies/mo_s_o.py --sulfur 72 --cell 55 --frames 2000    # as published, for `ipip_paper.yaml`

Packings from their own seeds are relaxed a little and simulated with the sampler (a universal potential for all these
elements) at two temperatures, hot enough for molecules to react; frames of every simulation are taken evenly, so that
they come from before and after what happens, and labelled. A frame on which the electrons do not converge costs
itself and is counted. They are written to `build/studies/ipip/data/mo_s_o.extxyz` (`mo_s_o_72.extxyz` with 72 S2), with
a trajectory number for the split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write as write_atoms

from mlipkit.data import FrameSet, read
from mlipkit.data import write as write_frames
from mlipkit.labelling import label_frames, label_maker
from mlipkit.runs import MDSpec, RelaxSpec, launch

HERE = Path(__file__).resolve()
DATA = HERE.parents[2] / "build" / "studies" / "ipip" / "data"
CELL, SULFUR, NEAREST = 20.0, 12, 3.0
STARTS, TEMPERATURES, FRAMES, STEPS = 4, (1500.0, 2500.0), 200, 2000
RING, BRIDGE, TERMINAL, BOND = 1.9, 2.2, 1.7, 1.9
"""Å: Mo and bridging O from the middle of the ring, Mo=O, S=S."""


def ring() -> Atoms:
    """Mo3O9: a ring of three Mo and three bridging O, two further O on every Mo."""
    numbers, places = [], []
    for k in range(3):
        out = np.array([np.cos(2 * np.pi * k / 3), np.sin(2 * np.pi * k / 3), 0.0])
        between = np.array([np.cos(2 * np.pi * (k + 0.5) / 3), np.sin(2 * np.pi * (k + 0.5) / 3), 0.0])
        numbers += [42, 8, 8, 8]
        places += [RING * out, BRIDGE * between]
        places += [RING * out + TERMINAL * (0.55 * out + np.array([0, 0, 0.835 * sign])) for sign in (1, -1)]
    return Atoms(numbers, places)


def packing(seed: int, cell: float = CELL, sulfur: int = SULFUR) -> Atoms:
    """The ring in the middle of the cell, S2 around it where there is room, all turned at random."""
    rng = np.random.default_rng(seed)
    made = ring()
    made.positions = made.positions @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + cell / 2
    made.cell, made.pbc = np.eye(3) * cell, True
    while len(made) < 12 + 2 * sulfur:
        axis = rng.normal(size=3)
        pair = rng.uniform(0, cell, 3) + np.outer([0.5, -0.5], BOND * axis / np.linalg.norm(axis))
        apart = pair[:, None] - made.positions
        if np.linalg.norm(apart - cell * np.round(apart / cell), axis=-1).min() >= NEAREST:
            made += Atoms("S2", pair)
    return made


def sampled(root: Path, sampler: str, steps: int, count: int, cell: float, sulfur: int) -> FrameSet:
    """Frames of all simulations, evenly from each, a trajectory number for each simulation."""
    starts = root / "starts.extxyz"
    starts.parent.mkdir(parents=True, exist_ok=True)
    if not starts.is_file():
        write_atoms(starts, [packing(seed, cell, sulfur) for seed in range(STARTS)])
    relaxed = [
        launch(RelaxSpec(start=f"{starts}@{k}", potential=sampler, fmax=0.5, steps=100, name=f"relax_{k}"), root=root)
        for k in range(STARTS)
    ]
    stride = min(steps, max(1, steps * STARTS * len(TEMPERATURES) // count))
    made = [
        launch(MDSpec(start=str(run.folder), potential=sampler, temperature=temperature, timestep=1.0, steps=steps,
                      stride=stride, friction=0.01, seed=k, name=f"md_{k}_{temperature:.0f}",
                      checks={"broken_bonds": False, "lone_atoms": False, "temperature": False}), root=root)
        for k, run in enumerate(relaxed) for temperature in TEMPERATURES
    ]  # fmt: skip
    images, trajectory = [], []
    for number, run in enumerate(made):
        print(run.wait().sentence, flush=True)
        # The start is the same at both temperatures.
        images_of: Any = run.trajectory()
        some = list(images_of)[1:]
        images += some
        trajectory += [number] * len(some)
    rows = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    frames = FrameSet.from_atoms([images[row] for row in rows], source="mo_s_o").without_labels(velocities=False)
    return frames.with_table(trajectory=np.array(trajectory)[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", default="universal:chgnet")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sulfur", type=int, default=SULFUR, help="S2 molecules")
    parser.add_argument("--cell", type=float, default=CELL, help="Å")
    parser.add_argument("--root", type=Path, default=DATA)
    given = parser.parse_args()
    name = "mo_s_o" if given.sulfur == SULFUR else f"mo_s_o_{given.sulfur}"
    work = given.root / name
    frames = sampled(work, given.sampler, given.steps, given.frames, given.cell, given.sulfur)
    # A frame takes seconds; on a machine that is busy, or while this is held, the clock says nothing of it.
    found = label_frames(frames, label_maker("gfn1-xtb"), work / "labels", timeout=3600.0, retries=1)
    for one in found.failed:
        print(f"no label: {one.reason}")
    place = given.root / f"{name}.extxyz"
    write_frames(place, found.frames)
    largest = float(np.linalg.norm(found.frames.forces, axis=1).max())
    print(json.dumps({"asked": len(frames), "labelled": len(found.frames), "failed": len(found.failed),
                      "seconds": round(found.seconds, 1), "largest_force": round(largest, 2),
                      "read_again": len(read(str(place)))}))  # fmt: skip


if __name__ == "__main__":
    main()
