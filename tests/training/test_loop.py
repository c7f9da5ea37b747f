"""One call of `train`: what it learns, writes, says and refuses."""

import json
import time

import numpy as np
import pytest
import torch
from emt_sets import clusters, crystals, make_potential
from torch import nn

from mlipkit.data import Series
from mlipkit.errors import DataError, LabelError, ModelError, SpecError
from mlipkit.events import Evaluated, Message, Progress, Saved, Started
from mlipkit.models import load
from mlipkit.models.heads import AuxiliaryHead
from mlipkit.training import EnergyForcesStress, FrameSource, TrainSettings, evaluate, train
from mlipkit.training.checkpoint import read_header

TRAIN, VALIDATION = clusters(24, seed=1, sizes=(5, 4)), clusters(10, seed=2, sizes=(5, 4))
QUICK = {"max_epochs": 2, "batch_size": 6}


class Log(list):
    def __call__(self, event):
        self.append(event)

    def of(self, kind):
        return [event for event in self if isinstance(event, kind)]

    def texts(self):
        return " | ".join(message.text for message in self.of(Message))


def run(folder, log=None, potential=None, frames=TRAIN, validation=VALIDATION, control=None, terms=None, **settings):
    potential = make_potential(TRAIN) if potential is None else potential
    more = {} if control is None else {"control": control}
    settings = TrainSettings(**{**QUICK, **settings})
    return train(
        potential, frames, validation, settings, folder=folder, sink=Log() if log is None else log, terms=terms, **more
    )


@pytest.mark.full
@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
def test_learning_lowers_errors(tmp_path, loss):
    potential = make_potential(TRAIN, features=16, layers=2)
    before = evaluate(potential, VALIDATION)
    result = run(
        tmp_path, potential=potential, loss=loss, max_epochs=60, batch_size=4, learning_rate=5e-3, ema_decay=0.9
    )
    after = result.metrics["validation"]
    assert after["forces_mae"] < 0.45 * before["forces_mae"]
    assert after["energy_mae"] < 0.45 * before["energy_mae"]
    assert after["forces_mae"] == pytest.approx(evaluate(potential, VALIDATION)["forces_mae"])


@pytest.mark.full
def test_stress_is_learnt(tmp_path):
    frames, held = crystals(8, seed=1), crystals(4, seed=2)
    potential = make_potential(frames, features=12)
    before = evaluate(potential, held)
    result = run(
        tmp_path, potential=potential, frames=frames, validation=held, stress_weight=100.0, max_epochs=25, batch_size=2,
        learning_rate=5e-3, ema_decay=None,
    )  # fmt: skip
    assert result.metrics["validation"]["stress_mae"] < 0.6 * before["stress_mae"]


def test_the_first_evaluation_comes_before_the_first_step(tmp_path):
    log, potential = Log(), make_potential(TRAIN)
    before = evaluate(potential, VALIDATION)
    run(tmp_path, log, potential)
    first = log.of(Evaluated)[0]
    assert (first.epoch, first.step) == (0, 0)
    assert first.metrics["validation"]["forces_mae"] == pytest.approx(before["forces_mae"])
    assert "train" not in first.metrics
    assert [event.epoch for event in log.of(Evaluated)] == [0, 1, 2]


def test_folder_holds_series_checkpoints_and_one_table(tmp_path):
    log = Log()
    potential = make_potential(TRAIN)
    settings = TrainSettings(**QUICK)
    result = train(potential, TRAIN, VALIDATION, settings, folder=tmp_path, sink=log, test=clusters(3, seed=9))
    steps = Series(tmp_path / "series" / "training").read()
    assert steps["step"].tolist() == list(range(1, 9))
    assert steps["epoch"].tolist() == [1] * 4 + [2] * 4
    assert steps["loss"] == pytest.approx(steps["loss_energy"] + steps["loss_forces"])
    assert (steps["learning_rate"] == 1e-3).all()
    assert (steps["grad_norm"] > 0).all()
    assert (np.diff(steps["seconds"]) > 0).all()
    epochs = Series(tmp_path / "series" / "validation").read()
    assert epochs["step"].tolist() == [0, 4, 8]
    assert epochs["train_loss"][1:] == pytest.approx([steps["loss"][:4].mean(), steps["loss"][4:].mean()])
    assert np.isnan(epochs["train_loss"][0])
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["metrics"] == result.metrics
    assert set(result.metrics) == {"train", "validation", "test"}
    assert set(result.metrics["train"]) == set(result.metrics["validation"])
    assert {saved.what for saved in log.of(Saved)} >= {"best checkpoint", "last checkpoint"}
    last = log.of(Progress)[-1]
    assert (last.done, last.total) == (8, 8)


@pytest.mark.parametrize("ema_decay", [None, 0.99])
def test_checkpoints_are_potentials_that_know_epoch_step_and_metric(tmp_path, ema_decay):
    potential = make_potential(TRAIN)
    result = run(tmp_path, potential=potential, ema_decay=ema_decay)
    best, last = load(result.best), load(result.last)
    for name, value in potential.state_dict().items():
        assert torch.equal(value, best.state_dict()[name]) or value.isnan().any(), name
    card = json.loads(result.best.with_suffix(".json").read_text())
    assert read_header(result.best)["card"] == card
    assert (card["epoch"], card["step"]) == (result.best_epoch, result.best_step)
    assert card["metric"] == pytest.approx(result.best_objective)
    figures = evaluate(best, VALIDATION)
    assert figures["forces_mae"] == pytest.approx(card["metrics"]["validation"]["forces_mae"])
    # `last` is the potential of the last evaluation too, and carries the raw weights beside it.
    card = json.loads(result.last.with_suffix(".json").read_text())
    assert (card["epoch"], card["step"]) == (2, 8)
    assert evaluate(last, VALIDATION)["forces_mae"] == pytest.approx(card["metrics"]["validation"]["forces_mae"])
    assert load(tmp_path).state_dict().keys() == best.state_dict().keys()


def test_best_is_kept_when_training_makes_it_worse(tmp_path):
    potential = make_potential(TRAIN)
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    result = run(tmp_path, potential=potential, learning_rate=0.3, ema_decay=None)
    assert result.best_epoch == 0
    for name, value in potential.state_dict().items():
        assert torch.equal(torch.nan_to_num(value.float()), torch.nan_to_num(before[name].float()))


def test_early_stopping_and_limits(tmp_path):
    harmful = {"learning_rate": 0.3, "ema_decay": None}
    result = run(tmp_path / "a", max_epochs=50, patience=3, **harmful)
    assert (result.state, result.ending, result.epoch) == ("completed", "early_stopping", 3)
    result = run(tmp_path / "b", max_steps=6)
    assert (result.ending, result.step, result.epoch) == ("max_steps", 6, 1)
    assert Series(tmp_path / "b" / "series" / "validation").read()["step"].tolist() == [0, 4, 6]
    result = run(tmp_path / "c", max_epochs=10**6, time_limit_s=0.7)
    assert result.ending == "time_limit"
    assert 0.7 <= result.seconds < 3.0
    assert result.step > 0


def test_patience_can_wait_for_the_minimum_rate(tmp_path):
    settings = TrainSettings(
        batch_size=6, max_epochs=50, patience=2, stop_at_minimum_rate=True, monitor="same", schedule_patience=2,
        schedule_factor=0.2, minimum_rate=5e-4,
    )  # fmt: skip

    class Same:
        figures = {"same": ""}  # noqa: RUF012

        def __call__(self, potential):
            return {"same": 1.0}

    result = train(make_potential(TRAIN), TRAIN, VALIDATION, settings, folder=tmp_path, validate=Same())
    # Two epochs of plateau patience, one that reduces to the minimum (and counts), one more without gain.
    assert (result.ending, result.epoch) == ("early_stopping", 4)


def test_stop_leaves_a_measured_state_and_says_stopped(tmp_path):
    calls = iter(range(100))
    result = run(tmp_path, max_epochs=50, control=lambda: "stop" if next(calls) >= 6 else "run")
    assert (result.state, result.ending, result.step) == ("stopped", "user", 6)
    assert read_header(result.last)["card"]["metric"] is not None


def test_pause_blocks_saves_and_counts_no_time(tmp_path):
    log, asked = Log(), []

    def control():
        asked.append(time.monotonic())
        return "pause" if 5 <= len(asked) < 10 else "run"

    result = run(tmp_path, log, control=control)
    assert result.step == 8
    assert "Paused after step 4" in log.texts()
    assert asked[9] - asked[4] > 0.4
    steps = Series(tmp_path / "series" / "training").read("seconds")["seconds"]
    assert steps[4] - steps[3] < 0.3


def test_a_control_that_holds_the_call_counts_no_time_either(tmp_path):
    calls = iter(range(100))

    def control():
        if next(calls) == 5:
            time.sleep(1.0)
        return "run"

    assert run(tmp_path, control=control).seconds < 1.0


def test_a_weighted_label_that_no_frame_has_is_an_error(tmp_path):
    bare = TRAIN.with_labels(forces=np.nan)
    with pytest.raises(LabelError, match=r"'forces'.*energy 24/24, forces 0/24") as error:
        run(tmp_path, frames=bare)
    assert "\n" not in str(error.value)
    assert run(tmp_path / "energies", frames=bare, forces_weight=0).step == 8


def test_partial_labels_are_masked_and_reported(tmp_path):
    energy, forces = TRAIN.energy.copy(), TRAIN.forces.copy()
    energy[:3] = np.nan
    forces[2] = np.nan
    log = Log()
    run(tmp_path, log, frames=TRAIN.with_labels(energy=energy, forces=forces))
    assert "energy 21/24, forces 24/24" in log.texts()
    assert log.of(Started)[0].facts["labels"] == {"energy": 21, "forces": 24, "stress": 0}
    assert np.isfinite(Series(tmp_path / "series" / "training").read("loss")["loss"]).all()


def test_energies_that_do_not_belong_to_the_atomic_energies_are_refused(tmp_path):
    shifted = TRAIN.with_labels(energy=TRAIN.energy - 2000.0 * TRAIN.n_atoms)
    with pytest.raises(DataError, match="eV per atom"):
        run(tmp_path, frames=shifted)
    assert run(tmp_path / "forces only", frames=shifted, energy_weight=0).step == 8


def test_what_cannot_work_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ModelError, match="Al"):
        run(tmp_path, validation=type(TRAIN).from_arrays([13, 13], np.eye(3)[:2] * 3, 2, energy=[0.0]))
    with pytest.raises(DataError, match="validation"):
        run(tmp_path, validation=VALIDATION[:0])
    with pytest.raises(SpecError, match="forces_mae"):
        run(tmp_path, monitor="force_mae")
    for device in ("mps", "cuda:99", "gpu"):
        with pytest.raises(SpecError, match=device):
            run(tmp_path, device=device)
    aluminium = type(TRAIN).from_arrays([13, 13], np.eye(3)[:2] * 3, 2, energy=[0.0])
    for test, error, words in (
        (aluminium, ModelError, "Al"),
        (VALIDATION.with_labels(np.nan, np.nan), LabelError, "test"),
    ):
        with pytest.raises(error, match=words):
            train(make_potential(TRAIN), TRAIN, VALIDATION, TrainSettings(**QUICK), folder=tmp_path, test=test)
    assert not (tmp_path / "checkpoints" / "last.safetensors").exists()


def test_a_loss_that_is_not_finite_ends_the_training_and_spares_the_checkpoint(tmp_path):
    run(tmp_path, max_epochs=1)
    last = (tmp_path / "checkpoints" / "last.safetensors").read_bytes()
    with pytest.raises(ModelError, match=r"not finite.*training frames"):
        run(tmp_path, max_epochs=40, learning_rate=1e18, minimum_rate=1e-6, clip_norm=None)
    assert (tmp_path / "checkpoints" / "last.safetensors").read_bytes() == last


def test_header_lists_what_is_in_effect(tmp_path):
    log, potential = Log(), make_potential(TRAIN)
    potential.encoder.requires_grad_(False)
    run(tmp_path, log, potential)
    facts = log.of(Started)[0].facts
    sizes = sum(p.numel() for p in potential.encoder.parameters())
    encoder = [one for name, one in facts["parameters"].items() if name.startswith("encoder.")]
    assert sum(one["frozen"] for one in encoder) == sizes
    assert not any(one["trainable"] for one in encoder)
    assert facts["parameters"]["head"]["trainable"] > 0
    assert facts["objective"] == {"labels": {"energy": 1.0, "forces": 10.0}}
    assert facts["settings"]["batch_size"] == facts["effective_batch"] == 6
    json.dumps(facts)


def test_waiting_for_data_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setattr("mlipkit.training.loop.LOOK_AT_LEAST_S", 1.0)

    class Slow(FrameSource):
        def batch(self, indices):
            time.sleep(0.3)
            return super().batch(indices)

    log = Log()
    run(tmp_path, log, frames=Slow(TRAIN, 4.0, torch.float32), max_epochs=3)
    assert log.texts().count("waits for data") == 1
    waits = Series(tmp_path / "series" / "training").read("data_wait")["data_wait"]
    assert waits.max() > 0.2


def test_float64_trains_in_float64(tmp_path):
    potential = make_potential(TRAIN)
    run(tmp_path, potential=potential, precision="float64")
    assert potential.dtype is torch.float64
    assert load(tmp_path).dtype is torch.float64


@pytest.mark.full
def test_mixed_precision_learns(tmp_path):
    potential = make_potential(TRAIN)
    before = evaluate(potential, VALIDATION)
    result = run(
        tmp_path, potential=potential, precision="bf16-mixed", max_epochs=12, learning_rate=1e-2, ema_decay=0.9
    )
    assert potential.dtype is torch.float32
    assert result.metrics["validation"]["forces_mae"] < 0.7 * before["forces_mae"]


class Noise:
    """A self-supervised toy term with a trainable auxiliary head: tells the size of its own noise."""

    name, needs, labels = "noise", frozenset(), {}
    figures = {"noise_loss": ""}  # noqa: RUF012

    def __call__(self, state, graph, targets, prediction):
        level = torch.rand(1, generator=state.generator("level"))
        shift = torch.randn(graph.positions.shape, generator=state.generator("noise")) * level
        features = state.potential.encode(graph, positions=graph.positions + shift)
        guess = state.potential.auxiliary["level"](features, graph)
        total = state.total(torch.tensor(float(len(guess))))
        loss = ((guess - level) ** 2).sum() / total
        return loss, {"noise_loss": loss.detach()}


class LevelHead(AuxiliaryHead):
    kind = "level"

    def __init__(self, width):
        super().__init__()
        self.out = nn.Linear(width, 1)

    def options(self):
        return {"width": self.out.in_features}

    def forward(self, features, graph):
        return self.out(features.scalar)


def test_further_terms_and_auxiliary_heads_need_no_other_loop(tmp_path, monkeypatch):
    from mlipkit.models import heads

    monkeypatch.setitem(heads.AUXILIARY_HEADS, "level", LevelHead)
    potential = make_potential(TRAIN)
    potential.auxiliary["level"] = LevelHead(potential.encoder.width)
    before = potential.auxiliary["level"].out.weight.detach().clone()
    settings = TrainSettings(**QUICK)
    run(tmp_path, potential=potential, terms=(EnergyForcesStress.from_settings(settings), Noise()))
    steps = Series(tmp_path / "series" / "training").read()
    assert (steps["noise_loss"] > 0).all()
    assert steps["loss"] == pytest.approx(steps["loss_energy"] + steps["loss_forces"] + steps["noise_loss"])
    assert not torch.equal(load(tmp_path).auxiliary["level"].out.weight, before)


class Staged(FrameSource):
    """Trains on half of the frames, then on all."""

    stage = 1

    def __len__(self):
        return len(self.frames) // 2 * self.stage

    def advance(self):
        if self.stage == 2:
            return ""
        self.stage = 2
        return "all"

    def state(self):
        return {"stage": self.stage}

    def restore(self, state):
        self.stage = state["stage"]


def test_a_staged_source_goes_on_when_training_has_converged(tmp_path):
    log = Log()
    settings = {"max_epochs": 30, "patience": 2, "learning_rate": 0.3, "stage_learning_rate": 0.2, "ema_decay": None}
    result = run(tmp_path, log, frames=Staged(TRAIN, 4.0, torch.float32), **settings)
    assert "next stage: all" in log.texts()
    assert result.ending == "early_stopping"
    rates = Series(tmp_path / "series" / "training").read("learning_rate")["learning_rate"]
    assert rates[:2].tolist() == [0.3] * 2
    assert set(rates[-2:].tolist()) == {0.2}
    assert load(tmp_path / "checkpoints" / "best_stage_1.safetensors")
    assert read_header(result.best)["card"]["epoch"] > 2


def test_validation_of_the_users_own_can_choose_the_best(tmp_path):
    seen = []

    def own(potential):
        seen.append(potential)
        return {"mine": float(len(seen))}

    own.figures = {"mine": ""}  # type: ignore[attr-defined]

    result = train(
        make_potential(TRAIN), TRAIN, VALIDATION, TrainSettings(**QUICK, monitor="mine"), folder=tmp_path, validate=own
    )
    assert result.best_epoch == 0
    assert len(seen) == 3


@pytest.mark.full
def test_memory_is_flat_over_epochs(tmp_path):
    """After warm-up neither tensors nor resident memory grow with the number of epochs."""
    import gc

    import psutil

    seen = []

    def sink(event):
        if isinstance(event, Evaluated) and event.epoch in (20, 40, 80):
            gc.collect()
            alive = sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())
            seen.append((alive, psutil.Process().memory_info().rss))

    run(tmp_path, sink, max_epochs=80)
    (first, _), (second, start), (third, end) = seen
    assert first == second == third
    assert end - start < 4 << 20


def test_one_slow_moment_is_no_warning(tmp_path):
    """A busy machine holds one batch up; the training as a whole does not wait."""

    class Hiccup(FrameSource):
        calls = 0

        def batch(self, indices):
            Hiccup.calls += 1
            if Hiccup.calls == 12:
                time.sleep(1.5)
            return super().batch(indices)

    log = Log()
    run(tmp_path, log, frames=Hiccup(TRAIN, 4.0, torch.float32), max_epochs=6)
    assert Hiccup.calls > 12
    assert "waits for data" not in log.texts()
