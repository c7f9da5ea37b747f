"""Parents and children, a run once more, a run in the trash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mlipkit as mk
from mlipkit.errors import RunError, SpecError
from mlipkit.runs import MDSpec, Run, TrainSpec, delete, duplicate, restore, runs_in
from mlipkit.runs.family import children, empty_trash, parents, trashed


def written(spec, folder: Path) -> Run:
    """A run that was never started, nor is any process going to."""
    folder.mkdir(parents=True)
    (folder / "launch.json").write_text(
        json.dumps({"cwd": str(Path.cwd()), "created": len(list(Path("runs").iterdir()))})
    )
    (folder / "spec.yaml").write_text(spec.to_yaml())
    return Run(folder)


@pytest.fixture
def family(work) -> list[Run]:
    Path("runs").mkdir()
    return [
        written(TrainSpec(data="sample:ethanol_300K"), Path("runs/first")),
        written(MDSpec(potential="runs/first", start="sample:ethanol_300K@0"), Path("runs/md")),
        written(TrainSpec(data=["sample:ethanol_300K", "runs/md"]), Path("runs/another")),
    ]


def test_parents_are_runs_whose_output_is_read(family):
    first, md, another = family
    assert parents(first) == []
    assert parents(md) == [first.folder]
    assert parents(another) == [md.folder]
    assert children(first, family) == [md]
    assert [run.name for run in runs_in("runs")] == ["first", "md", "another"]


def test_a_deleted_run_comes_back_as_it_was(family):
    _first, _md, another = family
    before = {path.name: path.read_bytes() for path in another.folder.iterdir()}
    place = delete(another)
    assert [run.name for run in runs_in("runs")] == ["first", "md"]
    assert restore(place) == another
    assert {path.name: path.read_bytes() for path in another.folder.iterdir()} == before
    with pytest.raises(RunError, match="nothing to bring back"):
        restore(place)


def test_what_others_need_is_not_deleted_by_chance(family):
    first, _md, _ = family
    with pytest.raises(RunError, match=r"other runs read its output.*md"):
        delete(first)
    place = delete(first, force=True)
    assert not first.folder.exists()
    restore(place)


def test_a_name_that_was_taken_meanwhile_stays_with_the_new_run(family):
    place = delete(family[2])
    written(TrainSpec(data="sample:ethanol_300K"), Path("runs/another"))
    with pytest.raises(RunError, match="another run has this name"):
        restore(place)
    assert place.is_dir()


def test_the_trash_is_emptied_on_demand(family):
    kept, gone = delete(family[2]), delete(family[1])
    assert trashed("runs") == [gone, kept]
    assert empty_trash("runs", keep=[kept]) == 1
    assert kept.is_dir()
    assert not gone.exists()


def test_an_active_run_is_not_deleted(work):
    run = mk.launch(MDSpec(potential="calc.py:slow", start="calc.py:cluster", steps=100_000))
    try:
        with pytest.raises(RunError, match="Stop it first"):
            delete(run)
    finally:
        run.stop()
        run.wait()
    copy = duplicate(run, steps=3)
    copy.wait()
    assert copy.name != run.name
    assert copy.spec.steps == 3  # type: ignore[union-attr]
    assert copy.state == "completed"
    with pytest.raises(SpecError):
        duplicate(run, steps=-3)


def test_a_folder_that_cannot_be_read_is_named_and_keeps_nobody_from_the_others(family):
    first, md, another = family
    Path("runs/newer").mkdir()
    Path("runs/newer/spec.yaml").write_text(MDSpec().to_yaml().replace("version: 1", "version: 99"))
    with pytest.warns(UserWarning, match=r"newer.*written by a newer mlipkit"):
        assert runs_in("runs") == [first, md, another]
    with pytest.warns(UserWarning, match="newer"):
        place = delete(another)
    assert trashed("runs") == [place]


def test_the_trash_passes_over_what_others_put_there_and_a_folder_that_is_gone_is_said(family):
    _first, _md, another = family
    place = delete(another)
    (place.parent / "mine").mkdir()
    (place.parent / "mine" / "spec.yaml").write_text("kind: md")
    assert trashed("runs") == [place]
    with pytest.raises(RunError, match="another: is gone already"):
        delete(another)
