"""From a selection to labels and to a fine-tuned potential, the view of a labelling, the Launcher's further kinds."""

from __future__ import annotations

import json
from pathlib import Path

import made_up
import numpy as np
import pytest

from mlipkit.data import Tray
from mlipkit.runs import FinetuneSpec, LabelSpec, Run, WorkflowSpec
from mlipkit.runs.loop import trained_on
from mlipkit_widgets import LabelView, Launcher, TrainingMonitor, WorkflowView, launcher, tray_actions
from mlipkit_widgets.tray_pane import TrayPane


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, here: Path) -> list:
    """Stands in for `launch`: makes the folder of a run and starts nothing."""
    specs: list = []

    def launch(spec, root="runs", again=False) -> Run:
        specs.append(spec)
        folder = Path(root) / (spec.name or spec.default_name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.yaml").write_text(spec.to_yaml())
        return Run(folder)

    monkeypatch.setattr(tray_actions, "launch", launch)
    monkeypatch.setattr(launcher, "launch", launch)
    return specs


def pane(here: Path) -> TrayPane:
    data = made_up.ethanol(6)
    made = TrayPane(Tray(here / "selections" / "tray"), data, lambda _s: None, lambda _n, _a: None)
    made.tag.value = "far out"
    made.take(data.select(np.arange(3 * 9), {}, "three"))
    return made


def test_label_and_then_train_with_the_old_training_set(launched, here):
    tray = pane(here)
    after = tray.next
    assert after.label_button.description == "Label 3 frames"
    after.maker.value = "sample:ethanol_50"
    after.label()
    label = launched[0]
    assert label == LabelSpec(data="selections/far_out.extxyz", maker="sample:ethanol_50", name="label_far_out")
    assert (here / "selections" / "far_out.extxyz").is_file()
    assert isinstance(after.view_box.children[0], LabelView)
    after.potential.value = "sample:ethanol_50"
    after.train()
    tuning = launched[1]
    assert isinstance(tuning, FinetuneSpec)
    assert tuning.data == ["sample:ethanol_300K@::20", "runs/label_far_out"], (
        "what it learned from, then the new labels"
    )
    assert tuning.potential == "sample:ethanol_50"
    assert isinstance(after.view_box.children[0], TrainingMonitor)
    assert "labelling = mk.launch(mk.LabelSpec(" in after.code
    assert "tuning = mk.launch(mk.FinetuneSpec(" in after.code
    compile(after.code, "code", "exec")
    tray.next.close()


def test_the_fit_on_set_stands_for_training_frames_that_are_not_known(launched, here):
    after = pane(here).next
    after.maker.value = "sample:ethanol_50"
    after.label()
    after.potential.value = "universal:so3lr"
    after.train()
    assert launched[1].data == ["sample:ethanol_300K@:6", "runs/label_far_out"]
    after.close()


def test_the_old_set_is_what_the_potential_was_trained_on(launched, here):
    (here / "runs" / "mine").mkdir(parents=True)
    spec = FinetuneSpec(data=["a.xyz", "b.xyz"], potential="sample:ethanol_50")
    (here / "runs" / "mine" / "spec.yaml").write_text(spec.to_yaml())
    assert trained_on("runs/mine") == ["a.xyz", "b.xyz"]
    assert trained_on("sample:ethanol_50") == ["sample:ethanol_300K@::20"]
    assert trained_on("universal:so3lr") == []
    tray = pane(here)
    tray.next.potential.value = "runs/mine"
    tray.next.train()
    assert launched[0].data == ["a.xyz", "b.xyz", "selections/far_out.extxyz"], "selected frames that have labels"
    tray.next.close()


def test_a_wrong_maker_is_said_and_an_empty_tray_offers_nothing(launched, here):
    tray = pane(here)
    tray.next.maker.value = "gfn7-xtb"
    tray.next.label()
    assert "unknown label maker" in tray.next.text.value
    assert launched == []
    assert not tray.next.label_button.disabled
    tray.clear_button.click()
    assert tray.next.row.layout.display == "none"
    tray.next.close()


def test_view_of_a_labelling_names_failures_in_the_words_of_the_engine(here):
    folder = here / "runs" / "label"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(LabelSpec(data="a.xyz").to_yaml())
    view = LabelView(folder)
    assert "engine is being built" in view.summary.value
    lines = [{"format": "mlipkit-labels-1", "maker": {"name": "GFN1-xTB (tblite 0.8.0)"}}]
    cost = {"attempt": 1, "seconds": 4.0, "cpu_s": 4.0}
    lines += [
        {"index": 0, "uid": "aa", **cost, "seconds": 2.0, "energy": -1.0},
        {"index": 1, "uid": "bb", **cost, "failed": "SCF <250> did not end"},
        {"index": 2, "uid": "cc", **cost, "failed": "SCF <300> did not end"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    # The last line is being written: it does not count yet.
    (folder / "labels.jsonl").write_text(text + '{"index": 3, "uid": "dd"')
    view.refresh()
    assert "<b>1</b> of 3 frames labelled" in view.summary.value
    assert "2 failed" in view.summary.value
    assert "10 s of GFN1-xTB" in view.summary.value
    assert "3.33 s per frame" in view.summary.value
    assert "SCF &lt;250&gt; did not end (2)" in view.failures.value
    assert "<td>cc</td>" in view.failures.value
    with open(folder / "labels.jsonl", "a") as file:
        file.write(', "attempt": 1, "seconds": 1.0, "cpu_s": 1.0, "energy": 0.0}\n')
        again = {name: value for name, value in lines[2].items() if name != "failed"}
        file.write(json.dumps({**again, "attempt": 2, "energy": 1.0}) + "\n")
    view.refresh()
    assert "<b>3</b> of 4 frames labelled" in view.summary.value, "a second attempt counts instead of the first"
    view.close()


STARTED = {
    "label": (LabelSpec, LabelView), "finetune": (FinetuneSpec, TrainingMonitor),
    "workflow": (WorkflowSpec, WorkflowView),
}  # fmt: skip


@pytest.mark.parametrize("kind", STARTED)
def test_the_launcher_starts_labels_fine_tuning_and_workflows(launched, here, kind):
    cls, view = STARTED[kind]
    made = Launcher(kind, automatic=False)
    assert made.problem.value == ""
    assert type(made.spec) is cls
    shown = list(made.form.essential.children)
    assert len(shown) == len(launcher.FIRST[kind])
    labels = [child.children[0].value for child in shown]
    assert len(set(labels)) == len(labels), "two fields of one name"
    for path, value in launcher.START[kind].items():
        assert made.form.fields[path].box in shown, f"{path} is set to {value} out of sight"
    compile(made.spec.code(), "code", "exec")
    made._launch(made.spec, again=False)
    assert isinstance(made.view, view)
    assert made.view.refresh() in ("queued", "lost")
    assert launched == [made.spec]
    made.close()


def test_kinds_can_be_switched_and_say_what_is_measured(here):
    made = Launcher("md", automatic=False)
    hints = {}
    for kind in launcher.WORDS:
        made.kinds.value = kind
        hints[kind] = made.estimate_text.value
    assert "real steps are measured" in hints["md"]
    assert "One real frame is measured" in hints["label"]
    assert "One unit of each step is measured" in hints["workflow"]
    made.close()
