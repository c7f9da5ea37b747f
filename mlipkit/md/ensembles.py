"""The registry of ensembles: a name stands for two functions, `init` and `step`.

`init(state, **options)` puts settings and variables into the state; `step(state, forces, timestep)` advances it by one
step. All there is to know about a running simulation is in the state, so restart and replicas need nothing more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlipkit.errors import SpecError, nearest
from mlipkit.md.berendsen import berendsen_init, berendsen_step
from mlipkit.md.bussi import bussi_init, bussi_step
from mlipkit.md.forces import ForceFunction
from mlipkit.md.langevin import langevin_init, langevin_step
from mlipkit.md.nose_hoover import nose_hoover_init, nose_hoover_step
from mlipkit.md.npt import npt_init, npt_step
from mlipkit.md.nve import nve_init, nve_step
from mlipkit.md.state import MDState


@dataclass(frozen=True)
class Ensemble:
    """Two functions and a name. `options` gives the keyword arguments of `init` with their defaults."""

    name: str
    init: Callable[..., None]
    step: Callable[[MDState, ForceFunction, float], None]

    @property
    def options(self) -> dict[str, Any]:
        parameters = inspect.signature(self.init).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse options that this ensemble does not have, so that none is silently without effect.

        Raises:
            SpecError: an unknown option.
        """
        for name in options:
            if name not in self.options:
                raise SpecError(
                    f"unknown option '{name}'", where=f"ensemble {self.name}", hint=nearest(name, self.options)
                )


ENSEMBLES: dict[str, Ensemble] = {
    ensemble.name: ensemble
    for ensemble in (
        Ensemble("nve", nve_init, nve_step),
        Ensemble("berendsen", berendsen_init, berendsen_step),
        Ensemble("langevin", langevin_init, langevin_step),
        Ensemble("nose_hoover", nose_hoover_init, nose_hoover_step),
        Ensemble("bussi", bussi_init, bussi_step),
        Ensemble("npt", npt_init, npt_step),
    )
}


def get_ensemble(name: str | Ensemble) -> Ensemble:
    """The registered ensemble of that name.

    Raises:
        SpecError: no such ensemble.
    """
    if isinstance(name, Ensemble):
        return name
    if name not in ENSEMBLES:
        raise SpecError(f"unknown ensemble '{name}'", hint=nearest(name, ENSEMBLES))
    return ENSEMBLES[name]
