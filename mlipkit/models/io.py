"""Potentials on disk: one safetensors file with a JSON specification in its header, and a model card beside it.

Tensors are stored under `potential.<name in state_dict>`; a file may hold others beside them (a training checkpoint
adds the state of its optimiser), which loading a potential ignores. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlipkit.data.whole import write_whole
from mlipkit.errors import ModelError
from mlipkit.models import composite, self_supervised, universal, zbl  # noqa: F401 - their kinds register themselves
from mlipkit.models.contract import BasePotential
from mlipkit.models.potential import Potential
from mlipkit.models.registry import potential_from, specification_of

FORMAT_VERSION = 2
"""Written into every file. A change that old files do not fit raises it and adds an upgrade."""

HEADER_KEY = "mlipkit"
PREFIX = "potential."

Upgrade = Callable[[dict[str, Any], dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]


def _one_kind_only(spec: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Version 1 knew encoder-and-head potentials alone."""
    return {"kind": Potential.kind, **spec}, tensors


UPGRADES: dict[int, Upgrade] = {1: _one_kind_only}
"""Format version -> function (specification, tensors) -> the same in the next version."""


def spec_of(potential: BasePotential) -> dict[str, Any]:
    """JSON-ready specification that, with the tensors of `tensors_of`, rebuilds a potential."""
    return {"format_version": FORMAT_VERSION, **specification_of(potential)}


def tensors_of(potential: BasePotential) -> dict[str, Tensor]:
    """Weights and constants by file name (`potential.*`), on the CPU."""
    return {PREFIX + name: value.detach().cpu().contiguous() for name, value in potential.state_dict().items()}


def build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor], *, where: str = "potential") -> BasePotential:
    """Potential from a specification and tensors of the present format version."""
    # Fresh weights are drawn and overwritten: the caller's random numbers must not notice.
    with torch.random.fork_rng(devices=[]):
        try:
            potential = potential_from(spec, where=where)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"damaged specification ({type(error).__name__}: {error})", where=where) from error
    state = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    try:
        potential.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"weights do not fit the specification ({error})", where=where) from error
    return potential


def save(
    potential: BasePotential,
    path: str | os.PathLike[str],
    card: Mapping[str, Any] | None = None,
    *,
    extra_tensors: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, str] | None = None,
) -> Path:
    """Write a potential; a reader sees the old file or the new one, never a part.

    Args:
        potential: what to save, auxiliary heads included.
        path: `NAME.safetensors`.
        card: model card, JSON-ready (data, recipe, errors, licence); written to `NAME.json`.
        extra_tensors: further tensors for the same file, not named `potential.*`.
        extra: further header entries, text to text.

    Returns:
        The path written; a missing folder is made.

    Raises:
        ModelError: another suffix, a reserved name, or the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError("wrong file name", where=str(path), expected="NAME.safetensors")
    others = dict(extra_tensors or {})
    clash = [name for name in others if name.startswith(PREFIX)]
    if clash or HEADER_KEY in (extra or {}):
        raise ModelError(
            "extra entries use a reserved name", where=str(path), found=", ".join([*clash, *(extra or {})])
        )
    tensors = tensors_of(potential) | {name: value.detach().cpu().contiguous() for name, value in others.items()}
    header = {HEADER_KEY: json.dumps(spec_of(potential), sort_keys=True), **(extra or {})}
    content = to_bytes(_unshared(tensors), metadata=header)
    text = None if card is None else json.dumps(dict(card), indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        if text is not None:
            write_whole(path.with_suffix(".json"), text.encode())
    except OSError as error:
        raise ModelError(
            f"cannot be written ({error.strerror or error})", where=str(path),
            hint=f"Is there room, and may you write in {path.parent}?",
        ) from error  # fmt: skip
    return path


def load(source: str | os.PathLike[str], *, device: str | torch.device | None = None) -> Any:
    """Load a potential: a `Potential`, or whatever kind of `BasePotential` the file holds.

    Args:
        source: a `.safetensors` file, `"sample:NAME"` (a potential that comes with the package), or the folder of a
            training run (what it chose at its end, else its best checkpoint, else its last); `"universal:NAME"`
            (`mlipkit.models.UNIVERSAL`).
        device: where to put it; None leaves it on the CPU.

    Raises:
        ModelError: no such file, not a potential, written by a newer mlipkit, or damaged.
    """
    if os.fspath(source).startswith(universal.PREFIX):
        potential = universal.load_universal(source)
    else:
        path = _locate(source)
        spec, tensors = read(path)
        potential = build(spec, tensors, where=str(path))
    return potential if device is None else potential.to(device)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Specification and all tensors of a file, upgraded to the present format version."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError("no such file", where=str(path))
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"not a readable safetensors file ({error})", where=str(path)) from error
    if HEADER_KEY not in header:
        raise ModelError(
            "safetensors file without an mlipkit specification",
            where=str(path),
            hint="Was it written by mlipkit.models.save?",
        )
    try:
        spec = json.loads(header[HEADER_KEY])
    except ValueError as error:
        raise ModelError(f"damaged specification ({error})", where=str(path)) from error
    if not isinstance(spec, dict):
        raise ModelError("damaged specification", where=str(path), expected="names and values", found=spec)
    version = spec.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            "format version not known here",
            where=str(path),
            expected=f"at most {FORMAT_VERSION}",
            found=version,
            hint="Update mlipkit",
        )
    while version < FORMAT_VERSION:
        if version not in UPGRADES:
            raise ModelError(f"no upgrade from format version {version}", where=str(path))
        spec, tensors = UPGRADES[version](spec, tensors)
        version += 1
        spec["format_version"] = version
    return spec, tensors


def card_of(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Model card beside a potential's file; empty where there is none."""
    path = _locate(source).with_suffix(".json")
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _locate(source: str | os.PathLike[str]) -> Path:
    text = os.fspath(source)
    if text.startswith("sample:"):
        from mlipkit.data import samples

        return Path(samples.potential_path(text.removeprefix("sample:")))
    path = Path(text)
    if not path.is_dir():
        return path
    for name in ("chosen", "best", "last"):
        found = path / "checkpoints" / f"{name}.safetensors"
        if found.is_file():
            return found
    raise ModelError(
        "folder without a trained potential",
        where=text,
        expected="checkpoints/best.safetensors or checkpoints/last.safetensors",
    )


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    for name, value in tensors.items():
        if value.data_ptr() in seen:
            tensors[name] = value.clone()
        seen.add(value.data_ptr())
    return tensors
