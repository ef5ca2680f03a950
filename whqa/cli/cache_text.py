"""What `whqa data prepare` says at the end: cases, bytes, seconds, and what else lies in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whqa.data.cache import Cache
    from whqa.data.prepare import Preparation


def print_cache(cache: Cache, name: str, outcomes: Sequence[Preparation], seconds: float, prune: bool) -> None:
    """A line or two on standard output; with `prune` everything else is removed from the cache."""
    prepared = [o.prepared for o in outcomes if o.prepared is not None]
    made = sum(o.made for o in outcomes)
    sizes = cache.sizes()
    ours = sum(sizes.pop(place, 0) for place in {p.directory for p in prepared})
    print(
        f"{name}: {made} made, {len(prepared) - made} found, {len(outcomes) - len(prepared)} bad; "
        f"{readable(ours)} in {cache.directory}, {seconds:.1f} s"
    )
    others = f"{len(sizes)} other entr{'y' if len(sizes) == 1 else 'ies'}, {readable(sum(sizes.values()))}"
    if prune:
        cache.prune(prepared)
        print(f"removed: {others}")
    elif sizes:
        print(f"beside them {others}: other settings, experiments or versions; --prune removes them")


def readable(size: int) -> str:
    """Bytes as people write them: "1.2 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
