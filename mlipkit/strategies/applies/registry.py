"""The plug: which strategies are asked. One that raises is answered for, as a question must never end in an error."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Protocol

from mlipkit.errors import SpecError
from mlipkit.strategies.applies.answers import Answer
from mlipkit.strategies.applies.situation import Situation


class Applies(Protocol):
    """What a strategy registers: it looks at a situation and gives one answer for each of its variants.

    It is quick (milliseconds), reads no file, imports nothing heavy, and does not raise for a bad combination.
    """

    def __call__(self, situation: Situation) -> Answer | Iterable[Answer]: ...


PLUGS: dict[str, Applies | str] = {
    "train": "mlipkit.strategies.applies.fitting:training",
    "finetune": "mlipkit.strategies.applies.fitting:finetuning",
    "dynamic": "mlipkit.strategies.applies.rolling:dynamic",
    "taip": "mlipkit.strategies.applies.adapting:adaptation",
    "ipip": "mlipkit.strategies.applies.pretraining:pretraining",
    "workflow": "mlipkit.strategies.applies.workflows:workflows",
    "close_loop": "mlipkit.strategies.applies.loop:closing_the_loop",
}
"""Name -> function, or ``module:function`` where it lies, imported when it is asked; in the order of the answers."""


def register(name: str, plug: Applies | str) -> None:
    """Let a strategy answer from now on, after those that are there.

    Raises:
        SpecError: the name is taken.
    """
    if name in PLUGS:
        raise SpecError("a strategy of this name answers already", where=name, hint="unregister() it first")
    PLUGS[name] = plug


def unregister(name: str) -> None:
    """Ask it no more; nothing happens when it was not there."""
    PLUGS.pop(name, None)


def ask(situation: Situation) -> list[Answer]:
    """The answers of all strategies."""
    found: list[Answer] = []
    for name, plug in list(PLUGS.items()):
        try:
            said = _function(plug)(situation)
            found += [said] if isinstance(said, Answer) else list(said)
        except Exception as error:
            text = " ".join(str(error).split())
            why = f"its own check broke off ({type(error).__name__}{': ' if text else ''}{text})"
            found.append(Answer.of(name, name, ready="", why_not=why))
    return found


def _function(plug: Applies | str) -> Applies:
    if not isinstance(plug, str):
        return plug
    module, _, name = plug.partition(":")
    return getattr(importlib.import_module(module), name)
