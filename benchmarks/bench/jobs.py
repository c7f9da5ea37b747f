"""What is measured: every job with its sizes, the engines that can do it, and the ratio aimed at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any

CUTOFF = 5.0
FEATURES, LAYERS = 128, 3
N_RADIAL = {"painn": 20, "schnet": 50, "visnet": 32}
PEERS = {"painn": ("schnetpack", "graph-pes"), "schnet": ("schnetpack", "graph-pes", "pyg"), "visnet": ("pyg",)}
LISTS = ("vesin", "matscipy", "ase")


@dataclass(frozen=True)
class Job:
    """One thing to do, the same for every engine.

    Attributes:
        kind: train, ef (energy and forces), ase_md, md, loading, neighbours, products.
        system: key of `structures.py`.
        peers: engines beside mlipkit.
        target: peer's time over ours that is aimed at; None: measured, nothing promised.
        steps: MD steps of one repetition. The evaluation of the start counts as one more.
        replicas: copies that move together.
        unit: what one repetition is divided by to give the figure.
    """

    name: str
    kind: str
    system: str
    peers: tuple[str, ...]
    model: str = ""
    target: float | None = None
    steps: int = 0
    replicas: int = 1
    batch: int = 0
    features: int = FEATURES
    layers: int = LAYERS
    n_radial: int = 0
    cutoff: float = CUTOFF
    lmax: int = 1
    heads: int = 8

    @property
    def per(self) -> int:
        """Units in a repetition: MD steps, or 1."""
        return self.steps + 1 if self.steps else 1

    @property
    def unit(self) -> str:
        return "ms/step" if self.steps else "ms"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _models() -> list[Job]:
    jobs = []
    for model, peers in PEERS.items():
        shared = {"model": model, "peers": peers, "n_radial": N_RADIAL[model]}
        target = 2.0 if model == "visnet" else 1.5
        for system in ("ethanol_32", "water_2"):
            jobs.append(Job(f"{model}.train.{system}", "train", system, target=target, **shared))
        for system in ("ethanol_32", "water_1", "water_2"):
            jobs.append(Job(f"{model}.ef.{system}", "ef", system, target=target, **shared))
    return jobs


def _dynamics() -> list[Job]:
    shared = {"model": "painn", "n_radial": N_RADIAL["painn"]}
    both = ("schnetpack", "graph-pes")
    return [
        Job("painn.ase_md.ethanol", "ase_md", "ethanol_1", both, target=2.0, steps=50, **shared),
        Job("painn.ase_md.water", "ase_md", "water_1", both, target=1.5, steps=3, **shared),
        Job("painn.md.ethanol", "md", "ethanol_1", both, target=2.0, steps=200, **shared),
        Job("painn.md.water", "md", "water_1", both, target=1.5, steps=5, **shared),
        Job("painn.md.ethanol_x32", "md", "ethanol_1", both, target=6.0, steps=200, replicas=32, **shared),
    ]


JOBS: tuple[Job, ...] = (
    *_models(),
    *_dynamics(),
    Job("neighbours.water_288", "neighbours", "water_1", LISTS),
    Job("neighbours.water_10368", "neighbours", "water_large", LISTS),
    Job("loading.ethanol_32", "loading", "frames", ("schnetpack", "pyg"), batch=32),
)
PRODUCTS = Job("products", "products", "", ())
"""A large matrix product: what the machine can do, measured beside each group of jobs."""


def chosen(patterns: list[str] | None) -> list[Job]:
    """Jobs whose name fits one of the patterns; a pattern without `*` fits what it is a part of."""
    if not patterns:
        return list(JOBS)
    shells = [p if "*" in p else f"*{p}*" for p in patterns]
    return [job for job in JOBS if any(fnmatch(job.name, shell) for shell in shells)]
