"""Start structures of liquids and mixtures: molecules packed at random into a box, by Packmol."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols

from mlipkit.errors import DataError, MissingPackageError, nearest
from mlipkit.units import AMU_PER_A3

COMMON = {
    "water": "H2O", "methanol": "CH3OH", "ethanol": "CH3CH2OH", "methane": "CH4", "ethane": "C2H6", "ammonia": "NH3",
    "benzene": "C6H6", "pyridine": "C5H5N", "acetone": "CH3COCH3", "acetonitrile": "CH3CN", "dmso": "C2H6SO",
    "acetic acid": "CH3COOH", "formic acid": "HCOOH", "dimethyl ether": "CH3OCH3", "chloroform": "HCCl3",
    "hydrogen": "H2", "nitrogen": "N2", "oxygen": "O2", "carbon dioxide": "CO2",
}  # fmt: skip
"""Everyday names of molecules of `ase.build.molecule`."""

LIGHTEST, HEAVIEST = 0.001, 25.0
"""g/cm³, between a gas and osmium."""
FULL = 0.74
"""Share of space that spheres can fill."""
SLACK = 0.02
"""Å by which Packmol may come closer than the tolerance."""
NOT_PERFECT = 173
"""Exit code of Packmol when distances remain that are too short."""
LARGEST_SEED = 2**31 - 1
"""Packmol keeps seeds in 32 bits."""
GRID = 0.1
Molecules = Mapping[str, int] | Iterable[tuple[str | Path | Atoms, int]]


def pack(
    molecules: Molecules, *, density: float | None = None, cell: float | Sequence[float] | None = None,
    tolerance: float = 2.0, seed: int = 0, pbc: bool = True, timeout: float = 120.0,
) -> Atoms:  # fmt: skip
    """A box of molecules in random places and orientations; the same seed gives the same box.

    Args:
        molecules: ``{"ethanol": 20, "water": 5}`` or pairs (molecule, number). A molecule is a name (an everyday one or
            one of `ase.build.molecule`), the symbol of an element (an ion), a file of one structure, or Atoms.
        density: g/cm³, of a cubic box; or give `cell`.
        cell: edge lengths in Å, three or one for a cube.
        tolerance: Å, no two atoms of different molecules (or images) come closer.
        seed: of the random places.
        pbc: periodic along all axes; without, the molecules fill the box as a free cluster without a cell.
        timeout: s.

    Returns:
        Molecules whole, one kind after the other; ``arrays["molecule"]`` numbers them, ``info["source"]`` says what
        they are.

    Raises:
        DataError: an unknown molecule, numbers or a density that make no sense, or Packmol finds no packing.
        MissingPackageError: Packmol is not installed.

    Source: L. Martínez et al., J. Comput. Chem. 30, 2157 (2009).
    """
    kinds = [(molecule_of(what), _count(number, what)) for what, number in _pairs(molecules)]
    if not sum(number for _, number in kinds):
        raise DataError("no molecule to pack", where="pack")
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise DataError("no distance", where=("pack", "tolerance"), expected="a number above 0, Å", found=tolerance)
    if not 0 <= seed < LARGEST_SEED:
        raise DataError("no seed", where=("pack", "seed"), expected=f"0 or more, below {LARGEST_SEED}", found=seed)
    edges = _edges(kinds, density, cell)
    _check_room(kinds, edges, tolerance)
    positions = _run(kinds, edges, tolerance, seed, pbc, timeout)
    numbers = np.concatenate([np.tile(atoms.numbers, number) for atoms, number in kinds])
    sizes = np.concatenate([np.full(number, len(atoms)) for atoms, number in kinds])
    packed = Atoms(numbers, positions, cell=edges if pbc else None, pbc=pbc)
    packed.set_array("molecule", np.repeat(np.arange(len(sizes)), sizes))
    _check_distances(packed, tolerance)
    names = ", ".join(f"{number} {atoms.info['name']}" for atoms, number in kinds if number)
    packed.info["source"] = f"packed {names}, seed {seed}"
    return packed


def molecule_of(what: str | Path | Atoms) -> Atoms:
    """A molecule by name, symbol, file or as it is; ``info["name"]`` says which.

    Raises:
        DataError: none of these, or a file of several structures.
    """
    if isinstance(what, Atoms):
        made, name = Atoms(what.numbers, what.positions), str(what.symbols)
        if not len(made):
            raise DataError("a molecule without atoms", where="pack")
    else:
        made, name = _named(str(what)), str(what)
    made.info["name"] = name
    return made


def packmol() -> Path:
    """The executable: of the Python package, else of the system.

    Raises:
        MissingPackageError: there is none.
    """
    found = importlib.util.find_spec("packmol")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        for name in ("packmol", "packmol.exe"):
            if (path := Path(folder, "binaries", name)).is_file():
                return path
    if (text := shutil.which("packmol")) is not None:
        return Path(text)
    raise MissingPackageError(
        "packing molecules needs Packmol, which is not installed", hint='Install it with: pip install "mlipkit[pack]"'
    )


def _pairs(molecules: Molecules) -> list[tuple[Any, Any]]:
    return list(molecules.items() if isinstance(molecules, Mapping) else molecules)


def _count(number: Any, what: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
        name = what if isinstance(what, str | Path) else what.symbols
        raise DataError(
            "no number of molecules", where=("pack", str(name)), expected="a whole number", found=repr(number)
        )
    return int(number)


def _named(text: str) -> Atoms:
    from ase.build import molecule
    from ase.collections import g2

    name = COMMON.get(text.lower(), text)
    if name in g2.names:
        known = molecule(name)
        return Atoms(known.numbers, known.positions)
    if text in chemical_symbols[1:]:
        return Atoms(text)
    if not (Path(text).expanduser().is_file() or re.search(r"[/\\@:]|\.\w+$", text)):
        hint = f"{nearest(text, COMMON)}; also those of ase.build.molecule, symbols of elements, files of one structure"
        raise DataError("unknown molecule", where=("pack", text), hint=hint)
    from mlipkit.data.sources import read_source

    frames = read_source(text) if text.startswith(("sample:", "public:")) else read_source(text, allow_partial=True)
    if len(frames) != 1:
        raise DataError(f"holds {len(frames)} structures, where one molecule is wanted", where=("pack", text),
                        hint=f"Name one: {text}@0")  # fmt: skip
    known = frames.atoms(0)
    return Atoms(known.numbers, known.positions)


def _edges(kinds: Sequence[tuple[Atoms, int]], density: float | None, cell: Any) -> np.ndarray:
    """Edge lengths [3], Å, and a density that can be."""
    if (density is None) == (cell is None):
        raise DataError("give either a density or a cell", where="pack")
    mass = sum(float(atomic_masses[atoms.numbers].sum()) * number for atoms, number in kinds)
    if density is not None:
        if not LIGHTEST <= density <= HEAVIEST:
            raise DataError("no density of a liquid or solid", where=("pack", "density"),
                            expected=f"{LIGHTEST:g} to {HEAVIEST:g} g/cm³", found=density)  # fmt: skip
        return np.full(3, (mass * AMU_PER_A3 / density) ** (1 / 3))
    edges = np.broadcast_to(np.asarray(cell, np.float64), (3,)).copy() if np.shape(cell) in ((), (3,)) else None
    if edges is None or not (np.isfinite(edges).all() and (edges > 0).all()):
        raise DataError("no box", where=("pack", "cell"), expected="one or three edge lengths in Å", found=cell)
    found = mass * AMU_PER_A3 / float(edges.prod())
    if not LIGHTEST / 100 <= found <= HEAVIEST:
        raise DataError("no density of a liquid or solid", where=("pack", "cell"),
                        expected=f"at most {HEAVIEST:g} g/cm³", found=f"{found:.3g} g/cm³")  # fmt: skip
    return edges


def _check_room(kinds: Sequence[tuple[Atoms, int]], edges: np.ndarray, tolerance: float) -> None:
    """Atoms as spheres of half the tolerance must fit in, however they lie."""
    taken = sum(_volume(atoms.positions, tolerance / 2) * number for atoms, number in kinds)
    if taken > FULL * edges.prod():
        density = sum(float(atomic_masses[a.numbers].sum()) * n for a, n in kinds) * AMU_PER_A3 / float(edges.prod())
        raise DataError(
            f"the molecules do not fit: {tolerance:g} Å apart they take {taken / edges.prod():.0%} of the box",
            where="pack", expected=f"at most {FULL:.0%}", found=f"a density of {density:.3g} g/cm³",
            hint="Lower the density or the tolerance",
        )  # fmt: skip


def _volume(positions: np.ndarray, radius: float) -> float:
    """Volume of the union of spheres, Å³, counted on a grid."""
    low, high = positions.min(0) - radius, positions.max(0) + radius
    step = max(GRID, float(np.prod(high - low) / 2e6) ** (1 / 3))
    axes = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
    inside = np.zeros([len(axis) for axis in axes], bool)
    for centre in positions:
        x, y, z = ((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True))
        inside |= x[:, None, None] + y[None, :, None] + z[None, None, :] < radius**2
    return float(inside.sum() * step**3)


def _run(
    kinds: Sequence[tuple[Atoms, int]], edges: np.ndarray, tolerance: float, seed: int, pbc: bool, timeout: float
) -> np.ndarray:
    """Positions [N,3] from Packmol, Å."""
    program = packmol()
    size = " ".join(f"{edge:.8f}" for edge in edges)
    # Packmol reads -1 as "any seed" and 0 as one more of them.
    lines = [f"tolerance {tolerance:.6f}", "precision 0.0001", "filetype xyz", "output packed.xyz", f"seed {seed + 1}"]
    lines += [f"pbc {size}"] if pbc else []
    with tempfile.TemporaryDirectory(prefix="mlipkit-pack-") as folder:
        for k, (atoms, number) in enumerate(kinds):
            if not number:
                continue
            _write_xyz(Path(folder, f"m{k}.xyz"), atoms)
            lines += [f"structure m{k}.xyz", f"  number {number}"]
            lines += [] if pbc else [f"  inside box 0. 0. 0. {size}"]
            lines += ["end structure"]
        try:
            # A file, as Packmol reads its input twice.
            Path(folder, "pack.inp").write_text("\n".join(lines) + "\n")
            with open(Path(folder, "pack.inp")) as given:
                done = subprocess.run(
                    [program], stdin=given, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False,
                    errors="replace",
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _unpacked(f"not within {timeout:g} s") from None
        except OSError as error:
            raise DataError(f"Packmol cannot be started ({error.strerror})", where=str(program)) from None
        if done.returncode == NOT_PERFECT:
            raise _unpacked("it gave up")
        path = Path(folder, "packed.xyz")
        if done.returncode or not path.is_file():
            said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
            raise DataError("Packmol failed", where="pack", found=said[0] if said else f"exit code {done.returncode}")
        rows = path.read_text().splitlines()[2:]
        return np.array([[float(word) for word in row.split()[1:4]] for row in rows if row.strip()])


def _unpacked(how: str) -> DataError:
    return DataError(
        f"Packmol found no packing: {how}", where="pack",
        hint="Lower the density or the tolerance, give it more time, or try another seed",
    )  # fmt: skip


def _write_xyz(path: Path, atoms: Atoms) -> None:
    centred = atoms.positions - atoms.positions.mean(0)
    rows = [
        f"{chemical_symbols[z]} {x:.8f} {y:.8f} {w:.8f}" for z, (x, y, w) in zip(atoms.numbers, centred, strict=True)
    ]
    path.write_text("\n".join([str(len(atoms)), "", *rows]) + "\n")


def _check_distances(packed: Atoms, tolerance: float) -> None:
    """No two molecules, and no molecule and its own image, nearer than the tolerance."""
    from mlipkit.data.neighbours import neighbour_list

    pairs, shift, vectors = neighbour_list(packed.positions, packed.cell.array, packed.pbc, tolerance - SLACK, True)
    molecule = packed.get_array("molecule")
    other = (molecule[pairs[0]] != molecule[pairs[1]]) | shift.any(1)
    if other.any():
        distance = float(np.sqrt((vectors[other] ** 2).sum(1).min()))
        own = bool((molecule[pairs[0]] == molecule[pairs[1]])[other].any())
        raise DataError(
            "molecules too close" + (", one of them to its own image" if own else ""), where="pack",
            expected=f"{tolerance:g} Å", found=f"{distance:.3g} Å",
            hint="The box is narrower than a molecule and the tolerance" if own else "Try another seed",
        )  # fmt: skip
