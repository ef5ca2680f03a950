"""Which precision a processor is good at."""

from __future__ import annotations


def cpu_precision() -> str:
    """bf16-mixed where the CPU multiplies bf16 natively (AVX512-BF16, AMX), else plain float32."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16-mixed" if native else "32-true"
