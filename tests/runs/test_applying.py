"""`what_applies` on real places: every combination is answered, what is ready can be launched, figures are real."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write

from mlipkit.data import FrameSet, samples
from mlipkit.errors import DataError, SpecError
from mlipkit.runs import RelaxSpec, TrainSpec, WorkflowSpec, parse_spec, what_applies
from mlipkit.runs.applying_potential import UNIVERSAL_ELEMENTS, XTB, header_of, maker_of_place, model_of
from mlipkit.runs.folder import write_text
from mlipkit.runs.places import UNIVERSAL_FILES, UNIVERSAL_PACKAGES, installed_universal
from mlipkit.strategies.applies import PLUGS

EXAMPLES = [None, "sample:ethanol_50", "universal:so3lr", "universal:sevennet-0", "universal:mace:there.model",
            "calc.py:emt", "runs/training", "runs/relaxing", "zbl.safetensors", "notes.txt"]  # fmt: skip
ANSWERS = len(PLUGS) + 5
"""Workflows answer once for each of their six arms."""


@pytest.fixture
def place(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with frames and potentials of every kind, good and bad, and no memory of measurements."""
    monkeypatch.setenv("MLIPKIT_CACHE", str(work / "cache"))
    rng = np.random.default_rng(0)
    images = []
    for _ in range(6):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.02, rng=rng)
        images.append(atoms)
    write("bare.xyz", images, format="extxyz")
    write("copper.xyz", [bulk("Cu", cubic=True)], format="extxyz")
    write("slab.xyz", [molecule("H2O", cell=[5, 5, 5], pbc=[True, True, False])], format="extxyz")
    (work / "there.model").write_bytes(b"x")
    (work / "notes.txt").write_text("no potential")
    for name, spec in (("training", TrainSpec(data="bare.xyz")),
                       ("relaxing", RelaxSpec(start="bare.xyz", potential="sample:ethanol_50"))):  # fmt: skip
        (work / "runs" / name).mkdir(parents=True)
        write_text(work / "runs" / name / "spec.yaml", spec.to_yaml())
    from mlipkit.models import save
    from mlipkit.models.zbl import ZBLRepulsion

    save(ZBLRepulsion([1, 6, 8]), work / "zbl.safetensors")
    return work


@pytest.mark.parametrize("potential", EXAMPLES)
@pytest.mark.parametrize("frames", ["sample:ethanol_600K", "sample:ice_ih", "bare.xyz", "copper.xyz", "slab.xyz"])
def test_every_combination_is_answered_and_what_is_ready_can_be_launched(place: Path, frames: str, potential):
    found = what_applies(frames, potential, measure=False)
    assert len(found) == ANSWERS
    for answer in found:
        assert answer.sentence.endswith(".")
        assert answer.expected.seconds is None
        assert (answer.state == "ready") == (not answer.needs and not answer.sentence.startswith("Impossible"))
        if answer.state == "ready":
            assert answer.spec is not None
        if answer.spec is not None:
            spec = parse_spec(answer.spec)
            if isinstance(spec, WorkflowSpec):
                budget = spec.plan.budget
                assert answer.expected.labels == budget.labels + budget.test_labels
    json.dumps(found.to_json())


def test_reasons_are_those_of_the_case(place: Path):
    zbl = what_applies("sample:ethanol_600K", "zbl.safetensors", measure=False)
    assert zbl["finetune"].sentence == "Impossible because zbl.safetensors has no trainable weights."
    bare = what_applies("bare.xyz", "universal:so3lr", measure=False)
    assert "no frame has energy or forces (GFN1-xTB can make them)" in bare["finetune"].sentence
    copper = what_applies("copper.xyz", "sample:ethanol_50", measure=False)
    assert "does not know Cu" in copper["workflow:naive"].sentence
    slab = what_applies("slab.xyz", "sample:ethanol_50", measure=False)
    assert "a label maker that takes structures with mixed or partly periodic axes" in slab["close_loop"].sentence
    young = what_applies("bare.xyz", "runs/training", measure=False)
    assert "the first weights of training" in young["finetune"].sentence
    assert "trained no potential" in what_applies("bare.xyz", "runs/relaxing", measure=False)["finetune"].sentence
    own = what_applies("copper.xyz", "universal:sevennet-0", maker="universal:so3lr", measure=False)
    assert "covering element Cu" in own["workflow:naive"].sentence


def test_a_package_that_is_missing_is_a_need_with_its_extra(place: Path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in ("sevenn", "tblite") else
                        real(name, *more))  # fmt: skip
    found = what_applies("sample:ice_ih", "universal:sevennet-0", maker="gfn1-xtb", measure=False)
    assert found["finetune"].state == "needs"
    assert 'pip install "mlipkit[universal]"' in found["finetune"].sentence
    assert 'pip install "mlipkit[label]"' in found["workflow:naive"].sentence


def test_what_names_nothing_is_an_error_as_everywhere(place: Path):
    with pytest.raises(SpecError, match="unknown universal"):
        what_applies("bare.xyz", "universal:so3", measure=False)
    with pytest.raises(SpecError, match="no such potential"):
        what_applies("bare.xyz", "runs/nowhere", measure=False)
    with pytest.raises(DataError):
        what_applies("nowhere.xyz", measure=False)
    for frames in (5, [5], [molecule("H2O"), "H2O"]):
        with pytest.raises(DataError, match="what_applies: no frames; expected a FrameSet"):
            what_applies(frames, measure=False)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="unknown label maker"):
        what_applies("bare.xyz", maker="gfn3-xtb", measure=False)


def test_a_public_set_is_not_fetched(place: Path, monkeypatch):
    from mlipkit.data import public

    monkeypatch.delenv("MLIPKIT_DATA", raising=False)
    monkeypatch.setenv("MLIPKIT_CACHE", str(place / "cache"))
    monkeypatch.setattr(public, "_download", lambda one: pytest.fail("it was fetched"))
    with pytest.raises(DataError, match="not on this machine"):
        what_applies(f"public:{public.names()[0]}", measure=False)


def test_objects_in_memory_are_answered_too(place: Path):
    frames = samples.load("ethanol_600K")
    whole = what_applies(frames, "sample:ethanol_50", measure=False)
    assert whole["train"].spec is not None
    assert whole["train"].spec["data"] == "sample:ethanol_600K"
    part = what_applies(frames[:20], EMT(), measure=False)
    assert part["train"].state == "ready"
    assert part["train"].spec is None
    assert part["finetune"].sentence == "Impossible because EMT has no trainable weights."
    assert what_applies(FrameSet.from_atoms([molecule("H2O")])[:0], measure=False)["train"].state == "needs"
    assert what_applies([molecule("H2O")], measure=False)["train"].sentence.startswith("Needs at least 3 frames")


@pytest.mark.full
def test_figures_are_measured_and_the_time_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch):
    # With time enough everything is known, also that a factory makes no potential.
    found = what_applies("sample:ethanol_600K@:50", "sample:ethanol_50", within=240)
    assert found.notes == ()
    for answer in found:
        if answer.strategy == "ipip":
            assert answer.sentence.startswith("Needs a universal teacher")
            assert answer.expected.seconds is None, "nobody knows how fast a teacher is that was not named"
        else:
            assert answer.expected.seconds is not None, answer
            assert answer.expected.seconds > 0
        assert answer.expected.peak_bytes is not None
        assert answer.expected.peak_bytes > 5e7
    plain = what_applies("copper.xyz", "calc.py:emt", within=240)
    assert plain["finetune"].sentence == "Impossible because calc.py:emt has no trainable weights."
    # No time at all: everything is answered, nothing is known, and nobody stays behind.
    monkeypatch.setenv("MLIPKIT_CACHE", str(place / "another"))
    begin = time.monotonic()
    none = what_applies("sample:ethanol_600K", "sample:ethanol_50", within=0)
    assert time.monotonic() - begin < 20
    assert "did not fit in the time" in " ".join(none.notes)
    assert none["train"].expected.seconds is None


def test_it_needs_no_torch_here(place: Path):
    code = (
        "import sys, mlipkit as mk\n"
        "found = mk.what_applies('sample:ethanol_600K', 'sample:ethanol_50', measure=False)\n"
        f"assert len(found) == {ANSWERS}\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=place).returncode == 0


def test_headers_that_are_none(place: Path):
    (place / "short.safetensors").write_bytes(b"abc")
    (place / "odd.safetensors").write_bytes((5).to_bytes(8, "little") + b"[1,2]")
    for name in ("short", "odd"):
        assert header_of(place / f"{name}.safetensors") == {}
        assert "holds no potential" in model_of(f"{name}.safetensors", place).wrong
    assert model_of("sample:ethanol_50", place).elements == (1, 6, 8)


@pytest.mark.full
def test_the_tables_are_those_of_the_packages(place: Path):
    from mlipkit.labelling import label_maker
    from mlipkit.models import load

    assert UNIVERSAL_ELEMENTS.keys() == UNIVERSAL_PACKAGES.keys()
    for name in installed_universal():
        assert load(name).elements == UNIVERSAL_ELEMENTS[name.removeprefix("universal:")], name
    assert all(UNIVERSAL_ELEMENTS[name] is None for name in UNIVERSAL_FILES)
    pytest.importorskip("tblite")
    assert list(XTB) == label_maker("gfn1-xtb").describe()["elements"]
    assert maker_of_place("gfn2-xtb", place).elements == XTB


def test_command(place: Path):
    command = [sys.executable, "-m", "mlipkit.cli", "what", "bare.xyz", "--potential", "zbl.safetensors",
               "--within", "0", "--json", "what.json"]  # fmt: skip
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "✖ impossible  Fine-tuning" in done.stdout
    record = json.loads((place / "what.json").read_text())
    assert record["figures"]["impossible"]["value"] == 9
    assert len(record["what"]["answers"]) == ANSWERS
