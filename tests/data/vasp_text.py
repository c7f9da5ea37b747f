"""Minimal OUTCAR and vasprun.xml texts, with as many ionic steps and electronic iterations as a test wants."""

from __future__ import annotations

from collections.abc import Sequence

HEADER = """ vasp.5.4.4.18Apr17-6-g9f103f2a35 (build Jul 12 2018 13:43:46) complex
 executed on             LinuxGNU date 2019.06.30  23:05:26
 POTCAR:    PAW_PBE H 15Jun2001
 POTCAR:    PAW_PBE O 08Apr2002
 POTCAR:    PAW_PBE H 15Jun2001
 POTCAR:    PAW_PBE O 08Apr2002
   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      1
   ions per type =               2   1
   ISPIN  =      1    spin polarized calculation?
   METAGGA=      F    non-selfconsistent MetaGGA calc.
   ENCUT  =  400.0 eV  29.40 Ry    5.42 a.u.  15.89 16.25 16.10*2*pi/ulx,y,z
   NELM   =     {nelm};   NELMIN=  2; NELMDL= -5     # of ELM steps
   EDIFF  = 0.1E-05   stopping-criterion for ELM
   IBRION =      {ibrion}    ionic relax: 0-MD 1-quasi-New 2-CG
   POTIM  = 0.5000    time-step for ionic-motion
   ISMEAR =     1;   SIGMA  =   0.20  broadening in eV -4-tet -1-fermi 0-gaus
   GGA     =    PE    GGA type
 k-points in reciprocal lattice and weights: Gamma
   0.00000000  0.00000000  0.00000000       1.000
"""

STEP = """{iterations}
      direct lattice vectors                 reciprocal lattice vectors
     8.000000000  0.000000000  0.000000000     0.125000000  0.000000000  0.000000000
     0.000000000  9.000000000  0.000000000     0.000000000  0.111111111  0.000000000
     0.000000000  0.000000000 10.000000000     0.000000000  0.000000000  0.100000000
  in kB      10.00000    20.00000    30.00000     4.00000     5.00000     6.00000
 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      {x:.5f}      0.00000      0.00000         0.100000      0.200000      0.300000
      0.00000      0.96000      0.00000        -0.100000      0.000000      0.000000
      0.00000      0.00000      0.00000         0.000000     -0.200000     -0.300000
 -----------------------------------------------------------------------------------
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =       {free:.8f} eV

  energy  without entropy=      -14.00000000  energy(sigma->0) =      {zero:.8f}
"""


def outcar(iterations: Sequence[int], nelm: int = 15, ibrion: int = 0, says: bool = True) -> str:
    """An OUTCAR whose k-th ionic step took `iterations[k]` electronic ones; `says`: it tells when EDIFF was reached."""
    text = HEADER.format(nelm=nelm, ibrion=ibrion)
    for step, count in enumerate(iterations):
        lines = [
            f"------------------------ Iteration {step + 1:6d}({i + 1:4d})  ------------------------"
            for i in range(count)
        ]
        if says:
            reached = "because EDIFF is reached" if count < nelm else "EDIFF was not reached (unconverged)"
            lines.append(f"------------------------ aborting loop {reached} ------------------------")
        text += STEP.format(
            iterations="\n".join(lines), x=0.96 + 0.01 * step, free=-14.2 - 0.1 * step, zero=-14.1 - 0.1 * step
        )
    return text


CALCULATION = """ <calculation>
{steps}
  <structure>
   <crystal><varray name="basis"><v>8 0 0</v><v>0 9 0</v><v>0 0 10</v></varray></crystal>
   <varray name="positions"><v>{x:.8f} 0 0</v><v>0 0.1 0</v><v>0 0 0</v></varray>
  </structure>
  <varray name="forces"><v>0.1 0.2 0.3</v><v>-0.1 0 0</v><v>0 -0.2 -0.3</v></varray>
  <varray name="stress"><v>10 4 6</v><v>4 20 5</v><v>6 5 30</v></varray>
  <energy><i name="e_fr_energy">{free:.8f}</i><i name="e_wo_entrp">-14.0</i><i name="e_0_energy">0.0</i></energy>
 </calculation>
"""


def vasprun(iterations: Sequence[int], nelm: int = 60) -> str:
    """The same run as a vasprun.xml."""
    text = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i></generator>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
 <parameters>
  <i name="ENCUT">400.0</i><i type="int" name="NELM">{nelm}</i><i type="int" name="IBRION">0</i>
  <i name="POTIM">0.5</i><i type="int" name="ISMEAR">1</i>
 </parameters>
 <atominfo><array name="atoms"><set>
  <rc><c>H </c><c>1</c></rc><rc><c>H </c><c>1</c></rc><rc><c>O </c><c>2</c></rc>
 </set></array></atominfo>
 <structure name="initialpos">
  <crystal><varray name="basis"><v>8 0 0</v><v>0 9 0</v><v>0 0 10</v></varray></crystal>
  <varray name="positions"><v>0.12 0 0</v><v>0 0.1 0</v><v>0 0 0</v></varray>
 </structure>
"""
    for step, count in enumerate(iterations):
        free = -14.2 - 0.1 * step
        one = (
            f'  <scstep><energy><i name="e_fr_energy">{free}</i><i name="e_0_energy">{free + 0.1}</i></energy></scstep>'
        )
        text += CALCULATION.format(steps="\n".join([one] * count), x=0.12 + 0.001 * step, free=free)
    return text + "</modeling>\n"
