"""The embedded data sets: sizes, cards, and the physics that makes them worth shipping."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses, covalent_radii
from numpy.typing import NDArray

from mlipkit.data import samples
from mlipkit.errors import DataError
from mlipkit.units import AMU_PER_A3, BOLTZMANN, FORCE_TO_ACCELERATION, kinetic_energy

# name: frames, atoms per frame, trajectories, level of theory
SETS = {
    "ethanol_300K": (1000, 9, 20, "GFN2-xTB"),
    "ethanol_600K": (500, 9, 10, "GFN2-xTB"),
    "ethanol_900K": (300, 9, 6, "GFN2-xTB"),
    "ethanol_nve": (20 * 401, 9, 20, "GFN2-xTB"),
    "h2_pd6_nve": (24 * 500, 8, 24, "GFN1-xTB"),
    "ice_ih": (100, 96, 4, "GFN1-xTB"),
    "water_liquid": (200, 96, 4, "GFN1-xTB"),
}
THERMAL = {"ethanol_300K": 300.0, "ethanol_600K": 600.0, "ethanol_900K": 900.0}
NVE = ("ethanol_nve", "h2_pd6_nve")
PERIODIC = {"water_liquid": 0.997, "ice_ih": 0.920}
FILES = Path(samples.__file__).parent / "files"
Array = NDArray[np.float64]


def blocks(name: str, column: str) -> Array:
    """Column as [F,n,3]."""
    frames, atoms = SETS[name][:2]
    return np.asarray(getattr(samples.load(name), column)).reshape(frames, atoms, 3)


def masses(name: str) -> Array:
    return atomic_masses[samples.load(name).numbers[: SETS[name][1]]]


def kelvin(name: str) -> Array:
    """Kinetic temperature of each frame; the centre of mass is at rest."""
    kinetic = kinetic_energy(masses(name), blocks(name, "velocities")).sum(-1)
    return 2 * kinetic / ((3 * SETS[name][1] - 3) * BOLTZMANN)


def minimum_image(vectors: Array, lengths: Array) -> Array:
    return vectors - lengths * np.round(vectors / lengths)


def test_names_and_sizes() -> None:
    assert samples.names() == tuple(sorted(SETS))
    for name, (n_frames, n_atoms, trajectories, _) in SETS.items():
        frames = samples.load(name)
        assert len(frames) == n_frames
        assert (frames.n_atoms == n_atoms).all()
        assert len(np.unique(frames.trajectory)) == trajectories
        assert len(np.unique(frames.uids)) == n_frames
        assert frames.sources == (f"sample:{name}",)
        assert frames.has("energy").all()
        assert frames.has("forces").all()
        assert frames.has("stress").all() == (name in PERIODIC)
        for trajectory in range(trajectories):
            time = frames.time[frames.trajectory == trajectory]
            assert time[0] == 0
            assert np.allclose(np.diff(time), time[1])


def test_everything_shipped_is_below_12_megabytes() -> None:
    assert sum(path.stat().st_size for path in FILES.iterdir()) < 12e6


@pytest.mark.parametrize("name", SETS)
def test_card_is_complete_and_belongs_to_the_file(name: str) -> None:
    card = samples.card(name)
    assert card["name"] == name
    assert (card["frames"], card["atoms"], card["trajectories"]) == SETS[name][:3]
    assert SETS[name][3] in card["level_of_theory"]
    for field in ("title", "description", "licence", "dynamics", "rounding", "checks", "command", "wall_s", "units"):
        assert card[field], field
    assert len(card["seeds"]) == SETS[name][2]
    assert {"tblite", "numpy", "ase", "python"} <= set(card["versions"])
    assert card["sha256"] == hashlib.sha256((FILES / f"{name}.npz").read_bytes()).hexdigest()
    assert (Path(__file__).parents[2] / card["recipe"]).is_file()


def test_loading_is_quick_and_needs_neither_torch_nor_network() -> None:
    code = (
        "import socket, sys, time\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "from mlipkit.data import samples, FrameSet\n"
        "for name in samples.names():\n"
        "    begin = time.process_time(); samples.load(name)\n"
        "    assert time.process_time() - begin < 1, name\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(DataError, match="did you mean 'ethanol_300K'"):
        samples.load("ethanol300K")
    with pytest.raises(DataError, match="is a sample, but not a potential"):
        samples.potential_path("ethanol_300K")
    with pytest.raises(DataError, match="water_liquid"):
        samples.card("watr_liquid")


@pytest.mark.parametrize("name", SETS)
def test_labels_belong_to_the_stored_positions(name: str) -> None:
    tblite = pytest.importorskip("tblite.ase", reason="recomputing labels needs tblite")
    frames = samples.load(name)
    rng = np.random.default_rng(7)
    for index in rng.integers(len(frames), size=1 if name in PERIODIC else 4):
        frame = frames.frame(int(index))
        atoms = Atoms(frame["numbers"], frame["positions"], cell=frame["cell"], pbc=frame["pbc"])
        atoms.calc = tblite.TBLite(method=SETS[name][3], accuracy=0.01, verbosity=0)
        assert atoms.get_potential_energy() == pytest.approx(frame["energy"], abs=1e-6)
        assert atoms.get_forces() == pytest.approx(np.asarray(frame["forces"]), abs=1e-5)
        if name in PERIODIC:
            assert atoms.get_stress(voigt=False) == pytest.approx(np.asarray(frame["stress"]), abs=1e-7)


@pytest.mark.parametrize("name", SETS)
def test_no_net_force(name: str) -> None:
    assert np.abs(blocks(name, "forces").sum(1)).max() < 2e-5


@pytest.mark.parametrize(("name", "expected"), THERMAL.items())
def test_temperature_of_thermal_sets(name: str, expected: float) -> None:
    kinetic = kelvin(name)
    # 24 degrees of freedom: a frame's temperature scatters by sqrt(2/24) of the mean.
    assert kinetic.mean() == pytest.approx(expected, rel=4 * np.sqrt(2 / 24 / len(kinetic)))
    assert kinetic.std() / kinetic.mean() == pytest.approx(np.sqrt(2 / 24), rel=0.2)


@pytest.mark.parametrize("name", [*THERMAL, "ethanol_nve"])
def test_ethanol_stays_ethanol(name: str) -> None:
    numbers = samples.load(name).numbers[:9]
    positions = blocks(name, "positions")
    distance = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    bonded = distance < 1.3 * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    bonded[:, np.arange(9), np.arange(9)] = False
    assert (bonded == bonded[0]).all()
    assert sorted(bonded[0].sum(1)) == [1] * 6 + [2, 4, 4]


@pytest.mark.parametrize("name", NVE)
def test_velocities_agree_with_positions(name: str) -> None:
    frames, time = SETS[name][0] // SETS[name][2], samples.load(name).time
    step = float(time[1] - time[0])
    assert step == 0.5
    shape = (SETS[name][2], frames, SETS[name][1], 3)
    x, v, f = (blocks(name, column).reshape(shape) for column in ("positions", "velocities", "forces"))
    acceleration = FORCE_TO_ACCELERATION * f / masses(name)[:, None]
    predicted = x[:, :-1] + step * v[:, :-1] + 0.5 * step**2 * acceleration[:, :-1]
    assert np.abs(x[:, 1:] - predicted).max() < 2e-6
    central = (x[:, 2:] - x[:, :-2]) / (2 * step)
    assert np.corrcoef(central.ravel(), v[:, 1:-1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize(("name", "excursion"), [("ethanol_nve", 0.01), ("h2_pd6_nve", 0.01)])
def test_energy_is_conserved(name: str, excursion: float) -> None:
    frames = samples.load(name)
    total = frames.energy + kinetic_energy(masses(name), blocks(name, "velocities")).sum(-1)
    total = total.reshape(SETS[name][2], -1)
    assert np.abs(total - total[:, :1]).max() < excursion
    assert np.abs(frames.energy.reshape(total.shape) - frames.energy[0]).max() > 10 * excursion


def test_h2_arrives_with_an_eighth_of_an_electronvolt_and_splits_on_the_cluster() -> None:
    weights, first = masses("h2_pd6_nve"), blocks("h2_pd6_nve", "velocities")[::500]
    speed = first[:, 6:].mean(1) - (weights[:6, None] * first[:, :6]).sum(1) / weights[:6].sum()
    energy = 0.5 * weights[6:].sum() * (speed**2).sum(1) / FORCE_TO_ACCELERATION
    assert energy == pytest.approx(np.full(24, 0.125), rel=0.01)
    positions = blocks("h2_pd6_nve", "positions").reshape(24, 500, 8, 3)
    bond = np.linalg.norm(positions[:, :, 6] - positions[:, :, 7], axis=-1)
    assert bond[:, 0] == pytest.approx(np.full(24, 0.766), abs=1e-5)
    assert (bond[:, -1] > 1.5).sum() >= 3


@pytest.mark.parametrize(("name", "expected"), PERIODIC.items())
def test_density_of_condensed_sets(name: str, expected: float) -> None:
    frames = samples.load(name)
    volume = np.linalg.det(frames.cell)
    density = masses(name).sum() * AMU_PER_A3 / volume
    assert density == pytest.approx(np.full(len(frames), expected), rel=1e-3)
    assert frames.pbc.all()


def tetrahedral_order(name: str) -> float:
    """Mean tetrahedral order parameter q of the oxygens (Errington and Debenedetti 2001): 1 ideal ice, 0 ideal gas."""
    oxygen = blocks(name, "positions")[::10, ::3]
    away = minimum_image(oxygen[:, None] - oxygen[:, :, None], np.diag(samples.load(name).cell[0]))
    distance = np.linalg.norm(away, axis=-1) + 100 * np.eye(oxygen.shape[1])
    near = np.argsort(distance, axis=-1)[..., :4]
    unit = np.take_along_axis(away / distance[..., None], near[..., None], axis=2)
    cosines = np.einsum("fiax,fibx->fiab", unit, unit)
    upper = np.triu_indices(4, 1)
    return float((1 - 3 / 8 * ((cosines[..., upper[0], upper[1]] + 1 / 3) ** 2).sum(-1)).mean())


def test_water_is_liquid_and_ice_is_ice() -> None:
    assert 0.4 < tetrahedral_order("water_liquid") < 0.8
    assert tetrahedral_order("ice_ih") > 0.85


def test_ice_obeys_the_ice_rules_without_net_dipole() -> None:
    frames = samples.load("ice_ih")
    lengths = np.diag(frames.cell[0])
    orders = {}
    for positions, trajectory in zip(blocks("ice_ih", "positions"), frames.trajectory, strict=True):
        oxygen, hydrogen = positions[::3], np.delete(positions, np.s_[::3], axis=0)
        away = minimum_image(hydrogen[:, None] - oxygen, lengths)
        donor, acceptor = np.argsort(np.linalg.norm(away, axis=-1), axis=1)[:, :2].T
        assert (np.bincount(donor, minlength=32) == 2).all()
        assert (np.bincount(acceptor, minlength=32) == 2).all()
        orders.setdefault(int(trajectory), set()).add((*donor, *acceptor))
        arms = away[np.arange(64), donor].reshape(32, 2, 3).sum(1)
        assert np.linalg.norm((arms / np.linalg.norm(arms, axis=1)[:, None]).mean(0)) < 0.15
    # Each trajectory keeps its own proton order.
    assert all(len(seen) == 1 for seen in orders.values())
    assert len(set.union(*orders.values())) == len(orders) == 4


@pytest.mark.parametrize("name", PERIODIC)
def test_recorded_checks_of_condensed_sets(name: str) -> None:
    card = samples.card(name)
    assert card["checks"]["mean_sampler_temperature_K"] == pytest.approx(card["temperature_K"], rel=0.05)
    assert card["checks"]["stress_minus_finite_difference_eV_per_A3"] < 1e-5
    assert abs(card["checks"]["force_minus_finite_difference_eV_per_A"]) < 1e-3
