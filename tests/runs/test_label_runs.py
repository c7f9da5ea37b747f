"""Labelling as a run: specification, estimate, parts, failures, resuming, its output as input, command, report."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

import mlipkit as mk
from mlipkit.cli import main
from mlipkit.data import FrameSet, samples
from mlipkit.errors import MissingPackageError, RunError, SpecError
from mlipkit.events import Message
from mlipkit.labelling import Recipe
from mlipkit.runs import LabelSpec, RelaxSpec, estimate, gather_parts, label_in_parts, parse_spec
from mlipkit.runs.building_data import read_frames
from mlipkit.runs.building_label import recipe_for
from mlipkit.runs.options import spec_from_options

BAD = """
import os, signal, time
from ase.calculators.emt import EMT

class Moody(EMT):
    def calculate(self, atoms, *args, **kwargs):
        time.sleep(0.05)
        super().calculate(atoms, *args, **kwargs)
        mood = atoms.get_chemical_symbols()[0]
        if mood == "Ag":
            os.kill(os.getpid(), signal.SIGSEGV)
        if mood == "Au":
            self.results["energy"] = self.results["free_energy"] = float("nan")

def moody():
    return Moody()

def potential():
    from mlipkit.models import load
    return load("sample:ethanol_50")

def maker():
    from mlipkit.labelling import XTBLabels
    return XTBLabels("gfn2-xtb")
"""


@pytest.fixture
def moods(work: Path) -> Path:
    """Six copper clusters in bad.xyz, of which the third kills the engine and the fifth gives no number."""
    from ase.cluster import Octahedron
    from ase.io import write

    (work / "bad.py").write_text(BAD)
    rng, images = np.random.default_rng(0), []
    for k in range(6):
        atoms = Octahedron("Cu", 2, 0)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.numbers[0] = {2: 47, 4: 79}.get(k, 29)
        images.append(atoms)
    write(work / "bad.xyz", images)
    return work / "bad.xyz"


def test_a_specification_is_plain_and_comes_back():
    spec = LabelSpec(data=["a.xyz", "b.xyz@:3"], maker="gfn2-xtb", options={"charge": 1}, threads=4, processes=2)
    assert parse_spec(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    wanted = "threads=4, data=['a.xyz', 'b.xyz@:3'], maker='gfn2-xtb', options={'charge': 1}, processes=2"
    assert f"mk.launch(mk.LabelSpec({wanted}))" in spec.code()
    assert [place for _, place in spec.places()] == ["a.xyz", "b.xyz@:3"]
    assert list(LabelSpec(data="a", maker="recorded:b.xyz").places()) == [("data", "a"), ("recorded", "b.xyz")]
    assert list(LabelSpec(data="a", maker="universal:so3lr").places())[1] == ("maker", "universal:so3lr")
    assert list(LabelSpec(data="a", maker="calc.py:emt").places())[1] == ("maker", "calc.py:emt")
    assert (spec.n_processes, LabelSpec(data="a", threads=3).n_processes) == (2, 3)
    assert LabelSpec(data="a", maker="universal:so3lr").default_name == "label_potential"
    assert spec_from_options(LabelSpec, {"data": ["a"], "options": "functional=hf,basis=sto-3g", "maker": "pyscf"}) == (
        LabelSpec(data="a", maker="pyscf", options={"functional": "hf", "basis": "sto-3g"})
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"maker": "gfn1"}, r"unknown label maker 'gfn1', did you mean 'gfn1-xtb'\?.*a folder here is ./gfn1"),
        ({"options": {"chrage": 1}}, r"gfn1-xtb has no 'chrage', did you mean 'charge'"),
        ({"options": {"method": "gfn2-xtb"}}, "gfn1-xtb has no 'method'"),
        ({"options": {"x": 1}, "maker": "calc.py:emt"}, "calc.py:emt has no 'x'"),
        ({"dtype": "float32"}, "dtype has no effect with maker 'gfn1-xtb', only with a potential"),
        ({"processes": 2}, "2 need as many threads at least, found 1"),
        ({"part": "3/2"}, "'3/2' is no part"),
        ({"part": "0/2"}, "'0/2' is no part"),
        ({"maker": "recorded:"}, "recorded:FILE names the frames"),
    ],
)
def test_wrong_wishes_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        LabelSpec(data="a.xyz", **fields)


@pytest.mark.parametrize("n", [0, 1, 3, 10, 11])
@pytest.mark.parametrize("of", [1, 3, 4])
def test_parts_hold_every_frame_once(n: int, of: int):
    rows = [list(range(n))[LabelSpec(data="a", part=f"{k}/{of}").slice(n)] for k in range(1, of + 1)]
    assert [row for part in rows for row in part] == list(range(n))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_what_cannot_be_there_is_said_at_launch(work: Path, monkeypatch):
    for fields, message in (
        ({"data": "none.xyz"}, "data: none.xyz: no such file"),
        ({"maker": "none.safetensors"}, "maker: none.safetensors: no such file"),
        ({"maker": "recorded:none.xyz"}, "recorded: none.xyz: no such file"),
        ({"maker": "calc.py:emtt"}, r"maker: calc.py:emtt: calc.py has no function 'emtt'. did you mean 'emt'"),
        ({"maker": "universal:so3l"}, "maker: universal:so3l: unknown universal potential"),
        ({"maker": "recorded:universal:so3lr"}, "a potential, where frames are wanted"),
    ):
        with pytest.raises(SpecError, match=message):
            mk.launch(LabelSpec(**{"data": "sample:ethanol_300K@:2", **fields}))
    monkeypatch.setattr("mlipkit.runs.places._is_installed", lambda package: False)
    with pytest.raises(MissingPackageError, match=r'maker: pyscf: needs the package.*pip install "mlipkit\[pyscf\]"'):
        mk.launch(LabelSpec(data="sample:ethanol_300K@:2", maker="pyscf"))
    assert not (work / "runs").exists()


def test_makers_of_a_run(work: Path, moods: Path):
    from mlipkit.labelling import build
    from mlipkit.runs.building_label import maker_of_factory

    frames = read_frames("bad.xyz", work)
    mk.write(work / "recorded.xyz", frames.with_labels(energy=np.arange(6.0), forces=np.zeros((6 * 6, 3))))
    recorded = recipe_for(LabelSpec(data="bad.xyz", maker="recorded:recorded.xyz@:4", options={"tolerance": 0.1}), work)
    assert recorded == Recipe("recorded", {"frames": f"{work / 'recorded.xyz'}@:4", "tolerance": 0.1})
    assert len(build(recorded).frames) == 4  # type: ignore[attr-defined]
    potential = recipe_for(LabelSpec(data="bad.xyz", maker="sample:ethanol_50", device="cpu"), work)
    assert potential.options == {"potential": "sample:ethanol_50", "device": "cpu", "dtype": "float64"}
    assert recipe_for(LabelSpec(data="a", maker="gfn1-xtb", options={"charge": 2}), work).options["charge"] == 2
    for name, wanted in (
        ("moody", "bad.py:moody"),
        ("potential", "potential Potential"),
        ("maker", "GFN2-xTB (tblite"),
    ):
        assert maker_of_factory(f"bad.py:{name}", str(work)).name.startswith(wanted)
    with pytest.raises(SpecError, match=r"gives nothing that labels; expected an ASE calculator.*found int"):
        maker_of_factory("calc.py:nothing", str(work))


@pytest.mark.full
def test_a_run_labels_says_what_failed_and_is_data_for_others(work: Path, moods: Path):
    run = mk.launch(LabelSpec(data="bad.xyz", maker="bad.py:moody", threads=2, timeout_s=60)).wait(90)
    assert run.state == "completed", run.reason
    assert run.name == "label_calculator"
    assert run.reason.startswith("4 of 6 frames labelled, 2 failed: ")
    assert "the engine died of SIGSEGV (1)" in run.reason
    assert "nonsense: energy is nan (1)" in run.reason
    facts = run.facts()
    assert (facts["asked"], facts["labelled"], facts["failed_frames"]) == (6, 4, 2)
    assert facts["engine_s"] >= 6 * 0.05
    assert any(isinstance(event, Message) and event.level == "warning" for event in run.events())
    frames = read_frames(str(run.folder), work)
    given = read_frames("bad.xyz", work, allow_partial=True)
    np.testing.assert_array_equal(frames.uids, given.uids[[0, 1, 3, 5]])
    for atoms in frames:
        bare = atoms.copy()
        bare.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(bare.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), bare.get_forces(), atol=1e-12)
    assert len(read_frames(f"{run.folder}@-1", work)) == 1
    relaxed = mk.launch(RelaxSpec(potential="calc.py:emt", start=f"{run.folder}@1", fmax=0.5)).wait(60)
    assert relaxed.state == "completed", relaxed.reason
    # The same again starts nothing; frames that failed are asked for on request.
    assert mk.launch(LabelSpec(data="bad.xyz", maker="bad.py:moody", threads=2, timeout_s=60)) == run
    (work / "bad.py").write_text(BAD.replace('"Ag"', '"Xx"'))
    run.change(retry_failed=True)
    assert run.resume().wait(60).reason.startswith("5 of 6 frames labelled, 1 failed: ")
    page = run.report().read_text()
    for text in (
        "Frames without labels",
        "nonsense: energy is nan",
        "bad.py:moody",
        "Labelled frames",
        "5 frames of 6 atoms",
    ):
        assert text in page, text


def test_all_failed_is_a_failure(work: Path, moods: Path):
    run = mk.launch(LabelSpec(data="bad.xyz@4", maker="bad.py:moody")).wait(60)
    assert (run.state, run.reason.partition(";")[0]) == (
        "failed", "0 of 1 frame labelled, 1 failed: nonsense: energy is nan (1)",
    )  # fmt: skip
    with pytest.raises(RunError, match="has stored no frame"):
        read_frames(str(run.folder), work)


@pytest.mark.full
def test_kill_9_stop_and_resume(work: Path, moods: Path):
    spec = LabelSpec(data=["bad.xyz@0", "bad.xyz@1", *["sample:ethanol_300K@:40"]], maker="bad.py:moody")
    run = mk.launch(spec)
    end = time.monotonic() + 60
    while time.monotonic() < end and (run.progress is None or run.progress.done < 5):
        time.sleep(0.02)
    os.kill(run.files.read("pid.json")["pid"], signal.SIGKILL)
    end = time.monotonic() + 20
    while run.state != "lost" and time.monotonic() < end:
        time.sleep(0.05)
    kept = (run.folder / "labels.jsonl").read_bytes().count(b"\n") - 1
    assert 5 <= kept < 42
    run.resume()
    time.sleep(1.0)
    run.stop()
    run.wait(60)
    assert run.state in ("stopped", "completed")
    run.resume().wait(60)
    assert run.state == "completed", run.reason
    assert run.facts()["labelled"] == 42
    lines = (run.folder / "labels.jsonl").read_text().splitlines()[1:]
    assert len({json.loads(line)["uid"] for line in lines}) == len(lines) == 42


@pytest.mark.full
def test_parts_on_this_machine_are_one_data_set(work: Path):
    spec = LabelSpec(data="sample:ethanol_300K@45:55", maker="gfn1-xtb", name="many")
    runs = label_in_parts(spec, 3)
    assert [run.name for run in runs] == ["many_1of3", "many_2of3", "many_3of3"]
    for run in runs:
        run.wait(90)
    whole = gather_parts(runs[::-1])
    given = samples.load("ethanol_300K")[45:55]
    for name in ("uids", "trajectory", "time", "positions"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(given, name))
    assert whole.has("forces").all()
    assert label_in_parts(spec, 3) == runs
    assert len(read_frames([str(run.folder) for run in runs], work)) == 10
    with pytest.raises(SpecError, match="part: is a part already"):
        label_in_parts(spec.changed(part="1/2"), 2)


@pytest.mark.full
def test_a_part_that_is_not_done_is_named(work: Path, moods: Path):
    runs = label_in_parts(LabelSpec(data="bad.xyz@:2", maker="calc.py:nothing", name="p"), 2)
    for run in runs:
        run.wait(60)
    with pytest.raises(RunError, match=r"p_1of2: this part is crashed; found the engine cannot be built.*Resume it"):
        gather_parts(runs)


def test_more_parts_than_frames(work: Path, moods: Path):
    runs = label_in_parts(LabelSpec(data="bad.xyz@0", maker="calc.py:emt", name="p"), 2)
    assert [run.wait(60).state for run in runs] == ["completed", "completed"]
    assert runs[0].reason == "part 1/2 holds no frame"
    assert len(gather_parts(runs)) == 1
    with pytest.raises(RunError, match="no part has labelled a frame"):
        gather_parts(runs[:1])


@pytest.mark.full
def test_parts_on_a_dask_cluster(work: Path, moods: Path):
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    from mlipkit.runs import DaskExecutor

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        spec = LabelSpec(data="bad.xyz", maker="bad.py:moody", name="far")
        runs = [run.wait(120) for run in label_in_parts(spec, 2, executor=DaskExecutor(client))]
        assert [run.facts().get("labelled") for run in runs] == [2, 2]
    assert len(gather_parts(runs)) == 4


@pytest.mark.full
def test_the_cost_is_measured_on_a_few_frames(work: Path, moods: Path):
    found = estimate(LabelSpec(data="sample:ethanol_300K@:500", maker="bad.py:moody", threads=2), timeout=60)
    assert (found.steps, found.unit) == (500, "frame")
    assert 0.05 < found.seconds_per_step < 1.0
    assert found.seconds == pytest.approx(found.setup_s + 250 * found.seconds_per_step, rel=1e-6)
    assert "(500 frames of " in found.sentence
    with pytest.raises(RunError, match=r"frame 0, which was measured, has no label: nonsense: energy is nan"):
        estimate(LabelSpec(data="bad.xyz@4", maker="bad.py:moody"))
    # The middle one of these kills the engine; another one is as good.
    assert estimate(LabelSpec(data="bad.xyz@1:4", maker="bad.py:moody")).steps == 3


@pytest.mark.full
def test_the_cost_of_frames_of_different_sizes_is_that_of_more_than_the_middle_one(work: Path):
    from ase import Atoms
    from ase.io import write

    code = "import time\nfrom ase.calculators.emt import EMT\n\nclass Slow(EMT):\n"
    code += "    def calculate(self, atoms, *args, **kwargs):\n        time.sleep(0.02 * len(atoms))\n"
    (work / "slow.py").write_text(code + "        super().calculate(atoms, *args, **kwargs)\n")
    sizes = [2] * 6 + [40] * 4
    write(work / "sizes.xyz", [Atoms(f"Cu{n}", [[2.5 * k, 0, 0.01 * n] for k in range(n)]) for n in sizes])
    found = estimate(LabelSpec(data="sizes.xyz", maker="slow.py:Slow"))
    assert found.seconds_per_step == pytest.approx(0.02 * np.mean(sizes), rel=0.35)


@pytest.mark.full
def test_the_command(work: Path, moods: Path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(
            ["label", "sample:ethanol_300K@:3", "--maker", "gfn2-xtb", "--options", "accuracy=0.01", "--json", "o.json"]
        )
    assert ended.value.code == 0
    record = json.loads((work / "o.json").read_text())
    assert record["figures"]["frames_labelled"] == {"value": 3, "unit": "of 3"}
    assert record["figures"]["frames_failed"]["value"] == 0
    assert record["figures"]["engine_time"]["unit"] == "s"
    frames, known = mk.read(record["paths"]["labelled"]), samples.load("ethanol_300K")[:3]
    np.testing.assert_allclose(frames.energy, known.energy, atol=1e-5)
    np.testing.assert_allclose(frames.forces, known.forces, atol=1e-4)
    with pytest.raises(SystemExit) as ended:
        main(["label", "bad.xyz@4", "--maker", "bad.py:moody"])
    assert ended.value.code == 3
    with pytest.raises(SystemExit) as ended:
        main(["label", "bad.xyz", "--maker", "gfn3-xtb"])
    assert ended.value.code == 2
    assert "did you mean 'gfn2-xtb'" in (err := capsys.readouterr().err) or "did you mean 'gfn1-xtb'" in err


def test_the_form_of_the_launcher_is_made_from_it():
    pytest.importorskip("ipywidgets", reason="needs ipywidgets")
    from mlipkit_widgets.form import Form

    form = Form(LabelSpec, ("data", "maker", "options"), start={"data": "a.xyz"})
    form.set("maker", "pyscf")
    form.set("options", {"basis": "sto-3g"})
    assert form.spec() == LabelSpec(data="a.xyz", maker="pyscf", options={"basis": "sto-3g"})
    form.set("part", "5/4")
    assert "is no part" in form.check()[1]


def test_frames_of_all_kinds_are_taken(work: Path):
    """Without labels, with labels of another, from a factory of structures."""
    mk.write(work / "bare.xyz", FrameSet.from_atoms([molecule("H2O"), molecule("CH4")]))
    run = mk.launch(LabelSpec(data=["bare.xyz", "sample:ethanol_300K@0", "calc.py:cluster"], maker="gfn1-xtb")).wait(60)
    assert run.state == "completed", run.reason
    frames = mk.read(run.folder / "labelled.extxyz")
    assert frames.n_atoms.tolist() == [3, 5, 9, 6]
    assert frames.has("energy").all()
