"""The network's outputs of volumes that it is shown more than once while its weights stay as they are.

The last validation of a training and both loops of the calibration look at the same masks with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KEPT_BYTES = 2**28
"""256 MiB a process: all 76 volumes of the demo's calibration; of larger volumes the first ones."""


class KeptOutputs:
    """Outputs by the volume's index, as many as fit into `limit` bytes; `forget` them before a weight changes."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._size = 0
        self._found: dict[int, Tensor] = {}

    def forget(self) -> None:
        """All of them."""
        self._size, self._found = 0, {}

    def of(self, index: int, compute: Callable[[], Tensor]) -> Tensor:
        """The output of a volume, float32: the one that is kept, to the last bit, or a computed one."""
        if index in self._found:
            return self._found[index].float()
        output = compute()
        # what bf16 has computed fits into half
        half = output.to(torch.bfloat16)
        small = half if torch.equal(half.to(output.dtype), output) else output
        size = small.numel() * small.element_size()
        if self._size + size <= self.limit:
            self._size += size
            self._found[index] = small
        return output
