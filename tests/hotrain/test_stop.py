"""Signals: the first one asks, a second Ctrl-C ends; a launcher's copy of the first one is not a second."""

from __future__ import annotations

import os
import signal
import time

import pytest

from hotrain.stop import StopSignals


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # Python's handlers run between two of its instructions


def test_the_first_asks_and_the_second_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with StopSignals() as stop:
        interrupt()
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_what_a_launcher_hands_on_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal sends Ctrl-C to every process, and torch's launcher sends it to its processes once more."""
    monkeypatch.setenv("RANK", "0")
    with StopSignals() as stop:
        interrupt()
        interrupt()
        assert stop.asked
        monkeypatch.setattr("hotrain.stop._HANDED_ON", 0.0)  # some seconds later
        with pytest.raises(KeyboardInterrupt):
            interrupt()
