"""Whether this machine has the device that a specification names, found out without importing torch."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from pathlib import Path

from mlipkit.errors import SpecError, check_torch

NOTHING_ELSE = "Leave device on auto, or use cpu"
NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of the CUDA driver API."""


def check_device(name: str) -> None:
    """Refuse a CUDA device that cannot be here; what is left open shows in the worker.

    Args:
        name: auto, cpu, cuda or cuda:N.

    Raises:
        SpecError: this torch was built for the CPU alone, there is no driver, or there are fewer devices.
        MissingPackageError: there is no torch.
    """
    check_torch("computing a run")
    kind, _, index = name.partition(":")
    if kind != "cuda":
        return
    build = torch_build()
    if build == "cpu":
        raise SpecError("this torch was built without CUDA", where="device", found=name, hint=NOTHING_ELSE)
    count = cuda_devices() if build == "cuda" else None
    if count is not None and int(index or 0) >= count:
        raise SpecError(
            "no such device on this machine", where="device", found=name,
            expected=f"one of {count} CUDA devices" if count else None, hint=NOTHING_ELSE,
        )  # fmt: skip


def torch_build() -> str:
    """What the installed torch was built for: "cuda", "hip", "cpu", or "" when that cannot be told."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return ""
    try:
        text = Path(next(iter(spec.submodule_search_locations)), "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = dict(re.findall(r"^(cuda|hip)\b[^=]*=\s*(\S+)", text, flags=re.MULTILINE))
    if set(found) != {"cuda", "hip"}:
        return ""
    return next((name for name, version in found.items() if version != "None"), "cpu")


def cuda_devices() -> int | None:
    """Number of CUDA devices that the driver knows, 0 without a driver, None when it does not say."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    number = ctypes.c_int(0)
    started = driver.cuInit(0)
    if started == NO_DEVICE:
        return 0
    if started != 0 or driver.cuDeviceGetCount(ctypes.byref(number)) != 0:
        return None
    return number.value
