"""The counted floor of a job: floating-point operations of its matrix products over what this machine can do.

Products of the equations as published: F features, K radial functions, N atoms, E directed edges. What is the same in
both directions of a pair is counted once, and what multiplies the first layer's vectors, which are zero, not at all. A
product costs 2 operations per weight and row; the forces repeat each once (gradient of its input). In training each of
the two is differentiated for its input and its weight: three times as much in all.
"""

from __future__ import annotations

from .jobs import Job

EVALUATIONS = {"ef": 1, "ase_md": 1, "md": 1, "train": 3}
"""Energy and forces once, per repetition's unit; training counts three times."""


def forward(model: str, atoms: int, edges: int, features: int, layers: int, n_radial: int) -> float:
    """Operations of the products in one energy.

    PaiNN, per layer: a_s (F→F→3F), U and V on three components, the update's map (2F→F→3F); per pair K→3F. The first
    layer has no part for vectors in a_s and in the filter.
    SchNet, per layer: in (F→F), out (F→F→F); per pair K→F→F.
    ViSNet (lmax 1), per layer: q, k, v (F→3F), out (F→3F), spread (F→2F, first layer F→F) per edge, dk and dv (F→2F)
    per pair in the first two layers and per edge later; from the second layer on v1, v2, v3 on three components; from
    the second to the last but one W_s, W_t on three components and Lin f, in the second layer per pair. Before them:
    two filters K→F per pair, combine (2F→F). Energy heads are left out.
    """
    f2, fk, pairs = features**2, features * n_radial, edges / 2
    if model == "painn":
        weights = atoms * (15 * layers - 1) * f2 + pairs * (3 * layers - 1) * fk
    elif model == "schnet":
        weights = layers * (atoms * 3 * f2 + pairs * (fk + f2))
    elif model == "visnet":
        updates = max(layers - 2, 0)
        weights = atoms * (6 * layers + 9 * (layers - 1) + 6 * updates) * f2 + edges * (2 * layers - 1) * f2
        weights += (pairs * 2 * min(layers, 2) + edges * 2 * updates) * f2
        weights += (pairs + edges * (updates - 1)) * f2 if updates else 0.0
        weights += pairs * 2 * fk + atoms * 2 * f2
    else:
        raise ValueError(f"no count for {model}")
    return 2.0 * weights


def gflop(job: Job, atoms: int, edges: int) -> float | None:
    """Counted products of one unit of the job, GFLOP; None where no product is needed."""
    if job.kind not in EVALUATIONS:
        return None
    once = 2.0 * forward(job.model, atoms, edges, job.features, job.layers, job.n_radial)
    return once * EVALUATIONS[job.kind] / 1e9
