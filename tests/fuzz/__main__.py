"""``python -m tests.fuzz``: so many seconds of Hypothesis over all, and as many of atheris where it is installed.

Half of Hypothesis's time goes to the properties of ``tests/``, half to each parser of ``tests.fuzz.parsers``.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.imagination import Found, imagine
from tests.fuzz.parsers import PARSERS


def properties(seconds: float) -> bool:
    """Whether all hold."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.fuzz.properties", f"--fuzz-seconds={seconds}"]
    return not subprocess.run([*command, "--timeout=0", "-q", "-p", "no:cacheprovider"], check=False).returncode


def imagined(names: list[str], seconds: float) -> bool:
    """Whether none was found; all are fed, whatever the others do."""
    found, fed = 0, 0
    for name in names:
        try:
            fed += imagine(name, PARSERS[name], seconds / len(names))
        except Found as error:
            found += 1
            print(f"FOUND: {error}", file=sys.stderr, flush=True)  # noqa: T201
    print(f"{len(names)} parsers, {fed:,} inputs by Hypothesis, {found} findings", flush=True)  # noqa: T201
    return not found


def guided(names: list[str], seconds: float) -> bool:
    """The same by atheris."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (requirements-fuzz.txt): Hypothesis alone")  # noqa: T201
        return True
    found, fed = 0, 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            for_s = str(max(1, round(seconds / len(names))))
            command = [sys.executable, "-m", "tests.fuzz.guided", name, for_s, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            fed += sum(map(int, re.findall(r"number_of_executed_units: *(\d+)", done.stderr)))
            told = [str(each) for each in artefacts(name, Path(folder))]
            if done.returncode and not told:
                told.append(f"{name}: atheris ended with {done.returncode}: {done.stderr[-2000:]}")
        found += len(told)
        for each in told:
            print(f"FOUND: {each}", file=sys.stderr, flush=True)  # noqa: T201
    print(f"{len(names)} parsers, {fed:,} inputs by atheris, {found} findings", flush=True)  # noqa: T201
    return not found


def artefacts(name: str, folder: Path) -> Iterator[Found]:
    """Yield what libFuzzer has left: an input that raises, or takes more than a time or a memory that it sets."""
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        data, kind = path.read_bytes(), path.name.rpartition("-")[0]
        # Only what raises is fed again: the others would take as long, or as much, here too.
        yield Found(name, data, _raised(name, data) if kind == "crash" else TooMuch(kind))


class TooMuch(Exception):
    """What libFuzzer calls an input that did not raise: timeout, oom, slow-unit."""


def _raised(name: str, data: bytes) -> BaseException:
    try:
        PARSERS[name].feed(data)
    except Exception as error:
        return error
    return AssertionError("not raised again")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="for Hypothesis, and again for atheris")
    parser.add_argument("--only", choices=sorted(PARSERS), default="", help="one parser")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "HEX"), help="one input of one parser")
    parser.add_argument("--by", choices=("hypothesis", "atheris"), action="append", help="one of them alone")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if asked.replay:
        name, text = asked.replay
        PARSERS[name].feed(b"" if text == "-" else bytes.fromhex(text))
        return 0
    names = [asked.only] if asked.only else list(PARSERS)
    by = asked.by or ("hypothesis", "atheris")
    fine = []
    if "hypothesis" in by:
        fine += [imagined(names, asked.seconds / 2)]
        fine += [properties(asked.seconds / 2)] if not asked.only else []
    if "atheris" in by:
        fine += [guided(names, asked.seconds)]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
