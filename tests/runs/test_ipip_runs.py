"""Iterative pretraining as runs: specification, commands, the switch of pretraining, report, estimate, what applies."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import mlipkit as mk
from mlipkit.cli import app
from mlipkit.errors import DataError, LabelError, ModelError, RunError, SpecError
from mlipkit.runs import IPIPSpec, estimate, load_spec, parse_spec
from mlipkit.runs.applying_potential import model_of
from mlipkit.strategies.applies import Frames, Model, Room, Situation
from mlipkit.strategies.applies.pretraining import pretraining
from mlipkit.strategies.ipip import Instability, equal_steps, timeline

TOYS = """
from pathlib import Path

from mlipkit.data import FrameSet
from mlipkit.models import predict
from mlipkit.strategies.workflows.synthetic import box, reference, soft
from ase import Atoms


def teacher():
    return soft()


def frames():
    import numpy as np
    rng = np.random.default_rng(0)
    images = [Atoms([8, 1, 1], box(k, 1).positions + rng.normal(0, 0.08, (3, 3))) for k in range(30)]
    return predict(reference(), FrameSet.from_atoms(images))
"""
FIELDS = {
    "teacher": "toy.py:teacher", "data": "dft.extxyz", "n_train": 8,
    "split": {"validation": 6, "test": 8, "by": "random"},
    "model": {"features": 8, "layers": 1, "cutoff": 3.0, "n_radial": 6},
    "sampling": {"starts": 2, "steps": 40, "stride": 4, "friction": 0.02}, "loop": {"iterations": 1},
    "instability": {"window": 20, "every": 2},
    "pretraining": {"steps": 4, "batch_size": 4}, "finetuning": {"steps": 4, "batch_size": 4},
    "stability": {"runs": 2, "steps": 10, "stride": 5, "temperature": 300.0, "relax_steps": 0},
}  # fmt: skip


@pytest.fixture
def toy(work: Path) -> Path:
    (work / "toy.py").write_text(TOYS)
    space: dict = {}
    exec(TOYS, space)
    mk.write("dft.extxyz", space["frames"]())
    return work


def test_a_specification_is_yaml_code_and_options():
    spec = IPIPSpec(data="x.extxyz", arm="one_shot", seed=2)  # type: ignore[arg-type]
    assert parse_spec(spec.model_dump(mode="json")) == spec
    assert spec.default_name == "one_shot_2"
    namespace: dict = {"mk": mk}
    code = spec.code().replace("import mlipkit as mk\n\n", "").replace("mk.launch", "(lambda one: one)")
    exec(code.replace("run.wait()\n", ""), namespace)
    assert namespace["run"] == spec
    assert spec.settings.total_steps == 12000
    assert spec.plan.budget.steps == 12000


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pretrain": False, "arm": "one_shot"}, "contradicts"),
        ({"loop": {"new_share": 0.3}}, "no effect with pool 'replace'"),
        ({"sampling": {"relaxation_time": 5.0}}, "no effect with ensemble"),
        ({"finetuning": {"optimiser": {"patience": 3}}}, "end by their steps"),
        ({"sampling": {"steps": 10, "stride": 9}}, "two frames"),
        ({"model": {"seed": 1}}, "model.seed: has no effect"),
        ({"model": {"head": "pooled"}, "arm": "a2a"}, "no energies of atoms"),
        ({"loop": {"relabel": "off", "gate": "noise"}}, "gate has no effect with relabel 'off'"),
        ({"loop": {"md_of": "teacher", "relabel": "student_origin"}}, "no student makes a frame"),
        ({"loop": {"md_of": "teacher", "md_seeds": "fresh"}}, "md_seeds has no effect with md_of 'teacher'"),
        ({"pretraining": {"loss": {"energy": 1.0}}}, "pretraining.loss.energy: has no effect"),
        ({"pretraining": {"loss": {"energy_unit": "per_atom"}}}, "pretraining.loss.energy_unit: has no effect"),
        ({"pretraining": {"loss": {"stress": 1.0}}, "arm": "distillation"}, "pretraining.loss.stress: has no effect"),
        ({"pretraining": {"loss": {"forces": 0.0}}}, "nothing is learned"),
        ({"finetuning": {"loss": {"energy": 0.0, "forces": 0.0}}}, "finetuning.loss: every weight is 0"),
        ({"stability": {"steps": 50, "track": "O"}}, "stride: 100 is more than 50 steps"),
        ({"reaction": {"runs": 1, "steps": 10}}, "stride: 20 is more than 10 steps"),
        ({"instability": {"stretch": None, "stretch_fs": 5.0}}, "no effect without stretch"),
    ],
)
def test_what_cannot_be_is_refused(fields, said):
    with pytest.raises(SpecError, match=said):
        IPIPSpec(data="x", **fields)  # type: ignore[arg-type]


def test_what_was_said_is_heard():
    spec = IPIPSpec(data="x", pretraining={"loss": {"energy": 1.0, "forces": 0.0}}, arm="distillation")  # type: ignore[arg-type]
    assert parse_spec(spec.model_dump(mode="json")) == spec
    limits = {"closest": 0.5, "hot_fs": 20.0, "stretch_fs": 5.0, "skip": 0.1}
    heard = dataclasses.asdict(IPIPSpec(data="x", instability=limits).settings.instability)  # type: ignore[arg-type]
    assert {name: heard[name] for name in limits} == limits
    # What nobody says is what the strategy itself takes.
    assert IPIPSpec(data="x").settings.instability == Instability()


def test_what_cannot_work_is_refused_before_any_simulation(toy):
    from mlipkit.runs.building_ipip import tools_of

    with pytest.raises(ModelError, match="teacher: gives no features"):
        tools_of(IPIPSpec(**FIELDS, arm="n2n"), toy)  # type: ignore[arg-type]
    tuning = {**FIELDS["finetuning"], "loss": {"stress": 1.0}}
    with pytest.raises(LabelError, match="no training frame has the label 'stress', yet its weight is 1"):
        tools_of(IPIPSpec(**{**FIELDS, "finetuning": tuning}), toy)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"stability: track: no such atom in the data; expected H or O; found Mo"):
        tools_of(IPIPSpec(**{**FIELDS, "stability": {**FIELDS["stability"], "track": "Mo"}}), toy)  # type: ignore[arg-type]
    (toy / "toy.py").write_text("from ase.calculators.lj import LennardJones as teacher\n")
    for arm, said in (("n2n", "a calculator has no features"), ("a2a", "teacher: gives no energies of single atoms")):
        with pytest.raises(ModelError, match=said):
            tools_of(IPIPSpec(**FIELDS, arm=arm), toy)  # type: ignore[arg-type]
    (toy / "notes").mkdir()
    for place in ("runs/nothing", "notes"):
        with pytest.raises(SpecError, match=f"reuse: {place}: no such run"):
            mk.launch(IPIPSpec(**FIELDS, reuse=[place]))  # type: ignore[arg-type]


def test_no_pretrain_really_turns_energies_on(toy, monkeypatch):
    """The published trainer parses its flag with bool(), so that "False" is true and energies are never learned."""
    (toy / "it.yaml").write_text(IPIPSpec(**FIELDS).to_yaml())  # type: ignore[arg-type]
    told: dict[str, str] = {}
    runner = CliRunner()
    for flag in ("--pretrain", "--no-pretrain"):
        out = toy / f"{flag}.json"
        options = ["--teacher", "toy.py:teacher", "--loop-iterations", "0", "--sampling-steps", "40"]
        found = runner.invoke(app, ["ipip", "dft.extxyz", flag, "--dry-run", *options, "--json", str(out)])
        assert found.exit_code == 0, found.output
        told[flag] = json.loads(out.read_text())["what"]["plan"]["arm"]
    assert told == {"--pretrain": "ipip", "--no-pretrain": "scratch"}
    run = mk.launch(IPIPSpec(**{**FIELDS, "pretrain": False})).wait(300)  # type: ignore[arg-type]
    assert run.state == "completed", run.reason
    rows = timeline(run.folder)
    assert rows[0]["pretraining"] is None
    assert "energy_mae" in rows[0]["finetuning"]
    assert "loss_energy" in columns_of(run.folder, "finetune_0")


def columns_of(folder: Path, stage: str) -> list[str]:
    """Names of what a training of a stage writes down step by step."""
    path = next((folder / "stages").glob(f"*{stage}")) / "series" / "training" / "series.json"
    return json.loads(path.read_text())["columns"]


def test_without_their_weight_energies_are_not_learned(toy):
    from mlipkit.runs.building_ipip import tools_of
    from mlipkit.strategies.ipip import run_ipip

    for weight, learned in ((0.0, False), (4.0, True)):
        fields = {**FIELDS, "arm": "one_shot", "loop": {"iterations": 0}, "stability": {"runs": 0}}
        fields["finetuning"] = {**FIELDS["finetuning"], "loss": {"energy": weight}}
        spec = IPIPSpec(**fields)  # type: ignore[arg-type]
        assert run_ipip(spec.plan, toy / str(weight), tools_of(spec, toy)).state == "completed"
        assert ("loss_energy" in columns_of(toy / str(weight), "finetune_0")) == learned
        assert "loss_energy" not in columns_of(toy / str(weight), "pretrain_0")


def test_a_run_from_launch_to_report(toy):
    run = mk.launch(IPIPSpec(**FIELDS)).wait(300)  # type: ignore[arg-type]
    assert run.state == "completed", run.reason
    assert "zero-shot teacher" in run.reason
    rows = timeline(run.folder)
    assert [row["round"] for row in rows] == [0, 1]
    assert [row["stability"]["n"] for row in rows if row["stability"]] == [2]
    # What came of it is a potential like any other.
    assert not model_of(str(run.folder), toy).wrong
    md = mk.launch(mk.MDSpec(potential=str(run.folder), start="dft.extxyz@0", steps=3, temperature=100.0)).wait(120)
    assert md.state == "completed", md.reason
    page = run.report().read_text()
    assert "every frame is counted" in page
    assert page.index("zero-shot teacher;") < page.index("<h3>Iterations")
    assert "One arm alone is no verdict" in page
    other = mk.launch(IPIPSpec(**FIELDS, arm="one_shot", reuse=[str(run.folder)])).wait(300)  # type: ignore[arg-type]
    assert other.state == "completed", other.reason
    from mlipkit.strategies.ipip.comparing import compare

    assert compare([run, other]).sentence


def test_another_teacher_of_the_same_name_is_noticed(toy):
    from mlipkit.runs.building_ipip import tools_of
    from mlipkit.strategies.ipip import run_ipip
    from mlipkit.strategies.ipip.comparing import compare

    def tools(name: str = "toy.py:teacher"):
        return tools_of(IPIPSpec(**{**FIELDS, "teacher": name}), toy)  # type: ignore[arg-type]

    one = IPIPSpec(**{**FIELDS, "arm": "scratch", "stability": {"runs": 0}}).plan  # type: ignore[arg-type]
    assert run_ipip(one, toy / "a", tools()).state == "completed"
    (toy / "toy.py").write_text(TOYS.replace("return soft()", "return reference()"))
    with pytest.raises(RunError, match="other tools"):
        run_ipip(one, toy / "a", tools())
    assert run_ipip(one, toy / "b", tools()).state == "completed"
    with pytest.raises(RunError, match="found other teacher_content"):
        compare([toy / "a", toy / "b"])
    # A folder from before this was told goes on.
    record = json.loads((toy / "a" / "plan.json").read_text())
    assert record["tools"].pop("teacher_content")
    (toy / "a" / "plan.json").write_text(json.dumps(record))
    assert run_ipip(one, toy / "a", tools()).state == "completed"
    assert len(tools("universal:chgnet").words["teacher_content"].split()) == 2
    contents = set()
    for seed in (0, 1):
        mk.models.save(mk.models.Potential(mk.models.build_encoder("painn", seed=seed, features=8, layers=1),
                                           atomic_energies={1: 0.0, 8: 0.0}), toy / "own.safetensors")  # fmt: skip
        contents.add(tools("own.safetensors").words["teacher_content"])
    assert len(contents) == 2


@pytest.mark.parametrize("body", ["def teacher(weights):\n    return soft()\n", "def teacher():\n    return 1 / 0\n"])
def test_errors_of_a_factory_name_the_field(toy, body):
    from mlipkit.runs.building_ipip import teacher_of

    (toy / "toy.py").write_text(TOYS + body)
    with pytest.raises(SpecError, match=r"teacher: toy.py:teacher: the factory raises .* without arguments"):
        teacher_of(IPIPSpec(**FIELDS), toy)  # type: ignore[arg-type]


def test_labels_under_other_names_and_units_are_found(toy):
    import numpy as np

    from mlipkit.runs.building_ipip import tools_of

    frames = mk.read("dft.extxyz")
    kcal = 23.060548
    positions, forces = (np.asarray(one).reshape(-1, 3, 3) for one in (frames.positions, frames.forces))
    np.savez("kcal.npz", z=frames.numbers[:3], R=positions, E_dft=np.asarray(frames.energy) * kcal, F_dft=forces * kcal)
    fields = {**FIELDS, "data": "kcal.npz", "keys": {"energy": "E_dft", "forces": "F_dft"}}
    fields["units"] = {"energy": "kcal/mol"}
    spec = IPIPSpec(**fields)  # type: ignore[arg-type]
    assert parse_spec(spec.model_dump(mode="json")) == spec
    found, plain = tools_of(spec, toy), tools_of(IPIPSpec(**FIELDS), toy)  # type: ignore[arg-type]
    assert np.allclose(found.train.energy, plain.train.energy, rtol=1e-6)
    assert np.allclose(found.train.forces, plain.train.forces, rtol=1e-5, atol=1e-7)
    with pytest.raises(SpecError, match="keys"):
        IPIPSpec(**{**FIELDS, "keys": {"energies": "E"}})  # type: ignore[arg-type]
    mk.write("bare.extxyz", frames.without_labels().with_labels(energy=frames.energy))
    with pytest.raises(DataError, match=r"train: .*found of 8 frames 8 without forces.*keys"):
        tools_of(IPIPSpec(**{**FIELDS, "data": "bare.extxyz"}), toy)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", ["ipip_small.yaml", "ipip_paper.yaml"])
def test_recorded_plans_are_valid_and_give_every_arm_the_same_steps(plan, study_script, monkeypatch):
    monkeypatch.setenv("MLIPKIT_DATA", "data")
    ipip = study_script("ipip")
    for name in yaml.safe_load((ipip.HERE / plan).read_text())["studies"]:
        study = ipip.Study(plan, name)
        specs = {one: study.spec(*one) for one in study.arms_and_seeds()}
        assert equal_steps([spec.plan for spec in specs.values()])
        for (encoder, arm, _), spec in specs.items():
            if plan == "ipip_paper.yaml" and encoder == "visnet":
                assert (spec.pretraining.batch_size, spec.finetuning.loss.kind) == (4, "l2")
                assert spec.pretraining.loss.energy == (0.05 if arm == "distillation" else 4.0)


def test_an_estimate_counts_every_deed(toy):
    found = estimate(IPIPSpec(**FIELDS))  # type: ignore[arg-type]
    assert found.steps == 16
    assert found.seconds > 0
    assert found.disk_bytes > 0


def test_reading_a_specification_loads_no_torch(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(IPIPSpec(data="x").to_yaml())
    code = (
        f"import sys; from mlipkit.runs import load_spec; load_spec({str(path)!r}).plan; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert load_spec(path).kind == "ipip"


def test_what_it_says_of_a_situation():
    frames = Frames(place="x.xyz", n=60, n_atoms=9, most_atoms=9, elements=(1, 6, 8), energy=60, forces=60)
    teacher = Model(place="universal:so3lr", title="SO3LR", elements=(1, 6, 7, 8), universal=True)
    said = pretraining(Situation(frames, teacher, room=Room()))
    assert said.state == "ready"
    assert parse_spec(said.spec).kind == "ipip"  # type: ignore[arg-type]
    assert pretraining(Situation(frames, None, universals=("universal:so3lr",))).state == "needs"
    strange = Frames(place="x", n=60, n_atoms=9, most_atoms=9, elements=(1, 42), energy=60, forces=60)
    assert pretraining(Situation(strange, teacher)).state == "impossible"
    bare = Frames(place="x", n=60, n_atoms=9, most_atoms=9, elements=(1, 6))
    assert "labels" in pretraining(Situation(bare, teacher)).sentence
