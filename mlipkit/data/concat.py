"""Joining `FrameSet`s: share what is shared, copy the rest, keep uids and trajectory numbers unique."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlipkit.data import columns as col
from mlipkit.data.columns import KINDS, Array, Column, Layout
from mlipkit.data.frameset import FrameSet
from mlipkit.errors import DataError


def concat_frames(parts: Sequence[FrameSet]) -> FrameSet:
    """See `FrameSet.concat`.

    Raises:
        DataError: nothing to join.
    """
    if not parts:
        raise DataError("nothing to join", expected="at least one FrameSet")
    for part in parts:
        if not isinstance(part, FrameSet):
            raise DataError("cannot join", expected="FrameSets", found=type(part).__name__)
    filled = [part for part in parts if len(part)]
    if len(filled) <= 1:
        return filled[0] if filled else parts[0]

    layout = Layout(np.concatenate([[0], np.cumsum(np.concatenate([part.n_atoms for part in filled]))]))
    columns: dict[str, Column] = {}
    for name, kind in KINDS.items():
        if not any(name in part._columns for part in filled):
            continue
        shared = _shared(name, filled)
        if shared is not None:
            columns[name] = shared
        elif name not in ("source_codes", "tag_codes", "trajectory", "uids"):
            joined = np.concatenate([part._column(name) for part in filled])
            columns[name] = Column(np.asarray(joined, kind.dtype), layout)

    sources, codes = _join_names([part.source_codes for part in filled], [part.sources for part in filled])
    if not _same_names([part.sources for part in filled]) or "source_codes" not in columns:
        columns["source_codes"] = Column(codes, layout)
    tags, codes = _join_names([part.tag_codes for part in filled], [part.tags for part in filled])
    if not _same_names([part.tags for part in filled]) or "tag_codes" not in columns:
        columns["tag_codes"] = Column(codes, layout)
    if "trajectory" not in columns:
        columns["trajectory"] = Column(_join_trajectories(filled), layout)
    uids = np.concatenate([part.uids for part in filled])
    unique = col.unique_ids(uids)
    if "uids" not in columns or not np.array_equal(uids, unique):
        columns["uids"] = Column(unique, layout)
    return FrameSet(columns, sources, tags)


def _shared(name: str, parts: Sequence[FrameSet]) -> Column | None:
    """The one stored column that all parts show, under a joined layout."""
    stored = [part._columns.get(name) for part in parts]
    first = stored[0]
    if first is None or any(
        one is None or one.values is not first.values or one.layout.starts is not first.layout.starts for one in stored
    ):
        return None
    rows = np.concatenate([one.layout.stored_rows() for one in stored if one is not None])
    return Column(first.values, Layout(first.layout.starts, col.as_index(rows, len(first.layout.starts) - 1)))


def _same_names(tables: Sequence[tuple[str, ...]]) -> bool:
    return all(table == tables[0] for table in tables)


def _join_names(codes: Sequence[Array], tables: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], Array]:
    names: dict[str, int] = {}
    joined = []
    for part, table in zip(codes, tables, strict=True):
        new = np.array([names.setdefault(name, len(names)) for name in table], np.int32)
        joined.append(new[part])
    return tuple(names), np.concatenate(joined)


def _join_trajectories(parts: Sequence[FrameSet]) -> Array:
    """Numbers kept among parts of one stored column, moved past each other between different ones."""
    shift: dict[int, int] = {}
    following = 0
    joined = []
    for part in parts:
        stored = part._columns["trajectory"].values
        if id(stored) not in shift:
            shift[id(stored)] = following
            following += int(stored.max(initial=-1)) + 1
        numbers = part.trajectory
        joined.append(np.where(numbers >= 0, numbers + shift[id(stored)], -1).astype(np.int32))
    return np.concatenate(joined)
