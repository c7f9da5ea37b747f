"""Something that takes a moment to compute: made beside the notebook, again whenever what it depends on has changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from mlipkit.errors import MlipkitError

from .ticker import after, in_background, kernel_loop

Value = TypeVar("Value")
_TURN = Lock()


class Computed(Generic[Value]):
    """The newest result of a piece of work; the one before stays until the next has come.

    Args:
        done: called on the kernel's loop when `value` or `problem` has changed.

    Attributes:
        value: the result, or None.
        problem: why there is none, for people; "" otherwise.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self.value: Value | None = None
        self.problem = ""
        self._key: Hashable = None
        self._busy = self._closed = False

    @property
    def key(self) -> Hashable:
        """What `value` or `problem` belongs to, or what is being computed."""
        return self._key

    @property
    def busy(self) -> bool:
        return self._busy

    def want(self, key: Hashable, work: Callable[[], Value | None], after_s: float = 0.0) -> None:
        """Compute for this key, unless that was done already. While something is computed nothing else begins.

        Args:
            after_s: in a kernel begin so much later, for work whose imports would keep pictures that are ready from the
                page.
        """
        if key == self._key or self._busy or self._closed:
            return
        self._key, self._busy = key, True

        def finished(result: object, error: BaseException | None) -> None:
            self._busy = False
            if self._closed:
                return
            if error is None:
                self.value, self.problem = result, ""  # type: ignore[assignment]
            else:
                self.value = None
                self.problem = str(error) if isinstance(error, MlipkitError) else f"{type(error).__name__}: {error}"
            self._done()

        if after_s and kernel_loop() is not None:
            after(after_s, lambda: in_background(lambda: _alone(work), finished))
        else:
            in_background(lambda: _alone(work), finished)

    def close(self) -> None:
        """Nothing is reported any more."""
        self._closed = True


def _alone(work: Callable[[], Value | None]) -> Value | None:
    """One piece at a time: together they are no faster, and the first ones would import the same packages at once."""
    with _TURN:
        return work()
