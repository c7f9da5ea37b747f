"""Fits on disk: one safetensors file of arrays with a JSON header. Nothing unpickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipkit.data.columns import Array
from mlipkit.data.whole import write_whole
from mlipkit.errors import ModelError


def save_arrays(path: str | Path, kind: str, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Path:
    """One safetensors file with a JSON header, written whole or not at all."""
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    content = to_bytes(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={"mlipkit": json.dumps({"kind": kind, **header})},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return path


def load_arrays(path: str | Path, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and header of a file that `save_arrays` wrote.

    Raises:
        ModelError: no such file, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError("no such file", where=str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("mlipkit", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), expected=kind) from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else None
        raise ModelError("another kind of file", where=str(path), expected=kind, found=found or "no header of mlipkit")
    return arrays, header
