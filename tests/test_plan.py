"""bench/plan.py: the plan on paper is what its script computes, and the script computes rightly."""

from __future__ import annotations

import pytest

from bench import crowds, plan
from bench.fanout import Crowd, Outcome
from bench.plan import Measured, need
from bench.report import Report

ROUND = Measured(5000, 10.0, 16.0, 1000, 0.01, 10_000)


def test_the_plan_in_the_docs_is_computed() -> None:
    """docs/operations.md has what `python -m bench.plan` makes of docs/performance.md; `--write` puts it there."""
    documented = plan.OPERATIONS.read_text().partition(plan.BEGIN)[2].partition(plan.END)[0]
    assert documented == plan.plan(plan.read(plan.PERFORMANCE.read_text()))


def test_the_largest_audience_counts() -> None:
    """Of the table that bench/crowds.py makes, the row of 10,000, one at a time; bursts are cheaper, and no plan."""
    report = Report()
    report.table("Subscribers", *crowds.COLUMNS)
    for crowd, us in ((Crowd(1000, 100), 12.0), (Crowd(10_000, 20), 15.6), (Crowd(10_000, 4, 100), 1.2)):
        told = Outcome(us, 80.0, 180.0, 16.0, 928.0, 0, 0)
        report.row("**Perennial**", *crowds.cells(crowd, told), crowds.ASKED)
    report.say(
        "", "10,000 idle subscribers, held for 60 s with heartbeats: 3.2% of a core, 7.9 KiB each (asked for: none)."
    )
    assert plan.read("\n".join(report.lines)) == Measured(10_000, 15.6, 16.0, 928, 0.032, 10_000)


def test_a_need_is_arithmetic() -> None:
    """By hand: 630,000 streams on 6,300 a worker; a delivery in 10 s for each, and their heartbeats, at 70 %."""
    found = need(630_000, ROUND)
    assert found.workers == 100
    assert found.cores == pytest.approx((630_000 * 0.1 * 10e-6 + 63 * 0.01) / 0.7)
    assert found.memory_gib == pytest.approx(630_000 * 16 / 1024 / 1024)
    assert found.redis_connections == 3300
    assert found.reconnect_s == pytest.approx(6.3)


def test_work_may_ask_for_more_workers_than_streams_do() -> None:
    """Where a delivery takes a second of CPU, 10,000 streams with one in ten seconds each are 1,000 cores."""
    slow = Measured(5000, 1e6, 16.0, 1000, 0.0, 10_000)
    assert need(10_000, slow).workers == 1429


def test_what_was_not_measured_is_not_made_up() -> None:
    """Without the rows there is no plan."""
    with pytest.raises(ValueError, match="no row of the fan-out"):
        plan.read("# Performance\n")
