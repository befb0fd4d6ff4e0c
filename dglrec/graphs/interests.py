"""Interest sub-graphs: which items of a user's history belong to one interest, and which of those are close (MDGR).

A history of n items is clustered into k interests; inside an interest, the most similar items are connected (MDGR,
section 3.4.1, Eq. 7-9). There are two forms of one thing: `dense_interests` gives tensors (B, n, n), as a model needs
them in each step, and `interests` makes of them a DGL graph of all users.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._dgl import dgl
from ..errors import ConfigError, DataError, closest
from .clustering import CHUNK_BYTES, Array, as_tensor, birch, kmeans, ward

METHODS = {"ward": ward, "kmeans": kmeans, "birch": birch}

Method = Literal["ward", "kmeans", "birch"]
Rank = Literal["clusters", "matrix", "pairs"]
RANKS: tuple[Rank, ...] = get_args(Rank)


class Interests(NamedTuple):
    """The interest sub-graphs of B users with up to n items each, as tensors.

    Attributes:
        cluster: (B, n) int64, the interest of each item, -1 where there is none.
        similarity: (B, n, n), L of Eq. 8 for all pairs; it carries gradients to vectors and weights.
        edges: (B, n, n) bool, A of Eq. 9 with self-loops: symmetric, and within clusters only.
    """

    cluster: Tensor
    similarity: Tensor
    edges: Tensor


def weighted_cosine(vectors: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over heads of the cosines of weighted vectors (MDGR Eq. 7 and 8).

    L_ij = 1/delta sum_q cos(w_q * v_i, w_q * v_j): one weight vector per head, the same for both ends (which Eq. 7
    writes W_i and W_j), so that L is symmetric. A vector of zeros is similar to nothing.

    Shapes: floating vectors (B, n, d), weight (delta, d), by default one head of ones -> (B, n, n).

    Raises:
        DataError: shapes that do not fit.
    """
    if vectors.ndim != 3 or (weight is not None and (weight.ndim != 2 or weight.shape[1] != vectors.shape[2])):
        seen = f"{tuple(vectors.shape)}" + ("" if weight is None else f" and weight {tuple(weight.shape)}")
        raise DataError(f"vectors have shape {seen}; expected (users, items, dimensions) and (heads, dimensions)")
    heads = vectors[:, :, None] if weight is None else vectors[:, :, None] * weight  # (B, n, delta, d)
    unit = F.normalize(heads, dim=3).flatten(2)  # (B, n, delta * d): one product sums over the heads
    similarity = torch.bmm(unit, unit.mT) / heads.shape[2]
    return (similarity + similarity.mT) / 2  # symmetric to the last bit


def sparsify(similarity: Tensor, cluster: Tensor, gamma: float, rank: Rank = "clusters") -> Tensor:
    """The most similar pairs within clusters, and self-loops (MDGR Eq. 9).

    The equation keeps A_ij where L_ij is at least the (gamma n^2)-th largest value of L; all pairs that tie with it
    stay. What is ranked can be read in three ways:

    * "clusters": of the p pairs of two items of one cluster, the ceil(gamma p) most similar ones.
    * "matrix": the ceil(gamma n^2) largest of all n^2 entries, diagonal (1 each) and pairs across clusters included;
      those across clusters are then dropped. With eight clusters hardly any pair within a cluster is, at gamma .5.
    * "pairs": of all pairs, the ceil(gamma p) most similar ones, and those across clusters stay, as in SURGE. Only then
      can the neighbours of an item move it into another cluster: along edges within clusters, clusters only contract.

    Shapes: similarity (B, n, n), symmetric; cluster (B, n) int64, -1 where there is no item -> (B, n, n) bool.

    Raises:
        ConfigError: gamma outside (0, 1], or another `rank`.

    >>> similarity = torch.tensor([[[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]]])
    >>> sparsify(similarity, torch.tensor([[0, 0, 0]]), gamma=0.5).int()
    tensor([[[1, 1, 0],
             [1, 1, 1],
             [0, 1, 1]]], dtype=torch.int32)
    """
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma is {gamma!r}; expected the share of pairs to keep, above 0 and at most 1")
    if rank not in RANKS:
        raise ConfigError(f"rank is {rank!r}; {closest(str(rank), RANKS)}")
    similarity = similarity.detach()
    n = cluster.shape[1]
    valid = cluster >= 0
    both = valid[:, :, None] & valid[:, None]  # (B, n, n)
    same = (cluster[:, :, None] == cluster[:, None]) & both
    loops = torch.eye(n, dtype=torch.bool, device=cluster.device)
    if n < 2 or len(cluster) == 0:
        return same & loops

    one, two = torch.triu_indices(n, n, 1, device=cluster.device).unbind()  # the P = n (n - 1) / 2 pairs
    pair = one * n + two
    ranked = same if rank == "clusters" else both
    ranked = ranked.flatten(1).index_select(1, pair)  # (B, P)
    value = similarity.flatten(1).index_select(1, pair).masked_fill_(~ranked, -torch.inf)
    pairs = ranked.sum(1)  # (B,)
    if rank != "matrix":
        kept = _share(gamma, pairs)
    else:  # the diagonal comes first; each pair is in the matrix twice
        number = valid.sum(1)
        kept = (_share(gamma, number * number) - number + 1) // 2
    largest = value.topk(max(int(kept.max()), 1), dim=1).values  # (B, K), sorted
    threshold = largest.gather(1, (kept - 1).clamp(min=0)[:, None])[:, 0]
    # Nothing but the diagonal is among the largest: its own value is the threshold.
    threshold = torch.where(kept > 0, threshold, 1.0)
    allowed = both if rank == "pairs" else same
    return (allowed & (similarity >= threshold[:, None, None])) | (loops & valid[:, None])


def _share(gamma: float, count: Tensor) -> Tensor:
    """ceil(gamma * count), not one more where the product is whole up to rounding."""
    return (gamma * count.double() - 1e-9).ceil().long()


def dense_interests(
    vectors: Array,
    k: int,
    gamma: float,
    mask: Array | None = None,
    *,
    method: Method = "ward",
    weight: Array | None = None,
    rank: Rank = "clusters",
) -> Interests:
    """The interest sub-graphs of B users as tensors, on the device of the vectors: what a model uses in each step.

    Args:
        vectors: (B, n, d); a tensor or a NumPy array, as are mask and weight.
        k: interests per user; a user with fewer items has one per item.
        gamma: share of pairs that become edges, see `sparsify`.
        mask: (B, n) bool, True where there is an item; everywhere by default.
        method: "ward", "kmeans" or "birch".
        weight: (delta, d) of `weighted_cosine`.
        rank: "clusters", "matrix" or "pairs", see `sparsify`.

    Raises:
        ConfigError: k below 1, gamma outside (0, 1], or an unknown method or `rank`.
        DataError: shapes that do not fit, or vectors that are not finite.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}; {closest(str(method), METHODS)}")
    vectors, weight = _floating(vectors), None if weight is None else as_tensor(weight, "weight")
    mask = None if mask is None else as_tensor(mask, "mask")
    cluster = METHODS[method](vectors, k, mask)
    if mask is not None:
        vectors = vectors.masked_fill(~mask[:, :, None], 0.0)
    similarity = weighted_cosine(vectors, weight)
    return Interests(cluster, similarity, sparsify(similarity, cluster, gamma, rank))


@torch.no_grad()
def interests(
    vectors: Array,
    lengths: Any,
    k: int = 8,
    gamma: float = 0.5,
    method: Method = "ward",
    *,
    weight: Array | None = None,
    rank: Rank = "clusters",
) -> Any:
    """The interest sub-graphs of many users as one DGL graph: item -`similar`-> item.

    A node is an item at its place in a history, so an item that a user repeats is several nodes. Nodes are in the
    order of users and, within a user, of the history; edges in the order of (user, source, target). Each pair is there
    in both directions, and each node has a loop. Node data: `cluster` (int64, from 0 within the user); edge data:
    `similarity` (float32). The graph is batched by user: `dgl.unbatch(graph)` gives one graph per user.

    Args:
        vectors: (T, d), the histories of all users one after the other, or (B, n, d), padded at the end; a tensor or a
            NumPy array, as are lengths and weight.
        lengths: (B,) integer, items of each user.
        k: interests per user; a user with fewer items has one per item.
        gamma: share of pairs that become edges, see `sparsify`.
        method: "ward", "kmeans" or "birch".
        weight: (delta, d) of `weighted_cosine`.
        rank: "clusters", "matrix" or "pairs", see `sparsify`.

    Returns:
        A `dgl.DGLGraph` on the CPU. Users are taken in blocks, which bounds what is held beside vectors and graph.

    Raises:
        ConfigError: k below 1, gamma outside (0, 1], or an unknown method or `rank`.
        DataError: lengths and vectors that do not fit, or vectors that are not finite.

    >>> graph = interests(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [3.0, 0.0]]), [3, 1], k=2, gamma=1.0)
    >>> [ends.tolist() for ends in graph.edges(etype="similar")], graph.nodes["item"].data["cluster"].tolist()
    ([[0, 0, 1, 1, 2, 3], [0, 1, 0, 1, 2, 3]], [0, 0, 1, 0])
    """
    vectors = _floating(vectors)
    sizes = _lengths(lengths, vectors)
    users, width = len(sizes), int(sizes.max()) if len(sizes) else 0
    starts = torch.cumsum(sizes, 0) - sizes  # (B,) first node of each user
    block = max(1, CHUNK_BYTES.get(vectors.device.type, CHUNK_BYTES["cpu"]) // max(40 * width * width, 1))

    clusters, sources, targets, values, numbers = [], [], [], [], []
    for first in range(0, users, block):
        size, start = sizes[first : first + block], starts[first : first + block]
        mask = (torch.arange(width) < size[:, None]).to(vectors.device)  # (b, width)
        if vectors.ndim == 3:
            some = vectors[first : first + block, :width]
        else:
            some = vectors.new_zeros(len(size), width, vectors.shape[1])
            some[mask] = vectors[int(start[0]) : int(start[-1] + size[-1])]
        found = dense_interests(some, k, gamma, mask, method=method, weight=weight, rank=rank)
        user, source, target = found.edges.nonzero().unbind(1)  # (E,) in the order of users
        values.append(found.similarity[user, source, target].float().cpu())
        clusters.append(found.cluster[mask].cpu())
        user = user.cpu()
        sources.append(source.cpu() + start[user])
        targets.append(target.cpu() + start[user])
        numbers.append(torch.bincount(user, minlength=len(size)))

    def joined(parts: list[Tensor], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.cat([torch.empty(0, dtype=dtype), *parts])

    relation = ("item", "similar", "item")
    ends = (joined(sources), joined(targets))
    graph = dgl.heterograph({relation: ends}, num_nodes_dict={"item": int(sizes.sum())})
    graph.nodes["item"].data["cluster"] = joined(clusters)
    graph.edges["similar"].data["similarity"] = joined(values, torch.float32)
    graph.set_batch_num_nodes({"item": sizes})
    graph.set_batch_num_edges({relation: joined(numbers)})
    return graph


def _floating(vectors: Array) -> Tensor:
    """Vectors as floating numbers, so that whole ones, such as counts, have cosines."""
    vectors = as_tensor(vectors, "vectors")
    return vectors if vectors.is_floating_point() else vectors.float()


def _lengths(lengths: Any, vectors: Tensor) -> Tensor:
    """(B,) int64 on the CPU, checked against the vectors."""
    given = np.asarray(lengths.cpu() if isinstance(lengths, Tensor) else lengths)
    if given.ndim != 1 or (len(given) and (given.dtype.kind not in "iu" or int(given.min()) < 0)):
        raise DataError(f"lengths hold {given.dtype} of shape {given.shape}; expected (users,) integers from 0")
    sizes = torch.as_tensor(given.astype(np.int64))
    shape = tuple(vectors.shape)
    if vectors.ndim == 2 and int(sizes.sum()) != shape[0]:
        raise DataError(f"lengths sum to {int(sizes.sum())}, but vectors have shape {shape}; expected a row per item")
    if vectors.ndim == 3 and (len(sizes) != shape[0] or bool((sizes > shape[1]).any())):
        raise DataError(
            f"{len(sizes)} lengths of at most {int(sizes.max()) if len(sizes) else 0}, but vectors have shape {shape}; "
            "expected (users, items, dimensions)"
        )
    if vectors.ndim not in (2, 3):
        raise DataError(f"vectors have shape {shape}; expected (items, dimensions) or (users, items, dimensions)")
    return sizes
