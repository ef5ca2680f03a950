"""How figures look: colours, markers, text, and the file that they become.

Colours are Okabe & Ito's, the last ones Tol's (readable with colour blindness); mask kinds also differ by marker.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from whqa.masks.plan import MASK_KINDS, family

PALETTE = (
    *("#0072B2", "#7F7F7F", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#332288", "#AA4499", "#DDCC77"),
)
_MARKERS = {"final": "o", "reference": "*", "corrupted": "X", "novel": "d", "mixed": "h", "early": "P"}
_MARKERS |= {"side1": "s", "side2": "^", "side3": "v", "side4": "D", "unfinished": "s", "augmented": "p"}
MARKERS: Mapping[str, str] = _MARKERS | {k: _MARKERS.get(k) or _MARKERS[family(k)] for k in MASK_KINDS}
"""Of every kind of mask, and of every family of kinds."""
OTHERS = "X*pHd8"
# Twice as fast as PIL's 6, files of a tenth more.
_PNG_LEVEL = 3
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    # names of cases, kinds and structures are no formulas
    "text.parse_math": False,
}


def kind_markers(kinds: Sequence[str]) -> dict[str, str]:
    """One marker a mask kind: the segmenters' kinds always have the same, other programs' theirs in turn."""
    others = [kind for kind in kinds if kind not in MARKERS]
    return {k: MARKERS[k] for k in kinds if k in MARKERS} | {k: OTHERS[i % len(OTHERS)] for i, k in enumerate(others)}


def png(figure: Figure, dpi: float = 130) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # names may be in a script that the font lacks: boxes stand for them
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", pil_kwargs={"compress_level": _PNG_LEVEL})
    return buffer.getvalue()


def warm_up() -> None:
    """What a process does that is to draw: its first picture takes twice as long as the others."""
    figure = Figure()
    figure.subplots().set_title("-")
    png(figure)
