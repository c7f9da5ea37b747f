"""Measurements that took longer than a question may are known the next time, and only for the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk, molecule

from mlipkit.runs import applying, remembered, what_applies
from mlipkit.runs.probing import LATE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLIPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


FIGURES = {"new_gradient": 0.01, "new_bytes": 100_000_000, "potential_gradient": 0.5, "potential_bytes": 10**9,
           "potential_call": 0.1, "label": 2.0, "label_bytes": 10**8}  # fmt: skip


class Slow:
    """Stands in for a child process: says nothing in time, or all of it when there is time enough."""

    enough = False

    def __init__(self, _what: str, place: str, _base: Path) -> None:
        self.place = place

    def frame(self, _atoms: object) -> None: ...

    def close(self) -> None: ...

    def until(self, _deadline: float) -> dict:
        return dict(FIGURES) if Slow.enough else {"error": LATE}


def test_what_was_measured_once_is_known_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "Probe", Slow)
    monkeypatch.setattr(Slow, "enough", False)
    first = what_applies("sample:ice_ih", "universal:sevennet-0")
    assert first.late
    assert first["finetune"].expected.seconds is None
    monkeypatch.setattr(Slow, "enough", True)
    whole = what_applies("sample:ice_ih", "universal:sevennet-0")
    assert not whole.late
    assert not any("measured here on" in note for note in whole.notes)
    monkeypatch.setattr(Slow, "enough", False)
    again = what_applies("sample:ice_ih", "universal:sevennet-0")
    assert not again.late
    assert again["finetune"].expected == whole["finetune"].expected
    assert any(note.startswith("What universal:sevennet-0 takes was measured here on") for note in again.notes)
    other = what_applies("sample:ethanol_600K", "universal:sevennet-0")
    assert other.late, "another frame is another measurement"
    assert other["finetune"].expected.seconds is None


def test_a_key_tells_apart_what_changes_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copper = bulk("Cu", cubic=True)
    wide = copper.copy()
    wide.set_cell(copper.cell * 1.3, scale_atoms=True)
    moved = copper.copy()
    moved.rattle(0.05)
    base = remembered.key_of("potential", "m.safetensors", tmp_path, copper)
    assert remembered.key_of("potential", "m.safetensors", tmp_path, moved) == base, "thermal motion does not matter"
    keys = [
        base, remembered.key_of("label", "m.safetensors", tmp_path, copper),
        remembered.key_of("potential", "other", tmp_path, copper),
        remembered.key_of("potential", "m.safetensors", tmp_path, wide),
        remembered.key_of("potential", "m.safetensors", tmp_path, copper * 2),
        remembered.key_of("potential", "m.safetensors", tmp_path, molecule("H2O")),
    ]  # fmt: skip
    (tmp_path / "m.safetensors").write_bytes(b"one")
    keys.append(remembered.key_of("potential", "m.safetensors", tmp_path, copper))
    monkeypatch.setattr(remembered, "_machine", lambda: ["elsewhere"])
    keys.append(remembered.key_of("potential", "m.safetensors", tmp_path, copper))
    monkeypatch.setattr(remembered, "_versions", lambda: {"torch": "99"})
    keys.append(remembered.key_of("potential", "m.safetensors", tmp_path, copper))
    assert len(set(keys)) == len(keys)


def test_a_damaged_or_missing_memory_is_none(cache: Path) -> None:
    assert remembered.find("x") is None
    remembered.keep("x", {"label": 1.0})
    found = remembered.find("x")
    assert found is not None
    assert found[0] == {"label": 1.0}
    (path,) = (cache / "probes").iterdir()
    path.write_text("{torn")
    assert remembered.find("x") is None
    path.write_text('{"format": "mlipkit-probe-1", "figures": 3}')
    assert remembered.find("x") is None
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")
    remembered.keep("x", {"label": 1.0})
    assert remembered.find("x") is None
