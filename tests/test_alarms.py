"""A moment of the clock on the wall: it comes once, also when the clock is set meanwhile."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gevent
import pytest

from streaming import alarms
from streaming.alarms import Alarm


class Clock:
    """What ``alarms`` takes for the module ``time``: the real one, set by so much."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set_by = 0.0
        monkeypatch.setattr(alarms, "time", SimpleNamespace(time=self.time))

    def time(self) -> float:
        return time.time() + self.set_by


def test_an_alarm_rings_once_when_its_time_has_come() -> None:
    """Not before, and not again."""
    rung: list[float] = []
    at = time.time() + 0.05
    Alarm(at, lambda: rung.append(time.time()))
    gevent.sleep(0.2)
    assert len(rung) == 1
    assert rung[0] >= at


def test_an_alarm_that_was_closed_is_silent() -> None:
    """Its owner has gone."""
    rung: list[bool] = []
    Alarm(time.time() + 0.02, lambda: rung.append(True)).close()
    gevent.sleep(0.1)
    assert not rung


@pytest.mark.parametrize(("set_by", "rings"), [(60.0, True), (-60.0, False)])
def test_an_alarm_goes_by_the_clock_that_was_set(monkeypatch: pytest.MonkeyPatch, set_by: float, rings: bool) -> None:
    """Set forward, it rings at the next look, long before the time that it was made for; set back, later than that."""
    clock, rung = Clock(monkeypatch), list[bool]()
    monkeypatch.setattr(alarms, "_LOOK_S", 0.02)
    alarm = Alarm(clock.time() + (30 if rings else 0.05), lambda: rung.append(True))
    clock.set_by = set_by
    gevent.sleep(0.2)
    assert bool(rung) == rings
    alarm.close()
