"""Under JupyterHub a run on this machine is a process of the user's server, and may end with it."""

from __future__ import annotations

import os
from collections.abc import Mapping

SENTENCE = (
    "Under JupyterHub this run is a process of your server and may end with it (when it is culled for being idle, or "
    "stopped). Its checkpoints stay: resume goes on from the last one"
)


def hub_warning(environment: Mapping[str, str] | None = None) -> str:
    """What a user of JupyterHub must know of a run on the server itself; "" elsewhere."""
    known = os.environ if environment is None else environment
    return SENTENCE if any(name.startswith("JUPYTERHUB_") for name in known) else ""
