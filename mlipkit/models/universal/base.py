"""What all universal potentials share: a package's own model behind our contract, its facts, its precision."""

from __future__ import annotations

import contextlib
import copy
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, ClassVar

import torch
from ase.data import chemical_symbols
from torch import Tensor, _tensor_str, nn

from mlipkit.errors import ModelError, require
from mlipkit.models.contract import BasePotential
from mlipkit.models.registry import check_complete, dtype_of


@dataclass(frozen=True)
class Facts:
    """What somebody must know before trusting a universal potential with a system.

    Attributes:
        title: full name and version of the weights.
        level_of_theory: of the labels it was trained on.
        training_data: what the labels were made for.
        licence: of code and weights.
        citation: paper to cite.
        note: what differs from the package's own calculator, or from what one would expect; "" for nothing.
        trust: what reading its weights asks of the user.
    """

    title: str
    level_of_theory: str
    training_data: str
    licence: str
    citation: str
    note: str = ""
    trust: str = "the weights are a pickle inside the installed package, read when the potential is loaded"


class UniversalPotential(BasePotential):
    """A package's own model: its weights are this module's parameters, its derivatives come from the contract.

    Args:
        model: the package's model; in evaluation mode from here on.
        elements: atomic numbers in its domain.

    Attributes:
        NAME: what follows "universal:".
        PACKAGE: its distribution on the package index; `MODULE` its import name, `EXTRA` the extra that brings it,
            `CURE` what to do instead where no extra does.
        FACTS: for people; part of `describe()`.
        PRECISIONS: dtypes in which it may compute; weights in another one are turned into the first.
        READOUT: first parts of the names of parameters that do not make the features; `ENERGY_HEAD`: of those that make
            energies of them.
    """

    NAME: ClassVar[str]
    PACKAGE: ClassVar[str]
    MODULE: ClassVar[str]
    EXTRA: ClassVar[str] = "universal"
    CURE: ClassVar[str] = ""
    FACTS: ClassVar[Facts]
    PRECISIONS: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64)
    READOUT: ClassVar[tuple[str, ...]] = ()
    ENERGY_HEAD: ClassVar[tuple[str, ...]] = ()

    model: Any

    def __init__(self, model: nn.Module, elements: Sequence[int]) -> None:
        super().__init__(elements)
        given = next(model.parameters()).dtype
        self.model = model.to(given if given in self.PRECISIONS else self.PRECISIONS[0]).eval()

    @classmethod
    def load(cls) -> UniversalPotential:
        """The packaged weights.

        Raises:
            MissingPackageError: the package is not installed.
        """
        raise NotImplementedError

    @classmethod
    def require(cls, module: str | None = None) -> Any:
        """Import the package (or one of its modules).

        Raises:
            MissingPackageError: it is not installed; the error names the extra that brings it, or `CURE`.
        """
        with process_unchanged():
            return require(module or cls.MODULE, cls.EXTRA, f"universal:{cls.NAME}", cls.CURE)

    def train(self, mode: bool = True):
        """Its network stays in evaluation mode: packages switch more than dropout with it."""
        super().train(mode)
        self.model.eval()
        return self

    def add_lora(self, rank: int, seed: int) -> bool:
        """Put low-rank additions (LoRA) beside its weights where its package offers them; False where not.

        They are zero at first: the potential stays what it is until they are trained. Additions of this rank that are
        there stay as they are.
        """
        return False

    def _apply(self, fn, recurse: bool = True):
        wanted = fn(torch.empty(0, dtype=self.PRECISIONS[0])).dtype
        if wanted not in self.PRECISIONS:
            raise ModelError(
                f"computes in {', '.join(map(_name, self.PRECISIONS))} only", where=f"universal:{self.NAME}",
                found=_name(wanted), hint=self.FACTS.note,
            )  # fmt: skip
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> UniversalPotential:
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__ = copy.deepcopy(self.__dict__, memo)
        # Copying e3nn's generated code turns constants into buffers, over which saved and loaded states would stumble.
        generated = [module for module in new.modules() if isinstance(module, torch.fx.GraphModule)]
        for module in generated:
            module._non_persistent_buffers_set |= {name for name in module._buffers if name.startswith("_tensor_const")}
        return new

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        return {
            name: value
            for name, value in self.named_parameters()
            if not name.removeprefix("model.").startswith(self.READOUT or "\0")
        }

    def specification(self) -> dict[str, Any]:
        """The weights are stored beside it; what they belong to comes from the installed package."""
        return {"version": metadata.version(self.PACKAGE), "dtype": _name(self.dtype)}

    @classmethod
    def from_specification(cls, spec: Mapping[str, Any], *, where: str) -> UniversalPotential:
        check_complete(spec, {"version", "dtype"}, where)
        return cls.load().to(dtype_of(spec, where))

    def describe(self) -> dict[str, Any]:
        parameters = list(self.parameters())
        return {
            "name": f"universal:{self.NAME}",
            **asdict(self.FACTS),
            "package": self.PACKAGE,
            "version": metadata.version(self.PACKAGE),
            "elements": [chemical_symbols[z] for z in self.elements],
            "cutoff": self.cutoff,
            "parameters": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "dtype": _name(self.dtype),
        }


UNSAFE_LOADING = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def process_unchanged() -> Iterator[None]:
    """While a package loads it prints nothing, and afterwards the process is as it was.

    mace-torch lets every later `torch.load` of the process unpickle; for so3krates-torch see `print_precision_kept`.
    """
    unsafe = os.environ.get(UNSAFE_LOADING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), print_precision_kept():
            yield
    finally:
        if unsafe is None:
            os.environ.pop(UNSAFE_LOADING, None)


@contextlib.contextmanager
def print_precision_kept() -> Iterator[None]:
    """so3krates-torch sets torch's print precision when it is imported and at every call."""
    shown = _tensor_str.PRINT_OPTS.precision
    try:
        yield
    finally:
        torch.set_printoptions(precision=shown)


def own(values: Tensor) -> Tensor:
    """The same values for code that calls `requires_grad_` on what it is given: the caller's tensor stays as it is."""
    return values if values.requires_grad else values.detach()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
