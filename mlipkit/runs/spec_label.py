"""Specification of labelling: which frames, by which engine, how much patience."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mlipkit.errors import nearest
from mlipkit.labelling.makers import KNOWN, NAMES, PACKAGES, RECORDED, options_of
from mlipkit.labelling.protocol import MAX_FORCE
from mlipkit.runs.part import unit
from mlipkit.runs.places import check_package, factory_of
from mlipkit.runs.spec_base import BaseSpec

PART = re.compile(r"^([1-9]\d*)/([1-9]\d*)$")


class LabelSpec(BaseSpec):
    """Label frames: energy, forces and stress from an engine, frame by frame."""

    kind: Literal["label"] = "label"
    data: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="frames to label: sample, file or run, with @frames; or a list of them"
    )
    maker: str = Field(
        default="gfn1-xtb",
        description="gfn1-xtb, gfn2-xtb, pyscf, universal:so3lr, a potential, recorded:FILE, factory of a calculator",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the engine, for example {charge: 1}, for pyscf {functional: pbe, basis: def2-svp}",
    )
    dtype: Literal["float32", "float64"] = Field(default="float64", description="precision, of a potential")
    timeout_s: float | None = Field(
        default=1800.0, gt=0, description="longest time for a frame, which has then failed; empty: no limit",
        json_schema_extra=unit("s"),
    )  # fmt: skip
    processes: int | None = Field(
        default=None, ge=1, description="frames at once, each in a process of its own; empty: one for each thread"
    )
    retries: int = Field(default=0, ge=0, description="how often a frame that failed is tried again")
    retry_failed: bool = Field(
        default=False, description="when the run goes on: try the frames again that have failed before"
    )
    max_force: float = Field(
        default=MAX_FORCE, gt=0, description="a label with a larger force is nonsense and has failed",
        json_schema_extra=unit("eV/Å"),
    )  # fmt: skip
    part: str | None = Field(
        default=None, description="2/4: only the second of four parts, in order; empty: all frames"
    )

    CHANGEABLE: ClassVar = ("timeout_s", "processes", "retries", "retry_failed", "threads")

    @property
    def engine(self) -> str:
        """Engine of the label maker: tblite, pyscf, recorded, potential, or calculator (of a factory)."""
        if self.maker in NAMES:
            return NAMES[self.maker][0]
        if self.maker.startswith(RECORDED):
            return "recorded"
        return "potential" if factory_of(self.maker) is None else "calculator"

    @property
    def n_processes(self) -> int:
        """Frames at once."""
        return self.processes or self.threads

    def places(self) -> Iterator[tuple[str, str]]:
        for text in [self.data] if isinstance(self.data, str) else self.data:
            yield "data", text
        if self.engine == "recorded":
            yield "recorded", self.maker.removeprefix(RECORDED)
        elif self.engine in ("potential", "calculator"):
            yield "maker", self.maker

    def slice(self, n: int) -> slice:
        """Rows of `n` frames that this run labels: parts follow each other and differ by at most one frame."""
        match = PART.match(self.part or "1/1")
        assert match is not None
        number, of = int(match[1]), int(match[2])
        return slice((number - 1) * n // of, number * n // of)

    @model_validator(mode="after")
    def _maker_is_known(self):
        text = self.maker
        # A word is a name; what lies in a file or folder has a slash, a colon or the suffix of a potential.
        if text not in NAMES and not re.search(r"[/:\\]|\.safetensors$", text):
            raise ValueError(f"maker: unknown label maker '{text}', {nearest(text, KNOWN)}; a folder here is ./{text}")
        if text == RECORDED:
            raise ValueError("maker: recorded:FILE names the frames whose labels are given out")
        return self

    @model_validator(mode="after")
    def _options_exist(self):
        fixed = {"tblite": {"method"}, "recorded": {"frames"}, "potential": {"potential", "device", "dtype"}}
        engine = self.engine
        known = [] if engine == "calculator" else sorted(set(options_of(engine)) - fixed.get(engine, set()))
        for name in self.options:
            if name not in known:
                raise ValueError(f"options: {self.maker} has no '{name}', {nearest(name, known)}")
        for name in ("dtype", "device"):
            if engine != "potential" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with maker '{self.maker}', only with a potential")
        return self

    @model_validator(mode="after")
    def _processes_have_threads(self):
        if self.processes is not None and self.processes > self.threads:
            raise ValueError(f"processes: {self.processes} need as many threads at least, found {self.threads}")
        return self

    @model_validator(mode="after")
    def _part_is_one(self):
        if self.part is not None:
            match = PART.match(self.part)
            if match is None or int(match[1]) > int(match[2]):
                raise ValueError(f"part: '{self.part}' is no part; write 2/4 for the second of four")
        return self

    @property
    def default_name(self) -> str:
        word = self.maker if self.maker in NAMES else self.engine
        return f"label_{word}" + (f"_{self.part.replace('/', 'of')}" if self.part else "")


def check_engine(spec: LabelSpec) -> None:
    """Refuse an engine whose package is not installed here.

    Raises:
        MissingPackageError: with the extra that brings it.
    """
    if spec.engine in PACKAGES:
        package, extra = PACKAGES[spec.engine]
        check_package(package, extra, ("maker", spec.maker))
