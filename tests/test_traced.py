"""What is counted as the memory of a piece of work."""

from __future__ import annotations

from traced import traced_peak

FULL = 349_525  # strings that a dictionary of 2^19 places takes; the next makes it 15 MB


def test_a_table_of_the_process_that_grows_meanwhile_does_not_count() -> None:
    table = dict.fromkeys(map(str, range(FULL - 1)))
    names = iter(map(str, range(FULL - 1, FULL + 9)))

    def work() -> None:
        table[next(names)] = None
        table[next(names)] = None

    assert traced_peak(work, 1 << 20) < 1 << 20


def test_what_the_work_takes_each_time_counts() -> None:
    assert traced_peak(lambda: bytes(4 << 20), 1 << 20) >= 4 << 20
