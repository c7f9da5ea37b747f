"""One place that finds the labels of a frame, whatever program wrote it.

Order, for each label (energy, forces, stress, velocities):

1. ``keys={"energy": "my_energy"}`` names the key: only that key counts. ``keys={"stress": None}`` ignores the label.
2. Otherwise every name of `mlipkit.labels.ALIASES` is tried in turn (``REF_*`` first: whoever wrote it meant it as a
   label).
3. Each name is looked up in ``calc.results``, then ``info``, then ``arrays``; the first hit wins.

Rules on the way:

- *energy*: where ``calc.results`` holds ``free_energy`` beside ``energy`` (VASP and other plane-wave codes with
  smearing), the force-consistent ``free_energy`` is taken; the other one is kept in `Resolved.other_energy`.
  ``keys={"energy": "energy"}`` takes the extrapolated one.
- *forces* are the raw arrays: constraints never set them to zero.
- *stress* may be 3x3, 9 numbers, or 6 in ASE's Voigt order (xx, yy, zz, yz, xz, xy). A key with "virial" in its name is
  a virial W = -dE/d(strain), in eV, and becomes stress = -W/V (GAP, DeePMD and MACE share this sign).
- *velocities* are read in Å/fs under their own names; ASE's ``momenta`` are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from mlipkit.errors import LabelError, SpecError, nearest
from mlipkit.labels import ALIASES, LABELS, LabelName
from mlipkit.units import velocities_from_ase

Keys = Mapping[str, str | None]

_GEOMETRY = frozenset({"numbers", "positions"})


@dataclass(frozen=True, slots=True)
class RawFrame:
    """What a file says of one frame, before anyone decided which numbers are labels.

    Attributes:
        numbers: int [n].
        positions: float64 [n,3], Å.
        cell: float64 [3,3], rows are the cell vectors, Å; zeros where there is none.
        pbc: bool [3].
        results, info, arrays: the three places of an `ase.Atoms` in which programs put labels.
        masses: float64 [n], u; only needed beside ``momenta``.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    results: Mapping[str, Any]
    info: Mapping[str, Any]
    arrays: Mapping[str, Any]
    masses: np.ndarray | None = None

    def places(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The three places with their names, in the order of the search."""
        return (("calc.results", self.results), ("info", self.info), ("arrays", self.arrays))

    def names(self) -> set[str]:
        """Every key that could have been meant as a label."""
        return {str(key) for _, place in self.places() for key in place} - _GEOMETRY


@dataclass(frozen=True, slots=True)
class Resolved:
    """The labels of one frame in mlipkit's units, and where each came from.

    Attributes:
        values: energy (float, eV), forces [n,3] (eV/Å), stress [3,3] (eV/Å³, tension positive), velocities [n,3]
            (Å/fs); a missing label has no entry.
        origins: label -> place, for example ``calc.results['free_energy']``.
        other_energy: the extrapolated ``energy`` (eV) where ``free_energy`` was taken, else None.
        time: fs, NaN when unknown (``info['time_fs']``).
        tag: ``info['tag']`` or ``info['config_type']``, else "".
        source: ``info['source']``, else "".
        trajectory: ``info['trajectory']`` as an integer, else -1.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    other_energy: float | None = None
    time: float = float("nan")
    tag: str = ""
    source: str = ""
    trajectory: int = -1


def raw_frame(atoms: Atoms) -> RawFrame:
    """The raw content of an `ase.Atoms`; nothing is calculated and no constraint is applied."""
    results = getattr(atoms.calc, "results", None) or {}
    return RawFrame(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.asarray(atoms.cell.array),
        pbc=np.asarray(atoms.pbc),
        results=results,
        info=atoms.info,
        arrays=atoms.arrays,
        masses=atoms.get_masses() if "momenta" in atoms.arrays else None,
    )


def resolve(atoms: Atoms | RawFrame, keys: Keys | None = None, *, where: str = "") -> Resolved:
    """Labels of one frame.

    Args:
        atoms: the frame.
        keys: label -> key that holds it; None as a value ignores the label.
        where: file and frame, for error messages.

    Raises:
        SpecError: `keys` names an unknown label.
        LabelError: a named key is not there (the message lists those that are), or a value has the wrong shape, is no
            number, or is not finite.
    """
    frame = raw_frame(atoms) if isinstance(atoms, Atoms) else atoms
    found = resolve_frame(frame, keys, where=where)
    for label, key in (keys or {}).items():
        if key is not None and label not in found.values:
            raise LabelError(
                f"key '{key}' named for {label} is not there", where=(where, key), hint=_listed(key, frame.names())
            )
    return found


def resolve_frame(
    frame: RawFrame, keys: Keys | None = None, *, where: str = "", nan_is_missing: bool = False
) -> Resolved:
    """Like `resolve`, but a key that is not there is a missing label: `Coverage` judges all frames of a file together.

    Args:
        nan_is_missing: a label that is NaN throughout counts as missing instead of being an error.
    """
    if keys:
        check_keys(keys)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    other: float | None = None
    for label in LABELS:
        hit = _find(label, frame, keys)
        if hit is None:
            continue
        place, name, raw = hit
        value = _CONVERT[label](raw, name, frame, where)
        if not np.all(np.isfinite(value)):
            if nan_is_missing and np.all(np.isnan(value)):
                continue
            bad = "NaN" if np.any(np.isnan(value)) else "infinite"
            raise LabelError(
                f"{label} is not finite",
                where=(where, name),
                expected="finite numbers",
                found=bad,
                hint=f"Drop the frame, or ignore the label with keys={{'{label}': None}}"
                + ("; allow_partial=True reads an all-NaN label as missing" if bad == "NaN" else ""),
            )
        values[label] = value
        origins[label] = f"{place}['{name}']"
        if label == "energy" and name == "free_energy" and "energy" in frame.results:
            other = _scalar(frame.results["energy"], "energy", frame, where)
    info = frame.info
    return Resolved(
        values,
        origins,
        other_energy=other,
        time=_optional_float(info.get("time_fs")),
        tag=str(info.get("tag", info.get("config_type", ""))),
        source=str(info.get("source", "")),
        trajectory=_optional_int(info.get("trajectory")),
    )


def check_keys(keys: Keys) -> None:
    """Raise SpecError when `keys` names something that is no label."""
    for label in keys:
        if label not in LABELS:
            raise SpecError(f"'{label}' is no label", where="keys", hint=nearest(label, LABELS))


def check_units(units: Mapping[str, str]) -> None:
    """Raise SpecError when `units` names something that has no unit of its own."""
    for what in units:
        if what not in ("energy", "length"):
            raise SpecError(
                f"'{what}' has no unit of its own", where="units", expected="energy or length",
                hint="Forces are energy per length, stress is energy per volume",
            )  # fmt: skip


@dataclass
class Coverage:
    """Which labels were found on how many frames, and where. Filled while reading, judged at the end.

    A frame counts for a label only where the label can be expected: forces on more than one atom, stress with
    periodicity along all three axes.
    """

    frames: int = 0
    expected: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LABELS, 0))
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LABELS, 0))
    origins: dict[str, dict[str, int]] = field(default_factory=lambda: {label: {} for label in LABELS})
    first_missing: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def add(self, resolved: Resolved, *, n_atoms: int, periodic: bool, where: str, names: set[str]) -> None:
        """Count one frame."""
        self.frames += 1
        self.names |= names
        for label in LABELS:
            here = label in resolved.values
            if here:
                self.found[label] += 1
                origin = resolved.origins[label]
                self.origins[label][origin] = self.origins[label].get(origin, 0) + 1
            if here or _is_expected(label, n_atoms, periodic):
                self.expected[label] += 1
                if not here:
                    self.first_missing.setdefault(label, where)

    def table(self) -> str:
        """One line: ``energy 500/500 from calc.results['energy'], forces 412/500 from arrays['F'] ...``."""
        parts = []
        for label in LABELS:
            if self.found[label]:
                origins = " and ".join(sorted(self.origins[label]))
                parts.append(f"{label} {self.found[label]}/{self.expected[label]} from {origins}")
        return ", ".join(parts) if parts else "no labels"

    def check(self, keys: Keys | None, *, allow_partial: bool, where: str) -> None:
        """Refuse silent label loss.

        Raises:
            LabelError: a named key is on no frame, or (without `allow_partial`) a label is on some frames only.
        """
        for label, key in (keys or {}).items():
            if key is not None and not self.found.get(label):
                raise LabelError(
                    f"key '{key}' named for {label} is on none of {self.frames} frames",
                    where=(where, key),
                    hint=_listed(key, self.names),
                )
        if allow_partial:
            return
        for label in ("energy", "forces", "stress"):
            if 0 < self.found[label] < self.expected[label]:
                raise LabelError(
                    f"{label} is on {self.found[label]} of {self.expected[label]} frames "
                    f"(first without it: {self.first_missing[label]}; coverage: {self.table()})",
                    where=(where, label),
                    hint="Pass allow_partial=True to train on what is there, or ignore the label with "
                    f"keys={{'{label}': None}}",
                )


def _is_expected(label: str, n_atoms: int, periodic: bool) -> bool:
    if label == "forces":
        return n_atoms > 1
    if label == "stress":
        return periodic
    return True


def _listed(key: str, names: set[str]) -> str:
    text = nearest(key, sorted(names))
    return text[0].upper() + text[1:]


def _find(label: LabelName, frame: RawFrame, keys: Keys | None) -> tuple[str, str, Any] | None:
    named = keys is not None and label in keys
    if named:
        key = keys[label]  # type: ignore[index]
        if key is None:
            return None
        candidates: tuple[str, ...] = (key,)
    else:
        candidates = ALIASES[label]
    for name in candidates:
        if name == "energy" and not named and frame.results.get("free_energy") is not None:
            return "calc.results", "free_energy", frame.results["free_energy"]
        for place, content in frame.places():
            value = content.get(name)
            if value is not None:
                return place, name, value
    if label == "velocities" and not named and "momenta" in frame.arrays:
        return "arrays", "momenta", frame.arrays["momenta"]
    return None


def _numbers(value: Any, name: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(array.dtype)
        return array.astype(np.float64)
    except (TypeError, ValueError):
        text = " ".join(str(value).split())
        raise LabelError(
            "a label is no number", where=(where, name), expected="numbers", found=f"'{text[:40]}'"
        ) from None


def _scalar(value: Any, name: str, frame: RawFrame, where: str) -> float:
    array = _numbers(value, name, where)
    if array.size != 1:
        raise LabelError(
            "energy has the wrong shape",
            where=(where, name),
            expected="one number (total energy of the frame, eV)",
            found=f"shape {array.shape}",
        )
    return float(array.reshape(-1)[0])


def _per_atom(value: Any, name: str, frame: RawFrame, where: str) -> np.ndarray:
    array = _numbers(value, name, where)
    n = len(frame.numbers)
    if array.shape != (n, 3):
        raise LabelError(
            "a vector per atom has the wrong shape", where=(where, name), expected=(n, 3), found=array.shape
        )
    return array


def _velocities(value: Any, name: str, frame: RawFrame, where: str) -> np.ndarray:
    array = _per_atom(value, name, frame, where)
    if name != "momenta":
        return array
    if frame.masses is None:
        from ase.data import atomic_masses

        masses = atomic_masses[np.asarray(frame.numbers, dtype=int)]
    else:
        masses = frame.masses
    return velocities_from_ase(array / np.asarray(masses, dtype=np.float64)[:, None])


def _stress(value: Any, name: str, frame: RawFrame, where: str) -> np.ndarray:
    array = _numbers(value, name, where)
    if array.shape in ((3, 3), (9,)):
        full = array.reshape(3, 3)
    elif array.shape == (6,):
        xx, yy, zz, yz, xz, xy = array
        full = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    else:
        raise LabelError(
            "stress has the wrong shape",
            where=(where, name),
            expected="(3, 3), (9,) or Voigt (6,) in the order xx yy zz yz xz xy",
            found=array.shape,
        )
    if "virial" not in name.lower():
        return full
    volume = abs(float(np.linalg.det(frame.cell)))
    if volume < 1e-6:
        raise LabelError(
            "a virial cannot become a stress without a cell",
            where=(where, name),
            expected="a cell with a volume",
            found=f"volume {volume:g} Å³",
            hint="Ignore it with keys={'stress': None}",
        )
    return -full / volume


_CONVERT = {"energy": _scalar, "forces": _per_atom, "stress": _stress, "velocities": _velocities}


def _optional_float(value: Any) -> float:
    try:
        return float(value) if value is not None else float("nan")
    except (TypeError, ValueError):
        return float("nan")


def _optional_int(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    return -1
