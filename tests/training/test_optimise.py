import math

import pytest
import torch
from emt_sets import clusters, make_potential
from torch import nn

from mlipkit.errors import RunError
from mlipkit.training import TrainSettings
from mlipkit.training.optimise import LearningRate, MovingAverage, adamw, clip, optimiser_tensors, restore_optimiser


def test_constant_after_linear_warm_up():
    rate = LearningRate(TrainSettings(learning_rate=1.0, schedule="constant", warmup_steps=3), 10)
    assert [rate.rate(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_step_schedule_halves_every_so_many_epochs_down_to_the_minimum():
    settings = TrainSettings(learning_rate=1.0, schedule="step", schedule_epochs=2, minimum_rate=0.3)
    rate = LearningRate(settings, steps_per_epoch=5)
    assert [rate.rate(step) for step in (0, 9, 10, 19, 20, 1000)] == [1.0, 1.0, 0.5, 0.5, 0.3, 0.3]


def test_cosine_spans_the_planned_steps():
    settings = TrainSettings(learning_rate=1.0, schedule="cosine", minimum_rate=0.1, max_epochs=4, warmup_steps=0)
    rate = LearningRate(settings, steps_per_epoch=25)
    assert rate.planned == 100
    assert rate.rate(0) == 1.0
    assert rate.rate(50) == pytest.approx(0.55)
    assert rate.rate(100) == pytest.approx(0.1)
    assert rate.rate(500) == pytest.approx(0.1)
    shorter = LearningRate(TrainSettings(schedule="cosine", max_epochs=4, max_steps=60), 25)
    assert shorter.planned == 60


def test_plateau_waits_patience_then_reduces_then_stops_at_the_minimum():
    settings = TrainSettings(
        learning_rate=1.0, schedule="plateau", schedule_patience=2, schedule_factor=0.5, minimum_rate=0.4
    )
    rate = LearningRate(settings, 1)
    reduced = [rate.epoch_ends(value) for value in (3.0, 2.0, 2.0, 2.5, 2.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)]
    assert reduced == [False, False, False, False, True, False, False, False, True, False, False, False]
    assert rate.rate(0) == 0.4
    assert rate.at_minimum


def test_plateau_counts_an_objective_that_is_not_a_number_as_no_improvement():
    rate = LearningRate(TrainSettings(schedule="plateau", schedule_patience=1), 1)
    assert [rate.epoch_ends(math.inf), rate.epoch_ends(math.inf)] == [False, True]


def test_schedule_state_comes_back():
    settings = TrainSettings(learning_rate=1.0, stage_learning_rate=0.5, schedule_patience=1)
    rate = LearningRate(settings, 4)
    rate.new_stage(7, 4)
    for value in (3.0, 3.0, 3.0):
        rate.epoch_ends(value)
    again = LearningRate(settings, 4)
    again.restore(rate.state())
    assert again.rate(8) == rate.rate(8) == 0.25
    assert again.state() == rate.state()


def test_moving_average_by_hand_and_weights_bit_for_bit_back():
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(1.0)
    average = MovingAverage(module, decay=0.5)
    expected = 1.0
    for n, value in enumerate((2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0)):
        module.weight.data.fill_(value)
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert float(average.average["weight"]) == pytest.approx(expected, rel=1e-12)
    own = module.weight.detach().clone()
    with average.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(module.weight, own)
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert torch.equal(module.weight, own)


def test_moving_average_must_fit():
    module = nn.Linear(2, 1)
    with pytest.raises(RunError, match="bias"):
        MovingAverage(module, 0.9).restore({"weight": torch.zeros(1, 2)}, 3)


def test_decay_acts_on_matrices_only():
    potential = make_potential(clusters(2, seed=0))
    decayed, rest = adamw(potential, TrainSettings(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    inside = {id(p) for p in decayed["params"]}
    for name, parameter in potential.named_parameters():
        assert (id(parameter) in inside) == (parameter.ndim >= 2 and "embedding" not in name), name


def test_frozen_weights_are_not_optimised():
    potential = make_potential(clusters(2, seed=0))
    potential.encoder.requires_grad_(False)
    groups = adamw(potential, TrainSettings()).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(potential.head.parameters()))


def test_optimiser_state_comes_back_bit_for_bit():
    torch.manual_seed(0)
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(module.state_dict())
    first, second = (adamw(m, TrainSettings()) for m in (module, other))
    data = torch.randn(5, 3)

    def step(m, optimiser):
        optimiser.zero_grad()
        (m(data) ** 2).sum().backward()
        optimiser.step()

    for _ in range(3):
        step(module, first)
    other.load_state_dict(module.state_dict())
    restore_optimiser(second, other, optimiser_tensors(first, module))
    for _ in range(3):
        step(module, first)
        step(other, second)
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


def test_foreign_optimiser_state_is_refused():
    module = nn.Linear(3, 2)
    with pytest.raises(RunError, match="weight"):
        restore_optimiser(adamw(module, TrainSettings()), module, {"exp_avg/weight": torch.zeros(4)})


@pytest.mark.parametrize("bound", [None, 100.0, 2.5])
def test_clipping_reports_the_norm_before(bound):
    module = nn.Linear(2, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert float(clip(module, bound)) == pytest.approx(5.0)
    scale = 0.5 if bound == 2.5 else 1.0
    assert module.weight.grad[0, 0].item() == pytest.approx(3.0 * scale, rel=1e-5)
    assert module.bias.grad.item() == pytest.approx(4.0 * scale, rel=1e-5)
