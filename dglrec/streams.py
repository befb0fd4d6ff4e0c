"""Random streams: every draw in training is a function of (seed, epoch, step, name), whatever was drawn before it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's step from number to number


@dataclass(frozen=True)
class Streams:
    """The random streams of one epoch.

    >>> bool(Streams(seed=1).numpy("edges").integers(100) == Streams(seed=1).numpy("edges").integers(100))
    True
    """

    seed: int
    epoch: int = 0

    def numpy(self, name: str, step: int = 0) -> np.random.Generator:
        """A separate NumPy generator for `name`."""
        return np.random.Generator(np.random.PCG64(self._sequence(name, step)))

    def torch_seed(self, name: str, step: int = 0) -> int:
        """A seed for a torch generator."""
        return int(self._sequence(name, step).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _sequence(self, name: str, step: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([self.seed, self.epoch, step, zlib.crc32(name.encode())])


@contextmanager
def global_generator(device: torch.device | None = None) -> Iterator[None]:
    """Restore torch's global generator of the CPU, and that of a CUDA device, at the end.

    Reading the state of a GPU initialises it, so no other GPU is touched.
    """
    on_gpu = device is not None and device.type == "cuda"
    cpu, gpu = torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None  # type: ignore[arg-type]
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, device)  # type: ignore[arg-type]


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Seed torch's generator of the CPU from (seed, name) for a block that makes weights, and put it back after."""
    with global_generator():
        torch.default_generator.manual_seed(Streams(seed).torch_seed(name))
        yield


def mixed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's function of 64 bits, whose outcomes pass for independent; overwrites what it is given.

    For draws that are a function of what they are drawn for, and not of their place in a stream: Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
