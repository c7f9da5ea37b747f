"""VASP: an OUTCAR or a vasprun.xml is one trajectory. ASE reads the frames; this file reads what ASE leaves out.

That is: which ionic steps ended before the electronic structure converged, the time step of molecular dynamics, the
settings that decide whether two data sets may be mixed, and whether the file was cut short.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io.vasp import read_vasp_xml
from ase.io.vasp_parsers import vasp_outcar_parsers as outcar

from mlipkit.data.reading import BROKEN_STREAM, FileReport, label_of, open_bytes, open_text
from mlipkit.errors import DataError

_SETTINGS = (
    "ENCUT", "PREC", "EDIFF", "NELM", "ISMEAR", "SIGMA", "ISPIN", "GGA", "METAGGA", "LEXCH", "LHFCALC", "IVDW", "LDAU",
    "IBRION", "ISIF", "POTIM", "TEBEG", "TEEND", "MDALGO", "SMASS",
)  # fmt: skip
_SETTING = re.compile(rf"(?<![A-Z_])({'|'.join(_SETTINGS)})\s*=\s*([^\s;]+)")
_ITERATION = re.compile(r"-+ Iteration\s+\d+\(\s*(\d+)\)")


def outcar_frames(path: Path, report: FileReport) -> Iterator[Atoms]:
    """Ionic steps of an OUTCAR, in order.

    Energies: ``free_energy`` (force-consistent) and ``energy`` (extrapolated to zero smearing) are both in the results.

    Raises:
        DataError: no complete ionic step, or a step that cannot be parsed.
    """
    with open_text(path) as stream:
        scan = _OutcarScan(stream, str(path))
        try:
            # Constraints of a CONTCAR beside the file do not concern the labels: no working folder is given.
            header = outcar.OutcarHeaderParser(workdir=None)
            parser = outcar.OutcarChunkParser(
                parsers=[outcar.Cell(), outcar.PositionsAndForces(), outcar.Stress(), outcar.Energy()]
            )
            count = 0
            for chunk in outcar.outcarchunks(scan, chunk_parser=parser, header_parser=header):  # type: ignore[arg-type]
                if count == 0:
                    _settings(report, scan.settings)
                if not scan.end_of_step():
                    report.unconverged.append(count)
                yield chunk.build()
                count += 1
        except DataError:
            raise
        except UnicodeDecodeError as error:
            raise DataError("not text", where=(label_of(path), f"line {scan.line}"), found=error.reason) from None
        except BROKEN_STREAM as error:
            raise DataError(
                "the compressed file is damaged or cut short", where=(label_of(path), f"line {scan.line}"), found=error
            ) from None
        except Exception as error:  # ASE's parser raises many kinds
            raise DataError(
                "cannot parse this OUTCAR",
                where=(label_of(path), f"frame {count} (line {scan.line})"),
                found=f"{type(error).__name__}: {error}",
                hint="Is the file truncated or edited?",
            ) from error
    if count == 0:
        raise DataError("no complete ionic step", where=label_of(path), found=f"the file ends at line {scan.line}")
    if scan.started:
        report.warnings.append("the last ionic step is incomplete and was left out")


class _OutcarScan:
    """Lines of an OUTCAR on their way to ASE's parser; remembers convergence and settings."""

    def __init__(self, stream: Iterator[str], name: str) -> None:
        self.stream, self.name = stream, name
        self.settings: dict[str, str] = {}
        self.line = 0
        self.iterations = 0
        self.reached: bool | None = None
        self.started = False

    def __iter__(self) -> _OutcarScan:
        return self

    def __next__(self) -> str:
        line = next(self.stream)
        self.line += 1
        if "Iteration" in line and (match := _ITERATION.search(line)):
            self.iterations = int(match.group(1))
            self.started = True
        elif "aborting loop" in line:
            self.reached = "not reached" not in line
        elif not self.started and "=" in line:
            for key, value in _SETTING.findall(line):
                self.settings.setdefault(key, value)
        return line

    def end_of_step(self) -> bool:
        """Whether the step that just ended converged; starts the next one."""
        limit = int(self.settings.get("NELM", "60"))
        converged = self.reached if self.reached is not None else self.iterations < limit
        self.iterations, self.reached, self.started = 0, None, False
        return converged


def vasprun_frames(path: Path, report: FileReport) -> Iterator[Atoms]:
    """Ionic steps of a vasprun.xml, in order.

    Raises:
        DataError: no XML, or no complete ionic step.
    """
    settings, iterations, cut = _scan_vasprun(path)
    _settings(report, settings)
    limit = int(float(settings.get("NELM", 60)))
    complete = len(iterations)
    if complete == 0:
        raise DataError(
            "no complete ionic step", where=label_of(path), found="the file is cut short" if cut else "none"
        )
    report.unconverged.extend(frame for frame, count in enumerate(iterations) if count >= limit)
    if cut:
        report.warnings.append("the file is cut short; an incomplete last ionic step was left out")
    count = 0
    try:
        with open_bytes(path) as stream:
            for atoms in read_vasp_xml(stream, index=slice(0, complete)):  # type: ignore[arg-type]
                yield atoms
                count += 1
    except Exception as error:  # ASE's parser raises many kinds
        raise DataError(
            "cannot parse this vasprun.xml",
            where=(label_of(path), f"frame {count}"),
            found=f"{type(error).__name__}: {error}",
        ) from error


def _scan_vasprun(path: Path) -> tuple[dict[str, str], list[int], bool]:
    """(settings, electronic iterations of each complete ionic step, whether the file is cut short)."""
    settings: dict[str, str] = {}
    iterations: list[int] = []
    running = 0
    with open_bytes(path) as stream:
        try:
            for _, element in ET.iterparse(stream, events=["end"]):
                name = element.attrib.get("name", "")
                if element.tag in ("i", "v") and name in _SETTINGS and element.text:
                    settings.setdefault(name, element.text.strip())
                elif element.tag == "scstep":
                    running += 1
                elif element.tag == "calculation":
                    iterations.append(running)
                    running = 0
                    element.clear()
        except (ET.ParseError, *BROKEN_STREAM):
            return settings, iterations, True
    return settings, iterations, False


def _settings(report: FileReport, found: dict[str, str]) -> None:
    report.settings.update(found)
    try:
        if int(found.get("IBRION", "-1")) == 0:
            report.time_step = float(found["POTIM"])
    except (KeyError, ValueError):
        report.time_step = None


def settings_note(report: FileReport) -> str:
    """One line of settings: ``VASP: ENCUT 400, ISMEAR 1, SIGMA 0.20, ...``."""
    shown: dict[str, Any] = {key: report.settings[key] for key in _SETTINGS if key in report.settings}
    return "VASP: " + ", ".join(f"{key} {value}" for key, value in shown.items())
