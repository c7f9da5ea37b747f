"""Small files as a user brings them: an extended XYZ of ethanol, an OUTCAR of copper with its calculator beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

import mlipkit as mk

CALCULATOR = "from ase.calculators.emt import EMT\n\n\ndef make():\n    return EMT()\n"
HEAD = """ vasp.5.4.4.18Apr17-6-g9f103f2a35 (build Jul 12 2018 13:43:46) complex
 executed on             LinuxGNU date 2019.06.30  23:05:26
 POTCAR:    PAW_PBE Cu 22Jun2005
 POTCAR:    PAW_PBE Cu 22Jun2005
   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      1
   ions per type =               {n}
   ISPIN  =      1    spin polarized calculation?
   ENCUT  =  400.0 eV  29.40 Ry    5.42 a.u.  15.89 16.25 16.10*2*pi/ulx,y,z
   NELM   =     60;   NELMIN=  2; NELMDL= -5     # of ELM steps
   EDIFF  = 0.1E-05   stopping-criterion for ELM
   IBRION =      0    ionic relax: 0-MD 1-quasi-New 2-CG
   POTIM  = 20.0000    time-step for ionic-motion
   GGA     =    PE    GGA type
 k-points in reciprocal lattice and weights: Gamma
   0.00000000  0.00000000  0.00000000       1.000
"""
TURN = "------------------------ Iteration {step:6d}({turn:4d})  ------------------------"
REACHED = "------------------------ aborting loop because EDIFF is reached ------------------------"


def extxyz(path: Path, frames: int = 60) -> Path:
    """Some labelled frames of ethanol, under keys of their own."""
    every = 1000 // frames
    images = []
    for atoms in mk.samples.load("ethanol_300K")[::every]:
        image = Atoms(atoms.numbers, atoms.positions)
        image.info["dft_energy"] = atoms.calc.results["energy"]
        image.arrays["dft_forces"] = atoms.calc.results["forces"]
        images.append(image)
    from ase.io import write

    write(path, images, format="extxyz")
    return path


def hot_copper(frames: int = 40) -> list[Atoms]:
    """Frames of a periodic copper crystal at 600 K, with energy, forces and stress of EMT."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    md = Langevin(atoms, 5 * units.fs, temperature_K=600, friction=0.05, rng=np.random.default_rng(0))
    images = []
    for _ in range(frames):
        md.run(4)
        images.append(atoms.copy())
        images[-1].info = {"energy": atoms.get_potential_energy(), "stress": atoms.get_stress()}
        images[-1].arrays["forces"] = atoms.get_forces()
    return images


def outcar(path: Path, images: list[Atoms] | None = None) -> Path:
    """The frames as VASP prints an MD run."""
    images = hot_copper() if images is None else images
    text = [HEAD.format(n=len(images[0]))]
    for number, atoms in enumerate(images, start=1):
        energy = atoms.info["energy"]
        reciprocal = np.linalg.inv(atoms.cell.array).T
        stress = -np.asarray(atoms.info["stress"])[[0, 1, 2, 5, 3, 4]] / units.GPa * 10
        text += [TURN.format(step=number, turn=turn) for turn in (1, 2)]
        text += [REACHED, "      direct lattice vectors                 reciprocal lattice vectors"]
        text += [
            "  " + "".join(f"{x:13.9f}" for x in (*row, *other))
            for row, other in zip(atoms.cell.array, reciprocal, strict=True)
        ]
        text += ["  in kB " + "".join(f"{value:12.5f}" for value in stress)]
        text += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + "-" * 83]
        text += [
            "".join(f"{x:13.5f}" for x in row) + "    " + "".join(f"{x:14.6f}" for x in force)
            for row, force in zip(atoms.positions, atoms.arrays["forces"], strict=True)
        ]
        text += [" " + "-" * 83, "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + "-" * 51]
        text += [f"  free  energy   TOTEN  = {energy:18.8f} eV", ""]
        text += [f"  energy  without entropy= {energy:18.8f}  energy(sigma->0) = {energy:18.8f}"]
    path.write_text("\n".join(text) + "\n")
    return path
