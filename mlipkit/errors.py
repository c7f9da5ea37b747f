"""Errors a user can act on: where it is, what was expected, what was found, what to do next.

Every error that mlipkit raises on purpose is an `MlipkitError`. Its text is one line, so that a shell prints it whole
and a notebook need not show a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MlipkitError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: the problem in one clause.
        where: file, frame, key or field, joined in reading order (``("train.xyz", "frame 12", "forces")``).
        expected: what would have been right.
        found: what was there.
        hint: the next step.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | Iterable[object] = (),
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        places = [where] if isinstance(where, str) else [str(part) for part in where]
        text = ": ".join([*(place for place in places if place), what])
        if expected is not None:
            text += f"; expected {expected}"
        if found is not None:
            text += f"; found {found}"
        if hint:
            text += f"{'' if text.endswith('.') else '.'} {hint}"
        super().__init__(" ".join(text.split()))
        self.what, self.where, self.expected, self.found, self.hint = what, tuple(places), expected, found, hint


class DataError(MlipkitError):
    """A file or frame cannot be used as it is."""


class LabelError(DataError):
    """A label resolves nowhere, has the wrong shape, or is not finite."""


class ModelError(MlipkitError):
    """A model cannot be built, loaded or applied (unknown element, wrong format version)."""


class SpecError(MlipkitError):
    """A specification names something unknown or contradicts itself."""


class RunError(MlipkitError):
    """A run folder cannot be opened, started or resumed."""


class MissingPackageError(MlipkitError):
    """An optional package is needed and not installed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Sentence fragment that lists the known names, the nearest match first: ``did you mean 'forces'? known: ...``."""
    choices = sorted(map(str, known))
    folded = {choice.lower(): choice for choice in choices}
    match = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    match = match or [folded[found] for found in difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)]
    start = f"did you mean '{match[0]}'? " if match else ""
    return f"{start}known: {', '.join(choices) if choices else 'none'}"


def check_choice(value: object, known: Iterable[str], where: str) -> None:
    """Refuse a word that is none of the known ones: a misspelt option must not become another option.

    Raises:
        DataError: names the word, the nearest match and all that are known.
    """
    choices = tuple(known)
    if value not in choices:
        raise DataError("no such choice", where=where, found=repr(value), hint=nearest(str(value), choices))


def require(module: str, extra: str, purpose: str, cure: str = ""):
    """Import an optional package when it is first needed, or say which extra brings it (or another cure)."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package '{module.split('.')[0]}' ({error})",
            hint=cure or f'Install it with: pip install "mlipkit[{extra}]"',
        ) from error


def torch_is_there() -> bool:
    """Whether torch can be imported here, found out without importing it."""
    import importlib.util

    try:
        return importlib.util.find_spec("torch") is not None
    except ValueError:  # a module that was put together by hand
        return True


def check_torch(purpose: str) -> None:
    """Refuse what computes where torch is missing, as in an installation that only opens runs.

    Raises:
        MissingPackageError: names the extra that brings it.
    """
    if not torch_is_there():
        raise MissingPackageError(
            f"{purpose} needs the package 'torch', which is not installed",
            hint='Install it with: pip install "mlipkit[compute]"',
        )
