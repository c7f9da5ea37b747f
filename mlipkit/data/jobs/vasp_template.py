"""A folder of VASP inputs as a template: what it asks for, and the files of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlipkit.data.jobs import vasp_input as vasp
from mlipkit.errors import DataError

STRUCTURES = ("POSCAR", "CONTCAR")


class VaspTemplate:
    """INCAR, KPOINTS, POTCAR and whatever else shall lie beside the POSCAR.

    Attributes:
        species: elements in the order of the POTCAR, or as they were given; of all elements by number without either.
        settings: what the inputs ask for in so many words.
        warnings: one sentence each.

    Raises:
        DataError: no INCAR, a POTCAR that cannot be used, an order of elements that contradicts it.
    """

    code = "vasp"

    def __init__(self, files: dict[str, Path], species: tuple[str, ...] | None) -> None:
        if "INCAR" not in files:
            raise DataError("the template has no INCAR", found=", ".join(sorted(files)) or "an empty folder")
        self.files = files
        self.tags = vasp.incar_tags(_text(files["INCAR"]))
        kpoints = _text(files["KPOINTS"]) if "KPOINTS" in files else None
        self.datasets = vasp.potcar_datasets(_text(files["POTCAR"])) if "POTCAR" in files else []
        self.settings = vasp.input_settings(self.tags, kpoints, self.datasets)
        order = tuple(one.symbol for one in self.datasets)
        if order and species is not None and species != order:
            raise DataError("the order of elements contradicts the POTCAR", where="species",
                            expected=" ".join(order), found=" ".join(species))  # fmt: skip
        for symbol in species or ():
            if symbol not in atomic_numbers:
                raise DataError("no such element", where="species", found=repr(symbol))
        self.species = order or species or tuple(chemical_symbols[1:])
        self.warnings = self._warnings(kpoints, species)

    def _warnings(self, kpoints: str | None, species: tuple[str, ...] | None) -> list[str]:
        found = []
        if not self.datasets:
            order = " ".join(species) if species else "by atomic number"
            found.append(f"no POTCAR in the template: make each in the order of line 6 of its POSCAR ({order})")
        if kpoints is None and "KSPACING" not in self.tags:
            found.append("neither KPOINTS nor KSPACING: VASP takes KSPACING = 0.5")
        steps = self.tags.get("NSW", "0").split()
        if steps and steps[0] not in ("0", "1"):
            found.append(f"NSW = {steps[0]}: of several ionic steps only the first is taken")
        if "ENCUT" not in self.tags:
            found.append("no ENCUT: VASP takes the largest of the POTCAR, which differs between compositions")
        return found

    def check(self, frame: dict[str, Any]) -> None:
        """Whether a frame can be computed with these inputs.

        Raises:
            DataError: no cell, a left-handed one, an element without a dataset, tags with a value for each atom or
                dataset that do not fit.
        """
        volume = float(np.linalg.det(frame["cell"]))
        if abs(volume) < 1e-6:
            raise DataError("no cell, and VASP needs one", where="cell", found=f"a volume of {volume:g} Å³",
                            hint="Give molecules a box: box=15 (Å)")  # fmt: skip
        if volume < 0:
            raise DataError("a left-handed cell, which VASP refuses", where="cell", found=f"volume {volume:.6g} Å³",
                            hint="Exchange two cell vectors")  # fmt: skip
        vasp.atom_order(frame["numbers"], self.species)
        present = {int(z) for z in frame["numbers"]}
        if len(self.datasets) > len(present):
            for tag in vasp.PER_SPECIES:
                if tag in self.tags:
                    raise DataError(
                        f"{tag} has a value for each dataset of the POTCAR, of which this frame needs some only",
                        where="INCAR", expected=" ".join(self.species),
                        found=" ".join(s for s in self.species if atomic_numbers[s] in present),
                        hint="Export the frames of each composition with a template of its own",
                    )  # fmt: skip
        if "MAGMOM" in self.tags and vasp.flag(self.tags.get("LNONCOLLINEAR", "F")) == "F":
            count = vasp.count_values(self.tags["MAGMOM"])
            if count != len(frame["numbers"]):
                raise DataError("MAGMOM does not fit the number of atoms", where="INCAR",
                                expected=len(frame["numbers"]), found=count)  # fmt: skip

    def job(self, frame: dict[str, Any]) -> tuple[dict[str, bytes], np.ndarray]:
        """Files of a frame that are no copies; int64 [n]: atom k of the POSCAR is atom ``order[k]`` of the frame."""
        order = vasp.atom_order(frame["numbers"], self.species)
        comment = f"{frame['uid']} (atoms grouped by element: order in mlipkit_job.json)"
        text = vasp.poscar(frame["numbers"], frame["positions"], frame["cell"], order, comment)
        made = {"POSCAR": text.encode()}
        present = {chemical_symbols[int(z)] for z in frame["numbers"]}
        if len(self.datasets) > len(present):
            # VASP reads as many datasets as the POSCAR has elements, whichever they are.
            made["POTCAR"] = "".join(one.text for one in self.datasets if one.symbol in present).encode("latin-1")
        return made, order


def _text(path: Path) -> str:
    return path.read_text(encoding="latin-1")
