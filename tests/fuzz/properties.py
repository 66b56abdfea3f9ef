"""A plugin of pytest: of all tests those by Hypothesis, each again and again with other examples until its time is up.

``python -m pytest -p tests.fuzz.properties --fuzz-seconds 600``: for all of them together.
"""

from __future__ import annotations

import time

import pytest

_EACH_S = pytest.StashKey[float]()
_ROUNDS = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=600.0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = [item for item in items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]
    config.stash[_EACH_S] = config.getoption("--fuzz-seconds") / max(1, len(chosen))
    config.stash[_ROUNDS] = {}
    items[:] = chosen


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    until, rounds = time.monotonic() + pyfuncitem.config.stash[_EACH_S], 0
    while not rounds or time.monotonic() < until:
        pyfuncitem.obj(**given)
        rounds += 1
    pyfuncitem.config.stash[_ROUNDS][pyfuncitem.nodeid] = rounds
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rounds = terminalreporter.config.stash.get(_ROUNDS, {})
    terminalreporter.write_line(f"{len(rounds)} properties, {sum(rounds.values())} rounds of examples")
