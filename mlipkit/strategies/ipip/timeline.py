"""The iterations of an arm as rows, for views and reports; reads its folder, and needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipkit.data.whole import read_json
from mlipkit.errors import RunError, SpecError
from mlipkit.strategies.ipip.evaluating import compared, evaluation_in
from mlipkit.strategies.ipip.plan import ARMS, TEACHER_MODEL, LoopPlan
from mlipkit.strategies.ipip.tools import told
from mlipkit.strategies.workflows.work import read_record

PLAN = "plan.json"


def timeline(folder: Path | str) -> list[dict[str, Any]]:
    """A row per iteration of what is done so far; keys that are not known yet are None.

    Keys: round; pool (size, teacher_share, labellers, origins, unstable, iterations, hash), forgotten, relabelled,
    refused, new, new_unstable; md_failed, md_runs, md_fraction, md_interval, md_reasons, md_steps_per_s (of the model
    that sampled for this pool: the teacher in round 0); student_vs_teacher (eV/Å), pretraining and finetuning (steps,
    seconds, validation figures; of finetuning also `before`: forces_mae of the pretrained student on the same DFT
    frames, eV/Å, None from new weights), forces_mae, energy_mae, forces_norm (test, meV), better_than_teacher (of so
    many frames that are compared); stability, reaction (facts of the tests of this round's student).
    """
    folder = Path(folder)
    try:
        plan = plan_in(folder)
    except FileNotFoundError:
        if not folder.is_dir():
            raise RunError("no such folder", where=str(folder)) from None
        return []
    records = {stage.name: record["facts"] for stage in plan.stages
               if (record := read_record(folder / plan.folder(stage.name))) is not None}  # fmt: skip
    found = evaluation_in(folder) or {"rows": [], "n_frames": None}
    tested = {row["round"]: row for row in found["rows"] if row["kind"] == "student"}
    rounds = sorted({stage.round for stage in plan.stages if stage.does == "finetune"})
    return [_row(k, plan, records, tested.get(k, {}), compared(found)) for k in rounds]


def plan_in(folder: Path) -> LoopPlan:
    """The plan of an arm.

    Raises:
        FileNotFoundError: there is none.
        RunError: it is damaged, another workflow's, or of a version that this one does not know.
    """
    path = folder / PLAN
    record = read_json(path)
    if record.get("arm") not in ARMS:
        raise RunError(
            "holds no run of iterative pretraining", where=str(folder), found=f"a plan of {record.get('arm')}"
        )
    try:
        made: Any = LoopPlan.from_json(record)
        _ = made.loop
    except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
        raise RunError(f"the plan is damaged or of another version: {told(error)}", where=str(path)) from None
    return made


def _row(
    k: int, plan: LoopPlan, records: Mapping[str, Mapping[str, Any]], tested: Mapping[str, Any], n_compared: int | None
) -> dict[str, Any]:
    pool, md, chosen = (records.get(f"{name}_{k}", {}) for name in ("pool", "md", "choose"))

    def trained(name: str) -> dict[str, Any] | None:
        facts = records.get(f"{name}_{k}")
        if facts is None:
            return None
        figures = {**facts["metrics"].get("validation", {}), "before": facts.get("before")}
        return {"steps": facts["steps"], "seconds": facts["seconds"], **figures}

    return {
        "round": k, "pool": pool.get("composition"),
        **{name: pool.get(name) for name in ("forgotten", "relabelled", "refused", "new", "student_vs_teacher")},
        "new_unstable": chosen.get("unstable"), "md_failed": md.get("failed"),
        "md_runs": None if not md else len(md["runs"]), "md_fraction": md.get("fraction"),
        "md_interval": md.get("interval"), "md_reasons": md.get("reasons"), "md_steps_per_s": md.get("steps_per_s"),
        "md_by": None if not md else "teacher" if md["model"] == TEACHER_MODEL else md["model"],
        "pretraining": trained("pretrain"), "finetuning": trained("finetune"),
        **{name: tested.get(name) for name in ("forces_mae", "energy_mae", "forces_norm", "better_than_teacher")},
        "compared": n_compared if tested else None,
        **{name: _test(name, k, plan, records) for name in ("stability", "reaction")},
    }  # fmt: skip


def _test(name: str, k: int, plan: LoopPlan, records: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Facts of a test by MD of the student of a round."""
    facts = records.get(stage_of_test(plan, name, k))
    return facts if facts is not None and plan[facts["model"]].round == k else None


def stage_of_test(plan: LoopPlan, name: str, k: int) -> str:
    """Name of the stage that tests the student of a round: its own, or that of whichever student was selected."""
    own = f"{name}_{k}"
    return own if any(stage.name == own for stage in plan.stages) else name


def when(test: Mapping[str, Any]) -> str:
    """When simulations of a test failed: ``after 120 to 900 fs, half of them by 300 fs``; "" where none did."""
    times = sorted(test["times_fs"])
    if len(times) < 2:
        return "".join(f"after {time:g} fs" for time in times)
    return f"after {times[0]:g} to {times[-1]:g} fs, half of them by {times[(len(times) - 1) // 2]:g} fs"
