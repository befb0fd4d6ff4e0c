"""LightGCN propagation (He et al., SIGIR 2020, Eq. 3, 7 and 8) over a user-item heterograph.

`message_passing` uses DGL and is the reference. `LightGCNEncoder` takes the CSR form of both relations from the
DGL graph once, normalises once, and sums over neighbours with `embedding_bag`, on both CPU and CUDA: no E x d array is
made. The normalised adjacency A is symmetric and propagation is a polynomial of it, so that the gradient is the same
polynomial of the gradient, and the layers in between need not be kept.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._dgl import dgl
from ..data.queries import Queries
from .keeping import Keeping


class Adjacency(nn.Module):
    """The unique user-item pairs of a DGL graph as CSR in both directions, with the scales of the normalisation.

    A module, so that a model which holds one moves it to its device; nothing of it is saved with the weights.

    Attributes:
        user_offsets, user_items: (U + 1,), (E,) int64: the items of each user.
        item_offsets, item_users: (M + 1,), (E,) int64: the users of each item.
        user_weight, item_weight: (E,) float32, (d_u d_i)^-1/2 of each pair, in the order of `user_items`, `item_users`.
        item_scale: (M, 1) float32, d_i^-1/2, and 0 for an item without users.
    """

    user_offsets: Tensor
    user_items: Tensor
    item_offsets: Tensor
    item_users: Tensor
    user_weight: Tensor
    item_weight: Tensor
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
        weight = (scales(user_degree)[user] * scales(item_degree)[item]).squeeze(1)
        for name, values in (
            ("user_offsets", pointers(user_degree)),
            ("user_items", item),
            ("item_offsets", pointers(item_degree)),
            ("item_users", user[by_item]),
            ("user_weight", weight),
            ("item_weight", weight[by_item]),
            ("item_scale", scales(item_degree)),
        ):
            self.register_buffer(name, values, persistent=False)

    def propagate(self, users: Tensor, items: Tensor, layers: int, mean: bool) -> tuple[Tensor, Tensor]:
        """A^L x, or the sum of A^l x over l = 0..L by Horner's rule: x + A (x + A (x + ...)), without a gradient."""
        new_users, new_items = users, items
        for _ in range(layers):
            new_users, new_items = (
                _weighted_sum(new_items, self.user_items, self.user_offsets, self.user_weight),
                _weighted_sum(new_users, self.item_users, self.item_offsets, self.item_weight),
            )
            if mean:
                new_users.add_(users)
                new_items.add_(items)
        return new_users, new_items

    def spares_work(self, rows: tuple[Tensor, Tensor]) -> bool:
        """Whether some users and items, each counted as often as listed, have fewer neighbours than all together."""
        user, item = _degrees(rows[0], self.user_offsets), _degrees(rows[1], self.item_offsets)
        return bool(user.sum() + item.sum() < 2 * len(self.user_items))

    def neighbour_sums(self, users: Tensor, items: Tensor, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A x at some users and items only."""
        return (
            _weighted_sum(items, *_rows(rows[0], self.user_items, self.user_offsets, self.user_weight)),
            _weighted_sum(users, *_rows(rows[1], self.item_users, self.item_offsets, self.item_weight)),
        )


def _weighted_sum(x: Tensor, columns: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """y[r] = sum over the columns c of row r of weight[r, c] x[c]; (C, d) -> (R, d)."""
    return F.embedding_bag(
        columns, x.detach(), offsets, mode="sum", include_last_offset=True, per_sample_weights=weight.to(x.dtype)
    )


def _rows(rows: Tensor, columns: Tensor, offsets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, offsets and weights of some rows of a CSR matrix."""
    degree = _degrees(rows, offsets)
    own = pointers(degree)
    shift = torch.repeat_interleave(offsets[rows] - own[:-1], degree)
    place = torch.arange(len(shift), device=rows.device) + shift
    return columns[place], own, weight[place]


def _degrees(rows: Tensor, offsets: Tensor) -> Tensor:
    """Numbers of columns of some rows of a CSR matrix."""
    return offsets[rows + 1] - offsets[rows]


def pointers(degree: Tensor) -> Tensor:
    """(n,) degrees -> (n + 1,) row pointers."""
    return torch.cat([degree.new_zeros(1), degree.cumsum(0)])


def scales(degree: Tensor) -> Tensor:
    """(n,) degrees -> (n, 1) their inverse square roots, 0 for a node without edges."""
    return torch.where(degree > 0, degree.clamp(min=1).float().rsqrt(), 0.0).unsqueeze(1)


class _Propagation(torch.autograd.Function):
    """All rows, or some, of the propagated tables. The gradient is propagation again, as A is symmetric.

    The last layer sums only over the neighbours of the wanted rows.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, adjacency: Adjacency, layers: int, mean: bool, *rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*rows)
        ctx.how = (adjacency, layers, mean)
        ctx.sizes = (len(users), len(items))
        divisor = layers + 1 if mean else 1
        if not rows:
            new_users, new_items = adjacency.propagate(users, items, layers, mean)
            return (new_users.div_(divisor), new_items.div_(divisor)) if layers else (users.clone(), items.clone())
        user_rows, item_rows = rows
        own_users, own_items = users[user_rows], items[item_rows]
        if layers == 0:
            return own_users, own_items
        before = adjacency.propagate(users, items, layers - 1, mean)
        new_users, new_items = adjacency.neighbour_sums(*before, (user_rows, item_rows))
        if mean:
            new_users, new_items = new_users.add_(own_users), new_items.add_(own_items)
        return new_users.div_(divisor), new_items.div_(divisor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        adjacency, layers, mean = ctx.how
        divisor = layers + 1 if mean else 1
        if ctx.saved_tensors:
            users, items = (
                grad.new_zeros(size, grad.shape[1]).index_add_(0, rows, grad, alpha=1 / divisor)
                for grad, size, rows in zip(grads, ctx.sizes, ctx.saved_tensors, strict=True)
            )
        else:
            users, items = (grad / divisor for grad in grads)
        return *adjacency.propagate(users, items, layers, mean), None, None, None, *(None for _ in ctx.saved_tensors)


class LightGCNEncoder(Keeping):
    """Weight-free propagation: e^(l+1) = D^-1/2 A D^-1/2 e^(l) (Eq. 3, 7), then the mean of all layers (Eq. 4, 8).

    Args:
        layers: number of propagations L.
        combine: "mean" of layers 0..L, as in LightGCN, or the "last" layer alone.

    Shapes: users (U, d), items (M, d) -> users (U, d), items (M, d); with `rows` = (users (A,), items (B,)) -> (A, d),
    (B, d), the propagated vectors of those rows, on a CPU for less work.
    """

    def __init__(self, layers: int = 2, combine: Literal["mean", "last"] = "mean") -> None:
        super().__init__()
        self.layers = layers
        self.combine = combine

    def forward(
        self, graph: Any, x: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Propagate `x` = (users, items) over a DGL graph, or over an `Adjacency` made from one."""
        adjacency = graph if isinstance(graph, Adjacency) else Adjacency(graph).to(x[0].device)
        if rows is not None and x[0].device.type == "cpu" and adjacency.spares_work(rows):
            return self._propagate(adjacency, *x, *rows)
        if rows is not None:  # they save nothing, or on a GPU may, but checking would wait for it
            users, items = self(adjacency, x)
            return F.embedding(rows[0], users), F.embedding(rows[1], items)
        return self.once("layers", (adjacency, *x), lambda: self._propagate(adjacency, *x))

    def items_before(self, adjacency: Adjacency, x: tuple[Tensor, Tensor]) -> Tensor:
        """(M, d): the items' vectors that the last propagation reads, layer L - 1 or the sum of layers 0 to L - 1."""
        if self.layers == 0:
            return torch.zeros_like(x[1])
        fewer, times = LightGCNEncoder(self.layers - 1, self.combine), self.layers if self.combine == "mean" else 1
        return self.once("before", (adjacency, *x), lambda: fewer(adjacency, x)[1] * times)

    def _propagate(self, adjacency: Adjacency, users: Tensor, items: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.combine == "mean"
        out: tuple[Tensor, Tensor] = _Propagation.apply(users, items, adjacency, self.layers, mean, *rows)  # type: ignore[no-untyped-call]
        return out


def message_passing(
    graph: Any, x: tuple[Tensor, Tensor], layers: int = 2, combine: str = "mean"
) -> tuple[Tensor, Tensor]:
    """The same with DGL's own message passing (`copy_u`, `sum`) on a graph of unique pairs: the reference.

    `graph` is `user_item(..., unique=True)`; arguments and results are those of `LightGCNEncoder`.
    """
    users, items = x
    user_scale, item_scale = scales(graph.out_degrees(etype="interacts")), scales(graph.in_degrees(etype="interacts"))
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
    """The propagated vector of each query's user, (B, d); a user without training pairs is folded in from the history.

    A folded-in user u has the query's history S (repeats merged, d_u items) as neighbours, and no layer 0 of its own:
    e_u^(l+1) = sum over i in S of e_i^(l) / sqrt(d_u d_i), with the items' layers as after training. This is one
    step of propagation, normalised by the user's own degree; layer 0 is the mean of nothing, a zero vector.
    """
    users, items = encoder(adjacency, x)  # (U, d), (M, d)
    user = torch.as_tensor(queries.user, device=users.device).clamp(min=0)
    vectors = users[user]  # (B, d)
    untrained = (_degrees(user, adjacency.user_offsets) == 0).cpu().numpy()
    unknown = np.flatnonzero((queries.user < 0) | untrained)
    if len(unknown) == 0:
        return vectors
    asked = queries[unknown]
    row = np.repeat(np.arange(len(asked)), asked.lengths)
    pairs = torch.unique(torch.as_tensor(row * len(items) + asked.items, device=users.device))
    row_of, item = pairs // len(items), pairs % len(items)
    degree = torch.bincount(row_of, minlength=len(asked))
    scaled = encoder.items_before(adjacency, x) * adjacency.item_scale
    sums = F.embedding_bag(item, scaled, pointers(degree), mode="sum", include_last_offset=True)
    folded = sums * scales(degree) / (encoder.layers + 1 if encoder.combine == "mean" else 1)
    return vectors.index_copy(0, torch.as_tensor(unknown, device=users.device), folded)
