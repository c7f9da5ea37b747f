"""Where every picked frame came from and what became of it: one line of JSON per frame, made anew from the stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipkit.data.whole import write_whole
from mlipkit.strategies.workflows.plan import Plan
from mlipkit.strategies.workflows.review import STRUCK

NAME = "provenance.jsonl"


def rows(plan: Plan, records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per picked frame: uid, stage, trajectory, row, time_fs, sampled_by, density, purpose, outcome, entered.

    Args:
        records: facts of the stages that are done, by name.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    after: dict[str, str] = {}  # stage of labels or review -> the pick whose frames it holds
    for stage in plan.stages:
        facts = records.get(stage.name)
        if stage.does in ("review", "label"):
            source = stage.inputs["frames"][0]
            after[stage.name] = after.get(source, source)
        if facts is None:
            continue
        if stage.does == "pick":
            for frame in facts["frames"]:
                found[stage.name, frame["uid"]] = {
                    **frame, "stage": stage.name, "purpose": stage.purpose, "outcome": "waits for its label",
                    "entered": [],
                }  # fmt: skip
        elif stage.does == "review":
            for uid in facts["struck"]:
                found[after[stage.name], uid]["outcome"] = STRUCK
        elif stage.does == "label":
            for uid in facts["labelled"]:
                found[after[stage.name], uid]["outcome"] = "labelled"
            for one in facts["failed"]:
                found[after[stage.name], one["uid"]]["outcome"] = f"failed: {one['reason']}"
        elif stage.does == "finetune":
            for part in ("train", "validation"):
                for source, uid in facts[part]:
                    found[after[source], uid]["entered"].append([stage.name, part])
    return list(found.values())


def write(folder: Path, plan: Plan, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the rows as JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(plan, records))
    write_whole(folder / NAME, text.encode())


def read(folder: Path | str) -> list[dict[str, Any]]:
    """Rows of a workflow; none before its first pick."""
    path = Path(folder) / NAME
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
