"""Extended XYZ, read as a stream: one pass, no `Atoms`, errors with frame and line.

Same meaning as in ASE: ``Lattice``, ``pbc``, ``Properties``; keys that ASE moves to a calculator are found under
``calc.results`` here too. Two differences: text stays text (a tag "T" is no boolean), and a stress of six numbers is
read in ASE's Voigt order instead of being refused. Plain XYZ files are frames without labels.
Format: https://github.com/libAtoms/extxyz
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase.calculators.calculator import all_properties
from ase.data import atomic_numbers

from mlipkit.data.reading import BROKEN_STREAM, FileReport, Index, label_of, open_text, pick
from mlipkit.data.resolve import RawFrame
from mlipkit.errors import DataError, nearest

_PLAIN = "species:S:1:pos:R:3"
_RENAMED = {"pos": "positions", "Z": "numbers"}
_NUMBERS = {symbol: number for symbol, number in atomic_numbers.items() if number > 0}
_RESULTS = frozenset(all_properties)
_CLOSING = {'"': '"', "'": "'", "{": "}", "[": "]"}
_KEY = re.compile(r"\s*([^\s=\"'{}\[\]]+)\s*(=?)\s*")
_PLAIN_VALUE = re.compile(r"[^\s\"'{}\[\]]*")
_BOOLEANS = {"T": True, "F": False, "TRUE": True, "FALSE": False}


def frames(path: Path, index: Index, wanted: Collection[str], report: FileReport) -> Iterator[tuple[int, RawFrame]]:
    """Numbered frames of an extended or plain XYZ file (compression is seen by content).

    Args:
        index: which frames.
        wanted: keys and per-atom columns to turn into numbers; all others are only named.

    Raises:
        DataError: with file, frame and line, at the first thing that is not as the format says.
    """
    with open_text(path) as stream:
        reader = Reader(stream, label_of(path), wanted, report)
        try:
            chosen = _forward(index)
            if chosen is None:
                chosen = pick(reader.count(), index, label_of(path))
                if chosen.step < 0:
                    raise DataError("a file is read forwards", where=label_of(path), expected="a positive step")
                reader.rewind()
            nothing = True
            for numbered in reader.frames(chosen):
                nothing = False
                yield numbered
            if nothing:
                pick(reader.frame, index, label_of(path))
        except UnicodeDecodeError as error:
            raise DataError("not text", where=(label_of(path), reader.place()), found=error.reason) from None
        except BROKEN_STREAM as error:
            raise DataError(
                "the compressed file is damaged or cut short", where=(label_of(path), reader.place()), found=error
            ) from None


def _forward(index: Index) -> range | slice | None:
    """`index` when it can be followed without knowing the number of frames."""
    if isinstance(index, int):
        return range(index, index + 1) if index >= 0 else None
    start, stop, step = index.start or 0, index.stop, index.step or 1
    if start < 0 or (stop is not None and stop < 0) or step < 0:
        return None
    return slice(start, stop, step)


class Reader:
    """Walks through the frames of an open XYZ file; `place()` says where it is.

    Args:
        stream: text of the file.
        name: file name for messages.
        wanted: see `frames`.
        report: gets a note about columns that no header declares.
    """

    def __init__(self, stream: TextIO, name: str, wanted: Collection[str], report: FileReport) -> None:
        self.stream, self.name, self.report = stream, name, report
        self.wanted = frozenset(wanted) | {"positions", "numbers", "species", "Lattice", "time_fs", "trajectory"}
        self.frame = 0
        self.line = 0
        self._columns: dict[str, list[tuple[str, str, slice]]] = {}

    def place(self) -> str:
        """``frame 12 (line 145)``."""
        return f"frame {self.frame} (line {self.line})"

    def rewind(self) -> None:
        """Back to the first frame."""
        self.stream.seek(0)
        self.frame = self.line = 0

    def count(self) -> int:
        """Number of frames to the end, skipping over their atoms."""
        while (n_atoms := self._start()) is not None:
            self._take(n_atoms + 1)
            self.frame += 1
        return self.frame

    def frames(self, chosen: range | slice) -> Iterator[tuple[int, RawFrame]]:
        """The chosen frames with their numbers, in file order."""
        while chosen.stop is None or self.frame < chosen.stop:
            n_atoms = self._start()
            if n_atoms is None:
                return
            lines = self._take(n_atoms + 1)
            if self.frame >= chosen.start and (self.frame - chosen.start) % (chosen.step or 1) == 0:
                yield self.frame, self._build(lines[0], lines[1:])
            self.frame += 1

    def _error(self, what: str, line: int | None = None, **parts: Any) -> DataError:
        number = self.line if line is None else line
        return DataError(what, where=(self.name, f"frame {self.frame} (line {number})"), **parts)

    def _start(self) -> int | None:
        """Number of atoms of the next frame, None at the end of the file."""
        for text in self.stream:
            self.line += 1
            stripped = text.strip()
            if not stripped:
                continue
            try:
                n_atoms = int(stripped)
            except ValueError:
                raise self._error(
                    "no frame starts here",
                    expected="the number of atoms",
                    found=f"'{stripped[:40]}'",
                    hint="The frame before may have more atoms than its first line says",
                ) from None
            if n_atoms < 1:
                raise self._error("a frame without atoms", expected="at least 1 atom", found=n_atoms)
            return n_atoms
        return None

    def _take(self, count: int) -> list[str]:
        lines = list(islice(self.stream, count))
        self.line += len(lines)
        if len(lines) < count:
            got = max(len(lines) - 1, 0)
            raise self._error(
                "the file ends inside a frame",
                expected=f"{count - 1} atoms",
                found=f"{got} atoms",
                hint="Is it truncated?",
            )
        return lines

    def _build(self, comment: str, lines: list[str]) -> RawFrame:
        first = self.line - len(lines)
        pairs = self._pairs(comment.strip(), first)
        declared = pairs.pop("Properties", None)
        columns = self._parse_properties(declared or _PLAIN, first)
        rows = [line.split() for line in lines]
        width = columns[-1][2].stop
        for offset, row in enumerate(rows):
            if len(row) != width and (declared or len(row) < width):
                raise self._error(
                    "wrong number of columns",
                    first + 1 + offset,
                    expected=width,
                    found=f"{len(row)} ('{lines[offset].strip()[:40]}')",
                )
        if not declared and len(rows[0]) > width and self.frame == 0:
            self.report.warnings.append("columns after the positions are ignored: no Properties key declares them")
        arrays: dict[str, Any] = {}
        results: dict[str, Any] = {}
        for name, kind, place in columns:
            value = self._column(rows, name, kind, place, first + 1) if name in self.wanted else None
            (results if name in _RESULTS else arrays)[name] = value
        info: dict[str, Any] = {}
        for key, text in pairs.items():
            value = _value(text) if key in self.wanted else text
            if key != "Lattice" and isinstance(value, np.ndarray) and value.shape == (9,):
                value = value.reshape(3, 3, order="F")  # the order of matrices in this format
            (results if key in _RESULTS else info)[key] = value
        cell, pbc = self._cell(info, pairs, first)
        return RawFrame(
            numbers=self._elements(arrays, first + 1),
            positions=arrays.pop("positions"),
            cell=cell,
            pbc=pbc,
            results=results,
            info=info,
            arrays=arrays,
            masses=arrays.get("masses"),
        )

    def _pairs(self, text: str, line: int) -> dict[str, str]:
        """Key-value pairs of a comment line as text."""
        pairs: dict[str, str] = {}
        position = 0
        while position < len(text):
            match = _KEY.match(text, position)
            if match is None:  # free text such as a quoted sentence: no key, nothing to keep
                position += 1
                continue
            key, equals = match.groups()
            position = match.end()
            if not equals:
                pairs[key] = "T"
                continue
            opening = text[position : position + 1]
            if opening in _CLOSING and opening:
                value, position = self._quoted(text, position, line, key)
            else:
                plain = _PLAIN_VALUE.match(text, position)
                value, position = plain.group(), plain.end()  # type: ignore[union-attr]
            pairs[key] = value
        return pairs

    def _quoted(self, text: str, start: int, line: int, key: str) -> tuple[str, int]:
        opening, closing = text[start], _CLOSING[text[start]]
        depth, escaped, out = 1, False, []
        for position in range(start + 1, len(text)):
            char = text[position]
            if escaped:
                out.append("\n" if char == "n" else char)
                escaped = False
                continue
            if char == "\\":
                escaped = True
                continue
            if char == closing:
                depth -= 1
                if depth == 0:
                    return "".join(out), position + 1
            elif char == opening:
                depth += 1
            out.append(char)
        raise self._error(f"the value of '{key}' is never closed", line, expected=f"a closing {closing}")

    def _parse_properties(self, text: str, line: int) -> list[tuple[str, str, slice]]:
        """(array name, kind, columns) for every entry of ``name:kind:count`` triples."""
        known = self._columns.get(text)
        if known is not None:
            return known
        parts = text.split(":")
        columns, at = [], 0
        try:
            if len(parts) % 3:
                raise ValueError
            for name, kind, count in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
                if kind not in "SRIL" or int(count) < 1:
                    raise ValueError
                columns.append((_RENAMED.get(name, name), kind, slice(at, at + int(count))))
                at += int(count)
        except ValueError:
            raise self._error(
                "cannot read Properties",
                line,
                expected="name:kind:count triples, kind one of S R I L",
                found=f"'{text[:60]}'",
            ) from None
        names = [name for name, _, _ in columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._error(f"the column '{twice}' is declared twice in Properties", line, found=f"'{text[:60]}'")
        for needed in ("positions", "species or numbers"):
            if not set(needed.split(" or ")) & set(names):
                raise self._error(f"Properties has no {needed}", line, found=f"'{text[:60]}'")
        self._columns[text] = columns
        return columns

    def _column(self, rows: list[list[str]], name: str, kind: str, place: slice, line: int) -> np.ndarray:
        width = place.stop - place.start
        tokens = [token for row in rows for token in row[place]]
        if kind == "S":
            array = np.array(tokens, dtype=object)
        elif kind == "L":
            array = np.array([_BOOLEANS.get(token.upper(), False) for token in tokens])
        else:
            try:
                array = np.fromiter(map(int if kind == "I" else float, tokens), np.int64 if kind == "I" else np.float64)
            except (ValueError, OverflowError):
                array = self._slow_column(tokens, name, kind, width, line)
        return array if width == 1 else array.reshape(len(rows), width)

    def _slow_column(self, tokens: list[str], name: str, kind: str, width: int, line: int) -> np.ndarray:
        """Fortran exponents (1.0D-3), or the error that names the line."""
        values = []
        for at, token in enumerate(tokens):
            try:
                values.append(int(token) if kind == "I" else float(token.replace("D", "e").replace("d", "e")))
            except (ValueError, OverflowError):
                raise self._error(
                    f"'{token[:30]}' in column '{name}' is no number",
                    line + at // width,
                    hint="Text in a numeric column",
                ) from None
        return np.array(values)

    def _elements(self, arrays: dict[str, Any], line: int) -> np.ndarray:
        species = arrays.pop("species", None)
        numbers = arrays.pop("numbers", None)
        if species is None:
            return numbers
        try:
            return np.fromiter((_NUMBERS[symbol] for symbol in species), np.int16, len(species))
        except KeyError:
            pass
        found = []
        for offset, symbol in enumerate(species):
            number = _NUMBERS.get(str(symbol).capitalize())
            if number is None and str(symbol).isdigit() and 0 < int(symbol) < 119:
                number = int(symbol)
            if number is None:
                raise self._error(
                    f"unknown element '{str(symbol)[:20]}'", line + offset, hint=_near_element(str(symbol))
                )
            found.append(number)
        return np.array(found, np.int16)

    def _cell(self, info: dict[str, Any], pairs: dict[str, str], line: int) -> tuple[np.ndarray, np.ndarray]:
        lattice = info.pop("Lattice", None)
        info.pop("pbc", None)
        cell = np.zeros((3, 3))
        if lattice is not None:
            if not isinstance(lattice, np.ndarray) or lattice.shape != (9,):
                raise self._error("cannot read Lattice", line, expected="9 numbers", found=f"'{pairs['Lattice'][:40]}'")
            cell = lattice.astype(np.float64).reshape(3, 3)
        flags = pairs.get("pbc")
        if flags is None:
            return cell, np.full(3, lattice is not None)
        words = [_BOOLEANS.get(word.upper()) for word in re.findall(r"[^\s,]+", flags)]
        if len(words) == 1:
            words = words * 3
        if len(words) != 3 or None in words:
            raise self._error("cannot read pbc", line, expected="three of T or F", found=f"'{flags[:40]}'")
        return cell, np.array(words, dtype=bool)


def _near_element(symbol: str) -> str:
    if symbol.upper() in {"X", "XX", "DA", "Q"}:
        return "Ghost atoms carry no element: remove them"
    return nearest(symbol.strip("0123456789_").capitalize(), _NUMBERS).split(" known:")[0]


def _value(text: str) -> Any:
    """Number, array of numbers, or the text itself."""
    if text.startswith("_JSON "):
        try:
            return np.asarray(json.loads(text[6:]))
        except ValueError:
            return text
    words = re.findall(r"[^\s,\[\]]+", text) if "[" in text or "," in text else text.split()
    try:
        if len(words) == 1:
            return int(words[0]) if words[0].lstrip("+-").isdigit() else float(words[0].replace("D", "e"))
        return np.array([float(word) for word in words]) if words else text
    except (ValueError, OverflowError):
        return text
