"""How many workers there are to be: a number, or as many as there are processors to use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def workers(asked: int, in_memory: bool, cpu_max: Path = _CPU_MAX) -> int:
    """Return how many workers WEB_CONCURRENCY asks for: 0 is one for each processor.

    ``in_memory``: the log is, and there is one worker then. What is no number gunicorn itself refuses before this.
    """
    return asked or (1 if in_memory else usable(cpu_max))


def usable(cpu_max: Path = _CPU_MAX) -> int:
    """Return how many processors this process may use: by its affinity, and by its container's share of time.

    ``cpu_max``: the quota and period of the control group (Linux's cgroup-v2, "cpu.max"), "max" without one.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        share = math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        share = math.inf
    return max(1, math.ceil(min(allowed, share)))
