"""One parser, fed by atheris, which follows the branches of the code that an input takes: ``NAME SECONDS FOLDER``.

A process of its own for each: libFuzzer ends it. What it found lies in FOLDER as ``crash-…``, ``timeout-…``,
``oom-…`` and ``slow-unit-…``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streaming", "llm", "stores"]):
    from tests.fuzz.parsers import PARSERS


def main(name: str, seconds: str, folder: str) -> None:
    logging.disable(logging.CRITICAL)
    parser = PARSERS[name]
    corpus = Path(folder) / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(parser.seeds):
        (corpus / str(number)).write_bytes(seed)
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-max_len=2048", "-timeout=30"]
    atheris.Setup([sys.argv[0], *flags, "-verbosity=0", "-print_final_stats=1", str(corpus)], parser.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:4])
