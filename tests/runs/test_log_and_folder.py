"""Event log, small files, process identity and the waiting line for cores."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlipkit.errors import RunError
from mlipkit.events import Finished, Message, Saved
from mlipkit.runs import process
from mlipkit.runs.control import FolderControl
from mlipkit.runs.folder import RunFolder, fingerprint, read_json, write_text
from mlipkit.runs.log import EventLog, EventTail
from mlipkit.runs.queue import Ticket, cores


def test_log_numbers_go_on_and_the_tail_reads_only_what_is_new(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.read() == []
    log = EventLog(path)
    log(Message("a"))
    assert [entry.seq for entry in tail.read()] == [1]
    assert tail.read() == []
    log.close()
    log = EventLog(path)
    log(Saved("x", "checkpoint", {"value": np.float32(1.5), "list": np.arange(2)}))
    (entry,) = tail.read()
    assert entry.seq == 2
    assert entry.event == Saved("x", "checkpoint", {"value": 1.5, "list": [0, 1]})
    assert abs(entry.t - time.time()) < 10


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_torn_last_line_is_tolerated_by_reader_and_next_writer(tmp_path: Path, cut: int):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(Message("whole"))
    log(Message("torn"))
    log.close()
    path.write_bytes(path.read_bytes()[:-cut])
    tail = EventTail(path)
    assert [entry.event for entry in tail.read()] == [Message("whole")]
    log = EventLog(path)
    log(Message("after the crash"))
    log.close()
    texts = [entry.event.text for entry in tail.read()]  # type: ignore[union-attr]
    # Only the end of the line was lost when one byte, the line end, is missing: then the event itself is whole.
    assert texts == (["torn", "after the crash"] if cut == 1 else ["after the crash"])
    seqs = [entry.seq for entry in EventTail(path).read()]
    assert seqs == sorted(set(seqs))


def test_unknown_events_of_a_newer_version_are_passed_over(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    lines = [{"seq": 1, "t": 0, "event": "Teleported"}, {"seq": 2, "t": 0, "event": "Message", "text": "a", "new": 1}]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n[]\n\xff\n", encoding="latin-1")
    assert [entry.event for entry in EventTail(path).read()] == [Message("a")]


def test_small_files_are_replaced_whole(tmp_path: Path):
    path = tmp_path / "a.json"
    write_text(path, '{"a": 1}')
    write_text(path, '{"a": 2}', durable=False)
    assert read_json(path) == {"a": 2}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "none.json") == {}
    path.write_text("[1]")
    with pytest.raises(RunError, match=r"a\.json"):
        read_json(path)


def test_fingerprint_sees_a_change(tmp_path: Path):
    path = tmp_path / "data.xyz"
    path.write_text("a")
    first = fingerprint(path), fingerprint(path, whole_below=0), fingerprint(tmp_path)
    path.write_text("bc")
    second = fingerprint(path), fingerprint(path, whole_below=0), fingerprint(tmp_path)
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_a_recycled_process_number_is_not_mistaken():
    mine = process.describe()
    assert process.is_alive(mine) is True
    assert process.is_alive({**mine, "identity": "another start"}) is False
    assert process.is_alive({**mine, "host": "elsewhere"}) is None
    assert process.is_alive({}) is False


def test_a_zombie_counts_as_gone():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    record = process.describe(child.pid)
    end = time.monotonic() + 20
    while process.is_alive(record) and time.monotonic() < end:
        time.sleep(0.02)
    assert process.is_alive(record) is False
    child.wait()


def test_tickets_run_in_the_order_they_came(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "2")
    assert cores() == 2
    a, b, c, d = (Ticket(threads, tmp_path) for threads in (1, 1, 5, 1))
    assert [t.ask() for t in (a, b, c, d)] == [0, 0, 1, 2]
    a.give_back()
    assert [c.ask(), d.ask()] == [1, 2]  # c wants all cores and is not overtaken for ever
    b.give_back()
    assert [c.ask(), d.ask()] == [0, 1]
    c.give_back()
    assert d.ask() == 0


def test_a_dead_process_blocks_nobody(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLIPKIT_CORES", "1")
    code = (
        "import pathlib, sys; from mlipkit.runs.queue import Ticket; print(Ticket(1, pathlib.Path(sys.argv[1])).ask())"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "0"
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert Ticket(1, tmp_path).ask() == 0


@pytest.fixture
def control(tmp_path: Path):
    files, calls = RunFolder(tmp_path), []
    log = EventLog(files.events)
    cores = [False, True]
    yield files, calls, FolderControl(files, log, lambda: calls.append("pause"), lambda: cores.pop(0))
    log.close()


def ask(control: FolderControl, request: str | None = None) -> str:
    if request is not None:
        control.files.write("control.json", {"request": request})
    time.sleep(0.12)
    return control()


def test_control_reads_requests_and_signals(control):
    files, _, listen = control
    assert listen() == "run"
    assert ask(listen, "stop") == "stop"
    assert ask(listen, "run") == "run"
    listen.signal = "SIGTERM"
    assert ask(listen) == "stop"
    assert files.heartbeat_age() < 5


def test_control_reads_at_most_ten_times_a_second(control, monkeypatch):
    _, _, listen = control
    reads = []
    monkeypatch.setattr(RunFolder, "read", lambda self, name: reads.append(name) or {})
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        listen()
    assert 3 <= len(reads) <= 6


def test_a_change_asks_the_work_to_stop_until_taken(control):
    files, _, listen = control
    assert listen() == "run"
    files.write("control.json", {"request": "run", "revision": 1})
    assert ask(listen) == "stop"
    assert listen.changed
    listen.take_changes()
    assert listen() == "run"


def test_pause_lasts_until_it_is_lifted_and_there_are_cores(control):
    files, calls, listen = control
    assert ask(listen, "pause") == "pause"
    assert ask(listen) == "pause"
    assert calls == ["pause"]
    assert ask(listen, "run") == "pause"  # no core is free yet
    assert ask(listen) == "run"
    assert ask(listen, "pause") == "pause"
    assert calls == ["pause"], "a pause begins when what is under way has been saved: at the second answer"
    assert ask(listen) == "pause"
    assert calls == ["pause", "pause"]
    assert ask(listen, "stop") == "stop"
    texts = [entry.event.text for entry in EventTail(files.events).read()]  # type: ignore[union-attr]
    assert texts.count("paused by the user") == 2


def test_a_control_file_broken_by_hand_changes_nothing(control):
    files, _, listen = control
    (files.path / "control.json").write_text("{")
    assert ask(listen) == "run"


def test_finished_round_trip(tmp_path: Path):
    log = EventLog(tmp_path / "e.jsonl")
    log(Finished("failed", "too hot", {"seconds": 1.0}))
    log.close()
    assert EventTail(tmp_path / "e.jsonl").read()[0].event == Finished("failed", "too hot", {"seconds": 1.0})
