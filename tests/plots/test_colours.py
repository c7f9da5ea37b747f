"""Colours that carry meaning are told apart without red, without green, and on light and dark ground."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from plotly.colors import sample_colorscale

from mlipkit.plots import cells, elements, runs
from mlipkit_widgets import drawing
from mlipkit_widgets.states import FATES, LOOKS

# Machado, Oliveira and Fernandes (IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009)), severity 1, on linear RGB.
SIGHT = {
    "all colours": np.eye(3),
    "no green (deuteranopia)": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no red (protanopia)": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}
LEAST = 15.0
"""CIE 1976 distance; 2.3 is just noticeable side by side, marks lie apart."""
TEXT, MARK = 4.5, 1.7
"""Contrast of text (WCAG AA), and of a mark that is large and has a name besides."""


def linear(colour: str) -> np.ndarray:
    """Linear RGB [3] of ``#rrggbb`` or ``rgb(r, g, b)``."""
    if colour.startswith("#"):
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    else:
        values = np.array([float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")])
    values = values / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour: str, sight: str = "all colours") -> np.ndarray:
    """CIE L*a*b* [3] (D65) as somebody with this sight has it."""
    seen = np.clip(SIGHT[sight] @ linear(colour), 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    ratio = to_xyz @ seen / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, sight: str) -> float:
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def test_the_measures_are_those_that_are_meant() -> None:
    assert lab("#FFFFFF") == pytest.approx([100, 0, 0], abs=0.02)
    assert lab("#FF0000") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)
    assert (
        distance("#D55E00", "#B8860B", "no green (deuteranopia)")
        < 5
        < 30
        < distance("#D55E00", "#B8860B", "all colours")
    ), "two colours that look alike to one reader of twelve"


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    "palette",
    [
        dict(enumerate(runs.COLOURS)), elements.ELEMENTS,
        {"warning": runs.WARNING, "failure": runs.FAILURE, "stopped": runs.STOPPED},
    ],
    ids=["curves", "elements", "marks"],
)  # fmt: skip
def test_no_two_colours_look_alike(palette: dict, sight: str) -> None:
    alike = {
        (one, other): round(distance(palette[one], palette[other], sight), 1)
        for one, other in itertools.combinations(palette, 2)
        if distance(palette[one], palette[other], sight) < LEAST
    }
    assert alike == {}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("scale", [cells.SCALE, drawing.COLOURS], ids=["maps", "atoms"])
def test_scales_grow_lighter_and_a_quarter_of_one_is_seen(scale: list, sight: str) -> None:
    seen = np.array([lab(colour, sight) for colour in sample_colorscale(scale, list(np.linspace(0, 1, 21)))])
    assert (np.diff(seen[:, 0]) > -0.2).all()
    apart = [np.linalg.norm(seen[i] - seen[j]) for i in range(21) for j in range(i + 5, 21)]
    assert min(apart) > LEAST


@pytest.mark.parametrize("ground", ["#FFFFFF", "#111111"])
def test_marks_are_seen_on_light_and_dark_ground(ground: str) -> None:
    colours = [
        *elements.ELEMENTS.values(),
        runs.WARNING,
        runs.FAILURE,
        runs.STOPPED,
        *(tone for _, tone in cells.SCALE),
    ]
    assert {colour: round(contrast(colour, ground), 2) for colour in colours if contrast(colour, ground) < MARK} == {}
    assert contrast(runs.WARNING, ground) > 3
    assert contrast(runs.FAILURE, ground) > 3


def test_states_are_read_on_their_colour_and_told_apart_without_it() -> None:
    for name, style in LOOKS.items():
        assert contrast(style.tone, "#FFFFFF") >= TEXT, name
    for icon, tone, words in FATES.values():
        assert contrast(tone, "#FFFFFF") >= TEXT, (icon, words)
    for kinds in (
        [(style.icon, style.tone, style.word) for style in LOOKS.values()], [*FATES.values()],
    ):  # fmt: skip
        for (icon, tone, word), (other_icon, other_tone, other_word) in itertools.combinations(kinds, 2):
            alike = min(distance(tone, other_tone, sight) for sight in SIGHT) < LEAST
            assert word != other_word
            if alike and tone != other_tone:
                assert icon != other_icon, (word, other_word)
