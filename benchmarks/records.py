"""Where every measurement ends: its line is printed, appended to `results/NAME.jsonl`, and read from there."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlipkit.events import Event, EventSink

HERE = Path(__file__).resolve().parent
RESULTS = Path(__file__).resolve().parent / "results"


def keep(name: str, line: Mapping[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(text + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines that were kept; none where there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def command() -> str:
    """The command line of this process."""
    script = Path(sys.argv[0]).resolve()
    place = script.relative_to(HERE) if script.is_relative_to(HERE) else script.name
    return " ".join([f"python benchmarks/{place}", *sys.argv[1:]])


def rounded(value: Any, digits: int = 6) -> Any:
    """A record whose numbers have so many digits: what is kept, not what is computed with."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(one, digits) for key, one in value.items()}
    return [rounded(one, digits) for one in value] if isinstance(value, list) else value


def merged(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Later mappings over earlier ones, nested ones entry by entry."""
    found: dict[str, Any] = {}
    for record in records:
        for key, value in record.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


def told(title: str) -> EventSink:
    """Prints the messages of a run that is carried out in this process, under a title."""
    # Peers are measured in environments without mlipkit.
    from mlipkit.events import Message

    def sink(event: Event) -> None:
        if isinstance(event, Message):
            print(f"{time.strftime('%H:%M:%S')} {title}: {event.text}", flush=True)

    return sink
