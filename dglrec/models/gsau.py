"""GSAU: graph-sequential alignment and uniformity (Cao et al., WWW 2025 Companion, doi 10.1145/3701716.3715498).

A graph encoder and a sequential encoder share one embedding space. Positive pairs of either are pulled together
(alignment), all instances are spread over the unit sphere (uniformity), and sequences are pushed away from items that
do not belong to them. `docs/gsau.md` goes through the paper equation by equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Model, check_transformer
from ..batches import Cloze, Edges, Prefixes, cloze_batches, edge_batches, prefix_batches, query_sequences
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..errors import ConfigError
from ..graphs import user_item
from ..losses import alignment, cross_uniformity, item_cross_entropy, uniformity
from ..nn.cloze import ClozeEncoder
from ..nn.initial import initialise
from ..nn.propagation import Adjacency, LightGCNEncoder, fold_in
from ..nn.transformer import CausalTransformer
from ..streams import Streams, seeded


@dataclass(frozen=True)
class GSAUConfig:
    """GSAU as its authors ran it; where their paper and code differ, the field says which of the two is the default.

    Attributes:
        dim: width d of the shared embedding space.
        encoder: of sequences, "sasrec" or "bert4rec". With "bert4rec", sequential targets are the masked items of
            prefixes in place of the items after them, drawn as by `BERT4RecConfig` with its default values; its two
            rates of dropout, .2, have to be set, as the presets do.
        mask_ratio: of "bert4rec".
        graph, sequential: whether the encoder takes part; without "sequential" the graph scores items.
        rec: cross-entropy over all items in place of the sequential alignment loss: GSAU (rec).
        gamma: weight of the uniformity terms (Eq. 10). DirectAU's own gamma is twice this one.
        ui_uniformity: the third subset of Eq. 9, sequences against items that are not theirs.
        negatives: those items are the targets of other rows of the batch, seen or not ("derangement", the code),
            or of the first of eight other rows whose target is not in the user's history ("unseen", the paper).
        graph_layers: propagations L.
        combine: "mean" of the layers 0..L (code) or the "last" (Eq. 6 and 7 as printed).
        layers, heads, inner, max_length, dropout, attention_dropout: of the transformer.
        normalise_query: whether cross-entropy takes f(sequence) (code) or the raw sequence vector.
        normalise_item, temperature: cross-entropy of cosines over a temperature, in place of products with raw items.
        rank: items are ranked by "dot" (code) or "cosine" (what alignment trains).
        init: initial weights (code: Xavier-normal over all tables and layers).
        seen: whether evaluation keeps or masks the items of the history (code: keeps, for sequence scores).
    """

    dim: int = 64
    graph: bool = True
    sequential: bool = True
    encoder: Literal["sasrec", "bert4rec"] = "sasrec"
    mask_ratio: float = 0.2
    rec: bool = False
    gamma: float = 0.1
    ui_uniformity: bool = True
    negatives: Literal["derangement", "unseen"] = "derangement"
    graph_layers: int = 2
    combine: Literal["mean", "last"] = "mean"
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    attention_dropout: float = 0.5
    normalise_query: bool = True
    normalise_item: bool = False
    temperature: float = 1.0
    rank: Literal["dot", "cosine"] = "dot"
    init: Literal["xavier_normal", "xavier_uniform", "normal"] = "xavier_normal"
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_transformer(self)
        check_limits(self, graph_layers=">=0", gamma=">=0", temperature=">0", mask_ratio=">0 <1")
        if not self.graph and not self.sequential:
            raise ConfigError("graph and sequential are both false; expected at least one encoder")


@dataclass(frozen=True, eq=False)
class GraphAndSequence:
    """One step: a batch of graph edges and, independent of it, a batch of prefixes, with or without masks."""

    edges: Edges | None
    prefixes: Prefixes | Cloze | None


def repeated(make: Callable[[int], Iterator[Prefixes | Cloze]]) -> Iterator[Prefixes | Cloze]:
    """The batches of `make(0)`, then those of `make(1)` and so on, until one of them has none."""
    for again in count():
        empty = True
        for batch in make(again):
            empty = False
            yield batch
        if empty:
            return


class GSAU(Model):
    """GSAU and GSAU (rec), with the paper's ablations as fields.

    Shapes: users (U, d), items (M, d); queries -> vectors (B, 1, d).
    """

    Config = GSAUConfig
    ranking_fields = ("seen", "rank")
    config: GSAUConfig
    known: Tensor  # user * M + item of the training pairs, ascending

    def __init__(self, split: Split, config: GSAUConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.user: Any = nn.Embedding(self.num_users, c.dim) if c.graph else None
            self.item = nn.Embedding(self.num_items, c.dim)
            self.graph_encoder = LightGCNEncoder(c.graph_layers, c.combine)
            self.sequence_encoder: Any = None
            if c.sequential:
                kind = CausalTransformer if c.encoder == "sasrec" else ClozeEncoder
                sizes = (c.dim, c.max_length, c.layers, c.heads, c.inner, c.dropout, c.attention_dropout)
                self.sequence_encoder = kind(*sizes)
            initialise(self, c.init)
        self.adjacency: Any = Adjacency(user_item(split.train, unique=True)) if c.graph else None
        if c.negatives == "unseen":
            self.register_buffer("known", torch.as_tensor(split.train.pair_keys), persistent=False)

    @property
    def targets_per_epoch(self) -> int:
        """The sequential targets; the training pairs where only the graph learns."""
        return super().targets_per_epoch if self.config.sequential else len(self.split.train)

    @property
    def batches_per_epoch(self) -> int:
        """The batches of the training pairs."""
        return math.ceil(len(self.split.train) / self.config.train.batch_size)

    def batches(self, split: Split, streams: Streams) -> Iterator[GraphAndSequence]:
        """Steps of a graph batch and an independent batch of prefixes; the shorter of the two starts again."""
        c, train = self.config, split.train
        size = c.train.batch_size
        edges = edge_batches(train, size, streams.numpy("edges"), self.device)

        def sequences(again: int) -> Iterator[Prefixes | Cloze]:
            rng = streams.numpy("prefixes", again)
            if c.encoder == "sasrec":
                return prefix_batches(train, size, c.max_length, rng, self.device)
            return cloze_batches(train, size, c.max_length, rng, self.device, ratio=c.mask_ratio)

        prefixes = repeated(sequences)
        for pair in edges:  # each user has one edge more than prefixes
            step = GraphAndSequence(pair if c.graph else None, next(prefixes, None) if c.sequential else None)
            if step.edges is None and step.prefixes is None:
                return  # no user has two items
            yield step

    def loss(self, batch: GraphAndSequence) -> dict[str, Tensor]:
        """Eq. 10: alignment + gamma * uniformity, of both encoders."""  # Eq. 10
        terms: dict[str, Tensor] = {}
        if batch.edges is not None:
            terms |= self._graph_terms(batch.edges)
        if batch.prefixes is not None:
            terms |= self._sequence_terms(batch.prefixes)
        return terms

    def _graph_terms(self, edges: Edges) -> dict[str, Tensor]:
        tables = (self.user.weight, self.item.weight)
        users, items = self.graph_encoder(self.adjacency, tables, (edges.user, edges.item))  # Eq. 1, Eq. 2
        user, item = F.normalize(users), F.normalize(items)  # f, (B, d) each
        return {
            "graph_alignment": alignment(user, item),  # Eq. 4 over Eq. 6
            "graph_uniformity": self.config.gamma * (uniformity(item) + uniformity(user)),  # Eq. 5 over Eq. 7
        }

    def _sequence_terms(self, prefixes: Prefixes | Cloze) -> dict[str, Tensor]:
        c = self.config
        where = {"last": True} if isinstance(prefixes, Prefixes) else {"row": prefixes.row}
        raw = self.sequence_encoder(prefixes.history, self.item.weight, **where)  # Eq. 3, (B, d)
        sequence, target = F.normalize(raw), F.normalize(self.item(prefixes.target))  # f, (B, d) each
        if c.rec:
            query = (sequence if c.normalise_query else raw) / c.temperature
            table = F.normalize(self.item.weight) if c.normalise_item else self.item.weight
            terms = {"cross_entropy": item_cross_entropy(query, table, prefixes.target)}
        else:
            terms = {"sequence_alignment": alignment(sequence, target)}  # Eq. 4 over Eq. 8
        spread = uniformity(target) + uniformity(sequence)  # Eq. 5 over the first two subsets of Eq. 9
        if c.ui_uniformity and len(target) > 1:
            spread = spread + cross_uniformity(sequence, target[self._negative_rows(prefixes)])  # third subset of Eq. 9
        return terms | {"sequence_uniformity": c.gamma * spread}

    def _negative_rows(self, prefixes: Prefixes | Cloze) -> Tensor:
        """(B,): for each row another row of the batch, whose target is its negative item.

        Rows are in random order, so the next row is a random permutation without a fixed point.
        """
        row = torch.arange(len(prefixes.target), device=prefixes.target.device)
        chosen = row.roll(-1)
        if self.config.negatives == "unseen":
            for shift in range(-2, -1 - min(8, len(row) - 1), -1):
                key = prefixes.user * self.num_items + prefixes.target[chosen]
                place = torch.searchsorted(self.known, key).clamp(max=len(self.known) - 1)
                chosen = torch.where(self.known[place] == key, row.roll(shift), chosen)
        return chosen

    def query_vectors(self, queries: Queries) -> Tensor:
        """The sequence vector of each history; without that encoder the propagated user, folded in if unknown."""
        if self.config.sequential:
            history = query_sequences(queries, self.config.max_length, self.device)
            encoder = self.sequence_encoder
            ask = encoder.ask if isinstance(encoder, ClozeEncoder) else partial(encoder, last=True)
            vectors = ask(history, self.item.weight)
        else:
            vectors = fold_in(self.graph_encoder, self.adjacency, (self.user.weight, self.item.weight), queries)
        return vectors.unsqueeze(1)  # (B, 1, d)

    def item_vectors(self) -> Tensor:
        """The shared table that sequences are scored against, or the propagated items."""
        items = self.item.weight
        if not self.config.sequential:
            items = self.graph_encoder(self.adjacency, (self.user.weight, items))[1]
        return F.normalize(items) if self.config.rank == "cosine" else items
