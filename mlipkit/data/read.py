"""Reading: one function for every format, decided by content and never by the file name alone.

==============================  =================================================================
what                            how
==============================  =================================================================
extended or plain XYZ           streamed, one pass (`format_extxyz`)
.npz of MD17, rMD17, sGDML      `format_npz`
DeePMD folder                   `format_deepmd`
OUTCAR, vasprun.xml             one trajectory each, through ASE (`format_vasp`)
folder of `FrameSet.save`       opened memory-mapped
ASE or SchNetPack data base     `format_db`
everything else ASE reads       `format_ase`
==============================  =================================================================

Files compressed with gzip, bzip2 or xz are read directly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from mlipkit.data import format_ase, format_db, format_deepmd, format_extxyz, format_npz, format_vasp
from mlipkit.data.collect import Collector
from mlipkit.data.files import PathLike, detect, expand, format_of
from mlipkit.data.frameset import FrameSet
from mlipkit.data.reading import FileReport, Index, ReadReport, label_of, parse_index, pick, shown
from mlipkit.data.resolve import Keys, check_keys, check_units, raw_frame
from mlipkit.errors import DataError, nearest
from mlipkit.events import EventSink, Message
from mlipkit.labels import ALIASES

Unconverged = Literal["keep", "drop", "error"]
T = TypeVar("T")

_log = logging.getLogger(__name__)
_UNDECLARED = {"npz", "db"}
"""Formats in which a file may leave its units open; in all others they are fixed or declared."""
_SELF_CONSISTENT = {"outcar", "vasprun"}
"""Formats that tell whether the electronic structure of a frame converged."""
_SEARCHED = {name for names in ALIASES.values() for name in names} | {"free_energy", "momenta", "masses"}


def read(
    path: PathLike | Sequence[PathLike],
    keys: Keys | None = None,
    index: str | int | slice = ":",
    format: str | None = None,
    allow_partial: bool = False,
    *,
    units: Mapping[str, str] | None = None,
    unconverged: Unconverged = "keep",
    sink: EventSink | None = None,
) -> FrameSet:
    """Frames of one or many files, with their labels.

    Args:
        path: a file, a folder, a glob pattern, or a list of these; ``name@index`` takes part of one.
        keys: label -> key that holds it, for example ``{"energy": "dft_energy"}``; None as a value ignores the label.
            Without `keys` the documented order of `mlipkit.data.resolve` applies.
        index: frames of each file, as Python writes it: ``"-1"``, ``":100"``, ``"::10"``.
        format: name of the format (any of ASE's, npz, deepmd, outcar, vasprun, frameset) instead of looking.
        allow_partial: accept labels that only some frames have; NaN labels then count as missing.
        units: for files that declare none (npz, SchNetPack db): ``{"energy": "kcal/mol", "length": "Å"}``.
        unconverged: frames (VASP) whose electronic structure did not converge are kept and reported, dropped and
            reported, or an error.
        sink: gets a `Message` for everything worth knowing; without one, warnings go to the log ``mlipkit.data.read``.

    Raises:
        DataError: naming file and frame (and line) where a file or frame cannot be used; `units` or `unconverged`
            that can act on none of the files.
        LabelError: a key resolves nowhere, a label has the wrong shape, is not finite, or is on some frames only.
        SpecError: `keys` or `units` name something unknown.
    """
    frames, report = read_with_report(path, keys, index, format, allow_partial, units=units, unconverged=unconverged)
    for event in report_messages(report):
        if sink is not None:
            sink(event)
        else:
            _log.log(logging.WARNING if event.level == "warning" else logging.INFO, event.text)
    return frames


def read_with_report(
    path: PathLike | Sequence[PathLike],
    keys: Keys | None = None,
    index: str | int | slice = ":",
    format: str | None = None,
    allow_partial: bool = False,
    *,
    units: Mapping[str, str] | None = None,
    unconverged: Unconverged = "keep",
) -> tuple[FrameSet, ReadReport]:
    """Like `read`, and what was found on the way: coverage, settings, unconverged frames, notes (see `ReadReport`)."""
    check_keys(keys or {})
    check_units(units or {})
    if unconverged not in ("keep", "drop", "error"):
        raise DataError(f"unconverged='{unconverged}'", hint=nearest(unconverged, ("keep", "drop", "error")))
    files = expand(path, parse_index(index))
    report = ReadReport(files=[FileReport(str(file), format=format_of(file, format)) for file, _ in files])
    formats = {found.format for found in report.files}
    names = label_of(files[0][0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    if units and not formats & _UNDECLARED:
        raise DataError(
            "units have no effect", where=(names, "units"), expected="a format that may declare none (npz, db)",
            found=", ".join(sorted(formats)), hint="Leave out units",
        )  # fmt: skip
    if unconverged != "keep" and not formats & _SELF_CONSISTENT:
        raise DataError(
            "unconverged has no effect", where=(names, "unconverged"),
            expected="a format that tells what converged (OUTCAR, vasprun.xml)", found=", ".join(sorted(formats)),
            hint="Leave out unconverged",
        )  # fmt: skip
    collector = Collector(keys, allow_partial)
    stored: list[FrameSet] = []
    for (file, part), found in zip(files, report.files, strict=True):
        if found.format == "frameset":
            stored.append(_open_folder(file, part, keys))
            found.frames = len(stored[-1])
            continue
        before = collector.frames
        collector.start(file, found, one_run=found.format in ("outcar", "vasprun"))
        _READERS.get(found.format, _read_ase)(file, part, collector, found, units, unconverged)
        found.frames = collector.frames - before
        if found.frames == 0:
            raise DataError("the index selects no frame", where=label_of(file), found=f"index {shown(part)}")
    parts = stored
    if collector.frames:
        collector.coverage.check(keys, allow_partial=allow_partial, where=names)
        frames, report.other_energy = collector.finish()
        report.coverage = collector.coverage.table()
        parts = [frames, *stored]
    return (parts[0] if len(parts) == 1 else FrameSet.concat(parts)), report


def idle_in_files(path: PathLike | Sequence[PathLike], **options: Any) -> dict[str, str]:
    """Those of `keys`, `units` and `unconverged` that were given and can act on none of the files, and why not.

    Raises:
        DataError: no such file.
    """
    asked = asked_options(options)
    if not asked:
        return {}
    formats = {detect(file) for file, _ in expand(path, slice(None))}
    reasons = {}
    if "keys" in asked and formats == {"frameset"}:
        reasons["keys"] = "a FrameSet folder has its labels already"
    if "units" in asked and not formats & _UNDECLARED:
        reasons["units"] = f"the units of {' and '.join(sorted(formats))} files are known"
    if "unconverged" in asked and not formats & _SELF_CONSISTENT:
        reasons["unconverged"] = f"{' and '.join(sorted(formats))} files do not tell which frames converged"
    return reasons


def asked_options(options: Mapping[str, Any]) -> list[str]:
    """Which of `keys`, `units` and `unconverged` differ from what happens without them."""
    asked = [name for name in ("keys", "units") if options.get(name)]
    return [*asked, "unconverged"] if options.get("unconverged", "keep") != "keep" else asked


def report_messages(report: ReadReport) -> list[Message]:
    """The report as messages: coverage and settings as information, everything doubtful as warnings."""
    messages = [Message(f"labels: {report.coverage}")] if report.coverage else []
    for file in report.files:
        if file.unconverged:
            first = ", ".join(str(frame) for frame in file.unconverged[:5])
            more = ", ..." if len(file.unconverged) > 5 else ""
            text = f"{file.path}: {len(file.unconverged)} frames with unconverged electronic structure ({first}{more})"
            messages.append(Message(text, "warning"))
        if file.settings:
            messages.append(Message(f"{file.path}: {format_vasp.settings_note(file)}"))
        messages.extend(Message(f"{file.path}: {text}", "warning") for text in file.warnings)
        messages.extend(Message(f"{file.path}: {text}") for text in file.notes)
    if report.other_energy is not None:
        messages.append(
            Message("energy is the force-consistent free_energy; the extrapolated one is in ReadReport.other_energy")
        )
    return messages


def _read_extxyz(
    file: Path, index: Index, collector: Collector, report: FileReport, units: Any, unconverged: Unconverged
) -> None:
    wanted = _SEARCHED | {key for key in (collector.keys or {}).values() if key}
    for number, frame in format_extxyz.frames(file, index, wanted, report):
        collector.add(frame, number)


def _read_npz(
    file: Path, index: Index, collector: Collector, report: FileReport, units: Any, unconverged: Unconverged
) -> None:
    for block in format_npz.blocks(file, index, collector.keys, units, report):
        collector.add_block(block)


def _read_deepmd(
    file: Path, index: Index, collector: Collector, report: FileReport, units: Any, unconverged: Unconverged
) -> None:
    for block in format_deepmd.blocks(file, index, collector.keys, report):
        collector.add_block(block)


def _read_db(
    file: Path, index: Index, collector: Collector, report: FileReport, units: Any, unconverged: Unconverged
) -> None:
    for number, frame in format_db.frames(file, index, units, report):
        collector.add(frame, number)


def _read_vasp(
    file: Path, index: Index, collector: Collector, report: FileReport, units: Any, unconverged: Unconverged
) -> None:
    reader = format_vasp.outcar_frames if report.format == "outcar" else format_vasp.vasprun_frames
    selected: list[int] = []
    for number, atoms in _numbered(reader(file, report), index, label_of(file)):
        selected.append(number)
        if number in report.unconverged:
            if unconverged == "error":
                raise DataError(
                    "the electronic structure did not converge",
                    where=(label_of(file), f"frame {number}"),
                    expected=f"fewer than NELM = {report.settings.get('NELM', 60)} iterations",
                    hint="unconverged='drop' leaves such frames out, 'keep' takes them",
                )
            if unconverged == "drop":
                continue
        time = None if report.time_step is None else number * report.time_step
        collector.add(raw_frame(atoms), number, time)
    report.unconverged[:] = [number for number in report.unconverged if number in set(selected)]


def _read_ase(
    file: Path, index: Index, collector: Collector, report: FileReport, units: Any, unconverged: Unconverged
) -> None:
    start = index if isinstance(index, int) else (index.start or 0)
    step = 1 if isinstance(index, int) else (index.step or 1)
    for count, atoms in enumerate(format_ase.frames(file, report.format, index)):
        # Counted from the back the number in the file is unknown: then it is the place among those read.
        collector.add(raw_frame(atoms), start + count * step if start >= 0 and step > 0 else count)


_READERS = {
    "extxyz": _read_extxyz,
    "npz": _read_npz,
    "deepmd": _read_deepmd,
    "db": _read_db,
    "outcar": _read_vasp,
    "vasprun": _read_vasp,
}


def _open_folder(folder: Path, index: Index, keys: Keys | None) -> FrameSet:
    if keys:
        raise DataError("a FrameSet folder has its labels already", where=label_of(folder), hint="Leave out keys")
    return take(FrameSet.open(folder), index, label_of(folder))


def take(frames: FrameSet, index: Index, where: str) -> FrameSet:
    chosen = pick(len(frames), index, where)
    return frames if len(chosen) == len(frames) and chosen.step == 1 else frames.select(np.asarray(chosen))


def _numbered(items: Iterator[T], index: Index, where: str) -> Iterator[tuple[int, T]]:
    """(number, item) of the chosen ones; everything is held only when the index counts from the back."""
    if isinstance(index, int) and index >= 0:
        index = slice(index, index + 1)
    if isinstance(index, slice):
        start, stop, step = index.start or 0, index.stop, index.step or 1
        if start >= 0 and step > 0 and (stop is None or stop >= 0):
            yield from islice(enumerate(items), start, stop, step)
            return
    held = list(items)
    for number in pick(len(held), index, where):
        yield number, held[number]
