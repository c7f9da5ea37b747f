"""MD with a potential that adapts: six strategies, replicas, checkpoints."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from taip_toys import toy

from mlipkit.data import samples
from mlipkit.data.series import Series
from mlipkit.errors import ModelError, RunError, SpecError
from mlipkit.md import PotentialForces, maxwell_boltzmann, simulate, simulate_batches, state_from_atoms
from mlipkit.strategies.taip import AdaptedForces, Adapter, AdaptSettings, MDAdaptation
from mlipkit.strategies.taip.forces import COLUMNS, MEMBERS
from mlipkit.strategies.taip.stacked import Stacked

STEPS = 8
OFF = {"max_force": False, "temperature": False, "overlap": False}


def start(n: int = 1, name: str = "ethanol_300K"):
    state = state_from_atoms([samples.load(name)[i] for i in range(n)], seed=list(range(n)))
    maxwell_boltzmann(state, 300.0, list(range(n)))
    return state


def forces(strategy="nonsaving", potential=None, rate=1e-3, optimiser="adam_fresh", folders=None, **more):
    potential = toy("schnet").float() if potential is None else potential
    return AdaptedForces(potential, MDAdaptation(strategy, AdaptSettings(rate, optimiser), **more), folders=folders)


def path(provider, n: int = 1, steps: int = STEPS):
    """Energies [steps,S] along Verlet steps."""
    from mlipkit.md.ensembles import get_ensemble
    from mlipkit.md.forces import evaluate

    state, ensemble, found = start(n), get_ensemble("nve"), []
    with torch.no_grad():
        ensemble.init(state)
        evaluate(state, provider)
        for _ in range(steps):
            ensemble.step(state, provider, 0.2)
            found.append(state.energy.clone())
    return torch.stack(found), state.positions.clone()


def test_strategies_meet_where_they_must():
    for n in (1, 3):
        always = path(forces("save_every"), n)
        assert torch.equal(path(forces("save_every_k", every=1), n)[1], always[1])
        assert torch.equal(path(forces("threshold", threshold=-math.inf), n)[1], always[1])
        never = path(forces("none"), n)
        # Several replicas have weights of their own, whose products round apart.
        found = path(forces("threshold", threshold=math.inf), n)[0]
        assert torch.allclose(found, never[0], rtol=0, atol=0.0 if n == 1 else 1e-6)
        assert torch.equal(path(forces("nonsaving", rate=0.0), n)[1], never[1])
        assert torch.equal(path(PotentialForces(toy("schnet").float()), n)[1], never[1])
        every_third = path(forces("save_every_k", every=3), n)[0]
        nonsaving = path(forces("nonsaving"), n)[0]
        held = path(forces("nonsaving", hold=3), n)[0]
        assert torch.equal(path(forces("nonsaving", hold=1), n)[0], nonsaving)
        different = [always[0], never[0], every_third, nonsaving, held]
        gaps = [float((a - b).abs().max()) for i, a in enumerate(different) for b in different[:i]]
        assert min(gaps) > 1e-4


@pytest.mark.parametrize(("strategy", "due"), [("save_every_k", [0, 3, 6]), ("save_every", [*range(8)])])
def test_steps_that_adapt_are_divisible_by_k(strategy, due):
    provider, state = forces(strategy, **({"every": 3} if strategy == "save_every_k" else {})), start(2)
    adapted, drift = [], []
    for step in range(8):
        state.step = step
        provider(state)
        adapted.append(provider.last[:, list(COLUMNS).index("adapted")].tolist())
        drift.append(provider.last[0, list(COLUMNS).index("drift")])
    assert adapted == [[float(step in due)] * 2 for step in range(8)]
    # Weights move when they adapt, and are kept in between.
    assert [step for step in range(8) if step == 0 or drift[step] != drift[step - 1]] == due


@pytest.mark.parametrize("n", [1, 3])
def test_weights_that_are_held_are_those_of_the_last_adaptation(n):
    provider, every = forces("nonsaving", hold=3), forces("nonsaving")
    state = start(n)
    seen = []
    for step in range(7):
        state.step = step
        energy = provider(state).energy
        if step % 3 == 0:
            assert torch.equal(energy, every(state).energy), "as every step, which begins at the trained weights"
        elif step == 1:
            assert torch.allclose(energy, seen[-1], atol=1e-5), "the same structure with the same weights"
        seen.append(energy)
        assert provider.last[0, list(COLUMNS).index("adapted")] == (step % 3 == 0)
    assert not torch.allclose(seen[3], seen[2], atol=1e-5), "other noise, other weights"
    with pytest.raises(SpecError, match="only with it"):
        MDAdaptation("save_every", hold=2)


@pytest.mark.parametrize(
    ("strategy", "optimiser"),
    [
        ("nonsaving", "adam_fresh"), ("nonsaving", "sgd"), ("save_every", "adam_fresh"), ("save_every", "adam_kept"),
        ("save_every_k", "adam_fresh"), ("threshold", "adam_fresh"), ("threshold", "adam_kept"),
    ],
)  # fmt: skip
def test_replicas_adapt_apart_and_the_potential_is_put_back(strategy, optimiser):
    more = {"save_every_k": {"every": 2}, "threshold": {"threshold": 4.0}}.get(strategy, {})
    potential = toy("schnet").double()
    before = [p.clone() for p in potential.parameters()]
    rate = 1e-3 if optimiser != "sgd" else 1e-2
    together, _ = path(forces(strategy, potential, rate, optimiser, **more), 3)
    assert all(torch.equal(p, q) for p, q in zip(potential.parameters(), before, strict=True))
    for index in range(3):
        state = start(3).select([index])
        provider = AdaptedForces(
            potential, MDAdaptation(strategy, AdaptSettings(rate, optimiser), **more), replicas=[index]
        )
        from mlipkit.md.ensembles import get_ensemble
        from mlipkit.md.forces import evaluate

        ensemble, alone = get_ensemble("nve"), []
        with torch.no_grad():
            ensemble.init(state)
            evaluate(state, provider)
            for _ in range(STEPS):
                ensemble.step(state, provider, 0.2)
                alone.append(float(state.energy))
        assert np.allclose(together[:, index], alone, atol=1e-6), (strategy, optimiser)


def test_a_step_is_one_prediction_after_adaptation():
    potential, state = toy("painn").float(), start()
    state.step = 17
    provider = forces("nonsaving", potential)
    found = provider(state)
    expected, seen = Adapter(potential, AdaptSettings(1e-3)).predict(provider.graph(state), [17 * MEMBERS])
    assert torch.allclose(found.forces, expected.forces.double())
    assert provider.last[0, list(COLUMNS).index("self_supervised")] == pytest.approx(seen.total.item())
    assert provider.last[0, list(COLUMNS).index("change")] == pytest.approx(seen.change.item())
    assert provider.last[0, list(COLUMNS).index("drift")] == 0


def test_periodic_systems_with_stress():
    potential = toy("schnet", periodic=True).float()
    provider = AdaptedForces(potential, MDAdaptation("nonsaving", AdaptSettings(1e-4)), stress=True)
    state = start(2, "water_liquid")
    found = provider(state)
    assert found.stress.shape == (2, 3, 3)
    plain = PotentialForces(potential, stress=True)(state)
    assert 1e-6 < (found.forces - plain.forces).abs().max() < 10
    drifting = AdaptedForces(potential, MDAdaptation("save_every", AdaptSettings(1e-4)))
    drifting(state)
    state.step = 1
    drifting(state)
    assert (drifting.last[:, list(COLUMNS).index("drift")] > 0).all()


@pytest.mark.parametrize(
    ("strategy", "optimiser"),
    [
        ("nonsaving", "adam_fresh"),
        ("save_every", "adam_fresh"),
        ("save_every", "adam_kept"),
        ("threshold", "adam_fresh"),
    ],
)
def test_a_simulation_that_goes_on_is_one_that_never_stopped(tmp_path, strategy, optimiser):
    more = {"threshold": 4.0} if strategy == "threshold" else {}

    def run(folder, steps, n=2):
        provider = forces(
            strategy, optimiser=optimiser, folders=[folder / f"replica_{i:03d}" for i in range(n)], **more
        )
        state = start(n)
        simulate(state, provider, "nve", steps=steps, folder=folder, timestep=0.2, checks=OFF, checkpoint_every=4)
        provider.flush()
        return state

    run(tmp_path / "two", 4)
    resumed, whole = run(tmp_path / "two", 9), run(tmp_path / "one", 9)
    assert torch.equal(resumed.positions, whole.positions)
    for replica in ("replica_000", "replica_001"):
        kept = [Series(tmp_path / name / replica / "series" / "adaptation").read() for name in ("one", "two")]
        assert kept[0]["step"].tolist() == list(range(10))
        for column in COLUMNS:
            assert np.array_equal(kept[0][column], kept[1][column], equal_nan=True), column


def test_a_simulation_goes_on_with_its_own_adaptation_alone(tmp_path):
    potential = toy("schnet").float()
    providers = {
        "plain": lambda: PotentialForces(potential),
        "nonsaving": lambda: forces("nonsaving", potential),
        "save_every": lambda: forces("save_every", potential),
        "larger": lambda: forces("save_every", potential, rate=2e-3),
    }

    def run(folder, name, steps):
        state = start()
        simulate(state, providers[name](), "nve", steps=steps, folder=folder, timestep=0.2, checks=OFF,
                 checkpoint_every=2)  # fmt: skip
        return state

    for name in providers:
        run(tmp_path / name, name, 2)
        (place,) = (tmp_path / name / "checkpoints").glob("*.safetensors")
        kept = place.read_bytes()
        for other in set(providers) - {name}:
            with pytest.raises(RunError, match="checkpoint is of a simulation"):
                run(tmp_path / name, other, 4)
        assert place.read_bytes() == kept
        assert run(tmp_path / name, name, 4).step == 4


def test_replicas_keep_their_numbers_in_batches_and_when_others_leave(tmp_path):
    def run(folder, batch):
        provider = forces("save_every", folders=[folder / f"replica_{i:03d}" for i in range(3)])
        simulate_batches(
            start(3), provider, "nve", steps=5, folder=folder, batch=batch, timestep=0.2, checks=OFF, checkpoint_every=5
        )
        return [
            Series(folder / f"replica_{i:03d}" / "series" / "md").read("potential_energy")["potential_energy"]
            for i in range(3)
        ]

    for one, other in zip(run(tmp_path / "all", 3), run(tmp_path / "apart", 1), strict=True):
        assert np.allclose(one, other, atol=2e-4)
    provider, state = forces("save_every"), start(3)
    provider(state)
    kept = [own[[0, 2]].clone() for own in provider._own]
    provider.select(state.select([0, 2]), [0, 2])
    assert provider.members == [0, 2]
    assert all(torch.equal(a, b) for a, b in zip(provider._own, kept, strict=True))


class Bomb(AdaptedForces):
    """Replicas whose forces are infinite from a step on, or all of them raise."""

    at: dict[int, int]
    raises: int | None

    def __call__(self, state):
        if state.step == self.raises:
            raise MemoryError("no room")
        found = super().__call__(state)
        for index, member in enumerate(self.members):
            if state.step >= self.at.get(member, math.inf):
                found.forces[state.system == index] = math.inf
        return found


@pytest.mark.parametrize(
    ("at", "raises", "rows"),
    [
        ({0: 5}, None, [6]), ({}, 5, [5]), ({0: 3, 1: 6}, None, [4, 7]), ({0: 5, 1: 5}, None, [6, 6]),
        ({0: 3}, 6, [4, 6]), ({}, 5, [5, 5]), ({0: 3}, None, [4, 10]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strategy", ["nonsaving", "none"])
def test_however_a_simulation_ends_every_step_has_its_row(tmp_path, strategy, at, raises, rows):
    folders = [tmp_path if len(rows) == 1 else tmp_path / f"replica_{index:03d}" for index in range(len(rows))]
    provider = Bomb(toy("schnet").float(), MDAdaptation(strategy), folders=folders)
    provider.at, provider.raises = at, raises
    with pytest.raises(MemoryError) if raises else contextlib.nullcontext():
        simulate(start(len(rows)), provider, "nve", steps=9, folder=tmp_path, timestep=0.2, checks=OFF)
    for name in ("md", "adaptation"):
        steps = [Series(folder / "series" / name).read("step")["step"].tolist() for folder in folders]
        assert steps == [[*range(count)] for count in rows], name


@pytest.mark.parametrize(("n", "optimiser"), [(1, "adam_fresh"), (2, "adam_fresh"), (1, "adam_kept"), (2, "adam_kept")])
def test_a_step_that_is_asked_for_again_adapts_once(monkeypatch, n, optimiser):
    """Where a prediction raises, weights and moments are those of the step before."""
    provider, calm = forces("save_every", optimiser=optimiser), forces("save_every", optimiser=optimiser)
    state, predict, where = start(n), provider.potential.evaluate, Stacked.predict
    left = []

    def sometimes(*args, **more):
        left.append(0)
        if len(left) == n:  # of the last replica
            raise MemoryError("no room")
        return predict(*args, **more)

    def never(*args):
        raise MemoryError("no room")

    for step in range(3):
        state.step = step
        if step == 1:
            monkeypatch.setattr(provider.potential, "evaluate", sometimes)
            monkeypatch.setattr(Stacked, "predict", never)
            with pytest.raises(MemoryError):
                provider(state)
            monkeypatch.setattr(provider.potential, "evaluate", predict)
            monkeypatch.setattr(Stacked, "predict", where)
        assert torch.equal(provider(state).forces, calm(state).forces), step
        assert np.array_equal(provider.last, calm.last, equal_nan=True)
    assert (provider.last[:, list(COLUMNS).index("drift")] > 0).all()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("strategy", ["nonsaving", "save_every", "none"])
def test_trained_weights_are_those_that_the_potential_has(n, strategy):
    """Also where they change after the forces were made of it."""
    changed = forces(strategy, toy("schnet").float())
    changed.potential.load_state_dict(toy("schnet", seed=1).state_dict())
    fresh, state = forces(strategy, toy("schnet", seed=1).float()), start(n)
    for _ in range(2):
        assert torch.equal(changed(state).forces, fresh(state).forces)
        assert np.array_equal(changed.last, fresh.last, equal_nan=True)
        state.step += 1


def test_wrong_strategies_are_refused():
    bare = toy()
    bare.auxiliary.clear()
    with pytest.raises(ModelError, match="self-supervised"):
        AdaptedForces(bare)
    for wrong in (
        {"strategy": "threshold"}, {"threshold": 1.0}, {"every": 0},
        {"settings": AdaptSettings(optimiser="adam_kept")}, {"settings": AdaptSettings(together=2)},
        {"strategy": "threshold", "threshold": math.nan}, {"strategy": "save_every_k", "every": 2.5},
        {"strategy": "threshold", "threshold": "high"}, {"strategy": "nonsaving", "every": 7}, {"hold": True},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            MDAdaptation(**wrong)
