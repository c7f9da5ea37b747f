"""The runs of a folder as lines of a list: state, which run it came of, what became of it. Cheap to look at again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipkit.errors import MlipkitError
from mlipkit.runs import MDSpec, Run
from mlipkit.runs.family import launched_at, parents, picked_from
from mlipkit.runs.replicas import FS_PER_PS, Replicas

from .run_list import far
from .states import look, state_of

MOST_DEPTH = 4
UNREADABLE = (MlipkitError, OSError, ValueError, TypeError, KeyError)
"""What files of others, of a newer version, or half of one may end in."""


@dataclass
class Kept:
    """A run with what was found out about it, and the stamps of the files that this was read from."""

    run: Run
    born: tuple[int, float]
    launched: float
    stamp: tuple[Any, ...] = ()
    state: str = ""
    came_of: str = ""
    replicas: Replicas | None = None


class RunsData:
    """All runs of a folder, kept up to date by `refresh`; of runs that have ended only the stamps are looked at.

    Args:
        root: the folder.

    Attributes:
        lines: what a list shows, parents before children: ``{"name", "depth", "icon", "word", "tone", "text",
            "origin", "told"}``.
        revision: grows whenever a run came, went, or changed its state.
        unread: folder -> why a run that lies there cannot be read; it stands in the list all the same.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: dict[Path, Kept] = {}
        self.unread: dict[Path, str] = {}
        self.lines: list[dict[str, Any]] = []
        self.revision = 0

    @property
    def runs(self) -> list[Run]:
        """In the order of their launch."""
        return [one.run for one in self._ordered()]

    @property
    def states(self) -> dict[Path, str]:
        """Folder -> state."""
        return {folder: one.state for folder, one in self._kept.items()}

    def run(self, folder: Path | None) -> Run | None:
        """The run of a folder, when it is here."""
        one = self._kept.get(folder) if folder is not None else None
        return one.run if one is not None else None

    def named(self, name: str) -> Run | None:
        """The run of this name, when it is here."""
        return self.run(self.root.resolve() / name)

    @property
    def live(self) -> bool:
        """News are expected."""
        return any(look(one.state).live for one in self._kept.values())

    def refresh(self) -> bool:
        """Look at the folder once; True when something that is shown has changed."""
        before = self.unread
        self.unread = {}
        changed = self._find()
        for folder, one in list(self._kept.items()):
            try:
                changed = self._look(one) or changed
            except UNREADABLE as error:
                self._leave_out(folder, error)
        changed = changed or self.unread != before
        if changed:
            lines = self._lines()
            changed = lines != self.lines
            self.lines = lines
        return changed

    def _find(self) -> bool:
        """Take in what is new, forget what has gone."""
        found: dict[Path, tuple[int, float]] = {}
        root = self.root.resolve()
        try:
            folders = [entry.path for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
        except OSError:
            folders = []
        for folder in folders:
            try:
                stat = os.stat(os.path.join(folder, "spec.yaml"))
            except OSError:
                continue
            found[Path(folder)] = stat.st_ino, stat.st_mtime
        gone = [folder for folder, one in self._kept.items() if found.get(folder) != one.born]
        for folder in gone:
            del self._kept[folder]
        new = False
        for folder, born in found.items():
            if folder in self._kept:
                continue
            try:
                run = Run(folder)
                kept = Kept(run, born, launched_at(run))
                self._look(kept)
            except UNREADABLE as error:
                self._leave_out(folder, error)
                continue
            self._kept[folder] = kept
            new = True
        if new or gone:
            self.revision += 1
        return bool(new or gone)

    def _leave_out(self, folder: Path, error: Exception) -> None:
        """A run whose files cannot be read must not take the others along."""
        if not (folder / "spec.yaml").is_file():  # deleted at this moment
            return
        self.unread[folder] = " ".join(str(error).split())
        if self._kept.pop(folder, None) is not None:
            self.revision += 1

    def _look(self, one: Kept) -> bool:
        """State and result of one run; True when they may have changed."""
        files = one.run.files
        stamp = tuple(_stamp(path) for path in (files.events, files.path / "pid.json", files.path / "progress.json"))
        if stamp == one.stamp and look(one.state).final:
            return False
        state, came_of = one.state, one.came_of
        one.state = state_of(one.run)
        one.stamp = stamp
        one.came_of = self._result(one)
        if one.state != state:
            self.revision += 1
        return (state, came_of) != (one.state, one.came_of)

    def _result(self, one: Kept) -> str:
        """What became of it, or how far it is, in a few words."""
        run, final = one.run, look(one.state).final
        if isinstance(run.spec, MDSpec) and one.state not in ("waiting", "queued", "crashed"):
            if one.replicas is None:
                one.replicas = Replicas(run)
            else:
                one.replicas.refresh()
            failed, n = one.replicas.n_failed, len(one.replicas)
            if not final:
                return far(run) + (f", {failed} failed" if failed else "")
            if n > 1:
                early = sum(each.fate != "held" and not each.failed for each in one.replicas)
                if early:
                    return f"{failed or 'none'} of {n} failed, {early} ended early"
                return f"{failed} of {n} failed" if failed else f"all {n} held"
            first = one.replicas.first_failed
            return f"failed at {first.time / FS_PER_PS:.3g} ps" if first is not None else far(run)
        if not final:
            return far(run)
        if one.state == "completed" and run.kind == "dynamic":
            # Error of single frames is not what it was trained for.
            tested = run.facts().get("test_rollouts") or {}
            return f"roll-outs {1000 * tested['mepa']:.0f} meV/Å" if tested.get("mepa") is not None else ""
        if one.state == "completed" and run.kind in ("train", "finetune"):
            if run.facts().get("worse_than_start"):
                return "no better than its start"
            error = run.metrics().get("validation", {}).get("forces_mae")
            return f"forces {1000 * error:.0f} meV/Å" if error is not None else ""
        if one.state == "completed" and run.kind == "taip":
            return {"does not": "does not work"}.get(answer := str(run.facts().get("answer", "")), answer)
        if one.state == "completed" and run.kind == "label":
            facts = run.facts()
            return f"{facts['labelled']} of {facts['asked']} labelled" if "asked" in facts else ""
        return ""

    def _ordered(self) -> list[Kept]:
        return sorted(self._kept.values(), key=lambda one: (one.launched, one.run.name))

    def _lines(self) -> list[dict[str, Any]]:
        """Parents before their children, each family in the order of launch."""
        ordered = self._ordered()
        home = {one.run.folder: self._home(one) for one in ordered}
        young: dict[Path | None, list[Kept]] = {}
        for one in ordered:
            young.setdefault(home[one.run.folder], []).append(one)
        lines: list[dict[str, Any]] = []
        seen: set[Path] = set()

        def put(one: Kept, depth: int) -> None:
            if one.run.folder in seen:
                return
            seen.add(one.run.folder)
            lines.append(_line(one, depth, home[one.run.folder]))
            for child in young.get(one.run.folder, []):
                put(child, depth + 1)

        for one in young.get(None, []):
            put(one, 0)
        for one in ordered:  # only in a circle, which nobody can launch
            put(one, 0)
        return lines + [_unread_line(folder, why) for folder, why in sorted(self.unread.items())]

    def _home(self, one: Kept) -> Path | None:
        """The run that it came of: of several the one launched last."""
        found = [self._kept[folder] for folder in _origins(one.run) if folder in self._kept]
        found = [other for other in found if other is not one and other.launched <= one.launched]
        return max(found, key=lambda other: other.launched).run.folder if found else None


def _origins(run: Run) -> list[Path]:
    try:
        return [*parents(run), *picked_from(run)]
    except (MlipkitError, OSError):
        return []


def _unread_line(folder: Path, why: str) -> dict[str, Any]:
    word, style = "cannot be read", look("crashed")
    return {
        "name": folder.name, "depth": 0, "icon": style.icon, "word": word, "tone": style.tone, "text": word,
        "origin": "", "told": f"{folder.name}, {word}: {why}",
    }  # fmt: skip


def _line(one: Kept, depth: int, home: Path | None) -> dict[str, Any]:
    style = look(one.state)
    origin = f"from {home.name}" if home is not None else ""
    told = ", ".join(part for part in (one.run.name, style.word.lower(), one.came_of, origin) if part)
    return {
        "name": one.run.name, "depth": min(depth, MOST_DEPTH), "icon": style.icon, "word": style.word.lower(),
        "tone": style.tone, "text": one.came_of or style.word.lower(), "origin": origin, "told": told,
    }  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
