"""The verdict: planted differences are found, and none where there is none."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ipip_toys import TINY, toys

from mlipkit.errors import RunError
from mlipkit.models import load
from mlipkit.strategies.ipip import Reaction, Stability, plan, run_ipip, timeline
from mlipkit.strategies.ipip.comparing import compare
from mlipkit.strategies.ipip.evaluating import ERRORS, selected_row, trajectories
from mlipkit.strategies.ipip.plan import LOOPS, PARTS, without

SETTINGS = dataclasses.replace(
    TINY,
    iterations=1,
    stability=Stability(runs=3, steps=10, stride=5, temperature=300.0, relax_steps=0),
    reaction=Reaction(runs=2, steps=12, stride=4, temperature=150.0, relax_steps=0, track="O", lifetime=8.0),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("arms")
    found = {}
    for arm in ("ipip", "scratch", "one_shot", "no_relabelling", "continual", "no_new_frames"):
        for seed in (0, 1):
            folder = root / f"{arm}_{seed}"
            outcome = run_ipip(plan(arm, SETTINGS, seed), folder, toys(), reuse=list(found.values()))
            assert outcome.state == "completed"
            found[arm, seed] = folder
    return found


def planted(folders, tmp_path: Path, factor: float) -> list[Path]:
    """The same folders with errors of the loop a given multiple of those of the one-shot arm, beside noise."""
    copies = []
    rng = np.random.default_rng(0)
    for (arm, _), folder in folders.items():
        target = tmp_path / folder.name
        shutil.copytree(folder, target)
        copies.append(target)
        student = json.loads((target / "evaluation.json").read_text())["selected"]
        with np.load(target / ERRORS) as arrays:
            content = dict(arrays)
        hard = np.linspace(0.5, 2.0, len(content["n_atoms"]))
        size = {"ipip": factor, "one_shot": 1.0}.get(arm, 1.4)
        content[f"{student}/forces"] = 0.1 * size * hard * (1 + 0.02 * rng.normal(size=len(hard)))
        np.savez_compressed(target / ERRORS, **content)
    return copies


def test_a_planted_gain_is_found_against_the_best_control(folders, tmp_path):
    found = compare(planted(folders, tmp_path, 0.7))
    verdict = found.verdicts["controls", "forces"]
    assert verdict.answer == "works"
    assert verdict.best_control == "one_shot"
    assert found.sentence.startswith("Iterative pretraining, forces on test frames: Works")
    assert found.verdicts["no_relabelling", "forces"].answer == "works"
    assert "relabelling earns its keep" in found.sentence


def test_the_continual_loop_has_a_verdict_of_its_own_against_the_same_controls(folders, tmp_path):
    copies = planted(folders, tmp_path, 1.5)
    found = compare(copies)
    assert found.verdicts["controls", "forces"].answer == "does not"
    own = found.verdicts["continual", "forces"]
    assert set(own.against) == {"scratch", "one_shot"}, "loops are no controls of each other"
    assert own.ratio == pytest.approx(1.4, abs=0.05)
    assert f"Continual pretraining: {own.sentence}" in found.sentence
    # Without the loop as published all is asked of it.
    alone = compare([one for one in copies if not one.name.startswith(("ipip", "no_"))])
    assert alone.sentence.startswith("Continual pretraining, forces on test frames: ")
    assert alone.verdicts["controls", "forces"].ratio == pytest.approx(own.ratio)
    assert ("continual", "forces") not in alone.verdicts
    assert alone.verdicts["teacher", "forces"] == found.verdicts["continual, teacher", "forces"]
    assert [row["round"] for row in alone.rounds] == [0, 1]
    assert alone.stability["scratch"]["loop_less_this"][0] == pytest.approx(
        alone.stability["continual"]["share"] - alone.stability["scratch"]["share"])  # fmt: skip


def test_new_frames_are_judged_by_the_continual_loop_with_and_without_them(folders, tmp_path):
    copies = planted(folders, tmp_path, 0.7)
    of = {arm: [one for one in copies if one.name.rpartition("_")[0] == arm] for arm, _ in folders}
    found = compare(copies)
    own = found.verdicts["no_new_frames", "forces"]
    assert own.ratio == pytest.approx(1.0, abs=0.02), "the published loop would be half of it"
    assert "Of its parts: adding new frames is undecided (" in found.sentence.partition("Continual pretraining: ")[2]
    share = {arm: one["share"] for arm, one in found.stability.items()}
    assert found.stability["no_new_frames"]["loop_less_this"][0] == pytest.approx(
        share["continual"] - share["no_new_frames"])  # fmt: skip
    # Of two loops that differ in new frames alone there is no control, and yet something to say.
    alone = compare([*of["continual"], *of["no_new_frames"]])
    assert alone.verdicts["no_new_frames", "forces"] == own
    said = "No verdict: no control, such as scratch or one_shot, has been evaluated yet. Of the parts of continual "
    assert alone.sentence.startswith(f"{said}pretraining: adding new frames is undecided (")
    for others in (["scratch"], ["ipip", "scratch"], []):
        some = compare([one for arm in ("no_new_frames", *others) for one in of[arm]])
        assert ("no_new_frames", "forces") not in some.verdicts
        assert "loop_less_this" not in some.stability["no_new_frames"]
    lone = compare(of["no_new_frames"])
    assert lone.sentence == "No verdict: no loop (ipip or continual) has been evaluated yet."


def test_the_student_that_validation_selects_stands_for_an_arm(folders, tmp_path):
    copies = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders.values()]
    selected = {}
    for (arm, seed), folder in zip(folders, copies, strict=True):
        record = json.loads((folder / "evaluation.json").read_text())
        students = {row["model"]: row for row in record["rows"] if row["kind"] == "student"}
        # Whichever it was: another one now, where there are two.
        other = next((name for name in students if name != record["selected"]), record["selected"])
        (folder / "evaluation.json").write_text(json.dumps({**record, "selected": other}))
        selected[arm, seed] = students[other]
    found = compare(copies)
    rows = {row["arm"]: row for row in found.rows}
    for arm in ("ipip", "no_relabelling", "scratch"):
        mine = [selected[arm, seed] for seed in (0, 1)]
        assert rows[arm]["students"] == [one["round"] for one in mine]
        assert rows[arm]["forces_mae"][0] == pytest.approx(np.mean([one["forces_mae"] for one in mine]))
    # The test frames have no say, and simulations of another student are told.
    assert any("ipip, seed 0: simulations test the student of round" in note for note in found.notes)
    assert not any("simulations test" in note for note in compare(list(folders.values())).notes)


@pytest.mark.parametrize("first", [(), (1,), (0, 1)])
def test_loops_whose_first_student_is_selected_are_told(folders, tmp_path, first):
    copies = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders.values()]
    for (arm, seed), folder in zip(folders, copies, strict=True):
        record = json.loads((folder / "evaluation.json").read_text())
        students = [row["model"] for row in record["rows"] if row["kind"] == "student"]
        chosen = students[0] if seed in first or arm != "ipip" else students[-1]
        (folder / "evaluation.json").write_text(json.dumps({**record, "selected": chosen}))
    told = [note for note in compare(copies).notes if "validation selects the student of round 0" in note]
    assert [note.split(" validation")[0] for note in told] == [
        *([f"In {len(first)} of 2 seeds of ipip"] if first else []), "In 2 of 2 seeds of continual",
    ]  # fmt: skip


def test_simulations_and_users_get_the_student_that_was_selected(folders):
    for (arm, seed), folder in folders.items():
        one = plan(arm, SETTINGS, seed)
        selected = json.loads((folder / "evaluation.json").read_text())["selected"]
        tested = [row["round"] for row in timeline(folder) if row["stability"]]
        assert tested == [one[selected].round]
        weights, handed = load(folder / one.folder(selected) / "checkpoints/best.safetensors"), load(folder)
        for name, value in weights.state_dict().items():
            assert np.array_equal(value, handed.state_dict()[name], equal_nan=True), (arm, name)


def test_where_there_is_none_none_is_found(folders, tmp_path):
    equal = compare(planted(folders, tmp_path, 1.0)).verdicts["controls", "forces"]
    assert equal.answer != "works"
    assert equal.lower < 1 < equal.upper
    worse = compare(planted(folders, tmp_path / "worse", 1.5))
    assert worse.verdicts["controls", "forces"].answer == "does not"
    assert "a control does better" in worse.sentence


def test_every_frame_is_counted_and_the_teacher_stands_beside(folders):
    found = compare(list(folders.values()))
    assert found.rows[0]["arm"] == "teacher, zero-shot"
    wins = selected_row(json.loads((folders["ipip", 0] / "evaluation.json").read_text()))["better_than_teacher"]
    assert any(f"on {wins} of 10 frames and larger on {10 - wins}" in note for note in found.notes)
    assert any("level of theory" in note for note in found.notes)
    assert "24 gradient steps" in found.budgets
    assert found.stability["scratch"]["runs"] == 6
    assert len(found.stability["scratch"]["loop_less_this"]) == 3
    for one in found.stability.values():
        assert len(one["times_fs"]) == one["failed"]
        assert one["times_fs"] == sorted(one["times_fs"])
    seen = found.reactions["scratch"]
    assert seen["runs"] == seen["species"]["runs"] == 4
    assert seen["species"]["frames"] == seen["species"]["balanced"] > 0
    assert "scratch: 0 of 4 runs failed; O: 1 cluster at the end, mostly H2O" in found.table()
    assert [row["round"] for row in found.rounds] == [0, 1]
    assert "verdict" not in found.table().splitlines()[0].lower()
    json.dumps(found.to_json())


@pytest.fixture
def page(study_script):
    """The script of the page as a module."""
    return study_script("ipip_page")


def test_what_a_study_keeps_of_its_arms_is_what_its_page_reads(folders, tmp_path, page):
    import ipip
    from ipip_found import figure

    lines = []
    for (arm, seed), folder in folders.items():
        seconds = {"pretrain": 4.0, "finetune": 2.0, "sample": 1.0}
        facts = {"wall_s": 9.0, "cpu_s": 8.0, "stage_seconds": seconds}
        budget = plan(arm, SETTINGS, seed).budget.sentence
        lines.append({"study": "c_mo_s_o", "plan": "ipip_small", "encoder": "painn", "arm": arm, "seed": seed,
                      "command": "", "budget": budget, **ipip.kept(folder, facts)})  # fmt: skip
    (tmp_path / "ipip_c_mo_s_o.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    ended = list(folders.values())
    record = {**compare(ended).to_json(), "species_over_time": ipip.species_over_time(ended)}
    (tmp_path / "ipip_c_mo_s_o.json").write_text(json.dumps({"painn": record}), encoding="utf-8")
    found = page.places(page.cases(tmp_path), [])

    row = record["rows"][1]
    assert row["arm"] == "ipip"
    selected = ", ".join(map(str, row["students"]))
    cells = f"| Mo3O9 in sulfur | painn | the loop | 2 of 3 | {selected} | {figure(row['forces_mae'][0])} ("
    assert cells in found["errors"]
    verdict = next(one for one in record["verdicts"] if (one["question"], one["quantity"]) == ("controls", "forces"))
    assert f"| {verdict['ratio']:.3f} | {verdict['lower']:.3f} to {verdict['upper']:.3f} | 2, 10 |" in found["verdicts"]
    last = record["rounds"][1]
    assert last["new_unstable"] is not None
    assert f"| painn | the loop | 1 | 2 | {figure(last['forces_mae'])} (" in found["rounds"]
    test = record["stability"]["scratch"]
    assert f"| scratch | {test['failed']} of 6 |" in found["stability"]
    species = record["reactions"]["ipip"]["species"]
    assert f"| the loop | 4 | {species['balanced']} of {species['frames']} |" in found["species"]
    assert "| the loop | 0 | 4 | 1.00 | H2O 4 |" in found["species over time"]
    assert "| the loop | 0.012 | " in found["species over time"], "to the last stored frame"
    assert f"| the loop | {SETTINGS.total_steps} |" in found["budget"]
    assert "| 0.1 | 0.0167 | 0 | 0.133 |" in found["budget"]


def test_frames_of_one_trajectory_are_not_independent(folders, tmp_path):
    frames = toys().test.with_table(trajectory=[0, 0, 0, -1, 1, 1, -1, 1, 0, 1])
    assert trajectories(frames).tolist() == [0, 0, 0, 5, 1, 1, 8, 1, 0, 1]
    assert len(set(trajectories(toys().test))) == 10
    copies = planted(folders, tmp_path, 0.7)
    rng, widths = np.random.default_rng(1), {}
    gain = np.repeat(rng.uniform(0.5, 1.2, 5), 2)
    for kept in (None, np.arange(10), np.repeat(np.arange(5), 2)):
        for (arm, _), folder in zip(folders, copies, strict=True):
            with np.load(folder / ERRORS) as arrays:
                content = {name: array for name, array in arrays.items() if name != "trajectory"}
            if arm == "ipip":
                student = json.loads((folder / "evaluation.json").read_text())["selected"]
                content[f"{student}/forces"] = 0.1 * np.linspace(0.5, 2.0, 10) * gain
            np.savez(folder / ERRORS, **content, **({} if kept is None else {"trajectory": kept}))
        widths[None if kept is None else len(set(kept))] = compare(copies).verdicts["controls", "forces"].half_width
    assert widths[None] == widths[10] < widths[5]


def test_arms_must_be_comparable(folders, tmp_path):
    for place, said in ((tmp_path, "holds no run of iterative"), (tmp_path / "typo", "typo: no such folder")):
        with pytest.raises(RunError, match=said):
            compare([folders["ipip", 0], place])
    begun = tmp_path / "ipip_7"
    assert run_ipip(plan("ipip", SETTINGS, 7), begun, toys(), control=lambda: "stop").state == "stopped"
    for given in ([begun], begun, str(begun)):
        with pytest.raises(RunError, match="nothing is evaluated"):
            compare(given)
    some = compare([folders["ipip", 0], folders["scratch", 0], folders["scratch", 1], begun])
    assert "Not in the verdict, as not evaluated yet: ipip_7." in some.notes
    ipip, scratch = (selected_row(json.loads((folders[arm, 0] / "evaluation.json").read_text()))["forces_mae"]
                     for arm in ("ipip", "scratch"))  # fmt: skip
    assert some.rows[1]["to_scratch"] == pytest.approx(ipip / scratch), "over the seed that both have"
    hotter = dataclasses.replace(SETTINGS, stability=dataclasses.replace(SETTINGS.stability, temperature=900.0))
    assert run_ipip(plan("scratch", hotter, 0), tmp_path / "hotter", toys()).state == "completed"
    text = r"simulations that count failures; expected temperature 300\.0; found temperature 900\.0"
    with pytest.raises(RunError, match=text):
        compare([folders["ipip", 0], tmp_path / "hotter"])
    other = toys(test=toys().test.select(range(9)))
    assert run_ipip(plan("scratch", SETTINGS, 0), tmp_path / "other", other).state == "completed"
    with pytest.raises(RunError, match="more than their method"):
        compare([folders["ipip", 0], tmp_path / "other"])
    with pytest.raises(RunError, match="scratch, seed 0 is given twice"):
        compare([folders["scratch", 0], shutil.copytree(folders["scratch", 0], tmp_path / "again")])
    more = dataclasses.replace(SETTINGS, noise=0.1, sampling=dataclasses.replace(SETTINGS.sampling, steps=63))
    assert run_ipip(plan("scratch", more, 1), tmp_path / "more", toys()).state == "completed"
    with pytest.raises(RunError, match=r"two seeds of arm scratch; expected sampling\.steps 60, noise 0\.05; found"):
        compare([folders["scratch", 0], tmp_path / "more"])
    lone = compare([folders["scratch", 0]])
    assert lone.sentence.startswith("No verdict")


UNREAD = r"errors\.npz: errors of the test frames cannot be read"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), UNREAD),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), UNREAD),
        (lambda path: changed(path, lambda name, array: None if name == "teacher/forces" else array),
         r"expected 10 of each; found teacher/forces 0\. Delete"),
        (lambda path: changed(path, lambda _, array: array[:9]), "10 of each; found n_atoms 9, teacher/energy 9"),
        (lambda path: changed(path, lambda name, array: np.where(np.arange(10) < 2, np.nan, array)
                              if name.endswith("/forces") else array),
         "has no answer for some test frames; found 2 of 10"),
    ],
    ids=["gone", "torn", "a column is missing", "of fewer frames", "no numbers"],
)  # fmt: skip
def test_errors_that_are_not_those_of_all_test_frames_are_refused(folders, tmp_path, spoil, said):
    folder = shutil.copytree(folders["ipip", 0], tmp_path / "ipip_0")
    spoil(folder / ERRORS)
    with pytest.raises(RunError, match=said):
        compare([folder, folders["scratch", 0]])


def changed(path: Path, change) -> None:
    with np.load(path) as arrays:
        content = {name: change(name, array) for name, array in arrays.items()}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def test_runs_of_another_kind_and_plans_that_cannot_be_read_are_named(folders, tmp_path):
    foreign = tmp_path / "hot_run"
    foreign.mkdir()
    (foreign / "spec.yaml").write_text("kind: md\n")
    with pytest.raises(RunError, match="hot_run: holds no run of iterative pretraining; found a run of kind 'md'"):
        compare([folders["scratch", 0], foreign])
    folder = shutil.copytree(folders["ipip", 0], tmp_path / "ipip_0")
    record = json.loads((folder / "plan.json").read_text())
    for change, said in (
        ({"arm": "naive"}, "ipip_0: holds no run of iterative pretraining; found a plan of naive"),
        (
            {"settings": {**record["settings"], "of_tomorrow": 1}},
            r"plan\.json: the plan is damaged or of another version",
        ),
        ({"stages": None}, r"plan\.json: the plan is damaged or of another version"),
    ):
        (folder / "plan.json").write_text(json.dumps({**record, **change}))
        for read in (compare, timeline):
            with pytest.raises(RunError, match=said):
                read(folder)
    shutil.copy(folders["ipip", 0] / "plan.json", folder / "plan.json")
    (folder / "evaluation.json").write_text("{}")
    for read in (compare, timeline):
        with pytest.raises(RunError, match=r"evaluation\.json: cannot be read"):
            read(folder)


def test_a_part_is_left_out_of_the_loop_that_it_is_compared_with(folders, tmp_path):
    other = dataclasses.replace(SETTINGS, forget=0.4, prefer_unstable=False)
    assert run_ipip(plan("no_relabelling", other, 0), tmp_path / "other", toys()).state == "completed"
    said = r"more than what sets them apart; expected forget 0\.1, prefer_unstable True; found forget 0\.4, pre"
    with pytest.raises(RunError, match=said):
        compare([folders["ipip", 0], tmp_path / "other"])
    noisier = dataclasses.replace(SETTINGS, noise=0.1)
    for arm, loop in (("no_new_frames", "continual"), ("no_new_frames", "ipip"), ("continual", "ipip")):
        if not (tmp_path / arm).is_dir():
            reused = [folders[arm, 0]]
            assert run_ipip(plan(arm, noisier, 0), tmp_path / arm, toys(), reuse=reused).state == "completed"
        with pytest.raises(RunError, match=f"arms {loop} and {arm} differ in more than"):
            compare([folders[loop, 0], tmp_path / arm])
    taught = dataclasses.replace(SETTINGS, md_of="teacher")
    assert run_ipip(plan("continual", taught, 0), tmp_path / "taught", toys()).state == "completed"
    again = run_ipip(plan("no_student_md", SETTINGS, 0), tmp_path / "same", toys(), reuse=[tmp_path / "taught"])
    assert again.state == "completed"
    with pytest.raises(RunError, match="no_student_md: the loop lacks this part already"):
        compare([tmp_path / "taught", tmp_path / "same"])
    for settings in (SETTINGS, dataclasses.replace(SETTINGS, pool="grow", new_share=0.5, init="previous_pretrained")):
        for loop, arms in {"ipip": LOOPS[1:], **PARTS}.items():
            for arm in {*arms} - ({"no_fresh_weights"} if settings.init != "fresh" else set()):
                assert without(arm, plan(loop, settings).loop) == plan(arm, settings).loop
