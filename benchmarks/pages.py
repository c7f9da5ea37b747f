"""Tables of pages in `docs/` that scripts write from measured numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlipkit.errors import DataError


def filled(text: str, places: Mapping[str, str], page: str) -> str:
    """The page with every place ``<!-- begin: NAME -->`` to ``<!-- end: NAME -->`` written anew.

    Args:
        page: its name, for errors.

    Raises:
        DataError: a place that has no such lines.
    """
    for name, content in places.items():
        start, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        if start not in text or end not in text:
            raise DataError("no place to fill", where=(page, name), expected=f"{start} ... {end}")
        head, rest = text.split(start, 1)
        text = f"{head}{start}\n{content}\n{end}{rest.split(end, 1)[1]}"
    return text


def markdown(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(one) for one in row) + " |" for row in rows)
