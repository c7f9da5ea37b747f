"""Writing files whole, and reading records that were written so."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from mlipkit.errors import RunError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all, and that a power cut does not undo."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """What a record says.

    Raises:
        FileNotFoundError: there is none.
        RunError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise RunError("cannot be read", where=str(path), expected="a record", found=type(found).__name__)
    return found
