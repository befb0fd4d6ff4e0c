"""BERT4Rec: masked items are predicted from both sides (Sun et al., CIKM 2019), with cross-entropy over all items.

The variant that GSAU's Table 1 compares with is RecBole's. It reads every prefix of a history, without the item that
comes after it. In half of the batches the last item of each prefix is masked, in the others every item with
probability .2. With the head's vector z of a masked position, the item table E and a bias c, the loss of the position
is the cross-entropy of softmax(E z + c) with the item that was masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..base import Model, check_transformer
from ..batches import Cloze, cloze_batches, query_sequences
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..losses import item_cross_entropy
from ..nn.cloze import ClozeEncoder
from ..nn.initial import initialise
from ..streams import Streams, seeded


@dataclass(frozen=True)
class BERT4RecConfig:
    """BERT4Rec as RecBole runs it.

    Attributes:
        dim, layers, heads, inner, max_length, dropout, attention_dropout: of the transformer.
        mask_ratio: share of the items that are masked; the last ones are learned, at most that share of `max_length`.
        last_share: share of the batches in which the last item alone is masked.
        targets: a step holds "prefixes" (RecBole: a user's last training item is in none of them, and never masked) or
            whole "histories", one per user and epoch, in which every item may be masked.
        recbole: RecBole's errors: a masked first item is not learned from, and when the next item is predicted, the
            oldest one is left out, however short the history is.
        init: initial weights.
        seen: whether evaluation keeps (RecBole) or masks the items of the history.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.2
    attention_dropout: float = 0.2
    mask_ratio: float = 0.2
    last_share: float = 0.5
    targets: Literal["prefixes", "histories"] = "prefixes"
    recbole: bool = True
    init: Literal["normal", "xavier_normal", "xavier_uniform"] = "normal"
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_transformer(self)
        check_limits(self, max_length=">=2", mask_ratio=">0 <1", last_share=">=0 <=1")


class BERT4Rec(Model):
    """A transformer that sees both sides of a masked item.

    Shapes: items (M, d); queries -> vectors (B, 1, d + 1), whose last number, 1, multiplies the item's bias.
    """

    Config = BERT4RecConfig
    config: BERT4RecConfig

    def __init__(self, split: Split, config: BERT4RecConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.item = nn.Embedding(self.num_items, c.dim)
            sizes = (c.dim, c.max_length, c.layers, c.heads, c.inner, c.dropout, c.attention_dropout)
            self.encoder = ClozeEncoder(*sizes, drop_first=c.recbole)
            initialise(self, c.init)
        self.bias = nn.Parameter(torch.zeros(self.num_items))

    @property
    def targets_per_epoch(self) -> int:
        """The number of sequences; how many of their items are masked is random."""
        if self.config.targets == "prefixes":
            return super().targets_per_epoch
        return int((np.diff(self.split.train.offsets) > 1).sum())

    def batches(self, split: Split, streams: Streams) -> Iterator[Cloze]:
        """`train.batch_size` sequences per step."""
        c, rng = self.config, streams.numpy("cloze")
        how = {"ratio": c.mask_ratio, "last_share": c.last_share, "first": not c.recbole, "form": c.targets}
        return cloze_batches(split.train, c.train.batch_size, c.max_length, rng, self.device, **how)  # type: ignore[arg-type]

    def loss(self, batch: Cloze) -> dict[str, Tensor]:
        """Cross-entropy of the masked items over all items."""
        vectors = self.encoder(batch.history, self.item.weight, batch.row)  # (N, d)
        return {"cross_entropy": item_cross_entropy(_with_one(vectors), self.item_vectors(), batch.target)}

    def query_vectors(self, queries: Queries) -> Tensor:
        """The vector of a mask after each history."""
        history = query_sequences(queries, self.config.max_length, self.device)
        return _with_one(self.encoder.ask(history, self.item.weight)).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The item table, with the biases as its last column."""
        return torch.cat([self.item.weight, self.bias[:, None]], dim=1)  # (M, d + 1)


def _with_one(vectors: Tensor) -> Tensor:
    """(N, d) -> (N, d + 1)."""
    return torch.cat([vectors, vectors.new_ones(len(vectors), 1)], dim=1)
