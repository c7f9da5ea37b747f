"""Runs as processes: re-opened, copied, stopped, paused, changed, killed, crashed, waiting for each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlipkit.errors import MlipkitError, RunError, SpecError
from mlipkit.events import Finished, Message, Waiting
from mlipkit.runs import MDSpec, Run, TrainSpec, launch, process
from mlipkit.runs import open as open_run
from mlipkit.runs.launching import check_places
from mlipkit.runs.log import EventLog

QUICK = {"potential": "calc.py:emt", "start": "calc.py:cluster", "temperature": 100.0, "stride": 10}
LONG = {**QUICK, "potential": "calc.py:slow", "steps": 100000, "checkpoint_every": 20}


def until(true: Callable[[], object], timeout: float = 60) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.05)


def working(run: Run, step: int = 1) -> None:
    """Wait until so many steps are done."""
    until(lambda: run.state not in ("queued", "waiting"))
    until(lambda: run.series_names() == ["md"] and len(run.series("md")) > step)


@pytest.fixture
def alive():
    """Runs put in here are ended with the test."""
    runs: list[Run] = []
    yield runs
    for run in runs:
        record = run.files.read("pid.json")
        if process.is_alive(record):
            os.kill(record["pid"], signal.SIGKILL)


def test_nothing_is_started_for_what_does_not_exist(work: Path):
    cases = [
        (MDSpec(potential="cal.py:emt", start="calc.py:cluster"), "potential.*did you mean 'calc.py'"),
        (MDSpec(potential="calc.py:emt", start="start.xyz"), "start.*no such file"),
        (MDSpec(potential="calc.py:emt", start="sample:ethanol_30K"), "did you mean 'ethanol_300K'"),
    ]
    for spec, pattern in cases:
        with pytest.raises(MlipkitError, match=pattern):
            launch(spec)
    assert not (work / "runs").exists()


def test_nothing_is_started_for_what_cannot_work(work: Path):
    (work / "torn.py").write_text("def make(:\n")
    (work / "indirect.py").write_text(
        "try:\n    from calc import emt as made\nexcept ImportError:\n    pass\nmake = made\n"
    )
    (work / "a.xyz").write_text("1\n\nCu 0 0 0\n")
    good = {"potential": "calc.py:emt", "start": "calc.py:cluster"}
    cases = [
        (
            MDSpec(**{**good, "potential": "calc.py:emtt"}),
            r"potential: calc\.py:emtt: calc.py has no function.*did you mean 'emt'",
        ),
        (MDSpec(**{**good, "potential": "torn.py:make"}), r"torn\.py:make: line 1: not Python"),
        (MDSpec(**{**good, "potential": "no_such_package.calc:make"}), "there is no module 'no_such_package'"),
        (MDSpec(**{**good, "start": "a.xyz@-"}), r"start: a\.xyz@-: '-' is no index"),
        (MDSpec(**{**good, "start": "a.xyz@last"}), r"start: a\.xyz@last: 'last' is no index"),
        (MDSpec(**{**good, "start": "a.xyz@::0"}), r"'::0' is no index"),
        (MDSpec(**{**good, "start": "sample:ethanol_300K@first"}), "'first' is no index"),
        (MDSpec(**{**good, "start": "sample:ethanol_300K@123456"}), "there is no frame 123456"),
        (MDSpec(potential="sample:ethanol_1000@0"), "a potential has no frames.*Leave out @0"),
        (TrainSpec(data="sample:ethanol_300K", keys={"forces": "F"}), "keys: no effect"),
        (TrainSpec(data="a.xyz", units={"energy": "eV"}), "units: no effect"),
        (TrainSpec(data="sample:ethanol_300K", unconverged="drop"), "unconverged: no effect"),
        (MDSpec(**good, device="cuda:97"), "device: .*found cuda:97"),
    ]
    for spec, pattern in cases:
        with pytest.raises(MlipkitError, match=pattern):
            launch(spec)
    assert not (work / "runs").exists()
    for text in ("indirect.py:make", "indirect.py:made", "calc:emt", "calc.py:EMT", "ase.build:molecule"):
        check_places(MDSpec(**{**good, "potential": text}), work)
    check_places(MDSpec(**{**good, "start": "sample:ethanol_300K@-3:"}), work)


def test_a_specification_is_needed():
    with pytest.raises(SpecError, match="not a specification"):
        launch(42)  # type: ignore[arg-type]


def test_opening_what_is_no_run(work: Path):
    (work / "runs" / "md_300K").mkdir(parents=True)
    (work / "runs" / "md_300K" / "spec.yaml").write_text(MDSpec(**QUICK).to_yaml())
    with pytest.raises(RunError, match="did you mean 'md_300K'"):
        open_run(work / "runs" / "md_30K")
    with pytest.raises(RunError, match="holds no run"):
        open_run(work)
    assert open_run(work / "runs" / "md_300K").state == "lost"  # no process was ever noted


@pytest.mark.full
def test_unchanged_specification_opens_the_same_run(work: Path):
    spec = MDSpec(**QUICK, steps=20)
    first = launch(spec)
    same = launch(MDSpec(**QUICK, steps=20))
    assert same == first
    assert same.files.read("pid.json")["pid"] == first.files.read("pid.json")["pid"]
    other = launch(spec.changed(steps=30))
    assert other.name == f"{first.name}-2"
    again = launch(spec, again=True)
    assert again.name == f"{first.name}-3"
    assert launch(spec) == again  # the latest of equal ones
    assert launch(spec.changed(steps=30)) == other
    assert {run.wait(90).state for run in (first, other, again)} == {"completed"}
    n_events = len(first.entries())
    assert launch(spec.changed(steps=30)) == other
    assert launch(spec.to_yaml() and (work / "runs" / first.name / "spec.yaml")) == again
    assert len(open_run(first.folder).entries()) == n_events  # a finished run is not started again
    with pytest.raises(RunError, match=r"another specification.*steps: 20 there, 30 here.*again=True"):
        launch(spec.changed(steps=30), folder=first.folder)
    assert launch(spec, folder=first.folder) == first
    (work / "calc.py").write_text((work / "calc.py").read_text() + "\n# changed\n")
    with pytest.warns(UserWarning, match=r"another content of calc\.py"):
        launch(spec)
    # Everything is rebuilt from the folder alone.
    run = open_run(os.path.relpath(first.folder))
    assert run.spec == spec
    assert run.sentence == "completed, all 20 steps done"
    assert run.verdict is not None
    assert run.verdict.outcome == "ok"
    assert len(run.trajectory()) == 3
    assert run.series("md").read(["step"])["step"].tolist() == list(range(21))
    assert run.facts()["peak_bytes"] > 1e7
    with pytest.raises(RunError, match="known: md"):
        run.series("training")


@pytest.mark.full
def test_two_that_launch_the_same_at_once_get_one_run(work: Path):
    code = (
        "import mlipkit as mk; "
        "print(mk.launch(mk.MDSpec(potential='calc.py:emt', start='calc.py:cluster', steps=20)).wait().name)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=120)[0].strip() for process in both} == {"md_300K"}
    assert [path.name for path in (work / "runs").glob("*/")] == ["md_300K"]


def test_a_root_that_cannot_be_made_is_named(work: Path):
    (work / "taken").touch()
    with pytest.raises(RunError, match=r"taken.*cannot be kept here"):
        launch(MDSpec(potential="calc.py:emt", start="calc.py:cluster"), root=work / "taken")


@pytest.mark.full
def test_stop_pause_change_and_resume(work: Path, alive: list[Run]):
    run = launch(MDSpec(**LONG, name="long"))
    alive.append(run)
    working(run)
    run.pause()
    until(lambda: run.state == "paused", 10)
    done = len(run.series("md"))
    assert run.heartbeat_age is not None
    assert not list((work / "queue").glob("*.json")), "a paused run frees its cores"
    time.sleep(0.5)
    assert len(run.series("md")) <= done + 1
    run.resume()
    until(lambda: run.state == "running" and len(run.series("md")) > done + 20, 20)
    run.change(temperature=250.0)
    until(lambda: any("250" in e.text for e in run.events() if isinstance(e, Message)), 20)
    assert run.spec.temperature == 100.0
    assert run.current_spec.temperature == 250.0  # type: ignore[union-attr]
    assert launch(MDSpec(**LONG, name="long")) == run
    with pytest.raises(SpecError, match=r"ensemble: cannot change.*steps"):
        run.change(ensemble="nve")
    with pytest.raises(SpecError, match="temperature"):
        run.change(temperature=-1)
    begin = time.monotonic()
    run.stop()
    assert run.wait(10).state == "stopped"
    assert time.monotonic() - begin < 5
    assert "stopped by the user at step" in run.reason
    last = len(run.series("md"))
    run.change(steps=last + 20)
    run.resume()
    assert run.wait(60).state == "completed"
    assert run.series("md").read(["step"])["step"].tolist() == list(range(last + 21))


@pytest.mark.full
def test_killed_run_is_lost_and_resumes_to_the_same_end(work: Path, alive: list[Run]):
    spec = MDSpec(**{**LONG, "steps": 150})
    whole = launch(spec, folder=work / "whole")
    killed = launch(spec, folder=work / "killed")
    alive += [whole, killed]
    working(killed, 50)
    os.kill(killed.files.read("pid.json")["pid"], signal.SIGKILL)
    until(lambda: killed.state == "lost", 10)
    assert "resume()" in killed.reason
    assert launch(spec, folder=work / "killed").state == "lost"  # opening alone starts nothing
    assert launch(spec, folder=work / "killed", resume=True).active
    assert killed.wait(60).state == whole.wait(60).state == "completed"
    a, b = (run.series("md").read() for run in (whole, killed))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert len(whole.trajectory()) == len(killed.trajectory())
    assert np.array_equal(whole.trajectory()[-1].positions, killed.trajectory()[-1].positions)


@pytest.mark.full
def test_an_exception_leaves_one_line_and_a_traceback(work: Path):
    run = launch(MDSpec(**{**QUICK, "potential": "calc.py:breaking", "steps": 100}))
    assert run.wait(60).state == "crashed"
    assert run.reason == "ValueError: the engine gave up"
    assert "Traceback" in run.log_text()
    assert "crashed, 0/100 steps" not in run.sentence
    assert (run.folder / "last_steps.traj").exists()
    wrong = launch(MDSpec(**{**QUICK, "potential": "calc.py:nothing"})).wait(60)
    assert wrong.state == "crashed"
    assert "expected an ASE calculator" in wrong.reason


@pytest.mark.full
def test_a_run_waits_for_another_and_starts_by_itself(work: Path, alive: list[Run]):
    first = launch(MDSpec(**{**LONG, "steps": 100}, name="first"))
    second = launch(MDSpec(**{**QUICK, "start": str(first.folder)}, steps=10, name="second"))
    third = launch(MDSpec(**{**QUICK, "start": f"runs/{second.name}@-1"}, steps=10, name="third"))
    alive += [first, second, third]
    until(lambda: third.state == "waiting" and second.state == "waiting", 20)
    assert second.reason == "waits for first"
    assert not second.series_names()
    assert third.wait(90).state == "completed"
    assert isinstance(second.events()[0], Waiting)
    assert np.allclose(second.trajectory()[0].positions, first.trajectory()[-1].positions)


@pytest.mark.full
def test_a_run_says_so_when_the_other_failed(work: Path, alive: list[Run]):
    first = launch(MDSpec(**{**QUICK, "potential": "calc.py:breaking"}, steps=100, name="first"))
    second = launch(MDSpec(**{**QUICK, "start": first}, steps=10, name="second"))  # type: ignore[arg-type]
    alive += [first, second]
    assert second.wait(60).state == "crashed"
    assert "run 'first', on which this run depends, crashed" in second.reason
    assert "the engine gave up" in second.reason


@pytest.mark.full
def test_runs_stand_in_line_for_the_cores(work: Path, monkeypatch, alive: list[Run]):
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    first = launch(MDSpec(**LONG, name="first"))
    alive.append(first)
    working(first)
    second = launch(MDSpec(**QUICK, steps=10, name="second"))
    until(lambda: second.queue_position == 1, 20)
    third = launch(MDSpec(**QUICK, steps=10, name="third"))
    alive += [second, third]
    until(lambda: third.queue_position == 2, 20)
    assert "number 2 in the queue" in third.reason
    third.stop()
    assert third.wait(20).state == "stopped"
    first.stop()
    assert second.wait(60).state == "completed"
    assert first.state == "stopped"


@pytest.mark.full
def test_the_user_s_terminal_signal_stops_with_a_checkpoint(work: Path, alive: list[Run]):
    run = launch(MDSpec(**LONG))
    alive.append(run)
    working(run)
    os.kill(run.files.read("pid.json")["pid"], signal.SIGTERM)
    assert run.wait(20).state == "stopped"
    assert run.reason == "ended by SIGTERM"
    assert (run.files.checkpoints / "md.safetensors").exists()


@pytest.mark.full
def test_a_run_outlives_the_process_that_launched_it(work: Path, alive: list[Run]):
    code = (
        "import mlipkit as mk, sys; run = mk.launch(mk.MDSpec(potential='calc.py:slow', start='calc.py:cluster',"
        " steps=100)); print(run.folder)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    run = open_run(out)
    alive.append(run)
    assert run.wait(60).state == "completed"


@pytest.mark.full
def test_replicas_have_folders_of_their_own_and_all_must_hold(work: Path):
    spec = MDSpec(**{**QUICK, "temperature": 300.0}, steps=40, replicas=3, checks={"temperature": 1.2})
    run = launch(spec).wait(60)
    failed = run.facts().get("failed_replicas", 0)
    assert run.state == ("failed" if failed else "completed")
    for replica in range(3):
        assert len(run.trajectory(replica)) >= 1
        assert len(run.series("md", replica)) >= 1
    assert not np.allclose(run.trajectory(0)[-1].positions, run.trajectory(1)[-1].positions)
    with pytest.raises(RunError, match="no replica 3"):
        run.trajectory(3)
    assert "Replica 2" in run.report().read_text()


@pytest.mark.full
def test_no_zombies_stay(work: Path):
    run = launch(MDSpec(**QUICK, steps=5)).wait(60)
    pid = run.files.read("pid.json")["pid"]
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)


def written(folder: Path, state: str | None, **record) -> Run:
    """A run folder written by hand."""
    folder.mkdir()
    (folder / "spec.yaml").write_text(MDSpec(**QUICK).to_yaml())
    log = EventLog(folder / "events.jsonl")
    log(Message("hello"))
    if state:
        log(Finished(state))  # type: ignore[arg-type]
    log.close()
    (folder / "pid.json").write_text(json.dumps(record))
    return open_run(folder)


def test_state_comes_from_events_and_process(tmp_path: Path):
    me = process.describe()
    assert written(tmp_path / "a", None, **me, phase="running", after_seq=0).state == "running"
    assert written(tmp_path / "b", "failed", **me, phase="running", after_seq=0).state == "failed"
    # The last word is of an earlier attempt: the present one counts.
    assert written(tmp_path / "c", "stopped", **me, phase="paused", after_seq=2).state == "paused"
    recycled = {**me, "identity": "someone else"}
    assert written(tmp_path / "d", None, **recycled, phase="running", after_seq=0).state == "lost"
    far = {**me, "host": "elsewhere", "phase": "running", "after_seq": 0}
    run = written(tmp_path / "e", None, **far)
    run.files.beat()
    assert run.state == "running"
    os.utime(run.files.heartbeat, (0, 0))
    assert run.state == "lost"
    assert written(tmp_path / "f", None, submitted=True, phase="queued").state == "queued"


def test_the_end_cannot_be_moved_behind_what_is_done(tmp_path: Path):
    run = written(tmp_path / "a", "stopped")
    run.files.write("progress.json", {"event": "Progress", "done": 890, "total": 1000, "unit": "step"})
    for fields in ({"steps": 100}, {"time_ps": 0.05}):
        with pytest.raises(SpecError, match=r"done 890 steps already; expected at least 890 steps; found 100\. For a"):
            run.change(**fields)
    assert run.changes == {}
    run.change(steps=890)
    run.change(temperature=200.0)
    assert run.current_spec.steps == 890
