"""Which strategies fit a set of frames and a potential: what is ready, what is missing, what cannot be.

Every strategy answers for itself from a `Situation`. One more joins by one line: ``register(name, function)``, or an
entry of `PLUGS` when it comes with the package. Nothing here needs torch, reads a file or starts anything;
`mlipkit.what_applies` collects the situation.
"""

from __future__ import annotations

from mlipkit.strategies.applies.answers import ICONS, Answer, Answers, Expected
from mlipkit.strategies.applies.registry import PLUGS, Applies, ask, register, unregister
from mlipkit.strategies.applies.situation import Frames, Maker, Model, Rates, Room, Situation

__all__ = [
    "ICONS",
    "PLUGS",
    "Answer",
    "Answers",
    "Applies",
    "Expected",
    "Frames",
    "Maker",
    "Model",
    "Rates",
    "Room",
    "Situation",
    "ask",
    "register",
    "unregister",
]
