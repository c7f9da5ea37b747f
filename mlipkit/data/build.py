"""From outside arrays and ASE structures to the columns of a `FrameSet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlipkit.data import columns as col
from mlipkit.data import validate
from mlipkit.data.columns import KINDS, LABEL_COLUMNS, Array, Column, Layout
from mlipkit.errors import DataError
from mlipkit.units import velocities_to_ase


def columns_from_arrays(
    numbers: Any,
    positions: Any,
    n_atoms: Any,
    offsets: Any,
    given: Mapping[str, Any],
    *,
    source: str | Sequence[str],
    trajectory: Any,
    tag: str | Sequence[str] | None,
) -> tuple[dict[str, Column], tuple[str, ...], tuple[str, ...]]:
    """(columns, sources, tags) for `FrameSet.from_arrays`, which documents arguments and errors."""
    positions = np.asarray(positions)
    given = dict(given)
    if positions.ndim == 3:
        n_frames, size = positions.shape[:2]
        if n_atoms is None and offsets is None:
            n_atoms = np.full(n_frames, size)
        numbers = np.asarray(numbers).reshape(-1)
        if len(numbers) == size != n_frames * size:
            name = source if isinstance(source, str) else "memory"
            numbers = np.tile(validate.column("numbers", numbers, size, lambda frame: (name, "")), n_frames)
            numbers.flags.writeable = False
        positions = positions.reshape(-1, positions.shape[2])
        for name in ("velocities", "forces"):
            values = np.asarray(given[name]) if given[name] is not None else None
            if values is not None and values.ndim == 3:
                given[name] = values.reshape(-1, values.shape[2])
    names = [source] if isinstance(source, str) else [str(name) for name in source]

    def where(frame: int) -> tuple[str, str]:
        if len(names) == 1:
            return names[0], f"frame {frame}"
        # Their number is only checked once the frames are counted.
        name = names[frame] if frame < len(names) else "memory"
        return name, f"frame {names[:frame].count(name)}"

    starts = validate.starts_of(n_atoms, offsets, len(positions), where)
    n_frames, total = len(starts) - 1, int(starts[-1])
    sources, source_codes = col.codes_of(source, n_frames, "source")
    tags, tag_codes = col.codes_of(tag, n_frames, "tag")
    arrays: dict[str, Array] = {"source_codes": source_codes, "tag_codes": tag_codes}
    defaults = {"cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool), "time": np.nan, "trajectory": -1}
    given |= {"numbers": numbers, "positions": positions, "trajectory": trajectory}
    for name, values in given.items():
        values = defaults.get(name) if values is None else values
        if values is not None:
            n_rows = total if KINDS[name].per_atom else n_frames
            arrays[name] = validate.column(name, values, n_rows, where)
    validate.check_structures(arrays["numbers"], arrays["positions"], starts, arrays["cell"], arrays["pbc"], where)
    for name in LABEL_COLUMNS:
        if name in arrays:
            validate.check_label(name, arrays[name], starts, where)
    arrays["structure_hashes"] = col.structure_hashes(
        arrays["numbers"], arrays["positions"], starts, arrays["cell"], arrays["pbc"]
    )
    arrays["uids"] = col.unique_ids(arrays["structure_hashes"])
    layout = Layout(starts)
    return {name: Column(values, layout) for name, values in arrays.items()}, sources, tags


def arrays_from_atoms(atoms: list[Atoms], source: str | None, keys: Mapping[str, str | None] | None) -> dict[str, Any]:
    """Arguments of `FrameSet.from_arrays` for ASE structures; see `FrameSet.from_atoms`."""
    from mlipkit.data.resolve import resolve

    default = source or "memory"
    for k, one in enumerate(atoms):
        if not isinstance(one, Atoms):
            raise DataError(
                "not a structure", where=(default, f"frame {k}"), expected="ase.Atoms", found=type(one).__name__
            )
    found = [resolve(one, keys, where=f"{default}: frame {k}") for k, one in enumerate(atoms)]
    n_atoms = np.array([len(one) for one in atoms], np.int64)
    if not atoms:
        return {"numbers": np.zeros(0, int), "positions": np.zeros((0, 3)), "n_atoms": n_atoms, "source": default}

    def gather(name: str) -> Array | None:
        if not any(name in one.values for one in found):
            return None
        kind = KINDS[name]
        shapes = [(int(n), *kind.row) if kind.per_atom else (1, *kind.row) for n in n_atoms]
        return np.concatenate(
            [
                np.reshape(one.values[name], shape) if name in one.values else np.full(shape, np.nan)
                for one, shape in zip(found, shapes, strict=True)
            ]
        )

    return {
        "numbers": np.concatenate([one.numbers for one in atoms]),
        "positions": np.concatenate([one.positions for one in atoms]),
        "n_atoms": n_atoms,
        "cell": np.stack([one.cell.array for one in atoms]),
        "pbc": np.stack([one.pbc for one in atoms]),
        **{name: gather(name) for name in LABEL_COLUMNS},
        "source": [source or one.source or "memory" for one in found],
        "trajectory": [one.trajectory for one in found],
        "time": [one.time for one in found],
        "tag": [one.tag for one in found],
    }


def atoms_of_frame(frame: Mapping[str, Any]) -> Atoms:
    """An `ase.Atoms` from `FrameSet.frame`; see `FrameSet.atoms`."""
    atoms = Atoms(frame["numbers"], frame["positions"], cell=frame["cell"], pbc=frame["pbc"])
    results: dict[str, Any] = {}
    if np.isfinite(frame["energy"]):
        results["energy"] = frame["energy"]
    if np.isfinite(frame["forces"]).all():
        results["forces"] = frame["forces"].copy()
    if np.isfinite(frame["stress"]).all():
        full = 0.5 * (frame["stress"] + frame["stress"].T)
        results["stress"] = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    velocities = frame["velocities"]
    if velocities is not None and np.isfinite(velocities).all():
        atoms.set_velocities(velocities_to_ase(velocities))
    atoms.info.update(uid=frame["uid"], source=frame["source"])
    if frame["tag"]:
        atoms.info["tag"] = frame["tag"]
    if np.isfinite(frame["time"]):
        atoms.info["time_fs"] = frame["time"]
    if frame["trajectory"] >= 0:
        atoms.info["trajectory"] = frame["trajectory"]
    return atoms
