"""Whether atoms leave the training space: a made-up space with a wall that atoms walk through."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from md_systems import FreeGas

from mlipkit.errors import SpecError
from mlipkit.events import Judged
from mlipkit.md import OutsideCheck, build_checks, simulate, state_from_atoms
from mlipkit.md.outside_check import HARVEST

WALL = 2.05


class Walled:
    """The score of an atom is its x; hydrogen must stay below the wall, other elements were never seen."""

    quantity = "height"

    def __init__(self, flicker: bool = False) -> None:
        self.flicker, self.n_calls = flicker, 0

    def score(self, numbers, positions, cell, pbc):
        self.n_calls += 1
        scores = positions[:, 0].copy()
        if self.flicker and self.n_calls % 2:
            scores[:] = 0.0
        return scores, np.where(numbers == 1, WALL, np.nan)


def walkers(replicas: int = 1, speed: float = 0.01, symbols: str = "H2"):
    """Two atoms, far apart, of which the second walks along x by 0.01 Å each fs."""
    state = state_from_atoms(Atoms(symbols, [[0, 0, 0], [0, 9, 0]]), replicas=replicas)
    state.velocities = torch.zeros_like(state.positions)
    state.velocities[1::2, 0] = speed
    return state


def run(folder, scorer=None, steps=400, state=None, **options):
    said: list[Judged] = []
    checks = {"outside": OutsideCheck(scorer=scorer or Walled(), **options), "lone_atoms": False}
    verdict = simulate(
        state or walkers(), FreeGas(), "nve", steps=steps, timestep=1.0, folder=folder, checks=checks,
        sink=lambda event: said.append(event) if isinstance(event, Judged) else None,
    )  # fmt: skip
    return verdict, [event.verdict for event in said]


def test_it_warns_at_the_second_look_behind_the_wall_and_names_the_atom(tmp_path):
    verdict, said = run(tmp_path)
    # x = 2.2 Å at step 220 is the first look above the wall, that at step 240 the second.
    assert (verdict.outcome, verdict.check, verdict.step, verdict.atoms) == ("warning", "outside", 240, (1,))
    assert said[0].limit == pytest.approx(WALL)
    assert said[0].value == pytest.approx(2.4)
    assert "H1 outside training space (height of H1 2.4, limit 2.05)" in said[0].sentence


def test_it_is_quiet_inside_and_when_the_score_flickers(tmp_path):
    assert run(tmp_path / "inside", steps=180)[0].outcome == "ok"
    scorer = Walled(flicker=True)
    assert run(tmp_path / "flicker", scorer)[0].outcome == "ok"
    assert scorer.n_calls > 10


def test_it_fails_where_it_is_told_to_and_alone(tmp_path):
    state = walkers(replicas=2)
    state.velocities[3, 0] = 0.0
    verdict, _ = run(tmp_path, state=state, fail=1.5)
    assert (verdict.outcome, verdict.replica, verdict.step) == ("failed", 0, 340)
    assert state.step == 400


def test_an_element_never_seen_is_outside_at_once(tmp_path):
    verdict, _ = run(tmp_path, state=walkers(symbols="HO"), steps=40)
    assert (verdict.outcome, verdict.step, verdict.atoms) == ("warning", 20, (1,))


def test_it_keeps_frames_apart_in_time_and_no_more_than_asked(tmp_path):
    run(tmp_path, keep=3, apart=35.0)
    kept = read(tmp_path / HARVEST, ":")
    assert [frame.info["step"] for frame in kept] == [240, 280, 320]
    assert kept[0].positions[1, 0] == pytest.approx(2.4)
    assert kept[0].info["largest_score"] == pytest.approx(2.4)


def test_a_resumed_simulation_keeps_the_same_frames_and_says_the_same(tmp_path):
    whole, _ = run(tmp_path / "whole", keep=5, apart=15.0)
    for steps in (230, 270, 400):
        again, _ = run(tmp_path / "parts", steps=steps, keep=5, apart=15.0)
    assert again == whole
    frames = [read(tmp_path / name / HARVEST, ":") for name in ("whole", "parts")]
    assert [f.info["step"] for f in frames[0]] == [f.info["step"] for f in frames[1]] == [240, 260, 280, 300, 320]


def test_frames_of_steps_behind_the_checkpoint_do_not_stay(tmp_path):
    run(tmp_path, steps=230, keep=5, apart=15.0)
    checkpoint = (tmp_path / "checkpoints/md.safetensors").read_bytes()
    run(tmp_path, steps=270, keep=5, apart=15.0)
    assert len(read(tmp_path / HARVEST, ":")) == 2
    # As if the process had died before step 270; this time the atom never gets there.
    (tmp_path / "checkpoints/md.safetensors").write_bytes(checkpoint)
    run(tmp_path, Walled(flicker=True), steps=270, keep=5, apart=15.0)
    assert not (tmp_path / HARVEST).exists()


def test_frames_that_a_checkpoint_counts_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    run(tmp_path, steps=250, keep=1)
    assert (tmp_path / HARVEST).stat().st_ino in synced


def test_an_atom_without_score_or_limit_hides_no_other(tmp_path):
    class Exact(Walled):
        def score(self, numbers, positions, cell, pbc):
            scores, limits = super().score(numbers, positions, cell, pbc)
            limits[0] = 0.0
            return scores, limits

    verdict, _ = run(tmp_path, Exact())
    assert (verdict.outcome, verdict.step, verdict.atoms) == ("warning", 240, (1,))


def test_positions_that_are_no_numbers_are_left_to_the_check_of_numbers(tmp_path):
    state = walkers()
    state.velocities[1, 0] = torch.inf
    assert run(tmp_path, state=state)[0].check == "finite"


def test_it_is_no_check_that_a_name_alone_can_switch_on():
    with pytest.raises(SpecError, match="unknown check 'outside'"):
        build_checks({"outside": True})
    with pytest.raises(SpecError, match="needs a scorer"):
        OutsideCheck()
