"""The few hot operations, each one call with a plain reference and faster versions behind it."""

from mlipkit import compute as _compute  # noqa: F401 - says what to install where torch is missing
from mlipkit.ops import contracted as _contracted  # noqa: F401 - registers itself
from mlipkit.ops import fused as _fused  # noqa: F401 - registers itself
from mlipkit.ops.message import Edges, message, use_version
from mlipkit.ops.native import counted, only_positions, pairs_pay, positions_only
from mlipkit.ops.segment import gather, segment_sum

__all__ = [
    "Edges", "counted", "gather", "message", "only_positions", "pairs_pay", "positions_only", "segment_sum",
    "use_version",
]  # fmt: skip
