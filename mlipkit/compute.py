"""Import this before torch: where torch is missing, as where runs are only opened, it says what to install.

Potentials, training and MD compute with torch, which is most of an installation's size; data, run folders, figures and
views do without.
"""

from __future__ import annotations

from mlipkit.errors import check_torch

check_torch("computing with potentials")
