"""IPIP: a small fast student, pretrained again and again on frames that a universal teacher and it itself have made.

An arm (the loop, one of its ablations, or a method that it is compared with) with one seed is a plan of stages, carried
out in a folder from which it can always go on; the machinery is that of `mlipkit.strategies.workflows`.

Source: arXiv 2507.20118.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlipkit.strategies.ipip.plan import ARMS, CURES, LOOPS, PARTS, WHOLE, LoopPlan, equal_steps, plan
from mlipkit.strategies.ipip.pools import Pool
from mlipkit.strategies.ipip.settings import Instability, Reaction, Sampling, Settings, Stability
from mlipkit.strategies.ipip.timeline import timeline
from mlipkit.strategies.ipip.tools import LoopTools, published_settings

if TYPE_CHECKING:
    from mlipkit.strategies.ipip.running import run_ipip

__all__ = [
    "ARMS", "CURES", "LOOPS", "PARTS", "WHOLE", "Instability", "LoopPlan", "LoopTools", "Pool", "Reaction",
    "Sampling", "Settings", "Stability", "equal_steps", "plan", "published_settings", "run_ipip", "timeline",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Views read plans and folders; only what computes loads torch.
    if name == "run_ipip":
        from mlipkit.strategies.ipip.running import run_ipip

        return run_ipip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
