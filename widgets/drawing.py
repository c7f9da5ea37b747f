"""Atoms as a still SVG picture: what a page shows when it has no nglview or no WebGL."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from ase.neighborlist import neighbor_list
from plotly.colors import sample_colorscale, sequential

COLOURS: list[str] = sequential.Viridis
"""Colour scale of per-atom numbers, dark = low; read alike by colour-blind people."""
MARK = "#d55e00"


def gradient() -> str:
    """CSS value that paints the colour scale from left to right."""
    return f"linear-gradient(to right, {', '.join(COLOURS)})"


def viewpoint(degrees_x: float = -70.0, degrees_y: float = 20.0) -> np.ndarray:
    """Rotation [3,3] from the atoms' axes to those of the picture (x right, y up, z to the reader)."""
    a, b = np.deg2rad([degrees_x, degrees_y])
    around_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    around_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return around_y @ around_x


def bonds(atoms: Atoms) -> np.ndarray:
    """Pairs [B,2] of atoms closer than the sum of their covalent radii times 1.2, bonds across the box left out."""
    if len(atoms) > 2000:
        return np.empty((0, 2), dtype=int)
    inside = Atoms(atoms.numbers, positions=atoms.positions)
    i, j = neighbor_list("ij", inside, [1.2 * radius for radius in covalent_radii[atoms.numbers]])
    return np.stack([i, j], axis=1)[i < j]


def draw(
    numbers: np.ndarray,
    positions: np.ndarray,
    *,
    pairs: np.ndarray,
    centre: np.ndarray,
    radius: float,
    rotation: np.ndarray,
    values: np.ndarray | None = None,
    domain: tuple[float, float] = (0.0, 1.0),
    marked: tuple[int, ...] = (),
    cell: np.ndarray | None = None,
    width: int = 420,
    height: int = 360,
) -> str:
    """SVG text of one frame in parallel projection, far things drawn first.

    Args:
        numbers, positions: atomic numbers [N] and positions [N,3] in Å; atoms without finite positions are left out.
        pairs: bonds [B,2].
        centre, radius: what the picture is centred on and how far it reaches, Å. Keep them over frames to see motion.
        values, domain: per-atom numbers [N] to colour by, and the numbers at both ends of the scale.
        marked: atoms drawn with a ring and their number.
        cell: rows [3,3] of the cell to outline, Å.
    """
    scale = 0.46 * min(width, height) / max(radius, 1.0)
    flat = (positions - centre) @ rotation.T
    known = np.asarray(np.isfinite(flat).all(axis=1))
    x, y = width / 2 + scale * flat[:, 0], height / 2 - scale * flat[:, 1]
    shapes: list[tuple[float, str]] = []
    if cell is not None:
        shapes += [(-1e9, shape) for shape in _outline(cell, centre, rotation, scale, width, height)]
    for i, j in pairs:
        if known[i] and known[j]:
            shapes.append((
                (flat[i, 2] + flat[j, 2]) / 2 - 0.01,
                f'<line x1="{x[i]:.1f}" y1="{y[i]:.1f}" x2="{x[j]:.1f}" y2="{y[j]:.1f}" stroke="#999" '
                f'stroke-width="{max(2.0, 0.16 * scale):.1f}" stroke-linecap="round"/>',
            ))  # fmt: skip
    fills = _fills(numbers, values, domain)
    for i in np.flatnonzero(known):
        r = max(2.5, 0.5 * covalent_radii[numbers[i]] * scale)
        title = f"<title>{chemical_symbols[numbers[i]]} {i}</title>"
        shapes.append((
            flat[i, 2],
            f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="{r:.1f}" fill="{fills[i]}" stroke="#444" '
            f'stroke-width="0.8">{title}</circle>',
        ))  # fmt: skip
        if i in marked:
            shapes.append((
                1e9,
                f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="{r + 5:.1f}" fill="none" stroke="{MARK}" '
                f'stroke-width="3"/><text x="{x[i] + r + 7:.1f}" y="{y[i] + 4:.1f}" fill="{MARK}" font-size="13" '
                f'font-weight="bold">{chemical_symbols[numbers[i]]} {i}</text>',
            ))  # fmt: skip
    body = "".join(shape for _, shape in sorted(shapes, key=lambda item: item[0]))
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%" role="img" aria-label="atoms, still picture" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _fills(numbers: np.ndarray, values: np.ndarray | None, domain: tuple[float, float]) -> list[str]:
    if values is None:
        return ["#%02x%02x%02x" % tuple(int(255 * part) for part in jmol_colors[z]) for z in numbers]  # noqa: UP031
    low, high = domain
    share = np.clip(np.nan_to_num((np.asarray(values) - low) / max(high - low, 1e-12), nan=1.0), 0.0, 1.0)
    return [str(colour) for colour in sample_colorscale(COLOURS, share.tolist())]


def _outline(cell, centre, rotation, scale, width, height) -> list[str]:
    corners = {bits: np.array(bits) @ cell for bits in np.ndindex(2, 2, 2)}
    lines = []
    for bits, start in corners.items():
        for axis in range(3):
            if bits[axis]:
                continue
            ends = [(point - centre) @ rotation.T for point in (start, start + cell[axis])]
            (x1, y1), (x2, y2) = [(width / 2 + scale * p[0], height / 2 - scale * p[1]) for p in ends]
            lines.append(
                f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#888" stroke-width="1"/>'
            )
    return lines
