"""A form made from a pydantic specification: one input per field, with unit and description, checked as one types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import ipywidgets as w
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlipkit.errors import SpecError

from .parts import show

HIDDEN = ("kind", "version")


@dataclass
class Field:
    """One input. `path` is the field's place in the specification, nested ones by dots."""

    path: str
    info: FieldInfo
    default: Any
    input: Any
    box: w.Box


class Form:
    """Inputs for all fields of a specification class.

    Args:
        cls: the specification.
        first: paths shown at once, in this order; the others wait behind `more`.
        start: path -> value to begin with instead of the default.
        suggestions: path -> texts offered while typing.
        words: path -> name on screen, where it is not the one in code.
        parts: part -> its heading among the others.
        fixed: path -> value that is always said and never offered.
        on_change: called after every change by the user.
    """

    def __init__(
        self,
        cls: type[BaseModel],
        first: Sequence[str],
        *,
        start: Mapping[str, Any] | None = None,
        suggestions: Mapping[str, Sequence[str]] | None = None,
        words: Mapping[str, str] | None = None,
        parts: Mapping[str, str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.cls, self._on_change = cls, lambda: None
        self._words, self._parts, self._fixed = words or {}, parts or {}, fixed or {}
        self.fields: dict[str, Field] = {}
        for path, info in _walk(cls):
            self._add(path, info, list((suggestions or {}).get(path, ())))
        for path, value in {**(start or {}), **self._fixed}.items():
            self.set(path, value)
        for path in first:
            # Away from the others of its part a field needs the name of the part.
            if "." in path and path not in self._words:
                label = self.fields[path].box.children[0]
                label.value = f"{path.rpartition('.')[0].replace('.', ' ')} {label.value}"
        self.essential = w.Box([self.fields[path].box for path in first])
        self.more = w.Box(self._others(first))
        for box in (self.essential, self.more):
            box.add_class("mlipkit-fields")
        show(self.more, False)
        self._on_change = on_change

    def _others(self, first: Sequence[str]) -> list[w.Widget]:
        """Fields of the specification itself, then those of each part under its name."""
        parts: dict[str, list[w.Widget]] = {"": []}
        for path, field in self.fields.items():
            if path not in first and path not in self._fixed:
                parts.setdefault(path.rpartition(".")[0], []).append(field.box)
        for name, boxes in parts.items():
            if name:
                boxes.insert(0, w.Label(self._parts.get(name, name.replace(".", ": "))).add_class("mlipkit-part"))
        return [box for boxes in parts.values() for box in boxes]

    def values(self) -> dict[str, Any]:
        """What differs from the defaults, nested like the specification."""
        found: dict[str, Any] = {}
        for path, field in self.fields.items():
            value = _value(field)
            if value is _SAME or value == field.default:
                continue
            *heads, last = path.split(".")
            place = found
            for head in heads:
                place = place.setdefault(head, {})
            place[last] = value
        return found

    def spec(self) -> Any:
        """The specification of what is in the form.

        Raises:
            SpecError: a wrong value, with the field that holds it.
        """
        return self.cls(**self.values())

    def check(self) -> tuple[Any, str]:
        """(specification, "") or (None, what is wrong); the field at fault is marked."""
        try:
            spec, problem, at = self.spec(), "", ""
        except SpecError as error:
            spec, problem = None, str(error).removeprefix(f"{self.cls.__name__}: ")
            at = ".".join(error.where[1:])
        for path, field in self.fields.items():
            wrong = bool(problem) and (path == at or at.startswith(f"{path}."))
            (field.box.add_class if wrong else field.box.remove_class)("mk-wrong")
        return spec, problem

    def set(self, path: str, value: Any) -> None:
        """Put a value into an input."""
        made: Any = self.fields[path].input
        plain = isinstance(made, (w.Dropdown, w.Checkbox))
        made.value = value if plain else _text(value)

    def _add(self, path: str, info: FieldInfo, suggestions: list[str]) -> None:
        default = info.get_default(call_default_factory=True)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        unit = extra.get("unit")
        name = path.rpartition(".")[2].removesuffix(f"_{unit}").replace("_", " ")
        tip = info.description or name
        if path in self._words:
            # Messages and code go on speaking of the field by its name there.
            name, tip = self._words[path], f"{tip} · in code: {path}"
        choices = _choices(info.annotation)
        if info.annotation is bool:
            made: Any = w.Checkbox(value=bool(default), indent=False, tooltip=tip)
        elif choices:
            made = w.Dropdown(options=choices, value=default, tooltip=tip)
        elif suggestions:
            made = w.Combobox(options=suggestions, value=_text(default), ensure_option=False, tooltip=tip)
        else:
            made = w.Text(value=_text(default), tooltip=tip, continuous_update=True)
        if isinstance(made, (w.Text, w.Combobox)):
            made.placeholder = "none" if not info.is_required() else "needed"
        label = w.Label(f"{name} ({unit})" if unit else name, tooltip=tip)
        box = w.Box([label, made])
        box.add_class("mlipkit-field")
        made.observe(lambda _change: self._on_change(), "value")
        self.fields[path] = Field(path, info, default, made, box)


_SAME = object()


def _walk(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in cls.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _walk(inner, f"{prefix}{name}.")
        elif prefix or name not in HIDDEN:
            yield prefix + name, info


def _choices(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def _text(value: Any) -> str:
    if value is None or repr(value) == "PydanticUndefined":
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()


def _value(field: Field) -> Any:
    raw = field.input.value
    if not isinstance(field.input, (w.Text, w.Combobox)):
        return raw
    text = raw.strip()
    if text == _text(field.default):
        return _SAME
    if not text:
        kinds = get_args(field.info.annotation) or (field.info.annotation,)
        # An empty text is the default again, unless nothing is something that may be said.
        return _SAME if field.info.is_required() or (str in kinds and type(None) not in kinds) else None
    if text[0] in "[{":
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text
