"""No widget of ours takes a name that ipywidgets uses for itself: that breaks only when a notebook shows it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import FunctionType

import ipywidgets as w
import pytest

import mlipkit_widgets
from mlipkit_widgets import LabelView, MDView, StrategyComparison, TrainingMonitor, Workbench, WorkflowView

MEANT = {"close", "__init__"}


def own_classes() -> Iterator[type]:
    for module in pkgutil.iter_modules(mlipkit_widgets.__path__):
        for one in vars(importlib.import_module(f"mlipkit_widgets.{module.name}")).values():
            if inspect.isclass(one) and issubclass(one, w.Widget) and one.__module__.startswith("mlipkit_widgets"):
                yield one


def hidden(cls: type) -> set[str]:
    """Names of functions of `cls` that hide something of a class that is not ours."""
    others = [base for base in cls.__mro__ if not base.__module__.startswith("mlipkit_widgets")]
    mine = {name for name, value in vars(cls).items() if isinstance(value, FunctionType)}
    return {name for name in mine - MEANT if any(name in vars(base) for base in others if base is not object)}


def test_nothing_of_ipywidgets_is_hidden() -> None:
    assert {cls.__name__: names for cls in own_classes() if (names := hidden(cls))} == {}


@pytest.mark.parametrize("cls", [LabelView, MDView, StrategyComparison, TrainingMonitor, Workbench, WorkflowView])
def test_a_notebook_can_show_an_empty_view(cls: type) -> None:
    view = cls()
    assert cls.__name__ in view._repr_mimebundle_()["text/plain"]
    view.close()
