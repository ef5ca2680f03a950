"""What is chosen for a machine's sake, and that every choice can be undone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from whqa.config.schema import Config
from whqa.config.speed import choices, cpu_precision
from whqa.config.words import compose_config
from whqa.process import KEEP_MEMORY, keeps_memory


def test_every_choice_says_why_and_what_turns_it_off() -> None:
    found = choices()
    assert found.keys() == {"precision", "memory_format", "optimiser", "threads", "allocator"}
    assert all(choice.value and choice.why and choice.off for choice in found.values())
    assert found["precision"].value == cpu_precision()


def test_the_words_that_turn_choices_off_are_settings_or_of_the_environment() -> None:
    words = [word for choice in choices().values() for word in choice.off.split() if "=" in word]
    settings = [word for word in words if "." in word]
    config = compose_config(["experiment=demo", *settings])
    assert config.trainer.precision == "32-true"
    assert not any(config[stage][name] for stage in ("segmenter", "errormap") for name in ("channels_last", "fused"))
    assert {word.split("=")[0] for word in words} - {w.split("=")[0] for w in settings} == {
        "OMP_NUM_THREADS",
        "OMP_WAIT_POLICY",
        KEEP_MEMORY,
    }
    assert Config().segmenter.fused


def test_the_choice_of_precision_names_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, bool, raising=False)
    assert choices()["precision"][:2] == ("32-true", "the CPU has no AVX512-BF16, no AMX")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert choices()["precision"][:2] == ("bf16-mixed", "the CPU has AMX")


@pytest.mark.parametrize(
    ("allowed", "precision"), [("AVX2", "32-true"), ("avx512_core", "32-true"), ("ALL", "bf16-mixed")]
)
def test_instructions_that_onednn_may_not_use_do_not_count(
    allowed: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    found = choices()["precision"]
    assert found.value == cpu_precision() == precision
    assert (f"ONEDNN_MAX_CPU_ISA={allowed.upper()}" in found.why) == (precision == "32-true")


@pytest.mark.parametrize("name", [KEEP_MEMORY, "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_the_user_has_the_last_word_on_the_allocator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    assert not keeps_memory()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_large_buffers_are_taken_from_the_heap_and_kept() -> None:
    program = """
import ctypes, resource
from whqa.process import keep_memory, keeps_memory
if keeps_memory():
    keep_memory()
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(2**26)
        ctypes.memset(block, 1, 2**26)
        libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    first, again = faults(), faults()
    assert again < first / 10, (first, again)
"""
    names = (KEEP_MEMORY, "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    subprocess.run([sys.executable, "-c", program], env=clean, timeout=600, check=True)
