"""Propagation over time slices (SelfGNN, Liu et al., SIGIR 2024; HardGNN, Eq. 1 and 2), all slices in one pass.

In slice t, z^(u) = LeakyReLU(A_t e^(v)) and z^(v) = LeakyReLU(A_t^T e^(u)) (Eq. 1), and e_l = z_l + e_(l-1) (Eq. 2).

`slice_message_passing` uses DGL and is the reference. `SliceEncoder` takes all slices from the DGL graph once, as
one block-diagonal matrix in CSR form over the (slice, node) pairs that have an edge at all; sums over neighbours are
`embedding_bag`, on both CPU and CUDA. Silent pairs are not part of the sums: their layers are all e_0. So the cost of
the sums is that of the edges, however many slices they are in, and no E x d array is made. The gradient is written by
hand: the sums are linear, and of the activations their signs are enough.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._dgl import dgl
from ..data.flat import Floats
from ..data.queries import Queries
from ..errors import ConfigError, DataError, closest
from ..graphs.time_slices import slice_names
from .propagation import pointers, scales

Norm = Literal["sum", "symmetric"]
Combine = Literal["sum", "mean", "last"]


class SliceAdjacency(nn.Module):
    """The unique user-item pairs of each time slice as one block-diagonal CSR matrix in both directions.

    A row is a pair (slice, node) that has an edge, A_u of users, A_i of items; columns are rows of the other side.
    A module, so that a model which holds one moves it to its device; nothing of it is saved with the weights.

    Args:
        graph: of `dglrec.graphs.time_slices`. Repeats within a slice are merged, as A_t holds 0 and 1 (Definition 1).

    Attributes:
        num_slices, num_users, num_items: T, U, M.
        user_nodes, item_nodes: (A_u,), (A_i,) int64, t U + u and t M + i of each row; they ascend.
        user_row, item_row: (T U,), (T M,) int64, the row of each pair, -1 where it is silent.
        user_offsets, user_columns: (A_u + 1,), (E,) int64: the items of each user.
        item_offsets, item_columns: (A_i + 1,), (E,) int64: the users of each item.
        by_item: (E,) int64, the edges of `item_columns` as places in `user_columns`.
        weight: (E,) float32, (d_u d_i)^-1/2 by degrees within the slice, in the order of `user_columns`.
    """

    user_nodes: Tensor
    item_nodes: Tensor
    user_row: Tensor
    item_row: Tensor
    user_offsets: Tensor
    user_columns: Tensor
    item_offsets: Tensor
    item_columns: Tensor
    by_item: Tensor
    weight: Tensor

    def __init__(self, graph: Any) -> None:
        super().__init__()
        names = slice_names(graph)
        self.num_slices = len(names)
        self.num_users, self.num_items = graph.num_nodes("user"), graph.num_nodes("item")
        num_items = max(self.num_items, 1)
        pairs = []
        for t, name in enumerate(names):
            user, item = graph.edges(order="eid", etype=name)
            pairs.append((t * self.num_users + user.long()) * num_items + item.long())
        pair = torch.unique(torch.cat(pairs))  # sorted by (slice, user, item), repeats merged
        user = pair // num_items  # (E,) t U + u
        item = user // max(self.num_users, 1) * self.num_items + pair % num_items  # (E,) t M + i
        user_nodes, users, user_degree = user.unique_consecutive(return_inverse=True, return_counts=True)
        item_nodes, items, item_degree = item.unique(return_inverse=True, return_counts=True)
        by_item = torch.argsort(items, stable=True)
        for name, values in (
            ("user_nodes", user_nodes),
            ("item_nodes", item_nodes),
            ("user_row", _places(user_nodes, self.num_slices * self.num_users)),
            ("item_row", _places(item_nodes, self.num_slices * self.num_items)),
            ("user_offsets", pointers(user_degree)),
            ("user_columns", items),
            ("item_offsets", pointers(item_degree)),
            ("item_columns", users[by_item]),
            ("by_item", by_item),
            ("weight", (scales(user_degree)[users] * scales(item_degree)[items]).squeeze(1)),
        ):
            self.register_buffer(name, values, persistent=False)

    def to_users(self, items: Tensor, weight: Tensor | None) -> Tensor:
        """Sums over the items of each user row: (A_i, d) -> (A_u, d), with weights in the order of `user_columns`."""
        return _neighbour_sum(items, self.user_columns, self.user_offsets, weight)

    def to_items(self, users: Tensor, weight: Tensor | None) -> Tensor:
        """Sums over the users of each item row: (A_u, d) -> (A_i, d), with weights in the order of `item_columns`."""
        return _neighbour_sum(users, self.item_columns, self.item_offsets, weight)


def _places(nodes: Tensor, size: int) -> Tensor:
    """(size,) the place of each number among `nodes`, -1 where it is none of them."""
    places = torch.arange(len(nodes), device=nodes.device)
    return nodes.new_full((size,), -1).index_copy(0, nodes, places)


def _connected(adjacency: SliceAdjacency, x: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Layer 0 of the pairs that have an edge: tables of users and items -> (A_u, d), (A_i, d)."""
    return tuple(
        table.flatten(0, -2)[own if table.ndim == 3 else own % max(len(table), 1)]
        for table, own in zip(x, (adjacency.user_nodes, adjacency.item_nodes), strict=True)
    )


def _edge_weights(adjacency: SliceAdjacency, norm: Norm, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """(E,) weights of the edges in the order of users and in that of items; none where all are 1."""
    if norm == "sum":
        return None, None
    weight = adjacency.weight.to(dtype)
    return weight, weight[adjacency.by_item]


def _neighbour_sum(x: Tensor, columns: Tensor, offsets: Tensor, weight: Tensor | None) -> Tensor:
    if len(columns) == 0:
        return x.new_zeros(len(offsets) - 1, x.shape[1])
    return F.embedding_bag(columns, x, offsets, mode="sum", include_last_offset=True, per_sample_weights=weight)


class _SlicePropagation(torch.autograd.Function):
    """All rows, or some, of the tables after propagation; `sides` are users and items throughout."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        adjacency: SliceAdjacency,
        layers: int,
        slope: float,
        combine: Combine,
        weights: tuple[Tensor | None, Tensor | None],
        *rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        slices = adjacency.num_slices
        nodes = (adjacency.user_nodes, adjacency.item_nodes)
        keep = any(ctx.needs_input_grad[:2]) and slope != 1
        x = _connected(adjacency, (users, items))
        total = x
        activated: list[Tensor] = []
        for _ in range(layers):
            sums = adjacency.to_users(x[1], weights[0]), adjacency.to_items(x[0], weights[1])
            z = [F.leaky_relu_(part, slope) for part in sums]  # Eq. 1
            activated += z if keep else []
            add = torch.add if keep else Tensor.add_
            x = tuple(add(part, own) for part, own in zip(z, x, strict=True))  # Eq. 2
            if combine != "last":
                total = tuple(part + own for part, own in zip(total, x, strict=True))
        if combine == "last":
            total = x
        factor = layers + 1 if combine == "sum" else 1  # of e_0 where a node is silent
        if combine == "mean":
            total = tuple(part / (layers + 1) for part in total)

        out = []
        for side, table in enumerate((users, items)):
            own = total[side]
            if not rows:
                full = (table * factor).expand(slices, *table.shape[-2:]).contiguous()  # (T, U, d)
                out.append(full.flatten(0, 1).index_copy_(0, nodes[side], own).view(full.shape))
                continue
            place = _row_places(adjacency, side, rows[side])  # (T, A)
            silent = table[..., rows[side], :] * factor  # (T, A, d) or (A, d)
            if len(own) == 0:
                out.append(silent.expand(slices, *silent.shape[-2:]).contiguous())
                continue
            out.append(torch.where((place >= 0)[:, :, None], own[place.clamp(min=0)], silent))
        ctx.save_for_backward(*activated, *rows, *(weight for weight in weights if weight is not None))
        ctx.how = (adjacency, layers, slope, combine, factor, len(activated), len(rows))
        ctx.shapes = (users.shape, items.shape)
        return out[0], out[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        adjacency, layers, slope, combine, factor, kept, number = ctx.how
        saved = list(ctx.saved_tensors)
        activated, rows, left = saved[:kept], saved[kept : kept + number], saved[kept + number :]
        weights = tuple(left) if left else (None, None)
        nodes = (adjacency.user_nodes, adjacency.item_nodes)
        sizes = (adjacency.num_users, adjacency.num_items)
        full = []  # (T U, d), (T M, d)
        for side, grad in enumerate(grads):
            if not rows:
                full.append(grad.flatten(0, 1))
                continue
            flat = _flat(rows[side], adjacency.num_slices, sizes[side])
            zeros = grad.new_zeros(adjacency.num_slices * sizes[side], grad.shape[-1])
            full.append(zeros.index_add_(0, flat, grad.flatten(0, 1)))
        direct = tuple(part[own] for part, own in zip(full, nodes, strict=True))  # what each layer gets from the output
        if combine == "mean":
            direct = tuple(part / (layers + 1) for part in direct)
        x = direct
        for layer in reversed(range(layers)):
            inner = x
            if kept:
                pair = activated[2 * layer : 2 * layer + 2]
                inner = tuple(
                    torch.ops.aten.leaky_relu_backward(part, z, slope, True) for z, part in zip(pair, x, strict=True)
                )
            sums = adjacency.to_users(inner[1], weights[0]), adjacency.to_items(inner[0], weights[1])
            x = tuple(part.add_(own) for part, own in zip(sums, x, strict=True))
            if combine != "last":
                x = tuple(part.add_(own) for part, own in zip(x, direct, strict=True))
        out = []
        for side, shape in enumerate(ctx.shapes):
            grad = full[side].mul_(factor) if rows else full[side] * factor  # of silent pairs; with rows it is a copy
            grad.index_copy_(0, nodes[side], x[side])
            out.append(grad.view(shape) if len(shape) == 3 else grad.view(adjacency.num_slices, *shape).sum(0))
        return *out, *(None for _ in range(5 + number))


def _flat(rows: Tensor, slices: int, size: int) -> Tensor:
    """(A,) nodes -> (T A,) t size + node."""
    return (torch.arange(slices, device=rows.device)[:, None] * size + rows).flatten()


def _row_places(adjacency: SliceAdjacency, side: int, rows: Tensor) -> Tensor:
    """(T, A) the row of each wanted pair, -1 where it is silent."""
    row, size = (adjacency.item_row, adjacency.num_items) if side else (adjacency.user_row, adjacency.num_users)
    return row[_flat(rows, adjacency.num_slices, size)].view(adjacency.num_slices, -1)


class SliceEncoder(nn.Module):
    """Short-term encoding of each time slice: z_l = LeakyReLU(A_t e_(l-1)) (Eq. 1), e_l = z_l + e_(l-1) (Eq. 2).

    Args:
        layers: number of propagations L.
        norm: "sum", plain sums over neighbours as the public code of SelfGNN computes them, or "symmetric", each edge
            weighted by (d_u d_i)^-1/2 within its slice, as in LightGCN.
        slope: of LeakyReLU below 0; .5 in the public code, not given in the paper. 1 is no activation.
        combine: what a slice's vectors are: the "sum" of layers 0..L (the public code; the paper does not say), their
            "mean", or the "last".

    Shapes: users (T, U, d), a table per slice, or (U, d), one for all slices; items (T, M, d) or (M, d) -> users
    (T, U, d), items (T, M, d); with `rows` = (users (A,), items (B,)) -> (T, A, d), (T, B, d), the vectors of those.
    """

    def __init__(
        self,
        layers: int = 2,
        norm: Norm = "sum",
        slope: float = 0.5,
        combine: Combine = "sum",
    ) -> None:
        super().__init__()
        for name, value, known in (("norm", norm, ("sum", "symmetric")), ("combine", combine, ("sum", "mean", "last"))):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}; {closest(str(value), known)}")
        if slope < 0:
            raise ConfigError(f"slope is {slope}; expected at least 0")
        self.layers, self.norm, self.slope, self.combine = layers, norm, slope, combine

    def forward(
        self, graph: Any, x: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Propagate `x` = (users, items) over a graph of `time_slices`, or a `SliceAdjacency` made from one.

        Raises:
            DataError: tables that do not fit the graph.
        """
        adjacency = graph if isinstance(graph, SliceAdjacency) else SliceAdjacency(graph).to(x[0].device)
        for what, table, size in zip(("users", "items"), x, (adjacency.num_users, adjacency.num_items), strict=True):
            shape = tuple(table.shape)
            if shape[:-1] not in ((size,), (adjacency.num_slices, size)):
                expected = f"({adjacency.num_slices}, {size}, d) or ({size}, d)"
                raise DataError(f"{what} have shape {shape}; expected {expected}, for the graph's slices and nodes")
        weights = _edge_weights(adjacency, self.norm, x[0].dtype)
        out: tuple[Tensor, Tensor] = _SlicePropagation.apply(  # type: ignore[no-untyped-call]
            *x, adjacency, self.layers, self.slope, self.combine, weights, *(rows or ())
        )
        return out

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"layers={self.layers}, norm={self.norm!r}, slope={self.slope}, combine={self.combine!r}"


def slice_message_passing(
    graph: Any,
    x: tuple[Tensor, Tensor],
    layers: int = 2,
    norm: Norm = "sum",
    slope: float = 0.5,
    combine: Combine = "sum",
) -> tuple[Tensor, Tensor]:
    """The same with DGL's own message passing (`multi_update_all` over the slices): the reference.

    `graph` is `time_slices(..., unique=True)`; the other arguments and the results are those of `SliceEncoder`.
    """
    names = slice_names(graph)
    kinds = ("user", "item")
    e = [table.expand(len(names), *table.shape[-2:]) for table in x]  # (T, U, d), (T, M, d)
    scale: list[Any] = [1.0, 1.0]
    if norm == "symmetric":
        scale[0] = torch.stack([scales(graph.out_degrees(etype=name)) for name in names]).to(e[0].dtype)  # (T, U, 1)
        scale[1] = torch.stack([scales(graph.in_degrees(etype=name)) for name in names]).to(e[1].dtype)
    total = list(e)
    with graph.local_scope():
        for _ in range(layers):
            for kind, table, own in zip(kinds, e, scale, strict=True):
                for t, rows in enumerate(table * own):
                    graph.nodes[kind].data[f"e{t}"] = rows
            # One name per slice, as DGL's "stack" orders slices by their names and leaves silent ones out.
            passing: dict[str, Any] = {}
            for t, name in enumerate(names):
                copy_and_sum = (dgl.function.copy_u(f"e{t}", "m"), dgl.function.sum("m", f"z{t}"))
                passing |= {name: copy_and_sum, f"{name}_by": copy_and_sum}
            graph.multi_update_all(passing, "sum")
            for side, kind in enumerate(kinds):
                data = graph.nodes[kind].data
                z = [data.get(f"z{t}", torch.zeros_like(rows)) for t, rows in enumerate(e[side])]
                e[side] = F.leaky_relu(torch.stack(z) * scale[side], slope) + e[side]
                total[side] = total[side] + e[side]
    if combine == "last":
        return e[0], e[1]
    divisor = layers + 1 if combine == "mean" else 1
    return total[0] / divisor, total[1] / divisor


def item_layers(encoder: SliceEncoder, adjacency: SliceAdjacency, x: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The items' layers 1 to L - 1 of the pairs that have an edge, (A_i, d) each, in one pass."""
    weights = _edge_weights(adjacency, encoder.norm, x[0].dtype)
    e, layers = _connected(adjacency, x), []
    for _ in range(encoder.layers - 1):
        sums = adjacency.to_users(e[1], weights[0]), adjacency.to_items(e[0], weights[1])
        e = tuple(F.leaky_relu(part, encoder.slope) + own for part, own in zip(sums, e, strict=True))
        layers.append(e[1])
    return layers


def fold_in_slices(
    encoder: SliceEncoder,
    adjacency: SliceAdjacency,
    x: tuple[Tensor, Tensor],
    queries: Queries,
    boundaries: Floats,
    layers: list[Tensor] | None = None,
) -> Tensor:
    """(T, B, d): the slice vectors of B users who are not in training, from their items in each slice.

    Such a user has its own items of the slice (repeats merged) as neighbours and no vector of its own in layer 0:
    z_l = LeakyReLU(sum of e_(l-1) of these items), e_l = z_l + e_(l-1), e_0 = 0, with the items' layers as after
    training. With norm "symmetric" the sum is weighted by the user's own degree, and by the items' in training. In a
    slice without items the user is 0.

    Args:
        encoder, adjacency, x: as in training.
        queries: their histories; without times all items are in the last slice.
        boundaries: (T - 1,) seconds, as of `graphs.slice_boundaries`.
        layers: `item_layers` of the first three arguments, the expensive part, if they are known already.
    """
    layers = item_layers(encoder, adjacency, x) if layers is None else layers
    slices, num_items, size = adjacency.num_slices, adjacency.num_items, len(queries)
    t = np.full(len(queries.items), slices - 1)
    if queries.times is not None:
        t = np.searchsorted(boundaries, queries.times, side="right")
    user = np.repeat(np.arange(size), queries.lengths)
    events = torch.as_tensor((t * size + user) * num_items + queries.items, device=x[1].device)
    pair = torch.unique(events)  # sorted by (slice, user, item), repeats merged
    node = pair // num_items  # (E,) t size + u
    degree = torch.bincount(node, minlength=slices * size)  # (T size,)
    column = node // max(size, 1) * num_items + pair % num_items  # (E,) t M + i
    columns, place = torch.unique(column, return_inverse=True)  # (n,), (E,)
    row = adjacency.item_row[columns]  # -1 where training has no edge
    weight = None
    if encoder.norm == "symmetric":
        item_degree = adjacency.item_offsets.diff()
        known = item_degree[row.clamp(min=0)] * (row >= 0) if len(item_degree) else torch.zeros_like(row)
        weight = (scales(degree)[node] * scales(known)[place]).squeeze(1).to(x[1].dtype)
    first = x[1].expand(slices, *x[1].shape[-2:])[columns // num_items, columns % num_items]  # (n, d), e_0
    e = x[1].new_zeros(slices * size, x[1].shape[-1])
    total = e
    for layer in range(encoder.layers):
        before = first
        if layer and len(layers[layer - 1]):
            before = torch.where((row >= 0)[:, None], layers[layer - 1][row.clamp(min=0)], first)
        z = _neighbour_sum(before, place, pointers(degree), weight)
        e = F.leaky_relu(z, encoder.slope) + e
        total = total + e
    out = {"sum": total, "mean": total / (encoder.layers + 1), "last": e}[encoder.combine]
    return out.view(slices, size, -1)
