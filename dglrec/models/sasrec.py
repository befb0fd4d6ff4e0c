"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), with cross-entropy over all items.

The variant that GSAU's Table 1 compares with is RecBole's: post-norm blocks with exact GELU, N(0, .02) weights, and the
full cross-entropy in place of the paper's one sampled negative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Model, check_transformer
from ..batches import Positions, Prefixes, position_batches, prefix_batches, query_sequences
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..losses import item_cross_entropy
from ..nn.initial import initialise
from ..nn.transformer import CausalTransformer
from ..streams import Streams, seeded


@dataclass(frozen=True)
class SASRecConfig:
    """SASRec as RecBole runs it.

    Attributes:
        dim, layers, heads, inner, max_length, dropout, attention_dropout: of the transformer.
        targets: a step holds "positions" (all positions of whole windows, one pass over each window) or "prefixes"
            (independent prefixes, as RecBole's augmentation). The objective is the same, the first is cheaper.
        stride: new targets in each window of a history longer than `max_length`; None is half of that length, and 1
            gives the contexts of "prefixes".
        temperature: logits are cosines of states and items over this temperature; None for products, as RecBole.
        init: initial weights.
        seen: whether evaluation keeps (RecBole) or masks the items of the history.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    attention_dropout: float = 0.5
    targets: Literal["positions", "prefixes"] = "positions"
    stride: int | None = None
    temperature: float | None = None
    init: Literal["normal", "xavier_normal", "xavier_uniform"] = "normal"
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_transformer(self)
        if self.stride is not None:
            check_limits(self, stride=f">=1 <={self.max_length}")
        if self.temperature is not None:
            check_limits(self, temperature=">0")


class SASRec(Model):
    """A causal transformer that predicts the next item; item table and output layer are one.

    Shapes: items (M, d); queries -> vectors (B, 1, d).
    """

    Config = SASRecConfig
    config: SASRecConfig

    def __init__(self, split: Split, config: SASRecConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.item = nn.Embedding(self.num_items, c.dim)
            self.encoder = CausalTransformer(
                c.dim, c.max_length, c.layers, c.heads, c.inner, c.dropout, c.attention_dropout
            )
            initialise(self, c.init)

    def batches(self, split: Split, streams: Streams) -> Iterator[Positions | Prefixes]:
        """`train.batch_size` targets per step, in the form that `targets` names."""
        c, rng = self.config, streams.numpy("batches")
        if c.targets == "positions":
            stride = c.stride or max(1, c.max_length // 2)
            return position_batches(split.train, c.train.batch_size, c.max_length, stride, rng, self.device)
        return prefix_batches(split.train, c.train.batch_size, c.max_length, rng, self.device)

    def loss(self, batch: Positions | Prefixes) -> dict[str, Tensor]:
        """Cross-entropy of the next item over all items."""
        if isinstance(batch, Positions):
            states = self.encoder(batch.history, self.item.weight)[batch.row]  # (N, d)
        else:
            states = self.encoder(batch.history, self.item.weight, last=True)  # (B, d)
        states = self._compared(states) / (self.config.temperature or 1)
        return {"cross_entropy": item_cross_entropy(states, self.item_vectors(), batch.target)}

    def query_vectors(self, queries: Queries) -> Tensor:
        """The state at the last item of each history."""
        history = query_sequences(queries, self.config.max_length, self.device)
        return self._compared(self.encoder(history, self.item.weight, last=True)).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The item table."""
        return self._compared(self.item.weight)

    def _compared(self, vectors: Tensor) -> Tensor:
        """Vectors as they are for products, of length 1 for cosines."""
        return vectors if self.config.temperature is None else F.normalize(vectors)
