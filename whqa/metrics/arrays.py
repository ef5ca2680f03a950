"""What every metric shares, without torchmetrics, whose import takes longer than most of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def mean_defined(values: npt.ArrayLike) -> float:
    """Mean without nan; nan where nothing is left.

    >>> mean_defined([1.0, float("nan"), 2.0])
    1.5
    """
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")
