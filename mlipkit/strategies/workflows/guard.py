"""The density guard: a box that boils away or collapses is stopped, before its frames are labelled or passed on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mlipkit.md import Check, Finding, Look
from mlipkit.md.checks import density

NAME = "density_guard"


@dataclass
class DensityGuard(Check):
    """Density of a periodic system in g/cm³, against a fixed range (`DensityCheck` compares with the start).

    Attributes:
        low, fail: lower and upper end of the range.
    """

    name: ClassVar = NAME
    unit: ClassVar = "g/cm³"

    fail: float | None = 3.0
    every: int = 10
    low: float = 0.3

    def look(self, now: Look) -> Finding | None:
        value = density(now)
        if math.isnan(value):
            return None
        if self.fail is not None and value > self.fail:
            return Finding("failed", "the box collapsed, density above its range", value, self.fail, self.unit)
        if value < self.low:
            return Finding("failed", "the box boiled away, density below its range", value, self.low, self.unit)
        return None
