"""How a state looks and reads: icon, word, colour (Okabe-Ito, told apart by colour-blind people) and one sentence.

Icon and word carry the meaning; colour only repeats it. All icons are plain text glyphs, as icon fonts may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from mlipkit.runs import Run


@dataclass(frozen=True)
class Look:
    """What the head of a view shows for a state. `live`: news are expected; `final`: the worker has ended."""

    icon: str
    word: str
    tone: str
    sentence: str
    live: bool = False
    final: bool = False


LOOKS: dict[str, Look] = {
    "empty": Look("○", "EMPTY", "#6b7280", "Nothing is open yet."),
    "computing": Look("●", "COMPUTING", "#0072b2", "", live=True),
    "ready": Look("✓", "READY", "#007a5a", ""),
    "uncomputed": Look("!", "NOT COMPUTED", "#a3437a", ""),
    "waiting": Look("◔", "WAITING", "#6b7280", "Waits for another run and starts by itself.", live=True),
    "queued": Look("◔", "QUEUED", "#6b7280", "The worker is being started.", live=True),
    "running": Look("●", "RUNNING", "#0072b2", "", live=True),
    "paused": Look("‖", "PAUSED", "#8a6100", "Paused by you. Resume goes on from the same step."),
    "stopped": Look("■", "STOPPED", "#4b5563", "Stopped by you. Resume goes on from where it stopped.", final=True),
    "review": Look("◆", "WAITING FOR YOU", "#8a6100", "Candidate frames wait for you to look at them."),
    "resting": Look("■", "AT REST", "#4b5563", "Nothing was written for a while; it can go on where it stands."),
    "completed": Look("✓", "COMPLETED", "#007a5a", "Done.", final=True),
    "failed": Look("✖", "FAILED", "#c04f00", "The simulation failed a stability check.", final=True),
    "crashed": Look("!", "CRASHED", "#a3437a", "An error ended the worker.", final=True),
    "lost": Look(
        "?", "LOST CONTACT", "#a3437a",
        "The worker process ended unexpectedly (killed, out of memory, or the machine was restarted). "
        "Resume continues from the last checkpoint.",
        final=True,
    ),
}  # fmt: skip


FATES: dict[str, tuple[str, str, str]] = {
    "waiting": ("◔", "#6b7280", "has not begun"),
    "running": ("●", "#0072b2", "running"),
    "held": ("✓", "#007a5a", "held to the end"),
    "warned": ("▼", "#8a6100", "with a warning"),
    "failed": ("✖", "#c04f00", "failed"),
    "ended": ("■", "#4b5563", "ended early"),
}
"""Icon, colour and words for what became of one simulation of several."""


def look(state: str) -> Look:
    """The look of a state; an unknown one (from a newer version) is shown by its name."""
    return LOOKS.get(state) or Look("·", state.upper(), "#6b7280", "")


def state_of(run: Run) -> str:
    """State of a run; "review" where a workflow has ended its work for now because the user has to look at frames."""
    state = run.state
    if run.kind != "workflow" or state in ("running", "queued", "paused", "crashed"):
        return state
    from mlipkit.strategies.workflows.review import waiting

    return "review" if (run.folder / "candidates").is_dir() and waiting(run.folder) else state


def sentence_case(sentence: str) -> str:
    """With a capital letter in front, unless it begins with a name of the code."""
    first = sentence.partition(" ")[0]
    return sentence if "_" in first else sentence[:1].upper() + sentence[1:]


def duration(seconds: float) -> str:
    """Rough time in words: ``45 s``, ``3 min``, ``2.5 h``, ``4 days``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{round(seconds / 86400)} days"


def chip(state: str, text: str = "") -> str:
    """HTML of the small coloured label of a state."""
    style = look(state)
    return f'<span class="mk-chip" style="--mk-tone:{style.tone}">{style.icon} {escape(text or style.word)}</span>'
