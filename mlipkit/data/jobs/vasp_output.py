"""An OUTCAR, a vasprun.xml or both as one calculation: labels of the first ionic step, and what they were made with.

ASE reads the numbers (`mlipkit.data.format_vasp`). It says neither whether the electrons converged nor whether the run
came to its end, nor what the settings were; this file does.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms

from mlipkit.data.format_vasp import outcar_frames, vasprun_frames
from mlipkit.data.jobs import vasp_input as vasp
from mlipkit.data.jobs.outputs import Output, vasp_outputs
from mlipkit.data.jobs.vasp_head import OutcarHead, VasprunHead
from mlipkit.data.reading import BROKEN_STREAM, FileReport, open_bytes, open_text
from mlipkit.data.resolve import raw_frame, resolve
from mlipkit.errors import MlipkitError

NOT_ENDED = "not finished: {file} ends before the calculation did"
SAME_ENERGY, SAME_FORCE = 1e-4, 1e-4
"""eV, eV/Å: two files of one run differ by rounding only."""


def read_vasp(folder: Path) -> Output:
    """What the VASP outputs of a folder say; labels come from the vasprun.xml where it is whole, as it has more digits.

    Never raises for what lies in the folder: the reason stands in the result.
    """
    found = vasp_outputs(folder)
    if not found:
        return Output(reason="not started: neither OUTCAR nor vasprun.xml")
    spacing = _spacing_of(folder)
    read = [_guarded(_READERS[name], path, spacing) for name, path in found.items()]
    names = tuple(path.name for path in found.values())
    if len(read) == 1:
        return read[0]
    xml, out = read
    if len(xml.numbers) and len(out.numbers) and _clash(xml, out):
        return replace(out, files=names, state="failed", reason="OUTCAR and vasprun.xml hold different atoms or forces")
    ended = [one for one in read if one.state in ("done", "unconverged")]
    if len(ended) < 2:
        best = ended[0] if ended else out
        other = out if best is xml else xml
        return replace(best, notes=[*best.notes, f"{other.files[0]} not used: {other.reason}"] if ended else best.notes)
    xml = _with_energy_of(out, xml)
    # Only the OUTCAR says why the electronic loop was left; a loop may converge in its very last step.
    return replace(xml, files=names, state=out.state, reason=out.reason, settings={**xml.settings, **out.settings},
                   program=out.program or xml.program, seconds=out.seconds, notes=_unique(xml.notes + out.notes),
                   energy_zero=xml.energy_zero if np.isfinite(xml.energy_zero) else out.energy_zero)  # fmt: skip


def _spacing_of(folder: Path) -> str | None:
    """What stands for the mesh where VASP makes it from KSPACING; None where a KPOINTS file overrides that."""
    if (folder / "KPOINTS").is_file():
        return None
    try:
        text = (folder / "INCAR").read_text(encoding="latin-1")
        return vasp.spacing_words(float(vasp.incar_tags(text)["KSPACING"].split()[0]))
    except (OSError, KeyError, ValueError, IndexError):
        return "KSPACING"


def _guarded(read: Callable[[Path, str | None], Output], path: Path, spacing: str | None) -> Output:
    try:
        return replace(read(path, spacing), files=(path.name,))
    except BROKEN_STREAM as error:
        return Output((path.name,), reason=f"not finished: {path.name} is damaged or cut short ({error})")
    except UnicodeDecodeError:
        return Output((path.name,), "failed", f"{path.name} is not text")
    except OSError as error:
        return Output((path.name,), "failed", f"{path.name} cannot be read ({error.strerror or error})")
    except (ValueError, IndexError) as error:
        return Output((path.name,), "failed", f"{path.name} cannot be read ({type(error).__name__}: {error})")


def _clash(xml: Output, out: Output) -> bool:
    """Whether two files cannot be of one run."""
    if not np.array_equal(xml.numbers, out.numbers):
        return True
    return xml.forces.shape == out.forces.shape and bool((np.abs(xml.forces - out.forces) > SAME_FORCE).any())


def _with_energy_of(out: Output, xml: Output) -> Output:
    """Some versions leave the dispersion out of the energy in the vasprun.xml; the forces were found to be equal."""
    if abs(xml.energy - out.energy) <= SAME_ENERGY:
        return xml
    note = f"the energy is that of the OUTCAR; the vasprun.xml differs by {xml.energy - out.energy:.4f} eV"
    return replace(xml, energy=out.energy, energy_zero=out.energy_zero, notes=[*xml.notes, note])


def _unique(notes: list[str]) -> list[str]:
    return list(dict.fromkeys(notes))


def _first_step(frames: Iterator[Atoms]) -> dict[str, object]:
    """Labels of the first ionic step, by the rules of `mlipkit.data.resolve`: constraints change nothing."""
    atoms = next(frames)
    frame = raw_frame(atoms)
    found = resolve(frame)
    stress = found.values.get("stress")
    other = found.other_energy
    return {
        "numbers": np.array(frame.numbers), "positions": np.array(frame.positions), "cell": np.array(frame.cell),
        "energy": found.values.get("energy", np.nan), "energy_zero": np.nan if other is None else other,
        "forces": np.asarray(found.values.get("forces", np.zeros((0, 3)))), "stress": stress,
    }  # fmt: skip


# ---- OUTCAR


def _read_outcar(path: Path, spacing: str | None) -> Output:
    said = OutcarHead()
    with open_text(path) as stream:
        for line in stream:
            said.take(line)
    report = FileReport(str(path))
    output = Output(program=said.program, settings=said.settings(spacing), seconds=said.seconds)
    try:
        step = _first_step(outcar_frames(path, report))
    except (MlipkitError, StopIteration) as error:
        if said.ended:
            return replace(output, state="failed", reason=f"{path.name} holds no labels: {_reason(error)}")
        return replace(output, reason=NOT_ENDED.format(file=path.name))
    output = replace(output, **step, notes=_steps_note(said.steps))
    if not said.ended:
        return replace(output, reason=NOT_ENDED.format(file=path.name))
    if report.unconverged:
        reason = f"electrons not converged within NELM = {said.value('NELM', '60')}"
        return replace(output, state="unconverged", reason=reason)
    return replace(output, state="done")


def _steps_note(steps: int) -> list[str]:
    return [f"{steps} ionic steps: the first one is taken"] if steps > 1 else []


def _reason(error: BaseException) -> str:
    return getattr(error, "what", "") or str(error) or "no ionic step"


# ---- vasprun.xml


def _read_vasprun(path: Path, spacing: str | None) -> Output:
    said = VasprunHead()
    cut = False
    with open_bytes(path) as stream:
        try:
            for event, element in ET.iterparse(stream, events=["start", "end"]):
                said.take(event, element)
        except (ET.ParseError, *BROKEN_STREAM):
            cut = True
    output = Output(program=said.program, settings=said.settings(spacing))
    report = FileReport(str(path))
    try:
        step = _first_step(vasprun_frames(path, report))
    except (MlipkitError, StopIteration) as error:
        if cut:
            return replace(output, reason=NOT_ENDED.format(file=path.name))
        return replace(output, state="failed", reason=f"{path.name} holds no labels: {_reason(error)}")
    output = replace(output, **step, notes=_steps_note(said.steps))
    if cut:
        return replace(output, reason=NOT_ENDED.format(file=path.name))
    if 0 in report.unconverged:
        reason = f"electrons not converged within NELM = {int(float(said.values.get('NELM', '60')))}"
        return replace(output, state="unconverged", reason=reason + " (the OUTCAR would tell for certain)")
    return replace(output, state="done")


_READERS = {"vasprun.xml": _read_vasprun, "OUTCAR": _read_outcar}
