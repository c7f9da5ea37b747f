"""The panel of `what_applies`: rows with icon and word, and forms that say what the answers say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ipywidgets as w
import pytest
from recorded import RecordedReplicas

from mlipkit.runs import parse_spec, what_applies
from mlipkit_widgets import AppliesPanel, applies_panel


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
    assert panel.answers is not None
    found, ready = texts(panel), len(panel.answers.of("ready"))
    assert panel.header.sentence == f"{ready} ready, {len(found) - ready} need something."
    assert len(found) == len(panel.answers) > ready >= 9
    assert all("✓ READY" in text for text in found[:ready])
    assert all("◔ NEEDS SOMETHING" in text for text in found[ready:])
    assert "time unknown" in found[0]
    assert list(buttons(panel))[:2] == ["Form: train", "Form: finetune"]
    assert {"Form: taip", "Form: naive"} <= set(buttons(panel))
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
    assert list(buttons(panel)) == ["Form: train", "Form: taip"], "new potentials"
    impossible = [text for text in texts(panel) if "✖ IMPOSSIBLE" in text]
    assert len(impossible) == 9
    assert all("does not know Pd" in text for text in impossible)
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


def test_predictions_of_a_simulation_are_no_labels(here: Path):
    replicas = RecordedReplicas(Path("runs/hot"), 3, {0: 500}, steps=1000)
    replicas.finish()
    found = what_applies("runs/hot", "sample:ethanol_50", measure=False)
    assert found["train"].state == found["finetune"].state == "needs"
    assert "label" in found["finetune"].sentence
    assert found["close_loop"].state == "ready"


def test_what_does_not_fit_in_the_time_follows(here: Path, monkeypatch):
    """The first answer comes in time; the second one, with time enough, takes its place."""
    asked = []
    whole = what_applies("sample:ethanol_600K", "sample:ethanol_50", measure=False)

    def answer(_frames, _potential, *, within: float, **_options):
        asked.append(within)
        return dataclasses.replace(whole, late=len(asked) == 1)

    held = []
    monkeypatch.setattr(applies_panel, "what_applies", answer)
    monkeypatch.setattr(applies_panel, "in_background", lambda work, done: held.append((work, done)))
    panel = AppliesPanel("sample:ethanol_600K", "sample:ethanol_50")
    work, done = held.pop()
    done(work(), None)
    assert asked == [applies_panel.WITHIN_S]
    assert panel.header.state == "computing"
    assert len(texts(panel)) == len(whole), "answered already"
    work, done = held.pop()
    done(work(), None)
    assert asked == [applies_panel.WITHIN_S, applies_panel.LONGER_S]
    assert panel.header.state == "ready"
    assert held == []
    panel.close()
