"""Devices, precision and processes, through lightning-fabric. One code path for one process and for many.

Fabric starts the processes, carries the reductions and sets mixed precision; one process in plain precision needs
nothing of it and does not wait the seconds that its import takes. Gradients are summed by the loop itself, not
averaged by a wrapper: objective terms already divide by counts over all processes (see `mlipkit.training.objective`),
so the sum is the gradient of the whole batch whatever the sizes of the pieces. Force losses differentiate twice; a
plain sum after the backward pass needs no hooks inside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlipkit.errors import SpecError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from mlipkit.training.settings import TrainSettings


class Processes:
    """This process among all that train together.

    Args:
        device: of this process.
        fabric: launched; None: one process in plain precision.
        mixed: turn on autocast in the forward pass.
    """

    def __init__(self, device: torch.device, fabric: Fabric | None = None, mixed: bool = False) -> None:
        self.device, self._fabric, self._mixed = device, fabric, mixed
        self.rank: int = fabric.global_rank if fabric else 0
        self.number: int = fabric.world_size if fabric else 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and events."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        return self._fabric.autocast() if self._fabric and self._mixed else nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Sum over processes; the argument itself when there is one."""
        if self._fabric is None or self.number == 1:
            return values
        return self._fabric.all_reduce(values.clone(), reduce_op="sum")  # type: ignore[return-value]

    def agree(self, request: int) -> int:
        """The first process' integer, in every process: nobody stops, saves or pauses alone."""
        if self.number == 1:
            return request
        flag = torch.tensor([request if self.first else 0], device=self.device)
        return int(self.total(flag).item())

    def gather(self, values: Tensor) -> list[Tensor]:
        """The tensor of every process, by rank."""
        if self.number == 1:
            return [values]
        # Bytes are summed into a row of zeros: works on every backend, and random states are small.
        row = torch.zeros(self.number, *values.shape, dtype=torch.int32, device=self.device)
        row[self.rank] = values.to(self.device, torch.int32)
        return list(self.total(row).to(values.device, values.dtype))

    def sum_gradients(self, module: nn.Module, row: Tensor) -> Tensor:
        """Add gradients over processes in place, and the figures of the step with them.

        A parameter without gradient in this process counts as zero; without gradient in all it keeps none, so that the
        optimiser skips it as it would in one process.

        Args:
            row: 1-D figures of this process.

        Returns:
            `row` summed over processes.
        """
        if self.number == 1:
            return row
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        # Figures travel in float64 beside gradients in their own dtype: two messages per step.
        figures = self.total(torch.cat([has.double(), row.double().to(self.device)]))
        flat = self.total(torch.cat([part.flatten() for part in parts]))
        start = 0
        for parameter, known in zip(parameters, figures[: len(parameters)].tolist(), strict=True):
            piece = flat[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = piece.clone() if known else None
            start += parameter.numel()
        return figures[len(parameters) :]

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.number > 1:
            for value in module.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def barrier(self) -> None:
        """Wait for all."""
        if self._fabric is not None:
            self._fabric.barrier()


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch uses deterministic algorithms if `wanted`; the process-wide switch is put back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if wanted:
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def start(settings: TrainSettings) -> Processes:
    """Choose the device and start the processes that the settings ask for.

    With several processes, Fabric runs the present command again for each further one (under torchrun or SLURM it joins
    those already there). So this works in a script or a worker, not in a notebook cell.

    Raises:
        SpecError: unknown device; or another number of processes was started around us than the settings ask for,
            which would silently repeat one training several times.
    """
    around = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    if int(around) not in (1, settings.num_processes):
        raise SpecError(
            f"{around} processes were started, and every one would do the same training",
            where="num_processes",
            expected=around,
            found=settings.num_processes,
            hint="Set num_processes to the number of processes, or start one",
        )
    kind, _, index = settings.device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "mps":
        raise SpecError("has no float64, in which energies are summed", where="device", found="mps", hint="Use cpu")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise SpecError("unknown device", where="device", found=settings.device, hint="Known: auto, cpu, cuda, cuda:1")
    if kind == "cuda" and not int(index or 0) < torch.cuda.device_count():
        raise SpecError(
            "no such device",
            where="device",
            expected=f"one of {torch.cuda.device_count()} CUDA devices",
            found=settings.device,
        )
    if index and settings.num_processes > 1:
        raise SpecError("one device named for several processes", where="device", found=settings.device)
    mixed = settings.precision == "bf16-mixed"
    if settings.num_processes == 1 and not mixed:
        return Processes(torch.device(kind, int(index)) if index else torch.device(kind))

    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    try:
        fabric = Fabric(
            accelerator=kind,
            devices=[int(index)] if index and kind == "cuda" else settings.num_processes,
            # A pause may last for days; a process that dies is noticed at once by its closed connection.
            strategy=DDPStrategy(timeout=timedelta(days=30)) if settings.num_processes > 1 else "auto",
            precision="bf16-mixed" if mixed else "32-true",
        )
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise SpecError(
            f"cannot start {settings.num_processes} processes ({error})",
            where="num_processes",
            hint="Several processes need a script or a run, not a notebook cell",
        ) from error
    return Processes(fabric.device, fabric, mixed)
