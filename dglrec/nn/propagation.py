"""LightGCN propagation (He et al., SIGIR 2020, Eq. 3, 7 and 8) over a user-item heterograph.

D^-1/2 A D^-1/2 x is computed as scale, sum over neighbours, scale: messages carry no weights, so that no E x d array is
ever made. `message_passing` does it by DGL and is the reference; `LightGCNEncoder` takes the CSR form of both relations
from the DGL graph once and sums over it with `embedding_bag`, on CPU and CUDA alike. As each relation is the other's
reverse, the gradient of one direction is the sum over the other.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._dgl import dgl
from ..data.splits import Queries


class Adjacency(nn.Module):
    """The unique user-item pairs of a DGL graph as CSR in both directions, with the scales of the normalisation.

    A module, so that a model which holds one moves it to its device; nothing of it is saved with the weights.

    Attributes:
        user_offsets, user_items: (U + 1,), (E,) int64: the items of each user.
        item_offsets, item_users: (M + 1,), (E,) int64: the users of each item.
        user_scale, item_scale: (U, 1), (M, 1) float32, degree^-1/2, and 0 for a node without edges.
    """

    user_offsets: Tensor
    user_items: Tensor
    item_offsets: Tensor
    item_users: Tensor
    user_scale: Tensor
    item_scale: Tensor

    def __init__(self, graph: Any, relation: str = "interacts") -> None:
        super().__init__()
        source, _, target = graph.to_canonical_etype(relation)
        num_users, num_items = graph.num_nodes(source), graph.num_nodes(target)
        user, item = graph.edges(order="eid", etype=relation)
        pairs = torch.unique(user.long() * max(num_items, 1) + item.long())  # sorted by (user, item), repeats merged
        user, item = pairs // max(num_items, 1), pairs % max(num_items, 1)
        by_item = torch.argsort(item, stable=True)
        user_degree, item_degree = torch.bincount(user, minlength=num_users), torch.bincount(item, minlength=num_items)
        for name, values in (
            ("user_offsets", _offsets(user_degree)),
            ("user_items", item),
            ("item_offsets", _offsets(item_degree)),
            ("item_users", user[by_item]),
            ("user_scale", _scale(user_degree)),
            ("item_scale", _scale(item_degree)),
        ):
            self.register_buffer(name, values, persistent=False)


def _offsets(degree: Tensor) -> Tensor:
    return torch.cat([degree.new_zeros(1), degree.cumsum(0)])


def _scale(degree: Tensor) -> Tensor:
    return torch.where(degree > 0, degree.clamp(min=1).float().rsqrt(), 0.0).unsqueeze(1)


class _SumOverNeighbours(torch.autograd.Function):
    """y[r] = sum of x[c] over the neighbours c of r; the gradient sums over the reverse relation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor, columns: Tensor, back_offsets: Tensor, back_columns: Tensor) -> Tensor:
        ctx.save_for_backward(back_offsets, back_columns)
        return F.embedding_bag(columns, x, offsets, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        offsets, columns = ctx.saved_tensors
        x_grad = F.embedding_bag(columns, grad.contiguous(), offsets, mode="sum", include_last_offset=True)
        return x_grad, None, None, None, None


class LightGCNEncoder(nn.Module):
    """Weight-free propagation: e^(l+1) = D^-1/2 A D^-1/2 e^(l) (Eq. 3, 7), then the mean of all layers (Eq. 4, 8).

    Args:
        layers: number of propagations L.
        combine: "mean" of layers 0..L, as in LightGCN, or the "last" layer alone.

    Shapes: users (U, d), items (M, d) -> users (U, d), items (M, d).
    """

    def __init__(self, layers: int = 2, combine: Literal["mean", "last"] = "mean") -> None:
        super().__init__()
        self.layers = layers
        self.combine = combine

    def with_layers(self, layers: int) -> LightGCNEncoder:
        """The same with another number of layers."""
        return LightGCNEncoder(layers, self.combine)

    def forward(self, graph: Any, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Propagate `x` = (users, items) over a DGL graph, or over an `Adjacency` taken from one before."""
        a = graph if isinstance(graph, Adjacency) else Adjacency(graph)
        users, items = x
        total_users, total_items = users, items
        for _ in range(self.layers):
            to_users = _SumOverNeighbours.apply(
                items * a.item_scale, a.user_offsets, a.user_items, a.item_offsets, a.item_users
            )
            to_items = _SumOverNeighbours.apply(
                users * a.user_scale, a.item_offsets, a.item_users, a.user_offsets, a.user_items
            )
            users, items = to_users * a.user_scale, to_items * a.item_scale
            total_users, total_items = total_users + users, total_items + items
        if self.combine == "last":
            return users, items
        return total_users / (self.layers + 1), total_items / (self.layers + 1)


def message_passing(graph: Any, x: tuple[Tensor, Tensor], layers: int = 2, combine: str = "mean") -> tuple[Tensor, Tensor]:
    """The same by DGL's own message passing (`copy_u`, `sum`) on a graph of unique pairs: the reference.

    `graph` is `user_item(..., unique=True)`; arguments and results are those of `LightGCNEncoder`.
    """
    users, items = x
    user_scale, item_scale = _scale(graph.out_degrees(etype="interacts")), _scale(graph.in_degrees(etype="interacts"))
    total_users, total_items = users, items
    with graph.local_scope():
        for _ in range(layers):
            graph.nodes["user"].data["h"], graph.nodes["item"].data["h"] = users * user_scale, items * item_scale
            copy_and_sum = (dgl.function.copy_u("h", "m"), dgl.function.sum("m", "sum"))
            graph.multi_update_all({"interacts": copy_and_sum, "interacted_by": copy_and_sum}, "sum")
            users = graph.nodes["user"].data["sum"] * user_scale
            items = graph.nodes["item"].data["sum"] * item_scale
            total_users, total_items = total_users + users, total_items + items
    if combine == "last":
        return users, items
    return total_users / (layers + 1), total_items / (layers + 1)


def fold_in(encoder: LightGCNEncoder, adjacency: Adjacency, x: tuple[Tensor, Tensor], queries: Queries) -> Tensor:
    """The propagated vector of each query's user, (B, d); an unknown user is folded in from the history.

    A folded-in user u has the query's history S (repeats merged) as neighbours and nothing of its own in layer 0:
    e_u^(l+1) = sum over i in S of e_i^(l) / sqrt(|S| d_i), with the items' layers as training left them. This is one
    step of propagation, normalised by the user's own degree; layer 0 is the mean of nothing, a zero vector.
    """
    users, items = encoder(adjacency, x)  # (U, d), (M, d)
    vectors = users[torch.as_tensor(queries.user, device=users.device).clamp(min=0)]  # (B, d)
    unknown = np.flatnonzero(queries.user < 0)
    if len(unknown) == 0:
        return vectors
    layers = encoder.layers
    if encoder.combine == "mean":  # sum of the items' layers 0..L-1
        before = encoder.with_layers(layers - 1)(adjacency, x)[1] * layers if layers else torch.zeros_like(items)
        divisor = layers + 1
    else:
        before, divisor = encoder.with_layers(layers - 1)(adjacency, x)[1] if layers else torch.zeros_like(items), 1
    asked = queries[unknown]
    row = np.repeat(np.arange(len(asked)), asked.lengths)
    pairs = torch.unique(torch.as_tensor(row * len(items) + asked.items, device=users.device))
    row_of, item = pairs // len(items), pairs % len(items)
    degree = torch.bincount(row_of, minlength=len(asked))
    scaled = before * adjacency.item_scale
    folded = F.embedding_bag(item, scaled, _offsets(degree), mode="sum", include_last_offset=True) * _scale(degree) / divisor
    return vectors.index_copy(0, torch.as_tensor(unknown, device=users.device), folded)
