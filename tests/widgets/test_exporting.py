"""Views as files that open without Python."""

from __future__ import annotations

import json
import re
import sys

import pytest
from made_up import two_sets
from recorded import RecordedMD, RecordedReplicas, recorded_training

from mlipkit.errors import MissingPackageError, RunError
from mlipkit.runs.replicas import Replicas
from mlipkit_widgets import MDView, Plot, RunList, ShiftExplorer, TrainingMonitor, Workbench, export, exporting
from mlipkit_widgets.exporting import page_pictures

LOADS = re.compile(r"""(?:src|href)\s*=\s*["'](?:https?:)?//|@import|url\(\s*["']?https?:""")


def figures(text: str) -> list[dict]:
    return [json.loads(one) for one in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]


def test_a_failed_simulation_is_a_file_with_its_verdict_curves_and_atoms(tmp_path):
    made = RecordedMD(tmp_path / "hot", fails_at=900)
    verdict = made.fail()
    view = MDView(tmp_path / "hot", viewer="still")
    view.go_to_failure()
    (path,) = export(view, tmp_path / "deep" / "hot.html")
    text = path.read_text()
    body = text[text.rindex("</script></head>") :]
    assert verdict.sentence in body
    assert "FAILED" in body
    assert body.count("<circle") >= 9, "the atoms of the frame on show"
    assert any(len(trace["x"]) > 100 for one in figures(text) for trace in one["data"] if trace.get("x"))
    assert not LOADS.search(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)), "nothing from elsewhere"
    assert "▶ Resume" not in body
    view.close()


def test_every_view_can_be_exported(tmp_path):
    RecordedReplicas(tmp_path / "runs" / "many", 3, fails={1: 300}).finish()
    recorded_training(tmp_path / "runs" / "training")
    views = [
        MDView(tmp_path / "runs" / "many", viewer="still"), TrainingMonitor(tmp_path / "runs" / "training"),
        RunList(tmp_path / "runs"), ShiftExplorer(two_sets(), tray=tmp_path / "tray", viewer="still"), MDView(),
    ]  # fmt: skip
    for number, view in enumerate(views):
        (path,) = export(view, tmp_path / f"{number}.html")
        text = path.read_text()
        assert "<header>" in text, type(view)
        for figure in figures(text):
            assert set(figure) >= {"data", "layout"}
        view.close()
    many = (tmp_path / "0.html").read_text()
    assert "1 of" in many
    assert str(len(Replicas(views[0].run))) in many  # type: ignore[arg-type]


def test_what_cannot_be_exported_says_so(tmp_path, monkeypatch):
    RecordedMD(tmp_path / "run").advance(100)
    view = MDView(tmp_path / "run", viewer="still")
    with pytest.raises(RunError, match=r"expected \.html, \.svg or \.png; found \.pdf"):
        export(view, tmp_path / "x.pdf")
    with pytest.raises(RunError, match="nothing to export; expected a view; found NoneType"):
        export(None, tmp_path / "x.html")
    assert export(view, tmp_path / "x.HTML") == [tmp_path / "x.HTML"]
    with pytest.raises(RunError, match="no figure is on show"):
        export(MDView(), tmp_path / "x.svg")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(MissingPackageError, match=r"camera.*kaleido"):
        export(view, tmp_path / "x.svg")
    view.close()


def test_a_view_writes_itself_where_its_button_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RecordedMD(tmp_path / "hot run", fails_at=300).fail()
    view = MDView(tmp_path / "hot run", viewer="still")
    next(one for one in view.panel_buttons.children if one.description == "Export").click()
    assert "Written: exports/hot_run.html" in view.panel.value
    assert (tmp_path / "exports" / "hot_run.html").stat().st_size > 1_000_000, "the plotting script is in it"
    (tmp_path / "exports" / "hot_run.html").unlink()
    (tmp_path / "exports").rmdir()
    (tmp_path / "exports").write_text("in the way")
    next(one for one in view.panel_buttons.children if one.description == "Export").click()
    assert "exports" in view.panel.value
    assert "Written" not in view.panel.value
    view.close()


def test_the_whole_workbench_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded_training(tmp_path / "runs" / "first")
    RecordedReplicas(tmp_path / "runs" / "hot", 3, fails={1: 300}).finish()
    view = Workbench("runs", viewer="still")
    view.watch("runs/hot")
    next(one for one in view.next.main.children if getattr(one, "description", "") == "Export").click()
    assert "Written: exports/workbench_hot.html" in view.next.panel.value
    view.refresh()
    assert "Written" in view.next.panel.value, "the next look leaves the answer there"
    text = (tmp_path / "exports" / "workbench_hot.html").read_text()
    body = text[text.rindex("</script></head>") :]
    for word in ("hot", "first", "1 of 3 failed", "FAILED", "<b>NEXT</b> Go to failure", "TRAY"):
        assert word in body, word
    assert "KERNEL" not in body
    assert body.count("<circle") >= 9
    assert len(figures(text)) >= 3, "curves, reasons, survival"
    assert not LOADS.search(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)), "nothing from elsewhere"
    view.next.toggle("code")
    assert "Written" not in view.next.panel.value
    view.close()


def test_the_page_draws_each_figure_on_show_as_svg_and_png(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RecordedReplicas(tmp_path / "many", 3, fails={1: 300}).finish()
    view = MDView(tmp_path / "many", viewer="still")
    told = []
    asked = page_pictures(view, "out/many", lambda files, silent: told.append((files, silent)))
    plots = [one for one in exporting._visible(view) if isinstance(one, Plot) and one.shown[0]]
    assert asked == len(plots) >= 3
    svg = {"type": "picture", "format": "svg", "data": "data:image/svg+xml,%3Csvg%20a%3D%22%C3%85%22%2F%3E"}
    png = {"type": "picture", "format": "png", "data": "data:image/png;base64,iVBORw0KGgo="}
    for plot in plots[:-1]:
        plot._message(None, svg, None)
        plot._message(None, svg, None)  # the same figure in a second window
        plot._message(None, png, None)
    assert told == []
    plots[-1]._message(None, svg, None)
    plots[-1]._message(None, {"type": "picture", "format": "png", "problem": "no canvas"}, None)
    ((files, silent),) = told
    assert silent == 1
    assert [path.name for path in files][:4] == ["many.svg", "many.png", "many-2.svg", "many-2.png"]
    assert files[0].read_text() == '<svg a="Å"/>'
    assert files[1].read_bytes() == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(RunError, match="no figure is on show"):
        page_pictures(MDView(), "out/none", lambda *_: None)
    view.close()


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    view = MDView(None, "still")
    for place in (tmp_path / "folder.html", tmp_path / "file" / "view.html"):
        with pytest.raises(RunError, match=f"{place.name}: cannot be written"):
            export(view, place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]
    view.close()
