"""Colours of elements on maps and curves: told apart also by readers who do not see red or green."""

from __future__ import annotations

from ase.data import chemical_symbols

from mlipkit.plots.runs import COLOURS

# Near to what is usual as far as possible; found by a search for the largest least distance in sight, also without red
# or without green (tests/plots/test_colours.py), on light and dark ground.
ELEMENTS = {
    "H": "#7ECCDF", "Li": "#7A7FFF", "C": "#745664", "N": "#164AF1", "O": "#9F420D", "F": "#02BF98", "Na": "#5B3BA8",
    "P": "#E28030", "S": "#FEB300", "Cl": "#70D480", "Co": "#9C61A7", "Cu": "#94674E", "Pd": "#75B4FC",
}  # fmt: skip


def element_colour(element: str | int, otherwise: int | None = None) -> str:
    """Colour of an element.

    Args:
        element: symbol or atomic number.
        otherwise: which of `COLOURS` is taken where there is none; by the atomic number when omitted.
    """
    symbol = chemical_symbols[element] if isinstance(element, int) else element
    if symbol in ELEMENTS:
        return ELEMENTS[symbol]
    if otherwise is None:
        otherwise = chemical_symbols.index(symbol) if symbol in chemical_symbols else 0
    return COLOURS[otherwise % len(COLOURS)]
