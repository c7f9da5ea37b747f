import pytest

from mlipkit.errors import SpecError
from mlipkit.training import TrainSettings


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"loss": "mse"}, "loss"),
        ({"schedule": "linear"}, "schedule"),
        ({"precision": "float16"}, "precision"),
        ({"energy_unit": "per_structure"}, "energy_unit"),
        ({"batch_size": 0}, "batch_size"),
        ({"patience": 0}, "patience"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"forces_weight": -1.0}, "forces_weight"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"schedule_factor": 1.0}, "schedule_factor"),
        ({"minimum_rate": 1.0}, "minimum_rate"),
        ({"stop_at_minimum_rate": True}, "stop_at_minimum_rate"),
        ({"time_limit_s": -1.0}, "time_limit_s"),
    ],
)
def test_what_cannot_act_is_refused_by_name(values, named):
    with pytest.raises(SpecError, match=named) as error:
        TrainSettings(**values)
    assert "\n" not in str(error.value)


def test_unknown_choice_names_the_nearest():
    with pytest.raises(SpecError, match="did you mean 'plateau'"):
        TrainSettings(schedule="platau")


def test_weights_leave_out_what_is_zero():
    assert TrainSettings(energy_weight=0, forces_weight=2.0).weights() == {"forces": 2.0}
