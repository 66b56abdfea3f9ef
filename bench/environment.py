"""The environment of the peers that pip installs, apart from the server's own: bench/.venv."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from bench.report import NotMeasured
from settings import ROOT

FOLDER = Path(__file__).resolve().parent / ".venv"
REQUIREMENTS = ROOT / "requirements-bench.txt"
INSTALL_S = 300


@cache
def python() -> Path:
    """Return its interpreter, installed at the first call of all. Raises NotMeasured where that cannot be."""
    found, stamp = FOLDER / "bin" / "python", FOLDER / ".installed"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        _install(found)
        stamp.write_text(REQUIREMENTS.read_text())
    return found


def _install(found: Path) -> None:
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True, capture_output=True)
        install = [found, "-m", "pip", "install", "-q", "-r", REQUIREMENTS]
        subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        raise NotMeasured(f"{REQUIREMENTS.name} cannot be installed") from error
