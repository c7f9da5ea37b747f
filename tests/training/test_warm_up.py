"""What is compiled on first use is compiled before the clock starts, and leaves no trace."""

from __future__ import annotations

import emt_sets
import torch

from mlipkit.training import preflight


def test_leaves_weights_slopes_and_random_numbers_alone():
    frames = emt_sets.clusters(3, seed=0)
    potential = emt_sets.make_potential(frames)
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    generator = torch.random.get_rng_state()
    preflight.warm_up(potential, frames, lambda _: None)
    assert torch.equal(torch.random.get_rng_state(), generator)
    for name, value in potential.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name
    assert all(parameter.grad is None for parameter in potential.parameters())


def test_a_long_one_is_announced(monkeypatch):
    frames = emt_sets.clusters(3, seed=0)
    monkeypatch.setattr(preflight, "WORTH_SAYING_S", 0.0)
    said = []
    preflight.warm_up(emt_sets.make_potential(frames), frames, said.append)
    assert [message.text[:14] for message in said] == ["Loops compiled"]
