"""What every specification of a run has: name, seed, precision, device, threads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from mlipkit.runs.part import Part, code_of

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class BaseSpec(Part):
    """Fields and abilities that the kinds of runs share."""

    version: Literal[1] = 1
    name: str = Field(default="", description="name of the run's folder; empty: chosen from the kind")
    seed: int = Field(default=0, ge=0, description="random seed of everything that has no seed of its own")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of the model")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1")
    threads: int = Field(default=1, ge=1, description="CPU threads the run may use")
    python: str | None = Field(
        default=None, description="another Python that computes this run, with mlipkit installed; empty: this one"
    )

    HOME: ClassVar[str] = "mk."
    PLACES: ClassVar[tuple[str, ...]] = ()
    CHANGEABLE: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _name_is_a_folder_name(self):
        if self.name and not NAME.match(self.name):
            raise ValueError("name: letters, digits, '.', '_' and '-' only, as it becomes a folder")
        return self

    @model_validator(mode="after")
    def _device_has_float64(self):
        if self.device == "mps":
            raise ValueError("device: mps has no float64, in which energies are summed and atoms are moved; use cpu")
        return self

    @property
    def default_name(self) -> str:
        """Folder name used when `name` is empty."""
        raise NotImplementedError

    def places(self) -> Iterator[tuple[str, str]]:
        """(field, text) of everything the run reads: files, samples, other runs, factories."""
        for field in self.PLACES:
            value = getattr(self, field)
            for text in value if isinstance(value, list) else [value]:
                if text:
                    yield field, text

    def to_yaml(self) -> str:
        """This specification as YAML; `load_spec` reads it back equal."""
        record = self.model_dump(mode="json")
        first = {key: record.pop(key) for key in ("kind", "version", "name")}
        return yaml.safe_dump({**first, **record}, sort_keys=False, allow_unicode=True)

    def code(self) -> str:
        """Python that launches the same run, with only the fields that differ from the defaults."""
        return f"import mlipkit as mk\n\nrun = mk.launch({code_of(self)})\nrun.wait()\n"
