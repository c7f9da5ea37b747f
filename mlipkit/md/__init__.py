"""Molecular dynamics: state, ensembles as (init, step), force providers, stability checks, recording, ASE calculator.

>>> state = state_from_atoms(atoms, seed=1)
>>> maxwell_boltzmann(state, 300.0, seed=2)
>>> verdict = simulate(state, PotentialForces(potential), "langevin", steps=20000, folder="md",
...                    options={"temperature": 300.0, "friction": 0.01})
"""

from mlipkit import compute as _compute  # noqa: F401 - says what to install where torch is missing
from mlipkit.md.batches import endings, simulate_batches
from mlipkit.md.calculator import MlipCalculator
from mlipkit.md.checks import Check, Finding
from mlipkit.md.ensembles import ENSEMBLES, Ensemble, get_ensemble
from mlipkit.md.forces import CalculatorForces, Forces, PotentialForces
from mlipkit.md.judging import CHECKS, build_checks
from mlipkit.md.look import Look
from mlipkit.md.outside_check import OutsideCheck
from mlipkit.md.relaxation import relax
from mlipkit.md.simulation import simulate
from mlipkit.md.start_check import preflight
from mlipkit.md.state import MDState, state_from_atoms
from mlipkit.md.trajectory import TrajectoryWriter
from mlipkit.md.velocities import maxwell_boltzmann
from mlipkit.md.verlet import verlet_step

__all__ = [
    "CHECKS",
    "ENSEMBLES",
    "CalculatorForces",
    "Check",
    "Ensemble",
    "Finding",
    "Forces",
    "Look",
    "MDState",
    "MlipCalculator",
    "OutsideCheck",
    "PotentialForces",
    "TrajectoryWriter",
    "build_checks",
    "endings",
    "get_ensemble",
    "maxwell_boltzmann",
    "preflight",
    "relax",
    "simulate",
    "simulate_batches",
    "state_from_atoms",
    "verlet_step",
]
