"""mlipkit: machine-learning interatomic potentials that last in MD.

See a potential leave its training data, try the published cures on equal terms, keep one that lasts.

    >>> import mlipkit as mk
    >>> frames = mk.samples.load("ethanol_300K")
    >>> potential = mk.load("sample:ethanol_1000")
    >>> run = mk.launch(mk.MDSpec(potential="sample:ethanol_1000", start="sample:ethanol_300K", temperature=300))
    >>> mk.open(run.folder).verdict
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlipkit.data import FrameSet as FrameSet
    from mlipkit.data import read as read
    from mlipkit.data import samples as samples
    from mlipkit.data import split as split
    from mlipkit.data import write as write
    from mlipkit.models import Potential as Potential
    from mlipkit.models import load as load
    from mlipkit.models import predict as predict
    from mlipkit.runs import DynamicSpec as DynamicSpec
    from mlipkit.runs import FinetuneSpec as FinetuneSpec
    from mlipkit.runs import IPIPSpec as IPIPSpec
    from mlipkit.runs import LabelSpec as LabelSpec
    from mlipkit.runs import MDSpec as MDSpec
    from mlipkit.runs import RelaxSpec as RelaxSpec
    from mlipkit.runs import Run as Run
    from mlipkit.runs import TaipSpec as TaipSpec
    from mlipkit.runs import TrainSpec as TrainSpec
    from mlipkit.runs import WorkflowSpec as WorkflowSpec
    from mlipkit.runs import before_failure as before_failure
    from mlipkit.runs import launch as launch
    from mlipkit.runs import open as open
    from mlipkit.runs import survival_change as survival_change
    from mlipkit.runs import what_applies as what_applies

try:
    __version__ = version("mlipkit")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

# Resolved on first use, so that `import mlipkit` and run viewers do not pay for torch.
_HOMES = {
    "FrameSet": "mlipkit.data",
    "read": "mlipkit.data",
    "write": "mlipkit.data",
    "split": "mlipkit.data",
    "samples": "mlipkit.data",
    "Potential": "mlipkit.models",
    "load": "mlipkit.models",
    "predict": "mlipkit.models",
    "DynamicSpec": "mlipkit.runs",
    "FinetuneSpec": "mlipkit.runs",
    "IPIPSpec": "mlipkit.runs",
    "LabelSpec": "mlipkit.runs",
    "MDSpec": "mlipkit.runs",
    "RelaxSpec": "mlipkit.runs",
    "TaipSpec": "mlipkit.runs",
    "TrainSpec": "mlipkit.runs",
    "WorkflowSpec": "mlipkit.runs",
    "Run": "mlipkit.runs",
    "before_failure": "mlipkit.runs",
    "launch": "mlipkit.runs",
    "open": "mlipkit.runs",
    "survival_change": "mlipkit.runs",
    "what_applies": "mlipkit.runs",
}

__all__ = [
    "DynamicSpec",
    "FinetuneSpec",
    "FrameSet",
    "IPIPSpec",
    "LabelSpec",
    "MDSpec",
    "Potential",
    "RelaxSpec",
    "Run",
    "TaipSpec",
    "TrainSpec",
    "WorkflowSpec",
    "__version__",
    "before_failure",
    "launch",
    "load",
    "open",
    "predict",
    "read",
    "samples",
    "split",
    "survival_change",
    "what_applies",
    "write",
]


def __getattr__(name: str):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mlipkit' has no attribute '{name}'")
    value = getattr(importlib.import_module(home), name, None)
    if value is None:
        value = importlib.import_module(f"{home}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
