"""The panel of `what_applies`: rows with icon and word, and forms that say what the answers say."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as w
import pytest

from mlipkit.runs import parse_spec
from mlipkit_widgets import AppliesPanel


def texts(panel: AppliesPanel) -> list[str]:
    return [row.children[0].value for row in panel.rows.children]


def buttons(panel: AppliesPanel) -> dict[str, w.Button]:
    return {made.description: made for row in panel.rows.children for made in row.children[1:]}


def test_empty_then_answers_in_the_order_of_their_state(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = AppliesPanel(measure=False)
    assert panel.header.state == "empty"
    assert not panel.rows.children
    panel.ask("sample:ethanol_600K", "universal:so3lr")
    assert panel.header.sentence == "8 ready, 2 need something."
    found = texts(panel)
    assert len(found) == 10
    assert all("✓ READY" in text for text in found[:8])
    assert "◔ NEEDS SOMETHING" in found[8]
    assert "time unknown" in found[0]
    assert list(buttons(panel))[:3] == ["Form: train", "Form: finetune", "Form: naive"]
    panel.close()


def test_every_form_says_what_its_answer_says(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = AppliesPanel("sample:ice_ih", "universal:sevennet-0", measure=False)
    assert panel.answers is not None
    for answer in panel.answers:
        assert answer.spec is not None
        panel.open_form(answer)
        assert panel.launcher is not None
        assert panel.launcher.spec == parse_spec(answer.spec)
    panel.close()


def test_a_button_opens_below_or_calls_back(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = AppliesPanel("sample:ethanol_600K", "sample:ethanol_50", measure=False)
    buttons(panel)["Form: finetune"].click()
    assert panel.launcher is not None
    assert panel.launcher.kind == "finetune"
    opened = []
    panel.on_open(opened.append)
    buttons(panel)["Form: naive"].click()
    assert panel.launcher.kind == "finetune"
    assert opened[0].arm == "naive"
    assert opened[0].start.place == "sample:ethanol_600K"
    panel.close()


def test_impossible_has_no_button_and_an_error_is_one_line(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = AppliesPanel("sample:h2_pd6_nve", "sample:ethanol_50", measure=False)
    assert list(buttons(panel)) == ["Form: train"]
    assert "✖ IMPOSSIBLE" in texts(panel)[1]
    assert "does not know Pd" in texts(panel)[1]
    panel.ask("nowhere.xyz")
    assert 'role="alert"' in panel.problem.value
    assert "nowhere.xyz" in panel.problem.value
    panel.ask("sample:ethanol_300K")
    assert panel.problem.value == ""
    panel.close()


def test_the_parts_are_gone_with_the_panel(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(w.widget._instances)
    panel = AppliesPanel("sample:ethanol_600K", "sample:ethanol_50", measure=False)
    panel.ask("sample:ethanol_600K", "sample:ethanol_50")
    panel.open_form("finetune")
    panel.open_form("train")
    panel.close()
    left = [w.widget._instances[key] for key in set(w.widget._instances) - before]
    assert not left, left
    with pytest.raises(KeyError):
        panel.answers["no such strategy"]  # type: ignore[index]
