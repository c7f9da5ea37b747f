"""`finetune.json`: what a fine-tuning began with, and what was measured before its first step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.data.whole import write_whole
from mlipkit.errors import RunError
from mlipkit.strategies.finetuning.shifts import EnergyShifts

if TYPE_CHECKING:
    from mlipkit.data import FrameSet
    from mlipkit.models import BasePotential
    from mlipkit.strategies.finetuning.recipe import FinetuneRecipe

RECORD = "finetune.json"


class Record:
    """`finetune.json`: what this folder was begun with, and what was measured before the first step."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path = folder / RECORD
        self.content: dict[str, Any] = {"identity": identity}
        if not self.path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            return
        try:
            self.content = json.loads(self.path.read_text("utf-8"))
            began = self.content["identity"]
        except (ValueError, KeyError) as error:
            raise RunError(f"not readable ({error})", where=str(self.path), hint="Fine-tune in a new folder") from error
        for what, value in identity.items():
            before = began.get(what, value)
            if before != value:
                raise RunError(
                    f"{what}: not what this fine-tuning began with", where=str(self.path), expected=_shown(before),
                    found=_shown(value), hint="Fine-tune in a new folder",
                )  # fmt: skip

    @property
    def shifts(self) -> EnergyShifts | None:
        from ase.data import atomic_numbers

        found = self.content.get("shifts")
        if found is None:
            return None
        values = {atomic_numbers[symbol]: value for symbol, value in found["eV"].items()}
        numbers = [found[name] for name in ("mean_meV_per_atom", "spread_meV_per_atom")]
        mean, spread = (float("nan") if value is None else value for value in numbers)
        return EnergyShifts(values, found["origin"], found["rank"], found["elements"], mean, spread, found["warning"])

    @property
    def metrics(self) -> dict[str, Any]:
        return self.content.get("metrics", {})

    def write(self, **content: Any) -> None:
        self.content |= {name: one.to_json() if isinstance(one, EnergyShifts) else one for name, one in content.items()}
        write_whole(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


def identity(
    start: BasePotential, sets: Mapping[str, FrameSet | None], recipe: FinetuneRecipe,
    isolated: Mapping[int, float] | None, idle: bool,
) -> dict[str, Any]:  # fmt: skip
    """What must be the same when a fine-tuning goes on."""
    described = start.describe()
    return {
        "potential": described.get("name", described.get("kind", "")), "weights": digest(start),
        **{name: "" if part is None or not len(part) else part.hash for name, part in sets.items()},
        "recipe": json.loads(json.dumps(recipe.to_json())),
        "isolated atoms": {str(z): float(energy) for z, energy in sorted((isolated or {}).items())},
        # The energies of a potential that is returned as it is are not moved.
        "zero epochs": idle,
    }  # fmt: skip


def digest(potential: BasePotential) -> str:
    """Of all weights, by name."""
    import hashlib

    found = hashlib.blake2b(digest_size=16)
    for name, value in potential.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return found.hexdigest()


def _shown(value: Any) -> str:
    return "none" if value in ("", {}) else str(value)
