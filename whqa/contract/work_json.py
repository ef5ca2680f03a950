"""What a person would have to correct in a mask: the part `work` of quality.json."""

from __future__ import annotations

from typing import TypedDict

from whqa.contract.json_schema import Share, Size


class Piece(TypedDict):
    """A connected piece to correct, small ones as well.

    Attributes:
        ml: its volume.
        structure: that the mask gives most of it to; null for background, where something is missing.
        opinion: structure that the second opinion gives most of it to; null for background, and without opinion.
        probability: mean error probability.
        voxel: in its middle, indices of the scan's own grid.
    """

    ml: Size
    structure: str | None
    opinion: str | None
    probability: Share
    voxel: list[int]


class Work(TypedDict):
    """What a person would have to correct: connected pieces of voxels that are more probably wrong than right.

    Attributes:
        smallest_ml: volume from which on a piece counts.
        pieces: how many there are.
        voxels: of all of them.
        ml: of all of them.
        largest: the largest first, at most fifty.
        look: voxel to look at first, indices of the scan's own grid: in the middle of the largest piece, or where an
            error is most probable; null where none is.
    """

    smallest_ml: Size
    pieces: int
    voxels: int
    ml: Size
    largest: list[Piece]
    look: list[int] | None
