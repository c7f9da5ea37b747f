"""Small real work for runs: a copper cluster in EMT, and labelled frames of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

CALCULATORS = """
import time
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.cluster import Octahedron


def emt():
    return EMT()


class Slow(EMT):
    def calculate(self, *args, **kwargs):
        time.sleep(0.004)
        super().calculate(*args, **kwargs)


def slow():
    return Slow()


class Breaking(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        self.calls += 1
        if self.calls > 30:
            raise ValueError("the engine\\ngave up")
        super().calculate(*args, **kwargs)


def breaking():
    return Breaking()


def cluster():
    return Octahedron("Cu", 2, 0)


def nothing():
    return 42
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    """An empty working folder with calculator factories in calc.py; runs of this test wait for nobody else's."""
    (tmp_path / "calc.py").write_text(CALCULATORS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("MLIPKIT_CORES", "8")
    return tmp_path


@pytest.fixture
def frames(work: Path) -> Path:
    """40 labelled frames of a hot copper cluster, one trajectory."""
    from ase import units
    from ase.calculators.emt import EMT
    from ase.cluster import Octahedron
    from ase.io import write
    from ase.md.langevin import Langevin

    atoms = Octahedron("Cu", 2, 0)
    atoms.calc = EMT()
    images = []
    md = Langevin(atoms, 4 * units.fs, temperature_K=500, friction=0.05, fixcm=False, rng=np.random.default_rng(0))
    for _ in range(40):
        md.run(5)
        image = atoms.copy()
        image.info["energy"] = atoms.get_potential_energy()
        image.arrays["forces"] = atoms.get_forces()
        images.append(image)
    path = work / "cu.xyz"
    write(path, images, format="extxyz")
    return path
