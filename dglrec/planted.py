"""What the tables know of their samples: the best that can be reached, and the interests that were planted.

`Oracle` is a row of the tables; `agreement` tells how well a model's clusters match the planted interests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .base import Model
from .config import TrainConfig
from .data import DriftOracle, HopOracle, InteractionLog, InterestOracle, sample, sample_oracle
from .data.flat import Bools, Ints
from .data.queries import Queries
from .data.splits import Split
from .errors import ConfigError
from .graphs.clustering import ward
from .streams import Streams

NAME = "sample-interests"  # the one whose interests clusters are compared with
SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {  # name -> kind and arguments of `sample`, the same for every table
    NAME: ("interests", {"seed": 1}),
    # Enough events per item that communities can be learned, so that what counts is whether their change is seen.
    "sample-drift": ("drift", {"users": 5000, "items": 400, "seed": 1}),
    "sample-hops": ("hops", {"seed": 1}),
}
_BLOCK = 512  # queries at a time


def sample_log(name: str = NAME) -> InteractionLog:
    """The log of one of the tables' samples."""
    kind, size = SAMPLES[name]
    return sample(kind, **size)


def oracle_of(
    log: InteractionLog, sees: Literal["history", "state"] = "history"
) -> InterestOracle | DriftOracle | HopOracle:
    """The oracle of the sample that a log was drawn from.

    Raises:
        ConfigError: the log is not a sample of the tables, or its oracle cannot know the state.
    """
    if log.name not in SAMPLES:
        raise ConfigError(f"{log.name!r} has no oracle; expected one of {', '.join(SAMPLES)}")
    kind, size = SAMPLES[log.name]
    oracle: InterestOracle | DriftOracle | HopOracle = sample_oracle(kind, log=log, **size)
    if not isinstance(oracle, HopOracle):
        oracle.sees = sees
    elif sees != "history":
        raise ConfigError(f"sees is {sees!r}, but nothing is hidden in {log.name!r}; expected 'history'")
    return oracle


@dataclass(frozen=True)
class OracleConfig:
    """What the oracle sees.

    Attributes:
        sees: see `InterestOracle` and `DriftOracle`.
        seen: whether evaluation keeps or masks the items of the history.
    """

    sees: Literal["history", "state"] = "history"
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=0))


class Oracle(Model):
    """The sample's oracle as a model with nothing to train, so that it is measured as all others are."""

    Config = OracleConfig
    config: OracleConfig

    def __init__(self, split: Split, config: OracleConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        self._oracle = oracle_of(split.log, self.config.sees)

    def batches(self, split: Split, streams: Streams) -> Iterator[Any]:
        """Nothing is learned."""
        return iter(())

    def scores(self, queries: Queries, items: Tensor | None = None) -> Tensor:
        """Shapes: B queries, items (B, C) or None -> (B, M) or (B, C)."""
        return self._oracle.scores(queries, items)


def agreement(model: Any, queries: Queries, oracle: InterestOracle) -> dict[str, float]:
    """How well a model's clusters of the histories agree with the interests that their events came from.

    Each figure is an adjusted Rand index, 1 where both are the same partition and 0 on average for one by chance, over
    the events that came from an interest (noise is in the clusters, but not counted), as a mean over the histories:
    "final" and "first" of the two partitions of `model.clusters`, "true" of Ward on the true vectors, which are one-hot
    in the community of an item. "final_where_true_is_1" and "first_where_true_is_1" are means over the histories on
    which the true vectors give the planted interests, whose number is "histories_where_true_is_1".

    Args:
        model: has `clusters(queries)` -> two (B, n) int tensors with the cluster of each item that is read, in order,
            -1 at padding: of Ward once on its first vectors, and of the last clustering.
        queries: of the sample.
        oracle: of the same sample.
    """
    from sklearn.metrics import adjusted_rand_score

    found: dict[str, list[float]] = {"first": [], "final": [], "true": []}
    for start in range(0, len(queries), _BLOCK):
        part = queries[start : start + _BLOCK]
        planted = np.split(oracle.labels(part), part.offsets[1:-1])
        groups = np.split(oracle.item_group[part.items], part.offsets[1:-1])
        with torch.no_grad():
            first, final = (labels.cpu().numpy() for labels in model.clusters(part))
        true = _ward_on_groups(groups, first >= 0, model.config.k, oracle.num_groups)
        for name, clusters in (("first", first), ("final", final), ("true", true)):
            for row, labels in zip(clusters, planted, strict=True):
                own = row[row >= 0]
                labels = labels[len(labels) - len(own) :]  # models read the most recent items
                found[name].append(float(adjusted_rand_score(labels[labels >= 0], own[labels >= 0])))
    values = {name: np.array(each) for name, each in found.items()}
    exact = values["true"] > 1 - 1e-9
    means = {name: float(each.mean()) for name, each in values.items()}
    if exact.any():
        means |= {f"{name}_where_true_is_1": float(values[name][exact].mean()) for name in ("first", "final")}
    return means | {"histories_where_true_is_1": int(exact.sum())}


def _ward_on_groups(groups: list[Ints], mask: Bools, k: int, num_groups: int) -> Ints:
    """Ward on one-hot vectors: communities of each history's items -> clusters (B, n), -1 outside of `mask` (B, n)."""
    group = np.zeros(mask.shape, dtype=np.int64)
    group[mask] = np.concatenate([own[len(own) - n :] for own, n in zip(groups, mask.sum(1), strict=True)])
    vectors = torch.nn.functional.one_hot(torch.from_numpy(group), num_groups).float()  # (B, n, communities)
    clusters: Ints = ward(vectors, k, torch.from_numpy(mask)).numpy()
    return clusters
