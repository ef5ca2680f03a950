"""The memory that a piece of work takes, and not what the process does beside it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def traced_peak(work: Callable[[], object], bound: int) -> int:
    """Bytes that `work` takes at its height: of two goes where the first is above `bound`, the lesser.

    A table of the whole process (Python's own of interned strings) doubles when it is full: 15 MB at a stroke in a
    process that has run thousands of tests, and in whatever happens to run at that moment. It does so once, what the
    work itself takes comes again.
    """
    peak = _peak(work)
    return peak if peak <= bound else min(peak, _peak(work))


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
