"""What gunicorn's log is spared: connections that were lost on their way.

gunicorn passes over a client that has closed or reset its connection. One that lost its power or its network ends the
same way for the server, and in its log with a traceback of thirty lines: with a crowd of them nearly half
of the worker's work.
"""

from __future__ import annotations

import errno
import logging

# Of the kernel's keep-alive and TCP_USER_TIMEOUT, and of ICMP.
_LOST = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def is_told(record: logging.LogRecord) -> bool:
    """A filter of gunicorn's error log: whether it is about anything but a lost connection."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, OSError) and error.errno in _LOST)
