"""How much memory this process has for itself."""

from __future__ import annotations

import mmap


def own_bytes() -> int:
    """Return the resident memory without what is shared with files (proc(5), statm); 0 where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:
            resident, shared = map(int, file.read().split()[1:3])
    except OSError:
        return 0
    return (resident - shared) * mmap.PAGESIZE
