"""Memory of the process: its peak, and what the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Numbers of glibc's settings, see mallopt(3), and its own way to set them, which comes first.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory: of the device's allocator since `fit` began on CUDA, of the whole process so far on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        with open("/proc/self/status", encoding="utf-8") as file:  # getrusage would count the parent process too
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Large arrays get memory that was freed before, where the C library is glibc and the user has not set it up.

    By itself, glibc asks the system for the memory of each large array and returns it when the array is freed, and the
    system fills every page with zeros at its first use. Each step of a training makes gradients as large as its tables,
    so that this takes up to a third of the step (tests/benchmarks/memory.json). Afterwards the memory is returned, and
    glibc is as a process that has used large arrays has made it.
    """
    library = _glibc()
    if library is None or any(name in os.environ for name in _OWN_SETTINGS):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, 2**16)
        library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


def return_free_memory() -> None:
    """Give the C library's free pages back to the system, where it is glibc.

    Batches differ in size a little, and glibc keeps what it can no longer use: 1 MB per step, without end.
    """
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
