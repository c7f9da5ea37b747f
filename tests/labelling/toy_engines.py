"""Engines that do wrong on purpose: the first atom of a frame says how."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlipkit.data import FrameSet
from mlipkit.labelling import LabelMakerError, Labels

GOOD, SEGFAULT, EXIT, HANG, NAN, SHAPE, HUGE, RAISE, SAYS_NO, ONCE = [
    "H",
    "He",
    "Li",
    "Be",
    "B",
    "C",
    "N",
    "O",
    "F",
    "Ne",
]
CHATTER = "chatter that must not end up among the answers"
SPRING = 2.0


class Toy:
    """Atoms on springs to the origin; anything but hydrogen in front goes wrong.

    Args:
        seconds: that every frame takes.
        diary: file to which every frame is noted as it is begun.
    """

    def __init__(self, seconds: float = 0.0, diary: str = "", version: str = "1") -> None:
        self.seconds, self.diary, self.name, self.version = seconds, diary, "toy springs", version

    def describe(self) -> dict[str, Any]:
        return {"engine": "toy", "version": self.version, "level_of_theory": "springs", "settings": {},
                "elements": None, "method": "springs"}  # fmt: skip

    def label(self, atoms: Atoms) -> Labels:
        self._note(atoms)
        time.sleep(self.seconds)
        print(CHATTER)  # noqa: T201 - as engines do
        labels = springs(atoms)
        kind = atoms.get_chemical_symbols()[0]
        if kind == SEGFAULT:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == EXIT:
            sys.stderr.write("no licence left\n")
            sys.stderr.flush()
            os._exit(3)
        elif kind == HANG:
            time.sleep(1000)
        elif kind == RAISE:
            raise ValueError("the engine\ngave up")
        elif kind == SAYS_NO:
            raise LabelMakerError(f"SCF not converged in {len(atoms)} cycles")
        elif kind == ONCE and self._times(atoms) < 2:
            os.kill(os.getpid(), signal.SIGABRT)
        return {
            NAN: Labels(np.nan, labels.forces), SHAPE: Labels(0.0, np.zeros((7, 3))),
            HUGE: Labels(0.0, np.full((len(atoms), 3), 1e5)),
        }.get(kind, labels)  # fmt: skip

    def _note(self, atoms: Atoms) -> None:
        if self.diary:
            with open(self.diary, "a") as file:
                file.write(json.dumps(atoms.info["uid"]) + "\n")

    def _times(self, atoms: Atoms) -> int:
        return Path(self.diary).read_text().count(atoms.info["uid"])


def springs(atoms: Atoms) -> Labels:
    """E = k/2 sum r², F = -k r."""
    return Labels(0.5 * SPRING * float((atoms.positions**2).sum()), -SPRING * atoms.positions)


def unbuildable() -> Toy:
    raise RuntimeError("no licence")


def dies_at_once() -> Toy:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def frames_of(kinds: list[str], seed: int = 0) -> FrameSet:
    """One frame of two to four atoms for each kind, with provenance, velocities and labels of somebody else."""
    rng = np.random.default_rng(seed)
    sizes = [2 + k % 3 for k in range(len(kinds))]
    n = sum(sizes)
    numbers = np.concatenate(
        [[atomic_numbers[kind], *[1] * (size - 1)] for kind, size in zip(kinds, sizes, strict=True)]
    )
    return FrameSet.from_arrays(
        numbers, rng.normal(size=(n, 3)), sizes, velocities=rng.normal(size=(n, 3)), energy=rng.normal(size=len(kinds)),
        forces=rng.normal(size=(n, 3)), source=[f"run_{k % 2}" for k in range(len(kinds))],
        trajectory=np.arange(len(kinds)) % 2, time=np.arange(len(kinds)) * 10.0, tag="picked",
    )  # fmt: skip
