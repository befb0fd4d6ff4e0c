"""SURGE: sequential recommendation with graph neural networks (Chang et al., SIGIR 2021).

A window becomes a graph of its most similar items. Attention over that graph, guided by an item's neighbourhood and by
the candidate, gathers what concerns the candidate; the most important items go through a recurrent unit, and a small
network scores its state, the weighted sum of all items, and the candidate. Everything except the graph is computed for
each candidate, positive or negative, so that a full ranking costs M passes per user: it is exact, and slow.

As in the authors' code, the graph keeps the upper half of its entries, and pooling takes the 30 most important items in
their order, where the paper has a soft assignment with three more losses; the threshold lets no gradient through, so
that the metric's weights keep their initial values. Their attention nets also read a - q, which a linear layer can
compute from a and q, and are softmaxed before they are added, which makes them nearly constant: both are left out.

Other differences from that code: an edge's logit is that of the neighbourhood of the item that gathers plus that of the
candidate and the item that is gathered, and the code has these two the other way round; importance is computed once, of
the items, and used in pooling, readout and recurrent unit alike, where the code applies the same nets to the gathered
vectors again for pooling and readout, leaves out of the readout what pooling drops, and has one more net for the
recurrent unit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import WindowModel
from ..batches import Windows
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..graphs.interests import weighted_cosine
from ..nn.interests import Padded, batch_window, candidate_bce, item_table, propagated, query_window
from ..streams import Streams, seeded

_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 27}  # attention weights at a time, when items are ranked


@dataclass(frozen=True)
class SURGEConfig:
    """SURGE mostly as its code has it, trained as in MDGR's comparison.

    Attributes:
        dim: size d of items.
        keep: share of a window's pairs of items that become edges.
        pool: items that go through the recurrent unit.
        hidden: size of the hidden layer in the attention nets; the last network has one of twice this and one of this.
        targets: positives of a window that a step learns from, drawn anew each epoch, with as many of its negatives.
        max_length: number of most recent items that are read.
        negatives: number drawn for each prefix, unless the split is by windows (which have their own).
        seen: whether evaluation keeps or masks the items of the history.
    """

    dim: int = 32
    keep: float = 0.5
    pool: int = 30
    hidden: int = 40
    targets: int = 10
    max_length: int = 50
    negatives: int = 4
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=128, weight_decay=1e-6, monitor="auto"))

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", keep=">0 <=1", pool=">=1", hidden=">=1")
        check_limits(self, targets=">=1", max_length=">=1", negatives=">=1")


class Graph(NamedTuple):
    """What does not depend on the candidate.

    Attributes:
        items: (B, n, d).
        mask: (B, n) bool.
        edges: (B, n, n) bool, loops included.
        around: (B, n), how important an item's neighbourhood makes it.
    """

    items: Tensor
    mask: Tensor
    edges: Tensor
    around: Tensor


def metric_graph(similarity: Tensor, mask: Tensor, keep: float) -> Tensor:
    """The pairs whose similarity, relative to its row, is among the largest share `keep`; and loops.

    Shapes: similarity (B, n, n), mask (B, n) -> (B, n, n) bool, not symmetric, as rows are scaled to [0, 1] first.
    """
    pairs = mask.unsqueeze(1) & mask.unsqueeze(2)
    low = similarity.masked_fill(~pairs, torch.inf).amin(2, keepdim=True)
    high = similarity.masked_fill(~pairs, -torch.inf).amax(2, keepdim=True)
    scaled = (similarity - low) / (high - low).clamp(min=1e-9)
    ranked = scaled.masked_fill(~pairs, -torch.inf).flatten(1).sort(1, descending=True).values  # (B, n * n)
    number = (keep * mask.sum(1).square()).ceil().long()  # (B,) entries that stay
    threshold = ranked.gather(1, number.unsqueeze(1) - 1).unsqueeze(2)
    return pairs & (scaled >= threshold) | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)


class PairNet(nn.Module):
    """How closely an item and another vector are related: W_2 relu(W_1 [W a ; q ; W a * q])."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.turn = nn.Linear(dim, dim, bias=False)
        self.first, self.second = nn.Linear(3 * dim, hidden), nn.Linear(hidden, 1)

    def forward(self, items: Tensor, other: Tensor) -> Tensor:
        """Shapes: (..., d) and (..., d), of one shape after broadcasting -> (...)."""
        of_item, of_other, of_both = self.first.weight.chunk(3, dim=1)
        items = self.turn(items)
        hidden = (
            F.linear(items, of_item) + F.linear(other, of_other, self.first.bias) + F.linear(items * other, of_both)
        )
        return self.second(hidden.relu()).squeeze(-1)


class AUGRU(nn.Module):
    """A gated recurrent unit whose update gate is multiplied by a step's importance (DIEN, AAAI 2019)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)

    def forward(self, inputs: Tensor, importance: Tensor) -> Tensor:
        """The last state: (..., n, d), (..., n) -> (..., d)."""
        state = inputs.new_zeros(inputs.shape[:-2] + inputs.shape[-1:])
        for each, weight in zip(self.of_input(inputs).unbind(-2), importance.unsqueeze(-1).unbind(-2), strict=True):
            (reset, update, new), (old_reset, old_update, old) = each.chunk(3, -1), self.of_state(state).chunk(3, -1)
            new = ((reset + old_reset).sigmoid() * old + new).tanh()
            state = state + weight * (update + old_update).sigmoid() * (new - state)
        return state


class SURGE(WindowModel):
    """A graph of similar items, attention that the candidate guides, and a network that scores.

    Shapes: items (M, d); queries and candidates (B, C) -> scores (B, C).
    """

    Config = SURGEConfig
    config: SURGEConfig

    def __init__(self, split: Split, config: SURGEConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.item = item_table(self.num_items, c.dim)
            self.metric = nn.Parameter(torch.rand(1, c.dim), requires_grad=False)
            self.around, self.asked = PairNet(c.dim, c.hidden), PairNet(c.dim, c.hidden)
            self.update = nn.Linear(c.dim, c.dim)
            self.recurrent = AUGRU(c.dim)
            self.judge = nn.Sequential(
                *(nn.Linear(4 * c.dim, 2 * c.hidden), nn.ReLU(), nn.Linear(2 * c.hidden, c.hidden), nn.ReLU()),
                nn.Linear(c.hidden, 1),
            )

    @property
    def targets_per_epoch(self) -> int:
        """The number of positives that are drawn."""
        windows = self.split.windows
        if windows is None:
            return super().targets_per_epoch
        return int(np.minimum(np.diff(windows.target_offsets), self.config.targets).sum())

    def batches(self, split: Split, streams: Streams) -> Iterator[Windows]:
        """`train.batch_size` windows per step, each with some of its candidates."""
        rng, number = streams.numpy("targets"), self.config.targets
        for batch in super().batches(split, streams):
            positive, negative = (_some(items, number, rng) for items in (batch.positive, batch.negative))
            yield dataclasses.replace(batch, positive=positive, negative=negative)

    def loss(self, batch: Windows) -> dict[str, Tensor]:
        """Binary cross-entropy of positives and negatives, all scored in the same way."""
        graph = self._graph(batch_window(batch))
        logits = self._judged(graph, torch.cat([batch.positive, batch.negative], dim=1))
        positive, negative = logits.split([batch.positive.shape[1], batch.negative.shape[1]], dim=1)
        return {"bce": candidate_bce(positive, negative)}

    def _graph(self, window: Padded) -> Graph:
        items = self.item(window.items)  # (B, n, d)
        edges = metric_graph(weighted_cosine(items.detach(), self.metric), window.mask, self.config.keep)
        return Graph(items, window.mask, edges, self.around(items, propagated(edges, items, hops=2)))

    def _judged(self, graph: Graph, candidates: Tensor) -> Tensor:
        """Logits of candidates (B, C) -> (B, C)."""
        target = self.item(candidates)  # (B, C, d)
        items, around = graph.items.unsqueeze(1), graph.around.unsqueeze(1)  # (B, 1, n, d), (B, 1, n)
        asked = self.asked(items, target.unsqueeze(2))  # (B, C, n)
        logits = F.leaky_relu(around.unsqueeze(3) + asked.unsqueeze(2), 0.2)  # (B, C, n, n): i gathers from j
        weight = logits.masked_fill(~graph.edges.unsqueeze(1), -torch.inf).softmax(3)
        nodes = F.leaky_relu(self.update(weight @ items) + items, 0.2)  # (B, C, n, d)
        importance = (around + asked).masked_fill(~graph.mask.unsqueeze(1), -torch.inf).softmax(2)  # (B, C, n)
        readout = (importance.unsqueeze(2) @ nodes).squeeze(2)  # (B, C, d)
        best = importance.topk(min(self.config.pool, importance.shape[2]), dim=2).indices.sort(2).values  # (B, C, pool)
        pooled = nodes.gather(2, best.unsqueeze(3).expand(-1, -1, -1, nodes.shape[3]))
        state = self.recurrent(pooled, importance.gather(2, best))  # (B, C, d)
        judged: Tensor = self.judge(torch.cat([state, readout, target, readout * target], dim=2))
        return judged.squeeze(2)

    def scores(self, queries: Queries, items: Tensor | None = None) -> Tensor:
        """The logit of each candidate, or of each item, a chunk of pairs at a time."""
        graph = self._graph(query_window(queries, self.config.max_length, self.device))
        if items is None:
            items = torch.arange(self.num_items, device=self.device).expand(len(queries), -1)
        pairs = max(1, _CHUNK.get(self.device.type, _CHUNK["cpu"]) // graph.edges.shape[1] ** 2)
        columns = min(pairs, items.shape[1])
        rows = pairs // columns
        parts = []
        for first in range(0, len(queries), rows):
            some = Graph(*(part[first : first + rows] for part in graph))
            asked = items[first : first + rows].split(columns, dim=1)
            parts.append(torch.cat([self._judged(some, chunk) for chunk in asked], dim=1))
        return torch.cat(parts)


def _some(items: Tensor, number: int, rng: np.random.Generator) -> Tensor:
    """`number` random columns of each row (B, C), all of them if there are not more."""
    if items.shape[1] <= number:
        return items
    order = rng.random(tuple(items.shape)).argsort(axis=1)[:, :number]
    return items.gather(1, torch.as_tensor(order, device=items.device))
