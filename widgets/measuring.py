"""What a run will take, measured beside the notebook: one specification at a time, the newest one asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlipkit.errors import MlipkitError

from .ticker import in_background

if TYPE_CHECKING:
    from mlipkit.runs import Estimate
    from mlipkit.runs.spec import AnySpec


class Measuring:
    """Measures a few real steps of a specification in a child process.

    Args:
        done: called on the kernel's loop when `estimate` or `error` has come.

    Attributes:
        spec: what is or was measured last; None after `cancel`.
        estimate: its result, or None.
        error: why there is none, or None.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._cancelled = threading.Event()
        self.cancel()

    def cancel(self) -> None:
        """End what is under way, and forget it."""
        self._cancelled.set()
        self.spec: AnySpec | None = None
        self.estimate: Estimate | None = None
        self.error: BaseException | None = None

    def start(self, spec: AnySpec) -> None:
        """Measure this one instead of whatever is under way."""
        from mlipkit.runs import estimate

        self.cancel()
        self.spec, cancelled = spec, threading.Event()
        self._cancelled = cancelled

        def finished(result: object, error: BaseException | None) -> None:
            if not cancelled.is_set():
                self.estimate, self.error = result, error  # type: ignore[assignment]
                self._done()

        in_background(lambda: estimate(spec, cancelled=cancelled.is_set), finished)

    @property
    def running(self) -> bool:
        """A measurement is under way."""
        return self.spec is not None and self.estimate is None and self.error is None

    @property
    def breaks_the_run(self) -> bool:
        """What went wrong would go wrong in the run as well."""
        from mlipkit.runs.estimating import NotMeasured

        return isinstance(self.error, MlipkitError) and not isinstance(self.error, NotMeasured)

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        if self.estimate is not None:
            text = self.estimate.sentence
            return f"{text[:1].upper()}{text[1:]}, as first steps measured"
        if isinstance(self.error, MlipkitError):
            return f"No estimate: {self.error}"
        return f"No estimate: {type(self.error).__name__}: {self.error}" if self.error is not None else ""
