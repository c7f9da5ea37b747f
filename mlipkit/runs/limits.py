"""Limits of the stability checks as plain data: what a specification may say of them, known without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from mlipkit.errors import nearest

CHECKS = (
    "finite", "temperature", "max_force", "energy_drift", "overlap", "broken_bonds", "lone_atoms", "density",
)  # fmt: skip
"""Stability checks; a test compares them with `mlipkit.md.CHECKS`."""
CHECK_LIMITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CHECKS, ("warn", "fail", "every")),
    "finite": ("every",),
    "temperature": ("warn", "fail", "every", "during", "jump"),
    "energy_drift": ("warn", "fail", "every", "window"),
    "overlap": ("warn", "fail", "every", "least"),
}
"""Limits of each check that act; a test compares them with the fields in `mlipkit.md`."""


def check_limit(name: str, limit: Any) -> None:
    """Refuse what is no limit of the check `name`, as `mlipkit.md.build_checks` would much later."""
    if limit is None or isinstance(limit, bool):
        return
    known = CHECK_LIMITS[name]
    if not isinstance(limit, Mapping):
        if "fail" not in known:
            raise ValueError(f"checks: {name} has no limit, it is true or false; found {limit!r:.40}")
        if not _is_number(limit) or not limit > 0:
            raise ValueError(f"checks: {name}: expected a number above 0, limits by name or false; found {limit!r:.40}")
        return
    for field, value in limit.items():
        if field not in known:
            raise ValueError(f"checks: {name}: unknown limit '{field}', {nearest(field, known)}")
        if value is None and field in ("warn", "fail"):
            continue
        if field == "every":
            expected, fits = "a whole number of steps", _is_number(value) and value >= 1 and value % 1 == 0
        elif field in ("warn", "during", "least"):
            # At 0 these warn at once, wait for nothing, bound nothing; a failure at 0 would end every run.
            expected, fits = "a number of at least 0", _is_number(value) and value >= 0
        else:
            expected, fits = "a number above 0", _is_number(value) and value > 0
        if not fits:
            raise ValueError(f"checks: {name}: {field}: expected {expected}; found {value!r:.40}")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
