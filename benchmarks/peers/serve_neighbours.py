"""Neighbour lists of ASE, matscipy and vesin as engines of `bench.py` (first argument: which); see `serving.py`."""

from __future__ import annotations

import sys
from typing import Any

from serving import Work, atoms_of, serve


def build(context: dict[str, Any]) -> Work:
    atoms, cutoff = atoms_of(context), context["job"]["cutoff"]
    if sys.argv[1] == "vesin":
        from vesin import NeighborList

        finder = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
        arrays = atoms.positions, atoms.cell.array, atoms.pbc
        find = lambda: finder.compute(*arrays, quantities="ijSD", copy=True)  # noqa: E731
    elif sys.argv[1] == "matscipy":
        from matscipy.neighbours import neighbour_list

        find = lambda: neighbour_list("ijSD", atoms, cutoff)  # noqa: E731
    else:
        from ase.neighborlist import neighbor_list

        find = lambda: neighbor_list("ijSD", atoms, cutoff)  # noqa: E731
    return Work(find, {"atoms": len(atoms), "edges": len(find()[0])})


if __name__ == "__main__":
    serve(build)
