"""What a strategy answers: ready, needs something, or impossible, in one plain sentence, with what it would cost."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, overload

State = Literal["ready", "needs", "impossible"]
ICONS: dict[State, str] = {"ready": "✓", "needs": "◔", "impossible": "✖"}
"""Beside the word, never instead of it."""
TONES: dict[State, str] = {"ready": "#007a5a", "needs": "#8a6100", "impossible": "#4b5563"}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Expected:
    """What the run that an answer names would take; None: unknown.

    Attributes:
        labels: frames to be labelled for it.
        seconds: on this machine, s; an upper bound where a run may end early.
        peak_bytes: memory of its process.
        basis: what the figures were made from, for people.
    """

    labels: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    basis: str = ""

    @property
    def sentence(self) -> str:
        """``65 labels · at most 3 min · 0.5 GB memory``."""
        labels = f"{UNKNOWN} number of" if self.labels is None else "no" if not self.labels else str(self.labels)
        time = f"time {UNKNOWN}" if self.seconds is None else f"at most {_duration(self.seconds)}"
        memory = f"memory {UNKNOWN}" if self.peak_bytes is None else f"{self.peak_bytes / 1e9:.1f} GB memory"
        return f"{labels} new label{'' if labels == '1' else 's'} · {time} · {memory}"


@dataclass(frozen=True)
class Answer:
    """What one strategy says of a situation.

    Attributes:
        strategy: its name, with the variant behind a colon: "finetune", "workflow:naive".
        title: for people.
        state: ready, needs (something that can be had) or impossible.
        sentence: what it would do, what it needs, or why it cannot be: one plain sentence.
        needs: each thing that is missing.
        expected: cost of the run, also where something is missing yet.
        spec: specification of the run as plain data (`mlipkit.runs.parse_spec`), or None where there is none to launch.
    """

    strategy: str
    title: str
    state: State
    sentence: str
    needs: tuple[str, ...] = ()
    expected: Expected = field(default_factory=Expected)
    spec: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, strategy: str, title: str, *, ready: str, why_not: str = "", needs: Sequence[str] = (),
        expected: Expected | None = None, spec: Mapping[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        """The answer that follows: impossible when there is a reason against it, else what it needs, else ready.

        Args:
            ready: clause that says what it would do. why_not: clause that forbids it, "" for none.
            needs: noun phrases of what is missing, the first thing to do in front.
        """
        missing = tuple(filter(None, needs))
        expected = expected or Expected()
        if why_not:
            return cls(strategy, title, "impossible", f"Impossible because {why_not}.", missing)
        if missing:
            return cls(strategy, title, "needs", f"Needs {'; and '.join(missing)}.", missing, expected, spec)
        return cls(strategy, title, "ready", f"{ready[:1].upper()}{ready[1:]}.", (), expected, spec)

    @property
    def word(self) -> str:
        """Icon and state: ``✓ ready``."""
        return f"{ICONS[self.state]} {self.state}"

    def __str__(self) -> str:
        cost = "" if self.state == "impossible" else f" ({self.expected.sentence})"
        return f"{self.word:12}  {self.title}: {self.sentence}{cost}"

    def _repr_html_(self) -> str:
        return Answers((self,))._repr_html_()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        record = asdict(self)
        return {**record, "needs": list(self.needs), "spec": None if self.spec is None else dict(self.spec)}


@dataclass(frozen=True)
class Answers(Sequence[Answer]):
    """All answers, in the order in which the strategies are known.

    Attributes:
        frames, potential: what they are about, in words; "" for no potential.
        notes: what could not be measured or seen, and why.
        seconds: that it took, s.
        late: something did not fit in the time; asked with more of it, it is remembered.
    """

    answers: tuple[Answer, ...]
    frames: str = ""
    potential: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    late: bool = False

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> Answers: ...
    @overload
    def __getitem__(self, index: str) -> Answer: ...
    def __getitem__(self, index):
        """By number, or by the name of the strategy."""
        if isinstance(index, str):
            for answer in self.answers:
                if answer.strategy == index:
                    return answer
            raise KeyError(index)
        if isinstance(index, slice):
            return Answers(self.answers[index], self.frames, self.potential, self.notes, self.seconds)
        return self.answers[index]

    def __len__(self) -> int:
        return len(self.answers)

    def of(self, state: State) -> list[Answer]:
        """Those in one state."""
        return [answer for answer in self.answers if answer.state == state]

    @property
    def sentence(self) -> str:
        """``3 ready, 6 need something, 1 impossible``."""
        words: dict[State, str] = {"ready": "ready", "needs": "need something", "impossible": "impossible"}
        counts = [(len(self.of(state)), word) for state, word in words.items()]
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "no strategy is known"

    def __str__(self) -> str:
        about = "\n".join(filter(None, (self.frames, self.potential)))
        return "\n".join([*([about, ""] if about else []), *map(str, self.answers), *self.notes])

    def __repr__(self) -> str:
        return f"Answers({self.sentence})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="color:{TONES[one.state]};white-space:nowrap">{one.word}</td>'
            f"<td>{html.escape(one.title)}</td><td>{html.escape(one.sentence)}</td>"
            f"<td>{html.escape('' if one.state == 'impossible' else one.expected.sentence)}</td></tr>"
            for one in self.answers
        )
        about = "".join(f"<div>{html.escape(text)}</div>" for text in (self.frames, self.potential) if text)
        notes = "".join(f"<div><small>{html.escape(note)}</small></div>" for note in self.notes)
        head = "".join(f'<th scope="col">{name}</th>' for name in ("state", "strategy", "why", "expected"))
        return f"{about}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "frames": self.frames, "potential": self.potential, "notes": list(self.notes), "seconds": self.seconds,
            "answers": [answer.to_json() for answer in self.answers],
        }  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
