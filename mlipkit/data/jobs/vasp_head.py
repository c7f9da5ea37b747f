"""What an OUTCAR and a vasprun.xml say of a calculation as a whole: program, end, ionic steps, and its settings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from mlipkit.data.jobs import vasp_input as vasp
from mlipkit.data.jobs.vasp_input import Settings

OUTCAR_END = "General timing and accounting"

_VALUE = re.compile(r"(?<![A-Z_a-z])([A-Z][A-Z_0-9]{2,})\s*=\s*([^\s;]+)")
_KEPT = {"ENCUT", "PREC", "ISMEAR", "SIGMA", "ISPIN", "GGA", "METAGGA", "LHFCALC", "AEXX", "HFSCREEN", "IVDW", "LDAU",
         "LDAUTYPE", "LASPH", "LSORBIT", "LREAL", "NELECT", "IDIPOL", "LDIPOL", "KSPACING", "LUSE_VDW",
         "ENMAX", "NSW", "NELM"}  # fmt: skip
_STEP = re.compile(r"-+ Iteration\s+(\d+)\(\s*(\d+)\)")


class OutcarHead:
    """Lines of an OUTCAR, one by one; what they say of the calculation as a whole."""

    def __init__(self) -> None:
        self.program, self.ended, self.seconds, self.steps = "", False, 0.0, 0
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.titles: list[str] = []
        self.mesh: list[int] = []
        self.points: list[list[float]] = []
        self.spacing = self._in_points = self._in_incar = self._dispersion = False

    def value(self, name: str, default: str = "") -> str:
        """A tag as it is printed first."""
        return self.values.get(name, default)

    def take(self, line: str) -> None:
        """One line."""
        if not self.program and line.lstrip().startswith("vasp."):
            self.program = "VASP " + ".".join(re.findall(r"\d+", line)[:3])
        if "Iteration" in line and (match := _STEP.search(line)):
            self.steps = max(self.steps, int(match.group(1)))
        elif OUTCAR_END in line:
            self.ended = True
        elif "Elapsed time (sec):" in line:
            self.seconds = float(line.split(":")[1])
        elif "Edisp (eV)" in line:
            self._dispersion = True
        elif not self.steps:
            self._head(line)

    def _head(self, line: str) -> None:
        if self._in_points:
            words = line.split()
            if len(words) == 4:
                self.points.append([float(word) for word in words[:3]])
                return
            self._in_points = False
        if line.startswith(" INCAR:"):
            self._in_incar = True
        elif line.lstrip().startswith("POTCAR:"):
            self._in_incar = False
        if self._in_incar:
            # VASP 6 copies the INCAR as it was written; what became of its tags follows below.
            for name, value in _VALUE.findall(line):
                if name in ("KSPACING", "IVDW"):
                    self.values.setdefault(name, value)
            return
        if "TITEL" in line and "=" in line:
            self.titles.append(" ".join(line.split("=", 1)[1].split()))
        elif line.lstrip().startswith("POTCAR:"):
            self.lists.setdefault("POTCAR", []).append(" ".join(line.split(":", 1)[1].split()))
        elif re.match(r"\s*LEXCH\s*=\s*[A-Z0-9]{2}\s*$", line):
            self.values.setdefault("LEXCH", line.split("=")[1].strip())
        elif "generate k-points for:" in line:
            self.mesh = [int(word) for word in line.split(":")[1].split()[:3]]
        elif "derived from KSPACING" in line:
            self.spacing = True
        elif line.lstrip().startswith("k-points in reciprocal lattice and weights"):
            self._in_points = True
            self.spacing |= "read from INCAR" in line
        elif "ions per type" in line:
            self.lists["ions per type"] = line.split("=")[1].split()
        elif line.lstrip().startswith("ZVAL"):
            self.lists["ZVAL"] = re.findall(r"-?\d+\.\d+", line.split("=")[1])
        elif "for each species LDAU" in line:
            name, numbers = line.split("for each species")[1].split("=")
            self.lists[name.strip()] = numbers.split()
        for name, value in _VALUE.findall(line):
            if name in _KEPT:
                self.values.setdefault(name, value)

    def settings(self, spacing: str | None) -> Settings:
        """As `vasp_input.input_settings` names them."""
        titles = self.titles or list(dict.fromkeys(self.lists.get("POTCAR", [])))
        values = dict(self.values)
        if self._dispersion:
            values.setdefault("IVDW", "on")
        mesh = None
        if self.mesh:
            mesh = vasp.mesh_words(self.mesh, any(not any(point) for point in self.points))
        elif self.points:
            mesh = _points_words(self.points)
        if self.spacing and spacing is not None:
            mesh = vasp.spacing_words(float(values["KSPACING"])) if "KSPACING" in values else spacing
        values["functional"] = self.value("LEXCH")
        counts = [int(word) for word in self.lists.get("ions per type", [])]
        valences = [float(word) for word in self.lists.get("ZVAL", [])]
        return _common(values, titles, mesh, counts, valences, self.lists)


def _common(
    values: dict[str, str], titles: list[str], mesh: str | None, counts: list[int], valences: list[float],
    lists: dict[str, list[str]],
) -> Settings:  # fmt: skip
    """Settings from tags as VASP prints them, whichever file they come from."""
    found: Settings = {}
    symbols = [vasp.element_of_title(title) for title in titles]
    gga = values.get("GGA", "--").strip().upper()[:2]
    functional = gga if gga not in ("", "--") else values.get("functional") or _code_of(titles)
    if functional:
        found["functional"] = functional
    cutoff = values.get("ENCUT") or values.get("ENMAX_USED")
    if cutoff:
        found["cutoff (eV)"] = float(cutoff)
    for tag in ("ISMEAR", "ISPIN", "IDIPOL"):
        if tag in values:
            found[tag] = float(values[tag])
    if "SIGMA" in values:
        found["SIGMA (eV)"] = float(values["SIGMA"])
    if "PREC" in values:
        found["PREC"] = values["PREC"][:1].lower()
    if "METAGGA" in values:
        found["METAGGA"] = vasp.metagga(values["METAGGA"])
    for tag, name in (("LHFCALC", "hybrid functional"), ("LASPH", "LASPH"), ("LSORBIT", "LSORBIT"),
                      ("LREAL", "LREAL"), ("LDIPOL", "LDIPOL"), ("LUSE_VDW", "LUSE_VDW")):  # fmt: skip
        if tag in values:
            found[name] = vasp.flag(values[tag])
    found["DFT+U"] = "T" if "LDAUU" in lists or vasp.flag(values.get("LDAU", "F")) == "T" else "F"
    if found.get("hybrid functional") == "T":
        found |= {name: float(values[name]) for name in ("AEXX", "HFSCREEN") if name in values}
    dispersion = values.get("IVDW", "0")
    found["IVDW"] = float(dispersion) if dispersion.isdigit() else dispersion
    found |= {f"POTCAR of {symbol}": title for symbol, title in zip(symbols, titles, strict=True) if symbol}
    if found["DFT+U"] == "T":
        for tag, name in (("LDAUL", "l of U"), ("LDAUU", "U (eV)"), ("LDAUJ", "J (eV)")):
            pairs = zip(symbols, lists.get(tag, []), strict=False)
            found |= {f"{name} of {symbol}": float(value) for symbol, value in pairs if symbol}
    if mesh:
        found["k-points"] = mesh
    if counts and len(counts) == len(valences) and "NELECT" in values:
        charge = sum(n * z for n, z in zip(counts, valences, strict=True)) - float(values["NELECT"])
        # Valences are printed with two decimals, and fractional hydrogens add up.
        found["charge"] = round(charge, 1) + 0.0
    return found


def _points_words(points: list[list[float]]) -> str:
    """What a list of k-points is called."""
    return vasp.mesh_words((1, 1, 1), True) if points == [[0.0, 0.0, 0.0]] else f"list of {len(points)}"


def _code_of(titles: list[str]) -> str:
    """Functional that datasets were made for, by their names: the vasprun.xml says no more."""
    kinds = {"PAW_PBE": "PE", "PAW_GGA": "91", "PAW": "CA", "PAW_LDA": "CA"}
    names = {kinds.get(title.split()[0], "") for title in titles if title}
    return names.pop() if len(names) == 1 else ""


class VasprunHead:
    """Elements of a vasprun.xml as they end."""

    def __init__(self) -> None:
        self.program, self.steps = "", 0
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.mesh: list[int] = []
        self.points: list[list[float]] = []
        self._section, self._types = "", False

    def take(self, event: str, element: ET.Element) -> None:
        """One event."""
        name = element.attrib.get("name", "")
        if event == "start":
            if element.tag in ("incar", "parameters", "kpoints", "atominfo"):
                self._section = element.tag
            self._types |= element.tag == "array" and name == "atomtypes"
            return
        text = (element.text or "").strip()
        if element.tag == "i" and name == "version":
            self.program = "VASP " + ".".join(re.findall(r"\d+", text)[:3])
        elif element.tag in ("i", "v") and self._section in ("incar", "parameters") and text:
            self._tag(name, text)
        elif self._section == "kpoints" and element.tag == "v" and name == "divisions":
            self.mesh = [int(word) for word in text.split()]
        elif self._section == "kpoints" and element.tag == "varray" and name == "kpointlist":
            self.points = [[float(word) for word in (row.text or "").split()] for row in element]
        elif self._types and element.tag == "rc":
            self.rows.append([(cell.text or "").strip() for cell in element])
        elif element.tag == "calculation":
            self.steps += 1
            element.clear()
        if element.tag == "array":
            self._types = False
        if element.tag == self._section:
            self._section = ""

    def _tag(self, name: str, text: str) -> None:
        # VASP writes its default of KSPACING among the parameters even where it was not used.
        if name == "KSPACING" and self._section != "incar":
            return
        if name in ("LDAUL", "LDAUU", "LDAUJ"):
            self.lists[name] = text.split()
        elif name == "ENMAX" and self._section == "parameters":
            self.values["ENMAX_USED"] = text
        elif name in _KEPT and (self._section == "parameters" or name not in self.values):
            # What VASP made of the tags counts, and what it leaves out there was asked for in the INCAR.
            self.values[name] = text

    def settings(self, spacing: str | None) -> Settings:
        """As `vasp_input.input_settings` names them."""
        titles = [" ".join(row[4].split()) for row in self.rows if len(row) > 4]
        counts = [int(row[0]) for row in self.rows if row and row[0].isdigit()]
        valences = [float(row[3]) for row in self.rows if len(row) > 4]
        mesh = None
        if self.mesh:
            mesh = vasp.mesh_words(self.mesh, any(not any(point) for point in self.points))
        elif self.points:
            mesh = _points_words(self.points)
        if "KSPACING" in self.values and spacing is not None:
            mesh = vasp.spacing_words(float(self.values["KSPACING"]))
        values = {key: value for key, value in self.values.items() if key != "ENMAX"}
        lists = self.lists if vasp.flag(values.get("LDAU", "F")) == "T" else {}
        return _common(values, titles, mesh, counts, valences, lists)
