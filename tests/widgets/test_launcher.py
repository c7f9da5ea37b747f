"""The Launcher without a browser: form, checks, code, estimate, start."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as w
import pytest
import yaml

from mlipkit.errors import RunError
from mlipkit.runs import Estimate, MDSpec, TrainSpec, parse_spec
from mlipkit.runs.estimating import NotMeasured
from mlipkit_widgets import Launcher, MDView
from mlipkit_widgets.form import Form, _walk
from mlipkit_widgets.form_words import FIELDS

FACTORY = "def make():\n    from ase.calculators.emt import EMT\n\n    return EMT()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIPKIT_QUEUE", str(tmp_path / "queue"))
    (tmp_path / "calc.py").write_text(FACTORY)
    return tmp_path


@pytest.mark.parametrize("cls", [MDSpec, TrainSpec])
def test_form_covers_every_field_and_gives_the_defaults(cls: type) -> None:
    needed = {"data": "sample:ethanol_300K"} if cls is TrainSpec else {}
    form = Form(cls, [], start=needed)
    assert set(form.fields) == {path for path, _ in _walk(cls)}
    assert form.spec() == cls(**needed)
    for field in form.fields.values():
        assert field.input.tooltip


def test_values_come_back_as_typed(here: Path) -> None:
    form = Form(TrainSpec, [], start={"data": "a.xyz"})
    form.set("model.features", 32)
    form.set("optimiser.learning_rate", "5e-4")
    form.set("keys", "{forces: dft_forces}")
    form.set("data", "[a.xyz, b.xyz]")
    form.set("loss.kind", "huber")
    spec = form.spec()
    assert spec.model.features == 32
    assert spec.optimiser.learning_rate == 5e-4
    assert spec.keys == {"forces": "dft_forces"}
    assert spec.data == ["a.xyz", "b.xyz"]
    assert spec.loss.kind == "huber"


def test_units_stand_beside_the_numbers() -> None:
    form = Form(MDSpec, ["temperature", "timestep", "time_ps"])
    labels = [field.children[0].value for field in form.essential.children]
    assert labels == ["temperature (K)", "timestep (fs)", "time (ps)"]


def test_fields_of_a_part_stand_together_under_its_name() -> None:
    form = Form(MDSpec, ["temperature"])
    labels = [getattr(child, "value", None) or child.children[0].value for child in form.more.children]
    # "then" or "most" alone would say nothing.
    assert labels[labels.index("outside") :] == [
        "outside", "fit on", "then", "factor", "every", "components", "most", "apart (fs)"
    ]  # fmt: skip
    assert "checkpoint every" in labels


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_have_names_in_words_and_tell_those_in_code(kind: str) -> None:
    launcher = Launcher(kind, automatic=False)
    fields = launcher.form.fields
    assert set(FIELDS[kind]) <= set(fields), "every word belongs to a field"
    for path, words in FIELDS[kind].items():
        label = fields[path].box.children[0]
        unit = (fields[path].info.json_schema_extra or {}).get("unit")
        assert label.value == (f"{words} ({unit})" if unit else words)
        assert label.tooltip.endswith(f"in code: {path}")
    if kind == "workflow":
        said = {field.box.children[0].value for field in fields.values()}
        assert not said & {"hot (K)", "chains", "run by run", "fmax (eV/Å)", "sizes", "rattle (Å)", "base"}
        assert len(said) > 0.9 * len(fields), "hardly two fields of one name"
    launcher.close()


def test_iterative_pretraining_asks_for_little_at_first(here: Path) -> None:
    launcher = Launcher("ipip", automatic=False)
    asked = [field.children[0].value for field in launcher.form.essential.children]
    assert asked == ["universal teacher", "labelled frames", "of these to train on", "iterations", "method", "name"]
    spec = launcher.spec
    assert (spec.kind, spec.n_train, spec.split.validation) == ("ipip", 40, 10)
    # It is somebody's first click: a hundredth of the published MD.
    assert spec.sampling.starts * spec.sampling.steps <= 100 * 50_000 // 100
    launcher.form.fields["arm"].input.value = "scratch"
    assert launcher.spec.plan.budget.steps == spec.plan.budget.steps
    # A teacher that was fine-tuned first is a run.
    for name, weights in (("teacher_0", "chosen"), ("tuned", "best"), ("begun", "last")):
        folder = launcher.root / name / "checkpoints"
        folder.mkdir(parents=True)
        (folder / f"{weights}.safetensors").touch()
        (folder.parent / "spec.yaml").touch()
    offered = {Path(place).name for place in launcher._suggestions()["teacher"]}
    assert {"teacher_0", "tuned"} <= offered
    assert "begun" not in offered
    launcher.close()


def test_a_wrong_value_is_named_and_stops_the_start(here: Path) -> None:
    launcher = Launcher("md", automatic=False)
    launcher.form.fields["temperature"].input.value = "warm"
    assert "temperature" in launcher.problem.value
    assert launcher.start_button.disabled
    assert "mk-wrong" in launcher.form.fields["temperature"].box._dom_classes
    launcher.start()
    assert launcher.run is None
    launcher.form.fields["temperature"].input.value = "450"
    assert launcher.problem.value == ""
    assert not launcher.start_button.disabled
    assert launcher.spec.temperature == 450
    launcher.close()


def test_code_and_yaml_say_the_same_as_the_form(here: Path) -> None:
    import mlipkit as mk

    launcher = Launcher("md", automatic=False, potential="calc.py:make", temperature=450, steps=40)
    buttons = {child.description: child for child in launcher.buttons.children}
    buttons["YAML"].click()
    text = launcher.panel.value.split(">", 1)[1].rsplit("<", 1)[0]
    assert parse_spec(yaml.safe_load(text.replace("&#x27;", "'"))) == launcher.spec
    buttons["Code"].click()
    code = launcher.spec.code()
    assert "temperature=450" in code
    expression = code.split("mk.launch(", 1)[1].rsplit(")\nrun.wait", 1)[0]
    assert eval(expression, {"mk": mk}) == launcher.spec
    launcher.close()


def test_switching_to_training_and_more_settings(here: Path) -> None:
    launcher = Launcher("md", automatic=False)
    launcher.kinds.value = "train"
    assert isinstance(launcher.spec, TrainSpec)
    assert launcher.form.more.layout.display == "none"
    launcher.more_button.click()
    assert launcher.form.more.layout.display is None
    before = len(w.widget._instances)
    for kind in ("md", "train") * 3:
        launcher.kinds.value = kind
    assert len(w.widget._instances) == before, "forms that were left behind"
    launcher.close()


@pytest.mark.full
def test_estimate_is_measured_and_start_opens_a_view(here: Path) -> None:
    launcher = Launcher("md", automatic=False, potential="calc.py:make", steps=200, name="short")
    launcher.estimate_button.click()
    assert "steps of" in launcher.estimate_text.value
    assert "memory" in launcher.estimate_text.value
    told = []
    launcher.on_start(told.append)
    launcher.start_button.click()
    assert launcher.run is not None
    assert told == [launcher.run]
    assert isinstance(launcher.view, MDView)
    launcher.run.wait(60)
    assert launcher.run.state in ("completed", "failed")
    assert launcher.view.refresh() == launcher.run.state
    launcher.start_button.click()
    assert "already" in launcher.header.sentence
    launcher.again_button.click()
    assert launcher.run.name == "short-2"
    launcher.run.wait(60)
    launcher.close()


class Estimates:
    """Stands in for `mlipkit.runs.estimate`: what it was asked, and what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Estimate | Exception) -> None:
        self.asked: list[object] = []
        self.answer = answer
        monkeypatch.setattr("mlipkit.runs.estimate", self)

    def __call__(self, spec: object, **_options: object) -> Estimate:
        self.asked.append(spec)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


COST = Estimate(12.0, 300_000_000, 2_000_000, 50, 0.2, 2.0)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was launched; no process is started."""
    told: list[object] = []
    monkeypatch.setattr("mlipkit.runs.launching.start", lambda run, _executor: told.append(run.spec) or run)
    return told


def test_every_start_is_measured_first(here: Path, monkeypatch: pytest.MonkeyPatch, launched: list[object]) -> None:
    estimates = Estimates(monkeypatch, COST)
    launcher = Launcher("md", automatic=False, potential="calc.py:make", steps=50, name="short")
    assert estimates.asked == [], "a form that only appears measures nothing"
    launcher.start_button.click()
    assert estimates.asked == launched == [launcher.spec]
    assert (
        launcher.estimate_text.value
        == "About 12 s (50 steps of 200 ms), 300 MB memory, 2 MB disk, as first steps measured"
    )
    launcher.start_button.click()  # re-opens
    launcher.again_button.click()  # the same once more: known
    assert len(estimates.asked) == 1
    assert [run.parent.name for run in sorted(here.glob("runs/*/spec.yaml"))] == ["short", "short-2"]
    launcher.form.fields["temperature"].input.value = "400"
    assert "measured" in launcher.estimate_text.value
    assert "as first steps" not in launcher.estimate_text.value
    launcher.start_button.click()
    assert [spec.temperature for spec in estimates.asked] == [300, 400]
    assert len(launched) == 3
    launcher.close()


def test_a_run_that_is_there_is_not_measured(
    here: Path, monkeypatch: pytest.MonkeyPatch, launched: list[object]
) -> None:
    import mlipkit as mk

    estimates = Estimates(monkeypatch, COST)
    mk.launch(MDSpec(potential="calc.py:make", steps=50))
    launcher = Launcher("md", automatic=False, potential="calc.py:make", steps=50)
    launcher.start_button.click()
    assert estimates.asked == []
    assert len(launched) == 1
    assert "there already" in launcher.header.sentence
    launcher.close()


def test_what_breaks_the_first_steps_is_not_started(
    here: Path, monkeypatch: pytest.MonkeyPatch, launched: list[object]
) -> None:
    estimates = Estimates(monkeypatch, RunError("element 79 is unknown", where="estimate"))
    launcher = Launcher("md", automatic=False, potential="calc.py:make", steps=50)
    launcher.start_button.click()
    assert launched == []
    assert "element 79" in launcher.problem.value
    assert "Not started" in launcher.header.sentence
    assert launcher.start_button.description == "▶ Start"
    estimates.answer = COST  # the file was repaired: the same click now works
    launcher.start_button.click()
    assert len(launched) == 1
    assert launcher.problem.value == ""
    launcher.close()


@pytest.mark.parametrize("error", [NotMeasured("the first steps took more than 600 s"), OSError("no space left")])
def test_what_only_cannot_be_measured_is_started(
    here: Path, monkeypatch: pytest.MonkeyPatch, launched: list[object], error: Exception
) -> None:
    Estimates(monkeypatch, error)
    launcher = Launcher("md", automatic=False, potential="calc.py:make", steps=50)
    launcher.start_button.click()
    assert len(launched) == 1
    assert str(error) in launcher.estimate_text.value
    assert "Started without one" in launcher.estimate_text.value
    launcher.close()


def test_start_is_taken_back_while_measuring(
    here: Path, monkeypatch: pytest.MonkeyPatch, launched: list[object]
) -> None:
    Estimates(monkeypatch, COST)
    waiting = []
    monkeypatch.setattr("mlipkit_widgets.measuring.in_background", lambda work, done: waiting.append((work, done)))
    launcher = Launcher("md", automatic=False, potential="calc.py:make", steps=50)

    def press() -> None:
        launcher.start_button.click()
        assert launcher.header.sentence == "Measuring three steps before the start …"
        assert launcher.start_button.description == "✖ Cancel"

    def answer() -> None:
        work, done = waiting.pop()
        done(work(), None)

    press()
    launcher.start_button.click()
    assert launcher.header.sentence == "Not started."
    answer()  # comes too late
    assert launched == []
    assert "as first steps" not in launcher.estimate_text.value
    press()
    launcher.form.fields["temperature"].input.value = "400"
    assert "not started" in launcher.header.sentence
    answer()
    assert launched == []
    press()
    answer()
    assert [spec.temperature for spec in launched] == [400]
    assert launcher.start_button.description == "▶ Start"
    launcher.close()


def test_potentials_that_can_be_computed_here_are_suggested(here: Path, monkeypatch) -> None:
    from mlipkit.runs import places

    monkeypatch.setattr(places, "_is_installed", lambda package: package != "sevenn")
    launcher = Launcher("md", automatic=False)
    shown = launcher._suggestions()["potential"]
    assert {"universal:so3lr", "universal:chgnet", "sample:ethanol_1000"} <= set(shown)
    assert not {"universal:sevennet-0", "universal:mace"} & set(shown)
    launcher.close()


def test_no_such_file_is_said_in_the_form(here: Path) -> None:
    launcher = Launcher("md", automatic=False, potential="missing.safetensors")
    launcher.start_button.click()
    assert launcher.run is None
    assert "missing.safetensors" in launcher.problem.value
    launcher.close()


def test_under_a_hub_the_form_says_what_may_happen(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    assert Launcher("md").hub_note.layout.display == "none"
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    launcher = Launcher("md")
    assert launcher.hub_note.layout.display is None
    assert "may end with it" in launcher.hub_note.value


def test_the_form_of_an_evaluation_of_adaptation_says_what_cannot_be_otherwise(here: Path) -> None:
    from mlipkit.runs import TaipSpec

    launcher = Launcher("taip", automatic=False)
    assert isinstance(launcher.spec, TaipSpec)
    assert launcher.spec.taip.enabled
    offered = [*launcher.form.essential.children, *launcher.form.more.children]
    assert launcher.form.fields["taip.enabled"].box not in offered
    launcher.form.fields["taip.levels"].input.value = "12"
    launcher.form.fields["adaptation.rates"].input.value = "1e-6, 1e-4"
    assert launcher.problem.value == ""
    assert (launcher.spec.taip.levels, launcher.spec.adaptation.rates) == (12, [1e-6, 1e-4])
    assert parse_spec(yaml.safe_load(launcher.spec.to_yaml())) == launcher.spec
    launcher.close()


def test_tasks_and_adaptation_wait_behind_more_settings_under_a_heading(here: Path) -> None:
    for kind, heading, path in (
        ("train", "self-supervised tasks (TAIP)", "taip.enabled"),
        ("md", "test-time adaptation (TAIP)", "adaptation.strategy"),
    ):
        launcher = Launcher(kind, automatic=False)
        boxes = list(launcher.form.more.children)
        headings = [child.value for child in boxes if isinstance(child, w.Label)]
        assert heading in headings
        assert launcher.form.fields[path].box in boxes
        launcher.close()
    launcher = Launcher("md", automatic=False)
    launcher.form.fields["adaptation.rate"].input.value = "1e-4"
    assert "has no effect" in launcher.problem.value
    launcher.form.fields["adaptation.strategy"].input.value = "nonsaving"
    assert (launcher.problem.value, launcher.spec.adaptation.rate) == ("", 1e-4)
    launcher.close()
