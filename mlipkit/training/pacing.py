"""Training time, and what shall happen before the next step: go on, save, pause, stop, end on the clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlipkit.events import Control

if TYPE_CHECKING:
    from mlipkit.training.parallel import Processes
    from mlipkit.training.settings import TrainSettings

RUN, SAVE, PAUSE, STOP, TIME = range(5)
PAUSE_S = 0.1


class Pacer:
    """Asks the user's control, watches limits and checkpoints, and lets all processes agree.

    Args:
        settings: limits and checkpoint intervals.
        control: asked in the first process only; may itself hold the call during a pause.
        processes: everybody gets the first one's answer.

    Attributes:
        seconds: training time so far, resumed parts included, pauses not.
    """

    def __init__(self, settings: TrainSettings, control: Control, processes: Processes) -> None:
        self.settings, self._control, self._processes = settings, control, processes
        self.seconds = 0.0
        self._tick = self._saved = time.perf_counter()
        self._saved_step = -1

    def restart(self, seconds: float) -> None:
        """Training time starts to count again, from here."""
        self.seconds = seconds
        self._tick = self._saved = time.perf_counter()

    def advance(self) -> float:
        """Count the time since the last call; returns `seconds`."""
        now = time.perf_counter()
        self.seconds, self._tick = self.seconds + now - self._tick, now
        return self.seconds

    @property
    def since_save(self) -> float:
        """Seconds since `saved`."""
        return time.perf_counter() - self._saved

    def saved(self, step: int) -> None:
        """The state of this step was written."""
        self._saved, self._saved_step = time.perf_counter(), step

    def request(self, step: int) -> int:
        """RUN, SAVE, PAUSE, STOP or TIME before the step after `step`."""
        wanted = RUN
        if self._processes.first:
            self.advance()
            said = self._control()
            # Time inside the call is a pause, not training.
            self._tick = time.perf_counter()
            limit = self.settings.time_limit_s
            if said != "run":
                wanted = STOP if said == "stop" else PAUSE
            elif limit is not None and self.seconds >= limit:
                wanted = TIME
            elif self._due(step):
                wanted = SAVE
        return self._processes.agree(wanted)

    def _due(self, step: int) -> bool:
        every = self.settings.checkpoint_steps
        by_step = every is not None and step % every == 0 and step != self._saved_step
        return by_step or self.since_save >= self.settings.checkpoint_s

    def hold(self, step: int) -> int:
        """Block while the user pauses; returns the request that ends the pause."""
        request = PAUSE
        while request == PAUSE:
            time.sleep(PAUSE_S)
            self._tick = time.perf_counter()
            request = self.request(step)
        return request
