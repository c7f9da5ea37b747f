"""Where every measurement ends: its line is printed and appended to `results/NAME.jsonl`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = Path(__file__).resolve().parent / "results"


def keep(name: str, line: Mapping[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(text + "\n")


def command() -> str:
    """The command line of this process."""
    script = Path(sys.argv[0]).resolve()
    place = script.relative_to(HERE) if script.is_relative_to(HERE) else script.name
    return " ".join([f"python benchmarks/{place}", *sys.argv[1:]])
