"""The environments of the peers that pip and npm install, apart from the server's own; made when first needed.

Raises NotMeasured where one cannot be made: no network, no Node, a registry that does not have it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.report import NotMeasured
from settings import ROOT

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".venv"
REQUIREMENTS = ROOT / "requirements-bench.txt"
INSTALL_S = 300


@cache
def python() -> Path:
    """Return the interpreter of requirements-bench.txt, in bench/.venv."""
    found, stamp = FOLDER / "bin" / "python", FOLDER / ".installed"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        _install(found)
        stamp.write_text(REQUIREMENTS.read_text())
    return found


def _install(found: Path) -> None:
    _done([sys.executable, "-m", "venv", "--clear", FOLDER], HERE, f"{REQUIREMENTS.name} has no environment")
    _done([found, "-m", "pip", "install", "-q", "-r", REQUIREMENTS], HERE, f"{REQUIREMENTS.name} cannot be installed")


def node(name: str) -> Path:
    """Return the folder ``name`` with what its package.json asks for."""
    folder = HERE / name
    if shutil.which("npm") is None:
        raise NotMeasured("there is no Node")
    wanted, stamp = (folder / "package.json").read_text(), folder / "node_modules" / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder / ".next", ignore_errors=True)  # built with what was there before
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        _done(["npm", "install", *options], folder, f"npm cannot install {name}")
        stamp.write_text(wanted)
    return folder


def next_built(name: str) -> Path:
    """Return the folder ``name``, an application of Next.js, built for production."""
    folder = node(name)
    if not (folder / ".next" / "BUILD_ID").exists():
        _done(["npx", "--no-install", "next", "build"], folder, "Next.js cannot build it")
    return folder


def _done(command: Sequence[str | Path], folder: Path, otherwise: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        raise NotMeasured(otherwise) from error
