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
    for arm in ("ipip", "scratch", "one_shot", "no_relabelling"):
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
    assert [note.split(" seeds")[0] for note in told] == ([f"In {len(first)} of 2"] if first else [])


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
    assert f"| painn | 1 | 2 | {figure(last['forces_mae'])} (" in found["rounds"]
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
