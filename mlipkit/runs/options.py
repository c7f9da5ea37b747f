"""Specifications as command-line options: every field becomes one, nested ones joined by a dash."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlipkit.errors import SpecError
from mlipkit.runs.spec import AnySpec

HIDDEN = ("kind", "version")
BETWEEN_PAIRS = re.compile(r",(?=\s*[\w.-]+\s*=)")


def options_of(cls: type[AnySpec]) -> list[inspect.Parameter]:
    """Parameters for a typer command, one per field: ``model.features`` becomes ``--model-features``."""
    parameters = []
    for path, field in _fields(cls):
        several = any(typing.get_origin(kind) is list for kind in _kinds(field))
        parameters.append(
            inspect.Parameter(
                path.replace(".", "__"),
                inspect.Parameter.KEYWORD_ONLY,
                default=typer.Option(
                    None,
                    "--" + path.replace(".", "-").replace("_", "-"),
                    help=_help(field),
                    metavar=_metavar(field),
                    show_default=False,
                    rich_help_panel=path.partition(".")[0] if "." in path else "run",
                ),
                annotation=list[str] | None if several else str | None,
            )
        )
    return parameters


def spec_from_options(cls: type[AnySpec], values: Mapping[str, Any]) -> AnySpec:
    """A specification from option texts; options that were not given keep their defaults.

    Raises:
        SpecError: a value that does not fit its field.
    """
    fields = dict(_fields(cls))
    record: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == []:
            continue
        path = name.replace("__", ".")
        place = record
        *heads, last = path.split(".")
        for head in heads:
            place = place.setdefault(head, {})
        if isinstance(value, list):
            place[last] = value[0] if len(value) == 1 else value
        else:
            place[last] = _value(value, fields[path], path)
    return cls(**record)


def parse_pairs(text: str, where: str) -> dict[str, Any]:
    """``"forces=dft_forces,energy=E"`` as a dictionary; numbers, lists, true and false become such.

    Only a comma before the next ``name=`` ends a value: ``temperature=70,80`` is one pair.

    Raises:
        SpecError: a part without "=", a value that is no YAML.
    """
    import yaml

    pairs = {}
    for part in filter(None, (part.strip(" ,") for part in BETWEEN_PAIRS.split(text))):
        key, sign, value = part.partition("=")
        if not sign:
            raise SpecError("not of the form name=value", where=where, found=part, hint="Example: forces=dft_forces")
        try:
            pairs[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SpecError("not a value", where=(where, key.strip()), found=value, hint=str(error)) from None
    return pairs


def _fields(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        elif prefix or name not in HIDDEN:
            yield prefix + name, field


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    annotation = field.annotation
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    kinds = typing.get_args(annotation) if union else (annotation,)
    return tuple(typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind for kind in kinds)


def _value(text: str, field: FieldInfo, path: str) -> Any:
    kinds = _kinds(field)
    if type(None) in kinds and text.lower() in ("none", ""):
        return None
    if any(typing.get_origin(kind) is dict for kind in kinds):
        return parse_pairs(text, path)
    return text


def _help(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    unit = f", {extra['unit']}" if isinstance(extra, dict) and "unit" in extra else ""
    default = (
        "" if field.is_required() or field.default in (None, "") or field.default_factory else f" ({field.default})"
    )
    return f"{field.description or ''}{unit}{default}"


def _metavar(field: FieldInfo) -> str:
    for kind in _kinds(field):
        if typing.get_origin(kind) is typing.Literal:
            return "|".join(map(str, typing.get_args(kind)))
        if typing.get_origin(kind) is dict:
            return "NAME=VALUE,..."
    names = {int: "INT", float: "NUMBER", str: "TEXT", bool: "true|false"}
    return next((names[kind] for kind in _kinds(field) if kind in names), "TEXT")
