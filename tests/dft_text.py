"""Outputs of VASP and CP2K as the programs print them, for any structure, labels and settings; and template folders.

Numbers are printed with the programs' own digits, so that a test knows which float64 a reader must find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from mlipkit.units import BOHR, GPA, HARTREE

VALENCE = {"H": 1.0, "O": 6.0, "C": 4.0, "Co": 9.0}
RULE = "-" * 104


@dataclass(frozen=True)
class Run:
    """What a calculation was and gave. Arrays in the order of the input."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    forces: np.ndarray
    energy: float = -14.2
    zero: float = -14.1
    stress: np.ndarray = field(default_factory=lambda: np.diag([0.01, 0.02, 0.03]))
    encut: float = 400.0
    mesh: tuple[int, int, int] = (2, 2, 2)
    gamma: bool = True
    functional: str = "PE"
    gga: str = "--"
    ismear: int = 0
    nelm: int = 60
    iterations: int = 12
    ended: bool = True
    steps: int = 1
    says: bool = True
    titles: dict[str, str] = field(default_factory=dict)
    version: str = "5.4.4.18Apr17"
    spacing: bool = False
    selective: bool = False

    def but(self, **changes: object) -> Run:
        """The same but for some things."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """Runs of elements, in order."""
        found: list[tuple[str, int]] = []
        for z in self.numbers:
            symbol = chemical_symbols[int(z)]
            if found and found[-1][0] == symbol:
                found[-1] = (symbol, found[-1][1] + 1)
            else:
                found.append((symbol, 1))
        return found

    def title(self, symbol: str) -> str:
        """Title of the dataset of an element."""
        return self.titles.get(symbol, f"PAW_PBE {symbol} 08Apr2002")


def outcar(run: Run) -> str:
    """An OUTCAR in the words and columns of VASP 5.4."""
    kinds = run.kinds
    lines = [f" vasp.{run.version}-6-g9f103f2a35 (build Jul 12 2018 13:43:46) complex",
             " executed on             LinuxGNU date 2019.06.30  23:05:26", "", " INCAR:"]  # fmt: skip
    lines += [f" POTCAR:    {run.title(symbol):<38s}" for symbol, _ in kinds]
    for symbol, _ in kinds:
        lines += [f" POTCAR:    {run.title(symbol):<38s}", f"   VRHFIN ={symbol}: s2p4",
                  f"   LEXCH  = {run.functional}",
                  f"   TITEL  = {run.title(symbol)}",
                  f"   POMASS =   15.999; ZVAL   =    {VALENCE[symbol]:.3f}    mass and valenz",
                  "   ENMAX  =  400.000; ENMIN  =  300.000 eV", "   EAUG   =  605.392"]  # fmt: skip
    points = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]] if run.gamma else [[0.25, 0.25, 0.25], [-0.25, 0.25, 0.25]]
    if run.mesh == (1, 1, 1):
        points = [[0.0, 0.0, 0.0]]
    source = "read from INCAR" if run.spacing else "Automatic mesh"
    electrons = sum(VALENCE[symbol] * count for symbol, count in kinds)
    valences = "".join(f"{VALENCE[symbol]:7.2f}" for symbol, _ in kinds)
    counts = "".join(f"{n:4d}" for _, n in kinds)
    lines += [
        "Automatic generation of k-mesh.", " generate k-points for:" + "".join(f"{n:5d}" for n in run.mesh),
        " Dimension of arrays:",
        f"   k-points           NKPTS ={len(points):7d}   k-points in BZ     NKDIM ={len(points):7d}",
        f"   number of dos      NEDOS =    301   number of ions     NIONS ={len(run.numbers):7d}",
        f"   ions per type =            {counts}", "", " Startparameter for this run:",
        "   NWRITE =      2    write-flag & timer",
        "   PREC   = accura    normal or accurate (medium, high low for compatibility)",
        "   ISPIN  =      1    spin polarized calculation?", "   LSORBIT =      F    spin-orbit coupling",
        "   LASPH  =      F    aspherical Exc in radial PAW", "   METAGGA=      F    non-selfconsistent MetaGGA calc.",
        f"   ENCUT  = {run.encut:6.1f} eV  29.40 Ry    5.42 a.u.  15.89 16.25 16.10*2*pi/ulx,y,z",
        f"   NELM   ={run.nelm:7d};   NELMIN=  2; NELMDL= -5     # of ELM steps",
        "   EDIFF  = 0.1E-05   stopping-criterion for ELM", "   LREAL  =      F    real-space projection",
        f"   NSW    ={run.steps - 1:7d}    number of steps for IOM", "   IBRION =     -1    ionic relax: 0-MD",
        "  Ionic Valenz", f"   ZVAL   ={valences}", f"   NELECT ={electrons:13.4f}    total number of electrons",
        f"   ISMEAR ={run.ismear:6d};   SIGMA  =   0.05  broadening in eV -4-tet -1-fermi 0-gaus",
        "   LDIPOL =      F    correct potential (dipole corrections)", "   IDIPOL =      0    1-x, 2-y, 3-z",
        " Exchange correlation treatment:", f"   GGA     =    {run.gga}    GGA type",
        "   LEXCH   =     8    internal setting for exchange type", "   LHFCALC =     F    Hartree Fock is set to",
        "   AEXX    =    0.0000 exact exchange contribution",
        f" k-points in reciprocal lattice and weights: {source:<30s}",
        *(f"  {a:11.8f} {b:11.8f} {c:11.8f}       0.500" for a, b, c in points), "", RULE,
    ]  # fmt: skip
    for step in range(run.steps):
        lines += _outcar_step(run, step)
    if run.ended:
        lines += ["", " General timing and accounting informations for this job:",
                  " ========================================================", "",
                  "                         Elapsed time (sec):      124.967",
                  "                 Voluntary context switches:            0"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _outcar_step(run: Run, step: int) -> list[str]:
    lines: list[str] = []
    for k in range(run.iterations):
        lines += [f"{RULE[:39]} Iteration {step + 1:6d}({k + 1:4d})  {RULE[:39]}", "",
                  f"  free energy    TOTEN  =   {run.energy + 0.1:18.8f} eV", ""]  # fmt: skip
    if run.says and run.iterations < run.nelm:
        lines.append(f"{RULE[:24]} aborting loop because EDIFF is reached {RULE[:40]}")
    kbar = -run.stress / (0.1 * GPA)
    voigt = [kbar[0, 0], kbar[1, 1], kbar[2, 2], kbar[0, 1], kbar[1, 2], kbar[0, 2]]
    inverse = np.linalg.inv(run.cell).T
    lines += ["", "  FORCE on cell =-STRESS in cart. coord.  units (eV):",
              "  in kB  " + "".join(f"{value:12.5f}" for value in voigt), "  external pressure =        0.00 kB",
              "", " VOLUME and BASIS-vectors are now :", RULE,
              f"  energy-cutoff  :  {run.encut:10.2f}", "  volume of cell :      500.00",
              "      direct lattice vectors                 reciprocal lattice vectors"]  # fmt: skip
    lines += ["  " + "".join(f"{v:13.9f}" for v in a) + "  " + "".join(f"{v:13.9f}" for v in b)
              for a, b in zip(run.cell, inverse, strict=True)]  # fmt: skip
    lines += ["", " POSITION                                       TOTAL-FORCE (eV/Angst)",
              " " + "-" * 83]  # fmt: skip
    moved = run.positions + 0.05 * step
    lines += ["".join(f"{v:13.5f}" for v in p) + "    " + "".join(f"{v:14.6f}" for v in f)
              for p, f in zip(moved, run.forces, strict=True)]  # fmt: skip
    free, zero = run.energy - step, run.zero - step
    drift = "".join(f"{0.0:14.6f}" for _ in "xyz")
    return [*lines, " " + "-" * 83, f"    total drift:                          {drift}",
            "", RULE, "", "", "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
            "  ---------------------------------------------------", f"  free  energy   TOTEN  = {free:18.8f} eV", "",
            f"  energy  without entropy={free:18.8f}  energy(sigma->0) ={zero:18.8f}", "", ""]  # fmt: skip


def vasprun(run: Run) -> str:
    """A vasprun.xml in the elements and columns of VASP 6."""
    kinds = run.kinds
    vectors = "\n".join(f"    <v>{row[0]:17.8f}{row[1]:17.8f}{row[2]:17.8f} </v>" for row in run.cell)
    mesh = " ".join(f"{n:8d}" for n in run.mesh)
    points = ["0.0 0.0 0.0"] if run.gamma else ["0.25 0.25 0.25"]
    electrons = sum(VALENCE[symbol] * count for symbol, count in kinds)
    atoms = "\n".join(
        f"    <rc><c>{symbol:<2s}</c><c>{k:4d}</c></rc>" for k, (symbol, n) in enumerate(kinds, 1) for _ in range(n)
    )
    types = "\n".join(
        f"    <rc><c>{n:4d}</c><c>{symbol:<2s}</c><c>{12.0:15.8f}</c><c>{VALENCE[symbol]:15.8f}</c>"
        f"<c>  {run.title(symbol):<38s}</c></rc>"
        for symbol, n in kinds
    )
    text = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator>
  <i name="program" type="string">vasp </i>
  <i name="version" type="string">{run.version.partition("-")[0]}  </i>
 </generator>
 <incar>
  <i type="string" name="PREC">accurate</i>
  <i name="ENCUT">{run.encut:16.8f}</i>
 </incar>
 <kpoints>
  <generation param="Gamma">
   <v type="int" name="divisions">{mesh} </v>
  </generation>
  <varray name="kpointlist" >
   <v> {points[0]} </v>
  </varray>
  <varray name="weights" >
   <v>       1.00000000 </v>
  </varray>
 </kpoints>
 <parameters>
  <separator name="electronic" >
   <i type="string" name="PREC">accura</i>
   <i name="ENMAX">{run.encut:16.8f}</i>
   <i name="NELECT">{electrons:16.8f}</i>
   <i type="int" name="ISMEAR">{run.ismear:6d}</i>
   <i name="SIGMA">      0.05000000</i>
   <i name="KSPACING">      0.50000000</i>
   <i type="int" name="ISPIN">     1</i>
   <i type="logical" name="LASPH"> F  </i>
   <i type="int" name="NELM">{run.nelm:6d}</i>
   <i type="int" name="NSW">{run.steps - 1:6d}</i>
  </separator>
  <separator name="electronic exchange-correlation" >
   <i type="string" name="GGA">{run.gga}</i>
   <i type="logical" name="LHFCALC"> F  </i>
  </separator>
 </parameters>
 <atominfo>
  <atoms>{len(run.numbers):8d} </atoms>
  <types>{len(kinds):8d} </types>
  <array name="atoms" >
   <set>
{atoms}
   </set>
  </array>
  <array name="atomtypes" >
   <set>
{types}
   </set>
  </array>
 </atominfo>
 <structure name="initialpos" >
{_xml_structure(run, vectors, 0)}
{_xml_selective(run)}
 </structure>
"""
    for step in range(run.steps):
        text += _xml_step(run, vectors, step)
    return text + ("</modeling>\n" if run.ended else "")


def _xml_selective(run: Run) -> str:
    if not run.selective:
        return ""
    rows = "\n".join('   <v type="logical" > F  F  F  </v>' for _ in run.numbers)
    return f'  <varray name="selective" >\n{rows}\n  </varray>'


def _xml_structure(run: Run, vectors: str, step: int) -> str:
    scaled = np.linalg.solve(run.cell.T, (run.positions + 0.05 * step).T).T
    rows = "\n".join(f"   <v>{a:17.8f}{b:17.8f}{c:17.8f} </v>" for a, b, c in scaled)
    return f"""  <crystal>
   <varray name="basis" >
{vectors}
   </varray>
  </crystal>
  <varray name="positions" >
{rows}
  </varray>"""


def _xml_step(run: Run, vectors: str, step: int) -> str:
    free, zero = run.energy - step, run.zero - step
    energy = f"""   <energy>
    <i name="e_fr_energy">{free:16.8f} </i>
    <i name="e_wo_entrp">{free:16.8f} </i>
    <i name="e_0_energy">{zero:16.8f} </i>
   </energy>"""
    steps = "\n".join(f"  <scstep>\n{energy}\n  </scstep>" for _ in range(run.iterations))
    forces = "\n".join(f"   <v>{a:17.8f}{b:17.8f}{c:17.8f} </v>" for a, b, c in run.forces)
    stress = "\n".join(f"   <v>{a:17.8f}{b:17.8f}{c:17.8f} </v>" for a, b, c in -run.stress / (0.1 * GPA))
    return f""" <calculation>
{steps}
  <structure>
{_xml_structure(run, vectors, step)}
  </structure>
  <varray name="forces" >
{forces}
  </varray>
  <varray name="stress" >
{stress}
  </varray>
{energy}
 </calculation>
"""


def cp2k_log(
    run: Run, new: bool = False, cutoff: float = 300.0, functional: str = "PBE", kpoints: str = "",
    converged: bool = True, aborted: bool = False, vdw: bool = False,
) -> str:  # fmt: skip
    """A log of CP2K 8 or, `new`, of 2025: forces and stress have other tables and units."""
    lines = [" DBCSR| Multrec recursion limit                                              512", "",
             "  **** **** ******  **  PROGRAM STARTED AT               2021-12-13 10:23:29.805",
             " ***** ** ***  *** **   PROGRAM STARTED ON                                   cn9", "",
             f" CP2K| version string: {'CP2K version ' + ('2025.2' if new else '8.1'):>57s}",
             " GLOBAL| Run type                                                   ENERGY_FORCE", ""]  # fmt: skip
    for name, row in zip("abc", run.cell, strict=True):
        values = "".join(f"{value:10.3f}" for value in row)
        lines.append(f" CELL_TOP| Vector {name} [angstrom{values}   |{name}| ={np.linalg.norm(row):13.6f}")
    for name, row in zip("abc", run.cell, strict=True):
        values = "".join(f"{value:10.3f}" for value in row)
        lines.append(f" CELL| Vector {name} [angstrom]: {values}   |{name}| ={np.linalg.norm(row):13.6f}")
    lines += ["", " DFT| Spin restricted Kohn-Sham (RKS) calculation                            RKS",
              " DFT| Multiplicity                                                             1",
              " DFT| Charge                                                                   0",
              " FUNCTIONAL| ROUTINE=NEW", f" FUNCTIONAL| {functional}:",
              " FUNCTIONAL| J.P.Perdew, K.Burke, M.Ernzerhof, Phys. Rev. Letter, vol. 77, n 18,"]  # fmt: skip
    if vdw:
        lines += [" vdW POTENTIAL|                                                   Pair Potential",
                  " vdW POTENTIAL|          DFT-D3 (Version 3.1)"]  # fmt: skip
    lines += ["", " QS| Method:                                                                 GPW",
              f" QS| Density cutoff [a.u.]: {cutoff:52.1f}",
              f" QS| Multi grid cutoff [a.u.]: 1) grid level {cutoff:35.1f}",
              " QS| Relative density cutoff [a.u.]:                                        25.0", "",
              " ATOMIC KIND INFORMATION", ""]  # fmt: skip
    kinds = list(dict.fromkeys(chemical_symbols[int(z)] for z in run.numbers))
    for k, symbol in enumerate(kinds, 1):
        lines += [f"  {k}. Atomic kind: {symbol:<2s}                                    Number of atoms:      32", "",
                  "     Orbital Basis Set                                        DZVP-MOLOPT-SR-GTH", "",
                  f"     GTH Potential information for {f'GTH-PBE-q{VALENCE[symbol]:.0f}':>45s}",
                  ""]  # fmt: skip
    if kpoints:
        lines += [" BRILLOUIN| K-point scheme                                        Monkhorst-Pack",
                  f" BRILLOUIN| K-Point grid                                            {kpoints}"]  # fmt: skip
    lines += ["", " MODULE QUICKSTEP:  ATOMIC COORDINATES IN angstrom", "",
              "  Atom  Kind  Element       X           Y           Z          Z(eff)       Mass", ""]  # fmt: skip
    for k, (z, row) in enumerate(zip(run.numbers, run.positions, strict=True), 1):
        symbol = chemical_symbols[int(z)]
        values = "".join(f"{value:12.6f}" for value in row)
        lines.append(f"{k:8d}{kinds.index(symbol) + 1:6d} {symbol:<2s}{int(z):4d}{values}"
                     f"{VALENCE[symbol]:12.4f}{atomic_masses[int(z)]:13.4f}")  # fmt: skip
    lines += ["", "", " POISSON| Periodicity                                                        XYZ", "",
              " SCF WAVEFUNCTION OPTIMIZATION", ""]  # fmt: skip
    for step in range(run.steps):
        lines += _cp2k_step(run, new, converged, step)
    if aborted:
        lines += [" *******************************************************************************",
                  " *   ___                                                                       *",
                  " *  /   \\                                                                      *",
                  " * [ABORT]                                                                     *",
                  " *  \\___/     CPASSERT failed                                                  *"]  # fmt: skip
    elif run.ended:
        lines += ["  **** **** ******  **  PROGRAM ENDED AT                 2021-12-13 10:26:01.860"]
    return "\n".join(lines) + "\n"


def _cp2k_step(run: Run, new: bool, converged: bool, step: int) -> list[str]:
    energy = (run.energy - step) / HARTREE
    if converged:
        lines = ["  *** SCF run converged in    12 steps ***", ""]
    else:
        lines = ["  Leaving inner SCF loop after reaching    20 steps.", "",
                 " *** WARNING in qs_scf.F:542 :: SCF run NOT converged ***", ""]  # fmt: skip
    forces, pressure = run.forces / HARTREE * BOHR, -run.stress / GPA
    if new:
        lines += [f" ENERGY| Total FORCE_EVAL ( QS ) energy [hartree] {energy:30.15f}", "",
                  " FORCES| Atomic forces [hartree/bohr]",
                  " FORCES|   Atom     x                   y                   z                   |f|"]  # fmt: skip
        lines += [f" FORCES| {k:6d}" + "".join(f"{v:17.8E}" for v in (*row, np.linalg.norm(row)))
                  for k, row in enumerate(forces, 1)]  # fmt: skip
        lines += [" FORCES| Sum      1.0E-12  9.0E-12 -1.5E-02", " FORCES| Total atomic force   2.8E-04", "",
                  " STRESS| Analytical stress tensor [bar]"]  # fmt: skip
        pressure = pressure * 1e4
    else:
        lines += [f" ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]: {energy:32.15f}", "", "",
                  " ATOMIC FORCES in [a.u.]", "",
                  " # Atom   Kind   Element          X              Y              Z"]  # fmt: skip
        lines += [f"{k:7d}{1:7d}      {chemical_symbols[int(z)]:<2s}    " + "".join(f"{v:15.8f}" for v in row)
                  for k, (z, row) in enumerate(zip(run.numbers, forces, strict=True), 1)]  # fmt: skip
        lines += [" SUM OF ATOMIC FORCES           0.00000794     0.00013899     0.00007270     0.00015705", "",
                  " STRESS| Analytical stress tensor [GPa]"]  # fmt: skip
    lines += [" STRESS|                        x                   y                   z"]
    lines += [
        f" STRESS|      {axis}" + "".join(f"{v:20.11E}" for v in row) for axis, row in zip("xyz", pressure, strict=True)
    ]
    return [*lines, " STRESS| 1/3 Trace                                             4.62050707128E+00", ""]


# ---- templates

INCAR = "ENCUT = 400  # eV\nISMEAR = 0; SIGMA = 0.05\nPREC = Accurate\nEDIFF = 1E-6\nNSW = 0\n"
KPOINTS = "mesh\n0\nGamma\n2 2 2\n0 0 0\n"
CP2K_INPUT = """@SET NAME water
&GLOBAL
  PROJECT ${NAME}
  RUN_TYPE ENERGY_FORCE
&END GLOBAL
&FORCE_EVAL
  METHOD Quickstep
  STRESS_TENSOR ANALYTICAL
  &DFT
    BASIS_SET_FILE_NAME BASIS_MOLOPT
    &MGRID
      CUTOFF 600
      REL_CUTOFF 50
    &END MGRID
    &XC
      &XC_FUNCTIONAL PBE
      &END XC_FUNCTIONAL
    &END XC
  &END DFT
  &PRINT
    &FORCES ON
    &END FORCES
    &STRESS_TENSOR ON
    &END STRESS_TENSOR
  &END PRINT
  &SUBSYS
    &CELL
      ABC 1.0 1.0 1.0   ! replaced
      &CELL_REF
        ABC 2 2 2
      &END CELL_REF
    &END CELL
    &COORD
      @INCLUDE old.xyz
    &END COORD
    &TOPOLOGY
      COORD_FILE_NAME old.xyz
    &END TOPOLOGY
    &KIND H
      BASIS_SET DZVP-MOLOPT-SR-GTH
      POTENTIAL GTH-PBE-q1
    &END KIND
    &KIND O
      BASIS_SET DZVP-MOLOPT-SR-GTH
      POTENTIAL GTH-PBE-q6
    &END KIND
  &END SUBSYS
&END FORCE_EVAL
"""


def potcar(symbols: Sequence[str]) -> str:
    """Datasets with what identifies them and nothing else."""
    return "".join(
        f"  PAW_PBE {s} 08Apr2002\n {VALENCE[s]}\n   VRHFIN ={s}: s2p4\n   LEXCH  = PE\n"
        f"   TITEL  = PAW_PBE {s} 08Apr2002\n"
        f"   ENMAX  =  400.000\n End of Dataset\n"
        for s in symbols
    )


def vasp_template(folder: Path, species: Sequence[str] | None = ("O", "H"), **files: str) -> Path:
    """A folder of VASP inputs; `species` None leaves the POTCAR out."""
    folder.mkdir(parents=True)
    made = {"INCAR": INCAR, "KPOINTS": KPOINTS, "job.sh": "#!/bin/sh\nmpirun vasp_std\n"}
    if species is not None:
        made["POTCAR"] = potcar(species)
    for name, text in {**made, **files}.items():
        if text:
            (folder / name).write_text(text)
    (folder / "job.sh").chmod(0o755)
    return folder


def cp2k_template(folder: Path, text: str = CP2K_INPUT) -> Path:
    """A folder of CP2K inputs."""
    folder.mkdir(parents=True)
    (folder / "water.inp").write_text(text)
    (folder / "run.sh").write_text("cp2k.psmp water.inp > water.out\n")
    return folder
