"""Blocks of multi-interest models: padded windows, encodings of time and place, attention, weights and scores.

MDGR (Xiao et al.) builds on MIP (Shi et al., arXiv 2207.06652), and both are made of these parts; equation numbers are
MDGR's. A window is aligned at the right end of its row, so that the last column is each user's most recent item
and a column means the same place in every window, however wide the batch is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batches import Windows, days_since
from ..data.queries import Queries
from ..errors import DataError
from ..graphs import Sequences
from .dropout import Dropout

GAPS = 9  # number of `gap_buckets`


# --- Windows of unequal length ----------------------------------------------------------------------------------------


class Padded(NamedTuple):
    """B windows of up to n items, oldest first, filled up on the left.

    Attributes:
        items: (B, n) int64; item 0 where there is none.
        mask: (B, n) bool, True where there is an item; always in the last column.
        days: (B, n) float32, days from each user's first event; 0 where there is no item, and without times.
    """

    items: Tensor
    mask: Tensor
    days: Tensor


def pad(history: Sequences, first_time: Tensor | None = None) -> Padded:
    """Packed histories as one padded window each, as wide as the longest of them.

    Args:
        history: B packed histories, none of them empty; without times all days are 0.
        first_time: (B,) seconds of the users' first events, see `days_since`.

    Raises:
        DataError: a history is empty.
    """
    lengths = history.lengths
    if len(lengths) and int(lengths.min()) < 1:
        raise DataError(f"history {int(lengths.argmin())} is empty; expected at least one item")
    device, total, width = history.items.device, len(history.items), int(lengths.max(initial=0))
    sizes = torch.as_tensor(lengths, device=device)  # (B,)
    row = torch.repeat_interleave(torch.arange(len(history), device=device), sizes, output_size=total)
    # The packed row t of a sequence that ends at e is the (e - t)-th from the right.
    place = (row + 1) * width - history.offsets[1:][row] + torch.arange(total, device=device)  # (T,)

    def spread(values: Tensor) -> Tensor:
        """(T,) packed -> (B, n), 0 elsewhere."""
        flat = values.new_zeros(len(history) * width)
        return flat.index_copy(0, place, values).view(len(history), width)

    items = spread(history.items)
    mask = torch.arange(width, device=device) >= width - sizes[:, None]
    days = torch.zeros(items.shape, device=device)
    return Padded(items, mask, days if history.times is None else spread(days_since(history, first_time)))


def query_window(queries: Queries, max_length: int, device: torch.device) -> Padded:
    """The last `max_length` items of each query's history, padded; days count from the first known event."""
    offsets, items = torch.as_tensor(queries.offsets, device=device), torch.as_tensor(queries.items, device=device)
    times, first = queries.times, queries.first_time
    if times is not None and first is None and len(times):
        first = times[queries.offsets[:-1].clip(max=len(times) - 1)]  # histories begin with it
    history = Sequences(
        offsets, items, None if times is None else torch.as_tensor(times, device=device), queries.lengths
    )
    return pad(history.last(max_length), None if first is None else torch.as_tensor(first, device=device))


def batch_window(batch: Windows) -> Padded:
    """The inputs of a batch of windows, padded."""
    return pad(batch.history, batch.first_time)


def item_table(num_items: int, dim: int) -> nn.Embedding:
    """An item table with Kaiming-uniform values, U(-1/sqrt(d), 1/sqrt(d)), like those of torch's linear layers."""
    table = nn.Embedding(num_items, dim)
    nn.init.kaiming_uniform_(table.weight, a=math.sqrt(5))
    return table


# --- Encodings of time and place --------------------------------------------------------------------------------------


def sinusoid(values: Tensor, size: int = 8) -> Tensor:
    """Sines (even) and cosines (odd) of `values` over 10000^(2 i / size): the encodings of days and places (Eq. 3).

    Eq. 3 divides the exponent by d_m = 1, which would leave all but the first pair at sin 0 and cos 0; it is divided by
    the size here, as in the transformer that the equation is taken from.

    Shapes: any -> (..., size); the size is even.
    """
    rate = 10_000.0 ** (-torch.arange(0, size, 2, device=values.device) / size)  # (size / 2,)
    angle = values.unsqueeze(-1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def places(width: int, slots: int, device: torch.device) -> Tensor:
    """(n,) the place of each column of a padded window among `slots`: the most recent item is at slots - 1."""
    return torch.arange(slots - width, slots, device=device)


def gap_buckets(days: Tensor) -> Tensor:
    """How long before the last item each one was, as one-hot powers of two in days (MIP).

    Bucket 0 is less than a day, bucket g is 2^g - 1 days or more, the last one 255 days or more.

    Shapes: (B, n) -> (B, n, GAPS).

    >>> gap_buckets(torch.tensor([[0.0, 397.0, 399.5, 400.0]])).argmax(2)
    tensor([[8, 2, 0, 0]])
    """
    gap = (days[:, -1:] - days).abs()
    bucket = (gap + 1).log2().floor().clamp(max=GAPS - 1).long()  # (B, n)
    return (bucket.unsqueeze(-1) == torch.arange(GAPS, device=days.device)).to(days.dtype)


# --- From items to interests ------------------------------------------------------------------------------------------


class InterestAttention(nn.Module):
    """Multi-head attention whose values are the items themselves, and two layers that join the heads (Eq. 4-6).

    Only queries and keys are projected, each head to as many numbers as an item has. In MIP a query attends to its own
    cluster only, in MDGR to all items.

    Args:
        inputs: size of what queries and keys are made of.
        dim: size d of an item, and of each head, the hidden layer and the result.
        heads: number H of heads.
        bias: of queries and keys (Eq. 4 has one, MIP's code none).
        dropout: of the joined heads (Eq. 6).
        limit: logits are cut off above it, as MIP does at 10.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        heads: int = 8,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.limit = dim, heads, limit
        self.query = nn.Linear(inputs, heads * dim, bias=bias)
        self.key = nn.Linear(inputs, heads * dim, bias=bias)
        self.join = nn.Sequential(
            Dropout(dropout), nn.Linear(heads * dim, dim), nn.Tanh(), nn.Linear(dim, dim)
        )  # Eq. 6

    def forward(self, asks: Tensor, keys: Tensor, values: Tensor, allowed: Tensor) -> Tensor:
        """What each of m queries gathers from n items.

        Shapes: asks (B, m, inputs), keys (B, n, inputs), values (B, n, d), allowed (B, m, n) or (B, 1, n) bool with a
        True in each row -> (B, m, d).
        """
        q = self.query(asks).unflatten(2, (self.heads, self.dim)).transpose(1, 2)  # (B, H, m, d)
        k = self.key(keys).unflatten(2, (self.heads, self.dim)).transpose(1, 2)  # (B, H, n, d)
        logits = q @ k.mT / math.sqrt(self.dim)  # (B, H, m, n), Eq. 4
        if self.limit is not None:
            logits = logits.clamp(max=self.limit)
        weight = logits.masked_fill(~allowed.unsqueeze(1), -torch.inf).softmax(3)
        heads = weight @ values.unsqueeze(1)  # (B, H, m, d), Eq. 5
        joined: Tensor = self.join(heads.transpose(1, 2).flatten(2))
        return joined


def last_of_clusters(labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The most recent item of each of k clusters, and the members of its cluster (Eq. 14).

    A window with fewer clusters than k repeats that of its last item, which does not change a maximum over interests.

    Shapes: labels (B, n) int64, -1 where there is no item -> (B, k) int64 columns, (B, k, n) bool.

    >>> last, members = last_of_clusters(torch.tensor([[-1, 0, 1, 0]]), 3)
    >>> last.tolist(), members[0, 1].tolist()
    ([[3, 2, 3]], [False, False, True, False])
    """
    width = labels.shape[1]
    column = torch.arange(width, device=labels.device)
    own = labels.unsqueeze(1) == torch.arange(k, device=labels.device).view(1, k, 1)  # (B, k, n)
    last = torch.where(own, column, -1).amax(2)  # (B, k), -1 for an empty cluster
    last = torch.where(last < 0, width - 1, last)
    return last, labels.unsqueeze(1) == labels.gather(1, last).unsqueeze(2)


def take(vectors: Tensor, columns: Tensor) -> Tensor:
    """Rows of each window: (B, n, d), columns (B, k) int64 -> (B, k, d)."""
    return vectors.gather(1, columns.unsqueeze(2).expand(-1, -1, vectors.shape[2]))


def propagated(edges: Tensor, vectors: Tensor, hops: int) -> Tensor:
    """(D^-1/2 A D^-1/2)^hops x: what an item's neighbours in a dense graph have in common.

    Shapes: edges (B, n, n) bool, vectors (B, n, d) -> (B, n, d).

    >>> edges = torch.tensor([[[True, True], [True, True]]])
    >>> propagated(edges, torch.tensor([[[1.0], [3.0]]]), hops=2).round().tolist()
    [[[2.0], [2.0]]]
    """
    adjacency = edges.to(vectors.dtype)
    scale = adjacency.sum(2, keepdim=True).clamp(min=1).rsqrt()  # (B, n, 1)
    adjacency = adjacency * scale * scale.mT
    for _ in range(hops):
        vectors = adjacency @ vectors
    return vectors


class InterestWeight(nn.Module):
    """How much an interest counts, from two layers over it and the times of its items (Eq. 15).

    The input is [z_j ; 1[c_1 = j] t_1 ; ... ; 1[c_L = j] t_L], with zeros where an item belongs to another interest.
    That long row is never built: a place's part of the first layer is applied to its own item once, and each interest
    sums over its members.

    Args:
        dim: size d of an interest.
        features: size of what describes the time of an item, such as `sinusoid` or `gap_buckets` of its days.
        slots: places L in the longest window.
        hidden: size of the hidden layer.
        bounded: weights between 0 and 2, by twice a sigmoid. The softplus of Eq. 15 has no upper bound: weights grow
            until cosines that hardly differ give scores near 0 or 1, before the items' vectors have separated.
    """

    def __init__(self, dim: int, features: int, slots: int, hidden: int = 16, *, bounded: bool = False) -> None:
        super().__init__()
        self.dim, self.features, self.slots, self.bounded = dim, features, slots, bounded
        self.first = nn.Linear(dim + slots * features, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, interests: Tensor, features: Tensor, members: Tensor) -> Tensor:
        """Weights above 0.

        Shapes: interests (B, K, d), features (B, n, f) in the last n places, members (B, K, n) bool -> (B, K).
        """
        width = features.shape[1]
        of_interest, of_items = self.first.weight.split([self.dim, self.slots * self.features], dim=1)
        of_items = of_items.unflatten(1, (self.slots, self.features))[:, self.slots - width :]  # (h, n, f)
        each = torch.einsum("bnf,hnf->bnh", features, of_items)
        hidden = F.linear(interests, of_interest, self.first.bias) + members.to(each.dtype) @ each  # (B, K, h)
        weight = self.second(hidden.sigmoid()).squeeze(2)
        return 2 * weight.sigmoid() if self.bounded else F.softplus(weight)


# --- Scores and loss --------------------------------------------------------------------------------------------------


def augmented(vectors: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """[scale v / norm(v) ; bias]: its dot product with [p / norm(p) ; 1] is scale cos(v, p) + bias (Eq. 16).

    Shapes: vectors (..., d), scale and bias (...) or numbers -> (..., d + 1).
    """
    scale, bias = (torch.as_tensor(one, dtype=vectors.dtype, device=vectors.device) for one in (scale, bias))
    end = bias.expand(vectors.shape[:-1]).unsqueeze(-1)
    return torch.cat([F.normalize(vectors, dim=-1) * scale.expand(vectors.shape[:-1]).unsqueeze(-1), end], dim=-1)


def window_logits(queries: Tensor, candidates: Tensor) -> Tensor:
    """Largest dot product over the K vectors of a window: (B, K, d), (B, C, d) -> (B, C)."""
    return torch.bmm(queries, candidates.mT).amax(1)


def candidate_bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy, a mean over all candidates of all windows (Eq. 17): logits (B, P), (B, N) -> scalar.

    The sigmoid of the largest logit is the largest sigmoid, so that the maximum of Eq. 16 may be taken before it.
    """
    total = F.softplus(-positive.float()).sum() + F.softplus(negative.float()).sum()
    return total / (positive.numel() + negative.numel())
