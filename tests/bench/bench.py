"""`make bench`: what costs time, each part beside an alternative in one run. Trust the ratios, not the seconds.

Tables of one thread count CPU seconds, which other work on the machine changes little; the others are wall time.
"""

from __future__ import annotations

import assessing
import case_metrics
import interpolation
import loading
import parts
import preparing
import steps
import waiting
from rich.console import Console


def main() -> None:
    """All tables, a few minutes."""
    console = Console(width=max(110, Console().width))
    for module in (preparing, interpolation, loading, steps, waiting, parts, case_metrics, assessing):
        module.print_table(console)


if __name__ == "__main__":
    main()
