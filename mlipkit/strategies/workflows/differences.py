"""In what two records of settings differ, by full names such as sampling.steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flat(record: Any, before: str = "") -> dict[str, Any]:
    """Full name -> value; what is no mapping has the name before it."""
    if not isinstance(record, Mapping):
        return {before: record}
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= flat(value, f"{before}.{name}" if before else str(name))
    return found


def differing(one: Any, other: Any) -> list[str]:
    """Full names of what is not the same in both."""
    first, second = flat(one), flat(other)
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]


def told(record: Any, names: Sequence[str]) -> str:
    """``sampling.steps 60, noise 0.05`` for an error."""
    known = flat(record)
    return ", ".join(f"{name} {known[name]}" if name in known else f"no {name}" for name in names)
