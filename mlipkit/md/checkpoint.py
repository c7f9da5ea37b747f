"""One file that holds a simulation: tensors in safetensors, the rest as JSON in its header; replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mlipkit.errors import RunError

FORMAT_VERSION = 1


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write beside `path`, bring it to the disk, then rename: at any moment the file is whole, old or new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"mlipkit_md": json.dumps({"version": FORMAT_VERSION, **record})}
    unready = path.with_name(path.name + ".part")
    with unready.open("wb") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unready, path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a checkpoint.

    Raises:
        RunError: not a checkpoint of MD, cut short, or written by a newer version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("mlipkit_md", "null"))
            # Copies: tensors that lie unaligned in a mapped file may round differently in vector code.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"unreadable checkpoint ({error})", where=str(path)) from None
    if record is None:
        raise RunError("not a checkpoint of a simulation", where=str(path))
    if record["version"] > FORMAT_VERSION:
        raise RunError(
            "the checkpoint was written by a newer mlipkit", where=str(path),
            expected=f"format {FORMAT_VERSION} or older", found=record["version"],
        )  # fmt: skip
    return tensors, record


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with `prefix`, by the rest of it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
