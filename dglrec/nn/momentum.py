"""MoCo's two parts (He et al., CVPR 2020): a copy of an encoder that follows it slowly, and queues of its outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy that gradients do not reach."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow <- m slow + (1 - m) fast, for all parameters (GAL-Rec, Eq. 17)."""
    for own, other in _pairs(slow, fast):
        own.lerp_(other, 1 - momentum)


def _pairs(slow: nn.Module, fast: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(slow.parameters(), fast.parameters(), strict=True)


class Queue(nn.Module):
    """The newest `size` vectors that were put in, with the ids that they belong to.

    Attributes:
        vectors: (size, d).
        ids: (size,) int64, -1 where nothing was put yet.
        place: () int64, where the next one goes.
    """

    vectors: Tensor
    ids: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, vectors: Tensor, ids: Tensor) -> None:
        """Put vectors (B, d) of ids (B,) in; the oldest leave."""
        size = len(self.ids)
        vectors, ids = vectors[-size:], ids[-size:]
        where = (self.place + torch.arange(len(ids), device=ids.device)) % size
        self.vectors[where] = vectors.to(self.vectors.dtype)
        self.ids[where] = ids
        self.place.add_(len(ids)).remainder_(size)

    def hidden(self, ids: Tensor) -> Tensor:
        """(B, size) bool: what is not a negative of each id, namely itself and empty places."""
        return (self.ids == ids[:, None]) | (self.ids < 0)
