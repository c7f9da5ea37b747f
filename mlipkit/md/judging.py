"""From checks to a verdict: the registry, how limits are given, and the one sentence that says what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlipkit.errors import SpecError, nearest
from mlipkit.events import Verdict
from mlipkit.md.checks import Check, EnergyDriftCheck, Finding, FiniteCheck, MaxForceCheck, TemperatureCheck
from mlipkit.md.look import Look
from mlipkit.md.structure_checks import BrokenBondsCheck, DensityCheck, LoneAtomsCheck, OverlapCheck

# In order of cause and effect: when several fail at the same step, the first one names the failure.
CHECKS: dict[str, type[Check]] = {
    check.name: check
    for check in (
        FiniteCheck,
        MaxForceCheck,
        TemperatureCheck,
        EnergyDriftCheck,
        OverlapCheck,
        BrokenBondsCheck,
        LoneAtomsCheck,
        DensityCheck,
    )
}


def build_checks(limits: Mapping[str, Any] | None = None) -> list[Check]:
    """All checks with their default limits, changed by `limits`.

    Args:
        limits: name -> False (switched off), True, a number (the limit at which it fails), or a mapping of fields:
            ``{"max_force": 80, "broken_bonds": False, "temperature": {"fail": 4, "during": 50}}``. Under its own name
            a `Check` joins them: its fields are taken, not what it remembers.

    Raises:
        SpecError: an unknown check or field, or a value that is no limit.
    """
    limits = dict(limits or {})
    more = {name: check for name, check in limits.items() if isinstance(check, Check)}
    for name in limits:
        if name not in CHECKS and name not in more:
            raise SpecError(f"unknown check '{name}'", where="checks", hint=nearest(name, CHECKS))
    own = [name for name in CHECKS if name not in more and limits.get(name, True) is not False]
    return [_build(CHECKS[name], limits.get(name, True)) for name in own] + [
        dataclasses.replace(check) for check in more.values()
    ]


def _build(kind: type[Check], limit: Any) -> Check:
    if limit is True or limit is None:
        return kind()
    if isinstance(limit, int | float):
        if not limit > 0:
            raise SpecError("not a limit", where=("checks", kind.name), expected="a number above 0", found=limit)
        check = kind(fail=float(limit))
        # Where small is bad a warning comes above the limit, everywhere else below it.
        if kind is not OverlapCheck and check.warn is not None:
            check.warn = min(check.warn, float(limit))
        return check
    if not isinstance(limit, Mapping):
        raise SpecError(
            "not a limit", where=("checks", kind.name), expected="a number, a mapping or false", found=limit
        )
    fields = [f.name for f in dataclasses.fields(kind) if f.init]
    for field, value in limit.items():
        if field not in fields:
            raise SpecError(f"unknown field '{field}'", where=("checks", kind.name), hint=nearest(field, fields))
        known = value is None or (isinstance(value, int | float) and value >= 0)
        if not known or (field == "every" and not (value and value >= 1)):
            raise SpecError("not a limit", where=("checks", kind.name, field), expected="a number", found=value)
    return kind(**limit)


class Judge:
    """The checks of one replica, what they have said so far, and the verdict.

    Attributes:
        first_warning: (step, time, check) of the first warning, or None.
        last_good: step of the last stored frame at which no check had anything to say; -1 before there is one.
    """

    def __init__(self, checks: list[Check], replica: int | None = None) -> None:
        self.checks = checks
        self.replica = replica
        self.first_warning: tuple[int, float, str] | None = None
        self.worst: Verdict | None = None
        self.last_good = -1
        self._warned: set[str] = set()

    def begin(self, start: Look) -> list[Verdict]:
        """Show the start to all checks; verdicts of those that object, failures last."""
        for check in self.checks:
            check.begin(start)
        return self.look(start, stored=True)

    def look(self, now: Look, stored: bool, checks: Sequence[Check] | None = None) -> list[Verdict]:
        """New verdicts at this step: each check's first warning, and a failure (last, and the end).

        Args:
            stored: whether the step is a stored frame, at which every check looks.
            checks: those that look, in their order, when it has been found out that others have nothing to say.
        """
        said: list[Verdict] = []
        quiet = True
        if checks is None:
            checks = [check for check in self.checks if stored or now.step % check.every == 0]
        for check in checks:
            finding = check.look(now)
            if finding is None:
                continue
            quiet = False
            verdict = self._verdict(check, finding, now)
            if finding.outcome == "failed":
                self.worst = verdict
                return [*said, verdict]
            if check.name not in self._warned:
                self._warned.add(check.name)
                said.append(verdict)
                self.worst = self.worst or verdict
                self.first_warning = self.first_warning or (now.step, now.time, check.name)
        if stored and quiet:
            self.last_good = now.step
        return said

    @property
    def failed(self) -> bool:
        return self.worst is not None and self.worst.outcome == "failed"

    def verdict(self, now: Look) -> Verdict:
        """The verdict so far, at the present step."""
        if self.worst is not None and self.worst.outcome == "failed":
            return self.worst
        replica = self.replica or 0
        if self.worst is None:
            sentence = f"{self._who()}no check had anything to say in {now.step} steps ({_time(now.time)})."
            return Verdict("ok", step=now.step, time=now.time, replica=replica, last_good=self.last_good,
                           sentence=sentence[0].upper() + sentence[1:])  # fmt: skip
        first = self.worst
        sentence = f"{first.sentence.rstrip('.')}; the run went on to step {now.step} ({_time(now.time)})."
        return dataclasses.replace(first, last_good=self.last_good, sentence=sentence)

    def memory(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What goes into a checkpoint: a JSON record and arrays named ``check.quantity``."""
        record = {
            "first_warning": self.first_warning,
            "last_good": self.last_good,
            "warned": sorted(self._warned),
            "worst": dataclasses.asdict(self.worst) if self.worst else None,
        }
        arrays = {f"{c.name}.{key}": value for c in self.checks for key, value in c.memory().items()}
        return record, arrays

    def recall(self, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], start: Look) -> None:
        """Take over what `memory` gave. Checks that were not there then begin at `start`."""
        self.first_warning = tuple(record["first_warning"]) if record["first_warning"] else None  # type: ignore[assignment]
        self.last_good = record["last_good"]
        self._warned = set(record["warned"])
        worst = record["worst"]
        self.worst = Verdict.from_record(worst) if worst else None
        for check in self.checks:
            mine = {key: arrays[f"{check.name}.{key}"] for key in check.kept if f"{check.name}.{key}" in arrays}
            if len(mine) == len(check.kept):
                check.recall(mine)
            else:
                check.begin(start)

    def _verdict(self, check: Check, finding: Finding, now: Look) -> Verdict:
        failed = finding.outcome == "failed"
        if now.step == 0:
            start = "cannot start from this structure" if failed else "doubtful start structure"
        else:
            start = f"{'failed' if failed else 'warning'} at step {now.step} ({_time(now.time)})"
        sentence = f"{self._who()}{start}: {finding.what}"
        if finding.unit:
            sentence += f": {_figure(finding.value)} {finding.unit}, limit {_figure(finding.limit)} {finding.unit}"
        first = self.first_warning
        if failed and now.step > 0:
            sentence += (
                f"; first warning at step {first[0]} ({_time(first[1])}, {first[2]})"
                if first
                else "; no warning before"
            )
        return Verdict(
            outcome=finding.outcome,
            check=check.name,
            step=now.step,
            time=now.time,
            value=finding.value,
            limit=finding.limit,
            unit=finding.unit,
            atoms=finding.atoms,
            replica=self.replica or 0,
            last_good=self.last_good,
            first_warning=first[0] if first else None,
            sentence=sentence[0].upper() + sentence[1:] + ".",
        )

    def _who(self) -> str:
        return "" if self.replica is None else f"replica {self.replica} "


def _time(fs: float) -> str:
    return f"{fs / 1000:.4g} ps" if fs >= 10000 else f"{fs:.4g} fs" if fs < 1000 else f"{fs:.0f} fs"


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}" if abs(value) < 1e7 else f"{value:.2e}"
