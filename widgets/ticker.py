"""Calls a method again and again on the kernel's event loop, from whatever thread it was asked.

In ipykernel 7 button callbacks may run in another thread than cells. Everything that changes a view is therefore sent
to one loop, the kernel's; views then need no locks. Outside a kernel (tests, plain Python) there is no loop: nothing
ticks by itself, and calls run at once.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import Callable

log = logging.getLogger(__name__)


def kernel_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs cells, or None outside a kernel."""
    kernelbase = sys.modules.get("ipykernel.kernelbase")
    if kernelbase is None or not kernelbase.Kernel.initialized():
        return None
    return getattr(getattr(kernelbase.Kernel.instance(), "io_loop", None), "asyncio_loop", None)


def on_loop(function: Callable[..., object], *arguments: object) -> None:
    """Run `function` on the kernel's loop: at once when already there or when there is none, else soon."""
    loop = kernel_loop()
    if loop is None or loop.is_closed() or _is_current(loop):
        function(*arguments)
    else:
        loop.call_soon_threadsafe(function, *arguments)


def in_background(work: Callable[[], object], done: Callable[[object, BaseException | None], None]) -> None:
    """Run `work` in a thread of its own and hand its result, or its error, to `done` on the kernel's loop.

    Without a loop both run at once.
    """
    if kernel_loop() is None:
        _deliver(work, lambda *result: done(*result))
        return
    threading.Thread(
        target=_deliver, args=(work, lambda *result: on_loop(done, *result)), daemon=True, name="mlipkit-widgets"
    ).start()


def after(seconds: float, function: Callable[[], object]) -> None:
    """Run `function` on the kernel's loop after a pause; never, when there is no loop."""
    loop = kernel_loop()
    if loop is not None and not loop.is_closed():
        loop.call_soon_threadsafe(lambda: loop.call_later(seconds, function))


class Ticker:
    """Calls the bound method `tick` until `stop`, or until its owner is gone; only a weak reference is kept.

    Args:
        tick: bound method; returns the seconds until its next call, or None to end.
    """

    def __init__(self, tick: Callable[[], float | None]) -> None:
        self._tick = weakref.WeakMethod(tick)
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.running = False

    def start(self) -> None:
        """Begin, with the first call at once on the loop. Does nothing when it runs already or without a loop."""
        loop = kernel_loop()
        if self.running or loop is None:
            return
        self.running, self._loop = True, loop
        loop.call_soon_threadsafe(self._fire)

    def hurry(self) -> None:
        """Call again now instead of at the end of the present pause."""
        if self.running and self._loop is not None:
            self._loop.call_soon_threadsafe(self._fire)

    def stop(self) -> None:
        """No further call."""
        self.running = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        tick = self._tick()
        if not self.running or tick is None or self._loop is None:
            return
        try:
            pause = tick()
        except Exception:
            # A view must survive a file that is half written or gone; the view itself shows what it can.
            log.exception("a view could not be brought up to date")
            pause = 2.0
        if pause is None:
            self.running = False
        elif self.running:
            self._handle = self._loop.call_later(pause, self._fire)


def _is_current(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _deliver(work: Callable[[], object], done: Callable[[object, BaseException | None], None]) -> None:
    try:
        result: object = work()
    except Exception as error:
        done(None, error)
    else:
        done(result, None)
