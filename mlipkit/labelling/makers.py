"""Label makers by name."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipkit.errors import SpecError, nearest
from mlipkit.labelling.protocol import LabelMaker, Recipe

ENGINES: dict[str, tuple[str, str]] = {
    "tblite": ("mlipkit.labelling.engine_tblite", "XTBLabels"),
    "pyscf": ("mlipkit.labelling.engine_pyscf", "PySCFLabels"),
    "potential": ("mlipkit.labelling.engine_potential", "PotentialLabels"),
    "recorded": ("mlipkit.labelling.engine_recorded", "RecordedLabels"),
}
"""Engine of a recipe -> module and class; the modules are light, what they need is imported when one is built."""

NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "gfn1-xtb": ("tblite", {"method": "gfn1-xtb"}),
    "gfn2-xtb": ("tblite", {"method": "gfn2-xtb"}),
    "pyscf": ("pyscf", {}),
}
"""Label makers that a word names -> engine and the options that the word fixes."""

RECORDED = "recorded:"
POTENTIALS = ("universal:", "sample:")
PACKAGES = {"tblite": ("tblite", "label"), "pyscf": ("pyscf", "pyscf")}
"""Engine -> package it needs and the extra that brings it."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
KNOWN = (*NAMES, "universal:NAME", "sample:NAME", "FILE.safetensors", "recorded:FILE")


def recipe_of(text: str, **options: Any) -> Recipe:
    """The recipe that a name stands for; nothing heavy is imported and nothing read.

    Args:
        text: "gfn1-xtb", "gfn2-xtb", "pyscf"; a potential: "universal:so3lr", "sample:NAME", a .safetensors file, the
            folder of a training run; "recorded:FILE" (also "recorded:public:NAME").
        options: of the engine: see `XTBLabels`, `PySCFLabels`, `PotentialLabels`, `RecordedLabels`.

    Raises:
        SpecError: unknown name or option.
    """
    if text in NAMES:
        engine, fixed = NAMES[text]
    elif text.startswith(RECORDED) and len(text) > len(RECORDED):
        engine, fixed = "recorded", {"frames": text.removeprefix(RECORDED)}
    elif text.startswith(POTENTIALS) or text.endswith(".safetensors") or Path(text).exists():
        engine, fixed = "potential", {"potential": text}
    else:
        raise SpecError("unknown label maker", where="maker", found=repr(text), hint=nearest(text, KNOWN))
    known = [name for name in options_of(engine) if name not in fixed]
    for name in options:
        if name not in known:
            raise SpecError("unknown option", where=("maker", text, name), hint=nearest(name, known))
    return Recipe(engine, {**fixed, **options})


def options_of(engine: str) -> dict[str, Any]:
    """Options of an engine and their defaults (None for those without one)."""
    parameters = inspect.signature(_class_of(engine)).parameters.values()
    return {p.name: None if p.default is inspect.Parameter.empty else p.default for p in parameters}


def build(recipe: Recipe | Mapping[str, Any]) -> LabelMaker:
    """The engine of a recipe; it remembers the recipe, so that `label_frames` can build it again in child processes.

    Raises:
        SpecError: no such engine, or options that do not fit.
        MissingPackageError: its package is not installed.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe(**recipe)
    make = _class_of(recipe.engine)
    try:
        inspect.signature(make).bind(**recipe.options)
    except TypeError as error:
        raise SpecError(f"options do not fit: {error}", where=("maker", recipe.engine)) from None
    maker = make(**recipe.options)
    if not isinstance(maker, LabelMaker):
        raise SpecError("gives no label maker", where=("maker", recipe.engine), found=type(maker).__name__)
    maker.recipe = recipe  # type: ignore[attr-defined]
    return maker


def label_maker(text: str, **options: Any) -> LabelMaker:
    """A label maker by name; see `recipe_of`. An ASE calculator becomes one through `CalculatorLabels`.

    Raises:
        SpecError, ModelError, DataError: unknown name or option, something that cannot be read.
        MissingPackageError: its package is not installed.
    """
    return build(recipe_of(text, **options))


def _class_of(engine: str) -> Any:
    if engine in ENGINES:
        module, name = ENGINES[engine]
    elif DOTTED.fullmatch(engine):
        module, _, name = engine.partition(":")
    else:
        raise SpecError("unknown engine", where="recipe", found=repr(engine), hint=nearest(engine, ENGINES))
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise SpecError(f"cannot be imported ({error})", where=("recipe", engine)) from None
