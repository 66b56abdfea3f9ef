"""Every parser and codec of what comes from outside, fed with whatever can be thought of, for as long as is wished.

``make fuzz`` (``python -m tests.fuzz --help``); a moment of each is part of ``make test`` (tests/test_fuzz.py).
"""
