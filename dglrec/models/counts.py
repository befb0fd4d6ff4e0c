"""Three models that only count: what every learned model has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..base import Model
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..errors import DataError
from ..graphs import transitions
from ..streams import Streams

SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class CountsConfig:
    """What to count.

    Attributes:
        what: "popularity" counts the training interactions of an item; "recency" gives older ones less weight;
            "transitions" counts how often the item came right after the last item of the history.
        half_life_days: in "recency" an interaction that is this much older than the end of training has half weight.
        seen: whether evaluation masks or keeps the items of the history.
    """

    what: Literal["popularity", "recency", "transitions"] = "popularity"
    half_life_days: float = 90.0
    seen: Literal["mask", "keep"] = "mask"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=0))

    def __post_init__(self) -> None:
        check_limits(self, half_life_days=">0")


class Counts(Model):
    """Popularity, recency or last-item transitions, counted in the training log.

    Scores of "transitions" are counts plus popularity scaled below one, which orders items without such a transition.
    """

    Config = CountsConfig
    config: CountsConfig
    weight: Tensor

    def __init__(self, split: Split, config: CountsConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        train, c = split.train, self.config
        amount = np.ones(len(train))
        if c.what == "recency":
            if train.time is None:
                raise DataError(f"recency needs times, and {train.name!r} has none; use popularity or transitions")
            age_days = (train.time.max() - train.time) / SECONDS_A_DAY
            amount = np.exp2(-age_days / c.half_life_days)
        weight = np.bincount(train.item, weights=amount, minlength=self.num_items)
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))
        if c.what == "transitions":
            graph = transitions(train)
            self._from, self._to = (end.numpy() for end in graph.edges(order="eid", etype="next"))  # sorted
            self._count = graph.edges["next"].data["count"].numpy()

    def batches(self, split: Split, streams: Streams) -> Iterator[Any]:
        """There are no training steps."""
        return iter(())

    def scores(self, queries: Queries, items: Tensor | None = None) -> Tensor:
        """Shapes: B queries, items (B, C) or None -> (B, M) or (B, C)."""
        scores = self.weight.repeat(len(queries), 1)  # (B, M)
        if self.config.what == "transitions":
            scores = self._transitions(queries, scores / (scores.amax() + 1))
        return scores if items is None else scores.gather(1, items)

    def _transitions(self, queries: Queries, scores: Tensor) -> Tensor:
        row = np.flatnonzero(queries.lengths)  # queries with a history
        last = queries.items[queries.offsets[1:][row] - 1]
        start, end = np.searchsorted(self._from, last, side="left"), np.searchsorted(self._from, last, side="right")
        found = np.repeat(start, end - start) + np.arange((end - start).sum())
        found -= np.repeat(np.cumsum(end - start) - (end - start), end - start)  # entries start..end of each query
        place = (torch.as_tensor(np.repeat(row, end - start)), torch.as_tensor(self._to[found]))
        counts = torch.as_tensor(self._count[found], dtype=scores.dtype)
        return scores.index_put(tuple(p.to(scores.device) for p in place), counts.to(scores.device), accumulate=True)
