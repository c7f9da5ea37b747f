"""IPIP: a small fast student, pretrained again and again on frames that a universal teacher and it itself have made.

An arm (the loop, one of its ablations, or a method that it is compared with) with one seed is a plan of stages, carried
out in a folder from which it can always go on; the machinery is that of `mlipkit.strategies.workflows`.

Source: arXiv 2507.20118.
"""

from mlipkit.strategies.ipip.plan import ARMS, LOOPS, LoopPlan, equal_steps, plan
from mlipkit.strategies.ipip.pools import Pool
from mlipkit.strategies.ipip.running import run_ipip, timeline
from mlipkit.strategies.ipip.settings import Instability, Sampling, Settings, Stability
from mlipkit.strategies.ipip.tools import LoopTools, published_settings

__all__ = [
    "ARMS", "LOOPS", "Instability", "LoopPlan", "LoopTools", "Pool", "Sampling", "Settings", "Stability",
    "equal_steps", "plan", "published_settings", "run_ipip", "timeline",
]  # fmt: skip
