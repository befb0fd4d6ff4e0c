"""What oracles of the samples share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .queries import Queries


def best_scores(
    probabilities: Callable[[Queries], npt.NDArray[Any]],
    queries: Queries,
    k: tuple[int, ...] = (5, 10, 20, 50),
    block: int = 1024,
) -> dict[str, float]:
    """Expected recall@k and ndcg@k of the best ranking there is, for queries with one target each.

    Args:
        probabilities: queries -> (B, M), the true probability of each item to be the target.
        queries: with one target each; their targets are not looked at.
        k: cuts.
        block: queries at a time.
    """
    sums = {f"{metric}@{cut}": 0.0 for metric in ("recall", "ndcg") for cut in k}
    gain = 1 / np.log2(np.arange(2, max(k) + 2))
    for start in range(0, len(queries), block):
        best = -np.sort(-probabilities(queries[start : start + block]), axis=1)[:, : max(k)].astype(np.float64)
        for cut in k:
            sums[f"recall@{cut}"] += best[:, :cut].sum()
            sums[f"ndcg@{cut}"] += (best[:, :cut] * gain[: min(cut, best.shape[1])]).sum()
    return {name: float(value) / max(len(queries), 1) for name, value in sums.items()}
