"""LightningModules of the two stages."""

from whqa.modules.errormap import ErrorMapModule as ErrorMapModule
from whqa.modules.segmenter import SegmenterModule as SegmenterModule
