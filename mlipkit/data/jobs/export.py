"""Frames as calculations to be run elsewhere: a folder for each, with the user's own input files.

>>> picked.export_jobs("dft", frames, template="inputs")        # a Selection
>>> export_jobs(frames, "dft", "inputs")                        # any FrameSet
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data.frameset import FrameSet
from mlipkit.data.jobs import folder as kept
from mlipkit.data.jobs.cp2k_template import Cp2kTemplate
from mlipkit.data.jobs.folder import FRAMES, JOB, MANIFEST, Manifest, read_manifest
from mlipkit.data.jobs.outputs import output_files
from mlipkit.data.jobs.vasp_template import STRUCTURES, VaspTemplate
from mlipkit.data.whole import write_whole
from mlipkit.errors import DataError, check_choice

CODES = ("vasp", "cp2k")
LOCK = ".export.lock"
PART = ".part"


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
        folder: where the jobs lie.
        code: "vasp" or "cp2k".
        new: folders of jobs that were written now.
        kept: folders of jobs that were there before; nothing in them was touched.
        warnings: one sentence each.
    """

    folder: Path
    code: str
    new: tuple[str, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For people: ``20 VASP jobs in dft: 15 new, 5 as they were``."""
        total = len(self.new) + len(self.kept)
        jobs = f"{total} {self.code.upper()} job{'s' * (total != 1)} in {self.folder}"
        return f"{jobs}: {len(self.new)} new, {len(self.kept)} as they were"

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"note: {text}" for text in self.warnings)])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"folder": str(self.folder), "code": self.code, "new": list(self.new), "kept": list(self.kept),
                "warnings": list(self.warnings)}  # fmt: skip


def export_jobs(
    frames: FrameSet, folder: Path | str, template: Path | str, format: str | None = None,
    species: Sequence[str] | None = None, box: float | Sequence[float] | None = None,
) -> Exported:  # fmt: skip
    """Write one folder per frame with the files of a template and the structure of the frame.

    Jobs that are in the folder already are left alone, whatever has become of them, so that the same call adds what is
    new and completes an export that was interrupted.

    Args:
        frames: what to compute; labels that they have are not looked at.
        folder: made when missing.
        template: folder with the user's inputs. VASP: INCAR, and KPOINTS, POTCAR, a job script, ... CP2K: one ``.inp``,
            whose &CELL and &COORD are replaced. Files whose names begin with a dot are left out.
        format: "vasp" or "cp2k"; found from the template when omitted.
        species: order of elements in the POSCAR where the template has no POTCAR; by atomic number when omitted.
        box: Å, edge or edges of a box in whose middle frames without a cell are computed; the frames stay as they are.

    Raises:
        DataError: no frames, a template that cannot be used, a frame that cannot be computed with it, a folder that
            holds something else or jobs of another template, or that cannot be written.
    """
    folder, source = Path(folder), Path(template)
    if not len(frames):
        raise DataError("no frames to export")
    if folder.resolve().is_relative_to(source.resolve()) and folder.resolve() != source.resolve():
        raise DataError("lies in the template, of which it would become a part", where=str(folder),
                        expected="a folder beside it")  # fmt: skip
    files, hashed = _template_files(source)
    plan = _plan(source, files, format, None if species is None else tuple(species))
    edges = _edges(box)
    before = read_manifest(folder)
    _check_folder(folder, before, plan, source, hashed, edges)
    _check_frames(frames, plan, edges)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            return _write(frames, folder, source, plan, hashed, edges)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror or error})", where=str(folder),
            hint="Jobs that are there are whole; export again when this is mended, and the others follow",
        ) from None  # fmt: skip


def check_jobs(
    frames: FrameSet, template: Path | str, format: str | None = None, species: Sequence[str] | None = None,
    box: float | Sequence[float] | None = None,
) -> str:  # fmt: skip
    """What a template holds, when these frames can be computed with it: ``VASP template: INCAR, KPOINTS, POTCAR``.

    Raises:
        DataError: as `export_jobs`, which writes them.
    """
    source = Path(template)
    files, _ = _template_files(source)
    plan = _plan(source, files, format, None if species is None else tuple(species))
    _check_frames(frames, plan, _edges(box))
    return f"{plan.code.upper()} template: {', '.join(sorted(files))}"


def _template_files(source: Path) -> tuple[dict[str, Path], str]:
    if not source.is_dir():
        raise DataError("no such folder", where=("template", str(source)))
    found = {
        str(path.relative_to(source)): path
        for path in sorted(source.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)
    }
    outputs = [path.name for path in output_files(source)]
    if outputs or JOB in found:
        raise DataError("holds outputs of a calculation, which would pass for those of the frames",
                        where=("template", str(source)), found=", ".join(outputs or [JOB]))  # fmt: skip
    found = {name: path for name, path in found.items() if name not in STRUCTURES}
    try:
        return found, kept.hash_of(found)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=("template", str(source))) from None


def _plan(
    source: Path, files: dict[str, Path], format: str | None, species: tuple[str, ...] | None
) -> VaspTemplate | Cp2kTemplate:
    if format is None:
        kinds = [code for code, is_it in (("vasp", "INCAR" in files), ("cp2k", _has_input(files))) if is_it]
        if len(kinds) != 1:
            raise DataError(
                "neither VASP's INCAR nor CP2K's .inp is there" if not kinds else "could be of VASP and of CP2K",
                where=("template", str(source)), found=", ".join(sorted(files)[:8]) or "an empty folder",
                hint="Say which: format='vasp' or 'cp2k'" if kinds else None,
            )  # fmt: skip
        format = kinds[0]
    check_choice(format, CODES, "format")
    try:
        return VaspTemplate(files, species) if format == "vasp" else Cp2kTemplate(files, species)
    except DataError as error:
        raise DataError(error.what, where=("template", str(source), *error.where), expected=error.expected,
                        found=error.found, hint=error.hint) from None  # fmt: skip


def _has_input(files: dict[str, Path]) -> bool:
    return any(name.endswith(".inp") for name in files)


def _edges(box: float | Sequence[float] | None) -> tuple[float, ...]:
    if box is None:
        return ()
    try:
        edges = np.broadcast_to(np.asarray(box, float), (3,)) if np.size(box) in (1, 3) else np.zeros(3)
    except (TypeError, ValueError):  # no numbers
        edges = np.zeros(3)
    if not (edges > 0).all():
        raise DataError("no box", where="box", expected="one or three edges in Å", found=box)
    return tuple(edges.tolist())


def _check_folder(
    folder: Path, before: Manifest | None, plan: Any, source: Path, hashed: str, edges: tuple[float, ...]
) -> None:
    if before is None:
        own = {LOCK, FRAMES}
        if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - own):
            raise DataError("holds something else", where=str(folder), expected="a new or empty folder, or one of jobs")
        return
    if before.hash != hashed or before.code != plan.code:
        raise DataError(
            "holds jobs of another template", where=str(folder),
            expected=f"{before.template} ({before.code}, {before.hash[:12]})",
            found=f"{source.name} ({plan.code}, {hashed[:12]})",
            hint="Labels of two templates do not mix: export into another folder",
        )  # fmt: skip
    if before.box != edges:
        raise DataError("holds jobs with another box", where=(str(folder), "box"), expected=before.box or "none",
                        found=edges or "none")  # fmt: skip
    if before.species != plan.species:
        raise DataError("holds jobs with another order of elements", where=(str(folder), "species"),
                        expected=" ".join(before.species), found=" ".join(plan.species))  # fmt: skip


def _check_frames(frames: FrameSet, plan: Any, edges: tuple[float, ...]) -> None:
    for row in range(len(frames)):
        frame = frames.frame(row)
        try:
            if edges and not frame["cell"].any() and (np.ptp(frame["positions"], axis=0) >= edges).any():
                raise DataError("the molecule does not fit", where="box", expected=f"less than {edges} Å",
                                found=f"{np.ptp(frame['positions'], axis=0).round(2).tolist()} Å")  # fmt: skip
            plan.check(kept.boxed(frame, edges))
        except DataError as error:
            raise DataError(error.what, where=(f"frame {row} (uid {frame['uid']})", *error.where),
                            expected=error.expected, found=error.found, hint=error.hint) from None  # fmt: skip


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError("another process exports into this folder", where=str(folder)) from None
        yield


def _write(frames: FrameSet, folder: Path, source: Path, plan: Any, hashed: str, edges: tuple[float, ...]) -> Exported:
    before = read_manifest(folder) or Manifest(plan.code, source.name, hashed, plan.settings, plan.species, edges)
    _check_folder(folder, read_manifest(folder), plan, source, hashed, edges)
    everything = _with_frames(folder, frames)
    known = set(before.jobs.values())
    jobs = dict(before.jobs)
    for uid in (frames.uid(row) for row in range(len(frames))):
        if uid not in known:
            jobs[f"{len(jobs) + 1:04d}_{uid[:8]}"] = uid
    manifest = replace(before, jobs=jobs)
    # Structures and names first: whoever finds a job can tell what it is, whenever this process ends.
    if jobs != before.jobs or not (folder / MANIFEST).is_file():
        write_whole(folder / MANIFEST, manifest.to_bytes())
    for part in folder.glob(f".*{PART}"):
        shutil.rmtree(part, ignore_errors=True)
    rows = {everything.uid(row): row for row in range(len(everything))}
    new, old = [], []
    for name, uid in jobs.items():
        if (folder / name).exists():
            old.append(name)
        else:
            _write_job(folder, name, everything.frame(rows[uid]), plan, manifest)
            new.append(name)
    return Exported(folder, plan.code, tuple(new), tuple(old), tuple(plan.warnings))


def _with_frames(folder: Path, frames: FrameSet) -> FrameSet:
    """The structures that the folder holds and the new ones, saved."""
    frames = frames.without_labels()
    if not (folder / FRAMES).is_dir():
        frames.save(folder / FRAMES)
        return frames
    old = kept.exported_frames(folder)
    theirs = dict(zip(old.uids.tolist(), old.structure_hashes.tolist(), strict=True))
    new = [row for row, uid in enumerate(frames.uids.tolist()) if uid not in theirs]
    for row, uid in enumerate(frames.uids.tolist()):
        if theirs.get(uid, int(frames.structure_hashes[row])) != int(frames.structure_hashes[row]):
            raise DataError("another structure goes by this uid", where=(str(folder), f"uid {uid:016x}"),
                            hint="Export into another folder")  # fmt: skip
    if not new:
        return old
    joined = FrameSet.concat([old, frames.select(new)])
    joined.save(folder / FRAMES)
    return joined


def _write_job(folder: Path, name: str, frame: dict[str, Any], plan: Any, manifest: Manifest) -> None:
    """A job appears whole, under its name, or not at all."""
    part = folder / f".{name}{PART}"
    part.mkdir()
    try:
        made, order = plan.job(kept.boxed(frame, manifest.box))
        made[JOB] = kept.job_record(frame, manifest, np.asarray(order))
        for file, path in plan.files.items():
            if file not in made:
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, part / file)
        for file, content in made.items():
            (part / file).write_bytes(content)
        os.rename(part, folder / name)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
