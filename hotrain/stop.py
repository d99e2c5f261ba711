"""SIGTERM and SIGINT ask a run to stop; it does so after the step it is in."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HANDED_ON = 5.0  # seconds in which a launcher hands a signal on


class StopSignals:
    """While entered, the first SIGTERM or SIGINT only sets `asked`. A second SIGINT ends the program at once.

    A launcher hands on to its processes what the terminal has sent to them already: there a second SIGINT counts only
    if some seconds lie between.

    Outside of the main thread, where Python allows no handlers, it listens to nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        handed_on = "RANK" in os.environ and time.monotonic() - self._asked_at < _HANDED_ON
        if self.asked and number == signal.SIGINT and not handed_on:
            raise KeyboardInterrupt
        if not self.asked:
            self._asked_at = time.monotonic()
        self.asked = True
