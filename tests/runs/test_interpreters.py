"""A run may name another Python: checked before there is a folder, used by the worker, written down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mlipkit as mk
from mlipkit.errors import SpecError
from mlipkit.runs.interpreters import check_python, interpreter

SHORT = {"potential": "sample:ethanol_1000", "steps": 5, "stride": 5}


def wrapper(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return str(path)


def test_the_worker_runs_on_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrapper(tmp_path / "other-python", f"echo $2 >> {tmp_path}/called", f'exec {sys.executable} "$@"')
    run = mk.launch(mk.MDSpec(python="./other-python", **SHORT)).wait()
    assert run.state == "completed"
    assert "mlipkit.runs.worker" in (tmp_path / "called").read_text().splitlines()
    assert "python: ./other-python" in (tmp_path / "runs/md_300K/spec.yaml").read_text()


def test_what_cannot_compute_is_refused_before_there_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrapper(tmp_path / "bare", "echo \"ModuleNotFoundError: No module named 'mlipkit'\" >&2", "exit 1")
    for python, message in (
        ("none/python", "no such executable"),
        ("./bare", "No module named 'mlipkit'.*pip install"),
    ):
        with pytest.raises(SpecError, match=f"python: {python}: .*{message}"):
            mk.launch(mk.MDSpec(python=python, **SHORT))
    assert not list((tmp_path).glob("runs/*/spec.yaml"))


def test_environments_are_links(tmp_path):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert interpreter("python", tmp_path) != str(link)
    assert interpreter("./python", tmp_path) == str(link)
    assert interpreter(None, tmp_path) == sys.executable
    check_python(sys.executable, tmp_path)
