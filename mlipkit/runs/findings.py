"""What an analysis found, ready for screen, JSON file and page; and the sets of frames that it reads."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit import __version__
from mlipkit.errors import DataError, RunError
from mlipkit.runs.folder import write_text
from mlipkit.runs.page import details, figure_html, page, table
from mlipkit.runs.places import PREFIXES, split_place

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mlipkit.data import FrameSet


@dataclass(frozen=True)
class Table:
    """Rows of texts under a heading; the screen shows those that are `brief`."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    brief: bool = True
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure under a heading, with one line on how to read it."""

    title: str
    figure: go.Figure
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Result of one analysis.

    Attributes:
        title: of the page.
        sentences: the first says what matters.
        tables, pictures: in order; `order` of a page is pictures and tables as `parts` lists them.
        figures: name -> (value, unit), for the JSON of a command.
        data: everything, JSON-ready.
        python: lines that do the same.
        kind: colour of the first sentence on the page ("", "warning", "failed").
    """

    title: str
    sentences: tuple[str, ...]
    parts: tuple[Table | Picture, ...]
    figures: Mapping[str, tuple[float, str]]
    data: Mapping[str, Any]
    python: str
    kind: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        return [part for part in self.parts if isinstance(part, Table)]


def read_sets(places: Sequence[str], base: Path | None = None) -> dict[str, FrameSet]:
    """Frames of several places, each under a short name of its own (`names_of`).

    Args:
        places: samples, files, patterns, runs, factories.
        base: folder that relative paths are meant against; the current one by default.

    Raises:
        DataError: no place, or one without frames; the rest as `read_frames`.
    """
    # Not from `build`, which brings torch.
    from mlipkit.runs.building_data import read_frames

    if not places:
        raise DataError("no place to read from", expected="files, samples (sample:NAME) or runs")
    base = base or Path.cwd()
    found: dict[str, FrameSet] = {}
    known: dict[str, FrameSet] = {}
    for name, place in zip(names_of(places), places, strict=True):
        if place not in known:
            known[place] = read_frames(place, base, allow_partial=True)
            if not len(known[place]):
                raise DataError("no frames", where=place)
        found[name] = known[place]
    return found


def names_of(places: Sequence[str]) -> list[str]:
    """Short names: file without suffix, run folder, sample; folders in front, or a number, where two would be equal."""
    first = [_short(place, 1) for place in places]
    places_of: dict[str, set[str]] = {}
    for name, place in zip(first, places, strict=True):
        places_of.setdefault(name, set()).add(place)
    short = [_short(place, 2) if len(places_of[name]) > 1 else name for name, place in zip(first, places, strict=True)]
    names: list[str] = []
    for name in short:
        n = sum(1 for other in names if other == name or other.startswith(f"{name} ("))
        names.append(f"{name} ({n + 1})" if n else name)
    return names


def _short(place: str, parts: int) -> str:
    if place.partition(":")[0] in PREFIXES:
        return place.partition(":")[2]
    path, index = split_place(place)
    pieces = [piece for piece in Path(path).parts if piece not in ("/", "..", ".")][-parts:] or [path]
    last = pieces[-1]
    for suffix in (".gz", ".bz2", ".xz"):
        last = last.removesuffix(suffix)
    stem = Path(last).stem if Path(last).suffix and "*" not in last else last
    return "/".join([*pieces[:-1], stem]) + (f"@{index}" if index else "")


def write_finding(finding: Finding, path: Path, shell: str = "") -> Path:
    """Write a page of a finding; it opens offline.

    Args:
        path: the HTML file; replaced as a whole.
        shell: the command that made it.

    Raises:
        RunError: it cannot be written.
    """
    first, *others = finding.sentences
    body = [
        f"<h1>{html.escape(finding.title)}</h1>",
        f'<p class="verdict {finding.kind}">{html.escape(first)}</p>',
        f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in others)}</ul>" if others else "",
    ]
    for part in finding.parts:
        note = f"<p>{html.escape(part.note)}</p>" if part.note else ""
        inner = figure_html(part.figure) if isinstance(part, Picture) else table(part.rows, part.head)
        body.append(f'<h2>{html.escape(part.title)}</h2>{note}<div style="overflow-x: auto">{inner}</div>')
    body.append("<h2>How this was made</h2>")
    if shell:
        body.append(f"<p>In a shell</p><pre>{html.escape(shell)}</pre>")
    body.append(f"<p>In Python</p><pre>{html.escape(finding.python)}</pre>")
    if finding.sources:
        body.append(details("Sources", "\n".join(f"{name}: {place}" for name, place in finding.sources.items())))
    body.append(f"<p><small>mlipkit {__version__}, {time.strftime('%Y-%m-%d %H:%M')}</small></p>")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page(finding.title, "\n".join(filter(None, body))))
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror or error})", where=str(path)) from error
    return path


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; "" for what is missing."""
    if value is None or value != value:
        return ""
    if value in (float("inf"), float("-inf")):
        return "∞"
    return f"{value:.{digits}g}" if abs(value) < 1e5 else f"{value:.{digits}e}"


def check_writable(path: Path) -> Path:
    """Refuse a file that cannot be written, before the work and not after it.

    Raises:
        RunError: names the file and why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror or error})", where=str(path)) from error
    return path
