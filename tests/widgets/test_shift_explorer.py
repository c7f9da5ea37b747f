"""The shift explorer without a browser: what is on show, what clicks and loops do, and that it ends."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as w
import numpy as np
import pytest
from made_up import large_set, two_sets, wobbling

from mlipkit.data import Tray, read
from mlipkit.errors import DataError
from mlipkit_widgets import ShiftExplorer
from mlipkit_widgets.map_plot import inside, nearest
from mlipkit_widgets.shift_data import ShiftData, ShiftSet


@pytest.fixture
def view(tmp_path: Path):
    made = ShiftExplorer(two_sets(), tray=tmp_path / "selections" / "tray", viewer="still")
    yield made
    made.close()


def loop(x0: float, x1: float, y0: float, y1: float) -> dict:
    """What the page says when a box is drawn."""
    return {"type": "select", "kind": "box", "x": [x0, x1, x1, x0], "y": [y0, y0, y1, y1]}


def say(view: ShiftExplorer, message: dict) -> None:
    view.map.plot._message(None, message, [])


def around(view: ShiftExplorer, index: int, reach: float = 1e-6) -> dict:
    x, y = (values[index] for values in view.data.coordinates(view.picks.map))
    return loop(x - reach, x + reach, y - reach, y + reach)


def test_inside_is_the_even_odd_rule() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    x, y = np.array([1.0, 3.0, 1.0, -0.1]), np.array([1.0, 1.0, 2.5, 1.0])
    assert inside(square, x, y).tolist() == [True, False, False, False]
    star = np.array([[np.sin(a), np.cos(a)] for a in 4 * np.pi / 5 * np.arange(5)])
    assert not inside(star, np.zeros(1), np.zeros(1))[0], "wound around twice"
    points = np.random.default_rng(0).uniform(-1, 3, size=(2, 500))
    triangle = np.array([[0, 0], [2, 0.5], [0.5, 2]])
    a, b, c = triangle

    def side(p, q):
        return (q[0] - p[0]) * (points[1] - p[1]) - (q[1] - p[1]) * (points[0] - p[0]) > 0

    wanted = side(a, b) & side(b, c) & side(c, a)
    assert 20 < wanted.sum() < 200
    assert np.array_equal(inside(triangle, *points), wanted)


def test_nearest_counts_in_pixels() -> None:
    x, y = np.array([0.0, 1.0, np.nan]), np.array([0.0, 0.0, 0.0])
    assert nearest(x, y, (0.6, 0.0), (0.1, 0.1)) == (1, pytest.approx(4.0))
    assert nearest(x[:0], y[:0], (0.0, 0.0), (1.0, 1.0)) == (-1, np.inf)


def test_first_look(view: ShiftExplorer) -> None:
    assert view.header.state == "ready"
    assert "2 sets · 720 atoms · fit-on set: cold" in view.header.detail
    assert (view.set, view.frame, view.atom) == ("cold", 0, -1)
    data, layout = view.map.plot.shown
    assert sum(len(trace["x"]) for trace in data if trace["name"] in ("H", "C", "O")) >= 720
    assert layout["xaxis"]["title"]["text"] == "PC1 (40.0 %)"
    assert [toggle.description for toggle in view.controls.elements.values()] == ["H", "C", "O"]
    assert view.bar.slider.max == 39


def test_click_shows_the_atom_everywhere(view: ShiftExplorer) -> None:
    index = view.data.index("hot", 17, 2)
    x, y = (float(values[index]) for values in view.data.coordinates("PC1, PC2"))
    say(view, {"type": "pick", "x": x, "y": y, "dx": 0.01, "dy": 0.01})
    assert (view.set, view.frame, view.atom) == ("hot", 17, 2)
    assert "O 2" in view.picture.text.value
    assert view.series.plot.cursor == pytest.approx(0.17)
    own = view.series.plot.shown[0][-1]
    assert own["name"] == "picked atom"
    assert len(own["y"]) == 40
    assert own["y"][17] == pytest.approx(view.data["hot"].points.q[17 * 9 + 2])
    picked = next(trace for trace in view.map.plot.shown[0] if trace["name"] == "picked")
    assert picked["x"] == [pytest.approx(x, abs=1e-5)]
    assert view.bar.text.value.startswith("17 of 39")
    say(view, {"type": "pick", "x": x + 50, "y": y, "dx": 0.01, "dy": 0.01})
    assert view.atom == 2, "a click into empty space means nothing"


def test_slider_curve_and_traitlets_share_the_frame(view: ShiftExplorer) -> None:
    view.bar.next_button.click()
    assert view.frame == 1
    view.series.plot._message(None, {"type": "click", "x": 0.21, "y": 1.0, "curve": 0}, [])
    assert view.frame == 21
    view.frame = 5
    assert view.bar.frame == 5
    view.which.value = "hot"
    assert (view.set, view.frame) == ("hot", 0)
    view.go("hot", 999, 100)
    assert (view.frame, view.atom) == (39, -1)


def test_loop_fills_the_tray_with_frames_atoms_and_reason(view: ShiftExplorer) -> None:
    say(view, around(view, view.data.index("hot", 3, 2)))
    say(view, around(view, view.data.index("hot", 3, 1)))
    say(view, around(view, view.data.index("cold", 8, 0)))
    chosen = view.selection
    hot, cold = (int(view.data[name].frames.uids[row]) for name, row in (("hot", 3), ("cold", 8)))
    assert chosen.uids == (hot, cold)
    assert chosen.atoms == {hot: (1, 2), cold: (0,)}
    first = chosen.criterion["of"][0]
    assert first["kind"] == "box"
    assert first["map"] == "PC1, PC2"
    assert first["sets"] == ["cold", "hot"]
    assert len(first["polygon"]) == 4
    assert "box on PC1, PC2, in cold, hot" in chosen.sentence
    assert view.map._chosen.sum() == 3
    assert [item["text"] for item in view.tray.pictures.items] == ["hot 3", "cold 8"]
    assert Tray(view.tray.tray.folder).selection == chosen, "on disk"
    view.tray.lasso.value = "remove"
    say(view, around(view, view.data.index("cold", 8, 0)))
    assert view.selection.uids == (hot,)
    view.tray.undo_button.click()
    assert view.selection == chosen
    view.tray.pictures._message(None, {"type": "pick", "index": 1}, [])
    assert (view.set, view.frame) == ("cold", 8)


def test_loop_means_only_what_is_on_show(view: ShiftExplorer) -> None:
    everything = loop(-100, 100, -100, 100)
    view.controls.elements[1].value = False
    view.controls.sets["cold"].value = False
    say(view, everything)
    assert len(view.selection) == 40
    assert set(view.selection.atoms.values()) == {(0, 1, 2)}, "C C O of each frame"
    assert view.selection.sentence == "box on PC1, PC2, atoms of C O, in hot"
    say(view, loop(50, 60, 50, 60))
    assert "No atom on show lies inside" in view.said.value


def test_tag_export_and_reopening(view: ShiftExplorer, tmp_path: Path) -> None:
    say(view, around(view, view.data.index("hot", 3, 2)))
    say(view, around(view, view.data.index("cold", 8, 0)))
    view.tray.tag.value = "far out"
    view.tray.export_button.click()
    assert view.tray.exported == tmp_path / "selections" / "far_out.extxyz"
    back = read(view.tray.exported)
    assert [int(uid) for uid in back.uids] == list(view.selection.uids)
    assert back.frame(0)["tag"] == "far out"
    assert [int(uid) for uid in view.frames().uids] == list(view.selection.uids)
    other = ShiftExplorer(two_sets(), tray=tmp_path / "selections" / "tray", viewer="still")
    assert other.selection == view.selection
    assert other.tray.tag.value == "far out"
    assert len(other.tray.pictures.items) == 2
    assert other.tray.tray.undo_steps == view.tray.tray.undo_steps
    other.tray.clear_button.click()
    view.refresh()
    assert len(view.selection) == 0, "two views of one tray"
    assert not any(trace["name"] == "selected" and trace["x"] for trace in view.map.plot.shown[0])
    assert other.tray.export_button.disabled
    other.close()


def test_frames_of_runs_come_without_the_potentials_own_predictions(view: ShiftExplorer) -> None:
    say(view, around(view, view.data.index("hot", 3, 2)))
    hot = next(one for one in view.data.sets if one.name == "hot")
    hot.frames = hot.frames.with_labels(energy=np.zeros(len(hot.frames)), forces=np.ones_like(hot.frames.positions))
    (labelled,) = view.data.frame_sets(view.selection)
    assert labelled.has("forces").all()
    hot.run = object()
    (bare,) = view.data.frame_sets(view.selection)
    assert not bare.has("forces").any()
    assert not bare.has("energy").any()
    assert bare.uids.tolist() == labelled.uids.tolist()


def test_invert_takes_all_others(view: ShiftExplorer) -> None:
    say(view, around(view, view.data.index("hot", 3, 2)))
    view.tray.invert_button.click()
    assert len(view.selection) == 79
    assert view.tray.pictures.more == "+ 67 more"


def test_an_export_that_fails_says_why(view: ShiftExplorer) -> None:
    say(view, around(view, view.data.index("hot", 3, 2)))
    view.tray.tag.value = "x"
    (view.tray.tray.folder.parent / "x.extxyz").mkdir()
    view.tray.export_button.click()
    assert "mk-wrong" in view.tray.text.value
    assert not view.tray.export_button.disabled


def test_only_in_shows_what_others_do_not_reach(view: ShiftExplorer) -> None:
    view.controls.only_in.value = "hot"
    assert "atoms of hot" in view.said.value
    grey = view.map.plot.shown[0][0]
    coloured = [trace for trace in view.map.plot.shown[0][1:4] if trace["x"] != [None]]
    assert grey["marker"]["color"] == "#8b949e"
    assert 0 < sum(len(trace["x"]) for trace in coloured) < 360
    view.controls.only_in.value = "-"
    assert view.said.value == ""


def test_only_in_by_hand() -> None:
    data = two_sets(4)
    shown = np.ones(data.n_points, bool)
    one, two = (one.points for one in data.sets)
    one.scores[:], two.scores[:] = 0.05, 0.05
    data.changed()
    assert data.only_in("hot", "PC1, PC2", shown).sum() == 0
    two.scores[:9] = 3.0
    data.changed()
    assert data.only_in("hot", "PC1, PC2", shown).sum() == 9
    one.scores[0] = 3.0  # an atom of carbon in the same bin says nothing of hydrogen
    data.changed()
    assert data.only_in("hot", "PC1, PC2", shown).sum() == 7


@pytest.mark.parametrize("colour", ["element", "set", "time", "Q / limit"])
@pytest.mark.parametrize("name", ["PC1, PC2", "PC3, PC4", "T², Q"])
def test_every_map_in_every_colour(view: ShiftExplorer, name: str, colour: str) -> None:
    view.controls.map.value, view.controls.colour.value = name, colour
    data, layout = view.map.plot.shown
    assert layout["xaxis"]["title"]["text"].startswith({"P": "PC", "T": "T²"}[name[0]])
    assert sum(len(trace["x"]) for trace in data if trace["x"] != [None]) >= 720
    import plotly.graph_objects as go

    go.Figure({"data": data, "layout": layout})


def test_a_large_map_is_an_image_and_still_exact(tmp_path: Path) -> None:
    view = ShiftExplorer(large_set(), tray=tmp_path / "tray", viewer="still")
    data, layout = view.map.plot.shown
    assert view.data.n_points == 100_000
    assert len(layout["images"]) == 1
    assert sum(len(trace["x"]) for trace in data) < 1000, "points do not travel"
    x, y = view.data.coordinates("PC1, PC2")
    index = view.data.index("liquid", 321, 77)
    say(view, {"type": "pick", "x": float(x[index]), "y": float(y[index]), "dx": 0.01, "dy": 0.01})
    assert (view.frame, view.atom) == (321, 77)
    triangle = np.array([[0.8, 0.9], [1.3, 1.0], [1.0, 1.4]])
    say(view, {"type": "select", "kind": "lasso", "x": triangle[:, 0].tolist(), "y": triangle[:, 1].tolist()})
    meant = inside(triangle, x, y)
    assert view.selection.n_atoms == meant.sum() > 500
    assert np.array_equal(view.map._chosen, meant)
    # Zoomed in so far that each point can be drawn.
    say(view, {"type": "range", "x": [0.99, 1.01], "y": [0.9, 1.1]})
    data, layout = view.map.plot.shown
    assert "images" not in layout
    drawn = sum(len(trace["x"]) for trace in data if trace["name"] in ("H", "C", "O") and trace["x"] != [None])
    assert drawn == ((x >= 0.99) & (x <= 1.01) & (y >= 0.9) & (y <= 1.1)).sum()
    say(view, {"type": "range", "x": None})
    assert view.map.plot.shown[1]["images"]
    view.close()


def test_empty_view_says_what_to_do(tmp_path: Path) -> None:
    view = ShiftExplorer(tray=tmp_path / "tray", viewer="still")
    assert view.header.state == "empty"
    assert "sample:water_liquid" in view.empty.value
    assert view.body.layout.display == "none"
    assert view.atoms is None
    view.close()


def test_sets_without_points_yet(tmp_path: Path) -> None:
    """What is seen while the child still computes."""
    data = two_sets(5)
    for one in data.sets:
        one.points = None
    view = ShiftExplorer(data, tray=tmp_path / "tray", viewer="still")
    assert view.bar.slider.max == 4
    view.go("hot", 3)
    assert view.frame == 3
    assert view.atoms is not None
    full = two_sets(5)
    for one, other in zip(data.sets, full.sets, strict=True):
        one.points = other.points
    data.changed()
    view.refresh()
    assert view.set == "hot"
    assert view.header.detail.startswith("2 sets · 90 atoms")
    view.close()


def test_wrong_arguments_name_what_is_right(tmp_path: Path) -> None:
    frames = wobbling(3, 0)
    with pytest.raises(DataError, match=r"fit_on: there is no set 'b'. did you mean|fit_on: there is no set 'b'"):
        ShiftExplorer({"a": frames}, fit_on="b", tray=tmp_path / "tray")
    with pytest.raises(DataError, match=r"cannot be shown; expected frames, a file, a sample or a run; found int"):
        ShiftExplorer([3], tray=tmp_path / "tray")


def test_code_runs_as_far_as_names_go(view: ShiftExplorer) -> None:
    view.code_button.click()
    for kind in ("element", "set", "time", "Q / limit"):
        view.controls.colour.value = kind
        text = view.panel.value
        assert "plots.score_map" in text
        assert "ShiftExplorer(" in text
        import html

        compile(html.unescape(text.removeprefix('<pre class="mk-code">').removesuffix("</pre>")), "code", "exec")
    view.code_button.click()
    assert view.panel.layout.display == "none"


def test_closing_leaves_no_widget_behind(tmp_path: Path) -> None:
    def count() -> int:
        return len(w.widget._instances) if hasattr(w.widget, "_instances") else len(w.Widget.widgets)

    def once() -> None:
        view = ShiftExplorer(two_sets(4), tray=tmp_path / "tray", viewer="still")
        say(view, around(view, 3))
        view.close()

    once()
    before = count()
    for _ in range(3):
        once()
    assert count() == before


def test_data_without_sets_answers_everything() -> None:
    data = ShiftData()
    assert data.n_points == 0
    assert data.elements == []
    assert len(data.coordinates("PC1, PC2")[0]) == 0


def test_frames_of_several_runs_have_no_common_time() -> None:
    """Their curve goes over frame numbers and never back."""
    from made_up import points_of

    from mlipkit.data import samples

    frames = samples.load("ethanol_300K")[::20]
    assert len(np.unique(frames.trajectory)) > 1
    several = ShiftSet("several", frames, points_of(frames, 0, 0.0))
    assert several.times().tolist() == list(range(len(frames)))
    frames = frames.select(np.flatnonzero(frames.trajectory == frames.trajectory[0]))
    one = ShiftSet("one", frames, points_of(frames, 0, 0.0))
    assert one.times().tolist() == frames.time.tolist()
