"""Simulations: from the specification to states, forces and the loop; how they ended."""

from __future__ import annotations

import collections
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipkit.events import Control, EventSink, Finished, Judged, Verdict
from mlipkit.runs.building_data import read_starts
from mlipkit.runs.building_forces import build_forces, check_starts, device_of, say_precision
from mlipkit.runs.building_outside import outside_check
from mlipkit.runs.folder import RunFolder
from mlipkit.runs.log import EventTail
from mlipkit.runs.places import factory_of, run_of, split_place
from mlipkit.runs.spec import MDSpec
from mlipkit.runs.spec_md import listed

if TYPE_CHECKING:
    from ase import Atoms


def start_structure(spec: MDSpec, base: Path, start: str | None = None) -> Atoms:
    """A structure an MD run begins with: the place `start`, or the first of the specification.

    Of several frames it is the first, of a run without an index the last.
    """
    text = listed(spec.start)[0] if start is None else start
    if not split_place(text)[1] and factory_of(text) is None:
        text += "@-1" if run_of(text, base) is not None else "@0"
    atoms = read_starts(text, base)[0]
    atoms.calc = None
    return atoms


def run_md(spec: MDSpec, files: RunFolder, base: Path, sink: EventSink, control: Control) -> Finished:
    """Simulate what the specification says, or go on where the folder stands."""
    from mlipkit.md import endings, maxwell_boltzmann, simulate_batches, state_from_atoms

    forces = build_forces(spec, base, files.path, sink)
    say_precision(spec, forces, sink)
    table = spec.table()
    structures = {text: start_structure(spec, base, text) for text in listed(spec.start)}
    check_starts(forces, structures.items())
    state = state_from_atoms(
        [structures[row["start"]] for row in table],
        seed=[row["thermostat_seed"] for row in table],
        device=device_of(spec.device),
    )
    kelvin = [row["temperature"] for row in table]
    if not spec.keep_velocities:
        maxwell_boltzmann(state, kelvin, [row["velocity_seed"] for row in table])
    options = spec.ensemble_options
    if "temperature" in options and len(table) > 1:
        # One number where all are equal: what changes later is then said as it was asked.
        options["temperature"] = kelvin if len(set(kelvin)) > 1 else kelvin[0]
    checks = dict(spec.checks)
    if spec.outside.fit_on:
        checks["outside"] = outside_check(spec.outside, structures.items(), files, base, sink)
    before, begin = sum(one.step for one in endings(files.path)), time.monotonic()
    found = simulate_batches(
        state, forces, spec.ensemble, steps=spec.steps, folder=files.path, timestep=spec.timestep, options=options,
        batch=1 if spec.ensemble == "npt" else spec.batch, stride=spec.stride, checks=checks,
        checkpoint_every=spec.checkpoint_every, sink=sink, control=control,
    )  # fmt: skip
    seconds = time.monotonic() - begin
    atoms = sum(len(structures[row["start"]]) for row in table)
    facts: dict[str, Any] = {
        "simulated_s": round(seconds, 3), "atoms": atoms // len(table) if len(structures) == 1 else atoms,
        "replicas": len(table),
    }  # fmt: skip
    done = sum(one.step for one in found) - before
    if done > 0:
        # Of each simulation: with n at a time n times as many steps are done.
        facts["steps_per_s"] = round(done / len(table) / seconds, 3)
    failed = sum(one.failed for one in found)
    # Who has not failed stands at the end, or where the user stopped.
    reached = min((one.step for one in found if not one.failed), default=max((one.step for one in found), default=0))
    unfinished = len(found) < len(table) or (failed < len(found) and reached < spec.steps)
    facts["failure_reasons"] = dict(collections.Counter(one.reason for one in found if one.failed))
    if not failed:
        del facts["failure_reasons"]
    return _last_word(spec, _failed_replicas(files), failed, reached, unfinished, facts)


def _failed_replicas(files: RunFolder) -> list[Verdict]:
    """Final verdicts of all replicas that have failed, those of earlier attempts included."""
    entries = EventTail(files.events).read()
    final = [entry.event.verdict for entry in entries if isinstance(entry.event, Judged) and entry.event.final]
    return list({verdict.replica: verdict for verdict in final if verdict.outcome == "failed"}.values())


def _last_word(
    spec: MDSpec, verdicts: list[Verdict], failed: int, step: int, unfinished: bool, facts: dict[str, Any]
) -> Finished:
    """How the simulations ended, of which those that have not failed stand at `step`."""
    if unfinished:
        return Finished("stopped", f"stopped by the user at step {step}", facts)
    if not failed:
        # The end may have been moved to behind the step at hand while the wish travelled to this process.
        passed = f"step {step} reached, past the {spec.steps} steps asked for"
        return Finished("completed", passed if step > spec.steps else f"all {spec.steps} steps done", facts)
    first = min(verdicts, key=lambda end: end.step, default=Verdict("failed", sentence="A check failed."))
    facts["failed_replicas"] = failed
    if spec.n_simulations == 1:
        return Finished("failed", first.sentence, facts)
    number = spec.n_simulations
    return Finished("failed", f"{failed} of {number} replicas failed; the first: {first.sentence}", facts)
