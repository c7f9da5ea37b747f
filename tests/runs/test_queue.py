"""The line for the cores of a shared machine: in the order of the clicks, with an honest wait, and nobody blocks it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from mlipkit.errors import RunError
from mlipkit.events import Message, Progress, to_json
from mlipkit.runs import MDSpec, launch, process, queue
from mlipkit.runs import executors as executing
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.queue import Ticket, queue_folder, reserve, wait_of

WORKER = '''
"""The real worker with work that needs no torch."""
import sys, time, types
from pathlib import Path

build = types.ModuleType("mlipkit.runs.build")

def execute(spec, files, base, sink, control):
    from mlipkit import events
    with open(base / "order.txt", "a") as order:
        order.write(files.path.name + "\\n")
    sink(events.Started("toy", spec.steps))
    for step in range(spec.steps):
        if control() == "stop":
            return events.Finished("stopped", "stopped by the user")
        time.sleep(0.01)
        sink(events.Progress(step + 1, spec.steps, "step", 0.01 * (spec.steps - step - 1)))
    return events.Finished("completed")

build.execute = execute
sys.modules["mlipkit.runs.build"] = build
from mlipkit.runs.worker import main
sys.exit(main(sys.argv[1:]))
'''


@pytest.fixture
def toy(work: Path, monkeypatch) -> Path:
    """Launches start a worker whose work is a few hundredths of a second."""
    (work / "toy_worker.py").write_text(WORKER)
    monkeypatch.setattr(executing, "command", lambda folder: [sys.executable, str(work / "toy_worker.py"), str(folder)])
    monkeypatch.setenv("MLIPKIT_CORES", "2")
    return work


def spec(name: str, steps: int = 5) -> MDSpec:
    return MDSpec(potential="calc.py:emt", start="calc.py:cluster", steps=steps, name=name)


def laid(
    folder: Path, threads: int, at: int, running: bool, remaining: float | None, began: float | None = None
) -> Path:
    """A ticket of this process, with a run folder that says how far it is."""
    run = folder / f"run_{at}"
    run.mkdir()
    if remaining is not None:
        RunFolder(run).write("progress.json", to_json(Progress(1, 2, "step", remaining)))
    record = {**process.describe(), "threads": threads, "running": running, "run": str(run)}
    if began is not None:
        record["began"] = time.time() - began
    path = folder / f"{at:020d}-1.json"
    path.write_text(json.dumps(record))
    return path


def test_the_wait_follows_from_those_that_run(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "2")
    laid(tmp_path, 1, 1, True, 100.0, began=50)
    laid(tmp_path, 1, 2, True, 40.0, began=50)
    first, second, third = (laid(tmp_path, 1, at, False, None) for at in (3, 4, 5))
    wait = wait_of(first)
    assert wait.seconds == pytest.approx(40, abs=2)
    assert wait.sentence == "about 40 s to wait"
    # The first one takes as long as those that run are going to (median of 150 and 90 s), from 40 s on.
    assert wait_of(second).seconds == pytest.approx(100, abs=2)
    third_wait = wait_of(third)
    assert third_wait.seconds == pytest.approx(160, abs=3)
    assert third_wait.assumed
    assert third_wait.sentence == "about 3 min to wait if the runs ahead of it take as long as those now running"


def test_a_run_that_wants_all_cores_waits_for_the_last_one(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "2")
    laid(tmp_path, 1, 1, True, 100.0, began=1)
    laid(tmp_path, 1, 2, True, 40.0, began=1)
    assert wait_of(laid(tmp_path, 2, 3, False, None)).seconds == pytest.approx(100, abs=2)


def test_nothing_known_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    laid(tmp_path, 1, 1, True, None)
    wait = wait_of(laid(tmp_path, 1, 2, False, None))
    assert wait.seconds is None
    assert wait.sentence == "wait unknown"


def test_the_place_is_that_of_the_launch_not_of_the_start(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    first, position = reserve(1, process.describe(), tmp_path / "a", tmp_path)
    assert position == 0
    second, position = reserve(1, process.describe(), tmp_path / "b", tmp_path)
    assert position == 2
    # The second process is up before the first.
    late, early = Ticket(1, tmp_path, path=second), Ticket(1, tmp_path, path=first)
    assert late.ask() == 2
    assert early.ask() == 0
    assert late.ask() == 1
    early.give_back()
    assert late.ask() == 0


def test_two_users_have_two_lines(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("MLIPKIT_QUEUE", raising=False)
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    mine = queue_folder()
    assert mine.stat().st_mode & 0o777 == 0o700
    held = Ticket(1)
    assert held.ask() == 0
    assert Ticket(1).ask() == 1
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    theirs = tmp_path / f"mlipkit-queue-{uid + 1}"
    with pytest.raises(RunError, match="belongs to another user"):
        queue_folder()  # made by us, who are not that user
    monkeypatch.setattr(queue, "_owner", lambda path: uid + 1)
    assert queue_folder() == theirs != mine
    assert Ticket(1).ask() == 0


def test_position_and_wait_stand_in_the_run(toy: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    first = launch(spec("first", 2000))
    second = launch(spec("second"))
    third = launch(spec("third"))
    assert third.queue_position == 3 or third.queue_position == 2  # the first may run by now
    assert "in the queue for free cores" in third.reason
    end = time.monotonic() + 60
    while ("to wait" not in third.reason or (second.queue_position, third.queue_position) != (1, 2)) and (
        time.monotonic() < end
    ):
        time.sleep(0.1)  # each looks by itself where it stands
    assert third.reason.startswith("number 2 in the queue for free cores, about ")
    assert "if the runs ahead of it take as long" in third.reason
    assert third.queue_wait is not None
    assert 0 < third.queue_wait < 60
    assert second.queue_position == 1
    # A killed one in the line is no longer waited for.
    os.kill(second.files.read("pid.json")["pid"], signal.SIGKILL)
    while third.queue_position != 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert third.queue_position == 1
    assert second.state == "lost"
    first.stop()
    assert third.wait(60).state == "completed"


def test_a_run_that_waits_for_another_holds_nobody_up(toy: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    first = launch(spec("first", 1000))
    heir = launch(MDSpec(potential="calc.py:emt", start="runs/first@0", steps=5, name="heir"))
    assert len(list(queue_folder().glob("*.json"))) <= 1
    first.stop()
    first.wait(60)
    heir.stop()
    heir.wait(60)
    assert not list(queue_folder().glob("*.json"))


@pytest.mark.full
def test_thirty_launches_all_finish_in_order_and_clicks_answer(toy: Path):
    clicks, runs = [], []

    def click(action):
        begin = time.monotonic()
        found = action()
        clicks.append(time.monotonic() - begin)
        return found

    for number in range(30):
        runs.append(click(lambda: launch(spec(f"r{number:02d}"))))  # noqa: B023
    while any(click(lambda: run.active) for run in runs[-3:]):  # noqa: B023
        for run in runs[::6]:
            click(lambda: run.sentence)  # noqa: B023
        time.sleep(0.2)
    assert [run.wait(30).state for run in runs] == ["completed"] * 30
    order = [int(line[1:]) for line in (toy / "order.txt").read_text().split()]
    # Two run at a time: neighbours may begin in either order, nobody overtakes more.
    assert sorted(order) == list(range(30))
    assert max(abs(place - number) for place, number in enumerate(order)) <= 1
    assert not list(queue_folder().glob("*.json"))
    assert sorted(clicks)[-1] < 5, sorted(clicks)[-5:]  # 1 s on a machine of its own; see benchmarks/class_of_runs.py


def test_a_hub_is_said_once_in_the_run(toy: Path, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    run = launch(spec("hubbed", 2000))
    end = time.monotonic() + 60
    while not any(isinstance(event, Message) for event in run.events()) and time.monotonic() < end:
        time.sleep(0.1)
    run.stop()
    run.wait(60)
    run.resume()
    time.sleep(1)
    run.stop()
    run.wait(60)
    said = [event for event in run.events() if isinstance(event, Message) and "JupyterHub" in event.text]
    assert len(said) == 1
    assert said[0].level == "warning"
    monkeypatch.delenv("JUPYTERHUB_USER")
    other = launch(spec("free")).wait(60)
    assert not [event for event in other.events() if isinstance(event, Message)]


def test_a_ticket_that_says_nothing_of_use_holds_nobody_up(tmp_path: Path):
    alive = process.describe()
    for number, record in enumerate(([], "text", {}, {**alive}, {**alive, "threads": "all", "running": True})):
        (tmp_path / f"000{number}.json").write_text(json.dumps(record))
    ticket = Ticket(1, tmp_path)
    assert ticket.ask() == 0
    assert wait_of(tmp_path / "nobody.json").seconds is None
    ticket.give_back()
