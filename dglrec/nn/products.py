"""Scores as dot products of query and item vectors: the largest over the K vectors of a query."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_products(vectors: Tensor, table: Tensor, out: Tensor | None = None) -> Tensor:
    """Largest dot product over K vectors: (B, K, d), (M, d) -> (B, M); `out` (B * K, M) is where the products go."""
    products = torch.mm(vectors.flatten(0, 1), table.T, out=out)
    return products if vectors.shape[1] == 1 else products.unflatten(0, vectors.shape[:2]).amax(1)


def candidate_products(vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Largest dot product over K vectors with given items: (B, K, d), (M, d), (B, C) -> (B, C).

    Fetching one item's vector costs as much as about 50 products with consecutive items (d = 64, one core). So for many
    candidates, products with all items are computed and those of the candidates selected. Only a few queries are
    processed at a time, so that the products stay in the cache.
    """
    num_vectors, dim = vectors.shape[1:]
    dense = num_vectors * len(table) <= 32 * items.shape[1]
    width = num_vectors * len(table) if dense else dim * items.shape[1]
    step = max(1, (1 << 26 if vectors.is_cuda else 1 << 20) // max(1, width))
    parts = []
    for some, own in zip(vectors.split(step), items.split(step), strict=True):
        if dense:
            parts.append(largest_products(some, table).gather(1, own))
        else:
            parts.append(torch.einsum("bkd,bcd->bkc", some, table[own]).amax(1))
    return torch.cat(parts)
