"""What strategies answer: from made-up situations, so that every sentence has a case that makes it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mlipkit.data import samples
from mlipkit.errors import SpecError
from mlipkit.strategies.applies import (
    PLUGS,
    Answer,
    Expected,
    Frames,
    Maker,
    Model,
    Rates,
    Room,
    Situation,
    ask,
    register,
    unregister,
)
from mlipkit.strategies.applies.loop import first_of

ETHANOL = Frames("sample:ethanol_600K", 100, 9, 9, (1, 6, 8), 100, 100, 0, "none", 100)
XTB = Maker("gfn1-xtb", "GFN1-xTB", tuple(range(1, 87)), ("none", "all"))
MODEL = Model("sample:ethanol_50", "ethanol_50", (1, 6, 8), True, 100_000)
ALL = Situation(ETHANOL, MODEL, XTB, Rates(0.01, 0.02, 0.04, 0.1, 10**8, 2 * 10**8, 10**8, 1000))


def of(situation: Situation) -> dict[str, Answer]:
    return {answer.strategy: answer for answer in ask(situation)}


def test_everything_is_there_and_the_loop_wants_a_failure():
    found = of(ALL)
    arms = ("naive", "iterative", "longrun", "hybrid", "packmol_first", "high_force")
    assert list(found) == [
        answer for name in PLUGS for answer in ([f"workflow:{arm}" for arm in arms] if name == "workflow" else [name])
    ]
    wanting = {"close_loop", "dynamic", "ipip"} & set(found)
    assert {name for name, answer in found.items() if answer.state == "ready"} == set(found) - wanting
    assert found["dynamic"].sentence == "Needs at least 200 frames in order of time, there are 100."
    assert "a simulation that fails" in found["close_loop"].sentence
    assert found["close_loop"].spec == {
        "kind": "md", "potential": "sample:ethanol_50", "start": "sample:ethanol_600K@0", "time_ps": 10.0,
    }  # fmt: skip
    json.dumps([answer.to_json() for answer in found.values()])


def test_costs_follow_from_rates_and_are_unknown_without():
    found = of(ALL)
    # 200 epochs of 80 training frames, and 10 validation frames at half the price.
    assert found["train"].expected.seconds == pytest.approx(200 * (80 + 5) * 0.01)
    assert found["finetune"].expected.seconds == pytest.approx(50 * (80 + 5) * 0.04)
    assert found["train"].expected.peak_bytes == 10**8 + 100 * 1000
    assert found["train"].expected.labels == 0
    assert found["close_loop"].expected.seconds == pytest.approx(10 * 0.1 + 20000 * 0.02)
    blind = of(replace(ALL, rates=Rates()))
    assert all(answer.expected.seconds is None for answer in blind.values())
    assert "time unknown" in blind["train"].expected.sentence
    assert "memory unknown" in blind["train"].expected.sentence
    assert blind["workflow:naive"].expected.labels == found["workflow:naive"].expected.labels > 0


def test_missing_labels_are_named_with_who_can_make_them_and_what_that_costs():
    bare = replace(ETHANOL, energy=0, forces=0)
    train = of(replace(ALL, frames=bare))["train"]
    assert train.state == "needs"
    assert train.sentence == (
        "Needs labels on at least 3 frames: no frame has energy or forces (GFN1-xTB can make them)."
    )
    assert train.expected.labels == 100
    assert train.expected.seconds == pytest.approx(200 * 85 * 0.01 + 100 * 0.1)
    some = of(replace(ALL, frames=replace(ETHANOL, energy=2, forces=2)))["finetune"]
    assert "only 2 of 100 frames have energy or forces" in some.sentence


def test_partial_labels_are_trained_on_as_they_are():
    spec = of(replace(ALL, frames=replace(ETHANOL, energy=40, forces=0)))["train"].spec
    assert spec is not None
    assert spec["allow_partial"] is True
    assert spec["loss"] == {"forces": 0.0}
    whole = of(ALL)["train"].spec
    assert whole is not None
    assert "allow_partial" not in whole
    assert "loss" not in whole


def test_a_label_maker_that_does_not_cover_is_said_by_element_and_by_cell():
    small = Maker("universal:so3lr", "SO3LR", (1, 6, 7, 8))
    zinc = replace(ETHANOL, elements=(1, 30), energy=0, forces=0)
    train = of(Situation(zinc, None, small))["train"]
    assert "a label maker covering element Zn, which SO3LR does not" in train.sentence
    molecules = Maker("pyscf", "PySCF", None, ("none",))
    loop = of(Situation(replace(ETHANOL, periodic="all"), MODEL, molecules))["close_loop"]
    assert "a label maker that takes cells: PySCF takes molecules" in loop.sentence
    missing = replace(XTB, missing='the package tblite (pip install "mlipkit[label]")')
    naive = of(replace(ALL, maker=missing))["workflow:naive"]
    assert naive.state == "needs"
    assert 'pip install "mlipkit[label]"' in naive.sentence


def test_impossible_says_why_in_one_sentence():
    zbl = Model("zbl.safetensors", "zbl", (1, 6, 8), False)
    for answer in (of(replace(ALL, potential=zbl))[name] for name in ("finetune", "workflow:naive", "close_loop")):
        assert answer.state == "impossible"
        assert answer.sentence == "Impossible because zbl has no trainable weights."
        assert answer.spec is None
    copper = replace(ETHANOL, elements=(29,))
    assert of(replace(ALL, frames=copper))["finetune"].sentence == "Impossible because ethanol_50 does not know Cu."
    assert of(replace(ALL, frames=copper))["train"].state == "ready"


def test_no_potential_no_frames_no_torch_no_memory():
    alone = of(Situation(ETHANOL, None, XTB, universals=("universal:so3lr",)))
    assert alone["finetune"].sentence == "Needs a potential, such as universal:so3lr."
    assert of(Situation(Frames(), MODEL, XTB))["train"].sentence == "Needs at least 3 frames, there are none."
    light = of(replace(ALL, room=Room(torch=False)))
    assert all("the package torch" in answer.sentence for answer in light.values())
    tight = of(replace(ALL, room=Room(memory=10**7)))["train"]
    assert tight.state == "needs"
    assert "of memory, of which 0.0 GB may be used here" in tight.sentence


def test_a_failed_simulation_closes_the_loop_and_one_that_held_does_not():
    failed = of(replace(ALL, frames=replace(ETHANOL, place="runs/hot", simulation="failed")))["close_loop"]
    assert failed.state == "ready"
    assert failed.expected.labels == 10
    held = of(replace(ALL, frames=replace(ETHANOL, place="runs/cold", simulation="held")))["close_loop"]
    assert "this one held; raise the temperature" in held.sentence


def test_a_strategy_joins_by_registering_one_function():
    def rolling(situation: Situation) -> Answer:
        return Answer.of(
            "rolling", "Training through MD", ready="rolls out", needs=[situation.time_order(), situation.cell()],
            expected=Expected(0),
        )  # fmt: skip

    register("rolling", rolling)
    try:
        assert "a cell: not all frames are periodic" in of(ALL)["rolling"].sentence
        loose = replace(ETHANOL, time_ordered=0, periodic="all")
        assert of(replace(ALL, frames=loose))["rolling"].sentence == (
            "Needs time-ordered frames: none of 100 belong to a trajectory."
        )
        assert of(replace(ALL, frames=replace(ETHANOL, periodic="all")))["rolling"].state == "ready"
        with pytest.raises(SpecError, match="answers already"):
            register("rolling", rolling)
    finally:
        unregister("rolling")
    assert "rolling" not in PLUGS


def test_a_plug_that_breaks_is_an_answer():
    register("broken", lambda situation: 1 / 0)  # type: ignore[arg-type, return-value]
    register("gone", "mlipkit.strategies.applies.nowhere:at_all")
    try:
        found = of(ALL)
    finally:
        unregister("broken")
        unregister("gone")
    assert found["broken"].state == found["gone"].state == "impossible"
    assert "ZeroDivisionError" in found["broken"].sentence
    assert len(found) == len(ask(ALL)) + 2


def test_text_and_page():
    from mlipkit.strategies.applies import Answers

    found = Answers(tuple(ask(ALL)), "Frames: 100 <b>", "Potential: x", ("A note.",))
    ready = len(found.of("ready"))
    assert found.sentence == f"{ready} ready, {len(found) - ready} need something"
    assert "✓ ready" in str(found)
    assert "A note." in str(found)
    page = found._repr_html_()
    assert "100 &lt;b&gt;" in page
    assert page.count("<tr>") == len(found) + 1
    assert found["finetune"].strategy == "finetune"
    assert len(found[:2]) == 2


def test_the_first_frame_of_a_place():
    assert first_of("a.xyz") == "a.xyz@0"
    assert first_of("a.xyz@:100") == "a.xyz@0"
    assert first_of("a.xyz@20:30") == "a.xyz@20"
    assert first_of("a.xyz@-1") == "a.xyz@-1"


def test_dynamic_training_wants_every_frame_of_runs_in_order_of_time():
    from mlipkit.runs import DynamicSpec, parse_spec
    from mlipkit.strategies.applies.rolling import dynamic

    loose = Frames(place="x.xyz", n=500, n_atoms=9, most_atoms=9, elements=(1, 6, 8), energy=500, forces=500)
    assert dynamic(Situation(loose)).state == "needs"
    assert "time-ordered frames: none of 500" in dynamic(Situation(loose)).sentence
    runs = replace(loose, time_ordered=500)
    ready = dynamic(Situation(runs))
    assert ready.state == "ready", ready.sentence
    assert ready.spec is not None
    assert isinstance(parse_spec(ready.spec), DynamicSpec)
    thinned = dynamic(Situation(replace(runs, follows=0.12)))
    assert "a correlation of 0.12 only, so frames were left out" in thinned.sentence
    whole = samples.load("ethanol_nve")
    assert (Frames.of(whole).follows or 0) > 0.95
    first = whole.select(np.flatnonzero(whole.trajectory == 0)[::20])
    assert abs(Frames.of(first).follows or 1) < 0.5
    half = dynamic(Situation(replace(runs, forces=300)))
    assert "forces on every frame: 300 of 500" in half.sentence
