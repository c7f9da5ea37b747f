"""The base of everything in a specification: plain values only, one-line errors that know the path of a wrong field."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mlipkit.errors import SpecError, nearest

ALTERNATIVE = re.compile(r"^(str|int|float|bool|constrained-\w+|list\[.*\]|function-\w+\[.*\])$")
"""How pydantic names an alternative of a union in the path of an error."""


def unit(text: str) -> dict[str, Any]:
    """Extra of a field that a form or a help text shows behind the number."""
    return {"unit": text}


class Part(BaseModel):
    """Base of everything in a specification: unknown fields and live objects are refused with a `SpecError`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants", validate_default=False
    )

    HOME: ClassVar[str] = "mk.runs."
    """What stands before the class name in Python code."""

    def __init__(self, **values: Any) -> None:
        plain = {key: _plain(value, key) for key, value in values.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            raise _spec_error(type(self), error) from None

    # Tells pydantic that nested parts need not pass through this __init__: the outermost one then knows the whole
    # path of a wrong field ("model: encodr").
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def changed(self, **values: Any):
        """A copy with some fields replaced, validated again. Nested ones by dots: ``{"model.features": 32}``."""
        record = self.model_dump(mode="json")
        for path, value in values.items():
            *heads, last = path.replace("__", ".").split(".")
            place = record
            for head in heads:
                if not isinstance(place.get(head), dict):
                    raise SpecError("unknown field", where=path, hint=nearest(head, place))
                place = place[head]
            place[last] = _plain(value, path)
        return type(self)(**record)


def several(value: Any) -> Any:
    """``"1, 2"`` or one value as a list, as typed into a form or on the command line; a validator "before"."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[] ").split(",") if part.strip()]
    return value if isinstance(value, list | tuple) else [value]


def refuse_idle(part: Any, choice: str, acting: Mapping[str, tuple[str, ...]]) -> Any:
    """Refuse values that were changed and have no effect with what was chosen: a wish must not go unheard."""
    chosen = getattr(part, choice)
    for name, choices in acting.items():
        if chosen not in choices and getattr(part, name) != type(part).model_fields[name].default:
            raise ValueError(f"{name} has no effect with {choice} '{chosen}', only with {', '.join(choices)}")
    return part


def _plain(value: Any, where: str) -> Any:
    """The value as plain data, or the advice what to name instead."""
    if value is None or isinstance(value, (bool, int, float, str, Part)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}: {index}") for index, item in enumerate(value)]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    what = type(value).__name__
    raise SpecError(
        f"a live Python object ({what}) cannot go into a specification, as the run is another process",
        where=where.split(": "),
        hint="Write a function without arguments that returns it and name it: 'file.py:make' or 'package.module:make'"
        + ("; frames can also be saved with mlipkit.write(path, frames) and named by their path"
           if what in ("Atoms", "FrameSet") else ""),
    )  # fmt: skip


def _spec_error(cls: type[Part], error: ValidationError) -> SpecError:
    problems = error.errors(include_url=False)
    # An unknown field explains a missing one ("dat" and no "data"), so it speaks first.
    problem = min(problems, key=lambda item: item["type"] != "extra_forbidden")
    # Of a field with alternatives (a number or a list) each one complains: the one that got furthest was meant.
    problem = (
        max((p for p in problems if p["loc"][:1] == problem["loc"][:1]), key=_meant)
        if (problem["type"] != "extra_forbidden")
        else problem
    )
    path = [str(part) for part in problem["loc"] if not ALTERNATIVE.match(str(part))]
    where = (cls.__name__, *path)
    if problem["type"] == "extra_forbidden":
        return SpecError("unknown field", where=where, hint=nearest(path[-1], _fields_at(cls, path[:-1])))
    if problem["type"] == "missing":
        return SpecError("this field is needed", where=where)
    if problem["type"] == "too_short":
        return SpecError("empty", where=where, expected="at least one")
    if problem["type"] == "value_error":
        return SpecError(str(problem.get("ctx", {})["error"]), where=where)
    found, hint = problem.get("input"), None
    if problem["type"] == "literal_error" and isinstance(found, str):
        hint = nearest(found, re.findall(r"'([^']+)'", problem.get("ctx", {})["expected"]))
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return SpecError(message, where=where, found=f"{found!r:.80}", hint=hint)


def _meant(problem: Any) -> tuple[int, bool]:
    """An empty list was meant as a list."""
    return len(problem["loc"]), problem["type"] == "too_short"


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        cls = inner
    return list(cls.model_fields)


def code_of(part: Part) -> str:
    default = type(part).model_fields
    given = []
    for key in type(part).model_fields:
        value = getattr(part, key)
        if value == default[key].get_default(call_default_factory=True):
            continue
        if key == "steps" and getattr(part, "time_ps", None) is not None:
            continue
        given.append(f"{key}={code_of(value) if isinstance(value, Part) else repr(value)}")
    return f"{part.HOME}{type(part).__name__}({', '.join(given)})"
