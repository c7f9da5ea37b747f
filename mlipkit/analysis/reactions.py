"""Reactions along a run, from the covalent graph: which atom leaves whom and binds whom, when, and whether it returns.

A hydrogen that loses a bond and has, or within `gap` gets, another is one event, a *transfer* from donor to acceptor. A
bond that breaks without that is *broken*, one that appears without that is *formed*.

Bonds of hydrogen to N, O, S, Se and halogens are labile: acids and bases exchange them. All others are the skeleton
of the molecules; near room temperature none breaks or forms, so an event of the skeleton is *unphysical*. Where
chemistry is meant to happen (flames), read that word as "skeleton".

Source: arXiv 2603.10159 finds its three events by hand; the rules here are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from ase.data import chemical_symbols

from mlipkit.analysis.bond_states import LIFETIME, BondHistory, BondLimits, bond_history
from mlipkit.data.frameset import FrameSet

GAP: Final = 5000.0
"""fs for which a hydrogen may be free between donor and acceptor."""
LABILE: Final = (7, 8, 9, 16, 17, 34, 35, 53)
"""Elements that hydrogen leaves and joins without breaking a molecule's skeleton."""


@dataclass(frozen=True)
class Event:
    """One reaction.

    Attributes:
        kind: "transfer", "broken" or "formed".
        time: fs of the first frame in which the bond to the donor is gone ("formed": the new bond there); frame: that.
        atom: the hydrogen, or the first atom of another bond; donor: whom it leaves; acceptor: whom it binds; numbers
            within the frame, from 0, and -1 where there is none.
        elements: atomic numbers of atom, donor, acceptor; 0 where there is none.
        donor_group, acceptor_group: "carboxyl", "hydroxyl", "water", "hydronium", "hydroxide", or the symbol.
        bound_time: fs at which the bond to the acceptor is there; may be before `time`, NaN where there is none.
        duration: fs that it lasts ("broken": until the bond is there again); to the end of the run where it is not
            `ended`.
        ended: whether its end was seen.
        returns: the hydrogen goes back to the same donor from there ("broken": the bond forms again).
        unphysical: a bond of the skeleton broke or formed.
    """

    kind: Literal["transfer", "broken", "formed"]
    time: float
    frame: int
    atom: int
    donor: int
    acceptor: int
    elements: tuple[int, int, int]
    donor_group: str
    acceptor_group: str
    bound_time: float
    duration: float
    ended: bool
    returns: bool
    unphysical: bool

    @property
    def deprotonation(self) -> bool:
        """A hydrogen leaves an oxygen."""
        return self.elements[0] == 1 and self.elements[1] == 8

    @property
    def text(self) -> str:
        """ "H146 leaves O136 (carboxyl) and binds Cl191 at 3160.0 ps, for 120.5 ps, then returns"."""
        what = _named(self.atom, self.elements[0])
        donor = _named(self.donor, self.elements[1], self.donor_group)
        acceptor = _named(self.acceptor, self.elements[2], self.acceptor_group)
        if self.kind == "transfer":
            said = f"{what} leaves {donor} and binds {acceptor}"
        elif self.kind == "broken":
            said = f"bond {what}-{donor} breaks"
        else:
            said = f"bond {what}-{acceptor} forms"
        said += f" at {self.time / 1000:.1f} ps, for {self.duration / 1000:.1f} ps"
        said += ", then returns" if self.returns else "" if self.ended else " or longer"
        return said + (": unphysical" if self.unphysical else "")


@dataclass(frozen=True, eq=False)
class Reactions:
    """All events of a run in order of time, and the history that they come from."""

    events: tuple[Event, ...]
    history: BondHistory

    @property
    def unphysical(self) -> tuple[Event, ...]:
        """Events of the skeleton."""
        return tuple(event for event in self.events if event.unphysical)

    @property
    def deprotonations(self) -> tuple[Event, ...]:
        """Events in which a hydrogen leaves an oxygen."""
        return tuple(event for event in self.events if event.deprotonation)

    def table(self) -> list[dict[str, object]]:
        """One row per event."""
        return [
            {
                "kind": event.kind, "time_ps": event.time / 1000, "frame": event.frame,
                "atom": _named(event.atom, event.elements[0]), "donor": _named(event.donor, event.elements[1]),
                "donor_group": event.donor_group, "acceptor": _named(event.acceptor, event.elements[2]),
                "acceptor_group": event.acceptor_group, "duration_ps": event.duration / 1000, "ended": event.ended,
                "returns": event.returns, "unphysical": event.unphysical,
            }
            for event in self.events
        ]  # fmt: skip


def reactions(
    frames: FrameSet | BondHistory,
    *,
    limits: Mapping[str | tuple[int, int], BondLimits] | None = None,
    lifetime: float = LIFETIME,
    gap: float = GAP,
    labile: tuple[int, ...] = LABILE,
) -> Reactions:
    """Events of one run.

    Args:
        frames: one run in order of time, or its history (then `limits` and `lifetime` are those of the history).
        limits, lifetime: as `bond_history` takes them.
        gap: fs for which a hydrogen may be free between donor and acceptor.
        labile: elements whose bonds to hydrogen are no skeleton.

    Raises:
        DataError: frames are not one run in order of time.
    """
    history = frames if isinstance(frames, BondHistory) else bond_history(frames, limits, lifetime)
    found = _Finder(history, gap, frozenset(labile)).events()
    return Reactions(tuple(sorted(found, key=lambda event: (event.time, event.atom))), history)


class _Finder:
    """Matches bonds that end with bonds that begin."""

    def __init__(self, history: BondHistory, gap: float, labile: frozenset[int]) -> None:
        self.h, self.gap, self.labile = history, gap, labile
        self.n_frames, self.time = history.n_frames, history.time
        self.closed = np.append(self.time, self.time[-1] + np.median(np.diff(self.time)))
        self.of_hydrogen: dict[int, list[int]] = {}
        for row, pair in enumerate(history.pairs.tolist()):
            for atom in pair:
                if history.numbers[atom] == 1:
                    self.of_hydrogen.setdefault(atom, []).append(row)

    def events(self) -> list[Event]:
        h = self.h
        acceptor_of: dict[int, tuple[int, int]] = {}
        taken: set[int] = set()
        for row in np.flatnonzero(h.end < self.n_frames)[np.argsort(h.end[h.end < self.n_frames], kind="stable")]:
            match = self._acceptor(int(row), taken)
            if match is not None:
                acceptor_of[int(row)] = match
                taken.add(match[1])
        found = [self._transfer(row, atom, other, acceptor_of) for row, (atom, other) in acceptor_of.items()]
        found += [self._broken(int(row)) for row in np.flatnonzero(h.end < self.n_frames) if row not in acceptor_of]
        return found + [self._formed(int(row)) for row in np.flatnonzero(h.start > 0) if row not in taken]

    def _acceptor(self, row: int, taken: set[int]) -> tuple[int, int] | None:
        """(hydrogen, row of the bond it goes to) for a bond that ends: one that is there, else the next."""
        h, end = self.h, int(self.h.end[row])
        found: list[tuple[bool, float, int, int]] = []
        for atom in h.pairs[row].tolist():
            if h.numbers[atom] != 1:
                continue
            donor = self._other(row, atom)
            for other in self.of_hydrogen[atom]:
                if other == row or other in taken or self._other(other, atom) == donor or h.end[other] <= end:
                    continue
                late = float(self.time[h.start[other]] - self.time[end])
                if late <= self.gap:
                    found.append((late > 0, abs(late), atom, other))
        return min(found)[2:] if found else None

    def _transfer(self, row: int, atom: int, other: int, acceptor_of: Mapping[int, tuple[int, int]]) -> Event:
        donor, acceptor = self._other(row, atom), self._other(other, atom)
        back = acceptor_of.get(other)
        returns = back is not None and back[0] == atom and self._other(back[1], atom) == donor
        skeleton = self._skeleton(row) or self._skeleton(other)
        return self._event("transfer", row, other, atom, donor, acceptor, returns, skeleton)

    def _broken(self, row: int) -> Event:
        atom, donor = self._ends(row)
        again = np.flatnonzero((self.h.pairs == self.h.pairs[row]).all(axis=1) & (self.h.start >= self.h.end[row]))
        other = int(again[np.argmin(self.h.start[again])]) if len(again) else None
        event = self._event("broken", row, None, atom, donor, -1, other is not None, self._skeleton(row))
        until = self.n_frames if other is None else int(self.h.start[other])
        life = float(self.closed[until] - self.closed[self.h.end[row]])
        return replace(event, duration=life, ended=other is not None)

    def _formed(self, row: int) -> Event:
        atom, acceptor = self._ends(row)
        return self._event("formed", None, row, atom, -1, acceptor, False, self._skeleton(row))

    def _event(
        self, kind: Literal["transfer", "broken", "formed"], left: int | None, bound: int | None, atom: int, donor: int,
        acceptor: int, returns: bool, unphysical: bool,
    ) -> Event:  # fmt: skip
        h = self.h
        frame = int(h.end[left]) if left is not None else int(h.start[bound])
        start, end = (int(h.start[bound]), int(h.end[bound])) if bound is not None else (frame, self.n_frames)
        groups = (
            self._group(donor, int(h.end[left]) - 1) if left is not None else "",
            self._group(acceptor, start) if bound is not None else "",
        )
        numbers = [0 if one < 0 else int(h.numbers[one]) for one in (atom, donor, acceptor)]
        return Event(
            kind, float(self.time[frame]), frame, atom, donor, acceptor, (numbers[0], numbers[1], numbers[2]), *groups,
            float(self.time[start]) if bound is not None else np.nan, float(self.closed[end] - self.closed[start]),
            end < self.n_frames, returns, unphysical,
        )  # fmt: skip

    def _other(self, row: int, atom: int) -> int:
        first, second = self.h.pairs[row].tolist()
        return second if first == atom else first

    def _ends(self, row: int) -> tuple[int, int]:
        """(hydrogen or first atom, the other)."""
        first, second = self.h.pairs[row].tolist()
        return (second, first) if self.h.numbers[second] == 1 and self.h.numbers[first] != 1 else (first, second)

    def _skeleton(self, row: int) -> bool:
        a, b = sorted(int(z) for z in self.h.numbers[self.h.pairs[row]])
        return not (a == 1 and b in self.labile)

    def _group(self, atom: int, frame: int) -> str:
        """What an oxygen is part of in a frame; the symbol for other elements."""
        numbers, bonds = self.h.numbers, self.h.at(frame)
        if numbers[atom] != 8:
            return chemical_symbols[numbers[atom]]

        def bonded(one: int) -> np.ndarray:
            return np.concatenate([bonds[bonds[:, 0] == one, 1], bonds[bonds[:, 1] == one, 0]])

        near = bonded(atom)
        carbons = near[numbers[near] == 6]
        hydrogens = int((numbers[near] == 1).sum())
        if len(carbons):
            around = bonded(int(carbons[0]))
            oxygens = (numbers[around] == 8).sum()
            return "carboxyl" if oxygens >= 2 and len(around) == 3 else "hydroxyl" if hydrogens else "O"
        return {1: "hydroxide", 2: "water", 3: "hydronium"}.get(hydrogens, "O") if len(near) == hydrogens else "O"


def _named(atom: int, number: int, group: str = "") -> str:
    if atom < 0:
        return ""
    symbol = chemical_symbols[number]
    return f"{symbol}{atom}" + (f" ({group})" if group not in ("", symbol) else "")
