# ruff: noqa: E501 - a table reads best with one row per line
"""Malformed input: every row fails for its own reason, in one line that names file, frame and key.

The table is the contract: what is wrong, which error, and the words a user needs to find the place.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from vasp_text import outcar, vasprun

from mlipkit.data import FrameSet, read, read_source, resolve, write
from mlipkit.errors import DataError, LabelError, MlipkitError, SpecError

GOOD = (
    '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="T T T"\n'
    "O 0 0 0 0.1 0 0\nH 0 0 0.97 -0.1 0 0\n"
)
BAD = {
    "short frame": GOOD.replace("2\n", "3\n", 1),
    "long frame": GOOD.replace("2\n", "1\n", 1),
}


@dataclass
class Case:
    """`make` writes the input into a folder and returns what to read; `words` must all be in the message."""

    what: str
    make: Callable[[Path], Any]
    error: type[MlipkitError]
    words: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    call: Callable[..., Any] = read


def text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        base = {
            "R": np.zeros((2, 3, 3)) + np.arange(3)[:, None],
            "z": np.array([8, 1, 1]),
            "E": np.array([-2070.0] * 2),
        }
        base |= {"F": np.zeros((2, 3, 3)), "e_unit": np.array("eV")}
        np.savez(folder / "m.npz", **{name: array for name, array in (base | arrays).items() if array is not None})
        return folder / "m.npz"

    return make


def deepmd(**changes: Any) -> Callable[[Path], Path]:
    """A system of two frames of three atoms; a file is replaced by an array or text, or left out (None)."""

    def make(folder: Path) -> Path:
        system = folder / "sys"
        (system / "set.000").mkdir(parents=True)
        files: dict[str, Any] = {
            "type.raw": "1 0 0",
            "type_map.raw": "H\nO",
            "coord": np.tile(np.arange(9.0), (2, 1)),
            "box": np.tile(np.diag([9.0, 9, 9]).ravel(), (2, 1)),
            "energy": np.zeros(2),
            "force": np.zeros((2, 9)),
        } | changes
        for name, content in files.items():
            if isinstance(content, str):
                (system / name).write_text(content)
            elif content is not None:
                np.save(system / "set.000" / f"{name}.npy", content)
        return system

    return make


def two(first: str, second: str) -> Callable[[Path], Path]:
    return text("m.extxyz", first + second)


def swap(old: str, new: str) -> Callable[[Path], Path]:
    """The good frame, then the same with one thing changed: the error is in frame 1."""
    assert old in GOOD
    return two(GOOD, GOOD.replace(old, new, 1))


def atoms_with(**results: Any) -> Atoms:
    atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]], cell=[9, 9, 9], pbc=True)
    atoms.info.update(results)
    return atoms


def traj_cut(folder: Path) -> Path:
    path = write(folder / "m.traj", FrameSet.from_atoms([Atoms("H", [[0, 0, k]]) for k in range(5)]))
    path.write_bytes(path.read_bytes()[:-200])
    return path


def traj_constrained(folder: Path) -> Path:
    """Not an error in itself: the constraint hides that one frame has no forces at all."""
    frames = []
    for k in range(3):
        atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]])
        results = {"energy": 0.0} if k == 1 else {"energy": 0.0, "forces": np.ones((2, 3))}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.set_constraint(FixAtoms([0, 1]))
        frames.append(atoms)
    ase.io.write(folder / "fixed.traj", frames)
    return folder / "fixed.traj"


def empty_folder(folder: Path) -> Path:
    (folder / "runs").mkdir()
    return folder / "runs"


def other_folder(folder: Path) -> Path:
    (folder / "runs").mkdir()
    (folder / "runs" / "OUTCAR").write_text(outcar([5]))
    return folder / "runs"


def half_gzip(folder: Path) -> Path:
    packed = gzip.compress(("".join(GOOD.replace("-1.0", f"{k}.5") for k in range(4000))).encode())
    (folder / "m.extxyz.gz").write_bytes(packed[: len(packed) // 2])
    return folder / "m.extxyz.gz"


def half_npz(folder: Path) -> Path:
    path = npz()(folder)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def broken_store(folder: Path) -> Path:
    frames = FrameSet.from_arrays([1], np.zeros((1, 3)), 1, energy=[1.0])
    frames.save(folder / "store")
    next((folder / "store").glob("*positions*.npy")).unlink()
    return folder / "store"


XYZ, F1 = "m.extxyz", "frame 1"
CASES = [
    # ---- files and folders
    Case("missing file", lambda f: text("train.xyz", GOOD)(f).with_name("trian.xyz"), DataError, ("trian.xyz", "no such file", "'train.xyz'")),
    Case("missing folder", lambda f: f / "no" / "a.xyz", DataError, ("a.xyz", "no such file", "no folder")),
    Case("pattern without match", lambda f: f / "*.cif", DataError, ("*.cif", "no file matches")),
    Case("empty file", text(XYZ, ""), DataError, (XYZ, "the file is empty")),
    Case("only blank lines", text(XYZ, "\n\n \n"), DataError, (XYZ, "selects no frame", "0 frames")),
    Case("empty folder", empty_folder, DataError, ("runs", "an empty folder")),
    Case("folder of something else", other_folder, DataError, ("runs", "found OUTCAR", "Name a file")),
    Case("binary garbage", raw("m.xyzzy", bytes(range(256)) * 9), DataError, ("m.xyzzy", "neither mlipkit nor ASE knows")),
    Case("binary garbage named xyz", raw("m.xyz", b"\x00\xff\xfe" * 99), DataError, ("m.xyz", "not text")),
    Case("unknown format name", text(XYZ, GOOD), DataError, (XYZ, "unknown format 'extxzy'", "'extxyz'"), {"format": "extxzy"}),
    Case("the wrong format named", text("m.cif", GOOD), DataError, ("m.cif", "ASE cannot read this as 'vasp'"), {"format": "vasp"}),
    Case("saved set with a column missing", broken_store, DataError, ("store", "positions")),
    # ---- indices
    Case("index out of range", text(XYZ, GOOD * 3), DataError, (XYZ, "no frame 7", "3 frames"), {"index": 7}),
    Case("index from the back out of range", text(XYZ, GOOD * 3), DataError, (XYZ, "no frame -4"), {"index": "-4"}),
    Case("slice beyond the end", text(XYZ, GOOD * 3), DataError, (XYZ, "selects no frame", "5:9"), {"index": "5:9"}),
    Case("index that is none", text(XYZ, GOOD), DataError, ("'first' is no index", "start:stop:step"), {"index": "first"}),
    Case("index after the path that is none", lambda f: f"{text(XYZ, GOOD)(f)}@last", DataError, (XYZ, "'last' is no index")),
    Case("index out of range in a trajectory", lambda f: write(f / "m.traj", FrameSet.from_atoms([Atoms("H")])), DataError, ("m.traj", "no frame", "index 5"), {"index": 5}),
    # ---- truncation
    Case("cut inside a frame", text(XYZ, (GOOD * 2)[:-21]), DataError, (XYZ, F1, "ends inside a frame", "2 atoms", "1 atoms")),
    Case("cut inside a line", text(XYZ, (GOOD * 2)[:-6]), DataError, (XYZ, F1, "line 8", "wrong number of columns")),
    Case("cut after the atom count", text(XYZ, GOOD + "2\n"), DataError, (XYZ, F1, "ends inside a frame", "0 atoms")),
    Case("cut inside the header", text(XYZ, GOOD + '2\nLattice="9 0 0 0 9\nO 0 0 0 0 0 0\nH 0 0 1 0 0 0\n'), DataError, (XYZ, F1, "'Lattice' is never closed")),
    Case("half a gzip file", half_gzip, DataError, ("m.extxyz.gz", "frame ", "damaged or cut short")),
    Case("half an npz archive", half_npz, DataError, ("m.npz", "damaged or cut short")),
    Case("cut ASE trajectory", traj_cut, DataError, ("m.traj", "ASE cannot read this as 'traj'")),
    Case("OUTCAR cut in the first step", text("OUTCAR", outcar([5])[:-900]), DataError, ("OUTCAR", "no complete ionic step")),
    Case("vasprun.xml cut in the first step", text("vasprun.xml", vasprun([5])[:1500]), DataError, ("vasprun.xml", "no complete ionic step", "cut short")),
    # ---- counts and columns
    Case("fewer atoms than stated", two(GOOD, BAD["short frame"] + GOOD), DataError, (XYZ, F1, "wrong number of columns", "expected 7")),
    Case("more atoms than stated", two(GOOD, BAD["long frame"]), DataError, (XYZ, "frame 2", "no frame starts here", "more atoms")),
    Case("no atoms", two(GOOD, "0\nProperties=species:S:1:pos:R:3\n"), DataError, (XYZ, F1, "without atoms")),
    Case("a negative number of atoms", two(GOOD, "-2\n\n"), DataError, (XYZ, F1, "without atoms", "-2")),
    Case("text in a numeric column", swap("0 0 0.97", "0 x.97 0.97"), DataError, (XYZ, F1, "line 8", "'x.97' in column 'positions'")),
    Case("text in the forces", swap("-0.1 0 0", "-0.1 ***** 0"), DataError, (XYZ, F1, "line 8", "'*****' in column 'forces'")),
    Case("Properties that are no triples", swap("pos:R:3:forces:R:3", "pos:R:3:forces:R"), DataError, (XYZ, F1, "line 6", "cannot read Properties")),
    Case("Properties without positions", swap("pos:R:3:forces:R:3", "xyz:R:3:forces:R:3"), DataError, (XYZ, F1, "no positions")),
    Case("a column declared twice", swap("pos:R:3:forces:R:3", "pos:R:3:pos:R:3"), DataError, (XYZ, F1, "'positions' is declared twice")),
    Case("unknown element", swap("H 0", "Hx 0"), DataError, (XYZ, F1, "line 8", "unknown element 'Hx'")),
    Case("ghost atom", swap("H 0", "X 0"), DataError, (XYZ, F1, "unknown element 'X'", "Ghost atoms")),
    Case("negative atomic number", two(GOOD, "1\nProperties=Z:I:1:pos:R:3\n-6 0 0 0\n"), DataError, (XYZ, F1, "atom 0", "1 to 118", "-6"), {"allow_partial": True}),
    Case("NaN position", swap("0 0 0.97", "0 nan 0.97"), DataError, (XYZ, F1, "atom 1", "position is not finite")),
    # ---- cells
    Case("Lattice that cannot be read", swap("9 0 0 0 9 0 0 0 9", "9 0 0 0 nine 0 0 0 9"), DataError, (XYZ, F1, "cannot read Lattice", "9 numbers")),
    Case("Lattice of three numbers", swap("9 0 0 0 9 0 0 0 9", "9 9 9"), DataError, (XYZ, F1, "cannot read Lattice", "'9 9 9'")),
    Case("pbc that cannot be read", swap("T T T", "T T maybe"), DataError, (XYZ, F1, "cannot read pbc", "T T maybe")),
    Case("zero cell with pbc", swap("9 0 0 0 9 0 0 0 9", "0 0 0 0 0 0 0 0 0"), DataError, (XYZ, F1, "periodic axis a is zero")),
    Case("pbc without any cell", swap('Lattice="9 0 0 0 9 0 0 0 9" ', ""), DataError, (XYZ, F1, "periodic axis a is zero")),
    Case("flat cell", swap("9 0 0 0 9 0 0 0 9", "9 0 0 9 0 0 0 0 9"), DataError, (XYZ, F1, "one plane or line")),
    Case("infinite cell", swap("9 0 0 0 9", "inf 0 0 0 9"), DataError, (XYZ, F1, "cell is not finite")),
    # ---- labels
    Case("named key that is not there", text(XYZ, GOOD), LabelError, (XYZ, "'force'", "none of 1 frames", "'forces'"), {"keys": {"forces": "force"}}),
    Case("key for something that is no label", text(XYZ, GOOD), SpecError, ("keys", "'force' is no label", "'forces'"), {"keys": {"force": "F"}}),
    Case("energy on some frames", swap("energy=-1.0", "note=1"), LabelError, (XYZ, "energy is on 1 of 2 frames", F1, "forces 2/2", "allow_partial=True")),
    Case("forces on some frames behind a constraint", traj_constrained, LabelError, ("fixed.traj", "forces is on 2 of 3 frames", F1)),
    Case("NaN energy", swap("-1.0", "nan"), LabelError, (XYZ, F1, "energy is not finite", "NaN")),
    Case("infinite energy", swap("-1.0", "-inf"), LabelError, (XYZ, F1, "energy is not finite", "infinite"), {"allow_partial": True}),
    Case("NaN in the forces", swap("-0.1 0 0", "-0.1 nan 0"), LabelError, (XYZ, F1, "forces is not finite"), {"allow_partial": True}),
    Case("energy that is text", swap("-1.0", "unknown"), LabelError, (XYZ, F1, "energy", "no number", "'unknown'")),
    Case("energy that is a vector", swap("energy=-1.0", 'energy="-1.0 -2.0"'), LabelError, (XYZ, F1, "energy has the wrong shape", "(2,)")),
    Case("forces with two components", swap("forces:R:3", "forces:R:2:q:R:1"), LabelError, (XYZ, F1, "forces", "(2, 3)", "(2, 2)")),
    Case("Voigt stress of length 5", swap("energy", 'stress="1 2 3 4 5" energy'), LabelError, (XYZ, F1, "stress has the wrong shape", "(5,)")),
    Case("virial without a cell", two("", GOOD.replace("Lattice=", "L=").replace("T T T", "F F F").replace("energy", 'virial="1 0 0 0 1 0 0 0 1" energy')), LabelError, (XYZ, "frame 0", "virial", "without a cell")),
    Case("forces of the wrong shape in memory", lambda f: atoms_with(forces=np.zeros((3, 3))), LabelError, ("forces", "(2, 3)", "(3, 3)"), call=resolve),
    Case("named key not on an Atoms", lambda f: atoms_with(dft_energy=1.0), LabelError, ("'dft_enery'", "'dft_energy'"), {"keys": {"energy": "dft_enery"}}, resolve),
    # ---- npz
    Case("npz without positions", npz(R=None, X=np.zeros((2, 3, 3))), DataError, ("m.npz", "no positions", "R or coords", "X")),
    Case("npz without numbers", npz(z=None), DataError, ("m.npz", "no numbers", "nuclear_charges")),
    Case("npz with one frame too few energies", npz(E=np.zeros(3)), LabelError, ("m.npz", "E", "energy and positions disagree", "(2,)", "(3,)")),
    Case("npz with forces of another molecule", npz(F=np.zeros((2, 4, 3))), LabelError, ("m.npz", "F", "forces and positions disagree", "(2, 4, 3)")),
    Case("npz with numbers of another molecule", npz(z=np.array([8, 1])), DataError, ("m.npz", "z", "atomic numbers and positions disagree")),
    Case("npz with element 0", npz(z=np.array([8, 0, 1])), DataError, ("m.npz", "frame 0", "atom 1", "1 to 118")),
    Case("npz of Python objects", npz(E=np.array([{"e": 1.0}, None], dtype=object)), DataError, ("m.npz", "E", "never unpickled")),
    Case("npz with an unknown unit", npz(e_unit=np.array("kcal")), DataError, ("m.npz", "unknown energy unit 'kcal'", "kcal/mol")),
    Case("npz whose unit nobody knows", npz(e_unit=None, E=np.array([-1.0, -1.1])), DataError, ("m.npz", "not declared and cannot be recognised", "units=")),
    Case("npz with a NaN in frame 1", npz(E=np.array([-1.0, np.nan])), LabelError, ("m.npz", F1, "npz['E']", "not finite")),
    Case("npz named key not there", npz(), LabelError, ("m.npz", "E_ccsd", "known: E, F, R"), {"keys": {"energy": "E_ccsd"}}),
    Case("a single npy array", lambda f: (np.save(f / "a.npy", np.zeros(3)), f / "a.npy")[1], DataError, ("a.npy", "a single array is no data set")),
    Case("a pickle", raw("m.pkl", pickle.dumps({"positions": [0.0]})), DataError, ("m.pkl", "neither mlipkit nor ASE knows")),
    # ---- DeePMD
    Case("DeePMD type without element", deepmd(**{"type.raw": "2 0 0"}), DataError, ("sys", "type.raw", "type 2 has no element", "0 to 1")),
    Case("DeePMD with too few types", deepmd(**{"type.raw": "1 0"}), DataError, ("sys", "coord.npy", "for 2 atoms", "(2, 9)")),
    Case("DeePMD types that are text", deepmd(**{"type.raw": "O H H"}), DataError, ("sys", "type.raw", "types are not integers")),
    Case("DeePMD without type map", deepmd(**{"type_map.raw": None}), DataError, ("sys", "type_map.raw is missing")),
    Case("DeePMD with an unknown element", deepmd(**{"type_map.raw": "H Oxy"}), DataError, ("sys", "type_map.raw", "unknown element 'Oxy'")),
    Case("DeePMD forces of another size", deepmd(force=np.zeros((2, 6))), LabelError, ("sys", "set.000", "force.npy", "(2, 9)", "(2, 6)")),
    Case("DeePMD without cell", deepmd(box=None), DataError, ("sys", "box.npy", "nopbc")),
    Case("DeePMD named file not there", deepmd(), LabelError, ("sys", "'force_cc'", "force"), {"keys": {"forces": "force_cc"}}),
    # ---- VASP
    Case("unconverged OUTCAR", text("OUTCAR", outcar([5, 15])), DataError, ("OUTCAR", F1, "did not converge", "NELM = 15"), {"unconverged": "error"}),
    Case("OUTCAR without atoms", text("OUTCAR", outcar([5]).replace("ions per type", "ions")), DataError, ("OUTCAR", "frame 0", "ion_types")),
    Case("OUTCAR with stars", text("OUTCAR", outcar([5, 6]).replace("0.97000 ", "********", 1)), DataError, ("OUTCAR", F1, "cannot parse", "********")),
    # ---- what specifications name
    Case("unknown sample", lambda f: "sample:ethanol_300", MlipkitError, ("ethanol_300", "ethanol_300K"), call=read_source),
    Case("unknown public set", lambda f: "public:md17_etanol", DataError, ("md17_etanol", "md17_ethanol"), call=read_source),
    Case("no source at all", lambda f: [], DataError, ("no data named",), call=read_source),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_malformed(tmp_path, case):
    folder = tmp_path / "in"
    folder.mkdir()
    given = case.make(folder)
    with pytest.raises(MlipkitError) as caught:
        case.call(given, **case.options)
    message = str(caught.value)
    assert isinstance(caught.value, case.error), f"{type(caught.value).__name__}: {message}"
    missing = [word for word in case.words if word not in message]
    assert not missing, f"{missing} not in: {message}"
    assert "\n" not in message
    assert len(message) < 700


def test_the_table_is_long_enough_and_the_good_frame_is_good(tmp_path):
    assert len({case.what for case in CASES}) == len(CASES) >= 40
    frames = read(text(XYZ, GOOD * 2)(tmp_path))
    assert frames.has("forces").all()
    assert len(read(npz()(tmp_path))) == 2
    assert len(read(deepmd()(tmp_path))) == 2
