"""A wall clock of its own for a stage's servers, that can be set while they run: clock.c, compiled and preloaded.

Rules:
- Only the time of day steps, in all processes at once; what is measured or waited for goes on.
- Where there is no C compiler, or its library does not do what it should, there is none, and ``why`` says so.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
_PROBE = "import time; print(time.time() - {now}, time.monotonic())"


class Clock:
    """``environment``: what a process is started with. ``stepped_s``: how far it is from the machine's own clock."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        self._library = folder / "clock.so"
        self.stepped_s = 0.0
        self.why = self._compile() or self._try()

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.why else {"LD_PRELOAD": str(self._library), "SURVIVE_CLOCK": str(self._file)}

    def step(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._set(self.stepped_s + int(seconds))

    def _set(self, seconds: float) -> None:
        self.stepped_s = seconds
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", seconds))

    def _compile(self) -> str:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None or not sys.platform.startswith("linux"):
            return "there is no C compiler here"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return f"clock.c does not compile: {done.stderr[:200]}" if done.returncode else ""

    def _try(self) -> str:
        """Look whether Python's own time of day steps, and nothing else."""
        self._set(3600)
        try:
            environment = {**os.environ, "LD_PRELOAD": str(self._library), "SURVIVE_CLOCK": str(self._file)}
            probe = [sys.executable, "-c", _PROBE.format(now=time.time())]
            done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False, env=environment)
            if done.returncode:
                return f"nothing can be preloaded here: {done.stderr[:200]}"
            ahead_s, monotonic_s = map(float, done.stdout.split())
            kept = 3590 < ahead_s < 3700 and abs(monotonic_s - time.monotonic()) < 60
            return "" if kept else f"a preloaded clock is {ahead_s} s ahead instead of 3600"
        finally:
            self._set(0.0)
