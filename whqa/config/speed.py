"""What is chosen for a machine's sake: precision, memory format, optimiser, threads, allocator; `whqa info` prints it.

Measured on one thread of an AVX512-BF16 CPU (Zen 5), VoxResNet of width 16, two patches of 40^3; `make bench` measures
it anew. Each choice has the words that turn it off.

    bf16-mixed         where the CPU multiplies bf16 natively (AVX512-BF16, AMX) and oneDNN may (ONEDNN_MAX_CPU_ISA);
                       elsewhere it would be emulated
    channels_last_3d   what oneDNN's and cuDNN's convolutions take without copying; in either precision
    fused AdamW        one kernel for all parameters: 0.8 instead of 2.2 ms of a step of 110
    threads            a run's share of the cores while others run beside it: two processes that each use all cores
                       wait for each other in spinning threads; a run that is alone takes them all. Threads sleep while
                       they wait (OpenMP's passive policy): beside other busy processes a step of two threads took 80 ms
                       so, 260 to 900 spinning, and 70 with one thread
    kept memory        glibc returns and refetches the buffers of 3-D convolutions at every step unless told to keep
                       them: a fifteenth of a step
"""

from __future__ import annotations

import os
from typing import NamedTuple

from whqa.modules.training_settings import OptimiserSettings
from whqa.process import KEEP_MEMORY, cpus, keeps_memory

_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Values of ONEDNN_MAX_CPU_ISA up to which oneDNN does not multiply bf16."""


class Choice(NamedTuple):
    """What was chosen, why, and the words that choose otherwise."""

    value: str
    why: str
    off: str


def cpu_precision() -> str:
    """bf16-mixed where the CPU multiplies bf16 natively (AVX512-BF16, AMX), else plain float32."""
    return "bf16-mixed" if _native_bf16() else "32-true"


def choices() -> dict[str, Choice]:
    """By name, for training on this machine's CPU; imports torch."""
    bf16 = ", ".join(_native_bf16()) or "no AVX512-BF16, no AMX"
    why = f"ONEDNN_MAX_CPU_ISA={_allowed()} allows no bf16" if _allowed() in _WITHOUT_BF16 else f"the CPU has {bf16}"
    settings = OptimiserSettings()
    return {
        "precision": Choice(cpu_precision(), why, "trainer.precision=32-true"),
        "memory_format": Choice(
            "channels_last_3d" if settings.channels_last else "contiguous",
            "convolutions take it without copies",
            "segmenter.channels_last=false errormap.channels_last=false",
        ),
        "optimiser": Choice(
            "fused AdamW" if settings.fused else "AdamW",
            "one kernel for all parameters",
            "segmenter.fused=false errormap.fused=false",
        ),
        "threads": Choice(
            f"{cpus()} shared by the runs that are at work at a time",
            f"this process may use {cpus()} CPUs; threads sleep while they wait",
            "OMP_NUM_THREADS=1 OMP_WAIT_POLICY=ACTIVE in the environment",
        ),
        "allocator": Choice(
            "keeps memory" if keeps_memory() else "the system's",
            "buffers of convolutions are used again at every step" if keeps_memory() else "not glibc, or turned off",
            f"{KEEP_MEMORY}=0 in the environment",
        ),
    }


def _native_bf16() -> list[str]:
    import torch

    if _allowed() in _WITHOUT_BF16:
        return []
    checks = {"AVX512-BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    return [name for name, check in checks.items() if getattr(torch.cpu, check, bool)()]


def _allowed() -> str:
    """The newest instructions that oneDNN may use, "" for all."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
