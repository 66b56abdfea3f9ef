"""Every kind of stream, through faults drawn from a seed: nothing lost, nothing doubled, no clean end that is none.

``make survive`` (``python -m tests.survive --help``); a minute of it is part of ``make test``.
"""
