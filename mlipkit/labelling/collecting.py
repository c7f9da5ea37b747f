"""Labels from calculations that the user ran elsewhere, out of the folder that `export_jobs` made.

>>> found = collect("dft")
>>> print(found)
>>> found.frames                       # labelled, with the uids they were exported with
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipkit.errors import DataError, RunError, SpecError, check_choice
from mlipkit.labelling.collected import Collected, CollectedJob
from mlipkit.labelling.job import _write
from mlipkit.labelling.protocol import MAX_FORCE, Labels, fault_of
from mlipkit.labelling.records import FORMAT, LOG

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.data.jobs.folder import Manifest
    from mlipkit.data.jobs.outputs import Output

COLLECTED = "collected.json"
ENERGIES = ("free_energy", "energy")
TOLERANCE = 1e-3
_FUNCTIONALS = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "CA": "LDA", "91": "PW91", "AM": "AM05"}


def collect(
    folder: Path | str, *, energy: str = "free_energy", settings: str = "template", tolerance: float = TOLERANCE,
    max_force: float = MAX_FORCE, write: bool = True,
) -> Collected:  # fmt: skip
    """Labels of the calculations in a folder, as far as they have come; to be called again whenever more are done.

    A job is done when its output came to its end, its electrons converged, its structure is the exported one (in any
    image of the cell), and its settings are those of the others. Of several ionic steps the first is taken. Everything
    is read anew each time: the answer follows from what lies in the folder, and nothing is ever added twice.

    Args:
        folder: as `export_jobs` made it.
        energy: "free_energy", to which the forces belong, or "energy", extrapolated to no smearing. The other one
            stands in `Collected.other_energy`.
        settings: "template": what the exported inputs state counts, and of the rest what most jobs have; "majority":
            what most jobs have, whatever the template says.
        tolerance: Å, of a position and of a component of a cell vector.
        max_force: eV/Å; a larger force is nonsense.
        write: leave `labelled.extxyz`, `labels.jsonl`, `labelled.json` (as label runs do) and `collected.json` in the
            folder. One that cannot be written is no error but a note.

    Raises:
        SpecError: an argument out of range.
        DataError: no folder of jobs, or its manifest or structures are damaged.
    """
    from mlipkit.data.jobs.folder import MANIFEST, exported_frames, read_manifest

    folder = Path(folder)
    check_choice(energy, ENERGIES, "energy")
    check_choice(settings, ("template", "majority"), "settings")
    if not tolerance > 0:
        raise SpecError("no tolerance", where="tolerance", expected="more than 0, Å", found=tolerance)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError("holds no exported jobs", where=str(folder), expected=f"a folder with {MANIFEST}",
                        hint="export_jobs makes one")  # fmt: skip
    frames = exported_frames(folder).select_uids(list(manifest.jobs.values()))
    read = [_read_job(folder / name, uid, frames, row, manifest, tolerance, max_force, energy)
            for row, (name, uid) in enumerate(manifest.jobs.items())]  # fmt: skip
    expected = _judge_settings([job for job, _ in read], manifest, settings)
    rows = [row for row, (job, _) in enumerate(read) if job.state == "done"]
    labelled = _labelled(frames, rows, [read[row] for row in rows])
    jobs = [job for job, _ in read]
    done = [job for job in jobs if job.state == "done"]
    found = Collected(folder, labelled, jobs, expected, _maker(manifest, done, expected, energy))
    found.notes += _notes(jobs, labelled, expected, manifest, settings)
    if write:
        _keep(found, max_force)
    return found


def _read_job(
    folder: Path,
    uid: str,
    frames: FrameSet,
    row: int,
    manifest: Manifest,
    tolerance: float,
    max_force: float,
    energy: str,
) -> tuple[CollectedJob, Labels | None]:
    """A job by itself, its labels in the frame's order of atoms; whether it fits the others is judged later."""
    from mlipkit.data.jobs.compare import structure_fault
    from mlipkit.data.jobs.cp2k_output import read_cp2k
    from mlipkit.data.jobs.folder import boxed, read_order
    from mlipkit.data.jobs.vasp_output import read_vasp

    job = CollectedJob(folder.name, uid, "missing")
    if not folder.is_dir():
        return replace(job, reason="its folder is not there (export again to make it anew)"), None
    frame = frames.frame(row)
    try:
        order = read_order(folder, uid, manifest, len(frame["numbers"]))
    except DataError as error:
        return replace(job, state="failed", reason=str(error)), None
    output = (read_vasp if manifest.code == "vasp" else read_cp2k)(folder)
    job = replace(
        job, state=output.state, reason=output.reason, files=output.files, program=output.program,
        settings=output.settings, seconds=output.seconds, notes=list(output.notes),
    )  # fmt: skip
    if output.state not in ("done", "unconverged") or not len(output.numbers):
        return job, None
    fault = structure_fault(
        boxed(frame, manifest.box),
        order,
        output.numbers,
        output.positions,
        output.cell,
        tolerance,
        output.cell_rounding,
    )
    if fault:
        return replace(job, state="wrong structure", reason=fault), None
    if output.state != "done":
        return job, None
    return _labels_of(job, output, order, bool(frame["pbc"].all()), max_force, energy)


def _labels_of(
    job: CollectedJob, output: Output, order: np.ndarray, periodic: bool, max_force: float, energy: str
) -> tuple[CollectedJob, Labels | None]:
    fault = "no forces in the output" if len(output.forces) != len(order) else ""
    if not fault:
        forces = np.empty_like(output.forces)
        forces[order] = output.forces
        labels = Labels(output.energy, forces, output.stress if periodic else None)
        fault = fault_of(labels, len(order), max_force)
        if not fault and energy == "free_energy":
            return replace(job, energy=output.energy, other_energy=output.energy_zero), labels
        if not fault and np.isfinite(output.energy_zero):
            return replace(job, energy=output.energy_zero, other_energy=output.energy), labels
        fault = fault or "the output says no energy extrapolated to no smearing"
    return replace(job, state="failed", reason=fault), None


def _judge_settings(jobs: list[CollectedJob], manifest: Manifest, rule: str) -> dict[str, float | str]:
    """What the labels shall agree on; jobs that are done with other settings are marked in place."""
    from mlipkit.data.jobs.compare import differences, expected_settings, unsaid
    from mlipkit.data.jobs.vasp_input import BY_LENGTH

    done = [job for job in jobs if job.state == "done"]
    for job in done:
        if manifest.expected.get("k-points") == BY_LENGTH and "k-points" in job.settings:
            job.settings["k-points"] = BY_LENGTH
    stated = manifest.expected if rule == "template" else {}
    expected = expected_settings(stated, [job.settings for job in done])
    for job in done:
        silent = unsaid(job.settings, manifest.code)
        differs = differences(job.settings, expected)
        if silent or differs:
            job.state = "other settings"
            job.reason = "; ".join([*differs, *(f"the output does not say its {name}" for name in silent)])
            job.energy = job.other_energy = float("nan")
    return expected


def _labelled(frames: FrameSet, rows: list[int], read: list[tuple[CollectedJob, Labels | None]]) -> FrameSet:
    chosen = frames.select(rows)
    if not rows:
        return chosen
    values, stresses, forces = [], [], []
    for job, labels in read:
        assert labels is not None
        values.append(job.energy)
        forces.append(labels.forces)
        stresses.append(np.full((3, 3), np.nan) if labels.stress is None else labels.stress)
    known = any(np.isfinite(one).all() for one in stresses)
    return chosen.with_labels(
        energy=values, forces=np.concatenate(forces), stress=np.stack(stresses) if known else float("nan")
    )


def _maker(
    manifest: Manifest, done: list[CollectedJob], expected: dict[str, float | str], energy: str
) -> dict[str, Any]:
    programs = list(dict.fromkeys(job.program for job in done if job.program))
    level = _level(expected, manifest.code)
    return {
        "name": f"{' and '.join(programs) or manifest.code.upper()}, {level}", "engine": manifest.code,
        "version": ", ".join(programs), "method": _functional(expected), "level_of_theory": level,
        "settings": {**expected, "energy": energy, "template": manifest.hash}, "elements": None,
    }  # fmt: skip


def _functional(expected: dict[str, float | str]) -> str:
    code = str(expected.get("functional", "functional not said"))
    meta = str(expected.get("METAGGA", "none"))
    name = _FUNCTIONALS.get(code, code) if meta == "none" else meta
    if expected.get("hybrid functional") == "T":
        name += f" hybrid (AEXX {expected.get('AEXX', '?')}, HFSCREEN {expected.get('HFSCREEN', '?')})"
    if expected.get("DFT+U") == "T":
        name += "+U"
    dispersion = expected.get("IVDW", expected.get("dispersion", 0.0))
    if dispersion not in (0.0, "none"):
        name += f" with dispersion ({f'IVDW {dispersion:g}' if isinstance(dispersion, float) else dispersion})"
    return name


def _level(expected: dict[str, float | str], code: str) -> str:
    unit = "eV" if code == "vasp" else "hartree"
    cutoff = expected.get(f"cutoff ({unit})")
    parts = [_functional(expected)]
    if isinstance(cutoff, int | float):
        parts.append(f"cutoff {cutoff:g} {unit}")
    if "k-points" in expected:
        parts.append(f"k-points {expected['k-points']}")
    return ", ".join(parts)


def _notes(
    jobs: list[CollectedJob], frames: FrameSet, expected: dict[str, float | str], manifest: Manifest, rule: str
) -> list[str]:
    from mlipkit.data.jobs.compare import differences

    notes = []
    done = [job for job in jobs if job.state == "done"]
    odd = [job for job in jobs if job.state == "other settings"]
    if odd and not done and rule == "template":
        notes.append("no job was computed with what the template states; settings='majority' takes what most jobs have")
    if rule == "majority":
        notes += [f"not as in the template: {text}" for text in differences(expected, manifest.expected)]
    programs = sorted({job.program for job in done if job.program})
    if len(programs) > 1:
        notes.append(f"several versions of the program: {', '.join(programs)}")
    return notes + _stress_note(frames)


def _stress_note(frames: FrameSet) -> list[str]:
    """Frames that could have stress, and do not."""
    lacking = int((frames.pbc.all(1) & ~frames.has("stress")).sum()) if len(frames) else 0
    return [f"no stress in the outputs of {lacking} of {len(frames)} frames"] if lacking else []


def _keep(found: Collected, max_force: float) -> None:
    """Records as label runs leave them, whole and the same whenever the folder is the same."""
    from mlipkit.data.whole import write_whole
    from mlipkit.events import ignore

    lines = [{"format": FORMAT, "recipe": None, "maker": found.maker, "max_force": max_force}]
    at = {found.frames.uid(row): row for row in range(len(found.frames))}
    for index, job in enumerate(found.jobs):
        if job.state == "missing":
            continue
        line = {"index": index, "uid": job.uid, "attempt": 1, "seconds": job.seconds, "cpu_s": job.seconds}
        if job.state == "done":
            frame = found.frames.frame(at[job.uid])
            stress = frame["stress"]
            line |= {"energy": frame["energy"], "forces": frame["forces"].tolist(),
                     "stress": stress.tolist() if np.isfinite(stress).all() else None}  # fmt: skip
        else:
            line["failed"] = f"{job.state}: {job.reason}"
        lines.append(line)
    try:
        write_whole(found.folder / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())
        _write(found.folder, found.labelled, ignore)
        text = json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_whole(found.folder / COLLECTED, text.encode())
    except (OSError, RunError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        found.notes.append(f"records could not be written ({reason}); the labels are here all the same")
