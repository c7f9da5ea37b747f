"""In what two records of settings differ, by full names such as sampling.steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlipkit.errors import RunError


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


def one_experiment(mine: Sequence[Any], settings: Callable[[Any], Any]) -> None:
    """Refuse what are no seeds of one experiment: an average over them would be of nothing.

    Args:
        mine: evaluated runs of one arm, with folder and plan.
        settings: of one of them, without its seed.

    Raises:
        RunError: other settings, a seed given twice.
    """
    first, seeds = mine[0], {}
    for one in mine:
        both = f"{seeds.get(one.plan.seed, first).folder} and {one.folder}"
        if one.plan.seed in seeds:
            raise RunError(f"arm {one.plan.arm}, seed {one.plan.seed} is given twice", where=both)
        seeds[one.plan.seed] = one
        theirs, here = settings(first), settings(one)
        if names := differing(theirs, here):
            raise RunError(
                f"two experiments, not two seeds of arm {one.plan.arm}", where=both, expected=told(theirs, names),
                found=told(here, names), hint="Compare those with equal settings",
            )  # fmt: skip
